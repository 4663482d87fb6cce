//! One POP3 session per maildrop (RFC 1939 §4), on the node that holds the user's lease. IMAP sessions don't count.
//!
//! Invariants, each with the test that guards it:
//! - two sessions never have one user's maildrop (`a_maildrop_has_one_session_at_a_time`)
//! - however a session ends, its maildrop is free again: the lock is a value that frees it when dropped

use std::{collections::HashSet, sync::Arc};

use affinity::UserName;
use parking_lot::Mutex;

/// The maildrops that are in use on this node.
#[derive(Debug, Default)]
pub struct MaildropLocks {
    locked: Arc<Mutex<HashSet<UserName>>>,
}

impl MaildropLocks {
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
