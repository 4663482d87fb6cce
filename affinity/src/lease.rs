//! Proof that this node was given a user's lease, and that it still is.
//!
//! Invariants, each with the test that guards it:
//! - a node that slept past its deadline may not acknowledge (`a_node_that_slept_past_its_deadline_may_not_acknowledge`)
//! - a fenced tenure never comes back (`a_fenced_tenure_is_over_for_ever`)
//! - an outage that nobody was fenced in delays acknowledgements and loses none (`an_acknowledgement_waits_out_an_outage_but_not_a_fence`)

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{Clock, Epoch, HolderId, UserName};

/// A waiting acknowledgement looks again this often even if nothing wakes it.
const CONFIRM_STEP: Duration = Duration::from_millis(100);

/// One incarnation's right to act: alive from its join until it is fenced, valid until its last won beat runs out.
#[derive(Debug)]
pub struct Tenure {
    holder: HolderId,
    clock: Arc<dyn Clock>,
    valid_until_micros: AtomicU64,
    over: AtomicBool,
    changed: Condvar,
    waiters: Mutex<()>,
}

impl Tenure {
    /// A tenure that is not valid before its first [`Tenure::extend`].
    pub fn new(holder: HolderId, clock: Arc<dyn Clock>) -> Arc<Tenure> {
        Arc::new(Tenure {
            holder,
            clock,
            valid_until_micros: AtomicU64::new(0),
            over: AtomicBool::new(false),
            changed: Condvar::new(),
            waiters: Mutex::new(()),
        })
    }
    /// Whose tenure.
    pub fn holder(&self) -> &HolderId {
        &self.holder
    }
    /// A beat was won that began at `t0`: valid until `t0 + self_limit`. Never shortens.
    pub fn extend(&self, until: Duration) {
        self.valid_until_micros.fetch_max(u64::try_from(until.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.notify();
    }
    /// We were fenced, or left: for ever.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.notify();
    }
    fn notify(&self) {
        // Taking the lock orders this behind a waiter's check, so that no wake-up is lost.
        drop(self.waiters.lock());
        self.changed.notify_all();
    }
    /// Whether the tenure was ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
    /// Whether this node may acknowledge now.
    pub fn is_valid(&self) -> bool {
        !self.is_over() && self.clock.now() < Duration::from_micros(self.valid_until_micros.load(Ordering::SeqCst))
    }
}

/// What the previous holder left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handover {
    /// Released: all is durable, the index is checkpointed. Also a user who never had a holder.
    Clean,
    /// The previous holder died or was fenced: go on with copies, scan the Maildir.
    Unclean,
}

/// Proof that this node was given `user`'s lease. Only [`crate::Keeper::acquire`] makes one; clones are the same lease.
///
/// ```compile_fail
/// let lease = affinity::Lease { };
/// ```
#[derive(Clone)]
#[must_use = "a lease is held until Keeper::release"]
pub struct Lease {
    user: UserName,
    epoch: Epoch,
    tenure: Arc<Tenure>,
    released: Arc<AtomicBool>,
    taken_over: Arc<AtomicBool>,
}

/// The lease is not ours any more, or not provably: nothing may be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node no longer holds the lease of {user} (epoch {epoch})")]
pub struct LeaseLost {
    /// Whose lease.
    pub user: UserName,
    /// Its generation.
    pub epoch: Epoch,
}

impl Lease {
    pub(crate) fn new(user: UserName, epoch: Epoch, tenure: Arc<Tenure>) -> Lease {
        Lease { user, epoch, tenure, released: Arc::default(), taken_over: Arc::default() }
    }
    /// A lease that nobody gave, valid as long as its tenure: tests of the crates above need one.
    #[doc(hidden)]
    pub fn for_test(user: UserName, epoch: Epoch, tenure: Arc<Tenure>) -> Lease {
        Lease::new(user, epoch, tenure)
    }
    /// Whose mail.
    pub fn user(&self) -> &UserName {
        &self.user
    }
    /// Which generation of the lease.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// The incarnation that holds it.
    pub fn tenure(&self) -> &Arc<Tenure> {
        &self.tenure
    }
    /// The account is open and what the previous holder left is dealt with: from here on, [`crate::Keeper::acquire`] gives this lease out
    /// as clean. Until then it repeats the handover, so that a takeover which failed half-way is not taken for done.
    pub fn taken_over(&self) {
        self.taken_over.store(true, Ordering::SeqCst);
    }
    pub(crate) fn was_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::SeqCst)
    }
    pub(crate) fn mark_released(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
    /// As [`Lease::ensure_live`], but while this node is only suspended (no contact with the shared directory, not fenced) waits up to `limit` for the
    /// beat that decides: an outage of the NFS server that nobody was fenced in must not cost a session. Blocks the thread.
    pub fn confirm(&self, limit: Duration) -> Result<Epoch, LeaseLost> {
        let mut waited = Duration::ZERO;
        loop {
            let held = self.ensure_live();
            if held.is_ok() || waited >= limit || self.tenure.is_over() || self.released.load(Ordering::SeqCst) {
                return held;
            }
            let step = CONFIRM_STEP.min(limit - waited);
            let mut waiting = self.tenure.waiters.lock();
            if self.tenure.is_valid() || self.tenure.is_over() {
                continue;
            }
            self.tenure.changed.wait_for(&mut waiting, step);
            waited += step;
        }
    }
    /// Call after a change is durable and before it is acknowledged to a client.
    pub fn ensure_live(&self) -> Result<Epoch, LeaseLost> {
        if self.tenure.is_valid() && !self.released.load(Ordering::SeqCst) {
            Ok(self.epoch)
        } else {
            Err(LeaseLost { user: self.user.clone(), epoch: self.epoch })
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} epoch {} of {})", self.user, self.epoch, self.tenure.holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, TestClock};

    fn lease(clock: &TestClock) -> Lease {
        let holder = HolderId { node: "a".parse().unwrap(), incarnation: Incarnation::random() };
        let tenure = Tenure::new(holder, Arc::new(clock.clone()));
        tenure.extend(clock.now() + Duration::from_secs(5));
        Lease::for_test(UserName::normalise("ada").unwrap(), Epoch(1), tenure)
    }

    #[test]
    fn a_node_that_slept_past_its_deadline_may_not_acknowledge() {
        let clock = TestClock::default();
        let lease = lease(&clock);
        clock.advance(Duration::from_millis(4_999));
        assert_eq!(lease.ensure_live(), Ok(Epoch(1)));
        clock.advance(Duration::from_millis(1));
        assert!(lease.ensure_live().is_err());
        lease.tenure().extend(clock.now() + Duration::from_secs(5));
        assert_eq!(lease.ensure_live(), Ok(Epoch(1)), "a later beat that wins shows that nobody fenced us");
    }

    #[test]
    fn an_acknowledgement_waits_out_an_outage_but_not_a_fence() {
        let clock = TestClock::default();
        let lease = lease(&clock);
        clock.advance(Duration::from_secs(6));
        assert!(lease.confirm(Duration::ZERO).is_err(), "suspended, and no time to wait");
        let waiting = std::thread::spawn({
            let lease = lease.clone();
            move || lease.confirm(Duration::from_secs(60))
        });
        lease.tenure().extend(clock.now() + Duration::from_secs(5));
        assert_eq!(waiting.join().unwrap(), Ok(Epoch(1)));
        clock.advance(Duration::from_secs(6));
        let waiting = std::thread::spawn({
            let lease = lease.clone();
            move || lease.confirm(Duration::from_secs(60))
        });
        lease.tenure().end();
        assert!(waiting.join().unwrap().is_err());
    }

    #[test]
    fn a_fenced_tenure_is_over_for_ever() {
        let clock = TestClock::default();
        let lease = lease(&clock);
        lease.tenure().end();
        lease.tenure().extend(clock.now() + Duration::from_secs(50));
        assert!(lease.ensure_live().is_err());
    }
}
