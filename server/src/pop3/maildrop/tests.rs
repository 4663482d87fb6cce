//! Sessions on a real account in a temporary folder.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::{
    client::{Client, SessionId},
    connection::Connection,
    lmtp::delivery::tests::{deliver, messages, open_account},
    pop3::{reply::Offers, transaction},
};

fn rules() -> Rules {
    Rules::new(&Pop3Section::default())
}

/// The same inbox without an account that is held: calls go to the blocking pool as they are.
struct PooledInbox(Inbox);

async fn pooled<T: Send + 'static>(work: impl FnOnce() -> Result<T, StorageError> + Send + 'static) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.unwrap()
}

impl Maildrop for PooledInbox {
    type Message = Arc<Opened>;

    fn sizes(&self) -> &[u64] {
        &self.0.sizes
    }
    async fn identifiers(&self) -> Result<Vec<String>, StorageError> {
        let inbox = self.0.clone();
        pooled(move || inbox.identifiers()).await
    }
    async fn open(&self, position: usize) -> Result<Arc<Opened>, StorageError> {
        let inbox = self.0.clone();
        pooled(move || inbox.open_message(position)).await
    }
    async fn read(&self, message: &Arc<Opened>, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let message = Arc::clone(message);
        pooled(move || read_piece(&message, offset, length)).await
    }
    async fn update(&self, seen: Vec<usize>, removed: Vec<usize>) -> Result<(), StorageError> {
        let inbox = self.0.clone();
        pooled(move || inbox.update(&seen, &removed)).await
    }
    fn release(&self) {}
    async fn taken_away(&self) -> String {
        std::future::pending().await
    }
}

async fn talk(inbox: Inbox, script: &str) -> String {
    let (mut client, ours) = duplex(1 << 16);
    let facts = Client {
        session: SessionId::random(),
        address: "127.0.0.1:9".parse().unwrap(),
        local: "127.0.0.1:110".parse().unwrap(),
        ingress: "node-a".parse().unwrap(),
        tls: None,
    };
    let connection = Connection::new(Box::new(ours), facts, bytes::BytesMut::new(), Duration::from_secs(10));
    client.write_all(script.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let settings = transaction::Settings {
        offers: Offers { passwords: true, mechanisms: Vec::new(), tls: false, login_delay_s: 0, expire_days: None },
        utf8: false,
        bad_commands_max: 3,
    };
    let inbox = PooledInbox(inbox);
    let mut said = String::new();
    let (_, read) = tokio::join!(transaction::run(&inbox, connection, settings), client.read_to_string(&mut said));
    read.unwrap();
    said
}

#[tokio::test]
async fn mail_that_was_delivered_is_listed_read_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for body in ["Subject: 1\r\n\r\none\r\n", "Subject: 2\r\n\r\n.two\r\n"] {
        deliver(&account, None, body.as_bytes(), false).unwrap();
    }
    let stored = messages(&account, "INBOX");
    let said = talk(Inbox::open(&account, rules()).unwrap(), "STAT\r\nRETR 2\r\nUIDL 1\r\nDELE 1\r\nQUIT\r\n").await;
    let expected = format!(
        "+OK Logged in.\r\n+OK 2 {}\r\n+OK {} octets\r\n{}.\r\n",
        stored[0].len() + stored[1].len(),
        stored[1].len(),
        stored[1].replace("\r\n.two", "\r\n..two")
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.ends_with("+OK Marked for removal\r\n+OK Bye, 1 messages removed\r\n"), "{said}");
    assert_eq!(messages(&account, "INBOX"), stored[1..]);
}

#[tokio::test]
async fn numbers_stay_while_mail_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for body in ["one\r\n", "two\r\n", "three\r\n"] {
        deliver(&account, None, body.as_bytes(), false).unwrap();
    }
    let inbox = Inbox::open(&account, rules()).unwrap();
    inbox.mailbox.remove(&inbox.uids[..1]).unwrap();
    deliver(&account, None, b"four\r\n", false).unwrap();
    let said = talk(inbox, "RETR 1\r\nDELE 1\r\nDELE 2\r\nRETR 4\r\nSTAT\r\nQUIT\r\n").await;
    let lines: Vec<&str> = said.split_terminator("\r\n").collect();
    assert_eq!(lines[1], "-ERR The message was removed by another session");
    assert_eq!(lines[4], "-ERR No such message");
    assert!(lines[6].starts_with("+OK Bye"), "what is gone already is no error: {said}");
    let left = messages(&account, "INBOX");
    assert!(left.len() == 2 && left[0].ends_with("three\r\n") && left[1].ends_with("four\r\n"), "{left:?}");
}

#[tokio::test]
async fn identifiers_stay_from_session_to_session() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for body in ["one\r\n", "two\r\n"] {
        deliver(&account, None, body.as_bytes(), false).unwrap();
    }
    let before = Inbox::open(&account, rules()).unwrap().identifiers().unwrap();
    assert_ne!(before[0], before[1]);
    talk(Inbox::open(&account, rules()).unwrap(), "DELE 1\r\nQUIT\r\n").await;
    assert_eq!(Inbox::open(&account, rules()).unwrap().identifiers().unwrap(), before[1..]);
}

#[tokio::test]
async fn a_removal_without_the_lease_is_no_ok() {
    let dir = tempfile::tempdir().unwrap();
    let (account, tenure) = open_account(dir.path());
    deliver(&account, None, b"one\r\n", false).unwrap();
    let inbox = Inbox::open(&account, rules()).unwrap();
    tenure.end();
    let said = talk(inbox, "DELE 1\r\nQUIT\r\n").await;
    assert!(said.ends_with("-ERR [SYS/TEMP] some deleted messages not removed\r\n"), "{said}");
}

fn flags(account: &Arc<Account>) -> Vec<FlagSet> {
    let mailbox = account.mailbox(&MailboxName::inbox()).unwrap();
    let columns = mailbox.read();
    (0..columns.len()).map(|position| columns.flags(position)).collect()
}

#[tokio::test]
async fn what_was_retrieved_is_seen_after_quit_unless_that_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for body in ["one\r\n", "two\r\n", "three\r\n"] {
        deliver(&account, None, body.as_bytes(), false).unwrap();
    }
    let seen = || flags(&account).iter().map(|flags| flags.contains(Flag::Seen)).collect::<Vec<_>>();
    talk(Inbox::open(&account, rules()).unwrap(), "RETR 1\r\n").await;
    assert_eq!(seen(), [false; 3], "without QUIT nothing changes");
    talk(Inbox::open(&account, Rules { mark_seen: false, ..rules() }).unwrap(), "RETR 1\r\nQUIT\r\n").await;
    assert_eq!(seen(), [false; 3]);
    talk(Inbox::open(&account, rules()).unwrap(), "RETR 1\r\nTOP 2 9\r\nQUIT\r\n").await;
    assert_eq!(seen(), [true, false, false], "TOP is a look, no reading");
}

#[tokio::test]
async fn with_a_flag_for_deleted_messages_they_stay_for_imap() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for body in ["one\r\n", "two\r\n"] {
        deliver(&account, None, body.as_bytes(), false).unwrap();
    }
    let hiding = || Rules { deleted_flag: Some("$POP3Deleted".to_owned()), ..rules() };
    let said = talk(Inbox::open(&account, hiding()).unwrap(), "DELE 1\r\nQUIT\r\n").await;
    assert!(said.ends_with("+OK Bye, 1 messages removed\r\n"), "{said}");
    assert_eq!(messages(&account, "INBOX").len(), 2, "IMAP has it still");
    let said = talk(Inbox::open(&account, hiding()).unwrap(), "STAT\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n").await;
    assert!(said.contains("+OK 1 ") && said.contains("\r\ntwo\r\n"), "POP3 has it no more: {said}");
    assert!(talk(Inbox::open(&account, hiding()).unwrap(), "STAT\r\nQUIT\r\n").await.contains("+OK 0 0\r\n"));
    // Without the setting they are back.
    assert_eq!(Inbox::open(&account, rules()).unwrap().sizes.len(), 2);
}
