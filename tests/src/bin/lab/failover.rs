//! `cargo lab failover`: how long clients wait when something breaks, seen from outside.
//!
//! Each round a user has a holder, an idle session through another node, and then the fault. At that moment two clients ask through two
//! nodes that are not the holder: one logs in, selects and stores; one delivers message after message, as Postfix does: over one connection, each once,
//! patient with the reply to DATA. Every error a client sees is counted; a client tries again after it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    clients::{imap::Imap, lmtp::Lmtp},
    lab::{self, Cluster, Lab, Node, PASSWORD, Plan},
    wait,
};

use crate::{chaos::pause, fresh};

/// After so long, a client is not served any more.
const LIMIT: Duration = Duration::from_secs(90);
/// How long Postfix waits for the reply to a message (`lmtp_data_done_timeout`).
const POSTFIX_PATIENCE: Duration = Duration::from_secs(600);
/// Messages that are delivered before the fault, and after service is back.
const BEFORE_AND_AFTER: usize = 3;
/// How long the file server is away, its boot included.
const OUTAGE: Duration = Duration::from_secs(30);
/// About as long as its boot takes.
const BOOT: Duration = Duration::from_secs(8);
/// How long a client waits after an error.
const RETRY: Duration = Duration::from_millis(50);

/// What happens to the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash,
    CrashAndRestart,
    Power,
    CutFromNfs,
    Pause,
    Drain,
    Leave,
    ServerReboot,
}

const FAULTS: [(Fault, &str, &str); 8] = [
    (Fault::Crash, "crash", "process crash, not restarted"),
    (Fault::CrashAndRestart, "restart", "process crash, restarted at once"),
    (Fault::Power, "power", "host loses power"),
    (Fault::CutFromNfs, "cut", "host cut from the NFS server"),
    (Fault::Pause, "pause", "host hangs"),
    (Fault::Drain, "drain", "planned drain (`berth drain`)"),
    (Fault::Leave, "leave", "planned end (SIGTERM)"),
    (Fault::ServerReboot, "nfs", "NFS server crashes and boots again"),
];

/// What clients saw in one round.
struct Seen {
    login: Duration,
    /// The longest that one message waited for its 250.
    delivery: Duration,
    login_errors: Vec<String>,
    delivery_errors: Vec<String>,
    idle_ended: bool,
    server_away: Duration,
}

/// Runs every fault `rounds` times and prints the table.
pub fn run(rounds: usize, only: Option<&str>) -> Result<bool> {
    lab::enter()?;
    let lab = Lab::attach()?;
    let users = rounds * FAULTS.len();
    let cluster = lab.start(&fresh("failover"), &Plan { users, ..Plan::default() })?;
    println!(
        "| event | rounds | login + SELECT + STORE: median / worst | delivery: median / worst | errors: logins, deliveries | idle sessions ended |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut user = 0;
    for (fault, name, what) in FAULTS.iter().filter(|(_, name, _)| only.is_none_or(|only| only.split(',').any(|one| one == *name))) {
        let mut seen = Vec::new();
        for round in 0..rounds {
            user += 1;
            let one =
                self::round(&lab, &cluster, *fault, &format!("user{user}")).with_context(|| format!("{name}, round {}", round + 1))?;
            eprintln!(
                "{name}: login {:.2?}, delivery {:.2?}, idle session ended: {}, server away {:.1?}; errors {:?} {:?}",
                one.login, one.delivery, one.idle_ended, one.server_away, one.login_errors, one.delivery_errors
            );
            seen.push(one);
        }
        println!("{}", line(what, &seen));
    }
    lab.kill_all(cluster.nodes.len())?;
    Ok(true)
}

fn round(lab: &Lab, cluster: &Cluster, fault: Fault, user: &str) -> Result<Seen> {
    lab.wait_acquainted(cluster)?;
    let first = cluster.nodes.first().context("no nodes")?;
    first.open(user)?.logout()?;
    let holder = lab.holder(cluster, user)?;
    let node = cluster.nodes.get(holder).context("no holder")?;
    let others: Vec<&Node> = cluster.nodes.iter().filter(|other| other.name != node.name).collect();
    let [ingress, second] = others.as_slice() else { anyhow::bail!("three nodes are needed") };
    // A message is there, and one client waits for more.
    Lmtp::connect(&ingress.lmtp())?.deliver_ok("a@localhost", &[&format!("{user}@localhost")], b"Subject: before\r\n\r\nbefore\r\n")?;
    let mut idle = ingress.open(user)?;
    idle.idle()?;
    let mut sender = Sender::new(second, user);
    for _ in 0..BEFORE_AND_AFTER {
        sender.deliver(LIMIT)?;
    }
    ensure!(sender.errors.is_empty(), "deliveries failed before anything happened: {:?}", sender.errors);

    let start = wait::now();
    let is_served = AtomicBool::new(false);
    let (delivery, login) = thread::scope(|scope| {
        let delivery = scope.spawn({
            let (sender, is_served) = (&mut sender, &is_served);
            move || sender.deliver_until(is_served)
        });
        let login = strike(lab, cluster, fault, node).and_then(|()| {
            let back = scope.spawn(|| bring_back(lab, fault, start));
            let served = until_served(start, || log_in(ingress, user));
            let away = back.join().map_err(|_| anyhow::anyhow!("the file server was not brought back"))??;
            Ok((served?, away))
        });
        is_served.store(true, Ordering::SeqCst);
        (delivery.join(), login)
    });
    let ((login, login_errors), server_away) = login?;
    delivery.map_err(|_| anyhow::anyhow!("the client that delivers broke"))??;
    let idle_ended = has_ended(idle);
    let mut after = ingress.open(user)?;
    let messages = after.bodies()?;
    let is_there = |subject: &str| messages.values().any(|body| String::from_utf8_lossy(body).contains(subject));
    ensure!(is_there("Subject: before"), "an acknowledged message is missing");
    for number in 0..sender.delivered {
        ensure!(is_there(&format!("Subject: number {number}\r\n")), "message {number} of {} is missing", sender.delivered);
    }
    repair(lab, cluster, fault, node)?;
    Ok(Seen { login, delivery: sender.longest, login_errors, delivery_errors: sender.errors, idle_ended, server_away })
}

/// Delivers as Postfix does: one message after the other over one connection, each sent again after an error.
struct Sender {
    address: String,
    to: String,
    connection: Option<Lmtp>,
    delivered: usize,
    longest: Duration,
    errors: Vec<String>,
}

impl Sender {
    fn new(node: &Node, user: &str) -> Sender {
        let (address, to) = (node.lmtp(), format!("{user}@localhost"));
        Sender { address, to, connection: None, delivered: 0, longest: Duration::ZERO, errors: Vec::new() }
    }

    /// Goes on until clients are served again, and a little longer.
    fn deliver_until(&mut self, is_served: &AtomicBool) -> Result<()> {
        self.longest = Duration::ZERO;
        let mut after = 0;
        while after < BEFORE_AND_AFTER {
            after += usize::from(is_served.load(Ordering::SeqCst));
            self.deliver(POSTFIX_PATIENCE)?;
        }
        Ok(())
    }

    fn deliver(&mut self, limit: Duration) -> Result<()> {
        let message = format!("Subject: number {}\r\n\r\ntext\r\n", self.delivered);
        let begun = wait::now();
        let (address, to, connection) = (&self.address, &self.to, &mut self.connection);
        let (_, errors) = until_served(begun, || {
            let mut lmtp = connection.take().map_or_else(|| Lmtp::connect(address), Ok)?;
            lmtp.wire().set_patience(limit);
            lmtp.deliver_ok("a@localhost", &[to], message.as_bytes())?;
            *connection = Some(lmtp);
            Ok(())
        })?;
        self.longest = self.longest.max(begun.elapsed());
        self.errors.extend(errors);
        self.delivered += 1;
        pause(RETRY);
        Ok(())
    }
}

fn strike(lab: &Lab, cluster: &Cluster, fault: Fault, node: &Node) -> Result<()> {
    let crash = ["sh", "-c", "pkill -9 -x berth || exit 1; while pgrep -x berth >/dev/null; do sleep 0.01; done"];
    match fault {
        Fault::Crash => lab.exec(&node.name, &crash).map(drop),
        Fault::CrashAndRestart => {
            // As a supervisor on that host does, which waits 100 ms (systemd's RestartSec).
            let line = format!("{}; sleep 0.1; ({} &)", crash[2], lab.serve_line(node)?);
            lab.exec(&node.name, &["sh", "-c", &line]).map(drop)
        }
        Fault::Power => lab.verb(&["kill", &node.name]).map(drop),
        Fault::CutFromNfs => lab.verb(&["cut", &node.name, "nfs"]).map(drop),
        Fault::Pause => lab.verb(&["pause", &node.name]).map(drop),
        Fault::Drain => {
            let other = cluster.nodes.iter().find(|other| other.name != node.name).context("one node only")?;
            lab.berth(other, &["drain", &node.name]).map(drop)
        }
        Fault::Leave => lab.exec(&node.name, &["pkill", "-TERM", "-x", "berth"]).map(drop),
        Fault::ServerReboot => lab.verb(&["kill", "srv"]).map(drop),
    }
}

/// Boots the file server again, if it is away; how long it was.
fn bring_back(lab: &Lab, fault: Fault, since: Instant) -> Result<Duration> {
    if fault != Fault::ServerReboot {
        return Ok(Duration::ZERO);
    }
    pause(OUTAGE.saturating_sub(BOOT));
    lab.verb(&["start", "srv"])?;
    Ok(since.elapsed())
}

fn repair(lab: &Lab, cluster: &Cluster, fault: Fault, node: &Node) -> Result<()> {
    match fault {
        Fault::Crash => lab.serve(node),
        Fault::Leave => {
            lab.exec(&node.name, &["sh", "-c", "while pgrep -x berth >/dev/null; do sleep 0.02; done"])?;
            lab.serve(node)
        }
        Fault::Power => lab.revive(node),
        Fault::CutFromNfs => lab.verb(&["heal"]).map(drop),
        Fault::Pause => lab.verb(&["resume", &node.name]).map(drop),
        Fault::Drain => {
            let other = cluster.nodes.iter().find(|other| other.name != node.name).context("one node only")?;
            lab.berth(other, &["undrain", &node.name]).map(drop)
        }
        Fault::CrashAndRestart | Fault::ServerReboot => Ok(()),
    }
}

/// Time from `start` until `work` succeeds, and the errors before that.
fn until_served(start: Instant, mut work: impl FnMut() -> Result<()>) -> Result<(Duration, Vec<String>)> {
    let mut errors = Vec::new();
    loop {
        match work() {
            Ok(()) => return Ok((start.elapsed(), errors)),
            Err(error) => {
                ensure!(start.elapsed() < LIMIT, "not served within {LIMIT:?}: {error:#}");
                errors.push(format!("{:.1?}: {}", start.elapsed(), error.root_cause()));
            }
        }
        pause(RETRY);
    }
}

fn log_in(node: &Node, user: &str) -> Result<()> {
    let mut imap = Imap::connect(&node.imap())?;
    imap.wire().set_patience(LIMIT);
    imap.command(&format!("LOGIN {user} {PASSWORD}"))?.ok()?;
    imap.select("INBOX")?;
    // A change, so that it is the holder's promise and not its memory.
    imap.command("STORE 1 +FLAGS (\\Flagged)")?.ok().map(drop)
}

/// Whether the server ended an idle session.
fn has_ended(mut idle: Imap) -> bool {
    idle.wire().send(b"DONE\r\n").and_then(|()| idle.finish("t3")).is_err()
}

fn line(what: &str, seen: &[Seen]) -> String {
    let figures = |of: fn(&Seen) -> Duration| {
        let mut all: Vec<Duration> = seen.iter().map(of).collect();
        all.sort_unstable();
        let median = all.get(all.len() / 2).copied().unwrap_or_default();
        let worst = all.last().copied().unwrap_or_default();
        format!("{:.1} s / {:.1} s", median.as_secs_f64(), worst.as_secs_f64())
    };
    let away = seen.iter().map(|one| one.server_away).max().unwrap_or_default();
    let what = if away.is_zero() { what.to_owned() } else { format!("{what} (away up to {:.1} s)", away.as_secs_f64()) };
    let login_errors: usize = seen.iter().map(|one| one.login_errors.len()).sum();
    let delivery_errors: usize = seen.iter().map(|one| one.delivery_errors.len()).sum();
    let ended = seen.iter().filter(|one| one.idle_ended).count();
    let rounds = seen.len();
    format!(
        "| {what} | {rounds} | {} | {} | {login_errors}, {delivery_errors} | {ended} of {rounds} |",
        figures(|one| one.login),
        figures(|one| one.delivery)
    )
}
