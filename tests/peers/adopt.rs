//! Mail that Dovecot made is taken over in place, and Dovecot goes on with what Berth hands back: clients download nothing again.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{
    Context, Result,
    berth::run,
    clients::{
        imap::Imap,
        lmtp::Lmtp,
        pop3::Pop3,
        value::{Untagged, Value},
    },
    cluster::{Cluster, Demo},
    ensure, mail, need,
    peers::dovecot::Dovecot,
    process,
    site::{Doors, PASSWORD, User, host_port},
    wait,
};

/// How long a program may take that has almost nothing to do.
const LIMIT: Duration = Duration::from_secs(60);

/// What a client could see of a mailbox.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    uid_validity: u64,
    uid_next: u64,
    messages: BTreeMap<u32, String>,
}

fn look(imap: &mut Imap, mailbox: &str) -> Result<Seen> {
    let selected = imap.select(mailbox)?;
    let (uid_validity, uid_next) = (selected.code_number("UIDVALIDITY")?, selected.code_number("UIDNEXT")?);
    let fetched = imap.command("UID FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE)")?.ok()?;
    let mut messages = BTreeMap::new();
    for message in fetched.messages()?.into_values() {
        let item = |name: &str| message.get(name).with_context(|| format!("no {name}"));
        let mut flags: Vec<String> = item("FLAGS")?.list()?.iter().map(Value::text).collect::<Result<_>>()?;
        // Whose session was first is nothing that a client remembers.
        flags.retain(|flag| flag != "\\Recent");
        flags.sort();
        let date = when(&item("INTERNALDATE")?.text()?)?;
        messages.insert(u32::try_from(item("UID")?.number()?)?, format!("{flags:?} {date} {}", item("RFC822.SIZE")?.number()?));
    }
    Ok(Seen { uid_validity, uid_next, messages })
}

/// The moment that an INTERNALDATE names, whatever its zone: Unix seconds, by the system's own `date`.
fn when(date: &str) -> Result<String> {
    let said = process::run_ok(Command::new("date").arg("--date").arg(date.replacen('-', " ", 2)).arg("+%s"), LIMIT)?;
    Ok(String::from_utf8(said)?.trim().to_owned())
}

/// Everything that clients remember of the server.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    inbox: Seen,
    archive: Seen,
    subscribed: Vec<String>,
    uidls: Vec<String>,
}

fn remember(doors: &Doors, user: &User, separator: &str) -> Result<Memory> {
    let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
    let inbox = look(&mut imap, "INBOX")?;
    let archive = look(&mut imap, &format!("Archive{separator}2026"))?;
    let listed = imap.command("LSUB \"\" \"*\"")?.ok()?;
    let name = |line: &Untagged| line.values.last().context("LSUB without a name").and_then(Value::text);
    let mut subscribed = listed.all("LSUB").map(|line| Ok(name(line)?.replace(separator, "/"))).collect::<Result<Vec<String>>>()?;
    subscribed.sort();
    imap.logout()?;
    let mut pop3 = Pop3::login(&doors.pop3, &user.name, &user.password)?;
    let uidls = pop3.lines("UIDL")?.into_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
    pop3.quit()?;
    Ok(Memory { inbox, archive, subscribed, uidls })
}

/// mbsync with a state of its own.
struct Mbsync {
    home: tempfile::TempDir,
}

impl Mbsync {
    fn new() -> Result<Mbsync> {
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join("mail"))?;
        Ok(Mbsync { home })
    }
    /// Synchronises; what mbsync has afterwards, files and state.
    fn sync(&self, doors: &Doors, user: &User) -> Result<BTreeMap<String, Vec<u8>>> {
        let (host, port) = host_port(&doors.imap)?;
        let base = self.home.path().display();
        let config = self.home.path().join("mbsyncrc");
        fs::write(
            &config,
            format!(
                "IMAPAccount a\nHost {host}\nPort {port}\nUser {}\nPass \"{}\"\nSSLType None\nAuthMechs LOGIN\n\n\
                 IMAPStore far\nAccount a\n\nMaildirStore near\nPath {base}/mail/\nInbox {base}/mail/INBOX\nSubFolders Verbatim\n\n\
                 Channel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n",
                user.name, user.password
            ),
        )?;
        process::run_ok(Command::new("mbsync").arg("--config").arg(&config).arg("--all").env("HOME", self.home.path()), LIMIT)?;
        let inbox = self.home.path().join("mail/INBOX");
        let mut found = BTreeMap::new();
        for folder in ["cur", "new", "."] {
            for entry in fs::read_dir(inbox.join(folder))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    found.insert(format!("{folder}/{}", entry.file_name().display()), fs::read(entry.path())?);
                }
            }
        }
        Ok(found)
    }
}

/// fetchmail over POP3 that keeps mail on the server and remembers UIDLs; how many messages it took.
fn fetchmail(home: &Path, doors: &Doors, user: &User) -> Result<usize> {
    let (host, port) = host_port(&doors.pop3)?;
    let taken = home.join("taken");
    fs::create_dir_all(&taken)?;
    let agent = home.join("deliver");
    fs::write(&agent, format!("#!/bin/sh\nexec cat > \"$(mktemp {}/XXXXXXXX)\"\n", taken.display()))?;
    let config = home.join("fetchmailrc");
    fs::write(
        &config,
        format!(
            "set invisible\nset no bouncemail\npoll {host} service {port} protocol pop3 uidl user \"{}\" password \"{}\" sslproto \"\" \
             no rewrite no mimedecode keep mda \"{}\"\n",
            user.name,
            user.password,
            agent.display()
        ),
    )?;
    for (file, mode) in [(&agent, 0o755), (&config, 0o600)] {
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    let before = fs::read_dir(&taken)?.count();
    let mut command = Command::new("fetchmail");
    command.arg("--fetchmailrc").arg(&config).arg("--idfile").arg(home.join("ids")).arg("--pidfile").arg(home.join("pid"));
    command.args(["--silent", "--nosyslog"]).env("HOME", home).env("FETCHMAILHOME", home);
    let output = process::run(&mut command, LIMIT)?;
    ensure!(matches!(output.status.code(), Some(0 | 1)), "fetchmail failed ({}): {}", output.status, process::said(&output));
    Ok(fs::read_dir(&taken)?.count() - before)
}

/// Copies a folder with all times, for `owner` (`None`: as it is).
fn copy_tree(from: &Path, to: &Path, owner: Option<u32>) -> Result<()> {
    fs::create_dir_all(to.parent().context("a path with a parent")?)?;
    process::run_ok(Command::new("cp").arg("--archive").arg("--no-target-directory").arg(from).arg(to), LIMIT)?;
    if let Some(owner) = owner {
        process::run_ok(Command::new("chown").arg("--recursive").arg(format!("{owner}:{owner}")).arg(to), LIMIT)?;
    }
    Ok(())
}

fn append_dated(imap: &mut Imap, flags: &str, date: &str, message: &[u8]) -> Result<()> {
    imap.command_with_literal(&format!("APPEND INBOX ({flags}) \"{date}\""), message, "")?.ok().map(drop)
}

fn fill(doors: &Doors, user: &User, separator: &str) -> Result<()> {
    let archive = format!("Archive{separator}2026");
    let mut lmtp = Lmtp::connect(&doors.lmtp)?;
    for message in mail::messages("adopt", 8).values() {
        lmtp.deliver_ok("ada@tests.example", &[&user.address()], message)?;
    }
    let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
    imap.command(&format!("CREATE {archive}"))?.ok()?;
    append_dated(&mut imap, "\\Flagged", "17-Jul-1996 02:44:25 -0700", &mail::message("adopt", 100))?;
    imap.append(&archive, "\\Seen", &mail::message("adopt", 101))?;
    for name in ["INBOX", &archive] {
        imap.command(&format!("SUBSCRIBE {name}"))?.ok()?;
    }
    imap.select("INBOX")?;
    imap.command("UID STORE 2,5 +FLAGS (\\Seen $Label1 todo)")?.ok()?;
    imap.command("UID STORE 3 +FLAGS (\\Answered todo)")?.ok()?;
    // Gaps between UIDs must stay gaps.
    imap.command("UID STORE 1,4 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    imap.logout()
}

/// Where Dovecot keeps mail, and what tells Berth so.
struct Place {
    /// Further lines of Dovecot's configuration.
    dovecot: &'static str,
    /// Between levels, at Dovecot.
    separator: &'static str,
    /// Further lines of Berth's configuration.
    berth: &'static str,
    /// Where the user's home goes below `mail/_/user1`.
    home: &'static str,
}

#[test]
fn mail_of_dovecot_is_taken_over_and_handed_back_and_no_client_downloads_anything_again() -> Result<()> {
    there_and_back(&Place { dovecot: "", separator: ".", berth: "", home: "Maildir" })
}

#[test]
fn mail_of_dovecot_in_the_layout_fs_with_control_files_elsewhere_is_taken_over_and_handed_back() -> Result<()> {
    there_and_back(&Place {
        dovecot: "mail_location = maildir:~/Maildir:LAYOUT=fs:INBOX=~/inbox:CONTROL=~/control\nnamespace inbox {\n  separator = /\n}\n",
        separator: "/",
        berth: "[mail]\nlayout = \"fs\"\ninbox = \"mail/{domain}/{local}/inbox\"\ncontrol = \"mail/{domain}/{local}/control\"\n",
        home: "",
    })
}

fn there_and_back(place: &Place) -> Result<()> {
    need!("dovecot", "mbsync", "fetchmail");
    let user = User { name: "user1".to_owned(), password: PASSWORD.to_owned() };
    let dovecot = Dovecot::start_with(std::slice::from_ref(&user), place.dovecot)?;
    fill(dovecot.doors(), &user, place.separator)?;
    let before = remember(dovecot.doors(), &user, place.separator)?;
    let mbsync = Mbsync::new()?;
    mbsync.sync(dovecot.doors(), &user)?;
    let synchronised = mbsync.sync(dovecot.doors(), &user)?;
    let fetchmail_home = tempfile::tempdir()?;
    ensure!(fetchmail(fetchmail_home.path(), dovecot.doors(), &user)? == before.uidls.len(), "fetchmail did not take everything at first");
    let with_seen = remember(dovecot.doors(), &user, place.separator)?;

    // The tree as Dovecot left it becomes the mail of a cluster.
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    if !place.berth.is_empty() {
        cluster.configure(place.berth)?;
    }
    let maildir: PathBuf = cluster.root.join("mail/_/user1/Maildir");
    let home = cluster.root.join("mail/_/user1").join(place.home);
    copy_tree(&dovecot.mail().join("user1"), &home, None)?;
    let checked = cluster.command(&["adopt", "user1", "--dry-run"])?;
    ensure!(checked.contains("Dovecot") && !checked.contains("problem"), "{checked}");
    ensure!(!maildir.join("berth-uidvalidity").exists(), "a check changes nothing");
    for node in cluster.doors() {
        let after = remember(&node, &user, "/")?;
        ensure!(after.inbox == with_seen.inbox, "through {}:\n{:#?}\nDovecot:\n{:#?}", node.name, after.inbox, with_seen.inbox);
        ensure!(after == with_seen, "through {}:\n{after:#?}\nDovecot:\n{with_seen:#?}", node.name);
        ensure!(mbsync.sync(&node, &user)? == synchronised, "mbsync has something else than before");
        ensure!(fetchmail(fetchmail_home.path(), &node, &user)? == 0, "fetchmail took messages again");
    }

    // Berth works with it, and hands it back.
    let doors = cluster.doors();
    Lmtp::connect(&doors[0].lmtp)?.deliver_ok("ada@tests.example", &[&user.address()], &mail::message("adopt", 200))?;
    let mut imap = Imap::login(&doors[0].imap, &user.name, &user.password)?;
    append_dated(&mut imap, "\\Draft", "01-Feb-2003 04:05:06 +0000", &mail::message("adopt", 201))?;
    imap.select("INBOX")?;
    imap.command("UID STORE 6 +FLAGS (\\Flagged later)")?.ok()?;
    imap.logout()?;
    let at_berth = remember(&doors[1], &user, "/")?;
    let synchronised = mbsync.sync(&doors[0], &user)?;
    ensure!(fetchmail(fetchmail_home.path(), &doors[0], &user)? == 2, "fetchmail did not take the two new messages");
    let config = cluster.nodes[0].config.to_str().context("a path in UTF-8")?.to_owned();
    let refused = run(&["release-to", "dovecot", "user1", "--config", &config])?;
    ensure!(!refused.status.success() && process::said(&refused).contains("held by"), "{}", process::said(&refused));
    let kept = fs::read_to_string(&config)?;
    cluster.stop()?;
    // The demo takes its configuration away with it.
    let config = tempfile::NamedTempFile::new()?;
    fs::write(config.path(), kept)?;
    let released =
        tests::berth::run_ok(&["release-to", "dovecot", "user1", "--config", config.path().to_str().context("a path in UTF-8")?])?;
    ensure!(released.contains("handed back"), "{released}");

    let again = Dovecot::start_with(std::slice::from_ref(&user), place.dovecot)?;
    copy_tree(&home, &again.mail().join("user1"), Some(8))?;
    chown(again.mail(), Some(8), Some(8))?;
    let back = wait::until("Dovecot's answer", LIMIT, || remember(again.doors(), &user, place.separator)).with_context(|| again.log())?;
    let uids = |memory: &Memory| memory.inbox.messages.clone();
    ensure!(uids(&back) == uids(&at_berth), "Dovecot:\n{:#?}\nBerth:\n{:#?}\n{}", back.inbox, at_berth.inbox, again.log());
    ensure!(back.inbox.uid_validity == at_berth.inbox.uid_validity && back.archive.messages == at_berth.archive.messages, "{back:#?}");
    ensure!((&back.uidls, &back.subscribed) == (&at_berth.uidls, &at_berth.subscribed), "{back:#?}\n{at_berth:#?}");
    ensure!(mbsync.sync(again.doors(), &user)? == synchronised, "mbsync has something else than before");
    ensure!(fetchmail(fetchmail_home.path(), again.doors(), &user)? == 0, "fetchmail took messages again");
    Ok(())
}

#[test]
fn dovecot_believes_the_maildirsize_that_berth_kept() -> Result<()> {
    need!("dovecot");
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    cluster.configure("[quota]\nrules = [\"*:bytes=10M:messages=1000\"]\n")?;
    let (doors, user) = (cluster.doors()[0].clone(), cluster.users[0].clone());
    let mut lmtp = Lmtp::connect(&doors.lmtp)?;
    for message in mail::messages("maildirsize", 20).values() {
        lmtp.deliver_ok("ada@tests.example", &[&user.address()], message)?;
    }
    let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    imap.command("STORE 1:3 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    let ours = quota(&mut imap)?;
    ensure!(ours[2..] == [17, 1000], "{ours:?}");
    imap.logout()?;
    cluster.stop()?;

    let home = cluster.root.join("mail/_/user1/Maildir");
    let written = fs::read_to_string(home.join("maildirsize"))?;
    let settings = "mail_plugins = quota\nprotocol imap {\n  mail_plugins = quota imap_quota\n}\n\
                    plugin {\n  quota = maildir:User quota\n  quota_rule = *:bytes=10M:messages=1000\n}\n";
    let dovecot = Dovecot::start_with(std::slice::from_ref(&user), settings)?;
    copy_tree(&home, &dovecot.mail().join("user1"), Some(8))?;
    chown(dovecot.mail(), Some(8), Some(8))?;
    let mut imap = wait::until("Dovecot's answer", LIMIT, || Imap::login(&dovecot.doors().imap, &user.name, &user.password))?;
    let theirs = quota(&mut imap).with_context(|| dovecot.log())?;
    ensure!(theirs == ours, "Dovecot: {theirs:?}, Berth: {ours:?}; {written:?}");
    let after = fs::read_to_string(dovecot.mail().join("user1/maildirsize"))?;
    ensure!(after == written, "Dovecot counted anew: {after:?} instead of {written:?}");
    imap.logout()
}

/// STORAGE in KiB, its limit, messages, their limit.
fn quota(imap: &mut Imap) -> Result<Vec<u64>> {
    let reply = imap.command("GETQUOTAROOT INBOX")?.ok()?;
    let line = reply.all("QUOTA").next().context("no QUOTA")?;
    let items = line.values.last().context("no list")?.list()?;
    let number = |name: &str, at: usize| -> Result<u64> {
        let position = items.iter().position(|item| item.text().is_ok_and(|text| text == name)).with_context(|| format!("no {name}"))?;
        items.get(position + at).context("no number")?.number()
    };
    Ok(vec![number("STORAGE", 1)?, number("STORAGE", 2)?, number("MESSAGE", 1)?, number("MESSAGE", 2)?])
}
