//! Sessions over a stream in memory, against a real mail store in a temporary directory.

mod binary;
mod catenate;
mod compress;
mod condstore;
mod login;
mod mailboxes;
mod messages;
mod metadata;
mod object_id;
mod preview;
mod qresync;
mod quota;
mod replace;
mod rev2;
mod savedate;
mod search;
mod sessions;
mod sharing;
mod uid_only;

use std::{future::Future, sync::Arc, time::Duration};

use affinity::{Clock, Epoch, Handover, HolderId, Incarnation, Lease, SystemClock, Tenure, UserName};
use bytes::BytesMut;
use storage::{Account, AccountPaths, MailboxName, SpecialUse, StorageError, StorageSettings};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::{
    holding::Holding,
    limits::MessageLimits,
    session::{Session, Settings},
    wire::{enabled::Separator, framing::Limits},
};
use crate::{
    client::{Client, SessionId},
    connection::Connection,
    session::{End, Left},
};

/// No answer takes longer, unless something hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A user's mail without a cluster.
pub struct House {
    account: Arc<Account>,
    tenure: Arc<Tenure>,
    gone: watch::Sender<Option<String>>,
    dir: TempDir,
}

impl House {
    /// A new user with INBOX and Sent.
    pub fn new() -> House {
        House::of("ada", None)
    }

    /// The same for another; `shares`: where it is published what is shared.
    pub fn of(user: &str, shares: Option<std::path::PathBuf>) -> House {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock::new());
        let holder = HolderId { node: "a".parse().unwrap(), incarnation: Incarnation::random() };
        let tenure = Tenure::new(holder, clock.clone());
        tenure.extend(clock.now() + Duration::from_secs(3_600));
        let lease = Lease::for_test(UserName::normalise(user).unwrap(), Epoch(1), Arc::clone(&tenure));
        let paths = AccountPaths { shares, ..AccountPaths::new(dir.path().join("Maildir"), dir.path().join("index")) };
        let settings = StorageSettings {
            node: "a".parse().unwrap(),
            auto_create: vec![(MailboxName::parse("Sent").unwrap(), Some(SpecialUse::Sent))],
            auto_subscribe: false,
            message_bytes_max: 50_000_000.into(),
            mailboxes_max: 1_000,
            write_back_after: Duration::from_secs(1),
            rescan_interval: Duration::from_secs(60),
            parallel_operations: 8,
            settle_after: Duration::from_secs(8),
            late_look_interval: Duration::from_secs(10),
            suspended_wait: Duration::ZERO,
            cache: None,
        };
        let account = Account::open(paths, lease, Handover::Clean, Arc::new(settings)).unwrap();
        House { account, tenure, gone: watch::Sender::new(None), dir }
    }

    /// A session that is logged in.
    pub async fn session(&self) -> Talk {
        self.session_with(settings()).await
    }

    /// The same with other settings.
    pub async fn session_with(&self, settings: Settings) -> Talk {
        self.session_of(settings, |session| session).await
    }

    /// What a session has here.
    pub fn visit(&self, stream: DuplexStream) -> (Connection, TestHeld) {
        let client = Client {
            session: SessionId::random(),
            address: "192.0.2.1:1234".parse().unwrap(),
            local: "192.0.2.2:143".parse().unwrap(),
            ingress: "a".parse().unwrap(),
            tls: None,
        };
        let connection = Connection::new(Box::new(stream), client, BytesMut::new(), DEADLINE);
        (connection, TestHeld { account: Arc::clone(&self.account), gone: self.gone.subscribe() })
    }

    /// The same with more.
    pub async fn session_of(&self, settings: Settings, with: impl FnOnce(Session<TestHeld>) -> Session<TestHeld>) -> Talk {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (connection, held) = self.visit(theirs);
        let session = with(Session::new(connection, held, settings));
        let task = tokio::spawn(async move { session.run("login").await });
        let (reader, writer) = split(ours);
        let mut talk = Talk { reader, writer, read: Vec::new(), tag: 0, task };
        let greeting = talk.until("login ").await;
        assert!(greeting.contains("login OK [CAPABILITY IMAP4rev1 "), "{greeting}");
        talk
    }

    /// The user's mail, for what no client does.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The user's mail, as other programs see it.
    pub fn maildir(&self) -> std::path::PathBuf {
        self.dir.path().join("Maildir")
    }

    /// Ends every session.
    pub fn take_away(&self, why: &str) {
        self.gone.send_replace(Some(why.to_owned()));
    }

    /// The lease is gone for good.
    pub fn lose_lease(&self) {
        self.tenure.end();
    }
}

/// The settings that tests use.
pub fn settings() -> Settings {
    Settings {
        limits: Limits { line_bytes: 8 * 1024, literal_bytes: 64 * 1024, command_bytes: 128 * 1024 },
        nesting: 50,
        message_bytes: 10_000_000,
        refuse_8bit_headers: true,
        separator: Separator::Slash,
        bad_commands: 5,
        idle_timeout: Duration::from_secs(1_800),
        progress_interval: Duration::from_secs(10),
        rescan_interval: Duration::from_secs(60),
        may_log_in_anew: false,
        may_set_quota: false,
        message_limits: MessageLimits::None,
    }
}

/// Use of a house.
pub struct TestHeld {
    account: Arc<Account>,
    gone: watch::Receiver<Option<String>>,
}

impl Holding for TestHeld {
    fn account(&self) -> &Arc<Account> {
        &self.account
    }
    async fn run<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Account>) -> Result<T, StorageError> + Send + 'static,
    {
        let account = Arc::clone(&self.account);
        tokio::task::spawn_blocking(move || work(&account)).await.expect("the store does not panic")
    }
    async fn taken_away(&self) -> String {
        let mut gone = self.gone.clone();
        let why = gone.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

/// A client that talks to a session.
pub struct Talk {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    read: Vec<u8>,
    tag: u32,
    task: JoinHandle<Left>,
}

impl Talk {
    /// Sends bytes as they are.
    pub async fn send(&mut self, raw: &str) {
        self.writer.write_all(raw.as_bytes()).await.unwrap();
    }

    /// Sends a command; everything up to its tagged answer, whose tag is `T`.
    pub async fn ask(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        self.send(&format!("{tag}{command}\r\n")).await;
        self.until(&tag).await.replace(&tag, "T ")
    }

    /// The same; the answer must be OK.
    pub async fn ok(&mut self, command: &str) -> String {
        let answer = self.ask(command).await;
        assert!(answer.contains("\r\nT OK ") || answer.starts_with("T OK "), "{command}: {answer}");
        answer
    }

    /// APPENDs a message with a non-synchronising literal.
    pub async fn append(&mut self, arguments: &str, message: &str) -> String {
        self.ask(&format!("APPEND {arguments} {{{}+}}\r\n{message}", message.len())).await
    }

    /// What comes up to and with the first line that starts with `start`.
    pub async fn until(&mut self, start: &str) -> String {
        String::from_utf8(self.bytes_until(start).await).unwrap()
    }

    /// The same, whatever the bytes.
    pub async fn bytes_until(&mut self, start: &str) -> Vec<u8> {
        loop {
            if let Some(end) = end_of_line_with(&self.read, start.as_bytes()) {
                let rest = self.read.split_off(end);
                return std::mem::replace(&mut self.read, rest);
            }
            let read = within(self.reader.read_buf(&mut self.read)).await.unwrap();
            assert!(read > 0, "the session ended while {start:?} was awaited: {}", String::from_utf8_lossy(&self.read));
        }
    }

    /// What is left to read until the session ends, and why it did.
    pub async fn rest(mut self) -> (String, End) {
        within(self.reader.read_to_end(&mut self.read)).await.unwrap();
        match within(self.task).await.unwrap() {
            Left::Ended(end) => (String::from_utf8(self.read).unwrap(), end),
            Left::Back(_) => panic!("the session gives the connection back"),
        }
    }
}

fn end_of_line_with(read: &[u8], start: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(end) = memchr::memmem::find(&read[at..], b"\r\n") {
        let next = at + end + 2;
        if read[at..].starts_with(start) {
            return Some(next);
        }
        at = next;
    }
    None
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("an answer in time")
}

/// A small message.
pub fn message(subject: &str, body: &str) -> String {
    format!(
        "From: Ada <ada@example.org>\r\nTo: bob@example.org\r\nSubject: {subject}\r\nDate: Wed, 17 Jul 1996 02:23:25 -0700\r\n\
         Message-ID: <{subject}@example.org>\r\nX-Other: yes\r\n\r\n{body}\r\n"
    )
}

/// A session with `count` messages in its selected INBOX: UIDs and sequence numbers from 1.
pub async fn inbox_of(house: &House, count: usize) -> Talk {
    let mut talk = house.session().await;
    for number in 1..=count {
        let answer = talk.append("INBOX", &message(&format!("s{number}"), &format!("body {number}"))).await;
        assert!(answer.contains("T OK [APPENDUID "), "{answer}");
    }
    talk.ok("SELECT INBOX").await;
    talk
}
