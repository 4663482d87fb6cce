//! What a line says at its end about the literal that follows.

use super::TAIL_BYTES;

/// `{n}`, `{n+}` or `~{n}` at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announcement {
    /// `None`: a number beyond all reason.
    pub size: Option<u64>,
    pub non_sync: bool,
    pub binary: bool,
    /// Its own bytes.
    pub length: usize,
}

/// The literal that a line (without its end) announces.
pub(super) fn announcement(line: &[u8]) -> Option<Announcement> {
    let before = line.strip_suffix(b"}")?;
    let (before, non_sync) = before.strip_suffix(b"+").map_or((before, false), |before| (before, true));
    let digits_at = before.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |position| position + 1);
    let (before, digits) = before.split_at(digits_at);
    let size = digits.iter().try_fold(0_u64, |size, digit| size.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    let announced =
        |before: &[u8], size| Announcement { size, non_sync, binary: before.ends_with(b"~"), length: line.len() - before.len() };
    match before.strip_suffix(b"{") {
        _ if digits.is_empty() => None,
        Some(before) => {
            Some(announced(before, size)).map(|found| Announcement { length: found.length + usize::from(found.binary), ..found })
        }
        // The kept end of a skipped line is cut off here: the number is longer than any real one.
        None if before.is_empty() && line.len() >= TAIL_BYTES - 1 => Some(announced(before, None)),
        None => None,
    }
}
