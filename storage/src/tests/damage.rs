//! A damaged index: noticed, and made anew, while the account is open and while it is closed.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use affinity::Handover;
use index::{Flag, FlagSet};
use proptest::prelude::*;

use super::*;
use crate::{CreateOptions, StoreOperation};

/// Where damage happens: in the database, or in the log.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// A byte of the file, as a part of its length, is changed by this.
    Byte { file: &'static str, at: f64, by: u8 },
    /// A byte of the header of the file or of a page.
    Header { file: &'static str, page: f64, byte: usize, by: u8 },
    /// The file is cut off.
    Cut { file: &'static str, at: f64 },
    /// It is gone.
    Removed { file: &'static str },
}

fn damages() -> impl Strategy<Value = Damage> {
    let file = || prop_oneof![2 => Just("index.db"), 1 => Just("index.db-wal")];
    prop_oneof![
        4 => (file(), 0.0..1.0, 1_u8..).prop_map(|(file, at, by)| Damage::Byte { file, at, by }),
        4 => (file(), 0.0..1.0, 0_usize..40, 1_u8..).prop_map(|(file, page, byte, by)| Damage::Header { file, page, byte, by }),
        2 => (file(), 0.0..1.0).prop_map(|(file, at)| Damage::Cut { file, at }),
        1 => file().prop_map(|file| Damage::Removed { file }),
    ]
}

impl Damage {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any place will do")]
    fn strike(self, folder: &Path) {
        let (Damage::Byte { file, .. } | Damage::Header { file, .. } | Damage::Cut { file, .. } | Damage::Removed { file }) = self;
        let path = folder.join(file);
        let Ok(mut bytes) = std::fs::read(&path) else { return };
        let place = |part: f64, of: usize| (part * of as f64) as usize;
        match self {
            Damage::Removed { .. } => return std::fs::remove_file(&path).unwrap(),
            Damage::Cut { at, .. } => bytes.truncate(place(at, bytes.len())),
            Damage::Byte { at, by, .. } if !bytes.is_empty() => {
                let at = place(at, bytes.len());
                bytes[at] ^= by;
            }
            Damage::Header { page, byte, by, .. } if bytes.len() > 4096 => {
                let at = place(page, bytes.len() / 4096) * 4096 + byte;
                bytes[at] ^= by;
            }
            Damage::Byte { .. } | Damage::Header { .. } => {}
        }
        // In place: whoever has the file open sees it.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    }
}

fn index_folder(user: &User) -> PathBuf {
    let newest = std::fs::read_dir(user.index()).unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u64>().ok());
    user.index().join(newest.max().unwrap().to_string())
}

/// Calls until it works; damage may make one call fail.
fn once_again<T>(what: &str, mut call: impl FnMut() -> Result<T, StorageError>) -> T {
    match call() {
        Err(StorageError::IndexDamaged(_)) => call().unwrap_or_else(|error| panic!("{what}, the second time: {error}")),
        answer => answer.unwrap_or_else(|error| panic!("{what}: {error}")),
    }
}

fn flags(number: usize) -> FlagSet {
    [FlagSet::EMPTY, FlagSet::of(&[Flag::Seen]), FlagSet::of(&[Flag::Flagged, Flag::Answered])][number % 3]
}

/// A bit of everything after the damage: what was told before, and what is told now, holds.
fn work(user: &User, held: &Held, damage: &[Damage], forget: bool) {
    let inbox = held.inbox();
    let before = picture(&inbox);
    let modseq = inbox.read().highest_modseq();
    for (number, damage) in damage.iter().enumerate() {
        if let Err(error) = held.run_background_work() {
            assert!(matches!(error, StorageError::IndexDamaged(_)), "{error}");
        }
        damage.strike(&index_folder(user));
        if forget {
            // The account's own pages are forgotten, so that it has to read the file.
            drop(held.check_index());
        }
        let sent = once_again("SELECT", || held.account.mailbox(&name("Sent")));
        once_again("STORE", || inbox.store(&[uid(2)], StoreOperation::Replace(flags(number)), None));
        once_again("FETCH", || inbox.rendered(&[uid(1), uid(2)]));
        once_again("UIDL", || inbox.uidl(&[uid(1)], &crate::UidlFormat::default()));
        append(&inbox, "more", FlagSet::EMPTY).unwrap();
        let copied = once_again("COPY", || inbox.copy_to(&[uid(1)], &sent));
        assert_eq!(sent.open_message(copied.pairs[0].1).unwrap().read_all().unwrap(), message("1"));
        once_again("EXPUNGE", || sent.remove(&[copied.pairs[0].1]));
        assert!(inbox.read().highest_modseq() >= modseq);
    }
    let now = picture(&inbox);
    assert_eq!((now.uid_validity, &now.keywords), (before.uid_validity, &before.keywords));
    for (uid, was) in &before.messages {
        let expected = if *uid == 2 { flags(damage.len() - 1) } else { was.0 };
        assert_eq!(now.messages[uid], (expected, was.1, was.2, was.3.clone()), "UID {uid}");
    }
}

fn filled(user: &mut User) -> Held {
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    inbox.keyword("todo").unwrap();
    for number in 1..=30 {
        append(&inbox, &number.to_string(), flags(number)).unwrap();
    }
    inbox.store(&[uid(5)], StoreOperation::Add(FlagSet::of(&[Flag::Keyword(inbox.keyword("todo").unwrap())])), None).unwrap();
    inbox.remove(&[uid(7)]).unwrap();
    held.create(&name("Archive"), CreateOptions::default()).unwrap();
    append(&held.open("Archive"), "kept", FlagSet::of(&[Flag::Seen])).unwrap();
    held
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_damaged_index_is_made_anew_while_it_is_used(damage in prop::collection::vec(damages(), 1..4), forget in any::<bool>()) {
        let mut user = User::new();
        let held = filled(&mut user);
        work(&user, &held, &damage, forget);
        let before = picture(&held.inbox());
        let archive = picture(&held.open("Archive"));
        held.close().unwrap();
        for _ in 0..2 {
            let held = user.open(Handover::Clean);
            prop_assert!(picture(&held.inbox()) == before && picture(&held.open("Archive")) == archive);
            held.close().unwrap();
            user.delete_index();
        }
    }

    #[test]
    fn an_index_that_was_damaged_while_nobody_held_it_is_rebuilt(damage in prop::collection::vec(damages(), 1..4), dies in any::<bool>()) {
        let mut user = User::new();
        let held = filled(&mut user);
        held.run_background_work().unwrap();
        let (before, archive, modseq) = (picture(&held.inbox()), picture(&held.open("Archive")), held.inbox().read().highest_modseq());
        if dies {
            user.die(held);
        } else {
            held.close().unwrap();
        }
        for damage in damage {
            damage.strike(&index_folder(&user));
        }
        let held = user.open(if dies { Handover::Unclean } else { Handover::Clean });
        let inbox = held.inbox();
        prop_assert!(picture(&inbox) == before && picture(&held.open("Archive")) == archive);
        prop_assert!(inbox.read().highest_modseq() >= modseq);
        prop_assert!(append(&inbox, "next", FlagSet::EMPTY).unwrap().uid > uid(30));
        held.close().unwrap();
        user.delete_index();
        prop_assert_eq!(picture(&user.open(Handover::Clean).inbox()).messages.len(), 30);
    }
}

#[test]
fn an_index_that_closing_finds_damaged_is_made_anew() {
    let mut user = User::new();
    let held = filled(&mut user);
    held.close().unwrap();
    Damage::Header { file: "index.db", page: 0.98, byte: 0, by: 1 }.strike(&index_folder(&user));
    let held = user.open(Handover::Clean);
    append(&held.inbox(), "next", FlagSet::EMPTY).unwrap();
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!(picture(&held.inbox()).messages.len(), 30);
    held.check_index().unwrap();
}

/// SQLite opens such a file for reading only.
#[test]
fn an_index_that_asks_for_a_format_to_come_is_made_anew() {
    let mut user = User::new();
    let held = filled(&mut user);
    held.run_background_work().unwrap();
    let before = picture(&held.inbox());
    held.close().unwrap();
    Damage::Header { file: "index.db", page: 0.0, byte: 18, by: 4 }.strike(&index_folder(&user));
    let held = user.open(Handover::Clean);
    assert!(picture(&held.inbox()) == before);
    append(&held.inbox(), "next", FlagSet::EMPTY).unwrap();
}

#[test]
fn an_index_that_cannot_be_made_anew_is_tried_again() {
    let mut user = User::new();
    let held = filled(&mut user);
    let inbox = held.inbox();
    Damage::Cut { file: "index.db", at: 0.3 }.strike(&index_folder(&user));
    Damage::Cut { file: "index.db-wal", at: 0.3 }.strike(&index_folder(&user));
    assert!(matches!(held.check_index(), Err(StorageError::IndexDamaged(_))));
    // Something else has the name that the new index needs.
    let in_the_way = user.index().join("rebuilding");
    std::fs::write(&in_the_way, "x").unwrap();
    assert!(matches!(inbox.store(&[uid(2)], StoreOperation::Replace(FlagSet::EMPTY), None), Err(StorageError::Io { .. })));
    std::fs::remove_file(&in_the_way).unwrap();
    inbox.store(&[uid(2)], StoreOperation::Replace(FlagSet::EMPTY), None).unwrap();
    assert_eq!(held.check_index().unwrap(), 3);
    held.rebuild_index().unwrap();
    held.check_index().unwrap();
    assert_eq!(inbox.read().len(), 29);
}

#[test]
fn work_on_an_index_says_how_far_it_is() {
    let mut user = User::new();
    let held = filled(&mut user);
    let check = || assert_eq!(held.check_index().unwrap(), 3);
    let rebuild = || held.rebuild_index().unwrap();
    for work in [&check as &(dyn Fn() + Sync), &rebuild] {
        let over = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let half_done = || held.index_progress().filter(|progress| progress.messages > 0);
                std::iter::from_fn(|| (!over.load(Ordering::SeqCst)).then(half_done)).flatten().next()
            });
            (0..1_000).take_while(|_| !watcher.is_finished()).for_each(|_| work());
            over.store(true, Ordering::SeqCst);
            watcher.join().unwrap()
        });
        let progress = seen.expect("it was looked at in the middle of a thousand times");
        assert!(progress.of == 3 && progress.mailboxes <= 3 && progress.messages <= 30, "{progress:?}");
        assert_eq!(held.index_progress(), None, "it is over");
    }
}
