//! Mailboxes that another program filled with many messages.

use affinity::Handover;
use index::{Flag, FlagSet, ScanDue};

use super::*;
use crate::{AccountPaths, StoreOperation, filesystem::Failure, maildir::uidlist::damaged_list};

const MANY: usize = 100;
/// So few are renamed instead.
const RENAMED: usize = 20;

/// Enough files for a list: with sizes in their names and without, with CRLF and without, some in `new/`.
fn filled(count: usize) -> User {
    filled_below("", count)
}
fn filled_below(folder: &str, count: usize) -> User {
    let user = User::new();
    let folder = user.maildir().join(folder);
    for sub in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(folder.join(sub)).unwrap();
    }
    for number in 0..count {
        let end = if number % 3 == 0 { "\n" } else { "\r\n" };
        let content = format!("Subject: {number}{end}{end}text{end}");
        let crlf = content.replace("\r\n", "\n").replace('\n', "\r\n").len();
        let sizes = if number % 5 == 0 { String::new() } else { format!(",S={},W={crlf}", content.len()) };
        let unique = format!("{}.M{number}P1.host{sizes}", 1_500_000_000 + number / 7);
        let file = if number % 4 == 0 { format!("new/{unique}") } else { format!("cur/{unique}:2,{}", ["", "S", "FS"][number % 3]) };
        let path = folder.join(file);
        std::fs::write(&path, content).unwrap();
        let date = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + u64::try_from(number).unwrap());
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(date).unwrap();
    }
    user
}
/// The UID of the message that was made as this one.
fn numbered(inbox: &Mailbox, number: usize) -> Uid {
    let part = format!(".M{number}P1.host");
    let uids = inbox.read().uids().to_vec();
    uids.into_iter().find(|uid| inbox.file(*uid).unwrap().contains(&part)).unwrap()
}
fn lists(user: &User) -> Vec<String> {
    let entries = std::fs::read_dir(user.maildir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with("berth-uidlist,")).collect()
}

#[test]
fn many_files_of_another_program_keep_their_names() {
    let mut user = filled(MANY);
    let before = user.files("");
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert_eq!(inbox.read().uids().iter().map(|uid| uid.get()).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let picture_before = picture(&inbox);
    let email_ids = |inbox: &Mailbox| (0..90).map(|at| inbox.read().email_id(at).to_string()).collect::<Vec<_>>();
    let (ids, object_id) = (email_ids(&inbox), inbox.object_id().unwrap());
    held.run_background_work().unwrap();
    held.close().unwrap();
    assert_eq!(user.files(""), before);
    assert_eq!(lists(&user).len(), 1, "one that says the sizes as well");
    for _ in 0..2 {
        user.delete_index();
        let looks = user.faulty.looks();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        inbox.learn().unwrap();
        assert!(user.faulty.looks() - looks < 250, "no file is read again");
        assert_eq!(picture(&inbox), picture_before);
        assert_eq!((email_ids(&inbox), inbox.object_id().unwrap()), (ids.clone(), object_id.clone()));
        held.close().unwrap();
        assert_eq!(user.files(""), before);
    }

    // What is worked with gets its name then.
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let flags = FlagSet::of(&[Flag::Answered]);
    let [named, nameless, fresh, gone] = [1, 5, 20, 7].map(|number| numbered(&inbox, number));
    inbox.store(&[named, nameless, fresh], StoreOperation::Replace(flags), None).unwrap();
    inbox.remove(&[gone]).unwrap();
    std::fs::write(user.maildir().join("new/1500000099.M1P9.host"), "Subject: later\r\n\r\n").unwrap();
    inbox.refresh(true).unwrap();
    assert_eq!(inbox.read().uids().last(), Some(&uid(inbox.read().uid_next() - 1)));
    let changed = picture(&inbox);
    held.close().unwrap();
    let after = user.files("");
    assert!(after.iter().any(|file| file.starts_with("cur/1500000000.M1P1.host,S=") && file.ends_with(":2,R")), "{after:?}");
    assert_eq!(after.iter().filter(|file| file.contains(",U=")).count(), 3, "without sizes, and what came later: {after:?}");
    user.delete_index();
    let held = user.open(Handover::Clean);
    assert_eq!(picture(&held.inbox()), changed);
    assert_eq!((email_ids(&held.inbox())[..3].to_vec(), held.inbox().object_id().unwrap()), (ids[..3].to_vec(), object_id));
}

/// The budget: what the first SELECT costs does not grow with the mailbox.
#[test]
fn the_first_look_at_a_large_mailbox_of_another_program_is_two_listings_and_one_list() {
    let mut costs = Vec::new();
    for count in [200, 2000] {
        let mut user = filled(count);
        let held = user.open(Handover::Clean);
        let looks = user.faulty.looks();
        user.faulty.fail_at(u64::MAX, Failure::Once);
        let inbox = held.inbox();
        costs.push((user.faulty.calls(), user.faulty.looks() - looks));
        assert_eq!(inbox.read().len(), count);
        assert!(inbox.is_incomplete());
        inbox.learn().unwrap();
        user.faulty.fail_at(u64::MAX, Failure::Once);
        held.run_background_work().unwrap();
        assert!(user.faulty.calls() < 10, "{} calls in the background", user.faulty.calls());
    }
    // The list is made, written, synced, renamed and its folder synced; the ceilings are renamed and synced where the room made for them is too small.
    // 64 files, the two folders before and while they are listed.
    assert_eq!(costs.iter().map(|(calls, _)| *calls).collect::<Vec<_>>(), [5, 7]);
    assert!(costs[0].1 == costs[1].1 && costs[0].1 <= 64 + 6, "{costs:?}");
}

#[test]
fn dates_and_sizes_are_learnt_before_anybody_is_told() {
    let mut user = filled(MANY);
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert!(inbox.is_incomplete());
    let first = numbered(&inbox, 0);
    inbox.learn().unwrap();
    let row = inbox.read().get(first).unwrap();
    assert!(!inbox.is_incomplete());
    assert_eq!((row.internal_date, row.size), (1_000_000_000, "Subject: 0\r\n\r\ntext\r\n".len() as u64));
    let used = held.quota(None).unwrap();
    assert_eq!((used[0].usage.messages, used[0].usage.bytes), (100, inbox.status().size));

    let mut user = filled(MANY);
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    inbox.copy_to(&[numbered(&inbox, 1)], &sent).unwrap();
    assert_eq!(sent.read().row(0).internal_date, 1_000_000_001);
    // One that goes while the others are looked at.
    let mut user = filled(MANY);
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    std::fs::remove_file(user.maildir().join(inbox.file(uid(9)).unwrap())).unwrap();
    inbox.learn().unwrap();
    inbox.refresh(false).unwrap();
    assert_eq!((inbox.read().len(), inbox.is_incomplete()), (MANY - 1, false));
}

#[test]
fn a_mailbox_that_was_taken_over_is_listed_again_only_where_a_holder_died() {
    for (handover, due) in [(Handover::Clean, ScanDue::No), (Handover::Unclean, ScanDue::Settle)] {
        for count in [3, MANY] {
            let mut user = filled(count);
            user.faulty.pretend_remote();
            user.open(Handover::Clean).close().unwrap();
            user.delete_index();
            let held = user.open(handover);
            held.inbox().learn().unwrap();
            held.run_background_work().unwrap();
            let records = held.store.with_writer(|index| index.mailboxes()).unwrap();
            let of_inbox = records.iter().find(|record| record.folder.is_empty()).unwrap();
            assert_eq!(of_inbox.scan_due, due, "{handover:?} {count}");
        }
    }
}

#[test]
fn what_was_not_learnt_before_a_holder_died_is_learnt_later() {
    let mut user = filled(MANY);
    let held = user.open(Handover::Clean);
    let expected = picture(&held.inbox());
    user.die(held);
    for handover in [Handover::Unclean, Handover::Clean] {
        let mut user = filled(MANY);
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        // The rows go to the index as they are.
        inbox.store(&[uid(5)], StoreOperation::Add(FlagSet::of(&[Flag::Flagged])), None).unwrap();
        assert!(inbox.is_incomplete());
        user.die(held);
        let held = user.open(handover);
        let inbox = held.inbox();
        assert!(inbox.is_incomplete() && inbox.read().get(uid(5)).unwrap().flags.contains(Flag::Flagged));
        let (now, mut expected) = (picture(&inbox), expected.clone());
        expected.uid_validity = now.uid_validity;
        expected.messages.get_mut(&5).unwrap().0 = now.messages[&5].0;
        assert_eq!(now, expected);
        held.close().unwrap();
        let held = user.open(Handover::Clean);
        assert!(!held.inbox().is_incomplete());
        assert_eq!(picture(&held.inbox()), now);
    }
}

#[test]
fn what_is_expunged_right_after_its_size_was_learnt_stays_away() {
    let mut user = filled(MANY);
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    // The rows go to the index as they are, and wait for it anew once the rest is learnt.
    inbox.store(&[uid(5)], StoreOperation::Add(FlagSet::of(&[Flag::Flagged])), None).unwrap();
    inbox.learn().unwrap();
    let validity = inbox.uid_validity();
    let gone: Vec<Uid> = [3, 5, 6, 7, 90].map(uid).to_vec();
    let before = inbox.read().highest_modseq().get();
    assert_eq!(inbox.remove(&gone).unwrap(), gone);
    held.run_background_work().unwrap();
    // Whoever opens the mailbox next and finds its folder as it was reads these.
    let rows = held.store.with_writer(|index| index.messages(inbox.id())).unwrap();
    assert!(rows.len() == MANY - gone.len() && rows.iter().all(|row| !gone.contains(&row.uid)), "{} rows", rows.len());
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert_eq!((inbox.uid_validity(), inbox.read().len()), (validity, MANY - gone.len()));
    assert_eq!(inbox.expunged_since(before).unwrap().unwrap(), gone);
    assert_eq!(held.quota(None).unwrap()[0].usage.messages, u64::try_from(MANY - gone.len()).unwrap());
}

#[test]
fn an_account_is_closed_though_dates_are_not_learnt_yet() {
    for store in [false, true] {
        let mut user = filled(MANY);
        let names = user.files("");
        let held = user.open(Handover::Clean);
        let flagged = FlagSet::of(&[Flag::Flagged]);
        if store {
            // Its name says no size.
            held.inbox().store(&[numbered(&held.inbox(), 5)], StoreOperation::Replace(flagged), None).unwrap();
        }
        assert!(held.inbox().is_incomplete());
        let looks = user.faulty.looks();
        held.close().unwrap();
        assert!(user.faulty.looks() - looks < 10, "{} looks: nobody waits until every file was looked at", user.faulty.looks() - looks);
        let mut renamed = user.files("");
        renamed.retain(|file| !names.contains(file));
        assert_eq!(renamed, if store { vec!["cur/1500000000.M5P1.host:2,F".to_owned()] } else { Vec::new() });
        let held = user.open(Handover::Clean);
        assert!(held.inbox().is_incomplete());
        let before = picture(&held.inbox());
        assert_eq!((before.messages.len(), held.inbox().is_incomplete()), (MANY, false));
        held.close().unwrap();
        user.delete_index();
        assert_eq!(picture(&user.open(Handover::Clean).inbox()), before);
    }
}

#[test]
fn a_mailbox_may_be_renamed_before_its_dates_are_learnt() {
    let mut user = filled_below(".Old", MANY);
    let held = user.open(Handover::Clean);
    let old = held.open("Old");
    assert!(old.is_incomplete());
    held.account.rename(&name("Old"), &name("Kept")).unwrap();
    held.run_background_work().unwrap();
    let flagged = FlagSet::of(&[Flag::Flagged]);
    old.store(&[uid(5)], StoreOperation::Replace(flagged), None).unwrap();
    let (before, modseq) = (picture(&old), old.read().get(uid(5)).unwrap().modseq);
    user.die(held);
    let held = user.open(Handover::Clean);
    let kept = held.open("Kept");
    assert_eq!(picture(&kept), before);
    assert_eq!(kept.read().get(uid(5)).unwrap().modseq, modseq, "the index is the one that was written");
    assert!(kept.expunged_since(modseq.get() - 1).unwrap().is_some());
}

#[test]
fn a_file_that_cannot_be_read_keeps_nobody_from_the_others() {
    let mut user = filled(MANY);
    let maildir = user.maildir();
    // Not a message, and nothing that anybody can look at.
    for (link, to) in
        [("cur/1500000098.M901P1.host:2,", ".."), ("cur/1500000099.M902P1.host,S=9,W=9:2,", "1500000099.M902P1.host,S=9,W=9:2,")]
    {
        std::os::unix::fs::symlink(to, maildir.join(link)).unwrap();
    }
    let held = user.open(Handover::Clean);
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    let bad = [901, 902].map(|number| numbered(&inbox, number));
    inbox.learn().unwrap();
    let unknown = |inbox: &Mailbox| inbox.read().rows().filter(|row| !row.is_known()).map(|row| row.uid).collect::<Vec<_>>();
    assert_eq!(unknown(&inbox), bad);
    assert!(!inbox.is_incomplete(), "nobody tries again for every command");
    let good = numbered(&inbox, 5);
    inbox.copy_to(&[good], &sent).unwrap();
    inbox.copy_to(&[good, bad[0]], &sent).unwrap_err();
    assert_eq!(sent.read().len(), 1);
    inbox.store(&[good, bad[0], bad[1]], StoreOperation::Add(FlagSet::of(&[Flag::Answered])), None).unwrap();
    held.run_background_work().unwrap();
    assert!(inbox.file(good).unwrap().ends_with(":2,FRS"));
    held.close().unwrap();

    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    inbox.learn().unwrap();
    assert_eq!(unknown(&inbox), bad);
    assert!(bad.iter().all(|uid| inbox.read().get(*uid).unwrap().flags.contains(Flag::Answered)));
    // Repaired.
    let path = maildir.join(inbox.file(bad[0]).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "Subject: back\r\n\r\n").unwrap();
    assert!(!inbox.is_incomplete(), "tried a moment ago");
    inbox.copy_to(&bad[..1], &held.open("Sent")).unwrap();
    assert_eq!(unknown(&inbox), bad[1..]);
    assert_eq!(inbox.read().get(bad[0]).unwrap().size, 17);
    held.close().unwrap();
}

#[test]
fn many_files_that_cannot_be_read_hold_nobody_back() {
    let mut user = filled(MANY);
    // More than are read in one go, and listed anywhere between the others.
    for number in 0..120 {
        std::os::unix::fs::symlink("..", user.maildir().join(format!("cur/1500000098.M9{number:03}P1.host:2,"))).unwrap();
    }
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    inbox.learn().unwrap();
    let unknown = inbox.read().rows().filter(|row| !row.is_known()).count();
    assert_eq!((inbox.read().len(), unknown, inbox.is_incomplete()), (MANY + 120, 120, false));
}

/// A backup brought a message back under the name it had in our form, beside the file that the list knows.
#[test]
fn a_file_whose_uid_another_name_says_keeps_the_one_it_is_given() {
    for number in [1, 2] {
        let mut user = filled(MANY);
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        held.run_background_work().unwrap();
        let uid = numbered(&inbox, number);
        let file = inbox.file(uid).unwrap();
        held.close().unwrap();
        let name = crate::maildir::filename::identity(&file).to_owned();
        std::fs::write(user.maildir().join(format!("cur/{name},U={uid}:2,")), std::fs::read(user.maildir().join(&file)).unwrap()).unwrap();
        user.delete_index();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        let names = |inbox: &Mailbox| inbox.read().uids().iter().map(|uid| (*uid, inbox.file(*uid).unwrap())).collect::<BTreeMap<_, _>>();
        let told = names(&inbox);
        assert_eq!(told.len(), MANY + 1);
        user.die(held);
        let held = user.open(Handover::Unclean);
        assert_eq!(names(&held.inbox()), told);
    }
}

#[test]
fn a_list_that_is_replaced_while_the_mailbox_is_opened_counts() {
    for replaced in [true, false] {
        let mut user = filled(MANY);
        let held = user.open(Handover::Clean);
        held.run_background_work().unwrap();
        let before = contents(&held.inbox());
        held.close().unwrap();
        user.delete_index();
        let maildir = user.maildir();
        let list = lists(&user).remove(0);
        let (path, away) = (maildir.join(&list), maildir.join("away"));
        let text = std::fs::read(&path).unwrap();
        let higher = maildir.join(list.replace(",E", ",E9"));
        user.faulty.after_listing(move |folder| {
            if folder.ends_with("cur") && path.exists() {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(if replaced { &higher } else { &away }, &text).unwrap();
            }
        });
        let held = user.open(Handover::Clean);
        let inbox = held.account.mailbox(&MailboxName::inbox());
        if replaced {
            assert_eq!(contents(&inbox.unwrap()), before);
        } else {
            assert!(matches!(inbox.unwrap_err(), StorageError::Io { .. }));
        }
    }
}

/// What a client may have been told: content by UID.
type Told = BTreeMap<u32, Vec<u8>>;

fn contents(inbox: &Mailbox) -> Told {
    picture(inbox).messages.into_iter().map(|(uid, (.., content))| (uid, content)).collect()
}

fn run(failure: Failure, dies: bool) {
    for call in 1.. {
        let mut user = filled(MANY);
        user.faulty.fail_at(call, failure);
        let mut told = Told::new();
        let held = user.try_open(Handover::Clean);
        let mut done = false;
        if let Ok(held) = held {
            if let Ok(inbox) = held.account.mailbox(&MailboxName::inbox()) {
                told = contents(&inbox);
                inbox.store(&[uid(5)], StoreOperation::Replace(FlagSet::of(&[Flag::Flagged])), None).unwrap_or_default();
                held.run_background_work().unwrap_or_default();
                done = user.faulty.calls() < call;
            }
            user.faulty.heal();
            if dies {
                user.die(held);
            } else {
                held.close().unwrap();
            }
        }
        user.faulty.heal();
        for round in 0..3 {
            let held = user.open(if dies && round == 0 { Handover::Unclean } else { Handover::Clean });
            let inbox = held.inbox();
            let now = contents(&inbox);
            assert_eq!(now.len(), MANY, "call {call}, round {round}");
            assert!(told.is_empty() || told == now, "call {call}, round {round}: {:?} {:?}", told.keys(), now.keys());
            told = now;
            held.close().unwrap();
            if round == 1 {
                user.delete_index();
            }
        }
        if done {
            assert!(call > 6, "too few calls to be true");
            break;
        }
    }
}

#[test]
fn whatever_fails_while_many_files_are_taken_over_no_uid_means_two_messages() {
    run(Failure::Once, false);
    run(Failure::Once, true);
    run(Failure::FromThenOn, true);
}

#[test]
fn a_holder_that_dies_between_two_commits_of_rows_leaves_every_uid_as_it_was() {
    for rows in [0, 1, 50, 99] {
        let mut user = filled(MANY);
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        let before = picture(&inbox);
        inbox.commit_rows(rows).unwrap();
        user.die(held);
        for handover in [Handover::Unclean, Handover::Clean] {
            let held = user.open(handover);
            assert_eq!(picture(&held.inbox()), before, "{rows} rows");
            held.close().unwrap();
        }
    }
}

/// The list of a holder that was cut off lands after its user has another holder.
#[test]
fn a_dead_holders_late_list_does_not_count() {
    let mut user = filled(MANY);
    let held = user.open(Handover::Clean);
    let before = contents(&held.inbox());
    held.close().unwrap();
    user.die(held);
    let held = user.open(Handover::Clean);
    drop(held.inbox());
    held.close().unwrap();
    let ours = lists(&user);
    let text = std::fs::read_to_string(user.maildir().join(&ours[0])).unwrap();
    let list = crate::maildir::uidlist::UidList::parse(text.as_bytes()).unwrap();
    let mut late = crate::maildir::uidlist::UidList::new(list.uid_validity);
    list.messages.into_values().rev().for_each(|listed| late.push(listed));
    std::fs::write(user.maildir().join("berth-uidlist,N5000"), late.print(false)).unwrap();
    user.delete_index();
    let held = user.open(Handover::Unclean);
    assert_eq!(contents(&held.inbox()), before);
    held.close().unwrap();
    assert_eq!(lists(&user), ours, "what does not count goes");
}

/// One line of the list is another one's.
fn damage_list(user: &User) -> (String, Vec<u8>) {
    let [list] = lists(user).try_into().unwrap();
    let path = user.maildir().join(&list);
    let mut text = std::fs::read(&path).unwrap();
    let line = text.windows(2).position(|pair| pair == b"\nC").unwrap() + 12;
    text[line] ^= 1;
    std::fs::write(&path, &text).unwrap();
    (list, text)
}

#[test]
fn a_damaged_list_is_kept_aside_and_a_sound_one_takes_its_place() {
    // Of very many files and of some; one line is damaged, or the first one.
    for (count, whole) in [(MANY, false), (MANY, true), (RENAMED, false), (RENAMED, true)] {
        let mut user = filled(MANY);
        let held = user.open(Handover::Clean);
        let before = contents(&held.inbox());
        held.close().unwrap();
        for file in user.files("").into_iter().skip(count) {
            std::fs::remove_file(user.maildir().join(file)).unwrap();
        }
        let (list, mut damaged) = damage_list(&user);
        if whole {
            damaged[3] ^= 1;
            std::fs::write(user.maildir().join(&list), &damaged).unwrap();
        }
        user.delete_index();
        let held = user.open(Handover::Clean);
        let after = contents(&held.inbox());
        held.run_background_work().unwrap();
        held.close().unwrap();
        assert_eq!(std::fs::read(user.maildir().join(format!("berth-damaged,{list}"))).unwrap(), damaged, "{count} {whole}");
        let there = lists(&user);
        assert!(there.len() == 1 && there[0] != list, "{there:?}");
        assert_eq!(damaged_list(&crate::filesystem::Shared, &user.maildir()).unwrap(), None);
        if !whole {
            assert!(after.iter().filter(|(uid, content)| before.get(uid) == Some(content)).count() >= count - 1, "the other lines count");
        }
        user.delete_index();
        assert_eq!(contents(&user.open(Handover::Clean).inbox()), after, "once and for all");
    }
}

#[test]
fn what_a_damaged_list_says_is_not_handed_back() {
    let mut user = filled(MANY);
    let paths = AccountPaths::new(user.maildir(), user.index());
    let held = user.open(Handover::Clean);
    let before = contents(&held.inbox());
    held.close().unwrap();
    let (list, _) = damage_list(&user);
    let everything = user.everything();
    let refused = crate::release::to_dovecot(&paths, || Ok(())).unwrap_err().to_string();
    assert!(refused.contains(&list) && refused.contains("the first is line 2") && refused.contains("berth index rebuild"), "{refused}");
    assert_eq!(user.everything(), everything);

    // What it says to do helps, and costs no UID: the index is sound.
    let held = user.open(Handover::Clean);
    held.rebuild_index().unwrap();
    assert_eq!(contents(&held.inbox()), before);
    held.close().unwrap();
    assert_eq!(crate::release::to_dovecot(&paths, || Ok(())).unwrap()[0].messages, MANY);
}
