//! SIGSTOP past `dead_after`, then SIGCONT: the node was fenced meanwhile, drops everything and acknowledges nothing from before.

use std::time::Duration;

use tests::{
    Result,
    clients::{lmtp::Lmtp, wire::was_closed},
    cluster::{Cluster, Demo},
    ensure, mail,
};

use super::{FAILOVER_LIMIT, holder_and_other, open, open_when_possible};

/// How long a node that goes on may take to notice that it was fenced, drop its sessions and rejoin.
const REJOIN_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn a_stopped_holder_is_fenced_and_acknowledges_nothing() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    open(&cluster.nodes[0].doors, &user)?.append("INBOX", "", &mail::message("before", 0))?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let survivor = &cluster.nodes[other].doors;
    let mut asleep = open(&cluster.nodes[holder].doors, &user)?;
    let validity = asleep.select("INBOX")?.code_number("UIDVALIDITY")?;

    let frozen = cluster.nodes[holder].process;
    frozen.pause()?;
    // These wait in the frozen node's sockets; were they carried out now, two nodes would write.
    let store = asleep.send("STORE 1 +FLAGS (\\Flagged)")?;
    asleep.send("STORE 1 +FLAGS (\\Deleted)")?;
    asleep.send("EXPUNGE")?;
    let mut imap = open_when_possible(survivor, &user, FAILOVER_LIMIT)?;
    ensure!(imap.select("INBOX")?.code_number("UIDVALIDITY")? == validity, "UIDVALIDITY changed");
    let (_, uid) = imap.append("INBOX", "\\Seen", &mail::message("after", 1))?;
    let before = imap.flags()?;
    ensure!(before.len() == 2);

    frozen.resume()?;
    asleep.wire().set_patience(REJOIN_LIMIT);
    match asleep.finish(&store) {
        Err(error) => ensure!(was_closed(&error), "{error:#}"),
        Ok(reply) => tests::bail!("the fenced node answered a command from before: {reply:?}"),
    }
    imap.command("NOOP")?.ok()?;
    ensure!(imap.flags()? == before, "the fenced node changed {before:?} to {:?}", imap.flags()?);

    // It rejoins as a new incarnation and forwards to the present holder.
    let mut again = open_when_possible(&cluster.nodes[holder].doors, &user, REJOIN_LIMIT)?;
    ensure!(again.flags()? == before && before.contains_key(&uid));
    ensure!(cluster.holder(&user.name)? != holder, "the fenced node took the lease back from a live holder");
    again.logout()?;
    imap.logout()
}

#[test]
fn a_pause_shorter_than_the_limit_disconnects_nobody() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    let mut imap = open(&cluster.nodes[0].doors, &user)?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let mut relayed = open(&cluster.nodes[other].doors, &user)?;
    let frozen = cluster.nodes[holder].process;
    frozen.pause()?;
    let tag = relayed.send("NOOP")?;
    let waited = relayed.next_untagged(Duration::from_secs(1));
    ensure!(waited.is_err(), "a frozen node answered {waited:?}");
    frozen.resume()?;
    relayed.finish(&tag)?.ok()?;
    relayed.append("INBOX", "", &mail::message("pause", 0))?;
    imap.command("NOOP")?.ok()?;
    ensure!(cluster.holder(&user.name)? == holder);
    imap.logout()
}

#[test]
fn a_delivery_through_another_node_waits_out_a_failover() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    open(&cluster.nodes[0].doors, &user)?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let mut lmtp = Lmtp::connect(&cluster.nodes[other].doors.lmtp)?;
    lmtp.deliver_ok("a@localhost", &[&user.address()], &mail::message("before", 0))?;
    // The frozen node's system still takes the bytes: whether it stored them, nobody can know.
    cluster.nodes[holder].process.pause()?;
    lmtp.deliver_ok("a@localhost", &[&user.address()], &mail::message("during", 1))?;
    ensure!(cluster.holder(&user.name)? != holder);
    ensure!(open(&cluster.nodes[other].doors, &user)?.bodies()?.len() >= 2);
    cluster.nodes[holder].process.resume()
}
