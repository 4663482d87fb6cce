//! Which messages of a view a client's set names.

use std::ops::Range;

use index::Uid;

use crate::imap::{
    reply::Reply,
    state::Selected,
    view::View,
    wire::{
        command::{PartialRange, SequenceSet},
        sequence_set::Positions,
    },
};

/// Whether numbers in a command are UIDs (`UID FETCH`) or sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// UIDs: those that are not in the view name nobody.
    Uids,
    /// Sequence numbers: one beyond the view is an error (RFC 3501 §9, `seq-number`).
    Sequence,
}

impl Numbers {
    /// What the parser's `uid` says.
    pub fn new(uid: bool) -> Numbers {
        if uid { Numbers::Uids } else { Numbers::Sequence }
    }
}

/// The UIDs that a client saved with SEARCH RETURN (SAVE), as runs: a result of everything is no list of everything.
///
/// Messages that are expunged need not be taken out: they leave the view, and their UIDs never come back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SavedUids(Vec<(Uid, Uid)>);

impl SavedUids {
    /// The messages found; `uids` ascending.
    pub fn new(uids: impl IntoIterator<Item = Uid>) -> SavedUids {
        let mut runs: Vec<(Uid, Uid)> = Vec::new();
        for uid in uids {
            match runs.last_mut() {
                Some((_, last)) if last.get().checked_add(1) == Some(uid.get()) => *last = uid,
                _ => runs.push((uid, uid)),
            }
        }
        SavedUids(runs)
    }

    /// The positions in `view` of those that are still there.
    pub fn positions(&self, view: &View) -> Positions {
        let uids = view.uids();
        let place = |(low, high): &(Uid, Uid)| uids.partition_point(|uid| uid < low)..uids.partition_point(|uid| uid <= high);
        self.0.iter().map(place).filter(|range| !range.is_empty()).collect()
    }

    /// The runs of UIDs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(|(low, high)| (low.get(), high.get()))
    }
}

/// The positions in the view that `set` names, as ranges.
pub fn positions(set: &SequenceSet, numbers: Numbers, selected: &Selected) -> Result<Positions, Reply> {
    let view = &selected.view;
    match numbers {
        _ if *set == SequenceSet::Saved => Ok(selected.saved.positions(view)),
        Numbers::Uids => Ok(set.for_uids(view.uids())),
        Numbers::Sequence if set.exceeds(view.len()) => {
            Err(Reply::bad(format!("The mailbox has {} messages, the set names more", view.len())))
        }
        Numbers::Sequence => Ok(set.for_sequence(view.len())),
    }
}

/// What `range` takes of `positions` (RFC 9394 §3.3).
pub fn part(positions: &Positions, range: PartialRange) -> Positions {
    let mut taken = range.positions(positions.iter().map(ExactSizeIterator::len).sum());
    let cut = |from: &Range<usize>| {
        let len = from.len();
        let kept = from.start + taken.start.min(len)..from.start + taken.end.min(len);
        taken = taken.start.saturating_sub(len)..taken.end.saturating_sub(len);
        kept
    };
    positions.iter().map(cut).filter(|range| !range.is_empty()).collect()
}

/// The UIDs at `positions`, ascending.
pub fn uids(positions: &Positions, view: &View) -> Vec<Uid> {
    positions.iter().filter_map(|range| view.uids().get(range.clone())).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::view::View;

    #[test]
    fn a_saved_result_names_what_is_still_there_and_nothing_new() {
        let uids = |numbers: &[u32]| numbers.iter().filter_map(|number| Uid::new(*number)).collect::<Vec<_>>();
        let saved = SavedUids::new(uids(&[2, 3, 4, 9, u32::MAX]));
        assert_eq!(saved.0.len(), 3);
        let view = View::of(uids(&[1, 3, 4, 5, 9, 10]));
        assert_eq!(saved.positions(&view).into_iter().flatten().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(saved.runs().next(), Some((2, 4)));
    }

    #[test]
    fn a_part_is_cut_from_either_end_across_ranges() {
        let named: Positions = [0..2, 5..6, 9..12].into_iter().collect();
        for (one, other, from_end, expected) in [
            (1, 3, false, &[0, 1, 5][..]),
            (3, 4, false, &[5, 9]),
            (5, 900, false, &[10, 11]),
            (7, 9, false, &[]),
            (1, 2, true, &[10, 11]),
            (4, 3, true, &[5, 9]),
            (u32::MAX, 6, true, &[0]),
        ] {
            let part = part(&named, PartialRange { one, other, from_end });
            assert_eq!(part.into_iter().flatten().collect::<Vec<_>>(), expected, "{one}:{other}");
        }
    }
}
