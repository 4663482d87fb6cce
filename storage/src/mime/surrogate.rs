//! What a client that takes only ASCII in headers is sent instead of a message that has more (RFC 6858, RFC 6855 §7): piece by piece, the same message
//! with its header fields, and those of its parts, in ASCII. Bodies stay as they are.
//!
//! Invariants, each with the test that guards it:
//! - a message whose headers are ASCII comes out as it is (`a_message_with_ascii_headers_is_its_own_surrogate`)
//! - no header field of a surrogate has a byte beyond ASCII, and no line is too long (`any_surrogate_has_ascii_headers`)
//! - how a message is cut into pieces changes nothing (`pieces_change_nothing`)
//! - memory is bounded: one header field, and one boundary for each level (`any_surrogate_has_ascii_headers`)

mod field;
#[cfg(test)]
mod tests;

use memchr::memchr;

use super::structure::{DEPTH_MAX, MimeFields};

/// Longest field that is put in other words. Of a longer one, which no mail program writes, each byte beyond ASCII becomes a question mark.
const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Longest line that can be a boundary: RFC 2046 §5.1.1 allows 70 characters; mail has more.
const BOUNDARY_LINE_BYTES_MAX: usize = 1000;

/// A message on its way out.
#[derive(Debug, Default)]
pub struct Surrogate {
    place: Place,
    /// In a header: the field so far. In a body: the line so far, where it may be a boundary.
    held: Vec<u8>,
    /// The present line is passed on, whatever it holds.
    passing: Passing,
    /// Of the multiparts around this place, the innermost last.
    boundaries: Vec<Boundary>,
    /// The fields of the present header that say what follows it.
    mime: Vec<u8>,
    /// A part of a digest: where its header says nothing, a message follows (RFC 2046 §5.1.5).
    in_digest: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first line of all: who has no field there has no header.
    #[default]
    Start,
    Header,
    Body,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Passing {
    #[default]
    No,
    /// In a body: to the line's end, as it is. In a header: a line of a long field has ended, and the next one may be of it as well.
    Line,
    /// Inside a line of a long field.
    Field,
}

#[derive(Debug)]
struct Boundary {
    /// With the two hyphens before it.
    line: Vec<u8>,
    is_digest: bool,
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
        match self.place {
            Place::Header => self.end_field(out),
            Place::Start if field::name(&self.held).is_some() => self.end_field(out),
            Place::Start | Place::Body => out.extend_from_slice(&self.held),
        }
    }

    fn body(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        if self.passing != Passing::No {
            out.extend_from_slice(line);
        } else {
            self.held.extend_from_slice(line);
            let may_be_boundary = self.held.starts_with(b"--") || b"--".starts_with(self.held.as_slice());
            if ended || !may_be_boundary || self.held.len() > BOUNDARY_LINE_BYTES_MAX {
                let held = std::mem::take(&mut self.held);
                out.extend_from_slice(&held);
                if ended && may_be_boundary {
                    self.pass_boundary(&held);
                    return;
                }
                self.passing = Passing::Line;
            }
        }
        if ended {
            self.passing = Passing::No;
        }
    }

    fn header(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        let continues = matches!(line.first(), Some(b' ' | b'\t'));
        if self.passing == Passing::Field || (self.passing == Passing::Line && continues) {
            return self.long_field(line, ended, out);
        }
        self.passing = Passing::No;
        let begins = self.held.is_empty() || self.held.ends_with(b"\n");
        if begins && !continues {
            self.end_field(out);
        }
        self.held.extend_from_slice(line);
        if self.held.len() > FIELD_BYTES_MAX && self.place != Place::Start {
            let held = std::mem::take(&mut self.held);
            return self.long_field(&held, ended, out);
        }
        if !ended && self.held.len() <= FIELD_BYTES_MAX {
            return;
        }
        if matches!(self.held.as_slice(), b"\r\n" | b"\n") {
            let blank = std::mem::take(&mut self.held);
            out.extend_from_slice(&blank);
            self.end_header();
        } else if self.held.starts_with(b"--") && self.is_boundary(&self.held) {
            let boundary = std::mem::take(&mut self.held);
            out.extend_from_slice(&boundary);
            self.pass_boundary(&boundary);
        } else if self.place == Place::Start {
            // The first line of an mbox is none of the message.
            let has_header = ended && (field::name(&self.held).is_some() || self.held.starts_with(b"From "));
            self.place = if has_header { Place::Header } else { Place::Body };
            if !has_header {
                let first = std::mem::take(&mut self.held);
                out.extend_from_slice(&first);
            }
        }
    }

    /// Goes on with a field that is too long to be held.
    fn long_field(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        out.extend(line.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }));
        self.passing = if ended { Passing::Line } else { Passing::Field };
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
        let written = out.get(start..).unwrap_or_default();
        if field::is_mime(written) {
            self.mime.extend_from_slice(written);
        }
    }

    /// What follows this header.
    fn end_header(&mut self) {
        let mime = MimeFields::read(&std::mem::take(&mut self.mime));
        let in_digest = std::mem::take(&mut self.in_digest);
        let is_plain = mime.transfer_encoding.as_ref().is_none_or(|encoding| encoding.is_identity());
        self.place = match &mime.media {
            Some(media) if media.is_multipart() => {
                if let Some(boundary) = media.boundary().filter(|_| self.boundaries.len() < DEPTH_MAX) {
                    let is_digest = media.sub.eq_ignore_ascii_case(b"digest");
                    self.boundaries.push(Boundary { line: [b"--", boundary.as_slice()].concat(), is_digest });
                }
                Place::Body
            }
            Some(media) if media.is_message() && is_plain => Place::Header,
            None if in_digest && is_plain => Place::Header,
            _ => Place::Body,
        };
    }

    fn is_boundary(&self, line: &[u8]) -> bool {
        self.boundaries.iter().any(|boundary| boundary.ends(line).is_some())
    }

    /// Whether the line begins or ends a part; then the place changes.
    fn pass_boundary(&mut self, line: &[u8]) {
        let found = self.boundaries.iter().enumerate().rev().find_map(|(level, boundary)| Some((level, boundary.ends(line)?)));
        if let Some((level, is_last)) = found {
            self.mime.clear();
            self.in_digest = self.boundaries.get(level).is_some_and(|boundary| boundary.is_digest);
            self.boundaries.truncate(if is_last { level } else { level + 1 });
            self.place = if is_last { Place::Body } else { Place::Header };
        }
    }
}

impl Boundary {
    /// Whether the line is this boundary, and then whether it is the last one.
    fn ends(&self, line: &[u8]) -> Option<bool> {
        let rest = line.strip_prefix(self.line.as_slice()).filter(|_| line.len() <= BOUNDARY_LINE_BYTES_MAX)?;
        match rest.strip_prefix(b"--") {
            Some(_) => Some(true),
            None => rest.trim_ascii().is_empty().then_some(false),
        }
    }
}
