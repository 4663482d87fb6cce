//! Sequence sets: which messages a client names, as ranges of positions that are never expanded.
//!
//! Invariants, each with the test that guards it:
//! - a set means what naming every number singly would mean (`positions_are_those_of_each_number`)
//! - resolving costs time and memory by the set's text, not by the numbers it spans (`huge_ranges_cost_nothing`)

use std::{fmt, ops::Range};

use index::Uid;
use smallvec::{SmallVec, smallvec};

use super::command::{SequenceBound, SequenceRange, SequenceSet};

/// Positions (0-based) in a list of messages: ascending, not touching, none empty.
pub type Positions = SmallVec<[Range<usize>; 4]>;

impl SequenceSet {
    /// One range of numbers.
    pub fn of(low: u32, high: u32) -> SequenceSet {
        SequenceSet::Ranges(smallvec![SequenceRange { low: SequenceBound::Number(low), high: SequenceBound::Number(high) }])
    }
    /// The positions of those of `uids` (ascending) that the set names; `*` is the last one.
    pub fn for_uids(&self, uids: &[Uid]) -> Positions {
        let mut positions = Positions::new();
        for (low, high) in self.resolve(uids.last().map_or(0, |uid| uid.get())) {
            let start = uids.partition_point(|uid| uid.get() < low);
            let end = uids.partition_point(|uid| uid.get() <= high);
            push_merged(&mut positions, start..end);
        }
        positions
    }
    /// The positions the set names as sequence numbers among `len` messages; what lies beyond is left out (see [`SequenceSet::exceeds`]).
    pub fn for_sequence(&self, len: usize) -> Positions {
        let mut positions = Positions::new();
        for (low, high) in self.resolve(u32::try_from(len).unwrap_or(u32::MAX)) {
            push_merged(&mut positions, position(low).min(len)..position(high).saturating_add(1).min(len));
        }
        positions
    }
    /// Whether the set names a sequence number above `len` (`1:*` of an empty mailbox does not): BAD, RFC 3501 §9 `seq-number`.
    pub fn exceeds(&self, len: usize) -> bool {
        let above = |bound| matches!(bound, SequenceBound::Number(number) if position(number) >= len);
        self.ranges().iter().any(|range| match (len, range.low, range.high) {
            (0, SequenceBound::Number(1), SequenceBound::Star) | (0, SequenceBound::Star, SequenceBound::Number(1)) => false,
            (_, low, high) => above(low) || above(high),
        })
    }
    /// The named numbers as ranges, ascending and merged, `*` being `max` (0: nothing there, so that no range with `*` names anything).
    pub fn resolve(&self, max: u32) -> SmallVec<[(u32, u32); 4]> {
        let number = |bound| match bound {
            SequenceBound::Number(number) => number,
            SequenceBound::Star => max,
        };
        let mut ranges: SmallVec<[(u32, u32); 4]> = self
            .ranges()
            .iter()
            .map(|range| (number(range.low), number(range.high)))
            .map(|(one, other)| (one.min(other), one.max(other)))
            .filter(|(low, _)| *low > 0)
            .collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1.saturating_add(1);
            if touches {
                kept.1 = kept.1.max(next.1);
            }
            touches
        });
        ranges
    }

    /// Whether it has neither `*` nor `$`.
    pub fn is_all_numbers(&self) -> bool {
        let numbers = |range: &SequenceRange| range.low != SequenceBound::Star && range.high != SequenceBound::Star;
        *self != SequenceSet::Saved && self.ranges().iter().all(numbers)
    }

    fn ranges(&self) -> &[SequenceRange] {
        match self {
            SequenceSet::Ranges(ranges) => ranges,
            SequenceSet::Saved => &[],
        }
    }
}

impl fmt::Display for SequenceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == SequenceSet::Saved {
            return f.write_str("$");
        }
        for (position, range) in self.ranges().iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.low)?;
            if range.low != range.high {
                write!(f, ":{}", range.high)?;
            }
        }
        Ok(())
    }
}
impl fmt::Display for SequenceBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SequenceBound::Number(number) => write!(f, "{number}"),
            SequenceBound::Star => f.write_str("*"),
        }
    }
}

/// 0-based.
fn position(sequence: u32) -> usize {
    usize::try_from(sequence).map_or(usize::MAX, |sequence| sequence.saturating_sub(1))
}

/// Appends a range that starts at or after the last one's end.
fn push_merged(positions: &mut Positions, range: Range<usize>) {
    match positions.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
        _ => positions.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ranges: &[(SequenceBound, SequenceBound)]) -> SequenceSet {
        SequenceSet::Ranges(ranges.iter().map(|(low, high)| SequenceRange { low: *low, high: *high }).collect())
    }
    use SequenceBound::{Number as N, Star};

    fn uids(numbers: &[u32]) -> Vec<Uid> {
        numbers.iter().filter_map(|number| Uid::new(*number)).collect()
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "positions are lists of ranges")]
    fn a_star_is_the_last_message_even_below_the_other_bound() {
        assert_eq!(set(&[(N(559), Star)]).for_uids(&uids(&[3, 7, 12])).as_slice(), [2..3]);
        assert_eq!(set(&[(Star, Star)]).for_sequence(9).as_slice(), [8..9]);
        assert_eq!(set(&[(N(5), N(2))]).for_sequence(9).as_slice(), [1..5]);
    }

    #[test]
    fn an_empty_mailbox_has_no_star() {
        let all = set(&[(N(1), Star)]);
        assert!(all.for_uids(&[]).is_empty() && all.for_sequence(0).is_empty());
        assert!(!all.exceeds(0));
        assert!(set(&[(N(1), N(1))]).exceeds(0));
        assert!(set(&[(N(10), Star)]).exceeds(9));
        assert!(!set(&[(N(9), Star)]).exceeds(9));
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "positions are lists of ranges")]
    fn huge_ranges_cost_nothing() {
        let set = set(&[(N(1), N(u32::MAX)), (N(u32::MAX), N(u32::MAX)), (N(7), Star)]);
        assert_eq!(set.resolve(5).as_slice(), [(1, u32::MAX)]);
        assert_eq!(set.for_uids(&uids(&[1, 2, u32::MAX])).as_slice(), [0..3]);
        assert_eq!(set.for_sequence(4).as_slice(), [0..4]);
    }

    fn bounds() -> impl Strategy<Value = SequenceBound> {
        prop_oneof![4 => (1_u32..40).prop_map(N), 1 => Just(Star)]
    }

    proptest! {
        #[test]
        fn positions_are_those_of_each_number(
            ranges in proptest::collection::vec((bounds(), bounds()), 1..6),
            present in proptest::collection::btree_set(1_u32..40, 0..30),
        ) {
            let set = set(&ranges);
            let present: Vec<u32> = present.into_iter().collect();
            let max = present.last().copied().unwrap_or(0);
            let number = |bound| match bound { N(number) => number, Star => max };
            let named = |uid: u32| ranges.iter().any(|(one, other)| {
                let (one, other) = (number(*one), number(*other));
                one.min(other) > 0 && (one.min(other)..=one.max(other)).contains(&uid)
            });
            let expected: Vec<usize> = (0..present.len()).filter(|at| named(present[*at])).collect();
            let positions = set.for_uids(&uids(&present));
            prop_assert!(positions.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(positions.into_iter().flatten().collect::<Vec<_>>(), expected);

            let len = present.len();
            let all: Vec<u32> = (1..=u32::try_from(len).unwrap()).collect();
            prop_assert_eq!(set.for_sequence(len), set.for_uids(&uids(&all)));
        }
    }
}
