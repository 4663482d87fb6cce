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

#[test]
fn a_misspelt_user_is_told_apart_from_one_whom_nobody_holds() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    let config = cluster.nodes[0].config.to_str().context("path")?;
    let asked = |user: &str| tests::berth::run(&["who", user, "--config", config]).map(|output| tests::process::said(&output));
    for running in [true, false] {
        let hint = "is the name right?";
        ensure!(asked("usr1")?.contains(hint) && !asked("user1")?.contains(hint), "running: {running}: {}", asked("usr1")?);
        if running {
            cluster.nodes[0].process.terminate()?;
            cluster.nodes[0].process.wait_ended(STOP_LIMIT)?;
        }
    }
    Ok(())
}

fn nodes(cluster: &Cluster) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.command(&["nodes", "--json"])?)?)
}

/// Every lease in the shared directory: user → holder's node, or `free`.
pub(super) fn leases(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
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

    let held = leases(&cluster)?.values().filter(|holder| **holder == name).count();
    let said: Value = serde_json::from_str(&cluster.command(&["drain", &name, "--json"])?)?;
    ensure!(said["handed_over"] == held && held > 0, "{said}, of {held}");
    let log = std::fs::read_to_string(&cluster.nodes[0].log)?;
    ensure!(log.contains(&format!("drain of {name}")) && log.contains("control socket, uid"), "no log says who drained it");
    said_goodbye(&mut direct, "taken out of service")?;
    said_goodbye(&mut relayed, "taken out of service")?;
    ensure!(!leases(&cluster)?.values().any(|holder| *holder == name), "{:?}", leases(&cluster)?);
    let listed = nodes(&cluster)?;
    let row = listed["nodes"].as_array().context("nodes")?.iter().find(|row| row["node"] == name.as_str()).context("the node")?;
    ensure!(row["state"] == "draining" && row["held"] == 0, "{row}");

    let refused = format!("{:#}", cluster.command(&["move", &user.name, &name]).err().context("it was moved to a drained node")?);
    ensure!(refused.contains("berth undrain") && !refused.contains("did not answer"), "{refused}");

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
    ensure!(said.starts_with("1 session told"), "{said}");
    said_goodbye(&mut session, "maintenance at noon")?;
    ensure!(cluster.holder(&user.name)? == other, "a kick moves nobody");
    unconcerned.command("NOOP")?.ok()?;
    ensure!(cluster.command(&["kick", "--ip", "192.0.2.1"])?.starts_with("0 sessions"));
    unconcerned.logout()
}

#[test]
fn misspelt_users_and_nodes_are_refused_and_leave_nothing() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, ..Demo::default() })?;
    let (user, node) = (cluster.users[0].name.clone(), cluster.nodes[0].doors.name.clone());
    for command in [
        &["move", "nobody", &node][..],
        &["quota", "nobody"],
        &["quota", "recalc", "nobody"],
        &["index", "check", "nobody"],
        &["pin", "nobody", &node],
        &["unpin", "nobody"],
        &["where", "nobody"],
        &["adopt", "nobody"],
    ] {
        let refused = format!("{:#}", cluster.command(command).err().with_context(|| format!("{command:?} worked"))?);
        ensure!(refused.contains("there is no user nobody"), "{command:?}: {refused}");
    }
    ensure!(cluster.command(&["kick", "nobody", "--json"])?.contains("\"unknown_user\":true"), "a misspelt name is told");
    ensure!(!cluster.root.join("mail/_/nobody").exists(), "folders were made for nobody");
    for command in [
        &["weight", "mailx", "5"][..],
        &["tag", "mailx", "add", "a"],
        &["tag", "mailx"],
        &["drain", "mailx"],
        &["undrain", "mailx"],
        &["pin", &user, "mailx"],
        &["kick", "--node", "mailx"],
        &["who", "--node", "mailx"],
        &["move", &user, "mailx"],
    ] {
        let refused = format!("{:#}", cluster.command(command).err().with_context(|| format!("{command:?} worked"))?);
        ensure!(refused.contains("no node mailx was ever seen") && refused.contains(&node), "{command:?}: {refused}");
    }
    ensure!(!cluster.root.join("settings/mailx").exists(), "settings of no node");
    // A node that is yet to come.
    cluster.command(&["tag", "mailx", "add", "a", "--force"])?;
    ensure!(cluster.command(&["tag"])?.contains("mailx"));
    cluster.command(&["tag", "mailx", "remove", "a"])?;
    ensure!(!cluster.command(&["tag"])?.contains("mailx"), "what has no settings any more is shown");
    Ok(())
}

/// The node that has the user, as `berth where` says.
fn whereabouts(cluster: &Cluster, user: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.command(&["where", user, "--json"])?)?)
}

#[test]
fn a_pin_is_followed_by_every_node_and_survives_restarts() -> Result<()> {
    let mut cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    open(&cluster.nodes[0].doors, &user)?.append("INBOX", "", &mail::message("pin", 0))?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let target = cluster.nodes[other].doors.name.clone();

    // In use elsewhere: it goes over when its session has ended, and not before.
    let mut session = open(&cluster.nodes[holder].doors, &user)?;
    let said = cluster.command(&["pin", &user.name, &target])?;
    ensure!(said.contains("goes there when nobody uses"), "{said}");
    session.command("NOOP")?.ok()?;
    let said = whereabouts(&cluster, &user.name)?;
    ensure!(said["preferred"] == target.as_str() && said["by"] == "pin" && said["sessions"] == 1, "{said}");
    ensure!(cluster.holder(&user.name)? == holder);
    session.logout()?;
    wait::until("the pinned user's lease to be free", AT_ONCE, || {
        ensure!(leases(&cluster)?.get(&user.name).is_some_and(|holder| holder == "free"), "{:?}", leases(&cluster)?);
        Ok(())
    })?;
    for node in 0..cluster.nodes.len() {
        let mut imap = open(&cluster.nodes[node].doors, &user)?;
        ensure!(imap.bodies()?.len() == 1);
        ensure!(cluster.holder(&user.name)? == other, "through every node");
        imap.logout()?;
    }

    // At once, by a flag; and the pin is still there after all nodes were started again.
    let third = (0..cluster.nodes.len()).find(|node| *node != other && *node != holder).context("no third node")?;
    let third_name = cluster.nodes[third].doors.name.clone();
    let mut session = open(&cluster.nodes[holder].doors, &user)?;
    cluster.command(&["pin", &user.name, &third_name, "--now"])?;
    said_goodbye(&mut session, "moves to another server")?;
    ensure!(cluster.holder(&user.name)? == third);
    for node in 0..cluster.nodes.len() {
        cluster.nodes[node].process.terminate()?;
        cluster.nodes[node].process.wait_ended(STOP_LIMIT)?;
        cluster.restart(node)?;
    }
    cluster.wait_acquainted()?;
    open(&cluster.nodes[holder].doors, &user)?.logout()?;
    ensure!(cluster.holder(&user.name)? == third, "{}", whereabouts(&cluster, &user.name)?);
    let pins: Value = serde_json::from_str(&cluster.command(&["pin", "--json"])?)?;
    ensure!(pins["pins"][&user.name] == third_name.as_str(), "{pins}");

    // Where the node is down, the user is served all the same.
    cluster.nodes[third].process.terminate()?;
    cluster.nodes[third].process.wait_ended(STOP_LIMIT)?;
    let mut imap = open_when_possible(&cluster.nodes[holder].doors, &user, AT_ONCE)?;
    ensure!(cluster.holder(&user.name)? != third && imap.bodies()?.len() == 1);
    let said = whereabouts(&cluster, &user.name)?;
    ensure!(said["why"].as_str().is_some_and(|why| why.contains("the pin does not hold at present")), "{said}");
    ensure!(cluster.command(&["unpin", &user.name])?.contains("no longer pinned"));
    ensure!(cluster.command(&["pin", &user.name, "mail99"]).is_err(), "a node that never was is a typing error");
    imap.logout()
}

#[test]
fn a_pin_in_the_users_file_counts_after_that_of_an_operator() -> Result<()> {
    let cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    let (recorded, other) = (cluster.nodes[1].doors.name.clone(), cluster.nodes[2].doors.name.clone());
    let users = cluster.root.join("users");
    let text = std::fs::read_to_string(&users)?;
    let line = text.lines().find(|line| line.starts_with(&format!("{}:", user.name))).context("no such user")?;
    let mut fields: Vec<&str> = line.split(':').collect();
    fields.resize(7, "");
    std::fs::write(&users, text.replace(line, &format!("{}:pin={recorded}", fields.join(":"))))?;
    // Through another user, since nobody is to be placed before every node has read the file.
    let bystander = cluster.users[1].clone();
    wait::until("the pin to be read", AT_ONCE, || {
        for node in &cluster.nodes {
            open(&node.doors, &bystander)?.logout()?;
        }
        let said = whereabouts(&cluster, &user.name)?;
        ensure!(said["preferred"] == recorded.as_str() && said["by"] == "pin", "{said}");
        Ok(())
    })?;
    for node in &cluster.nodes {
        open(&node.doors, &user)?.logout()?;
        ensure!(cluster.holder(&user.name)? == 1, "through {}", node.doors.name);
    }
    cluster.command(&["pin", &user.name, &other])?;
    ensure!(whereabouts(&cluster, &user.name)?["preferred"] == other.as_str());
    cluster.command(&["unpin", &user.name])?;
    ensure!(whereabouts(&cluster, &user.name)?["preferred"] == recorded.as_str());
    Ok(())
}

#[test]
fn a_user_with_tags_is_served_by_nodes_that_have_them_and_waits_for_one() -> Result<()> {
    let cluster = Cluster::start(&Demo { users: 6, ..Demo::default() })?;
    let [tagged, stranded, other] = [0, 1, 2].map(|index: usize| cluster.users[index].clone());
    let users = cluster.root.join("users");
    let mut text = std::fs::read_to_string(&users)?;
    for (user, tag) in [(&tagged, "eu"), (&stranded, "moon")] {
        let line = text.lines().find(|line| line.starts_with(&format!("{}:", user.name))).context("no such user")?.to_owned();
        // uid, gid, gecos, home, shell, then the extra fields.
        let mut fields: Vec<&str> = line.split(':').collect();
        fields.resize(7, "");
        text = text.replace(&line, &format!("{}:tags={tag}", fields.join(":")));
    }
    std::fs::write(&users, text)?;
    let eu = cluster.nodes[1].doors.name.clone();
    ensure!(cluster.command(&["tag", &eu, "add", "eu", "fast"])?.contains("eu fast"));
    // Every node has read the users file once the wish shows through it; nothing is placed until then.
    wait::until("the tag to be read", AT_ONCE, || {
        for node in &cluster.nodes {
            open(&node.doors, &other)?.logout()?;
        }
        ensure!(whereabouts(&cluster, &tagged.name)?["preferred"] == eu.as_str());
        Ok(())
    })?;
    for node in &cluster.nodes {
        open_when_possible(&node.doors, &tagged, AT_ONCE)?.logout()?;
        ensure!(cluster.holder(&tagged.name)? == 1, "through {}", node.doors.name);
    }
    ensure!(cluster.command(&["move", &tagged.name, &cluster.nodes[0].doors.name]).is_err(), "a tag holds for operators as well");

    // No node has this tag: the login waits until one does, and nobody else serves it.
    let said = whereabouts(&cluster, &stranded.name)?;
    ensure!(said["preferred"].is_null() && said["why"].as_str().is_some_and(|why| why.contains("no node with the tags moon")), "{said}");
    let waiting = std::thread::spawn({
        let (doors, user) = (cluster.nodes[0].doors.clone(), stranded.clone());
        move || open(&doors, &user)?.logout()
    });
    ensure!(wait::until("the user to be held", Duration::from_secs(2), || cluster.holder(&stranded.name)).is_err(), "somebody took it");
    cluster.command(&["tag", &cluster.nodes[2].doors.name, "add", "moon", "eu"])?;
    ensure!(waiting.join().is_ok_and(|waited| waited.is_ok()), "the login did not get through");
    ensure!(cluster.holder(&stranded.name)? == 2);

    // The tag goes to another node: the user follows once idle.
    cluster.command(&["tag", &eu, "remove", "eu"])?;
    wait::until("the tagged user's lease to be free", AT_ONCE * 2, || {
        ensure!(leases(&cluster)?.get(&tagged.name).is_some_and(|holder| holder == "free"), "{:?}", leases(&cluster)?);
        Ok(())
    })?;
    open(&cluster.nodes[0].doors, &tagged)?.logout()?;
    ensure!(cluster.holder(&tagged.name)? == 2, "{}", whereabouts(&cluster, &tagged.name)?);
    let listed: Value = serde_json::from_str(&cluster.command(&["tag", "--json"])?)?;
    ensure!(listed["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3), "{listed}");
    Ok(())
}

#[test]
fn rebalance_brings_users_to_where_they_belong() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 12, ..Demo::default() })?;
    for user in &cluster.users {
        open(&cluster.nodes[0].doors, user)?.append("INBOX", "", &mail::message("rebalance", 0))?;
    }
    let (a, b) = (cluster.nodes[0].doors.name.clone(), cluster.nodes[1].doors.name.clone());
    let said = cluster.command(&["move", "--from", &b, &a, "--json"])?;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["failed"].as_array().is_some_and(Vec::is_empty), "{said}");
    ensure!(leases(&cluster)?.values().all(|holder| *holder == a), "{:?}", leases(&cluster)?);

    let plan: Value = serde_json::from_str(&cluster.command(&["rebalance", "--dry-run", "--json"])?)?;
    let moves = plan["moves"].as_array().context("moves")?.len();
    ensure!(moves > 0 && moves == said["moved"].as_array().map_or(0, Vec::len), "{plan}\n{said}");
    let mut in_use = open(&cluster.nodes[0].doors, &cluster.users[0])?;
    let said: Value = serde_json::from_str(&cluster.command(&["rebalance", "--idle", "--json"])?)?;
    ensure!(said["left"] == 0 && said["failed"].as_array().is_some_and(Vec::is_empty), "{said}");
    in_use.command("NOOP")?.ok()?;
    cluster.command(&["rebalance", "--parallel", "2"])?;
    let plan: Value = serde_json::from_str(&cluster.command(&["rebalance", "--dry-run", "--json"])?)?;
    ensure!(plan["moves"].as_array().is_some_and(Vec::is_empty), "{plan}");
    for user in &cluster.users {
        ensure!(open(&cluster.nodes[1].doors, user)?.bodies()?.len() == 1);
    }
    Ok(())
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
    wait::until("the node's return", STOP_LIMIT, || {
        let listed = nodes(&cluster)?;
        let fenced =
            listed["fenced"].as_array().context("fenced")?.iter().find(|row| row["node"] == name.as_str()).context("not listed")?;
        ensure!(fenced["back"] == true, "{fenced}");
        Ok(())
    })?;
    let mut imap = open_when_possible(&cluster.nodes[other].doors, &user, AT_ONCE)?;
    ensure!(imap.bodies()?.contains_key(&uid));
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
