//! Strings of IMAP answers (RFC 9051 §4.3).

/// Longest string that is sent quoted: clients read quoted strings into line buffers, and literals into memory they asked for.
const QUOTED_BYTES_MAX: usize = 4096;

/// `NIL` or a string.
pub(super) fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Quoted where possible, else a literal. A NUL, which neither may have, becomes U+FFFD.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() <= QUOTED_BYTES_MAX && text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        out.push(b'"');
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    } else if memchr::memchr(0, text).is_some() {
        literal(out, &text.split(|byte| *byte == 0).collect::<Vec<_>>().join("\u{FFFD}".as_bytes()));
    } else {
        literal(out, text);
    }
}

fn literal(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'{');
    number(out, text.len());
    out.extend_from_slice(b"}\r\n");
    out.extend_from_slice(text);
}

/// A number in decimal.
pub(super) fn number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
