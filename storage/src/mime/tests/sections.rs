use super::*;

/// The message whose sections RFC 9051 §6.4.5.1 numbers.
const NUMBERED: &str = "\
Subject: top
Content-Type: multipart/mixed; boundary=a

preamble
--a
Content-Type: text/plain

one
--a
Content-Type: application/octet-stream

two
--a
Content-Type: message/rfc822

Subject: three
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: text/plain

three one
--c
Content-Type: application/octet-stream

three two
--c--
--a
Content-Type: multipart/mixed; boundary=d

--d
Content-Type: image/gif

four one
--d
Content-Type: message/rfc822

Subject: four two
Content-Type: multipart/mixed; boundary=e

--e
Content-Type: text/plain

four two one
--e
Content-Type: multipart/alternative; boundary=f

--f
Content-Type: text/plain

four two two one
--f
Content-Type: text/richtext

four two two two
--f--
--e--
--d--
--a--
epilogue
";

#[test]
fn parts_are_numbered_as_in_rfc_9051() {
    let get = |name: &str| section(NUMBERED, name).unwrap_or_else(|| panic!("{name}")).replace("\r\n", "\n");
    assert_eq!(get("").replace('\n', "\r\n").into_bytes(), crlf(NUMBERED));
    assert_eq!(get("HEADER"), "Subject: top\nContent-Type: multipart/mixed; boundary=a\n\n");
    assert_eq!(get("HEADER") + &get("TEXT"), get(""));
    assert_eq!(get("1"), "one");
    assert_eq!(get("1.MIME"), "Content-Type: text/plain\n\n");
    assert_eq!(get("2"), "two");
    assert_eq!(get("3.HEADER"), "Subject: three\nContent-Type: multipart/mixed; boundary=c\n\n");
    assert_eq!(get("3.HEADER") + &get("3.TEXT"), get("3"));
    assert_eq!(get("3.MIME"), "Content-Type: message/rfc822\n\n");
    assert!(get("3.TEXT").ends_with("three two\n--c--"), "the line end before a delimiter belongs to the delimiter");
    assert_eq!(get("3.1"), "three one");
    assert_eq!(get("3.2"), "three two");
    assert!(get("4").starts_with("--d\n") && get("4").ends_with("--d--"));
    assert_eq!(get("4.1"), "four one");
    assert_eq!(get("4.1.MIME"), "Content-Type: image/gif\n\n");
    assert_eq!(get("4.2.HEADER"), "Subject: four two\nContent-Type: multipart/mixed; boundary=e\n\n");
    assert_eq!(get("4.2.HEADER") + &get("4.2.TEXT"), get("4.2"));
    assert_eq!(get("4.2.1"), "four two one");
    assert_eq!(get("4.2.2.MIME"), "Content-Type: multipart/alternative; boundary=f\n\n");
    assert_eq!(get("4.2.2.1"), "four two two one");
    assert_eq!(get("4.2.2.2"), "four two two two");
    assert_eq!(get("4.2.2.2.MIME"), "Content-Type: text/richtext\n\n");
}

#[test]
fn what_is_not_there_has_no_section() {
    for name in ["0", "5", "1.1", "3.3", "3.1.1", "4.2.2.3", "1.HEADER", "4.HEADER", "4.TEXT", "4.2.2.HEADER", "MIME", "4294967295"] {
        assert_eq!(section(NUMBERED, name), None, "{name}");
    }
    let part = vec![1; 100_000];
    assert_eq!(Structure::parse(&crlf(NUMBERED)).section(&Section { part, text: SectionText::Whole }), None);
}

#[test]
fn a_message_that_is_no_multipart_is_its_own_part_one() {
    let message = "Subject: x\nContent-Type: text/html\n\nhello\n";
    assert_eq!(section(message, "1").unwrap(), "hello\r\n");
    assert_eq!(section(message, "TEXT").unwrap(), "hello\r\n");
    assert_eq!(section(message, "1.MIME"), section(message, "HEADER"));
    for name in ["2", "1.1", "1.HEADER", "1.TEXT"] {
        assert_eq!(section(message, name), None, "{name}");
    }
}

#[test]
fn a_message_that_is_a_message_has_it_as_part_one() {
    let message = "Content-Type: message/rfc822\n\nSubject: in\nContent-Type: message/rfc822\n\nSubject: deep\n\nbody\n";
    assert_eq!(section(message, "1.HEADER.FIELDS (SUBJECT)").unwrap(), "Subject: in\r\n\r\n");
    assert_eq!(section(message, "1.1.HEADER").unwrap(), "Subject: deep\r\n\r\n");
    assert_eq!(section(message, "1.1.1").unwrap(), "body\r\n");
    assert_eq!(section(message, "1.1.1.1"), None);
    assert_eq!(section(message, "1").unwrap(), section(message, "TEXT").unwrap());
}

#[test]
fn header_fields_are_chosen_by_name_in_the_order_of_the_message() {
    let message = "To: a@b\nFROM : c@d\nX-From: no\nSubject: one\n two\nFrom: e@f\n\nbody\n";
    let fields = |list: &str| section(message, &format!("HEADER.FIELDS{list}")).unwrap().replace("\r\n", "\n");
    assert_eq!(fields(" (From to)"), "To: a@b\nFROM : c@d\nFrom: e@f\n\n");
    assert_eq!(fields(" (subject)"), "Subject: one\n two\n\n");
    assert_eq!(fields(" (X)"), "\n");
    assert_eq!(fields(".NOT (FROM TO)"), "X-From: no\nSubject: one\n two\n\n");
    assert_eq!(fields(".NOT (X)"), section(message, "HEADER").unwrap().replace("\r\n", "\n"));
}

#[test]
fn a_header_without_an_end_still_gives_whole_fields() {
    assert_eq!(section("From: a@b\nSubject: x", "HEADER").unwrap(), "From: a@b\r\nSubject: x");
    assert_eq!(section("From: a@b\nSubject: x", "HEADER.FIELDS (SUBJECT)").unwrap(), "Subject: x\r\n\r\n");
    assert_eq!(section("From: a@b\nSubject: x", "TEXT").unwrap(), "");
    assert_eq!(select_fields(b"", &["a".to_owned()], false), b"\r\n");
    assert_eq!(select_fields(b"A: 1\r\n\r\n A: not a header any more\r\n", &["a".to_owned()], false), b"A: 1\r\n\r\n");
}

#[test]
fn lines_that_are_no_field_are_in_what_is_not_chosen() {
    let message = "From x@y Mon\nSubject: y\ngarbage\n\nbody\n";
    assert_eq!(section(message, "HEADER.FIELDS.NOT (X)"), section(message, "HEADER"));
    assert_eq!(section(message, "HEADER.FIELDS (SUBJECT)").unwrap(), "Subject: y\r\n\r\n");
}

#[test]
fn cached_headers_are_the_named_fields_without_a_blank_line() {
    assert!(CACHED_FIELDS.is_sorted(), "they are searched by bisection");
    let raw = crlf("X-Other: 1\nSUBJECT: a\n b\nFrom: c@d\nReceived: x\nX-Spam-Flag: YES\n\nbody\n");
    let cached = Structure::parse(&raw).cached_headers();
    assert_eq!(text(cached.clone()), "SUBJECT: a\r\n b\r\nFrom: c@d\r\nX-Spam-Flag: YES\r\n");
    let again = Structure::parse(&cached);
    assert_eq!(again.header_values("subject"), ["a b"], "they can be read without the message");
    assert_eq!(again.cached_headers(), cached);
}
