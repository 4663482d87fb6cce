//! `bench-relay`: what relaying costs. Memory and CPU of many idle IMAP sessions on both nodes; FETCHes through the holder's own door and through the
//! other node's, with the CPU time of each party.

use std::{fs, process, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use benches::{client::Client, corpus, usage};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tests::{
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    process::Process,
    site::User,
    wait,
};

#[derive(Debug, Parser)]
#[command(about = "Measures what relaying sessions between two nodes costs")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sessions in IDLE: memory of each on both nodes, and CPU while nothing happens.
    Idle {
        /// Sessions; each takes one descriptor here and one on the first node. As many as those permit, if fewer.
        #[arg(long, default_value_t = 20_000)]
        sessions: usize,
    },
    /// Whole messages, direct and relayed: MB/s, and CPU time of one MB for the client and each node.
    Fetch {
        /// Connections at once.
        #[arg(long, default_values_t = [1, 64])]
        connections: Vec<usize>,
        /// MB that all connections together fetch in one round.
        #[arg(long, default_value_t = 1_000)]
        megabytes: usize,
        /// Rounds, direct and relayed by turns; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Through TLS.
        #[arg(long)]
        tls: bool,
    },
}

/// Sessions of one user: below `limits.sessions_per_user`.
const SESSIONS_PER_USER: usize = 50;
/// How long idle CPU is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Descriptors of a node beside its connections.
const DESCRIPTORS_BESIDE: u64 = 900;
/// Users of whom some are held by either node.
const USERS: usize = 12;
/// The messages: bytes, and how many a mailbox has.
const SHAPES: [(usize, usize); 2] = [(1024 * 1024, 10), (12 * 1024, 400)];

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Idle { sessions } => idle(sessions),
        What::Fetch { connections, megabytes, rounds, tls } => fetch(&connections, megabytes, rounds, tls),
    }
}

/// Raises the limit of descriptors as far as it goes; the nodes inherit it. What is left for connections.
fn descriptors() -> Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("can't raise the limit of open files")?;
    }
    Ok(maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum.saturating_sub(DESCRIPTORS_BESIDE)).unwrap_or(usize::MAX)))
}

fn idle(wanted: usize) -> Result<()> {
    let possible = descriptors()?;
    let count = wanted.min(possible);
    if count < wanted {
        eprintln!("{wanted} sessions need more descriptors than one process may have here (ulimit -Hn): {count} are opened");
    }
    // About half of the users are placed on the other node.
    let cluster = Cluster::start(&Demo { nodes: 2, users: count.div_ceil(SESSIONS_PER_USER) * 5 / 2 + 10, dir: None })?;
    let [ingress, holder] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes were asked for") };
    let far = users_of(&cluster, &holder.doors.name)?;
    ensure!(far.len() * SESSIONS_PER_USER >= count, "only {} users are on the other node", far.len());
    let open = |number: usize| -> Result<Client> {
        let user = far.get(number % far.len()).context("nobody is on the other node")?;
        let mut client = Client::login(&ingress.doors.imap, None, &user.name, &user.password)?;
        client.command("SELECT INBOX")?;
        client.idle()?;
        client.shrink();
        Ok(client)
    };
    let nodes = [ingress.process, holder.process];
    // Every user's account is open, and every pool filled, before anything is measured.
    let warm = (0..far.len()).map(open).collect::<Result<Vec<_>>>()?;
    let before = memory_of(nodes)?;
    let started = wait::now();
    let sessions = (0..count - warm.len().min(count))
        .map(|number| open(number).with_context(|| format!("session {number}")))
        .collect::<Result<Vec<_>>>()?;
    let took = started.elapsed();
    let after = memory_of(nodes)?;
    let busy = cpu_of(&nodes)?;
    thread::sleep(WATCHED);
    let still_busy = cpu_of(&nodes)?;
    println!("{} relayed sessions in IDLE, {} users, opened in {took:.1?}", warm.len() + sessions.len(), far.len());
    for (index, name) in ["ingress", "holder"].into_iter().enumerate() {
        let bytes = after[index].saturating_sub(before[index]) / sessions.len().max(1) as u64;
        let used = still_busy[index].saturating_sub(busy[index]);
        println!(
            "{name}: {:.1} KiB a session, {:.0} MiB in all, {:.2} % of one CPU in {WATCHED:?} of silence",
            bytes as f64 / 1024.0,
            after[index] as f64 / 1_048_576.0,
            used.as_secs_f64() / WATCHED.as_secs_f64() * 100.0
        );
    }
    drop((warm, sessions));
    Ok(())
}

/// One round of fetching.
#[derive(Clone, Copy)]
struct Round {
    megabytes_per_second: f64,
    /// CPU ms of one MB: client, ingress, holder.
    cpu: [f64; 3],
}

fn fetch(connections: &[usize], megabytes: usize, rounds: usize, tls: bool) -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: USERS, dir: None })?;
    let [ingress, holder] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes were asked for") };
    let far = users_of(&cluster, &holder.doors.name)?;
    let near = users_of(&cluster, &ingress.doors.name)?;
    let (direct, relayed) = (near.first().context("nobody is on the first node")?, far.first().context("nobody is on the second node")?);
    let address = if tls { &ingress.doors.imaps } else { &ingress.doors.imap };
    println!(
        "| messages | connections | direct MB/s | relayed MB/s | ratio | CPU ms of one MB, direct: client, node | relayed: client, ingress, holder |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (index, (bytes, count)) in SHAPES.into_iter().enumerate() {
        let mailbox = format!("shape{index}");
        for user in [direct, relayed] {
            let mut client = Client::login(&ingress.doors.imap, None, &user.name, &user.password)?;
            client.command(&format!("CREATE {mailbox}"))?;
            for _ in 0..count {
                client.append(&mailbox, &corpus::large(bytes))?;
            }
        }
        for &connections in connections {
            let each = (megabytes * 1_000_000 / connections).div_ceil(bytes * count).max(1);
            let run = |user: &User| one_round(address, tls, user, &mailbox, connections, each, [ingress.process, holder.process]);
            run(direct)?;
            run(relayed)?;
            let mut results: [Vec<Round>; 2] = Default::default();
            for _ in 0..rounds {
                results[0].push(run(direct)?);
                results[1].push(run(relayed)?);
            }
            let [direct, relayed] = results.map(median);
            println!(
                "| {} KiB | {connections} | {:.0} | {:.0} | {:.2} | {:.2}, {:.2} | {:.2}, {:.2}, {:.2} |",
                bytes / 1024,
                direct.megabytes_per_second,
                relayed.megabytes_per_second,
                relayed.megabytes_per_second / direct.megabytes_per_second,
                direct.cpu[0],
                direct.cpu[1],
                relayed.cpu[0],
                relayed.cpu[1],
                relayed.cpu[2]
            );
        }
    }
    Ok(())
}

fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.megabytes_per_second.total_cmp(&b.megabytes_per_second));
    rounds[rounds.len() / 2]
}

fn one_round(address: &str, tls: bool, user: &User, mailbox: &str, connections: usize, each: usize, nodes: [Process; 2]) -> Result<Round> {
    let config = if tls { Some(tests::tls::trusting_client()?) } else { None };
    let open = || -> Result<Client> {
        let mut client = Client::login(address, config.as_ref(), &user.name, &user.password)?;
        client.command(&format!("SELECT {mailbox}"))?;
        Ok(client)
    };
    let clients = (0..connections).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let parties = [Process::from_raw(i64::from(process::id()))?, nodes[0], nodes[1]];
    let before = cpu_of(&parties)?;
    let started = wait::now();
    let fetching: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || -> Result<u64> {
                let mut bytes = 0;
                for _ in 0..each {
                    bytes += client.command("FETCH 1:* BODY.PEEK[]")?.bytes;
                }
                Ok(bytes)
            })
        })
        .collect();
    let mut bytes = 0;
    for fetching in fetching {
        bytes += fetching.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = cpu_of(&parties)?;
    let megabytes = bytes as f64 / 1e6;
    let cpu = |party: usize| after[party].saturating_sub(before[party]).as_secs_f64() * 1000.0 / megabytes;
    Ok(Round { megabytes_per_second: megabytes / seconds, cpu: [cpu(0), cpu(1), cpu(2)] })
}

/// Logs everybody in once, so that each has a holder, and gives those of one node.
fn users_of(cluster: &Cluster, node: &str) -> Result<Vec<User>> {
    for user in &cluster.users {
        Imap::login(&cluster.nodes[0].doors.imap, &user.name, &user.password)?.logout()?;
    }
    let said: Value = serde_json::from_str(&cluster.command(&["who", "--json", "--node", node])?)?;
    let held = said["held"].as_array().context("no leases in what berth who says")?;
    let is_there = |user: &&User| held.iter().any(|held| held["user"] == user.name.as_str() && held["node"] == node);
    Ok(cluster.users.iter().filter(is_there).cloned().collect())
}

fn memory_of(nodes: [Process; 2]) -> Result<[u64; 2]> {
    Ok([usage::settled_bytes(&nodes[..1])?, usage::settled_bytes(&nodes[1..])?])
}

/// CPU time of each process alone, user and system.
fn cpu_of(processes: &[Process]) -> Result<Vec<Duration>> {
    let used = |process: &Process| -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
        let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / usage::TICKS_PER_SECOND))
    };
    processes.iter().map(used).collect()
}
