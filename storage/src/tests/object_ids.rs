//! EMAILID and MAILBOXID (RFC 8474) stay.

use std::collections::{BTreeMap, HashSet};

use affinity::Handover;
use index::FlagSet;

use super::{
    adopted::{courier, dovecot},
    *,
};
use crate::{CreateOptions, EmailId};

fn ids(mailbox: &Mailbox) -> BTreeMap<u32, EmailId> {
    let columns = mailbox.read();
    columns.uids().iter().enumerate().map(|(position, uid)| (uid.get(), columns.email_id(position))).collect()
}

#[test]
fn a_message_keeps_its_id_wherever_it_goes() {
    for mut user in [User::new(), dovecot(), courier()] {
        let held = user.open(Handover::Clean);
        held.account.create(&name("Elsewhere"), CreateOptions::default()).unwrap();
        let (inbox, elsewhere) = (held.inbox(), held.open("Elsewhere"));
        for subject in ["one", "two", "two"] {
            append(&inbox, subject, FlagSet::EMPTY).unwrap();
        }
        let before = ids(&inbox);
        let different: HashSet<EmailId> = before.values().copied().collect();
        assert_eq!(different.len(), before.len());
        let uids: Vec<Uid> = before.keys().map(|number| uid(*number)).collect();
        let matching = |pairs: &[(Uid, Uid)], from: &BTreeMap<u32, EmailId>, to: &Mailbox| {
            let to = ids(to);
            assert_eq!(pairs.len(), from.len());
            assert!(pairs.iter().all(|(old, new)| from[&old.get()] == to[&new.get()]), "{from:?} {to:?}");
        };
        let copied = inbox.copy_to(&uids, &elsewhere).unwrap();
        matching(&copied.pairs, &before, &elsewhere);
        let within = inbox.copy_to(&uids, &inbox).unwrap();
        matching(&within.pairs, &before, &inbox);
        inbox.remove(&within.pairs.iter().map(|(_, new)| *new).collect::<Vec<_>>()).unwrap();
        let copies = ids(&elsewhere);
        held.account.create(&name("Third"), CreateOptions::default()).unwrap();
        let third = held.open("Third");
        let moved = elsewhere.move_to(&copies.keys().map(|number| uid(*number)).collect::<Vec<_>>(), &third).unwrap();
        matching(&moved.pairs, &copies, &third);
        held.account.rename(&name("Third"), &name("Renamed")).unwrap();
        let moved = ids(&third);
        drop((inbox, elsewhere, third));
        for without_index in [false, true, true] {
            held_again(&mut user, without_index, &before, &moved);
        }
    }
}

/// Whoever comes next finds the same; what other programs brought was renamed meanwhile.
fn held_again(user: &mut User, without_index: bool, inbox: &BTreeMap<u32, EmailId>, renamed: &BTreeMap<u32, EmailId>) {
    if without_index {
        user.delete_index();
    }
    let held = user.open(Handover::Clean);
    assert_eq!((&ids(&held.inbox()), &ids(&held.open("Renamed"))), (inbox, renamed), "without index: {without_index}");
    held.close().unwrap();
}

#[test]
fn a_mailbox_keeps_its_id_and_leaves_it_to_no_other() {
    for mut user in [User::new(), dovecot(), courier()] {
        let held = user.open(Handover::Clean);
        let validity = held.account.create(&name("Work/2026"), CreateOptions::default()).unwrap();
        let id = held.open("Work/2026").object_id().unwrap();
        assert_eq!(*id, crate::mailbox_object_id(validity), "what CREATE said");
        held.account.rename(&name("Work"), &name("Old")).unwrap();
        assert_eq!(held.open("Old/2026").object_id().unwrap(), id);
        held.account.create(&name("Work/2026"), CreateOptions::default()).unwrap();
        held.account.delete(&name("Old/2026")).unwrap();
        held.account.create(&name("Old/2026"), CreateOptions::default()).unwrap();
        let picture = |held: &Held| -> BTreeMap<MailboxName, Arc<str>> {
            let names: Vec<_> = held.list().unwrap().into_iter().filter(|entry| entry.selectable).map(|entry| entry.name).collect();
            let ids = held.account.object_ids(&names).unwrap().into_iter().map(Result::unwrap);
            names.into_iter().zip(ids).collect()
        };
        let before = picture(&held);
        let different: HashSet<&Arc<str>> = before.values().collect();
        assert!(different.len() == before.len() && !different.contains(&id), "{before:?}");
        held.close().unwrap();
        for _ in 0..2 {
            user.delete_index();
            let held = user.open(Handover::Clean);
            assert_eq!(picture(&held), before);
            held.close().unwrap();
        }
    }
}

#[test]
fn the_id_that_dovecot_gave_is_kept_and_a_copied_folder_gets_another() {
    let mut user = dovecot();
    let copy = user.maildir().join(".Copy");
    for folder in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(copy.join(folder)).unwrap();
    }
    std::fs::copy(user.maildir().join("dovecot-uidlist"), copy.join("dovecot-uidlist")).unwrap();
    let held = user.open(Handover::Clean);
    let ids = ["INBOX", "Copy"].map(|mailbox| held.open(mailbox).object_id().unwrap());
    assert!(ids.contains(&"Fabc".into()) && ids[0] != ids[1], "{ids:?}");
}
