//! MESSAGELIMIT and SAVELIMIT, RFC 9738.

use super::*;
use crate::imap::command::append::WAITING_MAX;

/// A session with `count` messages in its selected INBOX, whose commands work on three messages at most.
async fn limited(house: &House, count: usize, limits: MessageLimits) -> Talk {
    drop(inbox_of(house, count).await);
    let mut talk = house.session_with(Settings { message_limits: limits, ..settings() }).await;
    talk.ok("SELECT INBOX").await;
    talk
}
fn three() -> MessageLimits {
    MessageLimits::new(3, 0)
}

#[tokio::test]
async fn fetch_does_the_highest_uids_from_above_and_says_where_it_stopped() {
    let house = House::new();
    let mut talk = limited(&house, 7, three()).await;
    assert!(talk.ok("CAPABILITY").await.contains(" MESSAGELIMIT=3\r\n"));
    let told = talk.ok("FETCH 1:6 (UID)").await;
    assert_eq!(
        told.replace("Done with 3 messages, the last of those that were asked for", "…"),
        "* 6 FETCH (UID 6)\r\n* 5 FETCH (UID 5)\r\n* 4 FETCH (UID 4)\r\nT OK [MESSAGELIMIT 3 4] …\r\n"
    );
    let told = talk.ok("UID FETCH 1:3 (FLAGS)").await;
    assert!(told.starts_with("* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH") && told.ends_with("\r\nT OK Fetch completed\r\n"), "{told}");
    // What is read from files and what is rendered goes with its own message.
    let told = talk.ok("UID FETCH 1,3:7 (ENVELOPE BODY[TEXT] PREVIEW)").await;
    let places =
        ["* 7 FETCH", "\"s7\"", "body 7", "* 6 FETCH", "\"s6\"", "body 6", "* 5 FETCH", "\"s5\"", "body 5"].map(|text| told.find(text));
    assert!(places.iter().all(Option::is_some) && places.is_sorted() && !told.contains("* 4 FETCH"), "{told}");
    assert!(talk.ok("FETCH 1:7 (FLAGS)").await.contains("* 7 FETCH (FLAGS (\\Seen))\r\n"));
    assert_eq!(talk.ok("UID FETCH 2:4 FLAGS").await.matches("(\\Seen)").count(), 0, "only what is sent is marked");
}

#[tokio::test]
async fn a_part_that_is_too_large_is_refused() {
    let house = House::new();
    let mut talk = limited(&house, 6, three()).await;
    assert_eq!(
        talk.ask("UID FETCH 1:* (UID) (PARTIAL -1:-4)").await,
        "T NO [MESSAGELIMIT 3] FETCH exceeds the maximum 3-message limit\r\n"
    );
    let told = talk.ok("UID FETCH 1:* (UID) (PARTIAL -1:-3)").await;
    assert_eq!(told, "* 4 FETCH (UID 4)\r\n* 5 FETCH (UID 5)\r\n* 6 FETCH (UID 6)\r\nT OK Fetch completed\r\n");
}

#[tokio::test]
async fn what_is_searched_counts_and_not_what_is_found() {
    let house = House::new();
    let mut talk = limited(&house, 8, three()).await;
    talk.ok("STORE 5,7 +FLAGS (\\Seen)").await;
    for (command, found, answer) in [
        ("UID SEARCH UID 2:7 UNSEEN", "* SEARCH 6\r\n", "T OK [MESSAGELIMIT 3 5] "),
        ("SEARCH ALL", "* SEARCH 8 7 6\r\n", "T OK [MESSAGELIMIT 3 6] "),
        ("SEARCH 2:4", "* SEARCH 2 3 4\r\n", "T OK Search completed"),
        ("SEARCH 1:5 SUBJECT s", "* SEARCH 5 4 3\r\n", "T OK [MESSAGELIMIT 3 3] "),
        ("SEARCH BODY \"body 1\"", "* SEARCH\r\n", "T OK [MESSAGELIMIT 3 6] "),
        ("SEARCH UIDAFTER 5 UNSEEN", "* SEARCH 6 8\r\n", "T OK Search completed"),
        ("SEARCH UIDBEFORE 4", "* SEARCH 1 2 3\r\n", "T OK Search completed"),
        ("SEARCH UIDBEFORE 5 SEEN", "* SEARCH\r\n", "T OK [MESSAGELIMIT 3 2] "),
        ("SEARCH OR 1 UID 8 ALL", "* SEARCH 1 8\r\n", "T OK Search completed"),
        ("SEARCH NOT 2:7 UNSEEN", "* SEARCH 1 8\r\n", "T OK Search completed"),
        ("SEARCH OR 1 SEEN", "* SEARCH 7\r\n", "T OK [MESSAGELIMIT 3 6] "),
        ("SEARCH UIDAFTER 8", "* SEARCH\r\n", "T OK Search completed"),
        ("SEARCH UIDAFTER 4294967295", "* SEARCH\r\n", "T OK Search completed"),
        ("SEARCH UIDBEFORE 1", "* SEARCH\r\n", "T OK Search completed"),
    ] {
        let told = talk.ask(command).await;
        assert!(told.starts_with(&format!("{found}{answer}")), "{command}: {told}");
    }
    let told = talk.ok("UID SEARCH RETURN (MIN MAX COUNT) ALL").await;
    assert!(told.contains(" UID MIN 6 MAX 8 COUNT 3\r\nT OK [MESSAGELIMIT 3 6] "), "{told}");
}

#[tokio::test]
async fn a_saved_result_is_what_was_searched() {
    let house = House::new();
    let mut talk = limited(&house, 8, three()).await;
    let told = talk.ok("UID SEARCH RETURN (SAVE) UID 2:7 UNDELETED").await;
    assert!(told.starts_with("T OK [MESSAGELIMIT 3 5] "), "{told}");
    assert_eq!(
        talk.ok("UID FETCH $ (UID)").await,
        "* 5 FETCH (UID 5)\r\n* 6 FETCH (UID 6)\r\n* 7 FETCH (UID 7)\r\nT OK Fetch completed\r\n"
    );
    assert!(talk.ok("UID SEARCH UIDAFTER 5 $").await.starts_with("* SEARCH 6 7\r\nT OK Search completed"));
}

#[tokio::test]
async fn results_that_are_a_part_are_not_kept_up_to_date() {
    let house = House::new();
    let mut talk = limited(&house, 4, three()).await;
    for command in ["SEARCH RETURN (UPDATE COUNT) ALL", "ESEARCH IN (selected) RETURN (UPDATE COUNT) ALL"] {
        let told = talk.ok(command).await;
        assert!(told.contains(" COUNT 3\r\n* NO [NOUPDATE \"t") && told.contains("\r\nT OK [MESSAGELIMIT 3 2] "), "{command}: {told}");
    }
    assert!(!talk.ok("SEARCH RETURN (UPDATE COUNT) 2:4").await.contains("NOUPDATE"));
}

#[tokio::test]
async fn sort_and_thread_are_of_all_or_of_none() {
    let house = House::new();
    let mut talk = limited(&house, 4, three()).await;
    for (command, name) in [("SORT (SUBJECT) UTF-8 UNSEEN", "SORT"), ("THREAD REFERENCES UTF-8 UNSEEN", "THREAD")] {
        assert_eq!(talk.ask(command).await, format!("T NO [MESSAGELIMIT 3] {name} exceeds the maximum 3-message limit\r\n"));
    }
    assert!(talk.ok("SORT (REVERSE SUBJECT) UTF-8 2:4").await.starts_with("* SORT 4 3 2\r\n"));
    assert!(talk.ok("THREAD REFS UTF-8 UIDBEFORE 3 UNSEEN").await.starts_with("* THREAD (1)(2)\r\n"));
}

#[tokio::test]
async fn several_mailboxes_are_searched_within_one_limit() {
    let house = House::new();
    let mut talk = limited(&house, 2, three()).await;
    talk.ok("COPY 1:2 Sent").await;
    let told = talk.ask("ESEARCH IN (personal) ALL").await;
    assert!(
        told.ends_with("T NO [MESSAGELIMIT 3] Searching in several mailboxes at once exceeds the maximum 3-message limit\r\n"),
        "{told}"
    );
    let told = talk.ok("ESEARCH IN (personal) UID 2").await;
    assert_eq!(told.matches("* ESEARCH ").count(), 2, "{told}");
    talk.ok("COPY 1:2 Sent").await;
    let told = talk.ok("ESEARCH IN (mailboxes Sent) RETURN (COUNT) ALL").await;
    assert!(told.contains(" COUNT 3\r\nT OK [MESSAGELIMIT 3 2] "), "{told}");
}

#[tokio::test]
async fn store_changes_the_highest_uids_from_above() {
    let house = House::new();
    let mut talk = limited(&house, 5, three()).await;
    let told = talk.ok("UID STORE 1:* +FLAGS (\\Seen)").await;
    let expected = "* 5 FETCH (UID 5 FLAGS (\\Seen))\r\n* 4 FETCH (UID 4 FLAGS (\\Seen))\r\n* 3 FETCH (UID 3 FLAGS (\\Seen))\r\nT OK [MESSAGELIMIT 3 3] ";
    assert!(told.starts_with(expected), "{told}");
    assert!(talk.ok("STORE 1:2 +FLAGS (\\Seen)").await.ends_with("\r\nT OK Store completed\r\n"));
    // MODIFIED has its place in the tagged answer.
    let told = talk.ok("UID STORE 1:* (UNCHANGEDSINCE 1) +FLAGS.SILENT (\\Flagged)").await;
    assert!(told.contains("\r\n* NO [MESSAGELIMIT 3 3] ") && told.contains("\r\nT OK [MODIFIED 3:5] "), "{told}");
}

#[tokio::test]
async fn copy_is_of_all_or_of_none_and_move_of_the_highest() {
    let house = House::new();
    let mut talk = limited(&house, 5, three()).await;
    assert_eq!(talk.ask("UID COPY 1:4 Sent").await, "T NO [MESSAGELIMIT 3 2] COPY exceeds the maximum 3-message limit\r\n");
    assert!(talk.ok("STATUS Sent (MESSAGES)").await.contains("(MESSAGES 0)"));
    talk.ok("UID COPY 1:3 Sent").await;
    let told = talk.ok("UID MOVE 1:* Sent").await;
    let [copied, expunged, done] =
        ["* OK [COPYUID ", " 3:5 4:6] Moved\r\n* 5 EXPUNGE\r\n* 4 EXPUNGE\r\n* 3 EXPUNGE\r\n", "T OK [MESSAGELIMIT 3 3] "]
            .map(|text| told.find(text));
    assert!(copied == Some(0) && expunged < done && expunged.is_some(), "{told}");
    assert!(talk.ok("MOVE 1:2 Sent").await.ends_with("T OK Move completed\r\n"));
    assert!(talk.ok("STATUS Sent (MESSAGES)").await.contains("(MESSAGES 8)"));
}

#[tokio::test]
async fn uid_expunge_counts_what_is_deleted_and_expunge_nothing() {
    let house = House::new();
    drop(inbox_of(&house, 12).await);
    let mut plain = house.session().await;
    plain.ok("SELECT INBOX").await;
    plain.ok("STORE 2,4,6,8,10,12 +FLAGS (\\Deleted)").await;
    let mut talk = house.session_with(Settings { message_limits: three(), ..settings() }).await;
    talk.ok("SELECT INBOX").await;
    let told = talk.ok("UID EXPUNGE 1:10").await;
    assert!(told.starts_with("* 10 EXPUNGE\r\n* 8 EXPUNGE\r\n* 6 EXPUNGE\r\nT OK [MESSAGELIMIT 3 6] "), "{told}");
    let told = talk.ok("EXPUNGE").await;
    assert!(told.starts_with("* 9 EXPUNGE\r\n* 4 EXPUNGE\r\n* 2 EXPUNGE\r\nT OK "), "{told}");
    plain.ok("NOOP").await;
    plain.ok("STORE 1:* +FLAGS (\\Deleted)").await;
    // HIGHESTMODSEQ has its place in the tagged answer.
    talk.ok("ENABLE QRESYNC").await;
    let told = talk.ok("UID EXPUNGE 1:*").await;
    assert!(told.contains("* VANISHED 7,9,11\r\n* NO [MESSAGELIMIT 3 7] ") && told.contains("\r\nT OK [HIGHESTMODSEQ "), "{told}");
    talk.ok("CLOSE").await;
    assert!(talk.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 0)"));
}

#[tokio::test]
async fn messages_that_are_gone_are_told_with_the_tagged_answer() {
    let house = House::new();
    let mut talk = limited(&house, 5, three()).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 4 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    for command in ["FETCH 1:5 (UID)", "STORE 1:5 +FLAGS (\\Flagged)"] {
        let told = talk.ok(command).await;
        assert!(told.contains("* NO [MESSAGELIMIT 3 3] ") && told.contains("\r\nT OK [EXPUNGEISSUED] "), "{command}: {told}");
    }
}

#[tokio::test]
async fn append_is_of_all_or_of_none() {
    let house = House::new();
    for (limits, capability) in [(three(), "MESSAGELIMIT=3"), (MessageLimits::new(0, 3), "SAVELIMIT=3")] {
        let mut talk = house.session_with(Settings { message_limits: limits, ..settings() }).await;
        assert!(talk.ok("CAPABILITY").await.contains(&format!(" {capability}\r\n")));
        let one = message("s", "b");
        let before = talk.ok("STATUS INBOX (MESSAGES)").await;
        let append = |count: usize| format!("APPEND INBOX{}", format!(" {{{}+}}\r\n{one}", one.len()).repeat(count));
        assert_eq!(talk.ask(&append(4)).await.lines().last(), Some("T NO [MESSAGELIMIT 3] APPEND exceeds the maximum 3-message limit"));
        assert_eq!(talk.ok("STATUS INBOX (MESSAGES)").await, before);
        talk.ok(&append(3)).await;
    }
}

#[tokio::test]
async fn with_a_limit_on_saving_everything_else_is_as_ever() {
    let house = House::new();
    let mut talk = limited(&house, 5, MessageLimits::new(0, 3)).await;
    assert_eq!(talk.ask("COPY 1:5 Sent").await, "T NO [MESSAGELIMIT 3 3] COPY exceeds the maximum 3-message limit\r\n");
    for command in ["FETCH 1:5 (UID)", "SEARCH ALL", "SORT (SUBJECT) UTF-8 ALL", "STORE 1:5 +FLAGS (\\Seen)", "MOVE 1:5 Sent"] {
        assert!(!talk.ok(command).await.contains("MESSAGELIMIT"), "{command}");
    }
}

#[tokio::test]
async fn an_append_of_very_many_messages_holds_few_files() {
    let house = House::new();
    let limits = MessageLimits::new(0, 1000);
    let mut talk = house.session_with(Settings { message_limits: limits, ..settings() }).await;
    let texts: Vec<String> =
        (0..130).map(|number| message(&format!("s{number}"), &"x".repeat(if number < 115 { 40_000 } else { 10 }))).collect();
    talk.send("a APPEND INBOX").await;
    for text in &texts {
        talk.send(&format!(" {{{}+}}\r\n{text}", text.len())).await;
    }
    // Large ones wait in files, and all behind the first hundred in closed ones.
    let in_tmp = house.maildir().join("tmp");
    let waiting = || std::fs::read_dir(&in_tmp).unwrap().count();
    let begun = SystemClock::new();
    while waiting() < 115 + 14 {
        assert!(begun.now() < DEADLINE, "{} files wait", waiting());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let open = open.filter(|path| path.starts_with(&in_tmp)).count();
    assert!(open <= WAITING_MAX, "{open} of them are open");
    talk.send("\r\n").await;
    assert!(talk.until("a ").await.starts_with("a OK [APPENDUID "));
    talk.ok("SELECT INBOX").await;
    for (number, text) in texts.iter().enumerate().skip(98) {
        assert!(talk.ok(&format!("FETCH {} BODY.PEEK[]", number + 1)).await.contains(text), "{number}");
    }
}
