//! COMPRESS=DEFLATE, RFC 4978.

use crate::deflate::Deflated;

use super::*;

#[tokio::test]
async fn everything_after_compress_is_compressed() {
    let house = House::new();
    let mut talk = house.session().await;
    assert!(talk.ask("COMPRESS LZW").await.starts_with("T BAD "));
    assert_eq!(talk.ok("COMPRESS deflate").await, "T OK DEFLATE active\r\n");
    assert!(talk.read.is_empty());
    let mut inside = Deflated::new(talk.reader.unsplit(talk.writer), BytesMut::new());
    let text = message("zip", &"the same line again\r\n".repeat(5_000));
    let said = format!(
        "a APPEND INBOX {{{}+}}\r\n{text}\r\nb COMPRESS DEFLATE\r\nc SELECT INBOX\r\nd FETCH 1 BODY.PEEK[]\r\ne LOGOUT\r\n",
        text.len()
    );
    let mut heard = String::new();
    within(async {
        inside.write_all(said.as_bytes()).await.unwrap();
        inside.flush().await.unwrap();
        inside.read_to_string(&mut heard).await.unwrap();
    })
    .await;
    assert!(heard.starts_with("a OK [APPENDUID ") && heard.contains("\r\nb NO [COMPRESSIONACTIVE] "), "{heard}");
    assert!(heard.contains(&format!("BODY[] {{{}}}\r\n{text})\r\nd OK", text.len())));
    assert!(heard.ends_with("* BYE Logging out\r\ne OK Logout completed\r\n"), "{heard}");
    assert!(matches!(within(talk.task).await.unwrap(), Left::Ended(end) if end == End::logout()));
}

#[tokio::test]
async fn what_is_no_deflate_ends_the_session() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("COMPRESS DEFLATE").await;
    talk.send("\u{7ff}\u{7ff}a NOOP\r\n").await;
    let (_, end) = talk.rest().await;
    assert_ne!(end, End::logout());
}
