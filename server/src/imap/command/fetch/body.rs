//! What FETCH reads of message files: sections of bodies. Blocking; runs on the blocking pool.
//!
//! A large message of which only the whole, the header, the text or a range of these is wanted is never held whole: its header is
//! found, and the rest is streamed (`Part::Streamed`).
//!
//! Invariants, each with the test that guards it:
//! - a part is decoded once, however many ranges of it are wanted (`a_part_is_held_once_however_many_ranges_of_it_are_wanted`)
//! - header fields of one message take little more than it has, however often they are wanted (`fields_of_one_message_are_made_within_bounds`)
//! - a message with a long header is not read ahead (`a_long_header_is_not_read_ahead`)

use std::{borrow::Cow, ops::Range, sync::Arc};

use index::Uid;
use storage::{
    Mailbox, MessageReader, StorageError,
    mime::{Found, Section, SectionText, Structure, select_fields},
};

use crate::forward::Opened;

/// Messages up to this size are read whole: one or two requests, whatever is wanted of them.
pub const READ_WHOLE_BYTES: u64 = 256 * 1024;
/// How much of a large message is read at once.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// What a message that is read ahead may take beside what [`Request::cost`] knows of it before: few headers have as much.
const BESIDE_BYTES: usize = 256 * 1024;

/// One section that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub section: Section,
    /// Offset and length in it.
    pub partial: Option<(u64, u64)>,
    /// What of it.
    pub form: Form,
}

/// What is wanted of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Its bytes.
    AsItIs,
    /// Its bytes without their transfer encoding (BINARY).
    Decoded,
    /// How many these are (BINARY.SIZE).
    DecodedSize,
}

/// All that a FETCH reads of each message.
#[derive(Debug, Default)]
pub struct Request {
    /// Sections, in the order of the items that answer them.
    pub sections: Vec<Wanted>,
    /// `BODY` without extension data.
    pub body_structure: bool,
}

/// Bytes of one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// There is no such part.
    Nil,
    /// Put together.
    Owned(Vec<u8>),
    /// A range of a decoded part.
    Decoded(Arc<Vec<u8>>, Range<usize>),
    /// A range of [`Prepared::raw`].
    Held(Range<usize>),
    /// A range of the message, to be read while it is sent.
    Streamed(Range<u64>),
    /// How many bytes the section has, decoded.
    Size(u64),
    /// Its transfer encoding is not known, or broken.
    UnknownEncoding,
    /// The command wants more of one message's header fields than is held.
    TooMuch,
}

/// When a message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Beside others, before it is its turn.
    Ahead,
    /// By itself.
    AtItsTurn,
}

/// What was read of one message.
#[derive(Debug)]
pub struct Prepared {
    /// The message or its header.
    pub raw: Vec<u8>,
    /// As in [`Request::sections`].
    pub parts: Vec<Part>,
    /// If [`Request::body_structure`].
    pub body_structure: Option<Vec<u8>>,
    /// Where a part is [`Part::Streamed`].
    pub reader: Option<Arc<Opened>>,
}

impl Request {
    /// Whether no message file is needed.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && !self.body_structure
    }

    /// Whether a message of this size is streamed instead of held.
    fn streams(&self, size: u64) -> bool {
        let streams = |wanted: &Wanted| wanted.section.part.is_empty() && wanted.form == Form::AsItIs;
        size > READ_WHOLE_BYTES && !self.body_structure && self.sections.iter().all(streams)
    }

    /// Whether whole messages are wanted, whose structure does not matter.
    fn is_whole(&self) -> bool {
        let whole = |wanted: &Wanted| {
            wanted.section.part.is_empty() && wanted.section.text == SectionText::Whole && wanted.form != Form::DecodedSize
        };
        !self.body_structure && self.sections.iter().all(whole)
    }

    /// Whether nothing below the header is wanted.
    fn needs_header_only(&self) -> bool {
        let header =
            |text: &SectionText| matches!(text, SectionText::Header | SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_));
        !self.body_structure && self.sections.iter().all(|Wanted { section, .. }| section.part.is_empty() && header(&section.text))
    }

    /// Most bytes that reading a message ahead holds in memory.
    pub fn cost(&self, size: u64) -> u64 {
        let held = if self.streams(size) { CHUNK_BYTES as u64 } else { size };
        let selects = |wanted: &&Wanted| matches!(wanted.section.text, SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_));
        let selected = size.saturating_mul(self.sections.iter().filter(selects).count() as u64);
        held.saturating_add(selected.min(BESIDE_BYTES as u64))
    }

    /// Opens a message and reads what is wanted; `None`: it would take more than its cost ahead of its turn.
    pub fn prepare(&self, mailbox: &Mailbox, uid: Uid, when: When) -> Result<Option<Prepared>, StorageError> {
        let reader = mailbox.open_message(uid)?;
        if self.streams(reader.len()) || self.needs_header_only() {
            return self.prepare_streamed(reader, when);
        }
        let raw = reader.read_all()?;
        if self.is_whole() {
            let parts = self.sections.iter().map(|wanted| held_part(0..raw.len(), wanted.partial)).collect();
            return Ok(Some(Prepared { parts, body_structure: None, reader: None, raw }));
        }
        let structure = Structure::parse(&raw);
        let Some(parts) = Making::new(&raw, when).all(&self.sections, &structure) else { return Ok(None) };
        let body_structure = self.body_structure.then(|| structure.body_structure(false));
        Ok(Some(Prepared { parts, body_structure, reader: None, raw }))
    }

    fn prepare_streamed(&self, reader: MessageReader, when: When) -> Result<Option<Prepared>, StorageError> {
        let size = reader.len();
        let raw = match self.sections.iter().any(|wanted| wanted.section.text != SectionText::Whole) {
            true if when == When::AtItsTurn => reader.read_header()?,
            true => match reader.read_header_up_to(BESIDE_BYTES)? {
                Some(header) => header,
                None => return Ok(None),
            },
            false => Vec::new(),
        };
        let header_bytes = raw.len() as u64;
        let selected = |names: &[String], invert| Some(Found::Owned(select_fields(&raw, names, invert)));
        let mut making = Making::new(&raw, when);
        let mut parts = Vec::with_capacity(self.sections.len());
        for wanted in &self.sections {
            parts.push(match &wanted.section.text {
                SectionText::Whole => Part::Streamed(window(0..size, wanted.partial)),
                SectionText::Text => Part::Streamed(window(header_bytes..size, wanted.partial)),
                SectionText::Header => held_part(0..raw.len(), wanted.partial),
                SectionText::HeaderFields(names) => making.fields(|| selected(names, false), wanted.partial),
                SectionText::HeaderFieldsNot(names) => making.fields(|| selected(names, true), wanted.partial),
                SectionText::Mime => Part::Nil, // only parts have one (RFC 3501 §6.4.5)
            });
        }
        if making.is_too_much_ahead(&parts) {
            return Ok(None);
        }
        let streams = parts.iter().any(|part| matches!(part, Part::Streamed(_)));
        Ok(Some(Prepared { parts, body_structure: None, raw, reader: streams.then(|| Arc::new(Opened::new(reader))) }))
    }
}

/// The parts of one message, while they are made.
struct Making<'a> {
    raw: &'a [u8],
    when: When,
    /// How many bytes of header fields there may be yet.
    room: usize,
    decoded: Vec<(&'a [u32], Part)>,
}

impl<'a> Making<'a> {
    fn new(raw: &'a [u8], when: When) -> Making<'a> {
        let room = if when == When::Ahead { BESIDE_BYTES } else { raw.len() + BESIDE_BYTES };
        Making { raw, when, room, decoded: Vec::new() }
    }

    /// `None`: see [`Request::prepare`].
    fn all(mut self, sections: &'a [Wanted], structure: &Structure<'_>) -> Option<Vec<Part>> {
        let part = |wanted: &'a Wanted| match (wanted.form, &wanted.section.text) {
            (Form::AsItIs, SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_)) => {
                self.fields(|| structure.section(&wanted.section), wanted.partial)
            }
            (Form::AsItIs, _) => match structure.section(&wanted.section) {
                Some(Found::Range(range)) => held_part(range, wanted.partial),
                Some(Found::Owned(_)) | None => Part::Nil, // only fields are put together
            },
            (Form::Decoded, _) => self.decoded(structure, &wanted.section.part).narrowed(wanted.partial),
            (Form::DecodedSize, _) => self.decoded(structure, &wanted.section.part).size(),
        };
        let parts: Vec<Part> = sections.iter().map(part).collect();
        (!self.is_too_much_ahead(&parts)).then_some(parts)
    }

    fn is_too_much_ahead(&self, parts: &[Part]) -> bool {
        self.when == When::Ahead && parts.contains(&Part::TooMuch)
    }

    /// Header fields, if there is room for them: they are not even looked for where there is none.
    fn fields(&mut self, select: impl FnOnce() -> Option<Found>, partial: Option<(u64, u64)>) -> Part {
        if self.room == 0 {
            return Part::TooMuch;
        }
        let Some(Found::Owned(mut selected)) = select() else { return Part::Nil };
        if partial.is_some() {
            selected = partial_of(&selected, partial).to_vec();
        }
        let left = self.room.checked_sub(selected.len());
        self.room = left.unwrap_or_default();
        left.map_or(Part::TooMuch, |_| Part::Owned(selected))
    }

    /// A decoded part, whole.
    fn decoded(&mut self, structure: &Structure<'_>, path: &'a [u32]) -> Part {
        if let Some((_, part)) = self.decoded.iter().find(|(known, _)| *known == path) {
            return part.clone();
        }
        let part = match structure.decoded_part(path) {
            None => Part::Nil,
            Some(Err(_)) => Part::UnknownEncoding,
            Some(Ok(Cow::Owned(bytes))) => {
                let whole = 0..bytes.len();
                Part::Decoded(Arc::new(bytes), whole)
            }
            Some(Ok(Cow::Borrowed(bytes))) => match bytes.as_ptr().addr().checked_sub(self.raw.as_ptr().addr()) {
                Some(start) => Part::Held(start..start + bytes.len()), // of the message
                None => Part::Nil,
            },
        };
        self.decoded.push((path, part.clone()));
        part
    }
}

impl Part {
    /// The bytes that `<offset.length>` wants.
    fn narrowed(self, partial: Option<(u64, u64)>) -> Part {
        match self {
            Part::Held(range) => Part::Held(window_in_memory(range, partial)),
            Part::Decoded(bytes, range) => Part::Decoded(bytes, window_in_memory(range, partial)),
            part => part,
        }
    }
    fn size(self) -> Part {
        match self {
            Part::Held(range) | Part::Decoded(_, range) => Part::Size(range.len() as u64),
            Part::Nil => Part::Size(0),
            part => part,
        }
    }
}

fn held_part(range: Range<usize>, partial: Option<(u64, u64)>) -> Part {
    Part::Held(window_in_memory(range, partial))
}

/// The bytes of `range` that `<offset.length>` wants: fewer, or none, beyond its end.
fn window(range: Range<u64>, partial: Option<(u64, u64)>) -> Range<u64> {
    let Some((offset, length)) = partial else { return range };
    let start = range.start.saturating_add(offset).min(range.end);
    start..start.saturating_add(length).min(range.end)
}

fn window_in_memory(range: Range<usize>, partial: Option<(u64, u64)>) -> Range<usize> {
    let window = window(range.start as u64..range.end as u64, partial);
    // The window lies within the range, whose ends are usize.
    usize::try_from(window.start).unwrap_or(range.end)..usize::try_from(window.end).unwrap_or(range.end)
}

/// The bytes of a section that `<offset.length>` wants.
pub fn partial_of(bytes: &[u8], partial: Option<(u64, u64)>) -> &[u8] {
    bytes.get(window_in_memory(0..bytes.len(), partial)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_beyond_the_end_is_short_or_empty() {
        assert_eq!(window(10..100, None), 10..100);
        assert_eq!(window(10..100, Some((0, 20))), 10..30);
        assert_eq!(window(10..100, Some((80, 20))), 90..100);
        assert_eq!(window(10..100, Some((90, 1))), 100..100);
        assert_eq!(window(10..100, Some((u64::MAX, u64::MAX))), 100..100);
        let mut making = Making::new(b"", When::Ahead);
        assert_eq!(making.fields(|| Some(Found::Owned(b"abcdef".to_vec())), Some((4, 9))), Part::Owned(b"ef".to_vec()));
        assert_eq!(making.fields(|| None, Some((0, 1))), Part::Nil);
    }

    fn many(section: &Section, form: Form) -> Vec<Wanted> {
        (0..256).map(|offset| Wanted { section: section.clone(), partial: Some((offset, u64::MAX)), form }).collect()
    }

    #[test]
    fn a_part_is_held_once_however_many_ranges_of_it_are_wanted() {
        for encoding in ["quoted-printable", "7bit"] {
            let raw = format!("Content-Transfer-Encoding: {encoding}\r\n\r\n{}", "a=3Db\r\n".repeat(1000)).into_bytes();
            let sections = many(&Section { part: vec![1], text: SectionText::Whole }, Form::Decoded);
            let parts = Making::new(&raw, When::Ahead).all(&sections, &Structure::parse(&raw)).unwrap();
            let mut held: Vec<*const u8> = Vec::new();
            for (part, offset) in parts.iter().zip(0..) {
                let (bytes, range) = match part {
                    Part::Decoded(bytes, range) => (bytes.as_slice(), range.clone()),
                    Part::Held(range) => (raw.as_slice(), range.clone()),
                    part => panic!("{part:?}"),
                };
                let decoded = if encoding == "7bit" { "a=3Db\r\n" } else { "a=b\r\n" }.repeat(1000);
                assert_eq!(bytes[range], decoded.as_bytes()[offset..]);
                held.push(bytes.as_ptr());
            }
            held.dedup();
            assert_eq!(held.len(), 1, "{encoding}");
        }
    }

    #[test]
    fn fields_of_one_message_are_made_within_bounds() {
        let raw = format!("Subject: {}\r\n\r\n", "x".repeat(BESIDE_BYTES * 3 / 4)).into_bytes();
        let mut sections = many(&Section { part: vec![], text: SectionText::HeaderFieldsNot(vec!["From".to_owned()]) }, Form::AsItIs);
        let structure = Structure::parse(&raw);
        assert!(Making::new(&raw, When::Ahead).all(&sections, &structure).is_none());
        let parts = Making::new(&raw, When::AtItsTurn).all(&sections, &structure).unwrap();
        let made = parts.iter().map(|part| if let Part::Owned(bytes) = part { bytes.len() } else { 0 }).sum::<usize>();
        assert!(made > raw.len() && made <= raw.len() + BESIDE_BYTES, "{made}");
        assert!(parts.contains(&Part::TooMuch));
        sections.truncate(1);
        assert!(Making::new(&raw, When::Ahead).all(&sections, &structure).is_some(), "as most commands have it");
    }

    #[test]
    fn only_large_messages_are_streamed_and_only_without_parts() {
        let whole =
            Request { sections: vec![Wanted { section: Section::default(), partial: None, form: Form::AsItIs }], body_structure: false };
        assert!(whole.streams(READ_WHOLE_BYTES + 1) && !whole.streams(READ_WHOLE_BYTES));
        let part = Section { part: vec![1], text: SectionText::Whole };
        let part = Request { sections: vec![Wanted { section: part, partial: None, form: Form::AsItIs }], body_structure: false };
        assert!(!part.streams(READ_WHOLE_BYTES + 1));
        assert_eq!(part.cost(9_000_000), 9_000_000);
    }
}
