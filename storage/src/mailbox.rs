//! One open mailbox: columns in memory, SQLite as their durable form, message files in its folder.
//!
//! Every change (new message, flags, expunge) takes a MODSEQ above the highest and moves [`Mailbox::changes`].
//! New messages become visible in UID order, even when their files are written at the same time.
//!
//! Invariants, each with the test that guards it:
//! - a UID is never given twice, whatever fails or dies (`whatever_fails_nothing_acknowledged_is_lost_and_no_uid_is_used_twice`)
//! - UIDs and MODSEQs that were told are below the durable ceilings (`what_was_told_is_below_the_ceilings`)
//! - while nobody holds the user, the index can be deleted (`the_index_can_be_deleted_at_any_time`)
//! - parallel appends become visible in UID order (`parallel_appends_become_visible_in_uid_order`)

mod anew;
mod append;
mod debris;
mod expunge;
mod facts;
mod flags;
pub mod inotify;
mod listed;
mod load;
mod noticed;
mod reader;
mod render;
mod scan;
mod state;
mod transfer;
mod write_back;

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use index::{Flag, FlagSet, KeywordId, MailboxId, ModSeq, Uid, UidValidity};
use parking_lot::{Condvar, Mutex, RecursiveRwLock, RecursiveRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::sync::watch;

pub(crate) use load::relocate;
pub use reader::MessageReader;
pub(crate) use render::KEEP_AGAIN_AFTER;
pub use render::SelectedFields;
pub(crate) use scan::Look;

use crate::{
    Columns, MailboxName, Retry, Row, SharedFile, Staged, StorageError, UidlFormat, Usage, hierarchy::watched::Numbers,
    maildir::ceiling::Ceiling, store::Store,
};
use state::State;

/// The numbers of STATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9051 §6.3.11 names them")]
pub struct Status {
    pub messages: u32,
    pub recent: u32,
    pub unseen: u32,
    pub deleted: u32,
    pub deleted_size: u64,
    pub size: u64,
    pub uid_next: u32,
    pub uid_validity: UidValidity,
    pub highest_modseq: ModSeq,
}

/// What APPEND and deliveries give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Of the mailbox.
    pub uid_validity: UidValidity,
    /// Of the message.
    pub uid: Uid,
}

/// What COPY and MOVE did (UIDPLUS' COPYUID).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Of the target.
    pub uid_validity: UidValidity,
    /// Old and new UID, both ascending.
    pub pairs: Vec<(Uid, Uid)>,
}

/// How STORE changes flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperation {
    /// `FLAGS`.
    Replace(FlagSet),
    /// `+FLAGS`.
    Add(FlagSet),
    /// `-FLAGS`.
    Remove(FlagSet),
    /// `FLAGS` of somebody who may change only `of`: the others stay.
    ReplaceOf {
        /// Which may change.
        of: FlagSet,
        /// Those of them that are set then.
        with: FlagSet,
    },
}

/// What STORE did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The messages whose flags are now as asked (also where nothing had to change), ascending, with their rows.
    pub rows: Vec<Row>,
    /// Not changed: their MODSEQ is above UNCHANGEDSINCE (RFC 7162 §3.1.3).
    pub modified: Vec<Uid>,
    /// Not there any more.
    pub missing: Vec<Uid>,
}

/// What was rendered once, when the message passed through: ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The parenthesised ENVELOPE (RFC 9051 §7.5.2).
    pub envelope: Arc<[u8]>,
    /// The parenthesised BODYSTRUCTURE with extension data.
    pub body_structure: Arc<[u8]>,
    /// The raw header fields named in [`crate::mime::CACHED_FIELDS`], in the order of the message, each line with its CRLF, without the blank line.
    pub headers: Arc<[u8]>,
}

/// One open mailbox.
#[derive(Debug)]
pub struct Mailbox {
    pub(crate) store: Arc<Store>,
    id: MailboxId,
    name: RwLock<MailboxName>,
    /// Where it lies; shared with messages on their way in.
    folder: Arc<RecursiveRwLock<PathBuf>>,
    disk: Mutex<()>,
    /// STOREs that wait for `state`; locked for moments only.
    store_requests: Mutex<Vec<Arc<flags::StoreRequest>>>,
    state: Mutex<State>,
    /// Signalled when the first UID in flight changes.
    published: Condvar,
    ceiling: Ceiling,
    columns: RwLock<Columns>,
    keywords: RwLock<Arc<Vec<String>>>,
    changes: watch::Sender<u64>,
    deleted: AtomicBool,
    /// Of what the file of keywords without letters says; 0: not known.
    further_written: AtomicU64,
    /// Names in `tmp/` of messages that have their places.
    left_in_tmp: Mutex<debris::LeftInTmp>,
    /// `tmp/` was looked through since the mailbox was opened.
    tidied: AtomicBool,
    opened_at: Duration,
    /// Messages from this UID on are \\Recent to the next session.
    recent_from: AtomicU32,
    /// What is not known of its messages.
    facts: facts::Facts,
    /// Its MAILBOXID, once somebody asked.
    pub(crate) object_id: OnceLock<Arc<str>>,
    /// It was read from its snapshot, or that was written since.
    has_snapshot: AtomicBool,
    /// When background work that failed here is tried again.
    retry: Mutex<Retry>,
}

impl Mailbox {
    /// Its row in the index, the same as long as it is there.
    pub fn id(&self) -> MailboxId {
        self.id
    }
    /// What tells whether anything changed. From memory.
    pub(crate) fn numbers(&self) -> Numbers {
        let columns = self.columns.read();
        Numbers {
            uid_validity: self.uid_validity(),
            uid_next: columns.uid_next(),
            messages: u32::try_from(columns.len()).unwrap_or(u32::MAX),
            highest_modseq: columns.highest_modseq(),
        }
    }
    /// Its present name (changes by RENAME). From memory.
    pub fn name(&self) -> MailboxName {
        self.name.read().clone()
    }
    /// Never changes for this mailbox.
    pub fn uid_validity(&self) -> UidValidity {
        self.ceiling.marks().uid_validity
    }
    /// Whether it was deleted while open.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::SeqCst)
    }
    /// The messages. From memory: dates and sizes of some may [not be known](Row::is_known) yet, so who tells them or judges by them [learns](Mailbox::learn)
    /// first. Hold the guard for microseconds, never across a wait.
    pub fn read(&self) -> RwLockReadGuard<'_, Columns> {
        self.columns.read()
    }
    /// Moves to the highest MODSEQ at every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    /// Keyword names by [`KeywordId::position`]. From memory.
    pub fn keywords(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.keywords.read())
    }
    /// The id of keyword `name` (ASCII case-insensitive), made durable first when it is new. Blocking when it is.
    pub fn keyword(&self, name: &str) -> Result<KeywordId, StorageError> {
        if let Some(id) = self.known_keyword(name) {
            return Ok(id);
        }
        let _inside = self.store.enter_for_change()?;
        self.store.acknowledge(self.make_keyword(name)?)
    }
    /// The numbers of STATUS; sizes only once they are [known](Mailbox::learn). From memory.
    pub fn status(&self) -> Status {
        let first_recent = self.recent_from.load(Ordering::SeqCst);
        let columns = self.columns.read();
        let mut status = Status {
            messages: u32::try_from(columns.len()).unwrap_or(u32::MAX),
            recent: 0,
            unseen: 0,
            deleted: 0,
            deleted_size: 0,
            size: 0,
            uid_next: columns.uid_next(),
            uid_validity: self.uid_validity(),
            highest_modseq: columns.highest_modseq(),
        };
        for row in columns.rows() {
            status.recent += u32::from(row.uid.get() >= first_recent);
            status.unseen += u32::from(!row.flags.contains(Flag::Seen));
            if row.flags.contains(Flag::Deleted) {
                status.deleted += 1;
                status.deleted_size = status.deleted_size.saturating_add(row.size);
            }
            status.size = status.size.saturating_add(row.size);
        }
        status
    }
    /// The first UID that no read-write session has claimed as \Recent yet; `claim` takes them all for the calling session. Messages with this UID and above are its recent ones.
    pub fn recent(&self, claim: bool) -> u32 {
        if !claim {
            return self.recent_from.load(Ordering::SeqCst);
        }
        let columns = self.columns.read();
        self.recent_from.fetch_max(columns.uid_next(), Ordering::SeqCst)
    }
    /// Looks at the folder for changes by other programs, at most every `rescan_interval` unless `force`. Blocking.
    pub fn refresh(&self, force: bool) -> Result<(), StorageError> {
        let _inside = self.store.enter()?;
        if self.is_deleted() || !(force || self.look_is_due()) {
            return Ok(());
        }
        self.look(if force { Look::Thoroughly } else { Look::WhenChanged })
    }
    /// Starts a message. `size_hint`: the announced size. Blocking.
    pub fn stage(&self, size_hint: u64) -> Result<Staged, StorageError> {
        self.stage_instead(size_hint, None)
    }
    /// As [`Mailbox::stage`], for [`Mailbox::append_instead`]. Blocking.
    pub fn stage_instead(&self, size_hint: u64, replaced: Option<(&Mailbox, Uid)>) -> Result<Staged, StorageError> {
        let _inside = self.store.enter()?;
        let limit = self.store.settings.message_bytes_max.get();
        if size_hint > limit {
            return Err(StorageError::Limit { what: "the message's size in bytes", limit });
        }
        // Refused before it is sent, where that is known already; room is taken when it is complete.
        let replaced = replaced.map(|(mailbox, uid)| (mailbox.id, mailbox.usage_of(&[uid])));
        self.store.quota.has_room(self.id, Usage { bytes: size_hint, messages: 1 }, replaced)?;
        Ok(Staged::new(Arc::clone(&self.store), Arc::clone(&self.folder), size_hint))
    }
    /// Starts a message whose bytes another mailbox has as well; `None`: they have to be written anew (another file system, too many links). Blocking.
    pub fn stage_shared(&self, shared: &SharedFile) -> Result<Option<Staged>, StorageError> {
        let _inside = self.store.enter()?;
        let staged = match Staged::link(Arc::clone(&self.store), Arc::clone(&self.folder), shared) {
            Ok(staged) => staged,
            Err(error) => {
                tracing::debug!(%error, "a message is copied");
                return Ok(None);
            }
        };
        self.store.quota.has_room(self.id, Usage { bytes: staged.len(), messages: 1 }, None)?;
        Ok(Some(staged))
    }
    /// Makes a staged message durable and visible. `internal_date`: Unix seconds, default now. Blocking.
    pub fn append(&self, staged: Staged, flags: FlagSet, internal_date: Option<i64>) -> Result<Appended, StorageError> {
        let appended = self.append_all(vec![(staged, flags, internal_date)])?;
        appended.into_iter().next().ok_or(StorageError::Expunged)
    }
    /// Whether its messages are on a file server: reading many at once hides the round trips.
    pub fn is_remote(&self) -> bool {
        self.store.is_remote
    }
    /// UIDs expunged after `since` as far as remembered, ascending; `None`: `since` is older than memory reaches, so every absent UID counts (RFC 7162 §3.2.10). Blocking.
    pub fn expunged_since(&self, since: u64) -> Result<Option<Vec<Uid>>, StorageError> {
        self.store.twice(|| self.try_expunged_since(since))
    }
    fn try_expunged_since(&self, since: u64) -> Result<Option<Vec<Uid>>, StorageError> {
        let _inside = self.store.enter()?;
        let expunged = self.store.read(|index| index.expunged_since(self.id, since))?;
        // Asked afterwards: older ones may have been forgotten meanwhile.
        Ok((since >= self.state.lock().record.expunged_floor).then_some(expunged))
    }
    /// The POP3 UIDL of messages: adopted from an earlier server, else made as `format` says. From memory or the index.
    pub fn uidl(&self, uids: &[Uid], format: &UidlFormat) -> Result<Vec<String>, StorageError> {
        self.store.twice(|| self.try_uidl(uids, format))
    }
    fn try_uidl(&self, uids: &[Uid], format: &UidlFormat) -> Result<Vec<String>, StorageError> {
        let _inside = self.store.enter()?;
        let adopted = self.store.read(|index| index.uidls(self.id))?;
        let validity = self.uid_validity();
        let columns = self.columns.read();
        let uidl = |uid: &Uid| match adopted.binary_search_by_key(&uid.get(), |(known, _)| *known) {
            Ok(at) => adopted[at].1.clone(),
            Err(_) => format.identifier(*uid, validity, &columns.file_of(*uid).unwrap_or_default()),
        };
        Ok(uids.iter().map(uidl).collect())
    }
    /// Whether a flag can be kept for ever (PERMANENTFLAGS) and new keywords can be made.
    pub fn accepts_new_keywords(&self) -> bool {
        self.keywords.read().len() < usize::from(KeywordId::COUNT)
    }

    /// Has the ledger say what is visible here, while nobody is inside the store; whether it said otherwise.
    pub(crate) fn correct_usage(&self) -> bool {
        let held = Usage::of(self.columns.read().rows().map(|row| row.size));
        self.store.quota.correct(self.id, held)
    }
    /// What those of `uids` hold that are there.
    fn usage_of(&self, uids: &[Uid]) -> Usage {
        let columns = self.columns.read();
        Usage::of(uids.iter().filter_map(|uid| columns.get(*uid)).map(|row| row.size))
    }
    fn known_keyword(&self, name: &str) -> Option<KeywordId> {
        self.keywords.read().iter().position(|known| known.eq_ignore_ascii_case(name)).and_then(KeywordId::new)
    }
    /// Where it lies. Hold the guard while paths below are used: the folder is not renamed meanwhile.
    pub(crate) fn folder(&self) -> RecursiveRwLockReadGuard<'_, PathBuf> {
        // Recursive: a waiting rename must not come between two calls of one command.
        self.folder.read()
    }
    fn ensure_there(&self) -> Result<(), StorageError> {
        if self.is_deleted() { Err(StorageError::NoMailbox(self.name())) } else { Ok(()) }
    }
}
