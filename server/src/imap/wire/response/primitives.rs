//! Numbers, strings, names and sets.
//!
//! Invariant: whatever bytes are given, what is written is one well-formed token (`response::tests::any_string_is_read_back`).

use bytes::{BufMut, BytesMut};

use super::Names;

/// Longer strings are written as literals: some clients read quoted strings into small buffers.
const QUOTED_BYTES_MAX: usize = 1024;

/// Digits.
pub fn number(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// `"…"` for text without CR, LF, NUL and 8-bit bytes (see [`string`] for any other); a forbidden byte becomes `?`.
pub fn quoted(out: &mut BytesMut, text: &[u8]) {
    out.put_u8(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', *byte]),
            0 | b'\r' | b'\n' | 0x80.. => out.put_u8(b'?'),
            _ => out.put_u8(*byte),
        }
    }
    out.put_u8(b'"');
}

/// `{n}` and its line end: exactly `bytes` bytes must follow.
pub fn literal_header(out: &mut BytesMut, bytes: u64) {
    out.put_u8(b'{');
    number(out, bytes);
    out.put_slice(b"}\r\n");
}

/// Quoted where possible, else a literal.
pub fn string(out: &mut BytesMut, bytes: &[u8]) {
    if bytes.len() <= QUOTED_BYTES_MAX && bytes.iter().all(|byte| !matches!(byte, 0 | b'\r' | b'\n' | 0x80..)) {
        quoted(out, bytes);
    } else {
        literal_header(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

/// A string or NIL.
pub fn nstring(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => string(out, bytes),
        None => out.put_slice(b"NIL"),
    }
}

/// An atom where possible, else a string.
pub fn astring(out: &mut BytesMut, bytes: &[u8]) {
    if is_safe_atom(bytes) { out.put_slice(bytes) } else { string(out, bytes) }
}

/// A mailbox name given in UTF-8.
pub fn mailbox_name(out: &mut BytesMut, utf8: &str, names: Names) {
    let utf8 = &*names.separator.written(utf8);
    match names.utf8 {
        _ if utf8.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'&' || byte == b' ') => astring(out, utf8.as_bytes()),
        false => astring(out, storage::names::encode_utf7(utf8).as_bytes()),
        // RFC 6855 §3: quoted, the 8-bit bytes as they are.
        true => {
            out.put_u8(b'"');
            for character in utf8.chars() {
                match character {
                    '"' | '\\' => out.put_u8(b'\\'),
                    '\0' | '\r' | '\n' => continue, // in no mailbox name
                    _ => {}
                }
                out.put_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            out.put_u8(b'"');
        }
    }
}

/// `1:3,7`: ascending numbers with runs put together. An empty set has no form: nothing is written.
pub fn uid_set(out: &mut BytesMut, numbers: impl IntoIterator<Item = u32>) {
    uid_runs(out, numbers.into_iter().map(|number| (number, number)));
}

/// The same from runs, ascending; those that touch are put together.
pub fn uid_runs(out: &mut BytesMut, numbers: impl IntoIterator<Item = (u32, u32)>) {
    let mut runs = runs(numbers).peekable();
    while let Some((low, high)) = runs.next() {
        number(out, low.into());
        if low != high {
            out.put_u8(b':');
            number(out, high.into());
        }
        if runs.peek().is_some() {
            out.put_u8(b',');
        }
    }
}

fn runs(numbers: impl IntoIterator<Item = (u32, u32)>) -> impl Iterator<Item = (u32, u32)> {
    let mut numbers = numbers.into_iter().peekable();
    std::iter::from_fn(move || {
        let (low, mut high) = numbers.next()?;
        while let Some((_, end)) = numbers.next_if(|(start, _)| high.checked_add(1) == Some(*start)) {
            high = end;
        }
        Some((low, high))
    })
}

/// The rest of a response: ` word word …`.
pub(super) fn words<'a>(out: &mut BytesMut, words: impl IntoIterator<Item = &'a str>) {
    for word in words {
        out.put_u8(b' ');
        astring(out, word.as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Stricter than the grammar: what every client reads as one atom. NIL would be read as nothing.
fn is_safe_atom(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() <= QUOTED_BYTES_MAX
        && !bytes.eq_ignore_ascii_case(b"NIL")
        && bytes.iter().all(|byte| byte.is_ascii_graphic() && !b"(){}%*\"\\[]".contains(byte))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn strings_take_the_plainest_form_that_can_hold_them() {
        assert_eq!(written(|out| astring(out, b"INBOX")), "INBOX");
        assert_eq!(written(|out| astring(out, b"a b")), "\"a b\"");
        assert_eq!(written(|out| astring(out, b"nil")), "\"nil\"");
        assert_eq!(written(|out| astring(out, b"")), "\"\"");
        assert_eq!(written(|out| string(out, b"a\"\\")), r#""a\"\\""#);
        assert_eq!(written(|out| string(out, b"a\r\nb")), "{4}\r\na\r\nb");
        assert_eq!(written(|out| string(out, "é".as_bytes())), "{2}\r\né");
        assert_eq!(written(|out| nstring(out, None)), "NIL");
        assert_eq!(written(|out| string(out, &[b'x'; 1025])).len(), "{1025}\r\n".len() + 1025);
    }

    #[test]
    fn forbidden_bytes_never_break_out_of_a_quoted_string() {
        assert_eq!(written(|out| quoted(out, b"a\r\nb\0\xff")), "\"a??b??\"");
        assert_eq!(written(|out| mailbox_name(out, "ü\r\n\"x", Names { utf8: true, ..Names::default() })), "\"ü\\\"x\"");
    }

    #[test]
    fn runs_of_uids_are_put_together() {
        assert_eq!(written(|out| uid_set(out, [1, 2, 3, 7, 9, 10])), "1:3,7,9:10");
        assert_eq!(written(|out| uid_set(out, [u32::MAX - 1, u32::MAX])), "4294967294:4294967295");
        assert_eq!(written(|out| uid_set(out, [])), "");
    }
}
