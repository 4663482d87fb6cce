//! QRESYNC, RFC 7162 §3.2.

use super::*;

/// The number after `word` in an answer.
fn after(answer: &str, word: &str) -> u64 {
    let (_, rest) = answer.rsplit_once(word).unwrap_or_else(|| panic!("{word} is missing: {answer}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// A session that knows VANISHED, with `count` messages in its selected INBOX.
async fn aware(house: &House, count: usize) -> Talk {
    let mut talk = inbox_of(house, count).await;
    talk.ok("UNSELECT").await;
    assert!(talk.ok("ENABLE QRESYNC").await.starts_with("* ENABLED QRESYNC\r\n"));
    talk.ok("SELECT INBOX").await;
    talk
}

#[tokio::test]
async fn what_needs_enable_is_bad_without_it() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    assert!(talk.ask("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)").await.starts_with("T BAD "));
    assert!(talk.ask("SELECT INBOX (QRESYNC (1 1))").await.starts_with("T BAD "));
    talk.ok("FETCH 1 FLAGS").await;
    assert!(talk.ok("ENABLE CONDSTORE QRESYNC X").await.starts_with("* ENABLED CONDSTORE QRESYNC\r\n"));
    assert!(talk.ask("FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)").await.starts_with("T BAD "));
    assert!(talk.ask("UID FETCH 1:* (FLAGS) (VANISHED)").await.starts_with("T BAD "));
    talk.ok("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)").await;
}

#[tokio::test]
async fn expunges_are_told_as_vanished_once_enabled() {
    let house = House::new();
    let mut talk = aware(&house, 5).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    talk.ok("STORE 2,3,5 +FLAGS.SILENT (\\Deleted)").await;
    let answer = talk.ok("EXPUNGE").await;
    assert!(answer.starts_with("* VANISHED 2:3,5\r\n") && !answer.contains(" EXPUNGE\r\n"), "{answer}");
    let modseq = after(&answer, "T OK [HIGHESTMODSEQ ");
    assert!(talk.ok("STATUS INBOX (HIGHESTMODSEQ)").await.contains(&format!("HIGHESTMODSEQ {modseq})")));
    assert_eq!(talk.ok("EXPUNGE").await, "T OK Expunge completed\r\n");
    assert!(other.ok("NOOP").await.contains("* 5 EXPUNGE\r\n* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n"));
    other.ok("UID MOVE 1 Sent").await;
    assert!(talk.ok("NOOP").await.contains("* VANISHED 1\r\n"));
    assert!(talk.ok("FETCH 1 (UID)").await.contains("* 1 FETCH (UID 4)"));
    let answer = talk.ok("MOVE 1 Sent").await;
    assert!(answer.contains("* VANISHED 4\r\nT OK [HIGHESTMODSEQ "), "{answer}");
}

#[tokio::test]
async fn a_client_that_was_away_learns_what_went_and_what_changed() {
    let house = House::new();
    let mut away = aware(&house, 6).await;
    let selected = away.ok("SELECT INBOX").await;
    assert!(selected.starts_with("* OK [CLOSED] "), "{selected}");
    let (validity, modseq) = (after(&selected, "[UIDVALIDITY "), after(&selected, "[HIGHESTMODSEQ "));
    away.ok("UNSELECT").await;

    let mut other = inbox_of(&house, 1).await; // UID 7
    other.ok("UID STORE 2,5 +FLAGS.SILENT (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    other.ok("UID STORE 3,6 +FLAGS.SILENT (\\Flagged)").await;

    let answer = away.ok(&format!("SELECT INBOX (QRESYNC ({validity} {modseq}))")).await;
    let vanished = answer.find("* VANISHED (EARLIER) 2,5\r\n").expect("what went");
    assert!(answer.find("* 5 EXISTS").unwrap() < vanished, "{answer}");
    for (line, uid) in [("* 2 FETCH (", 3), ("* 4 FETCH (", 6), ("* 5 FETCH (", 7)] {
        let at = answer.find(line).unwrap_or_else(|| panic!("{line}: {answer}"));
        assert!(vanished < at && answer[at..].contains(&format!("UID {uid} ")) && answer[at..].contains("MODSEQ ("), "{answer}");
    }
    assert_eq!(answer.matches(" FETCH (").count(), 3, "{answer}");

    let answer = away.ok(&format!("SELECT INBOX (QRESYNC ({validity} {modseq} 1:3))")).await;
    assert!(answer.contains("* VANISHED (EARLIER) 2\r\n"), "{answer}");
    assert_eq!(answer.matches(" FETCH (").count(), 1, "only of the UIDs that the client has: {answer}");

    let answer = away.ok(&format!("SELECT INBOX (CONDSTORE QRESYNC ({} {modseq} 1:6 (1:2 1,3)))", validity + 1)).await;
    assert!(!answer.contains("VANISHED") && !answer.contains("FETCH"), "another UIDVALIDITY: {answer}");

    let answer = away.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq} VANISHED)")).await;
    assert!(answer.starts_with("* VANISHED (EARLIER) 2,5\r\n* 2 FETCH ("), "{answer}");
}

#[tokio::test]
async fn a_limit_on_messages_hides_no_change_from_a_client_that_was_away() {
    let house = House::new();
    let mut talk = aware(&house, 4).await;
    let selected = talk.ok("SELECT INBOX").await;
    let (validity, modseq) = (after(&selected, "[UIDVALIDITY "), after(&selected, "[HIGHESTMODSEQ "));
    talk.ok("UID STORE 1,4 +FLAGS.SILENT (\\Flagged)").await;
    let mut away = house.session_with(Settings { message_limits: MessageLimits::new(2, 0), ..settings() }).await;
    away.ok("ENABLE QRESYNC").await;
    let answer = away.ok(&format!("SELECT INBOX (QRESYNC ({validity} {modseq} 1:4))")).await;
    assert!(answer.contains("* 1 FETCH (") && answer.contains("* 4 FETCH ("), "{answer}");
}

#[tokio::test]
async fn the_last_message_is_found_missing_by_a_star() {
    let house = House::new();
    let mut talk = aware(&house, 3).await;
    let modseq = after(&talk.ok("STATUS INBOX (HIGHESTMODSEQ)").await, "HIGHESTMODSEQ ");
    talk.ok("STORE 3 +FLAGS.SILENT (\\Deleted)").await;
    talk.ok("EXPUNGE").await;
    let answer = talk.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq} VANISHED)")).await;
    assert_eq!(answer, "* VANISHED (EARLIER) 3\r\nT OK Fetch completed\r\n");
}

#[tokio::test]
async fn malformed_knowledge_is_bad_and_selects_nothing() {
    let house = House::new();
    let mut talk = aware(&house, 1).await;
    for wrong in
        ["()", "(1)", "(0 1)", "(1 1 *)", "(1 1 1:*)", "(1 1 $)", "(1 1 1:2 (1,2 3))", "(1 1 (1 1:2))", "(1 1 1 2)", "(1 1 1 (1 2) 3)"]
    {
        assert!(talk.ask(&format!("SELECT INBOX (QRESYNC {wrong})")).await.starts_with("T BAD "), "{wrong}");
        talk.ok("NOOP").await;
    }
    talk.ok("SELECT INBOX (QRESYNC (1 1 (1 1)))").await;
}

#[tokio::test]
async fn a_modseq_above_an_untold_expunge_is_taken_back_until_it_is_told() {
    let house = House::new();
    let mut talk = aware(&house, 4).await;
    let told = after(&talk.ok("SELECT INBOX").await, "[HIGHESTMODSEQ ");
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    other.ok("UID STORE 3 +FLAGS.SILENT (\\Flagged)").await;
    let answer = talk.ok("FETCH 2 (UID)").await;
    assert!(answer.contains("* 3 FETCH (UID 3 MODSEQ ("), "{answer}");
    assert_eq!(after(&answer, "* OK [HIGHESTMODSEQ "), told, "{answer}");
    // With every answer: a client takes the highest MODSEQ of each command that has no such code.
    let answer = talk.ok("FETCH 3 (MODSEQ)").await;
    assert!(answer.contains("* 3 FETCH (UID 3 MODSEQ (") || answer.contains("* 3 FETCH (MODSEQ ("), "{answer}");
    assert_eq!(after(&answer, "* OK [HIGHESTMODSEQ "), told, "{answer}");
    let answer = talk.ok("NOOP").await;
    assert!(answer.starts_with("* VANISHED 1\r\n") && after(&answer, "* OK [HIGHESTMODSEQ ") > told, "{answer}");
}

#[tokio::test]
async fn a_fetch_that_marks_as_seen_has_uid_and_modseq() {
    let house = House::new();
    let mut talk = aware(&house, 1).await;
    let answer = talk.ok("FETCH 1 BODY[TEXT]").await;
    assert!(answer.starts_with("* 1 FETCH (UID 1 MODSEQ ("), "{answer}");
}
