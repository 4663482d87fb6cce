//! How many deliveries of one user are under way at once: a flood for one mailbox leaves the file system to the others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use affinity::UserName;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Users known at once before those without deliveries are forgotten.
const FORGET_ABOVE: usize = 1024;

/// One gate for each user who has deliveries.
#[derive(Debug, Default)]
pub struct Gates {
    by_user: Mutex<HashMap<UserName, Weak<Semaphore>>>,
}

impl Gates {
    /// Waits until fewer than `at_once` of this user's deliveries are under way; `None`: not within `patience`.
    pub async fn enter(&self, user: &UserName, at_once: usize, patience: Duration) -> Option<OwnedSemaphorePermit> {
        let gate = self.gate(user, at_once);
        timeout(patience, gate.acquire_owned()).await.ok()?.ok()
    }

    fn gate(&self, user: &UserName, at_once: usize) -> Arc<Semaphore> {
        let mut by_user = self.by_user.lock();
        if let Some(gate) = by_user.get(user).and_then(Weak::upgrade) {
            return gate;
        }
        if by_user.len() >= FORGET_ABOVE {
            by_user.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = Arc::new(Semaphore::new(at_once));
        by_user.insert(user.clone(), Arc::downgrade(&gate));
        gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_users_deliveries_wait_for_each_other_and_for_nobody_else() {
        let gates = Gates::default();
        let user = |name: &str| UserName::normalise(name).unwrap();
        let patience = Duration::from_secs(30);
        let first = gates.enter(&user("ada"), 2, patience).await.unwrap();
        let _second = gates.enter(&user("ada"), 2, patience).await.unwrap();
        assert!(gates.enter(&user("ada"), 2, patience).await.is_none(), "a third waits, and not for ever");
        assert!(gates.enter(&user("bob"), 2, patience).await.is_some());
        drop(first);
        assert!(gates.enter(&user("ada"), 2, patience).await.is_some());
        for n in 0..5_000 {
            drop(gates.enter(&user(&format!("user{n}")), 2, patience).await);
        }
        assert!(gates.by_user.lock().len() <= FORGET_ABOVE + 1, "who has no deliveries is forgotten");
        assert!(gates.enter(&user("ada"), 1, patience).await.is_some(), "but nobody who has some");
    }
}
