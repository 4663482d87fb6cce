//! offlineimap3 keeps a mailbox and a Maildir the same, both ways, and downloads nothing twice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{
    Context, Result,
    clients::{imap::Imap, lmtp::Lmtp},
    ensure, mail, need,
    peers::write,
    process,
    site::{Doors, Site, User, host_port},
};

/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(120);
const MESSAGES: usize = 10;

/// A home of its own with its settings and its copy of the mail.
struct Offline {
    home: tempfile::TempDir,
}

impl Offline {
    fn new(doors: &Doors, user: &User) -> Result<Offline> {
        let home = tempfile::tempdir()?;
        let (host, port) = host_port(&doors.imap)?;
        let base = home.path().display();
        // `tls_level` and certificates do not matter on loopback; the password holds no character that configparser would take for its own.
        write(
            &home.path().join("rc"),
            &format!(
                "[general]\naccounts = a\nmetadata = {base}/metadata\nui = basic\n\n[Account a]\nlocalrepository = near\nremoterepository = far\n\n\
                 [Repository near]\ntype = Maildir\nlocalfolders = {base}/mail\nsep = /\n\n\
                 [Repository far]\ntype = IMAP\nremotehost = {host}\nremoteport = {port}\nremoteuser = {}\nremotepass = {}\nssl = no\nstarttls = no\n",
                user.name, user.password
            ),
        )?;
        Ok(Offline { home })
    }

    /// One run; what it said.
    fn sync(&self) -> Result<String> {
        let mut command = Command::new("offlineimap");
        command.args(["-o", "-u", "basic", "-c"]).arg(self.home.path().join("rc")).env("HOME", self.home.path()).env("LANG", "C.UTF-8");
        let output = process::run(&mut command, LIMIT)?;
        let said = process::said(&output);
        ensure!(output.status.success(), "offlineimap failed ({}): {said}", output.status);
        Ok(said)
    }

    /// The files of a mailbox's copy, sorted.
    fn files(&self, mailbox: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in ["new", "cur"] {
            let folder = self.home.path().join("mail").join(mailbox).join(folder);
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                files.push(entry?.path());
            }
        }
        files.sort();
        Ok(files)
    }

    fn file_with(&self, mailbox: &str, id: &str) -> Result<PathBuf> {
        for file in self.files(mailbox)? {
            if mail::id_of(&fs::read(&file)?)? == id {
                return Ok(file);
            }
        }
        tests::bail!("no message {id} in the copy of {mailbox}")
    }
}

fn flags_of(file: &Path) -> String {
    file.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once(":2,"))
        .map(|(_, flags)| flags.to_owned())
        .unwrap_or_default()
}

/// The lines that are not empty: offlineimap takes messages apart and puts them together again, with more empty lines between parts.
fn lines(message: &[u8]) -> Vec<&[u8]> {
    message.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect()
}

/// UID of the message with this Message-ID.
fn uid_of(imap: &mut Imap, id: &str) -> Result<u64> {
    let found = imap.command(&format!("UID SEARCH HEADER Message-ID \"{id}\""))?.ok()?.search()?;
    let [uid] = found.as_slice() else { tests::bail!("{id} is there {} times", found.len()) };
    Ok(*uid)
}

#[test]
fn offlineimap_synchronises_both_ways_and_downloads_nothing_twice() -> Result<()> {
    need!("offlineimap");
    let site = Site::start(2, 1)?;
    let user = &site.users[0];
    let sent = mail::messages("offline", MESSAGES);
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    for message in sent.values() {
        lmtp.deliver_ok("ada@tests.example", &[&user.address()], message)?;
    }
    let mut imap = Imap::login(&site.nodes[0].imap, &user.name, &user.password)?;
    imap.command("CREATE Work/2026")?.ok()?;
    imap.append("Work/2026", "\\Seen", &mail::message("work", 1))?;
    imap.select("INBOX")?;
    // Through the node that the mail does not lie with.
    let offline = Offline::new(&site.nodes[1], user)?;
    offline.sync()?;
    let copies = offline.files("INBOX")?;
    ensure!(copies.len() == sent.len(), "{} copies", copies.len());
    for (id, message) in &sent {
        let copy = mail::with_crlf(&fs::read(offline.file_with("INBOX", id)?)?);
        ensure!(lines(&copy).ends_with(&lines(message)), "{id} is another: {:?}", String::from_utf8_lossy(&copy));
    }
    ensure!(flags_of(&offline.file_with("Work/2026", "<1.work@tests.example>")?) == "S");

    let before = offline.files("INBOX")?;
    let said = offline.sync()?;
    ensure!(offline.files("INBOX")? == before && !said.contains("Copy message"), "a second run had something to do:\n{said}");

    // Here a flag, there another, here one message less, there one more.
    let ids: Vec<&String> = sent.keys().collect();
    let marked = uid_of(&mut imap, ids[0])?;
    imap.command(&format!("UID STORE {marked} +FLAGS.SILENT (\\Answered)"))?.ok()?;
    let removed = uid_of(&mut imap, ids[1])?;
    imap.command(&format!("UID STORE {removed} +FLAGS.SILENT (\\Deleted)"))?.ok()?;
    imap.command(&format!("UID EXPUNGE {removed}"))?.ok()?;
    let file = offline.file_with("INBOX", ids[2])?;
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    let stem = name.split(":2,").next().unwrap_or(name);
    let read = offline.home.path().join("mail/INBOX/cur").join(format!("{stem}:2,FS"));
    process::run_ok(Command::new("mv").arg(&file).arg(&read), LIMIT)?;
    let written = mail::message("written", 1);
    fs::write(offline.home.path().join("mail/INBOX/new/1763748000.1.here"), &written)?;
    fs::remove_file(offline.file_with("INBOX", ids[3])?)?;
    offline.sync()?;

    imap.command("NOOP")?.ok()?;
    let flags = imap.flags()?;
    let uid = |imap: &mut Imap, id: &str| Ok::<_, tests::Report>(u32::try_from(uid_of(imap, id)?)?);
    ensure!(flags[&uid(&mut imap, ids[2])?] == ["\\Flagged", "\\Seen"], "{flags:?}");
    ensure!(flags.len() == MESSAGES - 1, "{} messages", flags.len());
    ensure!(uid_of(&mut imap, ids[3]).is_err(), "what was removed here is still there");
    let uploaded = uid(&mut imap, "<1.written@tests.example>")?;
    let body = imap.bodies()?.remove(&uploaded).context("the message that was written here")?;
    ensure!(mail::with_crlf(&body).ends_with(b"\r\n") && mail::id_of(&body)? == "<1.written@tests.example>");
    ensure!(flags_of(&offline.file_with("INBOX", ids[0])?).contains('R'), "\\Answered came here");
    ensure!(offline.file_with("INBOX", ids[1]).is_err(), "what was removed there is still here");

    let before = offline.files("INBOX")?;
    let said = offline.sync()?;
    ensure!(offline.files("INBOX")? == before && !said.contains("Copy message"), "the last run had something to do:\n{said}");
    imap.logout()
}
