//! Who makes room when there is more to do than this host can do: connections that have been asking a lot.
//!
//! Every connection gets its turn after all others that have something to do, so thousands that ask without a pause make each turn late for
//! everybody. How late turns are is measured all the time. While they are late, a connection that has used up its credit of commands rests between
//! pieces of input, the longer the later turns are; one that asks now and then has credit left, and waits for nobody. Where turns are in time, nothing
//! rests, and the bytes of messages are no commands.
//!
//! Invariants, each with the test that guards it:
//! - who asks a lot rests while turns are late, and only then (`who_asks_a_lot_rests_while_turns_are_late`)
//! - credit comes back with time (`credit_comes_back`)

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How often lateness is measured: often enough to answer within a client's patience, rare enough to cost nothing.
const MEASURED_EVERY: Duration = Duration::from_millis(20);
/// Turns later than this are late: timers of an idle host are 1 or 2 ms late.
const LATE: Duration = Duration::from_millis(25);
/// Commands that a connection may send ahead: more than a mail program needs to log in and look at its mailboxes.
const CREDIT_MAX: u32 = 200;
/// How often one more comes back.
const CREDIT_EVERY: Duration = Duration::from_millis(100);
/// A rest, in times of how late turns are: so many connections can share one turn's time.
const REST_FACTOR: u32 = 16;
/// Longest rest: no client takes it for the end.
const REST_MAX: Duration = Duration::from_secs(5);

/// How late turns were of late, in microseconds.
static LATENESS: AtomicU64 = AtomicU64::new(0);

/// Measures for as long as the node runs.
pub async fn measure() {
    loop {
        let due = Instant::now() + MEASURED_EVERY;
        sleep_until(due).await;
        let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        // What was seen fades within half a second or so.
        let before = LATENESS.load(Ordering::Relaxed);
        LATENESS.store(late.max(before - before / 8), Ordering::Relaxed);
    }
}

fn lateness() -> Duration {
    Duration::from_micros(LATENESS.load(Ordering::Relaxed))
}

/// What one connection may ask before it rests.
#[derive(Debug, Clone, Copy)]
pub struct Credit {
    left: u32,
    since: Option<Instant>,
}

impl Default for Credit {
    fn default() -> Credit {
        Credit { left: CREDIT_MAX, since: None }
    }
}

impl Credit {
    /// So many commands came; `Some`: rest that long before the next.
    pub fn spend(&mut self, commands: u32) -> Option<Duration> {
        self.spend_while(commands, lateness())
    }

    fn spend_while(&mut self, commands: u32, lateness: Duration) -> Option<Duration> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let back = u32::try_from(now.duration_since(since).as_millis() / CREDIT_EVERY.as_millis()).unwrap_or(u32::MAX);
        if back > 0 {
            self.left = self.left.saturating_add(back).min(CREDIT_MAX);
            self.since = Some(now);
        }
        if let Some(left) = self.left.checked_sub(commands) {
            self.left = left;
            return None;
        }
        self.left = 0;
        (lateness > LATE).then(|| (lateness * REST_FACTOR).min(REST_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn who_asks_a_lot_rests_while_turns_are_late() {
        let mut credit = Credit::default();
        for _ in 0..CREDIT_MAX {
            assert_eq!(credit.spend_while(1, SOME), None);
        }
        assert_eq!(credit.spend_while(1, SOME), Some(SOME * REST_FACTOR));
        assert_eq!(credit.spend_while(1, Duration::from_secs(60)), Some(REST_MAX));
        assert_eq!(credit.spend_while(1, LATE), None, "turns are in time");
    }

    #[tokio::test(start_paused = true)]
    async fn credit_comes_back() {
        let mut credit = Credit::default();
        while credit.spend_while(1, SOME).is_none() {}
        tokio::time::advance(CREDIT_EVERY * 3).await;
        for _ in 0..3 {
            assert_eq!(credit.spend_while(1, SOME), None);
        }
        assert!(credit.spend_while(1, SOME).is_some());
        tokio::time::advance(CREDIT_EVERY * 1_000).await;
        assert_eq!((0..1_000).filter(|_| credit.spend_while(1, SOME).is_none()).count(), CREDIT_MAX as usize, "no more than at the start");
    }
}
