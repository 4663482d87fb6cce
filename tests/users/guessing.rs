//! Guessing: what is logged for fail2ban, what it costs, and what a stranger can't touch.

use std::{fs, path::Path, process::Command, time::Duration};

use tests::{
    Context, Result, berth,
    clients::{
        imap::{Imap, Status},
        pop3::Pop3,
    },
    cluster::{Cluster, Demo},
    ensure, need, process, wait,
};

use super::{ensure_refused, login, rcpt};

#[test]
fn fail2ban_reads_the_failures_and_nothing_else() -> Result<()> {
    need!("fail2ban-regex");
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    let node = &cluster.nodes[0];
    for user in ["user1", "nobody", "x address=192.0.2.1"] {
        ensure_refused(&node.doors.imap, user, "wrong", "AUTHENTICATIONFAILED")?;
    }
    super::ensure_login(&node.doors.imap, &cluster.users[0].name, &cluster.users[0].password)?;
    // The filter as the documentation has it.
    let documented = fs::read_to_string(berth::repository().join("docs/users.md"))?;
    let filter = documented.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).context("no filter in docs/users.md")?;
    let file = node.config.with_file_name("berth-filter.conf");
    fs::write(&file, filter)?;
    let output = process::run(Command::new("fail2ban-regex").arg(&node.log).arg(&file), Duration::from_secs(60))?;
    let said = process::said(&output);
    ensure!(said.contains("Failregex: 3 total"), "{said}");
    Ok(())
}

#[test]
fn a_guesser_is_slowed_down_by_every_node() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, ..Demo::default() })?;
    let (first, second) = (&cluster.nodes[0].doors.imap, &cluster.nodes[1].doors.imap);
    let user = &cluster.users[0];
    for _ in 0..4 {
        ensure_refused(first, &user.name, "wrong", "AUTHENTICATIONFAILED")?;
    }
    // The next attempt has to wait 8 s; nodes tell each other once a second, and nobody says when.
    std::thread::sleep(Duration::from_secs(2));
    let start = wait::now();
    super::ensure_login(second, &user.name, &user.password)?;
    ensure!(start.elapsed() > Duration::from_secs(3), "the other node answered after {:?}", start.elapsed());
    let start = wait::now();
    super::ensure_login(second, &cluster.users[1].name, &cluster.users[1].password)?;
    ensure!(start.elapsed() < Duration::from_secs(3), "another user waited {:?}", start.elapsed());
    Ok(())
}

#[test]
fn an_app_password_opens_its_protocol_on_every_node_until_it_is_revoked() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    let password = cluster.command(&["user", "app-password", "add", "user1", "--protocols", "imap", "--label", "phone"])?;
    let password = password.trim();
    for node in &cluster.nodes {
        super::ensure_login(&node.doors.imap, "user1", password)?;
    }
    let mut pop3 = Pop3::connect(&cluster.nodes[0].doors.pop3)?;
    pop3.ok("USER user1")?;
    ensure!(pop3.err(&format!("PASS {password}"))?.starts_with("[AUTH]"));
    ensure!(cluster.command(&["user", "app-password", "list", "user1"])?.contains("phone"));
    cluster.command(&["user", "app-password", "revoke", "user1", "1"])?;
    wait::until("the revoked password to be refused", Duration::from_secs(30), || {
        ensure_refused(&cluster.nodes[1].doors.imap, "user1", password, "AUTHENTICATIONFAILED")
    })?;
    super::ensure_login(&cluster.nodes[1].doors.imap, "user1", &cluster.users[0].password)
}

#[test]
fn what_a_source_says_of_a_user_is_shown() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    let said = cluster.command(&["user", "test", "user1@localhost"])?;
    ensure!(said.contains("user      user1") && said.contains("source    passwd-file") && said.contains("SHA512-CRYPT"), "{said}");
    ensure!(!said.contains("$6$"), "a hash is shown: {said}");
    ensure!(cluster.command(&["user", "test", "nobody"]).is_err());
    Ok(())
}

/// Every file and folder below, with its size.
fn listing(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.path().display().to_string();
        // A node renames its own file with every beat.
        if name.contains("/nodes/") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(listing(&entry.path())?);
        }
        found.push((name, if entry.file_type()?.is_dir() { 0 } else { entry.metadata()?.len() }));
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_stranger_makes_no_lease_and_touches_no_file() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, ..Demo::default() })?;
    let before = listing(&cluster.root)?;
    for node in &cluster.nodes {
        for user in ["user1", "nobody", "a/../b", "%2e%2e"] {
            ensure!(login(&node.doors.imap, user, "wrong")?.0 == Status::No);
        }
        let mut imap = Imap::connect(&node.doors.imap)?;
        ensure!(imap.command("SELECT INBOX")?.status == Status::Bad);
        ensure!(rcpt(&node.doors.lmtp, "nobody")?.contains("550"));
        ensure!(rcpt(&node.doors.lmtp, "user2")?.contains("250"), "a recipient alone is no delivery");
    }
    let after = listing(&cluster.root)?;
    ensure!(before == after, "before {before:#?}, after {after:#?}");
    Ok(())
}
