//! Hundreds of hostile connections beside honest clients; `bench-hostile` has ten thousand.

use std::{fs, sync::atomic::Ordering, time::Duration};

use tests::{
    Result,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure,
    hostile::{Attack, Honest, within},
};

use super::open;

const CONNECTIONS: usize = 600;
const LASTING: Duration = Duration::from_secs(20);
/// Longest step of an honest client: a debug build on a busy machine, beside floods that take what CPU they get.
const STEP_MAX: Duration = Duration::from_secs(20);
/// What each hostile connection may take: its buffers, and what of a reply waits for it.
const BYTES_EACH: u64 = 256 * 1024;
/// What password checks take that are under way or ended within the last seconds: 19 MiB each.
const HASHING_BYTES: u64 = 128 * 1024 * 1024;
const SEED: u64 = 1;

#[test]
fn honest_clients_are_served_beside_hostile_ones_of_every_kind() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 8, dir: None })?;
    // Those who don't log in don't fit among those who may: who is honest does all the same.
    cluster.set_and_restart(
        0,
        "limits",
        "connections_per_address = 1000\nconnections_before_login = 150\nsessions_per_user_and_address = 32",
    )?;
    let (doors, process) = (cluster.nodes[0].doors.clone(), cluster.nodes[0].process);
    let (honest, accomplices) = cluster.users.split_at(4);
    let message = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(20_000));
    for accomplice in accomplices {
        Imap::login(&doors.imap, &accomplice.name, &accomplice.password)?.append("INBOX", "", message.as_bytes())?;
    }
    let mut session = open(&doors, &honest[0])?;
    let before = process.resident_bytes()?;

    let attack = Attack::start(&doors, accomplices, CONNECTIONS, SEED)?;
    attack.wait_made(CONNECTIONS, Duration::from_secs(60))?;
    let mut most = before;
    let work = Honest::work(&doors, honest, LASTING, || {
        most = most.max(process.resident_bytes()?);
        Ok(())
    })?;
    session.command("NOOP")?.ok()?;
    let made = attack.counts().made.load(Ordering::Relaxed);
    let grown = most.saturating_sub(before);
    ensure!(work.failures.is_empty(), "{:?}", work.failures);
    for (step, times) in work.steps() {
        eprintln!("{} times {step}: half within {:?}, all within {:?}", times.len(), within(times, 50), within(times, 100));
        ensure!(!times.is_empty() && within(times, 100) < STEP_MAX, "{step} took {:?}", within(times, 100));
    }
    eprintln!("{made} hostile connections were made; memory grew by {grown} bytes");
    ensure!(grown < BYTES_EACH * CONNECTIONS as u64 + HASHING_BYTES, "memory grew by {grown} bytes");
    ensure!(made > CONNECTIONS, "nobody was thrown out");
    // The limit is met, so that it is this that keeps the node well.
    let log = fs::read_to_string(&cluster.nodes[0].log)?;
    ensure!(log.contains("limits.connections_before_login"), "the limit is not in the log");
    drop(attack);
    session.logout()
}
