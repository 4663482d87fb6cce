//! FETCH responses, item by item.

use bytes::{BufMut, BytesMut};
use index::{Flag, FlagSet, ModSeq, Uid};
use storage::EmailId;

use super::primitives::{literal_header, nstring, number};
use crate::imap::wire::{date::write_date_time, enabled::Enabled, parse::is_atom_char};

/// Writes one `* n FETCH (…)`. It does not hold the buffer, so that a long literal can be sent piece by piece between two calls.
#[derive(Debug)]
#[must_use = "a FETCH response ends with `finish`"]
pub struct FetchWriter {
    first: bool,
}

impl FetchWriter {
    /// `* sequence FETCH (`, or `* uid UIDFETCH (` for who enabled UIDONLY.
    pub fn begin(out: &mut BytesMut, enabled: Enabled, sequence: u32, uid: Uid) -> FetchWriter {
        out.put_slice(b"* ");
        if enabled.uid_only {
            number(out, uid.get().into());
            out.put_slice(b" UIDFETCH (");
        } else {
            number(out, sequence.into());
            out.put_slice(b" FETCH (");
        }
        FetchWriter { first: true }
    }
    /// `UID n`.
    pub fn uid(&mut self, out: &mut BytesMut, uid: Uid) {
        self.item(out, "UID ");
        number(out, uid.get().into());
    }
    /// `FLAGS (…)`; `keywords`: the mailbox's names by position.
    pub fn flags(&mut self, out: &mut BytesMut, flags: FlagSet, keywords: &[String], recent: bool) {
        self.item(out, "FLAGS ");
        flag_list(out, flags, keywords, recent);
    }
    /// `INTERNALDATE "…"` in UTC, from Unix seconds.
    pub fn internal_date(&mut self, out: &mut BytesMut, seconds: i64) {
        self.item(out, "INTERNALDATE ");
        write_date_time(out, seconds);
    }
    /// `SAVEDATE "…"` in UTC, from Unix seconds.
    pub fn save_date(&mut self, out: &mut BytesMut, seconds: i64) {
        self.item(out, "SAVEDATE ");
        write_date_time(out, seconds);
    }
    /// `EMAILID (id)`.
    pub fn email_id(&mut self, out: &mut BytesMut, id: EmailId) {
        self.item(out, "EMAILID ");
        super::object_id(out, &id.to_string());
    }
    /// `THREADID NIL`: messages are not put into threads beforehand (RFC 8474 §5.2).
    pub fn no_thread_id(&mut self, out: &mut BytesMut) {
        self.item(out, "THREADID NIL");
    }
    /// `PREVIEW "…"`; `None`: NIL.
    pub fn preview(&mut self, out: &mut BytesMut, preview: Option<&str>) {
        self.item(out, "PREVIEW ");
        nstring(out, preview.map(str::as_bytes));
    }
    /// `SNIPPET (FUZZY "…")`; `None`: NIL.
    pub fn snippet(&mut self, out: &mut BytesMut, preview: Option<&str>) {
        self.item(out, "SNIPPET (FUZZY ");
        nstring(out, preview.map(str::as_bytes));
        out.put_u8(b')');
    }
    /// `RFC822.SIZE n`.
    pub fn size(&mut self, out: &mut BytesMut, bytes: u64) {
        self.item(out, "RFC822.SIZE ");
        number(out, bytes);
    }
    /// `MODSEQ (n)`.
    pub fn modseq(&mut self, out: &mut BytesMut, modseq: ModSeq) {
        self.item(out, "MODSEQ (");
        number(out, modseq.get());
        out.put_u8(b')');
    }
    /// `ENVELOPE …`, rendered with its parentheses.
    pub fn envelope(&mut self, out: &mut BytesMut, rendered: &[u8]) {
        self.rendered(out, "ENVELOPE ", rendered);
    }
    /// `BODY …`, rendered with its parentheses, without extension data.
    pub fn body(&mut self, out: &mut BytesMut, rendered: &[u8]) {
        self.rendered(out, "BODY ", rendered);
    }
    /// `BODYSTRUCTURE …`, rendered with its parentheses.
    pub fn body_structure(&mut self, out: &mut BytesMut, rendered: &[u8]) {
        self.rendered(out, "BODYSTRUCTURE ", rendered);
    }
    /// `BODY[name]<origin> {bytes}`: exactly `bytes` bytes must be written next.
    pub fn section_header(&mut self, out: &mut BytesMut, name: &str, origin: Option<u64>, bytes: u64) {
        self.section_name(out, "BODY[", name, origin);
        literal_header(out, bytes);
    }
    /// `BODY[name]<origin>` with its bytes as a literal; `None`: NIL, there is no such part.
    pub fn section(&mut self, out: &mut BytesMut, name: &str, origin: Option<u64>, bytes: Option<&[u8]>) {
        self.section_name(out, "BODY[", name, origin);
        match bytes {
            Some(bytes) => {
                literal_header(out, bytes.len() as u64);
                out.put_slice(bytes);
            }
            None => out.put_slice(b"NIL"),
        }
    }
    /// `BINARY[part]<origin> {bytes}`, or `~{bytes}` if a NUL is among them: exactly `bytes` bytes must be written next.
    pub fn binary_header(&mut self, out: &mut BytesMut, part: &[u32], origin: Option<u64>, bytes: u64, has_nul: bool) {
        self.section_name(out, "BINARY[", &part_name(part), origin);
        if has_nul {
            out.put_u8(b'~');
        }
        literal_header(out, bytes);
    }
    /// `BINARY[part]<origin> NIL`: there is no such part.
    pub fn binary_nil(&mut self, out: &mut BytesMut, part: &[u32], origin: Option<u64>) {
        self.section_name(out, "BINARY[", &part_name(part), origin);
        out.put_slice(b"NIL");
    }
    /// `BINARY.SIZE[part] n`.
    pub fn binary_size(&mut self, out: &mut BytesMut, part: &[u32], bytes: u64) {
        self.section_name(out, "BINARY.SIZE[", &part_name(part), None);
        number(out, bytes);
    }
    /// Whether no item was written yet: a response must have one.
    pub fn is_empty(&self) -> bool {
        self.first
    }
    /// `item {bytes}` for RFC822, RFC822.HEADER and RFC822.TEXT: exactly `bytes` bytes must be written next.
    pub fn literal_header(&mut self, out: &mut BytesMut, item: &str, bytes: u64) {
        self.item(out, item);
        out.put_u8(b' ');
        literal_header(out, bytes);
    }
    /// `)` and the line end.
    pub fn finish(self, out: &mut BytesMut) {
        out.put_slice(b")\r\n");
    }

    fn item(&mut self, out: &mut BytesMut, name: &str) {
        if !std::mem::take(&mut self.first) {
            out.put_u8(b' ');
        }
        out.put_slice(name.as_bytes());
    }
    fn rendered(&mut self, out: &mut BytesMut, name: &str, rendered: &[u8]) {
        self.item(out, name);
        out.put_slice(rendered);
    }
    fn section_name(&mut self, out: &mut BytesMut, item: &str, name: &str, origin: Option<u64>) {
        self.item(out, item);
        out.put_slice(name.as_bytes());
        out.put_u8(b']');
        if let Some(origin) = origin {
            out.put_u8(b'<');
            number(out, origin);
            out.put_u8(b'>');
        }
        out.put_u8(b' ');
    }
}

/// `1.2` for the second part of the first.
fn part_name(part: &[u32]) -> String {
    part.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

/// The system flags in the order in which they are listed; Maildir's P (passed) has no name in IMAP.
pub(super) const SYSTEM_FLAGS: [(Flag, &str); 5] = [
    (Flag::Answered, "\\Answered"),
    (Flag::Flagged, "\\Flagged"),
    (Flag::Deleted, "\\Deleted"),
    (Flag::Seen, "\\Seen"),
    (Flag::Draft, "\\Draft"),
];

/// As clients read a system flag.
pub fn flag_name(flag: Flag) -> Option<&'static str> {
    SYSTEM_FLAGS.iter().find(|(known, _)| *known == flag).map(|(_, name)| *name)
}

/// The system flag of a name, in any case.
pub fn flag_named(name: &str) -> Option<Flag> {
    SYSTEM_FLAGS.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(flag, _)| *flag)
}

/// `(\Seen keyword)`; `keywords`: the mailbox's names by position.
pub fn flag_list(out: &mut BytesMut, flags: FlagSet, keywords: &[String], recent: bool) {
    let system = SYSTEM_FLAGS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name);
    let own = writable(flags.keywords().filter_map(|id| keywords.get(id.position())));
    parenthesised(out, system.chain(own).chain(recent.then_some("\\Recent")));
}

/// Keywords that may be written: names come from files that other programs write too, and must not break a response.
pub(super) fn writable<'a>(keywords: impl Iterator<Item = &'a String>) -> impl Iterator<Item = &'a str> {
    keywords.map(String::as_str).filter(|name| !name.is_empty() && name.bytes().all(is_atom_char))
}

pub(super) fn parenthesised<'a>(out: &mut BytesMut, words: impl Iterator<Item = &'a str>) {
    out.put_u8(b'(');
    for (position, word) in words.enumerate() {
        if position > 0 {
            out.put_u8(b' ');
        }
        out.put_slice(word.as_bytes());
    }
    out.put_u8(b')');
}
