//! CATENATE (RFC 4469) and URL-PARTIAL.

use super::*;

const DRAFT: &str = "Subject: draft\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\nContent-Type: application/x-zip-compressed\r\n\r\nold zip\r\n--b--\r\n";

/// Drafts with the draft as UID 1, and an attachment as UID 2.
async fn drafts(house: &House) -> (Talk, String) {
    let mut talk = house.session().await;
    talk.ok("CREATE Drafts").await;
    let appended = talk.append("Drafts", DRAFT).await;
    let validity = appended.split("APPENDUID ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    talk.append("Drafts", "Content-Type: application/x-zip\r\n\r\nnew zip").await;
    (talk, validity)
}

fn text(text: &str) -> String {
    format!("TEXT {{{}+}}\r\n{text}", text.len())
}

#[tokio::test]
async fn an_attachment_is_replaced_without_a_download() {
    let house = House::new();
    let (mut talk, validity) = drafts(&house).await;
    // The RFC's first example.
    let url = |rest: &str| format!("URL \"/Drafts;UIDVALIDITY={validity}/;UID={rest}\"");
    let parts = [
        url("1/;section=HEADER"),
        text("--b\r\n"),
        url("1/;section=1.MIME"),
        url("1/;section=1"),
        text("\r\n--b\r\n"),
        url("2"),
        text("\r\n--b--\r\n"),
    ];
    let answer = talk.ok(&format!("APPEND Drafts (\\Seen \\Draft $MDNSent) CATENATE ({})", parts.join(" "))).await;
    assert!(answer.contains(" 3] "), "{answer}");
    talk.ok("SELECT Drafts").await;
    let whole =
        DRAFT.replace("Content-Type: application/x-zip-compressed\r\n\r\nold zip", "Content-Type: application/x-zip\r\n\r\nnew zip");
    let answer = talk.ok("UID FETCH 1:3 (FLAGS BODY.PEEK[])").await;
    assert!(answer.contains(&format!("BODY[] {{{}}}\r\n{whole})", whole.len())) && answer.contains("$MDNSent"), "{answer}");
    assert!(!talk.ok("UID FETCH 1:2 FLAGS").await.contains("\\Seen"), "what is read this way is not seen");
}

#[tokio::test]
async fn urls_alone_parts_of_parts_and_several_messages_make_messages() {
    let house = House::new();
    let (mut talk, _) = drafts(&house).await;
    let header = "URL /Drafts/;UID=1/;SECTION=HEADER";
    let answer = talk
        .ok(&format!("APPEND INBOX CATENATE ({header}) (\\Flagged) CATENATE ({header} URL /Drafts/;UID=1/;SECTION=1/;PARTIAL=1.3)"))
        .await;
    assert!(answer.contains(" 1:2] "), "{answer}");
    // Relative to the selected mailbox, and as the message of REPLACE.
    talk.ok("SELECT Drafts").await;
    let answer = talk.ok("UID REPLACE 2 Drafts CATENATE (URL ;UID=2 URL \"/;UID=2/;SECTION=TEXT/;PARTIAL=3\")").await;
    assert!(answer.contains("[APPENDUID ") && answer.contains("* 2 EXPUNGE"), "{answer}");
    assert!(talk.ok("UID FETCH 3 BODY[TEXT]").await.contains(" {11}\r\nnew zip zip)"));
    talk.ok("SELECT INBOX").await;
    assert!(talk.ok("FETCH 2 (FLAGS BODY.PEEK[TEXT])").await.contains("\\Flagged \\Recent) BODY[TEXT] {3}\r\nell)"));
}

#[tokio::test]
async fn a_url_that_names_nothing_is_told_and_nothing_is_stored() {
    let house = House::new();
    let (mut talk, validity) = drafts(&house).await;
    let other: u32 = validity.parse::<u32>().unwrap() + 1;
    for bad in [
        "/Drafts/;UID=9".to_owned(),
        "/Nowhere/;UID=1".to_owned(),
        "/Drafts/;UID=1/;section=1.5.9".to_owned(),
        format!("/Drafts;UIDVALIDITY={other}/;UID=1"),
        "imap://example.org/Drafts/;UID=1".to_owned(),
        ";UID=1".to_owned(),
        "rubbish".to_owned(),
    ] {
        let answer = talk.ask(&format!("APPEND INBOX CATENATE ({} URL \"{bad}\" {})", text("Subject: x\r\n\r\n"), text("y"))).await;
        assert!(answer.starts_with(&format!("T NO [BADURL {bad}] ")), "{bad}: {answer}");
        let answer = talk.ask(&format!("APPEND INBOX CATENATE (URL \"{bad}\")")).await;
        assert!(answer.starts_with(&format!("T NO [BADURL {bad}] ")), "{bad}: {answer}");
    }
    for empty in ["CATENATE (TEXT {0+}\r\n)", "CATENATE (URL /Drafts/;UID=2/;PARTIAL=4000)"] {
        assert!(talk.ask(&format!("APPEND INBOX {empty}")).await.starts_with("T NO [CANNOT] "), "{empty}");
    }
    assert!(talk.ask("APPEND INBOX CATENATE ()").await.starts_with("T BAD "));
    assert!(talk.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 0)"));

    let mut small = house.session_with(Settings { message_bytes: 250, ..settings() }).await;
    let twice = "APPEND INBOX CATENATE (URL /Drafts/;UID=1 URL /Drafts/;UID=1)";
    assert!(small.ask(twice).await.starts_with("T NO [TOOBIG] "));
    assert!(
        small.ask(&format!("APPEND INBOX CATENATE (URL /Drafts/;UID=1 {})", text(&"x".repeat(200)))).await.starts_with("T NO [TOOBIG] ")
    );
    assert!(small.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 0)"));
}
