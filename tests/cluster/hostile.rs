//! Hundreds of hostile connections beside an honest client; `bench-hostile` has ten thousand.

use std::{sync::atomic::Ordering, time::Duration};

use tests::{
    Result,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure,
    hostile::{Attack, honest_visits},
};

const CONNECTIONS: usize = 400;
const LASTING: Duration = Duration::from_secs(15);
/// Longest visit of an honest client: a debug build on a busy machine, beside floods that take what CPU they get.
const VISIT_MAX: Duration = Duration::from_secs(15);
/// What each hostile connection may take: its buffers, and what of a reply waits for it.
const BYTES_EACH: u64 = 256 * 1024;

#[test]
fn honest_clients_are_served_beside_hostile_ones_of_every_kind() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    // Half of them don't fit among those who have not logged in: who is honest does all the same.
    cluster.set_and_restart(
        0,
        "limits",
        "connections_per_address = 1000\nconnections_before_login = 200\nsessions_per_user_and_address = 32",
    )?;
    let (doors, process) = (cluster.nodes[0].doors.clone(), cluster.nodes[0].process);
    let (honest, accomplice) = (&cluster.users[0], &cluster.users[1]);
    let message = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(20_000));
    Imap::login(&doors.imap, &accomplice.name, &accomplice.password)?.append("INBOX", "", message.as_bytes())?;
    Imap::login(&doors.imap, &honest.name, &honest.password)?.append("INBOX", "", b"Subject: small\r\n\r\nsmall\r\n")?;
    let mut session = Imap::login(&doors.imap, &honest.name, &honest.password)?;
    let before = process.resident_bytes()?;

    let attack = Attack::start(&doors, accomplice, CONNECTIONS)?;
    attack.wait_made(CONNECTIONS, Duration::from_secs(60))?;
    let mut most = before;
    let visits = honest_visits(&doors, honest, LASTING, || {
        most = most.max(process.resident_bytes()?);
        Ok(())
    })?;
    session.command("NOOP")?.ok()?;
    let longest = visits.last().copied().unwrap_or(VISIT_MAX);
    let (open, made) = (attack.counts().open.load(Ordering::Relaxed), attack.counts().made.load(Ordering::Relaxed));
    let grown = most.saturating_sub(before);
    eprintln!(
        "{} visits, the longest {longest:?}; {open} hostile connections of {made} are open; memory grew by {grown} bytes",
        visits.len()
    );
    ensure!(longest < VISIT_MAX, "a visit took {longest:?}");
    ensure!(grown < BYTES_EACH * CONNECTIONS as u64, "memory grew by {grown} bytes");
    ensure!(made > CONNECTIONS, "nobody was thrown out");
    drop(attack);
    session.logout()
}
