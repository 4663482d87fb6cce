//! ESEARCH (RFC 7377): several mailboxes, whichever is selected.

use super::*;

/// The mailboxes of the example in RFC 7377 §3, with what their messages say.
async fn folders(house: &House) -> Talk {
    let mut talk = house.session().await;
    for (mailbox, subjects) in [
        ("folder1", &["chad", "x", "chad too"][..]),
        ("folder2", &[]),
        ("folder2/banana", &["x", "y"]),
        ("folder2/peach", &["z"]),
        ("folder2/salmon", &["chad"]),
        ("folder2/salmon/deep", &["chad"]),
        ("other", &["chad"]),
    ] {
        talk.ok(&format!("CREATE {mailbox}")).await;
        for subject in subjects {
            talk.append(mailbox, &message(subject, "body")).await;
        }
    }
    talk
}

/// `mailbox: results` of each ESEARCH response, and how the command ended.
fn told(answer: &str) -> Vec<String> {
    let lines = answer.lines().map(|line| {
        let Some(rest) = line.strip_prefix("* ESEARCH (TAG \"") else { return line.to_owned() };
        let (scope, results) = rest.split_once(") UID ").unwrap();
        let (tag, scope) = scope.split_once("\" MAILBOX ").unwrap();
        let (mailbox, validity) = scope.split_once(" UIDVALIDITY ").unwrap();
        assert!(tag.starts_with('t') && validity.parse::<u32>().unwrap() > 0, "{line}");
        format!("{mailbox}: {results}")
    });
    lines.collect()
}

async fn search(talk: &mut Talk, command: &str) -> Vec<String> {
    told(&talk.ok(command).await)
}

#[tokio::test]
async fn the_searches_of_rfc_7377_find_what_is_in_each_mailbox() {
    let house = House::new();
    let mut talk = folders(&house).await;
    let first = search(&mut talk, "ESEARCH IN (mailboxes \"folder1\" subtree \"folder2\") unseen").await;
    let expected =
        ["folder1: ALL 1:3", "folder2/banana: ALL 1:2", "folder2/peach: ALL 1", "folder2/salmon: ALL 1", "folder2/salmon/deep: ALL 1"];
    assert_eq!(first[..5], expected);
    assert_eq!(first[5..], ["T OK Search completed"]);
    let second = search(&mut talk, "ESEARCH IN (mailboxes \"folder1\" subtree-one \"folder2\") subject \"chad\"").await;
    assert_eq!(second, ["folder1: ALL 1,3", "folder2/salmon: ALL 1", "T OK Search completed"]);
}

#[tokio::test]
async fn mailboxes_without_a_match_are_not_mentioned() {
    let house = House::new();
    let mut talk = folders(&house).await;
    let counted = search(&mut talk, "ESEARCH IN (personal) RETURN (MIN MAX COUNT) SUBJECT chad").await;
    let expected = [
        "folder1: MIN 1 MAX 3 COUNT 2",
        "folder2/salmon: MIN 1 MAX 1 COUNT 1",
        "folder2/salmon/deep: MIN 1 MAX 1 COUNT 1",
        "other: MIN 1 MAX 1 COUNT 1",
    ];
    assert_eq!(counted[..4], expected);
    assert_eq!(search(&mut talk, "ESEARCH IN (personal) RETURN (COUNT) SUBJECT nobody").await, ["T OK Search completed"]);
    // What is not there, and what can't be, is as good as without a match; a mailbox named twice is searched once.
    let named = "ESEARCH IN (mailboxes (other nowhere \"a//b\" other) subtree other) RETURN () ALL";
    assert_eq!(search(&mut talk, named).await, ["other: ALL 1", "T OK Search completed"]);
    talk.ok("SUBSCRIBE folder2/peach").await;
    assert_eq!(search(&mut talk, "ESEARCH IN (subscribed) SUBJECT z").await, ["folder2/peach: ALL 1", "T OK Search completed"]);
    // Each mailbox has a part of its own (RFC 9394).
    let part = search(&mut talk, "ESEARCH IN (mailboxes (folder1 other)) RETURN (PARTIAL -1:-1) ALL").await;
    assert_eq!(part, ["folder1: PARTIAL (-1:-1 3)", "other: PARTIAL (-1:-1 1)", "T OK Search completed"]);
    assert!(talk.ask("ESEARCH IN (personal) CHARSET x-unknown ALL").await.starts_with("T NO [BADCHARSET"));
}

#[tokio::test]
async fn the_selected_mailbox_is_searched_as_it_is_seen_and_stays_selected() {
    let house = House::new();
    let mut talk = folders(&house).await;
    for command in ["ESEARCH ALL", "ESEARCH IN (selected) ALL", "ESEARCH IN (personal) RETURN (UPDATE) ALL"] {
        assert!(talk.ask(command).await.starts_with("T BAD "), "{command}");
    }
    talk.ok("SELECT folder1").await;
    assert_eq!(search(&mut talk, "ESEARCH ALL").await, ["folder1: ALL 1:3", "T OK Search completed"]);
    assert_eq!(search(&mut talk, "ESEARCH RETURN (COUNT) SUBJECT x").await, ["folder1: COUNT 1", "T OK Search completed"]);
    // Numbers beyond the end are no error, and UIDs are told all the same.
    talk.ok("UID STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    talk.ok("EXPUNGE").await;
    let numbered = search(&mut talk, "ESEARCH IN (selected mailboxes other) 2:100").await;
    assert_eq!(numbered, ["folder1: ALL 3", "T OK Search completed"]);
    assert_eq!(search(&mut talk, "ESEARCH IN (mailboxes other) 1:100").await, ["other: ALL 1", "T OK Search completed"]);
    let mut another = house.session().await;
    another.append("folder1", &message("new", "body")).await;
    assert!(talk.ok("ESEARCH 1:100").await.contains("ALL 2:3\r\n"), "the view has two messages until the new one is told");
    assert!(talk.ok("FETCH 1 UID").await.contains("(UID 2)"), "folder1 is still selected");
}

#[tokio::test]
async fn results_are_saved_and_used_for_the_selected_mailbox_alone() {
    let house = House::new();
    let mut talk = folders(&house).await;
    talk.ok("SELECT folder1").await;
    assert_eq!(talk.ok("ESEARCH IN (selected) RETURN (SAVE) SUBJECT chad").await, "T OK Search completed, result saved\r\n");
    assert!(talk.ok("UID SEARCH $").await.starts_with("* SEARCH 1 3\r\n"));
    assert_eq!(search(&mut talk, "ESEARCH IN (personal) UID $").await, ["folder1: ALL 1,3", "T OK Search completed"]);
    talk.ok("ESEARCH RETURN (SAVE MAX) ALL").await;
    assert!(talk.ok("UID SEARCH $").await.starts_with("* SEARCH 3\r\n"));
    for sources in ["personal", "selected mailboxes other", "mailboxes folder1"] {
        assert!(talk.ask(&format!("ESEARCH IN ({sources}) RETURN (SAVE) ALL")).await.starts_with("T BAD "), "{sources}");
    }
    assert!(talk.ok("UID SEARCH $").await.starts_with("* SEARCH 3\r\n"), "what is wrong changes nothing");
}

#[tokio::test]
async fn updates_follow_the_selected_mailbox_with_its_name() {
    let house = House::new();
    let mut talk = folders(&house).await;
    talk.ok("SELECT folder1").await;
    talk.send("e ESEARCH IN (selected mailboxes other) RETURN (ALL UPDATE) SUBJECT chad\r\n").await;
    let answer = talk.until("e ").await;
    assert!(
        answer.contains("(TAG \"e\" MAILBOX folder1 UIDVALIDITY ") && answer.contains("(TAG \"e\" MAILBOX other UIDVALIDITY "),
        "{answer}"
    );
    let mut another = house.session().await;
    another.append("folder1", &message("chad again", "body")).await;
    another.append("other", &message("chad again", "body")).await;
    let answer = talk.ok("NOOP").await;
    assert!(answer.contains("* ESEARCH (TAG \"e\" MAILBOX folder1 UIDVALIDITY ") && answer.contains(") UID ADDTO (0 4)\r\n"), "{answer}");
    assert!(!answer.contains("other"), "{answer}");
    // The tag stays taken; what is not searched is not followed.
    talk.send("e ESEARCH IN (mailboxes other) ALL\r\n").await;
    assert!(talk.until("e ").await.contains("e BAD "));
    let answer = talk.ok("ESEARCH IN (mailboxes other) RETURN (UPDATE) ALL").await;
    assert!(answer.contains("* NO [NOUPDATE \"t"), "{answer}");
}

#[tokio::test]
async fn a_search_by_modseq_tells_one_for_each_mailbox() {
    let house = House::new();
    let mut talk = folders(&house).await;
    let answer = talk.ok("ESEARCH IN (mailboxes (folder1 other)) MODSEQ 1").await;
    let lines = told(&answer);
    assert!(lines[0].starts_with("folder1: MODSEQ ") && lines[0].ends_with(" ALL 1:3"), "{answer}");
    assert!(lines[1].starts_with("other: MODSEQ ") && lines[1].ends_with(" ALL 1") && lines.len() == 3, "{answer}");
    // From now on the client hears of MODSEQs.
    talk.ok("SELECT other").await;
    assert!(talk.ok("STORE 1 +FLAGS (\\Seen)").await.contains("MODSEQ ("));
}

#[tokio::test]
async fn after_uidonly_numbers_are_refused_in_every_mailbox() {
    let house = House::new();
    let mut talk = folders(&house).await;
    talk.ok("ENABLE UIDONLY").await;
    assert!(talk.ask("ESEARCH IN (personal) 1:3").await.starts_with("T BAD [UIDREQUIRED]"));
    assert_eq!(search(&mut talk, "ESEARCH IN (mailboxes folder1) UID 2:3").await, ["folder1: ALL 2:3", "T OK Search completed"]);
}
