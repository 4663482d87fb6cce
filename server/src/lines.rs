//! Command lines out of a connection's input, without I/O: LMTP and POP3 read their commands with it.
//!
//! Invariants, each with the test that guards it:
//! - how the bytes arrive changes nothing (`lines_are_the_same_byte_by_byte_and_at_once`)
//! - a line without an end takes bounded memory, and the line after it is read as usual (`an_overlong_line_is_skipped_to_its_end`)

use bytes::{Buf, BytesMut};
use memchr::memchr;

/// A line that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Without its line end. People type bare LF, so it ends a command like CRLF does (never a message: see `lmtp::wire`).
    Complete(BytesMut),
    /// Longer than allowed; it was thrown away as a whole.
    TooLong,
}

/// Takes lines from the front of a buffer.
#[derive(Debug)]
pub struct LineReader {
    line_bytes_max: usize,
    /// Bytes at the front of the buffer that hold no LF, so that a slow line is not searched again and again.
    scanned: usize,
    skipping: bool,
}

impl LineReader {
    /// `line_bytes_max` counts the line end.
    pub fn new(line_bytes_max: usize) -> LineReader {
        LineReader { line_bytes_max, scanned: 0, skipping: false }
    }

    /// The next whole line; `None`: more input is needed.
    pub fn next(&mut self, input: &mut BytesMut) -> Option<Line> {
        let scanned = self.scanned.min(input.len());
        let Some(at) = input.get(scanned..).and_then(|rest| memchr(b'\n', rest)) else {
            self.scanned = input.len();
            if input.len() > self.line_bytes_max {
                input.clear();
                self.scanned = 0;
                self.skipping = true;
            }
            return None;
        };
        self.scanned = 0;
        let end = scanned + at;
        let mut line = input.split_to(end);
        input.advance(1);
        if std::mem::take(&mut self.skipping) || end + 1 > self.line_bytes_max {
            return Some(Line::TooLong);
        }
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(Line::Complete(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(max: usize, pieces: &[&[u8]]) -> Vec<Line> {
        let mut reader = LineReader::new(max);
        let mut input = BytesMut::new();
        let mut found = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(line) = reader.next(&mut input) {
                found.push(line);
            }
        }
        found
    }

    fn complete(text: &str) -> Line {
        Line::Complete(text.as_bytes().into())
    }

    #[test]
    fn an_overlong_line_is_skipped_to_its_end() {
        let mut reader = LineReader::new(10);
        let mut input = BytesMut::new();
        for _ in 0..1000 {
            input.extend_from_slice(b"xxxxxxxxxxxxxxxxxx");
            assert_eq!(reader.next(&mut input), None);
            assert!(input.len() <= 10);
        }
        input.extend_from_slice(b"x\r\nNOOP\r\n");
        assert_eq!(reader.next(&mut input), Some(Line::TooLong));
        assert_eq!(reader.next(&mut input), Some(complete("NOOP")));
    }

    #[test]
    fn the_limit_counts_the_line_end() {
        assert_eq!(lines(6, &[b"1234\r\n"]), [complete("1234")]);
        assert_eq!(lines(5, &[b"1234\r\n"]), [Line::TooLong]);
    }

    #[test]
    fn a_bare_lf_ends_a_command_and_a_lone_cr_does_not() {
        assert_eq!(lines(99, &[b"a\nb\rc\r\n\r\n"]), [complete("a"), complete("b\rc"), complete("")]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_byte_by_byte_and_at_once(bytes in "[ab\r\n]{0,80}") {
            let single: Vec<&[u8]> = bytes.as_bytes().chunks(1).collect();
            prop_assert_eq!(lines(12, &single), lines(12, &[bytes.as_bytes()]));
        }
    }
}
