//! Responses, written straight into the output buffer: no value in between, no intermediate string.

use std::fmt;

use bytes::BytesMut;
use index::{ModSeq, Uid};

use super::command::StatusItem;

mod code;
mod fetch;
mod primitives;

pub use code::Code;
pub use fetch::{FetchWriter, flag_list};
pub use primitives::{astring, literal_header, mailbox_name, nstring, number, quoted, string, uid_set};

/// How mailbox names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// RFC 3501 §5.1.3.
    #[default]
    ModifiedUtf7,
    /// After ENABLE UTF8=ACCEPT.
    Utf8,
}

/// The word of a status response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFC")]
pub enum Condition {
    Ok,
    No,
    Bad,
}

/// `tag OK [code] text`. The text may come from anywhere: it is made one bounded line of ASCII.
pub fn tagged(out: &mut BytesMut, tag: &str, condition: Condition, code: Option<&Code<'_>>, text: impl fmt::Display) {
    let _ = (out, tag, condition, code, text.to_string());
    todo!()
}
/// `* OK [code] text`.
pub fn untagged(out: &mut BytesMut, condition: Condition, code: Option<&Code<'_>>, text: impl fmt::Display) {
    let _ = (out, condition, code, text.to_string());
    todo!()
}
/// `* BYE [code] text`.
pub fn bye(out: &mut BytesMut, code: Option<&Code<'_>>, text: impl fmt::Display) {
    let _ = (out, code, text.to_string());
    todo!()
}
/// `+ text`.
pub fn continuation(out: &mut BytesMut, text: &str) {
    let _ = (out, text);
    todo!()
}
/// `+ base64` (a SASL challenge).
pub fn challenge(out: &mut BytesMut, challenge: &[u8]) {
    let _ = (out, challenge);
    todo!()
}
/// `* CAPABILITY …`.
pub fn capability(out: &mut BytesMut, capabilities: &[&str]) {
    let _ = (out, capabilities);
    todo!()
}
/// `* ENABLED …`; also with none.
pub fn enabled(out: &mut BytesMut, capabilities: &[&str]) {
    let _ = (out, capabilities);
    todo!()
}
/// `* ID (…)`; no field: `NIL`.
pub fn id(out: &mut BytesMut, fields: &[(&str, &str)]) {
    let _ = (out, fields);
    todo!()
}
/// `* NAMESPACE`: one personal namespace, nothing shared.
pub fn namespace(out: &mut BytesMut) {
    let _ = out;
    todo!()
}
/// `* FLAGS (…)`: the system flags and the mailbox's keywords.
pub fn flags(out: &mut BytesMut, keywords: &[String]) {
    let _ = (out, keywords);
    todo!()
}

/// One line of LIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLine<'a> {
    /// As written: `\HasChildren`, `\Sent`.
    pub attributes: &'a [&'a str],
    /// UTF-8; empty for the answer to `LIST "" ""`.
    pub mailbox: &'a str,
    /// `("CHILDINFO" ("SUBSCRIBED"))`: a mailbox below matches, this one does not (RFC 5258 §3.5).
    pub subscribed_child: bool,
}
/// `* LIST (…) "/" mailbox`.
pub fn list(out: &mut BytesMut, line: ListLine<'_>, names: Names) {
    let _ = (out, line, names);
    todo!()
}
/// `* LSUB (…) "/" mailbox`.
pub fn lsub(out: &mut BytesMut, line: ListLine<'_>, names: Names) {
    let _ = (out, line, names);
    todo!()
}
/// `* STATUS mailbox (MESSAGES 1 …)`.
pub fn status(out: &mut BytesMut, mailbox: &str, items: &[(StatusItem, u64)], names: Names) {
    let _ = (out, mailbox, items, names);
    todo!()
}
/// `* SEARCH 1 2 3`, with `(MODSEQ n)` if MODSEQ was searched for and something was found.
pub fn search(out: &mut BytesMut, numbers: impl IntoIterator<Item = u32>, modseq: Option<ModSeq>) {
    let _ = (out, numbers.into_iter().count(), modseq);
    todo!()
}

/// The results of SEARCH RETURN (RFC 4731); what was not asked for or not found is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFC")]
pub struct Esearch<'a> {
    pub min: Option<u32>,
    pub max: Option<u32>,
    /// Ascending; an empty slice is left out as the RFC wants.
    pub all: Option<&'a [u32]>,
    pub count: Option<u32>,
    pub modseq: Option<ModSeq>,
}
/// `* ESEARCH (TAG "a") UID …`.
pub fn esearch(out: &mut BytesMut, tag: &str, uid: bool, result: Esearch<'_>) {
    let _ = (out, tag, uid, result);
    todo!()
}
/// `* n EXISTS`.
pub fn exists(out: &mut BytesMut, messages: u32) {
    let _ = (out, messages);
    todo!()
}
/// `* n RECENT`.
pub fn recent(out: &mut BytesMut, messages: u32) {
    let _ = (out, messages);
    todo!()
}
/// `* n EXPUNGE`.
pub fn expunge(out: &mut BytesMut, sequence: u32) {
    let _ = (out, sequence);
    todo!()
}
/// UIDs as numbers, for [`search`] and [`Esearch`].
pub fn uid_numbers(uids: &[Uid]) -> impl Iterator<Item = u32> {
    uids.iter().map(|uid| uid.get())
}
