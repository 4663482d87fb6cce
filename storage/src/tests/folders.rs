//! Mailboxes: made, deleted, renamed, subscribed, listed.

use affinity::Handover;
use index::FlagSet;
use proptest::prelude::*;

use super::*;
use crate::{CreateOptions, filesystem::Failure};

fn names(held: &Held) -> Vec<String> {
    held.list().unwrap().into_iter().map(|entry| entry.name.to_string()).collect()
}

#[test]
fn a_new_user_has_what_the_settings_promise() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let list = held.list().unwrap();
    assert_eq!(names(&held), ["INBOX", "Sent"]);
    assert_eq!(list[1].special_use, Some(SpecialUse::Sent));
    held.delete(&name("Sent")).unwrap();
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!(names(&held), ["INBOX"], "what the user deleted is not made again");
}

#[test]
fn a_new_user_is_subscribed_where_the_settings_say_so() {
    let subscribed = |held: &Held| -> Vec<String> {
        held.list().unwrap().into_iter().filter(|entry| entry.subscribed).map(|entry| entry.name.to_string()).collect()
    };
    let mut user = User::new();
    user.settings.auto_subscribe = true;
    let held = user.open(Handover::Clean);
    assert_eq!(subscribed(&held), ["INBOX", "Sent"]);
    held.set_subscribed(&name("Sent"), false).unwrap();
    held.set_subscribed(&MailboxName::inbox(), false).unwrap();
    held.close().unwrap();
    user.delete_index();
    assert!(subscribed(&user.open(Handover::Clean)).is_empty(), "what the user gave up stays so");
    // Who had subscriptions before keeps them as they were.
    let mut user = adopted::tree(&[("subscriptions", "Lists\n"), (".Lists/maildirfolder", "")]);
    user.settings.auto_subscribe = true;
    assert_eq!(subscribed(&user.open(Handover::Clean)), ["Lists"]);
    assert!(subscribed(&User::new().open(Handover::Clean)).is_empty());
}

#[test]
fn mailboxes_have_a_limit_and_a_rename_needs_no_room() {
    let mut user = User::new();
    user.settings.mailboxes_max = 4;
    let held = user.open(Handover::Clean);
    let is_limit = |made: Result<(), StorageError>| matches!(made, Err(StorageError::Limit { limit: 4, .. }));
    let create = |text: &str| held.create(&name(text), CreateOptions::default()).map(drop);
    assert!(is_limit(create("a/b/c")), "with its parents it is one too many");
    assert_eq!(names(&held), ["INBOX", "Sent"], "no parent is left behind");
    create("a/b").unwrap();
    assert!(is_limit(create("d")));
    held.rename(&name("a"), &name("d")).unwrap();
    assert!(is_limit(held.rename(&name("d/b"), &name("e/f"))));
    assert!(is_limit(held.rename(&MailboxName::inbox(), &name("e"))));
    assert_eq!(names(&held), ["INBOX", "Sent", "d", "d/b"]);
}

#[test]
fn subscriptions_have_a_limit() {
    let mut user = User::new();
    user.settings.mailboxes_max = 3;
    let held = user.open(Handover::Clean);
    for number in 1..=6 {
        held.set_subscribed(&name(&format!("list{number}")), true).unwrap();
    }
    assert!(matches!(held.set_subscribed(&name("list7"), true), Err(StorageError::Limit { limit: 6, .. })));
    held.set_subscribed(&name("list1"), false).unwrap();
    held.set_subscribed(&name("list7"), true).unwrap();
    // All that is kept is read again.
    user.settings.mailboxes_max = 100_000;
    let long = "x".repeat(200);
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    let last = (0..).find(|number| held.set_subscribed(&name(&format!("{long}/{number}")), true).is_err());
    assert!(last.is_some_and(|last| last > 100), "{last:?}");
    let known = held.list().unwrap().len();
    held.close().unwrap();
    assert_eq!(user.open(Handover::Clean).list().unwrap().len(), known);
}

/// Levels that differ though they look or fold alike, of every plane; some folders of which are as long as file names may be.
fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-zA-Z0-9 &+,!-]{1,12}",
        3 => "[äéñøßłžА-Яа-яα-ω日本語한국א-ת]{1,8}",
        2 => "[a-eou][\u{300}-\u{308}]{1,3}[a-z]?",
        2 => "[😀🏳🌈👩\u{200d}\u{fe0f}\u{1f1e6}-\u{1f1ff}]{1,5}",
        2 => "\\PC{1,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn mailboxes_with_any_unicode_name_are_made_listed_renamed_and_found_again(
        texts in proptest::collection::vec(proptest::collection::vec(level(), 1..3), 1..5), fs in any::<bool>(),
    ) {
        let mut user = User::new();
        user.layout = if fs { crate::Layout::Fs } else { crate::Layout::MaildirPlusPlus };
        let held = user.open(Handover::Clean);
        let mut expected: std::collections::BTreeSet<MailboxName> = [MailboxName::inbox(), name("Sent")].into();
        for levels in &texts {
            // What can't be a name is refused by both, and leaves nothing behind.
            let Ok(asked) = MailboxName::parse(&levels.join("/")) else { continue };
            if held.create(&asked, CreateOptions::default()).is_err() {
                prop_assert!(expected.contains(&asked) || asked.check_new().is_err() || user.layout.folder(&asked).is_err(), "{}", asked);
                continue;
            }
            let mut above = Some(asked);
            while let Some(level) = above {
                above = level.parent();
                expected.insert(level);
            }
        }
        append(&held.inbox(), "x", FlagSet::EMPTY).unwrap();
        // Everything below one of them moves to another name.
        if let Some(from) = expected.iter().find(|name| !name.is_inbox() && name.parent().is_none() && name.as_str() != "Sent").cloned() {
            let to = MailboxName::parse("Zu\u{308}rich").unwrap();
            prop_assert_eq!(to.as_str(), "Z\u{fc}rich", "names are composed");
            held.rename(&from, &to).unwrap();
            let moved = |name: &MailboxName| match name.as_str().strip_prefix(from.as_str()) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => MailboxName::parse(&format!("{to}{rest}")).unwrap(),
                _ => name.clone(),
            };
            expected = expected.iter().map(moved).collect();
        }
        let listed = |held: &Held| held.list().unwrap().into_iter().filter(|entry| entry.selectable).map(|entry| entry.name).collect();
        let now: std::collections::BTreeSet<MailboxName> = listed(&held);
        prop_assert_eq!(&now, &expected);
        let validities = |held: &Held| expected.iter().map(|name| held.account.mailbox(name).unwrap().uid_validity()).collect::<Vec<_>>();
        let before = validities(&held);
        held.close().unwrap();
        for path in user.everything() {
            let file = path.file_name().unwrap().to_str().unwrap();
            prop_assert!(file.is_ascii(), "folders are in modified UTF-7: {}", file);
        }
        user.delete_index();
        let held = user.open(Handover::Clean);
        let again: std::collections::BTreeSet<MailboxName> = listed(&held);
        prop_assert_eq!(&again, &expected);
        prop_assert_eq!(validities(&held), before);
    }
}

#[test]
fn parents_are_made_and_levels_stay() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let mut changes = held.list_changes();
    held.create(&name("a/b/c"), CreateOptions { special_use: Some(SpecialUse::Junk) }).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(matches!(held.create(&name("a/b"), CreateOptions::default()), Err(StorageError::MailboxExists(_))));
    held.delete(&name("a/b")).unwrap();
    let list = held.list().unwrap();
    let level = list.iter().find(|entry| entry.name == name("a/b")).unwrap();
    assert!(!level.selectable && level.has_children);
    assert!(matches!(held.delete(&name("a/b")), Err(StorageError::HasChildren(_))));
    assert!(matches!(held.delete(&name("x")), Err(StorageError::NoMailbox(_))));
    assert!(matches!(held.delete(&MailboxName::inbox()), Err(StorageError::NotAllowed(_))));
    held.delete(&name("a/b/c")).unwrap();
    held.run_background_work().unwrap();
    assert_eq!(names(&held), ["INBOX", "Sent", "a"]);
    let left: Vec<_> = std::fs::read_dir(user.maildir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|file| file.starts_with("berth-deleted") || file.starts_with("berth-creating")), "{left:?}");
}

#[test]
fn a_mailbox_made_anew_has_a_higher_uidvalidity() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let first = held.create(&name("a"), CreateOptions::default()).unwrap();
    let open = held.open("a");
    append(&open, "one", FlagSet::EMPTY).unwrap();
    held.delete(&name("a")).unwrap();
    assert!(open.is_deleted());
    assert!(matches!(append(&open, "two", FlagSet::EMPTY), Err(StorageError::NoMailbox(_))));
    assert!(matches!(open.open_message(uid(1)), Err(StorageError::Expunged)));
    let second = held.create(&name("a"), CreateOptions::default()).unwrap();
    assert!(second > first);
    assert!(held.open("a").read().is_empty());
    held.delete(&name("a")).unwrap();
    held.close().unwrap();
    user.delete_index();
    let held = user.open(Handover::Clean);
    let third = held.create(&name("a"), CreateOptions::default()).unwrap();
    assert!(third > second, "also when the index and the mailbox are gone");
}

#[test]
fn renaming_takes_children_and_open_sessions_along() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    held.create(&name("a/b"), CreateOptions::default()).unwrap();
    held.create(&name("ab"), CreateOptions::default()).unwrap();
    let child = held.open("a/b");
    append(&child, "one", FlagSet::EMPTY).unwrap();
    let before = picture(&child);
    assert!(matches!(held.rename(&name("a"), &name("a/b/c")), Err(StorageError::NotAllowed(_))));
    assert!(matches!(held.rename(&name("a"), &name("ab")), Err(StorageError::MailboxExists(_))));
    held.rename(&name("a"), &name("x/y")).unwrap();
    assert_eq!(names(&held), ["INBOX", "Sent", "ab", "x", "x/y", "x/y/b"]);
    assert_eq!(child.name(), name("x/y/b"));
    assert_eq!(picture(&child), before);
    append(&child, "two", FlagSet::EMPTY).unwrap();
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!(held.open("x/y/b").read().len(), 2);
}

#[test]
fn renaming_the_inbox_moves_its_messages() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    held.rename(&MailboxName::inbox(), &name("old/mail")).unwrap();
    assert!(held.inbox().read().is_empty());
    let old = held.open("old/mail");
    assert_eq!(old.open_message(uid(1)).unwrap().read_all().unwrap(), message("one"));
}

#[test]
fn subscriptions_are_kept_beside_the_mail() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    for subscribed in ["Sent", "gone/Entwürfe"] {
        held.set_subscribed(&name(subscribed), true).unwrap();
    }
    held.set_subscribed(&name("never"), false).unwrap();
    let file = std::fs::read_to_string(user.maildir().join("subscriptions")).unwrap();
    assert_eq!(file, "Sent\ngone/Entw&APw-rfe\n");
    held.close().unwrap();
    user.delete_index();
    let held = user.open(Handover::Clean);
    let list = held.list().unwrap();
    let subscribed: Vec<_> = list.iter().filter(|entry| entry.subscribed).map(|entry| (entry.name.as_str(), entry.selectable)).collect();
    assert_eq!(subscribed, [("Sent", true), ("gone/Entwürfe", false)]);
}

#[test]
fn there_are_no_more_mailboxes_than_allowed() {
    let mut user = User::new();
    user.settings.mailboxes_max = 3;
    let held = user.open(Handover::Clean);
    held.create(&name("a"), CreateOptions::default()).unwrap();
    assert!(matches!(held.create(&name("b"), CreateOptions::default()), Err(StorageError::Limit { .. })));
}

#[test]
fn a_rename_that_fails_half_way_is_told() {
    for call in 1..40 {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        for made in ["a", "a/b", "a/c"] {
            held.create(&name(made), CreateOptions::default()).unwrap();
        }
        let (before, mut changes) = (names(&held), held.list_changes());
        changes.mark_unchanged();
        user.faulty.fail_at(call, Failure::FromThenOn);
        let renamed = held.rename(&name("a"), &name("y/z"));
        user.faulty.heal();
        let after = names(&held);
        assert!(after == before || changes.has_changed().unwrap(), "{call}: {after:?}");
        if renamed.is_err() && after.contains(&"y/z".to_owned()) && after.contains(&"a/c".to_owned()) {
            return;
        }
    }
    panic!("no rename failed half-way");
}

/// Prints what it takes: `MAILBOXES=10000 cargo t --release -p storage many_mailboxes -- --nocapture`.
#[test]
fn many_mailboxes_are_listed_in_one_pass() {
    let below_each = std::env::var("MAILBOXES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000) / 100;
    let mut user = User::new();
    let clock = affinity::SystemClock::new();
    user.settings.mailboxes_max = 10_200;
    let held = user.open(Handover::Clean);
    for top in 0..100 {
        for below in 0..below_each {
            held.create(&name(&format!("level {top}/mailbox {below}")), CreateOptions::default()).unwrap();
        }
    }
    let list = held.list().unwrap();
    assert_eq!(list.iter().filter(|entry| entry.selectable).count(), 102 + 100 * below_each, "with INBOX, Sent and a hundred parents");
    assert_eq!(list.iter().filter(|entry| entry.has_children).count(), 100);
    let began = clock.now();
    for _ in 0..10 {
        held.list().unwrap();
    }
    println!("LIST of {} mailboxes: {:?}", list.len(), (clock.now() - began) / 10);
    held.close().unwrap();
    drop(held);
    let began = clock.now();
    let held = user.open(Handover::Clean);
    println!("opened in {:?}", clock.now() - began);
    assert_eq!(held.list().unwrap(), list);
}
