//! How far a long command is: on a terminal one line that changes, elsewhere a line now and then; on standard error.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use affinity::{Clock, SystemClock};

/// Between two lines where nobody watches.
const LINES_APART: Duration = Duration::from_secs(10);

/// Shows it.
#[derive(Debug)]
pub struct Progress {
    clock: SystemClock,
    terminal: bool,
    said: Duration,
    open_line: bool,
}

impl Progress {
    /// Nothing shown yet; the time begins now.
    #[expect(clippy::new_without_default, reason = "reading the clock is not a default value")]
    pub fn new() -> Progress {
        Progress { clock: SystemClock::new(), terminal: io::stderr().is_terminal(), said: Duration::ZERO, open_line: false }
    }

    /// How it is now.
    pub fn show(&mut self, text: &str) {
        let now = self.clock.now();
        if self.terminal {
            eprint!("\r{text}\x1b[K");
            self.open_line = true;
        } else if now.saturating_sub(self.said) >= LINES_APART {
            eprintln!("{text}");
            self.said = now;
        }
    }

    /// The time since the begin.
    pub fn elapsed(&self) -> Duration {
        self.clock.now()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.open_line {
            eprintln!();
        }
    }
}
