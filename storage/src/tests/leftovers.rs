//! Rows that follow later: those of copies, what was made of messages that are gone, and header fields that were read.

use affinity::Handover;
use index::{Flag, FlagSet};

use super::*;
use crate::{filesystem::Failure, mime::FieldNames};

const NONE: FlagSet = FlagSet::EMPTY;

/// How many of the messages 1 to 99 of a folder have a summary in the index, whether they are there or not.
fn summaries(held: &Held, folder: &str) -> usize {
    let mailboxes = held.store.with_writer(|index| index.mailboxes()).unwrap();
    let id = mailboxes.into_iter().find(|mailbox| mailbox.folder == folder).unwrap().id;
    let all: Vec<Uid> = (1..=99).map(uid).collect();
    let mut found = 0;
    held.store.read(|index| index.summaries(id, &all, &mut |_, _| found += 1)).unwrap();
    found
}

/// So many messages in INBOX, all of whose rows are written.
fn append_many(held: &Held, count: u32) {
    let inbox = held.inbox();
    for number in 0..count {
        append(&inbox, &number.to_string(), NONE).unwrap();
    }
    held.run_background_work().unwrap();
}

#[test]
fn what_was_made_of_messages_that_are_gone_is_swept() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append_many(&held, 40);
    let gone: Vec<Uid> = (1..=40).filter(|number| *number < 25 || number % 2 == 0).map(uid).collect();
    inbox.remove(&gone).unwrap();
    assert_eq!(summaries(&held, ""), 40, "whoever expunges does not wait for that");
    // What is left is known to the next one who opens the account.
    let (before, sent) = (picture(&inbox), held.open("Sent"));
    user.die(held);
    drop((inbox, sent));
    let held = user.open(Handover::Unclean);
    assert_eq!((summaries(&held, ""), picture(&held.inbox())), (40, before));
    let mut rounds = 0;
    while !held.store.leftovers().is_empty() {
        held.run_background_work().unwrap();
        rounds += 1;
        assert!(rounds < 20);
    }
    assert_eq!(summaries(&held, ""), 8);
    assert!(held.store.with_writer(|index| index.leftovers(9)).unwrap().is_empty());
    held.check_index().unwrap();
}

#[test]
fn copies_have_what_was_made_of_originals_that_are_gone() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    append_many(&held, 20);
    let names = FieldNames::new(&["X-Mailer".to_owned()]);
    let all: Vec<Uid> = inbox.read().uids().to_vec();
    inbox.header_fields(&all, &names).unwrap();
    let before = user.faulty.looks();
    let all_of = |mailbox: &Mailbox| {
        let uids: Vec<Uid> = mailbox.read().uids().to_vec();
        assert!(mailbox.rendered(&uids).unwrap().iter().all(Option::is_some));
        assert!(mailbox.previews(&uids, true).unwrap().iter().all(Option::is_some));
        assert!(uids.iter().all(|uid| mailbox.header_fields(&uids, &names).unwrap().of(*uid).is_some()));
        let mut visited = 0;
        mailbox.visit_summaries(&uids, &mut |_, _| visited += 1).unwrap();
        assert_eq!(visited, uids.len());
        uids.len()
    };
    // As clients without MOVE do: the originals are gone before the rows of the copies are written.
    inbox.copy_to(&all[..10], &sent).unwrap();
    inbox.remove(&all[..10]).unwrap();
    assert_eq!(summaries(&held, ".Sent"), 0, "whoever copies does not wait for that");
    held.run_background_work().unwrap();
    assert_eq!((summaries(&held, ""), summaries(&held, ".Sent")), (10, 10));
    // Asked for at once, before anything went on in the background; copies of copies, and moved on.
    inbox.move_to(&all[10..], &sent).unwrap();
    assert_eq!(all_of(&sent), 20);
    let sent_all: Vec<Uid> = sent.read().uids().to_vec();
    let copied = sent.copy_to(&sent_all, &inbox).unwrap();
    let moved = inbox.move_to(&copied.pairs.iter().map(|(_, copy)| *copy).collect::<Vec<_>>(), &sent).unwrap();
    assert_eq!((moved.pairs.len(), inbox.read().len(), all_of(&sent)), (20, 0, 40));
    held.run_background_work().unwrap();
    assert_eq!(all_of(&sent), 40);
    assert_eq!(user.faulty.looks(), before, "no file was read again");
}

#[test]
fn messages_that_came_and_went_between_two_commits_are_expunged() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    append(&inbox, "in the index", NONE).unwrap();
    held.run_background_work().unwrap();
    let before = (inbox.read().highest_modseq().get(), sent.read().highest_modseq().get());
    for number in 0..6 {
        append(&inbox, &number.to_string(), NONE).unwrap();
    }
    inbox.store(&[uid(5)], crate::StoreOperation::Add(FlagSet::of(&[Flag::Deleted])), None).unwrap();
    append(&inbox, "not yet", NONE).unwrap();
    inbox.remove(&[uid(1), uid(3), uid(8)]).unwrap();
    let copied = inbox.copy_to(&[uid(4), uid(6)], &sent).unwrap();
    let copies: Vec<Uid> = copied.pairs.iter().map(|(_, copy)| *copy).collect();
    sent.move_to(&copies[..1], &inbox).unwrap();
    let gone = |inbox: &Mailbox, sent: &Mailbox| (inbox.expunged_since(before.0).unwrap(), sent.expunged_since(before.1).unwrap());
    let expected = (Some(vec![uid(1), uid(3), uid(8)]), Some(vec![copies[0]]));
    assert_eq!(gone(&inbox, &sent), expected);
    let pictures = (picture(&inbox), picture(&sent));
    held.check_index().unwrap();
    held.run_background_work().unwrap();
    drop((inbox, sent));
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    assert_eq!((gone(&inbox, &sent), (picture(&inbox), picture(&sent))), (expected, pictures));
    assert_eq!(inbox.read().uids(), [2, 4, 5, 6, 7, 9].map(uid));
    held.check_index().unwrap();
}

#[test]
fn copies_whose_rows_wait_are_all_there_after_a_crash() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    let keywords: Vec<_> = (0..30).map(|number| inbox.keyword(&format!("keyword-{number}")).unwrap()).collect();
    for number in 0..40 {
        append(&inbox, &number.to_string(), FlagSet::of(&[Flag::Seen])).unwrap();
    }
    let all: Vec<Uid> = inbox.read().uids().to_vec();
    inbox.copy_to(&all, &sent).unwrap();
    // No letter of a file name says the last keyword: the index does, until the file beside the mail has it.
    inbox.store(&all[..1], crate::StoreOperation::Add(FlagSet::of(&[Flag::Keyword(keywords[29])])), None).unwrap();
    for number in 0..28 {
        sent.keyword(&format!("other-{number}")).unwrap();
    }
    inbox.copy_to(&all[..1], &sent).unwrap();
    inbox.move_to(&all[20..], &sent).unwrap();
    let pictures = (picture(&inbox), picture(&sent));
    assert_eq!((pictures.0.messages.len(), pictures.1.messages.len()), (20, 61));
    drop((inbox, sent));
    user.die(held);
    let held = user.open(Handover::Unclean);
    assert_eq!((picture(&held.inbox()), picture(&held.open("Sent"))), pictures);
}

#[test]
fn a_holder_that_dies_between_two_commits_of_copies_leaves_every_uid_as_it_was() {
    for rows in [0, 1, 5, 17, 39] {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        let (inbox, sent) = (held.inbox(), held.open("Sent"));
        for number in 0..40 {
            append(&inbox, &number.to_string(), NONE).unwrap();
        }
        let all: Vec<Uid> = inbox.read().uids().to_vec();
        let copied = inbox.copy_to(&all, &sent).unwrap();
        sent.commit_rows(rows).unwrap();
        let before = picture(&sent);
        assert_eq!(copied.pairs.len(), before.messages.len());
        drop((inbox, sent));
        user.die(held);
        let held = user.open(Handover::Unclean);
        assert_eq!(picture(&held.open("Sent")), before, "{rows} rows");
    }
}

#[test]
fn fields_that_were_read_wait_for_the_next_round_at_most() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append_many(&held, 40);
    let all: Vec<Uid> = inbox.read().uids().to_vec();
    let ask = |name: &str, uids: &[Uid]| {
        let before = user.faulty.looks();
        let fields = inbox.header_fields(uids, &FieldNames::new(&[name.to_owned()])).unwrap();
        assert!(uids.iter().all(|uid| fields.of(*uid) == Some(b"\r\n")));
        user.faulty.looks() - before
    };
    let kept = || held.store.with_writer(|index| index.asked_fields()).unwrap().len();
    assert_eq!((ask("x-1", &all[..5]), held.store.answers_waiting(), kept()), (5, 5, 0));
    assert_eq!((ask("x-1", &all[5..10]), held.store.answers_waiting(), kept()), (5, 10, 0), "others are not asked for");
    held.run_background_work().unwrap();
    assert_eq!((held.store.answers_waiting(), kept(), ask("x-1", &all[..10])), (0, 1, 0));
    assert_eq!((ask("x-2", &all), held.store.answers_waiting(), kept()), (40, 0, 2), "so many do not wait");
    assert_eq!(ask("x-2", &all), 0);
    // Expunged while they wait.
    assert_eq!((ask("x-3", &all[..4]), held.store.answers_waiting()), (4, 4));
    inbox.remove(&all[1..3]).unwrap();
    assert_eq!((ask("x-3", &all[3..5]), held.store.answers_waiting()), (1, 0), "what waits and is asked for is written");
    held.check_index().unwrap();
}

#[test]
fn a_removal_is_forgotten_when_it_is_durable() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    held.run_background_work().unwrap();
    inbox.remove(&[uid(1)]).unwrap();
    // The first call removes the file, the second is that of its folder.
    user.faulty.fail_at(2, Failure::Once);
    assert!(inbox.remove_files().is_err());
    assert!(user.files("").is_empty());
    user.faulty.fail_at(u64::MAX, Failure::Once);
    inbox.remove_files().unwrap();
    assert_eq!(user.faulty.calls(), 2, "once more");
    inbox.remove_files().unwrap();
    assert_eq!(user.faulty.calls(), 2, "and no more");
}
