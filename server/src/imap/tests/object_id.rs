//! OBJECTID, RFC 8474.

use super::*;

/// What stands between `before` and the next `)`.
fn id_after<'a>(answer: &'a str, before: &str) -> &'a str {
    let (_, rest) = answer.split_once(before).unwrap_or_else(|| panic!("no {before} in {answer}"));
    let id = &rest[..rest.find(')').unwrap()];
    assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{answer}");
    id
}

#[tokio::test]
async fn a_mailbox_has_one_id_in_create_select_status_and_list() {
    let house = House::new();
    let mut talk = house.session().await;
    let created = talk.ok("CREATE foo").await;
    let foo = id_after(&created, "T OK [MAILBOXID (").to_owned();
    let bar = id_after(&talk.ok("CREATE bar").await, "T OK [MAILBOXID (").to_owned();
    assert_ne!(foo, bar);
    assert!(talk.ask("CREATE foo").await.starts_with("T NO [ALREADYEXISTS]"));
    for verb in ["SELECT", "EXAMINE"] {
        let selected = talk.ok(&format!("{verb} foo")).await;
        assert!(selected.contains(&format!("\r\n* OK [MAILBOXID ({foo})] ")), "{selected}");
    }
    assert_eq!(talk.ok("STATUS foo (mailboxid)").await, format!("* STATUS foo (MAILBOXID ({foo}))\r\nT OK Status completed\r\n"));
    talk.ok("RENAME foo renamed").await;
    let listed = talk.ok("LIST \"\" * RETURN (STATUS (MESSAGES MAILBOXID))").await;
    assert!(listed.contains(&format!("* STATUS renamed (MESSAGES 0 MAILBOXID ({foo}))\r\n")), "{listed}");
    assert!(listed.contains(&format!("* STATUS bar (MESSAGES 0 MAILBOXID ({bar}))\r\n")), "{listed}");
    assert_eq!(listed.matches("MAILBOXID (F").count(), 4, "INBOX and Sent too: {listed}");
    // RENAME INBOX makes a new mailbox and moves the messages (RFC 8474 §8.2).
    let inbox = id_after(&talk.ok("STATUS INBOX (MAILBOXID)").await, "MAILBOXID (").to_owned();
    talk.ok("RENAME INBOX archive").await;
    assert_eq!(id_after(&talk.ok("STATUS INBOX (MAILBOXID)").await, "MAILBOXID ("), inbox);
    assert_ne!(id_after(&talk.ok("STATUS archive (MAILBOXID)").await, "MAILBOXID ("), inbox);
}

#[tokio::test]
async fn a_message_has_one_id_in_every_mailbox_and_is_found_by_it() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let fetched = talk.ok("FETCH 1:3 (EMAILID THREADID)").await;
    let ids: Vec<&str> = fetched.match_indices("EMAILID (").map(|(at, before)| id_after(&fetched[at..], before)).collect();
    assert_eq!(ids.len(), 3);
    let (first, second) = (ids[0], ids[1]);
    assert!(fetched.starts_with(&format!("* 1 FETCH (EMAILID ({first}) THREADID NIL)\r\n")) && first != second, "{fetched}");
    talk.ok("MOVE 2 Sent").await;
    talk.ok("COPY 1 Sent").await;
    let left = talk.ok("UID FETCH 1:* EMAILID").await;
    assert!(left.contains(&format!("* 1 FETCH (UID 1 EMAILID ({first}))\r\n")) && !left.contains(second), "{left}");
    talk.ok("SELECT Sent").await;
    let there = talk.ok("FETCH 1:2 EMAILID").await;
    assert!(there.starts_with(&format!("* 1 FETCH (EMAILID ({second}))\r\n* 2 FETCH (EMAILID ({first}))\r\n")), "{there}");
    for (keys, found) in [
        (format!("EMAILID {first}"), " 2"),
        (format!("OR EMAILID {first} EMAILID {second}"), " 1 2"),
        (format!("NOT EMAILID {first}"), " 1"),
        (format!("EMAILID {}", first.to_uppercase()), ""),
        ("EMAILID M6d99ac3275bb4e".to_owned(), ""),
        ("THREADID T64b478a75b7ea9".to_owned(), ""),
        (format!("THREADID {first}"), ""),
    ] {
        let answer = talk.ok(&format!("SEARCH {keys}")).await;
        assert!(answer.starts_with(&format!("* SEARCH{found}\r\n")), "{keys}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_object_id_is_refused() {
    let house = House::new();
    let mut talk = house.session_with(Settings { bad_commands: 100, ..settings() }).await;
    talk.ok("SELECT INBOX").await;
    let long = "x".repeat(256);
    for bad in [
        "SEARCH EMAILID",
        "SEARCH EMAILID (M1)",
        "SEARCH EMAILID \"M1\"",
        &format!("SEARCH THREADID {long}"),
        "STATUS INBOX (MAILBOXID (x))",
        "FETCH 1 (EMAILID (x))",
    ] {
        assert!(talk.ask(bad).await.starts_with("T BAD "), "{bad}");
    }
    talk.ok(&format!("SEARCH EMAILID {}", &long[..255])).await;
}
