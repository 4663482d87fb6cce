//! Two hosts with one node name: the newer start serves, the older one ends and says why, and nothing acknowledged is lost.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tests::{
    Context, Result, berth,
    clients::imap::Imap,
    cluster::{Cluster, Demo, set},
    ensure,
    process::Guarded,
    site::Doors,
    wait,
};

use super::{Writer, check, wait_for_mail};
use crate::{FAILOVER_LIMIT, open, open_when_possible};

const SOON: Duration = Duration::from_secs(60);
const NAME: &str = "twin";
/// What a process ends with that is not to be started again (`EX_CONFIG`; `RestartPreventExitStatus=78` in docs/install.md).
const NOT_AGAIN: i32 = 78;

/// A host: a lock folder, a configuration, a log and a process of its own.
struct Host {
    doors: Doors,
    relay: String,
    log: PathBuf,
    process: Guarded,
}

impl Host {
    fn start(cluster: &Cluster, number: u16) -> Result<Host> {
        let first = &cluster.nodes[0];
        let folder = first.log.parent().context("no folder")?;
        let (config, log) = (folder.join(format!("host{number}.toml")), folder.join(format!("host{number}.log")));
        fs::copy(&first.config, &config)?;
        let address = |n: u16| cluster.spare_address(number * 4 + n);
        let doors = Doors { name: NAME.to_owned(), imap: address(0), pop3: address(1), lmtp: address(2), ..first.doors.clone() };
        let relay = address(3);
        let local = folder.join(format!("host{number}"));
        set(&config, "node", &format!("name = \"{NAME}\"\nlocal_dir = \"{}\"", local.display()))?;
        let listen = format!("imap = [\"{}\"]\nimaps = []\npop3 = [\"{}\"]\npop3s = []\n", doors.imap, doors.pop3);
        set(&config, "listen", &format!("{listen}lmtp = [\"{}\"]\nrelay = \"{relay}\"", doors.lmtp))?;
        let file = File::create(&log)?;
        let mut command = berth::command(&["serve", "--config", config.to_str().context("path")?])?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut process = Guarded::start(&format!("host {number}"), &mut command)?;
        wait::until("its greeting", SOON, || {
            process.check_running()?;
            Imap::connect(&doors.imap).map(drop)
        })?;
        Ok(Host { doors, relay, log, process })
    }

    /// The warnings and errors that speak of an address.
    fn complaints(&self, of: &str) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.log)?;
        let told = log.lines().filter(|line| (line.contains(" WARN ") || line.contains("ERROR")) && line.contains(of));
        Ok(told.map(str::to_owned).collect())
    }
}

#[test]
fn of_two_hosts_with_one_name_the_newer_serves_and_nothing_acknowledged_is_missing() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let (user, other) = (&cluster.users[0], &cluster.nodes[0]);
    let mut older = Host::start(&cluster, 0)?;
    wait::until("the user to be there", SOON, || cluster.command(&["move", &user.name, NAME]))?;
    // A client of the older host, one that comes through another node, and mail that comes in both ways.
    let mut client = open(&older.doors, user)?;
    let writers = [Writer::delivering(&other.doors, user, "delivered"), Writer::appending(&other.doors, user, "appended")];
    let (before, validity) = wait_for_mail(&mut open(&other.doors, user)?, 10)?;
    client.append("INBOX", "", &tests::mail::message("own", 0))?;

    let newer = Host::start(&cluster, 1)?;
    let status = wait::until("the older host's end", SOON, || older.process.child().try_wait()?.context("it still runs"))?;
    ensure!(status.code() == Some(NOT_AGAIN), "a supervisor would start it again: {status}");
    client.wire().set_patience(SOON);
    let served = client.command("NOOP").and_then(|reply| reply.ok());
    ensure!(served.is_err(), "a host without its name served: {served:?}");
    ensure!(Imap::connect(&older.doors.imap).is_err(), "the older host still listens");

    // Its clients go on: at the newer one, and through any other.
    for doors in [&newer.doors, &other.doors] {
        open_when_possible(doors, user, FAILOVER_LIMIT + SOON)?.logout()?;
    }
    wait_for_mail(&mut open(&newer.doors, user)?, before.len() + 10)?;
    let acknowledged = writers.into_iter().map(Writer::finish).collect::<Result<Vec<_>>>()?;
    let mut imap = open(&newer.doors, user)?;
    check(&mut imap, &before, validity, &acknowledged)?;
    let own = tests::mail::id_of(&tests::mail::message("own", 0))?;
    let (ids, _) = wait_for_mail(&mut imap, 1)?;
    ensure!(ids.values().filter(|id| **id == own).count() == 1, "{own} was acknowledged by the older host and is missing");

    // One node of that name, and each host's log names the other.
    let reply: Value = serde_json::from_str(&cluster.command(&["nodes", "--json"])?)?;
    let twins: Vec<&Value> = reply["nodes"].as_array().context("no nodes")?.iter().filter(|row| row["node"] == NAME).collect();
    ensure!(twins.len() == 1 && twins[0]["state"] == "up" && twins[0]["relay"][0] == newer.relay.as_str(), "{reply}");
    let log = fs::read_to_string(&older.log)?;
    let last = log.lines().last().context("it logged nothing")?;
    ensure!(last.contains("two hosts are configured as one node") && last.contains(&newer.relay) && last.contains("node.name"), "{log}");
    let warned = newer.complaints(&older.relay)?;
    ensure!(warned.len() == 1 && warned[0].contains("another host") && warned[0].contains("node.name"), "{warned:#?}");
    Ok(())
}
