//! The local cache: what is read from a node's own disk is what another node left in the mailbox.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use tests::{
    Context, Result, berth,
    clients::{imap::Imap, pop3::Pop3},
    cluster::{Cluster, Demo},
    ensure, process,
};

use crate::{holder_and_other, open};

/// Two nodes, each with a cache of its own.
fn cluster() -> Result<Cluster> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    for index in 0..2 {
        let config = cluster.nodes[index].config.clone();
        let dir = cluster.root.with_file_name(format!("cache-{index}"));
        // Folders are looked at when a mailbox is opened, and not in the middle of a test.
        fs::write(&config, format!("{}\n[mail]\nrescan_interval = \"1h\"\n[cache]\n", fs::read_to_string(&config)?))?;
        cluster.set_and_restart(index, "cache", &format!("dir = {dir:?}\nsize = \"64MiB\""))?;
        let log = fs::read_to_string(&cluster.nodes[index].log)?;
        ensure!(log.contains("the local cache is open"), "the log does not say so:\n{log}");
    }
    Ok(cluster)
}

/// Messages of one size.
fn letter(letter: char) -> Vec<u8> {
    format!("Subject: {letter}\r\n\r\n{letter}\r\n").into_bytes()
}

/// Reads all messages of a mailbox three times, which has to give the same each time; from the third time on they come from the cache.
fn read(imap: &mut Imap, mailbox: &str) -> Result<BTreeMap<u32, Vec<u8>>> {
    imap.select(mailbox)?;
    let first = imap.bodies()?;
    for _ in 0..2 {
        ensure!(imap.bodies()? == first, "{mailbox} changed while it was read");
    }
    Ok(first)
}

/// What the node's cache did.
fn figures(cluster: &Cluster, node: usize) -> Result<Value> {
    let config = cluster.nodes[node].config.to_str().context("a path that is not UTF-8")?;
    let said: Value = serde_json::from_str(&berth::run_ok(&["nodes", "--json", "--config", config])?)?;
    Ok(said["cache"].clone())
}

#[test]
fn what_another_node_changed_is_never_served_from_the_cache() -> Result<()> {
    let cluster = cluster()?;
    let user = cluster.users[0].clone();
    open(&cluster.nodes[0].doors, &user)?.logout()?;
    let (a, b) = holder_and_other(&cluster, &user)?;
    let name = |node: usize| cluster.nodes[node].doors.name.as_str();
    let mut expected: BTreeMap<u32, Vec<u8>> = BTreeMap::new();

    let mut imap = open(&cluster.nodes[a].doors, &user)?;
    for what in ['a', 'b', 'c'] {
        let (_, uid) = imap.append("INBOX", "", &letter(what))?;
        expected.insert(uid, letter(what));
    }
    imap.command("CREATE Lists")?.ok()?;
    imap.append("Lists", "", &letter('l'))?;
    ensure!(read(&mut imap, "INBOX")? == expected && read(&mut imap, "Lists")?.values().eq([&letter('l')]));
    ensure!(figures(&cluster, a)?["kept"].as_u64() >= Some(4), "nothing was kept: {}", figures(&cluster, a)?);
    imap.logout()?;

    for (round, what) in ['m', 'n', 'o'].into_iter().enumerate() {
        cluster.command(&["move", &user.name, name(b)])?;
        let mut imap = open(&cluster.nodes[b].doors, &user)?;
        let gone = *expected.keys().next().context("no message")?;
        imap.command(&format!("UID STORE {gone} +FLAGS (\\Deleted)"))?.ok()?;
        imap.command("EXPUNGE")?.ok()?;
        expected.remove(&gone);
        let (_, uid) = imap.append("INBOX", "", &letter(what))?;
        expected.insert(uid, letter(what));
        // The first message of the mailbox of that name, as large as the one before.
        imap.command("DELETE Lists")?.ok()?;
        imap.command("CREATE Lists")?.ok()?;
        imap.append("Lists", "", &letter(what))?;
        ensure!(read(&mut imap, "INBOX")? == expected);
        imap.logout()?;

        cluster.command(&["move", &user.name, name(a)])?;
        ensure!(cluster.holder(&user.name)? == a, "the user is not back");
        let before = figures(&cluster, a)?["found"].as_u64().context("found")?;
        let mut imap = open(&cluster.nodes[a].doors, &user)?;
        ensure!(read(&mut imap, "INBOX")? == expected, "round {round}: INBOX is not what the other node left");
        ensure!(
            read(&mut imap, "Lists")?.values().eq([&letter(what)]),
            "round {round}: messages of a mailbox that was deleted are there again"
        );
        let found = figures(&cluster, a)?["found"].as_u64().context("found")?;
        ensure!(found > before, "round {round}: nothing came from the cache");
        imap.logout()?;
    }
    Ok(())
}

#[test]
fn a_cached_body_is_served_without_its_file_and_after_a_restart() -> Result<()> {
    let mut cluster = cluster()?;
    let user = cluster.users[0].clone();
    let mut imap = open(&cluster.nodes[0].doors, &user)?;
    imap.append("INBOX", "", &letter('a'))?;
    let node = cluster.holder(&user.name)?;
    let expected = read(&mut imap, "INBOX")?;
    imap.logout()?;

    cluster.set_and_restart(node, "cache", "size = \"64MiB\"")?;
    cluster.command(&["move", &user.name, &cluster.nodes[node].doors.name.clone()])?;
    let mut imap = open(&cluster.nodes[node].doors, &user)?;
    // Nobody reads what is not there: this is how it is known where the bytes come from.
    let removed = remove_messages(&cluster.root.join("mail"))?;
    ensure!(removed == 1, "{removed} message files were removed");
    ensure!(imap.bodies()? == expected, "the body did not come from the cache");
    let mut pop3 = Pop3::login(&cluster.nodes[node].doors.pop3, &user.name, &user.password)?;
    ensure!(pop3.retrieve(1)? == letter('a'), "POP3 did not take it from the cache");
    pop3.quit()?;
    let said = doctor(&cluster, node)?;
    ensure!(said.contains("local cache") && said.contains("readings came from it"), "{said}");
    imap.logout()
}

#[test]
fn two_nodes_never_share_a_cache() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let dir = cluster.root.with_file_name("cache");
    cluster.configure(&format!("[cache]\ndir = {dir:?}\nsize = \"64MiB\"\n"))?;
    let log = fs::read_to_string(&cluster.nodes[1].log)?;
    ensure!(
        log.contains("goes without its local cache") && log.contains("in use by another process"),
        "the second one says nothing:\n{log}"
    );
    let user = cluster.users[0].clone();
    for node in 0..2 {
        let mut imap = open(&cluster.nodes[node].doors, &user)?;
        imap.append("INBOX", "", &letter('a'))?;
        ensure!(read(&mut imap, "INBOX")?.len() == node + 1);
        imap.logout()?;
    }
    ensure!(figures(&cluster, 0)?.is_object() && figures(&cluster, 1)?.is_null());
    let said = doctor(&cluster, 1)?;
    ensure!(said.contains("local cache") && said.contains("goes without it"), "{said}");
    Ok(())
}

/// What `berth doctor` says; it may find something else wrong on this machine.
fn doctor(cluster: &Cluster, node: usize) -> Result<String> {
    let config = cluster.nodes[node].config.to_str().context("a path that is not UTF-8")?;
    Ok(process::said(&berth::run(&["doctor", "--config", config])?))
}

/// Removes every file of `cur/` and `new/` folders below.
fn remove_messages(folder: &Path) -> Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            removed += remove_messages(&path)?;
        } else if folder.ends_with("cur") || folder.ends_with("new") {
            fs::remove_file(path)?;
            removed += 1;
        }
    }
    Ok(removed)
}
