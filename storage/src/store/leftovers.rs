//! What was made of messages that are gone is swept in the background: an expunge writes what must be durable alone.
//!
//! Invariants, each with the test that guards it:
//! - an index is not larger for messages that are gone (`what_was_made_of_messages_that_are_gone_is_swept`)
//! - copies have what was made of their originals, even if these are gone before it is written (`copies_have_what_was_made_of_originals_that_are_gone`)

use std::sync::atomic::Ordering;

use index::Leftover;

use super::Store;
use crate::StorageError;

/// Runs of messages that are looked at in one round.
const RUNS_AT_ONCE: u32 = 4096;
/// Rows deleted by one commit: some milliseconds, for which deliveries may have to wait.
const ROWS_AT_ONCE: u32 = if cfg!(test) { 16 } else { 4096 };
/// Commits of one round: other accounts have their turns.
const SWEEPS_AT_ONCE: usize = 16;

impl Store {
    /// What is to be swept now. From memory, where nothing was expunged.
    pub fn leftovers(&self) -> Vec<Leftover> {
        if !self.leftovers.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        let found = self.with_writer(|index| index.leftovers(RUNS_AT_ONCE));
        let more = found.as_ref().map_or(true, |found| !found.is_empty());
        self.leftovers.fetch_or(more, Ordering::SeqCst);
        found.unwrap_or_else(|error| {
            tracing::debug!(%error, "what is to be swept can't be read");
            Vec::new()
        })
    }
    /// Sweeps these, or as much as one round may.
    pub fn sweep(&self, mut leftovers: Vec<Leftover>) -> Result<(), StorageError> {
        for _ in 0..SWEEPS_AT_ONCE {
            if leftovers.is_empty() {
                break;
            }
            leftovers = self.change(|change| change.sweep(&leftovers, ROWS_AT_ONCE))?;
        }
        Ok(())
    }
}
