//! Numbers, strings, names and sets.

use bytes::BytesMut;

use super::Names;

/// Digits.
pub fn number(out: &mut BytesMut, number: u64) {
    let _ = (out, number);
    todo!()
}
/// `"…"`; only for text without CR, LF, NUL and 8-bit bytes (see [`string`]).
pub fn quoted(out: &mut BytesMut, text: &[u8]) {
    let _ = (out, text);
    todo!()
}
/// `{n}` and its line end: exactly `bytes` bytes must follow.
pub fn literal_header(out: &mut BytesMut, bytes: u64) {
    let _ = (out, bytes);
    todo!()
}
/// Quoted where possible, else a literal.
pub fn string(out: &mut BytesMut, bytes: &[u8]) {
    let _ = (out, bytes);
    todo!()
}
/// A string or NIL.
pub fn nstring(out: &mut BytesMut, bytes: Option<&[u8]>) {
    let _ = (out, bytes);
    todo!()
}
/// An atom where possible, else a string.
pub fn astring(out: &mut BytesMut, bytes: &[u8]) {
    let _ = (out, bytes);
    todo!()
}
/// A mailbox name given in UTF-8.
pub fn mailbox_name(out: &mut BytesMut, utf8: &str, names: Names) {
    let _ = (out, utf8, names);
    todo!()
}
/// `1:3,7`: ascending numbers with runs put together. An empty set has no form: write nothing instead.
pub fn uid_set(out: &mut BytesMut, numbers: impl IntoIterator<Item = u32>) {
    let _ = (out, numbers.into_iter().count());
    todo!()
}
