//! Taking a user's lease: one request to the directory at a time, each decided by what the one before showed.

use std::{collections::BTreeSet, time::Duration};

use super::{Answer, Roll};
use crate::{
    Epoch, Handover, HolderId,
    names::{LeaseName, NodeFile},
    swap::Swapped,
};

/// Most swaps lost in a row: each means that somebody else got on, so more is a sign of something broken.
const LOST_MAX: u32 = 8;
/// Most swaps in a row that end in an error before the caller hears of it.
const UNKNOWN_MAX: u32 = 3;
/// Most listings in a row of a lease folder that show no lease: one can be hidden by a rename.
const EMPTY_MAX: u32 = 4;

/// A swap of ours whose outcome is unknown: it may have worked, or may yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// To take the lease; what the previous holder left goes with it.
    Take(LeaseName, Handover),
    /// To release this epoch, the account being closed.
    Release(Epoch),
}

/// The request that comes next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// List the lease folder afresh.
    ListLease,
    /// Make the lease folder, holding [`LeaseName::FIRST`].
    Prepare,
    /// List `nodes/` afresh.
    ListNodes,
    /// Swap one name in the lease folder for another.
    Swap {
        /// As it was seen.
        from: LeaseName,
        /// Ours.
        to: LeaseName,
    },
    /// That's it.
    Done(Verdict),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The lease is ours.
    Mine(Epoch, Handover),
    /// A live node has it.
    HeldBy(HolderId),
    /// A node has it whose beat stands still.
    Suspect(HolderId),
    /// We are not in `nodes/`: fenced, and will hear of it.
    Fenced,
    /// The folder holds no lease.
    Broken,
    /// Requests end in errors, or others are always faster.
    GaveUp,
    /// `nodes/` is listed too slowly to tell that the holder is gone.
    TooSlow,
}

/// One try to take one user's lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acquire {
    me: HolderId,
    attempt: Option<Attempt>,
    step: Step,
    /// The lease that a dead node seems to have, and where it is looked for.
    seen: Option<(LeaseName, HolderId)>,
    roll: Option<Roll>,
    lost: u32,
    unknown: u32,
    empty: u32,
}

impl Acquire {
    /// Begins. `attempt` is what is left of an earlier try under the same incarnation. Not for a lease that we know to hold.
    pub fn new(me: HolderId, attempt: Option<Attempt>) -> Acquire {
        Acquire { me, attempt, step: Step::ListLease, seen: None, roll: None, lost: 0, unknown: 0, empty: 0 }
    }
    /// What to do next.
    pub fn step(&self) -> &Step {
        &self.step
    }
    /// What to hand to the next try, whatever ended this one.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// The answer to [`Step::ListLease`]; `None`: the user has no folder.
    pub fn lease_listed(&mut self, names: Option<&[LeaseName]>) {
        let Some(names) = names else {
            self.step = Step::Prepare;
            return;
        };
        // A rename in progress may show under both its names: either is as good, the swap decides.
        let Some(seen) = names.iter().max_by_key(|name| name.epoch) else {
            self.empty += 1;
            self.step = if self.empty > EMPTY_MAX { Step::Done(Verdict::Broken) } else { Step::ListLease };
            return;
        };
        self.empty = 0;
        self.step = match &seen.holder {
            None => self.take(seen.clone(), Handover::Clean),
            Some(holder) if *holder == self.me => match self.attempt.clone() {
                Some(Attempt::Take(name, handover)) if name == *seen => self.won(name.epoch, handover),
                // Ours by name, but not in our memory: a release of it may still be under way, and would take it from under us.
                // Under the next epoch it can't.
                Some(Attempt::Release(epoch)) if epoch == seen.epoch => self.take(seen.clone(), Handover::Clean),
                Some(Attempt::Take(..) | Attempt::Release(_)) | None => self.take(seen.clone(), Handover::Unclean),
            },
            Some(holder) => {
                self.seen = Some((seen.clone(), holder.clone()));
                self.roll = None;
                Step::ListNodes
            }
        };
    }

    /// [`Step::Prepare`] was done, by us or somebody else.
    pub fn prepared(&mut self) {
        self.step = Step::ListLease;
    }

    /// The answer to [`Step::ListNodes`]; `suspects` are the beats that our watch saw stand still, `beat` the time between beats.
    pub fn nodes_listed(&mut self, began: Duration, ended: Duration, files: &[NodeFile], suspects: &BTreeSet<NodeFile>, beat: Duration) {
        let roll = match &mut self.roll {
            Some(roll) => {
                roll.add(began, ended, files);
                roll
            }
            none => none.insert(Roll::new(began, ended, files)),
        };
        let Some((seen, holder)) = self.seen.clone() else {
            self.step = Step::ListLease;
            return;
        };
        let is_proof = roll.is_proof(beat);
        let is_long = roll.is_long();
        let of_me = roll.beat_of(&self.me);
        self.step = match roll.beat_of(&holder) {
            Some(beat) if suspects.contains(&NodeFile { holder: holder.clone(), beat }) => Step::Done(Verdict::Suspect(holder)),
            Some(_) => Step::Done(Verdict::HeldBy(holder)),
            None if !is_proof && is_long => Step::Done(Verdict::TooSlow),
            None if !is_proof => Step::ListNodes,
            None if of_me.is_none() => Step::Done(Verdict::Fenced),
            None => self.take(seen, Handover::Unclean),
        };
    }

    /// The answer to [`Step::Swap`].
    pub fn swapped(&mut self, answer: Answer) {
        self.step = match (answer, self.attempt.clone()) {
            (Answer::Swapped(Swapped::Won), Some(Attempt::Take(name, handover))) => self.won(name.epoch, handover),
            (Answer::Swapped(_), _) => {
                // Its source is gone: it can't land any more.
                self.attempt = None;
                self.lost += 1;
                if self.lost > LOST_MAX { Step::Done(Verdict::GaveUp) } else { Step::ListLease }
            }
            (Answer::Unknown, _) => {
                self.unknown += 1;
                if self.unknown > UNKNOWN_MAX { Step::Done(Verdict::GaveUp) } else { Step::ListLease }
            }
        };
    }

    fn take(&mut self, from: LeaseName, handover: Handover) -> Step {
        let to = LeaseName { epoch: from.epoch.next(), holder: Some(self.me.clone()) };
        // An older attempt is forgotten: its source is `from` as well, or gone, so that it can only land as this one.
        self.attempt = Some(Attempt::Take(to.clone(), handover));
        Step::Swap { from, to }
    }

    fn won(&mut self, epoch: Epoch, handover: Handover) -> Step {
        self.attempt = None;
        Step::Done(Verdict::Mine(epoch, handover))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    const BEAT: Duration = Duration::from_secs(1);

    fn holder(node: &str) -> HolderId {
        HolderId { node: node.parse().unwrap(), incarnation: Incarnation::random() }
    }
    fn lease(epoch: u64, holder: Option<&HolderId>) -> LeaseName {
        LeaseName { epoch: Epoch(epoch), holder: holder.cloned() }
    }
    fn nodes(acquire: &mut Acquire, files: &[NodeFile], suspects: &[NodeFile]) {
        acquire.nodes_listed(Duration::ZERO, Duration::ZERO, files, &suspects.iter().cloned().collect(), BEAT);
    }
    fn file(holder: &HolderId) -> NodeFile {
        NodeFile { holder: holder.clone(), beat: 3 }
    }

    #[test]
    fn a_free_lease_is_taken_clean() {
        let me = holder("me");
        let mut acquire = Acquire::new(me.clone(), None);
        acquire.lease_listed(Some(&[lease(4, None)]));
        assert_eq!(*acquire.step(), Step::Swap { from: lease(4, None), to: lease(5, Some(&me)) });
        acquire.swapped(Answer::Swapped(Swapped::Won));
        assert_eq!(*acquire.step(), Step::Done(Verdict::Mine(Epoch(5), Handover::Clean)));
    }

    #[test]
    fn a_first_contact_prepares_the_folder_and_looks_again() {
        let mut acquire = Acquire::new(holder("me"), None);
        acquire.lease_listed(None);
        assert_eq!(*acquire.step(), Step::Prepare);
        acquire.prepared();
        assert_eq!(*acquire.step(), Step::ListLease);
    }

    #[test]
    fn a_lease_of_a_dead_node_is_taken_unclean_after_more_than_one_listing() {
        let (me, dead) = (holder("me"), holder("dead"));
        let mut acquire = Acquire::new(me.clone(), None);
        acquire.lease_listed(Some(&[lease(4, Some(&dead))]));
        nodes(&mut acquire, &[file(&me)], &[]);
        assert_eq!(*acquire.step(), Step::ListNodes, "a rename may have hidden it");
        nodes(&mut acquire, &[file(&me)], &[]);
        acquire.swapped(Answer::Swapped(Swapped::Won));
        assert_eq!(*acquire.step(), Step::Done(Verdict::Mine(Epoch(5), Handover::Unclean)));
    }

    #[test]
    fn a_lease_of_a_live_or_suspect_node_is_left_alone() {
        let (me, other) = (holder("me"), holder("other"));
        for (suspects, verdict) in [(vec![], Verdict::HeldBy(other.clone())), (vec![file(&other)], Verdict::Suspect(other.clone()))] {
            let mut acquire = Acquire::new(me.clone(), None);
            acquire.lease_listed(Some(&[lease(4, Some(&other))]));
            nodes(&mut acquire, &[file(&me), file(&other)], &suspects);
            assert_eq!(*acquire.step(), Step::Done(verdict));
        }
    }

    #[test]
    fn a_suspect_whose_beat_moved_on_is_alive() {
        let (me, other) = (holder("me"), holder("other"));
        let mut acquire = Acquire::new(me, None);
        acquire.lease_listed(Some(&[lease(4, Some(&other))]));
        nodes(&mut acquire, &[NodeFile { holder: other.clone(), beat: 4 }], &[file(&other)]);
        assert_eq!(*acquire.step(), Step::Done(Verdict::HeldBy(other)));
    }

    #[test]
    fn a_node_that_is_not_listed_itself_takes_nothing() {
        let dead = holder("dead");
        let mut acquire = Acquire::new(holder("me"), None);
        acquire.lease_listed(Some(&[lease(4, Some(&dead))]));
        nodes(&mut acquire, &[], &[]);
        nodes(&mut acquire, &[], &[]);
        assert_eq!(*acquire.step(), Step::Done(Verdict::Fenced));
    }

    #[test]
    fn a_swap_that_worked_in_spite_of_an_error_keeps_its_handover() {
        let (me, dead) = (holder("me"), holder("dead"));
        let mut acquire = Acquire::new(me.clone(), None);
        acquire.lease_listed(Some(&[lease(4, Some(&dead))]));
        nodes(&mut acquire, &[file(&me)], &[]);
        nodes(&mut acquire, &[file(&me)], &[]);
        acquire.swapped(Answer::Unknown);
        // The caller went away here; the next one goes on with what is left.
        let mut again = Acquire::new(me.clone(), acquire.attempt().cloned());
        again.lease_listed(Some(&[lease(5, Some(&me))]));
        assert_eq!(*again.step(), Step::Done(Verdict::Mine(Epoch(5), Handover::Unclean)));
    }

    #[test]
    fn a_lease_that_is_ours_by_name_only_is_taken_anew() {
        let me = holder("me");
        for (attempt, handover) in [(None, Handover::Unclean), (Some(Attempt::Release(Epoch(5))), Handover::Clean)] {
            let mut acquire = Acquire::new(me.clone(), attempt);
            acquire.lease_listed(Some(&[lease(5, Some(&me))]));
            assert_eq!(*acquire.step(), Step::Swap { from: lease(5, Some(&me)), to: lease(6, Some(&me)) });
            acquire.swapped(Answer::Swapped(Swapped::Won));
            assert_eq!(*acquire.step(), Step::Done(Verdict::Mine(Epoch(6), handover)));
        }
    }

    #[test]
    fn whoever_loses_a_swap_looks_again_but_not_for_ever() {
        let (me, other) = (holder("me"), holder("other"));
        let mut acquire = Acquire::new(me.clone(), None);
        acquire.lease_listed(Some(&[lease(4, None)]));
        acquire.swapped(Answer::Swapped(Swapped::Lost));
        acquire.lease_listed(Some(&[lease(5, Some(&other))]));
        nodes(&mut acquire, &[file(&me), file(&other)], &[]);
        assert_eq!(*acquire.step(), Step::Done(Verdict::HeldBy(other)));

        let mut acquire = Acquire::new(me, None);
        for epoch in 0..=u64::from(LOST_MAX) {
            acquire.lease_listed(Some(&[lease(epoch, None)]));
            acquire.swapped(Answer::Swapped(Swapped::Lost));
        }
        assert_eq!(*acquire.step(), Step::Done(Verdict::GaveUp));
    }

    #[test]
    fn a_folder_without_a_lease_is_broken_only_if_it_stays_so() {
        let mut acquire = Acquire::new(holder("me"), None);
        for _ in 0..EMPTY_MAX {
            acquire.lease_listed(Some(&[]));
            assert_eq!(*acquire.step(), Step::ListLease);
        }
        acquire.lease_listed(Some(&[]));
        assert_eq!(*acquire.step(), Step::Done(Verdict::Broken));
    }
}
