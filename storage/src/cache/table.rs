//! Where entries are, in memory of a fixed size; and which keys were asked for of late.
//!
//! 16 bytes for every 4 KiB of the cache (0.4 %: 8 MiB for 2 GiB), in sets of eight. An entry that finds its set full takes the place of the oldest. A slot has 32 bits
//! of its key: the entry itself says whether it is the one that is meant.

use std::{fmt, io};

use memmap2::MmapMut;

use super::Key;

/// Bytes of the cache for which there is a slot: less than most messages have.
const BYTES_PER_SLOT: u64 = 4_096;
const WAYS: usize = 8;
const SLOT_BYTES: usize = size_of::<u128>();
/// Keys that are remembered after they were asked for once: 256 KiB, some 65,000 messages of all users.
const SEEN_MAX: usize = 1 << 16;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: usize,
    /// The lower half of the segment's generation.
    pub generation: u32,
    /// In the segment, in bytes.
    pub offset: u64,
    /// Of its content.
    pub bytes: u32,
}

/// See the module.
pub(super) struct Table {
    /// Zero: no slot. Else generation, position, length and part of the key, 32 bits each.
    slots: MmapMut,
    sets: usize,
    unit: u64,
    segment_bytes: u64,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("sets", &self.sets).finish_non_exhaustive()
    }
}

/// The lower 32 bits.
pub(super) fn low(number: u128) -> u32 {
    u32::try_from(number & u128::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn tag(slot: u128) -> u32 {
    low(slot)
}
fn generation(slot: u128) -> u32 {
    low(slot >> 96)
}
fn position(slot: u128) -> u32 {
    low(slot >> 64)
}

impl Table {
    /// An empty one for a cache of so many bytes, whose segments are filled in multiples of `unit`.
    pub fn new(bytes: u64, segment_bytes: u64, unit: u64) -> io::Result<Table> {
        let sets = usize::try_from(bytes / BYTES_PER_SLOT).unwrap_or(usize::MAX).div_ceil(WAYS).max(1);
        Ok(Table { slots: MmapMut::map_anon(sets.saturating_mul(WAYS * SLOT_BYTES))?, sets, unit, segment_bytes })
    }

    /// Where the entry may be.
    pub fn get(&mut self, key: Key) -> Option<Place> {
        let slot = u128::from_le_bytes(*self.find(key)?);
        let at = u64::from(position(slot)).saturating_mul(self.unit);
        Some(Place {
            segment: usize::try_from(at / self.segment_bytes).ok()?,
            generation: generation(slot),
            offset: at % self.segment_bytes,
            bytes: low(slot >> 32),
        })
    }
    /// Remembers where the entry is, unless its set is full of newer ones. `newest`: the generation that is being filled; `is_dropped`: this one is not there any more.
    pub fn insert(&mut self, key: Key, place: Place, newest: u32, is_dropped: impl Fn(u32) -> bool) {
        let at = (place.segment as u64).saturating_mul(self.segment_bytes).saturating_add(place.offset) / self.unit;
        let Ok(at) = u32::try_from(at) else { return };
        let slot = [place.generation, at, place.bytes, tag(key.0)].iter().fold(0_u128, |slot, part| slot << 32 | u128::from(*part));
        let age = |slot: u128| {
            let is_free = slot == 0 || is_dropped(generation(slot));
            // The greatest age is overwritten.
            if is_free { (u32::MAX, u32::MAX) } else { (newest.wrapping_sub(generation(slot)), u32::MAX - position(slot)) }
        };
        let same = |slot: &[u8; SLOT_BYTES]| *slot != [0; SLOT_BYTES] && tag(u128::from_le_bytes(*slot)) == tag(key.0);
        let set = self.set(key);
        let chosen = match set.iter().position(same) {
            Some(same) => set.get_mut(same),
            None => {
                let oldest = set.iter_mut().max_by_key(|there| age(u128::from_le_bytes(**there)));
                oldest.filter(|there| age(u128::from_le_bytes(**there)) > age(slot))
            }
        };
        if let Some(chosen) = chosen {
            *chosen = slot.to_le_bytes();
        }
    }
    /// Forgets the entry, if it is still said to be there: its slot may have another by now.
    pub fn remove(&mut self, key: Key, place: Place) {
        if self.get(key) == Some(place)
            && let Some(slot) = self.find(key)
        {
            *slot = [0; SLOT_BYTES];
        }
    }

    fn set(&mut self, key: Key) -> &mut [[u8; SLOT_BYTES]] {
        let sets = self.sets as u128;
        let set = usize::try_from((key.0 >> 32) % sets).unwrap_or(0);
        let (slots, _) = self.slots.as_chunks_mut::<SLOT_BYTES>();
        slots.get_mut(set * WAYS..(set + 1) * WAYS).unwrap_or_default()
    }
    fn find(&mut self, key: Key) -> Option<&mut [u8; SLOT_BYTES]> {
        let is_it = |slot: &&mut [u8; SLOT_BYTES]| **slot != [0; SLOT_BYTES] && tag(u128::from_le_bytes(**slot)) == tag(key.0);
        self.set(key).iter_mut().find(is_it)
    }
}

/// Keys that were asked for of late, by a part of each; a few are forgotten early.
#[derive(Debug)]
pub(super) struct Seen(Vec<u32>);

impl Default for Seen {
    fn default() -> Seen {
        Seen(vec![0; SEEN_MAX])
    }
}

impl Seen {
    /// Whether it was asked for before; remembers it.
    pub fn again(&mut self, key: Key) -> bool {
        let at = usize::try_from((key.0 >> 32) % (SEEN_MAX as u128)).unwrap_or(0);
        let tag = tag(key.0).max(1);
        self.0.get_mut(at).is_some_and(|seen| std::mem::replace(seen, tag) == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn place(generation: u32, offset: u64) -> Place {
        Place { segment: 3, generation, offset, bytes: 1_234 }
    }

    #[test]
    fn what_is_put_in_is_there_until_it_is_removed_or_the_oldest_of_a_full_set() {
        let mut table = Table::new(4_096, SEGMENT, 64).unwrap();
        let key = |number: u128| Key(number | number << 100);
        table.insert(key(1), place(1, 64), 1, |_| false);
        assert_eq!(table.get(key(1)), Some(place(1, 64)));
        assert_eq!(table.get(key(2)), None);
        table.insert(key(1), place(2, 128), 2, |_| false);
        assert_eq!(table.get(key(1)), Some(place(2, 128)), "the newer place counts");
        table.remove(key(1), place(1, 64));
        assert_eq!(table.get(key(1)), Some(place(2, 128)), "what was found damaged was elsewhere");
        table.remove(key(1), place(2, 128));
        assert_eq!(table.get(key(1)), None);
        // One set of eight.
        for number in 1..=8_u32 {
            table.insert(key(number.into()), place(number, 64), number, |_| false);
        }
        table.insert(key(9), place(9, 64), 9, |_| false);
        assert_eq!(table.get(key(1)), None, "the oldest made room");
        assert!((2..=9).all(|number| table.get(key(number)).is_some()));
        table.insert(key(10), place(10, 64), 10, |generation| generation == 5);
        assert_eq!(table.get(key(5)), None, "what was dropped goes first");
        assert!(table.get(key(2)).is_some());
    }

    #[test]
    fn what_is_older_than_all_of_a_full_set_takes_no_place() {
        let mut table = Table::new(4_096, SEGMENT, 64).unwrap();
        let key = |number: u128| Key(number | number << 100);
        for number in 1..=8_u32 {
            table.insert(key(number.into()), place(9, u64::from(number) * 64), 9, |_| false);
        }
        // As the start finds them: newest first.
        table.insert(key(9), place(1, 64), 9, |_| false);
        assert_eq!(table.get(key(9)), None);
        assert!((1..=8).all(|number| table.get(key(number)).is_some()));
    }

    #[test]
    fn the_second_time_is_told_from_the_first() {
        let mut seen = Seen::default();
        assert!(!seen.again(Key(7)) && !seen.again(Key(8 << 40)) && seen.again(Key(7)) && seen.again(Key(8 << 40)));
    }
}
