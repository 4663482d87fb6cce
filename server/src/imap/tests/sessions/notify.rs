//! NOTIFY (RFC 5465).

use super::*;

/// The client, and another one of the same account.
async fn two(house: &House, count: usize) -> (Talk, Talk) {
    let talk = inbox_of(house, count).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    (talk, other)
}

#[tokio::test]
async fn news_of_the_selected_mailbox_come_between_commands() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 2).await;
    talk.ok("NOTIFY SET (selected (MessageNew (uid body.peek[header.fields (from to subject)]) MessageExpunge FlagChange))").await;
    other.append("INBOX", &message("news", "x")).await;
    let told = talk.until("* 3 FETCH (UID 3 ").await;
    assert!(told.starts_with("* 3 EXISTS\r\n"), "{told}");
    let told = talk.until(")").await;
    assert!(told.contains("Subject: news\r\n"), "{told}");
    other.ok("STORE 1 +FLAGS (\\Flagged)").await;
    assert!(talk.until("* 1 FETCH").await.contains("* 1 FETCH (UID 1 FLAGS (\\Flagged"), "as it happens");
    other.ok("STORE 2 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    talk.until("* 2 EXPUNGE").await;
    // In IDLE the same.
    talk.send("i IDLE\r\n").await;
    talk.until("+ ").await;
    other.append("INBOX", &message("more", "x")).await;
    assert!(talk.until("* 3 FETCH (UID 4 ").await.contains("* 3 EXISTS\r\n"));
    talk.send("DONE\r\n").await;
    talk.until("i OK").await;
    // Sequence numbers stand until a command lets them move.
    talk.ok("NOTIFY SET (selected-delayed (MessageNew MessageExpunge))").await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    other.append("INBOX", &message("last", "x")).await;
    let told = talk.until("* 4 EXISTS").await;
    assert!(!told.contains("EXPUNGE") && !told.contains("FETCH"), "{told}");
    assert!(talk.ok("NOOP").await.contains("* 1 EXPUNGE\r\n"));
}

#[tokio::test]
async fn of_messages_that_it_made_itself_a_client_is_sent_nothing() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 2).await;
    talk.ok("NOTIFY SET (selected (MessageNew (uid) MessageExpunge)) (personal (MessageNew MessageExpunge FlagChange))").await;
    // Into the selected mailbox.
    let told = talk.append("INBOX", &message("own", "x")).await;
    assert!(told.contains("* 3 EXISTS\r\n") && !told.contains("FETCH"), "{told}");
    for (command, exists) in [("COPY 3 INBOX", 4), ("MOVE 4 INBOX", 4)] {
        let told = talk.ok(command).await;
        assert!(told.contains(&format!("* {exists} EXISTS\r\n")) && !told.contains("FETCH"), "{command}: {told}");
    }
    // Into another one, with the UIDs that somebody's messages have in the selected one.
    other.append("INBOX", &message("theirs", "x")).await;
    talk.until("* 5 FETCH (UID 6)").await;
    talk.ok("CREATE Box").await;
    let told = talk.append("Box", &message("own", "x")).await;
    assert!(!told.contains("STATUS"), "{told}");
    for command in ["COPY 1:4 Box", "MOVE 1 Box", "NOOP"] {
        let told = talk.ok(command).await;
        assert!(!told.contains("STATUS"), "{command}: {told}");
    }
    other.append("INBOX", &message("theirs", "x")).await;
    let told = talk.until("* 5 FETCH (UID 7)").await;
    assert!(!told.contains("STATUS"), "{told}");
    // What others did there is told, with what the client did at the same time.
    other.append("Box", &message("theirs", "x")).await;
    talk.until("* STATUS Box (MESSAGES 7 UIDNEXT 8 ").await;
    other.ok("SELECT Box").await;
    for (theirs, told) in [("STORE 1 +FLAGS (\\Deleted)", "(UIDVALIDITY "), ("EXPUNGE", "(MESSAGES 8 UIDNEXT 10 ")] {
        talk.send("a APPEND Box {3}\r\n").await;
        talk.until("+ ").await;
        other.ok(theirs).await;
        talk.send("a:b\r\n").await;
        let own = talk.until("a OK").await;
        assert!(own.contains(&format!("* STATUS Box {told}")), "{theirs}: {own}");
    }
    // What it removed with CLOSE, and what others did just before.
    talk.ok("STORE 1 +FLAGS (\\Deleted)").await;
    assert_eq!(talk.ok("CLOSE").await, "T OK Close completed\r\n");
    talk.ok("SELECT INBOX").await;
    talk.ok("STORE 1 +FLAGS (\\Deleted)").await;
    talk.send("a APPEND Box {3}\r\n").await;
    talk.until("+ ").await;
    other.append("INBOX", &message("theirs", "x")).await;
    talk.send("a:b\r\nb CLOSE\r\n").await;
    let told = talk.until("b OK").await;
    assert!(told.contains("* 5 EXISTS\r\n") && told.contains("* 5 FETCH (UID 8)") && !told.contains("STATUS"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_command_does_not_wait_until_what_is_to_tell_has_settled() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 1).await;
    talk.ok("NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))").await;
    for sign in ["+", "-", "+"] {
        other.ok(&format!("STORE 1 {sign}FLAGS (\\Flagged)")).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let start = tokio::time::Instant::now();
        let told = talk.ok("NOOP").await;
        assert!(told.contains("* 1 FETCH (UID 1 FLAGS ") && start.elapsed().is_zero(), "{:?}: {told}", start.elapsed());
    }
    other.ok("STORE 1 -FLAGS (\\Flagged)").await;
    talk.until("* 1 FETCH (UID 1 FLAGS ").await;
}

#[tokio::test]
async fn other_mailboxes_are_told_by_status() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 1).await;
    for name in ["Lists", "Lists/Lemonade", "Lists/Im2000", "misc"] {
        other.ok(&format!("CREATE {name}")).await;
    }
    other.append("Lists/Lemonade", &message("one", "x")).await;
    let told = talk.ok("NOTIFY SET STATUS (selected (MessageNew MessageExpunge)) (subtree Lists (MessageNew MessageExpunge))").await;
    assert!(told.contains("* STATUS Lists/Lemonade (MESSAGES 1 UIDNEXT 2 UIDVALIDITY "), "{told}");
    assert!(
        told.contains("* STATUS Lists/Im2000 (MESSAGES 0 UIDNEXT 1 UIDVALIDITY ") && !told.contains("misc") && !told.contains("INBOX"),
        "{told}"
    );
    other.append("misc", &message("unheard", "x")).await;
    other.append("Lists/Lemonade", &message("two", "x")).await;
    let told = talk.until("* STATUS Lists/Lemonade (MESSAGES 2 UIDNEXT 3 ").await;
    assert!(!told.contains("misc") && !told.contains("HIGHESTMODSEQ"), "{told}");
    // Flags are told only to who asked for them; then with how many are unseen, or the MODSEQ.
    other.ok("SELECT Lists/Lemonade").await;
    other.ok("STORE 1 +FLAGS (\\Seen)").await;
    other.ok("STORE 2 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    let told = talk.until("* STATUS Lists/Lemonade (MESSAGES 1 UIDNEXT 3 ").await;
    assert!(!told.contains("UNSEEN"), "{told}");
    let told = talk.ok("NOTIFY SET (mailboxes (INBOX Lists/Lemonade nothing) (MessageNew MessageExpunge FlagChange))").await;
    assert!(!told.contains("STATUS"), "{told}");
    other.ok("STORE 1 -FLAGS (\\Seen)").await;
    let told = talk.until("* STATUS Lists/Lemonade (").await;
    assert!(told.ends_with(" UNSEEN 1)\r\n") && told.contains("UIDVALIDITY") && !told.contains("MESSAGES"), "{told}");
    talk.ok("ENABLE CONDSTORE").await;
    other.ok("STORE 1 +FLAGS (\\Seen)").await;
    assert!(talk.until("* STATUS Lists/Lemonade (").await.contains(" HIGHESTMODSEQ "));
    // Of the selected mailbox nothing was asked for: that it is named changes nothing.
    other.append("INBOX", &message("silent", "x")).await;
    other.append("Lists/Lemonade", &message("heard", "x")).await;
    let told = talk.until("* STATUS Lists/Lemonade (MESSAGES 2 UIDNEXT 4 ").await;
    assert!(told.contains("HIGHESTMODSEQ") && !told.contains("INBOX") && !told.contains("EXISTS"), "{told}");
}

#[tokio::test]
async fn names_subscriptions_and_annotations_of_others_are_told() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 0).await;
    talk.ok("NOTIFY SET (personal (MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange))").await;
    other.ok("CREATE New").await;
    assert!(talk.until("* LIST ").await.ends_with("* LIST (\\HasNoChildren) \"/\" New\r\n"));
    other.ok("CREATE New/Below").await;
    let told = talk.until("* LIST (\\HasNoChildren) \"/\" New/Below").await;
    assert_eq!(told, "* LIST (\\HasChildren) \"/\" New\r\n* LIST (\\HasNoChildren) \"/\" New/Below\r\n");
    other.ok("RENAME New Other").await;
    let told = talk.until("* LIST ").await;
    assert_eq!(told, "* LIST (\\HasChildren) \"/\" Other (\"OLDNAME\" (New))\r\n", "those below move along");
    other.ok("SUBSCRIBE Other").await;
    assert_eq!(talk.until("* LIST ").await, "* LIST (\\Subscribed \\HasChildren) \"/\" Other\r\n");
    other.ok("SETMETADATA Other (/private/comment \"x\" /shared/comment NIL)").await;
    let told = talk.until("* METADATA Other").await;
    assert!(told.contains("* METADATA Other /private/comment"), "{told}");
    other.ok("SETMETADATA \"\" (/private/comment \"x\")").await;
    assert_eq!(talk.until("* METADATA ").await, "* METADATA \"\" /private/comment\r\n");
    other.ok("DELETE Other/Below").await;
    let told = talk.until("* LIST (\\NonExistent) \"/\" Other/Below").await;
    assert!(told.starts_with("* LIST (\\Subscribed \\HasNoChildren) \"/\" Other\r\n"), "{told}");
    // What it does itself is no news to it.
    for command in
        ["CREATE Mine/Below", "SUBSCRIBE Mine", "RENAME Mine Own", "SETMETADATA Own (/private/comment \"x\")", "DELETE Own/Below", "NOOP"]
    {
        let told = talk.ok(command).await;
        assert!(!told.contains("LIST") && !told.contains("METADATA"), "{command}: {told}");
    }
    other.ok("CREATE End").await;
    assert_eq!(talk.until("* LIST ").await, "* LIST (\\HasNoChildren) \"/\" End\r\n");
}

#[tokio::test]
async fn who_hears_nothing_has_a_snapshot() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 3).await;
    let told = talk.ask("NOTIFY SET (personal (MessageNew MessageExpunge FlagChange AnnotationChange))").await;
    assert!(told.starts_with("T NO [BADEVENT (MessageNew MessageExpunge FlagChange "), "{told}");
    other.append("INBOX", &message("new", "x")).await;
    // What was to tell is told with the command, and nothing more after it.
    assert!(talk.ok("NOTIFY NONE").await.contains("* 4 EXISTS\r\n"));
    other.append("INBOX", &message("newer", "x")).await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    assert_eq!(talk.ok("NOOP").await, "T OK Completed\r\n");
    assert!(talk.ok("FETCH 4 (UID)").await.starts_with("* 4 FETCH (UID 4)\r\n"));
    // Its own EXPUNGE says what went.
    assert!(talk.ok("EXPUNGE").await.contains("* 1 EXPUNGE\r\n"));
    talk.ok("NOTIFY SET (selected (MessageNew MessageExpunge)) (subscribed NONE)").await;
    other.append("INBOX", &message("newest", "x")).await;
    talk.until("* 5 EXISTS").await;
}

#[tokio::test]
async fn who_is_told_too_much_is_told_that_and_nothing_more() {
    let house = House::new();
    let (mut talk, mut other) = two(&house, 1).await;
    talk.ok("NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (ServerMetadataChange))").await;
    let mut changes: Vec<(String, Option<Vec<u8>>)> = (0..1_100).map(|number| (format!("/private/vendor/x/{number}"), None)).collect();
    changes.push(("/private/comment".to_owned(), Some(b"x".to_vec())));
    house.account().annotate_as(1, None, &changes).unwrap();
    let told = talk.until("* OK [NOTIFICATIONOVERFLOW] ").await;
    assert!(!told.contains("METADATA"), "{told}");
    other.append("INBOX", &message("unheard", "x")).await;
    other.ok("SETMETADATA \"\" (/private/comment NIL)").await;
    assert_eq!(talk.ok("NOOP").await, "T OK Completed\r\n");
    talk.ok("NOTIFY SET (personal (ServerMetadataChange))").await;
    other.ok("SETMETADATA \"\" (/private/comment \"y\")").await;
    assert_eq!(talk.until("* METADATA ").await, "* METADATA \"\" /private/comment\r\n");
}
