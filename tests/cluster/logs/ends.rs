//! How nodes and sessions ended: each log says what its reader could not know otherwise, and blames nobody for what this node did itself.

use std::{fs, time::Duration};

use serde_json::Value;
use tests::{
    Context, Result, berth,
    cluster::{Cluster, Demo, Node},
    ensure, wait,
};

use crate::{FAILOVER_LIMIT, holder_and_other, open};

const SOON: Duration = Duration::from_secs(30);

/// How a node ended, as another one says.
fn ended(asked: &Node, name: &str) -> Result<Value> {
    let config = asked.config.to_str().context("path")?;
    let reply: Value = serde_json::from_str(&berth::run_ok(&["nodes", "--json", "--config", config])?)?;
    let rows = reply["fenced"].as_array().context("no list of ended nodes")?;
    rows.iter().find(|row| row["node"] == name).cloned().with_context(|| format!("{name} is not in {reply}"))
}

/// Warnings and errors that name a node.
fn warnings<'a>(log: &'a str, name: &str) -> Vec<&'a str> {
    log.lines().filter(|line| (line.contains(" WARN ") || line.contains("ERROR ")) && line.contains(name)).collect()
}

#[test]
fn a_frozen_node_says_that_it_stood_still_and_who_fenced_it() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 8, dir: None })?;
    let [frozen, other] = [&cluster.nodes[0], &cluster.nodes[1]];
    // Some of these it serves itself, some it relays.
    let sessions = cluster.users.iter().map(|user| open(&frozen.doors, user)).collect::<Result<Vec<_>>>()?;
    let holders = cluster.users.iter().map(|user| cluster.holder(&user.name)).collect::<Result<Vec<_>>>()?;
    ensure!(holders.contains(&0) && holders.contains(&1), "all users are on one node: {holders:?}");
    let (name, fencer) = (frozen.doors.name.as_str(), other.doors.name.as_str());
    let before = fs::read_to_string(&other.log)?.len();

    frozen.process.pause()?;
    let said = wait::until("the other node to fence it", FAILOVER_LIMIT + SOON, || {
        let log = fs::read_to_string(&other.log)?.split_off(before);
        let ends = log.lines().filter(|line| line.contains("relayed session end")).count();
        ensure!(log.contains("was fenced by") && ends >= holders.iter().filter(|holder| **holder == 1).count(), "not yet:\n{log}");
        Ok(log)
    })?;
    let about = warnings(&said, name);
    ensure!(about.len() == 1 && about[0].contains(&format!("{name} gave no sign of life for")), "one death is one warning: {about:#?}");
    ensure!(about[0].contains(&format!("fenced by {fencer}")), "{}", about[0]);
    for end in said.lines().filter(|line| line.contains("relayed session end")) {
        ensure!(end.contains(&format!("the link to the ingress {name} broke")), "{end}");
    }
    let row = ended(other, name);
    frozen.process.resume()?;
    let row = row?;
    ensure!(row["why"] == "fenced" && row["by"] == fencer, "{row}");

    let log = wait::until("the frozen node's log", SOON, || {
        let log = fs::read_to_string(&frozen.log)?;
        ensure!(log.contains(&format!("and was fenced by {fencer}")) && log.contains("connection end"), "not yet:\n{log}");
        Ok(log)
    })?;
    let blame = log.lines().find(|line| line.contains(&format!("and was fenced by {fencer}"))).context("no such line")?;
    ensure!(blame.contains("this process stood still for") && blame.contains("SIGSTOP"), "{blame}");
    let told = || log.lines().filter(|line| !line.contains("self-check"));
    let wrong: Vec<&str> = told().filter(|line| line.contains("contact with") || line.contains("file server")).collect();
    ensure!(wrong.is_empty(), "the file server did nothing wrong: {wrong:#?}");
    wait::until("the sessions' ends", SOON, || {
        let log = fs::read_to_string(&frozen.log)?;
        let own = log.lines().filter(|line| line.contains("connection end") && line.contains("this server stood still")).count();
        let relayed = log.lines().filter(|line| line.contains("connection end") && line.contains("this process stood still")).count();
        ensure!(own > 0 && relayed > 0, "{own} {relayed}:\n{log}");
        Ok(())
    })?;
    // Back at once: what it had is over.
    wait::until("it to be up", SOON, || {
        let reply: Value = serde_json::from_str(&cluster.command(&["nodes", "--json"])?)?;
        let rows = reply["nodes"].as_array().context("no nodes")?;
        ensure!(rows.iter().all(|row| row["state"] == "up"), "{reply}");
        Ok(())
    })?;
    drop(sessions);
    Ok(())
}

#[test]
fn the_warning_of_a_death_says_how_many_users_the_node_held() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 8, dir: None })?;
    cluster.configure("[log]\nlevel = \"debug\"\n")?;
    let [killed, other] = [&cluster.nodes[0], &cluster.nodes[1]];
    let sessions = cluster.users.iter().map(|user| open(&killed.doors, user)).collect::<Result<Vec<_>>>()?;
    let holders = cluster.users.iter().map(|user| cluster.holder(&user.name)).collect::<Result<Vec<_>>>()?;
    let held = holders.iter().filter(|holder| **holder == 0).count();
    ensure!(held > 0 && held < holders.len(), "all users are on one node: {holders:?}");
    let name = killed.doors.name.as_str();
    // Nodes ask each other; no operator does.
    wait::until("the other node to hear how many it holds", SOON, || {
        let log = fs::read_to_string(&other.log)?;
        let told = log.lines().rfind(|line| line.contains("a node told how many users it holds") && line.contains(name));
        ensure!(told.is_some_and(|told| told.contains(&format!("held={held}"))), "not yet: {told:?}");
        Ok(())
    })?;
    let before = fs::read_to_string(&other.log)?.len();
    killed.process.kill()?;
    let said = wait::until("the other node to fence it", FAILOVER_LIMIT + SOON, || {
        let log = fs::read_to_string(&other.log)?.split_off(before);
        ensure!(log.contains("was fenced by"), "not yet:\n{log}");
        Ok(log)
    })?;
    let about = warnings(&said, name);
    let held = if held == 1 { "1 user".to_owned() } else { format!("{held} users") };
    ensure!(about.len() == 1 && about[0].contains(&format!("; it held about {held} ")), "{about:#?}");
    drop(sessions);
    Ok(())
}

#[test]
fn a_node_that_is_stopped_leaves_without_a_warning() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let (stopped, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let name = stopped.doors.name.as_str();
    let before = fs::read_to_string(&other.log)?.len();
    stopped.process.terminate()?;
    let log = wait::until("the other node's log", SOON, || {
        let log = fs::read_to_string(&other.log)?.split_off(before);
        ensure!(log.contains(&format!("{name} left (stopped)")), "not yet:\n{log}");
        Ok(log)
    })?;
    ensure!(warnings(&log, name).is_empty(), "{:#?}", warnings(&log, name));
    let row = ended(other, name)?;
    ensure!(row["why"] == "left", "{row}");
    let own = fs::read_to_string(&stopped.log)?;
    for once in ["joined the cluster", "left the cluster"] {
        ensure!(own.lines().filter(|line| line.contains(once)).count() == 1, "{once:?} is not there once:\n{own}");
    }
    Ok(())
}

#[test]
fn the_ingress_says_why_the_holder_ended_a_session() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let user = &cluster.users[0];
    open(&cluster.nodes[0].doors, user)?.logout()?;
    let (holder, other) = holder_and_other(&cluster, user)?;
    let session = open(&cluster.nodes[other].doors, user)?;
    cluster.command(&["move", &user.name, &cluster.nodes[other].doors.name])?;
    let by = &cluster.nodes[holder].doors.name;
    wait::until("the ingress' log", SOON, || {
        let log = fs::read_to_string(&cluster.nodes[other].log)?;
        ensure!(log.contains(&format!("{by} ended it: your mail moves to another server")), "not yet:\n{log}");
        Ok(())
    })?;
    drop(session);
    Ok(())
}
