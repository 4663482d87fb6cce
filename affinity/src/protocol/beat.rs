//! A node's own sign of life.

use std::time::Duration;

use super::Answer;
use crate::{HolderId, names::NodeFile, swap::Swapped};

/// Our node file, and the try to move it on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Beat {
    holder: HolderId,
    number: u64,
    /// When the first try of the present number began. A try whose reply was lost may have been seen by others since then, so that is
    /// where the validity of the beat counts from.
    pub(crate) first_try: Option<Duration>,
}

/// What a try of a beat means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BeatOutcome {
    /// This node may acknowledge until then.
    ValidUntil(Duration),
    /// Somebody declared us dead.
    Fenced,
    /// Nobody knows yet.
    TryAgain,
}

impl Beat {
    /// The node file was created, with beat 0.
    pub fn new(holder: HolderId) -> Beat {
        Beat { holder, number: 0, first_try: None }
    }
    /// The node file as of the last won beat.
    pub fn current(&self) -> NodeFile {
        NodeFile { holder: self.holder.clone(), beat: self.number }
    }
    /// The node file after the next won beat.
    pub fn next(&self) -> NodeFile {
        NodeFile { holder: self.holder.clone(), beat: self.number.saturating_add(1) }
    }
    /// A try begins now: swap the first for the second.
    pub fn attempt(&mut self, now: Duration) -> (NodeFile, NodeFile) {
        self.first_try.get_or_insert(now);
        (self.current(), self.next())
    }
    /// The try was answered.
    pub fn answered(&mut self, answer: Answer, self_limit: Duration) -> BeatOutcome {
        match (answer, self.first_try) {
            (Answer::Swapped(Swapped::Won), Some(began)) => {
                self.number = self.number.saturating_add(1);
                self.first_try = None;
                BeatOutcome::ValidUntil(began.saturating_add(self_limit))
            }
            (Answer::Swapped(Swapped::Lost), _) => BeatOutcome::Fenced,
            (Answer::Unknown, _) | (_, None) => BeatOutcome::TryAgain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    const LIMIT: Duration = Duration::from_secs(5);

    fn beat() -> Beat {
        Beat::new(HolderId { node: "a".parse().unwrap(), incarnation: Incarnation::random() })
    }

    #[test]
    fn a_won_beat_counts_from_its_first_try() {
        let mut beat = beat();
        let first = beat.attempt(Duration::from_secs(10));
        assert_eq!(beat.answered(Answer::Unknown, LIMIT), BeatOutcome::TryAgain);
        assert_eq!(beat.attempt(Duration::from_secs(17)), first, "the same names again, since the first try may have worked");
        assert_eq!(beat.answered(Answer::Swapped(Swapped::Won), LIMIT), BeatOutcome::ValidUntil(Duration::from_secs(15)));
        beat.attempt(Duration::from_secs(18));
        assert_eq!(beat.answered(Answer::Swapped(Swapped::Won), LIMIT), BeatOutcome::ValidUntil(Duration::from_secs(23)));
        assert_eq!(beat.current().beat, 2);
    }

    #[test]
    fn a_lost_beat_means_fenced() {
        let mut beat = beat();
        beat.attempt(Duration::ZERO);
        assert_eq!(beat.answered(Answer::Swapped(Swapped::Lost), LIMIT), BeatOutcome::Fenced);
    }
}
