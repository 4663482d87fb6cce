//! Sequence sets: which messages a client names, as ranges of positions that are never expanded.

use std::ops::Range;

use index::Uid;
use smallvec::SmallVec;

use super::command::SequenceSet;

/// Positions (0-based) in a list of messages: ascending, not touching, none empty.
pub type Positions = SmallVec<[Range<usize>; 4]>;

impl SequenceSet {
    /// The positions of those of `uids` (ascending) that the set names; `*` is the last one.
    pub fn for_uids(&self, uids: &[Uid]) -> Positions {
        let _ = uids;
        todo!()
    }
    /// The positions the set names as sequence numbers among `len` messages; what lies beyond is left out (see [`SequenceSet::exceeds`]).
    pub fn for_sequence(&self, len: usize) -> Positions {
        let _ = len;
        todo!()
    }
    /// Whether the set names a sequence number above `len` (`1:*` of an empty mailbox does not): BAD, RFC 3501 §9 `seq-number`.
    pub fn exceeds(&self, len: usize) -> bool {
        let _ = len;
        todo!()
    }
    /// The named numbers as ranges, ascending and merged, `*` being `max` (0: nothing there, so `*` names nothing).
    pub fn resolve(&self, max: u32) -> SmallVec<[(u32, u32); 4]> {
        let _ = max;
        todo!()
    }
}
