//! Who is in `nodes/`, and who surely is not.

use std::{collections::BTreeMap, time::Duration};

use super::beat_gap_min;
use crate::{HolderId, names::NodeFile};

/// Most listings in a row that look for a missing holder: where listings take so long that this is not enough, nothing is concluded.
pub const LISTINGS_MAX: usize = 12;

/// Fresh listings of `nodes/`, one after the other.
///
/// A listing is not atomic: a file that is renamed while it is read may be missed. A holder beats at most once per [`beat_gap_min`], and
/// each of its renames can hide it from one listing only; so a holder that is missing in more listings than it can have beaten
/// meanwhile is not there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Roll {
    /// When the first listing began.
    pub began: Duration,
    /// When the last listing ended.
    pub ended: Duration,
    /// When each listing began.
    begins: Vec<Duration>,
    beats: BTreeMap<HolderId, u64>,
}

impl Roll {
    /// One listing.
    pub fn new(began: Duration, ended: Duration, files: &[NodeFile]) -> Roll {
        let mut roll = Roll { began, ended, begins: Vec::new(), beats: BTreeMap::new() };
        roll.add(began, ended, files);
        roll
    }
    /// Another listing, begun after the one before had ended.
    pub fn add(&mut self, began: Duration, ended: Duration, files: &[NodeFile]) {
        self.ended = ended;
        self.begins.push(began);
        for file in files {
            let beat = self.beats.entry(file.holder.clone()).or_default();
            *beat = file.beat.max(*beat);
        }
    }
    /// Whether there were so many listings that more are no use.
    pub fn is_long(&self) -> bool {
        self.begins.len() >= LISTINGS_MAX
    }
    /// The beat of a holder that was seen.
    pub fn beat_of(&self, holder: &HolderId) -> Option<u64> {
        self.beats.get(holder).copied()
    }
    /// Everybody who was seen, with the latest beat.
    pub fn seen(&self) -> impl Iterator<Item = (&HolderId, u64)> {
        self.beats.iter().map(|(holder, beat)| (holder, *beat))
    }
    /// Whether who is missing is surely not there. `beat` is the time between beats.
    pub fn is_proof(&self, beat: Duration) -> bool {
        // A third off for clocks of unequal rate.
        let gap = (beat_gap_min(beat) * 2 / 3).as_micros().max(1);
        // Any run of listings up to the last will do: one that was slow does not spoil those after it.
        self.begins.iter().rev().zip(1_u128..).any(|(began, listings)| {
            let renames_max = self.ended.saturating_sub(*began).as_micros() / gap + 1;
            listings > renames_max
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_listing_proves_no_absence_but_two_quick_ones_do() {
        let beat = at(1000);
        let mut roll = Roll::new(at(0), at(5), &[]);
        assert!(!roll.is_proof(beat));
        roll.add(at(5), at(10), &[]);
        assert!(roll.is_proof(beat));
    }

    #[test]
    fn slow_listings_need_more_of_them() {
        let beat = at(1000);
        let mut roll = Roll::new(at(0), at(200), &[]);
        roll.add(at(200), at(400), &[]);
        assert!(!roll.is_proof(beat), "by its own clock the holder may have beaten twice");
        roll.add(at(400), at(600), &[]);
        assert!(roll.is_proof(beat));

        let mut roll = Roll::new(at(0), at(20_000), &[]);
        roll.add(at(20_000), at(20_005), &[]);
        assert!(!roll.is_proof(beat));
        roll.add(at(20_005), at(20_010), &[]);
        assert!(roll.is_proof(beat), "a listing that hung does not spoil those after it");
    }

    #[test]
    fn whoever_shows_once_is_there() {
        let holder = HolderId { node: "a".parse().unwrap(), incarnation: Incarnation::random() };
        let mut roll = Roll::new(at(0), at(1), &[NodeFile { holder: holder.clone(), beat: 7 }]);
        roll.add(at(1), at(2), &[]);
        assert_eq!(roll.beat_of(&holder), Some(7));
    }
}
