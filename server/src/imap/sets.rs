//! Which messages of a view a client's set names.

use index::Uid;

use crate::imap::{
    reply::Reply,
    view::View,
    wire::{command::SequenceSet, sequence_set::Positions},
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

/// The positions in `view` that `set` names, as ranges.
pub fn positions(set: &SequenceSet, numbers: Numbers, view: &View) -> Result<Positions, Reply> {
    if *set == SequenceSet::Saved {
        return Err(Reply::bad("No search result was saved: SEARCHRES is not offered"));
    }
    match numbers {
        Numbers::Uids => Ok(set.for_uids(view.uids())),
        Numbers::Sequence if set.exceeds(view.len()) => {
            Err(Reply::bad(format!("The mailbox has {} messages, the set names more", view.len())))
        }
        Numbers::Sequence => Ok(set.for_sequence(view.len())),
    }
}

/// The UIDs at `positions`, ascending.
pub fn uids(positions: &Positions, view: &View) -> Vec<Uid> {
    positions.iter().filter_map(|range| view.uids().get(range.clone())).flatten().copied().collect()
}
