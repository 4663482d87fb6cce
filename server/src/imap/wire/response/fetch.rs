//! FETCH responses, item by item.

use bytes::BytesMut;
use index::{FlagSet, ModSeq, Uid};

/// Writes one `* n FETCH (…)`. It does not hold the buffer, so that a long literal can be sent piece by piece between two calls.
#[derive(Debug)]
#[must_use = "a FETCH response ends with `finish`"]
pub struct FetchWriter {
    first: bool,
}

impl FetchWriter {
    /// `* sequence FETCH (`.
    pub fn begin(out: &mut BytesMut, sequence: u32) -> FetchWriter {
        let _ = (out, sequence);
        todo!()
    }
    /// `UID n`.
    pub fn uid(&mut self, out: &mut BytesMut, uid: Uid) {
        let _ = (out, uid);
        todo!()
    }
    /// `FLAGS (…)`; `keywords`: the mailbox's names by position.
    pub fn flags(&mut self, out: &mut BytesMut, flags: FlagSet, keywords: &[String], recent: bool) {
        let _ = (out, flags, keywords, recent);
        todo!()
    }
    /// `INTERNALDATE "…"` in UTC, from Unix seconds.
    pub fn internal_date(&mut self, out: &mut BytesMut, seconds: i64) {
        let _ = (out, seconds);
        todo!()
    }
    /// `RFC822.SIZE n`.
    pub fn size(&mut self, out: &mut BytesMut, bytes: u64) {
        let _ = (out, bytes);
        todo!()
    }
    /// `MODSEQ (n)`.
    pub fn modseq(&mut self, out: &mut BytesMut, modseq: ModSeq) {
        let _ = (out, modseq);
        todo!()
    }
    /// `ENVELOPE …`, rendered with its parentheses.
    pub fn envelope(&mut self, out: &mut BytesMut, rendered: &[u8]) {
        let _ = (out, rendered);
        todo!()
    }
    /// `BODY …`, rendered with its parentheses, without extension data.
    pub fn body(&mut self, out: &mut BytesMut, rendered: &[u8]) {
        let _ = (out, rendered);
        todo!()
    }
    /// `BODYSTRUCTURE …`, rendered with its parentheses.
    pub fn body_structure(&mut self, out: &mut BytesMut, rendered: &[u8]) {
        let _ = (out, rendered);
        todo!()
    }
    /// `BODY[name]<origin> {bytes}`: exactly `bytes` bytes must be written next.
    pub fn section_header(&mut self, out: &mut BytesMut, name: &str, origin: Option<u64>, bytes: u64) {
        let _ = (out, name, origin, bytes);
        todo!()
    }
    /// `BODY[name]<origin>` with its bytes (quoted if they are short and plain); `None`: NIL, there is no such part.
    pub fn section(&mut self, out: &mut BytesMut, name: &str, origin: Option<u64>, bytes: Option<&[u8]>) {
        let _ = (out, name, origin, bytes);
        todo!()
    }
    /// `item {bytes}` for RFC822, RFC822.HEADER and RFC822.TEXT: exactly `bytes` bytes must be written next.
    pub fn literal_header(&mut self, out: &mut BytesMut, item: &str, bytes: u64) {
        let _ = (out, item, bytes);
        todo!()
    }
    /// `)` and the line end.
    pub fn finish(self, out: &mut BytesMut) {
        let _ = (out, self.first);
        todo!()
    }
}

/// `(\Seen keyword)`; `keywords`: the mailbox's names by position.
pub fn flag_list(out: &mut BytesMut, flags: FlagSet, keywords: &[String], recent: bool) {
    let _ = (out, flags, keywords, recent);
    todo!()
}
