//! The Maildir is the truth: the index of a user whom no node holds can be deleted.

mod cache;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tests::{
    Context, Result, berth,
    cluster::{Cluster, Demo},
    ensure, mail, process,
};

use super::{holder_and_other, open};

#[test]
fn without_its_index_a_mailbox_keeps_uids_flags_and_uidvalidity() -> Result<()> {
    let mut cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    let mut imap = open(&cluster.nodes[0].doors, &user)?;
    for number in 0..10 {
        imap.append("INBOX", "", &mail::message("index", number))?;
    }
    imap.select("INBOX")?;
    imap.command("CREATE Kept")?.ok()?;
    imap.command("STORE 1,3 +FLAGS (\\Seen Work)")?.ok()?;
    imap.command("STORE 4 +FLAGS (\\Answered \\Flagged \\Draft)")?.ok()?;
    imap.command("COPY 1:4 Kept")?.ok()?;
    // The highest UID is expunged: it must not be given again either.
    imap.command("STORE 5,10 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    let mut before = Vec::new();
    for mailbox in ["Kept", "INBOX"] {
        let validity = imap.select(mailbox)?.code_number("UIDVALIDITY")?;
        before.push((mailbox, validity, imap.flags()?, imap.bodies()?));
    }
    imap.logout()?;
    let dir = cluster.stop()?;

    let indexes = folders_named("index", &cluster.root.join("mail"))?;
    ensure!(!indexes.is_empty(), "no index was found under {}", cluster.root.display());
    for index in indexes {
        fs::remove_dir_all(index)?;
    }

    let again = Cluster::start(&Demo { dir: Some(dir), ..Demo::default() })?;
    let mut imap = open(&again.nodes[1].doors, &user)?;
    for (mailbox, validity, flags, bodies) in before {
        let selected = imap.select(mailbox)?;
        ensure!(selected.code_number("UIDVALIDITY")? == validity, "UIDVALIDITY of {mailbox} changed");
        ensure!(imap.flags()? == flags, "UIDs or flags of {mailbox} changed: {flags:?}, {:?}", imap.flags()?);
        ensure!(imap.bodies()? == bodies, "messages of {mailbox} changed");
    }
    let (_, uid) = imap.append("INBOX", "", &mail::message("index", 11))?;
    ensure!(uid > 10, "UID {uid} was given again");
    imap.logout()
}

#[test]
fn an_operator_checks_and_rebuilds_an_index_through_any_node_while_sessions_go_on() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: None })?;
    let user = cluster.users[0].clone();
    let mut imap = open(&cluster.nodes[0].doors, &user)?;
    for number in 0..50 {
        imap.append("INBOX", "", &mail::message("index", number))?;
    }
    imap.select("INBOX")?;
    imap.command("STORE 1:20 +FLAGS.SILENT (\\Seen)")?.ok()?;
    let (flags, bodies) = (imap.flags()?, imap.bodies()?);
    let (_, other) = holder_and_other(&cluster, &user)?;
    let config = cluster.nodes[other].config.to_str().context("a path that is not UTF-8")?;
    let index = |what: &str| berth::run(&["index", what, &user.name, "--json", "--config", config]);
    let sound = |what: &str| -> Result<()> {
        let output = index(what)?;
        ensure!(output.status.success(), "{}", process::said(&output));
        let said: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(said["mailboxes"].as_u64() >= Some(1) && said["damage"].is_null(), "{said}");
        Ok(())
    };
    sound("check")?;
    sound("rebuild")?;
    sound("check")?;
    let all = berth::run_ok(&["index", "check", "--all", "--json", "--config", config])?;
    ensure!(all.lines().count() == 2 && all.lines().all(|line| line.contains("\"damage\":null")), "{all}");
    // Every page but the first.
    let folder = folders_named("index", &cluster.root.join("mail"))?.pop().context("no index")?;
    let epoch = fs::read_dir(folder)?.next().context("no epoch")??.path();
    for name in ["index.db", "index.db-wal"] {
        let file = fs::File::options().write(true).open(epoch.join(name))?;
        let length = file.metadata()?.len();
        for at in (4096..length.max(4096)).step_by(512) {
            file.write_all_at(b"damage", at)?;
        }
    }
    let output = index("check")?;
    let said = process::said(&output);
    ensure!(!output.status.success() && said.contains("damaged"), "{said}");
    imap.command("NOOP")?;
    sound("check")?;
    imap.select("INBOX")?;
    ensure!(imap.flags()? == flags && imap.bodies()? == bodies, "something was lost");
    imap.append("INBOX", "", &mail::message("index", 51))?;
    imap.logout()
}

fn folders_named(name: &str, under: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|own| own == name) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(folders_named(name, &path)?);
        }
    }
    Ok(found)
}
