use super::{body, body_structure};

/// BODYSTRUCTURE of a message of 25 bytes and 3 line ends, with these MIME fields.
fn leaf(fields: &str) -> String {
    body_structure(&format!("{fields}\n\nSubject: in\n\nbody\nline"))
}

#[test]
fn the_example_of_rfc_9051_is_a_known_answer() {
    let text = format!("{}\n", "x".repeat(46)).repeat(23) + &"x".repeat(1152 - 23 * 48);
    let diff = format!("{}\n", "QUJD".repeat(15)).repeat(73) + &"x".repeat(4554 - 73 * 62);
    let message = format!(
        "\
Content-Type: MULTIPART/MIXED; BOUNDARY=x

--x
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII
Content-Transfer-Encoding: 7BIT

{text}
--x
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME=cc.diff
Content-ID: <960723163407.20117h@cac.washington.edu>
Content-Description: Compiler diff
Content-Transfer-Encoding: BASE64

{diff}
--x--
"
    );
    assert_eq!(
        body(&message),
        r#"(("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 1152 23)("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME" "cc.diff") "<960723163407.20117h@cac.washington.edu>" "Compiler diff" "BASE64" 4554 73) "MIXED")"#
    );
    assert!(body_structure(&message).ends_with(r#"4554 73 NIL NIL NIL NIL) "MIXED" ("BOUNDARY" "x") NIL NIL NIL)"#));
}

#[test]
fn a_message_without_mime_is_plain_text() {
    assert_eq!(body("Subject: x\n\nhello\n"), r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 7 1)"#);
    assert_eq!(body("no header at all\n"), r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 18 1)"#);
    assert_eq!(body(""), r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)"#);
}

#[test]
fn every_field_of_a_part_has_its_place() {
    assert_eq!(
        leaf(
            "Content-Type: image/png; name=\"a b.png\"\nContent-Transfer-Encoding: base64\nContent-ID: <x@y>\nContent-Description: a =?utf-8?q?=C3=A4?=\n\
             Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\nContent-Disposition: attachment; filename=\"a b.png\"; size=12\nContent-Language: en, de (x)\nContent-Location: http://x/"
        ),
        r#"("image" "png" ("name" "a b.png") "<x@y>" "a =?utf-8?q?=C3=A4?=" "base64" 25 "Q2hlY2sgSW50ZWdyaXR5IQ==" ("attachment" ("filename" "a b.png" "size" "12")) ("en" "de") "http://x/")"#
    );
    assert_eq!(
        leaf(
            "Content-Type: multipart/mixed; boundary=b\nContent-Disposition: inline\nContent-Language: fr\nContent-Location: y\n\n--b\n\nx\n--b--"
        ),
        r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL) "mixed" ("boundary" "b") ("inline" NIL) ("fr") "y")"#
    );
}

#[test]
fn parameters_stay_as_they_are_written() {
    let parameters = |value: &str| {
        let structure = leaf(&format!("Content-Type: application/x{value}"));
        let rest = structure.strip_prefix(r#"("application" "x" "#).unwrap();
        rest.strip_suffix(r#" NIL NIL "7bit" 25 NIL NIL NIL NIL)"#).unwrap().to_owned()
    };
    assert_eq!(parameters(""), "NIL");
    assert_eq!(
        parameters("; title*0*=us-ascii'en'This%20is; title*1*=%2A%2A;\n title*2=\"isn't it!\""),
        r#"("title*0*" "us-ascii'en'This%20is" "title*1*" "%2A%2A" "title*2" "isn't it!")"#,
        "RFC 2231 §4.1"
    );
    assert_eq!(parameters(r#"; a="x\"y\\z"; b=c"#), r#"("a" "x\"y\\z" "b" "c")"#);
    assert_eq!(parameters(" (c) ; (d) a (e) = (f) b (g);;; c=d;"), r#"("a" "b" "c" "d")"#);
    assert_eq!(parameters("; name=annual report.pdf; b"), r#"("name" "annual report.pdf")"#);
    assert_eq!(parameters("; access-type=mail-server server=\"a@b\"; c=d"), r#"("access-type" "mail-server" "c" "d")"#);
    assert_eq!(parameters("; a; =x; b=; c=\"\"; d=\"unterminated; e=f"), r#"("b" "" "c" "" "d" "unterminated; e=f")"#);
    assert_eq!(parameters("; a=\"b\n  c\"d; e=f"), r#"("a" "b  c" "e" "f")"#);
    assert_eq!(parameters("; a=M\u{fc}ll"), "(\"a\" {5}\r\nM\u{c3}\u{bc}ll)");
}

#[test]
fn a_text_without_a_charset_is_ascii() {
    assert!(leaf("Content-Type: text/x").starts_with(r#"("text" "x" ("charset" "us-ascii") "#));
    assert!(leaf("Content-Type: text/x; a=b").starts_with(r#"("text" "x" ("a" "b" "charset" "us-ascii") "#));
    assert!(leaf("Content-Type: text/x; CHARSET*=''utf-8").starts_with(r#"("text" "x" ("CHARSET*" "''utf-8") "#));
}

#[test]
fn a_content_type_that_can_not_be_read_is_plain_text() {
    for broken in ["", "/", "text", "text/", "foo", "; charset=x"] {
        let structure = leaf(&format!("Content-Type: {broken}"));
        assert_eq!(structure, r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 25 3 NIL NIL NIL NIL)"#, "{broken:?}");
    }
}

#[test]
fn a_transfer_encoding_is_one_word() {
    for (value, shown) in [("x-uuencode", "x-uuencode"), ("(c) BASE64 (d)", "BASE64"), ("base64 base64", "7bit"), ("", "7bit")] {
        assert!(leaf(&format!("Content-Transfer-Encoding: {value}")).contains(&format!("NIL NIL \"{shown}\" 25")), "{value:?}");
    }
}

#[test]
fn a_message_in_a_part_shows_its_envelope_and_body() {
    for name in ["rfc822", "GLOBAL"] {
        assert_eq!(
            leaf(&format!("Content-Type: message/{name}")),
            format!(
                r#"("message" "{name}" NIL NIL NIL "7bit" 25 (NIL "in" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 10 1 NIL NIL NIL NIL) 3 NIL NIL NIL NIL)"#
            )
        );
    }
    assert_eq!(leaf("Content-Type: message/partial; id=x"), r#"("message" "partial" ("id" "x") NIL NIL "7bit" 25 NIL NIL NIL NIL)"#);
}

#[test]
fn a_digest_holds_messages() {
    let structure =
        body("Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: d\n\nx\n--b\nContent-Type: text/plain\n\ny\n--b--\n");
    assert_eq!(
        structure,
        r#"(("message" "rfc822" NIL NIL NIL "7bit" 15 (NIL "d" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0) 2)("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0) "digest")"#
    );
}

#[test]
fn an_encoded_message_is_no_message() {
    let structure = leaf("Content-Type: message/rfc822; name=x\nContent-Transfer-Encoding: base64");
    assert_eq!(structure, r#"("application" "octet-stream" ("name" "x") NIL NIL "base64" 25 NIL NIL NIL NIL)"#);
    let in_digest = |fields: &str| body(&format!("Content-Type: multipart/digest; boundary=b\n\n--b\n{fields}\n\nQQ==\n--b--\n"));
    assert_eq!(
        in_digest("Content-Transfer-Encoding: base64"),
        r#"(("application" "octet-stream" NIL NIL NIL "base64" 4) "digest")"#,
        "a message by default"
    );
    let text = r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "base64" 4 0) "digest")"#;
    assert_eq!(in_digest("Content-Type: ?\nContent-Transfer-Encoding: base64"), text, "it says something else, if nothing readable");
}

#[test]
fn a_multipart_without_parts_is_plain_text() {
    for fields in ["multipart/mixed", "multipart/mixed; boundary=\"\"", "multipart/mixed; boundary=absent", "multipart/mixed; boundary=in"]
    {
        let structure = leaf(&format!("Content-Type: {fields}"));
        assert_eq!(structure, r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 25 3 NIL NIL NIL NIL)"#, "{fields:?}");
    }
    assert!(body("Content-Type: multipart/mixed; boundary=b\n\n--b--\n").starts_with(r#"("text" "plain""#));
}
