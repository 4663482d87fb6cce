//! The layout `fs`, and INBOX elsewhere.

use std::{sync::mpsc, thread};

use affinity::Handover;
use index::{Flag, FlagSet};

use super::*;
use crate::{CreateOptions, StoreOperation, filesystem::Failure};

const MESSAGE: &str = "Subject: x\r\n\r\nx\r\n";

/// A user of the layout `fs` with these files below the folder of all that is theirs.
fn tree(files: &[(&str, &str)]) -> User {
    let mut user = User::new();
    user.layout = Layout::Fs;
    for (file, content) in files {
        let path = user.maildir().parent().unwrap().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
    }
    user
}

/// As Dovecot 2.3 leaves it with `maildir:~/Maildir:LAYOUT=fs:CONTROL=~/control`.
fn dovecot() -> User {
    tree(&[
        ("Maildir/cur/1500000001.M1P1.host,S=17,W=17:2,Sa", MESSAGE),
        ("Maildir/Archive/20.26/cur/1500000002.M2P2.host,S=17,W=17:2,F", MESSAGE),
        ("Maildir/INBOX/Sub/cur/1500000003.M3P3.host,S=17,W=17:2,", MESSAGE),
        ("Maildir/Entw&APw-rfe/new/1500000004.M4P4.host,S=17,W=17", MESSAGE),
        ("Maildir/Entw&APw-rfe/cur/1500000005.M5P5.host,S=17,W=17:2,", MESSAGE),
        ("control/INBOX/dovecot-uidlist", "3 V11 N8\n5 :1500000001.M1P1.host,S=17,W=17\n"),
        ("control/INBOX/dovecot-keywords", "0 todo\n"),
        ("control/Archive/20.26/dovecot-uidlist", "3 V12 N40\n30 G77 :1500000002.M2P2.host,S=17,W=17\n"),
        ("control/INBOX/Sub/dovecot-uidlist", "3 V13 N4\n3 :1500000003.M3P3.host,S=17,W=17\n"),
        ("control/subscriptions", "V\t2\n\nINBOX\nArchive\t20.26\n"),
        ("control/dovecot-uidvalidity.0000000d", ""),
    ])
}

fn names(held: &Held) -> Vec<String> {
    held.list().unwrap().iter().map(|entry| format!("{}{}", entry.name, if entry.selectable { "" } else { " (level)" })).collect()
}

fn check_dovecot(held: &Held) {
    assert_eq!(names(held), ["INBOX", "Archive (level)", "Archive/20.26", "Entwürfe", "INBOX/Sub"]);
    let uids = |mailbox: &str| (held.open(mailbox).uid_validity().get(), held.open(mailbox).read().uids().to_vec());
    assert_eq!(uids("INBOX"), (11, vec![uid(5)]));
    assert_eq!(*held.inbox().keywords(), ["todo"]);
    assert_eq!(uids("Archive/20.26"), (12, vec![uid(30)]));
    assert_eq!(uids("INBOX/Sub"), (13, vec![uid(3)]));
    assert_eq!(uids("Entwürfe").1, [uid(1), uid(2)]);
    assert!(held.open("Entwürfe").uid_validity().get() > 13);
    assert!(held.list().unwrap().iter().any(|entry| entry.name == name("Archive/20.26") && entry.subscribed));
}

#[test]
fn what_dovecot_left_in_the_layout_fs_stays() {
    let mut user = dovecot();
    let report = crate::adopt::check(&user.paths(), &mut |_| ()).unwrap().unwrap();
    let seen: Vec<_> = report.mailboxes.iter().map(|mailbox| (mailbox.name.as_str(), mailbox.messages, mailbox.with_uid)).collect();
    assert_eq!(seen, [("INBOX", 1, 1), ("Archive/20.26", 1, 1), ("Entwürfe", 2, 0), ("INBOX/Sub", 1, 1)]);
    assert!(report.problems.is_empty(), "{report:?}");
    for _ in 0..2 {
        let held = user.open(Handover::Clean);
        check_dovecot(&held);
        held.close().unwrap();
        user.delete_index();
    }
    let released = crate::release::to_dovecot(&user.paths(), || Ok(())).unwrap();
    assert_eq!(released.len(), 4);
    let list = std::fs::read_to_string(user.control().join("Archive/20.26/dovecot-uidlist")).unwrap();
    assert!(list.starts_with("3 V12 N") && list.contains("30 G77 :1500000002.M2P2.host,S=17,W=17"), "{list}");
    assert!(user.try_open(Handover::Clean).err().unwrap().to_string().contains("berth adopt"));
    crate::adopt::take_back(&user.paths()).unwrap();
    check_dovecot(&user.open(Handover::Clean));
}

#[test]
fn inbox_may_lie_elsewhere() {
    let mut user = tree(&[
        ("inbox/cur/1500000001.M1P1.host,S=17,W=17:2,S", MESSAGE),
        ("inbox/dovecot-uidlist", "3 V11 N8\n5 :1500000001.M1P1.host,S=17,W=17\n"),
        ("Maildir/Archive/cur/1500000002.M2P2.host,S=17,W=17:2,F", MESSAGE),
    ]);
    user.inbox = true;
    for _ in 0..2 {
        let held = user.open(Handover::Clean);
        assert_eq!(names(&held), ["INBOX", "Archive"]);
        held.set_subscribed(&name("Archive"), true).unwrap();
        assert_eq!((held.inbox().uid_validity().get(), held.inbox().read().uids().to_vec()), (11, vec![uid(5)]));
        held.close().unwrap();
        user.delete_index();
    }
    assert!(!user.maildir().join("cur").exists());
    let mut fresh = User::new();
    (fresh.inbox, fresh.layout) = (true, Layout::Fs);
    let held = fresh.open(Handover::Clean);
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    assert_eq!(names(&held), ["INBOX", "Sent"]);
    assert!(fresh.maildir().join("Sent/cur").is_dir() && !fresh.maildir().join("Sent/maildirfolder").exists());
}

#[test]
fn mailboxes_come_move_and_go_in_the_layout_fs() {
    let mut user = dovecot();
    let held = user.open(Handover::Clean);
    let make = |text: &str| held.create(&name(text), CreateOptions::default());
    make("a/b/c").unwrap();
    let (a, c) = (held.open("a"), held.open("a/b/c"));
    append(&a, "in a", FlagSet::EMPTY).unwrap();
    append(&c, "in c", FlagSet::EMPTY).unwrap();
    for bad in ["a/cur", "tmp", "berth-x", "a/.x", "dovecot-x/y"] {
        assert!(crate::MailboxName::parse(bad).and_then(|bad| held.create(&bad, CreateOptions::default())).is_err(), "{bad}");
    }
    make("with.dot").unwrap();

    held.rename(&name("a"), &name("x/y")).unwrap();
    assert_eq!((c.name(), a.name()), (name("x/y/b/c"), name("x/y")));
    assert_eq!(c.open_message(uid(1)).unwrap().read_all().unwrap(), message("in c"));
    append(&c, "again", FlagSet::EMPTY).unwrap();
    assert!(user.maildir().join("x/y/b/c/cur").is_dir() && !user.maildir().join("a").exists());

    // What lies below stays, and the level can become a mailbox again.
    let before = a.uid_validity();
    held.delete(&name("x/y")).unwrap();
    assert!(a.is_deleted());
    assert_eq!(c.read().len(), 2);
    let listed = names(&held);
    assert!(listed.contains(&"x/y (level)".to_owned()) && listed.contains(&"x/y/b/c".to_owned()), "{listed:?}");
    held.run_background_work().unwrap();
    assert!(!user.everything().iter().any(|path| path.display().to_string().contains("berth-deleted")));
    make("x/y").unwrap();
    assert!(held.open("x/y").uid_validity() > before && held.open("x/y").read().is_empty());
    // Only a level on disk, as Dovecot makes it.
    make("Archive").unwrap();
    held.rename(&name("x"), &name("Archive/x")).unwrap();
    held.delete(&name("Archive/x/y/b/c")).unwrap();
    assert!(!user.maildir().join("Archive/x/y/b/c").exists());

    let listed = names(&held);
    held.close().unwrap();
    user.delete_index();
    let held = user.open(Handover::Clean);
    assert_eq!(names(&held), listed);
    assert_eq!(held.open("Archive/20.26").read().uids(), [uid(30)]);
}

#[test]
fn a_tree_of_the_other_layout_is_refused() {
    let mut user = dovecot();
    user.layout = Layout::MaildirPlusPlus;
    let before = user.everything();
    let refused = user.try_open(Handover::Clean).err().unwrap().to_string();
    assert!(refused.contains("mail.layout = \"fs\""), "{refused}");
    let report = crate::adopt::check(&user.paths(), &mut |_| ()).unwrap().unwrap();
    assert!(report.problems[0].contains("mail.layout = \"fs\""), "{report:?}");
    assert!(user.everything().iter().all(|path| before.contains(path) || path.starts_with(user.index())));
    user.layout = Layout::Fs;
    check_dovecot(&user.open(Handover::Clean));

    let mut user = User::new();
    std::fs::create_dir_all(user.maildir().join(".Sent/cur")).unwrap();
    user.layout = Layout::Fs;
    let refused = user.try_open(Handover::Clean).err().unwrap().to_string();
    assert!(refused.contains("mail.layout = \"maildir++\""), "{refused}");
    user.layout = Layout::MaildirPlusPlus;
    // A stray folder beside mailboxes is no other layout.
    std::fs::create_dir_all(user.maildir().join("backup/cur")).unwrap();
    assert_eq!(names(&user.open(Handover::Clean)), ["INBOX", "Sent"]);
}

/// A rename that the index did not hear of: what names do not say yet goes with the mailbox.
#[test]
fn flags_survive_a_rename_that_the_index_did_not_hear_of() {
    for layout in [Layout::MaildirPlusPlus, Layout::Fs] {
        let mut user = User::new();
        user.layout = layout;
        let held = user.open(Handover::Clean);
        held.create(&name("old"), CreateOptions::default()).unwrap();
        let old = held.open("old");
        append(&old, "one", FlagSet::EMPTY).unwrap();
        let seen = FlagSet::of(&[Flag::Seen]);
        old.store(&[uid(1)], StoreOperation::Add(seen), None).unwrap();
        let folders = [name("old"), name("newer")].map(|name| user.maildir().join(layout.folder(&name).unwrap()));
        user.die(held);
        #[expect(clippy::disallowed_methods, reason = "this is what the dead holder did last")]
        std::fs::rename(&folders[0], &folders[1]).unwrap();
        let held = user.open(Handover::Unclean);
        assert_eq!(names(&held), ["INBOX", "Sent", "newer"]);
        assert_eq!(held.open("newer").read().get(uid(1)).unwrap().flags, seen, "{layout:?}");
    }
}

/// Every operation on mailboxes with a file system that fails at the n-th call: what was told holds, and nothing that was there is lost.
#[test]
fn whatever_fails_mailboxes_are_where_they_were_said_to_be() {
    for layout in [Layout::MaildirPlusPlus, Layout::Fs] {
        for (failure, dies) in [(Failure::Once, false), (Failure::Once, true), (Failure::FromThenOn, true)] {
            for call in 1.. {
                let mut user = User::new();
                user.layout = layout;
                let mut held = user.open(Handover::Clean);
                for mailbox in ["a", "a/b", "gone"] {
                    held.create(&name(mailbox), CreateOptions::default()).unwrap();
                    append(&held.open(mailbox), mailbox, FlagSet::EMPTY).unwrap();
                }
                user.faulty.fail_at(call, failure);
                let created = held.create(&name("made/here"), CreateOptions::default()).is_ok();
                let renamed = held.rename(&name("a"), &name("z")).is_ok();
                let deleted = held.delete(&name("gone")).is_ok();
                let subscribed = held.set_subscribed(&name("z"), true).is_ok();
                held.run_background_work().unwrap_or_default();
                let calls = user.faulty.calls();
                user.faulty.heal();
                for _ in 0..2 {
                    if dies {
                        user.die(held);
                        held = user.open(Handover::Unclean);
                    } else {
                        held.close().unwrap();
                        user.delete_index();
                        held = user.open(Handover::Clean);
                    }
                    let listed = names(&held);
                    let has = |mailbox: &str| listed.contains(&mailbox.to_owned());
                    let context = format!("{layout:?}, call {call}: {listed:?}");
                    assert!(!created || has("made/here"), "{context}");
                    assert!(!renamed || (has("z") && has("z/b") && !has("a")), "{context}");
                    assert!(!deleted || !has("gone"), "{context}");
                    let subscription = held.list().unwrap().iter().any(|entry| entry.name == name("z") && entry.subscribed);
                    assert!(!subscribed || subscription, "{context}");
                    for (before, after, subject) in [("a", "z", "a"), ("a/b", "z/b", "a/b")] {
                        assert!(has(before) != has(after), "{context}");
                        let mailbox = held.open(if has(after) { after } else { before });
                        assert_eq!(mailbox.open_message(uid(1)).unwrap().read_all().unwrap(), message(subject), "{context}");
                    }
                    held.run_background_work().unwrap();
                    let debris = user.everything().into_iter().find(|path| {
                        let path = path.display().to_string();
                        path.contains("berth-creating") || path.contains("berth-deleted")
                    });
                    assert_eq!(debris, None, "{context}");
                }
                if calls < call {
                    break;
                }
            }
        }
    }
}

/// Time for another thread to come as far as it can.
const MEANWHILE: Duration = Duration::from_millis(150);
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs `work` beside this thread, and tells when it is done.
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(work()).unwrap_or_default());
    thread::sleep(MEANWHILE);
    ended
}

#[test]
fn a_rename_and_a_copy_do_not_wait_for_each_other() {
    let mut user = tree(&[]);
    let held = user.open(Handover::Clean);
    for made in ["P", "P/a", "P/b"] {
        held.create(&name(made), CreateOptions::default()).unwrap();
    }
    let (a, b) = (held.open("P/a"), held.open("P/b"));
    append(&b, "one", FlagSet::EMPTY).unwrap();
    let mut staged = b.stage(0).unwrap();
    staged.write(&message("slow")).unwrap();
    let (ends, both) = mpsc::channel();
    let (account, source, target) = (Arc::clone(&held.account), Arc::clone(&b), Arc::clone(&a));
    // In the middle of a delivery, which the rename waits for.
    user.faulty.on_call(1, move || {
        let renamed = beside(move || account.rename(&name("P"), &name("Q")).map(drop));
        let copied = beside(move || source.copy_to(&[uid(1)], &target).map(drop));
        ends.send([renamed, copied]).unwrap();
    });
    b.append(staged, FlagSet::EMPTY, None).unwrap();
    for ended in both.recv().unwrap() {
        ended.recv_timeout(DEADLINE).expect("nobody waits for ever").unwrap();
    }
    assert_eq!((held.open("Q/a").read().len(), held.open("Q/b").read().len()), (1, 2));
    append(&a, "two", FlagSet::EMPTY).unwrap();
    held.close().unwrap();
    assert_eq!(user.open(Handover::Clean).open("Q/a").read().len(), 2);
}

#[test]
fn what_is_opened_while_it_is_renamed_or_deleted_is_not_where_it_was() {
    for layout in [Layout::Fs, Layout::MaildirPlusPlus] {
        let mut user = User::new();
        user.layout = layout;
        let held = user.open(Handover::Clean);
        for made in ["P", "P/a", "D"] {
            held.create(&name(made), CreateOptions::default()).unwrap();
        }
        let open_meanwhile = |mailbox: &'static str| {
            let (account, (send, opened)) = (Arc::clone(&held.account), mpsc::channel());
            user.faulty.on_call(1, move || send.send(beside(move || account.mailbox(&name(mailbox)))).unwrap());
            move || opened.recv().unwrap().recv_timeout(DEADLINE).unwrap()
        };
        // The first call of a rename is that of the folder that is renamed; of children, Maildir++ has the parent's before.
        let opened = open_meanwhile(if layout == Layout::Fs { "P/a" } else { "P" });
        held.rename(&name("P"), &name("Q")).unwrap();
        let mailbox = opened().unwrap();
        assert_eq!(mailbox.name(), name(if layout == Layout::Fs { "Q/a" } else { "Q" }));
        held.create(&name("P/a"), CreateOptions::default()).unwrap();
        append(&mailbox, "one", FlagSet::EMPTY).unwrap();
        mailbox.refresh(true).unwrap();
        assert_eq!(mailbox.read().len(), 1);
        assert!(held.open("P").read().is_empty() && held.open("P/a").read().is_empty());

        let opened = open_meanwhile("D");
        held.delete(&name("D")).unwrap();
        let error = opened().map(|mailbox| mailbox.name()).unwrap_err();
        assert!(matches!(error, StorageError::NoMailbox(_)), "{error}");
        held.close().unwrap();
    }
}
