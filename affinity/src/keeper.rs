//! Drives the rules over the shared directory: one per process.
//!
//! Invariants, each with the test that guards it:
//! - a directory that hangs suspends the node by its clock alone, and disconnects nobody (`a_hung_directory_suspends_and_resumes`)
//! - a fenced node drops everything it held and comes back as somebody else (`a_fenced_node_drops_its_leases_and_rejoins`)
//! - a handover is repeated until it was dealt with (`a_handover_is_repeated_until_it_is_taken_over`)
//! - whatever one try to take a lease leaves unknown, the next one knows (`an_error_after_a_won_swap_is_resolved`)
//! - what a dead node left half done goes away, and its late requests do no harm then (`what_a_dead_node_left_is_cleared_and_its_late_requests_do_no_harm`)
//! - a release that failed is repeated until the directory says so (`a_release_that_failed_is_not_done_until_the_lease_is_free`)
//! - two processes of one host never run one node (`a_node_runs_once_per_host`)
//! - a thread that ends is told, and where it was that of the beats, nothing is acknowledged any more (`a_thread_that_panics_is_told`)
//! - a process that did not run says so, and does not blame the file server (`a_process_that_stood_still_says_so`)
//!
//! Threads of its own: one beats, one watches, one looks at the clock, one clears what the dead left. Each can hang in the shared directory
//! without stopping the others. What callers ask for runs on the runtime's blocking threads, bounded.

mod engine;
mod join;
mod stand;
mod stop;
#[cfg(test)]
mod tests;
mod threads;
mod tidy;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::broadcast;

use crate::{
    AffinityError, Clock, Ending, Epoch, Handover, HolderId, Lease, NodeInfo, NodeName, Publish, Root, Tenure, TenureEnd, UserName,
    placement::{self, Wish},
    root::io_error,
    settings::{NodeSettings, Tag},
    swap::{MountedDirectory, SharedDirectory},
};
use engine::Engine;
pub(crate) use engine::{describe, list_lease};
pub(crate) use threads::read_info;

/// What a keeper needs to know.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// The cluster.
    pub root: Root,
    /// Our node name.
    pub node: NodeName,
    /// Host-local folder for the lock on the node name.
    pub lock_dir: PathBuf,
    /// What we publish.
    pub info: Arc<dyn Publish>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Whether this node may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Beats are won.
    Up,
    /// The last won beat is older than `self_limit`: acknowledges nothing, waits.
    Suspended,
    /// Fenced (rejoining) or left.
    Out,
}

/// Another node (or this one), as the last fresh listings showed it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who.
    pub holder: HolderId,
    /// The beat seen last.
    pub beat: u64,
    /// How long the beat has not changed over successful listings.
    pub unchanged_for: Duration,
    /// Unchanged for `dead_after`: about to be fenced, or cleared.
    pub suspect: bool,
    /// Takes no new users (`settings/<node>/drain`).
    pub draining: bool,
    /// It says that it can't serve as it should (`settings/<node>/trouble`).
    pub trouble: bool,
    /// Share of new users (`settings/<node>/weight`), 100 unless set.
    pub weight: u32,
    /// Its labels (`settings/<node>/tags`).
    pub tags: BTreeSet<Tag>,
    /// What it published; `None` until read.
    pub info: Option<Arc<NodeInfo>>,
}

impl Peer {
    /// Whether new users are placed on it as long as it is up.
    pub fn takes_users(&self) -> bool {
        !self.draining && !self.trouble && self.weight > 0
    }
}

/// What a fresh listing of a user's lease folder says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The highest epoch.
    pub epoch: Epoch,
    /// Its holder; `None`: free, or never held.
    pub holder: Option<HolderId>,
}

/// The answer to [`Keeper::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// Ours now (or already).
    Mine {
        /// The proof.
        lease: Lease,
        /// What the previous holder left.
        handover: Handover,
    },
    /// A live node has it.
    HeldBy(HolderId),
    /// A suspect node has it: wait for the watch to fence or clear it, then ask again.
    Suspect(HolderId),
}

/// What happens to nodes and leases, as it happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// A node was seen for the first time.
    NodeUp(HolderId),
    /// A node is gone.
    NodeDown {
        #[allow(missing_docs)]
        holder: HolderId,
        /// As far as it could be read.
        ending: Ending,
        /// How long it had given no sign of life, as this node saw it; where others fenced it for that, `dead_after` at least.
        silent_for: Duration,
    },
    /// A node's beat stands still.
    NodeSuspect(HolderId),
    /// We fenced a node.
    Fenced(HolderId),
    /// We were fenced: everything of this tenure must be dropped without another write.
    TenureOver {
        #[allow(missing_docs)]
        tenure: Arc<Tenure>,
        /// So long did this process not run before it.
        stood_still: Option<Duration>,
    },
    /// Why that was, as far as it could be found out afterwards.
    Ended(TenureEnd),
    /// We are back under a new incarnation.
    Rejoined(HolderId),
    /// Beats fail; nothing may be acknowledged.
    Suspended {
        /// So long did this process not run, which is why; `None`: contact with the shared directory is lost.
        stood_still: Option<Duration>,
    },
    /// Contact is back, nobody fenced us: everything goes on.
    Resumed,
    /// We hold this user's lease now.
    Acquired {
        #[allow(missing_docs)]
        user: UserName,
        #[allow(missing_docs)]
        epoch: Epoch,
        #[allow(missing_docs)]
        handover: Handover,
    },
    /// We released it.
    Released {
        #[allow(missing_docs)]
        user: UserName,
        #[allow(missing_docs)]
        epoch: Epoch,
    },
    /// Another host took our node name: the process must say so and exit.
    NameTaken {
        #[allow(missing_docs)]
        theirs: HolderId,
        /// The addresses of its relay.
        at: String,
    },
}

/// This process's membership in the cluster. Cheap to clone. When the last one is dropped, the beats stop as in a crash: [`Keeper::leave`] is
/// the friendly way.
#[derive(Debug, Clone)]
pub struct Keeper {
    engine: Arc<Engine>,
    /// Stops the threads, which have the engine too.
    _membership: Arc<Membership>,
}

#[derive(Debug)]
struct Membership(Arc<Engine>);

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Keeper {
    /// Joins the cluster (blocking: call before the runtime takes traffic, or from `spawn_blocking`) and starts the beat and watch threads.
    pub fn join(config: KeeperConfig) -> Result<Keeper, AffinityError> {
        let directory = MountedDirectory::new(config.root.path()).map_err(io_error("can't look at", config.root.path()))?;
        Keeper::join_over(config, Arc::new(directory))
    }
    /// Joins over any directory.
    pub(crate) fn join_over(config: KeeperConfig, directory: Arc<dyn SharedDirectory>) -> Result<Keeper, AffinityError> {
        let engine = threads::start(config, directory)?;
        Ok(Keeper { _membership: Arc::new(Membership(Arc::clone(&engine))), engine })
    }
    /// The present incarnation (changes when we were fenced and rejoined).
    pub fn me(&self) -> HolderId {
        self.engine.tenure().holder().clone()
    }
    /// The present tenure.
    pub fn tenure(&self) -> Arc<Tenure> {
        self.engine.tenure()
    }
    /// Whether this node may act.
    pub fn state(&self) -> NodeState {
        self.engine.state()
    }
    /// Waits while the node is suspended or rejoining, at most `limit`; whether it is up afterwards.
    pub async fn wait_until_up(&self, limit: Duration) -> bool {
        let mut changes = self.engine.changes();
        let up = async {
            // The sender lives as long as `self`: no change is missed, and waiting ends with `limit` at the latest.
            while self.state() != NodeState::Up && changes.changed().await.is_ok() {}
        };
        // Whether it ran out of time shows in the state as well.
        tokio::time::timeout(limit, up).await.ok();
        self.state() == NodeState::Up
    }
    /// For how long this process stood still a moment ago, if it did: links and peers may be gone for that.
    pub fn stood_still(&self) -> Option<Duration> {
        self.engine.stood_still()
    }
    /// Resolves when one of the threads has ended that must not, with which and how: the process can't go on as a node. Safe to cancel.
    pub async fn broken(&self) -> String {
        self.engine.broken_down().await
    }
    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.engine.events()
    }
    /// Every node in `nodes/` as of the last watch, this one included, sorted by name.
    pub fn peers(&self) -> Vec<Peer> {
        self.engine.view().peers.clone()
    }
    /// One peer.
    pub fn peer(&self, holder: &HolderId) -> Option<Peer> {
        self.engine.view().peers.iter().find(|peer| peer.holder == *holder).cloned()
    }
    /// What operators set for a node, as of the last look (every few beats).
    pub fn settings(&self, node: &NodeName) -> Arc<NodeSettings> {
        self.engine.view().settings.of(node)
    }
    /// A fresh look at who holds `user`; never changes anything (also for users who never had a lease).
    pub async fn look(&self, user: &UserName) -> Result<Seen, AffinityError> {
        Engine::look(&self.engine, user.clone()).await
    }
    /// Takes the lease if it is free or its holder is dead.
    ///
    /// A lease that is ours already is given out again: with the handover it was won with until [`Lease::taken_over`], clean from then on.
    pub async fn acquire(&self, user: &UserName) -> Result<Acquired, AffinityError> {
        Engine::acquire(&self.engine, user.clone()).await
    }
    /// Gives the lease back. Only after the account is closed: all durable, index checkpointed. A lease that was won unclean and whose
    /// account was never opened must not be given back: nobody else would know that a takeover is due.
    ///
    /// No clone of the lease is live from the begin of the call on, unless it answers [`AffinityError::Suspended`]: then nothing happened.
    pub async fn release(&self, lease: Lease) -> Result<(), AffinityError> {
        Engine::release(&self.engine, lease).await
    }
    /// The leases we hold, sorted by user.
    pub fn held(&self) -> Vec<(UserName, Epoch)> {
        self.engine.held()
    }
    /// Where an operator pinned `user` to.
    pub fn pin_of(&self, user: &UserName) -> Option<NodeName> {
        self.engine.view().settings.pin_of(user).cloned()
    }
    /// The node that a user without a holder is placed on ([`placement::place`]). `None`: no node that may have the user is up.
    pub fn place(&self, user: &UserName, wish: &Wish) -> Option<HolderId> {
        placement::place(user, wish, self.engine.view().peers.iter()).map(|placed| placed.on.clone())
    }
    /// Has `nodes/` listed now: there is a sign that somebody joined or left. Otherwise that is seen within a beat.
    /// At most five times in a second.
    pub fn look_soon(&self) {
        self.engine.look_soon();
    }
    /// Reads the settings now: somebody changed them a moment ago, and told us. Otherwise they are read every few beats.
    pub async fn read_settings(&self) -> Result<(), AffinityError> {
        self.engine.read_settings().await
    }
    /// Says under `settings/` that this node can't serve as it should, and why, or (`None`) that it can again.
    pub async fn say_trouble(&self, why: Option<&str>) -> Result<(), AffinityError> {
        Engine::say_trouble(&self.engine, why.unwrap_or_default().to_owned()).await
    }
    /// Gives up every lease at once, as if we had been fenced, and comes back as somebody else: for a node that can't close its accounts.
    pub fn resign(&self) {
        self.engine.resigning.store(true, std::sync::atomic::Ordering::SeqCst);
    }
    /// Moves our node file to `fenced/` and stops the threads. After every lease was released.
    pub async fn leave(&self) -> Result<(), AffinityError> {
        self.engine.leave().await
    }
}
