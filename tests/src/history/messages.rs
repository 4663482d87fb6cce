//! Every acknowledged message is there once, or somebody expunged it.
//!
//! Messages are counted by Message-ID over all mailboxes of a user: APPEND, LMTP and COPY make one, EXPUNGE takes one away, MOVE changes nothing.
//! Where the outcome of a request is unknown, both counts are allowed. Beside that, whatever has a UID that was told is looked up by it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Final, Key, Micros, OfUser, Operation, Request, Violation};

const THERE: &str = "an acknowledged message is there";
const ONCE: &str = "an acknowledged message is there once";
const GONE: &str = "an expunged message stays gone";
const KNOWN: &str = "only what was sent is there, as it was sent";
const SAME: &str = "every reader sees the same mail";

/// What is known about one message.
#[derive(Default)]
struct Account<'a> {
    operations: Vec<&'a Operation>,
    /// Copies that were acknowledged.
    made: usize,
    /// Copies that may have been made beside.
    perhaps_made: usize,
    /// Copies that may have been expunged, by key.
    perhaps_expunged: BTreeSet<Key>,
    /// Copies whose EXPUNGE was acknowledged.
    expunged: BTreeSet<Key>,
    /// Copies that may have been moved: they are not under that key any more when it is expunged.
    perhaps_moved: BTreeSet<Key>,
    /// Copies that were put, or may have been put, into a mailbox that may have been deleted.
    perhaps_deleted: usize,
}

pub(super) fn check(history: &OfUser<'_>) -> Vec<Violation> {
    let mut violations = same_for_all(history);
    if history.finals.is_empty() {
        return violations;
    }
    let present = history.final_messages();
    let deleted = deletions(history);
    violations.extend(told_uids(history, &present, &deleted));
    violations.extend(counts(history, &present, &deleted));
    violations
}

/// Mailboxes that may have been deleted, by every name they may have had: when nothing can be put into them any more.
fn deletions<'a>(history: &OfUser<'a>) -> BTreeMap<&'a str, Micros> {
    let mut deleted: BTreeMap<&str, Micros> = BTreeMap::new();
    for one in history.operations.iter().rev().filter(|one| one.may_be_done()) {
        match &one.request {
            Request::Delete { mailbox } => drop(deleted.insert(mailbox, one.over())),
            Request::Rename { from, to } => {
                if let Some(over) = deleted.get(to.as_str()).copied() {
                    deleted.insert(from, over);
                }
            }
            _ => {}
        }
    }
    deleted
}

fn told_uids(history: &OfUser<'_>, present: &BTreeMap<Key, (&str, &super::Message)>, deleted: &BTreeMap<&str, Micros>) -> Vec<Violation> {
    // Who may have taken away what.
    let mut takers: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
    for one in history.operations.iter().filter(|one| one.may_be_done()) {
        if let Request::Expunge { validity, targets } | Request::Move { validity, targets, .. } = &one.request {
            for uid in targets.keys() {
                takers.entry((*validity, *uid)).or_default().push(one);
            }
        }
    }
    let mut violations = Vec::new();
    for one in &history.operations {
        let to = match &one.request {
            Request::Append { mailbox: to, .. } | Request::Copy { to, .. } | Request::Move { to, .. } => to.as_str(),
            _ => continue,
        };
        if deleted.get(to).is_some_and(|over| *over >= one.sent) {
            continue;
        }
        for placed in one.placed() {
            let taken = takers.get(&placed.key).is_some_and(|takers| takers.iter().any(|taker| taker.over() >= one.sent));
            if !taken && !present.contains_key(&placed.key) {
                let what = format!(
                    "{} was put into {to} as UID {} under UIDVALIDITY {}, nobody expunged it, and it is not there",
                    placed.message, placed.key.1, placed.key.0
                );
                violations.push(history.violation(THERE, what, about(history, placed.message)));
            }
        }
    }
    for (key, takers) in takers {
        let Some((mailbox, message)) = present.get(&key) else { continue };
        for taker in takers.iter().filter(|taker| taker.is_done()) {
            // MOVE tells which of its messages it moved; the others were gone already.
            let moved = taker.placed().iter().any(|placed| placed.from == Some(key));
            if matches!(taker.request, Request::Expunge { .. }) || moved {
                let what = format!("{} was taken away from {mailbox} (UID {}), and is there again", message.id, key.1);
                violations.push(history.violation(GONE, what, about(history, &message.id)));
            }
        }
    }
    violations
}

fn counts(history: &OfUser<'_>, present: &BTreeMap<Key, (&str, &super::Message)>, deleted: &BTreeMap<&str, Micros>) -> Vec<Violation> {
    let mut there: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((_, uid), (mailbox, message)) in present {
        there.entry(message.id.as_str()).or_default().push(format!("{mailbox}:{uid}"));
    }
    let accounts = accounts(history, deleted);
    let mut violations = Vec::new();
    for (id, places) in &there {
        if !accounts.contains_key(id) {
            violations.push(history.violation(KNOWN, format!("{id} at {} was never sent like this", places.join(", ")), []));
        }
    }
    for (id, account) in &accounts {
        let places = there.get(id).map_or(&[][..], Vec::as_slice);
        let operations = || account.operations.iter().map(|one| one.id);
        let least = account.made.saturating_sub(account.perhaps_expunged.len() + account.perhaps_deleted);
        if places.len() < least {
            let what = format!("{id} should be there {least} times at least, it is there {} times ({})", places.len(), places.join(", "));
            violations.push(history.violation(THERE, what, operations()));
        }
        let most = (account.made + account.perhaps_made).saturating_sub(account.expunged.difference(&account.perhaps_moved).count());
        if places.len() > most {
            let what = format!("{id} should be there {most} times at most, it is there {} times ({})", places.len(), places.join(", "));
            violations.push(history.violation(ONCE, what, operations()));
        }
    }
    violations
}

fn accounts<'a>(history: &OfUser<'a>, deleted: &BTreeMap<&str, Micros>) -> BTreeMap<&'a str, Account<'a>> {
    let mut accounts: BTreeMap<&str, Account<'_>> = BTreeMap::new();
    for &one in history.operations.iter().filter(|one| one.may_be_done()) {
        let into_deleted = |to: &str| usize::from(deleted.get(to).is_some_and(|over| *over >= one.sent));
        match &one.request {
            Request::Deliver { message } => {
                let account = accounts.entry(message).or_default();
                account.operations.push(one);
                account.made += usize::from(one.is_done());
                account.perhaps_made += usize::from(!one.is_done()) + usize::from(history.carried_out_again.contains(&one.tag));
            }
            Request::Append { mailbox, message, .. } => {
                let account = accounts.entry(message).or_default();
                account.operations.push(one);
                account.made += usize::from(one.is_done());
                account.perhaps_made += usize::from(!one.is_done());
                account.perhaps_deleted += into_deleted(mailbox);
            }
            Request::Copy { validity, targets, to } | Request::Move { validity, targets, to } => {
                let placed = one.placed();
                let copies = matches!(one.request, Request::Copy { .. });
                for (uid, message) in targets {
                    let account = accounts.entry(message).or_default();
                    account.operations.push(one);
                    let told = placed.iter().any(|placed| placed.from.is_some_and(|from| from.1 == *uid));
                    account.made += usize::from(told && copies);
                    account.perhaps_made += usize::from(!one.is_done());
                    account.perhaps_deleted += into_deleted(to);
                    if !copies {
                        account.perhaps_moved.insert((*validity, *uid));
                    }
                }
            }
            Request::Expunge { validity, targets } => {
                for (uid, message) in targets {
                    let account = accounts.entry(message).or_default();
                    account.operations.push(one);
                    account.perhaps_expunged.insert((*validity, *uid));
                    if one.is_done() {
                        account.expunged.insert((*validity, *uid));
                    }
                }
            }
            Request::Store { .. } | Request::Create { .. } | Request::Delete { .. } | Request::Rename { .. } | Request::Look { .. } => {}
        }
    }
    // What was never made cannot have been looked at either: an account needs a maker.
    accounts.retain(|_, account| account.made + account.perhaps_made > 0);
    accounts
}

fn about<'a>(history: &'a OfUser<'_>, id: &'a str) -> impl Iterator<Item = usize> + 'a {
    let names = move |one: &Operation| match &one.request {
        Request::Deliver { message } | Request::Append { message, .. } => message == id,
        Request::Store { targets, .. }
        | Request::Copy { targets, .. }
        | Request::Move { targets, .. }
        | Request::Expunge { targets, .. } => targets.values().any(|target| target == id),
        _ => false,
    };
    history.operations.iter().filter(move |one| names(one)).map(|one| one.id)
}

/// All readers of the end against the first of them.
fn same_for_all(history: &OfUser<'_>) -> Vec<Violation> {
    let Some((first, others)) = history.finals.split_first() else { return Vec::new() };
    let mut violations = Vec::new();
    for other in others {
        let late = came_late(history, first, other);
        let (a, b) = if other.without_uids { (ids(first), ids(other)) } else { (exact(first, &late), exact(other, &late)) };
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).take(10).cloned().collect::<Vec<_>>().join("; ");
        if a != b {
            let what = format!("only {} sees: {}. Only {} sees: {}", first.by, only(&a, &b), other.by, only(&b, &a));
            violations.push(history.violation(SAME, what, []));
        }
    }
    violations
}

/// A CREATE without an answer may be carried out by a lost host when it is back: whoever opens the account after that finds one more mailbox, without mail.
fn came_late<'a>(history: &OfUser<'_>, first: &Final, other: &'a Final) -> BTreeSet<&'a str> {
    let without_answer = |name: &str| {
        let is_create = |one: &Operation| matches!(&one.request, Request::Create { mailbox } if mailbox == name);
        history.operations.iter().any(|one| is_create(one) && one.has_no_answer())
    };
    let late = other.mailboxes.iter().filter(|(name, mailbox)| mailbox.messages.is_empty() && !first.mailboxes.contains_key(name.as_str()));
    late.map(|(name, _)| name.as_str()).filter(|name| without_answer(name)).collect()
}

fn exact(read: &Final, late: &BTreeSet<&str>) -> BTreeSet<String> {
    let messages = read.mailboxes.iter().filter(|(name, _)| !late.contains(name.as_str())).flat_map(|(name, mailbox)| {
        let head = format!("{name} UIDVALIDITY {}", mailbox.uid_validity);
        let message = {
            let head = head.clone();
            move |(uid, message): (&u32, &super::Message)| format!("{head} UID {uid} {} {:?}", message.id, message.flags)
        };
        std::iter::once(head).chain(mailbox.messages.iter().map(message))
    });
    messages.collect()
}

/// Without UIDs, equal messages in one mailbox are numbered.
fn ids(read: &Final) -> BTreeSet<String> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (name, mailbox) in &read.mailboxes {
        for message in mailbox.messages.values() {
            *seen.entry((name, &message.id)).or_default() += 1;
        }
    }
    seen.into_iter().map(|((name, id), count)| format!("{name} {id} ({count})")).collect()
}
