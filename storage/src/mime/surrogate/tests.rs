use proptest::prelude::*;

use super::{
    super::{fields::fields, find::find_parts, structure::Part},
    *,
};

fn surrogate_in(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut surrogate, mut out) = (Surrogate::default(), Vec::new());
    for piece in pieces {
        surrogate.write(piece, &mut out);
        assert!(surrogate.held.len() <= FIELD_BYTES_MAX + piece.len() && surrogate.boundaries.len() <= DEPTH_MAX);
        assert!(surrogate.content_type.len() + surrogate.transfer_encoding.len() <= 8 * FIELD_BYTES_MAX);
    }
    surrogate.finish(&mut out);
    out
}

fn surrogate(message: &str) -> String {
    String::from_utf8(surrogate_in(&[message.as_bytes()])).unwrap()
}

#[test]
fn addresses_beyond_ascii_are_shown_and_can_not_be_answered_to() {
    let said = surrogate(
        "Return-Path: <josé@exämple.com>\r\nFrom: \"José\" <josé@example.com>\r\nTo: Zoë <zoe@example.com>, bob@example.com,\r\n Team: 日本@例え.jp, \"a b\"@x.org;\r\n\
         Cc: bob@example.com\r\nBcc: brøken\r\n\r\n",
    );
    assert_eq!(
        said,
        "Return-Path: <invalid@internationalized-address.invalid>\r\n\
         From: =?UTF-8?B?Sm9zw6kgPGpvc8OpQGV4YW1wbGUuY29tPg==?=\r\n <invalid@internationalized-address.invalid>\r\n\
         To: =?UTF-8?B?Wm/Dqw==?=\r\n <zoe@example.com>,\r\n <bob@example.com>,\r\n Team:\r\n =?UTF-8?B?POaXpeacrEDkvovjgYguanA+?=\r\n \
         <invalid@internationalized-address.invalid>,\r\n <\"a b\"@x.org>;\r\n\
         Cc: bob@example.com\r\nBcc: =?UTF-8?B?YnLDuGtlbg==?=\r\n <invalid@internationalized-address.invalid>\r\n\r\n"
    );
}

#[test]
fn texts_are_encoded_and_what_can_not_be_said_in_ascii_is_left_out() {
    let long = "ä".repeat(30);
    let said = surrogate(&format!(
        "Subject: Grüße =?UTF-8?Q?=C3=BC?=\r\n folded\r\nX-Long: {long}\r\nMessage-ID: <ü@x>\r\nReceived: from ü\r\nDate: today\r\nX-Ü: x\r\n\r\nGrüße\r\n"
    ));
    assert_eq!(
        said,
        "Subject: =?UTF-8?B?R3LDvMOfZSDDvCBmb2xkZWQ=?=\r\n\
         X-Long: =?UTF-8?B?w6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOk?=\r\n =?UTF-8?B?w6TDpMOkw6TDpMOkw6TDpMOk?=\r\n\
         Date: today\r\n\r\nGrüße\r\n"
    );
    assert_eq!(
        surrogate(
            "Date: Fri, 21 Nov 1997 09:55:06 +0100\r\n (Mitteleuropäische (\"\\)Zeit))\r\nReferences: <a@b> (ä) <\"(ä\"@b>\r\n\
             Message-ID: <a@b> (ä\r\nMIME-Version: (ä) 1.0\r\nContent-Transfer-Encoding: (ä) 8bit (b)\r\nX: (ä)\r\nList-Id: (ä)\r\n\r\n"
        ),
        "Date: Fri, 21 Nov 1997 09:55:06 +0100\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    );
    // RFC 2047 §2: 76 characters.
    let said = surrogate(&format!("Subject: {}\r\nContent-Description: {}\r\n", "ä".repeat(90), "ö".repeat(30)));
    assert!(said.starts_with("Subject:\r\n =?") && said.lines().all(|line| line.len() <= 76), "{said}");
    // Bytes of no declared charset are what they are for everybody else here.
    assert_eq!(surrogate_in(&[b"Subject: caf\xe9\r\n\r\n\xe9"]), b"Subject: =?UTF-8?B?Y2Fmw6k=?=\r\n\r\n\xe9");
}

#[test]
fn names_of_attachments_stay_in_parts_and_in_messages_inside() {
    let said = surrogate(
        "Content-Type: multipart/mixed; boundary=\"b b\"\r\n\r\nprä\r\n--b bc\r\nSubject: ä\r\n--b b\r\nContent-Disposition: attachment; filename=\"é 1.pdf\"; size=3\r\n\
         \r\nx: ä\r\n--b b \r\nContent-Type: message/global\r\n\r\nSubject: é\r\n\r\nä\r\n--b b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         Subject: é\r\n--b b--\r\nSubject: ä\r\n",
    );
    assert_eq!(
        said,
        "Content-Type: multipart/mixed; boundary=\"b b\"\r\n\r\nprä\r\n--b bc\r\nSubject: ä\r\n--b b\r\nContent-Disposition: attachment;\r\n filename*=UTF-8''%C3%A9%201.pdf;\r\n \
         size=3\r\n\r\nx: ä\r\n--b b \r\nContent-Type: message/global\r\n\r\nSubject: =?UTF-8?B?w6k=?=\r\n\r\nä\r\n--b b\r\nContent-Type: message/rfc822\r\n\
         Content-Transfer-Encoding: base64\r\n\r\nSubject: é\r\n--b b--\r\nSubject: ä\r\n"
    );
    // A type that can't be said in ASCII goes by another name, and what follows is what it was.
    assert_eq!(
        surrogate("Content-Type: é/x; boundary=b\r\n\r\n--b\r\nSubject: é\r\n"),
        "Content-Type: application/octet-stream;\r\n boundary=b\r\n\r\n--b\r\nSubject: é\r\n"
    );
    assert_eq!(
        surrogate("Content-Type: multipart/é; boundary=é\r\n\r\n--é\r\nSubject: é\r\n"),
        "Content-Type: multipart/mixed;\r\n boundary*=UTF-8''%C3%A9\r\n\r\n--é\r\nSubject: =?UTF-8?B?w6k=?=\r\n"
    );
    let endless = format!("Content-Type: multipart/x; boundary=b\r\n\r\n--b-{}\r\n--b\r\nSubject: é\r\n", "x".repeat(DELIMITER_BYTES_MAX));
    assert_eq!(surrogate(&endless), endless.replacen('é', "=?UTF-8?B?w6k=?=", 1));
    let digest = "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: é\r\n\r\né\r\n--b--\r\n";
    assert_eq!(surrogate(digest), digest.replacen('é', "=?UTF-8?B?w6k=?=", 1));
    let name = "日".repeat(80);
    let said = surrogate(&format!("Content-Type: text/plain; name=\"{name}\"\r\n\r\n"));
    assert!(said.starts_with("Content-Type: text/plain;\r\n name*0*=UTF-8''%E6%97%A5") && said.contains(";\r\n name*14*="), "{said}");
}

#[test]
fn what_is_no_header_is_left_as_it_is() {
    for message in ["Grüße ohne Kopf\r\n\r\nSubject: ä\r\n", "\r\nä", "ä", "", "From ada@x Mon Sep 10:00:00 2026\r\nSubject: a\r\n\r\nä"]
    {
        assert_eq!(surrogate(message), message);
    }
    let long = format!("X: ä{}\r\n ö\r\nSubject: a\r\n\r\nä", "x".repeat(FIELD_BYTES_MAX));
    assert_eq!(surrogate(&long), long.replacen('ä', "??", 1).replacen('ö', "??", 1));
}

#[test]
fn a_long_header_takes_little_memory() {
    let (mut surrogate, mut out) = (Surrogate::default(), Vec::new());
    for piece in std::iter::repeat_n(b"Content-Type: a/b\r\nContent-Transfer-Encoding: 7bit\r\n", 20_000) {
        surrogate.write(piece, &mut out);
        let held = [&surrogate.held, &surrogate.content_type, &surrogate.transfer_encoding].map(Vec::capacity);
        assert!(held.iter().sum::<usize>() < 1000, "{held:?}");
        out.clear();
    }
}

#[test]
fn long_lines_and_depth_are_judged_as_where_parts_are_found() {
    let long = "x".repeat(2 * FIELD_BYTES_MAX);
    let deep = |depth: usize| {
        (0..depth).map(|n| format!("Content-Type: multipart/x; boundary=b{n}\r\n\r\n--b{n}\r\n")).collect::<String>()
            + "Subject: \u{e9}\r\n\r\n\u{e9}"
    };
    let part = "Content-Type: multipart/x; boundary=b\r\n\r\n--b";
    for message in [
        format!("{part} {long}\r\nSubject: é\r\n\r\né"),
        format!("{part} words é\r\nA: b\r\n--b words é"),
        format!("{part}\r\n--b {long}\r\nSubject: é\r\n"),
        format!("{part}\r\n--x{long}: é\r\nSubject: é\r\n"),
        format!("Content-Type: multipart/x; boundary=b; x={long}\r\n\r\n--b\r\nSubject: é\r\n\r\n"),
        format!("{part}\r\nContent-Type: message/rfc822\r\n\r\nGrüße\r\nohne Kopf\r\n--b\r\nSubject: é\r\n"),
        format!("{part}\r\nContent-Type: message/rfc822\r\n\r\nGrüße\r\nSubject: é\r\n--b\r\nSubject: é\r\n"),
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\nContent-Type: ?\r\n\r\nSubject: é\r\n\r\né".to_owned(),
        format!("Subject: é{long}\r\nX: é\r\n\r\né"),
        format!("{long}: é\r\nX: é\r\n\r\né"),
        deep(DEPTH_MAX - 2),
        deep(DEPTH_MAX - 1),
        deep(DEPTH_MAX + 1),
        "Content-Type: message/rfc822\r\n\r\n".repeat(DEPTH_MAX + 1) + "Subject: é\r\n\r\né",
    ] {
        let message = message.as_bytes();
        let made = surrogate_in(&[message]);
        assert_same_parts(message, &made);
        for size in [1, 7, 5000] {
            assert!(surrogate_in(&message.chunks(size).collect::<Vec<_>>()) == made, "pieces of {size}");
        }
    }
    // Text that only looks as if it were in a header stays.
    let said = surrogate(&format!("{part}\r\nContent-Type: message/rfc822\r\n\r\nGrüße\r\nohne Kopf\r\n--b--\r\n"));
    assert!(said.contains("\r\nGrüße\r\nohne Kopf\r\n"), "{said}");
    let unreadable = "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\nContent-Type: ?\r\n\r\nSubject: é\r\n";
    assert_eq!(surrogate(unreadable), unreadable);
}

/// The same parts in both, and no field beyond ASCII in those of the surrogate.
fn assert_same_parts(message: &[u8], made: &[u8]) {
    let parts = find_parts(made);
    let kinds = |parts: &[Part]| parts.iter().map(|part| part.kind.clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&parts), kinds(&find_parts(message)), "{}", String::from_utf8_lossy(made));
    let is_field = |name: &[u8]| name.len() < FIELD_BYTES_MAX && name.iter().all(u8::is_ascii_graphic);
    for part in &parts {
        for field in fields(&made[part.header.clone()]).filter(|field| is_field(field.name)) {
            assert!(field.raw.is_ascii(), "{:?} in {}", String::from_utf8_lossy(field.raw), String::from_utf8_lossy(made));
        }
    }
}

/// Lines that headers, boundaries and bodies are made of.
fn lines(beyond: bool) -> impl Strategy<Value = Vec<u8>> {
    let ascii = prop::sample::select(vec![
        "Subject: a",
        "From: \"x\\\"\" <a@b>, c: d@e, f;",
        " folded",
        "Content-Type: multipart/mixed; boundary=b",
        "Content-Type: message/rfc822",
        "Content-Type: multipart/digest; boundary=\"c\"",
        "",
        "--b",
        "--b--",
        "--c",
        "--b words",
        "--c--words",
        "Content-Type: ?",
        "Content-Transfer-Encoding: base64",
        "--",
        "no field",
        "x",
    ]);
    let more = prop::sample::select(vec![
        "Subject: é",
        "To: é@é, \"é\" <a@b>, é:;",
        "Content-Disposition: a; filename=é; é=x; b=\"é\"",
        "é: x",
        " é",
        "é",
        "Cc: <é",
        "X-A: \u{1f600}",
        "Keywords: =?UTF-8?Q?=0D=0A?= é",
    ]);
    let line = if beyond { prop_oneof![ascii, more].boxed() } else { ascii.boxed() };
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.join("\r\n").into_bytes())
}

proptest! {
    #[test]
    fn a_message_with_ascii_headers_is_its_own_surrogate(message in lines(false)) {
        prop_assert_eq!(surrogate_in(&[&message]), message);
    }

    #[test]
    fn any_surrogate_has_ascii_headers(mut message in lines(true), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        for (at, byte) in changes {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
            }
        }
        let made = surrogate_in(&[&[b"Date: x\r\nA: b\r\n", message.as_slice()].concat()]);
        let end = made.windows(3).position(|bytes| bytes == b"\n\r\n" || bytes.starts_with(b"\n\n")).unwrap_or(made.len());
        prop_assert!(made[..end].is_ascii(), "{}", String::from_utf8_lossy(&made));
        prop_assert_eq!(surrogate_in(&[&made]), made, "its headers, and those of its parts, are ASCII");
    }

    #[test]
    fn a_surrogate_has_the_parts_of_its_message(message in lines(true)) {
        let message = [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", message.as_slice(), b"\r\n\r\nend"].concat();
        assert_same_parts(&message, &surrogate_in(&[&message]));
    }

    #[test]
    fn pieces_change_nothing(message in lines(true)) {
        let single: Vec<&[u8]> = message.chunks(1).collect();
        prop_assert_eq!(surrogate_in(&single), surrogate_in(&[&message]));
    }
}
