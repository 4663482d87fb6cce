//! Other programs write to a Maildir that a node serves: an idle client is told, through inotify at once; elsewhere it is seen by who looks.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tests::{
    Context, Result,
    clients::{imap::Imap, lmtp::Lmtp},
    cluster::{Cluster, Demo},
    ensure, mail, need,
    process::{self, said},
    wait,
};

/// How long a program may take that has almost nothing to do.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn what_neomutt_does_on_the_same_host_is_told_at_once() -> Result<()> {
    // Ten minutes between looks at the folder: only inotify can have told.
    an_idle_client_is_told("[mail]\nrescan_interval = \"10m\"\n", Duration::from_secs(20))
}

#[test]
fn what_is_dropped_in_and_deleted_is_seen_on_open_and_noop() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    cluster.configure("[mail]\nrescan_interval = \"1s\"\nwatches = 0\n")?;
    let (doors, user) = (&cluster.doors()[0], &cluster.users[0]);
    let maildir = cluster.root.join("mail/_/user1/Maildir");
    Imap::login(&doors.imap, &user.name, &user.password)?.logout()?;
    let new = maildir.join("new");
    fs::write(new.join("1763748000.1.elsewhere"), mail::message("writers", 1))?;
    let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
    let there = wait::until("the message on open", LIMIT, || {
        let there = imap.select("INBOX")?.exists();
        ensure!(there == Some(1), "{there:?} messages");
        Ok(there)
    })?;
    ensure!(there == Some(1));
    fs::write(new.join("1763748000.2.elsewhere"), mail::message("writers", 2))?;
    wait::until("EXISTS on NOOP", LIMIT, || {
        let there = imap.command("NOOP")?.ok()?.exists();
        ensure!(there == Some(2), "{there:?} messages");
        Ok(())
    })?;
    // Both have names of the server's by now.
    for entry in fs::read_dir(maildir.join("cur"))?.chain(fs::read_dir(&new)?) {
        fs::remove_file(entry?.path())?;
    }
    let mut gone = 0;
    wait::until("EXPUNGE on NOOP", LIMIT, || {
        gone += imap.command("NOOP")?.ok()?.all("EXPUNGE").count();
        ensure!(gone == 2, "{gone} messages are gone");
        Ok(())
    })?;
    imap.logout()
}

fn an_idle_client_is_told(settings: &str, limit: Duration) -> Result<()> {
    need!("neomutt", "script");
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    cluster.configure(settings)?;
    let (doors, user) = (&cluster.doors()[0], &cluster.users[0]);
    let mut lmtp = Lmtp::connect(&doors.lmtp)?;
    for message in mail::messages("writers", 2).values() {
        lmtp.deliver_ok("ada@tests.example", &[&user.address()], message)?;
    }
    let maildir = cluster.root.join("mail/_/user1/Maildir");
    let mut plain = Imap::login(&doors.imap, &user.name, &user.password)?;
    plain.select("INBOX")?;
    let mut resync = Imap::login(&doors.imap, &user.name, &user.password)?;
    resync.command("ENABLE QRESYNC")?.ok()?;
    resync.select("INBOX")?;
    let (plain_tag, resync_tag) = (plain.idle()?, resync.idle()?);

    // A message dropped in, as other delivery agents do.
    let tmp = maildir.join("tmp/1763748000.1.elsewhere");
    fs::write(&tmp, mail::message("writers", 7))?;
    process::run_ok(Command::new("mv").arg(&tmp).arg(maildir.join("new/1763748000.1.elsewhere")), LIMIT)?;
    ensure!(plain.wait_for("EXISTS", limit)?.number == Some(3));
    ensure!(resync.wait_for("EXISTS", limit)?.number == Some(3));

    at_rest(&maildir, 3)?;
    neomutt(&maildir, "<first-entry><flag-message><sync-mailbox><quit>")?;
    plain.wait_for("FETCH", limit)?;
    resync.wait_for("FETCH", limit)?;
    neomutt(&maildir, "<last-entry><delete-message><sync-mailbox><quit>")?;
    plain.wait_for("EXPUNGE", limit)?;
    resync.wait_for("VANISHED", limit)?;
    plain.done(&plain_tag)?.ok()?;
    resync.done(&resync_tag)?.ok()?;

    let found = plain.command("UID SEARCH FLAGGED")?.ok()?;
    let flagged = found.all("SEARCH").next().context("no SEARCH")?.values.len();
    ensure!(flagged == 1, "{flagged} messages are flagged");
    ensure!(plain.command("NOOP")?.ok().is_ok() && plain.select("INBOX")?.code_number("UIDNEXT")? == 4);
    plain.logout()?;
    resync.logout()
}

/// Waits until the server has given its own names to all messages: NeoMutt gives up its changes where a file is renamed while it runs.
fn at_rest(maildir: &Path, messages: usize) -> Result<()> {
    wait::until("the server's own names", LIMIT, || {
        let names = |folder: &str| -> Result<Vec<String>> {
            fs::read_dir(maildir.join(folder))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let (new, cur) = (names("new")?, names("cur")?);
        ensure!(new.is_empty() && cur.len() == messages && cur.iter().all(|name| name.contains(",U=")), "new: {new:?}, cur: {cur:?}");
        Ok(())
    })
}

/// NeoMutt on the Maildir itself.
fn neomutt(maildir: &Path, keys: &str) -> Result<()> {
    let home = tempfile::tempdir()?;
    let rc = home.path().join("rc");
    fs::write(
        &rc,
        format!(
            "set mbox_type = Maildir\nset folder = \"{0}\"\nset quit = yes\nset delete = yes\nset maildir_trash = no\nset read_inc = 0\nset write_inc = 0\nset wait_key = no\n\
             set mark_old = no\nset header_cache = \"\"\nset sort = mailbox-order\nset resolve = no\nset confirmappend = no\n",
            maildir.display()
        ),
    )?;
    // It wants a terminal.
    let line = format!("neomutt -n -F {} -f {} -e 'push {keys}'", rc.display(), maildir.display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("HOME", home.path()).env("TERM", "xterm").env("LANG", "C.UTF-8").stdin(Stdio::null());
    let output = process::run(&mut command, LIMIT)?;
    ensure!(output.status.success(), "neomutt failed ({}): {}", output.status, said(&output));
    Ok(())
}
