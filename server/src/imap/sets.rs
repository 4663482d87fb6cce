//! Sequence and UID sets against a view: which messages a client means, and how sets are written.
//!
//! A set is never expanded: it becomes ranges of positions, so `1:4294967295` costs nothing.

use std::{fmt::Write as _, ops::Range};

use crate::imap::{
    reply::Reply,
    view::View,
    wire::command::{SequenceBound, SequenceRange, SequenceSet},
};

/// Positions in a view: ascending, disjoint, not adjacent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(Vec<Range<usize>>);

impl Positions {
    /// What a set of sequence numbers or UIDs names. UIDs that are not in the view are nobody; a sequence number beyond it is an error (RFC 3501 §9).
    pub fn resolve(set: &SequenceSet, uid: bool, view: &View) -> Result<Positions, Reply> {
        let SequenceSet::Ranges(ranges) = set else {
            return Err(Reply::bad("No search result was saved: SEARCHRES is not offered"));
        };
        let found = ranges.iter().map(|range| if uid { Ok(by_uid(*range, view)) } else { by_number(*range, view) });
        Ok(Positions(merge(found.collect::<Result<_, _>>()?)))
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each position, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + Send + use<> {
        self.0.clone().into_iter().flatten()
    }
}

fn by_number(range: SequenceRange, view: &View) -> Result<Range<usize>, Reply> {
    let last = u32::try_from(view.len()).unwrap_or(u32::MAX);
    let number = |bound| match bound {
        SequenceBound::Number(number) => number,
        SequenceBound::Star => last,
    };
    let (low, high) = ordered(number(range.low), number(range.high));
    if view.is_empty() && (range.low == SequenceBound::Star || range.high == SequenceBound::Star) {
        return Ok(0..0); // `1:*` of an empty mailbox: clients mean "all there are"
    }
    if high > last || low == 0 {
        return Err(Reply::bad(format!("There is no message {high}: the mailbox has {last}")));
    }
    Ok(position(low)..position(high) + 1)
}

fn by_uid(range: SequenceRange, view: &View) -> Range<usize> {
    let Some(last) = view.uids().last() else { return 0..0 };
    let number = |bound| match bound {
        SequenceBound::Number(number) => number,
        SequenceBound::Star => last.get(),
    };
    let (low, high) = ordered(number(range.low), number(range.high));
    view.uids().partition_point(|uid| uid.get() < low)..view.uids().partition_point(|uid| uid.get() <= high)
}

fn ordered(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

/// The position of a sequence number from 1.
fn position(number: u32) -> usize {
    usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX)
}

fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    ranges
}

/// Ascending numbers as a set: `1:3,7`.
pub fn print(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut set = String::new();
    let mut run: Option<(u32, u32)> = None;
    let put = |set: &mut String, (first, last): (u32, u32)| {
        if !set.is_empty() {
            set.push(',');
        }
        // Writing to a String can't fail.
        drop(if first == last { write!(set, "{first}") } else { write!(set, "{first}:{last}") });
    };
    for number in numbers {
        run = match run {
            Some((first, last)) if last.checked_add(1) == Some(number) => Some((first, number)),
            Some(done) => {
                put(&mut set, done);
                Some((number, number))
            }
            None => Some((number, number)),
        };
    }
    if let Some(done) = run {
        put(&mut set, done);
    }
    set
}

/// Pairs of numbers, in their order, as two sets whose members correspond (COPYUID, RFC 4315 §3): a range in one is as long as in the other.
pub fn print_pairs(pairs: impl IntoIterator<Item = (u32, u32)>) -> (String, String) {
    let (from, to): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
    (print(from), print(to))
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::imap::view::{Expunges, tests::Rows};

    fn range(low: SequenceBound, high: SequenceBound) -> SequenceSet {
        SequenceSet::Ranges(smallvec![SequenceRange { low, high }])
    }
    const STAR: SequenceBound = SequenceBound::Star;
    fn number(number: u32) -> SequenceBound {
        SequenceBound::Number(number)
    }
    /// UIDs 1, 2, 4, 5.
    fn view() -> View {
        let mut rows = Rows::with(5);
        let mut view = View::open(&rows);
        rows.expunge(3);
        view.update(&rows, Expunges::Tell, &[]);
        view
    }
    fn positions(set: &SequenceSet, uid: bool, view: &View) -> Vec<usize> {
        Positions::resolve(set, uid, view).unwrap().iter().collect()
    }

    #[test]
    fn ranges_may_be_written_backwards_and_overlap() {
        let set = SequenceSet::Ranges(smallvec![
            SequenceRange { low: number(4), high: number(2) },
            SequenceRange { low: number(1), high: number(2) },
        ]);
        let found = Positions::resolve(&set, false, &view()).unwrap();
        assert_eq!(found, Positions(vec![0..4]));
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn a_star_is_the_last_message_even_below_the_other_end() {
        assert_eq!(positions(&range(number(900), STAR), true, &view()), [3]);
        assert_eq!(positions(&range(STAR, STAR), false, &view()), [3]);
    }

    #[test]
    fn uids_that_are_not_there_are_skipped() {
        assert_eq!(positions(&range(number(3), number(4)), true, &view()), [2]);
        assert_eq!(positions(&range(number(3), number(3)), true, &view()), [] as [usize; 0]);
        assert_eq!(positions(&range(number(1), number(u32::MAX)), true, &view()), [0, 1, 2, 3]);
    }

    #[test]
    fn a_sequence_number_beyond_the_mailbox_is_an_error() {
        assert!(Positions::resolve(&range(number(5), number(5)), false, &view()).is_err());
        assert!(Positions::resolve(&range(number(2), number(9)), false, &view()).is_err());
        assert!(Positions::resolve(&SequenceSet::Saved, false, &view()).is_err());
    }

    #[test]
    fn all_of_an_empty_mailbox_is_nothing() {
        let empty = View::open(&Rows::with(0));
        assert!(Positions::resolve(&range(number(1), STAR), false, &empty).unwrap().is_empty());
        assert!(Positions::resolve(&range(number(1), STAR), true, &empty).unwrap().is_empty());
        assert!(Positions::resolve(&range(number(1), number(1)), false, &empty).is_err());
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(print([1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
        assert_eq!(print([]), "");
        assert_eq!(print([u32::MAX]), "4294967295");
        assert_eq!(print_pairs([(1, 10), (2, 11), (5, 12)]), ("1:2,5".to_owned(), "10:12".to_owned()));
    }
}
