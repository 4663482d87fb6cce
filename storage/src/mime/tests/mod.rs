//! Tests of the whole module: known answers, odd messages, hostile ones.

mod decoding;
mod envelopes;
mod generated;
mod hostile;
mod odd_mail;
mod previews;
mod sections;
mod structures;

use super::*;

/// With CRLF line ends, as messages always come here.
fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn envelope(message: &str) -> String {
    text(Structure::parse(&crlf(message)).envelope())
}

fn body_structure(message: &str) -> String {
    text(Structure::parse(&crlf(message)).body_structure(true))
}

fn body(message: &str) -> String {
    text(Structure::parse(&crlf(message)).body_structure(false))
}

/// `section(message, "1.2.MIME")`.
fn section(message: &str, name: &str) -> Option<String> {
    let raw = crlf(message);
    Some(match Structure::parse(&raw).section(&section_name(name))? {
        Found::Range(range) => text(raw[range].to_vec()),
        Found::Owned(bytes) => text(bytes),
    })
}

fn section_name(name: &str) -> Section {
    let (mut part, mut rest) = (Vec::new(), name);
    while let Ok(number) = rest.split('.').next().unwrap_or_default().parse() {
        part.push(number);
        rest = rest.split_once('.').map_or("", |(_, rest)| rest);
    }
    let names = |list: &str| list.trim_matches([' ', '(', ')']).split(' ').map(str::to_owned).collect();
    let text = match rest {
        "" => SectionText::Whole,
        "HEADER" => SectionText::Header,
        "TEXT" => SectionText::Text,
        "MIME" => SectionText::Mime,
        _ => match rest.strip_prefix("HEADER.FIELDS.NOT") {
            Some(list) => SectionText::HeaderFieldsNot(names(list)),
            None => SectionText::HeaderFields(names(rest.strip_prefix("HEADER.FIELDS").unwrap())),
        },
    };
    Section { part, text }
}

fn text(bytes: Vec<u8>) -> String {
    bytes.into_iter().map(char::from).collect() // Latin-1: every byte can be seen
}

/// A value of IMAP's data grammar.
#[derive(Debug, PartialEq)]
enum Value {
    Nil,
    Number(u64),
    Text(Vec<u8>),
    List(Vec<Value>),
}

impl Value {
    fn list(&self) -> &[Value] {
        match self {
            Value::List(values) => values,
            other => panic!("no list: {other:?}"),
        }
    }
}

/// Reads an answer as a strict client would.
fn read_value(answer: &[u8]) -> Value {
    let mut open: Vec<Vec<Value>> = vec![Vec::new()];
    let mut rest = answer;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let value = match first {
            b'(' => {
                open.push(Vec::new());
                continue;
            }
            b' ' => {
                assert!(!open.last().unwrap().is_empty() && !after.is_empty() && !matches!(after[0], b' ' | b')'), "stray space");
                continue;
            }
            b')' => Value::List(open.pop().unwrap()),
            b'"' => {
                let mut text = Vec::new();
                loop {
                    let (byte, after) = rest.split_first().expect("a quoted string ends");
                    rest = after;
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            assert!(matches!(rest[0], b'"' | b'\\'), "needless escape");
                            text.push(rest[0]);
                            rest = &rest[1..];
                        }
                        byte => {
                            assert!(matches!(byte, b'\t' | b' '..=b'~'), "{byte} in a quoted string");
                            text.push(*byte);
                        }
                    }
                }
                Value::Text(text)
            }
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').expect("a literal's size ends");
                let size: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
                rest = rest[end..].strip_prefix(b"}\r\n").expect("a literal's size is a line");
                let (content, after) = rest.split_at(size);
                assert!(!content.contains(&0), "NUL in a literal");
                rest = after;
                Value::Text(content.to_vec())
            }
            b'N' => {
                rest = rest.strip_prefix(b"IL").expect("NIL");
                Value::Nil
            }
            b'0'..=b'9' => {
                let digits = 1 + rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = &answer[answer.len() - rest.len() - 1..][..digits];
                rest = &rest[digits - 1..];
                Value::Number(std::str::from_utf8(number).unwrap().parse().unwrap())
            }
            other => panic!("{} in an answer", char::from(*other)),
        };
        open.last_mut().expect("as many ) as (").push(value);
    }
    let mut values = open.pop().unwrap();
    assert!(open.is_empty() && values.len() == 1, "one value");
    values.remove(0)
}

/// RFC 9051 §9: what `envelope` produces.
fn check_envelope(value: &Value) {
    let fields = value.list();
    assert_eq!(fields.len(), 10);
    for position in [0, 1, 8, 9] {
        assert!(matches!(fields[position], Value::Nil | Value::Text(_)));
    }
    for list in &fields[2..8] {
        assert!(*list == Value::Nil || !list.list().is_empty(), "an empty list is NIL");
        for address in if *list == Value::Nil { &[] } else { list.list() } {
            assert_eq!(address.list().len(), 4);
            assert!(address.list().iter().all(|part| matches!(part, Value::Nil | Value::Text(_))));
        }
    }
}

/// RFC 9051 §9: what `body` produces, with or without extension data.
fn check_body(value: &Value, extended: bool) {
    let fields = value.list();
    let parts = fields.iter().take_while(|field| matches!(field, Value::List(_))).count();
    if parts > 0 {
        fields[..parts].iter().for_each(|part| check_body(part, extended));
        assert!(matches!(fields[parts], Value::Text(_)));
        assert_eq!(fields.len(), parts + if extended { 5 } else { 1 });
        return;
    }
    let word = |position: usize| match &fields[position] {
        Value::Text(text) => text.to_ascii_lowercase(),
        other => panic!("no string: {other:?}"),
    };
    let parameters = if fields[2] == Value::Nil { &[] } else { fields[2].list() };
    assert!(parameters.len() % 2 == 0 && parameters.iter().all(|parameter| matches!(parameter, Value::Text(_))));
    word(5);
    assert!(matches!(fields[6], Value::Number(_)));
    let basic = match (word(0).as_slice(), word(1).as_slice()) {
        (b"text", _) => 8,
        (b"message", b"rfc822" | b"global") => {
            check_envelope(&fields[7]);
            check_body(&fields[8], extended);
            10
        }
        (b"multipart", _) => panic!("a multipart without parts"),
        _ => 7,
    };
    assert!(fields[7..basic].iter().filter(|field| matches!(field, Value::Number(_))).count() == usize::from(basic > 7));
    assert_eq!(fields.len(), basic + if extended { 4 } else { 0 });
}
