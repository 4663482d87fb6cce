//! Large mailboxes are opened from one file beside the index, which says what their rows say.

use std::time::Duration;

use affinity::Handover;
use index::{Flag, FlagSet};

use super::{Held, User, append, name, picture, uid};
use crate::{CreateOptions, StoreOperation};

fn snapshots(user: &User) -> Vec<std::path::PathBuf> {
    let is_one = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("messages-"));
    user.everything().into_iter().filter(is_one).collect()
}
fn with_four_messages(user: &mut User) -> Held {
    let held = user.open(Handover::Clean);
    for subject in ["a", "b", "c", "d"] {
        append(&held.inbox(), subject, FlagSet::EMPTY).unwrap();
    }
    held
}

#[test]
fn a_large_mailbox_is_opened_from_its_snapshot() {
    let mut user = User::new();
    let held = with_four_messages(&mut user);
    held.inbox().store(&[uid(2)], StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
    let (before, numbers) = (picture(&held.inbox()), held.inbox().status());
    held.close().unwrap();
    assert_eq!(snapshots(&user).len(), 1);

    let held = user.open(Handover::Clean);
    assert!(held.inbox().is_from_snapshot());
    assert_eq!((picture(&held.inbox()), held.inbox().status()), (before.clone(), numbers));
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert!(held.inbox().is_from_snapshot(), "it stays while nothing changes");

    // What is changed is in the next one.
    held.inbox().store(&[uid(3)], StoreOperation::Add(FlagSet::of(&[Flag::Flagged])), None).unwrap();
    append(&held.inbox(), "e", FlagSet::EMPTY).unwrap();
    let changed = picture(&held.inbox());
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert!(held.inbox().is_from_snapshot());
    assert_eq!(picture(&held.inbox()), changed);
    assert_ne!(changed, before);
}

/// Sessions end long before the account is closed.
#[test]
fn the_snapshot_of_a_deleted_mailbox_goes_with_it() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    held.create(&name("A"), CreateOptions::default()).unwrap();
    for text in ["one", "two", "three", "four"] {
        append(&held.open("A"), text, FlagSet::EMPTY).unwrap();
    }
    held.close().unwrap();
    assert_eq!(snapshots(&user).len(), 1);
    let held = user.open(Handover::Clean);
    held.delete(&name("A")).unwrap();
    assert!(snapshots(&user).is_empty());
}

#[test]
fn a_large_mailbox_that_nobody_uses_any_more_has_a_snapshot() {
    let mut user = User::new();
    let held = with_four_messages(&mut user);
    held.inbox().store(&[uid(2)], StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
    let before = picture(&held.inbox());
    held.run_background_work().unwrap();
    held.unload(Duration::ZERO);
    assert!(held.loaded().is_empty());
    assert_eq!(snapshots(&user).len(), 1);
    assert!(held.inbox().is_from_snapshot());
    assert_eq!(picture(&held.inbox()), before);
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert!(held.inbox().is_from_snapshot());
    assert_eq!(picture(&held.inbox()), before);
}

#[test]
fn a_mailbox_whose_snapshot_is_damaged_or_gone_is_opened_from_its_rows() {
    let mut user = User::new();
    let held = with_four_messages(&mut user);
    let before = picture(&held.inbox());
    held.close().unwrap();
    let file = snapshots(&user).pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    for at in (0..bytes.len()).step_by(9).chain([bytes.len()]) {
        let mut damaged = bytes.clone();
        match damaged.get_mut(at) {
            Some(byte) => *byte ^= 0x10,
            None => drop(damaged.pop()),
        }
        std::fs::write(&file, damaged).unwrap();
        let held = user.open(Handover::Clean);
        assert!(!held.inbox().is_from_snapshot(), "byte {at}");
        assert_eq!(picture(&held.inbox()), before, "byte {at}");
        held.close().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "it is written again");
    }
    std::fs::remove_file(&file).unwrap();
    let held = user.open(Handover::Clean);
    assert!(!held.inbox().is_from_snapshot());
    assert_eq!(picture(&held.inbox()), before);
}

#[test]
fn whoever_takes_over_from_a_dead_holder_reads_rows() {
    let mut user = User::new();
    let held = with_four_messages(&mut user);
    let before = picture(&held.inbox());
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    held.inbox();
    user.die(held);
    let held = user.open(Handover::Unclean);
    assert!(!held.inbox().is_from_snapshot());
    assert_eq!(picture(&held.inbox()), before);
}
