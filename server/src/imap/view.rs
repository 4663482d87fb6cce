//! What one session believes the mailbox holds: sequence number → UID.
//!
//! The mailbox itself changes under every session's feet; the view moves only when IMAP allows it. No I/O, no storage:
//! a view is compared with the mailbox's rows and says what to tell the client.
//!
//! Invariants, each with the test that guards it:
//! - a sequence number means the same message until the client was told otherwise (`expunges_are_kept_back_while_sequence_numbers_are_in_use`)
//! - replaying what was told onto the old view gives the new one (`a_client_that_replays_the_updates_sees_what_the_mailbox_holds`)
//! - every change is told once (`a_change_is_told_once`), this session's own silent ones not at all (`a_change_the_client_knows_is_not_told`)
//! - a UID never comes back into a view (`uids_below_the_next_one_never_come_back`)

use index::{ModSeq, Uid};
use smallvec::SmallVec;
use storage::{Columns, Row};

/// Rows of a mailbox, ascending by UID.
pub trait Messages {
    /// The UIDs, ascending.
    fn uids(&self) -> &[Uid];
    /// The message at a 0-based position below `uids().len()`.
    fn row(&self, position: usize) -> Row;
    /// The highest MODSEQ that any change took.
    fn highest_modseq(&self) -> u64;
    /// The next UID to be given.
    fn uid_next(&self) -> u32;
}

impl Messages for Columns {
    fn uids(&self) -> &[Uid] {
        Columns::uids(self)
    }
    fn row(&self, position: usize) -> Row {
        Columns::row(self, position)
    }
    fn highest_modseq(&self) -> u64 {
        Columns::highest_modseq(self).get()
    }
    fn uid_next(&self) -> u32 {
        Columns::uid_next(self)
    }
}

/// Whether messages may leave the view now (RFC 3501 §7.4.1: not during FETCH, STORE and SEARCH).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expunges {
    /// Tell them.
    Tell,
    /// Keep the messages in the view, they are told later.
    KeepBack,
}

/// What to tell the client, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// Sequence numbers for `EXPUNGE`, descending, so that each is right when it is read.
    pub expunged: Vec<u32>,
    /// The same messages' UIDs for `VANISHED`, ascending.
    pub vanished: Vec<Uid>,
    /// The new number of messages, if messages came.
    pub exists: Option<u32>,
    /// Sequence numbers and rows of messages whose metadata changed, ascending.
    pub changed: Vec<(u32, Row)>,
}

/// Sequence number → UID, and up to which change the client was told.
#[derive(Debug)]
pub struct View {
    /// By sequence number less one; ascending.
    uids: Vec<Uid>,
    /// UIDs below this were in the view or never will be.
    uid_next: u32,
    /// Changes up to this MODSEQ were told.
    told: u64,
    /// Up to this MODSEQ also expunges were told.
    told_with_expunges: u64,
    /// Messages of the view that are gone from the mailbox, untold.
    kept_back: usize,
    /// UIDs that are \Recent in this session: half-open, ascending, disjoint.
    recent: SmallVec<[(u32, u32); 2]>,
}

impl View {
    /// What SELECT shows.
    pub fn open(messages: &impl Messages) -> View {
        View {
            uids: messages.uids().to_vec(),
            uid_next: messages.uid_next(),
            told: messages.highest_modseq(),
            told_with_expunges: messages.highest_modseq(),
            kept_back: 0,
            recent: SmallVec::new(),
        }
    }

    /// A view of these messages.
    #[cfg(test)]
    pub fn of(uids: Vec<Uid>) -> View {
        let uid_next = uids.last().map_or(1, |uid| uid.get().saturating_add(1));
        View { uids, uid_next, told: 1, told_with_expunges: 1, kept_back: 0, recent: SmallVec::new() }
    }

    /// How many messages the client counts.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// The UIDs by position (sequence number less one), ascending.
    pub fn uids(&self) -> &[Uid] {
        &self.uids
    }

    /// The sequence number of a message.
    pub fn sequence_of(&self, uid: Uid) -> Option<u32> {
        self.uids.binary_search(&uid).ok().map(sequence)
    }

    /// Changes up to this MODSEQ are known to the client.
    pub fn highest_modseq(&self) -> u64 {
        self.told
    }

    /// Changes up to this MODSEQ, expunges among them, are known to the client.
    pub fn told_with_expunges(&self) -> u64 {
        self.told_with_expunges
    }

    /// Whether messages are gone of which the client was not told.
    pub fn keeps_back(&self) -> bool {
        self.kept_back > 0
    }

    /// UIDs below this were in the view or never will be.
    pub fn uid_next(&self) -> u32 {
        self.uid_next
    }

    /// The messages from `first` up to but not with `end` are \Recent in this session.
    pub fn claim_recent(&mut self, first: u32, end: u32) {
        if first >= end {
            return;
        }
        match self.recent.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => self.recent.push((first, end)),
        }
    }

    /// Whether a message is \Recent in this session.
    pub fn is_recent(&self, uid: Uid) -> bool {
        self.recent.iter().any(|(first, end)| (*first..*end).contains(&uid.get()))
    }

    /// How many messages are \Recent in this session.
    pub fn recent_count(&self) -> u32 {
        let below = |bound: u32| self.uids.partition_point(|uid| uid.get() < bound);
        count(self.recent.iter().map(|(first, end)| below(*end).saturating_sub(below(*first))).sum())
    }

    /// EXISTS: [`View::len`] as the protocol counts.
    pub fn exists(&self) -> u32 {
        count(self.uids.len())
    }

    /// Whether [`View::update`] may have something to tell.
    pub fn is_behind(&self, messages: &impl Messages, expunges: Expunges) -> bool {
        self.told != messages.highest_modseq() || self.uid_next != messages.uid_next() || (expunges == Expunges::Tell && self.kept_back > 0)
    }

    /// Moves the view to what the mailbox holds, as far as `expunges` lets it, and says what to tell.
    ///
    /// `known`, ascending: the client knows these messages' metadata as of that MODSEQ already.
    pub fn update(&mut self, messages: &impl Messages, expunges: Expunges, known: &[(Uid, ModSeq)]) -> Updates {
        let mut updates = Updates::default();
        if !self.is_behind(messages, expunges) {
            return updates;
        }
        let now = messages.uids();
        match expunges {
            Expunges::Tell => (updates.expunged, updates.vanished) = self.leave_out_missing(now),
            Expunges::KeepBack => self.kept_back = count_missing(&self.uids, now),
        }
        let old = self.uids.len();
        let first_new = now.partition_point(|uid| uid.get() < self.uid_next);
        let came = now.get(first_new..).unwrap_or_default();
        if !came.is_empty() {
            self.uids.extend_from_slice(came);
            updates.exists = Some(count(self.uids.len()));
        }
        updates.changed = self.changed(messages, old, known);
        self.uid_next = self.uid_next.max(messages.uid_next()).max(came.last().map_or(0, |uid| uid.get().saturating_add(1)));
        self.told = self.told.max(messages.highest_modseq());
        if self.kept_back == 0 {
            self.told_with_expunges = self.told;
        }
        updates
    }

    /// Takes out what is not in `now`; their sequence numbers, descending, and UIDs, ascending.
    fn leave_out_missing(&mut self, now: &[Uid]) -> (Vec<u32>, Vec<Uid>) {
        self.kept_back = 0;
        let mut rest = now;
        let (mut expunged, mut vanished) = (Vec::new(), Vec::new());
        let mut position = 0;
        self.uids.retain(|uid| {
            let here = take_up_to(&mut rest, *uid);
            if !here {
                expunged.push(sequence(position));
                vanished.push(*uid);
            }
            position += 1;
            here
        });
        expunged.reverse();
        (expunged, vanished)
    }

    /// The first `old` messages of the view that changed since the client was told.
    fn changed(&self, messages: &impl Messages, old: usize, mut known: &[(Uid, ModSeq)]) -> Vec<(u32, Row)> {
        let mut changed = Vec::new();
        if messages.highest_modseq() == self.told {
            return changed;
        }
        let now = messages.uids();
        let mut at = 0;
        for (position, uid) in self.uids.iter().take(old).enumerate() {
            while now.get(at).is_some_and(|candidate| candidate < uid) {
                at += 1;
            }
            if now.get(at) != Some(uid) {
                continue; // kept back: gone from the mailbox
            }
            let row = messages.row(at);
            if row.modseq.get() > self.told {
                while known.first().is_some_and(|(other, _)| other < uid) {
                    known = known.get(1..).unwrap_or_default();
                }
                if known.first() != Some(&(*uid, row.modseq)) {
                    changed.push((sequence(position), row));
                }
            }
        }
        changed
    }
}

/// The sequence number of a 0-based position.
pub fn sequence(position: usize) -> u32 {
    count(position).saturating_add(1)
}

/// A number of messages: UIDs are 32-bit, so there are never more.
fn count(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

fn count_missing(view: &[Uid], now: &[Uid]) -> usize {
    let mut rest = now;
    view.iter().filter(|uid| !take_up_to(&mut rest, **uid)).count()
}

/// Advances `rest` past everything below `uid`; whether `uid` is there.
fn take_up_to(rest: &mut &[Uid], uid: Uid) -> bool {
    while let Some((first, others)) = rest.split_first() {
        if *first > uid {
            return false;
        }
        *rest = others;
        if *first == uid {
            return true;
        }
    }
    false
}

#[cfg(test)]
pub mod tests {
    use index::{Flag, FlagSet};
    use proptest::prelude::*;

    use super::*;

    /// A mailbox made of rows.
    #[derive(Debug, Default, Clone)]
    pub struct Rows {
        uids: Vec<Uid>,
        rows: Vec<Row>,
        highest: u64,
        uid_next: u32,
    }

    impl Rows {
        pub fn with(messages: u32) -> Rows {
            let mut rows = Rows { highest: 1, uid_next: 1, ..Rows::default() };
            (0..messages).for_each(|_| rows.add());
            rows
        }
        pub fn add(&mut self) {
            self.highest += 1;
            let uid = Uid::new(self.uid_next).unwrap();
            self.uids.push(uid);
            self.rows.push(Row {
                uid,
                flags: FlagSet::EMPTY,
                modseq: ModSeq::new(self.highest).unwrap(),
                size: 100,
                internal_date: 0,
                save_date: 0,
            });
            self.uid_next += 1;
        }
        pub fn flag(&mut self, uid: u32) {
            self.highest += 1;
            let highest = ModSeq::new(self.highest).unwrap();
            if let Some(row) = self.rows.iter_mut().find(|row| row.uid.get() == uid) {
                row.flags = row.flags.with(Flag::Flagged);
                row.modseq = highest;
            }
        }
        pub fn expunge(&mut self, uid: u32) {
            self.highest += 1;
            self.rows.retain(|row| row.uid.get() != uid);
            self.uids.retain(|other| other.get() != uid);
        }
    }

    impl Messages for Rows {
        fn uids(&self) -> &[Uid] {
            &self.uids
        }
        fn row(&self, position: usize) -> Row {
            self.rows[position]
        }
        fn highest_modseq(&self) -> u64 {
            self.highest
        }
        fn uid_next(&self) -> u32 {
            self.uid_next
        }
    }

    fn changed(updates: &Updates) -> Vec<(u32, u32)> {
        updates.changed.iter().map(|(sequence, row)| (*sequence, row.uid.get())).collect()
    }
    fn numbers(view: &View) -> Vec<u32> {
        view.uids().iter().map(|uid| uid.get()).collect()
    }

    #[test]
    fn nothing_is_told_when_nothing_changed() {
        let rows = Rows::with(3);
        let mut view = View::open(&rows);
        assert!(!view.is_behind(&rows, Expunges::Tell));
        assert_eq!(view.update(&rows, Expunges::Tell, &[]), Updates::default());
    }

    #[test]
    fn expunges_are_told_from_the_highest_down() {
        let mut rows = Rows::with(5);
        let mut view = View::open(&rows);
        [2, 4, 5].into_iter().for_each(|uid| rows.expunge(uid));
        let updates = view.update(&rows, Expunges::Tell, &[]);
        assert_eq!(updates.expunged, [5, 4, 2]);
        assert_eq!(updates.vanished.iter().map(|uid| uid.get()).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(numbers(&view), [1, 3]);
        assert_eq!(view.sequence_of(Uid::new(3).unwrap()), Some(2));
    }

    #[test]
    fn expunges_are_kept_back_while_sequence_numbers_are_in_use() {
        let mut rows = Rows::with(3);
        let mut view = View::open(&rows);
        rows.expunge(2);
        rows.add();
        rows.flag(3);
        let updates = view.update(&rows, Expunges::KeepBack, &[]);
        assert_eq!(updates.expunged, [] as [u32; 0]);
        assert_eq!(updates.exists, Some(4), "the expunged message still counts");
        assert_eq!(changed(&updates), [(3, 3)]);
        assert_eq!(numbers(&view), [1, 2, 3, 4]);
        assert!(view.is_behind(&rows, Expunges::Tell));
        assert!(!view.is_behind(&rows, Expunges::KeepBack));
        let updates = view.update(&rows, Expunges::Tell, &[]);
        assert_eq!((updates.expunged.as_slice(), updates.exists), ([2].as_slice(), None));
        assert_eq!(numbers(&view), [1, 3, 4]);
    }

    #[test]
    fn a_change_is_told_once() {
        let mut rows = Rows::with(2);
        let mut view = View::open(&rows);
        rows.flag(2);
        assert_eq!(changed(&view.update(&rows, Expunges::KeepBack, &[])), [(2, 2)]);
        assert_eq!(view.update(&rows, Expunges::Tell, &[]), Updates::default());
    }

    #[test]
    fn a_change_the_client_knows_is_not_told() {
        let mut rows = Rows::with(3);
        let mut view = View::open(&rows);
        rows.flag(1);
        rows.flag(3);
        let known: Vec<_> = rows.rows.iter().map(|row| (row.uid, row.modseq)).collect();
        rows.flag(3);
        assert_eq!(changed(&view.update(&rows, Expunges::Tell, &known)), [(3, 3)], "what changed after that is told");
    }

    #[test]
    fn new_messages_are_told_by_exists_alone() {
        let mut rows = Rows::with(1);
        let mut view = View::open(&rows);
        rows.add();
        rows.flag(2);
        let updates = view.update(&rows, Expunges::Tell, &[]);
        assert_eq!(updates, Updates { exists: Some(2), ..Updates::default() });
    }

    #[test]
    fn a_message_that_came_and_went_unseen_is_not_told() {
        let mut rows = Rows::with(1);
        let mut view = View::open(&rows);
        rows.add();
        rows.expunge(2);
        assert_eq!(view.update(&rows, Expunges::Tell, &[]), Updates::default());
    }

    #[test]
    fn uids_below_the_next_one_never_come_back() {
        let mut rows = Rows::with(3);
        let mut view = View::open(&rows);
        let before = rows.clone();
        rows.expunge(3);
        assert_eq!(view.update(&rows, Expunges::Tell, &[]).expunged, [3]);
        assert!(view.update(&before, Expunges::Tell, &[]).exists.is_none());
        assert_eq!(numbers(&view), [1, 2]);
    }

    #[test]
    fn recent_messages_are_those_that_this_session_claimed() {
        let mut rows = Rows::with(4);
        let mut view = View::open(&rows);
        view.claim_recent(3, 5);
        assert_eq!(view.recent_count(), 2);
        rows.add();
        view.update(&rows, Expunges::Tell, &[]);
        view.claim_recent(6, 6);
        assert!(!view.is_recent(Uid::new(5).unwrap()), "another session was first");
        rows.expunge(3);
        view.update(&rows, Expunges::Tell, &[]);
        assert_eq!(view.recent_count(), 1);
        view.claim_recent(3, 9);
        assert_eq!(view.recent_count(), 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add,
        Flag(u32),
        Expunge(u32),
        Look(Expunges),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Add),
            (1u32..20).prop_map(Step::Flag),
            (1u32..20).prop_map(Step::Expunge),
            Just(Step::Look(Expunges::Tell)),
            Just(Step::Look(Expunges::KeepBack)),
        ]
    }

    proptest! {
        #[test]
        fn a_client_that_replays_the_updates_sees_what_the_mailbox_holds(steps in proptest::collection::vec(step(), 1..60)) {
            let mut rows = Rows::with(6);
            let mut view = View::open(&rows);
            // The client: flags by sequence number, as far as it was told (None: not asked yet).
            let mut client: Vec<Option<bool>> = vec![Some(false); 6];
            for step in steps.into_iter().chain([Step::Look(Expunges::Tell)]) {
                match step {
                    Step::Add => rows.add(),
                    Step::Flag(uid) => rows.flag(uid),
                    Step::Expunge(uid) => rows.expunge(uid),
                    Step::Look(expunges) => {
                        let updates = view.update(&rows, expunges, &[]);
                        for sequence in updates.expunged {
                            client.remove(sequence as usize - 1);
                        }
                        if let Some(exists) = updates.exists {
                            prop_assert!(exists as usize > client.len());
                            client.resize(exists as usize, None);
                        }
                        for (sequence, row) in updates.changed {
                            prop_assert_eq!(view.uids()[sequence as usize - 1], row.uid);
                            client[sequence as usize - 1] = Some(row.flags.contains(Flag::Flagged));
                        }
                        prop_assert_eq!(client.len(), view.len());
                    }
                }
            }
            prop_assert_eq!(view.uids(), rows.uids());
            for (told, row) in client.iter().zip(&rows.rows) {
                if let Some(flagged) = told {
                    prop_assert_eq!(*flagged, row.flags.contains(Flag::Flagged));
                }
            }
        }
    }
}
