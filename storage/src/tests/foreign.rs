//! Other programs write to the same Maildir.

use affinity::Handover;
use index::{Flag, FlagSet};

use super::*;
use crate::StoreOperation;

/// A user whose inbox has these files already, made by another program.
fn adopted(files: &[(&str, &str)]) -> User {
    let user = User::new();
    for folder in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(user.maildir().join(folder)).unwrap();
    }
    for (file, content) in files {
        std::fs::write(user.maildir().join(file), content).unwrap();
    }
    user
}

#[test]
fn an_existing_maildir_is_taken_over_in_place() {
    let mut user = adopted(&[
        ("cur/1000000001.M1P1.host,S=22:2,FSa", "Subject: a\n\nb\nc\n"),
        ("new/1000000002.M1P2.host", "Subject: new\r\n\r\nx\r\n"),
        ("dovecot-keywords", "0 todo\n"),
        ("subscriptions", "INBOX\n"),
    ]);
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    assert_eq!(*inbox.keywords(), ["todo"]);
    let flags = inbox.read().get(uid(1)).unwrap().flags;
    assert!(flags.contains(Flag::Flagged) && flags.contains(Flag::Seen) && flags.keywords().count() == 1);
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_all().unwrap(), b"Subject: a\r\n\r\nb\r\nc\r\n", "line ends are repaired");
    assert_eq!(inbox.read().get(uid(1)).unwrap().size, 20);
    let mut part = [0; 5];
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_at(9, &mut part).unwrap(), 5);
    assert_eq!(&part, b"a\r\n\r\n");
    let before = picture(&inbox);
    held.close().unwrap();
    assert!(user.files("").iter().all(|file| file.starts_with("cur/") && file.contains(",U=")), "{:?}", user.files(""));
    user.delete_index();
    let held = user.open(Handover::Clean);
    assert_eq!(picture(&held.inbox()), before);
}

#[test]
fn new_mail_of_another_program_is_noticed() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    std::fs::write(user.maildir().join("new/1000000000.x.host"), "Subject: hi\r\n\r\n").unwrap();
    let changes = inbox.changes();
    inbox.refresh(false).unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(inbox.read().uids(), [uid(1), uid(2)]);
    held.run_background_work().unwrap();
    assert!(user.files("").iter().any(|file| file.starts_with("cur/") && file.contains(",U=2,")), "{:?}", user.files(""));
    inbox.refresh(true).unwrap();
    assert_eq!(inbox.read().uids(), [uid(1), uid(2)]);
}

#[test]
fn flags_and_removals_of_another_program_are_noticed() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for subject in ["one", "two"] {
        append(&inbox, subject, FlagSet::EMPTY).unwrap();
    }
    let before = inbox.read().highest_modseq().get();
    let files = user.files("");
    let first = files.iter().find(|file| file.contains("U=1:")).unwrap();
    let second = files.iter().find(|file| file.contains("U=2:")).unwrap();
    #[expect(clippy::disallowed_methods, reason = "this is the other program")]
    std::fs::rename(user.maildir().join(first), user.maildir().join(format!("{first}RS"))).unwrap();
    std::fs::remove_file(user.maildir().join(second)).unwrap();
    inbox.refresh(true).unwrap();
    let row = inbox.read().get(uid(1)).unwrap();
    assert_eq!(row.flags, FlagSet::of(&[Flag::Answered, Flag::Seen]));
    assert!(row.modseq.get() > before);
    assert_eq!(inbox.read().len(), 1);
    assert_eq!(inbox.expunged_since(before).unwrap(), Some(vec![uid(2)]));
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_all().unwrap(), message("one"));
}

#[test]
fn a_message_is_found_though_another_program_just_renamed_it() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    let file = user.files("").remove(0);
    #[expect(clippy::disallowed_methods, reason = "this is the other program")]
    std::fs::rename(user.maildir().join(&file), user.maildir().join(format!("{file}S"))).unwrap();
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_all().unwrap(), message("one"));
    // And so is its file when it is to be removed.
    let file = user.files("").remove(0);
    #[expect(clippy::disallowed_methods, reason = "this is the other program")]
    std::fs::rename(user.maildir().join(&file), user.maildir().join(file.replace(":2,S", ":2,F"))).unwrap();
    inbox.remove(&[uid(1)]).unwrap();
    held.run_background_work().unwrap();
    assert!(user.files("").is_empty());
}

#[test]
fn a_strange_file_that_claims_a_uid_gets_another() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    for claimed in [1, 2, 900] {
        std::fs::write(user.maildir().join(format!("cur/5.x{claimed}.host,S=3,W=3,U={claimed}:2,")), "a\r\n").unwrap();
    }
    inbox.refresh(true).unwrap();
    assert_eq!(inbox.read().uids().iter().map(|uid| uid.get()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_all().unwrap(), message("one"));
}

#[test]
fn files_in_tmp_are_removed_after_36_hours() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    let tmp = user.maildir().join("tmp");
    let now = affinity::clock::wall_clock();
    for (file, hours) in [("old", 37), ("young", 35)] {
        std::fs::write(tmp.join(file), "x").unwrap();
        let written = std::fs::File::options().append(true).open(tmp.join(file)).unwrap();
        written.set_modified(now - Duration::from_secs(hours * 3600)).unwrap();
    }
    held.run_background_work().unwrap();
    assert!(!tmp.join("old").exists() && tmp.join("young").exists());
    drop(inbox);
}

#[test]
fn many_mailboxes_are_taken_over_and_counted_together() {
    let mut user = adopted(&[]);
    for number in 0..300 {
        let folder = user.maildir().join(format!(".m{number:03}"));
        for sub in ["cur", "new", "tmp"] {
            std::fs::create_dir_all(folder.join(sub)).unwrap();
        }
        let info = if number % 3 == 0 { ":2,S" } else { ":2," };
        std::fs::write(folder.join(format!("cur/1000000001.M1P1.host,S=15,W=15{info}")), "Subject: a\r\n\r\nb").unwrap();
    }
    let held = user.open(Handover::Clean);
    let names: Vec<MailboxName> = (0..300).map(|number| name(&format!("m{number:03}"))).chain([name("absent")]).collect();
    let mut statuses = held.statuses(&names, true).unwrap();
    assert!(matches!(statuses.pop(), Some(Err(StorageError::NoMailbox(_)))));
    let statuses: Vec<crate::Status> = statuses.into_iter().collect::<Result<_, _>>().unwrap();
    assert!(statuses.iter().all(|status| (status.messages, status.uid_next, status.recent, status.size) == (1, 2, 0, 15)));
    assert_eq!(statuses.iter().filter(|status| status.unseen == 0).count(), 100);
    let validities: std::collections::BTreeSet<_> = statuses.iter().map(|status| status.uid_validity).collect();
    assert_eq!(validities.len(), 300, "each has its own");
    held.run_background_work().unwrap();
    assert!(user.files(".m007")[0].contains(",U=1,"), "{:?}", user.files(".m007"));
    held.unload(Duration::ZERO);
    assert_eq!(held.statuses(&names[..300], false).unwrap().into_iter().map(Result::unwrap).collect::<Vec<_>>(), statuses);
    held.close().unwrap();
}

#[test]
fn a_message_that_comes_while_the_folder_is_listed_stays() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "first", FlagSet::EMPTY).unwrap();
    let target = Arc::clone(&inbox);
    user.faulty.after_listing(move |folder| {
        if folder.ends_with("cur") {
            append(&target, "meanwhile", FlagSet::EMPTY).unwrap();
        }
    });
    inbox.refresh(true).unwrap();
    let there = inbox.read().uids().len();
    assert_eq!(there, user.files("").len(), "acknowledged messages are shown");
    assert!(there > 1, "nothing came while it was listed");
}

#[test]
fn a_clients_flags_win_over_those_that_were_listed_before() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    held.run_background_work().unwrap();
    let file = user.files("").remove(0);
    #[expect(clippy::disallowed_methods, reason = "this is the other program")]
    std::fs::rename(user.maildir().join(&file), user.maildir().join(format!("{file}S"))).unwrap();
    let new = user.maildir().join("new/1000000000.x.host");
    std::fs::write(&new, "Subject: hi\r\n\r\n").unwrap();
    let (target, answered) = (Arc::clone(&inbox), FlagSet::of(&[Flag::Answered]));
    // That is after the listing.
    user.faulty.before_look(new, move || {
        target.store(&[uid(1)], StoreOperation::Replace(answered), None).unwrap();
    });
    inbox.refresh(true).unwrap();
    let flags = |inbox: &Mailbox| inbox.read().get(uid(1)).unwrap().flags;
    assert_eq!((flags(&inbox), inbox.read().len()), (answered, 2));
    held.close().unwrap();
    assert!(user.files("").iter().any(|file| file.ends_with("U=1:2,R")), "{:?}", user.files(""));
    user.delete_index();
    assert_eq!(flags(&user.open(Handover::Clean).inbox()), answered);
}
