//! Folders that others rename and remove under an open account: dead holders' requests that are carried out late, other programs.

use std::fs;

use affinity::Handover;
use index::FlagSet;

use super::*;
use crate::CreateOptions;

fn names(held: &Held) -> Vec<String> {
    held.list().unwrap().into_iter().map(|entry| entry.name.to_string()).collect()
}
fn subjects(mailbox: &Mailbox) -> Vec<(u32, Vec<u8>)> {
    picture(mailbox).messages.into_iter().map(|(uid, (.., content))| (uid, content)).collect()
}
fn texts(of: &[(u32, &str)]) -> Vec<(u32, Vec<u8>)> {
    of.iter().map(|(uid, subject)| (*uid, message(subject))).collect()
}
/// Makes `A` with a message.
fn with_a(user: &mut User) -> Held {
    let held = user.open(Handover::Clean);
    held.create(&name("A"), CreateOptions::default()).unwrap();
    append(&held.open("A"), "one", FlagSet::EMPTY).unwrap();
    held
}
#[expect(clippy::disallowed_methods, reason = "what others do")]
fn rename(from: PathBuf, to: PathBuf) -> std::io::Result<()> {
    fs::rename(from, to)
}
/// What the DELETE of the holder with this epoch renames the folder to.
fn deleted(user: &User, epoch: u64) -> PathBuf {
    user.maildir().join(format!("berth-deleted,1000000000.M1N1E{epoch}.node-a"))
}

#[test]
fn folders_that_others_move_are_found_where_they_are() {
    for layout in [Layout::MaildirPlusPlus, Layout::Fs] {
        let mut user = User::new();
        user.layout = layout;
        let folder = |held: &User, name: &str| held.maildir().join(layout.folder(&super::name(name)).unwrap());
        let held = with_a(&mut user);
        held.create(&name("Open"), CreateOptions::default()).unwrap();
        append(&held.open("Open"), "two", FlagSet::EMPTY).unwrap();
        held.close().unwrap();
        let held = user.open(Handover::Clean);
        let open = held.open("Open");
        let validity = open.uid_validity();

        rename(folder(&user, "A"), folder(&user, "B")).unwrap();
        rename(folder(&user, "Open"), folder(&user, "Moved")).unwrap();
        assert!(matches!(held.mailbox(&name("A")), Err(StorageError::NoMailbox(_))), "{layout:?}");
        assert_eq!(names(&held), ["INBOX", "B", "Moved", "Sent"]);
        assert_eq!(subjects(&held.open("B")), texts(&[(1, "one")]));
        assert_eq!((open.name().to_string(), open.uid_validity()), ("Moved".into(), validity), "whoever has it open goes on there");
        append(&open, "three", FlagSet::EMPTY).unwrap();
        assert_eq!(subjects(&open), texts(&[(1, "two"), (2, "three")]));

        fs::remove_dir_all(folder(&user, "Moved")).unwrap();
        assert!(open.refresh(true).unwrap_err().is_not_found());
        held.run_background_work().unwrap();
        assert_eq!((names(&held), open.is_deleted()), (vec!["INBOX".to_owned(), "B".into(), "Sent".into()], true));
        held.create(&name("Moved"), CreateOptions::default()).unwrap();
        assert!(held.open("Moved").read().is_empty());
        held.close().unwrap();
        assert_eq!(subjects(&user.open(Handover::Clean).open("B")), texts(&[(1, "one")]));
    }
}

#[test]
fn a_dead_holders_late_rename_of_a_folder_is_followed() {
    let mut user = User::new();
    user.faulty.pretend_remote();
    let held = with_a(&mut user);
    user.die(held);
    let held = user.open(Handover::Unclean);
    held.run_background_work().unwrap();
    rename(user.maildir().join(".A"), user.maildir().join(".B")).unwrap();
    held.run_background_work().unwrap();
    assert_eq!(names(&held), ["INBOX", "B", "Sent"]);
    assert_eq!(subjects(&held.open("B")), texts(&[(1, "one")]));
}

#[test]
fn a_dead_holders_late_deletion_is_undone() {
    let mut user = User::new();
    user.faulty.pretend_remote();
    let held = with_a(&mut user);
    user.die(held);
    let held = user.open(Handover::Unclean);
    let a = held.open("A");
    append(&a, "acknowledged", FlagSet::EMPTY).unwrap();
    rename(user.maildir().join(".A"), deleted(&user, 1)).unwrap();
    held.run_background_work().unwrap();
    assert_eq!(names(&held), ["INBOX", "A", "Sent"]);
    append(&a, "more", FlagSet::EMPTY).unwrap();
    held.close().unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!(subjects(&held.open("A")), texts(&[(1, "one"), (1025, "acknowledged"), (1026, "more")]));
}

/// A mailbox with others below it loses its `cur` alone, into a folder that the dead holder had made before.
#[test]
fn a_late_deletion_of_a_mailbox_with_children_is_undone() {
    // Found by whoever misses it; by the next holder; before what is deleted is removed.
    for found in ["missed", "next", "emptied"] {
        let mut user = User::new();
        user.layout = Layout::Fs;
        user.faulty.pretend_remote();
        let held = with_a(&mut user);
        held.create(&name("A/child"), CreateOptions::default()).unwrap();
        user.die(held);
        fs::create_dir(deleted(&user, 1)).unwrap();
        let mut held = user.open(Handover::Unclean);
        append(&held.open("A"), "acknowledged", FlagSet::EMPTY).unwrap();
        rename(user.maildir().join("A/cur"), deleted(&user, 1).join("cur")).unwrap();
        match found {
            "next" => {
                held.close().unwrap();
                held = user.open(Handover::Clean);
            }
            "emptied" => held.account.empty_trash(),
            _ => {}
        }
        assert_eq!(subjects(&held.open("A")), texts(&[(1, "one"), (1025, "acknowledged")]), "{found}");
        assert_eq!(names(&held), ["INBOX", "A", "A/child", "Sent"], "{found}");
    }
}

/// Nothing was delivered since: that a later holder had the mailbox is said by its index.
#[test]
fn a_late_deletion_is_undone_by_whoever_finds_it_later() {
    let mut user = User::new();
    let held = with_a(&mut user);
    user.die(held);
    let held = user.open(Handover::Unclean);
    held.open("A").store(&[uid(1)], crate::StoreOperation::Add(FlagSet::of(&[index::Flag::Seen])), None).unwrap();
    user.die(held);
    rename(user.maildir().join(".A"), deleted(&user, 1)).unwrap();
    let held = user.open(Handover::Unclean);
    assert_eq!(held.open("A").read().rows().map(|row| row.flags).collect::<Vec<_>>(), [FlagSet::of(&[index::Flag::Seen])]);
}

/// Two listings, with a rename before the second: what the first one lacks is somewhere.
#[test]
fn no_row_goes_by_a_listing_that_others_rename_under() {
    let mut user = User::new();
    let held = with_a(&mut user);
    rename(user.maildir().join(".A"), user.maildir().join("elsewhere")).unwrap();
    let maildir = user.maildir();
    let mut listings = 0;
    user.faulty.after_listing(move |folder| {
        listings += u32::from(folder == maildir);
        if listings == 2 {
            rename(maildir.join("elsewhere"), maildir.join(".B")).unwrap();
        }
    });
    let error = held.find_folders_again().unwrap_err();
    assert!(error.to_string().contains("being renamed"), "{error}");
    assert_eq!(held.find_folders_again().unwrap(), Some(true));
    assert_eq!(subjects(&held.open("B")), texts(&[(1, "one")]));
}

#[test]
fn a_dead_holders_late_replacement_finds_nothing() {
    let mut user = User::new();
    user.faulty.pretend_remote();
    let held = user.open(Handover::Clean);
    held.set_subscribed(&name("Before"), true).unwrap();
    user.die(held);
    let (inbox, maildir) =
        (user.maildir().join("tmp/1000000000.M1N1E1.node-a"), user.maildir().join("berth-writing,1000000000.M1N2E1.node-a"));
    let held = user.open(Handover::Unclean);
    fs::write(&inbox, "Late\n").unwrap();
    fs::write(&maildir, "Late\n").unwrap();
    held.set_subscribed(&name("After"), true).unwrap();
    assert_eq!((inbox.exists(), maildir.exists()), (false, true), "INBOX's folder has a tmp");
    user.die(held);
    // The Maildir of an INBOX elsewhere has none.
    user.inbox = true;
    let held = user.open(Handover::Unclean);
    fs::write(&maildir, "Late\n").unwrap();
    held.set_subscribed(&name("More"), true).unwrap();
    assert!(!maildir.exists());
}

#[test]
fn a_file_that_took_too_long_replaces_nothing() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    held.set_subscribed(&name("Before"), true).unwrap();
    let file = user.maildir().join("subscriptions");
    let before = fs::read(&file).unwrap();
    let clock = user.clock.clone();
    user.faulty.on_call(2, move || clock.advance(Duration::from_secs(6)));
    assert!(matches!(held.set_subscribed(&name("After"), true), Err(StorageError::LeaseLost(_))));
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// A DELETE hangs until after the deadline; then the folder may be one that the next holder has brought back, or will.
#[test]
fn what_was_deleted_after_the_lease_is_not_emptied() {
    for (layout, child) in [(Layout::MaildirPlusPlus, None), (Layout::Fs, None), (Layout::Fs, Some("A/child"))] {
        let mut user = User::new();
        user.layout = layout;
        let held = with_a(&mut user);
        if let Some(child) = child {
            held.create(&name(child), CreateOptions::default()).unwrap();
        }
        held.run_background_work().unwrap();
        let clock = user.clock.clone();
        user.faulty.on_call(1, move || clock.advance(Duration::from_secs(6)));
        assert!(matches!(held.delete(&name("A")), Err(StorageError::LeaseLost(_))));
        let left = |user: &User| {
            let is_deleted_one =
                |path: &&PathBuf| path.to_string_lossy().contains("berth-deleted,") && path.to_string_lossy().contains("/cur/");
            user.everything().iter().filter(is_deleted_one).count()
        };
        held.run_background_work().unwrap();
        held.account.empty_trash();
        assert_eq!(left(&user), 1, "{layout:?} {child:?}: the message is still there");
        // Nobody held the user meanwhile.
        held.tenure.extend(user.clock.now() + Duration::from_secs(5));
        held.run_background_work().unwrap();
        assert_eq!(left(&user), 0, "{layout:?} {child:?}");
        held.close().unwrap();
    }
}

#[test]
fn what_a_late_deletion_took_from_the_next_holder_is_not_emptied() {
    let mut user = User::new();
    let held = with_a(&mut user);
    user.die(held);
    let held = user.open(Handover::Unclean);
    append(&held.open("A"), "acknowledged", FlagSet::EMPTY).unwrap();
    rename(user.maildir().join(".A"), deleted(&user, 1)).unwrap();
    user.die(held);
    let held = user.open(Handover::Unclean);
    let validity = held.open("A").uid_validity();
    let there = subjects(&held.open("A"));
    assert_eq!(there.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), [message("one"), message("acknowledged")]);
    // Without its row it has no place to come back to.
    rename(user.maildir().join(".A"), deleted(&user, 1)).unwrap();
    user.die(held);
    user.delete_index();
    let held = user.open(Handover::Unclean);
    held.run_background_work().unwrap();
    held.close().unwrap();
    assert_eq!(names(&user.open(Handover::Clean)), ["INBOX", "Sent"]);
    rename(deleted(&user, 1), user.maildir().join(".A")).unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!((held.open("A").uid_validity(), subjects(&held.open("A"))), (validity, there));
    // A deletion that is none of those is carried out to its end, also where epochs were higher before.
    held.delete(&name("A")).unwrap();
    let deleted = user.everything().into_iter().find(|path| path.ends_with("cur") && path.to_string_lossy().contains("berth-deleted"));
    fs::write(deleted.unwrap().join("1000000000.M1N1E500.node-a:2,"), message("of before")).unwrap();
    user.die(held);
    user.open(Handover::Unclean).close().unwrap();
    assert!(!user.everything().iter().any(|path| path.to_string_lossy().contains("berth-deleted")));
}
