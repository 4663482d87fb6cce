//! Limits of connections and sessions, and what a client is told at each; links that break.

use std::{fs, time::Duration};

use tests::{
    Context, Result,
    clients::{
        imap::{Imap, Status},
        lmtp::Lmtp,
        wire::{Wire, was_closed},
    },
    cluster::{self, Cluster, Demo},
    ensure, wait,
};

use super::{holder_and_other, open};

/// Settings are looked at every few seconds, other files where the system tells of a change; this machine may be busy.
const NOTICED: Duration = Duration::from_secs(30);

#[test]
fn a_user_has_so_many_sessions_over_all_nodes_and_is_told_when_there_are_more() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: None })?;
    let user = &cluster.users[0];
    for node in &cluster.nodes {
        cluster::set(&node.config, "limits", "sessions_per_user = 3\nsessions_per_user_and_address = 2")?;
    }
    let doors = cluster.doors();
    let mut sessions = vec![open(&doors[0], user)?, open(&doors[1], user)?];
    let refused = |node: usize| -> Result<String> {
        let mut imap = Imap::connect(&doors[node].imap)?;
        let reply = imap.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?;
        ensure!(reply.status == Status::No && reply.code("LIMIT").is_some(), "{reply:?}");
        Ok(format!("{reply:?}"))
    };
    // Through the holder and through the other node alike, once both have read the settings.
    for node in 0..2 {
        let said = wait::until("the limit", NOTICED, || refused(node))?;
        ensure!(said.contains("from this address"), "{said}");
    }
    for node in &cluster.nodes {
        cluster::set(&node.config, "limits", "sessions_per_user_and_address = 64")?;
    }
    sessions.push(wait::until("room for a third", NOTICED, || open(&doors[0], user))?);
    for node in 0..2 {
        let said = wait::until("the other limit", NOTICED, || refused(node))?;
        ensure!(!said.contains("from this address"), "{said}");
    }
    // Somebody else is not concerned, and what ends makes room.
    open(&doors[1], &cluster.users[1])?.logout()?;
    sessions.pop().context("no session")?.logout()?;
    wait::until("room", NOTICED, || open(&doors[1], user)?.logout())
}

#[test]
fn an_address_and_a_node_have_so_many_connections() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    for (limits, reason) in [
        ("connections = 1000\nconnections_per_address = 3", "limits.connections_per_address"),
        ("connections = 3\nconnections_per_address = 1000", "limits.connections)"),
    ] {
        cluster.set_and_restart(0, "limits", limits)?;
        let doors = cluster.nodes[0].doors.clone();
        // What the restart asked for may not be gone yet.
        let held = wait::until("room for three", NOTICED, || {
            (0..3).map(|_| Imap::connect(&doors.imap)).collect::<Result<Vec<_>>>().and_then(|held| {
                ensure!(held.iter().all(|imap| imap.greeting.name == "OK"), "refused already");
                Ok(held)
            })
        })?;
        for (address, said) in [(&doors.imap, "* BYE [LIMIT] "), (&doors.pop3, "-ERR [SYS/TEMP] "), (&doors.lmtp, "421 4.3.2 ")] {
            let line = Wire::connect(address)?.line()?;
            ensure!(line.starts_with(said.as_bytes()), "{}", line.escape_ascii());
        }
        let closed = Wire::connect(&doors.imaps)?.line();
        ensure!(closed.as_ref().is_err_and(was_closed), "{closed:?}");
        drop(held);
        wait::until("room", NOTICED, || Imap::login(&doors.imap, &cluster.users[0].name, &cluster.users[0].password)?.logout())?;
        let log = fs::read_to_string(&cluster.nodes[0].log)?;
        ensure!(log.contains(reason), "{reason} is not in\n{log}");
    }
    Lmtp::connect(&cluster.nodes[0].doors.lmtp)?.quit()
}

#[test]
fn who_does_not_log_in_makes_room_for_who_does() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    cluster.set_and_restart(0, "limits", "connections_before_login = 5")?;
    let (doors, user) = (cluster.nodes[0].doors.clone(), cluster.users[0].clone());
    let mut somebody = open(&doors, &user)?;
    let mut held = Vec::new();
    for address in [&doors.imap, &doors.pop3].into_iter().cycle().take(9) {
        let mut wire = Wire::connect(address)?;
        wire.line()?;
        held.push(wire);
    }
    open(&doors, &user)?.logout()?;
    let ended = |wire: &mut Wire| {
        let said = wire.until_closed();
        ensure!(said.is_ok(), "{said:?}");
        Ok(())
    };
    held.iter_mut().take(5).try_for_each(ended)?;
    somebody.command("NOOP")?.ok()?;
    let log = fs::read_to_string(&cluster.nodes[0].log)?;
    ensure!(log.contains("limits.connections_before_login"), "the log does not say why");
    somebody.logout()
}

#[test]
fn the_relay_takes_links_from_listed_networks_only() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let relay = |cluster: &Cluster| -> Result<String> {
        let reply: serde_json::Value = serde_json::from_str(&cluster.command(&["nodes", "--json"])?)?;
        Ok(reply["nodes"][0]["relay"][0].as_str().context("no relay")?.to_owned())
    };
    // Far less than a stranger is given for a handshake.
    let patience = Duration::from_secs(3);
    cluster.set_and_restart(0, "listen", "relay_from = [\"192.0.2.0/24\"]")?;
    let said = Wire::connect_within(&relay(&cluster)?, patience)?.until_closed();
    ensure!(said.as_ref().is_ok_and(Vec::is_empty), "{said:?}");
    let log = fs::read_to_string(&cluster.nodes[0].log)?;
    ensure!(log.contains("not in listen.relay_from"), "the log does not say why");
    cluster.set_and_restart(0, "listen", "relay_from = [\"192.0.2.0/24\", \"127.0.0.0/8\"]")?;
    let waited = Wire::connect_within(&relay(&cluster)?, patience)?.exactly(1);
    ensure!(waited.as_ref().is_err_and(|error| !was_closed(error)), "a listed address gets a handshake: {waited:?}");
    Ok(())
}

#[test]
fn when_a_link_breaks_its_clients_are_told_and_others_go_on() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 12, dir: None })?;
    let mut here = None;
    let mut there = None;
    for user in &cluster.users {
        open(&cluster.nodes[0].doors, user)?.logout()?;
        let (holder, _) = holder_and_other(&cluster, user)?;
        let place = if holder == 0 { &mut here } else { &mut there };
        *place = Some(user);
    }
    let (here, there) = (here.context("nobody is on the first node")?, there.context("nobody is on the second node")?);
    let doors = &cluster.nodes[0].doors;
    let (mut local, mut relayed, mut idle) = (open(doors, here)?, open(doors, there)?, open(doors, there)?);
    relayed.command("NOOP")?.ok()?;
    idle.idle()?;
    cluster.nodes[1].process.kill()?;
    for imap in [&mut relayed, &mut idle] {
        let bye = imap.wait_for("BYE", Duration::from_secs(20))?;
        ensure!(format!("{bye:?}").to_uppercase().contains("UNAVAILABLE"), "{bye:?}");
    }
    local.command("NOOP")?.ok()?;
    wait::until("the log", NOTICED, || {
        let log = fs::read_to_string(&cluster.nodes[0].log)?;
        ensure!(log.contains("reason=\"the link to the holder node2 broke: "), "the log does not say why they ended");
        Ok(())
    })?;
    local.logout()
}

#[test]
fn slow_readers_on_a_link_stall_nobody_and_take_bounded_memory() -> Result<()> {
    const SLOW: usize = 24;
    const MESSAGE: usize = 1 << 20;
    /// Of each of them; sockets hold up to some 10 MiB of it.
    const FETCHES: usize = 16;
    /// What each stream of a link may hold at the ingress.
    const HELD_EACH: u64 = 256 * 1024;
    /// What all streams of a link may hold beyond that (32 MiB), what honest sessions take, and what the allocator keeps.
    const BESIDE: u64 = (32 + 24) << 20;
    let cluster = Cluster::start(&Demo { nodes: 2, users: 16, dir: None })?;
    let doors = &cluster.nodes[0].doors;
    let mut relayed = Vec::new();
    for user in &cluster.users {
        open(doors, user)?.logout()?;
        if cluster.holder(&user.name)? == 1 {
            relayed.push(user);
        }
    }
    let [slow, honest, ..] = relayed.as_slice() else { tests::bail!("fewer than two users are on the second node") };
    let message = format!("Subject: large\r\n\r\n{}", "0123456789abcdef0123456789abcdef\r\n".repeat(MESSAGE / 34));
    open(doors, slow)?.append("INBOX", "", message.as_bytes())?;
    open(doors, honest)?.append("INBOX", "", b"Subject: small\r\n\r\nsmall\r\n")?;
    let ingress = cluster.nodes[0].process;
    let before = ingress.resident_bytes()?;

    let mut readers = Vec::new();
    for _ in 0..SLOW {
        let mut imap = open(doors, slow)?;
        let tags = (0..FETCHES).map(|_| imap.send("FETCH 1 BODY.PEEK[]")).collect::<Result<Vec<_>>>()?;
        readers.push((imap, tags));
    }
    let mut most = 0;
    for _ in 0..40 {
        let started = wait::now();
        let mut imap = open(doors, honest)?;
        ensure!(imap.bodies()?.len() == 1, "the small message is gone");
        imap.logout()?;
        ensure!(started.elapsed() < NOTICED, "an honest session took {:?}", started.elapsed());
        most = most.max(ingress.resident_bytes()?);
    }
    let grown = most.saturating_sub(before);
    eprintln!("{SLOW} slow readers made the ingress grow by {grown} bytes");
    ensure!(grown < HELD_EACH * SLOW as u64 + BESIDE, "the ingress grew by {grown} bytes");
    // Slow is not broken: whoever reads on gets all of it.
    let (imap, tags) = &mut readers[0];
    for tag in tags {
        let reply = imap.finish(tag)?.ok()?;
        ensure!(reply.messages()?.len() == 1, "a message is missing");
    }
    Ok(())
}
