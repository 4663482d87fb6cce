//! Waiting for a holder that gives no sign of life: for what the watch sees, in memory, and not by asking the shared directory again and again.
//!
//! Invariants, each with the test that guards it:
//! - nobody asks the shared directory while the watch has yet to decide (`nobody_asks_again_while_the_holder_is_suspect`)
//! - whoever waits goes on as soon as the holder is seen to be gone, or to live (`whoever_waits_goes_on_when_the_holder_is_decided_about`)
//! - those who waited for dead nodes go on one after the other (`those_who_waited_for_a_dead_node_do_not_all_go_on_at_once`)
//! - whoever gave up makes nobody wait longer (`whoever_gives_up_is_not_counted`)

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use affinity::{HolderId, Keeper};
use tokio::time::{Instant, sleep};

/// How often it is looked in memory.
const LOOK: Duration = Duration::from_millis(50);
/// How far apart those who waited go on: a takeover takes some dozen requests.
const APART: Duration = Duration::from_millis(2);
/// Over how much time they are spread at most: they have waited for `dead_after` already.
const SPREAD_MAX: Duration = Duration::from_secs(2);

/// Those who wait on this node.
#[derive(Debug, Default)]
pub struct Waiting {
    count: AtomicUsize,
}

/// How a holder looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Gone,
    Suspect,
    Up,
}

impl Waiting {
    /// Until the holder is gone or, if it is suspect, cleared; at most `limit`, and `alive` for one that is up all the time: it can't be reached, and what
    /// its lease says may have changed.
    pub async fn for_holder(&self, keeper: &Keeper, holder: &HolderId, alive: Duration, limit: Duration) {
        let sign = || match keeper.peer(holder) {
            None => Sign::Gone,
            Some(peer) if peer.suspect => Sign::Suspect,
            Some(_) => Sign::Up,
        };
        self.until_decided(alive, limit, sign).await;
    }

    async fn until_decided(&self, alive: Duration, limit: Duration, sign: impl Fn() -> Sign) {
        let one = Counted::new(&self.count);
        let start = Instant::now();
        let mut was_suspect = false;
        loop {
            let limit = match sign() {
                Sign::Gone => {
                    let others = u32::try_from(one.0.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
                    return sleep((APART * others).min(SPREAD_MAX).mul_f64(rand::random())).await;
                }
                Sign::Up if was_suspect => return,
                Sign::Up => alive.min(limit),
                Sign::Suspect => {
                    was_suspect = true;
                    limit
                }
            };
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(LOOK.min(left)).await;
        }
    }
}

/// One who waits, until dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const ALIVE: Duration = Duration::from_secs(1);

    /// When each of `count` goes on, who wait for a holder that is suspect from the start, and then what `decided` says.
    async fn went_on(count: usize, decided: Sign) -> Vec<Duration> {
        let (waiting, start) = (Waiting::default(), Instant::now());
        let sign = || if start.elapsed() < Duration::from_secs(8) { Sign::Suspect } else { decided };
        let all = join_all((0..count).map(|_| async {
            waiting.until_decided(ALIVE, LIMIT, sign).await;
            start.elapsed()
        }));
        let mut times = all.await;
        assert_eq!(waiting.count.load(Ordering::SeqCst), 0);
        times.sort();
        times
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_on_when_the_holder_is_decided_about() {
        for decided in [Sign::Gone, Sign::Up] {
            let times = went_on(1, decided).await;
            assert!(times[0] >= Duration::from_secs(8) && times[0] < Duration::from_millis(8200), "{decided:?}: {times:?}");
        }
        assert_eq!(went_on(1, Sign::Suspect).await, [LIMIT]);
        // Who lives but can't be reached is asked again after the limit.
        let (waiting, start) = (Waiting::default(), Instant::now());
        waiting.until_decided(Duration::from_millis(150), LIMIT, || Sign::Up).await;
        assert_eq!(start.elapsed(), Duration::from_millis(150));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_again_while_the_holder_is_suspect() {
        let (waiting, start) = (Waiting::default(), Instant::now());
        // Its link breaks before the watch has a doubt.
        let sign = || match start.elapsed().as_millis() {
            0..500 => Sign::Up,
            500..30_000 => Sign::Suspect,
            _ => Sign::Up,
        };
        waiting.until_decided(ALIVE, LIMIT, sign).await;
        assert!(start.elapsed() >= Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_waited_for_a_dead_node_do_not_all_go_on_at_once() {
        let times = went_on(1000, Sign::Gone).await;
        assert!(times[999] < Duration::from_millis(10_200), "the last: {:?}", times[999]);
        for tenth in times.chunks(100) {
            assert!(tenth[99] - tenth[0] > Duration::from_millis(50), "a hundred within {:?}", tenth[99] - tenth[0]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_is_not_counted() {
        let waiting = Waiting::default();
        let all = join_all((0..1000).map(|_| waiting.until_decided(ALIVE, LIMIT, || Sign::Suspect)));
        assert!(tokio::time::timeout(Duration::from_secs(5), all).await.is_err());
        assert_eq!(waiting.count.load(Ordering::SeqCst), 0);
    }
}
