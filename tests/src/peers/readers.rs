//! Reading a whole mailbox with programs that we did not write; each gives the messages' bytes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::write;
use crate::{
    clients::python,
    mail::with_crlf,
    process,
    site::{Doors, User, host_port},
};

const LIMIT: Duration = Duration::from_secs(120);

/// A program that reads mail.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// For messages.
    pub name: &'static str,
    /// What must be installed.
    pub program: &'static str,
    /// Reads all messages of INBOX.
    pub read: fn(&Doors, &User) -> Result<Vec<Vec<u8>>>,
}

/// All of them. Those over POP3 and fetchmail leave the messages where they are.
pub const READERS: &[Reader] = &[
    Reader { name: "Python imaplib", program: "python3", read: imaplib },
    Reader { name: "Python imaplib over TLS", program: "python3", read: imaplib_tls },
    Reader { name: "Python poplib", program: "python3", read: poplib },
    Reader { name: "curl imap://", program: "curl", read: curl_imap },
    Reader { name: "curl pop3://", program: "curl", read: curl_pop3 },
    Reader { name: "mbsync", program: "mbsync", read: mbsync },
    Reader { name: "fetchmail over IMAP", program: "fetchmail", read: fetchmail_imap },
    Reader { name: "fetchmail over POP3", program: "fetchmail", read: fetchmail_pop3 },
    Reader { name: "NeoMutt", program: "neomutt", read: neomutt },
];

const IMAPLIB: &str = r#"
import imaplib, ssl, struct, sys
host, port, user, password, tls = sys.argv[1:]
if tls == "yes":
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    imap = imaplib.IMAP4_SSL(host, int(port), ssl_context=context)
else:
    imap = imaplib.IMAP4(host, int(port))
imap.login(user, password)
status, count = imap.select("INBOX", readonly=True)
assert status == "OK", count
status, found = imap.uid("SEARCH", "ALL")
uids = [int(uid) for uid in found[0].split()]
assert status == "OK" and len(uids) == int(count[0]) and uids == sorted(set(uids)), found
for uid in uids:
    status, data = imap.uid("FETCH", str(uid), "(RFC822.SIZE BODY.PEEK[])")
    message = data[0][1]
    size = int(data[0][0].split(b"RFC822.SIZE ")[1].split()[0].rstrip(b")"))
    assert size == len(message), (size, len(message))
    sys.stdout.buffer.write(struct.pack(">I", len(message)) + message)
imap.logout()
"#;

const POPLIB: &str = r#"
import poplib, struct, sys
poplib._MAXLINE = 1 << 20
pop = poplib.POP3(sys.argv[1], int(sys.argv[2]))
pop.user(sys.argv[3])
pop.pass_(sys.argv[4])
count, size = pop.stat()
uids = [line.split()[1] for line in pop.uidl()[1]]
sizes = [int(line.split()[1]) for line in pop.list()[1]]
assert len(uids) == len(set(uids)) == count and sum(sizes) == size, (uids, sizes)
for number in range(1, count + 1):
    message = b"".join(line + b"\r\n" for line in pop.retr(number)[1])
    assert len(message) == sizes[number - 1], (len(message), sizes[number - 1])
    sys.stdout.buffer.write(struct.pack(">I", len(message)) + message)
pop.quit()
"#;

fn imaplib(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let (host, port) = host_port(&doors.imap)?;
    length_prefixed(&python::run(IMAPLIB, &[host, port, &user.name, &user.password, "no"])?)
}

fn imaplib_tls(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let (host, port) = host_port(&doors.imaps)?;
    length_prefixed(&python::run(IMAPLIB, &[host, port, &user.name, &user.password, "yes"])?)
}

fn poplib(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let (host, port) = host_port(&doors.pop3)?;
    length_prefixed(&python::run(POPLIB, &[host, port, &user.name, &user.password])?)
}

fn length_prefixed(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*head))?;
        ensure!(rest.len() >= length, "a message was cut off");
        messages.push(rest[..length].to_vec());
        bytes = &rest[length..];
    }
    Ok(messages)
}

fn curl_imap(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let found = String::from_utf8(curl(&["--request", "UID SEARCH ALL", &format!("imap://{}/INBOX", doors.imap)], user)?)?;
    let uids = found.trim().strip_prefix("* SEARCH").with_context(|| format!("curl said {found:?}"))?;
    curl_each(uids.split_whitespace().map(|uid| format!("imap://{}/INBOX;UID={uid}", doors.imap)), user)
}

fn curl_pop3(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let list = String::from_utf8(curl(&[&format!("pop3://{}/", doors.pop3)], user)?)?;
    let numbers = list.lines().filter_map(|line| line.split_whitespace().next());
    curl_each(numbers.map(|number| format!("pop3://{}/{number}", doors.pop3)), user)
}

/// One run of curl for all URLs, each into a file of its own: the connection is used again.
fn curl_each(urls: impl Iterator<Item = String>, user: &User) -> Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let mut arguments = Vec::new();
    let mut files = Vec::new();
    for (number, url) in urls.enumerate() {
        let file = folder.path().join(number.to_string());
        arguments.extend([url, "--output".to_owned(), file.display().to_string()]);
        files.push(file);
    }
    if !files.is_empty() {
        curl(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), user)?;
    }
    files.iter().map(|file| fs::read(file).with_context(|| format!("curl wrote no {}", file.display()))).collect()
}

fn curl(arguments: &[&str], user: &User) -> Result<Vec<u8>> {
    let mut command = Command::new("curl");
    command.args(["--disable", "--silent", "--show-error", "--user", &format!("{}:{}", user.name, user.password)]).args(arguments);
    process::run_ok(&mut command, LIMIT)
}

fn mbsync(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let home = tempfile::tempdir()?;
    let (host, port) = host_port(&doors.imap)?;
    let base = home.path().display();
    fs::create_dir(home.path().join("mail"))?;
    let config = home.path().join("mbsyncrc");
    write(
        &config,
        &format!(
            "IMAPAccount a\nHost {host}\nPort {port}\nUser {}\nPass \"{}\"\nSSLType None\nAuthMechs LOGIN\n\n\
             IMAPStore far\nAccount a\n\nMaildirStore near\nPath {base}/mail/\nInbox {base}/mail/INBOX\nSubFolders Verbatim\n\n\
             Channel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n",
            user.name, user.password
        ),
    )?;
    let sync = || process::run_ok(Command::new("mbsync").arg("--config").arg(&config).arg("--all").env("HOME", home.path()), LIMIT);
    sync()?;
    let inbox = home.path().join("mail/INBOX");
    let first = maildir(&inbox)?;
    // A second run has nothing to do: UIDs and UIDVALIDITY stayed.
    sync()?;
    ensure!(maildir(&inbox)?.len() == first.len(), "a second mbsync fetched messages again");
    // mbsync marks what it copies with a header of its own.
    Ok(first.into_iter().map(|message| without_header(&message, "X-TUID")).collect())
}

fn fetchmail_imap(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    fetchmail("imap", &doors.imap, user)
}

fn fetchmail_pop3(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    fetchmail("pop3", &doors.pop3, user)
}

fn fetchmail(protocol: &str, address: &str, user: &User) -> Result<Vec<Vec<u8>>> {
    let home = tempfile::tempdir()?;
    let (host, port) = host_port(address)?;
    let base = home.path().display();
    fs::create_dir(home.path().join("new"))?;
    // Its delivery agent: one file per message.
    let agent = home.path().join("deliver");
    write(&agent, &format!("#!/bin/sh\nexec cat > \"$(mktemp {base}/new/XXXXXXXX)\"\n"))?;
    fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let config = home.path().join("fetchmailrc");
    write(
        &config,
        &format!(
            "set invisible\nset no bouncemail\npoll {host} service {port} protocol {protocol} user \"{}\" password \"{}\" sslproto \"\" \
             no rewrite no mimedecode keep fetchall mda \"{}\"\n",
            user.name,
            user.password,
            agent.display()
        ),
    )?;
    fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut command = Command::new("fetchmail");
    command.arg("--fetchmailrc").arg(&config).arg("--idfile").arg(home.path().join("ids")).arg("--pidfile").arg(home.path().join("pid"));
    command.args(["--silent", "--nosyslog"]).env("HOME", home.path()).env("FETCHMAILHOME", home.path());
    let output = process::run(&mut command, LIMIT)?;
    // 1: there was no mail.
    ensure!(matches!(output.status.code(), Some(0 | 1)), "fetchmail failed ({}): {}", output.status, process::said(&output));
    files(&home.path().join("new"))
}

fn neomutt(doors: &Doors, user: &User) -> Result<Vec<Vec<u8>>> {
    let home = tempfile::tempdir()?;
    let base = home.path().display();
    let rc = home.path().join("rc");
    write(
        &rc,
        &format!(
            "set folder = \"imap://{name}@{address}/\"\nset spoolfile = \"imap://{name}@{address}/INBOX\"\nset imap_user = \"{name}\"\nset imap_pass = \"{password}\"\n\
             set ssl_starttls = no\nset ssl_force_tls = no\nset mbox_type = Maildir\nset confirmcreate = no\nset confirmappend = no\nset quit = yes\nset delete = yes\n\
             set read_inc = 0\nset write_inc = 0\nset wait_key = no\nset copy = no\nset header_cache = \"\"\nset message_cachedir = \"\"\nset tmpdir = \"{base}\"\n",
            name = user.name,
            password = user.password,
            address = doors.imap
        ),
    )?;
    // Tag all, copy the tagged ones into a Maildir, leave without changes.
    let keys = format!("push <tag-pattern>~A<enter><tag-prefix><copy-message><kill-line>{base}/copied<enter><exit>");
    let mut command = Command::new("script");
    // NeoMutt wants a terminal.
    let line = format!("neomutt -R -n -F {} -e '{keys}'", rc.display());
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("HOME", home.path()).env("TERM", "xterm").env("LANG", "C.UTF-8").stdin(Stdio::null());
    let output = process::run(&mut command, LIMIT)?;
    ensure!(output.status.success(), "neomutt failed ({}): {}", output.status, process::said(&output));
    let copied = home.path().join("copied");
    if !copied.is_dir() {
        return Ok(Vec::new());
    }
    // What it writes down about a message's body goes into the header of its copy.
    let copies = maildir(&copied)?;
    Ok(copies.into_iter().map(|message| without_header(&without_header(&message, "Content-Length"), "Lines")).collect())
}

/// The messages of a Maildir, with CRLF.
fn maildir(path: &Path) -> Result<Vec<Vec<u8>>> {
    Ok([files(&path.join("new"))?, files(&path.join("cur"))?].concat())
}

fn files(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        messages.push(with_crlf(&fs::read(entry?.path())?));
    }
    Ok(messages)
}

/// The message without the lines of one header.
fn without_header(message: &[u8], name: &str) -> Vec<u8> {
    let prefix = format!("{name}: ");
    let mut in_header = true;
    let mut kept = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        in_header &= line != b"\r\n";
        if !(in_header && line.starts_with(prefix.as_bytes())) {
            kept.extend_from_slice(line);
        }
    }
    kept
}
