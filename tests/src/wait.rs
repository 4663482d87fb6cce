//! Waiting for an event, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at. Short, because failover times are measured with it.
const POLL: Duration = Duration::from_millis(20);

/// Now, on the monotonic clock: tests measure real programs, whose time nobody can move.
#[expect(clippy::disallowed_methods, reason = "real programs are measured in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// A moment after which waiting is given up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Deadline {
        Deadline { start: now(), limit }
    }

    /// `seconds` from now.
    pub fn seconds(seconds: u64) -> Deadline {
        Deadline::after(Duration::from_secs(seconds))
    }

    /// What is left; zero when it has passed.
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }

    /// Time since it was set.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether nothing is left.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// Looks at `condition` until it gives a value. The error says `what` did not come and why, as far as the last look told.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(why) if deadline.passed() => bail!("{what} did not happen within {limit:?}: {why:#}"),
            Err(_) => thread::sleep(POLL.min(deadline.left())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_gives_the_value_as_soon_as_it_is_there() {
        let mut looks = 0;
        let value = until("a third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { bail!("only look {looks}") }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn waiting_in_vain_says_what_was_waited_for_and_why_it_did_not_come() {
        let error = until("the moon", Duration::from_millis(30), || -> Result<()> { bail!("it is day") }).unwrap_err().to_string();
        assert!(error.contains("the moon") && error.contains("it is day"), "{error}");
    }
}
