//! `cargo lab failover`: how long clients wait when something breaks, seen from outside.
//!
//! Each round a user has a holder, an idle session through another node, and then the fault. At that moment two clients ask through two
//! nodes that are not the holder: one logs in and selects, one delivers. Every error a client sees is counted; a client tries again after it.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    clients::{imap::Imap, lmtp::Lmtp},
    lab::{self, Cluster, Lab, Node, PASSWORD, Plan},
    wait,
};

use crate::fresh;

/// After so long, a client is not served any more.
const LIMIT: Duration = Duration::from_secs(90);
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
    Leave,
    ServerReboot,
}

const FAULTS: [(Fault, &str, &str); 7] = [
    (Fault::Crash, "crash", "process crash, not restarted"),
    (Fault::CrashAndRestart, "restart", "process crash, restarted at once"),
    (Fault::Power, "power", "host loses power"),
    (Fault::CutFromNfs, "cut", "host cut from the NFS server"),
    (Fault::Pause, "pause", "host hangs"),
    (Fault::Leave, "leave", "planned end (SIGTERM)"),
    (Fault::ServerReboot, "nfs", "NFS server crashes and boots again"),
];

/// What clients saw in one round.
struct Seen {
    login: Duration,
    delivery: Duration,
    errors: Vec<String>,
    idle_ended: bool,
    server_away: Duration,
}

/// Runs every fault `rounds` times and prints the table.
pub fn run(rounds: usize, only: Option<&str>) -> Result<bool> {
    ensure!(rounds > 0, "--rounds 1 at least");
    lab::enter()?;
    let lab = Lab::attach()?;
    let users = rounds * FAULTS.len();
    let cluster = lab.start(&fresh("failover"), &Plan { users, ..Plan::default() })?;
    println!("| event | rounds | login + SELECT: median / worst | delivery: median / worst | errors seen | idle sessions ended |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut user = 0;
    for (fault, name, what) in FAULTS.iter().filter(|(_, name, _)| only.is_none_or(|only| only.split(',').any(|one| one == *name))) {
        let mut seen = Vec::new();
        for round in 0..rounds {
            user += 1;
            let one = self::round(&lab, &cluster, *fault, &format!("user{user}")).with_context(|| format!("{name}, round {}", round + 1))?;
            eprintln!(
                "{name}: login {:.2?}, delivery {:.2?}, idle session ended: {}, server away {:.1?}; errors {:?}",
                one.login, one.delivery, one.idle_ended, one.server_away, one.errors
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
    let holder = lab.holder(cluster, first, user)?;
    let node = cluster.nodes.get(holder).context("no holder")?;
    let others: Vec<&Node> = cluster.nodes.iter().filter(|other| other.name != node.name).collect();
    let [ingress, second] = others.as_slice() else { anyhow::bail!("three nodes are needed") };
    // A message is there, and one client waits for more.
    Lmtp::connect(&ingress.lmtp())?.deliver_ok("a@localhost", &[&format!("{user}@localhost")], b"Subject: before\r\n\r\nbefore\r\n")?;
    let mut idle = ingress.open(user)?;
    idle.idle()?;
    let start = wait::now();
    strike(lab, fault, node)?;
    let server_away = if fault == Fault::ServerReboot { start.elapsed() } else { Duration::ZERO };

    let (login, delivery) = thread::scope(|scope| {
        let login = scope.spawn(|| until_served(start, || log_in(ingress, user)));
        let delivery = scope.spawn(|| until_served(start, || deliver(second, user)));
        (login.join(), delivery.join())
    });
    let (login, mut errors) = login.map_err(|_| anyhow::anyhow!("the client that logs in broke"))??;
    let (delivery, more) = delivery.map_err(|_| anyhow::anyhow!("the client that delivers broke"))??;
    errors.extend(more);
    let idle_ended = has_ended(idle);
    let mut after = ingress.open(user)?;
    let messages = after.bodies()?;
    ensure!(messages.values().any(|body| body.starts_with(b"Subject: before")), "an acknowledged message is missing");
    ensure!(messages.values().any(|body| body.starts_with(b"Subject: after")), "the delivery during the failover is missing");
    repair(lab, fault, node)?;
    Ok(Seen { login, delivery, errors, idle_ended, server_away })
}

fn strike(lab: &Lab, fault: Fault, node: &Node) -> Result<()> {
    let crash = ["sh", "-c", "pkill -9 -x berth; while pgrep -x berth >/dev/null; do sleep 0.01; done"];
    match fault {
        Fault::Crash => lab.exec(&node.name, &crash).map(drop),
        Fault::CrashAndRestart => {
            lab.exec(&node.name, &crash)?;
            lab.serve(node)
        }
        Fault::Power => lab.verb(&["kill", &node.name]).map(drop),
        Fault::CutFromNfs => lab.verb(&["cut", &node.name, "nfs"]).map(drop),
        Fault::Pause => lab.verb(&["pause", &node.name]).map(drop),
        Fault::Leave => lab.exec(&node.name, &["pkill", "-TERM", "-x", "berth"]).map(drop),
        Fault::ServerReboot => {
            lab.verb(&["kill", "srv"])?;
            lab.verb(&["start", "srv"]).map(drop)
        }
    }
}

fn repair(lab: &Lab, fault: Fault, node: &Node) -> Result<()> {
    match fault {
        Fault::Crash => lab.serve(node),
        Fault::Leave => {
            lab.exec(&node.name, &["sh", "-c", "while pgrep -x berth >/dev/null; do sleep 0.02; done"])?;
            lab.serve(node)
        }
        Fault::Power => lab.revive(node),
        Fault::CutFromNfs => lab.verb(&["heal"]).map(drop),
        Fault::Pause => lab.verb(&["resume", &node.name]).map(drop),
        Fault::CrashAndRestart | Fault::ServerReboot => Ok(()),
    }
}

/// Time from `start` until `work` succeeds, and the errors before that.
fn until_served(start: Instant, mut work: impl FnMut() -> Result<()>) -> Result<(Duration, Vec<String>)> {
    let mut errors = Vec::new();
    // A timer in place of a sleep: nobody ever sends.
    let (_never, timer) = mpsc::channel::<()>();
    loop {
        match work() {
            Ok(()) => return Ok((start.elapsed(), errors)),
            Err(error) => {
                ensure!(start.elapsed() < LIMIT, "not served within {LIMIT:?}: {error:#}");
                errors.push(format!("{:.1?}: {}", start.elapsed(), error.root_cause()));
            }
        }
        timer.recv_timeout(RETRY).unwrap_or_default();
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

fn deliver(node: &Node, user: &str) -> Result<()> {
    let mut lmtp = Lmtp::connect(&node.lmtp())?;
    lmtp.wire().set_patience(LIMIT);
    lmtp.deliver_ok("a@localhost", &[&format!("{user}@localhost")], b"Subject: after\r\n\r\nafter\r\n")
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
    let errors: usize = seen.iter().map(|one| one.errors.len()).sum();
    let ended = seen.iter().filter(|one| one.idle_ended).count();
    let rounds = seen.len();
    format!("| {what} | {rounds} | {} | {} | {errors} | {ended} of {rounds} |", figures(|one| one.login), figures(|one| one.delivery))
}
