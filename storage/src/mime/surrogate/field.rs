//! One header field in ASCII (RFC 6858 §2): addresses, parameters, texts; others that are not ASCII are left out.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::super::{
    address::{self, Address},
    decode::words,
    fields::{Field, fields},
    structure::{MimeFields, Parameters, parse_parameters},
    tokens::{collapse, is_atom, is_token},
};

/// Stands where an address beyond ASCII was (RFC 6858 §2.1): nobody can answer to it, and the name before it says whose it is.
const NO_ADDRESS: &str = "<invalid@internationalized-address.invalid>";
/// Bytes of text in one encoded-word: RFC 2047 §2 allows 75 characters with all that is around it.
const WORD_BYTES: usize = 42;
/// Longest parameter in one piece: with name and quotes, lines stay below [`LINE_BYTES_MAX`].
const PARAMETER_BYTES_MAX: usize = 400;
/// Characters of one piece of a parameter: with name and number, lines stay below 78 (RFC 2045 §2.10).
const PIECE_BYTES: usize = 50;
/// Longest line with encoded-words: RFC 2047 §2.
const WORDS_LINE_BYTES_MAX: usize = 76;
/// Longest field that is printed in one line: RFC 5322 §2.1.1.
const FOLDED_BYTES: usize = 76;
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

/// The fields that say what follows their header.
pub(super) enum MimeName {
    ContentType,
    TransferEncoding,
}

pub(super) fn mime_name(raw: &[u8]) -> Option<MimeName> {
    let field = fields(raw).next()?;
    match () {
        () if field.is("Content-Type") => Some(MimeName::ContentType),
        () if field.is("Content-Transfer-Encoding") => Some(MimeName::TransferEncoding),
        () => None,
    }
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
    } else if field.is("Content-Type") {
        content_type(&field)
    } else if field.is("Content-Disposition") {
        let Some(value) = disposition(&field) else { return };
        value
    } else if is_one_of(TEXTS) || name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-")) {
        encoded(&words(field.value))
    } else {
        // RFC 6858 §2.4: what can't be presented is removed.
        let value = without_comments(field.value);
        // One that nobody can read counts, too: the bytes are those of the content.
        let value = value.or_else(|| field.is("Content-Transfer-Encoding").then(|| "8bit".to_owned()));
        let Some(value) = value else { return };
        if name.len() + value.len() > FOLDED_BYTES { value.replace(' ', "\r\n ") } else { value }
    };
    // A line with encoded-words has at most 76 characters (RFC 2047 §2).
    let is_too_long = |line: &str| line.contains("=?") && name.len() + 2 + line.len() > WORDS_LINE_BYTES_MAX;
    let start = if value.split("\r\n").next().is_some_and(is_too_long) { "\r\n " } else { " " };
    let line = format!("{name}:{start}{value}\r\n");
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

/// A type that can't be said in ASCII goes by another name, so that what follows the header is taken as it was.
fn content_type(field: &Field<'_>) -> String {
    let Some(media) = MimeFields::read(field.raw).media else { return "text/plain".to_owned() };
    let media_type = [media.main.as_slice(), b"/", &media.sub].concat();
    let media_type = match String::from_utf8(media_type).ok().filter(|text| text.is_ascii()) {
        Some(media_type) => media_type,
        None if media.is_multipart() => "multipart/mixed".to_owned(),
        None => "application/octet-stream".to_owned(),
    };
    media_type + &parameters(media.parameters)
}

fn disposition(field: &Field<'_>) -> Option<String> {
    let (value, found) = parse_parameters(field.value)?;
    let value = String::from_utf8(value).ok().filter(|value| value.is_ascii())?;
    Some(value + &parameters(found))
}

/// Parameters: those beyond ASCII as in RFC 2231, so that names of attachments stay.
fn parameters(parameters: Parameters) -> String {
    let mut printed = String::new();
    for (name, value) in parameters {
        let Some(name) = str::from_utf8(&name).ok().filter(|name| name.is_ascii()) else { continue };
        let has_number = name.contains('*');
        if value.is_ascii() && (has_number || value.len() <= PARAMETER_BYTES_MAX) {
            let text = String::from_utf8_lossy(&value);
            let is_plain = !value.is_empty() && value.iter().all(|byte| is_token(*byte));
            printed.push_str(&format!(";\r\n {name}={}", if is_plain { text.into_owned() } else { quoted(&text) }));
        } else if name.eq_ignore_ascii_case("boundary") {
            // Its bytes are those of the delimiters.
            printed.push_str(&in_pieces(name, &value));
        } else if !has_number {
            printed.push_str(&in_pieces(name, words(&value).as_bytes()));
        }
    }
    printed
}

/// A value whose bytes beyond ASCII are all in comments (RFC 5322 §3.2.2), without them.
fn without_comments(value: &[u8]) -> Option<String> {
    let (mut left, mut depth, mut is_quoted) = (Vec::with_capacity(value.len()), 0usize, false);
    let mut rest = value.iter();
    while let Some(byte) = rest.next() {
        let mut piece = vec![*byte];
        match byte {
            b'\\' if is_quoted || depth > 0 => piece.extend(rest.next()),
            b'"' if depth == 0 => is_quoted = !is_quoted,
            b'(' if !is_quoted => depth += 1,
            b')' if depth > 0 => {
                depth -= 1;
                left.push(b' ');
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            left.extend(piece);
        }
    }
    let text = String::from_utf8(collapse(&left)).ok()?;
    (depth == 0 && !is_quoted && text.is_ascii() && !text.is_empty()).then_some(text)
}

/// `; name*=UTF-8''…`, or `; name*0*=…` and so on (RFC 2231 §3, §4).
fn in_pieces(name: &str, text: &[u8]) -> String {
    let mut pieces = vec![String::new()];
    // Characters stay whole.
    for chunk in text.utf8_chunks() {
        let characters = chunk.valid().split_inclusive(|_| true).map(str::as_bytes).chain(std::iter::once(chunk.invalid()));
        for character in characters {
            let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            let escape = |byte: &u8| if is_plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
            let escaped: String = character.iter().map(escape).collect();
            match pieces.last_mut().filter(|piece| piece.len() + escaped.len() <= PIECE_BYTES) {
                Some(piece) => piece.push_str(&escaped),
                None => pieces.push(escaped),
            }
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
