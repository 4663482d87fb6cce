//! What the mailboxes of one account share: the lease, the index connection, the file system, names for new files.
//!
//! Invariants, each with the test that guards it:
//! - nothing is acknowledged once the lease is lost (`a_lost_lease_is_never_acknowledged`)
//! - after `abandon` nothing is written (`an_abandoned_account_writes_nothing_more`)
//! - an account whose index can't be closed goes on as before (`an_account_whose_index_can_not_be_closed_goes_on`)

mod answers;
mod leftovers;
mod let_go;
mod replaced;
mod retry;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use affinity::{Clock, Lease, SystemClock, clock::wall_clock};
use index::{Change, FieldsKind, IndexError, IndexReader, ScanDue, UserIndex};
use parking_lot::{Mutex, RecursiveRwLock, RecursiveRwLockReadGuard, RecursiveRwLockWriteGuard};
use tokio::sync::watch;

pub(crate) use answers::Answers;
pub use retry::Retry;

use crate::{
    Account, AccountPaths, StorageError, StorageSettings,
    commits::{Commits, Failure},
    filesystem::Filesystem,
    maildir::filename,
    mime::FieldNames,
    quota::Quota,
};

/// Commits after which the log is moved into the database: about a thousand pages, SQLite's own default.
const COMMITS_PER_CHECKPOINT: u32 = 250;

/// How long an index that nobody asks keeps its caches.
const UNUSED_AFTER: Duration = Duration::from_secs(120);
/// A server that gave a lost host a read delegation makes everybody else's rename or unlink of that file wait, and lookups beside it, until the host's
/// lease has run out: 103 s were measured. So long nothing is renamed or removed in the background after an unclean takeover.
const DEAD_CLIENT_HOLDS: Duration = Duration::from_secs(110);

const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const ABANDONED: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    /// Moves with every change that somebody may follow.
    pub events: watch::Sender<u64>,
    pub paths: AccountPaths,
    pub lease: Lease,
    pub settings: Arc<StorageSettings>,
    pub filesystem: Arc<dyn Filesystem>,
    pub quota: Quota,
    /// Whether the account is on a file server.
    pub is_remote: bool,
    clock: SystemClock,
    phase: AtomicU8,
    activity: RecursiveRwLock<()>,
    writer: Commits,
    reader: Mutex<Option<IndexReader>>,
    index_folder: Mutex<PathBuf>,
    pub damaged: AtomicBool,
    /// Something in a folder was not there: the folder may have gone.
    misses_a_folder: AtomicBool,
    /// Makes a damaged index anew; known once the account is open.
    healer: OnceLock<Weak<Account>>,
    /// Time since opening until which a dead client's delegations may be in force.
    quiet_until: Mutex<Duration>,
    /// The holder before died.
    is_takeover: AtomicBool,
    commits: AtomicU32,
    /// When the index was last asked, in milliseconds since opening, and whether its memory was given back since.
    used: AtomicU64,
    resting: AtomicBool,
    counter: AtomicU64,
    /// Header fields that clients ask for, as far as the index keeps them.
    asked: Mutex<Option<Arc<AskedFields>>>,
    /// Header fields that are to be kept.
    answers: Mutex<answers::Waiting>,
    /// Something that was made of messages that are gone may be in the index.
    pub leftovers: AtomicBool,
    /// Until then nothing is stored that can be made again.
    pub keep_again_at: Mutex<Duration>,
    /// Folders in which nothing of a dead holder is on its way.
    swept: Mutex<HashSet<PathBuf>>,
}

/// Sets of header fields that the index keeps.
pub(crate) type AskedFields = [(FieldsKind, FieldNames)];

impl Store {
    pub fn new(
        paths: AccountPaths,
        lease: Lease,
        settings: Arc<StorageSettings>,
        filesystem: Arc<dyn Filesystem>,
        index: UserIndex,
    ) -> Store {
        Store {
            paths,
            lease,
            settings,
            is_remote: filesystem.is_remote(index.folder()),
            asked: Mutex::default(),
            answers: Mutex::default(),
            leftovers: AtomicBool::new(true),
            swept: Mutex::default(),
            keep_again_at: Mutex::default(),
            filesystem,
            quota: Quota::default(),
            clock: SystemClock::new(),
            phase: AtomicU8::new(OPEN),
            activity: RecursiveRwLock::new(()),
            index_folder: Mutex::new(index.folder().to_owned()),
            writer: Commits::new(index),
            reader: Mutex::new(None),
            damaged: AtomicBool::new(false),
            misses_a_folder: AtomicBool::new(false),
            healer: OnceLock::new(),
            quiet_until: Mutex::default(),
            is_takeover: AtomicBool::new(false),
            commits: AtomicU32::new(0),
            used: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            counter: AtomicU64::new(0),
            events: watch::Sender::new(0),
        }
    }

    /// Something changed that somebody may follow, of any mailbox or of the account.
    pub fn note_activity(&self) {
        self.events.send_modify(|events| *events += 1);
    }

    /// Every call into the store begins here; closing waits for those that are inside.
    pub fn enter(&self) -> Result<RecursiveRwLockReadGuard<'_, ()>, StorageError> {
        self.ensure_open()?;
        self.heal()?;
        // Recursive: one call may make another, and a waiting close must not come between them.
        let guard = self.activity.read();
        self.ensure_open()?;
        if self.is_damaged() { Err(self.index_damaged()) } else { Ok(guard) }
    }
    /// Makes the index anew if it was found damaged.
    pub fn heal(&self) -> Result<(), StorageError> {
        match self.healer.get().and_then(Weak::upgrade) {
            Some(account) if self.is_damaged() => account.heal(),
            _ => Ok(()),
        }
    }
    /// With nobody inside; `None`: somebody stayed for longer than `wait`.
    pub fn enter_alone(&self, wait: Duration) -> Option<RecursiveRwLockWriteGuard<'_, ()>> {
        self.activity.try_write_for(wait)
    }
    /// Repeats a call that found the index damaged: the second one makes it anew first. For calls that change nothing when they fail.
    pub fn twice<T>(&self, call: impl Fn() -> Result<T, StorageError>) -> Result<T, StorageError> {
        match call() {
            Err(StorageError::IndexDamaged(_)) => call(),
            answer => answer,
        }
    }
    /// `account` makes a damaged index anew.
    pub fn set_healer(&self, account: &Arc<Account>) {
        self.healer.set(Arc::downgrade(account)).unwrap_or_default();
    }
    /// As [`Store::enter`], for calls that change something: they start only under a live lease.
    pub fn enter_for_change(&self) -> Result<RecursiveRwLockReadGuard<'_, ()>, StorageError> {
        let guard = self.enter()?;
        self.lease.confirm(self.settings.suspended_wait)?;
        Ok(guard)
    }
    /// The change is durable: may it be acknowledged?
    pub fn acknowledge<T>(&self, answer: T) -> Result<T, StorageError> {
        self.ensure_not_abandoned()?;
        self.lease.confirm(self.settings.suspended_wait)?;
        Ok(answer)
    }
    /// Fails while it is closing, and afterwards.
    pub fn ensure_open(&self) -> Result<(), StorageError> {
        self.ensure_not_abandoned()?;
        if self.phase.load(Ordering::SeqCst) == CLOSING {
            return Err(StorageError::Closing(self.lease.user().clone()));
        }
        Ok(())
    }
    /// Every background operation asks before each step.
    pub fn ensure_not_abandoned(&self) -> Result<(), StorageError> {
        if self.phase.load(Ordering::SeqCst) == ABANDONED || self.lease.tenure().is_over() {
            return Err(affinity::LeaseLost { user: self.lease.user().clone(), epoch: self.lease.epoch() }.into());
        }
        Ok(())
    }
    /// Whether this node may act for the user now. While it is suspended others may have fenced it and gone on: what is in the folder may be theirs, so nothing
    /// there is shown, renamed or removed (`a_suspended_node_leaves_the_folder_to_others`).
    pub fn is_live(&self) -> bool {
        self.lease.ensure_live().is_ok()
    }
    /// Waits until nobody is inside, and lets nobody in while the guard is there. Not for those who are inside themselves.
    pub fn alone(&self) -> Result<RecursiveRwLockWriteGuard<'_, ()>, StorageError> {
        let guard = self.activity.write();
        self.ensure_open()?;
        Ok(guard)
    }
    /// Lets nobody in any more and waits for those inside. `None`: closed or abandoned already.
    pub fn close(&self) -> Option<RecursiveRwLockWriteGuard<'_, ()>> {
        self.phase.compare_exchange(OPEN, CLOSING, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        Some(self.activity.write())
    }
    /// Closing failed: the account goes on.
    pub fn reopen(&self) {
        self.phase.compare_exchange(CLOSING, OPEN, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_default();
    }
    /// Nothing is written from here on. Does not wait.
    pub fn abandon(self: &Arc<Self>) {
        if self.phase.swap(ABANDONED, Ordering::SeqCst) == ABANDONED {
            return;
        }
        let store = Arc::clone(self);
        // Closing files may wait for the file server, so it happens elsewhere. Without a thread the index goes with its last handle.
        let letting_go = let_go::of_this_process().soon(move || {
            store.reader.lock().take();
            drop(store.writer.take());
        });
        if let Err(error) = letting_go {
            tracing::warn!(user = %self.lease.user(), %error, "index stays open until the last session is gone");
        }
    }

    /// Reads from the index.
    pub fn read<T>(&self, read: impl FnOnce(&IndexReader) -> Result<T, IndexError>) -> Result<T, StorageError> {
        self.touch();
        let mut reader = self.reader.lock();
        if reader.is_none() {
            *reader = Some(self.with_writer(|index| index.reader())?);
        }
        match reader.as_ref() {
            Some(reader) => read(reader).map_err(|error| self.index_error(error)),
            None => Err(self.index_failed("it is closed".to_owned())),
        }
    }
    /// The connection that writes, for reading what must be exact.
    pub fn with_writer<T>(&self, work: impl FnOnce(&mut UserIndex) -> Result<T, IndexError>) -> Result<T, StorageError> {
        self.ensure_not_abandoned()?;
        match self.writer.with(work, || self.may_commit()) {
            Some(answer) => answer.map_err(|error| self.index_error(error)),
            None => Err(self.index_failed("it is closed".to_owned())),
        }
    }
    /// The same for what nobody can be changing: it ends no commit that others are still coming to.
    pub fn read_unchanging<T>(&self, work: impl FnOnce(&UserIndex) -> Result<T, IndexError>) -> Result<T, StorageError> {
        self.ensure_not_abandoned()?;
        match self.writer.read(work) {
            Some(answer) => answer.map_err(|error| self.index_error(error)),
            None => Err(self.index_failed("it is closed".to_owned())),
        }
    }
    /// One commit, shared with those who come at the same time.
    pub fn change<T>(&self, work: impl FnOnce(&mut Change<'_>) -> Result<T, IndexError>) -> Result<T, StorageError> {
        self.ensure_not_abandoned()?;
        self.touch();
        let answer = self.writer.change(work, || {
            self.commits.fetch_add(1, Ordering::SeqCst);
            self.may_commit()
        });
        answer.map_err(|failure| {
            if let Err(lost) = self.ensure_not_abandoned() {
                return lost;
            }
            match failure {
                Failure::Closed => self.index_failed("it is closed".to_owned()),
                Failure::Index(error) => self.index_error(error),
            }
        })
    }
    fn may_commit(&self) -> Result<(), IndexError> {
        self.ensure_not_abandoned().map_err(|_| IndexError::Closed)
    }
    /// Moves the log into the database when it has grown.
    pub fn checkpoint_when_due(&self) -> Result<(), StorageError> {
        if self.commits.load(Ordering::SeqCst) < COMMITS_PER_CHECKPOINT {
            return Ok(());
        }
        self.with_writer(|index| index.checkpoint())?;
        self.commits.store(0, Ordering::SeqCst);
        Ok(())
    }
    /// Header fields that the index keeps of every message. From memory, but for the first time.
    pub fn asked(&self) -> Arc<AskedFields> {
        let mut known = self.asked.lock();
        Arc::clone(known.get_or_insert_with(|| {
            // What can't be read is kept for nobody; a damaged row is noticed by whoever keeps the same fields again.
            let found = self.with_writer(|index| index.asked_fields()).unwrap_or_else(|error| {
                tracing::warn!(%error, "which header fields are kept can't be read");
                Vec::new()
            });
            found.into_iter().map(|(kind, key)| (kind, FieldNames::of_key(&key))).collect()
        }))
    }
    /// Others are kept from now on.
    pub fn forget_asked(&self) {
        *self.asked.lock() = None;
    }
    /// Gives back what the index keeps in memory when nobody has asked it anything for a while.
    pub fn rest_when_unused(&self) -> Result<(), StorageError> {
        let used = Duration::from_millis(self.used.load(Ordering::SeqCst));
        if self.resting.load(Ordering::SeqCst) || self.now().saturating_sub(used) < UNUSED_AFTER {
            return Ok(());
        }
        drop(self.reader.lock().take());
        self.with_writer(|index| index.rest())?;
        self.resting.store(true, Ordering::SeqCst);
        Ok(())
    }
    fn touch(&self) {
        self.used.store(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.resting.store(false, Ordering::SeqCst);
    }
    /// Closes the index for good; after an error it is open as before, so that the account can go on.
    pub fn close_index(&self) -> Result<(), StorageError> {
        self.reader.lock().take();
        self.with_writer(|index| index.checkpoint_all())?;
        match self.writer.take() {
            Some(index) => index.close().map_err(|error| self.index_error(error)),
            None => Ok(()),
        }
    }

    fn index_failed(&self, reason: String) -> StorageError {
        StorageError::Index { user: self.lease.user().clone(), reason }
    }
    /// Fails where the index was found to be damaged.
    pub fn ensure_sound(&self) -> Result<(), StorageError> {
        if self.damaged.load(Ordering::SeqCst) { Err(self.index_damaged()) } else { Ok(()) }
    }
    pub fn index_damaged(&self) -> StorageError {
        StorageError::IndexDamaged(self.lease.user().clone())
    }
    pub fn index_error(&self, error: IndexError) -> StorageError {
        let folder = self.index_folder.lock().clone();
        // Before the account is open, only the file knows what names lack.
        let anew = error.is_lost() || (error.needs_rebuild() && self.healer.get().is_some());
        if !anew {
            return index_error(&self.lease, &folder, error);
        }
        if !self.damaged.swap(true, Ordering::SeqCst) {
            tracing::warn!(user = %self.lease.user(), index = %folder.display(), %error, "the index is damaged: it is made anew");
            index::epoch::mark_for_rebuild(&folder);
        }
        self.index_damaged()
    }
    /// Lets go of the damaged index.
    pub fn close_damaged(&self) {
        self.reader.lock().take();
        drop(self.writer.take());
    }
    /// Goes on with an index that was made anew; the folder of the one before, if it was another.
    pub fn go_on_with(&self, index: UserIndex) -> Option<PathBuf> {
        let folder = index.folder().to_owned();
        let before = std::mem::replace(&mut *self.index_folder.lock(), folder.clone());
        self.forget_asked();
        self.writer.put(index);
        self.damaged.store(false, Ordering::SeqCst);
        (before != folder).then_some(before)
    }
    /// An error of the file system.
    pub fn io(&self, doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.into();
        move |cause| {
            if cause.kind() == io::ErrorKind::NotFound {
                self.miss_a_folder();
            }
            io_error(doing, &path, cause)
        }
    }
    /// Whether something was not where it should be since all folders were found.
    pub fn misses_a_folder(&self) -> bool {
        self.misses_a_folder.load(Ordering::SeqCst)
    }
    /// It was not.
    pub fn miss_a_folder(&self) {
        self.misses_a_folder.store(true, Ordering::SeqCst);
    }
    /// The folders were compared with what is known of them.
    pub fn found_all_folders(&self) {
        self.misses_a_folder.store(false, Ordering::SeqCst);
    }

    /// Time since the account was opened.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }
    /// The holder before died: where other hosts share the files, its client may have been lost with delegations.
    pub fn wait_for_dead_client(&self) {
        self.is_takeover.store(true, Ordering::SeqCst);
        if self.is_remote {
            *self.quiet_until.lock() = self.now() + DEAD_CLIENT_HOLDS;
        }
    }
    /// What is due of a mailbox of which the index knew nothing, once its folder was scanned: where nobody died, nothing is late.
    pub fn due_after_rebuild(&self) -> ScanDue {
        if self.is_takeover.load(Ordering::SeqCst) { ScanDue::Settle } else { ScanDue::No }
    }
    /// Whether the holder before died on a file server: requests of its host may still be on their way.
    pub fn follows_a_dead_client(&self) -> bool {
        !self.quiet_until.lock().is_zero()
    }
    /// Whether a rename or removal in the background may have to wait, and lookups with it: no client shall. What was told is durable in the index.
    pub fn may_wait_for_dead_client(&self) -> bool {
        self.now() < *self.quiet_until.lock()
    }
    /// How long after an unclean takeover requests that the holder before had sent may still arrive. A host that stays cut off for longer sends them when
    /// it comes back: `rescan_interval` finds what they did.
    pub fn late_requests_last(&self) -> Duration {
        if self.is_remote { DEAD_CLIENT_HOLDS.max(self.settings.settle_after) } else { self.settings.settle_after }
    }
    /// The unique part of a new file's name, and when it was made (Unix seconds).
    pub fn unique(&self, internal_date: Option<i64>) -> (String, i64, i64) {
        let moment = unix_micros();
        let seconds = moment.div_euclid(1_000_000);
        let internal_date = internal_date.unwrap_or(seconds);
        let counter = self.counter.fetch_add(1, Ordering::SeqCst);
        (filename::unique(internal_date, moment, counter, self.lease.epoch(), &self.settings.node), internal_date, seconds)
    }
    /// A name that nothing else has, for files on their way.
    pub fn scratch(&self) -> String {
        self.unique(None).0
    }
}

/// The least MODSEQ of a mailbox that is taken over: the time in seconds is more than any earlier server can have counted changes.
pub(crate) fn first_modseq() -> u64 {
    u64::try_from(unix_micros().div_euclid(1_000_000)).unwrap_or(1).max(1)
}

/// Now, Unix microseconds.
pub(crate) fn unix_micros() -> i64 {
    match wall_clock().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// Sorts an error of the index into the store's.
pub(crate) fn index_error(lease: &Lease, folder: &Path, error: IndexError) -> StorageError {
    match error {
        IndexError::Full => StorageError::NoSpace { path: folder.to_owned(), cause: io::Error::from(io::ErrorKind::StorageFull) },
        IndexError::Io { doing, path, cause } => io_error(doing, &path, cause),
        IndexError::Unwritable(error) => {
            tracing::warn!(user = %lease.user(), %error, "the index can't be written");
            io_error("can't write the index in", folder, why_not_writable(folder))
        }
        other if other.is_lost() => StorageError::IndexDamaged(lease.user().clone()),
        other => StorageError::Index { user: lease.user().clone(), reason: other.to_string() },
    }
}

/// What the file system says to a write beside the index: SQLite does not pass its answer on.
fn why_not_writable(folder: &Path) -> io::Error {
    let probe = folder.join("probe");
    let written = std::fs::write(&probe, [0; 4096]).and_then(|()| std::fs::File::open(&probe)?.sync_all());
    let removed = std::fs::remove_file(&probe);
    match written.and(removed) {
        Err(error) => error,
        Ok(()) => io::Error::other("a write failed that works by now"),
    }
}

/// Sorts an error of the file system into the store's.
pub(crate) fn io_error(doing: &'static str, path: &Path, cause: io::Error) -> StorageError {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::NoSpace { path: path.to_owned(), cause },
        _ => StorageError::Io { doing, path: path.to_owned(), cause },
    }
}
