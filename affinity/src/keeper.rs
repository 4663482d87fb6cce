//! Drives the rules over the shared directory: one per process.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::broadcast;

use crate::{AffinityError, Clock, Epoch, Handover, HolderId, Lease, NodeInfo, NodeName, Root, Tenure, UserName};

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
    pub info: NodeInfo,
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
    /// Share of new users (`settings/<node>/weight`), 100 unless set.
    pub weight: u32,
    /// What it published; `None` until read.
    pub info: Option<Arc<NodeInfo>>,
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
    /// A node is gone: fenced (by whom is not recorded) or left.
    NodeDown(HolderId),
    /// A node's beat stands still.
    NodeSuspect(HolderId),
    /// We fenced a node.
    Fenced(HolderId),
    /// We were fenced: everything of this tenure must be dropped without another write.
    TenureOver(Arc<Tenure>),
    /// We are back under a new incarnation.
    Rejoined(HolderId),
    /// Contact with the shared directory is lost; nothing may be acknowledged.
    Suspended,
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
    },
}

/// This process's membership in the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keeper {}

impl Keeper {
    /// Joins the cluster (blocking: call before the runtime takes traffic, or from `spawn_blocking`) and starts the beat and watch threads.
    pub fn join(config: KeeperConfig) -> Result<Keeper, AffinityError> {
        let _ = config;
        todo!()
    }
    /// The present incarnation (changes when we were fenced and rejoined).
    pub fn me(&self) -> HolderId {
        todo!()
    }
    /// The present tenure.
    pub fn tenure(&self) -> Arc<Tenure> {
        todo!()
    }
    /// Whether this node may act.
    pub fn state(&self) -> NodeState {
        todo!()
    }
    /// Waits while the node is suspended or rejoining, at most `limit`; whether it is up afterwards.
    pub async fn wait_until_up(&self, limit: Duration) -> bool {
        let _ = limit;
        todo!()
    }
    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        todo!()
    }
    /// Every node in `nodes/` as of the last watch, this one included, sorted by name.
    pub fn peers(&self) -> Vec<Peer> {
        todo!()
    }
    /// One peer.
    pub fn peer(&self, holder: &HolderId) -> Option<Peer> {
        let _ = holder;
        todo!()
    }
    /// A fresh look at who holds `user`; never changes anything (also for users who never had a lease).
    pub async fn look(&self, user: &UserName) -> Result<Seen, AffinityError> {
        let _ = user;
        todo!()
    }
    /// Takes the lease if it is free or its holder is dead.
    pub async fn acquire(&self, user: &UserName) -> Result<Acquired, AffinityError> {
        let _ = user;
        todo!()
    }
    /// Gives the lease back. Only after the account is closed: all durable, index checkpointed.
    pub async fn release(&self, lease: Lease) -> Result<(), AffinityError> {
        let _ = lease;
        todo!()
    }
    /// The leases we hold, sorted by user.
    pub fn held(&self) -> Vec<(UserName, Epoch)> {
        todo!()
    }
    /// The node that a user without a holder is placed on: weighted rendezvous hash over the nodes that take new users. `None`: only if no node is up.
    pub fn place(&self, user: &UserName) -> Option<HolderId> {
        let _ = user;
        todo!()
    }
    /// Moves our node file to `fenced/` and stops the threads. After every lease was released.
    pub async fn leave(&self) -> Result<(), AffinityError> {
        todo!()
    }
}
