//! `berth import` and `berth export`: mail that went out and came in again is the same, and other programs' files are read.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use tests::{
    Context, Result,
    clients::{imap::Imap, python},
    cluster::{Cluster, Demo},
    ensure, mail, need,
    site::User,
};

/// A message as a client sees it, apart from its UID: flags, date, bytes.
type Seen = (Vec<String>, String, Vec<u8>);

fn look(cluster: &Cluster, user: &User, mailbox: &str) -> Result<Vec<Seen>> {
    let mut imap = Imap::login(&cluster.nodes[0].doors.imap, &user.name, &user.password)?;
    imap.command(&format!("EXAMINE \"{mailbox}\""))?.ok()?;
    let (bodies, flags) = (imap.bodies()?, imap.flags()?);
    let fetched = imap.command("UID FETCH 1:* (INTERNALDATE)")?.ok()?;
    let mut seen = Vec::new();
    for message in fetched.messages()?.into_values() {
        let uid = u32::try_from(message.get("UID").context("no UID")?.number()?)?;
        let mut flags: Vec<String> = flags[&uid].iter().filter(|flag| *flag != "\\Recent").cloned().collect();
        flags.sort();
        seen.push((flags, message.get("INTERNALDATE").context("no date")?.text()?, bodies[&uid].clone()));
    }
    imap.logout()?;
    Ok(seen)
}

fn fill(cluster: &Cluster, user: &User) -> Result<()> {
    let mut imap = Imap::login(&cluster.nodes[1].doors.imap, &user.name, &user.password)?;
    imap.command("CREATE \"Archive/Entw&APw-rfe\"")?.ok()?;
    imap.command("SUBSCRIBE \"Archive/Entw&APw-rfe\"")?.ok()?;
    let flags = ["", "\\Seen", "\\Flagged \\Answered todo", "\\Draft \\Deleted $Junk todo"];
    for (number, mailbox) in ["INBOX", "INBOX", "INBOX", "INBOX", "Archive/Entw&APw-rfe", "Archive/Entw&APw-rfe"].iter().enumerate() {
        let mut message = mail::message("transfer", number);
        message.extend_from_slice(b"From here on\r\n>From there\r\n\r\n");
        let text = String::from_utf8(message)?;
        let date = format!("{:02}-Jul-199{number} 02:23:25 +0000", number + 1);
        imap.command(&format!("APPEND \"{mailbox}\" ({}) \"{date}\" {{{}+}}\r\n{text}", flags[number % 4], text.len()))?.ok()?;
    }
    imap.logout()
}

fn import(cluster: &Cluster, user: &User, from: &Path, more: &[&str]) -> Result<Value> {
    let from = from.to_str().context("path")?;
    let mut arguments = vec!["import", &user.name, "--from", from, "--json"];
    arguments.extend(more);
    Ok(serde_json::from_str::<Value>(&cluster.command(&arguments)?)?["counts"].take())
}

#[test]
fn what_was_exported_is_imported_as_it_was() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 4, dir: None })?;
    let [ada, users @ ..] = &cluster.users[..] else { tests::bail!("no users") };
    fill(&cluster, ada)?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for (user, (to, format)) in users.iter().zip([("tree", "maildir"), ("mail.tar", "maildir"), ("mbox", "mbox")]) {
        let path = at(to);
        let out = path.to_str().context("path")?;
        cluster.command(&["export", &ada.name, "--to", out, "--format", format])?;
        let would = import(&cluster, user, &path, &["--dry-run"])?;
        ensure!(would["imported"] == 6 && look(&cluster, user, "INBOX")?.is_empty(), "{to}: {would}");
        let done = import(&cluster, user, &path, &[])?;
        ensure!(done["imported"] == 6 && done["skipped"] == 0 && done["failed"] == 0, "{to}: {done}");
        for mailbox in ["INBOX", "Archive/Entw&APw-rfe"] {
            let (before, after) = (look(&cluster, ada, mailbox)?, look(&cluster, user, mailbox)?);
            ensure!(before == after, "{to}, {mailbox}:\n{before:?}\n{after:?}");
        }
        let again = import(&cluster, user, &path, &[])?;
        ensure!(again["imported"] == 0 && again["skipped"] == 6, "{to}: nothing is imported twice: {again}");
        let mut imap = Imap::login(&cluster.nodes[0].doors.imap, &user.name, &user.password)?;
        let subscribed = format!("{:?}", imap.command("LSUB \"\" \"*\"")?.ok()?);
        ensure!(format == "mbox" || subscribed.contains("Entw&APw-rfe"), "{to}: {subscribed}");
        imap.logout()?;
    }
    // A tree is added to, and nothing in it is written again.
    let tree = at("tree");
    let again = cluster.command(&["export", &ada.name, "--to", tree.to_str().context("path")?, "--json"])?;
    let again: Value = serde_json::from_str(&again)?;
    ensure!(again["counts"]["exported"] == 0 && again["counts"]["skipped"] == 6, "{again}");
    // Elsewhere in the hierarchy.
    let below = import(&cluster, &users[0], &tree, &["--mailbox", "Old"])?;
    ensure!(below["imported"] == 6, "{below}");
    ensure!(look(&cluster, &users[0], "Old")?.len() == 4 && look(&cluster, &users[0], "Old/Archive/Entw&APw-rfe")?.len() == 2, "below Old");
    Ok(())
}

/// Two messages by Python's `mailbox`: flags, a folded header, lines that begin with "From ", no line end at the end.
const PYTHON: &str = r#"
import mailbox, sys
kind, path = sys.argv[1:]
box = mailbox.mbox(path) if kind == "mbox" else mailbox.Maildir(path, create=True)
for number, flags in ((1, "RF"), (2, "")):
    message = mailbox.mboxMessage() if kind == "mbox" else mailbox.MaildirMessage()
    message["Message-ID"] = f"<{number}@python.example>"
    message["Subject"] = "one\n two"
    message.set_payload(f"From {number}\nlast line without an end")
    if kind == "mbox":
        message.set_from("ada@example.org", (1996, 7, number, 2, 3, 4, 0, 0, 0))
        message.set_flags(flags)
    else:
        message.set_flags({"RF": "SF", "": ""}[flags])
        message.set_date(836186584 + number)
    box.add(message)
box.flush()
"#;

#[test]
fn files_of_other_programs_are_imported() -> Result<()> {
    need!("python3");
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: None })?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let path = |name: &str| at(name).to_string_lossy().into_owned();
    let subjects = |seen: &[Seen]| {
        seen.iter().map(|(.., body)| String::from_utf8_lossy(body).matches("Subject: one\r\n two\r\n").count()).sum::<usize>()
    };
    for (user, kind) in cluster.users.iter().zip(["mbox", "maildir"]) {
        python::run(PYTHON, &[kind, &path(kind)])?;
        let done = import(&cluster, user, &at(kind), &["--mbox", "o"])?;
        ensure!(done["imported"] == 2, "{kind}: {done}");
        let seen = look(&cluster, user, "INBOX")?;
        let flags: BTreeSet<&str> = seen.iter().flat_map(|(flags, ..)| flags.iter().map(String::as_str)).collect();
        ensure!(flags == BTreeSet::from(["\\Flagged", "\\Seen"]) && subjects(&seen) == 2, "{kind}: {seen:?}");
        for (_, date, body) in &seen {
            ensure!(date.contains("Jul-1996"), "{kind}: {date}");
            let text = String::from_utf8_lossy(body);
            ensure!(text.contains("\r\n\r\nFrom ") && text.trim_end().ends_with("last line without an end"), "{kind}: {text}");
        }
    }
    Ok(())
}
