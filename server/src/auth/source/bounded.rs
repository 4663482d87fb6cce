//! So much at once, and so many who wait for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Too many wait already, or the wait was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once")]
pub struct Busy;

/// Lets a few in and a bounded number wait.
#[derive(Debug)]
pub struct Bounded {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
}

impl Bounded {
    /// `at_once` in, `waiting_max` waiting for at most `wait_max`.
    pub fn new(at_once: usize, waiting_max: usize, wait_max: Duration) -> Bounded {
        Bounded { permits: Arc::new(Semaphore::new(at_once)), waiting: AtomicUsize::new(0), waiting_max, wait_max }
    }

    /// Waits for a turn; the permit is the turn.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, Busy> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(Busy);
        }
        let permit = timeout(self.wait_max, Arc::clone(&self.permits).acquire_owned()).await;
        drop(waiting);
        permit.map_err(|_| Busy)?.map_err(|_| Busy)
    }

    /// Turns that are free now.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

/// Counts down when dropped, also where the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_counted_and_not_for_ever() {
        let bounded = Bounded::new(1, 1, Duration::from_secs(5));
        let first = bounded.enter().await.unwrap();
        let (second, third) = tokio::join!(bounded.enter(), bounded.enter());
        assert_eq!((second.err(), third.err()), (Some(Busy), Some(Busy)), "one waits in vain, the other is not let in at all");
        assert_eq!(bounded.waiting.load(Ordering::Relaxed), 0);
        drop(first);
        assert!(bounded.enter().await.is_ok());
    }
}
