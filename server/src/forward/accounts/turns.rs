//! Turns for work on accounts (closing them, writing back): a few have them at once, and one whose file server does not answer holds the others up for a while only.
//!
//! Invariants, each with the test that guards it:
//! - accounts that can't be closed keep nobody from closing others (`a_close_that_hangs_gives_its_turn_to_others`)
//! - and take a bounded number of threads (`few_closes_that_hang_give_their_turns_away`)

use std::{pin::pin, sync::Arc, time::Duration};

use affinity::UserName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long it may take before others go on beside it: with all that is to be written back it takes seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Those that go on without a turn: each holds a thread of the blocking pool, which has 512.
const LATE_MAX: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    late: Arc<Semaphore>,
}

/// The right to work on one account.
#[derive(Debug)]
pub(super) struct Turn {
    /// `None`: the node ends.
    permit: Option<OwnedSemaphorePermit>,
    late: Arc<Semaphore>,
}

impl Turns {
    pub fn new(parallel: usize) -> Turns {
        Turns { free: Arc::new(Semaphore::new(parallel.max(1))), late: Arc::new(Semaphore::new(LATE_MAX)) }
    }
    /// `None`: all are taken.
    pub fn try_take(&self) -> Option<Turn> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Turn { permit: Some(permit), late: self.late.clone() })
    }
    /// Waits for one.
    pub async fn take(&self) -> Turn {
        // It is never closed.
        Turn { permit: self.free.clone().acquire_owned().await.ok(), late: self.late.clone() }
    }
}

impl Turn {
    /// Does `work` on `user`'s account; the turn is over then, or after `patience` where that takes longer.
    pub async fn spend<T>(self, user: &UserName, patience: Duration, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = timeout(patience, &mut work).await {
            return done;
        }
        let limit = humantime::format_duration(patience);
        let Ok(_late) = self.late.try_acquire_owned() else {
            tracing::error!(%user, %limit, "work on an account takes longer than that, as on {LATE_MAX} others: is a file server away?");
            return work.await;
        };
        tracing::warn!(%user, %limit, "work on an account takes longer than that: others go on meanwhile. Is the file server of this user's mail away?");
        drop(self.permit);
        work.await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn hang(turn: Turn) {
        tokio::spawn(async move { turn.spend(&UserName::normalise("ada").unwrap(), PATIENCE, pending::<()>()).await });
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_that_hangs_gives_its_turn_to_others() {
        let turns = Turns::new(2);
        hang(turns.take().await);
        hang(turns.take().await);
        assert!(turns.try_take().is_none());
        let began = tokio::time::Instant::now();
        let turn = timeout(PATIENCE * 2, turns.take()).await.expect("others are closed");
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        assert_eq!(turn.spend(&UserName::normalise("bob").unwrap(), PATIENCE, async { 1 }).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn few_closes_that_hang_give_their_turns_away() {
        let turns = Turns::new(2);
        for _ in 0..LATE_MAX + 2 {
            hang(turns.take().await);
        }
        assert!(timeout(PATIENCE * 10, turns.take()).await.is_err());
    }
}
