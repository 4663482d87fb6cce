//! What an operator reads: one session under one id on both nodes, and no secret at any level.

mod ends;

use std::{fs, io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use tests::{
    Context, Result,
    clients::{imap::Imap, pop3::Pop3},
    cluster::{Cluster, Demo},
    ensure, wait,
};

use super::{holder_and_other, open};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_relayed_session_has_one_id_in_both_logs_and_says_why_it_ended() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let user = &cluster.users[0];
    open(&cluster.nodes[0].doors, user)?.logout()?;
    let (holder, other) = holder_and_other(&cluster, user)?;
    open(&cluster.nodes[other].doors, user)?.logout()?;
    let relayed = |line: &&str| line.contains("relayed session start") && line.contains(&format!("user={}", user.name));
    let log = wait::until("the holder's log", SOON, || {
        let log = fs::read_to_string(&cluster.nodes[holder].log)?;
        ensure!(log.lines().any(|line| line.contains("relayed session end")), "no end yet");
        Ok(log)
    })?;
    let start = log.lines().find(relayed).context("the holder's log does not name the session")?;
    let id = start.split("session=").nth(1).and_then(|rest| rest.split(' ').next()).context("no id")?;
    let ended = wait::until("the ingress' log", SOON, || {
        let log = fs::read_to_string(&cluster.nodes[other].log)?;
        log.lines().find(|line| line.contains("connection end") && line.contains(id)).map(str::to_owned).context("no end yet")
    })?;
    for part in ["reason=", "bytes_in=", "bytes_out=", "protocol=imap", "node=", &format!("user=\"{}\"", user.name), "holder="] {
        ensure!(ended.contains(part), "{part} is missing in {ended}");
    }
    Ok(())
}

#[test]
fn no_password_is_logged_at_any_level() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let node = &cluster.nodes[0];
    fs::File::options().append(true).open(&node.config)?.write_all(b"\n[log]\nlevel = \"trace\"\n")?;
    node.process.terminate()?;
    node.process.wait_ended(SOON)?;
    cluster.restart(0)?;
    let (doors, log) = (cluster.nodes[0].doors.clone(), cluster.nodes[0].log.clone());
    let (name, right) = (cluster.users[0].name.clone(), cluster.users[0].password.clone());
    let wrong = "wr0ng-horse-battery";
    let plain = |password: &str| BASE64.encode(format!("\0{name}\0{password}"));
    for password in [right.as_str(), wrong] {
        let mut imap = Imap::connect(&doors.imap)?;
        imap.command(&format!("LOGIN {name} \"{password}\""))?;
        Imap::connect(&doors.imap)?.command(&format!("AUTHENTICATE PLAIN {}", plain(password)))?;
        let mut pop3 = Pop3::connect(&doors.pop3)?;
        pop3.ok(&format!("USER {name}"))?;
        pop3.command(&format!("PASS {password}"))?.ok();
    }
    let text = wait::until("the log of the failed logins", SOON, || {
        let text = fs::read_to_string(&log)?;
        ensure!(text.contains("TRACE") && text.contains("auth failure"), "not at trace level, or nothing logged yet");
        Ok(text)
    })?;
    for secret in [right.clone(), wrong.to_owned(), plain(&right), plain(wrong)] {
        ensure!(!text.contains(&secret), "a secret is in the log: {:?}", text.lines().find(|line| line.contains(&secret)));
    }
    Ok(())
}
