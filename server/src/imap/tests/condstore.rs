//! CONDSTORE, RFC 7162 §3.1.

use super::*;

fn modseq(answer: &str) -> u64 {
    let (_, rest) = answer.rsplit_once("MODSEQ (").expect("a MODSEQ");
    rest.split_once(')').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_conditional_store_leaves_changed_messages_alone() {
    let house = House::new();
    let mut mine = inbox_of(&house, 3).await;
    let known = modseq(&mine.ok("FETCH 3 (MODSEQ)").await);
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 2 +FLAGS.SILENT (\\Flagged)").await;
    let answer = mine.ok(&format!("STORE 1:3 (UNCHANGEDSINCE {known}) +FLAGS.SILENT (\\Deleted)")).await;
    assert!(answer.contains("T OK [MODIFIED 2]"), "{answer}");
    assert!(answer.contains("* 1 FETCH (UID 1 MODSEQ (") && answer.contains("* 3 FETCH (UID 3 MODSEQ ("), "{answer}");
    assert!(answer.contains("FLAGS (\\Flagged"), "why it failed is told: {answer}");
    assert_eq!(mine.ok("FETCH 1:3 (FLAGS)").await.matches("\\Deleted").count(), 2);
    let answer = mine.ask("STORE 1 (UNCHANGEDSINCE 0) +FLAGS (\\Seen)").await;
    assert!(answer.contains("T OK [MODIFIED 1]"), "{answer}");
}

#[tokio::test]
async fn changed_since_names_only_newer_messages() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let known = modseq(&talk.ok("FETCH 3 (MODSEQ)").await);
    talk.ok("STORE 2 +FLAGS.SILENT (\\Seen)").await;
    let answer = talk.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {known})")).await;
    assert_eq!(answer.matches(" FETCH ").count(), 1, "{answer}");
    assert!(answer.contains("* 2 FETCH (") && answer.contains("MODSEQ ("), "{answer}");
}

#[tokio::test]
async fn once_enabled_every_unasked_response_has_its_modseq() {
    let house = House::new();
    let mut mine = inbox_of(&house, 1).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX (CONDSTORE)").await;
    mine.ok("STORE 1 +FLAGS (\\Flagged)").await;
    let answer = other.ok("NOOP").await;
    assert!(answer.contains("* 1 FETCH (UID 1 MODSEQ ("), "{answer}");
    assert!(mine.ok("ENABLE CONDSTORE").await.contains("* OK [HIGHESTMODSEQ "));
    let answer = mine.ok("STORE 1 +FLAGS.SILENT (\\Seen)").await;
    assert!(answer.contains("MODSEQ (") && !answer.contains("FLAGS"), "silent, but with the MODSEQ: {answer}");
}

#[tokio::test]
async fn search_and_status_speak_of_modseq() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    talk.ok("STORE 1 +FLAGS.SILENT (\\Seen)").await;
    let changed = modseq(&talk.ok("FETCH 1 (MODSEQ)").await);
    let answer = talk.ok(&format!("SEARCH MODSEQ {changed}")).await;
    assert!(answer.contains(&format!("* SEARCH 1 (MODSEQ {changed})\r\n")), "{answer}");
    assert!(talk.ok("SEARCH MODSEQ 9000000").await.contains("* SEARCH\r\n"));
    assert!(talk.ok("STATUS INBOX (HIGHESTMODSEQ)").await.contains(&format!("(HIGHESTMODSEQ {changed})")));
}
