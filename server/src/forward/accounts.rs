//! The accounts that are open on this node: opened with the lease, shared by all sessions and deliveries of the user, closed when idle.
//!
//! Invariants, each with the test that guards it:
//! - an account is open only under a lease, and the lease is released only after a clean close (`a_handed_over_account_is_closed_and_its_lease_is_free`)
//! - when the lease is lost, the account is abandoned without another write and every session of it ends (`a_stopped_holder_is_fenced_and_acknowledges_nothing`)
//! - an account is never opened twice at once, whoever stops waiting for it (`an_opening_goes_on_when_its_caller_goes_away`)
//! - who comes while an account is handed over finds it closed and its lease free (`a_login_during_the_goodbye_loses_no_clean_close`)
//! - no lease stays with a node that does not serve it (`a_lease_whose_account_could_not_be_opened_is_released_in_the_end`)
//!
//! Opening, closing and releasing one user's account never overlap: each happens under the user's slot lock, in a task of its own.

mod quotas;
mod turns;

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use affinity::{Acquired, Clock, Handover, HolderId, Keeper, Lease, SystemClock, Tenure, UserName};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use storage::{Account, AccountPaths, StorageError, StorageSettings};
use tokio::sync::OwnedMutexGuard;

use super::{
    RouteError,
    held::{Held, OpenAccount, Use},
    placing::Placing,
};
use crate::node::health::Evidence;

pub use quotas::Quotas;
use turns::{PATIENCE, Turns};

/// Accounts whose background work runs at once: each is mostly waiting for the shared file system.
const BACKGROUND_PARALLEL: usize = 16;
/// How long sessions that were told to end may take to finish the command they are in; what is inside the store is waited for in any case.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a lease that could not be served or given back waits for the next try.
const STUCK_RETRY: Duration = Duration::from_secs(20);
/// How long logins are sent to the node that a user was moved to, should it not have taken the lease by then.
const MOVE_HINT: Duration = Duration::from_secs(20);

/// How long nobody must have used the account of a user whom an operator wants elsewhere: soon, but not between two commands of one visit.
const WISHED_LINGER: Duration = Duration::from_secs(5);

/// The same where that was because this process did not run.
pub const STOOD_STILL: &str = "this server stood still and others took over, please log in again";
/// What sessions are told when the lease is lost.
pub const LOST: &str = "this server lost contact with the mail store, please log in again";

/// The answer to [`Accounts::open`].
#[derive(Debug)]
pub enum Opened {
    /// Open here.
    Here(Held),
    /// A live node holds the lease, or is to take it.
    HeldBy(HolderId),
    /// Unclear until the watch fences or clears the holder.
    Suspect(HolderId),
    /// This node may not have the user, and no other that may is up: why, for people.
    Nowhere(String),
}

/// Why an account is to be open here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Somebody asks for it here; a node that takes nobody sends them on.
    Asked,
    /// Also where another node should have it: that one can't be reached, or an operator says so. Tags hold all the same.
    Anyway,
    /// Its lease is ours already, and what was left of it is to be dealt with.
    Ours,
}

/// All open accounts.
#[derive(Debug)]
pub struct Accounts {
    keeper: Keeper,
    clock: SystemClock,
    settings: Arc<StorageSettings>,
    slots: Mutex<HashMap<UserName, Slot>>,
    /// The open ones, reachable without a slot lock: a fence must not wait for a hung opening.
    open: Mutex<HashMap<UserName, Arc<OpenAccount>>>,
    /// Where users belong.
    pub placing: Placing,
    /// Users that an operator moves, where to, and since when.
    moves: Mutex<HashMap<UserName, (HolderId, Duration)>>,
    /// When it was last looked for leases that no slot knows of.
    last_count: Mutex<Duration>,
    /// Set once the node that has them is there.
    quotas: OnceLock<Box<dyn Quotas>>,
    /// Open accounts are taking over what the sources say.
    quotas_refreshing: AtomicBool,
    background: Arc<Turns>,
    closing: Turns,
    /// What the store's errors say of this node.
    evidence: Arc<Evidence>,
}

type Slot = Arc<tokio::sync::Mutex<State>>;

/// What a slot holds. With anything but `Closed` and `Open` the lease may be ours although nobody is served.
#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open(Arc<OpenAccount>),
    Stuck(Stuck),
}

/// A lease that is ours while its account is not open.
#[derive(Debug)]
struct Stuck {
    lease: Lease,
    rest: Rest,
    since: Duration,
}

/// What is left to do before the lease can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Closed cleanly: to be released.
    Release,
    /// It could not be opened: what the previous holder left is still to be dealt with.
    Open,
    /// Its index failed: the next opening rebuilds it from the Maildir.
    Rebuild,
}

impl Accounts {
    /// None open yet; at most `closing_parallel` are closed at once.
    pub fn new(
        keeper: Keeper,
        placing: Placing,
        evidence: Arc<Evidence>,
        settings: Arc<StorageSettings>,
        closing_parallel: usize,
    ) -> Accounts {
        Accounts {
            keeper,
            placing,
            clock: SystemClock::new(),
            settings,
            slots: Mutex::default(),
            open: Mutex::default(),
            moves: Mutex::default(),
            last_count: Mutex::default(),
            quotas: OnceLock::new(),
            quotas_refreshing: AtomicBool::new(false),
            background: Arc::new(Turns::new(BACKGROUND_PARALLEL)),
            closing: Turns::new(closing_parallel),
            evidence,
        }
    }

    /// Whether the account is open and usable here: such a user is served without a look at the shared directory.
    pub fn is_open(&self, user: &UserName) -> bool {
        self.open.lock().get(user).is_some_and(|open| open.is_usable())
    }

    /// Where a user is to go whose lease is not ours (any more); `None`: nowhere else.
    fn sent_on(&self, user: &UserName) -> Option<HolderId> {
        let moved = {
            let mut moves = self.moves.lock();
            let now = self.clock.now();
            moves.retain(|_, (_, since)| now.saturating_sub(*since) < MOVE_HINT);
            moves.get(user).map(|(to, _)| to.clone())
        };
        moved
            .filter(|to| self.keeper.peer(to).is_some_and(|peer| !peer.suspect))
            .or_else(|| if self.placing.takes_nobody() { self.placing.elsewhere(user) } else { None })
    }

    fn slot(&self, user: &UserName) -> Slot {
        self.slots.lock().entry(user.clone()).or_default().clone()
    }

    /// Opens the account here if the lease can be had.
    pub async fn open(self: &Arc<Self>, user: &UserName, paths: AccountPaths, what_for: Use, claim: Claim) -> Result<Opened, RouteError> {
        let state = self.slot(user).lock_owned().await;
        if let State::Open(open) = &*state
            && open.is_usable()
        {
            return Held::new(open.clone(), what_for).map(Opened::Here);
        }
        // The caller may go away (a client that hangs up, a time limit): what was begun is finished all the same, under the slot lock.
        let (accounts, user) = (self.clone(), user.clone());
        let opening = {
            let user = user.clone();
            tokio::spawn(async move { accounts.open_closed(state, &user, paths, what_for, claim).await })
        };
        opening
            .await
            .unwrap_or_else(|panic| Err(StorageError::Index { user, reason: format!("opening failed unexpectedly: {panic}") }.into()))
    }

    async fn open_closed(
        self: &Arc<Self>,
        mut state: OwnedMutexGuard<State>,
        user: &UserName,
        paths: AccountPaths,
        what_for: Use,
        claim: Claim,
    ) -> Result<Opened, RouteError> {
        self.put_in_order(&mut state, user).await;
        if let State::Open(open) = &*state {
            // It could not be closed, so it goes on.
            return Held::new(open.clone(), what_for).map(Opened::Here);
        }
        if self.placing.is_leaving() {
            return match self.placing.elsewhere(user) {
                Some(holder) if matches!(*state, State::Closed) => Ok(Opened::HeldBy(holder)),
                // While the lease is ours, whoever is sent on would be sent back: they ask again.
                _ => Err(RouteError::Leaving),
            };
        }
        if matches!(*state, State::Closed) {
            if claim != Claim::Ours && !self.placing.permits(user) {
                let place = self.placing.place(user).filter(|holder| *holder != self.keeper.me());
                return Ok(place.map_or_else(|| Opened::Nowhere(self.placing.needs(user)), Opened::HeldBy));
            }
            if claim == Claim::Asked
                && let Some(holder) = self.sent_on(user)
            {
                return Ok(Opened::HeldBy(holder));
            }
        }
        let acquired = self.keeper.acquire(user).await;
        if let (Err(_), State::Stuck(stuck)) = (&acquired, &mut *state)
            && stuck.rest == Rest::Release
        {
            // What was to be released may be ours anew by now, under another epoch: the next look takes it, and then releases that.
            stuck.rest = Rest::Open;
        }
        let (lease, handover) = match acquired? {
            Acquired::Mine { lease, handover } => (lease, handover),
            Acquired::HeldBy(holder) => return Ok(Opened::HeldBy(holder)),
            Acquired::Suspect(holder) => return Ok(Opened::Suspect(holder)),
        };
        let rebuild =
            matches!(&*state, State::Stuck(stuck) if stuck.rest == Rest::Rebuild && Arc::ptr_eq(stuck.lease.tenure(), lease.tenure()));
        let handover = if rebuild { Handover::Unclean } else { handover };
        let open = match self.open_account(lease.clone(), handover, paths).await {
            Ok(account) => OpenAccount::new(account, self.clock.clone(), self.evidence.clone()),
            Err(error) => {
                self.evidence.saw(&error);
                tracing::error!(%user, %error, "can't open the account");
                // The lease stays with us: what an unclean opening left half done is ours to go on with at the next try.
                let rest = if rebuild { Rest::Rebuild } else { Rest::Open };
                *state = State::Stuck(Stuck { lease, rest, since: self.clock.now() });
                return Err(error.into());
            }
        };
        lease.taken_over();
        self.moves.lock().remove(user);
        *state = State::Open(open.clone());
        self.open.lock().insert(user.clone(), open.clone());
        // A fence between acquire and insert found nothing to abandon.
        if open.tenure.is_over() {
            open.abandon(LOST);
        }
        Held::new(open, what_for).map(Opened::Here)
    }

    /// Finishes what an earlier use of the slot left: closes an account that was taken away, notes one that failed, forgets one that was lost.
    async fn put_in_order(&self, state: &mut State, user: &UserName) {
        match std::mem::take(state) {
            State::Closed => {}
            State::Stuck(stuck) if stuck.lease.tenure().is_over() => {}
            State::Stuck(stuck) => *state = State::Stuck(stuck),
            State::Open(open) => {
                if open.gone.is_said() && !open.abandoned.load(Ordering::SeqCst) {
                    open.until_unused(FAREWELL).await;
                }
                self.forget(user, &open);
                *state = self.shut(user, open).await;
            }
        }
    }

    /// Closes an account that is not used any more, and releases its lease; what the slot holds then.
    async fn shut(&self, user: &UserName, open: Arc<OpenAccount>) -> State {
        if open.tenure.is_over() {
            return State::Closed;
        }
        let lease = open.account.lease().clone();
        let stuck = |rest| State::Stuck(Stuck { lease: lease.clone(), rest, since: self.clock.now() });
        if open.abandoned.load(Ordering::SeqCst) {
            return stuck(Rest::Rebuild);
        }
        let closing = open.account.clone();
        match tokio::task::spawn_blocking(move || closing.close()).await {
            Ok(Ok(())) => {
                if open.closing.lock().worked() {
                    tracing::info!(%user, "the account is closed cleanly at last");
                }
                match self.keeper.release(lease.clone()).await {
                    Ok(()) => State::Closed,
                    Err(error) => {
                        tracing::warn!(%user, %error, "can't release the lease yet");
                        stuck(Rest::Release)
                    }
                }
            }
            Ok(Err(_)) if open.tenure.is_over() => State::Closed,
            Ok(Err(error @ StorageError::Index { .. })) => {
                open.index_failed(&error);
                stuck(Rest::Rebuild)
            }
            // Only we may go on with what is not written back yet. The account lets sessions in again, and is closed when it is idle again.
            Ok(Err(error)) => {
                self.evidence.saw(&error);
                let again = OpenAccount::new(open.account.clone(), self.clock.clone(), self.evidence.clone());
                again.closing_failed(*open.closing.lock(), &error);
                self.open.lock().insert(user.clone(), again.clone());
                State::Open(again)
            }
            Err(panic) => {
                open.index_failed(&StorageError::Index { user: user.clone(), reason: format!("closing failed unexpectedly: {panic}") });
                stuck(Rest::Rebuild)
            }
        }
    }

    fn forget(&self, user: &UserName, gone: &Arc<OpenAccount>) {
        let mut open = self.open.lock();
        if open.get(user).is_some_and(|open| Arc::ptr_eq(open, gone)) {
            open.remove(user);
        }
    }

    async fn open_account(&self, lease: Lease, handover: Handover, paths: AccountPaths) -> Result<Arc<Account>, StorageError> {
        let (settings, user) = (self.settings.clone(), lease.user().clone());
        let quota = self.quota_at_opening(&user);
        let opening = tokio::task::spawn_blocking(move || {
            let account = Account::open(paths, lease, handover, settings)?;
            account.set_quota(&quota)?;
            Ok(account)
        });
        opening.await.unwrap_or_else(|panic| Err(StorageError::Index { user, reason: format!("opening failed unexpectedly: {panic}") }))
    }

    /// Our tenure is over: every account under it is abandoned at once, without a wait for anything.
    pub fn abandon(&self, tenure: &Arc<Tenure>, why: &str) {
        let lost: Vec<Arc<OpenAccount>> = {
            let mut open = self.open.lock();
            let users: Vec<UserName> =
                open.iter().filter(|(_, account)| Arc::ptr_eq(&account.tenure, tenure)).map(|(user, _)| user.clone()).collect();
            users.iter().filter_map(|user| open.remove(user)).collect()
        };
        for account in &lost {
            account.abandon(why);
        }
        if !lost.is_empty() {
            tracing::debug!(accounts = lost.len(), "all accounts of the lost tenure are abandoned");
        }
    }

    /// Abandons whatever is under a tenure that is over: for when an event was missed.
    pub fn abandon_ended(&self) {
        let ended: Vec<Arc<Tenure>> =
            self.open.lock().values().filter(|account| account.tenure.is_over()).map(|account| account.tenure.clone()).collect();
        for tenure in ended {
            self.abandon(&tenure, LOST);
        }
    }

    /// Starts due background work: write-back, index batches, rescans.
    pub fn work(self: &Arc<Self>) {
        let open: Vec<Arc<OpenAccount>> = self.open.lock().values().cloned().collect();
        for account in open {
            if !account.is_usable() || !account.begin_work_if_due() || account.working.swap(true, Ordering::SeqCst) {
                continue;
            }
            let (accounts, turns) = (self.clone(), self.background.clone());
            tokio::spawn(async move {
                let turn = turns.take().await;
                let worker = account.clone();
                let work = tokio::task::spawn_blocking(move || worker.account.run_background_work());
                let result = turn.spend(account.account.user(), PATIENCE, work).await;
                accounts.tell_crossings(&account);
                account.work_ended(result);
            });
        }
    }

    /// Starts closing accounts that nobody has used for `linger`, and looks after leases that are stuck; `paths` says where a user's files are.
    pub fn close_idle(
        self: &Arc<Self>,
        linger: Duration,
        paths: impl Fn(UserName) -> BoxFuture<'static, Result<AccountPaths, RouteError>>,
    ) {
        let idle: Vec<(UserName, Duration)> = {
            let open = self.open.lock();
            let lingers = |user: &UserName, open: &OpenAccount| {
                let wished_elsewhere = open.is_unused_for(WISHED_LINGER) && self.placing.wished_elsewhere(user);
                if wished_elsewhere { WISHED_LINGER.min(linger) } else { linger }
            };
            let all = open.iter().map(|(user, account)| (user, account, lingers(user, account)));
            all.filter(|(_, account, linger)| account.is_due(*linger)).map(|(user, _, linger)| (user.clone(), linger)).collect()
        };
        for (user, linger) in idle {
            let Some(turn) = self.closing.try_take() else { break };
            let accounts = self.clone();
            tokio::spawn(async move { turn.spend(&user, PATIENCE, accounts.close_if(&user, |open| open.is_due(linger))).await });
        }
        let stuck = self.look_after_slots();
        for user in stuck.into_iter().chain(self.unaccounted()) {
            let Some(turn) = self.closing.try_take() else { break };
            let (accounts, paths) = (self.clone(), paths(user.clone()));
            tokio::spawn(async move { turn.spend(&user, PATIENCE, accounts.free_stuck(&user, paths)).await });
        }
    }

    /// From time to time: users whose lease is ours although no slot knows of it, as when it was won so late that this node might have been fenced.
    fn unaccounted(&self) -> Vec<UserName> {
        let now = self.clock.now();
        {
            let mut last = self.last_count.lock();
            if now.saturating_sub(*last) < STUCK_RETRY {
                return Vec::new();
            }
            *last = now;
        }
        let held = self.keeper.held();
        let slots = self.slots.lock();
        held.into_iter().map(|(user, _)| user).filter(|user| !slots.contains_key(user)).collect()
    }

    /// Forgets empty slots and what a lost tenure left in them; gives the users whose lease is due for another try.
    fn look_after_slots(&self) -> Vec<UserName> {
        let now = self.clock.now();
        let mut stuck = Vec::new();
        self.slots.lock().retain(|user, slot| {
            let Ok(mut state) = slot.try_lock() else { return true };
            match &*state {
                State::Open(open) if open.tenure.is_over() => *state = State::Closed,
                State::Stuck(left) if left.lease.tenure().is_over() => *state = State::Closed,
                State::Stuck(left) if now.saturating_sub(left.since) >= STUCK_RETRY => stuck.push(user.clone()),
                State::Closed | State::Open(_) | State::Stuck(_) => {}
            }
            !matches!(*state, State::Closed) || Arc::strong_count(slot) > 1
        });
        stuck
    }

    /// Releases a lease whose account is not open, after dealing with what is left of it. Who was removed from the users has no `paths`, which matters only
    /// where something is left.
    async fn free_stuck(self: &Arc<Self>, user: &UserName, paths: impl Future<Output = Result<AccountPaths, RouteError>>) {
        let mut state = self.slot(user).lock_owned().await;
        if let State::Stuck(stuck) = &mut *state {
            stuck.since = self.clock.now();
            if stuck.rest == Rest::Release {
                match self.keeper.release(stuck.lease.clone()).await {
                    Ok(()) => *state = State::Closed,
                    Err(error) => tracing::warn!(%user, %error, "can't release the lease yet"),
                }
                return;
            }
        }
        drop(state);
        let paths = match paths.await {
            Ok(paths) => paths,
            Err(error) => return tracing::warn!(%user, %error, "a lease that nobody uses stays for now"),
        };
        let state = self.slot(user).lock_owned().await;
        match &*state {
            State::Open(_) => return,
            State::Stuck(stuck) if stuck.rest == Rest::Release => return,
            State::Stuck(_) => {}
            // Released meanwhile: nothing may be acquired for nobody.
            State::Closed if !self.keeper.held().iter().any(|(held, _)| held == user) => return,
            State::Closed => {}
        }
        match self.open_closed(state, user, paths, Use::Delivery, Claim::Ours).await {
            // Closed again as soon as it is idle.
            Ok(Opened::Here(held)) => {
                drop(held);
                self.close_unused(user).await;
            }
            // An error of the store was logged.
            Ok(_) | Err(RouteError::Storage(_)) => {}
            Err(error) => tracing::warn!(%user, %error, "a lease that nobody uses stays for now"),
        }
    }

    /// Closes one account cleanly and releases its lease if it is still to be.
    async fn close_if(&self, user: &UserName, due: impl FnOnce(&OpenAccount) -> bool) {
        let mut state = self.slot(user).lock_owned().await;
        if matches!(&*state, State::Open(open) if due(open)) {
            self.put_in_order(&mut state, user).await;
        }
    }

    /// The largest message that accounts take from now on.
    pub fn set_message_bytes_max(&self, limit: u64) {
        self.settings.message_bytes_max.set(limit);
    }

    /// Closes an account that was opened for a moment, unless somebody uses it by now.
    pub async fn close_unused(&self, user: &UserName) {
        self.close_if(user, |open| open.is_unused_for(Duration::ZERO)).await;
    }

    /// Tells every session of `user` to end, closes the account and releases its lease, so that another node can have it. Whether the lease is
    /// no longer ours.
    pub async fn hand_over(&self, user: &UserName, why: &str) -> bool {
        if let Some(open) = self.open.lock().get(user) {
            open.gone.say(why);
        }
        let mut state = self.slot(user).lock_owned().await;
        if let State::Open(open) = &*state {
            // It may have been opened only now.
            open.gone.say(why);
        }
        self.put_in_order(&mut state, user).await;
        if let State::Stuck(Stuck { lease, rest: Rest::Release, .. }) = &*state
            && self.keeper.release(lease.clone()).await.is_ok()
        {
            *state = State::Closed;
        }
        matches!(*state, State::Closed)
    }

    /// Hands `user` over to `to`: whoever asks for them here is sent there.
    pub async fn move_to(&self, user: &UserName, to: HolderId, why: &str) -> bool {
        self.moves.lock().insert(user.clone(), (to, self.clock.now()));
        self.hand_over(user, why).await
    }

    /// Starts handing over as many accounts as may be under way at once; how many there are that no other node takes.
    pub fn drain_some(self: &Arc<Self>, why: &'static str) -> usize {
        let open: Vec<UserName> = self
            .open
            .lock()
            .iter()
            .filter(|(_, account)| account.is_usable() && account.may_close())
            .map(|(user, _)| user.clone())
            .collect();
        let mut kept = 0;
        for user in open {
            if self.placing.elsewhere(&user).is_none() {
                kept += 1;
                continue;
            }
            let Some(turn) = self.closing.try_take() else { break };
            let accounts = self.clone();
            tokio::spawn(async move { turn.spend(&user, PATIENCE, accounts.hand_over(&user, why)).await });
        }
        kept
    }

    /// The node leaves: sessions are told to end, every account is closed and released; at most `limit` long.
    pub async fn close_all(self: &Arc<Self>, why: &'static str, limit: Duration) {
        self.placing.leave();
        // Less than the whole, or one file server that is away keeps those of others from being closed.
        let patience = limit / 6;
        let all = async {
            let mut tried = 0;
            loop {
                // Slots and not only open accounts: one may be in the middle of its opening.
                let users: Vec<UserName> = self.slots.lock().keys().cloned().collect();
                let mut closing = tokio::task::JoinSet::new();
                for user in users {
                    let accounts = self.clone();
                    closing
                        .spawn(async move { accounts.closing.take().await.spend(&user, patience, accounts.hand_over(&user, why)).await });
                }
                while closing.join_next().await.is_some() {}
                self.look_after_slots();
                tried += 1;
                // What can't be closed is tried once more.
                if self.slots.lock().is_empty() || tried == 2 {
                    return;
                }
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(limit = %humantime::format_duration(limit), "not every account could be closed in time: the next holders take over uncleanly");
        }
    }

    /// How many accounts are open.
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }
}

#[cfg(test)]
mod tests;
