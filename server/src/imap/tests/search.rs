//! SEARCH with saved and partial results, SORT, THREAD.

mod contexts;
mod filters;
mod multisearch;

use super::*;
use crate::{
    connection::ConnectionError,
    imap::{
        patience::{Progress, while_wanted},
        reply::Stop,
    },
};

/// A session with these messages in its selected INBOX.
async fn inbox_with(house: &House, messages: &[&str]) -> Talk {
    let mut talk = house.session().await;
    for message in messages {
        let text = format!("{}\r\n\r\nbody\r\n", message.replace('\n', "\r\n"));
        talk.append("INBOX", &text).await;
    }
    talk.ok("SELECT INBOX").await;
    talk
}

#[tokio::test]
async fn texts_of_one_search_have_a_limit() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    for (key, most) in [("BODY x", 256), ("NOT TEXT x", 256), ("OR HEADER X-A x HEADER X-B x", 128)] {
        let keys = |number: usize| vec![key; number].join(" ");
        talk.ok(&format!("SEARCH {}", keys(most))).await;
        for command in ["SEARCH", "SORT (ARRIVAL) UTF-8", "THREAD REFERENCES UTF-8"] {
            let answer = talk.ask(&format!("{command} {}", keys(most + 1))).await;
            assert!(answer.starts_with("T NO [LIMIT] At most 256 texts"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_saved_result_is_used_by_the_next_commands() {
    let house = House::new();
    let mut talk = inbox_of(&house, 5).await;
    assert_eq!(talk.ok("FETCH $ (FLAGS)").await, "T OK Fetch completed\r\n", "nothing is saved, which is no error");
    assert_eq!(talk.ok("SEARCH RETURN (SAVE) OR SUBJECT s2 SUBJECT s4").await, "T OK Search completed, result saved\r\n");
    let answer = talk.ok("FETCH $ (UID)").await;
    assert!(answer.contains("* 2 FETCH (UID 2)") && answer.contains("* 4 FETCH (UID 4)"), "{answer}");
    assert!(talk.ok("UID SEARCH UID $ NOT 2").await.starts_with("* SEARCH 4\r\n"));
    assert!(talk.ok("SEARCH OR $ 5").await.starts_with("* SEARCH 2 4 5\r\n"));
    // What is expunged is not in it any more, and sequence numbers move.
    talk.ok("STORE 1:2 +FLAGS (\\Deleted)").await;
    talk.ok("EXPUNGE").await;
    assert!(talk.ok("SEARCH $").await.starts_with("* SEARCH 2\r\n"));
    // A search without SAVE changes nothing, a wrong one neither.
    talk.ok("SEARCH ALL").await;
    assert!(talk.ask("SEARCH RETURN (SAVE) NOSUCHKEY").await.starts_with("T BAD"));
    assert!(talk.ask("SEARCH CHARSET UTF-7 ALL").await.starts_with("T NO [BADCHARSET"));
    assert!(talk.ok("SEARCH $").await.starts_with("* SEARCH 2\r\n"));
    // One that is refused forgets it.
    assert!(talk.ask("SEARCH RETURN (SAVE) CHARSET UTF-7 ALL").await.starts_with("T NO [BADCHARSET"));
    assert!(talk.ok("SEARCH $").await.starts_with("* SEARCH\r\n"));
    let answer = talk.ok("UID SEARCH RETURN (SAVE MIN) ALL").await;
    assert!(answer.starts_with("* ESEARCH (TAG \"t"), "{answer}");
    assert!(answer.contains(") UID MIN 3\r\n"), "{answer}");
    assert!(talk.ok("UID SEARCH $").await.starts_with("* SEARCH 3\r\n"));
    talk.ok("SELECT INBOX").await;
    assert!(talk.ok("SEARCH $").await.starts_with("* SEARCH\r\n"), "SELECT begins anew");
}

#[tokio::test]
async fn parts_of_a_result_and_of_a_set_are_told() {
    let house = House::new();
    let mut talk = inbox_of(&house, 5).await;
    assert!(talk.ok("UID SEARCH RETURN (PARTIAL -1:-2) NOT SUBJECT s5").await.contains(") UID PARTIAL (-1:-2 3:4)\r\n"));
    assert!(talk.ok("SEARCH RETURN (PARTIAL 9:6 COUNT) ALL").await.contains(") COUNT 5 PARTIAL (9:6 NIL)\r\n"));
    let answer = talk.ok("UID FETCH 2:* (UID) (PARTIAL -1:-2)").await;
    assert_eq!(answer, "* 4 FETCH (UID 4)\r\n* 5 FETCH (UID 5)\r\nT OK Fetch completed\r\n");
}

#[tokio::test]
async fn messages_are_sorted_by_what_their_headers_say() {
    let house = House::new();
    let messages = [
        "From: Zed <a@x>\nSubject: Re: pear\nDate: 3 Jan 2026 00:00:00 +0000",
        "From: c@x\nSubject: APPLE\nDate: 2 Jan 2026 00:00:00 +0000",
        "From: =?utf-8?q?=C3=85ke?= <b@x>\nSubject: [list] pear\nDate: 2 Jan 2026 23:30:00 -0800",
    ];
    let mut talk = inbox_with(&house, &messages).await;
    for (criteria, order) in [
        ("(SUBJECT)", "2 1 3"),
        ("(SUBJECT REVERSE DATE)", "2 3 1"),
        ("(DATE)", "2 1 3"),
        ("(REVERSE FROM)", "2 3 1"),
        ("(DISPLAYFROM)", "3 2 1"),
        ("(ARRIVAL SIZE)", ""),
        ("(REVERSE TO)", "1 2 3"),
    ] {
        let answer = talk.ok(&format!("SORT {criteria} UTF-8 ALL")).await;
        assert!(answer.starts_with(&format!("* SORT {order}")), "{criteria}: {answer}");
    }
    assert!(talk.ok("UID SORT RETURN () (REVERSE DATE) UTF-8 ALL").await.contains(") UID ALL 3,1:2\r\n"));
    let answer = talk.ok("SORT RETURN (MIN MAX COUNT) (REVERSE SUBJECT) US-ASCII NOT SUBJECT apple").await;
    assert!(answer.contains(") MIN 1 MAX 3 COUNT 2\r\n"), "{answer}");
    assert!(talk.ok("SORT (SUBJECT) US-ASCII TEXT \"not in mailbox\"").await.starts_with("* SORT\r\n"));
    let answer = talk.ok("SORT (DATE) UTF-8 MODSEQ 1").await;
    assert!(answer.contains("* SORT 2 1 3 (MODSEQ "), "{answer}");
}

#[tokio::test]
async fn messages_are_threaded_by_what_their_headers_say() {
    let house = House::new();
    let messages = [
        "Message-ID: <1@x>\nSubject: a",
        "Message-ID: <2@x>\nSubject: b",
        "Message-ID: <3@x>\nReferences: <1@x>\nSubject: Re: a",
        "Message-ID: <4@x>\nSubject: Re: b",
    ];
    let mut talk = inbox_with(&house, &messages).await;
    assert!(talk.ok("THREAD REFERENCES UTF-8 ALL").await.starts_with("* THREAD (1 3)(2 4)\r\n"));
    assert!(talk.ok("THREAD ORDEREDSUBJECT UTF-8 ALL").await.starts_with("* THREAD (1 3)(2 4)\r\n"));
    assert!(talk.ok("UID THREAD REFS UTF-8 NOT UID 1").await.starts_with("* THREAD (2)(3)(4)\r\n"));
    assert!(talk.ok("THREAD REFERENCES US-ASCII TEXT \"gewp\"").await.starts_with("* THREAD\r\n"));
}

#[tokio::test]
async fn numbers_stay_what_they_were_while_sort_and_thread_name_them() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    for command in ["SORT (DATE) UTF-8 ALL", "THREAD REFS UTF-8 ALL", "UID SORT (DATE) UTF-8 1:3"] {
        let answer = talk.ok(command).await;
        assert!(!answer.contains("EXPUNGE") && answer.contains('3'), "{command}: {answer}");
    }
    assert!(talk.ok("UID SORT (DATE) UTF-8 ALL").await.contains("* 1 EXPUNGE"));
}

#[tokio::test]
async fn a_search_ends_when_the_account_is_taken_away() {
    let house = House::new();
    let held = TestHeld { account: Arc::clone(&house.account), gone: house.gone.subscribe() };
    let (_client, mut connection) = connected();
    house.take_away("moved");
    let stop = within(while_wanted(
        &mut connection,
        &held,
        &settings(),
        &Progress::unknown("t"),
        std::future::pending::<Result<(), StorageError>>(),
    ))
    .await;
    assert!(matches!(stop, Err(Stop::Bye(text)) if text == "moved"));
}

#[tokio::test]
async fn a_search_ends_when_its_client_leaves() {
    let house = House::new();
    let held = TestHeld { account: Arc::clone(&house.account), gone: house.gone.subscribe() };
    let (client, mut connection) = connected();
    drop(client);
    let stop = within(while_wanted(
        &mut connection,
        &held,
        &settings(),
        &Progress::unknown("t"),
        std::future::pending::<Result<(), StorageError>>(),
    ))
    .await;
    assert!(matches!(stop, Err(Stop::Connection(ConnectionError::Closed))));
    // One that has sent more commands before it closed its side gets its answer.
    let (mut client, mut connection) = connected();
    client.write_all(b"a LOGOUT\r\n").await.unwrap();
    connection.fill(DEADLINE).await.unwrap();
    drop(client);
    let work = async {
        tokio::task::yield_now().await;
        Ok(())
    };
    assert!(within(while_wanted(&mut connection, &held, &settings(), &Progress::unknown("t"), work)).await.is_ok());
}

fn connected() -> (DuplexStream, Connection) {
    let (ours, theirs) = tokio::io::duplex(1024);
    let client = Client {
        session: SessionId::random(),
        address: "192.0.2.1:1234".parse().unwrap(),
        local: "192.0.2.2:143".parse().unwrap(),
        ingress: "a".parse().unwrap(),
        tls: None,
    };
    (ours, Connection::new(Box::new(theirs), client, BytesMut::new(), DEADLINE))
}

#[tokio::test]
async fn a_client_that_waits_hears_how_far_its_command_is() {
    let house = House::new();
    let held = TestHeld { account: Arc::clone(&house.account), gone: house.gone.subscribe() };
    let (mut client, mut connection) = connected();
    let (progress, (told, may_end)) = (Progress::of("A1", 1000), tokio::sync::oneshot::channel::<()>());
    progress.add(454);
    let work = async {
        may_end.await.ok();
        Ok(())
    };
    let settings = Settings { progress_interval: Duration::from_millis(10), ..settings() };
    let heard = async {
        let mut line = [0; 46];
        client.read_exact(&mut line).await.unwrap();
        told.send(()).unwrap();
        String::from_utf8(line.to_vec()).unwrap()
    };
    let (done, line) = within(async { tokio::join!(while_wanted(&mut connection, &held, &settings, &progress, work), heard) }).await;
    assert!(done.is_ok() && line.starts_with("* OK [INPROGRESS (\"A1\" 454 1000)] Still wo"), "{line}");
}

#[tokio::test]
async fn a_search_goes_on_while_its_client_reads_nothing() {
    let house = House::new();
    let held = TestHeld { account: Arc::clone(&house.account), gone: house.gone.subscribe() };
    let (mut client, mut connection) = connected();
    let (ended, has_ended) = tokio::sync::oneshot::channel::<()>();
    let work = async {
        // Until then, many times as much is told as is on the way to the client at most.
        tokio::time::sleep(Duration::from_millis(500)).await;
        ended.send(()).unwrap();
        Ok(())
    };
    let settings = Settings { progress_interval: Duration::from_millis(1), ..settings() };
    let reads = async {
        has_ended.await.unwrap();
        let (mut heard, mut some) = (0, [0; 1024]);
        while let Ok(Ok(read @ 1..)) = tokio::time::timeout(Duration::from_millis(200), client.read(&mut some)).await {
            heard += read;
        }
        heard
    };
    let progress = Progress::unknown("A1");
    let (done, heard) = within(async { tokio::join!(while_wanted(&mut connection, &held, &settings, &progress, work), reads) }).await;
    assert!(done.is_ok() && heard > 1024, "{heard}");
}
