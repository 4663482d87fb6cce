//! One user on several nodes at once: all of them are served by the holder, which `berth who` names.

use std::time::Duration;

use tests::{
    Result,
    clients::lmtp::Lmtp,
    cluster::{Cluster, Demo},
    ensure, mail,
};

use super::{holder_and_other, open};

/// Pushed by the holder, not found by looking.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn clients_on_every_node_see_each_others_changes_at_once() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = &cluster.users[0];
    let mut sessions = cluster.nodes.iter().map(|node| open(&node.doors, user)).collect::<Result<Vec<_>>>()?;
    for writer in 0..sessions.len() {
        let mut idling = Vec::new();
        for (index, session) in sessions.iter_mut().enumerate().filter(|(index, _)| *index != writer) {
            session.command("NOOP")?.ok()?;
            idling.push((index, session.idle()?));
        }
        sessions[writer].append("INBOX", "", &mail::message("same", writer))?;
        sessions[writer].command("STORE 1 +FLAGS (\\Answered)")?.ok()?;
        for (index, tag) in idling {
            let exists = sessions[index].wait_for("EXISTS", AT_ONCE)?;
            ensure!(exists.number == Some(u32::try_from(writer + 1)?), "{exists:?}");
            sessions[index].done(&tag)?.ok()?;
            let flags = sessions[index].flags()?;
            ensure!(flags.values().next().is_some_and(|flags| flags.contains(&"\\Answered".to_owned())), "{flags:?}");
        }
    }
    let (holder, _) = holder_and_other(&cluster, user)?;
    ensure!(cluster.nodes[holder].process.is_running());
    Ok(())
}

#[test]
fn the_operator_sees_the_nodes_and_who_holds_whom() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    for user in &cluster.users {
        open(&cluster.nodes[0].doors, user)?.logout()?;
        cluster.holder(&user.name)?;
    }
    let nodes = cluster.command(&["nodes"])?;
    for node in &cluster.nodes {
        ensure!(nodes.contains(&node.doors.name), "berth nodes does not name {}: {nodes}", node.doors.name);
    }
    let who = cluster.command(&["who"])?;
    for user in &cluster.users {
        ensure!(who.contains(&user.name), "berth who does not name {}: {who}", user.name);
    }
    let users = cluster.command(&["user", "list"])?;
    ensure!(cluster.users.iter().all(|user| users.contains(&user.name)), "{users}");
    Ok(())
}

#[test]
fn one_delivery_reaches_local_and_remote_recipients() -> Result<()> {
    let cluster = Cluster::start(&Demo { users: 12, ..Demo::default() })?;
    let addresses: Vec<String> = cluster.users.iter().map(|user| user.address()).collect();
    let recipients: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let message = mail::message("all", 5);
    for node in &cluster.nodes {
        Lmtp::connect(&node.doors.lmtp)?.deliver_ok("ada@tests.example", &recipients, &message)?;
    }
    let holders: Vec<usize> = cluster.users.iter().map(|user| cluster.holder(&user.name)).collect::<Result<_>>()?;
    ensure!(holders.iter().any(|holder| *holder != holders[0]), "one node holds everybody: nothing was forwarded");
    for user in &cluster.users {
        for node in &cluster.nodes {
            let mut imap = open(&node.doors, user)?;
            let bodies = imap.bodies()?;
            ensure!(bodies.len() == cluster.nodes.len(), "{} messages for {}", bodies.len(), user.name);
            for body in bodies.values() {
                mail::check_same(&message, body)?;
            }
            imap.logout()?;
        }
    }
    Ok(())
}
