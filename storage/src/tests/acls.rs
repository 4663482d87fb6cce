//! ACLs of mailboxes, and what is published of them.

use std::path::{Path, PathBuf};

use affinity::Handover;

use super::*;
use crate::{Acl, AclChange, CreateOptions, Rights, StorageError, shares::SharesFolder};

fn change(held: &Held, mailbox: &str, whom: &str, change: AclChange) {
    held.account.change_acl(&name(mailbox), whom.parse().unwrap(), change).unwrap();
}
fn give(held: &Held, mailbox: &str, whom: &str, letters: &str) {
    change(held, mailbox, whom, AclChange::Replace(Rights::parse(letters).unwrap()));
}
fn acl(held: &Held, mailbox: &str) -> String {
    held.account.acl(&name(mailbox)).unwrap().print()
}
/// What everybody sees, by mailbox.
fn published(root: &Path) -> Vec<String> {
    let all = SharesFolder::new(root).all().unwrap();
    all.iter().flat_map(|(_, shares)| shares.0.iter().map(|(name, acl)| format!("{name}: {}", acl.print()))).collect()
}

#[test]
fn acls_stay_with_their_mailbox_and_are_published() {
    for layout in [Layout::MaildirPlusPlus, Layout::Fs] {
        let mut user = User::new();
        user.layout = layout;
        user.sharing = true;
        let root = user.index().parent().unwrap().to_owned();
        let held = user.open(Handover::Clean);
        let create = |held: &Held, mailbox: &str| {
            held.account.create(&name(mailbox), CreateOptions::default()).unwrap();
        };
        create(&held, "a/b");
        assert_eq!(published(&root), Vec::<String>::new());
        give(&held, "INBOX", "anyone", "l");
        give(&held, "a/b", "bob", "lr");
        change(&held, "a/b", "bob", AclChange::Add(Rights::parse("s").unwrap()));
        give(&held, "Sent", "bob", "lr");
        change(&held, "Sent", "bob", AclChange::Delete);
        held.account.rename(&name("a/b"), &name("c")).unwrap();
        create(&held, "c/d/e");
        give(&held, "a", "eve", "l");
        held.account.delete(&name("a")).unwrap();
        create(&held, "a");
        let check = |held: &Held| {
            assert_eq!(acl(held, "INBOX"), "anyone l\n");
            for shared in ["c", "c/d", "c/d/e"] {
                assert_eq!(acl(held, shared), "user=bob lrs\n", "{shared}");
            }
            for own in ["Sent", "a"] {
                assert_eq!(acl(held, own), "", "{own}");
            }
            let bob = |mailbox: &str| format!("{mailbox}: user=bob lrs\n");
            assert_eq!(published(&root), ["INBOX: anyone l\n".to_owned(), bob("c"), bob("c/d"), bob("c/d/e")]);
        };
        check(&held);
        user.die(held);
        let held = user.open(Handover::Unclean);
        check(&held);
        held.account.close().unwrap();
        drop(held);
        // Neither the index nor what is published is needed to know it.
        std::fs::remove_dir_all(user.index()).unwrap();
        std::fs::remove_dir_all(root.join(crate::shares::FOLDER)).unwrap();
        check(&user.open(Handover::Clean));
    }
}

#[test]
fn what_was_published_wrongly_is_put_right_at_the_next_opening() {
    let mut user = User::new();
    user.sharing = true;
    let root = user.index().parent().unwrap().to_owned();
    let held = user.open(Handover::Clean);
    give(&held, "Sent", "bob", "lr");
    let inbox = user.maildir();
    held.account.close().unwrap();
    drop(held);
    // As if the holder had died between the file and what says so.
    std::fs::write(inbox.join(".Sent/dovecot-acl"), "user=bob l\n").unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!(published(&root), ["Sent: user=bob l\n"]);
    held.account.close().unwrap();
    drop(held);
    std::fs::remove_file(inbox.join(".Sent/dovecot-acl")).unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!((published(&root), acl(&held, "Sent")), (vec![], String::new()));
}

#[test]
fn a_holder_that_dies_between_a_rename_and_its_publishing_ends_no_sharing() {
    let mut user = User::new();
    user.sharing = true;
    let root = user.index().parent().unwrap().to_owned();
    let held = user.open(Handover::Clean);
    give(&held, "Sent", "bob", "lr");
    held.account.create(&name("Sent/Old"), CreateOptions::default()).unwrap();
    let sharing = root.join(crate::shares::FOLDER);
    let contents = |folder: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    };
    let before = contents(&sharing);
    held.account.rename(&name("Sent"), &name("Gone")).unwrap();
    user.die(held);
    // The rename is in the index, what is published is as it was.
    contents(&sharing).iter().for_each(|(path, _)| std::fs::remove_file(path).unwrap());
    before.iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
    assert_eq!(published(&root), ["Sent: user=bob lr\n", "Sent/Old: user=bob lr\n"]);
    let _held = user.open(Handover::Unclean);
    assert_eq!(published(&root), ["Gone: user=bob lr\n", "Gone/Old: user=bob lr\n"]);
}

#[test]
fn a_broken_acl_gives_nobody_anything() {
    let mut user = User::new();
    user.sharing = true;
    let root = user.index().parent().unwrap().to_owned();
    let held = user.open(Handover::Clean);
    give(&held, "Sent", "bob", "lr");
    give(&held, "INBOX", "bob", "l");
    let file = user.maildir().join(".Sent/dovecot-acl");
    held.account.close().unwrap();
    drop(held);
    std::fs::write(&file, "user=bob lr\nsomebody lr\n").unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!(published(&root), ["INBOX: user=bob l\n", "Sent: "]);
    assert!(held.account.acl(&name("Sent")).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "user=bob lr\nsomebody lr\n");
    // Mended, it counts from the next opening on.
    held.account.close().unwrap();
    drop(held);
    std::fs::write(&file, "user=bob lr\n").unwrap();
    let held = user.open(Handover::Clean);
    assert_eq!((acl(&held, "Sent"), published(&root).len()), ("user=bob lr\n".to_owned(), 2));
}

#[test]
fn nothing_is_shared_where_that_is_not_set() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let refused = held.account.change_acl(&MailboxName::inbox(), "bob".parse().unwrap(), AclChange::Replace(Rights::ALL));
    assert!(matches!(refused, Err(StorageError::NotAllowed(_))), "{refused:?}");
    assert_eq!(held.account.acl(&MailboxName::inbox()).unwrap().as_ref(), &Acl::default());
}
