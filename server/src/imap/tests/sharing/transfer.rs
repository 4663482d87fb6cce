//! COPY and MOVE between the mailboxes of different users.

use super::{town::Town, *};

/// All of a mailbox as its owner sees it: flags and text of each message.
async fn content(town: &Town, user: &str, mailbox: &str) -> Vec<String> {
    let mut talk = town.session(user).await;
    talk.ok(&format!("EXAMINE {mailbox}")).await;
    let fetched = talk.ok("UID FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
    let subject = |part: &str| part.split("Subject: ").nth(1).map(|rest| rest.lines().next().unwrap_or_default().to_owned());
    fetched.split("* ").filter_map(subject).collect()
}

async fn town() -> Town {
    let town = Town::new(&["ada", "bob", "eve"]);
    for user in ["ada", "bob", "eve"] {
        let mut talk = town.session(user).await;
        talk.ok("CREATE Box").await;
        for number in 1..=3 {
            let arguments = "Box (\\Seen $Own) \"17-Jul-1996 02:44:25 -0700\"";
            assert!(talk.append(arguments, &message(&format!("{user}{number}"), "x")).await.contains("T OK"));
        }
        talk.ok("SETACL Box anyone lrswite").await;
    }
    town
}

#[tokio::test]
async fn messages_are_moved_between_users_and_none_is_lost() {
    let town = town().await;
    let mut bob = town.session("bob").await;
    // Own to another's.
    bob.ok("SELECT Box").await;
    let moved = bob.ok("MOVE 1 \"Other Users/ada/Box\"").await;
    assert!(moved.contains("* OK [COPYUID ") && moved.contains(" 1 4] Moved\r\n") && moved.contains("* 1 EXPUNGE\r\n"), "{moved}");
    assert_eq!(content(&town, "ada", "Box").await, ["ada1", "ada2", "ada3", "bob1"]);
    assert_eq!(content(&town, "bob", "Box").await, ["bob2", "bob3"]);
    // Another's to own.
    bob.ok("SELECT \"Other Users/ada/Box\"").await;
    let moved = bob.ok("UID MOVE 1:2 Box").await;
    assert!(moved.contains(" 1:2 4:5] Moved\r\n") && moved.matches(" EXPUNGE\r\n").count() == 2, "{moved}");
    // One other's to another other's.
    let copied = bob.ok("COPY 1:* \"Other Users/eve/Box\"").await;
    assert!(copied.contains("[COPYUID ") && copied.contains(" 3:4 4:5] Copy completed"), "{copied}");
    assert_eq!(content(&town, "ada", "Box").await, ["ada3", "bob1"]);
    assert_eq!(content(&town, "bob", "Box").await, ["bob2", "bob3", "ada1", "ada2"]);
    assert_eq!(content(&town, "eve", "Box").await, ["eve1", "eve2", "eve3", "ada3", "bob1"]);
    // And in the same one's, where its holder does it.
    assert!(bob.ok("COPY 1 \"Other Users/ada/Box\"").await.contains(" 3 5] Copy completed"));
    // With their flags and dates.
    let mut eve = town.session("eve").await;
    eve.ok("SELECT Box").await;
    let fetched = eve.ok("UID FETCH 4:5 (FLAGS INTERNALDATE)").await;
    assert_eq!(fetched.matches("\\Seen").count(), 2, "{fetched}");
    assert_eq!(fetched.matches("$Own").count(), 2, "{fetched}");
    assert_eq!(fetched.matches("17-Jul-1996 09:44:25 +0000").count(), 2, "{fetched}");
    // What is not there is not copied, and nothing is lost by it.
    bob.ok("SELECT Box").await;
    assert!(bob.ask("MOVE 1 \"Other Users/ada/None\"").await.contains("T NO [TRYCREATE]"));
    assert!(bob.ask("COPY 1 \"Other Users/nobody/None\"").await.contains("T NO [NONEXISTENT]"));
    bob.ok("SELECT \"Other Users/ada/Box\"").await;
    assert!(bob.ask("MOVE 1 None").await.contains("T NO [TRYCREATE]"));
    assert!(bob.ask("COPY 99 Box").await.contains("T BAD"));
    assert_eq!(content(&town, "ada", "Box").await.len(), 3);
    bob.ok("NOOP").await;
}

#[tokio::test]
async fn a_message_that_came_is_told_though_a_copy_to_somebody_elses_has_its_uid() {
    let town = town().await;
    let (mut bob, mut again) = (town.session("bob").await, town.session("bob").await);
    bob.ok("SELECT Box").await;
    bob.ok("NOTIFY SET (selected (MessageNew (uid) MessageExpunge))").await;
    again.append("Box", &message("came", "x")).await;
    let copied = bob.ok("COPY 1 \"Other Users/ada/Box\"").await;
    assert!(copied.contains(" 1 4] Copy completed"), "{copied}");
    assert!(copied.contains("* 4 FETCH (UID 4)\r\n"), "{copied}");
}

#[tokio::test]
async fn a_move_without_the_right_to_remove_copies_nothing() {
    let town = town().await;
    let mut bob = town.session("bob").await;
    for rights in ["lrswit", "lrswie"] {
        town.give("ada", "Box", "anyone", rights).await;
        bob.ok("SELECT \"Other Users/ada/Box\"").await;
        let answer = bob.ask("MOVE 1 Box").await;
        assert!(answer.contains("T NO [NOPERM]"), "{rights}: {answer}");
    }
    town.give("ada", "Box", "anyone", "lrswite").await;
    bob.ok("EXAMINE \"Other Users/ada/Box\"").await;
    assert!(bob.ask("MOVE 1 Box").await.contains("T NO [READ-ONLY]"));
    assert_eq!(content(&town, "bob", "Box").await.len(), 3);
    // Into a mailbox that takes nothing, nothing goes.
    town.give("ada", "Box", "anyone", "lr").await;
    bob.ok("SELECT Box").await;
    assert!(bob.ask("MOVE 1 \"Other Users/ada/Box\"").await.contains("T NO [NOPERM]"));
    assert_eq!((content(&town, "bob", "Box").await.len(), content(&town, "ada", "Box").await.len()), (3, 3));
}

#[tokio::test]
async fn a_large_message_goes_in_pieces() {
    let town = town().await;
    let mut bob = town.session("bob").await;
    let large = message("large", &"0123456789abcdef\r\n".repeat(60_000));
    bob.send(&format!("l APPEND \"Other Users/ada/Box\" {{{}+}}\r\n", large.len())).await;
    bob.send(&large).await;
    bob.send("\r\n").await;
    bob.until("l OK [APPENDUID ").await;
    bob.ok("SELECT \"Other Users/ada/Box\"").await;
    bob.ok("COPY 4 Box").await;
    bob.ok("COPY 4 \"Other Users/eve/Box\"").await;
    for user in ["bob", "eve"] {
        let mut talk = town.session(user).await;
        talk.ok("EXAMINE Box").await;
        let fetched = talk.ok("UID FETCH 4 BODY.PEEK[]").await;
        assert!(fetched.contains(&large), "{user}");
    }
}

#[tokio::test]
async fn limits_hold_between_users() {
    let town = town().await;
    for (from, to) in [("Box", "\"Other Users/ada/Box\""), ("\"Other Users/eve/Box\"", "Box")] {
        town.limit(MessageLimits::new(2, 0));
        let mut bob = town.session("bob").await;
        bob.ok(&format!("SELECT {from}")).await;
        let refused = bob.ask(&format!("UID COPY 1:* {to}")).await;
        assert!(refused.contains("T NO [MESSAGELIMIT 2 2] "), "{refused}");
        let moved = bob.ok(&format!("UID MOVE 1:* {to}")).await;
        assert!(moved.contains("T OK [MESSAGELIMIT 2 2] ") && moved.contains(" 2:3 4:5] Moved\r\n"), "{moved}");
        assert!(bob.ok(&format!("UID MOVE 1 {to}")).await.contains("T OK Move completed"));
        town.limit(MessageLimits::None);
    }
    assert_eq!(content(&town, "ada", "Box").await, ["ada1", "ada2", "ada3", "bob2", "bob3", "bob1"]);
    assert_eq!(content(&town, "bob", "Box").await, ["eve2", "eve3", "eve1"]);
    assert!(content(&town, "eve", "Box").await.is_empty());
    town.limit(MessageLimits::new(0, 2));
    let mut bob = town.session("bob").await;
    bob.ok("SELECT Box").await;
    assert!(bob.ask("COPY 1:3 \"Other Users/ada/Box\"").await.contains("T NO [MESSAGELIMIT 2 "));
    assert!(bob.ok("MOVE 1:3 \"Other Users/ada/Box\"").await.contains("T OK Move completed"));
}

#[tokio::test]
async fn what_a_client_could_not_append_is_copied_all_the_same() {
    let town = town().await;
    let mut bob = town.session("bob").await;
    std::fs::write(town.house("bob").maildir().join("new/1763000000.M1P1.other"), "Subject: grün\r\n\r\nx\r\n").unwrap();
    bob.ok("SELECT INBOX").await;
    let copied = bob.ok("COPY 1 \"Other Users/ada/Box\"").await;
    assert!(copied.contains("[COPYUID "), "{copied}");
    let refused = bob.append("\"Other Users/ada/Box\"", "Subject: grün\r\n\r\nx\r\n").await;
    assert!(refused.contains("T NO [CANNOT] "), "{refused}");
    bob.ok("SELECT \"Other Users/ada/Box\"").await;
    bob.ok("MOVE 4 \"Other Users/eve/Box\"").await;
}

#[tokio::test]
async fn many_messages_are_moved_a_hundred_at_a_time() {
    let town = town().await;
    let mut ada = town.session("ada").await;
    for number in 4..=120 {
        ada.append("Box", &message(&format!("ada{number}"), "x")).await;
    }
    let mut bob = town.session("bob").await;
    bob.ok("SELECT \"Other Users/ada/Box\"").await;
    let moved = bob.ok("MOVE 1:* Box").await;
    // What is to be known of the second hundred is asked when the first is where it should be.
    let first = moved.find(" 1:100 4:103] Moved\r\n").unwrap_or_else(|| panic!("{moved}"));
    assert!(moved[..first].contains("(UID 100 ") && !moved[..first].contains("(UID 101 "), "{moved}");
    assert!(moved[first..].contains("(UID 101 ") && moved.contains(" 101:120 104:123] Moved\r\n"), "{moved}");
    assert_eq!((content(&town, "ada", "Box").await.len(), content(&town, "bob", "Box").await.len()), (0, 123));
}
