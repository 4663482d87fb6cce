//! The message after DATA, without I/O: where it ends, and its lines without the dots that were added in transit.
//!
//! Invariants, each with the test that guards it:
//! - only CRLF `.` CRLF ends a message: every other spelling of "dot on a line" is data, so that no second message can be
//!   smuggled inside a first (`only_crlf_dot_crlf_ends_a_message`)
//! - what a sender stuffed is what comes out (`a_stuffed_message_is_read_back`)
//! - how the bytes arrive changes nothing (`data_is_the_same_byte_by_byte_and_at_once`)
//!
//! Not here: line-end repair. A bare LF is passed on as it came; the store makes it CRLF when the message is written.

use memchr::memchr;

/// Removes dot-stuffing (RFC 5321 §4.5.2) up to the end of the message.
#[derive(Debug, Default)]
pub struct DataDecoder {
    at: At,
}

/// Where in a line the decoder is; a line ends with CRLF and with nothing else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    LineStart,
    /// After a dot at the start of a line, which is not passed on.
    Dot,
    /// After dot and CR at the start of a line; the CR is not passed on yet.
    DotCr,
    Text,
    /// After a CR that was passed on.
    Cr,
}

/// What [`DataDecoder::decode`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the input belong to the message; what follows are commands.
    pub used: usize,
    /// Whether the message ended.
    pub complete: bool,
}

impl DataDecoder {
    /// Appends the message's bytes in `input` to `out`.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Decoded {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            used += 1;
            self.at = match (self.at, byte) {
                (At::LineStart, b'.') => At::Dot,
                (At::Dot, b'\r') => At::DotCr,
                (At::DotCr, b'\n') => {
                    self.at = At::LineStart;
                    return Decoded { used, complete: true };
                }
                (before, _) => {
                    if before == At::DotCr {
                        out.push(b'\r');
                    }
                    out.push(byte);
                    match (before, byte) {
                        (_, b'\r') => At::Cr,
                        (At::Cr | At::DotCr, b'\n') => At::LineStart,
                        _ => {
                            // The rest of the line up to the next CR goes through as one piece.
                            let rest = input.get(used..).unwrap_or_default();
                            let plain = memchr(b'\r', rest).unwrap_or(rest.len());
                            out.extend_from_slice(rest.get(..plain).unwrap_or_default());
                            used += plain;
                            At::Text
                        }
                    }
                }
            };
        }
        Decoded { used, complete: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The message, and what came after it, if it ended.
    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut decoder = DataDecoder::default();
        let mut message = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        for piece in pieces {
            if let Some(after) = &mut after {
                after.extend_from_slice(piece);
                continue;
            }
            let decoded = decoder.decode(piece, &mut message);
            if decoded.complete {
                after = Some(piece[decoded.used..].to_vec());
            } else {
                assert_eq!(decoded.used, piece.len());
            }
        }
        (message, after)
    }

    /// What a sender does (RFC 5321 §4.5.2), written apart from the decoder.
    fn stuff(message: &[u8]) -> Vec<u8> {
        let mut stuffed = Vec::new();
        for (position, byte) in message.iter().enumerate() {
            if *byte == b'.' && (position == 0 || message[..position].ends_with(b"\r\n")) {
                stuffed.push(b'.');
            }
            stuffed.push(*byte);
        }
        stuffed.extend_from_slice(b".\r\n");
        stuffed
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        for (smuggled, data) in [
            ("a\n.\nb", "a\n.\nb"),
            ("a\n.\r\nb", "a\n.\r\nb"),
            ("a\r.\rb", "a\r.\rb"),
            ("a\r.\r\nb", "a\r.\r\nb"),
            ("a\r\n.\nb", "a\r\n\nb"),
            ("a\r\n.\rb", "a\r\n\rb"),
            ("a\r\n.\r\rb", "a\r\n\r\rb"),
            ("a\r\n.\0\r\nb", "a\r\n\0\r\nb"),
            ("a\r\r\n.\n\r\nb", "a\r\r\n\n\r\nb"),
        ] {
            let sent = format!("{smuggled}\r\n.\r\nNOOP\r\n");
            let (message, after) = decode(&[sent.as_bytes()]);
            assert_eq!(String::from_utf8(message).unwrap(), format!("{data}\r\n"), "{smuggled:?}");
            assert_eq!(after.as_deref(), Some(&b"NOOP\r\n"[..]), "{smuggled:?}");
        }
    }

    #[test]
    fn an_empty_message_is_a_dot_alone() {
        assert_eq!(decode(&[b".\r\nQUIT\r\n"]), (Vec::new(), Some(b"QUIT\r\n".to_vec())));
        assert_eq!(decode(&[b"..\r\n.\r\n"]), (b".\r\n".to_vec(), Some(Vec::new())));
    }

    proptest! {
        #[test]
        fn a_stuffed_message_is_read_back(message in "[a.\r\n]{0,60}") {
            let message = format!("{message}\r\n");
            let (read, after) = decode(&[&stuff(message.as_bytes())]);
            prop_assert_eq!(read, message.into_bytes());
            prop_assert_eq!(after, Some(Vec::new()));
        }

        #[test]
        fn data_is_the_same_byte_by_byte_and_at_once(sent in "[a.\r\n]{0,60}") {
            let single: Vec<&[u8]> = sent.as_bytes().chunks(1).collect();
            prop_assert_eq!(decode(&single), decode(&[sent.as_bytes()]));
        }
    }
}
