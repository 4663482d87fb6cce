//! Finds the parts of a message: headers, delimiters and what they enclose (RFC 5322 §2.1, RFC 2046 §5.1.1), by their places in the bytes.
//!
//! - a header ends with its first empty line; a message with neither an empty line nor a field is text alone
//! - a delimiter is a line of its own, and the line end before it belongs to it, also that of an empty line; the innermost multipart that is open takes it
//! - a delimiter that nothing follows opens no part
//! - every byte is looked at a bounded number of times: once in a header, once for each multipart that is open where a line begins with `--`

use std::ops::Range;

use memchr::{memchr, memmem};

use super::{
    fields::fields,
    structure::{BOUNDARY_BYTES_MAX, DEPTH_MAX, Kind, MimeFields, PARTS_MAX, Part},
};

/// The parts of a message; the first is the message itself, and there is always one.
pub(super) fn find_parts(raw: &[u8]) -> Vec<Part> {
    let mut finder = Finder { raw, parts: Vec::new(), open: Vec::new(), depth: 0 };
    finder.entity(0, Role::Message);
    finder.parts
}

/// How long a message's header is, with its empty line; `raw` holds at least all of it. What has neither an empty line nor a field has none.
pub fn header_length(raw: &[u8]) -> usize {
    match empty_line(raw) {
        Some(empty) => empty.end,
        None if fields(raw).next().is_none() => 0,
        None => raw.len(),
    }
}

/// The first empty line.
fn empty_line(raw: &[u8]) -> Option<Range<usize>> {
    let mut start = 0;
    while let Some(length) = memchr(b'\n', &raw[start..]) {
        let end = start + length + 1;
        if matches!(&raw[start..end], b"\r\n" | b"\n") {
            return Some(start..end);
        }
        start = end;
    }
    None
}

/// So much of a line tells whether it is a delimiter: two hyphens, the longest boundary, and two more hyphens.
pub(super) const DELIMITER_BYTES_MAX: usize = BOUNDARY_BYTES_MAX + 4;

/// Whether `line` is a delimiter of `boundary`, and then whether it is the last one. Its first [`DELIMITER_BYTES_MAX`] bytes are enough. Behind white space
/// anything may follow.
pub(super) fn delimits(line: &[u8], boundary: &[u8]) -> Option<bool> {
    if line.len() < boundary.len() + 2 {
        return None;
    }
    match line.strip_prefix(b"--")?.strip_prefix(boundary)? {
        [b'-', b'-', ..] => Some(true),
        [] | [b'\r' | b'\n' | b' ' | b'\t', ..] => Some(false),
        _ => None,
    }
}

/// What a part is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The message, or one inside.
    Message,
    /// A part of a multipart.
    Part,
    /// A part of a multipart/digest: a message unless it says otherwise (RFC 2046 §5.1.5).
    DigestPart,
}

/// A line that ends parts.
#[derive(Clone, Copy)]
struct Delimiter {
    /// Position in [`Finder::open`] of the multipart that it belongs to.
    of: usize,
    /// Where the line begins, and where the next one does.
    line: Line,
    closes: bool,
}

/// Where a line begins, and where the next one does.
#[derive(Clone, Copy)]
struct Line {
    start: usize,
    end: usize,
}

struct Finder<'a> {
    raw: &'a [u8],
    parts: Vec<Part>,
    /// Boundaries of the multiparts that the place lies in, outermost first.
    open: Vec<Vec<u8>>,
    /// How many multiparts and messages the place lies in.
    depth: usize,
}

impl Finder<'_> {
    /// Reads what begins at `start` and all that is inside; gives the delimiter that ended it (`None`: the end of the message).
    fn entity(&mut self, start: usize, role: Role) -> Option<Delimiter> {
        let position = self.parts.len();
        self.parts.push(Part { header: start..start, body: start..start, kind: Kind::Leaf });
        let (header_end, ended) = self.header(start, role);
        let nothing = header_end..header_end;
        self.parts[position] = Part { header: start..header_end, body: nothing.clone(), kind: Kind::Leaf };
        let mime = MimeFields::read(&self.raw[start..header_end]);
        let has_room = self.depth + 1 < DEPTH_MAX && self.parts.len() < PARTS_MAX;
        if ended.is_some() {
            if has_room && mime.holds_message(role == Role::DigestPart) {
                self.parts[position].kind = Kind::Message(self.parts.len());
                self.parts.push(Part { header: nothing.clone(), body: nothing, kind: Kind::Leaf });
            }
            return ended;
        }
        let (kind, delimiter) = if let Some(boundary) = mime.boundary().filter(|_| has_room) {
            let child = if mime.is_digest() { Role::DigestPart } else { Role::Part };
            self.depth += 1;
            self.open.push(boundary);
            let found = self.multipart(header_end, child);
            self.depth -= 1;
            found
        } else if has_room && mime.holds_message(role == Role::DigestPart) {
            self.depth += 1;
            let inner = self.parts.len();
            let delimiter = self.entity(header_end, Role::Message);
            self.depth -= 1;
            (Kind::Message(inner), delimiter)
        } else {
            (Kind::Leaf, self.next_delimiter(header_end))
        };
        let last_inside = match &kind {
            Kind::Leaf => None,
            Kind::Message(inner) => Some(*inner),
            Kind::Multipart(children) => children.last().copied(),
        };
        // The line end of a delimiter that another follows at once is both's: what is inside is inside all the same.
        let inside_end = last_inside.map_or(start, |inside| self.parts[inside].body.end);
        let end = if position == 0 { self.raw.len() } else { self.content_end(delimiter, start).max(inside_end) };
        let body = header_end.min(end);
        self.parts[position] = Part { header: start..body, body: body..end, kind };
        delimiter
    }

    /// Where the header that begins at `start` ends, and the delimiter if one comes before its empty line.
    fn header(&self, start: usize, role: Role) -> (usize, Option<Delimiter>) {
        let mut line = start;
        while line < self.raw.len() {
            if let Some(delimiter) = self.delimiter_at(line) {
                let end = self.content_end(Some(delimiter), start);
                let is_text = role == Role::Message && fields(&self.raw[start..end]).next().is_none();
                // Text up to the delimiter: it is found again as the end of the body.
                return if is_text { (start, None) } else { (end, Some(delimiter)) };
            }
            let next = self.line_after(line);
            if matches!(&self.raw[line..next], b"\r\n" | b"\n") {
                return (next, None);
            }
            line = next;
        }
        let is_text = role == Role::Message && fields(&self.raw[start..]).next().is_none();
        (if is_text { start } else { self.raw.len() }, None)
    }

    /// Reads the parts of the multipart that was opened last.
    fn multipart(&mut self, body: usize, child: Role) -> (Kind, Option<Delimiter>) {
        let own = self.open.len() - 1;
        let mut children = Vec::new();
        let mut delimiter = self.next_delimiter(body);
        while let Some(opening) = delimiter.filter(|delimiter| delimiter.of == own && !delimiter.closes) {
            if opening.line.end >= self.raw.len() || self.parts.len() >= PARTS_MAX {
                delimiter = None;
                break;
            }
            children.push(self.parts.len());
            delimiter = self.entity(opening.line.end, child);
        }
        self.open.truncate(own);
        if let Some(closing) = delimiter.filter(|delimiter| delimiter.of == own) {
            delimiter = self.next_delimiter(closing.line.end); // the epilogue is nobody's
        }
        (if children.is_empty() { Kind::Leaf } else { Kind::Multipart(children) }, delimiter)
    }

    /// The first delimiter at or behind `from`, which is where a line begins.
    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.open.is_empty() || self.parts.len() >= PARTS_MAX {
            return None;
        }
        let first = std::iter::once(from);
        let others = memmem::find_iter(self.raw.get(from..)?, b"\n--").map(|at| from + at + 1);
        first.chain(others).find_map(|line| self.delimiter_at(line))
    }

    fn delimiter_at(&self, line: usize) -> Option<Delimiter> {
        let text = self.raw.get(line..).filter(|text| text.starts_with(b"--"))?;
        if self.parts.len() >= PARTS_MAX {
            return None;
        }
        let text = text.get(..DELIMITER_BYTES_MAX).unwrap_or(text);
        let text = memchr(b'\n', text).and_then(|end| text.get(..=end)).unwrap_or(text);
        self.open.iter().enumerate().rev().find_map(|(of, boundary)| {
            let closes = delimits(text, boundary)?;
            Some(Delimiter { of, line: Line { start: line, end: self.line_after(line) }, closes })
        })
    }

    fn line_after(&self, line: usize) -> usize {
        memchr(b'\n', &self.raw[line..]).map_or(self.raw.len(), |length| line + length + 1)
    }

    /// Where that ends which a delimiter ends; not before `floor`.
    fn content_end(&self, delimiter: Option<Delimiter>, floor: usize) -> usize {
        let Some(delimiter) = delimiter else { return self.raw.len() };
        let before = self.raw.get(floor..delimiter.line.start).unwrap_or_default();
        let content = before.strip_suffix(b"\n").map_or(before, |line| line.strip_suffix(b"\r").unwrap_or(line));
        floor + content.len()
    }
}
