//! A private Postfix: own configuration, queue and ports; takes mail by SMTP on loopback and delivers it by LMTP.

use std::{fs, os::unix::fs::chown, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{free_port, open_folder, wait_listening, write};
use crate::{clients::python, packages, process, wait};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Sends every message of a file (length-prefixed) over one SMTP connection.
const SEND: &str = r#"
import smtplib, struct, sys
port, path = int(sys.argv[1]), sys.argv[2]
with smtplib.SMTP("127.0.0.1", port, local_hostname="tests.example") as smtp, open(path, "rb") as file:
    while head := file.read(8):
        to_length, length = struct.unpack(">II", head)
        to = file.read(to_length).decode().split(",")
        refused = smtp.sendmail("ada@tests.example", to, file.read(length), mail_options=["BODY=8BITMIME"])
        assert not refused, refused
"#;

/// A running Postfix; it ends with this value.
#[derive(Debug)]
pub struct Postfix {
    port: u16,
    folder: TempDir,
}

impl Postfix {
    /// Starts one that delivers every message for `localhost` to one of these LMTP addresses, chosen anew for each recipient.
    pub fn start(lmtp: &[&str]) -> Result<Postfix> {
        let folder = open_folder("postfix-")?;
        let port = free_port()?;
        let postfix = Postfix { port, folder };
        for name in ["etc", "spool", "data"] {
            fs::create_dir(postfix.path(name))?;
        }
        let owner = process::run_ok(Command::new("id").args(["-u", "postfix"]), COMMAND_LIMIT)?;
        let owner: u32 = String::from_utf8(owner)?.trim().parse().context("no account postfix")?;
        chown(postfix.path("data"), Some(owner), None)?;
        let base = postfix.folder.path().display();
        let hops: Vec<String> = lmtp.iter().map(|address| Ok(format!("lmtp:inet:{}", bracketed(address)?))).collect::<Result<_>>()?;
        write(
            &postfix.path("etc/main.cf"),
            &format!(
                "compatibility_level = 3.6\nqueue_directory = {base}/spool\ndata_directory = {base}/data\n\
                 maillog_file = {base}/log\nmaillog_file_prefixes = /\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
                 myhostname = mx.tests.example\nmyorigin = tests.example\nmydestination =\nmynetworks = 127.0.0.0/8\nalias_maps =\nalias_database =\n\
                 local_recipient_maps =\nvirtual_mailbox_domains = localhost\nvirtual_transport = error:no LMTP server was chosen\n\
                 transport_maps = randmap:{{{}}}\nsmtpd_recipient_restrictions = permit_mynetworks, reject\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
                 local_header_rewrite_clients =\nmessage_size_limit = 52428800\n\
                 minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\nlmtp_destination_concurrency_limit = 10\n\
                 smtputf8_enable = yes\nbiff = no\n",
                hops.join(",")
            ),
        )?;
        write(&postfix.path("etc/master.cf"), &master(port))?;
        postfix.command("start")?;
        wait_listening(&format!("127.0.0.1:{port}")).with_context(|| postfix.log())?;
        Ok(postfix)
    }

    /// Sends messages, each to its recipients, through one SMTP connection of Python's smtplib.
    pub fn send(&self, mail: &[(Vec<String>, &[u8])]) -> Result<()> {
        let path = self.folder.path().join("outgoing");
        let mut batch = Vec::new();
        for (recipients, message) in mail {
            let to = recipients.join(",");
            batch.extend_from_slice(&u32::try_from(to.len())?.to_be_bytes());
            batch.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
            batch.extend_from_slice(to.as_bytes());
            batch.extend_from_slice(message);
        }
        fs::write(&path, batch)?;
        python::run(SEND, &[&self.port.to_string(), path.to_str().context("a path that is not UTF-8")?]).map(drop)
    }

    /// Waits until its queue is empty.
    pub fn wait_queue_empty(&self, limit: Duration) -> Result<()> {
        wait::until("an empty mail queue", limit, || {
            let queued: usize =
                ["maildrop", "incoming", "active", "deferred"].iter().map(|name| count_files(&self.path("spool").join(name))).sum();
            ensure!(queued == 0, "{queued} messages are queued; Postfix's log ends:\n{}", process::tail(&self.path("log"), 15));
            Ok(())
        })
    }

    /// Asks it to try deferred mail now.
    pub fn flush(&self) -> Result<()> {
        self.command("flush")
    }

    /// How many recipients it delivered to each LMTP server, by its log.
    pub fn delivered_to(&self, lmtp: &str) -> Result<usize> {
        let (_, port) = crate::site::host_port(lmtp)?;
        let log = fs::read_to_string(self.path("log"))?;
        let relay = format!(":{port},");
        Ok(log.lines().filter(|line| line.contains("status=sent") && line.contains(&relay)).count())
    }

    /// Its log.
    pub fn log(&self) -> String {
        process::tail(&self.path("log"), 40)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, action: &str) -> Result<()> {
        let binary = packages::find("postfix").context("Postfix is not installed (Debian package postfix)")?;
        process::run_ok(Command::new(binary).arg("-c").arg(self.path("etc")).arg(action), COMMAND_LIMIT)
            .with_context(|| self.log())
            .map(drop)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Err(error) = self.command("stop") {
            eprintln!("{error:#}");
        }
    }
}

/// `127.0.0.1:24` as Postfix writes it, without a look-up of MX records.
fn bracketed(address: &str) -> Result<String> {
    let (host, port) = crate::site::host_port(address)?;
    Ok(format!("[{host}]:{port}"))
}

fn count_files(folder: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

fn master(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         verify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\n\
         proxymap unix - - n - - proxymap\n\
         showq unix n - n - - showq\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         discard unix - - n - - discard\n\
         lmtp unix - - n - - lmtp\n\
         anvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}
