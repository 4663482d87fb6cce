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
