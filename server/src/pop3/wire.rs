//! POP3's multi-line responses, without I/O: dots added (RFC 1939 §3), and where TOP ends.
//!
//! Invariants, each with the test that guards it:
//! - no line of a message can end the response: what is stuffed here is what LMTP's decoder reads back (`a_stuffed_message_is_read_back`)
//! - how a message is cut into pieces changes nothing (`pieces_change_nothing`)

use bytes::{BufMut, BytesMut};
use memchr::memchr;

/// Adds dots to lines that begin with one, and ends the response.
#[derive(Debug, Default)]
pub struct Stuffer {
    inside_line: bool,
}

impl Stuffer {
    /// Writes one piece of the message. Its lines end with CRLF: the store gives no others.
    pub fn write(&mut self, piece: &[u8], out: &mut BytesMut) {
        out.reserve(piece.len() + 16);
        let mut rest = piece;
        while let Some(first) = rest.first() {
            if !self.inside_line && *first == b'.' {
                out.put_u8(b'.');
            }
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            out.put_slice(line);
            self.inside_line = !line.ends_with(b"\n");
            rest = after;
        }
    }

    /// Writes the end of the response.
    pub fn finish(self, out: &mut BytesMut) {
        out.put_slice(if self.inside_line { b"\r\n.\r\n" } else { b".\r\n" });
    }
}

/// How much of a message TOP sends: the header, the blank line, and so many lines of the body.
#[derive(Debug)]
pub struct Top {
    in_header: bool,
    /// Bytes of the present line so far that are not its line end; only whether there are any matters.
    line_has_text: bool,
    lines_left: u64,
}

impl Top {
    /// `lines` of the body.
    pub fn new(lines: u64) -> Top {
        Top { in_header: true, line_has_text: false, lines_left: lines }
    }

    /// How many bytes of the next piece belong to it; fewer than the piece has: nothing after them does.
    pub fn take(&mut self, piece: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = piece.get(taken..).filter(|rest| !rest.is_empty()) {
            if !self.in_header && self.lines_left == 0 {
                break;
            }
            let (line, ended) = match memchr(b'\n', rest) {
                Some(at) => (rest.get(..=at).unwrap_or(rest), true),
                None => (rest, false),
            };
            taken += line.len();
            self.line_has_text |= line.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
            if ended {
                if !self.in_header {
                    self.lines_left -= 1;
                } else if !self.line_has_text {
                    self.in_header = false;
                }
                self.line_has_text = false;
            }
        }
        taken
    }

    /// Whether all of it was taken.
    pub fn is_complete(&self) -> bool {
        !self.in_header && self.lines_left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lmtp::wire::DataDecoder;

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut stuffer = Stuffer::default();
        for piece in pieces {
            stuffer.write(piece, &mut out);
        }
        stuffer.finish(&mut out);
        out.to_vec()
    }

    fn top(pieces: &[&[u8]], lines: u64) -> String {
        let mut top = Top::new(lines);
        let mut taken = Vec::new();
        for piece in pieces {
            let count = top.take(piece);
            taken.extend_from_slice(&piece[..count]);
            assert!(count == piece.len() || top.is_complete());
        }
        String::from_utf8(taken).unwrap()
    }

    #[test]
    fn lines_that_begin_with_a_dot_get_another() {
        assert_eq!(stuffed(&[b".\r\na.b\r\n..c\r\n"]), b"..\r\na.b\r\n...c\r\n.\r\n");
        assert_eq!(stuffed(&[]), b".\r\n");
        assert_eq!(stuffed(&[b"no line end"]), b"no line end\r\n.\r\n");
    }

    #[test]
    fn top_counts_lines_of_the_body() {
        let message = b"A: 1\r\nB: 2\r\n\r\none\r\n\r\nthree\r\n";
        assert_eq!(top(&[message], 0), "A: 1\r\nB: 2\r\n\r\n");
        assert_eq!(top(&[message], 2), "A: 1\r\nB: 2\r\n\r\none\r\n\r\n");
        assert_eq!(top(&[message], u64::MAX).len(), message.len());
        assert_eq!(top(&[b"A: 1\r\n"], 0), "A: 1\r\n", "a message without a body");
        assert_eq!(top(&[b"\r\nbody\r\n"], 0), "\r\n", "a message without a header");
    }

    proptest! {
        #[test]
        fn a_stuffed_message_is_read_back(lines in prop::collection::vec("[a.]{0,4}", 0..9)) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let sent = stuffed(&[message.as_bytes()]);
            let mut read = Vec::new();
            let decoded = DataDecoder::default().decode(&sent, &mut read);
            prop_assert!(decoded.complete && decoded.used == sent.len());
            prop_assert_eq!(read, message.into_bytes());
        }

        #[test]
        fn pieces_change_nothing(lines in prop::collection::vec("[a.]{0,4}", 0..9), asked in 0u64..5) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let single: Vec<&[u8]> = message.as_bytes().chunks(1).collect();
            prop_assert_eq!(stuffed(&single), stuffed(&[message.as_bytes()]));
            prop_assert_eq!(top(&single, asked), top(&[message.as_bytes()], asked));
        }
    }
}
