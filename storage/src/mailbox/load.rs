//! Opens a mailbox: rows from the index, and the folder where the index can't be complete.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use index::{Contents, Held, IndexError, MailboxId, MailboxRecord, ModSeq, ScanDue, Snapshot, Uid, UserIndex};
use parking_lot::{Condvar, Mutex, RecursiveRwLock, RecursiveRwLockWriteGuard, RwLock};
use tokio::sync::watch;

use super::{
    Look, Mailbox,
    debris::LeftInTmp,
    facts::Facts,
    state::{Removal, State},
};
use crate::{
    Columns, MailboxName, Row, StorageError, Usage,
    maildir::{
        ceiling::{Ceiling, Marks},
        uidlist::OwnList,
    },
    store::Store,
};

/// Fewer messages are read from their rows in a few milliseconds. Tests have few.
const SNAPSHOT_MESSAGES_MIN: usize = if cfg!(test) { 3 } else { 2_000 };

/// How long a folder's users are waited for while other folders are locked: most calls end within it, and nobody notices it.
const PLACE_WAIT: Duration = Duration::from_millis(100);

impl Mailbox {
    /// Opens the mailbox with row `id`. `told`: what anybody may have been told of it, where that is known better than by the ceilings.
    pub(crate) fn load(
        store: Arc<Store>,
        id: MailboxId,
        name: MailboxName,
        folder: PathBuf,
        told: Option<Marks>,
    ) -> Result<Arc<Mailbox>, StorageError> {
        let columns = RefCell::new(Columns::default());
        let from_snapshot = Cell::new(false);
        // Rows of a mailbox that is not open are changed by nobody.
        let contents = store.read_unchanging(|index| {
            let begin = &mut |held: &Held| {
                let known = held.snapshot.and_then(|snapshot| known(index, id, snapshot, held));
                from_snapshot.set(known.is_some());
                let mut columns = columns.borrow_mut();
                match known {
                    Some(known) => *columns = known,
                    None => columns.reserve(held.messages),
                }
                !from_snapshot.get()
            };
            index.contents(id, begin, &mut |message| {
                let row = Row {
                    uid: message.uid,
                    flags: message.flags,
                    modseq: message.modseq,
                    size: message.size,
                    internal_date: message.internal_date,
                    save_date: message.save_date,
                };
                columns.borrow_mut().push(row, &message.file);
            })
        })?;
        let mut columns = columns.into_inner();
        let Some(Contents { mut record, keywords, removals, write_backs }) = contents else { return Err(StorageError::NoMailbox(name)) };
        let due = record.scan_due;
        let (marks, lists) = Self::marks(&store, &record, &folder)?;
        if let Some(own) = lists.iter().max() {
            record.adopted_below = own.uid_next;
        }

        if due == ScanDue::Rebuild {
            if !columns.is_empty() {
                // An earlier try was interrupted: the UIDs it gave were told to nobody, or names and the list say them.
                store.change(|change| change.clear_messages(id))?;
                columns = Columns::default();
            }
            record.uid_next = 1;
        }
        store.quota.correct(id, Usage::of(columns.rows().map(|row| row.size)));
        columns.raise(record.uid_next, record.highest_modseq);
        // All that anybody may have been told is below the ceilings.
        let told = told.filter(|told| due == ScanDue::Rebuild && told.reserve_ahead() == marks).unwrap_or(marks);
        if matches!(due, ScanDue::Takeover | ScanDue::Rebuild) {
            let highest = ModSeq::new(told.modseq.saturating_sub(1)).unwrap_or(record.highest_modseq);
            columns.raise(record.uid_next, highest);
        }
        let state = State {
            uid_next: columns.uid_next(),
            told_below: told.uid,
            in_flight: BTreeMap::new(),
            pending: BTreeMap::new(),
            write_back: write_backs
                .into_iter()
                .filter(|uid| Uid::new(*uid).is_some_and(|uid| columns.position(uid).is_some()))
                .map(|uid| (uid, Duration::ZERO))
                .collect(),
            removals: removals.into_iter().map(|file| Removal { recorded: file.clone(), file }).collect(),
            removed: HashSet::new(),
            deferred: false,
            lists,
            look_again: false,
            looked_at: store.now(),
            taken_over_at: store.now(),
            record: MailboxRecord { uid_ceiling: marks.uid, modseq_ceiling: marks.modseq, ..record },
        };
        let mailbox = Arc::new(Mailbox {
            id,
            name: RwLock::new(name),
            folder: Arc::new(RecursiveRwLock::new(folder)),
            disk: Mutex::new(()),
            store_requests: Mutex::new(Vec::new()),
            published: Condvar::new(),
            ceiling: Ceiling::new(marks),
            keywords: RwLock::new(Arc::new(keywords)),
            changes: watch::Sender::new(columns.highest_modseq().get()),
            deleted: AtomicBool::new(false),
            further_written: AtomicU64::new(0),
            left_in_tmp: Mutex::new(LeftInTmp::default()),
            tidied: AtomicBool::new(false),
            opened_at: store.now(),
            recent_from: AtomicU32::new(state.record.first_recent),
            object_id: OnceLock::new(),
            has_snapshot: from_snapshot.into_inner().into(),
            retry: Mutex::default(),
            facts: Facts::of(&columns),
            columns: RwLock::new(columns),
            state: Mutex::new(state),
            store,
        });
        if due == ScanDue::Rebuild {
            mailbox.adopt_keywords()?;
        }
        mailbox.look(match due {
            ScanDue::No => Look::WhenChanged,
            due => Look::Opening(due),
        })?;
        let mut state = mailbox.state.lock();
        let uid_next = state.uid_next;
        let highest = mailbox.columns.read().highest_modseq();
        mailbox.columns.write().raise(uid_next, highest);
        if !state.deferred {
            mailbox.flush(&mut state)?;
        }
        drop(state);
        Ok(mailbox)
    }

    /// The ceilings: from the index as long as it is known to be complete (they only rise), else from the folder, with the lists that lie there.
    fn marks(store: &Store, record: &MailboxRecord, folder: &std::path::Path) -> Result<(Marks, Vec<OwnList>), StorageError> {
        let recorded = Marks { uid_validity: record.uid_validity, uid: record.uid_ceiling, modseq: record.modseq_ceiling };
        if matches!(record.scan_due, ScanDue::No | ScanDue::Settle) {
            return Ok((recorded, Vec::new()));
        }
        let entries = store.filesystem.list(folder).map_err(store.io("can't list", folder))?;
        let marks = match Marks::find(&entries) {
            Some(marks) if marks.uid_validity == record.uid_validity => {
                Marks { uid: marks.uid.max(recorded.uid), modseq: marks.modseq.max(recorded.modseq), ..marks }
            }
            _ => recorded,
        };
        Ok((marks, OwnList::all(&entries).collect()))
    }

    /// What the name of the list of UIDs says; `None`: there is none.
    pub(crate) fn adopted_below(&self) -> Option<u32> {
        Some(self.state.lock().record.adopted_below).filter(|below| *below > 0)
    }

    fn adopt_keywords(&self) -> Result<(), StorageError> {
        let _disk = self.disk.lock();
        let folder = self.folder();
        self.load_keywords(&folder)
    }

    /// After an unclean takeover: looks for what a dead holder's late requests do, and once more when they can't arrive any longer.
    pub(crate) fn settle_takeover(&self) -> Result<(), StorageError> {
        let (since_takeover, since_look) = {
            let state = self.state.lock();
            if state.record.scan_due != ScanDue::Settle || self.is_deleted() {
                return Ok(());
            }
            let now = self.store.now();
            (now.saturating_sub(state.taken_over_at), now.saturating_sub(state.looked_at))
        };
        if since_takeover < self.store.late_requests_last() {
            // A message that such a request moved is shown where it was.
            return if since_look < self.store.settings.late_look_interval { Ok(()) } else { self.look(Look::WhenChanged) };
        }
        self.look(Look::Thoroughly)?;
        let mut state = self.state.lock();
        let highest = self.columns.read().highest_modseq();
        state.record.scan_due = ScanDue::No;
        self.commit(&mut state, highest, |_| Ok(()))
    }

    /// Writes index rows that wait, with what is known of the messages.
    pub(crate) fn flush_rows(&self) -> Result<(), StorageError> {
        if self.is_deleted() { Ok(()) } else { self.flush_all() }
    }
    /// Reserves UIDs and MODSEQs before they run short, so that no delivery pays for it.
    pub(crate) fn reserve_ahead(&self) -> Result<(), StorageError> {
        if self.is_deleted() {
            return Ok(());
        }
        let folder = self.folder();
        let (uid, modseq) = self.ahead();
        if self.ceiling.covers(uid, modseq) {
            return Ok(());
        }
        self.ceiling
            .raise(self.store.filesystem.as_ref(), &folder, uid, modseq)
            .map_err(self.store.io("can't reserve UIDs in", folder.as_path()))
    }
    fn is_reserved_ahead(&self) -> bool {
        let (uid, modseq) = self.ahead();
        self.ceiling.covers(uid, modseq)
    }
    /// Up to where numbers are to be reserved now.
    fn ahead(&self) -> (u32, u64) {
        let ahead = crate::maildir::ceiling::RESERVED_AHEAD / 2;
        let uid_next = self.state.lock().uid_next;
        let modseq = self.columns.read().highest_modseq().get();
        (uid_next.saturating_add(ahead), modseq.saturating_add(ahead.into()))
    }
    /// Whether all there is to know is in the index and the folder, and nothing is to be done.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = self.state.lock();
        let record = &state.record;
        let (uid_next, highest) = {
            let columns = self.columns.read();
            (columns.uid_next(), columns.highest_modseq())
        };
        let is_recorded = record.uid_next == uid_next
            && record.highest_modseq == highest
            && record.first_recent == self.recent_from.load(Ordering::SeqCst)
            && record.scan_due == ScanDue::No;
        let is_idle = state.pending.is_empty() && state.in_flight.is_empty() && state.write_back.is_empty() && state.removals.is_empty();
        is_recorded && is_idle && self.left_in_tmp.lock().is_empty() && !state.look_again && !self.is_incomplete() && !self.is_list_due()
    }
    /// Whether [`Mailbox::work`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.is_deleted() && (!self.is_at_rest() || self.is_tidying_due(self.store.now()) || !self.is_reserved_ahead())
    }
    /// Whether what failed may be tried again.
    pub(crate) fn may_try(&self, now: Duration) -> bool {
        self.retry.lock().is_due(now)
    }
    /// Notes how background work ended; the first failure is in the log, and that it is over.
    pub(crate) fn tried(&self, worked: Result<(), StorageError>) -> Result<(), StorageError> {
        let mut retry = self.retry.lock();
        match &worked {
            Ok(()) if retry.worked() => {
                tracing::info!(user = %self.store.lease.user(), mailbox = %self.name(), "background work on a mailbox succeeds again");
            }
            Err(error) if self.is_own(error) && retry.failed(self.store.now()) => {
                let user = self.store.lease.user();
                tracing::warn!(%user, mailbox = %self.name(), %error, "background work on a mailbox failed: it is tried again, more and more seldom");
            }
            _ => {}
        }
        worked
    }
    /// Whether an error is about the mailbox's folder alone, not about what all mailboxes of the account share.
    pub(crate) fn is_own(&self, error: &StorageError) -> bool {
        error.is_about(&self.folder()) && !error.is_about(&self.store.paths.index)
    }
    /// As it ended, but for what fails in the mailbox's folder alone, and will fail again: it is due by the index, for whoever opens the mailbox next
    /// (`a_folder_that_fails_keeps_no_account_from_closing`).
    fn left_for_the_next(&self, worked: Result<(), StorageError>) -> Result<(), StorageError> {
        match worked {
            Err(error) if self.is_own(&error) && !error.may_pass() => {
                tracing::warn!(user = %self.store.lease.user(), mailbox = %self.name(), %error, "names of files are left to whoever opens the mailbox next");
                Ok(())
            }
            worked => worked,
        }
    }
    /// What can be done without anybody waiting for it. What fails is tried again, and keeps nothing else from being done.
    /// `names`: files may be renamed and removed.
    pub(crate) fn work(&self, names: bool) -> Result<(), StorageError> {
        // What was told first, then what can wait. Rows are written once, with what is learnt.
        let mut steps = vec![self.learn_inside(), self.flush_rows(), self.list_what_was_learnt(), self.reserve_ahead()];
        if names {
            steps.extend([self.write_back(self.store.settings.write_back_after), self.remove_files()]);
        }
        self.clear_tmp(false);
        steps.extend([self.tidy(self.store.now()), self.settle_takeover()]);
        steps.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
    /// Everything that is due, for closing. Dates and sizes that are not known yet are for whoever asks for them next.
    pub(crate) fn finish(&self) -> Result<(), StorageError> {
        self.flush_rows()?;
        self.left_for_the_next(self.write_back(Duration::ZERO))?;
        self.left_for_the_next(self.remove_files())?;
        self.clear_tmp(true);
        if let Err(error) = self.list_what_was_learnt() {
            self.store.ensure_not_abandoned()?;
            tracing::warn!(mailbox = %self.name(), %error, "whoever needs the list of UIDs has to read files again");
        }
        if !self.is_deleted()
            && let Err(error) = self.look(Look::Leaving)
        {
            tracing::debug!(mailbox = %self.name(), %error, "whoever opens the mailbox next has to look at its folder");
        }
        self.flush_rows()
    }
    /// Writes what whoever opens the mailbox next reads instead of its rows, unless that is there; which one is right then. Nobody else is inside the store,
    /// and nothing waits to be written.
    pub(crate) fn write_snapshot(&self, index: &UserIndex) -> Result<Option<Snapshot>, IndexError> {
        let is_there = self.has_snapshot.load(Ordering::SeqCst) && index.snapshot(self.id)?.is_some();
        if is_there || self.is_deleted() || !self.is_large() || !self.state.lock().pending.is_empty() {
            return Ok(None);
        }
        let columns = self.columns.read();
        columns.pack().map(|bytes| index.write_snapshot(self.id, &bytes)).transpose()
    }
    fn is_large(&self) -> bool {
        self.columns.read().len() >= SNAPSHOT_MESSAGES_MIN
    }
    /// Whether it is worth asking: the index tells whether the one that was there still is.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.is_large() && !self.is_deleted()
    }
    #[cfg(test)]
    pub(crate) fn is_from_snapshot(&self) -> bool {
        self.has_snapshot.load(Ordering::SeqCst)
    }
    /// Its snapshot is known to the index.
    pub(crate) fn snapshot_is_there(&self) {
        self.has_snapshot.store(true, Ordering::SeqCst);
    }
    /// Runs `remove`, which renames the folder away while nobody uses paths below it; then sessions that have it open see that it is gone.
    pub(crate) fn retire(&self, remove: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
        let _place = self.folder.write();
        let _state = self.state.lock();
        remove()?;
        self.deleted.store(true, Ordering::SeqCst);
        self.changes.send_modify(|_| ());
        self.store.note_activity();
        Ok(())
    }
}

/// What a snapshot says, if it is as the database says.
fn known(index: &UserIndex, id: MailboxId, snapshot: Snapshot, held: &Held) -> Option<Columns> {
    let columns = Columns::unpack(&index.read_snapshot(id, snapshot)?)?;
    let bytes = columns.rows().fold(0_u64, |bytes, row| bytes.wrapping_add(row.size));
    (columns.len() == held.messages && bytes == held.bytes).then_some(columns)
}

/// Runs `rename` while nobody uses paths below the folders of these mailboxes; then each has the name and lies in the folder beside it.
pub(crate) fn relocate(
    mailboxes: &[(Arc<Mailbox>, MailboxName, PathBuf)],
    rename: impl FnOnce() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut places = all_places(mailboxes);
    rename()?;
    for (at, place) in &mut places {
        let Some((mailbox, name, folder)) = mailboxes.get(*at) else { continue };
        (**place).clone_from(folder);
        mailbox.name.write().clone_from(name);
    }
    Ok(())
}

/// The places of all of them, by number. Others have two at once in any order (COPY), so nobody is waited for long while others may wait for what was
/// locked here already (`a_rename_and_a_copy_do_not_wait_for_each_other`).
fn all_places(mailboxes: &[(Arc<Mailbox>, MailboxName, PathBuf)]) -> Vec<(usize, RecursiveRwLockWriteGuard<'_, PathBuf>)> {
    let mut first = 0;
    loop {
        let Some((mailbox, ..)) = mailboxes.get(first) else { return Vec::new() };
        let mut places = vec![(first, mailbox.folder.write())];
        let others = mailboxes.iter().enumerate().filter(|(at, _)| *at != first);
        let busy = others.map(|(at, (mailbox, ..))| (at, mailbox.folder.try_write_for(PLACE_WAIT))).find_map(|(at, place)| match place {
            Some(place) => {
                places.push((at, place));
                None
            }
            None => Some(at),
        });
        match busy {
            Some(busy) => first = busy,
            None => return places,
        }
    }
}
