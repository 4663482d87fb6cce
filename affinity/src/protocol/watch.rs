//! Watching the others: who is up, whose beat stands still, whom to fence.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Roll;
use crate::{HolderId, Timings, names::NodeFile};

/// Listings that tell how long one usually takes.
const USUAL_LISTINGS: usize = 4;

/// What this node observed of every node in `nodes/`, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watch {
    me: HolderId,
    pub(crate) observed: BTreeMap<HolderId, Observed>,
    pub(crate) last_ended: Option<Duration>,
    last_began: Duration,
    /// How long the last listings took, the latest last.
    took: Vec<Duration>,
    /// A listing failed since the last one that did not.
    interrupted: bool,
}

/// What was observed of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The beat seen last.
    pub beat: u64,
    /// Over how much time of successful listings it has not changed.
    pub unchanged_for: Duration,
    /// The last listing was not the first that showed it.
    pub(crate) again: bool,
    /// How long that may be before the node is fenced.
    pub patience: Duration,
    /// It was longer.
    pub suspect: bool,
}

/// What a listing showed that was not known before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sighting {
    /// A node that was not there before.
    Up(HolderId),
    /// A node that is not there any more.
    Down(HolderId),
    /// A node whose beat stands still: fence it, by swapping this very file.
    Suspect(NodeFile),
}

impl Watch {
    /// Nothing seen yet.
    pub fn new(me: HolderId) -> Watch {
        Watch { me, observed: BTreeMap::new(), last_ended: None, last_began: Duration::ZERO, took: Vec::new(), interrupted: false }
    }
    /// Everybody, as of the last listing.
    pub fn observed(&self) -> &BTreeMap<HolderId, Observed> {
        &self.observed
    }
    /// The beats that stand still.
    pub fn suspects(&self) -> BTreeSet<NodeFile> {
        let suspect = self.observed.iter().filter(|(_, observed)| observed.suspect);
        suspect.map(|(holder, observed)| NodeFile { holder: holder.clone(), beat: observed.beat }).collect()
    }
    /// We have another incarnation; what was seen of the others stays seen.
    pub fn rename_self(&mut self, me: HolderId) {
        self.me = me;
    }
    /// `nodes/` could not be listed: the time until the next listing counts against nobody.
    pub fn failed(&mut self) {
        self.interrupted = true;
    }
    /// Whether somebody known is missing in `roll`: list again, until that is proof.
    pub fn misses_somebody(&self, roll: &Roll) -> bool {
        self.observed.keys().any(|holder| roll.beat_of(holder).is_none())
    }

    /// What every one of the last listings took at least; nothing is known of it at first.
    fn usual(&self) -> Duration {
        if self.took.len() < USUAL_LISTINGS { Duration::ZERO } else { self.took.iter().min().copied().unwrap_or_default() }
    }

    /// `nodes/` was listed.
    ///
    /// Time counts from the *end* of the listing that first showed a beat (the beat may have been written while the listing was on its way)
    /// to the *begin* of the last that still showed it.
    pub fn listed(&mut self, roll: &Roll, timings: &Timings) -> Vec<Sighting> {
        let since = |end: Duration| self.last_ended.map_or(Duration::ZERO, |ended| end.saturating_sub(ended));
        let gap = since(roll.began);
        // So long without a listing (also one that hung), and it was the server that was away, or ourselves: everybody starts anew. A quarter,
        // since a client that tried for some time in vain tries again only after as long or twice that: of a shorter outage nobody dies.
        let outage = timings.dead_after() / 4;
        // Where every listing takes so long, the server is not away but slow: what counts as an outage grows, and patience with it.
        let usual = self.usual().min(timings.dead_after() * 3 / 16);
        let is_slow = timings.beat() + usual > outage;
        let was_away = since(roll.ended) > if is_slow { timings.beat() + usual * 2 } else { outage };
        // A client that lost its server finds it again up to 10 s (measured) after another one did: after an outage, patience doubles.
        let patience = if was_away || is_slow { timings.dead_after() * 2 } else { timings.dead_after() };
        let whole = if self.interrupted { Duration::ZERO } else { roll.began.saturating_sub(self.last_began) };
        let counted = if self.interrupted { Duration::ZERO } else { gap };
        self.took.push(roll.ended.saturating_sub(roll.began));
        if self.took.len() > USUAL_LISTINGS {
            self.took.remove(0);
        }
        self.last_ended = Some(roll.ended);
        self.last_began = roll.began;
        self.interrupted = false;

        let mut sightings = Vec::new();
        for (holder, beat) in roll.seen() {
            match self.observed.get_mut(holder) {
                None => {
                    self.observed.insert(holder.clone(), Observed::new(beat, patience));
                    sightings.push(Sighting::Up(holder.clone()));
                }
                Some(observed) if was_away || observed.beat != beat => *observed = Observed::new(beat, patience),
                Some(observed) => {
                    observed.unchanged_for += if observed.again { whole } else { counted };
                    observed.again = true;
                    observed.patience = observed.patience.max(patience);
                }
            }
        }
        if roll.is_proof(timings.beat()) {
            let gone: Vec<HolderId> = self.observed.keys().filter(|holder| roll.beat_of(holder).is_none()).cloned().collect();
            for holder in gone {
                self.observed.remove(&holder);
                sightings.push(Sighting::Down(holder));
            }
        }
        for (holder, observed) in &mut self.observed {
            if *holder != self.me && observed.unchanged_for >= observed.patience {
                observed.suspect = true;
                sightings.push(Sighting::Suspect(NodeFile { holder: holder.clone(), beat: observed.beat }));
            }
        }
        sightings
    }
}

impl Observed {
    fn new(beat: u64, patience: Duration) -> Observed {
        Observed { beat, unchanged_for: Duration::ZERO, again: false, patience, suspect: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    fn holder(node: &str) -> HolderId {
        HolderId { node: node.parse().unwrap(), incarnation: Incarnation::random() }
    }

    struct Observer {
        watch: Watch,
        timings: Timings,
        peer: HolderId,
    }
    impl Observer {
        fn new() -> Observer {
            Observer { watch: Watch::new(holder("me")), timings: Timings::default(), peer: holder("peer") }
        }
        /// Lists from `began` to `ended` (milliseconds) and sees the peer with `beat`.
        fn sees(&mut self, began: u64, ended: u64, beat: u64) -> Vec<Sighting> {
            let file = NodeFile { holder: self.peer.clone(), beat };
            self.watch.listed(&Roll::new(Duration::from_millis(began), Duration::from_millis(ended), &[file]), &self.timings)
        }
        fn suspects(&mut self, began: u64, ended: u64, beat: u64) -> bool {
            self.sees(began, ended, beat).iter().any(|sighting| matches!(sighting, Sighting::Suspect(file) if file.beat == beat))
        }
    }

    #[test]
    fn a_beat_that_stands_still_for_dead_after_is_suspect_until_it_moves() {
        let mut observer = Observer::new();
        assert_eq!(observer.sees(0, 0, 4), [Sighting::Up(observer.peer.clone())]);
        for second in 1..8 {
            assert!(!observer.suspects(second * 1000, second * 1000, 4), "{second}");
        }
        assert!(observer.suspects(8000, 8000, 4));
        assert_eq!(observer.watch.suspects().len(), 1);
        assert!(!observer.suspects(9000, 9000, 5), "it moved on");
        assert!(observer.watch.suspects().is_empty());
    }

    #[test]
    fn time_without_a_listing_counts_against_nobody() {
        let mut observer = Observer::new();
        observer.sees(0, 0, 4);
        for second in 1..1000 {
            observer.watch.failed();
            assert!(!observer.suspects(second * 4000, second * 4000, 4));
        }
        let mut observer = Observer::new();
        observer.sees(0, 0, 4);
        assert!(!observer.suspects(60_000, 60_000, 4), "we were away for a minute, and it may have been as well");
        for second in 61..76 {
            assert!(!observer.suspects(second * 1000, second * 1000, 4), "after an outage there is time to find the server again");
        }
        assert!(observer.suspects(76_000, 76_000, 4));
    }

    #[test]
    fn a_listing_that_hangs_is_an_outage_and_counts_from_its_end() {
        let mut observer = Observer::new();
        observer.sees(0, 0, 3);
        observer.sees(1000, 31_000, 4);
        for second in 32..47 {
            assert!(!observer.suspects(second * 1000, second * 1000, 4), "{second}");
        }
        assert!(observer.suspects(47_000, 47_000, 4));
    }

    #[test]
    fn a_listing_that_takes_long_but_no_outage_counts_from_its_end() {
        let mut observer = Observer::new();
        observer.sees(0, 0, 3);
        observer.sees(1000, 2000, 4);
        for second in 3..10 {
            assert!(!observer.suspects(second * 1000, second * 1000, 4), "{second}");
        }
        assert!(observer.suspects(10_000, 10_000, 4));
    }

    /// How long after its last beat a peer is suspect where each listing takes `takes` milliseconds; `None`: not within two minutes.
    fn suspected_after(takes: u64) -> Option<u64> {
        let mut observer = Observer::new();
        let mut now = 0;
        for beat in 0..20 {
            observer.sees(now, now + takes, beat);
            now += takes + 1000;
        }
        let last_beat = now - 1000;
        while now < last_beat + 120_000 {
            if observer.suspects(now, now + takes, 19) {
                return Some(now + takes - last_beat);
            }
            now += takes + 1000;
        }
        None
    }

    #[test]
    fn a_slow_server_makes_a_failover_later_and_not_endless() {
        assert_eq!(suspected_after(0), Some(8000));
        assert_eq!(suspected_after(200), Some(8400));
        assert_eq!(suspected_after(900), Some(9500), "the listings' own time counts as well");
        for takes in [1100, 1500, 2500] {
            let after = suspected_after(takes);
            assert!(after.is_some_and(|after| (16_000..24_000).contains(&after)), "{takes}: {after:?}");
        }
        assert_eq!(suspected_after(4000), None, "that is an outage each time");
    }

    #[test]
    fn one_slow_listing_is_no_slow_server() {
        let mut observer = Observer::new();
        for second in 0..10 {
            observer.sees(second * 1000, second * 1000, 4);
        }
        assert!(observer.watch.suspects().len() == 1);
        observer.sees(10_000, 11_500, 4);
        assert!(observer.watch.suspects().is_empty(), "an outage for all that is known: everybody starts anew");
    }

    #[test]
    fn a_node_is_down_only_when_more_than_one_listing_lacks_it() {
        let mut observer = Observer::new();
        observer.sees(0, 0, 4);
        let mut roll = Roll::new(Duration::from_secs(1), Duration::from_secs(1), &[]);
        assert!(observer.watch.misses_somebody(&roll));
        assert_eq!(observer.watch.listed(&roll, &observer.timings), []);
        roll.add(Duration::from_secs(1), Duration::from_secs(1), &[]);
        assert_eq!(observer.watch.listed(&roll, &observer.timings), [Sighting::Down(observer.peer.clone())]);
    }

    #[test]
    fn nobody_accuses_itself() {
        let mut observer = Observer::new();
        observer.watch.rename_self(observer.peer.clone());
        for second in 0..30 {
            assert!(!observer.suspects(second * 1000, second * 1000, 4));
        }
    }
}
