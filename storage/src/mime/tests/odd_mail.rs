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
