//! The messages: short mail, mail with HTML beside text, and mail with an attachment, the same for every server.

use std::fmt::Write;

/// The word that one message in `RARE` has in its body, for SEARCH.
pub const NEEDLE: &str = "zanzibar";
const RARE: usize = 50;

/// Message number `number`, about 4 KiB; every eighth has an attachment of some 20 KiB.
pub fn message(number: usize) -> Vec<u8> {
    let mut text = String::new();
    let (name, minute, second) = (["Ada", "Brunel", "Curie", "Darwin"][number % 4], number / 60 % 60, number % 60);
    let _ = write!(
        text,
        "Return-Path: <{name}@bench.example>\r\nReceived: from mx.bench.example by mail.example with ESMTP id {number:08x};\r\n\t\
         Fri, 21 Nov 2025 10:{minute:02}:{second:02} +0000\r\nFrom: \"{name} Example\" <{name}@bench.example>\r\n\
         To: user@example.org, \"Second, Person\" <second@example.org>\r\nCc: list@example.org\r\nSubject: Report {number} on {}\r\n\
         Date: Fri, 21 Nov 2025 10:{minute:02}:{second:02} +0000\r\nMessage-ID: <{number}.bench@bench.example>\r\n\
         References: <{}.bench@bench.example>\r\nX-Mailer: Bench 1\r\nMIME-Version: 1.0\r\n",
        ["ships", "engines", "radium", "finches"][number % 4],
        number.saturating_sub(1),
    );
    let needle = if number.is_multiple_of(RARE) { NEEDLE } else { "nothing" };
    let words = "The quick brown fox jumps over the lazy dog, and then it rests a while in the shade.\r\n";
    if number.is_multiple_of(8) {
        text += "Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n";
        let _ = write!(text, "{needle}\r\n{}", words.repeat(20));
        text += "--outer\r\nContent-Type: application/pdf; name=report.pdf\r\nContent-Disposition: attachment; filename=report.pdf\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\n";
        text += &format!("{}\r\n", "QmVydGggaXMgYSBtYWlsIHNlcnZlci4gQmVydGggaXMgYSBtYWlsIHNlcnZlci4g".repeat(1)).repeat(300);
        text += "--outer--\r\n";
    } else if number.is_multiple_of(3) {
        text += "Content-Type: multipart/alternative; boundary=inner\r\n\r\n--inner\r\nContent-Type: text/plain\r\n\r\n";
        let _ = write!(text, "{needle}\r\n{}--inner\r\nContent-Type: text/html\r\n\r\n<p>{}</p>\r\n--inner--\r\n", words.repeat(18), words.repeat(18));
    } else {
        let _ = write!(text, "Content-Type: text/plain; charset=us-ascii\r\n\r\n{needle}\r\n{}", words.repeat(36));
    }
    text.into_bytes()
}

/// A large message of `bytes`.
pub fn large(bytes: usize) -> Vec<u8> {
    let mut text = String::from("From: a@bench.example\r\nSubject: large\r\n\r\n");
    while text.len() < bytes {
        text += "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/\r\n";
    }
    text.into_bytes()
}

/// As LMTP's DATA carries it: no line of these messages begins with a dot.
pub fn data(mut message: Vec<u8>) -> Vec<u8> {
    message.extend_from_slice(b".\r\n");
    message
}

#[cfg(test)]
mod tests_of_corpus {
    use super::*;

    #[test]
    fn messages_end_with_a_line_and_have_no_dots_at_the_start_of_lines() {
        for number in 0..24 {
            let text = String::from_utf8(message(number)).unwrap();
            assert!(text.ends_with("\r\n") && !text.contains("\n.") && text.len() > 2_000);
        }
    }
}
