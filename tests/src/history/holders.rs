//! One epoch has one holder, and nobody acknowledges under an epoch after somebody has been answered under a higher one.
//!
//! The nodes' logs say for each acknowledged request under which epoch it was; times are those of the clients, on one clock.

use std::collections::BTreeMap;

use super::{Acknowledgement, OfUser, Operation, Violation};

const ONE: &str = "no two nodes acknowledge in one epoch";
const ORDER: &str = "a user never has two holders at once";
const SAID: &str = "every acknowledgement is under a lease";

pub(super) fn check(history: &OfUser<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let operations: BTreeMap<&str, &Operation> = history.operations.iter().map(|one| (one.tag.as_str(), *one)).collect();
    let mut holders: BTreeMap<u64, &Acknowledgement> = BTreeMap::new();
    // A delivery that was carried out again is answered by the last holder that did.
    let mut under: BTreeMap<&str, u64> = BTreeMap::new();
    for said in &history.acknowledgements {
        let first = holders.entry(said.epoch).or_insert(said);
        if first.holder != said.holder {
            let what = format!("{} and {} both acknowledged in epoch {}", first.holder, said.holder, said.epoch);
            let involved = [&first.tag, &said.tag].into_iter().filter_map(|tag| operations.get(tag.as_str()));
            violations.push(history.violation(ONE, what, involved.map(|one| one.id)));
        }
        let epoch = under.entry(&said.tag).or_default();
        *epoch = said.epoch.max(*epoch);
    }
    let done: Vec<&Operation> = history.operations.iter().filter(|one| one.is_done()).copied().collect();
    let epoch_of = |one: &Operation| under.get(one.tag.as_str()).copied();
    for one in &done {
        if epoch_of(one).is_none() {
            violations.push(history.violation(
                SAID,
                format!("no node's log says under which epoch [{}] was acknowledged", one.tag),
                [one.id],
            ));
        }
    }
    let mut by_start: Vec<(&Operation, u64)> = done.iter().filter_map(|one| Some((*one, epoch_of(one)?))).collect();
    let mut by_end = by_start.clone();
    by_start.sort_by_key(|(one, _)| one.sent);
    by_end.sort_by_key(|(one, _)| one.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(&Operation, u64)> = None;
    for (one, epoch) in by_start {
        while let Some(before) = ended.next_if(|(before, _)| before.ended < one.sent) {
            if highest.is_none_or(|(_, highest)| before.1 > highest) {
                highest = Some(before);
            }
        }
        if let Some((before, higher)) = highest.filter(|(_, higher)| *higher > epoch) {
            let who = |epoch| holders.get(&epoch).map_or("nobody", |said| said.holder.as_str());
            let what = format!("{} acknowledged in epoch {epoch} after {} had answered in epoch {higher}", who(epoch), who(higher));
            violations.push(history.violation(ORDER, what, [before.id, one.id]));
        }
    }
    violations
}
