//! Whole sessions after the login over an in-memory stream, with a maildrop made up.

use std::sync::Mutex;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
};

use super::*;
use crate::client::{Client, SessionId};

struct FakeMaildrop {
    messages: Vec<Vec<u8>>,
    sizes: Vec<u64>,
    removed: Mutex<Vec<usize>>,
    seen: Mutex<Vec<usize>>,
    fails: bool,
    released: std::sync::atomic::AtomicBool,
    taken: watch::Sender<Option<String>>,
}

impl FakeMaildrop {
    fn of(messages: &[&str]) -> FakeMaildrop {
        FakeMaildrop {
            messages: messages.iter().map(|message| message.as_bytes().to_vec()).collect(),
            sizes: messages.iter().map(|message| message.len() as u64).collect(),
            removed: Mutex::default(),
            seen: Mutex::default(),
            fails: false,
            released: std::sync::atomic::AtomicBool::new(false),
            taken: watch::channel(None).0,
        }
    }
}

impl Maildrop for FakeMaildrop {
    type Message = usize;

    fn sizes(&self) -> &[u64] {
        &self.sizes
    }
    async fn identifiers(&self) -> Result<Vec<String>, StorageError> {
        Ok((0..self.messages.len()).map(|position| format!("uid-{position}")).collect())
    }
    async fn open(&self, position: usize) -> Result<usize, StorageError> {
        if self.messages[position].is_empty() { Err(StorageError::Expunged) } else { Ok(position) }
    }
    async fn read(&self, message: &usize, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let rest = &self.messages[*message][usize::try_from(offset).unwrap()..];
        Ok(rest[..length.min(rest.len())].to_vec())
    }
    async fn update(&self, seen: Vec<usize>, removed: Vec<usize>) -> Result<(), StorageError> {
        if self.fails {
            return Err(StorageError::NotAllowed("the disk is gone"));
        }
        self.seen.lock().unwrap().extend(seen);
        self.removed.lock().unwrap().extend(removed);
        Ok(())
    }
    fn release(&self) {
        self.released.store(true, std::sync::atomic::Ordering::SeqCst);
    }
    async fn taken_away(&self) -> String {
        let mut taken = self.taken.subscribe();
        let reason = taken.wait_for(Option::is_some).await.unwrap();
        reason.clone().unwrap_or_default()
    }
}

fn connection() -> (DuplexStream, Connection) {
    let (theirs, ours) = duplex(1 << 16);
    let client = Client {
        session: SessionId::random(),
        address: "127.0.0.1:9".parse().unwrap(),
        local: "127.0.0.1:110".parse().unwrap(),
        ingress: "node-a".parse().unwrap(),
        tls: None,
    };
    (theirs, Connection::new(Box::new(ours), client, bytes::BytesMut::new(), Duration::from_secs(10)))
}

const SETTINGS: Settings = Settings {
    offers: Offers { passwords: true, mechanisms: Vec::new(), tls: false, login_delay_s: 0, expire_days: None },
    utf8: false,
    bad_commands_max: 3,
};

/// All that is said to a client that sends `script` in one piece, after the login's own reply.
async fn talk(maildrop: &FakeMaildrop, script: &str) -> String {
    talk_as(maildrop, script, SETTINGS).await
}

async fn talk_as(maildrop: &FakeMaildrop, script: &str, settings: Settings) -> String {
    let (mut client, connection) = connection();
    client.write_all(script.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut said = String::new();
    let (_, read) = tokio::join!(run(maildrop, connection, settings), client.read_to_string(&mut said));
    read.unwrap();
    said.strip_prefix("+OK Logged in.\r\n").unwrap().to_owned()
}

#[tokio::test]
async fn the_session_of_rfc_1939_goes_as_the_rfc_says() {
    let (first, second) = ("S: 1\r\n\r\n.dot\r\n", "S: 2\r\n\r\nx\r\n");
    let maildrop = FakeMaildrop::of(&[first, second]);
    let said =
        talk(&maildrop, "STAT\r\nLIST\r\nRETR 1\r\nDELE 1\r\nLIST 2\r\nRETR 1\r\nSTAT\r\nLIST\r\nRETR 2\r\nDELE 2\r\nQUIT\r\nNOOP\r\n")
            .await;
    assert_eq!(
        said,
        "+OK 2 25\r\n+OK 2 messages (25 octets)\r\n1 14\r\n2 11\r\n.\r\n+OK 14 octets\r\nS: 1\r\n\r\n..dot\r\n.\r\n+OK Marked for removal\r\n\
         +OK 2 11\r\n-ERR The message is marked for removal\r\n+OK 1 11\r\n+OK 1 messages (11 octets)\r\n2 11\r\n.\r\n\
         +OK 11 octets\r\nS: 2\r\n\r\nx\r\n.\r\n+OK Marked for removal\r\n+OK Bye, 2 messages removed\r\n"
    );
    assert_eq!(*maildrop.removed.lock().unwrap(), [0, 1]);
}

#[tokio::test]
async fn only_quit_removes_messages() {
    let maildrop = FakeMaildrop::of(&["a\r\n", "b\r\n"]);
    talk(&maildrop, "DELE 1\r\n").await;
    assert!(maildrop.removed.lock().unwrap().is_empty());
    talk(&maildrop, "DELE 1\r\nDELE 2\r\nRSET\r\nDELE 2\r\nQUIT\r\n").await;
    assert_eq!(*maildrop.removed.lock().unwrap(), [1]);
}

#[tokio::test]
async fn a_removal_that_fails_is_no_ok() {
    let maildrop = FakeMaildrop { fails: true, ..FakeMaildrop::of(&["a\r\n"]) };
    let said = talk(&maildrop, "DELE 1\r\nQUIT\r\n").await;
    assert!(said.ends_with("-ERR [SYS/TEMP] some deleted messages not removed\r\n"), "{said}");
    assert_eq!(talk(&maildrop, "QUIT\r\n").await, "+OK Bye\r\n", "nothing to remove, nothing to fail");
}

#[tokio::test]
async fn uidl_and_list_leave_out_what_is_marked() {
    let maildrop = FakeMaildrop::of(&["a\r\n", "b\r\n", "c\r\n"]);
    let said = talk(&maildrop, "DELE 2\r\nUIDL\r\nUIDL 3\r\nUIDL 2\r\nRSET\r\nLIST 2\r\n").await;
    assert_eq!(
        said,
        "+OK Marked for removal\r\n+OK Unique identifiers follow\r\n1 uid-0\r\n3 uid-2\r\n.\r\n+OK 3 uid-2\r\n\
         -ERR The message is marked for removal\r\n+OK maildrop has 3 messages (9 octets)\r\n+OK 2 3\r\n"
    );
}

#[tokio::test]
async fn top_sends_the_header_and_so_many_lines() {
    let maildrop = FakeMaildrop::of(&["A: 1\r\n\r\n.x\r\ny\r\n"]);
    let said = talk(&maildrop, "TOP 1 0\r\nTOP 1 1\r\nTOP 1 99\r\n").await;
    assert_eq!(
        said,
        "+OK The top of the message follows\r\nA: 1\r\n\r\n.\r\n+OK The top of the message follows\r\nA: 1\r\n\r\n..x\r\n.\r\n\
         +OK The top of the message follows\r\nA: 1\r\n\r\n..x\r\ny\r\n.\r\n"
    );
}

#[tokio::test]
async fn a_client_without_utf8_is_sent_surrogates() {
    let message = format!("From: é@x\r\nSubject: é\r\nX: {}\r\n\r\né\r\ntwo\r\n", "x".repeat(PIECE_BYTES));
    let sent = message.replacen("é@x", "=?UTF-8?B?PMOpQHg+?=\r\n <invalid@internationalized-address.invalid>", 1).replacen(
        "Subject: é",
        "Subject: =?UTF-8?B?w6k=?=",
        1,
    );
    let maildrop = FakeMaildrop::of(&[&message]);
    let said = talk(&maildrop, "RETR 1\r\nTOP 1 1\r\n").await;
    let top = sent.replacen("two\r\n", "", 1);
    assert_eq!(said, format!("+OK The message follows\r\n{sent}.\r\n+OK The top of the message follows\r\n{top}.\r\n"));
    let said = talk_as(&maildrop, "RETR 1\r\n", Settings { utf8: true, ..SETTINGS }).await;
    assert_eq!(said, format!("+OK {} octets\r\n{message}.\r\n", message.len()));
}

#[tokio::test]
async fn a_large_message_comes_whole() {
    let message = "0123456789.abcdef\r\n.\r\n".repeat(40_000);
    let maildrop = FakeMaildrop::of(&[&message, "small\r\n"]);
    let said = talk(&maildrop, "RETR 1\r\nRETR 2\r\nTOP 1 50000\r\n").await;
    let stuffed = message.replace("\r\n.\r\n", "\r\n..\r\n");
    let announced = format!("+OK {} octets\r\n{stuffed}.\r\n+OK 7 octets\r\nsmall\r\n.\r\n+OK The top", message.len());
    assert!(said.starts_with(&announced), "the message is cut or changed");
}

#[tokio::test]
async fn messages_whose_size_is_a_whole_number_of_pieces_end_as_others_do() {
    let message = "x".repeat(PIECE_BYTES - 2) + "\r\n";
    let said = talk(&FakeMaildrop::of(&[&message]), "RETR 1\r\nNOOP\r\n").await;
    assert_eq!(said, format!("+OK {PIECE_BYTES} octets\r\n{message}.\r\n+OK Done\r\n"));
}

#[tokio::test]
async fn numbers_beyond_the_maildrop_are_refused_and_the_session_goes_on() {
    let said = talk(&FakeMaildrop::of(&["a\r\n", ""]), "RETR 0\r\nDELE 3\r\nRETR 2\r\nNOOP\r\n").await;
    assert_eq!(said, "-ERR No such message\r\n-ERR No such message\r\n-ERR The message was removed by another session\r\n+OK Done\r\n");
}

#[tokio::test]
async fn too_many_wrong_commands_end_the_session_without_removals() {
    let maildrop = FakeMaildrop::of(&["a\r\n"]);
    let said = talk(&maildrop, "DELE 1\r\nLAST\r\nUSER x\r\nXYZ\r\nSTLS\r\nQUIT\r\n").await;
    assert!(said.ends_with("-ERR Too many wrong commands, nothing was removed\r\n"), "{said}");
    assert!(maildrop.removed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_is_taken_away_ends_between_commands() {
    let message = "0123456789abcdef\r\n".repeat(100_000);
    let maildrop = FakeMaildrop::of(&[&message]);
    let (mut client, connection) = connection();
    client.write_all(b"DELE 1\r\nRSET\r\nRETR 1\r\n").await.unwrap();
    let mut said = Vec::new();
    let read = async {
        // The response has begun, and far more of it is to come than any buffer takes.
        while !said.ends_with(b"0123456789abcdef") {
            said.push(client.read_u8().await.unwrap());
        }
        maildrop.taken.send_replace(Some("The node is going down".into()));
        client.read_to_end(&mut said).await.unwrap();
    };
    tokio::join!(run(&maildrop, connection, SETTINGS), read);
    let said = String::from_utf8(said).unwrap();
    assert!(said.ends_with("abcdef\r\n.\r\n-ERR [SYS/TEMP] The node is going down\r\n"), "{}", &said[said.len() - 100..]);
    assert!(said.len() > message.len());
}

#[tokio::test]
async fn the_maildrop_is_free_before_quit_is_answered() {
    for commands in ["QUIT\r\n", "DELE 1\r\nQUIT\r\n"] {
        let maildrop = FakeMaildrop::of(&["a\r\n"]);
        let (mut client, connection) = connection();
        client.write_all(commands.as_bytes()).await.unwrap();
        let read = async {
            let mut said = String::new();
            while !said.contains("Bye") {
                let mut piece = [0; 100];
                let count = client.read(&mut piece).await.unwrap();
                said.push_str(std::str::from_utf8(&piece[..count]).unwrap());
            }
            assert!(maildrop.released.load(std::sync::atomic::Ordering::SeqCst), "a client that logs in again at once would get [IN-USE]");
        };
        tokio::join!(run(&maildrop, connection, SETTINGS), read);
    }
}

#[tokio::test]
async fn a_waiting_session_that_is_taken_away_is_told_at_once() {
    let maildrop = FakeMaildrop::of(&[]);
    let (mut client, connection) = connection();
    let take = async {
        let mut greeting = vec![0; 100];
        assert!(client.read(&mut greeting).await.unwrap() > 0);
        maildrop.taken.send_replace(Some("The node is going down".into()));
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "-ERR [SYS/TEMP] The node is going down\r\n");
    };
    tokio::join!(run(&maildrop, connection, SETTINGS), take);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_disconnected_after_ten_minutes_without_removals() {
    let maildrop = FakeMaildrop::of(&["a\r\n"]);
    let (mut client, connection) = connection();
    client.write_all(b"DELE 1\r\n").await.unwrap();
    let started = tokio::time::Instant::now();
    run(&maildrop, connection, SETTINGS).await;
    assert_eq!(started.elapsed(), Duration::from_secs(600));
    assert!(maildrop.removed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_what_was_sent_whole_is_seen() {
    let maildrop = FakeMaildrop::of(&["a\r\n", "b\r\n", ""]);
    talk(&maildrop, "RETR 2\r\nRETR 3\r\nTOP 1 5\r\nLIST\r\nQUIT\r\n").await;
    assert_eq!(*maildrop.seen.lock().unwrap(), [1]);
}

#[tokio::test]
async fn a_hundred_thousand_messages_take_one_session() {
    const COUNT: usize = 100_000;
    let message = "a\r\n";
    let maildrop = FakeMaildrop::of(&vec![message; COUNT]);
    // STAT after each DELE: were each a walk over all messages, this would take minutes.
    let script: String = (1..=COUNT).map(|number| format!("DELE {number}\r\nSTAT\r\n")).collect();
    let (mut client, connection) = connection();
    let talk = async {
        client.write_all(b"STAT\r\nLIST\r\nUIDL\r\n").await.unwrap();
        let mut listed = String::new();
        while !listed.ends_with("100000 uid-99999\r\n.\r\n") {
            let mut chunk = [0; 65536];
            let read = client.read(&mut chunk).await.unwrap();
            assert!(read > 0, "{}", listed.len());
            listed.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        }
        let (mut reader, mut writer) = tokio::io::split(client);
        let send = async {
            writer.write_all(script.as_bytes()).await.unwrap();
            writer.write_all(b"QUIT\r\n").await.unwrap();
            // Its half stays open until the other end has said goodbye.
            writer
        };
        let mut said = String::new();
        let (_writer, _) = tokio::join!(send, reader.read_to_string(&mut said));
        (listed, said)
    };
    let (end, (listed, said)) = tokio::join!(run(&maildrop, connection, SETTINGS), talk);
    assert_eq!(end, End::logout());
    assert!(listed.contains(&format!("+OK {COUNT} {}\r\n", COUNT * message.len())), "{}", &listed[..200]);
    assert!(said.ends_with("+OK Bye, 100000 messages removed\r\n"));
    assert_eq!(maildrop.removed.lock().unwrap().len(), COUNT);
}
