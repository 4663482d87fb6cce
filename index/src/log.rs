//! SQLite's write-ahead log, checked as SQLite checks it: which frames a reader would take, and whether one after them was written as well.
//!
//! `fileformat2.html` §4: a header of 32 bytes (magic, version, page size, checkpoint number, two salts, checksum), then frames of 24 bytes (page
//! number, size after a commit, the salts, checksum) and a page. Checksums go on from frame to frame; the last bit of the magic is their byte order.

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// A log that ends earlier than it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The frame that does not fit, from 0.
    pub frame: usize,
    /// Frames from there on that were written in the same round.
    pub lost: usize,
}

/// `None`: it is whole, or ends where a write was interrupted.
pub(crate) fn check(log: &[u8]) -> Option<Damage> {
    let (header, frames) = log.split_at_checked(HEADER)?;
    let number = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let page =
        usize::try_from(number(header, 8)?).ok().filter(|page| page.is_power_of_two() && (512..=65_536).contains(page)).unwrap_or(4096);
    let frames: Vec<&[u8]> = frames.chunks_exact(FRAME_HEADER + page).collect();
    let big_endian = number(header, 0)? & 1 == 1;
    let mut sum = checksum(header.get(..24)?, (0, 0), big_endian);
    let salts = header.get(16..24)?;
    if number(header, 0)? & !1 != MAGIC || sum != (number(header, 24)?, number(header, 28)?) {
        return (!frames.is_empty()).then_some(Damage { frame: 0, lost: frames.len() });
    }
    let mut bad = None;
    let mut later = 0;
    for (at, frame) in frames.iter().enumerate() {
        let same_round = frame.get(8..16) == Some(salts);
        if bad.is_some() {
            later += usize::from(same_round);
            continue;
        }
        sum = checksum(frame.get(..8)?, sum, big_endian);
        sum = checksum(frame.get(FRAME_HEADER..)?, sum, big_endian);
        if !same_round || sum != (number(frame, 16)?, number(frame, 20)?) {
            bad = Some((at, usize::from(same_round)));
        }
    }
    // A last frame alone that does not fit is one whose write was interrupted: nobody was told of it. Frames of an earlier round follow those of this one.
    let (frame, itself) = bad?;
    (later > 0).then_some(Damage { frame, lost: later + itself.max(1) })
}

fn checksum(bytes: &[u8], (mut first, mut second): (u32, u32), big_endian: bool) -> (u32, u32) {
    let (words, _) = bytes.as_chunks::<4>();
    let read = |word: [u8; 4]| if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
    for pair in words.chunks_exact(2) {
        first = first.wrapping_add(read(pair[0])).wrapping_add(second);
        second = second.wrapping_add(read(pair[1])).wrapping_add(first);
    }
    (first, second)
}
