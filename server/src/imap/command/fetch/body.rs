//! What FETCH reads of message files: sections of bodies. Blocking; runs on the blocking pool.
//!
//! A large message of which only the whole, the header, the text or a range of these is wanted is never held whole: its header is
//! found, and the rest is streamed (`Part::Streamed`).

use std::{ops::Range, sync::Arc};

use index::Uid;
use storage::{
    Mailbox, MessageReader, StorageError,
    mime::{Found, Section, SectionText, Structure, UnknownEncoding, select_fields},
};

use crate::forward::Opened;

/// Messages up to this size are read whole: one or two requests, whatever is wanted of them.
pub const READ_WHOLE_BYTES: u64 = 256 * 1024;
/// How much of a large message is read at once.
pub const CHUNK_BYTES: usize = 256 * 1024;

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
    /// A range of [`Prepared::raw`].
    Held(Range<usize>),
    /// A range of the message, to be read while it is sent.
    Streamed(Range<u64>),
    /// How many bytes the section has, decoded.
    Size(u64),
    /// Its transfer encoding is not known, or broken.
    UnknownEncoding,
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

    /// Most bytes that reading a message ahead holds in memory (a streamed one: its header, which is small but for hostile ones).
    pub fn cost(&self, size: u64) -> u64 {
        if self.streams(size) { CHUNK_BYTES as u64 } else { size }
    }

    /// Opens a message and reads what is wanted.
    pub fn prepare(&self, mailbox: &Mailbox, uid: Uid) -> Result<Prepared, StorageError> {
        let reader = mailbox.open_message(uid)?;
        if self.streams(reader.len()) {
            return self.prepare_streamed(reader);
        }
        if self.needs_header_only() {
            return self.prepare_streamed(reader);
        }
        let raw = reader.read_all()?;
        if self.is_whole() {
            let parts = self.sections.iter().map(|wanted| held_part(Some(Found::Range(0..raw.len())), wanted.partial)).collect();
            return Ok(Prepared { parts, body_structure: None, reader: None, raw });
        }
        let structure = Structure::parse(&raw);
        let part = |wanted: &Wanted| match wanted.form {
            Form::AsItIs => held_part(structure.section(&wanted.section), wanted.partial),
            Form::Decoded | Form::DecodedSize => decoded_part(&structure, wanted),
        };
        let parts = self.sections.iter().map(part).collect();
        let body_structure = self.body_structure.then(|| structure.body_structure(false));
        Ok(Prepared { parts, body_structure, reader: None, raw })
    }

    fn prepare_streamed(&self, reader: MessageReader) -> Result<Prepared, StorageError> {
        let size = reader.len();
        let raw =
            if self.sections.iter().any(|wanted| wanted.section.text != SectionText::Whole) { reader.read_header()? } else { Vec::new() };
        let header_bytes = raw.len() as u64;
        let parts = self.sections.iter().map(|wanted| match &wanted.section.text {
            SectionText::Whole => Part::Streamed(window(0..size, wanted.partial)),
            SectionText::Text => Part::Streamed(window(header_bytes..size, wanted.partial)),
            SectionText::Header => held_part(Some(Found::Range(0..raw.len())), wanted.partial),
            SectionText::HeaderFields(names) => held_part(Some(Found::Owned(select_fields(&raw, names, false))), wanted.partial),
            SectionText::HeaderFieldsNot(names) => held_part(Some(Found::Owned(select_fields(&raw, names, true))), wanted.partial),
            SectionText::Mime => Part::Nil, // only parts have one (RFC 3501 §6.4.5)
        });
        let parts: Vec<Part> = parts.collect();
        let streams = parts.iter().any(|part| matches!(part, Part::Streamed(_)));
        Ok(Prepared { parts, body_structure: None, raw, reader: streams.then(|| Arc::new(Opened::new(reader))) })
    }
}

fn held_part(found: Option<Found>, partial: Option<(u64, u64)>) -> Part {
    match found {
        None => Part::Nil,
        Some(Found::Range(range)) => Part::Held(window_in_memory(range, partial)),
        Some(Found::Owned(bytes)) => match partial {
            None => Part::Owned(bytes),
            Some(_) => Part::Owned(partial_of(&bytes, partial).to_vec()),
        },
    }
}

fn decoded_part(structure: &Structure<'_>, wanted: &Wanted) -> Part {
    let decoded = structure.decoded_part(&wanted.section.part);
    match (decoded, wanted.form == Form::DecodedSize) {
        (Some(Err(UnknownEncoding)), _) => Part::UnknownEncoding,
        (None, true) => Part::Size(0),
        (None, false) => Part::Nil,
        (Some(Ok(bytes)), true) => Part::Size(bytes.len() as u64),
        (Some(Ok(bytes)), false) => held_part(Some(Found::Owned(bytes.into_owned())), wanted.partial),
    }
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
        assert_eq!(held_part(Some(Found::Owned(b"abcdef".to_vec())), Some((4, 9))), Part::Owned(b"ef".to_vec()));
        assert_eq!(held_part(None, Some((0, 1))), Part::Nil);
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
