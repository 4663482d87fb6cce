//! One header field in ASCII (RFC 6858 §2): addresses, parameters, texts; others that are not ASCII are left out.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::super::{
    address::{self, Address},
    decode::words,
    fields::{Field, fields},
    structure::{Parameters, parse_parameters},
    tokens::{is_atom, is_token},
};

/// Stands where an address beyond ASCII was (RFC 6858 §2.1): nobody can answer to it, and the name before it says whose it is.
const NO_ADDRESS: &str = "<invalid@internationalized-address.invalid>";
/// Bytes of text in one encoded-word: RFC 2047 §2 allows 75 characters with all that is around it.
const WORD_BYTES: usize = 42;
/// Characters of one piece of a parameter: with name and number, lines stay below 78 (RFC 2045 §2.10).
const PIECE_BYTES: usize = 50;
/// Longest line that is printed: RFC 5322 §2.1.1.
const LINE_BYTES_MAX: usize = 998;

const ADDRESSES: &[&str] = &[
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "resent-from",
    "resent-sender",
    "resent-reply-to",
    "resent-to",
    "resent-cc",
    "resent-bcc",
    "disposition-notification-to",
    "mail-followup-to",
    "mail-reply-to",
    "errors-to",
];
const TEXTS: &[&str] = &["subject", "comments", "keywords", "content-description", "organization", "thread-topic"];

/// The name of a line that begins a field.
pub(super) fn name(raw: &[u8]) -> Option<&[u8]> {
    fields(raw).next().map(|field| field.name).filter(|name| name.iter().all(u8::is_ascii_graphic))
}

/// Whether the field says what follows its header.
pub(super) fn is_mime(raw: &[u8]) -> bool {
    fields(raw).next().is_some_and(|field| field.is("Content-Type") || field.is("Content-Transfer-Encoding"))
}

/// Writes in ASCII a field that is not.
pub(super) fn write(raw: &[u8], out: &mut Vec<u8>) {
    let Some(field) = fields(raw).next() else {
        // Not a field, in the middle of a header.
        out.extend(raw.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }));
        return;
    };
    let Ok(name) = str::from_utf8(field.name) else { return };
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return;
    }
    let is_one_of = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
    let value = if field.is("Return-Path") {
        NO_ADDRESS.to_owned()
    } else if is_one_of(ADDRESSES) {
        addresses(&field)
    } else if is_one_of(&["Content-Type", "Content-Disposition"]) {
        let Some(value) = parameters(&field) else { return };
        value
    } else if is_one_of(TEXTS) || name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-")) {
        encoded(&words(field.value))
    } else {
        // RFC 6858 §2.4: what can't be presented is removed.
        return;
    };
    let line = format!("{name}: {value}\r\n");
    // Something that mail programs could take for another thing is worse than nothing.
    if line.is_ascii() && line.split("\r\n").all(|line| line.len() <= LINE_BYTES_MAX) {
        out.extend_from_slice(line.as_bytes());
    }
}

/// Encoded-words (RFC 2047 §2), one on each line.
fn encoded(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = (1..=WORD_BYTES.min(rest.len())).rev().find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        words.push(format!("=?UTF-8?B?{}?=", STANDARD.encode(piece)));
        rest = after;
    }
    words.join("\r\n ")
}

fn addresses(field: &Field<'_>) -> String {
    let mut list = Vec::new();
    address::parse(field.value, &mut list);
    if list.is_empty() || list.iter().any(Address::is_broken) {
        return format!("{}\r\n {NO_ADDRESS}", encoded(&words(field.value)));
    }
    let mut printed = String::new();
    let mut first = true;
    for address in &list {
        let (Some(mailbox), host) = (&address.mailbox, &address.host) else {
            printed.push(';');
            first = false;
            continue;
        };
        if !std::mem::take(&mut first) && !printed.ends_with(':') {
            printed.push(',');
        }
        if !printed.is_empty() {
            printed.push_str("\r\n ");
        }
        let Some(host) = host else {
            printed.push_str(&phrase(mailbox));
            printed.push(':');
            continue;
        };
        let name = address.name.as_deref().unwrap_or_default();
        if mailbox.is_ascii() && host.is_ascii() {
            if !name.is_empty() {
                printed.push_str(&phrase(name));
                printed.push_str("\r\n ");
            }
            printed.push_str(&format!("<{}@{}>", local_part(mailbox), String::from_utf8_lossy(host)));
        } else {
            let shown = [name, if name.is_empty() { b"" } else { b" " }, b"<", mailbox, b"@", host, b">"].concat();
            printed.push_str(&format!("{}\r\n {NO_ADDRESS}", encoded(&words(&shown))));
        }
    }
    printed
}

/// A display name or the name of a group.
fn phrase(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let is_word = |word: &str| word.bytes().all(|byte| is_atom(byte) && byte.is_ascii());
    if !name.is_ascii() {
        encoded(&words(name))
    } else if !text.is_empty() && text.split(' ').all(is_word) {
        // Encoded-words count only where they are not quoted.
        text.into_owned()
    } else {
        quoted(&text)
    }
}

fn local_part(mailbox: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(mailbox);
    let is_dot_atom = text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom));
    if is_dot_atom { text } else { quoted(&text).into() }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A value with parameters: those beyond ASCII as in RFC 2231, so that names of attachments stay.
fn parameters(field: &Field<'_>) -> Option<String> {
    let (value, parameters): (Vec<u8>, Parameters) = parse_parameters(field.value)?;
    let mut printed = String::from_utf8(value).ok().filter(|value| value.is_ascii())?;
    for (name, value) in parameters {
        let Some(name) = str::from_utf8(&name).ok().filter(|name| name.is_ascii()) else { continue };
        if value.is_ascii() {
            let text = String::from_utf8_lossy(&value);
            let is_plain = !value.is_empty() && value.iter().all(|byte| is_token(*byte));
            printed.push_str(&format!(";\r\n {name}={}", if is_plain { text.into_owned() } else { quoted(&text) }));
        } else if !name.contains('*') {
            printed.push_str(&in_pieces(name, &words(&value)));
        }
    }
    Some(printed)
}

/// `; name*=UTF-8''…`, or `; name*0*=…` and so on (RFC 2231 §3, §4).
fn in_pieces(name: &str, text: &str) -> String {
    let mut pieces = vec![String::new()];
    for c in text.chars() {
        let mut bytes = [0; 4];
        let is_plain = c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let escaped =
            if is_plain { c.to_string() } else { c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect::<String>() };
        match pieces.last_mut().filter(|piece| piece.len() + escaped.len() <= PIECE_BYTES) {
            Some(piece) => piece.push_str(&escaped),
            None => pieces.push(escaped),
        }
    }
    match pieces.as_slice() {
        [only] => format!(";\r\n {name}*=UTF-8''{only}"),
        _ => {
            let numbered = |(number, piece)| format!(";\r\n {name}*{number}*={}{piece}", if number == 0 { "UTF-8''" } else { "" });
            pieces.iter().enumerate().map(numbered).collect()
        }
    }
}
