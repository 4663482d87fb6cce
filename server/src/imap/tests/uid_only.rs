//! UIDONLY, RFC 9586.

use super::*;

#[tokio::test]
async fn everything_is_told_by_uid_once_enabled() {
    let house = House::new();
    let mut talk = inbox_of(&house, 4).await;
    talk.ok("STORE 1 +FLAGS (\\Deleted)").await;
    talk.ok("CLOSE").await;
    assert_eq!(talk.ok("ENABLE UIDONLY").await, "* ENABLED UIDONLY\r\nT OK Enabled\r\n");
    let selected = talk.ok("SELECT INBOX").await;
    assert!(selected.contains("* 3 EXISTS\r\n") && !selected.contains("[UNSEEN"), "{selected}");
    assert_eq!(talk.ok("UID FETCH 2 FLAGS").await, "* 2 UIDFETCH (FLAGS ())\r\nT OK Fetch completed\r\n");
    assert_eq!(talk.ok("UID FETCH 2 (UID FLAGS)").await, "* 2 UIDFETCH (UID 2 FLAGS ())\r\nT OK Fetch completed\r\n");
    assert!(talk.ok("UID FETCH 3 BODY[TEXT]").await.starts_with("* 3 UIDFETCH (FLAGS (\\Seen) BODY[TEXT] {"));
    assert_eq!(talk.ok("UID STORE 4 +FLAGS (\\Flagged)").await, "* 4 UIDFETCH (FLAGS (\\Flagged))\r\nT OK Store completed\r\n");
    assert!(talk.ok("UID FETCH 4 (MODSEQ)").await.contains("* 4 UIDFETCH (MODSEQ ("));
    assert_eq!(talk.ok("UID SEARCH RETURN (SAVE) FLAGGED").await, "T OK Search completed, result saved\r\n");
    assert!(talk.ok("UID SEARCH $").await.starts_with("* SEARCH 4\r\n"));

    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS (\\Seen)").await;
    assert!(talk.ok("NOOP").await.starts_with("* 2 UIDFETCH (MODSEQ ("));
    other.ok("STORE 1,2 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    let told = talk.ok("NOOP").await;
    assert!(told.contains("* VANISHED 2:3\r\n") && !told.contains("EXPUNGE") && !told.contains("HIGHESTMODSEQ"), "{told}");
}

#[tokio::test]
async fn a_sequence_number_is_refused_once_enabled() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    talk.ok("ENABLE UIDONLY QRESYNC").await;
    for command in [
        "FETCH 1 FLAGS",
        "STORE 1 +FLAGS (\\Seen)",
        "COPY 1 Sent",
        "MOVE 1 Sent",
        "SEARCH ALL",
        "SORT (DATE) UTF-8 ALL",
        "THREAD REFERENCES UTF-8 ALL",
        "UID SEARCH 1:2",
        "UID SEARCH OR SEEN NOT (SEEN 2)",
        "REPLACE 1 INBOX {1+}\r\nx",
        "SELECT Sent (QRESYNC (1 1 1:2 (1 1)))",
    ] {
        let answer = talk.ask(command).await;
        assert!(answer.starts_with("T BAD [UIDREQUIRED] "), "{command}: {answer}");
        talk.ok("UID FETCH 1:* UID").await;
    }
    talk.ok("UID COPY 1 Sent").await;
    assert!(talk.ok("UID MOVE 1 Sent").await.contains("* VANISHED 1\r\n"));
}
