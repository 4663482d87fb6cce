//! What a client that takes only ASCII in headers is sent instead of a message that has more (RFC 6858, RFC 6855 §7): piece by piece, the same message
//! with its header fields, and those of its parts, in ASCII. Bodies stay as they are.
//!
//! Invariants, each with the test that guards it:
//! - a message whose headers are ASCII comes out as it is (`a_message_with_ascii_headers_is_its_own_surrogate`)
//! - no header field of a surrogate has a byte beyond ASCII, and no line is too long (`any_surrogate_has_ascii_headers`)
//! - how a message is cut into pieces changes nothing (`pieces_change_nothing`)
//! - its parts are those of the message, as `find` finds them (`a_surrogate_has_the_parts_of_its_message`)
//! - memory is bounded: three header fields, and one boundary for each level (`a_long_header_takes_little_memory`)

mod field;
#[cfg(test)]
mod tests;

use field::MimeName;
use memchr::memchr;

use super::{
    find::{DELIMITER_BYTES_MAX, delimits},
    structure::{DEPTH_MAX, FIELD_BYTES_MAX, MimeFields, PARTS_MAX},
};

/// A message on its way out.
#[derive(Debug)]
pub struct Surrogate {
    place: Place,
    /// In a header: the field so far. In a body: the line so far, where it may be a delimiter.
    held: Vec<u8>,
    passing: Passing,
    /// Of the multiparts around this place, the innermost last.
    boundaries: Vec<Boundary>,
    /// How many multiparts and messages the place lies in.
    depth: usize,
    /// How many parts there are so far.
    parts: usize,
    /// The fields of the present header that say what follows it: the last of each name counts.
    content_type: Vec<u8>,
    transfer_encoding: Vec<u8>,
    /// A part of a digest: where its header says nothing, a message follows (RFC 2046 §5.1.5).
    in_digest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a message, before its first field: what has neither a field nor an empty line is text, so lines that are no field stay as they are.
    Start,
    Header,
    Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    No,
    /// To the end of the present line, as it is.
    Rest,
    /// Inside a line of a field that is too long to be held.
    Field,
    /// A line of such a field has ended, and the next one may be of it as well.
    Fold,
}

#[derive(Debug)]
struct Boundary {
    text: Vec<u8>,
    is_digest: bool,
    /// How many multiparts and messages its parts lie in.
    depth: usize,
}

impl Default for Surrogate {
    fn default() -> Surrogate {
        Surrogate {
            place: Place::Start,
            held: Vec::new(),
            passing: Passing::No,
            boundaries: Vec::new(),
            depth: 0,
            parts: 1, // the message itself
            content_type: Vec::new(),
            transfer_encoding: Vec::new(),
            in_digest: false,
        }
    }
}

impl Surrogate {
    /// Writes what the next piece of the message becomes. Lines end with CRLF.
    pub fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.place == Place::Body && self.boundaries.is_empty() {
                // No header is to come.
                out.extend_from_slice(rest);
                return;
            }
            let (line, ended, after) = match memchr(b'\n', rest) {
                Some(at) => (rest.get(..=at).unwrap_or(rest), true, rest.get(at + 1..).unwrap_or_default()),
                None => (rest, false, &rest[..0]),
            };
            match self.place {
                Place::Body => self.body(line, ended, out),
                Place::Start | Place::Header => self.header(line, ended, out),
            }
            rest = after;
        }
    }

    /// Writes the rest: the message has no more.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let is_field = match self.place {
            Place::Start => field::name(&self.held).is_some(),
            Place::Header => true,
            Place::Body => false,
        };
        if is_field && !(self.held.starts_with(b"--") && self.delimiter(&self.held).is_some()) {
            self.end_field(out);
        } else {
            out.extend_from_slice(&self.held);
        }
    }

    fn body(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        if self.passing == Passing::Rest {
            return self.pass(line, ended, out);
        }
        self.held.extend_from_slice(line);
        let may_delimit = self.held.starts_with(b"--") || b"--".starts_with(self.held.as_slice());
        if may_delimit && !ended && self.held.len() < DELIMITER_BYTES_MAX {
            return;
        }
        let held = std::mem::take(&mut self.held);
        if let Some((level, closes)) = self.delimiter(&held) {
            self.pass_delimiter(level, closes);
        }
        self.pass(&held, ended, out);
    }

    /// Writes it as it is, and then the rest of its line.
    fn pass(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(line);
        self.passing = if ended { Passing::No } else { Passing::Rest };
    }

    fn header(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        let continues = matches!(line.first(), Some(b' ' | b'\t'));
        match self.passing {
            Passing::Rest => return self.pass(line, ended, out),
            Passing::Field => return self.long_field(line, ended, out),
            Passing::Fold if continues => return self.long_field(line, ended, out),
            Passing::Fold | Passing::No => self.passing = Passing::No,
        }
        let begins = self.held.is_empty() || self.held.ends_with(b"\n");
        if begins && !continues {
            self.end_field(out);
        }
        let before = self.held.len();
        self.held.extend_from_slice(line);
        let is_judged = |held: &[u8]| before >= DELIMITER_BYTES_MAX || held.get(..before).is_some_and(|held| memchr(b'\n', held).is_some());
        if self.held.starts_with(b"--") && (ended || self.held.len() >= DELIMITER_BYTES_MAX) && !is_judged(&self.held) {
            // Only the first line of a field can be a delimiter: the others begin with white space.
            if let Some((level, closes)) = self.delimiter(&self.held) {
                let delimiter = std::mem::take(&mut self.held);
                if self.has_room() && self.mime().holds_message(self.in_digest) {
                    self.parts += 1; // a message of nothing
                }
                self.pass_delimiter(level, closes);
                return self.pass(&delimiter, ended, out);
            }
        }
        if matches!(self.held.as_slice(), b"\r\n" | b"\n") {
            let blank = std::mem::take(&mut self.held);
            out.extend_from_slice(&blank);
            return self.end_header();
        }
        let is_long = self.held.len() > FIELD_BYTES_MAX;
        if self.place == Place::Start && (ended || is_long) {
            // However the message is cut into pieces, so much is there.
            if field::name(self.held.get(..FIELD_BYTES_MAX).unwrap_or(&self.held)).is_none() {
                let mut held = std::mem::take(&mut self.held);
                if held.starts_with(b"From ") {
                    only_ascii(&mut held); // an mbox's: no text
                }
                return self.pass(&held, ended, out);
            }
            self.place = Place::Header;
        }
        if is_long {
            let held = std::mem::take(&mut self.held);
            // It counts, but nobody can read it.
            self.remember(&[field::name(&held).unwrap_or_default(), b":\r\n"].concat());
            self.long_field(&held, ended, out);
        }
    }

    /// Goes on with a field that is too long to be held.
    fn long_field(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(line);
        only_ascii(out.get_mut(start..).unwrap_or_default());
        self.passing = if ended { Passing::Fold } else { Passing::Field };
    }

    /// Writes the field that is complete.
    fn end_field(&mut self, out: &mut Vec<u8>) {
        let (raw, start) = (std::mem::take(&mut self.held), out.len());
        if raw.is_ascii() {
            out.extend_from_slice(&raw)
        } else {
            field::write(&raw, out)
        }
        // What is sent is what counts for who reads it.
        self.remember(out.get(start..).unwrap_or_default());
    }

    /// Keeps the field if it says what follows its header.
    fn remember(&mut self, field: &[u8]) {
        match field::mime_name(field) {
            Some(MimeName::ContentType) => self.content_type = field.to_vec(),
            Some(MimeName::TransferEncoding) => self.transfer_encoding = field.to_vec(),
            None => {}
        }
    }

    /// What the header says so far.
    fn mime(&self) -> MimeFields {
        MimeFields::read(&[self.content_type.as_slice(), self.transfer_encoding.as_slice()].concat())
    }

    fn has_room(&self) -> bool {
        self.depth + 1 < DEPTH_MAX && self.parts < PARTS_MAX
    }

    /// What follows this header.
    fn end_header(&mut self) {
        let (mime, has_room) = (self.mime(), self.has_room());
        let in_digest = std::mem::take(&mut self.in_digest);
        self.forget();
        self.place = Place::Body;
        if let Some(text) = mime.boundary().filter(|_| has_room) {
            self.depth += 1;
            self.boundaries.push(Boundary { text, is_digest: mime.is_digest(), depth: self.depth });
        } else if has_room && mime.holds_message(in_digest) {
            self.depth += 1;
            self.parts += 1;
            self.place = Place::Start;
        }
    }

    fn forget(&mut self) {
        self.content_type = Vec::new();
        self.transfer_encoding = Vec::new();
    }

    /// Of which multipart the line is a delimiter, and whether the last one.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        if self.parts >= PARTS_MAX {
            return None;
        }
        self.boundaries.iter().enumerate().rev().find_map(|(level, boundary)| Some((level, delimits(line, &boundary.text)?)))
    }

    fn pass_delimiter(&mut self, level: usize, closes: bool) {
        self.forget();
        if let Some(boundary) = self.boundaries.get(level) {
            (self.in_digest, self.depth) = (boundary.is_digest, boundary.depth);
        }
        self.boundaries.truncate(if closes { level } else { level + 1 });
        self.parts += usize::from(!closes);
        self.place = if closes { Place::Body } else { Place::Header };
    }
}

fn only_ascii(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
}
