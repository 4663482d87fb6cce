//! Monotonic time; the only place that reads a clock.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

/// Where the time comes from: the system's, or a test's.
pub trait Clock: Send + Sync + Debug {
    /// Time since some fixed moment of this process.
    fn now(&self) -> Duration;
}

/// `CLOCK_BOOTTIME`: monotonic, and a machine that slept sees that time passed (`Instant` stands still meanwhile, so that a node
/// which was fenced in its sleep would still believe in its last beat).
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Duration,
}

impl SystemClock {
    /// Starts at zero now.
    #[expect(clippy::new_without_default, reason = "reading the clock is not a default value")]
    pub fn new() -> SystemClock {
        SystemClock { start: since_boot() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        since_boot().saturating_sub(self.start)
    }
}

fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Wall-clock time: for INTERNALDATE, Received and what people read; no decision of the protocol depends on it.
#[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A clock that a test moves.
#[derive(Debug, Clone, Default)]
pub struct TestClock {
    micros: Arc<AtomicU64>,
}

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::SeqCst))
    }
}
