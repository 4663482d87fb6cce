//! BINARY (RFC 3516) and APPENDLIMIT (RFC 7889).

use super::*;

const MIXED: &str = "From: ada@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n\
    --b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQ=\r\n\
    --b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: x-uue\r\n\r\nsecret\r\n\
    --b--\r\n";

async fn mixed(house: &House) -> Talk {
    let mut talk = house.session().await;
    talk.append("INBOX", MIXED).await;
    talk.ok("SELECT INBOX").await;
    talk
}

#[tokio::test]
async fn parts_are_sent_without_their_transfer_encoding() {
    let house = House::new();
    let mut talk = mixed(&house).await;
    let answer = talk.ok("FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[1])").await;
    assert_eq!(answer, "* 1 FETCH (BINARY[1] {7}\r\nGrüße BINARY.SIZE[1] 7)\r\nT OK Fetch completed\r\n");
    assert!(talk.ok("FETCH 1 (BINARY.PEEK[1]<2.4>)").await.contains("BINARY[1]<2> {4}\r\nüß)"));
    assert!(talk.ok("FETCH 1 (BINARY.PEEK[1]<70.4>)").await.contains("BINARY[1]<70> {0}\r\n)"));
    talk.send("n FETCH 1 (BINARY.PEEK[2] BINARY.SIZE[2])\r\n").await;
    assert!(talk.bytes_until("n ").await.starts_with(b"* 1 FETCH (BINARY[2] ~{5}\r\n\0\x01\x02\x03\x04 BINARY.SIZE[2] 5)\r\n"));
    assert!(talk.ok("FETCH 1 (BINARY.PEEK[9] BINARY.PEEK[9]<0.1>)").await.contains("(BINARY[9] NIL BINARY[9]<0> NIL)"));
    let (size, sizes) = (MIXED.len(), format!("BINARY.SIZE[] {}", MIXED.len()));
    assert!(talk.ok("FETCH 1 (BINARY.PEEK[] BINARY.SIZE[])").await.contains(&format!("BINARY[] {{{size}}}\r\n{MIXED} {sizes})")));
    assert!(talk.ok("FETCH 1 BINARY.SIZE[]").await.contains(&format!("({sizes})")));
    assert!(!talk.ok("FETCH 1 FLAGS").await.contains("\\Seen"));
    assert!(talk.ok("FETCH 1 BINARY[1]").await.contains("FLAGS (\\Seen"));
}

#[tokio::test]
async fn an_encoding_that_is_not_known_is_said_so() {
    let house = House::new();
    let mut talk = mixed(&house).await;
    assert!(talk.ask("FETCH 1 BINARY.PEEK[3]").await.starts_with("* 1 FETCH (UID 1)\r\nT NO [UNKNOWN-CTE] "));
    let answer = talk.ask("UID FETCH 1 (BINARY.SIZE[3] BINARY.PEEK[1])").await;
    assert!(answer.contains("* 1 FETCH (UID 1 BINARY[1] {7}") && answer.contains("T NO [UNKNOWN-CTE] "), "{answer}");
    for wrong in ["BINARY", "BINARY[TEXT]", "BINARY[1.MIME]", "BINARY[0]", "BINARY.SIZE[1]<0.1>", "BINARY[1.]", "BINARY[1]<1.0>"] {
        assert!(talk.ask(&format!("FETCH 1 ({wrong})")).await.starts_with("T BAD "), "{wrong}");
        talk.ok("NOOP").await;
    }
}

#[tokio::test]
async fn a_binary_literal_is_taken_if_it_is_text() {
    let house = House::new();
    let mut talk = house.session().await;
    let text = message("x", "y");
    let answer = talk.ask(&format!("APPEND INBOX (\\Seen) ~{{{}+}}\r\n{text}", text.len())).await;
    assert!(answer.contains("T OK [APPENDUID "), "{answer}");
    let answer = talk.ask("APPEND INBOX ~{15+}\r\nSubject: x\r\n\r\n\0").await;
    assert!(answer.starts_with("T NO [UNKNOWN-CTE] "), "{answer}");
    assert!(talk.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 1)"));
}

#[tokio::test]
async fn the_largest_message_is_told_for_each_mailbox() {
    let house = House::new();
    let mut talk = house.session().await;
    assert!(talk.ok("STATUS INBOX (APPENDLIMIT MESSAGES)").await.contains("(APPENDLIMIT 10000000 MESSAGES 0)"));
    assert!(talk.ok("LIST \"\" INBOX RETURN (STATUS (APPENDLIMIT))").await.contains("(APPENDLIMIT 10000000)"));
}
