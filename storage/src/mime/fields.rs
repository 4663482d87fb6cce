//! Header fields as they stand in a header block.

use std::cmp::Ordering;

use memchr::memchr;

/// One field: `Name: value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'h> {
    /// As written, without white space before the colon.
    pub name: &'h [u8],
    /// After the colon, folded lines and the last line end included.
    pub value: &'h [u8],
    /// All of it.
    pub raw: &'h [u8],
}

impl<'h> Field<'h> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
    /// The value in one line, without the space around it.
    pub fn unfolded(&self) -> Vec<u8> {
        unfold(self.value)
    }
}

/// The fields of a header block, in order; lines that are no field (an mbox `From ` line) are passed over.
pub(super) fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    lines(header).filter(|line| !line.name.is_empty())
}

/// All of a header block up to the blank line; what is no field has no name.
fn lines(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() || starts_with_blank_line(rest) {
            return None;
        }
        let (raw, after) = rest.split_at(field_end(rest));
        rest = after;
        let first_line = memchr(b'\n', raw).map_or(raw, |line_end| &raw[..line_end]);
        let colon = memchr(b':', first_line).filter(|_| !first_line[0].is_ascii_whitespace());
        let (name, value) = colon.map_or((&raw[..0], raw), |colon| (raw[..colon].trim_ascii_end(), &raw[colon + 1..]));
        Some(Field { name, value, raw })
    })
}

fn starts_with_blank_line(text: &[u8]) -> bool {
    text.starts_with(b"\r\n") || text.starts_with(b"\n")
}

/// Where the first line ends with all lines that continue it.
fn field_end(text: &[u8]) -> usize {
    let mut end = 0;
    loop {
        match memchr(b'\n', &text[end..]) {
            None => return text.len(),
            Some(line_end) => end += line_end + 1,
        }
        if !matches!(text.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
}

/// The last field `name`, which is the one that counts where only one should be.
pub(super) fn last_field<'h>(header: &'h [u8], name: &str) -> Option<Field<'h>> {
    fields(header).filter(|field| field.is(name)).last()
}

/// RFC 5322 §2.2.3: the line ends go, the white space stays.
pub(super) fn unfold(value: &[u8]) -> Vec<u8> {
    let mut unfolded: Vec<u8> = value.trim_ascii().to_vec();
    unfolded.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    unfolded
}

/// Only the header fields `names` (or all but them) of a raw header block, with the blank line at the end (HEADER.FIELDS).
pub fn select_fields(header: &[u8], names: &[String], invert: bool) -> Vec<u8> {
    let mut names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    names.sort_unstable_by(|one, other| compare_ignoring_case(one, other));
    let is_named = |name: &[u8]| names.binary_search_by(|candidate| compare_ignoring_case(candidate, name)).is_ok();
    let mut selected = collect(header, |name| is_named(name) != invert);
    selected.extend_from_slice(b"\r\n");
    selected
}

/// The fields that `wanted` wants, each ended by a line end. It is asked for lines that are no field, too, with an empty name.
pub(super) fn collect(header: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut collected = Vec::new();
    for line in lines(header).filter(|line| wanted(line.name)) {
        collected.extend_from_slice(line.raw);
        if !line.raw.ends_with(b"\n") {
            collected.extend_from_slice(b"\r\n"); // the header block is cut off
        }
    }
    collected
}

/// Orders field names.
pub(super) fn compare_ignoring_case(one: &[u8], other: &[u8]) -> Ordering {
    one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
}
