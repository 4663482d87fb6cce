//! One user's open mail state on its holder: every session and delivery of the user shares it.
//!
//! Invariants, each with the test that guards it:
//! - closing leaves names that say all there is to say (`the_index_can_be_deleted_at_any_time`)
//! - after `abandon` nothing is written (`an_abandoned_account_writes_nothing_more`)
//! - a new holder goes on above all that a dead one told (`a_new_holder_goes_on_above_what_the_dead_one_told`)
//!
//! Creating, deleting and renaming mailboxes: `hierarchy.rs`.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use affinity::{Handover, Lease, UserName};
use index::MailboxId;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{
    AccountPaths, Cache, IndexProgress, Mailbox, MailboxName, StorageError,
    filesystem::{Filesystem, Shared},
    hierarchy::{Catalog, acls, annotations, late::FoldersLook, watched::AnnotationLog},
    mailbox::{Look, Status},
    maildir::ceiling::Marks,
    parallel,
    quota::{Maildirsize, SetLimits},
    store::{self, Store},
};

/// Settings of the store, the same for all accounts of a node.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// Names this node in Maildir file names.
    pub node: affinity::NodeName,
    /// Mailboxes that are made when an account is opened for the first time, with their special use.
    pub auto_create: Vec<(MailboxName, Option<SpecialUse>)>,
    /// Whether whoever has no subscriptions then is subscribed to INBOX and to those.
    pub auto_subscribe: bool,
    /// Largest message in bytes.
    pub message_bytes_max: Limit,
    /// Most mailboxes per user.
    pub mailboxes_max: usize,
    /// How long changed flags may wait before they are written to file names.
    pub write_back_after: Duration,
    /// How often an open mailbox is compared with its folder for changes by other programs.
    pub rescan_interval: Duration,
    /// How many file operations of one bulk command are under way at once.
    pub parallel_operations: usize,
    /// How long after an unclean takeover a fenced host's late requests are looked for, at least; on a file server it is longer.
    pub settle_after: Duration,
    /// How often they are looked for until then.
    pub late_look_interval: Duration,
    /// How long a durable change may wait for its acknowledgement while this node has no contact with the shared directory and nobody fenced it: an
    /// outage of the file server must not cost a session.
    pub suspended_wait: Duration,
    /// Bodies and what was rendered, on a disk of this host.
    pub cache: Option<Arc<Cache>>,
}

/// A limit that may change while accounts are open; clones change together.
#[derive(Debug, Clone)]
pub struct Limit(Arc<AtomicU64>);

impl From<u64> for Limit {
    fn from(limit: u64) -> Limit {
        Limit(Arc::new(AtomicU64::new(limit)))
    }
}
impl Limit {
    /// Now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    /// From now on.
    pub fn set(&self, limit: u64) {
        self.0.store(limit, Ordering::SeqCst);
    }
}

/// RFC 6154 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the RFC's own names")]
pub enum SpecialUse {
    All,
    Archive,
    Drafts,
    Flagged,
    Junk,
    Sent,
    Trash,
}

impl SpecialUse {
    /// Every one.
    pub const ALL: [SpecialUse; 7] = [
        SpecialUse::All,
        SpecialUse::Archive,
        SpecialUse::Drafts,
        SpecialUse::Flagged,
        SpecialUse::Junk,
        SpecialUse::Sent,
        SpecialUse::Trash,
    ];
    /// As IMAP writes it: `\Drafts`.
    pub fn as_str(self) -> &'static str {
        match self {
            SpecialUse::All => "\\All",
            SpecialUse::Archive => "\\Archive",
            SpecialUse::Drafts => "\\Drafts",
            SpecialUse::Flagged => "\\Flagged",
            SpecialUse::Junk => "\\Junk",
            SpecialUse::Sent => "\\Sent",
            SpecialUse::Trash => "\\Trash",
        }
    }
    /// Reads what [`SpecialUse::as_str`] gives, in any case.
    pub fn parse(attribute: &str) -> Option<SpecialUse> {
        SpecialUse::ALL.into_iter().find(|special_use| special_use.as_str().eq_ignore_ascii_case(attribute))
    }
}

/// One line of LIST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxEntry {
    /// Its name.
    pub name: MailboxName,
    /// `false`: only a level of the hierarchy (\NonExistent or \NoSelect).
    pub selectable: bool,
    /// Subscribed (may be true for names that are no mailbox).
    pub subscribed: bool,
    /// Its special use.
    pub special_use: Option<SpecialUse>,
    /// Whether mailboxes lie below.
    pub has_children: bool,
}

/// Options of CREATE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// RFC 6154 §3.
    pub special_use: Option<SpecialUse>,
}

/// One user's open mail state on its holder. No lease, no account.
#[derive(Debug)]
pub struct Account {
    pub(crate) store: Arc<Store>,
    /// Taken before every other lock but `Store::activity`, by who changes which mailboxes there are.
    pub(crate) structure: Mutex<()>,
    pub(crate) catalog: RwLock<Catalog>,
    pub(crate) list_changes: watch::Sender<u64>,
    open: Mutex<HashMap<MailboxId, Slot>>,
    /// Folders that are only to be removed: of deleted mailboxes, of earlier epochs' indexes.
    pub(crate) trash: Mutex<Vec<PathBuf>>,
    pub(crate) set_limits: Mutex<SetLimits>,
    pub(crate) folders_look: Mutex<FoldersLook>,
    pub(crate) index_progress: Mutex<Option<IndexProgress>>,
    pub(crate) maildirsize: Mutex<Maildirsize>,
    pub(crate) annotations: Mutex<annotations::Cache>,
    pub(crate) annotation_log: Mutex<AnnotationLog>,
    pub(crate) acls: Mutex<acls::Acls>,
    /// Mailboxes of which the index may not have every row yet: their usage is known once they were opened.
    pub(crate) uncounted: Mutex<Vec<MailboxId>>,
    /// Mailboxes that were taken over and not opened yet: what an earlier server may have told of each. Their ceilings are higher already.
    pub(crate) untold: Mutex<HashMap<MailboxId, Marks>>,
}

/// A mailbox that is open or being opened, and when it was last asked for; its lock makes others wait for the one who opens it.
pub(crate) type Slot = Arc<Mutex<Option<(Arc<Mailbox>, Duration)>>>;

/// How long a mailbox that no session has selected stays in memory: most that are looked at once are looked at again.
const UNUSED_AFTER: Duration = Duration::from_secs(300);

impl Account {
    /// Opens (and where needed makes, rebuilds, copies or adopts) the user's mail. Blocking.
    pub fn open(
        paths: AccountPaths,
        lease: Lease,
        handover: Handover,
        settings: Arc<StorageSettings>,
    ) -> Result<Arc<Account>, StorageError> {
        Account::open_on(Arc::new(Shared), paths, lease, handover, settings)
    }
    /// As [`Account::open`], on a file system of the caller's: tests have one that fails.
    #[doc(hidden)]
    pub fn open_on(
        filesystem: Arc<dyn Filesystem>,
        paths: AccountPaths,
        lease: Lease,
        handover: Handover,
        settings: Arc<StorageSettings>,
    ) -> Result<Arc<Account>, StorageError> {
        let open = || Account::try_open(Arc::clone(&filesystem), paths.clone(), lease.clone(), handover, Arc::clone(&settings));
        match open() {
            // It is marked by now: the second opening begins with an empty one.
            Err(StorageError::IndexDamaged(_)) => open(),
            account => account,
        }
    }
    fn try_open(
        filesystem: Arc<dyn Filesystem>,
        paths: AccountPaths,
        lease: Lease,
        handover: Handover,
        settings: Arc<StorageSettings>,
    ) -> Result<Arc<Account>, StorageError> {
        lease.confirm(settings.suspended_wait)?;
        let opened =
            index::epoch::open(&paths.index, lease.epoch(), handover).map_err(|error| store::index_error(&lease, &paths.index, error))?;
        let written_in = opened.written_in;
        let store = Arc::new(Store::new(paths, lease, settings, filesystem, opened.index));
        if handover == Handover::Unclean || opened.copied {
            store.change(|change| change.taken_over_uncleanly())?;
            store.wait_for_dead_client();
        }
        let account = Arc::new(Account {
            store,
            structure: Mutex::new(()),
            catalog: RwLock::new(Catalog::default()),
            list_changes: watch::Sender::new(0),
            open: Mutex::new(HashMap::new()),
            trash: Mutex::new(opened.old),
            set_limits: Mutex::default(),
            folders_look: Mutex::default(),
            index_progress: Mutex::default(),
            maildirsize: Mutex::default(),
            annotations: Mutex::default(),
            annotation_log: Mutex::default(),
            acls: Mutex::default(),
            uncounted: Mutex::default(),
            untold: Mutex::default(),
        });
        account.find_mailboxes(written_in)?;
        account.look_at_shares();
        account.store.set_healer(&account);
        account.store.acknowledge(account.clone())
    }
    /// Whose.
    pub fn user(&self) -> &UserName {
        self.store.lease.user()
    }
    /// The lease it is held under.
    pub fn lease(&self) -> &Lease {
        &self.store.lease
    }
    /// Clean closing: writes all back, checkpoints the index. Only then may the lease be released. Further calls give `Closing`. Blocking.
    pub fn close(&self) -> Result<(), StorageError> {
        self.store.twice(|| self.try_close())
    }
    fn try_close(&self) -> Result<(), StorageError> {
        self.store.heal()?;
        let Some(_alone) = self.store.close() else { return self.store.ensure_not_abandoned() };
        let closed = self.finish().and_then(|()| {
            self.write_snapshots(&self.loaded());
            // What was found to be damaged there is made anew from memory, as anywhere else, and not by whoever comes next.
            self.store.ensure_sound()?;
            self.store.close_index()
        });
        if closed.is_err() {
            self.store.reopen();
        }
        closed
    }
    /// Large mailboxes are opened from one file next time. Nobody else may change these meanwhile. Best effort: rows say the same.
    fn write_snapshots(&self, mailboxes: &[Arc<Mailbox>]) {
        let written = mailboxes.iter().try_fold(false, |any, mailbox| Ok::<_, StorageError>(self.write_snapshot(mailbox)? || any));
        let tidied = written.and_then(|any| if any { self.store.with_writer(|index| index.remove_stale_snapshots()) } else { Ok(()) });
        if let Err(error) = tidied {
            tracing::warn!(user = %self.user(), %error, "large mailboxes are read row by row when they are opened next");
        }
    }
    /// Whether there is a new one.
    fn write_snapshot(&self, mailbox: &Mailbox) -> Result<bool, StorageError> {
        let Some(snapshot) = self.store.with_writer(|index| mailbox.write_snapshot(index))? else { return Ok(false) };
        self.store.change(|change| change.set_snapshot(mailbox.id(), snapshot))?;
        mailbox.snapshot_is_there();
        Ok(true)
    }
    /// What the index says of a mailbox that is no more.
    pub(crate) fn forget_rows(&self, id: MailboxId) -> Result<(), StorageError> {
        self.store.change(|change| change.delete_mailbox(id))?;
        if let Err(error) = self.store.with_writer(|index| index.remove_snapshot(id)) {
            tracing::debug!(user = %self.user(), %error, "it goes with the next that is written");
        }
        Ok(())
    }
    fn finish(&self) -> Result<(), StorageError> {
        let finished = parallel::for_each(parallel::MAILBOXES, &self.loaded(), |mailbox| mailbox.finish());
        finished.into_iter().collect::<Result<(), _>>()?;
        // Mailboxes that an earlier holder left work in and nobody opened since.
        let with_work = self.store.with_writer(|index| index.mailboxes_with_work())?.into_iter().collect();
        let left = self.catalog.read().find(&with_work);
        let finished = parallel::for_each(parallel::MAILBOXES, &left, |(id, name, folder)| match self.load(*id, name.clone(), folder) {
            // It stays due.
            Err(error) if error.is_about(&self.folder_path(folder)) && !error.is_about(&self.store.paths.index) && !error.may_pass() => {
                tracing::warn!(user = %self.user(), mailbox = %name, %error, "what an earlier holder left to be done is left to the next");
                Ok(())
            }
            mailbox => mailbox?.finish(),
        });
        finished.into_iter().collect::<Result<(), _>>()?;
        // As long as a dead holder's requests may arrive, what it deleted may yet be more.
        if !self.store.may_wait_for_dead_client() {
            self.empty_trash();
        }
        self.maildirsize.lock().keep(&self.store, true)
    }
    /// The lease is lost: stops every background task at once, writes nothing more, lets go of the index. Does not block on the shared file system.
    pub fn abandon(&self) {
        self.store.abandon();
    }
    /// Writes due flags to file names and batched rows to the index; called every second or so by the holder for accounts with work. Blocking.
    ///
    /// What failed in folders of single mailboxes is in the answer and in the log: it is tried again mailbox by mailbox, and keeps nobody else from theirs.
    pub fn run_background_work(&self) -> Result<Vec<StorageError>, StorageError> {
        self.look_at_folders_when_due();
        let _inside = self.store.enter()?;
        if !self.store.is_live() {
            return Ok(Vec::new());
        }
        // What was told first, then what can wait; names wait for a dead client's delegations.
        let names = !self.store.may_wait_for_dead_client();
        // Before rows are written: what was made of originals is not swept before their copies have it.
        let leftovers = self.store.leftovers();
        let mut busy = self.loaded();
        busy.retain(|mailbox| mailbox.has_work() && mailbox.may_try(self.store.now()));
        let worked = parallel::for_each(parallel::MAILBOXES, &busy, |mailbox| mailbox.work(names));
        let (mut of_mailboxes, mut of_all) = (Vec::new(), Vec::new());
        for (mailbox, worked) in busy.iter().zip(worked) {
            match mailbox.tried(worked) {
                Ok(()) => {}
                Err(error) if mailbox.is_own(&error) => of_mailboxes.push(error),
                Err(error) => of_all.push(error),
            }
        }
        drop(busy);
        self.unload(UNUSED_AFTER);
        if names {
            self.empty_trash();
        }
        let quota =
            [self.count_some(), self.maildirsize.lock().keep(&self.store, false), self.store.sweep(leftovers), self.store.write_answers()];
        let rest = quota.into_iter().chain([self.store.checkpoint_when_due(), self.store.rest_when_unused()]);
        of_all.into_iter().map(Err).chain(rest).collect::<Result<(), _>>()?;
        Ok(of_mailboxes)
    }
    /// Opens a mailbox (shared by all sessions). The first opening after a takeover or by an interval looks at the folder. Blocking.
    pub fn mailbox(self: &Arc<Self>, name: &MailboxName) -> Result<Arc<Mailbox>, StorageError> {
        match self.store.twice(|| self.try_mailbox(name)) {
            // Its folder may be elsewhere by now.
            Err(error) if error.is_not_found() && self.misses_folder_of(name) => match self.find_folders_again()? {
                Some(true) => self.try_mailbox(name),
                _ => Err(error),
            },
            found => found,
        }
    }
    fn try_mailbox(&self, name: &MailboxName) -> Result<Arc<Mailbox>, StorageError> {
        let _inside = self.store.enter()?;
        let entry = self.catalog.read().mailboxes.get(name).map(|entry| (entry.id, entry.folder.clone()));
        let Some((id, folder)) = entry else { return Err(StorageError::NoMailbox(name.clone())) };
        let mailbox = self.load(id, name.clone(), &folder)?;
        if mailbox.look_is_due() {
            mailbox.look(Look::WhenChanged)?;
        }
        Ok(mailbox)
    }
    /// The numbers of STATUS, in the order of `names`: many are looked at together. `sizes`: those that tell sizes are wanted. Blocking.
    pub fn statuses(self: &Arc<Self>, names: &[MailboxName], sizes: bool) -> Result<Vec<Result<Status, StorageError>>, StorageError> {
        let _inside = self.store.enter()?;
        Ok(parallel::for_each(parallel::MAILBOXES, names, |name| {
            let mailbox = self.mailbox(name)?;
            mailbox.refresh(false)?;
            if sizes {
                mailbox.learn()?;
            }
            Ok(mailbox.status())
        }))
    }
    /// Their MAILBOXIDs (RFC 8474), in the order of `names`. Blocking.
    pub fn object_ids(self: &Arc<Self>, names: &[MailboxName]) -> Result<Vec<Result<Arc<str>, StorageError>>, StorageError> {
        let _inside = self.store.enter()?;
        Ok(parallel::for_each(parallel::MAILBOXES, names, |name| self.mailbox(name)?.object_id()))
    }
    /// Moves whenever a mailbox is made, renamed, deleted, or subscribed.
    pub fn list_changes(&self) -> watch::Receiver<u64> {
        self.list_changes.subscribe()
    }

    pub(crate) fn load(&self, id: MailboxId, name: MailboxName, folder: &str) -> Result<Arc<Mailbox>, StorageError> {
        let slot = Arc::clone(self.open.lock().entry(id).or_default());
        let mut slot = slot.lock();
        if let Some((mailbox, used)) = slot.as_mut() {
            *used = self.store.now();
            return Ok(Arc::clone(mailbox));
        }
        // Whoever renames or deletes it holds the slot until the catalog says so.
        let (name, folder) = self.catalog.read().place(id, name, folder)?;
        let told = self.untold.lock().remove(&id);
        let mailbox = Mailbox::load(Arc::clone(&self.store), id, name, self.folder_path(&folder), told)?;
        *slot = Some((Arc::clone(&mailbox), self.store.now()));
        Ok(mailbox)
    }
    /// Lets go of mailboxes that nobody has used for `unused` and that have nothing left to do; their rows are in the index.
    pub(crate) fn unload(&self, unused: Duration) {
        let now = self.store.now();
        let is_unused = |mailbox: &Arc<Mailbox>, used: &Duration| {
            Arc::strong_count(mailbox) == 1 && now.saturating_sub(*used) >= unused && mailbox.is_at_rest()
        };
        let slots: Vec<Slot> = self.open.lock().values().cloned().collect();
        for slot in &slots {
            // Locked: who opens it waits, so nobody changes it.
            if let Some(opened) = slot.try_lock()
                && let Some((mailbox, used)) = opened.as_ref()
                && is_unused(mailbox, used)
                && mailbox.wants_snapshot()
            {
                self.write_snapshots(&[Arc::clone(mailbox)]);
            }
        }
        drop(slots);
        self.open.lock().retain(|_, slot| {
            if Arc::strong_count(slot) > 1 {
                return true;
            }
            let Some(opened) = slot.try_lock() else { return true };
            opened.as_ref().is_some_and(|(mailbox, used)| !is_unused(mailbox, used))
        });
    }
    /// While these are locked, nobody opens the mailboxes.
    pub(crate) fn slots(&self, ids: impl Iterator<Item = MailboxId>) -> Vec<Slot> {
        let mut open = self.open.lock();
        ids.map(|id| Arc::clone(open.entry(id).or_default())).collect()
    }
    /// The open mailbox with row `id`, if there is one.
    pub(crate) fn loaded_mailbox(&self, id: MailboxId) -> Option<Arc<Mailbox>> {
        let slot = self.open.lock().get(&id).cloned()?;
        let opened = slot.lock();
        opened.as_ref().map(|(mailbox, _)| Arc::clone(mailbox))
    }
    pub(crate) fn forget_mailbox(&self, id: MailboxId) {
        self.open.lock().remove(&id);
        self.annotations.lock().remove(&Some(id));
    }
    pub(crate) fn loaded(&self) -> Vec<Arc<Mailbox>> {
        let slots: Vec<Slot> = self.open.lock().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.lock().as_ref().map(|(mailbox, _)| Arc::clone(mailbox))).collect()
    }
    pub(crate) fn folder_path(&self, folder: &str) -> PathBuf {
        self.store.paths.folder(folder)
    }
    /// Removes what nobody can reach any more; what stays is tried again. Only while we hold the user: then we did when these were deleted.
    pub(crate) fn empty_trash(&self) {
        if !self.store.is_live() {
            return;
        }
        let folders: Vec<PathBuf> = self.trash.lock().drain(..).collect();
        for folder in folders {
            if self.store.ensure_not_abandoned().is_err() {
                return;
            }
            if self.has_come_late(&folder) {
                continue;
            }
            if let Err(error) = self.store.filesystem.remove_folder(&folder) {
                tracing::debug!(folder = %folder.display(), %error, "not removed yet");
                self.trash.lock().push(folder);
            }
        }
    }
}
