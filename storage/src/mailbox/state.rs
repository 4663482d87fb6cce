//! What changes a mailbox: numbers given, messages in flight, rows that the index lacks, work that is due in the folder.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use index::{Change, FlagSet, IndexError, MailboxId, MailboxRecord, MessageRecord, ModSeq, ScanDue, Uid};
use parking_lot::MutexGuard;

use super::{Mailbox, render::Made};
use crate::{Row, StorageError, maildir::uidlist::OwnList};

/// Rows that may wait for the index with what was rendered; then whoever brings the next one writes them.
const PENDING_ROWS_MAX: usize = 256;

/// Rows of copies that may wait: about 100 bytes each in memory, and whoever opens the mailbox after a crash finds their files by listing the folder.
const PENDING_COPIES_MAX: usize = if cfg!(test) { 1000 } else { 8192 };

/// Rows of one commit, where many wait: some tens of milliseconds. Tests have few messages.
pub(super) const ROWS_AT_ONCE: usize = if cfg!(test) { 5 } else { 4096 };

/// Copies whose rows one statement takes over: SQLite holds them in memory meanwhile.
const COPIES_AT_ONCE: u32 = 256;

/// Locked for one change at a time.
#[derive(Debug)]
pub(super) struct State {
    /// The durable numbers, as of the last commit.
    pub record: MailboxRecord,
    /// The next UID to be given; those in flight are below.
    pub uid_next: u32,
    /// When it was opened: UIDs that anybody may have been told were below.
    pub told_below: u32,
    /// UIDs given whose messages are not visible yet, by UID.
    pub in_flight: BTreeMap<u32, Progress>,
    /// Visible messages without an index row, by UID.
    pub pending: BTreeMap<u32, Pending>,
    /// Messages whose file names lack their flags or UID, and since when.
    pub write_back: BTreeMap<u32, Duration>,
    /// Files of expunged messages.
    pub removals: Vec<Removal>,
    /// Names, up to the colon, of removed files that a dead holder had made: its host may send once more the link of a COPY that it had no answer to.
    pub removed: HashSet<String>,
    /// Rows wait that were shown when the mailbox was opened; until the index has them all, it says that it has to be rebuilt: names and the list know them.
    pub deferred: bool,
    /// Lists of UIDs that lay in the folder when it was opened.
    pub lists: Vec<OwnList>,
    /// A rename found nothing: the folder is not what we think.
    pub look_again: bool,
    /// When the folder was looked at.
    pub looked_at: Duration,
    /// When the account was opened or this mailbox taken over: the settling scan counts from here.
    pub taken_over_at: Duration,
}

impl State {
    /// Whether as many rows wait as may: of copies more, which take less memory.
    pub(super) fn has_many_rows(&self) -> bool {
        let of_copies = |pending: &&Pending| matches!(pending.rendering, Rendering::CopyOf(..));
        let waiting = self.pending.len();
        waiting >= PENDING_COPIES_MAX
            || waiting >= PENDING_ROWS_MAX && waiting - self.pending.values().filter(of_copies).count() >= PENDING_ROWS_MAX
    }
}

/// So many of a dead holder's files are remembered that were removed: the last copies of its last second, and what else went meanwhile.
pub(super) const REMOVED_MAX: usize = 16 * 1024;

/// A file of an expunged message.
#[derive(Debug, Clone)]
pub(super) struct Removal {
    /// As the index has it.
    pub recorded: String,
    /// Its name now.
    pub file: String,
}

/// How far a message with a given UID is.
#[derive(Debug)]
pub(super) enum Progress {
    /// Its file is on its way.
    Waiting,
    /// Its file is in place.
    Done(NewMessage),
    /// There will be none: a gap.
    Failed,
}

/// A message whose file is in place.
#[derive(Debug)]
pub(super) struct NewMessage {
    pub flags: FlagSet,
    pub size: u64,
    pub internal_date: i64,
    pub save_date: i64,
    /// With `cur/` or `new/`.
    pub file: String,
    pub pending: Pending,
    /// The file's name is not ours yet.
    pub write_back_due: bool,
}

/// What the row of a visible message has beyond the columns.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub disk_size: u64,
    pub rendering: Rendering,
}

/// Where what is rendered of a new message comes from.
#[derive(Debug, Clone)]
pub(super) enum Rendering {
    /// On demand.
    Later,
    Ready(Arc<Made>),
    /// It is a copy of a message that may have it.
    CopyOf(MailboxId, Uid),
}

impl Mailbox {
    /// Gives `count` UIDs in a row, in flight until they are settled; the first one.
    pub(super) fn allocate(&self, state: &mut State, folder: &Path, count: usize) -> Result<u32, StorageError> {
        let out_of_uids = || StorageError::Limit { what: "the number of UIDs given in this mailbox", limit: u32::MAX.into() };
        let first = state.uid_next;
        let count = u32::try_from(count).map_err(|_| out_of_uids())?;
        let end = first.checked_add(count).ok_or_else(out_of_uids)?;
        self.reserve(state, folder, end, u64::from(count))?;
        state.uid_next = end;
        state.in_flight.extend((first..end).map(|uid| (uid, Progress::Waiting)));
        Ok(first)
    }
    /// The MODSEQ for a change; published together with it.
    pub(super) fn next_modseq(&self, state: &State, folder: &Path) -> Result<ModSeq, StorageError> {
        self.reserve(state, folder, state.uid_next, 0)?;
        let next = self.columns.read().highest_modseq().get() + 1;
        ModSeq::new(next).ok_or(StorageError::Limit { what: "the number of changes in this mailbox", limit: u64::MAX >> 1 })
    }
    /// Makes sure that the ceilings cover UIDs below `uid_end`, one MODSEQ for every message in flight and `more`, and one for a change.
    pub(super) fn reserve(&self, state: &State, folder: &Path, uid_end: u32, more: u64) -> Result<(), StorageError> {
        let in_flight = u64::try_from(state.in_flight.len()).unwrap_or(u64::MAX);
        let modseq_end = self.columns.read().highest_modseq().get().saturating_add(in_flight).saturating_add(more).saturating_add(2);
        if self.ceiling.covers(uid_end, modseq_end) {
            return Ok(());
        }
        self.ceiling
            .raise(self.store.filesystem.as_ref(), folder, uid_end, modseq_end)
            .map_err(self.store.io("can't reserve UIDs in", folder))
    }
    /// Settles UIDs in flight and shows what has become complete.
    pub(super) fn settle(&self, state: &mut State, settled: impl IntoIterator<Item = (u32, Progress)>) {
        state.in_flight.extend(settled);
        let mut rows = Vec::new();
        while let Some(first) = state.in_flight.first_entry() {
            if matches!(first.get(), Progress::Waiting) {
                break;
            }
            if let (uid, Progress::Done(message)) = first.remove_entry() {
                rows.extend(Uid::new(uid).map(|uid| (uid, message)));
            }
        }
        let visible_end = state.in_flight.keys().next().copied().unwrap_or(state.uid_next);
        let now = self.store.now();
        let mut columns = self.columns.write();
        let modseq = match ModSeq::new(columns.highest_modseq().get() + 1) {
            Some(next) if !rows.is_empty() => next,
            _ => columns.highest_modseq(),
        };
        for (uid, message) in rows {
            let NewMessage { flags, size, internal_date, save_date, file, pending, write_back_due } = message;
            columns.push(Row { uid, flags, modseq, size, internal_date, save_date }, &file);
            state.pending.insert(uid.get(), pending);
            if write_back_due {
                state.write_back.insert(uid.get(), now);
            }
        }
        columns.raise(visible_end, modseq);
        drop(columns);
        self.published.notify_all();
        if self.changes.send_if_modified(|seen| std::mem::replace(seen, modseq.get()) != modseq.get()) {
            self.store.note_activity();
        }
    }
    /// Waits until all UIDs below `end` are visible or known to be gaps.
    pub(super) fn wait_until_visible(&self, state: &mut MutexGuard<'_, State>, end: u32) {
        while state.in_flight.keys().next().is_some_and(|first| *first < end) {
            self.published.wait(state);
        }
    }

    /// One commit: rows that the index lacks, what `work` does, and the mailbox's numbers with HIGHESTMODSEQ `highest`.
    pub(super) fn commit(
        &self,
        state: &mut State,
        highest: ModSeq,
        work: impl FnOnce(&mut Change<'_>) -> Result<(), IndexError>,
    ) -> Result<(), StorageError> {
        self.commit_some(state, highest, usize::MAX, work)
    }
    /// As [`Mailbox::commit`], where `gone` (ascending) are expunged: those of them whose rows wait, it gets no rows of; it may have earlier ones
    /// (`what_is_expunged_right_after_its_size_was_learnt_stays_away`).
    pub(super) fn commit_expunge(
        &self,
        state: &mut State,
        gone: &[Uid],
        modseq: ModSeq,
        work: impl FnOnce(&mut Change<'_>) -> Result<(), IndexError>,
    ) -> Result<(), StorageError> {
        self.ensure_there()?;
        let waiting: Vec<Uid> = gone.iter().copied().filter(|uid| state.pending.contains_key(&uid.get())).collect();
        let runs = self.columns.read().runs(gone.iter().map(|uid| (*uid, ())));
        let mut prepared = self.prepare(state, modseq);
        prepared.rows.retain(|row| waiting.binary_search(&row.uid).is_err());
        self.store.change(|change| {
            self.write_prepared(state, &prepared, change)?;
            runs.iter().try_for_each(|(uids, ())| change.expunge_between(self.id, *uids, modseq))?;
            change.expunge_unwritten(self.id, &waiting, modseq)?;
            work(change)
        })?;
        self.committed(state, prepared);
        Ok(())
    }
    /// As [`Mailbox::commit`], with only the first `rows` of those that wait.
    pub(super) fn commit_some(
        &self,
        state: &mut State,
        highest: ModSeq,
        rows: usize,
        work: impl FnOnce(&mut Change<'_>) -> Result<(), IndexError>,
    ) -> Result<(), StorageError> {
        self.ensure_there()?;
        let prepared = self.prepare_some(state, highest, rows);
        self.store.change(|change| {
            self.write_prepared(state, &prepared, change)?;
            work(change)
        })?;
        self.committed(state, prepared);
        Ok(())
    }
    /// The rows and numbers that the next commit must have.
    pub(super) fn prepare(&self, state: &State, highest: ModSeq) -> Prepared {
        self.prepare_some(state, highest, usize::MAX)
    }
    fn prepare_some(&self, state: &State, highest: ModSeq, rows: usize) -> Prepared {
        let columns = self.columns.read();
        let marks = self.ceiling.marks();
        let written_below = state.pending.keys().nth(rows).copied();
        let scan_due = match state.deferred {
            true if rows < state.pending.len() => ScanDue::Rebuild,
            true => self.store.due_after_rebuild(),
            false => state.record.scan_due,
        };
        let record = MailboxRecord {
            scan_due,
            // Whoever takes over after a crash leaves the files from here on their UIDs.
            uid_next: written_below.filter(|_| !state.deferred).unwrap_or(columns.uid_next()),
            highest_modseq: columns.highest_modseq().max(highest),
            first_recent: self.recent_from.load(std::sync::atomic::Ordering::SeqCst),
            uid_ceiling: marks.uid,
            modseq_ceiling: marks.modseq,
            ..state.record.clone()
        };
        let rows = state.pending.iter().take(rows).filter_map(|(uid, pending)| {
            let position = columns.position(Uid::new(*uid)?)?;
            let row = columns.row(position);
            Some(MessageRecord {
                uid: row.uid,
                flags: row.flags,
                modseq: row.modseq,
                size: row.size,
                disk_size: pending.disk_size,
                internal_date: row.internal_date,
                save_date: row.save_date,
                file: columns.file(position),
            })
        });
        Prepared { rows: rows.collect(), record, written_below }
    }
    /// Writes what [`Mailbox::prepare`] gave.
    pub(super) fn write_prepared(&self, state: &State, prepared: &Prepared, change: &mut Change<'_>) -> Result<(), IndexError> {
        let mut copies = Copies::default();
        for row in &prepared.rows {
            change.insert_message(self.id, row)?;
            match state.pending.get(&row.uid.get()).map(|pending| &pending.rendering) {
                Some(Rendering::Ready(made)) => {
                    made.insert(change, self.id, row.uid)?;
                }
                Some(Rendering::CopyOf(mailbox, uid)) => {
                    if let Some(ended) = copies.add((*mailbox, *uid), row.uid) {
                        change.copy_made(ended.from, (self.id, ended.to))?;
                    }
                }
                Some(Rendering::Later) | None => {}
            }
            if state.write_back.contains_key(&row.uid.get()) {
                change.insert_write_back(self.id, row.uid)?;
            }
        }
        if let Some(last) = copies.0 {
            change.copy_made(last.from, (self.id, last.to))?;
        }
        change.update_mailbox(&prepared.record)
    }
    /// What [`Mailbox::prepare`] gave is durable.
    pub(super) fn committed(&self, state: &mut State, prepared: Prepared) {
        match prepared.written_below {
            Some(below) => state.pending = state.pending.split_off(&below),
            None => {
                state.pending.clear();
                state.deferred = false;
            }
        }
        state.record = prepared.record;
    }
    /// Writes some of the rows, for tests.
    #[cfg(test)]
    pub(crate) fn commit_rows(&self, rows: usize) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        let highest = self.columns.read().highest_modseq();
        self.commit_some(&mut state, highest, rows, |_| Ok(()))
    }
    /// Writes the rows that the index lacks, many of them in several commits: nobody waits for all.
    pub(super) fn flush_all(&self) -> Result<(), StorageError> {
        loop {
            self.store.ensure_not_abandoned()?;
            let mut state = self.state.lock();
            if state.pending.len() <= ROWS_AT_ONCE {
                return self.flush(&mut state);
            }
            let highest = self.columns.read().highest_modseq();
            self.commit_some(&mut state, highest, ROWS_AT_ONCE, |_| Ok(()))?;
        }
    }
    /// Writes the rows that the index lacks.
    pub(super) fn flush(&self, state: &mut State) -> Result<(), StorageError> {
        let recent = self.recent_from.load(std::sync::atomic::Ordering::SeqCst);
        let (uid_next, highest) = {
            let columns = self.columns.read();
            (columns.uid_next(), columns.highest_modseq())
        };
        let same = state.record.uid_next == uid_next && state.record.highest_modseq == highest && state.record.first_recent == recent;
        if state.pending.is_empty() && same {
            return Ok(());
        }
        while state.pending.len() > ROWS_AT_ONCE {
            self.commit_some(state, highest, ROWS_AT_ONCE, |_| Ok(()))?;
        }
        self.commit(state, highest, |_| Ok(()))
    }
}

/// Copies that follow each other as their originals do: what was made of these is taken over at once.
#[derive(Debug, Clone, Copy)]
struct Copied {
    from: (MailboxId, (Uid, Uid)),
    /// The first copy.
    to: Uid,
    count: u32,
}

/// The copies that the next one may follow.
#[derive(Debug, Default)]
struct Copies(Option<Copied>);

impl Copies {
    /// Adds a copy; the run before, if it does not follow that.
    fn add(&mut self, (mailbox, original): (MailboxId, Uid), copy: Uid) -> Option<Copied> {
        if let Some(run) = &mut self.0
            && run.from.0 == mailbox
            && run.count < COPIES_AT_ONCE
            && run.from.1.1.get().checked_add(1) == Some(original.get())
            && run.to.get().checked_add(run.count) == Some(copy.get())
        {
            run.from.1.1 = original;
            run.count += 1;
            return None;
        }
        self.0.replace(Copied { from: (mailbox, (original, original)), to: copy, count: 1 })
    }
}

/// See [`Mailbox::prepare`].
#[derive(Debug)]
pub(super) struct Prepared {
    rows: Vec<MessageRecord>,
    pub(super) record: MailboxRecord,
    /// Only rows of UIDs below it; `None`: all.
    written_below: Option<u32>,
}
