//! PREVIEW, RFC 8970, and SNIPPET.

use super::*;

#[tokio::test]
async fn previews_are_told_and_lazy_ones_where_they_are_there() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    assert_eq!(talk.ok("FETCH 1 (PREVIEW)").await, "* 1 FETCH (PREVIEW \"body 1\")\r\nT OK Fetch completed\r\n");
    let size = message("s1", "body 1").len();
    let answer = talk.ok("UID FETCH 1:2 (RFC822.SIZE PREVIEW (LAZY) FLAGS)").await;
    assert!(answer.starts_with(&format!("* 1 FETCH (UID 1 RFC822.SIZE {size} PREVIEW \"body 1\" FLAGS (")), "{answer}");
    let text = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\u{fc}\u{df}e\r\n";
    talk.append("INBOX", text).await;
    talk.append("INBOX", "Subject: empty\r\n\r\n").await;
    talk.ok("NOOP").await;
    let answer = talk.ok("FETCH 3:4 PREVIEW (LAZY)").await;
    assert!(answer.starts_with("* 3 FETCH (PREVIEW {7}\r\nGr\u{fc}\u{df}e)\r\n* 4 FETCH (PREVIEW \"\")\r\n"), "{answer}");
    // What is copied keeps it, what another program brings has it once somebody asked in earnest.
    talk.ok("COPY 3 Sent").await;
    talk.ok("SELECT Sent").await;
    assert!(talk.ok("FETCH 1 PREVIEW (LAZY)").await.contains("Gr\u{fc}\u{df}e"));
    assert!(talk.ok("FETCH 1 PREVIEW").await.contains("Gr\u{fc}\u{df}e"));
    assert!(!talk.ok("FETCH 1 FLAGS").await.contains("\\Seen"), "a preview is no reading");
    for bad in ["FETCH 1 PREVIEW ()", "FETCH 1 (PREVIEW (EAGER))", "FETCH 1 (PREVIEW (LAZY)"] {
        assert!(talk.ask(bad).await.starts_with("T BAD "), "{bad}");
    }
}

/// The shapes are those that Dovecot 2.3.19 gives.
#[tokio::test]
async fn old_clients_are_told_snippets() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    for asked in ["SNIPPET", "(SNIPPET)", "(SNIPPET (FUZZY))", "(SNIPPET (LAZY=FUZZY FUZZY))", "SNIPPET (LAZY=FUZZY)"] {
        let answer = talk.ok(&format!("FETCH 1 {asked}")).await;
        assert_eq!(answer, "* 1 FETCH (SNIPPET (FUZZY \"body 1\"))\r\nT OK Fetch completed\r\n", "{asked}");
    }
    let answer = talk.ok("FETCH 2 (UID SNIPPET (LAZY=FUZZY) PREVIEW FLAGS)").await;
    assert!(answer.starts_with("* 2 FETCH (UID 2 SNIPPET (FUZZY \"body 2\") PREVIEW \"body 2\" FLAGS ("), "{answer}");
    for bad in [
        "FETCH 1 SNIPPET ()",
        "FETCH 1 (SNIPPET (LAZY))",
        "FETCH 1 (SNIPPET (LAZY=SHARP))",
        "FETCH 1 (SNIPPET (FUZZY)",
        "FETCH 1 SNIPPET (SHARP)",
    ] {
        assert!(talk.ask(bad).await.starts_with("T BAD "), "{bad}");
    }
}
