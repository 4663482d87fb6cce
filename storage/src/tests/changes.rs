//! Changes and what sessions see of them.

use std::{sync::mpsc, thread};

use affinity::Handover;
use index::{Flag, FlagSet};

use super::*;
use crate::{CreateOptions, StoreOperation, mime::FieldNames};

const SEEN: FlagSet = FlagSet::EMPTY;

fn seen() -> FlagSet {
    SEEN.with(Flag::Seen)
}

#[test]
fn an_appended_message_is_there_at_once_and_after_reopening() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let changes = inbox.changes();
    let appended = append(&inbox, "one", seen()).unwrap();
    assert_eq!(appended.uid, uid(1));
    assert!(changes.has_changed().unwrap());
    let row = inbox.read().get(uid(1)).unwrap();
    assert_eq!((row.flags, row.internal_date), (seen(), 1_000_000_000));
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_all().unwrap(), message("one"));
    let rendered = inbox.rendered(&[uid(1), uid(2)]).unwrap();
    assert!(rendered[1].is_none());
    let envelope = rendered[0].clone().unwrap().envelope;
    assert!(envelope.windows(3).any(|part| part == b"one"));
    let before = picture(&inbox);
    held.close().unwrap();
    assert!(matches!(append(&inbox, "late", seen()), Err(StorageError::Closing(_))));

    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert_eq!(picture(&inbox), before);
    assert_eq!(inbox.read().get(uid(1)), Some(row), "MODSEQ and SAVEDATE as well");
    assert_eq!(inbox.rendered(&[uid(1)]).unwrap()[0], rendered[0]);
    assert_eq!(inbox.read().uid_next(), 2, "after a clean handover no UID is skipped");
}

#[test]
fn a_delivery_is_in_cur_under_a_name_that_says_everything() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    append(&held.inbox(), "one", seen()).unwrap();
    let files = user.files("");
    let size = message("one").len();
    assert_eq!(files.len(), 1);
    assert!(files[0].starts_with("cur/1000000000.M") && files[0].ends_with(&format!("E1.node-a,S={size},W={size},U=1:2,S")), "{files:?}");
}

#[test]
fn a_delivery_costs_five_changing_calls() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    user.faulty.fail_at(u64::MAX, crate::filesystem::Failure::Once);
    append(&inbox, "one", seen()).unwrap();
    // Create, write, fsync and close, rename; the sync of the folder costs nothing on NFS.
    assert_eq!(user.faulty.calls(), 5);
}

#[test]
fn bare_line_feeds_are_repaired_however_the_bytes_are_split() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let raw = b"Subject: x\n\r\nbody\r\n\n\nend\n";
    for at in 0..raw.len() {
        let mut staged = inbox.stage(0).unwrap();
        staged.write(&raw[..at]).unwrap();
        staged.write(&raw[at..]).unwrap();
        assert_eq!(staged.len(), 29);
        let appended = inbox.append(staged, SEEN, None).unwrap();
        assert_eq!(inbox.open_message(appended.uid).unwrap().read_all().unwrap(), b"Subject: x\r\n\r\nbody\r\n\r\n\r\nend\r\n");
    }
}

#[test]
fn cached_headers_are_found_wherever_they_are() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "in the index", seen()).unwrap();
    // Too large to be rendered while it passes: rendered when it is first looked at.
    let mut staged = inbox.stage(0).unwrap();
    staged.write(b"Subject: large\r\n\r\n").unwrap();
    for _ in 0..20_000 {
        staged.write(&[b'x'; 78]).unwrap();
        staged.write(b"\r\n").unwrap();
    }
    inbox.append(staged, SEEN, None).unwrap();
    held.run_background_work().unwrap();
    append(&inbox, "not yet in the index", seen()).unwrap();
    let all = [uid(1), uid(2), uid(3), uid(9)];
    let mut visited = std::collections::BTreeMap::new();
    inbox.visit_headers(&all, &mut |uid, headers| assert!(visited.insert(uid, headers.to_vec()).is_none(), "{uid} twice")).unwrap();
    let rendered = inbox.rendered(&all).unwrap();
    let expected = all.iter().zip(rendered).filter_map(|(uid, rendered)| Some((*uid, rendered?.headers.to_vec())));
    assert_eq!(visited, expected.collect());
    assert_eq!(visited.len(), 3);
}

/// With header fields that are not among those of every message.
fn append_with_mailer(inbox: &Mailbox, number: u32) {
    let mut staged = inbox.stage(0).unwrap();
    let long = if number == 3 { "y".repeat(20_000) } else { String::new() };
    let raw = format!("X-Mailer: mailer {number}{long}\r\nFrom: ada@x\r\nSubject: {number}\r\nX-MAILER: twice\r\n\r\nX-Mailer: no\r\n");
    staged.write(raw.as_bytes()).unwrap();
    inbox.append(staged, SEEN, None).unwrap();
}

#[test]
fn header_fields_that_were_asked_for_are_read_once() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    (1..=4).for_each(|number| append_with_mailer(&inbox, number));
    let names = FieldNames::new(&["X-Mailer".to_owned(), "FROM".to_owned(), "x-mailer".to_owned()]);
    let all: Vec<Uid> = (1..=9).map(uid).collect();
    let expected = |number: u32| {
        let long = if number == 3 { "y".repeat(20_000) } else { String::new() };
        format!("X-Mailer: mailer {number}{long}\r\nFrom: ada@x\r\nX-MAILER: twice\r\n\r\n")
    };
    let looks_for = |inbox: &Mailbox, last: u32, uids: &[Uid]| {
        let before = user.faulty.looks();
        let fields = inbox.header_fields(uids, &names).unwrap();
        for number in 1..=9 {
            let found = fields.of(uid(number)).map(|found| String::from_utf8(found.to_vec()).unwrap());
            assert_eq!(found, (number <= last && uids.contains(&uid(number))).then(|| expected(number)), "{number}");
        }
        user.faulty.looks() - before
    };
    held.run_background_work().unwrap();
    assert_eq!(looks_for(&inbox, 4, &[uid(2)]), 1, "of one message it is not kept");
    assert_eq!(looks_for(&inbox, 4, &all), 4);
    assert_eq!(looks_for(&inbox, 4, &all), 1, "but for the one that is too long to be kept");
    // What comes from now on has it before anybody asks, in the index or not yet.
    append_with_mailer(&inbox, 5);
    assert_eq!(looks_for(&inbox, 5, &[uid(5)]), 0);
    held.run_background_work().unwrap();
    assert_eq!(looks_for(&inbox, 5, &[uid(4), uid(5)]), 0);
    let others = FieldNames::new(&["X-Mailer".to_owned()]);
    assert_eq!(inbox.header_fields(&[uid(1)], &others).unwrap().of(uid(1)), Some(&b"X-Mailer: mailer 1\r\nX-MAILER: twice\r\n\r\n"[..]));
    drop(inbox);
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    held.account.create(&name("Copies"), CreateOptions::default()).unwrap();
    let copies = held.open("Copies");
    let before = user.faulty.looks();
    append_with_mailer(&inbox, 6);
    assert!(inbox.header_fields(&[uid(4), uid(6)], &names).unwrap().of(uid(6)).is_some());
    inbox.copy_to(&[uid(1), uid(2), uid(4), uid(6)], &copies).unwrap();
    held.run_background_work().unwrap();
    let copied = copies.header_fields(&[1, 2, 3, 4].map(uid), &names).unwrap();
    assert_eq!(copied.of(uid(3)).map(<[u8]>::to_vec), Some(expected(4).into_bytes()));
    assert_eq!(user.faulty.looks(), before, "copies have what their originals had");
}

#[test]
fn summaries_are_made_once_wherever_a_message_comes_from() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    (1..=3).for_each(|number| append_with_mailer(&inbox, number));
    held.run_background_work().unwrap();
    append_with_mailer(&inbox, 4);
    let subjects = |inbox: &Mailbox| {
        let mut found = std::collections::BTreeMap::new();
        let all: Vec<Uid> = (1..=9).map(uid).collect();
        inbox.visit_summaries(&all, &mut |uid, summary| assert!(found.insert(uid.get(), summary.field(0).to_vec()).is_none())).unwrap();
        found
    };
    let expected: std::collections::BTreeMap<u32, Vec<u8>> = (1..=4).map(|number| (number, number.to_string().into_bytes())).collect();
    let before = user.faulty.looks();
    assert_eq!(subjects(&inbox), expected);
    held.run_background_work().unwrap();
    assert_eq!((subjects(&inbox), user.faulty.looks()), (expected.clone(), before));
    // An index of a version without summaries: they are made of what was rendered, and kept.
    inbox.forget_summaries().unwrap();
    assert_eq!(inbox.summaries_kept().unwrap(), 0);
    assert_eq!((subjects(&inbox), user.faulty.looks()), (expected.clone(), before));
    assert_eq!(inbox.summaries_kept().unwrap(), 4);
    // Nothing is rendered: files are read.
    drop(inbox);
    held.close().unwrap();
    user.delete_index();
    let held = user.open(Handover::Clean);
    assert_eq!(subjects(&held.inbox()), expected);
    assert_eq!(held.inbox().summaries_kept().unwrap(), 4);
}

#[test]
fn a_large_message_goes_through_its_file() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let line = [b'x'; 78];
    let mut staged = inbox.stage(0).unwrap();
    staged.write(b"Subject: large\r\n\r\n").unwrap();
    for _ in 0..30_000 {
        staged.write(&line).unwrap();
        staged.write(b"\r\n").unwrap();
    }
    let size = staged.len();
    let appended = inbox.append(staged, SEEN, None).unwrap();
    assert_eq!(inbox.open_message(appended.uid).unwrap().read_all().unwrap().len() as u64, size);
    assert!(inbox.rendered(&[appended.uid]).unwrap()[0].is_some());
    let mut staged = inbox.stage(0).unwrap();
    let refused = (0..6).map(|_| staged.write(&vec![b'x'; 1 << 20])).find(Result::is_err);
    assert!(matches!(refused, Some(Err(StorageError::Limit { .. }))));
}

#[test]
fn a_dropped_message_leaves_nothing_behind() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let mut staged = held.inbox().stage(0).unwrap();
    staged.write(&vec![b'x'; 2 << 20]).unwrap();
    assert_eq!(std::fs::read_dir(user.maildir().join("tmp")).unwrap().count(), 1);
    drop(staged);
    assert_eq!(std::fs::read_dir(user.maildir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_shared_message_is_one_file_with_a_name_in_each_mailbox() {
    use std::os::unix::fs::MetadataExt;
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for bytes in [100, 2 << 20] {
        let mut staged = inbox.stage(0).unwrap();
        staged.write(&vec![b'x'; bytes]).unwrap();
        let shared = staged.share().unwrap();
        let uids: Vec<_> = (0..3).map(|_| inbox.append(inbox.stage_shared(&shared).unwrap().unwrap(), SEEN, None).unwrap().uid).collect();
        // One that is given up leaves the others alone.
        drop(inbox.stage_shared(&shared).unwrap().unwrap());
        drop(shared);
        assert_eq!(std::fs::read_dir(user.maildir().join("tmp")).unwrap().count(), 0);
        for uid in &uids {
            assert_eq!(inbox.open_message(*uid).unwrap().read_all().unwrap().len(), bytes);
            assert_eq!(inbox.read().get(*uid).unwrap().size, bytes as u64);
        }
    }
    let entries = std::fs::read_dir(user.maildir().join("cur")).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    let links: Vec<u64> = entries.map(|file| file.nlink()).collect();
    assert_eq!(links, [3; 6], "six names of two files");
}

#[test]
fn parallel_appends_become_visible_in_uid_order() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for worker in 0..8 {
            let (inbox, sender) = (&inbox, sender.clone());
            scope.spawn(move || {
                for number in 0..20 {
                    let appended = append(inbox, &format!("{worker}.{number}"), SEEN).unwrap();
                    assert!(inbox.read().position(appended.uid).is_some(), "acknowledged means visible");
                    sender.send(appended.uid.get()).unwrap();
                }
            });
        }
        // A session that looks meanwhile never sees a UID appear below one that it saw.
        let mut before: Vec<_> = Vec::new();
        while before.len() < 160 {
            let now = inbox.read().uids().to_vec();
            assert!(now.starts_with(&before));
            before = now;
            thread::yield_now();
        }
    });
    drop(sender);
    let mut uids: Vec<u32> = receiver.iter().collect();
    uids.sort_unstable();
    assert_eq!(uids, (1..=160).collect::<Vec<_>>());
}

#[test]
fn several_messages_are_appended_together() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let messages = (0..30).map(|number| {
        let mut staged = inbox.stage(0).unwrap();
        staged.write(&message(&number.to_string())).unwrap();
        (staged, SEEN, None)
    });
    let appended = inbox.append_all(messages.collect()).unwrap();
    assert_eq!(appended.iter().map(|one| one.uid.get()).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    assert_eq!(inbox.open_message(uid(7)).unwrap().read_all().unwrap(), message("6"));
}

#[test]
fn flags_change_at_once_and_names_follow() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for number in 0..3 {
        append(&inbox, &number.to_string(), SEEN).unwrap();
    }
    let first = inbox.read().highest_modseq().get();
    let stored = inbox.store(&[uid(3), uid(1), uid(9)], StoreOperation::Add(seen()), None).unwrap();
    assert_eq!(stored.rows.iter().map(|row| (row.uid, row.flags)).collect::<Vec<_>>(), [(uid(1), seen()), (uid(3), seen())]);
    assert_eq!(stored.missing, [uid(9)]);
    let modseq = stored.rows[0].modseq.get();
    assert!(modseq > first && inbox.read().highest_modseq().get() == modseq);
    let stored = inbox.store(&[uid(1), uid(2)], StoreOperation::Remove(seen()), Some(first)).unwrap();
    assert_eq!((stored.modified, stored.rows.len()), (vec![uid(1)], 1));
    assert_eq!(inbox.read().highest_modseq().get(), modseq, "nothing changed, no MODSEQ taken");

    assert_eq!(user.files("").iter().filter(|file| file.ends_with(":2,S")).count(), 0);
    held.run_background_work().unwrap();
    assert_eq!(user.files("").iter().filter(|file| file.ends_with(":2,S")).count(), 2);
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_all().unwrap(), message("0"));
}

#[test]
fn expunged_messages_are_gone_at_once_and_their_files_follow() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for number in 0..4 {
        append(&inbox, &number.to_string(), SEEN).unwrap();
    }
    let before = inbox.read().highest_modseq().get();
    inbox.store(&[uid(1), uid(2)], StoreOperation::Add(FlagSet::of(&[Flag::Deleted])), None).unwrap();
    assert_eq!(inbox.expunge(Some(&[uid(2), uid(3)])).unwrap(), [uid(2)]);
    assert_eq!(inbox.expunge(None).unwrap(), [uid(1)]);
    assert_eq!(inbox.remove(&[uid(4)]).unwrap(), [uid(4)]);
    assert!(matches!(inbox.open_message(uid(1)), Err(StorageError::Expunged)));
    assert_eq!(inbox.expunged_since(before).unwrap(), Some(vec![uid(1), uid(2), uid(4)]));
    inbox.refresh(true).unwrap();
    assert_eq!(inbox.read().uids(), [uid(3)], "files that are to be removed are no new messages");
    held.run_background_work().unwrap();
    assert_eq!(user.files("").len(), 1);
    assert_eq!(inbox.status().messages, 1);
}

#[test]
fn keywords_are_kept_by_name() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let junk = inbox.keyword("$Junk").unwrap();
    assert_eq!(inbox.keyword("$JUNK").unwrap(), junk);
    append(&inbox, "one", FlagSet::of(&[Flag::Keyword(junk)])).unwrap();
    let sent = held.open("Sent");
    sent.keyword("other").unwrap();
    inbox.copy_to(&[uid(1)], &sent).unwrap();
    assert_eq!(*sent.keywords(), ["other", "$Junk"]);
    assert_eq!(sent.read().row(0).flags.keywords().map(|id| id.position()).collect::<Vec<_>>(), [1]);
    for number in inbox.keywords().len()..usize::from(index::KeywordId::COUNT) {
        inbox.keyword(&format!("k{number}")).unwrap();
    }
    assert!(!inbox.accepts_new_keywords());
    assert!(matches!(inbox.keyword("one-more"), Err(StorageError::TooManyKeywords)));
}

#[test]
fn copies_and_moves_keep_content_flags_and_dates() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    append(&sent, "there before", SEEN).unwrap();
    for number in 0..40 {
        append(&inbox, &number.to_string(), seen()).unwrap();
    }
    let all: Vec<_> = inbox.read().uids().to_vec();
    let copied = inbox.copy_to(&all, &sent).unwrap();
    assert_eq!(copied.pairs, (1..=40).map(|number| (uid(number), uid(number + 1))).collect::<Vec<_>>());
    let before = inbox.read().highest_modseq().get();
    let moved = inbox.move_to(&[uid(40), uid(7), uid(99)], &sent).unwrap();
    assert_eq!(moved.pairs, [(uid(7), uid(42)), (uid(40), uid(43))]);
    assert_eq!(inbox.expunged_since(before).unwrap(), Some(vec![uid(7), uid(40)]));
    assert_eq!(sent.open_message(uid(42)).unwrap().read_all().unwrap(), message("6"));
    let row = sent.read().get(uid(42)).unwrap();
    assert_eq!((row.flags, row.internal_date), (seen(), 1_000_000_000));
    assert!(sent.rendered(&[uid(2), uid(42)]).unwrap().iter().all(Option::is_some));
    let within = inbox.move_to(&[uid(1)], &inbox).unwrap();
    assert_eq!(within.pairs, [(uid(1), uid(41))]);
    assert_eq!(inbox.read().uids().len(), 38);
    // What may not come with them is at no time there.
    let before = sent.read().highest_modseq().get();
    let without =
        [inbox.copy_keeping(&[uid(2)], &sent, FlagSet::EMPTY).unwrap(), inbox.move_keeping(&[uid(2)], &sent, FlagSet::EMPTY).unwrap()];
    for (copied, modseq) in without.iter().zip(before + 1..) {
        let row = sent.read().get(copied.pairs[0].1).unwrap();
        assert_eq!((row.flags, row.modseq.get()), (FlagSet::EMPTY, modseq));
    }
    let pictures = (picture(&inbox), picture(&sent));
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!((picture(&held.inbox()), picture(&held.open("Sent"))), pictures);
}

#[test]
fn recent_messages_are_claimed_once() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", SEEN).unwrap();
    append(&inbox, "two", SEEN).unwrap();
    assert_eq!(inbox.status().recent, 2);
    assert_eq!(inbox.recent(true), 1);
    assert_eq!(inbox.recent(false), 3);
    append(&inbox, "three", SEEN).unwrap();
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!((held.inbox().recent(true), held.inbox().status().recent), (3, 0));
}

#[test]
fn uidls_come_from_uid_and_uidvalidity() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", SEEN).unwrap();
    assert_eq!(inbox.uidl(&[uid(1)], &crate::UidlFormat::default()).unwrap(), [format!("00000001{:08x}", inbox.uid_validity().get())]);
}

#[test]
fn an_unused_mailbox_is_unloaded_and_comes_back_as_it_was() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    held.unload(Duration::ZERO);
    assert!(Arc::ptr_eq(&inbox, &held.inbox()), "somebody has it");
    append(&inbox, "two", FlagSet::of(&[Flag::Seen])).unwrap();
    let weak = Arc::downgrade(&inbox);
    let (before, status) = (picture(&inbox), inbox.status());
    drop(inbox);
    held.unload(Duration::ZERO);
    assert!(weak.upgrade().is_some(), "its rows are not in the index yet");
    held.run_background_work().unwrap();
    held.unload(Duration::from_secs(3600));
    assert!(weak.upgrade().is_some(), "it was used just now");
    held.unload(Duration::ZERO);
    assert!(weak.upgrade().is_none());
    let inbox = held.inbox();
    assert_eq!((picture(&inbox), inbox.status()), (before, status));
    append(&inbox, "three", FlagSet::EMPTY).unwrap();
    assert_eq!(inbox.read().uids(), [uid(1), uid(2), uid(3)]);
}

#[test]
fn a_mailbox_whose_folder_fails_keeps_no_other_from_background_work() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    let seen = StoreOperation::Add(FlagSet::of(&[Flag::Seen]));
    for mailbox in [&inbox, &sent] {
        append(mailbox, "a", FlagSet::EMPTY).unwrap();
        append(mailbox, "b", FlagSet::EMPTY).unwrap();
    }
    assert!(held.run_background_work().unwrap().is_empty());
    // Names of this folder can't be changed.
    let (folder, aside) = (user.maildir().join(".Sent/cur"), user.maildir().join(".Sent/aside"));
    #[expect(clippy::disallowed_methods, reason = "the folder is moved out of sight")]
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, b"no folder").unwrap();
    let named = |name: &str| user.files("").iter().filter(|file| file.ends_with(name)).count();
    for (round, failures) in [(1, 1), (2, 0)] {
        for mailbox in [&inbox, &sent] {
            mailbox.store(&[uid(round)], seen, None).unwrap();
        }
        let failed = held.run_background_work().unwrap();
        assert_eq!(failed.len(), failures, "the one that failed waits, {failed:?}");
        assert_eq!(named(":2,S"), usize::try_from(round).unwrap(), "the other does not");
    }
    // It is done as soon as it can be.
    std::fs::remove_file(&folder).unwrap();
    #[expect(clippy::disallowed_methods, reason = "and back")]
    std::fs::rename(&aside, &folder).unwrap();
    let is_done = || user.files(".Sent").iter().all(|file| file.ends_with(":2,S"));
    for _ in 0..6000 {
        if is_done() {
            break;
        }
        assert!(held.run_background_work().unwrap().is_empty());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_done(), "{:?}", user.files(".Sent"));
}
