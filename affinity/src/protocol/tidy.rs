//! What ended incarnations left behind, and when it may go.
//!
//! Nothing here decides who serves whom, so nothing here can break that; but a name that somebody still wants must stay. Why that holds:
//!
//! - names hold a random incarnation and are never used twice, so nobody can come to want one again
//! - leftovers are listed first and `nodes/` afterwards, until that proves absence ([`super::Roll`]): whoever is missing then is gone for good, or
//!   has not joined yet. Who has not joined yet has nothing but a file in `info/`, and that stays for [`KEEP`]: a join that takes longer than
//!   [`JOIN_MAX`] is given up
//! - time is this node's own, from its first sight of a leftover: no wall clock, and no file server's, has a say
//!
//! Requests of the dead that land later find their source gone, or make a leftover anew, which a later round finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{EndedFile, HolderId, names::INFO};

/// How long a file in `info/` or `fenced/` is in sight before it goes: operators look at what was fenced, and a join must be over by far. Less than a
/// day, since time is counted anew when the node that clears is started again.
pub const KEEP: Duration = Duration::from_secs(6 * 3600);
/// How long a join may take.
pub const JOIN_MAX: Duration = Duration::from_secs(3600);

/// What one round found, listed before `nodes/`.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// `info/`.
    pub info: Vec<HolderId>,
    /// `fenced/`.
    pub fenced: Vec<EndedFile>,
    /// Folders that were to become users' lease folders: paths, and whose they are.
    pub prepared: Vec<(String, HolderId)>,
}

/// Something to remove.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Removal {
    /// A file that nobody has open or renames.
    File(String),
    /// A folder that was to become a user's: a late rename of it must find nothing, so it gets another name first.
    Prepared(String),
}

/// Since when each leftover is in sight.
#[derive(Debug, Clone, Default)]
pub struct Tidy {
    since: BTreeMap<String, Duration>,
}

impl Tidy {
    /// What may go at `now`; `there` is who is in `nodes/`, proven by listings after those of `found`.
    pub fn due(&mut self, now: Duration, found: &Leftovers, there: &BTreeSet<HolderId>) -> Vec<Removal> {
        let gone = |holder: &HolderId| !there.contains(holder);
        let mut left: BTreeSet<String> = BTreeSet::new();
        left.extend(found.info.iter().filter(|holder| gone(holder)).map(|holder| format!("{INFO}/{holder}")));
        left.extend(found.fenced.iter().filter(|ended| gone(&ended.file.holder)).map(EndedFile::path));
        self.since.retain(|name, _| left.contains(name));
        for name in left {
            self.since.entry(name).or_insert(now);
        }
        // The last word on a node that does not run stays: `berth nodes` shows it.
        let mut last: BTreeMap<_, (Duration, String)> = BTreeMap::new();
        for ended in found.fenced.iter().filter(|ended| !there.iter().any(|holder| holder.node == ended.file.holder.node)) {
            let name = ended.path();
            let Some(since) = self.since.get(&name).copied() else { continue };
            let newest = last.entry(&ended.file.holder.node).or_insert_with(|| (since, name.clone()));
            if since > newest.0 {
                *newest = (since, name);
            }
        }
        let kept: BTreeSet<&String> = last.values().map(|(_, name)| name).collect();
        let old = self.since.iter().filter(|(name, since)| now.saturating_sub(**since) >= KEEP && !kept.contains(name));
        // Only who has joined makes such folders: nobody waits for these.
        let prepared = found.prepared.iter().filter(|(_, holder)| gone(holder)).map(|(path, _)| Removal::Prepared(path.clone()));
        old.map(|(name, _)| Removal::File(name.clone())).chain(prepared).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ending, Incarnation, names::NodeFile};

    fn holder(node: &str) -> HolderId {
        HolderId { node: node.parse().unwrap(), incarnation: Incarnation::random() }
    }

    #[test]
    fn what_the_dead_left_goes_in_time_and_nothing_of_the_living() {
        let (live, dead) = (holder("a"), holder("a"));
        let found = Leftovers {
            info: vec![live.clone(), dead.clone()],
            fenced: vec![NodeFile { holder: dead.clone(), beat: 7 }.ended(Ending::Left)],
            prepared: vec![(format!("leases/00/~{live},0"), live.clone()), (format!("leases/00/~{dead},3"), dead.clone())],
        };
        let (mut tidy, there) = (Tidy::default(), BTreeSet::from([live]));
        let prepared = Removal::Prepared(format!("leases/00/~{dead},3"));
        assert_eq!(tidy.due(Duration::from_secs(5), &found, &there), std::slice::from_ref(&prepared));
        assert_eq!(tidy.due(KEEP, &found, &there), std::slice::from_ref(&prepared));
        let expected = [Removal::File(format!("fenced/{dead},7,left")), Removal::File(format!("info/{dead}")), prepared];
        assert_eq!(tidy.due(KEEP + Duration::from_secs(5), &found, &there), expected);
        assert_eq!(tidy.due(KEEP * 2, &Leftovers::default(), &there), []);
        assert!(tidy.since.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn who_joins_late_keeps_what_it_published() {
        let late = holder("a");
        let found = Leftovers { info: vec![late.clone()], ..Leftovers::default() };
        let mut tidy = Tidy::default();
        assert_eq!(tidy.due(Duration::ZERO, &found, &BTreeSet::new()), []);
        assert_eq!(tidy.due(JOIN_MAX, &found, &BTreeSet::from([late.clone()])), []);
        assert_eq!(tidy.due(KEEP, &found, &BTreeSet::from([late])), []);
        assert!(KEEP > JOIN_MAX * 2);
    }

    #[test]
    fn the_last_word_on_a_node_that_does_not_run_stays() {
        let ended = |beat| NodeFile { holder: holder("a"), beat }.ended(Ending::Unknown);
        let (first, last) = (ended(900), ended(3));
        let mut tidy = Tidy::default();
        tidy.due(Duration::ZERO, &Leftovers { fenced: vec![first.clone()], ..Leftovers::default() }, &BTreeSet::new());
        let found = Leftovers { fenced: vec![first.clone(), last], ..Leftovers::default() };
        tidy.due(Duration::from_secs(60), &found, &BTreeSet::new());
        assert_eq!(tidy.due(KEEP * 3, &found, &BTreeSet::new()), [Removal::File(first.path())]);
        let runs = BTreeSet::from([holder("a")]);
        assert_eq!(tidy.due(KEEP * 3, &found, &runs).len(), 2, "the node runs again: nobody asks how it ended before");
    }
}
