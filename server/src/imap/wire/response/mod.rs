//! Responses, written straight into the output buffer: no value in between, no intermediate string.
//!
//! Invariants, each with the test that guards it:
//! - no text, wherever it comes from, starts a second line or ends a response early (`hostile_texts_stay_one_line`)
//! - what imap-codec can read of what we write, it reads whole (`tests`)

use std::fmt::{self, Write as _};

use base64::Engine as _;
use bytes::{BufMut, BytesMut};
use index::{ModSeq, Uid, UidValidity};

use self::fetch::{SYSTEM_FLAGS, parenthesised, writable};
use super::{
    command::{PartialRange, StatusItem},
    enabled::Separator,
};

mod acl;
mod code;
mod fetch;
mod metadata;
mod primitives;
mod quota;

pub use acl::{acl, list_rights, my_rights};
pub use code::Code;
pub use fetch::{FetchWriter, flag_list, flag_name, flag_named};
pub use metadata::{metadata, metadata_changed};
pub use primitives::{astring, literal_header, mailbox_name, nstring, number, quoted, string, uid_set};
pub use quota::{Resource, quota, quota_root};

/// How mailbox names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names {
    /// After ENABLE UTF8=ACCEPT, or as IMAP4rev2; else modified UTF-7 (RFC 3501 §5.1.3).
    pub utf8: bool,
    /// Between levels.
    pub separator: Separator,
}

/// The word of a status response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFC")]
pub enum Condition {
    Ok,
    No,
    Bad,
}

impl Condition {
    fn word(self) -> &'static str {
        match self {
            Condition::Ok => "OK",
            Condition::No => "NO",
            Condition::Bad => "BAD",
        }
    }
}

/// Longest human-readable text: it may quote what the client sent, and clients show it in one line.
const TEXT_BYTES_MAX: usize = 400;

/// `tag OK [code] text`. The text may come from anywhere: it is made one bounded line of ASCII.
pub fn tagged(out: &mut BytesMut, tag: &str, condition: Condition, code: Option<&Code<'_>>, text: impl fmt::Display) {
    out.put_slice(tag.as_bytes());
    out.put_u8(b' ');
    status_text(out, condition.word(), code, text);
}
/// `* OK [code] text`.
pub fn untagged(out: &mut BytesMut, condition: Condition, code: Option<&Code<'_>>, text: impl fmt::Display) {
    out.put_slice(b"* ");
    status_text(out, condition.word(), code, text);
}
/// `* BYE [code] text`.
pub fn bye(out: &mut BytesMut, code: Option<&Code<'_>>, text: impl fmt::Display) {
    out.put_slice(b"* ");
    status_text(out, "BYE", code, text);
}
/// `+ text`.
pub fn continuation(out: &mut BytesMut, text: &str) {
    out.put_slice(b"+ ");
    safe_text(out, text, false);
    out.put_slice(b"\r\n");
}
/// `+ base64` (a SASL challenge).
pub fn challenge(out: &mut BytesMut, challenge: &[u8]) {
    out.put_slice(b"+ ");
    out.put_slice(base64::engine::general_purpose::STANDARD.encode(challenge).as_bytes());
    out.put_slice(b"\r\n");
}
/// `* CAPABILITY …`.
pub fn capability(out: &mut BytesMut, capabilities: &[impl AsRef<str>]) {
    words(out, "* CAPABILITY", capabilities);
}
/// `* ENABLED …`; also with none.
pub fn enabled(out: &mut BytesMut, capabilities: &[&str]) {
    words(out, "* ENABLED", capabilities);
}
/// `* ID (…)`; no field: `NIL`.
pub fn id(out: &mut BytesMut, fields: &[(&str, &str)]) {
    out.put_slice(b"* ID ");
    if fields.is_empty() {
        out.put_slice(b"NIL");
    } else {
        for (position, (field, value)) in fields.iter().enumerate() {
            out.put_u8(if position == 0 { b'(' } else { b' ' });
            string(out, field.as_bytes());
            out.put_u8(b' ');
            string(out, value.as_bytes());
        }
        out.put_u8(b')');
    }
    out.put_slice(b"\r\n");
}
/// `* NAMESPACE` (RFC 2342): one personal namespace; those of other users and of everybody begin so, if there are any.
pub fn namespace(out: &mut BytesMut, others: Option<&str>, shared: Option<&str>, separator: Separator) {
    out.put_slice(b"* NAMESPACE");
    for prefix in [Some(""), others, shared] {
        match prefix {
            None => out.put_slice(b" NIL"),
            Some(prefix) => {
                out.put_slice(b" ((");
                quoted(out, separator.written(prefix).as_bytes());
                out.put_u8(b' ');
                quoted(out, separator.as_str().as_bytes());
                out.put_slice(b"))");
            }
        }
    }
    out.put_slice(b"\r\n");
}
/// `* FLAGS (…)`: the system flags and the mailbox's keywords.
pub fn flags(out: &mut BytesMut, keywords: &[String]) {
    out.put_slice(b"* FLAGS ");
    parenthesised(out, SYSTEM_FLAGS.iter().map(|(_, name)| *name).chain(writable(keywords.iter())));
    out.put_slice(b"\r\n");
}

/// One line of LIST.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListLine<'a> {
    /// As written: `\HasChildren`, `\Sent`.
    pub attributes: &'a [&'a str],
    /// UTF-8; empty for the answer to `LIST "" ""`.
    pub mailbox: &'a str,
    /// `("CHILDINFO" ("SUBSCRIBED"))`: a mailbox below matches, this one does not (RFC 5258 §3.5).
    pub subscribed_child: bool,
    /// `("OLDNAME" ("inbox"))`: what the client called the mailbox (RFC 9051 §6.3.9.7).
    pub old_name: Option<&'a str>,
}
/// `* LIST (…) "/" mailbox`.
pub fn list(out: &mut BytesMut, line: ListLine<'_>, names: Names) {
    list_line(out, "* LIST ", line, names);
}
/// `* LSUB (…) "/" mailbox`.
pub fn lsub(out: &mut BytesMut, line: ListLine<'_>, names: Names) {
    list_line(out, "* LSUB ", ListLine { subscribed_child: false, old_name: None, ..line }, names);
}
/// What STATUS says of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusValue<'a> {
    /// Most.
    Number(u64),
    /// MAILBOXID: made of letters, digits, `_` and `-` (RFC 8474 §7).
    ObjectId(&'a str),
}
impl From<u64> for StatusValue<'_> {
    fn from(number: u64) -> Self {
        StatusValue::Number(number)
    }
}
/// `* STATUS mailbox (MESSAGES 1 …)`.
pub fn status(out: &mut BytesMut, mailbox: &str, items: &[(StatusItem, StatusValue<'_>)], names: Names) {
    out.put_slice(b"* STATUS ");
    mailbox_name(out, mailbox, names);
    out.put_slice(b" (");
    for (position, (item, value)) in items.iter().enumerate() {
        if position > 0 {
            out.put_u8(b' ');
        }
        out.put_slice(status_item(*item).as_bytes());
        out.put_u8(b' ');
        match value {
            StatusValue::Number(value) => number(out, *value),
            StatusValue::ObjectId(id) => object_id(out, id),
        }
    }
    out.put_slice(b")\r\n");
}
/// `(id)`.
fn object_id(out: &mut BytesMut, id: &str) {
    out.put_u8(b'(');
    out.put_slice(id.as_bytes());
    out.put_u8(b')');
}
/// `* SEARCH 1 2 3`, with `(MODSEQ n)` if MODSEQ was searched for and something was found.
pub fn search(out: &mut BytesMut, numbers: impl IntoIterator<Item = u32>, modseq: Option<ModSeq>) {
    found(out, "* SEARCH", numbers, modseq);
}
/// `* SORT 5 3 4`, in the order asked for; MODSEQ as in [`search`].
pub fn sort(out: &mut BytesMut, numbers: impl IntoIterator<Item = u32>, modseq: Option<ModSeq>) {
    found(out, "* SORT", numbers, modseq);
}
fn found(out: &mut BytesMut, start: &str, numbers: impl IntoIterator<Item = u32>, modseq: Option<ModSeq>) {
    out.put_slice(start.as_bytes());
    let mut found = false;
    for value in numbers {
        found = true;
        out.put_u8(b' ');
        number(out, value.into());
    }
    if let Some(modseq) = modseq.filter(|_| found) {
        out.put_slice(b" (MODSEQ ");
        number(out, modseq.get());
        out.put_u8(b')');
    }
    out.put_slice(b"\r\n");
}

/// The results of SEARCH RETURN (RFC 4731); what was not asked for or not found is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFC")]
pub struct Esearch<'a> {
    pub min: Option<u32>,
    pub max: Option<u32>,
    /// In the order of the mailbox or of SORT; an empty slice is left out as the RFC wants.
    pub all: Option<&'a [u32]>,
    pub count: Option<u32>,
    pub modseq: Option<ModSeq>,
    /// RFC 9394: what was asked for and the results there; none are told as NIL.
    pub partial: Option<(PartialRange, &'a [u32])>,
}
fn esearch_start(out: &mut BytesMut, tag: &str, scope: &Scope, uid: bool) {
    out.put_slice(b"* ESEARCH (TAG ");
    quoted(out, tag.as_bytes());
    out.put_slice(&scope.0);
    out.put_u8(b')');
    if uid {
        out.put_slice(b" UID");
    }
}
/// Which mailbox an ESEARCH response is about (RFC 7377 §2.1); by default that is not said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(BytesMut);

impl Scope {
    /// ` MAILBOX "a" UIDVALIDITY 5`.
    pub fn new(mailbox: &str, uid_validity: UidValidity, names: Names) -> Scope {
        let mut out = BytesMut::new();
        out.put_slice(b" MAILBOX ");
        mailbox_name(&mut out, mailbox, names);
        out.put_slice(b" UIDVALIDITY ");
        number(&mut out, uid_validity.get().into());
        Scope(out)
    }
}

/// Results that come to a context or leave it, at one place (RFC 5267 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// From 1; 0: wherever the order of the mailbox has them.
    pub position: u32,
    /// Sequence numbers or UIDs in the requested order, at least one.
    pub numbers: Vec<u32>,
}
/// `* ESEARCH (TAG "a") UID REMOVEFROM (…) ADDTO (…)`; nothing where nothing moves.
pub fn esearch_update(out: &mut BytesMut, tag: &str, scope: &Scope, uid: bool, removed: &[Move], added: &[Move]) {
    if removed.is_empty() && added.is_empty() {
        return;
    }
    esearch_start(out, tag, scope, uid);
    for (name, moves) in [(" REMOVEFROM (", removed), (" ADDTO (", added)] {
        for (at, Move { position, numbers }) in moves.iter().enumerate() {
            out.put_slice(if at == 0 { name.as_bytes() } else { b" " });
            number(out, (*position).into());
            out.put_u8(b' ');
            uid_set(out, numbers.iter().copied());
        }
        if !moves.is_empty() {
            out.put_u8(b')');
        }
    }
    out.put_slice(b"\r\n");
}
/// `* ESEARCH (TAG "a") UID …`.
pub fn esearch(out: &mut BytesMut, tag: &str, uid: bool, result: Esearch<'_>) {
    esearch_start(out, tag, &Scope::default(), uid);
    esearch_results(out, result);
}
/// `* ESEARCH (TAG "a" MAILBOX "b" UIDVALIDITY 5) UID …` (RFC 7377 §2.1).
pub fn esearch_in(out: &mut BytesMut, tag: &str, scope: &Scope, result: Esearch<'_>) {
    esearch_start(out, tag, scope, true);
    esearch_results(out, result);
}
fn esearch_results(out: &mut BytesMut, result: Esearch<'_>) {
    let mut data = |name: &str, value: u64| {
        out.put_slice(name.as_bytes());
        number(out, value);
    };
    if let Some(min) = result.min {
        data(" MIN ", min.into());
    }
    if let Some(max) = result.max {
        data(" MAX ", max.into());
    }
    if let Some(count) = result.count {
        data(" COUNT ", count.into());
    }
    if let Some(modseq) = result.modseq {
        data(" MODSEQ ", modseq.get());
    }
    if let Some(all) = result.all.filter(|all| !all.is_empty()) {
        out.put_slice(b" ALL ");
        uid_set(out, all.iter().copied());
    }
    if let Some((range, numbers)) = result.partial {
        out.put_slice(b" PARTIAL (");
        for (position, end) in [range.one, range.other].into_iter().enumerate() {
            if position > 0 {
                out.put_u8(b':');
            }
            if range.from_end {
                out.put_u8(b'-');
            }
            number(out, end.into());
        }
        out.put_u8(b' ');
        match numbers {
            [] => out.put_slice(b"NIL"),
            numbers => uid_set(out, numbers.iter().copied()),
        }
        out.put_u8(b')');
    }
    out.put_slice(b"\r\n");
}
/// `* n EXISTS`.
pub fn exists(out: &mut BytesMut, messages: u32) {
    numbered(out, messages, " EXISTS\r\n");
}
/// `* n RECENT`.
pub fn recent(out: &mut BytesMut, messages: u32) {
    numbered(out, messages, " RECENT\r\n");
}
/// Which of the two meanings of VANISHED (RFC 7162 §3.2.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// `VANISHED`: the messages leave the view, and sequence numbers move.
    No,
    /// `VANISHED (EARLIER)`: the messages were in no view of this session.
    Yes,
}
/// `* VANISHED (EARLIER) 1:3,7`; runs ascending, at least one.
pub fn vanished(out: &mut BytesMut, earlier: Earlier, runs: impl IntoIterator<Item = (u32, u32)>) {
    out.put_slice(match earlier {
        Earlier::No => b"* VANISHED ",
        Earlier::Yes => b"* VANISHED (EARLIER) ",
    });
    primitives::uid_runs(out, runs);
    out.put_slice(b"\r\n");
}
/// `* n EXPUNGE`.
pub fn expunge(out: &mut BytesMut, sequence: u32) {
    numbered(out, sequence, " EXPUNGE\r\n");
}
/// UIDs as numbers, for [`search`] and [`Esearch`].
pub fn uid_numbers(uids: &[Uid]) -> impl Iterator<Item = u32> {
    uids.iter().map(|uid| uid.get())
}

fn status_text(out: &mut BytesMut, condition: &str, code: Option<&Code<'_>>, text: impl fmt::Display) {
    out.put_slice(condition.as_bytes());
    out.put_u8(b' ');
    if let Some(code) = code {
        out.put_u8(b'[');
        code.write(out);
        out.put_slice(b"] ");
    }
    safe_text(out, text, code.is_some());
    out.put_slice(b"\r\n");
}

/// Writes `text` as at least one and at most [`TEXT_BYTES_MAX`] printable ASCII characters.
fn safe_text(out: &mut BytesMut, text: impl fmt::Display, after_code: bool) {
    let mut writer = SafeText { out, left: TEXT_BYTES_MAX, may_start_with_bracket: after_code };
    let whole = write!(writer, "{text}").is_ok(); // an error only means that the limit is reached
    if whole && writer.left == TEXT_BYTES_MAX {
        out.put_u8(b'.'); // the grammar wants some text
    }
}

struct SafeText<'a> {
    out: &'a mut BytesMut,
    left: usize,
    may_start_with_bracket: bool,
}
impl fmt::Write for SafeText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let first = self.left == TEXT_BYTES_MAX;
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.out.put_u8(match u8::try_from(character) {
                Ok(b'[') if first && !self.may_start_with_bracket => b'(', // would be read as a response code
                Ok(byte) if byte.is_ascii_graphic() || byte == b' ' => byte,
                Ok(byte) if byte.is_ascii() => b' ',
                _ => b'?',
            });
        }
        Ok(())
    }
}

fn words(out: &mut BytesMut, start: &str, words: &[impl AsRef<str>]) {
    out.put_slice(start.as_bytes());
    for word in words {
        out.put_u8(b' ');
        out.put_slice(word.as_ref().as_bytes());
    }
    out.put_slice(b"\r\n");
}

fn numbered(out: &mut BytesMut, value: u32, rest: &str) {
    out.put_slice(b"* ");
    number(out, value.into());
    out.put_slice(rest.as_bytes());
}

fn list_line(out: &mut BytesMut, start: &str, line: ListLine<'_>, names: Names) {
    out.put_slice(start.as_bytes());
    parenthesised(out, line.attributes.iter().copied());
    out.put_u8(b' ');
    quoted(out, names.separator.as_str().as_bytes());
    out.put_u8(b' ');
    mailbox_name(out, line.mailbox, names);
    match line.old_name {
        Some(old) => {
            out.put_slice(b" (\"OLDNAME\" (");
            mailbox_name(out, old, names);
            out.put_slice(b"))");
        }
        None if line.subscribed_child => out.put_slice(b" (\"CHILDINFO\" (\"SUBSCRIBED\"))"),
        None => {}
    }
    out.put_slice(b"\r\n");
}

/// The word of a STATUS item.
pub fn status_item(item: StatusItem) -> &'static str {
    match item {
        StatusItem::Messages => "MESSAGES",
        StatusItem::Recent => "RECENT",
        StatusItem::UidNext => "UIDNEXT",
        StatusItem::UidValidity => "UIDVALIDITY",
        StatusItem::Unseen => "UNSEEN",
        StatusItem::Deleted => "DELETED",
        StatusItem::DeletedStorage => "DELETED-STORAGE",
        StatusItem::Size => "SIZE",
        StatusItem::HighestModSeq => "HIGHESTMODSEQ",
        StatusItem::AppendLimit => "APPENDLIMIT",
        StatusItem::MailboxId => "MAILBOXID",
    }
}

#[cfg(test)]
mod tests;
