//! When a node that has troubles stops taking users, and when it takes them again: not at the first hiccup, and not to and fro.
//!
//! Invariants, each with the test that guards it:
//! - one bad look changes nothing (`one_bad_look_is_a_hiccup`)
//! - users are given up only when the others had time to find the same trouble (`the_others_have_time_to_find_the_same_trouble`)
//! - who comes and goes is trusted less each time (`a_node_that_comes_and_goes_is_trusted_later_each_time`)

use std::time::Duration;

/// Bad looks in a row before a node is unfit.
const BAD_LOOKS: u32 = 2;
/// How long an unfit node keeps the users it has: a trouble of the file server is found by every node in this time, and then nobody moves.
const KEEP_FOR: Duration = Duration::from_secs(20);
/// How long all must be well before it is fit again.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// The same at most, however often it was unfit.
const GOOD_FOR_MAX: Duration = Duration::from_secs(600);
/// Who was fit for so long is trusted as before.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// Whether a node takes users, from what its looks showed.
#[derive(Debug)]
pub struct Fitness {
    unfit: bool,
    bad_looks: u32,
    good_since: Option<Duration>,
    good_for: Duration,
    changed: Duration,
}

impl Default for Fitness {
    fn default() -> Fitness {
        Fitness { unfit: false, bad_looks: 0, good_since: None, good_for: GOOD_FOR, changed: Duration::ZERO }
    }
}

impl Fitness {
    /// Whether it takes no users.
    pub fn is_unfit(&self) -> bool {
        self.unfit
    }
    /// Whether it has taken no users for so long that others with the same trouble would have said so.
    pub fn is_alone_with_it(&self, now: Duration) -> bool {
        self.unfit && now.saturating_sub(self.changed) >= KEEP_FOR
    }
    /// Whether the next look decides: it may come sooner.
    pub fn is_undecided(&self) -> bool {
        self.unfit || self.bad_looks > 0
    }
    /// An earlier start of this node said that it was unfit, and did not say that this was over.
    pub fn was_unfit(&mut self, now: Duration) {
        self.unfit = true;
        self.changed = now;
    }

    /// A look at `now` found the node able to serve, or not.
    pub fn saw(&mut self, now: Duration, bad: bool) {
        if bad {
            self.good_since = None;
            self.bad_looks += 1;
            if !self.unfit && self.bad_looks >= BAD_LOOKS {
                let fit_for = now.saturating_sub(self.changed);
                let is_first = self.changed == Duration::ZERO || fit_for >= FORGIVEN_AFTER;
                self.good_for = if is_first { GOOD_FOR } else { (self.good_for * 2).min(GOOD_FOR_MAX) };
                self.unfit = true;
                self.changed = now;
            }
            return;
        }
        self.bad_looks = 0;
        let since = *self.good_since.get_or_insert(now);
        if self.unfit && now.saturating_sub(since) >= self.good_for {
            self.unfit = false;
            self.changed = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_bad_look_is_a_hiccup() {
        let mut fitness = Fitness::default();
        for second in 1..100 {
            fitness.saw(at(second), second % 2 == 0);
            assert!(!fitness.is_unfit());
        }
        fitness.saw(at(100), true);
        assert!(fitness.is_undecided() && !fitness.is_unfit());
        fitness.saw(at(102), true);
        assert!(fitness.is_unfit());
    }

    #[test]
    fn the_others_have_time_to_find_the_same_trouble() {
        let mut fitness = Fitness::default();
        fitness.saw(at(1), true);
        fitness.saw(at(2), true);
        assert!(fitness.is_unfit() && !fitness.is_alone_with_it(at(2)) && !fitness.is_alone_with_it(at(21)));
        assert!(fitness.is_alone_with_it(at(22)));
        (3..40).for_each(|second| fitness.saw(at(second), false));
        assert!(!fitness.is_unfit() && !fitness.is_alone_with_it(at(100)));
    }

    #[test]
    fn all_must_be_well_for_a_while() {
        let mut fitness = Fitness::default();
        fitness.saw(at(1), true);
        fitness.saw(at(2), true);
        for second in 3..32 {
            fitness.saw(at(second), false);
        }
        fitness.saw(at(32), true);
        for second in 33..63 {
            fitness.saw(at(second), false);
            assert!(fitness.is_unfit(), "{second}: it starts anew after each trouble");
        }
        fitness.saw(at(63), false);
        assert!(!fitness.is_unfit());
    }

    #[test]
    fn a_node_that_comes_and_goes_is_trusted_later_each_time() {
        let mut fitness = Fitness::default();
        let (mut now, mut waits) = (1, Vec::new());
        for _ in 0..7 {
            fitness.saw(at(now), true);
            fitness.saw(at(now + 1), true);
            let began = now + 2;
            now = began;
            while fitness.is_unfit() {
                fitness.saw(at(now), false);
                now += 1;
            }
            waits.push(now - 1 - began);
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        now += 4000;
        fitness.saw(at(now), true);
        fitness.saw(at(now + 1), true);
        fitness.saw(at(now + 2), false);
        fitness.saw(at(now + 32), false);
        assert!(!fitness.is_unfit(), "after an hour without trouble it is trusted as before");
    }
}
