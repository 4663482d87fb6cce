//! When something that failed is tried again: soon at first, then more and more seldom, so that a file system that is full is not worked on all the time.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// At most: what waits is durable, and other programs see it that much later.
const LONGEST: Duration = Duration::from_secs(20);

/// How often something failed in a row, and since when it may be tried again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retry {
    failures: u32,
    not_before: Duration,
}

impl Retry {
    /// Whether it may be tried.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.not_before
    }
    /// It failed; whether that is news.
    pub fn failed(&mut self, now: Duration) -> bool {
        self.not_before = now + (FIRST * 2_u32.pow(self.failures.min(8))).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }
    /// It worked; whether that is news.
    pub fn worked(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_more_and_more_seldom_and_told_once() {
        let mut retry = Retry::default();
        let at = Duration::from_secs;
        assert!(retry.is_due(at(0)) && !retry.worked());
        let (mut now, mut pauses) = (at(100), Vec::new());
        for round in 0..7 {
            assert_eq!(retry.failed(now), round == 0);
            let pause = (0..).map(at).find(|pause| retry.is_due(now + *pause)).unwrap();
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 20, 20]);
        assert!(retry.worked() && retry.is_due(now) && !retry.worked());
    }
}
