//! Whether this process ran: what a node that others fenced must know before it blames the file server.
//!
//! Invariant: it is blamed only where it would have had its beat in time if it had run (`a_stand_is_blamed_only_where_the_beats_did_not_fail_before`).

use std::time::Duration;

/// Looks at the clock, several in each beat, by threads of which one never waits for the shared directory.
#[derive(Debug)]
pub(super) struct Stand {
    looked: Duration,
    /// When a beat was won the last time that still counted.
    counted: Duration,
    /// All long times without a look since then.
    slept: Duration,
    /// Whether they are why the node was suspended, once it was.
    blamed: Option<bool>,
    /// When the last long time without a look ended, and how long it was.
    stood: Option<(Duration, Duration)>,
}

impl Stand {
    pub(super) fn new(now: Duration) -> Stand {
        Stand { looked: now, counted: now, slept: Duration::ZERO, blamed: None, stood: None }
    }
    /// A look. Half of `self_limit` without one counts: the rest may be what a beat takes, and without the stand the node would not be suspended.
    pub(super) fn look(&mut self, now: Duration, self_limit: Duration) {
        let gap = now.saturating_sub(self.looked);
        self.looked = now;
        if gap >= self_limit / 2 {
            self.slept = self.slept.saturating_add(gap);
            self.stood = Some((now, gap));
        }
    }
    /// A beat was won and counted.
    pub(super) fn beat(&mut self, now: Duration) {
        (self.counted, self.slept, self.blamed) = (now, Duration::ZERO, None);
    }
    /// The node is suspended, or its tenure over: how long the process stood still since the last beat that counted, if that is why. What is found first stays
    /// until the next such beat: what comes later did not suspend it.
    pub(super) fn blame(&mut self, self_limit: Duration) -> Option<Duration> {
        let ran = self.looked.saturating_sub(self.counted).saturating_sub(self.slept);
        let blamed = *self.blamed.get_or_insert(!self.slept.is_zero() && ran < self_limit);
        blamed.then_some(self.slept)
    }
    /// How long it stood still, if that ended within `time`.
    pub(super) fn within(&self, time: Duration) -> Option<Duration> {
        self.stood.filter(|(ended, _)| self.looked.saturating_sub(*ended) < time).map(|(_, gap)| gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn looks(stand: &mut Stand, quarters: std::ops::Range<u64>) {
        quarters.for_each(|quarter| stand.look(Duration::from_millis(quarter * 250), LIMIT));
    }

    #[test]
    fn a_stand_is_blamed_only_where_the_beats_did_not_fail_before() {
        let at = Duration::from_millis;
        let mut stand = Stand::new(at(0));
        looks(&mut stand, 1..41);
        stand.look(at(13_000), LIMIT);
        assert_eq!(stand.blame(LIMIT), None, "no beat for ten seconds, but it ran: the shared directory is away");
        assert_eq!(stand.within(at(8_000)), Some(at(3_000)), "links may have broken all the same");
        stand.beat(at(13_000));
        looks(&mut stand, 53..57);
        stand.look(at(34_000), LIMIT);
        assert_eq!(stand.blame(LIMIT), Some(at(20_000)));
        looks(&mut stand, 137..180);
        stand.look(at(47_750), LIMIT);
        assert_eq!(stand.blame(LIMIT), Some(at(23_000)), "all stands, whatever the beats do afterwards");
        stand.beat(at(47_750));
        assert_eq!(stand.blame(LIMIT), None, "nobody fenced it");
        looks(&mut stand, 192..240);
        assert_eq!(stand.within(at(8_000)), None);
    }

    #[test]
    fn what_comes_after_the_suspension_is_not_why() {
        let mut stand = Stand::new(Duration::ZERO);
        looks(&mut stand, 1..21);
        assert_eq!(stand.blame(LIMIT), None);
        stand.look(Duration::from_secs(60), LIMIT);
        assert_eq!(stand.blame(LIMIT), None);
    }
}
