//! Maildirs of other servers are taken over in place.

use std::path::{Path, PathBuf};

use affinity::Handover;
use index::{Flag, FlagSet};

use super::*;
use crate::{filesystem::Failure, maildir::ceiling::RESERVED_AHEAD};

/// Files below the Maildir of a user whom Berth never saw.
pub(super) fn tree(files: &[(&str, &str)]) -> User {
    let user = User::new();
    for (file, content) in files {
        let path = user.maildir().join(file);
        for folder in ["cur", "new", "tmp"] {
            let mailbox = file.strip_prefix('.').and_then(|file| file.split('/').next()).map(|folder| format!(".{folder}"));
            std::fs::create_dir_all(user.maildir().join(mailbox.unwrap_or_default()).join(folder)).unwrap();
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let date = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(date).unwrap();
    }
    user
}

const MESSAGE: &str = "Subject: x\r\n\r\nx\r\n";

pub(super) fn dovecot() -> User {
    tree(&[
        ("cur/1500000001.M1P1.host,S=17,W=17:2,FSa", MESSAGE),
        ("cur/1500000002.M2P2.host,S=17,W=17:2,", MESSAGE),
        ("new/1500000003.M3P3.host,S=17,W=17", MESSAGE),
        ("cur/1500000004.M4P4.host:2,S", MESSAGE),
        (
            "dovecot-uidlist",
            "3 V1234567890 N40 Gabc\n7 Pold-uidl :1500000001.M1P1.host,S=17,W=17\n9 P :1500000002.M2P2.host,S=17,W=17\n12 G77 :1500000004.M4P4.host\n",
        ),
        ("dovecot-keywords", "0 todo\n"),
        ("dovecot-uidvalidity.499602d9", ""),
        ("subscriptions", "V\t2\n\nINBOX\nArchive\t2026\n"),
        (".Archive.2026/dovecot-uidlist", "1 1234567891 2\n1 1500000005.M5P5.host,S=17,W=17\n"),
        (".Archive.2026/cur/1500000005.M5P5.host,S=17,W=17:2,T", MESSAGE),
        (".Sent/cur/1500000006.M6P6.host,S=17,W=17:2,S", MESSAGE),
    ])
}

pub(super) fn courier() -> User {
    tree(&[
        ("cur/1500000001.M1P1.host,S=17:2,S", MESSAGE),
        ("cur/1500000002.M2P2.host,S=17:2,", MESSAGE),
        ("cur/1500000003.M3P3.host,S=17:2,", MESSAGE),
        ("courierimapuiddb", "1 1234567890 9\n4 1500000001.M1P1.host,S=17\n8 1500000002.M2P2.host,S=17\n"),
        (
            "courierpop3dsizelist",
            "/2 12 1111111111\n1500000001.M1P1.host,S=17:2,S 17 3:1111111111\n1500000003.M3P3.host,S=17 17 11:1111111111\n",
        ),
        ("courierimapkeywords/:list", "todo\n$Label1\n\n1500000001.M1P1.host,S=17:1\n"),
        ("courierimapkeywords/1500000002.M2P2.host,S=17", "later\n"),
        ("courierimapsubscribed", "INBOX\nINBOX.Lists\n"),
        (".Lists/courierimapuiddb", "1 1234567895 2\n"),
    ])
}

fn uids(mailbox: &Mailbox) -> Vec<u32> {
    mailbox.read().uids().iter().map(|uid| uid.get()).collect()
}

#[test]
fn what_dovecot_left_stays() {
    let mut user = dovecot();
    let before = user.files("");
    let held = user.open(Handover::Clean);
    let names: Vec<String> = held.list().unwrap().iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["INBOX", "Archive", "Archive/2026", "Sent"]);
    let entries = held.list().unwrap();
    assert!(entries.iter().any(|entry| entry.name == name("Archive/2026") && entry.subscribed));
    assert!(entries.iter().any(|entry| entry.name == name("Sent") && entry.special_use == Some(SpecialUse::Sent)));
    let inbox = held.inbox();
    assert_eq!(inbox.uid_validity().get(), 1_234_567_890);
    assert_eq!(uids(&inbox), [7, 9, 12, 40]);
    assert_eq!(*inbox.keywords(), ["todo"]);
    let flags = inbox.read().get(uid(7)).unwrap().flags;
    assert!(flags.contains(Flag::Flagged) && flags.contains(Flag::Seen) && flags.keywords().count() == 1);
    let picture_before = picture(&inbox);
    assert!(picture_before.messages.values().all(|(_, size, date, _)| (*size, *date) == (17, 1_000_000_000)));
    assert!(inbox.read().highest_modseq().get() > 1_700_000_000, "above what any earlier server can have told");
    let uidls = inbox.uidl(inbox.read().uids(), &crate::UidlFormat::default()).unwrap();
    assert_eq!(uidls, ["old-uidl", "1500000002.M2P2.host,S=17,W=17", "0000000c499602d2", "00000028499602d2"]);
    let archive = held.open("Archive/2026");
    assert_eq!((archive.uid_validity().get(), uids(&archive)), (1_234_567_891, vec![1]));
    assert!(held.open("Sent").uid_validity().get() > 0x4996_02d9);

    inbox.store(&[uid(9)], crate::StoreOperation::Add(FlagSet::of(&[Flag::Answered])), None).unwrap();
    let picture_before = {
        let mut changed = picture_before;
        changed.messages.get_mut(&9).unwrap().0 = FlagSet::of(&[Flag::Answered]);
        changed
    };
    assert_eq!(append(&inbox, "later", FlagSet::EMPTY).unwrap().uid, uid(41));
    inbox.remove(&[uid(41)]).unwrap();
    held.close().unwrap();
    let after = user.files("");
    assert!(after.contains(&before[0]), "names that say all stay: {after:?}");
    assert!(after.contains(&"cur/1500000002.M2P2.host,S=17,W=17:2,R".to_owned()), "only flags change: {after:?}");
    assert!(after.iter().any(|file| file.contains(",U=12,G=")), "a name without sizes is replaced: {after:?}");

    for _ in 0..2 {
        user.delete_index();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        assert_eq!(picture(&inbox), picture_before);
        assert_eq!(inbox.uidl(inbox.read().uids(), &crate::UidlFormat::default()).unwrap(), uidls);
        assert!(append(&held.open("Sent"), "x", FlagSet::EMPTY).unwrap().uid > uid(1));
        held.close().unwrap();
    }
}

#[test]
fn what_a_taken_over_mailbox_needs_reserved_is_reserved_with_its_state_file() {
    let mut user = tree(&[("cur/1500000001.M1P1.host:2,S", MESSAGE), (".Sent/cur/1500000002.M2P2.host:2,S", MESSAGE)]);
    let held = user.open(Handover::Clean);
    user.faulty.fail_at(u64::MAX, Failure::Once);
    let sent = held.open("Sent");
    assert_eq!((uids(&sent), sent.read().highest_modseq().get() > 1_600_000_000), (vec![1], true));
    assert_eq!(user.faulty.calls(), 0, "nothing is made or renamed to open it");
    assert_eq!(append(&sent, "second", FlagSet::EMPTY).unwrap().uid, uid(2));
    let modseq = sent.read().highest_modseq();
    user.die(held);

    // Inbox was not opened before the crash: its state file may have been used.
    user.delete_index();
    let held = user.open(Handover::Unclean);
    assert!(held.open("Sent").read().highest_modseq() >= modseq);
    assert!(append(&held.open("Sent"), "third", FlagSet::EMPTY).unwrap().uid > uid(2));
    assert_eq!(uids(&held.inbox()), [1 + RESERVED_AHEAD]);
}

#[test]
fn a_takeover_that_was_interrupted_is_done_again() {
    for calls in 1..60 {
        let mut user = dovecot();
        user.faulty.fail_at(calls, Failure::FromThenOn);
        if let Ok(held) = user.try_open(Handover::Clean) {
            user.die(held);
        }
        user.faulty.heal();
        let held = user.open(Handover::Unclean);
        let inbox = held.inbox();
        let found = uids(&inbox);
        assert_eq!((inbox.uid_validity().get(), &found[..3]), (1_234_567_890, &[7, 9, 12][..]), "after {calls} calls");
        // Where the state file was made before, nobody knows any more that nothing below its ceiling was told.
        assert!(found.len() == 4 && [40, 40 + RESERVED_AHEAD].contains(&found[3]), "after {calls} calls: {found:?}");
        assert_eq!(held.open("Archive/2026").uid_validity().get(), 1_234_567_891, "after {calls} calls");

        let mut user = courier();
        user.faulty.fail_at(calls, Failure::FromThenOn);
        if let Ok(held) = user.try_open(Handover::Clean) {
            user.die(held);
        }
        user.faulty.heal();
        let held = user.open(Handover::Unclean);
        let flags = held.inbox().read().get(uid(4)).unwrap().flags;
        assert_eq!(flags.keywords().count(), 1, "after {calls} calls");
    }
}

#[test]
fn what_courier_left_stays() {
    let mut user = courier();
    let check = |held: &Held| {
        let inbox = held.inbox();
        assert_eq!((inbox.uid_validity().get(), uids(&inbox)), (1_234_567_890, vec![4, 8, 9]));
        assert_eq!(
            inbox.uidl(inbox.read().uids(), &crate::UidlFormat::default()).unwrap(),
            ["UID3-1111111111", "00000008499602d2", "UID11-1111111111"]
        );
        let names = inbox.keywords();
        let keywords = |number| {
            let flags = inbox.read().get(uid(number)).unwrap().flags;
            flags.keywords().map(|id| names[id.position()].clone()).collect::<Vec<_>>()
        };
        assert_eq!((keywords(4), keywords(8), keywords(9)), (vec!["$Label1".into()], vec!["later".into()], vec![]));
        assert!(held.list().unwrap().iter().any(|entry| entry.name == name("Lists") && entry.subscribed));
        assert_eq!(held.open("Lists").uid_validity().get(), 1_234_567_895);
    };
    let held = user.open(Handover::Clean);
    check(&held);
    user.die(held);
    user.delete_index();
    let held = user.open(Handover::Unclean);
    check(&held);
    // A keyword that was taken away stays away.
    let inbox = held.inbox();
    inbox.store(&[uid(4)], crate::StoreOperation::Replace(FlagSet::EMPTY), None).unwrap();
    held.close().unwrap();
    user.delete_index();
    let held = user.open(Handover::Clean);
    assert_eq!(held.inbox().read().get(uid(4)).unwrap().flags, FlagSet::EMPTY);
}

/// What Courier 5.0.13 (Debian 12) left after APPEND, CREATE, SUBSCRIBE, STORE with keywords, EXPUNGE, COPY, and a POP3 session.
fn real_courier() -> User {
    const ONE: &str = "Subject: one\r\nFrom: a@example.org\r\n\r\nHello one\r\n";
    const TWO: &str = "Subject: two\r\nFrom: a@example.org\r\n\r\nHello two\r\n";
    const RIGHTS: &str = "owner aceilrstwx\nadministrators aceilrstwx\n";
    tree(&[
        ("cur/1795318457.M863831P6318V000000000000FE00I000000000098E083_0.vm,S=48:2,S", ONE),
        ("cur/1795318459.M121341P6318V000000000000FE00I000000000098E0B2_1.vm,S=48:2,FS", TWO),
        (
            "courierimapuiddb",
            "1 795318459 4\n1 1795318457.M863831P6318V000000000000FE00I000000000098E083_0.vm,S=48\n\
             2 1795318459.M121341P6318V000000000000FE00I000000000098E0B2_1.vm,S=48\n",
        ),
        ("courierimapsubscribed", "INBOX.Lists\nINBOX.Lists.Entwürfe\n"),
        (
            "courierimapkeywords/:list",
            "todo\nlater\n$Label1\n\n1795318457.M863831P6318V000000000000FE00I000000000098E083_0.vm,S=48:2 0\n\
             1795318459.M121341P6318V000000000000FE00I000000000098E0B2_1.vm,S=48:1\n",
        ),
        ("courierimapkeywords/.5984395.1795318457.M863831P6318V000000000000FE00I000000000098E083_0.vm,S=48", "$Label1\ntodo\n"),
        ("courierimapkeywords/.5984395.1795318459.M121341P6318V000000000000FE00I000000000098E0B2_1.vm,S=48", "later\n"),
        (
            "courierpop3dsizelist",
            "/3 3 1795318563\n1795318457.M863831P6318V000000000000FE00I000000000098E083_0.vm,S=48:2,S 48 1:1795318563:0\n\
             1795318459.M121341P6318V000000000000FE00I000000000098E0B2_1.vm,S=48:2,FS 48 2:1795318563:0\n",
        ),
        ("courierimaphieracl/Lists.Entw&APw-rfe", RIGHTS),
        (".Lists/cur/1795318466.M635257P6318V000000000000FE00I000000000098E199_3.vm,S=48:2,S", ONE),
        (".Lists/cur/1795318466.M635311P6318V000000000000FE00I000000000098E19C_4.vm,S=48:2,FS", TWO),
        (
            ".Lists/courierimapuiddb",
            "1 795318462 3\n1 1795318466.M635257P6318V000000000000FE00I000000000098E199_3.vm,S=48\n\
             2 1795318466.M635311P6318V000000000000FE00I000000000098E19C_4.vm,S=48\n",
        ),
        (
            ".Lists/courierimapkeywords/:list",
            "todo\nlater\n$Label1\n\n1795318466.M635257P6318V000000000000FE00I000000000098E199_3.vm,S=48:2 0\n\
             1795318466.M635311P6318V000000000000FE00I000000000098E19C_4.vm,S=48:1\n",
        ),
        (".Lists/courierimapkeywords/1795318466.M635257P6318V000000000000FE00I000000000098E199_3.vm,S=48", "$Label1\ninlist\ntodo\n"),
        (".Lists/courierimapkeywords/.5984395.1795318466.M635257P6318V000000000000FE00I000000000098E199_3.vm,S=48", "$Label1\ntodo\n"),
        (".Lists/courierimapacl", RIGHTS),
        (".Lists/maildirfolder", ""),
        (".Lists.Entwürfe/courierimapuiddb", "1 795318464 1\n"),
        (".Lists.Entwürfe/courierimapacl", RIGHTS),
    ])
}

#[test]
fn what_a_real_courier_left_stays() {
    let mut user = real_courier();
    let problems = crate::adopt::check(&user.paths(), &mut |_| ()).unwrap().unwrap();
    assert!(problems.problems.is_empty() && problems.mailboxes.iter().all(|mailbox| mailbox.problems.is_empty()), "{problems:?}");
    for _ in 0..2 {
        let held = user.open(Handover::Clean);
        let entries = held.list().unwrap();
        let subscribed: Vec<&str> = entries.iter().filter(|entry| entry.subscribed).map(|entry| entry.name.as_str()).collect();
        assert_eq!(subscribed, ["Lists", "Lists/Entwürfe"]);
        let keywords = |mailbox: &Mailbox, number| {
            let names = mailbox.keywords();
            let flags = mailbox.read().get(uid(number)).unwrap().flags;
            flags.keywords().map(|id| names[id.position()].clone()).collect::<std::collections::BTreeSet<_>>()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (inbox, lists) = (held.inbox(), held.open("Lists"));
        assert_eq!((inbox.uid_validity().get(), uids(&inbox)), (795_318_459, vec![1, 2]));
        assert_eq!((keywords(&inbox, 1), keywords(&inbox, 2)), (set(&["todo", "$Label1"]), set(&["later"])));
        assert!(inbox.read().get(uid(2)).unwrap().flags.contains(Flag::Flagged));
        assert_eq!(inbox.uidl(&[uid(1), uid(2)], &crate::UidlFormat::default()).unwrap(), ["UID1-1795318563", "UID2-1795318563"]);
        assert_eq!((lists.uid_validity().get(), uids(&lists)), (795_318_462, vec![1, 2]));
        assert_eq!((keywords(&lists, 1), keywords(&lists, 2)), (set(&["todo", "$Label1", "inlist"]), set(&["later"])));
        let drafts = held.open("Lists/Entwürfe");
        assert_eq!(drafts.uid_validity().get(), 795_318_464);
        let appended = append(&drafts, "x", FlagSet::EMPTY).unwrap().uid;
        drafts.remove(&[appended]).unwrap();
        assert!(append(&inbox, "x", FlagSet::EMPTY).unwrap().uid >= uid(4), "3 was expunged");
        let last = *inbox.read().uids().last().unwrap();
        inbox.remove(&[last]).unwrap();
        held.close().unwrap();
        user.delete_index();
    }
}

#[test]
fn two_folders_of_one_name_are_one_mailbox() {
    let mut user = tree(&[
        (".Entwürfe/cur/1500000001.M1P1.host,S=17,W=17:2,", MESSAGE),
        (".Entw&APw-rfe/cur/1500000002.M2P2.host,S=17,W=17:2,", MESSAGE),
        (".Entw&APw-rfe/cur/1500000003.M3P3.host,S=17,W=17:2,", MESSAGE),
    ]);
    let report = crate::adopt::check(&user.paths(), &mut |_| ()).unwrap().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("second folder")), "{report:?}");
    let held = user.open(Handover::Clean);
    assert_eq!(held.open("Entwürfe").read().len(), 2);
}

#[test]
fn control_files_elsewhere_are_read() {
    let mut user = tree(&[("cur/1500000001.M1P1.host,S=17,W=17:2,b", MESSAGE), (".Work/cur/1500000002.M2P2.host,S=17,W=17:2,", MESSAGE)]);
    let control = user.control();
    for folder in [".INBOX", ".Work"] {
        std::fs::create_dir_all(control.join(folder)).unwrap();
    }
    for (file, content) in [
        (".INBOX/dovecot-uidlist", "3 V11 N8\n5 :1500000001.M1P1.host,S=17,W=17\n"),
        (".INBOX/dovecot-keywords", "0 one\n1 two\n"),
        ("subscriptions", "V\t2\n\nWork\n"),
        (".Work/dovecot-uidlist", "3 V12 N4\n3 :1500000002.M2P2.host,S=17,W=17\n"),
    ] {
        std::fs::write(control.join(file), content).unwrap();
    }
    let held = user.open(Handover::Clean);
    assert_eq!((held.inbox().uid_validity().get(), uids(&held.inbox())), (11, vec![5]));
    assert_eq!(*held.inbox().keywords(), ["one", "two"]);
    assert_eq!(uids(&held.open("Work")), [3]);
    assert!(held.list().unwrap().iter().any(|entry| entry.name == name("Work") && entry.subscribed));
    held.close().unwrap();
    std::fs::remove_dir_all(&control).unwrap();
    user.delete_index();
    let held = user.open(Handover::Clean);
    assert_eq!((uids(&held.inbox()), uids(&held.open("Work"))), (vec![5], vec![3]), "they are needed once only");
}

#[test]
fn a_broken_list_is_said() {
    let mut user = tree(&[("cur/1500000001.M1P1.host,S=17,W=17:2,", MESSAGE), ("dovecot-uidlist", "garbage\n")]);
    let paths = AccountPaths::new(user.maildir(), user.index());
    let report = crate::adopt::check(&paths, &mut |_| ()).unwrap().unwrap();
    assert_eq!(report.mailboxes[0].with_uid, 0);
    assert!(report.mailboxes[0].problems[0].contains("garbage"), "{report:?}");
    assert_eq!(uids(&user.open(Handover::Clean).inbox()), [1]);
}

#[test]
fn a_check_says_what_stays_and_changes_nothing() {
    let user = dovecot();
    let paths = AccountPaths::new(user.maildir(), user.index());
    let before = user.everything();
    let mut seen = 0;
    let report = crate::adopt::check(&paths, &mut |_| seen += 1).unwrap().unwrap();
    assert_eq!(user.everything(), before);
    assert_eq!((seen, report.mailboxes.len()), (3, 3));
    let inbox = &report.mailboxes[0];
    assert_eq!((inbox.messages, inbox.with_uid, inbox.with_uidl, inbox.to_be_read, inbox.keywords), (4, 3, 2, 1, 1));
    assert_eq!(inbox.numbers, Some((1_234_567_890, 40)));
}

#[test]
fn handed_back_and_taken_over_again_all_stays() {
    let mut user = dovecot();
    let paths = AccountPaths::new(user.maildir(), user.index());
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "later", FlagSet::of(&[Flag::Seen])).unwrap();
    inbox.remove(&[uid(9)]).unwrap();
    let before = picture(&inbox);
    let uidls = inbox.uidl(inbox.read().uids(), &crate::UidlFormat::default()).unwrap();
    let modseq = inbox.read().highest_modseq();
    held.set_subscribed(&name("Sent"), true).unwrap();
    held.close().unwrap();

    let released = crate::release::to_dovecot(&paths, || Ok(())).unwrap();
    assert_eq!((released.len(), released[0].messages), (3, 4));
    assert!(released[0].modseq > modseq.get());
    let read = |file: &str| std::fs::read_to_string(user.maildir().join(file)).unwrap();
    let list = crate::maildir::uidlist::UidList::parse(read("dovecot-uidlist").as_bytes()).unwrap();
    assert_eq!(list.messages.keys().map(|uid| uid.get()).collect::<Vec<_>>(), [7, 12, 40, 41]);
    assert_eq!((list.guid.as_deref(), list.messages[&uid(7)].uidl.as_deref()), (Some("abc"), Some("old-uidl")));
    assert_eq!(list.messages[&uid(12)].guid.as_deref(), Some("77"));
    assert_eq!(read("subscriptions"), "V\t2\n\nArchive\t2026\nINBOX\nSent\n");
    let file = user.files("").into_iter().find(|file| file.contains("U=41")).unwrap();
    let modified = std::fs::metadata(user.maildir().join(file)).unwrap().modified().unwrap();
    assert_eq!(modified, std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000), "Dovecot takes the file's time for the date");

    assert!(user.try_open(Handover::Clean).err().unwrap().to_string().contains("berth adopt"));
    assert!(crate::release::to_dovecot(&paths, || Ok(())).is_ok(), "it can be done again");
    assert!(crate::adopt::take_back(&paths).unwrap());
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert_eq!(picture(&inbox), before);
    assert_eq!(inbox.uidl(inbox.read().uids(), &crate::UidlFormat::default()).unwrap(), uidls);
    assert!(inbox.read().highest_modseq() > modseq);
}

#[test]
fn what_root_hands_back_belongs_to_the_owner_of_the_mail() {
    use std::os::unix::fs::{MetadataExt, lchown};

    // Nobody else can give files away, and then nothing is to be done.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    fn all(folder: &Path, found: &mut Vec<PathBuf>) {
        found.push(folder.to_owned());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { all(&path, found) } else { found.push(path) }
        }
    }
    let mut user = dovecot();
    let control = user.maildir().with_file_name("control");
    let paths = AccountPaths { control: Some(control.join("deep")), ..AccountPaths::new(user.maildir(), user.index()) };
    let held = user.open(Handover::Clean);
    held.set_subscribed(&name("Sent"), true).unwrap();
    held.close().unwrap();
    let mut before = Vec::new();
    all(&user.maildir(), &mut before);
    before.iter().for_each(|path| lchown(path, Some(4242), Some(4343)).unwrap());
    crate::release::to_dovecot(&paths, || Ok(())).unwrap();
    let mut after = Vec::new();
    all(&control, &mut after);
    assert!(
        after.iter().any(|path| path.ends_with("dovecot-uidlist")) && after.iter().any(|path| path.ends_with("subscriptions")),
        "{after:?}"
    );
    all(&user.maildir(), &mut after);
    for path in after {
        let owner = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (4242, 4343), "{}", path.display());
    }
}

#[test]
fn an_account_that_is_held_is_not_handed_back() {
    let mut user = dovecot();
    let paths = AccountPaths::new(user.maildir(), user.index());
    let held = user.open(Handover::Clean);
    let before = user.everything();
    assert!(crate::release::to_dovecot(&paths, || Err("held".to_owned())).unwrap_err().to_string().contains("held"));
    assert_eq!(user.everything(), before);
    held.close().unwrap();
}
