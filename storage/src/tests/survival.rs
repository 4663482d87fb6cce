//! Losing the index, the holder, or the lease.

use affinity::Handover;
use index::{Flag, FlagSet};
use proptest::prelude::*;

use super::*;

use crate::{
    CreateOptions, StoreOperation,
    filesystem::{Failure, Shared},
    maildir::ceiling::Marks,
};

/// One thing that a client does; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Append { mailbox: usize, flags: u8, date: i64 },
    Store { mailbox: usize, message: usize, flags: u8, keyword: bool },
    Expunge { mailbox: usize, message: usize },
    Copy { from: usize, to: usize, message: usize },
    Move { from: usize, to: usize, message: usize },
    Create(u8),
    Delete(usize),
    Rename { from: usize, to: u8 },
    Subscribe(u8),
    Background,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (mailbox, message) = (0..6_usize, 0..8_usize);
    prop_oneof![
        4 => (mailbox.clone(), 0..64_u8, 0..2_000_000_000_i64).prop_map(|(mailbox, flags, date)| Step::Append { mailbox, flags, date }),
        3 => (mailbox.clone(), message.clone(), 0..64_u8, any::<bool>())
            .prop_map(|(mailbox, message, flags, keyword)| Step::Store { mailbox, message, flags, keyword }),
        1 => (mailbox.clone(), message.clone()).prop_map(|(mailbox, message)| Step::Expunge { mailbox, message }),
        1 => (mailbox.clone(), mailbox.clone(), message.clone()).prop_map(|(from, to, message)| Step::Copy { from, to, message }),
        1 => (mailbox.clone(), mailbox.clone(), message).prop_map(|(from, to, message)| Step::Move { from, to, message }),
        1 => (0..9_u8).prop_map(Step::Create),
        1 => mailbox.clone().prop_map(Step::Delete),
        1 => (mailbox, 0..9_u8).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => (0..9_u8).prop_map(Step::Subscribe),
        1 => Just(Step::Background),
        1 => Just(Step::Reopen),
    ]
}

fn named(number: u8) -> MailboxName {
    name(["a", "b", "a/x", "a/x/deep", "b/y", "Entwürfe", "c c", "&", "INBOX/sub"][usize::from(number) % 9])
}

fn nth_mailbox(held: &Held, number: usize) -> Arc<Mailbox> {
    let list: Vec<_> = held.list().unwrap().into_iter().filter(|entry| entry.selectable).collect();
    held.account.mailbox(&list[number % list.len()].name).unwrap()
}
fn nth_message(mailbox: &Mailbox, number: usize) -> Vec<Uid> {
    let columns = mailbox.read();
    if columns.is_empty() { Vec::new() } else { vec![columns.uids()[number % columns.len()]] }
}

fn take(held: &Held, step: &Step) {
    match step {
        Step::Append { mailbox, flags, date } => {
            let mailbox = nth_mailbox(held, *mailbox);
            let mut staged = mailbox.stage(0).unwrap();
            staged.write(&message(&date.to_string())).unwrap();
            mailbox.append(staged, FlagSet::from_bits((*flags).into()), Some(*date)).unwrap();
        }
        Step::Store { mailbox, message, flags, keyword } => {
            let mailbox = nth_mailbox(held, *mailbox);
            let mut flags = FlagSet::from_bits((*flags).into());
            if *keyword {
                flags = flags.with(Flag::Keyword(mailbox.keyword(&format!("k{}", message % 3)).unwrap()));
            }
            mailbox.store(&nth_message(&mailbox, *message), StoreOperation::Replace(flags), None).unwrap();
        }
        Step::Expunge { mailbox, message } => {
            let mailbox = nth_mailbox(held, *mailbox);
            mailbox.remove(&nth_message(&mailbox, *message)).unwrap();
        }
        Step::Copy { from, to, message } => {
            let (from, to) = (nth_mailbox(held, *from), nth_mailbox(held, *to));
            from.copy_to(&nth_message(&from, *message), &to).unwrap();
        }
        Step::Move { from, to, message } => {
            let (from, to) = (nth_mailbox(held, *from), nth_mailbox(held, *to));
            from.move_to(&nth_message(&from, *message), &to).unwrap();
        }
        Step::Create(number) => expected(held.create(&named(*number), CreateOptions::default()).map(drop)),
        Step::Delete(number) => expected(held.delete(&nth_mailbox(held, *number).name())),
        Step::Rename { from, to } => expected(held.rename(&nth_mailbox(held, *from).name(), &named(*to))),
        Step::Subscribe(number) => held.set_subscribed(&named(*number), number % 2 == 0).unwrap(),
        Step::Background => drop(held.run_background_work().unwrap()),
        Step::Reopen => {}
    }
}

/// Refusals that a client can bring about.
fn expected(result: Result<(), StorageError>) {
    match result {
        Ok(()) | Err(StorageError::MailboxExists(_) | StorageError::NotAllowed(_) | StorageError::NoMailbox(_)) => {}
        Err(other) => panic!("{other}"),
    }
}

/// Everything of a user, and the numbers that must not fall: UIDNEXT and HIGHESTMODSEQ.
type Everything = (Vec<crate::MailboxEntry>, BTreeMap<String, Picture>);
type Numbers = BTreeMap<String, (u32, u64)>;

fn everything(held: &Held) -> (Everything, Numbers) {
    let list = held.list().unwrap();
    let (mut pictures, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    for entry in list.iter().filter(|entry| entry.selectable) {
        let mailbox = held.account.mailbox(&entry.name).unwrap();
        let key = format!("{} {}", entry.name, mailbox.uid_validity());
        pictures.insert(key.clone(), picture(&mailbox));
        let status = mailbox.status();
        numbers.insert(key, (status.uid_next, status.highest_modseq.get()));
    }
    ((list, pictures), numbers)
}

fn assert_not_lower(before: &Numbers, after: &Numbers) {
    for (mailbox, (uid_next, modseq)) in before {
        let (uid_next_now, modseq_now) = after[mailbox];
        assert!(uid_next_now >= *uid_next && modseq_now >= *modseq, "{mailbox}: {before:?} then {after:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_index_can_be_deleted_at_any_time(steps in proptest::collection::vec(step(), 1..40)) {
        let mut user = User::new();
        let mut held = user.open(Handover::Clean);
        for step in &steps {
            take(&held, step);
            if matches!(step, Step::Reopen) {
                held.close().unwrap();
                held = user.open(Handover::Clean);
            }
        }
        let (before, numbers) = everything(&held);
        held.close().unwrap();
        user.delete_index();
        let held = user.open(Handover::Clean);
        let (after, numbers_after) = everything(&held);
        prop_assert_eq!(&after, &before);
        assert_not_lower(&numbers, &numbers_after);
        // And the next message takes a UID that none ever had.
        for entry in after.0.iter().filter(|entry| entry.selectable) {
            let mailbox = held.account.mailbox(&entry.name).unwrap();
            let appended = append(&mailbox, "after", FlagSet::EMPTY).unwrap();
            let key = format!("{} {}", entry.name, mailbox.uid_validity());
            prop_assert!(appended.uid.get() >= numbers[&key].0);
        }
    }

    #[test]
    fn a_new_holder_has_all_that_a_dead_one_acknowledged(steps in proptest::collection::vec(step(), 1..40)) {
        let mut user = User::new();
        let mut held = user.open(Handover::Clean);
        for step in &steps {
            take(&held, step);
            if matches!(step, Step::Reopen) {
                user.die(held);
                held = user.open(Handover::Unclean);
            }
        }
        let (before, numbers) = everything(&held);
        user.die(held);
        let held = user.open(Handover::Unclean);
        let (after, numbers_after) = everything(&held);
        prop_assert_eq!(&after, &before);
        assert_not_lower(&numbers, &numbers_after);
        held.run_background_work().unwrap();
        held.close().unwrap();
        let held = user.open(Handover::Clean);
        prop_assert_eq!(&everything(&held).0, &before);
    }
}

#[test]
fn a_new_holder_goes_on_above_what_the_dead_one_told() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let mut told = 0;
    for number in 0..5 {
        told = append(&inbox, &number.to_string(), FlagSet::EMPTY).unwrap().uid.get();
    }
    let modseq = inbox.read().highest_modseq();
    // A message that was told, and expunged, and of which nothing is left anywhere.
    inbox.remove(&[uid(told)]).unwrap();
    user.die(held);
    user.delete_index();
    let held = user.open(Handover::Unclean);
    let inbox = held.inbox();
    assert!(append(&inbox, "next", FlagSet::EMPTY).unwrap().uid.get() > told);
    assert!(inbox.read().highest_modseq() > modseq);
    assert_eq!(inbox.expunged_since(modseq.get()).unwrap(), None, "what was expunged is not known any more");
}

#[test]
fn what_was_told_is_below_the_ceilings() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let within = |uid_next: u32, modseq: u64| {
        let marks = Marks::find(&Shared.list(&user.maildir()).unwrap()).unwrap();
        assert!(uid_next <= marks.uid && modseq < marks.modseq, "{marks:?}");
    };
    for round in 0..12 {
        let messages = (0..200).map(|_| (inbox.stage(0).unwrap(), FlagSet::EMPTY, None));
        inbox.append_all(messages.collect()).unwrap();
        for _ in 0..100 {
            let operation = if inbox.read().row(0).flags.is_empty() { StoreOperation::Add } else { StoreOperation::Remove };
            inbox.store(&[uid(1)], operation(FlagSet::of(&[Flag::Seen])), None).unwrap();
        }
        let status = inbox.status();
        within(status.uid_next, status.highest_modseq.get());
        if round == 6 {
            held.run_background_work().unwrap();
        }
    }
}

#[test]
fn an_abandoned_account_writes_nothing_more() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    inbox.store(&[uid(1)], StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
    let staged = inbox.stage(0).unwrap();
    held.account.abandon();
    user.faulty.fail_at(u64::MAX, crate::filesystem::Failure::Once);
    assert!(matches!(inbox.append(staged, FlagSet::EMPTY, None), Err(StorageError::LeaseLost(_))));
    assert!(matches!(held.run_background_work(), Err(StorageError::LeaseLost(_))));
    assert!(matches!(held.close(), Err(StorageError::LeaseLost(_))));
    assert!(matches!(inbox.store(&[uid(1)], StoreOperation::Add(FlagSet::EMPTY), None), Err(StorageError::LeaseLost(_))));
    assert_eq!(user.faulty.calls(), 0);
    assert!(user.files("")[0].ends_with(":2,"));
}

#[test]
fn an_account_whose_index_can_not_be_closed_goes_on() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    held.run_background_work().unwrap();
    let reader = held.store.with_writer(|index| index.reader()).unwrap();
    let mailboxes = held.store.with_writer(|index| index.mailboxes()).unwrap();
    let id = mailboxes.into_iter().find(|mailbox| mailbox.uid_next > 1).unwrap().id;
    let mut refused = 0;
    // While somebody reads, the log can't be moved into the database as a whole: what a full file system does as well.
    reader
        .rendered(id, &[uid(1)], &mut |_, _| {
            refused += usize::from(held.close().is_err());
            append(&inbox, "two", FlagSet::EMPTY).unwrap();
        })
        .unwrap();
    assert_eq!(refused, 1);
    drop(reader);
    append(&inbox, "three", FlagSet::EMPTY).unwrap();
    assert_eq!(held.mailbox(&MailboxName::inbox()).unwrap().status().messages, 3);
    held.close().unwrap();
}

#[test]
fn a_folder_that_fails_keeps_no_account_from_closing() {
    const EACCES: i32 = 13;
    let mut user = User::new();
    user.faulty = Faulty::new(EACCES);
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for subject in ["one", "two"] {
        append(&inbox, subject, FlagSet::EMPTY).unwrap();
    }
    held.run_background_work().unwrap();
    inbox.store(&[uid(1)], StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
    inbox.remove(&[uid(2)]).unwrap();
    user.faulty.fail_at(1, Failure::FromThenOn);
    held.close().unwrap();
    // Nor does the next holder's, who has it from the index alone.
    user.open(Handover::Clean).close().unwrap();
    let refused = crate::release::to_dovecot(&user.paths(), || Ok(()));
    assert!(
        matches!(refused, Err(crate::release::ReleaseError::Held(why)) if why.contains("names of files")),
        "the index is all that has it"
    );
    assert!(user.faulty.calls() > 1);
    user.faulty.heal();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert_eq!(inbox.read().rows().map(|row| (row.uid, row.flags)).collect::<Vec<_>>(), [(uid(1), FlagSet::of(&[Flag::Seen]))]);
    held.run_background_work().unwrap();
    assert!(matches!(user.files("").as_slice(), [file] if file.ends_with(":2,S")), "{:?}", user.files(""));
}

#[test]
fn a_lost_lease_is_never_acknowledged() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    let staged = {
        let mut staged = inbox.stage(0).unwrap();
        staged.write(&message("two")).unwrap();
        staged
    };
    user.clock.advance(Duration::from_secs(6));
    assert!(matches!(inbox.append(staged, FlagSet::EMPTY, None), Err(StorageError::LeaseLost(_))));
    assert!(matches!(inbox.remove(&[uid(1)]), Err(StorageError::LeaseLost(_))));
    assert!(matches!(inbox.copy_to(&[uid(1)], &inbox), Err(StorageError::LeaseLost(_))));
    assert_eq!(inbox.read().len(), 1, "reading from memory goes on");
    // A later beat that wins: nobody fenced us, everything goes on.
    held.tenure.extend(user.clock.now() + Duration::from_secs(5));
    append(&inbox, "three", FlagSet::EMPTY).unwrap();
}

#[test]
fn a_suspended_node_leaves_the_folder_to_others() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for subject in ["one", "two"] {
        append(&inbox, subject, FlagSet::EMPTY).unwrap();
    }
    held.run_background_work().unwrap();
    inbox.store(&[uid(1)], StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
    inbox.remove(&[uid(2)]).unwrap();
    let theirs = "new/1000000000.x.host";
    std::fs::write(user.maildir().join(theirs), "Subject: of whoever holds the lease by now\r\n\r\n").unwrap();
    let before = user.files("");
    user.clock.advance(Duration::from_secs(6));
    user.faulty.fail_at(u64::MAX, Failure::Once);
    held.run_background_work().unwrap();
    assert_eq!(user.faulty.calls(), 0);
    inbox.refresh(true).unwrap();
    inbox.write_back(Duration::ZERO).unwrap();
    inbox.remove_files().unwrap();
    assert_eq!((user.files(""), inbox.read().uids()), (before.clone(), [uid(1)].as_slice()));
    // It passes the deadline between the listing and what follows.
    held.tenure.extend(user.clock.now() + Duration::from_secs(5));
    let clock = user.clock.clone();
    user.faulty.after_listing(move |_| clock.advance(Duration::from_secs(6)));
    inbox.refresh(true).unwrap();
    assert_eq!((user.files(""), inbox.read().uids()), (before, [uid(1)].as_slice()));
    user.faulty.after_listing(|_| ());
    // A later beat wins: nobody fenced it, and all that was due is done.
    held.tenure.extend(user.clock.now() + Duration::from_secs(5));
    inbox.refresh(false).unwrap();
    held.run_background_work().unwrap();
    let files = user.files("");
    assert_eq!(inbox.read().uids(), [uid(1), uid(3)]);
    assert!(
        files.len() == 2 && files.iter().all(|file| file.contains(",U=")) && files.iter().any(|file| file.ends_with("U=1:2,S")),
        "{files:?}"
    );
}

#[test]
fn a_lease_lost_while_the_message_is_written_gives_no_acknowledgement() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    drop(inbox.read());
    // The clock passes the deadline inside the call: after it was let in, before it is acknowledged.
    let late = {
        let clock = user.clock.clone();
        user.faulty.on_call(3, move || clock.advance(Duration::from_secs(6)));
        append(&inbox, "late", FlagSet::EMPTY)
    };
    assert!(matches!(late, Err(StorageError::LeaseLost(_))));
    user.die(held);
    let held = user.open(Handover::Unclean);
    assert!(held.inbox().read().len() <= 1, "it may be there: at least once");
}

#[test]
fn a_late_rename_of_a_dead_holder_gets_a_uid_of_its_own() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    user.die(held);
    let held = user.open(Handover::Unclean);
    let inbox = held.inbox();
    let after = append(&inbox, "two", FlagSet::EMPTY).unwrap().uid;
    // What the dead holder had sent before it was cut off arrives only now.
    std::fs::write(user.maildir().join("cur/7.M8N9E1.node-a,S=3,W=3,U=2:2,"), "a\r\n").unwrap();
    held.run_background_work().unwrap();
    let uids: Vec<u32> = inbox.read().uids().iter().map(|uid| uid.get()).collect();
    assert_eq!(uids, [1, after.get(), after.get() + 1], "the second scan found it");
}

/// A host that was cut off in the middle of a MOVE sends its renames when it is back, long after its user has another holder.
#[test]
fn what_a_dead_holders_late_requests_move_is_looked_for_until_they_can_not_arrive() {
    let mut user = User::new();
    user.settings.rescan_interval = Duration::from_secs(3_600);
    let held = user.open(Handover::Clean);
    let moved = append(&held.inbox(), "moved late", FlagSet::EMPTY).unwrap().uid;
    user.die(held);
    user.faulty.pretend_remote();
    let held = user.open(Handover::Unclean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    held.run_background_work().unwrap();
    assert_eq!((inbox.read().len(), sent.read().len()), (1, 0));

    let file = user.files("").remove(0);
    let name = file.rsplit_once('/').unwrap().1;
    std::fs::hard_link(user.maildir().join(&file), user.maildir().join(".Sent/cur").join(name)).unwrap();
    std::fs::remove_file(user.maildir().join(&file)).unwrap();
    held.run_background_work().unwrap();
    assert_eq!((inbox.read().len(), sent.read().len()), (0, 1), "UID {moved} is where its file is");
}

/// The holder died without the answer to a COPY that the file server had carried out; its host sends the link again when it is back.
#[test]
fn a_copys_link_that_comes_again_brings_no_expunged_message_back() {
    let mut user = User::new();
    user.settings.rescan_interval = Duration::from_secs(3_600);
    user.faulty.pretend_remote();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "copied", FlagSet::EMPTY).unwrap();
    inbox.copy_to(&[uid(1)], &held.open("Sent")).unwrap();
    user.die(held);
    let original = user.maildir().join(user.files("").remove(0));
    let copy = user.maildir().join(".Sent").join(user.files(".Sent").remove(0));
    let late_link = || std::fs::hard_link(&original, &copy);
    let held = user.open(Handover::Unclean);
    let sent = held.open("Sent");
    assert_eq!(sent.read().len(), 1, "what nobody was told of may be there");

    sent.remove(&[uid(1)]).unwrap();
    held.run_background_work().unwrap();
    assert_eq!(
        late_link().unwrap_err().kind(),
        std::io::ErrorKind::AlreadyExists,
        "while requests of the dead host are expected, the name is taken"
    );
    for _ in 0..3 {
        sent.remove_files().unwrap();
        assert!(!copy.exists());
        late_link().unwrap();
        sent.refresh(true).unwrap();
        assert_eq!((sent.read().len(), copy.exists()), (0, true), "nobody sees it");
    }
    sent.remove_files().unwrap();
    assert!(!copy.exists() && original.exists());

    // Another program's file of another name is a message.
    std::fs::hard_link(&original, copy.with_file_name("1500000000.M1P1.host:2,")).unwrap();
    sent.refresh(true).unwrap();
    assert_eq!(sent.read().len(), 1);
}

/// A lost host's delegations make renames and removals wait: so they wait themselves, but for closing.
#[test]
fn after_an_unclean_takeover_names_wait_where_a_dead_client_may_hold_files() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    for subject in ["one", "two"] {
        append(&held.inbox(), subject, FlagSet::EMPTY).unwrap();
    }
    user.die(held);
    user.faulty.pretend_remote();
    let held = user.open(Handover::Unclean);
    let inbox = held.inbox();
    let before = user.files("");
    inbox.store(&[uid(1)], crate::StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
    inbox.remove(&[uid(2)]).unwrap();
    held.run_background_work().unwrap();
    assert_eq!(user.files(""), before);
    assert!(user.index().join("1").exists());
    held.close().unwrap();
    let after = user.files("");
    assert!(after.len() == 1 && after[0].ends_with(":2,S"), "{after:?}");
}

/// More keywords than there are letters.
#[test]
fn keywords_beyond_the_letters_survive_the_index() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let count = index::KeywordId::COUNT;
    for number in 0..count {
        inbox.keyword(&format!("keyword{number}")).unwrap();
    }
    assert!(matches!(inbox.keyword("one-more"), Err(StorageError::TooManyKeywords)));
    assert!(!inbox.accepts_new_keywords());
    let flag = |name: &str| Flag::Keyword(inbox.keyword(name).unwrap());
    let all = (0..count).fold(FlagSet::EMPTY, |flags, number| flags.with(flag(&format!("keyword{number}"))));
    append(&inbox, "one", all).unwrap();
    append(&inbox, "two", FlagSet::of(&[flag("keyword3")])).unwrap();
    inbox.store(&[uid(2)], crate::StoreOperation::Add(FlagSet::of(&[flag("keyword40"), flag("keyword26")])), None).unwrap();
    let copied = inbox.copy_to(&[uid(2)], &held.open("Sent")).unwrap();
    inbox.store(&[uid(1)], crate::StoreOperation::Remove(FlagSet::of(&[flag("keyword55")])), None).unwrap();
    let before = (picture(&inbox), picture(&held.open("Sent")));
    assert_eq!(before.1.messages[&copied.pairs[0].1.get()].0.keywords().count(), 3);
    held.close().unwrap();
    for _ in 0..2 {
        user.delete_index();
        let held = user.open(Handover::Clean);
        assert_eq!((picture(&held.inbox()), picture(&held.open("Sent"))), before);
        held.close().unwrap();
    }
    let files: Vec<String> = user.everything().iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
    let beside: Vec<&String> = files.iter().filter(|file| file.starts_with("berth-keywords,")).collect();
    assert_eq!(beside.len(), 1, "the newest, where letters did not suffice: {beside:?}");
}

/// The listing of a large mailbox takes long: it is better done when nobody waits.
#[test]
fn a_closed_mailbox_is_not_listed_when_it_is_opened_again() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    let listed = |user: &User| {
        let lists = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = lists.clone();
        user.faulty.after_listing(move |folder| {
            if folder.ends_with("cur") {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        move || lists.load(std::sync::atomic::Ordering::SeqCst)
    };
    // What was changed within the time stamps' grain may change again unseen.
    std::thread::sleep(Duration::from_millis(2_100));
    held.close().unwrap();
    let lists = listed(&user);
    let held = user.open(Handover::Clean);
    assert_eq!(held.inbox().read().len(), 1);
    assert_eq!(lists(), 0, "nothing changed since it was closed");
    held.close().unwrap();

    std::fs::write(user.maildir().join("new/8.M1.other"), "Subject: by another program\n\n").unwrap();
    let held = user.open(Handover::Clean);
    assert!(held.inbox().read().len() == 2 && lists() > 0);
}
