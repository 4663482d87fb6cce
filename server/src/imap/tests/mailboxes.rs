//! SELECT, LIST, STATUS and what makes and removes mailboxes.

mod separator;

use super::*;

#[tokio::test]
async fn select_shows_what_a_client_needs_to_begin() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    talk.ok("STORE 1 +FLAGS (\\Seen $Label1)").await;
    let answer = talk.ok("SELECT INBOX").await;
    for part in [
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Label1)\r\n",
        "[PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Label1 \\*)]",
        "* 2 EXISTS\r\n",
        "* 0 RECENT\r\n",
        "* OK [UNSEEN 2]",
        "* OK [UIDVALIDITY ",
        "* OK [UIDNEXT 3]",
        "* OK [HIGHESTMODSEQ ",
        "T OK [READ-WRITE]",
    ] {
        assert!(answer.contains(part), "{part} is missing: {answer}");
    }
}

#[tokio::test]
async fn a_failed_select_leaves_nothing_selected() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    assert!(talk.ask("SELECT Missing").await.contains("\r\nT NO [NONEXISTENT]"));
    assert!(talk.ask("FETCH 1 FLAGS").await.starts_with("T BAD "));
}

#[tokio::test]
async fn examine_changes_nothing() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    assert!(talk.ok("EXAMINE INBOX").await.contains("[PERMANENTFLAGS ()]"));
    for command in ["STORE 1 +FLAGS (\\Seen)", "EXPUNGE", "MOVE 1 Sent"] {
        assert!(talk.ask(command).await.starts_with("T NO [READ-ONLY]"), "{command}");
    }
    talk.ok("FETCH 1 BODY[]").await;
    assert!(talk.ok("FETCH 1 FLAGS").await.contains("FLAGS (\\Recent)") || talk.ok("FETCH 1 FLAGS").await.contains("FLAGS ()"));
}

#[tokio::test]
async fn one_session_has_the_recent_messages() {
    let house = House::new();
    let mut writer = house.session().await;
    writer.append("INBOX", &message("a", "x")).await;
    let mut looker = house.session().await;
    assert!(looker.ok("EXAMINE INBOX").await.contains("* 1 RECENT"));
    let mut first = house.session().await;
    assert!(first.ok("SELECT INBOX").await.contains("* 1 RECENT"));
    let mut second = house.session().await;
    assert!(second.ok("SELECT INBOX").await.contains("* 0 RECENT"));
    assert!(first.ok("FETCH 1 FLAGS").await.contains("\\Recent"));
    assert!(!second.ok("FETCH 1 FLAGS").await.contains("\\Recent"));
}

#[tokio::test]
async fn list_shows_hierarchy_and_special_use() {
    let house = House::new();
    let mut talk = house.session().await;
    assert_eq!(talk.ok("LIST \"\" \"\"").await, "* LIST (\\NoSelect) \"/\" \"\"\r\nT OK List completed\r\n");
    talk.ok("CREATE Archive/2026").await;
    talk.ok("CREATE \"Old Drafts\" (USE (\\Drafts))").await;
    let all = talk.ok("LIST \"\" *").await;
    assert!(all.contains("\\HasChildren) \"/\" Archive\r\n") && all.contains("* LIST (\\HasNoChildren) \"/\" Archive/2026\r\n"), "{all}");
    assert!(all.contains("\\Sent) \"/\" Sent\r\n") && all.contains("\\Drafts) \"/\" \"Old Drafts\"\r\n"), "{all}");
    assert!(all.contains("\"/\" INBOX\r\n"), "{all}");
    let special = talk.ok("LIST (SPECIAL-USE) \"\" *").await;
    assert_eq!(special.matches("* LIST").count(), 2, "{special}");
    assert!(talk.ok("LIST \"\" inbox").await.contains("\"/\" INBOX\r\n"));
}

#[tokio::test]
async fn list_gives_the_status_with_each_mailbox() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    let answer = talk.ok("LIST \"\" % RETURN (SUBSCRIBED STATUS (MESSAGES UNSEEN SIZE))").await;
    assert!(answer.contains("* STATUS INBOX (MESSAGES 2 UNSEEN 2 SIZE "), "{answer}");
    assert!(answer.contains("* STATUS Sent (MESSAGES 0 UNSEEN 0 SIZE 0)\r\n"), "{answer}");
}

#[tokio::test]
async fn status_counts_without_selecting() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    talk.ok("STORE 2 +FLAGS (\\Seen)").await;
    talk.ok("UNSELECT").await;
    let answer = talk.ok("STATUS inbox (UNSEEN MESSAGES UIDNEXT)").await;
    assert!(answer.starts_with("* STATUS INBOX (UNSEEN 2 MESSAGES 3 UIDNEXT 4)\r\n"), "{answer}");
    assert!(talk.ask("STATUS Missing (MESSAGES)").await.starts_with("T NO [NONEXISTENT]"));
}

#[tokio::test]
async fn subscriptions_outlive_their_mailboxes() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("CREATE a/b").await;
    talk.ok("SUBSCRIBE a/b").await;
    assert!(talk.ok("LSUB \"\" *").await.contains("* LSUB () \"/\" a/b\r\n"));
    assert!(talk.ok("LSUB \"\" %").await.contains("* LSUB (\\NoSelect) \"/\" a\r\n"));
    talk.ok("DELETE a/b").await;
    assert!(talk.ok("LSUB \"\" *").await.contains(" a/b\r\n"));
    talk.ok("UNSUBSCRIBE a/b").await;
    assert!(!talk.ok("LSUB \"\" *").await.contains(" a/b\r\n"));
}

#[tokio::test]
async fn mailboxes_are_made_renamed_and_deleted_with_clear_errors() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("CREATE Work").await;
    assert!(talk.ask("CREATE Work").await.starts_with("T NO [ALREADYEXISTS]"));
    talk.ok("RENAME Work Play").await;
    assert!(talk.ask("RENAME Work Again").await.starts_with("T NO [NONEXISTENT]"));
    assert!(talk.ask("DELETE INBOX").await.starts_with("T NO [CANNOT]"));
    talk.ok("DELETE Play").await;
    assert!(talk.ask("DELETE Play").await.starts_with("T NO [NONEXISTENT]"));
}

#[tokio::test]
async fn names_in_any_script_travel_as_modified_utf_7() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("CREATE \"Entw&APw-rfe\"").await;
    assert!(talk.ok("LIST \"\" Entw*").await.contains("\"/\" Entw&APw-rfe\r\n"));
    talk.ok("SELECT Entw&APw-rfe").await;
}

#[tokio::test]
async fn deleting_the_selected_mailbox_leaves_the_session_usable() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("CREATE Work").await;
    talk.ok("SELECT Work").await;
    talk.ok("DELETE Work").await;
    assert!(talk.ask("FETCH 1 FLAGS").await.starts_with("T BAD "));
    talk.ok("SELECT INBOX").await;
}
