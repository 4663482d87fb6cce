//! A private Dovecot 2.3: what the tests expect of any server is tried on it, and the benches compare with it.

use std::{
    fs,
    os::unix::fs::chown,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{free_port, open_folder, wait_listening, write};
use crate::{
    packages,
    process::{self, Guarded, Process},
    site::{Doors, User},
};

/// Debian's account `mail`: any account that is not root will do.
const MAIL_UID: u32 = 8;

/// A running Dovecot; it ends with this value.
#[derive(Debug)]
pub struct Dovecot {
    doors: Doors,
    daemon: Guarded,
    folder: TempDir,
}

impl Dovecot {
    /// Starts one with these users, on free ports.
    pub fn start(users: &[User]) -> Result<Dovecot> {
        Dovecot::start_with(users, "")
    }

    /// The same, with further lines of configuration. A second try is on other ports: what takes one of them is no fault of what is tested.
    pub fn start_with(users: &[User], settings: &str) -> Result<Dovecot> {
        Dovecot::try_start(users, settings).or_else(|error| {
            eprintln!("{error:#}; once more");
            Dovecot::try_start(users, settings)
        })
    }

    fn try_start(users: &[User], settings: &str) -> Result<Dovecot> {
        let folder = open_folder("dovecot-")?;
        let path = folder.path();
        let [imap, imaps, pop3, pop3s, lmtp] = [free_port()?, free_port()?, free_port()?, free_port()?, free_port()?];
        fs::create_dir(path.join("mail"))?;
        chown(path.join("mail"), Some(MAIL_UID), Some(MAIL_UID))?;
        let passwd: String = users.iter().map(|user| format!("{}:{{PLAIN}}{}\n", user.name, user.password)).collect();
        write(&path.join("users"), &passwd)?;
        self_signed(path)?;
        let base = path.display();
        write(
            &path.join("dovecot.conf"),
            &format!(
                "base_dir = {base}/run\nstate_dir = {base}/state\nlog_path = {base}/log\nprotocols = imap pop3 lmtp\nlisten = 127.0.0.1\n\
                 ssl = yes\nssl_cert = <{base}/cert.pem\nssl_key = <{base}/key.pem\ndisable_plaintext_auth = no\n\
                 mail_location = maildir:{base}/mail/%n\nmail_uid = {MAIL_UID}\nmail_gid = {MAIL_UID}\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n\
                 auth_username_format = %n\nmail_max_userip_connections = 0\nprotocol imap {{\n  mail_max_userip_connections = 0\n}}\n\
                 passdb {{\n  driver = passwd-file\n  args = {base}/users\n}}\n\
                 userdb {{\n  driver = static\n  args = uid={MAIL_UID} gid={MAIL_UID} home={base}/mail/%n\n}}\n\
                 namespace inbox {{\n  inbox = yes\n  mailbox Sent {{\n    auto = create\n    special_use = \\Sent\n  }}\n}}\ndefault_process_limit = 2000\ndefault_client_limit = 20000\n\
                 service anvil {{\n  chroot =\n}}\n\
                 service imap-login {{\n  chroot =\n  inet_listener imap {{\n    port = {imap}\n  }}\n  inet_listener imaps {{\n    port = {imaps}\n    ssl = yes\n  }}\n}}\n\
                 service pop3-login {{\n  chroot =\n  inet_listener pop3 {{\n    port = {pop3}\n  }}\n  inet_listener pop3s {{\n    port = {pop3s}\n    ssl = yes\n  }}\n}}\n\
                 service lmtp {{\n  inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {lmtp}\n  }}\n}}\n\
                 service stats {{\n  chroot =\n}}\n{settings}\n"
            ),
        )?;
        let binary = packages::find("dovecot").context("Dovecot is not installed (Debian package dovecot-core)")?;
        let mut command = Command::new(binary);
        command.arg("-F").arg("-c").arg(path.join("dovecot.conf")).stdin(Stdio::null());
        let said = fs::File::create(path.join("stderr"))?;
        command.stdout(said.try_clone()?).stderr(said);
        let mut daemon = Guarded::start("dovecot", &mut command)?;
        let at = |port: u16| format!("127.0.0.1:{port}");
        let doors = Doors { name: "dovecot".into(), imap: at(imap), imaps: at(imaps), pop3: at(pop3), pop3s: at(pop3s), lmtp: at(lmtp) };
        for address in [&doors.imap, &doors.pop3, &doors.lmtp] {
            let listens = wait_listening(address);
            // One that has ended says why on its standard error, and in its log once it has one.
            listens.and(daemon.check_running()).with_context(|| {
                let said = ["stderr", "log"].map(|file| process::tail(&path.join(file), 20));
                format!("Dovecot did not start; status {:?}; it said: {said:?}", daemon.check_running())
            })?;
        }
        Ok(Dovecot { doors, daemon, folder })
    }

    /// Its addresses.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Its master process.
    pub fn process(&self) -> Result<Process> {
        self.daemon.process()
    }

    /// Where it keeps mail: one Maildir per user.
    pub fn mail(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        process::tail(&self.folder.path().join("log"), 40)
    }
}

fn self_signed(folder: &std::path::Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.arg("-keyout").arg(folder.join("key.pem")).arg("-out").arg(folder.join("cert.pem"));
    process::run_ok(&mut command, Duration::from_secs(30)).map(drop)
}
