//! A message with binary content (RFC 3030 §3) as one of lines: what a Maildir can hold and any client can fetch.

use std::{borrow::Cow, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{fields::last_field, find::find_parts, structure::Kind};

const FIELD: &str = "Content-Transfer-Encoding";
/// RFC 2045 §6.8: 76 characters a line at most, which 57 bytes make.
const LINE_BYTES: usize = 57;

/// `raw` with every binary part in base64 (RFC 3030 §3 asks whoever passes such a message on to encode it). Borrowed where there is none.
pub fn encode_binary(raw: &[u8]) -> Cow<'_, [u8]> {
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    for part in find_parts(raw) {
        let header = &raw[part.header.clone()];
        let Some(field) = last_field(header, FIELD).filter(|field| field.unfolded().eq_ignore_ascii_case(b"binary")) else { continue };
        // The field borrows from the header: the distance between the two is its place.
        let start = part.header.start + (field.raw.as_ptr().addr() - header.as_ptr().addr());
        let encoding = if part.kind == Kind::Leaf { "base64" } else { "8bit" };
        edits.push((start..start + field.raw.len(), format!("{FIELD}: {encoding}\r\n").into_bytes()));
        if part.kind == Kind::Leaf {
            let mut encoded = lines(&raw[part.body.clone()]);
            if part.body.end == raw.len() {
                encoded.extend_from_slice(b"\r\n");
            }
            edits.push((part.body, encoded));
        }
    }
    if edits.is_empty() {
        return Cow::Borrowed(raw);
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut text = Vec::with_capacity(raw.len() + raw.len() / 2);
    let mut at = 0;
    for (range, replacement) in edits {
        // A part inside one that was encoded whole is gone already.
        if range.start >= at {
            text.extend_from_slice(&raw[at..range.start]);
            text.extend_from_slice(&replacement);
            at = range.end;
        }
    }
    text.extend_from_slice(&raw[at..]);
    Cow::Owned(text)
}

fn lines(content: &[u8]) -> Vec<u8> {
    content.chunks(LINE_BYTES).map(|line| STANDARD.encode(line)).collect::<Vec<_>>().join("\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Structure;
    use super::*;

    const MESSAGE: &[u8] = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\ncontent-transfer-encoding: BINARY\r\n\r\n\
        --b\r\n\r\nplain\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding:\r\n binary\r\nContent-ID: <i>\r\n\r\n\x89PNG\r\n\x1a\n\0\xff\r\n--b--\r\n";

    #[test]
    fn binary_parts_become_base64_and_decode_to_what_they_were() {
        let text = encode_binary(MESSAGE).into_owned();
        assert_eq!(
            String::from_utf8(text.clone()).expect("text"),
            "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             --b\r\n\r\nplain\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <i>\r\n\r\niVBORw0KGgoA/w==\r\n--b--\r\n"
        );
        let decoded = Structure::parse(&text).decoded_part(&[2]).expect("a part").expect("a known encoding").into_owned();
        assert_eq!(decoded, b"\x89PNG\r\n\x1a\n\0\xff");
    }

    #[test]
    fn a_message_without_binary_parts_stays_as_it_is() {
        for raw in [&b"Subject: x\r\n\r\nbinary\r\n"[..], b"", b"Content-Transfer-Encoding: 8bit\r\n\r\nx"] {
            assert!(matches!(encode_binary(raw), Cow::Borrowed(same) if same == raw));
        }
    }

    proptest! {
        #[test]
        fn any_content_survives(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let message = [b"Content-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n", content.as_slice()].concat();
            let text = encode_binary(&message);
            prop_assert!(text.split(|b| *b == b'\n').all(|line| line.len() <= 78));
            prop_assert_eq!(Structure::parse(&text).decoded_part(&[1]).expect("a part").expect("a known encoding").into_owned(), content);
        }
    }
}
