//! What ENABLE IMAP4rev2 (RFC 9051) and ENABLE UTF8=ACCEPT (RFC 6855) change.

use super::*;

async fn rev2(house: &House) -> Talk {
    let mut talk = house.session().await;
    assert_eq!(talk.ok("ENABLE IMAP4REV2 X-GOOD-IDEA").await, "* ENABLED IMAP4rev2\r\nT OK Enabled\r\n");
    talk
}

#[tokio::test]
async fn select_names_the_mailbox_and_has_neither_recent_nor_unseen() {
    let house = House::new();
    let mut talk = rev2(&house).await;
    talk.append("INBOX", &message("a", "b")).await;
    let selected = talk.ok("SELECT INBOX").await;
    assert!(selected.contains("* LIST (\\HasNoChildren) \"/\" INBOX\r\n") && selected.contains("* 1 EXISTS\r\n"), "{selected}");
    assert!(!selected.contains("RECENT") && !selected.contains("[UNSEEN"), "{selected}");
    assert!(selected.contains("[UIDVALIDITY ") && selected.contains("[UIDNEXT 2]") && selected.contains("[PERMANENTFLAGS ("), "{selected}");
    assert_eq!(talk.ok("FETCH 1 FLAGS").await, "* 1 FETCH (FLAGS ())\r\nT OK Fetch completed\r\n");
    assert!(talk.ok("EXAMINE Sent").await.starts_with("* OK [CLOSED] "));
    // A session of IMAP4rev1 beside it counts what is recent, and is not robbed of it.
    let mut other = house.session().await;
    let selected = other.ok("SELECT INBOX").await;
    assert!(selected.contains("* 1 RECENT\r\n") && selected.contains("[UNSEEN 1]") && !selected.contains("* LIST"), "{selected}");
    assert!(other.ok("FETCH 1 FLAGS").await.contains("\\Recent"));
    other.ok("ENABLE IMAP4rev2").await;
    assert_eq!(other.ok("FETCH 1 FLAGS").await, "* 1 FETCH (FLAGS ())\r\nT OK Fetch completed\r\n");
}

#[tokio::test]
async fn a_search_is_answered_by_esearch_unasked() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    assert_eq!(talk.ok("SEARCH ALL").await, "* SEARCH 1 2 3\r\nT OK Search completed\r\n");
    talk.ok("ENABLE IMAP4rev2").await;
    talk.send("A282 SEARCH FLAGGED\r\nA283 UID SEARCH 2:*\r\n").await;
    assert_eq!(talk.until("A282 ").await, "* ESEARCH (TAG \"A282\")\r\nA282 OK Search completed\r\n");
    assert_eq!(talk.until("A283 ").await, "* ESEARCH (TAG \"A283\") UID ALL 2:3\r\nA283 OK Search completed\r\n");
    assert_eq!(talk.ok("SEARCH CHARSET UTF-8 SUBJECT \"s1\"").await.matches("ALL 1\r\n").count(), 1);
    assert_eq!(talk.ok("SEARCH RECENT").await.matches(" ALL ").count(), 0);
}

#[tokio::test]
async fn a_change_that_nobody_asked_about_has_its_uid_and_no_recent_follows_exists() {
    let house = House::new();
    let mut talk = rev2(&house).await;
    talk.append("INBOX", &message("a", "b")).await;
    talk.ok("SELECT INBOX").await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS (\\Flagged)").await;
    other.append("INBOX", &message("c", "d")).await;
    assert_eq!(talk.ok("NOOP").await, "* 2 EXISTS\r\n* 1 FETCH (UID 1 FLAGS (\\Flagged))\r\nT OK Completed\r\n");
    assert!(talk.ok("FETCH 1 BODY[TEXT]").await.contains("* 1 FETCH (UID 1 FLAGS (\\Flagged \\Seen) BODY[TEXT]"));
}

#[tokio::test]
async fn mailbox_names_are_utf8_once_enabled() {
    for capability in ["IMAP4rev2", "UTF8=ACCEPT"] {
        let house = House::new();
        let mut talk = house.session().await;
        assert!(talk.ask("CREATE \"Entwürfe\"").await.starts_with("T NO [CANNOT] "));
        talk.ok("CREATE Entw&APw-rfe").await;
        assert!(talk.ok("LIST \"\" E*").await.contains(" \"/\" Entw&APw-rfe\r\n"));
        talk.ok(&format!("ENABLE {capability}")).await;
        assert!(talk.ok("LIST \"\" \"*ü*\"").await.contains(" \"/\" \"Entwürfe\"\r\n"));
        assert!(talk.ok("STATUS \"Entwürfe\" (MESSAGES)").await.starts_with("* STATUS \"Entwürfe\" (MESSAGES 0)"));
        talk.ok("CREATE R&D").await;
        assert!(talk.ok("LIST \"\" R*").await.contains(" \"/\" \"R&D\"\r\n"));
        assert!(talk.append("\"Entwürfe\"", &message("a", "b")).await.contains("T OK [APPENDUID "));
        assert!(talk.ask("CREATE \"a\u{85}b\"").await.starts_with("T NO [CANNOT] "));
        talk.send("x CREATE \"a").await;
        talk.writer.write_all(b"\xff\"\r\n").await.unwrap();
        assert!(talk.until("x ").await.starts_with("x BAD "));
        let mut old = house.session().await;
        assert!(old.ok("LIST \"\" *").await.contains(" \"/\" R&-D\r\n"));
    }
}

#[tokio::test]
async fn a_name_spelt_otherwise_is_told_with_its_old_name() {
    let house = House::new();
    let mut talk = rev2(&house).await;
    // RFC 9051 §8.
    assert!(talk.ok("SELECT inbox").await.contains("* LIST (\\HasNoChildren) \"/\" INBOX (\"OLDNAME\" (inbox))\r\n"));
    let created = talk.ok("CREATE \"Entwu\u{308}rfe\"").await;
    let line = "* LIST (\\HasNoChildren) \"/\" \"Entwürfe\" (\"OLDNAME\" (\"Entwu\u{308}rfe\"))\r\nT OK [MAILBOXID (";
    assert!(created.starts_with(line), "{created}");
    let renamed = talk.ok("RENAME \"Entwu\u{308}rfe\" \"Neu\"").await;
    assert_eq!(renamed, "* LIST (\\HasNoChildren) \"/\" Neu (\"OLDNAME\" (\"Entwu\u{308}rfe\"))\r\nT OK Rename completed\r\n");
    assert_eq!(talk.ok("RENAME Neu Alt").await, "T OK Rename completed\r\n");
    assert!(talk.append("InBox", &message("a", "b")).await.starts_with("* LIST (\\HasNoChildren) \"/\" INBOX (\"OLDNAME\" (InBox))\r\n"));
}

#[tokio::test]
async fn a_level_without_a_mailbox_does_not_exist() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("CREATE a/b").await;
    talk.ok("DELETE a").await;
    assert!(talk.ok("LIST \"\" a").await.contains("(\\NoSelect \\HasChildren)"));
    talk.ok("ENABLE IMAP4rev2").await;
    assert!(talk.ok("LIST \"\" a").await.contains("(\\NonExistent \\HasChildren)"));
    assert!(talk.ask("DELETE a").await.starts_with("T NO [HASCHILDREN] "));
}

#[tokio::test]
async fn the_keywords_of_the_standard_are_kept() {
    let house = House::new();
    let mut talk = rev2(&house).await;
    let keywords = "$Forwarded $MDNSent $Junk $NotJunk $Phishing";
    talk.append(&format!("INBOX ({keywords})"), &message("a", "b")).await;
    talk.ok("SELECT INBOX").await;
    talk.ok("COPY 1 Sent").await;
    talk.ok("SELECT Sent").await;
    let flags = talk.ok("FETCH 1 FLAGS").await;
    for keyword in keywords.split(' ') {
        assert!(flags.contains(keyword), "{keyword}: {flags}");
        assert!(talk.ok(&format!("SEARCH KEYWORD {keyword}")).await.contains(" ALL 1\r\n"));
    }
}

#[tokio::test]
async fn headers_beyond_ascii_are_taken_once_enabled() {
    let house = House::new();
    let mut talk = house.session().await;
    let text = "Subject: Grüße\r\n\r\nÄ\r\n";
    let append = |data: String| format!("APPEND INBOX {data}");
    let plain = append(format!("{{{}+}}\r\n{text}", text.len()));
    let utf8 = append(format!("(\\Seen) UTF8 (~{{{}+}}\r\n{text})", text.len()));
    for command in [&plain, &utf8] {
        let answer = talk.ask(command).await;
        assert!(answer.starts_with("T NO [CANNOT] "), "{answer}");
    }
    assert!(talk.append("INBOX", "Subject: x\r\n\r\nÄ\r\n").await.contains("T OK"));
    talk.ok("ENABLE UTF8=ACCEPT").await;
    assert!(talk.ok(&plain).await.contains("[APPENDUID ") && talk.ok(&utf8).await.contains("[APPENDUID "));
    talk.ok("SELECT INBOX").await;
    assert!(
        talk.ok("FETCH 3 (FLAGS BODY.PEEK[])").await.contains(&format!("(FLAGS (\\Seen \\Recent) BODY[] {{{}}}\r\n{text})", text.len()))
    );
    assert!(talk.ok("SEARCH SUBJECT \"grüße\"").await.contains("* SEARCH 2 3\r\n"));
    assert!(talk.ask("SEARCH CHARSET UTF-8 SUBJECT \"grüße\"").await.starts_with("T BAD "));

    let mut lenient = house.session_with(Settings { refuse_8bit_headers: false, ..settings() }).await;
    assert!(lenient.ok(&plain).await.contains("[APPENDUID "));
}

#[tokio::test]
async fn commands_sent_ahead_are_answered_in_order_and_numbers_stay_while_they_are_in_use() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    // RFC 9051 §5.5: the numbers of FETCH and STORE go with the view in which they are run.
    talk.send("a FETCH 2 UID\r\nb STORE 3 +FLAGS (\\Seen)\r\nc UID FETCH 3 UID\r\nd FETCH 2 UID\r\n").await;
    let (a, b) = (talk.until("a ").await, talk.until("b ").await);
    assert!(a.starts_with("* 2 FETCH (UID 2)") && !a.contains("EXPUNGE") && !b.contains("EXPUNGE"), "{a}{b}");
    let c = talk.until("c ").await;
    assert!(c.contains("* 1 EXPUNGE\r\n"), "{c}");
    assert!(talk.until("d ").await.starts_with("* 2 FETCH (UID 3)"));
}
