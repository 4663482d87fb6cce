//! Giving a user's lease back, the account being closed.

use super::Answer;
use crate::{Epoch, HolderId, names::LeaseName};

/// Most swaps in a row that end in an error before the caller hears of it.
const UNKNOWN_MAX: u32 = 3;

/// One release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Release {
    from: LeaseName,
    to: LeaseName,
    step: ReleaseStep,
    unknown: u32,
}

/// The request that comes next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReleaseStep {
    /// Swap one name in the lease folder for another.
    Swap {
        /// Ours.
        from: LeaseName,
        /// The same epoch, free.
        to: LeaseName,
    },
    /// List the lease folder afresh.
    ListLease,
    /// That's it.
    Done(ReleaseVerdict),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseVerdict {
    /// Free, or somebody else's by now.
    Gone,
    /// Errors: it may be free, or become so. It must not be used again under this epoch.
    Unknown,
}

impl Release {
    /// Begins. The lease must not be used any more from here, whatever comes.
    pub fn new(me: HolderId, epoch: Epoch) -> Release {
        let (from, to) = (LeaseName { epoch, holder: Some(me) }, LeaseName { epoch, holder: None });
        Release { step: ReleaseStep::Swap { from: from.clone(), to: to.clone() }, from, to, unknown: 0 }
    }
    /// What to do next.
    pub fn step(&self) -> &ReleaseStep {
        &self.step
    }
    /// The answer to [`ReleaseStep::Swap`].
    pub fn swapped(&mut self, answer: Answer) {
        self.step = match answer {
            Answer::Swapped(_) => ReleaseStep::Done(ReleaseVerdict::Gone),
            Answer::Unknown => {
                self.unknown += 1;
                if self.unknown > UNKNOWN_MAX { ReleaseStep::Done(ReleaseVerdict::Unknown) } else { ReleaseStep::ListLease }
            }
        };
    }
    /// The answer to [`ReleaseStep::ListLease`]: ours again to try unless some other name shows.
    pub fn lease_listed(&mut self, names: &[LeaseName]) {
        let gone = !names.is_empty() && !names.contains(&self.from);
        self.step =
            if gone { ReleaseStep::Done(ReleaseVerdict::Gone) } else { ReleaseStep::Swap { from: self.from.clone(), to: self.to.clone() } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, swap::Swapped};

    fn release() -> (Release, LeaseName) {
        let me = HolderId { node: "me".parse().unwrap(), incarnation: Incarnation::random() };
        (Release::new(me.clone(), Epoch(3)), LeaseName { epoch: Epoch(3), holder: Some(me) })
    }

    #[test]
    fn a_release_keeps_the_epoch() {
        let (mut release, ours) = release();
        assert_eq!(*release.step(), ReleaseStep::Swap { from: ours, to: LeaseName { epoch: Epoch(3), holder: None } });
        release.swapped(Answer::Swapped(Swapped::Won));
        assert_eq!(*release.step(), ReleaseStep::Done(ReleaseVerdict::Gone));
    }

    #[test]
    fn an_error_is_resolved_by_a_listing_or_reported() {
        let (mut release, ours) = release();
        release.swapped(Answer::Unknown);
        assert_eq!(*release.step(), ReleaseStep::ListLease);
        let mut done = release.clone();
        done.lease_listed(&[LeaseName { epoch: Epoch(3), holder: None }]);
        assert_eq!(*done.step(), ReleaseStep::Done(ReleaseVerdict::Gone));
        for _ in 0..UNKNOWN_MAX {
            release.lease_listed(std::slice::from_ref(&ours));
            release.swapped(Answer::Unknown);
        }
        assert_eq!(*release.step(), ReleaseStep::Done(ReleaseVerdict::Unknown));
    }
}
