//! The rules as plain functions from what was seen to what to do: no files, no clock, no threads. Times are passed in and are the node's own.
//!
//! [`crate::keeper`] drives them over a real directory; the model (`model.rs`) over one in memory in every order of crashes, pauses, lost replies and
//! late requests up to a bound; the simulation (`simulation.rs`) over longer histories at random. Each rule names the test that fails without it
//! (ARCHITECTURE.md has them all):
//! - a fence names the very beat that was observed (`without_exact_fences_a_node_that_moved_on_is_fenced`)
//! - `self_limit` is shorter than `dead_after`, by a margin (`without_a_margin_clocks_of_unequal_rate_let_two_nodes_acknowledge`)
//! - `nodes/` is listed after the lease folder (`with_an_older_listing_of_nodes_a_live_holder_loses_its_lease`)
//! - a won beat counts from the start of its first try (`counting_a_beat_from_its_last_try_two_nodes_acknowledge`)
//! - one listing without a holder proves nothing: a rename may have hidden it (`trusting_one_listing_a_live_holder_loses_its_lease`)
//! - a lease that is ours by name only is taken anew (`keeping_an_unknown_lease_a_late_release_takes_it_away`)
//! - an outage counts against nobody (`counting_time_without_listings_an_outage_moves_users`)

pub mod acquire;
pub mod beat;
pub mod release;
pub mod roll;
pub mod tidy;
pub mod watch;

pub use acquire::{Acquire, Attempt, Verdict};
pub use beat::{Beat, BeatOutcome};
pub use release::{Release, ReleaseStep, ReleaseVerdict};
pub use roll::Roll;
pub use watch::{Sighting, Watch};

use std::time::Duration;

use crate::swap::Swapped;

/// How a request for a swap ended; an error leaves open whether it took effect, or will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Decided.
    Swapped(Swapped),
    /// An error.
    Unknown,
}

/// Shortest time between the end of one try of a beat and the start of the next. [`Roll`] counts on it: so few renames can hide a holder.
pub fn beat_gap_min(beat: Duration) -> Duration {
    beat / 2
}
