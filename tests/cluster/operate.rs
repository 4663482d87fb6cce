//! What an operator does: drain, move, kick, fence, stop. Clients are told, users are served elsewhere at once, nothing is lost.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tests::{
    Context, Result,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure, mail, wait,
};

use super::{holder_and_other, open, open_when_possible};

/// A handover waits for nothing but running commands.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How long a stopping node may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);

fn said_goodbye(imap: &mut Imap, because: &str) -> Result<()> {
    let bye = format!("{:?}", imap.wait_for("BYE", AT_ONCE)?);
    ensure!(bye.contains(because), "{bye} does not say {because:?}");
    Ok(())
}

fn nodes(cluster: &Cluster) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.command(&["nodes", "--json"])?)?)
}

/// Every lease in the shared directory: user → holder's node, or `free`.
fn leases(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for bucket in std::fs::read_dir(cluster.root.join("leases"))? {
        for user in std::fs::read_dir(bucket?.path())? {
            let user = user?;
            let names: Vec<String> =
                std::fs::read_dir(user.path())?.map(|name| Ok(name?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
            ensure!(names.len() == 1, "{names:?}");
            let holder = names[0].split(',').nth(1).context("no holder")?.to_owned();
            found.insert(user.file_name().to_string_lossy().into_owned(), holder);
        }
    }
    Ok(found)
}

#[test]
fn a_drained_node_hands_its_users_over_and_says_so() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    open(&cluster.nodes[0].doors, &user)?.append("INBOX", "", &mail::message("drain", 0))?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let name = cluster.nodes[holder].doors.name.clone();
    let mut direct = open(&cluster.nodes[holder].doors, &user)?;
    let mut relayed = open(&cluster.nodes[other].doors, &user)?;

    cluster.command(&["drain", &name])?;
    said_goodbye(&mut direct, "taken out of service")?;
    said_goodbye(&mut relayed, "taken out of service")?;
    ensure!(!leases(&cluster)?.values().any(|holder| *holder == name), "{:?}", leases(&cluster)?);
    let listed = nodes(&cluster)?;
    let row = listed["nodes"].as_array().context("nodes")?.iter().find(|row| row["name"] == name.as_str()).context("the node")?;
    ensure!(row["state"] == "draining" && row["held"] == 0, "{row}");

    // Through the drained node as well: it forwards.
    let mut again = open(&cluster.nodes[holder].doors, &user)?;
    ensure!(again.bodies()?.len() == 1);
    ensure!(cluster.holder(&user.name)? != holder);
    cluster.command(&["undrain", &name])?;
    let said = cluster.command(&["where", &user.name, "--json"])?;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["preferred"] == name.as_str() && said["holder"] != name.as_str(), "{said}");
    again.logout()
}

#[test]
fn a_user_is_moved_and_sessions_are_kicked() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let (user, bystander) = (cluster.users[0].clone(), cluster.users[1].clone());
    open(&cluster.nodes[0].doors, &user)?.append("INBOX", "\\Seen", &mail::message("move", 0))?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let target = cluster.nodes[other].doors.name.clone();
    let mut session = open(&cluster.nodes[holder].doors, &user)?;
    let mut unconcerned = open(&cluster.nodes[holder].doors, &bystander)?;
    cluster.command(&["move", &user.name, &target])?;
    said_goodbye(&mut session, "moves to another server")?;
    ensure!(cluster.holder(&user.name)? == other);
    let mut session = open(&cluster.nodes[holder].doors, &user)?;
    ensure!(session.flags()?.values().flatten().any(|flag| flag == "\\Seen"), "the flags did not come along");
    let said: Value = serde_json::from_str(&cluster.command(&["who", &user.name, "--node", &target, "--json"])?)?;
    ensure!(said["sessions"].as_array().is_some_and(|sessions| sessions.len() == 1), "{said}");

    let said = cluster.command(&["kick", &user.name, "--why", "maintenance at noon"])?;
    ensure!(said.starts_with("1 sessions"), "{said}");
    said_goodbye(&mut session, "maintenance at noon")?;
    ensure!(cluster.holder(&user.name)? == other, "a kick moves nobody");
    unconcerned.command("NOOP")?.ok()?;
    ensure!(cluster.command(&["kick", "--ip", "192.0.2.1"])?.starts_with("0 sessions"));
    unconcerned.logout()
}

#[test]
fn a_fenced_node_comes_back_and_its_users_are_served() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    let (_, uid) = open(&cluster.nodes[0].doors, &user)?.append("INBOX", "", &mail::message("fence", 0))?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let name = &cluster.nodes[holder].doors.name;
    ensure!(cluster.command(&["fence", name]).is_err(), "without --yes and without a terminal nothing may happen");
    cluster.command(&["fence", name, "--yes"])?;
    let mut imap = open_when_possible(&cluster.nodes[other].doors, &user, AT_ONCE)?;
    ensure!(imap.bodies()?.contains_key(&uid));
    wait::until("the node's return", STOP_LIMIT, || {
        let listed = nodes(&cluster)?;
        let fenced =
            listed["fenced"].as_array().context("fenced")?.iter().find(|row| row["name"] == name.as_str()).context("not listed")?;
        ensure!(fenced["back"] == true, "{fenced}");
        Ok(())
    })?;
    imap.logout()
}

#[test]
fn a_stopped_node_says_goodbye_releases_every_lease_and_ends_in_time() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 8, ..Demo::default() })?;
    for user in &cluster.users {
        open(&cluster.nodes[0].doors, user)?.append("INBOX", "", &mail::message("stop", 0))?;
    }
    let user = cluster.users[0].clone();
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let elsewhere =
        cluster.users.iter().find(|user| cluster.holder(&user.name).is_ok_and(|index| index == other)).context("nobody there")?;
    let mut relayed_to = open(&cluster.nodes[other].doors, &user)?;
    let mut relayed_from = open(&cluster.nodes[holder].doors, elsewhere)?;
    let stopped = cluster.nodes[holder].process;
    stopped.terminate()?;
    said_goodbye(&mut relayed_to, "shutting down")?;
    said_goodbye(&mut relayed_from, "shutting down")?;
    stopped.wait_ended(STOP_LIMIT)?;
    let name = &cluster.nodes[holder].doors.name;
    let left: Vec<_> = leases(&cluster)?.into_iter().filter(|(_, holder)| holder == name).collect();
    ensure!(left.is_empty(), "not released: {left:?}");
    let mut imap = open(&cluster.nodes[other].doors, &user)?;
    ensure!(imap.bodies()?.len() == 1);
    imap.logout()
}
