//! A UID is one message for ever; UIDNEXT, HIGHESTMODSEQ and UIDVALIDITY never go back.

use std::collections::BTreeMap;

use super::{Key, Micros, OfUser, Operation, Request, Seen, Violation};

const ONE: &str = "a UID is never two messages";
const NEXT: &str = "UIDNEXT never goes back";
const MODSEQ: &str = "HIGHESTMODSEQ never goes back, and rises with every change";
const VALIDITY: &str = "UIDVALIDITY never goes back";

pub(super) fn check(history: &OfUser<'_>) -> Vec<Violation> {
    let looks = history.looks();
    let mut violations = one_message(history, &looks);
    violations.extend(validities(history, &looks));
    let mut moments: BTreeMap<u32, Moments> = BTreeMap::new();
    for look in &looks {
        let of = moments.entry(look.mailbox.uid_validity).or_default();
        let about = About { operation: look.operation, by: look.by.to_owned() };
        of.next.push(Moment {
            sent: look.sent,
            ended: look.ended,
            least: look.mailbox.uid_next,
            told: look.mailbox.uid_next,
            about: about.clone(),
        });
        of.modseq.push(Moment {
            sent: look.sent,
            ended: look.ended,
            least: look.mailbox.highest_modseq,
            told: look.mailbox.highest_modseq,
            about,
        });
    }
    for one in &history.operations {
        let placed = one.placed();
        let (Some(first), Some(last)) = (placed.iter().map(|placed| placed.key).min(), placed.iter().map(|placed| placed.key).max()) else {
            continue;
        };
        // It shows that UIDNEXT was at most its first UID before, and more than its last afterwards.
        let about = About { operation: Some(one.id), by: one.client.clone() };
        moments.entry(first.0).or_default().next.push(Moment {
            sent: one.sent,
            ended: one.ended,
            least: last.1.saturating_add(1),
            told: first.1,
            about,
        });
    }
    for (validity, of) in &moments {
        violations.extend(never_back(history, NEXT, *validity, &of.next));
        violations.extend(never_back(history, MODSEQ, *validity, &of.modseq));
    }
    violations.extend(risen(history, &looks));
    violations
}

fn one_message(history: &OfUser<'_>, looks: &[Seen<'_>]) -> Vec<Violation> {
    let mut known: BTreeMap<Key, (&str, Option<usize>)> = BTreeMap::new();
    let mut violations = Vec::new();
    let mut see = |key: Key, id, operation: Option<usize>, by: &str| {
        let (before, first) = *known.entry(key).or_insert((id, operation));
        if before != id {
            let what = format!("UID {} under UIDVALIDITY {} was {before}, and is {id} to {by}", key.1, key.0);
            violations.push(history.violation(ONE, what, first.into_iter().chain(operation)));
        }
    };
    let placements: Vec<(&Operation, Vec<super::Placed<'_>>)> = history.operations.iter().map(|one| (*one, one.placed())).collect();
    for (one, placed) in &placements {
        for placed in placed {
            see(placed.key, placed.message, Some(one.id), &one.client);
        }
    }
    for look in looks {
        for (uid, message) in &look.mailbox.messages {
            see((look.mailbox.uid_validity, *uid), &message.id, look.operation, look.by);
        }
    }
    violations
}

#[derive(Default)]
struct Moments {
    next: Vec<Moment<u32>>,
    modseq: Vec<Moment<u64>>,
}

#[derive(Clone)]
struct About {
    operation: Option<usize>,
    by: String,
}

/// Something that shows the value of a counter: it was at most `told` at some time in between, and `least` at least afterwards.
struct Moment<N> {
    sent: Micros,
    ended: Micros,
    told: N,
    least: N,
    about: About,
}

/// What is told is never below what was known before it was asked.
fn never_back<N: Ord + Copy + std::fmt::Display>(
    history: &OfUser<'_>,
    property: &'static str,
    validity: u32,
    moments: &[Moment<N>],
) -> Vec<Violation> {
    let mut by_start: Vec<&Moment<N>> = moments.iter().collect();
    by_start.sort_by_key(|moment| moment.sent);
    let mut by_end: Vec<&Moment<N>> = moments.iter().collect();
    by_end.sort_by_key(|moment| moment.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<&Moment<N>> = None;
    let mut violations = Vec::new();
    for moment in by_start {
        while let Some(before) = ended.next_if(|before| before.ended < moment.sent) {
            if highest.is_none_or(|highest| before.least > highest.least) {
                highest = Some(before);
            }
        }
        if let Some(before) = highest.filter(|before| before.least > moment.told) {
            let what = format!(
                "{} under UIDVALIDITY {validity} to {}, after {} had been known to {}",
                moment.told, moment.about.by, before.least, before.about.by
            );
            violations.push(history.violation(property, what, before.about.operation.into_iter().chain(moment.about.operation)));
        }
    }
    violations
}

/// HIGHESTMODSEQ before a message was placed is below the one after it.
fn risen(history: &OfUser<'_>, looks: &[Seen<'_>]) -> Vec<Violation> {
    let mut by_validity: BTreeMap<u32, (Vec<&Seen<'_>>, Vec<&Seen<'_>>)> = BTreeMap::new();
    for look in looks {
        let (ends, starts) = by_validity.entry(look.mailbox.uid_validity).or_default();
        ends.push(look);
        starts.push(look);
    }
    for (ends, starts) in by_validity.values_mut() {
        ends.sort_by_key(|look| look.ended);
        starts.sort_by_key(|look| look.sent);
    }
    let mut violations = Vec::new();
    for one in &history.operations {
        let Some((validity, _)) = one.placed().first().map(|placed| placed.key) else { continue };
        let Some((ends, starts)) = by_validity.get(&validity) else { continue };
        let before = ends.partition_point(|look| look.ended < one.sent).checked_sub(1).and_then(|last| ends.get(last));
        let after = starts.get(starts.partition_point(|look| look.sent <= one.ended));
        if let (Some(before), Some(after)) = (before, after)
            && after.mailbox.highest_modseq <= before.mailbox.highest_modseq
        {
            let what = format!(
                "{} before a message was put there, {} after it (UIDVALIDITY {validity})",
                before.mailbox.highest_modseq, after.mailbox.highest_modseq
            );
            violations.push(history.violation(MODSEQ, what, before.operation.into_iter().chain([one.id]).chain(after.operation)));
        }
    }
    violations
}

/// One name's UIDVALIDITY rises, if it changes at all, and changes only where the mailbox was deleted.
fn validities(history: &OfUser<'_>, looks: &[Seen<'_>]) -> Vec<Violation> {
    let mut by_name: BTreeMap<&str, Vec<Moment<u32>>> = BTreeMap::new();
    for look in looks {
        let about = About { operation: look.operation, by: format!("{} in {}", look.by, look.name) };
        let validity = look.mailbox.uid_validity;
        by_name.entry(look.name).or_default().push(Moment { sent: look.sent, ended: look.ended, told: validity, least: validity, about });
    }
    let mut violations = Vec::new();
    for (name, moments) in by_name {
        let newest = moments.iter().map(|moment| moment.told).max().unwrap_or_default();
        violations.extend(never_back(history, VALIDITY, newest, &moments));
        let deleted = |one: &Operation| matches!(&one.request, Request::Delete { mailbox } | Request::Rename { from: mailbox, .. } if mailbox == name);
        let oldest = moments.iter().map(|moment| moment.told).min().unwrap_or_default();
        if oldest != newest && !history.operations.iter().any(|one| deleted(one)) {
            let operations = moments.iter().filter(|moment| moment.told != oldest).filter_map(|moment| moment.about.operation).take(3);
            violations.push(history.violation(VALIDITY, format!("{name} had {oldest}, then {newest}, and nobody deleted it"), operations));
        }
    }
    violations
}
