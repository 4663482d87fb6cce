//! What the threads and the callers share: the tenure, the leases, the view of the others. `engine/state.rs` is how a tenure begins, is told of, and ends.

mod state;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

use super::{Acquired, Event, KeeperConfig, NodeState, Peer, Seen, stand::Stand, stop::Stop};
use crate::{
    AffinityError, Epoch, Handover, Lease, Tenure, Timings, UserName,
    names::{LEASES, LeaseName, NODES, NodeFile, SETTINGS, lease_bucket, lease_folder, sort_out},
    protocol::{Acquire, Answer, Attempt, Release, ReleaseStep, ReleaseVerdict, Verdict, acquire::Step},
    root::io_error,
    settings::{Settings, TROUBLE},
    swap::{SharedDirectory, swap},
};

/// Most requests for leases under way at once: enough to keep an NFS connection busy, and few threads to lose where the server is away.
const IN_FLIGHT_MAX: usize = 32;
/// Events a slow listener may be behind before it is told that it missed some.
const EVENTS_BEHIND_MAX: usize = 4096;
/// Locks of users that are kept before unused ones are dropped.
const TURNS_KEPT: usize = 1024;
/// Most listings in a row of a lease folder that show no lease: one can be hidden by a rename.
const EMPTY_MAX: u32 = 4;
/// Between two listings of `nodes/` that somebody asks for: strangers at the relay port can.
const LOOK_GAP_MIN: Duration = Duration::from_millis(200);
/// Names of others that are remembered as warned of, so that a log is not flooded.
const WARNED_MAX: usize = 1000;

/// One process's membership; see [`super::Keeper`].
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) config: KeeperConfig,
    pub(super) directory: Arc<dyn SharedDirectory>,
    /// The host-local lock on our node name, held as long as a thread of ours may act.
    pub(super) lock: Mutex<File>,
    pub(super) stop: Stop,
    tenure: ArcSwap<Tenure>,
    view: ArcSwap<View>,
    leases: Mutex<Leases>,
    turns: Mutex<HashMap<UserName, Arc<tokio::sync::Mutex<()>>>>,
    in_flight: Arc<Semaphore>,
    events: broadcast::Sender<Event>,
    announced: Mutex<Announced>,
    changes: watch::Sender<()>,
    /// Which thread ended that must not, and how.
    broken: watch::Sender<Option<String>>,
    left: AtomicBool,
    /// The tenure is to end, and another to begin.
    pub(super) resigning: AtomicBool,
    temporaries: AtomicU64,
    warned: Mutex<BTreeSet<String>>,
    /// When the last beat began.
    pub(super) beat_began: Mutex<Duration>,
}

/// What was told of this node's state, and whether this process ran meanwhile.
#[derive(Debug)]
struct Announced {
    state: NodeState,
    stand: Stand,
}

/// The others, as of the last watch.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) peers: Vec<Peer>,
    pub(super) suspects: BTreeSet<NodeFile>,
    pub(super) settings: Settings,
    /// When the watch last listed `nodes/`.
    pub(super) looked: Duration,
}

/// What we hold, under one tenure.
#[derive(Debug)]
struct Leases {
    tenure: Arc<Tenure>,
    held: BTreeMap<UserName, Held>,
    /// Swaps of ours whose outcome is unknown.
    attempts: HashMap<UserName, Attempt>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    handover: Handover,
}

impl Held {
    fn give(&self) -> Acquired {
        let handover = if self.lease.was_taken_over() { Handover::Clean } else { self.handover };
        Acquired::Mine { lease: self.lease.clone(), handover }
    }
}

impl Leases {
    fn none(tenure: Arc<Tenure>) -> Leases {
        Leases { tenure, held: BTreeMap::new(), attempts: HashMap::new() }
    }
}

impl Engine {
    pub(super) fn new(config: KeeperConfig, directory: Arc<dyn SharedDirectory>, lock: File, tenure: Arc<Tenure>) -> Engine {
        let now = config.clock.now();
        Engine {
            config,
            directory,
            lock: Mutex::new(lock),
            stop: Stop::default(),
            leases: Mutex::new(Leases::none(Arc::clone(&tenure))),
            tenure: ArcSwap::new(tenure),
            view: ArcSwap::default(),
            turns: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            events: broadcast::Sender::new(EVENTS_BEHIND_MAX),
            announced: Mutex::new(Announced { state: NodeState::Out, stand: Stand::new(now) }),
            broken: watch::Sender::new(None),
            changes: watch::Sender::new(()),
            left: AtomicBool::new(false),
            resigning: AtomicBool::new(false),
            temporaries: AtomicU64::new(0),
            warned: Mutex::default(),
            beat_began: Mutex::default(),
        }
    }

    pub(super) fn tenure(&self) -> Arc<Tenure> {
        self.tenure.load_full()
    }
    pub(super) fn timings(&self) -> &Timings {
        &self.config.root.cluster().timings
    }
    pub(super) fn now(&self) -> Duration {
        self.config.clock.now()
    }
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.config.root.path().join(name)
    }
    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }
    pub(super) fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
    }
    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
    pub(super) fn emit(&self, event: Event) {
        // Nobody may be listening.
        self.events.send(event).ok();
    }
    pub(super) fn held(&self) -> Vec<(UserName, Epoch)> {
        self.leases.lock().held.iter().map(|(user, held)| (user.clone(), held.lease.epoch())).collect()
    }

    pub(super) fn state(&self) -> NodeState {
        let tenure = self.tenure();
        if self.left.load(Ordering::SeqCst) || tenure.is_over() {
            NodeState::Out
        } else if tenure.is_valid() {
            NodeState::Up
        } else {
            NodeState::Suspended
        }
    }

    pub(super) async fn look(engine: &Arc<Engine>, user: UserName) -> Result<Seen, AffinityError> {
        let permit = engine.permit().await?;
        engine
            .blocking(move |engine| {
                let _under_way = permit;
                engine.look_now(&user)
            })
            .await
    }

    pub(super) async fn acquire(engine: &Arc<Engine>, user: UserName) -> Result<Acquired, AffinityError> {
        if let Some(acquired) = engine.already_held(&user)? {
            return Ok(acquired);
        }
        let turn = engine.turn(&user).await;
        let permit = engine.permit().await?;
        // The turn goes with the work and not with the caller, who may go away: nobody else starts before this is done.
        engine
            .blocking(move |engine| {
                let _under_way = (turn, permit);
                engine.acquire_now(&user)
            })
            .await
    }

    pub(super) async fn release(engine: &Arc<Engine>, lease: Lease) -> Result<(), AffinityError> {
        let turn = engine.turn(lease.user()).await;
        let permit = engine.permit().await?;
        engine
            .blocking(move |engine| {
                let _under_way = (turn, permit);
                engine.release_now(&lease)
            })
            .await
    }

    /// Has the watch list `nodes/` now rather than at the next beat, unless it did a moment ago.
    pub(super) fn look_soon(&self) {
        if self.now().saturating_sub(self.view().looked) >= LOOK_GAP_MIN {
            self.stop.wake_to_look();
        }
    }

    pub(super) async fn read_settings(&self) -> Result<(), AffinityError> {
        let (reader, read) = oneshot::channel();
        self.stop.wake_for(reader);
        match tokio::time::timeout(self.timings().dead_after(), read).await {
            Ok(Ok(true)) => Ok(()),
            _ => {
                let cause = io::Error::new(io::ErrorKind::TimedOut, "the shared directory does not answer");
                Err(AffinityError::Io { doing: "can't read", path: self.path(SETTINGS), cause })
            }
        }
    }

    pub(super) async fn say_trouble(engine: &Arc<Engine>, why: String) -> Result<(), AffinityError> {
        engine.blocking(move |engine| engine.config.root.set_over(&*engine.directory, &engine.config.node, TROUBLE, &why)).await
    }

    /// The right to work on one user's lease: one at a time in this process.
    async fn turn(&self, user: &UserName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            if turns.len() > TURNS_KEPT {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(user.clone()).or_default())
        };
        turn.lock_owned().await
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, AffinityError> {
        // It is never closed.
        Arc::clone(&self.in_flight).acquire_owned().await.map_err(|_| AffinityError::Suspended)
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Engine>,
        work: impl FnOnce(&Engine) -> Result<T, AffinityError> + Send + 'static,
    ) -> Result<T, AffinityError> {
        let engine = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&engine)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(AffinityError::Suspended),
            },
        }
    }

    fn already_held(&self, user: &UserName) -> Result<Option<Acquired>, AffinityError> {
        if self.state() != NodeState::Up {
            return Err(AffinityError::Suspended);
        }
        Ok(self.leases.lock().held.get(user).map(Held::give))
    }

    fn look_now(&self, user: &UserName) -> Result<Seen, AffinityError> {
        for _ in 0..EMPTY_MAX {
            match self.list_lease(user)? {
                None => return Ok(Seen { epoch: Epoch::ZERO, holder: None }),
                Some(names) => {
                    if let Some(name) = names.into_iter().max_by_key(|name| name.epoch) {
                        return Ok(Seen { epoch: name.epoch, holder: name.holder });
                    }
                }
            }
        }
        Err(self.broken(user))
    }

    fn acquire_now(&self, user: &UserName) -> Result<Acquired, AffinityError> {
        if let Some(acquired) = self.already_held(user)? {
            return Ok(acquired);
        }
        let (tenure, attempt) = {
            let leases = self.leases.lock();
            (Arc::clone(&leases.tenure), leases.attempts.get(user).cloned())
        };
        let mut acquire = Acquire::new(tenure.holder().clone(), attempt);
        let result = self.take(user, &mut acquire);

        let mut leases = self.leases.lock();
        if tenure.is_over() || !Arc::ptr_eq(&leases.tenure, &tenure) {
            return Err(AffinityError::Suspended);
        }
        match result {
            Ok(Verdict::Mine(epoch, handover)) => {
                leases.attempts.remove(user);
                let lease = Lease::new(user.clone(), epoch, Arc::clone(&tenure));
                let held = Held { lease, handover };
                let acquired = held.give();
                leases.held.insert(user.clone(), held);
                drop(leases);
                tracing::debug!(%user, %epoch, ?handover, "lease acquired");
                self.emit(Event::Acquired { user: user.clone(), epoch, handover });
                // If the swap took so long that we may have been fenced: it is kept in case we were not.
                if tenure.is_valid() { Ok(acquired) } else { Err(AffinityError::Suspended) }
            }
            other => {
                match acquire.attempt() {
                    Some(attempt) => leases.attempts.insert(user.clone(), attempt.clone()),
                    None => leases.attempts.remove(user),
                };
                drop(leases);
                match other? {
                    Verdict::HeldBy(holder) => Ok(Acquired::HeldBy(holder)),
                    Verdict::Suspect(holder) => Ok(Acquired::Suspect(holder)),
                    Verdict::Broken => Err(self.broken(user)),
                    Verdict::Fenced | Verdict::Mine(..) => Err(AffinityError::Suspended),
                    Verdict::GaveUp => Err(self.gave_up(user, io::ErrorKind::WouldBlock, "its lease keeps changing or can't be changed")),
                    Verdict::TooSlow => {
                        Err(self.gave_up(user, io::ErrorKind::TimedOut, "nodes/ is listed too slowly to be sure that the holder is gone"))
                    }
                }
            }
        }
    }

    /// Does what `acquire` says until it is done. The lease folder is synced after it was won: an epoch must not come twice.
    fn take(&self, user: &UserName, acquire: &mut Acquire) -> Result<Verdict, AffinityError> {
        loop {
            match acquire.step().clone() {
                Step::ListLease => acquire.lease_listed(self.list_lease(user)?.as_deref()),
                Step::Prepare => {
                    self.prepare(user)?;
                    acquire.prepared();
                }
                Step::ListNodes => {
                    let (began, files, ended) = self.list_nodes()?;
                    acquire.nodes_listed(began, ended, &files, &self.view().suspects, self.timings().beat());
                }
                Step::Swap { from, to } => {
                    acquire.swapped(self.swap_lease(user, &from, &to));
                }
                Step::Done(verdict) => {
                    if matches!(verdict, Verdict::Mine(..)) {
                        // If this fails, the lease is ours by name only: the next try takes it anew.
                        self.sync(&lease_folder(user))?;
                    }
                    return Ok(verdict);
                }
            }
        }
    }

    fn release_now(&self, lease: &Lease) -> Result<(), AffinityError> {
        let (user, epoch, tenure) = (lease.user(), lease.epoch(), lease.tenure());
        {
            let mut leases = self.leases.lock();
            let is_held = leases.held.get(user).is_some_and(|held| held.lease.epoch() == epoch);
            // An earlier try ended in errors: in the directory it may still be ours.
            let is_under_way = leases.attempts.get(user) == Some(&Attempt::Release(epoch));
            if tenure.is_over() || !Arc::ptr_eq(&leases.tenure, tenure) || !(is_held || is_under_way) {
                // Somebody else's by now, or released before.
                lease.mark_released();
                return Ok(());
            }
            if !tenure.is_valid() {
                return Err(AffinityError::Suspended);
            }
            // The lease that was handed in may be a stranger's copy: what must die is the one we gave out.
            if let Some(held) = leases.held.remove(user) {
                held.lease.mark_released();
            }
            lease.mark_released();
            leases.attempts.insert(user.clone(), Attempt::Release(epoch));
        }
        let mut release = Release::new(tenure.holder().clone(), epoch);
        let verdict = loop {
            match release.step().clone() {
                ReleaseStep::Swap { from, to } => release.swapped(self.swap_lease(user, &from, &to)),
                // Without a listing the next swap tells; there are few of them.
                ReleaseStep::ListLease => release.lease_listed(&self.list_lease(user).ok().flatten().unwrap_or_default()),
                ReleaseStep::Done(verdict) => break verdict,
            }
        };
        match verdict {
            ReleaseVerdict::Gone => {
                let mut leases = self.leases.lock();
                if Arc::ptr_eq(&leases.tenure, tenure) {
                    leases.attempts.remove(user);
                }
                drop(leases);
                tracing::debug!(%user, %epoch, "lease released");
                self.emit(Event::Released { user: user.clone(), epoch });
                Ok(())
            }
            ReleaseVerdict::Unknown => Err(self.gave_up(user, io::ErrorKind::Other, "its lease can't be released")),
        }
    }

    fn swap_lease(&self, user: &UserName, from: &LeaseName, to: &LeaseName) -> Answer {
        match swap(&*self.directory, &from.in_folder_of(user), &to.in_folder_of(user)) {
            Ok(swapped) => Answer::Swapped(swapped),
            Err(error) => {
                tracing::warn!(%user, %from, %to, %error, "can't change a lease");
                Answer::Unknown
            }
        }
    }

    /// The lease folder, afresh; `None` if there is none, also to the server.
    fn list_lease(&self, user: &UserName) -> Result<Option<Vec<LeaseName>>, AffinityError> {
        Ok(list_lease(&*self.directory, user)
            .map_err(io_error("can't list", &self.config.root.lease(user)))?
            .map(|listing| self.understood(&lease_folder(user), &listing)))
    }

    /// `nodes/`, afresh, with when that began and ended.
    pub(super) fn list_nodes(&self) -> Result<(Duration, Vec<NodeFile>, Duration), AffinityError> {
        let began = self.now();
        let listing = self.directory.list(NODES).map_err(io_error("can't list", &self.path(NODES)))?;
        Ok((began, self.understood(NODES, &listing), self.now()))
    }

    /// First contact: a folder that holds `0,free` from its first moment.
    fn prepare(&self, user: &UserName) -> Result<(), AffinityError> {
        let (bucket, folder) = (lease_bucket(user), lease_folder(user));
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        // `~` is in no encoded user name.
        let temporary = format!("{bucket}/~{},{number}", self.tenure().holder());
        let first = format!("{temporary}/{}", LeaseName::FIRST);
        // Whether the rename may take effect yet.
        let mut may_land = false;
        let done = (|| {
            match self.directory.create_folder(&bucket) {
                Ok(()) => self.directory.sync(LEASES)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            self.directory.create_folder(&temporary)?;
            self.directory.create(&first)?;
            let renamed = match self.directory.rename(&temporary, &folder) {
                Ok(()) => self.directory.sync(&bucket),
                // Somebody was first, or it was us and the reply was lost.
                Err(error) => match error.kind() {
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => Ok(()),
                    _ => {
                        may_land = true;
                        Err(error)
                    }
                },
            };
            self.directory.refresh(&bucket)?;
            renamed
        })();
        // What is left unless it was renamed. What may land yet must not land empty. What stays is a folder that nobody looks at (`tidy.rs`).
        if !may_land {
            self.directory.remove(&first).and_then(|()| self.directory.remove_folder(&temporary)).ok();
        }
        done.map_err(io_error("can't make", &self.path(&folder)))
    }

    fn sync(&self, folder: &str) -> Result<(), AffinityError> {
        self.directory.sync(folder).map_err(io_error("can't sync", &self.path(folder)))
    }

    fn understood<T: std::str::FromStr>(&self, folder: &str, listing: &[String]) -> Vec<T> {
        let (names, strangers) = sort_out(listing);
        for stranger in strangers {
            let mut warned = self.warned.lock();
            if warned.len() < WARNED_MAX && warned.insert(format!("{folder}/{stranger}")) {
                tracing::warn!(folder, name = stranger, "not a name that Berth writes: ignored");
            }
        }
        names
    }

    fn broken(&self, user: &UserName) -> AffinityError {
        let folder = self.config.root.lease(user);
        AffinityError::BadLeaseFolder { found: describe(self.directory.list(&lease_folder(user))), folder }
    }

    fn gave_up(&self, user: &UserName, kind: io::ErrorKind, why: &'static str) -> AffinityError {
        AffinityError::Io { doing: "can't change", path: self.config.root.lease(user), cause: io::Error::new(kind, why) }
    }
}

/// A lease folder's names, afresh; `None` if the server has no such folder.
pub(crate) fn list_lease(directory: &dyn SharedDirectory, user: &UserName) -> io::Result<Option<Vec<String>>> {
    let folder = lease_folder(user);
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match directory.list(&folder) {
        Err(error) if missing(&error) => {}
        listing => return listing.map(Some),
    }
    // Only this client may believe so (negative lookups are cached): ask for the folders above, from the top. `leases/` is always there.
    directory.refresh(LEASES)?;
    match directory.refresh(&lease_bucket(user)) {
        Err(error) if missing(&error) => return Ok(None),
        refreshed => refreshed?,
    }
    match directory.list(&folder) {
        Err(error) if missing(&error) => Ok(None),
        listing => listing.map(Some),
    }
}

/// What a folder without a lease holds, for people.
pub(crate) fn describe(listing: io::Result<Vec<String>>) -> String {
    match listing {
        Ok(names) if names.is_empty() => "nothing".to_owned(),
        Ok(names) => names.join(" "),
        Err(error) => error.to_string(),
    }
}
