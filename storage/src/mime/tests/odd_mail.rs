//! What other servers and parsers were found to read in different ways.

use super::*;

const TOP: &str = "Content-Type: multipart/mixed; boundary=b\n\n";

fn parts(message: &str) -> Vec<String> {
    (1..).map_while(|number| section(message, &number.to_string())).collect()
}

#[test]
fn a_delimiter_is_a_line_of_its_own() {
    assert_eq!(parts(&format!("{TOP}--b\n\nx --b\n> --b\n --b\n--bx\ny\n--b--\n")), ["x --b\r\n> --b\r\n --b\r\n--bx\r\ny"]);
    assert_eq!(parts(&format!("{TOP}--b  \n\nx\n--b\t\n\ny\n--b-- \n")), ["x", "y"]);
}

#[test]
fn a_boundary_may_begin_another() {
    let message = format!("{TOP}--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\nx\n--bb--\n--b\n\ny\n--b--\n");
    assert_eq!(parts(&message), ["--bb\r\n\r\nx\r\n--bb--", "y"]);
    assert_eq!(section(&message, "1.1").unwrap(), "x");
}

#[test]
fn an_outer_delimiter_ends_what_is_inside() {
    let message = format!("{TOP}--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\n--b\n\ny\n--b--\n");
    assert_eq!(section(&message, "1.1").unwrap(), "x");
    assert_eq!(section(&message, "2").unwrap(), "y");
    assert_eq!(section(&message, "3"), None);
}

#[test]
fn the_last_part_may_end_with_the_message() {
    assert_eq!(parts(&format!("{TOP}--b\n\nx\n--b\n\ny\n")), ["x", "y\r\n"]);
    assert_eq!(parts(&format!("{TOP}--b\n\nx\n--b--")), ["x"]);
    assert_eq!(parts(&format!("{TOP}--b\n\nx\n--b--\nepilogue\n--b\nnone\n")), ["x"]);
}

#[test]
fn parts_may_be_empty() {
    assert_eq!(parts(&format!("{TOP}--b\n\n--b\n\n\n--b\nContent-Type: text/plain\n--b--\n")), ["", "", ""]);
}

#[test]
fn a_message_without_header_fields_is_a_message_of_text() {
    let message = format!("{TOP}--b\nContent-Type: message/rfc822\n\n--b\nContent-Type: message/rfc822\n\nno field\n--b--\n");
    assert_eq!(section(&message, "2.1").unwrap(), "no field");
    assert_eq!(section(&message, "2.HEADER").unwrap(), "");
    assert_eq!(section(&message, "2.TEXT").unwrap(), "no field");
    let text = |size| format!(r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" {size} 0)"#);
    let message_of =
        |size| format!(r#"("message" "rfc822" NIL NIL NIL "7bit" {size} (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) {} 0)"#, text(size));
    assert_eq!(body(&message), format!(r#"({}{} "mixed")"#, message_of(0), message_of(8)));
}

#[test]
fn eight_bit_mail_keeps_its_bytes() {
    let raw = b"Subject: \xe4\r\nContent-Type: text/plain; charset=\xff\r\n\r\n\xfc\r\n";
    let structure = Structure::parse(raw);
    assert_eq!(structure.envelope(), b"(NIL {1}\r\n\xe4 NIL NIL NIL NIL NIL NIL NIL NIL)");
    assert_eq!(structure.body_structure(false), b"(\"text\" \"plain\" (\"charset\" {1}\r\n\xff) NIL NIL \"7bit\" 3 1)");
    assert_eq!(structure.section(&section_name("1")), Some(Found::Range(raw.len() - 3..raw.len())));
}

#[test]
fn lines_may_end_with_lf_alone() {
    let raw = b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n";
    let structure = Structure::parse(raw);
    assert_eq!(structure.header_values("subject"), ["x"]);
    assert_eq!(structure.decoded_part(&[1]).unwrap().unwrap(), b"one".as_slice());
}

#[test]
fn a_boundary_within_a_line_is_text_even_where_no_delimiter_is() {
    assert_eq!(parts(&format!("{TOP}--b\n\n> --b\nsecond --b--\n")), ["> --b\r\nsecond --b--\r\n"]);
    assert_eq!(parts(&format!("{TOP}junk --b\n\nx\n--b--\n")), ["junk --b\r\n\r\nx\r\n--b--\r\n"]);
}

#[test]
fn a_header_ends_with_its_empty_line_and_not_with_one_of_spaces() {
    let message = " \nSubject: x\n \t\n\nbody\n";
    assert_eq!(section(message, "HEADER").unwrap(), " \r\nSubject: x\r\n \t\r\n\r\n");
    assert_eq!(section(message, "TEXT").unwrap(), "body\r\n");
    let part = format!("{TOP}--b\n \nContent-Type: text/html\n\nx\n--b--\n");
    assert!(body(&part).starts_with(r#"(("text" "html" "#));
}

#[test]
fn the_header_of_a_message_is_as_long_alone_as_with_the_rest() {
    for (message, header) in [
        ("A: b\r\n\r\nbody\r\n", 8),
        ("\r\nbody\r\n", 2),
        (" \r\nA: b\r\n\r\n", 11),
        ("no field\r\n\r\nbody", 12),
        ("no field\r\nat all\r\n", 0),
        ("A: b\r\nwithout end", 17),
        ("", 0),
    ] {
        assert_eq!(header_length(message.as_bytes()), header, "{message:?}");
        let whole = Structure::parse(message.as_bytes());
        assert_eq!(whole.section(&section_name("HEADER")), Some(Found::Range(0..header)), "{message:?}");
    }
}

#[test]
fn a_message_whose_header_a_delimiter_cuts_off_is_one_without_text() {
    let message = format!("{TOP}--b\nContent-Type: message/rfc822\n--b\n\nx\n--b--\n");
    assert_eq!(section(&message, "1.HEADER").unwrap(), "");
    assert_eq!(section(&message, "1.TEXT").unwrap(), "");
    assert!(body(&message).starts_with(r#"(("message" "rfc822" "#));
}

#[test]
fn a_delimiter_at_the_very_end_opens_no_part() {
    assert_eq!(parts(&format!("{TOP}--b\n\nx\n--b\n")), ["x"]);
}

#[test]
fn a_boundary_may_be_cut_up_or_encoded() {
    for boundary in
        ["boundary*=us-ascii'en'a%20b", "boundary*0=a; boundary*1=\" b\"", "boundary*0*=''a%20; boundary*1=b", "boundary=\"a\n b\""]
    {
        let message = format!("Content-Type: multipart/mixed; {boundary}\n\n--a b\n\nx\n--a b--\n");
        assert_eq!(parts(&message), ["x"], "{boundary}");
    }
}

#[test]
fn a_broken_type_in_a_digest_is_text_and_none_is_a_message() {
    let top = "Content-Type: multipart/digest; boundary=b\n\n";
    let message = format!("{top}--b\n\nSubject: x\n\ny\n--b\nContent-Type: ?\n\nz\n--b--\n");
    assert_eq!(section(&message, "1.HEADER").unwrap(), "Subject: x\r\n\r\n");
    assert_eq!(section(&message, "2.HEADER"), None);
}
