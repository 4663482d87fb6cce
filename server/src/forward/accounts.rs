//! The accounts that are open on this node: opened with the lease, shared by all sessions and deliveries of the user, closed when idle.
//!
//! Invariants, each with the test that guards it (tests/cluster):
//! - an account is open only under a lease, and the lease is released only after a clean close (`a_released_user_is_served_elsewhere_at_once`)
//! - when the lease is lost, the account is abandoned without another write and every session of it ends (`a_stopped_holder_is_fenced_and_acknowledges_nothing`)
//!
//! Opening, closing and releasing one user's account never overlap: each happens under the user's slot lock.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use affinity::{Acquired, Clock, Handover, HolderId, Keeper, SystemClock, Tenure, UserName};
use parking_lot::Mutex;
use storage::{Account, AccountPaths, StorageError, StorageSettings};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::RouteError;

/// Accounts whose background work runs at once: each is mostly waiting for the shared file system.
const BACKGROUND_PARALLEL: usize = 16;
/// Accounts that are being closed at once.
const CLOSE_PARALLEL: usize = 32;

/// The answer to [`Accounts::open`].
#[derive(Debug)]
pub enum Opened {
    /// Open here.
    Here(Held),
    /// A live node holds the lease.
    HeldBy(HolderId),
    /// Unclear until the watch fences or clears the holder.
    Suspect(HolderId),
}

/// All open accounts.
#[derive(Debug)]
pub struct Accounts {
    keeper: Keeper,
    clock: SystemClock,
    settings: Arc<StorageSettings>,
    slots: Mutex<HashMap<UserName, Arc<Slot>>>,
    /// The open ones, reachable without a slot lock: a fence must not wait for a hung opening.
    open: Mutex<HashMap<UserName, Arc<OpenAccount>>>,
    /// No more accounts are opened: the node leaves.
    leaving: AtomicBool,
    background: Arc<Semaphore>,
    closing: Arc<Semaphore>,
}

type Slot = tokio::sync::Mutex<Option<Arc<OpenAccount>>>;

#[derive(Debug)]
struct OpenAccount {
    account: Arc<Account>,
    tenure: Arc<Tenure>,
    sessions: AtomicUsize,
    uses: AtomicUsize,
    idle_since: Mutex<Duration>,
    clock: SystemClock,
    gone: CancellationToken,
    why_gone: Mutex<String>,
    working: AtomicBool,
}

/// What an account is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A session of a client; counted against `sessions_per_user`.
    Session {
        /// The limit.
        max: usize,
    },
    /// A delivery.
    Delivery,
}

/// Use of an open account: while one exists, the account stays open (unless its lease is lost).
#[derive(Debug)]
pub struct Held {
    open: Arc<OpenAccount>,
    session: bool,
}

impl Held {
    fn new(open: Arc<OpenAccount>, what_for: Use) -> Result<Held, RouteError> {
        let session = matches!(what_for, Use::Session { .. });
        if let Use::Session { max } = what_for
            && open.sessions.fetch_add(1, Ordering::SeqCst) >= max
        {
            open.sessions.fetch_sub(1, Ordering::SeqCst);
            return Err(RouteError::TooManySessions { user: open.account.user().clone(), limit: max });
        }
        open.uses.fetch_add(1, Ordering::SeqCst);
        Ok(Held { open, session })
    }

    /// Runs a blocking call of the store on the blocking pool.
    pub async fn run<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Account>) -> Result<T, StorageError> + Send + 'static,
    {
        let open = self.open.clone();
        let user = open.account.user().clone();
        let result = match tokio::task::spawn_blocking(move || work(&open.account)).await {
            Ok(result) => result,
            Err(panic) => Err(StorageError::Index { user, reason: format!("an operation failed unexpectedly: {panic}") }),
        };
        if let Err(error @ StorageError::Index { .. }) = &result {
            tracing::error!(user = %self.account().user(), %error, "the index failed: sessions end, it is rebuilt at the next login");
            self.open.abandon("the mailbox index had to be rebuilt, please log in again");
        }
        result
    }

    /// The account.
    pub fn account(&self) -> &Arc<Account> {
        &self.open.account
    }

    /// Resolves, with a text for the client, when the account is taken away (lease lost, drain, kick): say BYE and end. Safe to cancel.
    pub async fn taken_away(&self) -> String {
        self.open.gone.cancelled().await;
        self.open.why_gone.lock().clone()
    }
}

impl Deref for Held {
    type Target = Arc<Account>;
    fn deref(&self) -> &Arc<Account> {
        &self.open.account
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.session {
            self.open.sessions.fetch_sub(1, Ordering::SeqCst);
        }
        *self.open.idle_since.lock() = self.open.clock.now();
        self.open.uses.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OpenAccount {
    /// Sessions are told to end; the account is still whole and may be closed cleanly.
    fn take_away(&self, why: &str) {
        why.clone_into(&mut self.why_gone.lock());
        self.gone.cancel();
    }

    /// Nothing may be written any more.
    fn abandon(&self, why: &str) {
        self.take_away(why);
        self.account.abandon();
    }

    fn is_usable(&self) -> bool {
        !self.gone.is_cancelled() && !self.tenure.is_over()
    }
}

impl Accounts {
    /// None open yet.
    pub fn new(keeper: Keeper, settings: Arc<StorageSettings>) -> Accounts {
        Accounts {
            keeper,
            clock: SystemClock::new(),
            settings,
            slots: Mutex::default(),
            open: Mutex::default(),
            leaving: AtomicBool::new(false),
            background: Arc::new(Semaphore::new(BACKGROUND_PARALLEL)),
            closing: Arc::new(Semaphore::new(CLOSE_PARALLEL)),
        }
    }

    /// Whether the account is open and usable here: such a user is served without a look at the shared directory.
    pub fn is_open(&self, user: &UserName) -> bool {
        self.open.lock().get(user).is_some_and(|open| open.is_usable())
    }

    /// Opens the account here if the lease can be had.
    pub async fn open(&self, user: &UserName, paths: AccountPaths, what_for: Use) -> Result<Opened, RouteError> {
        let slot = self.slots.lock().entry(user.clone()).or_default().clone();
        let mut state = slot.lock().await;
        if let Some(open) = state.as_ref().filter(|open| open.is_usable()) {
            return Held::new(open.clone(), what_for).map(Opened::Here);
        }
        // Abandoned under a tenure that goes on: its index failed, and the next opening rebuilds it from the Maildir.
        let failed = state.take().is_some_and(|open| !open.tenure.is_over());
        if self.leaving.load(Ordering::SeqCst) {
            return Err(RouteError::Leaving);
        }
        let (lease, handover) = match self.keeper.acquire(user).await? {
            Acquired::Mine { lease, handover } => (lease, handover),
            Acquired::HeldBy(holder) => return Ok(Opened::HeldBy(holder)),
            Acquired::Suspect(holder) => return Ok(Opened::Suspect(holder)),
        };
        let handover = if failed { Handover::Unclean } else { handover };
        let open = self.open_account(lease, handover, paths).await?;
        open.account.lease().taken_over();
        let held = Held::new(open.clone(), what_for)?;
        self.open.lock().insert(user.clone(), open.clone());
        *state = Some(open.clone());
        // A fence between acquire and insert found nothing to abandon.
        if open.tenure.is_over() {
            open.abandon("this server lost contact with the mail store, please log in again");
        }
        Ok(Opened::Here(held))
    }

    async fn open_account(&self, lease: affinity::Lease, handover: Handover, paths: AccountPaths) -> Result<Arc<OpenAccount>, RouteError> {
        let (settings, user, tenure) = (self.settings.clone(), lease.user().clone(), lease.tenure().clone());
        let opening = {
            let lease = lease.clone();
            tokio::task::spawn_blocking(move || Account::open(paths, lease, handover, settings))
        };
        let opened = match opening.await {
            Ok(opened) => opened,
            Err(panic) => Err(StorageError::Index { user: user.clone(), reason: format!("opening failed unexpectedly: {panic}") }),
        };
        match opened {
            Ok(account) => Ok(Arc::new(OpenAccount {
                account,
                tenure,
                sessions: AtomicUsize::new(0),
                uses: AtomicUsize::new(0),
                idle_since: Mutex::new(self.clock.now()),
                clock: self.clock.clone(),
                gone: CancellationToken::new(),
                why_gone: Mutex::default(),
                working: AtomicBool::new(false),
            })),
            Err(error) => {
                tracing::error!(%user, %error, "can't open the account");
                // The lease stays with us: what an unclean opening left half done is ours to go on with at the next try.
                Err(error.into())
            }
        }
    }

    /// Our tenure is over: every account under it is abandoned at once, without a wait for anything.
    pub fn abandon(&self, tenure: &Arc<Tenure>) {
        let lost: Vec<Arc<OpenAccount>> = {
            let mut open = self.open.lock();
            let users: Vec<UserName> =
                open.iter().filter(|(_, account)| Arc::ptr_eq(&account.tenure, tenure)).map(|(user, _)| user.clone()).collect();
            users.iter().filter_map(|user| open.remove(user)).collect()
        };
        for account in &lost {
            account.abandon("this server lost contact with the mail store, please log in again");
        }
        if !lost.is_empty() {
            tracing::warn!(accounts = lost.len(), "all accounts of the lost tenure are abandoned");
        }
    }

    /// Abandons whatever is under a tenure that is over: for when an event was missed.
    pub fn abandon_ended(&self) {
        let ended: Vec<Arc<Tenure>> =
            self.open.lock().values().filter(|account| account.tenure.is_over()).map(|account| account.tenure.clone()).collect();
        for tenure in ended {
            self.abandon(&tenure);
        }
    }

    /// Starts due background work: write-back, index batches, rescans.
    pub fn work(self: &Arc<Self>) {
        let open: Vec<Arc<OpenAccount>> = self.open.lock().values().cloned().collect();
        for account in open {
            if !account.is_usable() || account.working.swap(true, Ordering::SeqCst) {
                continue;
            }
            let permits = self.background.clone();
            tokio::spawn(async move {
                let Ok(_permit) = permits.acquire_owned().await else { return };
                let worker = account.clone();
                let result = tokio::task::spawn_blocking(move || worker.account.run_background_work()).await;
                account.working.store(false, Ordering::SeqCst);
                match result {
                    Ok(Ok(())) | Ok(Err(StorageError::LeaseLost(_) | StorageError::Closing(_))) => {}
                    Ok(Err(error @ StorageError::Index { .. })) => {
                        tracing::error!(user = %account.account.user(), %error, "the index failed: sessions end, it is rebuilt at the next login");
                        account.abandon("the mailbox index had to be rebuilt, please log in again");
                    }
                    Ok(Err(error)) => tracing::warn!(user = %account.account.user(), %error, "background work failed, it is tried again"),
                    Err(panic) => tracing::error!(user = %account.account.user(), %panic, "background work failed unexpectedly"),
                }
            });
        }
    }

    /// Starts closing accounts that nobody has used for `linger`; their leases are released.
    pub fn close_idle(self: &Arc<Self>, linger: Duration) {
        let now = self.clock.now();
        let idle: Vec<UserName> = {
            let open = self.open.lock();
            open.iter()
                .filter(|(_, account)| {
                    !account.is_usable()
                        || account.uses.load(Ordering::SeqCst) == 0 && now.saturating_sub(*account.idle_since.lock()) >= linger
                })
                .map(|(user, _)| user.clone())
                .collect()
        };
        for user in idle {
            let Ok(permit) = self.closing.clone().try_acquire_owned() else { break };
            let accounts = self.clone();
            tokio::spawn(async move {
                accounts.close(&user, Some(linger)).await;
                drop(permit);
            });
        }
        self.slots.lock().retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().map_or(true, |state| state.is_some()));
    }

    /// Closes one account cleanly and releases its lease; with `linger`, only if it is still unused for that long.
    async fn close(&self, user: &UserName, linger: Option<Duration>) {
        let slot = self.slots.lock().entry(user.clone()).or_default().clone();
        let mut state = slot.lock().await;
        let Some(open) = state.clone() else {
            self.open.lock().remove(user);
            return;
        };
        let in_use = |linger| open.uses.load(Ordering::SeqCst) > 0 || self.clock.now().saturating_sub(*open.idle_since.lock()) < linger;
        if open.is_usable() && linger.is_some_and(in_use) {
            return;
        }
        *state = None;
        self.open.lock().remove(user);
        if open.tenure.is_over() {
            return;
        }
        let lease = open.account.lease().clone();
        let closing = open.clone();
        let closed = tokio::task::spawn_blocking(move || closing.account.close()).await;
        match closed {
            Ok(Ok(())) => {
                if let Err(error) = self.keeper.release(lease).await {
                    tracing::warn!(%user, %error, "can't release the lease; it stays with this node");
                }
            }
            // The lease is kept: only we may go on with what is not written back yet, and the next opening here does.
            Ok(Err(error)) => tracing::warn!(%user, %error, "can't close the account cleanly; its lease stays with this node"),
            Err(panic) => tracing::error!(%user, %panic, "closing an account failed unexpectedly; its lease stays with this node"),
        }
    }

    /// The node leaves: sessions are told to end, every account is closed and released; at most `limit` long.
    pub async fn close_all(self: &Arc<Self>, why: &str, limit: Duration) {
        self.leaving.store(true, Ordering::SeqCst);
        let open: Vec<(UserName, Arc<OpenAccount>)> =
            self.open.lock().iter().map(|(user, account)| (user.clone(), account.clone())).collect();
        for (_, account) in &open {
            account.take_away(why);
        }
        let mut closing = tokio::task::JoinSet::new();
        for (user, account) in open {
            let (accounts, permits) = (self.clone(), self.closing.clone());
            closing.spawn(async move {
                let Ok(_permit) = permits.acquire_owned().await else { return };
                // Sessions finish the command they are in; close() waits for changes that are under way in any case.
                for _ in 0..100 {
                    if account.uses.load(Ordering::SeqCst) == 0 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                accounts.close(&user, None).await;
            });
        }
        if tokio::time::timeout(limit, async { while closing.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(limit = %humantime::format_duration(limit), "not every account could be closed in time: the next holders take over uncleanly");
        }
    }

    /// How many accounts are open.
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }
}
