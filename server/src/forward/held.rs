//! Use of an open account: who has one keeps it open, and hears when it is taken away.

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use affinity::{Clock, SystemClock, Tenure};
use parking_lot::Mutex;
use smallvec::SmallVec;
use storage::{Account, Retry, StorageError};
use tokio::{sync::Notify, task::JoinError};
use tokio_util::sync::CancellationToken;

use super::{Preamble, RouteError, accounts::LOST, route::SessionsOf};
use crate::{
    client::Client,
    config::Limits,
    node::{admission::counted, health::Evidence},
};

/// How long after a call of the store background work may still be due at short notice: write-back and batches follow within a second or two.
const BUSY: Duration = Duration::from_secs(5);

/// An account that is open here, with those who use it.
#[derive(Debug)]
pub(super) struct OpenAccount {
    pub(super) account: Arc<Account>,
    pub(super) tenure: Arc<Tenure>,
    sessions: Mutex<SessionCounts>,
    pub(super) uses: AtomicUsize,
    unused: Notify,
    idle_since: Mutex<Duration>,
    clock: SystemClock,
    pub(super) gone: Farewell,
    /// Nothing may be written any more.
    pub(super) abandoned: AtomicBool,
    pub(super) working: AtomicBool,
    /// When somebody was last inside the store, and when background work was last started.
    touched: Mutex<Duration>,
    worked: Mutex<Duration>,
    /// Background work that fails, and a close that does, are tried again after a while.
    work: Mutex<Retry>,
    pub(super) closing: Mutex<Retry>,
    /// What errors say of this node.
    pub(super) evidence: Arc<Evidence>,
}

/// Tells sessions to end, with a text for the client.
#[derive(Debug, Clone, Default)]
pub struct Farewell {
    said: CancellationToken,
    why: Arc<Mutex<String>>,
}

impl Farewell {
    /// Says it; the first text counts.
    pub fn say(&self, why: &str) {
        let mut text = self.why.lock();
        if !self.said.is_cancelled() {
            why.clone_into(&mut text);
            self.said.cancel();
        }
    }
    /// Whether it was said.
    pub fn is_said(&self) -> bool {
        self.said.is_cancelled()
    }
    /// Resolves with the text when it is said. Safe to cancel.
    pub async fn heard(&self) -> String {
        self.said.cancelled().await;
        self.why.lock().clone()
    }
}

/// What an account is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A session of a client; counted for its user, in all and by address.
    Session {
        /// Where the client is.
        from: IpAddr,
        /// Sessions of a user (`limits.sessions_per_user`).
        max: usize,
        /// Sessions of a user from one address (`limits.sessions_per_user_and_address`).
        max_per_address: usize,
    },
    /// A delivery, or a guest.
    Delivery,
}

impl Use {
    /// A session that begins with `preamble`. A guest's is counted where it comes from.
    pub fn of(preamble: &Preamble, limits: &Limits) -> Use {
        if preamble.guest.is_some() { Use::Delivery } else { Use::session(&preamble.client, limits) }
    }
    /// A session of `client` under the limits of this node.
    pub fn session(client: &Client, limits: &Limits) -> Use {
        Use::Session { from: client.address.ip(), max: limits.sessions_per_user, max_per_address: limits.sessions_per_user_and_address }
    }
}

/// The sessions of one user, counted.
#[derive(Debug, Default)]
pub(super) struct SessionCounts {
    all: usize,
    by_address: SmallVec<[(IpAddr, usize); 1]>,
}

impl SessionCounts {
    fn count_in(&mut self, from: IpAddr, max: usize, max_per_address: usize) -> Result<(), (usize, SessionsOf)> {
        if self.all >= max {
            return Err((max, SessionsOf::User));
        }
        match self.by_address.iter_mut().find(|(address, _)| *address == from) {
            Some((_, count)) if *count >= max_per_address => return Err((max_per_address, SessionsOf::UserAndAddress)),
            Some((_, count)) => *count += 1,
            None => self.by_address.push((from, 1)),
        }
        self.all += 1;
        Ok(())
    }
    fn count_out(&mut self, from: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some((_, count)) = self.by_address.iter_mut().find(|(address, _)| *address == from) {
            *count = count.saturating_sub(1);
        }
        self.by_address.retain(|(_, count)| *count > 0);
    }
}

/// Use of an open account: while one exists, the account stays open (unless its lease is lost).
#[derive(Debug)]
pub struct Held {
    pub(super) open: Arc<OpenAccount>,
    /// A session, from there.
    session: Option<IpAddr>,
    kicked: Farewell,
}

impl Held {
    pub(super) fn new(open: Arc<OpenAccount>, what_for: Use) -> Result<Held, RouteError> {
        let session = match what_for {
            Use::Delivery => None,
            Use::Session { from, max, max_per_address } => {
                let from = counted(from);
                let counted_in = open.sessions.lock().count_in(from, max, max_per_address);
                counted_in.map_err(|(limit, of)| RouteError::TooManySessions { user: open.account.user().clone(), limit, of })?;
                Some(from)
            }
        };
        open.uses.fetch_add(1, Ordering::SeqCst);
        Ok(Held { open, session, kicked: Farewell::default() })
    }

    /// Runs a blocking call of the store on the blocking pool.
    pub async fn run<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Account>) -> Result<T, StorageError> + Send + 'static,
    {
        self.open.touch();
        let open = self.open.clone();
        let user = open.account.user().clone();
        let result = match tokio::task::spawn_blocking(move || work(&open.account)).await {
            Ok(result) => result,
            Err(panic) => Err(StorageError::Index { user, reason: format!("an operation failed unexpectedly: {panic}") }),
        };
        self.open.touch();
        match &result {
            Ok(_) => {}
            Err(error @ StorageError::Index { .. }) => self.open.index_failed(error),
            Err(error) => self.open.evidence.saw(error),
        }
        result
    }

    /// The account.
    pub fn account(&self) -> &Arc<Account> {
        &self.open.account
    }

    /// Ends this one use, where an operator wants so.
    pub fn kick(&self) -> Farewell {
        self.kicked.clone()
    }

    /// What [`Held::taken_away`] listens to, without this use of the account.
    pub fn goodbye(&self) -> Goodbye {
        Goodbye { gone: self.open.gone.clone(), kicked: self.kicked.clone() }
    }

    /// Resolves, with a text for the client, when the account is taken away (lease lost, drain, kick): say BYE and end. Safe to cancel.
    pub async fn taken_away(&self) -> String {
        self.goodbye().heard().await
    }
}

/// That a use of an account is to end.
#[derive(Debug, Clone)]
pub struct Goodbye {
    gone: Farewell,
    kicked: Farewell,
}

impl Goodbye {
    /// Resolves with why. Safe to cancel.
    pub async fn heard(&self) -> String {
        tokio::select! {
            biased;
            why = self.gone.heard() => why,
            why = self.kicked.heard() => why,
        }
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
        if let Some(from) = self.session {
            self.open.sessions.lock().count_out(from);
        }
        *self.open.idle_since.lock() = self.open.clock.now();
        if self.open.uses.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.open.unused.notify_waiters();
        }
    }
}

impl OpenAccount {
    pub(super) fn new(account: Arc<Account>, clock: SystemClock, evidence: Arc<Evidence>) -> Arc<OpenAccount> {
        Arc::new(OpenAccount {
            tenure: account.lease().tenure().clone(),
            account,
            sessions: Mutex::default(),
            uses: AtomicUsize::new(0),
            unused: Notify::new(),
            idle_since: Mutex::new(clock.now()),
            gone: Farewell::default(),
            abandoned: AtomicBool::new(false),
            working: AtomicBool::new(false),
            touched: Mutex::new(clock.now()),
            worked: Mutex::new(clock.now()),
            work: Mutex::default(),
            closing: Mutex::default(),
            evidence,
            clock,
        })
    }

    /// Nothing may be written any more.
    pub(super) fn abandon(&self, why: &str) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.gone.say(why);
        self.account.abandon();
    }

    pub(super) fn index_failed(&self, error: &StorageError) {
        let user = self.account.user();
        // Whoever took over works on a copy and removes this one; an outage hits every index. Neither is a fault of the index or of this node.
        if self.tenure.is_over() {
            tracing::info!(%user, %error, "an index could not be used any more: another node has the user now");
            return self.abandon(LOST);
        }
        if !self.tenure.is_valid() {
            tracing::warn!(%user, %error, "an index could not be used without contact with the shared directory: sessions end");
            return self.abandon(LOST);
        }
        self.evidence.saw(error);
        tracing::error!(%user, %error, "the index failed: sessions end, it is rebuilt at the next login");
        self.abandon("the mailbox index had to be rebuilt, please log in again");
    }

    fn touch(&self) {
        *self.touched.lock() = self.clock.now();
    }

    /// Whether background work may have something to do: often while somebody is at work here, seldom otherwise, so that ten thousand idle accounts
    /// cost next to nothing.
    pub(super) fn begin_work_if_due(&self) -> bool {
        let now = self.clock.now();
        if !self.work.lock().is_due(now) {
            return false;
        }
        let mut worked = self.worked.lock();
        let due = now.saturating_sub(*self.touched.lock()) < BUSY || now.saturating_sub(*worked) >= BUSY;
        if due {
            *worked = now;
        }
        due
    }

    /// Notes how background work ended; the first failure is in the log, and that it is over.
    pub(super) fn work_ended(&self, result: Result<Result<Vec<StorageError>, StorageError>, JoinError>) {
        let (user, now) = (self.account.user(), self.clock.now());
        match result {
            Ok(Ok(of_mailboxes)) => {
                of_mailboxes.iter().for_each(|error| self.evidence.saw(error));
                if self.work.lock().worked() {
                    tracing::info!(%user, "background work succeeds again");
                }
            }
            Ok(Err(StorageError::LeaseLost(_) | StorageError::Closing(_))) => {}
            Ok(Err(error @ StorageError::Index { .. })) => self.index_failed(&error),
            Ok(Err(error)) => {
                self.evidence.saw(&error);
                if self.work.lock().failed(now) {
                    tracing::warn!(%user, %error, "background work failed: it is tried again, more and more seldom");
                }
            }
            Err(panic) => {
                self.work.lock().failed(now);
                tracing::error!(%user, %panic, "background work failed unexpectedly");
            }
        }
        self.working.store(false, Ordering::SeqCst);
    }

    /// It goes on because it could not be closed, as `before` as well.
    pub(super) fn closing_failed(&self, before: Retry, error: &StorageError) {
        let mut closing = self.closing.lock();
        *closing = before;
        if closing.failed(self.clock.now()) {
            tracing::warn!(user = %self.account.user(), %error, "can't close the account cleanly: it stays open here, and that is tried again");
        }
    }

    /// Whether a close has not failed a moment ago.
    pub(super) fn may_close(&self) -> bool {
        self.closing.lock().is_due(self.clock.now())
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.gone.is_said() && !self.tenure.is_over()
    }

    pub(super) fn is_unused_for(&self, linger: Duration) -> bool {
        self.uses.load(Ordering::SeqCst) == 0 && self.clock.now().saturating_sub(*self.idle_since.lock()) >= linger
    }

    /// Whether it is to be closed. Sessions that were told to end are given their time by whoever told them.
    pub(super) fn is_due(&self, linger: Duration) -> bool {
        let linger = if self.is_usable() { linger } else { Duration::ZERO };
        self.abandoned.load(Ordering::SeqCst) || (self.may_close() && self.is_unused_for(linger))
    }

    /// Until nobody uses it, at most `limit`.
    pub(super) async fn until_unused(&self, limit: Duration) {
        let unused = async {
            loop {
                // Registered before the look, so that the last one who goes is not missed.
                let mut last_goes = std::pin::pin!(self.unused.notified());
                last_goes.as_mut().enable();
                if self.uses.load(Ordering::SeqCst) == 0 {
                    return;
                }
                last_goes.await;
            }
        };
        // Whoever is still inside a call of the store then is waited for by its close.
        tokio::time::timeout(limit, unused).await.ok();
    }
}
