//! Every operation with a file system that fails at the n-th call, for every n.

use std::collections::BTreeMap;

use affinity::Handover;
use index::{Flag, FlagSet};

use super::*;
use crate::{CreateOptions, StoreOperation, filesystem::Failure};

/// A message's bytes and flags.
type Content = (Vec<u8>, FlagSet);

/// What the server said to clients: message by mailbox and UID; `None`: gone.
#[derive(Default)]
struct Told {
    messages: BTreeMap<(String, u32), Option<Content>>,
}

impl Told {
    fn add(&mut self, mailbox: &str, uid: Uid, content: Vec<u8>, flags: FlagSet) {
        let before = self.messages.insert((mailbox.to_owned(), uid.get()), Some((content, flags)));
        assert!(before.is_none(), "UID {uid} of {mailbox} was given twice");
    }
    /// A client that had a message moved or expunged knows nothing if the answer was an error.
    fn unsure(&mut self, mailbox: &str, uid: u32) {
        self.messages.remove(&(mailbox.to_owned(), uid));
    }
    fn gone(&mut self, mailbox: &str, uid: u32) {
        self.messages.insert((mailbox.to_owned(), uid), None);
    }
}

/// A bit of everything; whatever is acknowledged is noted.
fn work(held: &Held, told: &mut Told) {
    let seen = FlagSet::of(&[Flag::Seen]);
    let (Ok(inbox), Ok(sent)) = (held.account.mailbox(&MailboxName::inbox()), held.account.mailbox(&name("Sent"))) else { return };
    for subject in ["three", "four"] {
        if let Ok(appended) = append(&inbox, subject, FlagSet::EMPTY) {
            told.add("INBOX", appended.uid, message(subject), FlagSet::EMPTY);
        }
    }
    let several = ["five", "six"].map(|subject| {
        let mut staged = inbox.stage(0).unwrap();
        staged.write(&message(subject)).unwrap();
        (staged, FlagSet::EMPTY, None)
    });
    if let Ok(appended) = inbox.append_all(several.into()) {
        for (one, subject) in appended.iter().zip(["five", "six"]) {
            told.add("INBOX", one.uid, message(subject), FlagSet::EMPTY);
        }
    }
    if inbox.store(&[uid(1)], StoreOperation::Add(seen), None).is_ok() {
        told.messages.insert(("INBOX".to_owned(), 1), Some((message("one"), seen)));
    } else {
        told.unsure("INBOX", 1);
    }
    held.run_background_work().unwrap_or_default();
    if let Ok(copied) = inbox.copy_to(&[uid(1), uid(2)], &sent) {
        let flags = inbox.read().get(uid(1)).unwrap().flags;
        told.add("Sent", copied.pairs[0].1, message("one"), flags);
        told.add("Sent", copied.pairs[1].1, message("two"), FlagSet::EMPTY);
    }
    match inbox.move_to(&[uid(2)], &sent) {
        Ok(moved) if !moved.pairs.is_empty() => {
            told.gone("INBOX", 2);
            told.add("Sent", moved.pairs[0].1, message("two"), FlagSet::EMPTY);
        }
        _ => told.unsure("INBOX", 2),
    }
    match inbox.remove(&[uid(1)]) {
        Ok(_) => told.gone("INBOX", 1),
        Err(_) => told.unsure("INBOX", 1),
    }
    held.run_background_work().unwrap_or_default();
    held.create(&name("new"), CreateOptions::default()).map(drop).unwrap_or_default();
    held.rename(&name("new"), &name("newer")).unwrap_or_default();
    if let Ok(appended) = append(&inbox, "seven", seen) {
        told.add("INBOX", appended.uid, message("seven"), seen);
    }
}

/// Nothing acknowledged is missing, and every UID means what it meant.
fn check(held: &Held, told: &Told) {
    let mut subjects: Vec<Vec<u8>> = Vec::new();
    for mailbox in ["INBOX", "Sent"] {
        let open = held.open(mailbox);
        let now = picture(&open);
        subjects.extend(now.messages.values().map(|(.., content)| content.clone()));
        for ((_, uid), what) in told.messages.iter().filter(|((of, _), _)| of == mailbox) {
            match (what, now.messages.get(uid)) {
                (Some((content, flags)), Some((flags_now, .., content_now))) => {
                    assert_eq!((content, flags), (content_now, flags_now), "{mailbox} {uid}");
                }
                (None, None) => {}
                (what, found) => panic!("{mailbox} {uid}: told {what:?}, found {found:?}"),
            }
        }
    }
    for subject in ["one", "two"] {
        let gone = subject == "one" && told.messages.get(&("INBOX".to_owned(), 1)) == Some(&None);
        assert!(gone || subjects.contains(&message(subject)), "{subject} is in no mailbox");
    }
}

fn run(failure: Failure, dies: bool) {
    // A file server has messages linked to their places, a disk renamed.
    for remote in [false, true] {
        run_on(failure, dies, remote);
    }
}

fn run_on(failure: Failure, dies: bool, remote: bool) {
    for call in 1.. {
        let mut user = User::new();
        if remote {
            user.faulty.pretend_remote();
        }
        let mut held = user.open(Handover::Clean);
        let mut told = Told::default();
        for subject in ["one", "two"] {
            let appended = append(&held.inbox(), subject, FlagSet::EMPTY).unwrap();
            told.add("INBOX", appended.uid, message(subject), FlagSet::EMPTY);
        }
        user.faulty.fail_at(call, failure);
        work(&held, &mut told);
        let calls = user.faulty.calls();
        user.faulty.heal();
        if dies {
            user.die(held);
            held = user.open(Handover::Unclean);
        } else {
            check(&held, &told);
            held.close().unwrap();
            held = user.open(Handover::Clean);
        }
        check(&held, &told);
        // The next UIDs are above all that were told, and what is there survives the index.
        let next = append(&held.inbox(), "next", FlagSet::EMPTY).unwrap().uid;
        told.add("INBOX", next, message("next"), FlagSet::EMPTY);
        held.close().unwrap();
        user.delete_index();
        let held = user.open(Handover::Clean);
        check(&held, &told);
        assert!(append(&held.inbox(), "last", FlagSet::EMPTY).unwrap().uid > next);
        if calls < call {
            break;
        }
    }
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost_and_no_uid_is_used_twice() {
    run(Failure::Once, false);
}

#[test]
fn whatever_fails_before_a_holder_dies_nothing_acknowledged_is_lost() {
    run(Failure::FromThenOn, true);
}

#[test]
fn whatever_fails_once_before_a_holder_dies_nothing_acknowledged_is_lost() {
    run(Failure::Once, true);
}

/// What a client is told of each: `server::imap::reply`, `server::lmtp::reply`.
#[test]
fn every_refusal_of_the_file_system_is_said_as_what_it_is_and_leaves_no_debris() {
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    const ESTALE: i32 = 116;
    const EROFS: i32 = 30;
    for errno in [ENOSPC, EDQUOT, EIO, ESTALE, EROFS] {
        let mut user = User::new();
        user.faulty = crate::filesystem::Faulty::new(errno);
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        append(&inbox, "first", FlagSet::EMPTY).unwrap();
        let check = |error: StorageError| {
            assert_eq!(matches!(error, StorageError::NoSpace { .. }), errno == ENOSPC || errno == EDQUOT, "{errno}: {error}");
            assert_eq!(
                (error.is_over_quota(), error.may_pass()),
                (errno == EDQUOT, ![ENOSPC, EDQUOT].contains(&errno)),
                "{errno}: {error}"
            );
        };
        let sent = held.open("Sent");
        for call in 1..=4 {
            user.faulty.fail_at(call, Failure::Once);
            check(append(&inbox, "x", FlagSet::EMPTY).unwrap_err());
            user.faulty.fail_at(call, Failure::Once);
            held.create(&name("x"), CreateOptions::default()).map(drop).unwrap_or_else(check);
            held.delete(&name("x")).unwrap_or_default();
            user.faulty.fail_at(call, Failure::Once);
            held.set_subscribed(&name("Sent"), call % 2 == 0).unwrap_or_else(check);
            user.faulty.fail_at(call, Failure::Once);
            inbox.copy_to(&[uid(1)], &sent).map(drop).unwrap_or_else(check);
        }
        user.faulty.heal();
        append(&inbox, "fits", FlagSet::EMPTY).unwrap();
        held.run_background_work().unwrap();
        assert_eq!(inbox.read().len(), 2);
        for file in user.everything() {
            let file = file.strip_prefix(user.maildir().parent().unwrap()).unwrap().display().to_string();
            let debris = file.contains("tmp/") || file.contains("berth-creating") || file.contains("berth-deleted");
            assert!(!debris, "{errno}: {file}");
        }
    }
}
