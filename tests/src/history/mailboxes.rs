//! Mailboxes are there or gone as was acknowledged. Names are never used twice in a history.

use std::collections::BTreeSet;

use super::{OfUser, Operation, Request, Violation};

const MAILBOXES: &str = "mailboxes are there or gone as was acknowledged";

pub(super) fn check(history: &OfUser<'_>) -> Vec<Violation> {
    let Some(last) = history.finals.iter().find(|one| !one.without_uids) else { return Vec::new() };
    let makes = |one: &Operation, name: &str| matches!(&one.request, Request::Create { mailbox } | Request::Rename { to: mailbox, .. } if mailbox == name);
    let ends = |one: &Operation, name: &str| matches!(&one.request, Request::Delete { mailbox } | Request::Rename { from: mailbox, .. } if mailbox == name);
    let names: BTreeSet<&str> = history
        .operations
        .iter()
        .flat_map(|one| match &one.request {
            Request::Create { mailbox } | Request::Delete { mailbox } => vec![mailbox.as_str()],
            Request::Rename { from, to } => vec![from.as_str(), to.as_str()],
            _ => Vec::new(),
        })
        .collect();
    let mut violations = Vec::new();
    for name in names {
        let making: Vec<&&Operation> = history.operations.iter().filter(|one| one.may_be_done() && makes(one, name)).collect();
        let ending: Vec<&&Operation> = history.operations.iter().filter(|one| one.may_be_done() && ends(one, name)).collect();
        let involved = || making.iter().chain(&ending).map(|one| one.id);
        let is_there = last.mailboxes.contains_key(name);
        if !is_there && ending.is_empty() && making.iter().any(|one| one.is_done()) {
            violations.push(history.violation(MAILBOXES, format!("{name} was made, nobody took it away, and it is not there"), involved()));
        }
        let gone = ending.iter().any(|end| end.is_done() && making.iter().all(|make| make.over() < end.sent));
        if is_there && gone {
            violations.push(history.violation(MAILBOXES, format!("{name} was taken away and is there"), involved()));
        }
        if is_there && making.is_empty() {
            violations.push(history.violation(MAILBOXES, format!("{name} is there, and nobody made it"), involved()));
        }
    }
    violations
}
