//! Annotations of mailboxes and of the account (METADATA, RFC 5464).

use affinity::Handover;
use index::FlagSet;

use super::*;
use crate::{ANNOTATION_BYTES_MAX, ANNOTATIONS_MAX, Annotated, CreateOptions};

fn set(held: &Held, mailbox: Option<&str>, entry: &str, value: Option<&[u8]>) -> Annotated {
    let mailbox = mailbox.map(name);
    held.account.annotate(mailbox.as_ref(), &[(entry.to_owned(), value.map(<[u8]>::to_vec))]).unwrap()
}
fn get(held: &Held, mailbox: Option<&str>, entry: &str) -> Option<Vec<u8>> {
    held.account.annotations(mailbox.map(name).as_ref()).unwrap().get(entry).map(<[u8]>::to_vec)
}

#[test]
fn annotations_stay_with_their_mailbox() {
    for layout in [Layout::MaildirPlusPlus, Layout::Fs] {
        let mut user = User::new();
        user.layout = layout;
        let held = user.open(Handover::Clean);
        held.account.create(&name("a/b"), CreateOptions::default()).unwrap();
        let all_bytes: Vec<u8> = (0..=255).collect();
        set(&held, None, "/private/vendor/x/y", Some(b"account"));
        set(&held, Some("INBOX"), "/private/comment", Some(b"inbox"));
        set(&held, Some("a/b"), "/Shared/Comment", Some(&all_bytes));
        set(&held, Some("a/b"), "/private/comment", Some(b""));
        set(&held, Some("a"), "/private/comment", Some(b"a"));
        let large = vec![b'x'; ANNOTATION_BYTES_MAX];
        set(&held, Some("Sent"), "/private/comment", Some(&large));
        set(&held, Some("Sent"), "/private/gone", Some(b"x"));
        set(&held, Some("Sent"), "/private/gone", None);
        held.account.rename(&name("a/b"), &name("c")).unwrap();
        append(&held.inbox(), "x", FlagSet::EMPTY).unwrap();
        held.account.rename(&MailboxName::inbox(), &name("old")).unwrap();
        let check = |held: &Held| {
            assert_eq!(get(held, None, "/private/vendor/x/y").as_deref(), Some(&b"account"[..]));
            assert_eq!(get(held, Some("INBOX"), "/private/comment").as_deref(), Some(&b"inbox"[..]));
            assert_eq!(get(held, Some("old"), "/private/comment").as_deref(), Some(&b"inbox"[..]));
            assert_eq!(get(held, Some("c"), "/SHARED/comment").as_ref(), Some(&all_bytes));
            assert_eq!(get(held, Some("c"), "/private/comment").as_deref(), Some(&b""[..]));
            assert_eq!(get(held, Some("Sent"), "/private/comment").as_ref(), Some(&large));
            assert_eq!(get(held, Some("Sent"), "/private/gone"), None);
        };
        check(&held);
        user.die(held);
        let held = user.open(Handover::Unclean);
        check(&held);
        assert_eq!(get(&held, Some("a"), "/private/comment").as_deref(), Some(&b"a"[..]));
        for mailbox in ["a", "c"] {
            held.account.delete(&name(mailbox)).unwrap();
            assert!(matches!(held.account.annotations(Some(&name(mailbox))), Err(StorageError::NoMailbox(_))));
            held.account.create(&name(mailbox), CreateOptions::default()).unwrap();
            assert_eq!(held.account.annotations(Some(&name(mailbox))).unwrap().iter().count(), 0, "{mailbox}");
        }
        set(&held, Some("c"), "/shared/comment", Some(&all_bytes));
        set(&held, Some("c"), "/private/comment", Some(b""));
        held.close().unwrap();
        user.delete_index();
        check(&user.open(Handover::Clean));
    }
}

#[test]
fn too_many_or_too_large_annotations_change_nothing() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let many: Vec<_> = (0..ANNOTATIONS_MAX).map(|number| (format!("/private/{number}"), Some(b"x".to_vec()))).collect();
    assert_eq!(held.account.annotate(None, &many).unwrap(), Annotated::Done);
    let changes = [("/private/0".to_owned(), Some(b"changed".to_vec())), ("/private/more".to_owned(), Some(b"x".to_vec()))];
    assert_eq!(held.account.annotate(None, &changes).unwrap(), Annotated::TooMany);
    assert_eq!(get(&held, None, "/private/0").as_deref(), Some(&b"x"[..]));
    assert_eq!(set(&held, None, "/private/0", Some(b"changed")), Annotated::Done);
    let large: Vec<_> = (0..9).map(|number| (format!("/private/{number}"), Some(vec![0; ANNOTATION_BYTES_MAX]))).collect();
    assert_eq!(held.account.annotate(Some(&name("Sent")), &large).unwrap(), Annotated::TooMany);
    assert_eq!(held.account.annotations(Some(&name("Sent"))).unwrap().iter().count(), 0);
}

#[test]
fn a_broken_file_of_annotations_is_said_and_kept() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let file = user.maildir().join("berth-metadata");
    std::fs::write(&file, "berth-metadata 1\n/private/comment 90\nshort\n").unwrap();
    let inbox = MailboxName::inbox();
    assert!(held.account.annotations(Some(&inbox)).unwrap_err().to_string().contains("restore it from a backup"));
    assert!(held.account.annotate(Some(&inbox), &[("/private/x".to_owned(), Some(Vec::new()))]).is_err());
    assert!(std::fs::read_to_string(&file).unwrap().contains("short"));
}

#[test]
fn an_annotation_that_could_not_be_written_is_not_there() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    set(&held, None, "/private/comment", Some(b"old"));
    held.tenure.end();
    assert!(held.account.annotate(None, &[("/private/comment".to_owned(), Some(b"new".to_vec()))]).is_err());
    held.account.abandon();
    assert_eq!(get(&user.open(Handover::Unclean), None, "/private/comment").as_deref(), Some(&b"old"[..]));
}
