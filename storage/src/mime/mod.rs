//! A message's structure: ENVELOPE, BODYSTRUCTURE, `BODY[section]`. What IMAP wants raw is ours; mail-parser decodes text and dates. No I/O.
//!
//! Input always has CRLF line ends.
//!
//! Invariants, each with the test that guards it:
//! - no bytes panic, ranges lie inside the message, sections nest (`any_message_has_a_structure`)
//! - time is linear in the size (`hostile_sizes_take_linear_time`)
//! - answers are what IMAP's grammar allows, whatever the message (`answers_are_well_formed`)

mod address;
mod binary;
mod decode;
mod envelope;
mod fields;
mod find;
mod preview;
mod section;
mod structure;
mod summary;
mod surrogate;
#[cfg(test)]
mod tests;
mod tokens;
mod write;

use std::borrow::Cow;

pub use binary::encode_binary;
pub use fields::{FieldNames, select_fields};
pub use find::header_length;
pub use summary::{SUMMARY_FIELDS, Summary, casemap, summarise};
pub use surrogate::Surrogate;

use structure::Part;

/// The header fields that are kept ready to send, because mail programs ask for them when they list a mailbox. Lower case.
pub const CACHED_FIELDS: &[&str] = &[
    "bcc",
    "cc",
    "content-transfer-encoding",
    "content-type",
    "date",
    "delivered-to",
    "disposition-notification-to",
    "from",
    "importance",
    "in-reply-to",
    "list-id",
    "list-post",
    "list-unsubscribe",
    "message-id",
    "mime-version",
    "newsgroups",
    "priority",
    "received-spf",
    "references",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
    "x-priority",
    "x-spam-flag",
];

/// A parsed message; borrows its bytes.
#[derive(Debug)]
pub struct Structure<'a> {
    raw: &'a [u8],
    /// Never empty; the first is the message.
    parts: Vec<Part>,
}

/// `1.2.MIME` and the like (RFC 9051 §6.4.5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Part numbers, each from 1; empty: the message itself.
    pub part: Vec<u32>,
    /// What of the part.
    pub text: SectionText,
}

/// What of a part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SectionText {
    /// `BODY[]`, `BODY[1]`.
    #[default]
    Whole,
    /// `HEADER`: of the message or of a message/rfc822 part, with the blank line.
    Header,
    /// `HEADER.FIELDS (…)`: only these, in the order of the message, and the blank line.
    HeaderFields(Vec<String>),
    /// `HEADER.FIELDS.NOT (…)`.
    HeaderFieldsNot(Vec<String>),
    /// `TEXT`: after the header.
    Text,
    /// `MIME`: the part's own MIME header, with the blank line.
    Mime,
}

/// Bytes of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A range of the message.
    Range(std::ops::Range<usize>),
    /// Put together (HEADER.FIELDS).
    Owned(Vec<u8>),
}

impl<'a> Structure<'a> {
    /// Parses; never fails: what is not MIME is text/plain.
    pub fn parse(raw: &'a [u8]) -> Structure<'a> {
        Structure { raw, parts: find::find_parts(raw) }
    }
    /// The message.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
    /// The parenthesised ENVELOPE (RFC 9051 §7.5.2): raw strings, encoded-words not decoded; quoted or literal as needed.
    pub fn envelope(&self) -> Vec<u8> {
        let mut out = Vec::new();
        envelope::write(&mut out, self.header());
        out
    }
    /// The parenthesised BODYSTRUCTURE (`extended`) or BODY.
    pub fn body_structure(&self, extended: bool) -> Vec<u8> {
        let mut out = Vec::new();
        structure::write(&mut out, self.raw, &self.parts, extended);
        out
    }
    /// Where a section is; `None`: no such part (IMAP answers NIL or an empty string).
    pub fn section(&self, section: &Section) -> Option<Found> {
        section::find(self.raw, &self.parts, section)
    }
    /// The fields of [`CACHED_FIELDS`] as they stand in the header.
    pub fn cached_headers(&self) -> Vec<u8> {
        let mut headers = Vec::new();
        let is_cached =
            |name: &[u8]| CACHED_FIELDS.binary_search_by(|cached| fields::compare_ignoring_case(cached.as_bytes(), name)).is_ok();
        fields::collect(self.header(), is_cached, &mut headers);
        headers
    }
    /// The part's content with its transfer encoding removed (RFC 3516); `None`: no such part; `Err`: unknown or broken encoding (UNKNOWN-CTE).
    pub fn decoded_part(&self, part: &[u32]) -> Option<Result<Cow<'a, [u8]>, UnknownEncoding>> {
        if part.is_empty() {
            return Some(Ok(Cow::Borrowed(self.raw))); // the message, which is in no encoding as a whole
        }
        section::locate(&self.parts, part).map(|position| decode::part(self.raw, &self.parts[position]))
    }
    /// Calls `visit` with each text part decoded to UTF-8 (SEARCH BODY/TEXT) until it says stop (`false`). HTML comes twice: as written, and as text.
    pub fn text_parts(&self, visit: &mut dyn FnMut(&str) -> bool) {
        for part in &self.parts {
            if !decode::visit_text(self.raw, part, visit) {
                return;
            }
        }
    }
    /// The beginning of its text, at most 200 characters in one line (PREVIEW, RFC 8970); empty where there is nothing to read.
    pub fn preview(&self) -> String {
        preview::preview(self.raw, &self.parts)
    }
    /// The values of header field `name` (of the message itself) decoded to UTF-8: encoded-words decoded, unfolded.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        fields::fields(self.header()).filter(|field| field.is(name)).map(|field| decode::header_value(&field)).collect()
    }
    /// Calls `visit` with each header field (`Name: value`, decoded and unfolded) of the message and of its parts (SEARCH TEXT) until it says stop (`false`).
    pub fn header_texts(&self, visit: &mut dyn FnMut(&str) -> bool) {
        for part in &self.parts {
            if !decode::visit_header(&self.raw[part.header.clone()], visit) {
                return;
            }
        }
    }
    /// The Date field as Unix seconds and the date as written there (year, month, day; RFC 9051 SENTON disregards time and zone).
    pub fn sent_date(&self) -> Option<(i64, (i16, u8, u8))> {
        decode::sent_date(self.header())
    }
    /// The message's own header.
    pub fn header_block(&self) -> HeaderBlock<'a> {
        HeaderBlock(self.header())
    }
    /// The message's own header as it stands, with the blank line.
    pub fn raw_header(&self) -> &'a [u8] {
        self.header()
    }
    fn header(&self) -> &'a [u8] {
        &self.raw[self.parts[0].header.clone()]
    }
}

/// A header block without what follows it, such as the cached fields: cheaper to look into than a message.
#[derive(Debug, Clone, Copy)]
pub struct HeaderBlock<'a>(&'a [u8]);

impl<'a> HeaderBlock<'a> {
    /// The fields of `raw` up to a blank line.
    pub fn new(raw: &'a [u8]) -> HeaderBlock<'a> {
        HeaderBlock(raw)
    }
    /// As [`Structure::header_values`].
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = String> + use<'a, 'n> {
        fields::fields(self.0).filter(move |field| field.is(name)).map(|field| decode::header_value(&field))
    }
    /// Each field (`Name: value`, decoded and unfolded) until `visit` says stop (`false`).
    pub fn texts(&self, visit: &mut dyn FnMut(&str) -> bool) {
        decode::visit_header(self.0, visit);
    }
    /// As [`Structure::sent_date`].
    pub fn sent_date(&self) -> Option<(i64, (i16, u8, u8))> {
        decode::sent_date(self.0)
    }
}

/// Unstructured header text in one line, encoded-words decoded (RFC 2047): a Subject, or the name of an address.
pub fn decode_words(raw: &[u8]) -> String {
    decode::words(raw)
}

/// The transfer encoding can't be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownEncoding;
