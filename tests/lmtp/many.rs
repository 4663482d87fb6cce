//! One message for many users: how often it is stored, and what is said of each.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use tests::{
    Context, Result,
    clients::{imap::Imap, lmtp::Lmtp},
    cluster::{Cluster, Demo},
    ensure, mail,
};

/// Users of the demo, each addressed with many details: 1,000 recipients.
const USERS: usize = 10;
const DETAILS: usize = 100;

/// Message files below a folder by inode: how many names each has.
fn message_files(folder: &Path, found: &mut BTreeMap<u64, usize>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            message_files(&entry.path(), found)?;
        } else if folder.ends_with("cur") || folder.ends_with("new") {
            *found.entry(entry.metadata()?.ino()).or_default() += 1;
        }
    }
    Ok(())
}

#[test]
fn a_message_for_a_thousand_recipients_is_stored_once_per_holder() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 3, users: USERS, ..Demo::default() })?;
    cluster.configure("[lmtp]\nshare_copies = true\n")?;
    let message = mail::message("many", 0);
    let mut lmtp = Lmtp::connect(&cluster.nodes[0].doors.lmtp)?;
    lmtp.command("MAIL FROM:<ada@tests.example>")?.expect(250)?;
    for detail in 0..DETAILS {
        for user in &cluster.users {
            lmtp.command(&format!("RCPT TO:<{}+d{detail}@localhost>", user.name))?.expect(250)?;
        }
    }
    lmtp.command("DATA")?.expect(354)?;
    lmtp.wire().send(&tests::clients::lmtp::dot_stuffed(&message))?;
    for detail in 0..DETAILS {
        for user in &cluster.users {
            let said = lmtp.reply()?.expect(250)?;
            let expected = format!("<{}+d{detail}@localhost>", user.name);
            ensure!(said.lines[0].contains(&expected), "{said:?} is not about {expected}");
        }
    }
    lmtp.quit()?;

    let holders: std::collections::BTreeSet<usize> = cluster.users.iter().map(|user| cluster.holder(&user.name)).collect::<Result<_>>()?;
    let mut files = BTreeMap::new();
    message_files(&cluster.root.join("mail"), &mut files)?;
    ensure!(files.values().sum::<usize>() == USERS * DETAILS, "{files:?}");
    ensure!(files.len() == holders.len(), "{} files for {} holders: {files:?}", files.len(), holders.len());
    let user = cluster.users.first().context("no user")?;
    let mut imap = Imap::login(&cluster.nodes[1].doors.imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    let bodies = imap.bodies()?;
    ensure!(bodies.len() == DETAILS);
    for body in bodies.values() {
        mail::check_same(&message, body)?;
        ensure!(!String::from_utf8_lossy(body).contains("Delivered-To:"), "what names one recipient can't be in everybody's file");
    }
    // One of them is removed: the others keep theirs.
    imap.command("STORE 1 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    ensure!(imap.bodies()?.len() == DETAILS - 1);
    imap.logout()
}

#[test]
fn a_message_that_is_sent_again_is_stored_once_also_after_a_failover() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    cluster.configure("[lmtp]\nsuppress_duplicates = \"1h\"\n")?;
    let user = cluster.users[0].clone();
    let message = b"Message-ID: <again@tests.example>\r\nSubject: again\r\n\r\nHi\r\n";
    let deliver = |cluster: &Cluster, node: usize| -> Result<()> {
        Lmtp::connect(&cluster.nodes[node].doors.lmtp)?.deliver_ok("ada@tests.example", &[&user.address()], message)
    };
    deliver(&cluster, 0)?;
    deliver(&cluster, 1)?;
    let holder = cluster.holder(&user.name)?;
    cluster.nodes[holder].process.kill()?;
    let other = 1 - holder;
    deliver(&cluster, other)?;
    let mut imap = Imap::login(&cluster.nodes[other].doors.imap, &user.name, &user.password)?;
    ensure!(imap.select("INBOX")?.exists() == Some(1), "it was stored again");
    // Another sender's message with the same id is another message.
    Lmtp::connect(&cluster.nodes[other].doors.lmtp)?.deliver_ok("grace@tests.example", &[&user.address()], message)?;
    ensure!(imap.select("INBOX")?.exists() == Some(2));
    imap.logout()
}
