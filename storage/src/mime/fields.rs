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
        // Names are short: going through one takes less than a call that looks for its end.
        let name_end = raw.iter().position(|byte| matches!(byte, b':' | b'\n'));
        let colon = name_end.filter(|end| raw[*end] == b':' && !raw[0].is_ascii_whitespace());
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

/// Names that are compared one by one: so few are compared sooner than looked up.
const FEW_NAMES: usize = 16;
/// Names and bytes of a set that is worth to be kept: what no mail program asks for.
const KEPT_NAMES_MAX: usize = 32;
const KEPT_NAME_BYTES_MAX: usize = 512;

/// A set of names of header fields, whose case makes no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNames(Vec<String>);

impl FieldNames {
    /// In any order, any number of times.
    pub fn new(names: &[String]) -> FieldNames {
        let mut names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        FieldNames(names)
    }
    /// Whether all of them are among [`super::CACHED_FIELDS`].
    pub fn are_cached(&self) -> bool {
        self.0.iter().all(|name| super::CACHED_FIELDS.contains(&name.as_str()))
    }
    /// One text for the set, from which it can be made again; `None`: it is so large or so odd that nothing is kept for it.
    pub fn key(&self) -> Option<String> {
        let key = self.0.join(":");
        let is_odd = self.0.iter().any(|name| name.is_empty() || name.contains(':'));
        (!is_odd && self.0.len() <= KEPT_NAMES_MAX && key.len() <= KEPT_NAME_BYTES_MAX).then_some(key)
    }
    /// The set with this [key](FieldNames::key).
    pub(crate) fn of_key(key: &str) -> FieldNames {
        FieldNames(key.split(':').map(str::to_owned).collect())
    }
    fn have(&self, name: &[u8]) -> bool {
        if self.0.len() <= FEW_NAMES {
            self.0.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(name))
        } else {
            self.0.binary_search_by(|one| compare_ignoring_case(one.as_bytes(), name)).is_ok()
        }
    }
    /// Appends these fields of a header block, and the blank line (HEADER.FIELDS).
    pub fn select(&self, header: &[u8], out: &mut Vec<u8>) {
        collect(header, |name| self.have(name), out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Only the header fields `names` (or all but them) of a raw header block, with the blank line at the end (HEADER.FIELDS).
pub fn select_fields(header: &[u8], names: &[String], invert: bool) -> Vec<u8> {
    let names = FieldNames::new(names);
    let mut selected = Vec::new();
    collect(header, |name| names.have(name) != invert, &mut selected);
    selected.extend_from_slice(b"\r\n");
    selected
}

/// Appends the fields that `wanted` wants, each ended by a line end. It is asked for lines that are no field, too, with an empty name.
pub(super) fn collect(header: &[u8], wanted: impl Fn(&[u8]) -> bool, collected: &mut Vec<u8>) {
    for line in lines(header).filter(|line| wanted(line.name)) {
        collected.extend_from_slice(line.raw);
        if !line.raw.ends_with(b"\n") {
            collected.extend_from_slice(b"\r\n"); // the header block is cut off
        }
    }
}

/// Orders field names.
pub(super) fn compare_ignoring_case(one: &[u8], other: &[u8]) -> Ordering {
    one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
}
