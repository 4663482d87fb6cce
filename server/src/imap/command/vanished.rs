//! Which messages went while a client was away: VANISHED (EARLIER), RFC 7162 §3.2.5 and §3.2.6.
//!
//! - Only messages that are not in the view are told here; those of the view leave it by a VANISHED of their own (`updates.rs`).
//! - Where the memory of expunges does not reach, every UID that is not there counts (`what_is_not_remembered_counts_as_vanished`).
//! - Sets stay ranges: time and memory go by the mailbox and the set's text, not by the numbers a set spans.

use std::sync::Arc;

use index::Uid;
use smallvec::smallvec;

use super::fetch::{self, Only};
use crate::imap::{
    holding::Holding,
    reply::Stop,
    session::Session,
    state::Selected,
    wire::{
        command::{FetchItem, Resync, SequenceBound, SequenceRange, SequenceSet},
        response::{self, Earlier},
    },
};

type Runs = Vec<(u32, u32)>;

/// SELECT with what the client knows: what went, then what changed.
pub async fn resynchronise<H: Holding>(session: &mut Session<H>, selected: &mut Selected, resync: Resync) -> Result<(), Stop> {
    let Resync { uid_validity, modseq, known, matches } = resync;
    if uid_validity != selected.mailbox.uid_validity().get() {
        return Ok(()); // nothing that the client knows is of use
    }
    let known = known.unwrap_or_else(everything);
    let matched = matches.map_or(0, |(sequence, uids)| last_match(&sequence, &uids, selected.view.uids()));
    tell(session, selected, &known, modseq, matched).await?;
    let items = vec![FetchItem::Uid, FetchItem::Flags, FetchItem::ModSeq];
    fetch::fetch(session, selected, true, &known, items, Only { changed_since: Some(modseq), partial: None, all: true }).await?;
    Ok(())
}

/// UID FETCH with CHANGEDSINCE and VANISHED: what went of the set.
pub async fn tell_named<H: Holding>(session: &mut Session<H>, selected: &Selected, set: &SequenceSet, since: u64) -> Result<(), Stop> {
    tell(session, selected, set, since, 0).await
}

async fn tell<H: Holding>(session: &mut Session<H>, selected: &Selected, set: &SequenceSet, since: u64, matched: u32) -> Result<(), Stop> {
    let mailbox = Arc::clone(&selected.mailbox);
    let remembered = session.held.run(move |_| mailbox.expunged_since(since)).await?;
    let view = &selected.view;
    let last = view.uid_next().saturating_sub(1);
    // `*` is the last UID that was given: the message that had it may be what is gone.
    let asked: Runs = match set {
        SequenceSet::Saved => selected.saved.runs().collect(),
        SequenceSet::Ranges(_) => set.resolve(last).into_iter().collect(),
    };
    let gone = match remembered {
        Some(expunged) => remembered_within(&expunged, view.uids(), &asked, last),
        None => absent_within(view.uids(), &asked, matched.saturating_add(1), last),
    };
    if !gone.is_empty() {
        response::vanished(session.connection.output(), Earlier::Yes, gone);
        session.connection.flush_if_large().await?;
    }
    Ok(())
}

fn everything() -> SequenceSet {
    SequenceSet::Ranges(smallvec![SequenceRange { low: SequenceBound::Number(1), high: SequenceBound::Star }])
}

/// Those of `expunged` that were asked for, were told of once, and are not in the view. All ascending.
fn remembered_within(expunged: &[Uid], view: &[Uid], asked: &[(u32, u32)], last: u32) -> Runs {
    let is_asked = |uid: u32| {
        let after = asked.partition_point(|(low, _)| *low <= uid);
        after.checked_sub(1).and_then(|at| asked.get(at)).is_some_and(|(_, high)| uid <= *high)
    };
    let gone = expunged.iter().filter(|uid| uid.get() <= last && is_asked(uid.get()) && view.binary_search(uid).is_err());
    gone.map(|uid| (uid.get(), uid.get())).collect()
}

/// The UIDs from `first` to `last` that were asked for and are not in the view.
fn absent_within(view: &[Uid], asked: &[(u32, u32)], first: u32, last: u32) -> Runs {
    let mut absent = Runs::new();
    'asked: for (low, high) in asked {
        let (mut low, high) = ((*low).max(first), (*high).min(last));
        let here = view.get(view.partition_point(|uid| uid.get() < low)..).unwrap_or_default();
        for uid in here.iter().map(|uid| uid.get()).take_while(|uid| *uid <= high) {
            if low < uid {
                absent.push((low, uid - 1));
            }
            match uid.checked_add(1) {
                Some(next) => low = next,
                None => continue 'asked,
            }
        }
        if low <= high {
            absent.push((low, high));
        }
    }
    absent
}

/// The last UID up to which the client's numbers are those of the view (RFC 7162 §3.2.5.2); 0: none is.
fn last_match(sequence: &SequenceSet, uids: &SequenceSet, view: &[Uid]) -> u32 {
    let numbers = |set: &SequenceSet| set.resolve(0).into_iter().flat_map(|(low, high)| low..=high);
    let mut matched = 0;
    for (sequence, uid) in numbers(sequence).zip(numbers(uids)) {
        let position = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
        if position.and_then(|position| view.get(position)).is_none_or(|here| here.get() != uid) {
            break; // at the view's end at the latest
        }
        matched = uid;
    }
    matched
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uids(numbers: impl IntoIterator<Item = u32>) -> Vec<Uid> {
        numbers.into_iter().filter_map(Uid::new).collect()
    }
    fn set(ranges: &[(u32, u32)]) -> SequenceSet {
        let range = |(low, high): &(u32, u32)| SequenceRange { low: SequenceBound::Number(*low), high: SequenceBound::Number(*high) };
        SequenceSet::Ranges(ranges.iter().map(range).collect())
    }

    #[test]
    fn what_is_not_remembered_counts_as_vanished() {
        assert_eq!(absent_within(&uids([3, 4, 9]), &[(1, 20)], 1, 12), [(1, 2), (5, 8), (10, 12)]);
        assert_eq!(absent_within(&uids([3, 4, 9]), &[(1, 20)], 5, 12), [(5, 8), (10, 12)]);
        assert_eq!(absent_within(&uids([]), &[(1, u32::MAX)], 1, u32::MAX), [(1, u32::MAX)]);
        assert_eq!(absent_within(&uids([u32::MAX]), &[(u32::MAX, u32::MAX)], 1, u32::MAX), []);
    }

    #[test]
    fn numbers_match_up_to_the_first_difference() {
        let view = uids([2, 5, 7, 8, 30]);
        assert_eq!(last_match(&set(&[(1, 1), (3, 3), (5, 5)]), &set(&[(2, 2), (7, 7), (31, 31)]), &view), 7);
        assert_eq!(last_match(&set(&[(1, 1)]), &set(&[(1, 1)]), &view), 0);
        assert_eq!(last_match(&set(&[(3, u32::MAX)]), &set(&[(7, u32::MAX)]), &view), 8);
        assert_eq!(last_match(&set(&[(5, 6)]), &set(&[(30, 31)]), &view), 30);
    }

    proptest! {
        #[test]
        fn each_uid_is_told_exactly_if_it_is_asked_for_and_absent(
            view in proptest::collection::btree_set(1_u32..40, 0..30),
            expunged in proptest::collection::btree_set(1_u32..40, 0..30),
            asked in proptest::collection::vec((1_u32..40, 1_u32..40), 1..5),
            first in 1_u32..40,
        ) {
            let asked = set(&asked).resolve(0);
            let is_asked = |uid: u32| asked.iter().any(|(low, high)| (*low..=*high).contains(&uid));
            let flat = |runs: Runs| runs.into_iter().flat_map(|(low, high)| low..=high).collect::<Vec<_>>();
            let last = 35;
            let absent = flat(absent_within(&uids(view.iter().copied()), &asked, first, last));
            let expected: Vec<u32> = (first..=last).filter(|uid| is_asked(*uid) && !view.contains(uid)).collect();
            prop_assert_eq!(absent, expected);
            let gone = flat(remembered_within(&uids(expunged.iter().copied()), &uids(view.iter().copied()), &asked, last));
            let expected: Vec<u32> = expunged.into_iter().filter(|uid| *uid <= last && is_asked(*uid) && !view.contains(uid)).collect();
            prop_assert_eq!(gone, expected);
        }
    }
}
