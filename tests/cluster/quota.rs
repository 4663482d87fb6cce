//! Quotas: limits of the users file, refused mail, a warning, and what operators see.

use std::{fs, io::Write, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use tests::{
    Context, Result,
    clients::{imap::Imap, lmtp::Lmtp},
    cluster::{Cluster, Demo},
    ensure, mail,
    site::User,
    wait,
};

use super::{holder_and_other, open};

/// The users file is looked at every few seconds, and background work runs now and then.
const NOTICED: Duration = Duration::from_secs(30);

/// Gives a user extra fields in the users file.
fn give(cluster: &Cluster, user: &User, fields: &str) -> Result<()> {
    let file = cluster.root.join("users");
    let text = fs::read_to_string(&file)?;
    let lines = text.lines().map(|line| match line.split(':').next() {
        Some(name) if name == user.name => {
            let missing = 7_usize.saturating_sub(line.matches(':').count());
            format!("{line}{}{fields}\n", ":".repeat(missing))
        }
        _ => format!("{line}\n"),
    });
    let new = lines.collect::<String>();
    Ok(fs::write(file, new)?)
}

fn used(cluster: &Cluster, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.command(arguments)?)?)
}

#[test]
fn mail_for_a_full_user_is_refused_and_operators_are_told() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: None })?;
    let (user, other) = (&cluster.users[0], &cluster.users[1]);
    let told = cluster.root.with_file_name("told");
    for node in &cluster.nodes {
        let command = format!("[quota]\nwarning_command = [\"/bin/sh\", \"-c\", 'echo \"$@\" >> {}', \"sh\"]\n", told.display());
        fs::File::options().append(true).open(&node.config)?.write_all(command.as_bytes())?;
    }
    for node in &cluster.nodes {
        wait::until("the new settings", NOTICED, || {
            ensure!(fs::read_to_string(&node.log)?.contains("configuration, users and certificates reloaded"), "not read yet");
            Ok(())
        })?;
    }
    give(&cluster, user, "userdb_quota_rule=*:messages=4 userdb_quota_rule2=Trash:messages=+1")?;
    let limits = |imap: &mut Imap| Ok::<_, tests::Report>(format!("{:?}", imap.command("GETQUOTAROOT INBOX")?.ok()?));
    let mut imap = open(&cluster.nodes[0].doors, user)?;
    wait::until("the limit in the users file", NOTICED, || {
        // A login looks at the users file when that is due.
        open(&cluster.nodes[0].doors, user)?.logout()?;
        open(&cluster.nodes[1].doors, user)?.logout()?;
        let said = limits(&mut imap)?;
        ensure!(said.contains("MESSAGE"), "{said}");
        Ok(())
    })?;

    let (holder, ingress) = holder_and_other(&cluster, user)?;
    let message = mail::message("quota", 1);
    let deliver = |node: usize| {
        let recipients = [user.address(), other.address()];
        let mut lmtp = Lmtp::connect(&cluster.nodes[node].doors.lmtp)?;
        let replies = lmtp.deliver("ada@tests.example", &recipients.each_ref().map(String::as_str), &message)?;
        lmtp.quit()?;
        Ok::<_, tests::Report>(replies)
    };
    for _ in 0..4 {
        ensure!(deliver(ingress)?.iter().all(|reply| reply.code == 250), "there is room");
    }
    let refused = deliver(ingress)?;
    ensure!(refused[0].code == 452 && refused[0].lines[0].starts_with("4.2.2 "), "{refused:?}");
    ensure!(refused[1].code == 250, "the other user has no limit: {refused:?}");
    // The holder knows it before the message.
    let mut lmtp = Lmtp::connect(&cluster.nodes[holder].doors.lmtp)?;
    lmtp.command("MAIL FROM:<>")?.expect(250)?;
    lmtp.command(&format!("RCPT TO:<{}>", user.address()))?.expect(452)?;
    lmtp.command(&format!("RCPT TO:<{}>", other.address()))?.expect(250)?;
    lmtp.quit()?;

    imap.select("INBOX")?;
    for command in ["COPY 1 Sent", "COPY 1:2 Trash"] {
        let answer = imap.command(command)?;
        ensure!(answer.ok().is_err_and(|error| format!("{error:#}").contains("OVERQUOTA")), "{command}");
    }
    imap.command("COPY 1 Trash")?.ok()?;
    imap.command("MOVE 1 Sent")?.ok()?;

    let shown = used(&cluster, &["quota", &user.name, "--json"])?;
    ensure!(shown["roots"][0]["messages"] == 5 && shown["roots"][0]["messages_limit"] == 4, "{shown}");
    ensure!(shown["holder"] == cluster.nodes[holder].doors.name.as_str(), "{shown}");
    let counted = used(&cluster, &["quota", "recalc", &user.name, "--json"])?;
    ensure!(counted["roots"] == shown["roots"] && counted["corrected"] == serde_json::json!([]), "{counted}");
    let maildirsize = find_maildirsize(&cluster)?;
    ensure!(maildirsize.starts_with("4C\n") && maildirsize.lines().count() == 2, "{maildirsize}");
    let table = cluster.command(&["quota", "--all"])?;
    ensure!(table.contains("125 %") && table.lines().count() == 3, "{table}");

    imap.command("STORE 1:* +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    wait::until("the warnings", NOTICED, || {
        let lines = fs::read_to_string(&told).context("nothing was told")?;
        let start = |percent: &str| format!("{} User quota {percent} ", user.name);
        ensure!(lines.lines().any(|line| line.starts_with(&(start("95") + "up"))), "{lines}");
        ensure!(lines.lines().any(|line| line.starts_with(&(start("80") + "down"))), "{lines}");
        Ok(())
    })?;
    ensure!(deliver(ingress)?[0].code == 250, "there is room again");
    Ok(())
}

#[test]
fn limits_are_set_and_removed_on_every_node() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: None })?;
    let (user, master) = (&cluster.users[0], &cluster.users[1]);
    give(&cluster, master, "master=yes")?;
    open(&cluster.nodes[0].doors, user)?.logout()?;
    let (holder, ingress) = holder_and_other(&cluster, user)?;
    let code = || {
        let mut lmtp = Lmtp::connect(&cluster.nodes[ingress].doors.lmtp)?;
        let replies = lmtp.deliver("ada@tests.example", &[&user.address()], &mail::message("set", 1))?;
        lmtp.quit()?;
        Ok::<_, tests::Report>(replies[0].code)
    };
    ensure!(code()? == 250, "nothing is limited");
    let asked = |node: usize, more: &[&str]| {
        let config = cluster.nodes[node].config.to_str().context("the path is UTF-8")?;
        let all = [&["quota", &user.name, "--json", "--config", config], more].concat();
        let shown: Value = serde_json::from_str(&tests::berth::run_ok(&all)?)?;
        Ok::<_, tests::Report>(shown["roots"][0].clone())
    };
    let set = asked(ingress, &["--set", "messages=1"])?;
    ensure!(set["messages_limit"] == 1 && set["bytes_limit"].is_null() && set["source"] == "set", "{set}");
    ensure!(asked(holder, &[])? == set, "the holder says the same");
    ensure!(code()? == 452, "it is full");
    let mut imap = open(&cluster.nodes[ingress].doors, user)?;
    let refused = imap.command("SETQUOTA \"User quota\" ()")?;
    ensure!(refused.ok().is_err_and(|error| format!("{error:#}").contains("NOPERM")), "the user is no operator");

    cluster.command(&["move", &user.name, &cluster.nodes[ingress].doors.name])?;
    let mut lmtp = Lmtp::connect(&cluster.nodes[ingress].doors.lmtp)?;
    lmtp.command("MAIL FROM:<>")?.expect(250)?;
    // The next holder knows it before the message.
    lmtp.command(&format!("RCPT TO:<{}>", user.address()))?.expect(452)?;
    lmtp.quit()?;
    let gone = asked(holder, &["--unset"])?;
    ensure!(gone["messages_limit"].is_null() && gone["source"].is_null(), "{gone}");
    ensure!(code()? == 250, "nothing is limited any more");

    let secret = BASE64_STANDARD.encode(format!("{}\0{}\0{}", user.name, master.name, master.password));
    let mut operator = wait::until("the master user", NOTICED, || {
        let mut imap = Imap::connect(&cluster.nodes[holder].doors.imap)?;
        imap.command(&format!("AUTHENTICATE PLAIN {secret}"))?.ok()?;
        Ok(imap)
    })?;
    operator.command("SETQUOTA \"User quota\" (STORAGE 512)")?.ok()?;
    let set = asked(ingress, &[])?;
    ensure!(set["bytes_limit"] == 512 * 1024 && set["source"] == "set", "{set}");
    Ok(())
}

fn find_maildirsize(cluster: &Cluster) -> Result<String> {
    let mut folders = vec![cluster.root.join("mail")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name() == "maildirsize" {
                return Ok(fs::read_to_string(entry.path())?);
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    tests::bail!("there is no maildirsize below {}", cluster.root.display())
}
