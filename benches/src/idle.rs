//! Tens of thousands of relayed sessions in IDLE. Their clients live in processes of their own: one process may not have so many descriptors.

use std::{
    io::{BufRead, BufReader, Write, stdin, stdout},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{
    cluster::{Cluster, Demo},
    process::{Guarded, Process},
    site::{PASSWORD, User},
    wait,
};

use crate::{client::Client, servers::placed_on, usage};

/// Sessions of one user: below `limits.sessions_per_user`.
const SESSIONS_PER_USER: usize = 50;
/// Descriptors of a node beside its connections: indexes of open accounts, and whatever else.
const DESCRIPTORS_BESIDE: u64 = 900;
/// Users who get a message once all sessions are open.
const MESSAGES: usize = 20;
/// How long one step of the clients may take; nothing but what hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Raises the limit of descriptors as far as it goes; the nodes inherit it. What is left for a node's connections.
fn descriptors() -> Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("can't raise the limit of open files")?;
    }
    Ok(maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum.saturating_sub(DESCRIPTORS_BESIDE)).unwrap_or(usize::MAX)))
}

/// Opens the sessions and prints what they take; `watched`: how long nothing happens.
pub fn measure(sessions: usize, watched: Duration) -> Result<()> {
    let possible = descriptors()?;
    let both_ways = sessions > possible;
    ensure!(
        sessions <= 2 * possible,
        "{sessions} sessions need more descriptors than two nodes may have here (ulimit -Hn): {}",
        2 * possible
    );
    // Users fall on the nodes by lot: more of them than are needed.
    let users = sessions.div_ceil(SESSIONS_PER_USER) * if both_ways { 5 } else { 10 } / 4 + 20;
    let cluster = Cluster::start(&Demo { nodes: 2, users, dir: None })?;
    let [first, second] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes were asked for") };
    let (far, near) = (placed_on(&cluster, &second.doors.name)?, placed_on(&cluster, &first.doors.name)?);
    // Two processes of clients, each with half of the sessions.
    let half = sessions / 2;
    let share = half.div_ceil(SESSIONS_PER_USER);
    let places = if both_ways {
        ensure!(far.len() >= share && near.len() >= share, "too few users on one of the nodes: {} and {}", near.len(), far.len());
        [(&first.doors.imap, &far[..share]), (&second.doors.imap, &near[..share])]
    } else {
        ensure!(far.len() >= 2 * share, "only {} users are on the second node", far.len());
        [(&first.doors.imap, &far[..share]), (&first.doors.imap, &far[share..2 * share])]
    };
    let mut clients = [Clients::start(places[0].0, places[0].1)?, Clients::start(places[1].0, places[1].1)?];
    let nodes = [first.process, second.process];

    // Every user's account is open, and every pool filled, before anything is measured.
    all(&mut clients, &format!("open {share}"))?;
    let before = memory_of(nodes)?;
    let started = wait::now();
    all(&mut clients, &format!("open {}", half - share))?;
    let took = started.elapsed();
    let after = memory_of(nodes)?;
    let busy = usage::each_cpu(&nodes)?;
    thread::sleep(watched);
    let still_busy = usage::each_cpu(&nodes)?;

    let way = if both_ways { "half of them each way, as one node may not have so many descriptors" } else { "all through the first node" };
    println!("{} relayed sessions in IDLE of {} users, {way}; the last {} opened in {took:.1?}", 2 * half, 2 * share, 2 * (half - share));
    let mut sum = 0;
    for (index, name) in
        [if both_ways { "first node" } else { "ingress" }, if both_ways { "second node" } else { "holder" }].into_iter().enumerate()
    {
        let grown = after[index].saturating_sub(before[index]) / (2 * (half - share)).max(1) as u64;
        sum += grown;
        println!(
            "{name}: {:.1} KiB a session, {:.0} MiB in all, {:.2} % of one CPU in {watched:?} of silence",
            grown as f64 / 1024.0,
            after[index] as f64 / 1_048_576.0,
            still_busy[index].saturating_sub(busy[index]).as_secs_f64() / watched.as_secs_f64() * 100.0
        );
    }
    println!("both nodes together: {:.1} KiB a session", sum as f64 / 1024.0);
    push(&cluster, &mut clients, [places[0].1, places[1].1])
}

/// Delivers to some users, and waits until all their sessions have heard of it.
fn push(cluster: &Cluster, clients: &mut [Clients; 2], users: [&[User]; 2]) -> Result<()> {
    let mut lmtp = Client::lmtp(&cluster.nodes[0].doors.lmtp)?;
    let (mut told, mut slowest) = (0, Duration::ZERO);
    for number in 0..MESSAGES {
        let side = number % 2;
        // Users far apart, so that their sessions are of all ages.
        let user = &users[side][number * users[side].len() / MESSAGES];
        let started = wait::now();
        lmtp.deliver(&user.address(), b"Subject: ping\r\n\r\nping\r\n.\r\n")?;
        told += clients[side].ask(&format!("expect {}", user.name))?;
        slowest = slowest.max(started.elapsed());
    }
    ensure!(told > 0, "nobody was to hear of anything");
    println!(
        "{MESSAGES} messages by LMTP: all {told} sessions of their users were told, the slowest {:.1} ms after DATA",
        slowest.as_secs_f64() * 1000.0
    );
    Ok(())
}

fn memory_of(nodes: [Process; 2]) -> Result<[u64; 2]> {
    Ok([usage::settled_bytes(&nodes[..1])?, usage::settled_bytes(&nodes[1..])?])
}

fn all(clients: &mut [Clients; 2], command: &str) -> Result<()> {
    clients.iter_mut().try_for_each(|clients| clients.say(command))?;
    clients.iter_mut().try_for_each(|clients| clients.answer().map(drop))
}

/// A process with many clients of one door.
struct Clients {
    // Asked for what it does through these; it ends with the first.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    process: Guarded,
}

impl Clients {
    fn start(door: &str, users: &[User]) -> Result<Clients> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Guarded::start("clients", &mut command)?;
        let input = process.child().stdin.take().context("no pipe")?;
        let output = BufReader::new(process.child().stdout.take().context("no pipe")?);
        let mut clients = Clients { input: Some(input), output, process };
        clients.say(door)?;
        clients.say(&users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(" "))?;
        Ok(clients)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("closed")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    fn answer(&mut self) -> Result<usize> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        self.process.check_running()?;
        line.trim().parse().with_context(|| format!("the clients said {line:?}"))
    }

    fn ask(&mut self, line: &str) -> Result<usize> {
        self.say(line)?;
        self.answer()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.input = None;
        let ended = wait::until("the clients' end", PATIENCE, || self.process.child().try_wait()?.context("they still run"));
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
    }
}

/// Holds sessions as it is told on standard input: a door, the users, then `open <n>` and `expect <user>`; each is answered by how many sessions it was.
pub fn hold() -> Result<()> {
    descriptors()?;
    let mut lines = stdin().lock().lines();
    let door = lines.next().context("no door")??;
    let users: Vec<String> = lines.next().context("no users")??.split(' ').map(str::to_owned).collect();
    let mut sessions: Vec<(usize, Client)> = Vec::new();
    for line in lines {
        let line = line?;
        let done = match line.split_once(' ') {
            Some(("open", count)) => {
                let count = count.parse()?;
                for _ in 0..count {
                    let number = sessions.len() % users.len();
                    sessions.push((number, open(&door, &users[number]).with_context(|| format!("session {}", sessions.len()))?));
                }
                count
            }
            Some(("expect", user)) => {
                let mut told = 0;
                for (_, session) in sessions.iter_mut().filter(|(number, _)| users[*number] == user) {
                    while !session.text_line()?.ends_with(" EXISTS\r\n") {}
                    session.shrink();
                    told += 1;
                }
                told
            }
            _ => anyhow::bail!("what is {line:?}?"),
        };
        writeln!(stdout(), "{done}")?;
        stdout().flush()?;
    }
    Ok(())
}

fn open(door: &str, user: &str) -> Result<Client> {
    let mut client = Client::login(door, None, user, PASSWORD)?;
    client.command("SELECT INBOX")?;
    client.idle()?;
    client.shrink();
    Ok(client)
}
