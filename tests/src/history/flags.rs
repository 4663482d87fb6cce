//! Flags are what some order of the acknowledged changes gives.
//!
//! Each flag of each message is a register of its own: set and cleared by requests that take effect at some moment between being sent and being answered
//! (or at any later moment, or never, where no answer came). What somebody saw must be explained by one request that no acknowledged later one undid.

use std::collections::{BTreeMap, BTreeSet};

use super::{Key, Micros, OfUser, Operation, Request, Violation};

const FLAGS: &str = "flags are what some order of the acknowledged changes gives";

/// One request that sets or clears a flag of a message.
#[derive(Clone, Copy)]
struct Write {
    value: bool,
    sent: Micros,
    /// When it has taken effect for certain; `Micros::MAX`: perhaps never.
    over: Micros,
    acknowledged: bool,
    operation: usize,
}

/// What a flag may have been when the message came to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Initial {
    Exactly(bool),
    Anything,
}

pub(super) fn check(history: &OfUser<'_>) -> Vec<Violation> {
    let mut writes: BTreeMap<(Key, &str), Vec<Write>> = BTreeMap::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for one in history.operations.iter().filter(|one| one.may_be_done()) {
        let Request::Store { validity, targets, add, flag } = &one.request else { continue };
        names.insert(flag);
        for uid in targets.keys() {
            let write = Write { value: *add, sent: one.sent, over: one.over(), acknowledged: one.is_done(), operation: one.id };
            writes.entry(((*validity, *uid), flag)).or_default().push(write);
        }
    }
    let looks = history.looks();
    let origins = Origins::of(history);
    for look in &looks {
        names.extend(look.mailbox.messages.values().flat_map(|message| message.flags.iter().map(String::as_str)));
    }
    let mut violations = Vec::new();
    for look in &looks {
        for (uid, message) in &look.mailbox.messages {
            let key = (look.mailbox.uid_validity, *uid);
            for name in &names {
                let seen = message.flags.contains(*name);
                let of = writes.get(&(key, *name)).map_or(&[][..], Vec::as_slice);
                let initial = origins.initial(key, name, &message.id, &writes, 0);
                if !explained(seen, look.sent, look.ended, of, initial) {
                    let is = if seen { "set" } else { "not set" };
                    let what = format!(
                        "{} of {} (UID {uid} of {}, UIDVALIDITY {}) is {is} to {}, which no order of the changes gives",
                        name, message.id, look.name, key.0, look.by
                    );
                    let operations = of.iter().map(|write| write.operation).chain(look.operation);
                    violations.push(history.violation(FLAGS, what, operations));
                }
            }
        }
    }
    violations
}

/// Whether a reader that asked at `sent` and had its answer at `ended` may have seen `value`.
fn explained(value: bool, sent: Micros, ended: Micros, writes: &[Write], initial: Initial) -> bool {
    // Undone: an acknowledged opposite change began after `over`, and was over before the reader asked.
    let undone =
        |over: Micros| writes.iter().any(|other| other.acknowledged && other.value != value && other.sent > over && other.over < sent);
    let initially = initial == Initial::Anything || initial == Initial::Exactly(value);
    let from_start = initially && !writes.iter().any(|other| other.acknowledged && other.value != value && other.over < sent);
    from_start || writes.iter().any(|write| write.value == value && write.sent < ended && !undone(write.over))
}

/// Where messages came from, for the flags they came with.
struct Origins<'a> {
    appended: BTreeMap<Key, &'a BTreeSet<String>>,
    copied: BTreeMap<Key, (Key, &'a Operation)>,
    /// Messages with a request of unknown outcome that may have made another copy of them, with any flags.
    uncertain: BTreeSet<&'a str>,
}

/// A copy of a copy of a copy …: longer chains are taken for anything.
const CHAIN_MAX: usize = 20;

impl<'a> Origins<'a> {
    fn of(history: &OfUser<'a>) -> Origins<'a> {
        let mut origins = Origins { appended: BTreeMap::new(), copied: BTreeMap::new(), uncertain: BTreeSet::new() };
        for &one in &history.operations {
            match &one.request {
                Request::Append { flags, message, .. } => {
                    origins.appended.extend(one.placed().into_iter().map(|placed| (placed.key, flags)));
                    if !one.is_done() {
                        origins.uncertain.insert(message);
                    }
                }
                Request::Copy { targets, .. } | Request::Move { targets, .. } => {
                    origins.copied.extend(one.placed().into_iter().filter_map(|placed| Some((placed.key, (placed.from?, one)))));
                    if !one.is_done() {
                        origins.uncertain.extend(targets.values().map(String::as_str));
                    }
                }
                _ => {}
            }
        }
        origins
    }

    fn initial(&self, key: Key, flag: &str, message: &str, writes: &BTreeMap<(Key, &str), Vec<Write>>, depth: usize) -> Initial {
        if let Some(flags) = self.appended.get(&key) {
            return Initial::Exactly(flags.contains(flag));
        }
        let Some((from, copy)) = self.copied.get(&key).copied() else {
            return if self.uncertain.contains(message) { Initial::Anything } else { Initial::Exactly(false) };
        };
        if depth >= CHAIN_MAX {
            return Initial::Anything;
        }
        // What the original may have had when it was copied.
        let initial = self.initial(from, flag, message, writes, depth + 1);
        let of = writes.get(&(from, flag)).map_or(&[][..], Vec::as_slice);
        match (explained(true, copy.sent, copy.ended, of, initial), explained(false, copy.sent, copy.ended, of, initial)) {
            (true, false) => Initial::Exactly(true),
            (false, true) => Initial::Exactly(false),
            _ => Initial::Anything,
        }
    }
}
