//! Which node may serve a user.
//!
//! State lives in the *names* of files on a shared directory, changed by compare-and-rename alone, so that no lock, broker or
//! agreed wall clock is needed (ARCHITECTURE.md, Affinity).

pub mod clock;
pub mod ending;
pub mod error;
#[cfg(test)]
mod faulty;
pub mod ids;
pub mod inspect;
pub mod keeper;
pub mod lease;
#[cfg(test)]
mod model;
pub mod names;
pub mod owner;
pub mod placement;
pub mod protocol;
pub mod root;
pub mod settings;
#[cfg(test)]
mod simulation;
pub mod swap;

pub use clock::{Clock, SystemClock, TestClock};
pub use ending::{EndedFile, Ending, TenureEnd};
pub use error::AffinityError;
pub use ids::{Address, Epoch, HolderId, Incarnation, NameError, NameRules, NodeName, UserName};
pub use inspect::{LeaseSeen, NodeSeen};
pub use keeper::{Acquired, Event, Keeper, KeeperConfig, NodeState, Peer, Seen};
pub use lease::{Handover, Lease, LeaseLost, Tenure};
pub use placement::{Rule, Wish};
pub use root::{ClusterFile, NodeInfo, Publish, Root, Timings};
pub use settings::Tag;
pub use swap::open_undelegated;
