use proptest::prelude::*;

use super::*;

fn surrogate_in(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut surrogate, mut out) = (Surrogate::default(), Vec::new());
    for piece in pieces {
        surrogate.write(piece, &mut out);
        assert!(surrogate.held.len() <= FIELD_BYTES_MAX + piece.len() && surrogate.boundaries.len() <= DEPTH_MAX);
        assert!(surrogate.mime.len() <= 2 * FIELD_BYTES_MAX + piece.len());
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
    // A type that can't be said in ASCII is none, for what follows as well.
    assert_eq!(surrogate("Content-Type: é/x; boundary=b\r\n\r\n--b\r\nSubject: é\r\n"), "\r\n--b\r\nSubject: é\r\n");
    let endless =
        format!("Content-Type: multipart/x; boundary=b\r\n\r\n--b--{}\r\n--b\r\nSubject: é\r\n", "x".repeat(BOUNDARY_LINE_BYTES_MAX));
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
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\r\n").into_bytes())
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
    fn pieces_change_nothing(message in lines(true)) {
        let single: Vec<&[u8]> = message.chunks(1).collect();
        prop_assert_eq!(surrogate_in(&single), surrogate_in(&[&message]));
    }
}
