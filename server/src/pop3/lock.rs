//! One POP3 session per maildrop (RFC 1939 §4), on the node that holds the user's lease. IMAP sessions don't count.
//!
//! Invariants, each with the test that guards it:
//! - two sessions never have one user's maildrop (`a_maildrop_has_one_session_at_a_time`)
//! - however a session ends, its maildrop is free again: the lock is a value that frees it when dropped

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use affinity::{Clock, SystemClock, UserName};
use parking_lot::Mutex;

/// Users whose last login is remembered before those of long ago are forgotten.
const FORGET_ABOVE: usize = 4096;

/// The maildrops that are in use on this node.
#[derive(Debug)]
pub struct MaildropLocks {
    locked: Arc<Mutex<HashSet<UserName>>>,
    logins: Mutex<HashMap<UserName, Duration>>,
    clock: Arc<dyn Clock>,
}

impl Default for MaildropLocks {
    fn default() -> MaildropLocks {
        MaildropLocks { locked: Arc::default(), logins: Mutex::default(), clock: Arc::new(SystemClock::new()) }
    }
}

impl MaildropLocks {
    /// How long a login should have waited, where it came less than `delay` after the last one that was [let in](MaildropLocks::let_in). Kept in memory: a
    /// new holder lets everybody in.
    pub fn too_soon(&self, user: &UserName, delay: Duration) -> Option<Duration> {
        let since = self.logins.lock().get(user).map(|last| self.clock.now().saturating_sub(*last))?;
        Some(delay.saturating_sub(since)).filter(|left| !left.is_zero())
    }
    /// Counts a login.
    pub fn let_in(&self, user: &UserName, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        let now = self.clock.now();
        let mut logins = self.logins.lock();
        if logins.len() >= FORGET_ABOVE {
            logins.retain(|_, last| now.saturating_sub(*last) < delay);
        }
        logins.insert(user.clone(), now);
    }

    /// `None`: another session has it.
    pub fn try_lock(&self, user: &UserName) -> Option<MaildropLock> {
        let free = self.locked.lock().insert(user.clone());
        free.then(|| MaildropLock { user: user.clone(), locked: Arc::clone(&self.locked) })
    }
}

/// The right to one user's maildrop, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it frees the maildrop"]
pub struct MaildropLock {
    user: UserName,
    locked: Arc<Mutex<HashSet<UserName>>>,
}

impl Drop for MaildropLock {
    fn drop(&mut self) {
        self.locked.lock().remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_logs_in_again_after_the_delay_and_not_before() {
        let clock = affinity::TestClock::default();
        let locks = MaildropLocks { clock: Arc::new(clock.clone()), ..MaildropLocks::default() };
        let (ada, delay) = (UserName::normalise("ada").unwrap(), Duration::from_secs(60));
        assert_eq!((locks.too_soon(&ada, delay), locks.too_soon(&ada, delay)), (None, None), "who was not let in has not logged in");
        locks.let_in(&ada, delay);
        clock.advance(Duration::from_secs(59));
        assert_eq!(locks.too_soon(&ada, delay), Some(Duration::from_secs(1)));
        assert_eq!(locks.too_soon(&UserName::normalise("grace").unwrap(), delay), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(locks.too_soon(&ada, delay), None, "a refused login is no login");
        assert_eq!(locks.too_soon(&ada, Duration::ZERO), None);
    }

    #[test]
    fn a_maildrop_has_one_session_at_a_time() {
        let locks = MaildropLocks::default();
        let ada = UserName::normalise("ada").unwrap();
        let first = locks.try_lock(&ada).unwrap();
        assert!(locks.try_lock(&ada).is_none());
        assert!(locks.try_lock(&ada).is_none(), "a refused session frees nothing");
        let _other = locks.try_lock(&UserName::normalise("grace").unwrap()).unwrap();
        drop(first);
        assert!(locks.try_lock(&ada).is_some());
    }
}
