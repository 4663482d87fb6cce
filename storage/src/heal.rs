//! A damaged index is made anew while the account stays open: from memory where mailboxes are open, from the Maildir where they are not.
//!
//! Whoever finds the damage is told to try again ([`StorageError::IndexDamaged`]); the next call into the store makes the index anew before it goes
//! on, so a session loses one command at most. What only the damaged file knew is lost: what was rendered (it is rendered again), which UIDs were
//! expunged (QRESYNC clients compare all), and flags of mailboxes that a dead holder left behind and nobody opened since.
//!
//! Invariants, each with the test that guards it:
//! - whatever is damaged while the account is open, what was told holds and at most one call fails (`a_damaged_index_is_made_anew_while_it_is_used`)
//! - a new index that can't be written leaves the damaged one where it is, and is tried again (`an_index_that_cannot_be_made_anew_is_tried_again`)

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use index::{MailboxRecord, ModSeq, ScanDue};
use parking_lot::Mutex;

use crate::{
    Account, MailboxName, StorageError,
    hierarchy::Known,
    mailbox::Mailbox,
    maildir::{
        ceiling::Marks,
        layout::special_use_name,
        uidlist::{OwnList, damaged_list},
    },
    parallel,
    store::index_error,
};

/// How long to wait for calls that are inside the store: none takes longer from memory. A call within a call finds the damage too, and waits in vain.
const WAIT: Duration = Duration::from_secs(2);

/// How far work on an index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexProgress {
    /// Mailboxes that are done.
    pub mailboxes: usize,
    /// Of so many.
    pub of: usize,
    /// Messages that are done.
    pub messages: u64,
}

/// Work on an index; over when it is dropped.
pub(crate) struct IndexWork<'a>(&'a Mutex<Option<IndexProgress>>);

impl IndexWork<'_> {
    fn begin(place: &Mutex<Option<IndexProgress>>, of: usize) -> IndexWork<'_> {
        *place.lock() = Some(IndexProgress { of, ..IndexProgress::default() });
        IndexWork(place)
    }
    /// So many more are done.
    pub(crate) fn did(&self, mailboxes: usize, messages: u64) {
        if let Some(progress) = self.0.lock().as_mut() {
            progress.mailboxes += mailboxes;
            progress.messages += messages;
        }
    }
}

impl Drop for IndexWork<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Account {
    /// Makes the index anew if it was found damaged. Not from within a call.
    pub(crate) fn heal(&self) -> Result<(), StorageError> {
        let Some(_alone) = self.store.enter_alone(WAIT) else { return Err(self.store.index_damaged()) };
        if !self.store.is_damaged() {
            return Ok(()); // somebody else was faster
        }
        self.make_index_anew()
    }

    /// Makes the index anew in any case: an operator asks for it. Damaged lists of UIDs are written anew as well: from what the index said, as far as it can
    /// be read. Blocking.
    pub fn rebuild_index(self: &Arc<Self>) -> Result<(), StorageError> {
        self.store.ensure_not_abandoned()?;
        self.mend_lists(|error| tracing::debug!(%error, "lists of UIDs are looked at again behind the index"));
        {
            let Some(_alone) = self.store.enter_alone(WAIT.saturating_mul(10)) else { return Err(self.store.index_damaged()) };
            self.make_index_anew()?;
        }
        let mut failed = None;
        self.mend_lists(|error| failed = Some(error));
        failed.map_or(Ok(()), Err)
    }

    /// Opens the mailboxes whose lists of UIDs are damaged, and writes these anew.
    fn mend_lists(self: &Arc<Self>, mut failed: impl FnMut(StorageError)) {
        let known: Vec<(MailboxName, Known)> =
            self.catalog.read().mailboxes.iter().map(|(name, known)| (name.clone(), known.clone())).collect();
        let checked = parallel::for_each(self.store.settings.parallel_operations, &known, |(_, known)| self.has_damaged_list(known));
        for ((name, _), damaged) in known.iter().zip(checked) {
            match damaged {
                Ok(false) => {}
                Ok(true) => self.mailbox(name).and_then(|mailbox| mailbox.mend_list()).unwrap_or_else(&mut failed),
                Err(error) => failed(error),
            }
        }
    }
    fn has_damaged_list(&self, known: &Known) -> Result<bool, StorageError> {
        let path = self.store.paths.folder(&known.folder);
        let filesystem = self.store.filesystem.as_ref();
        damaged_list(filesystem, &path).map(|damage| damage.is_some()).map_err(self.store.io("can't read the list of UIDs in", path))
    }

    /// Compares the index with itself, every row of it. Damage found is repaired by the next call. The number of mailboxes that were
    /// checked. Blocking.
    pub fn check_index(&self) -> Result<usize, StorageError> {
        let _inside = self.store.enter()?;
        let work = IndexWork::begin(&self.index_progress, self.catalog.read().mailboxes.len());
        let mut checked = (0, 0);
        self.store.with_writer(|index| {
            index.check(&mut |mailboxes, messages| {
                work.did(mailboxes - checked.0, messages - checked.1);
                checked = (mailboxes, messages);
            })
        })?;
        Ok(checked.0)
    }
    /// How far [`Account::check_index`] or [`Account::rebuild_index`] is; `None`: neither is under way. From memory.
    pub fn index_progress(&self) -> Option<IndexProgress> {
        *self.index_progress.lock()
    }

    fn make_index_anew(&self) -> Result<(), StorageError> {
        let store = &self.store;
        let begun = store.now();
        store.ensure_not_abandoned()?;
        let failed = |error| index_error(&store.lease, &store.paths.index, error);
        let mut known: Vec<Known> = self.catalog.read().mailboxes.values().cloned().collect();
        known.sort_by_key(|known| known.id);
        let work = IndexWork::begin(&self.index_progress, known.len());
        let (open, closed): (Vec<_>, Vec<_>) =
            known.into_iter().map(|known| (self.loaded_mailbox(known.id), known)).partition(|(open, _)| open.is_some());
        let closed: Vec<Known> = closed.into_iter().map(|(_, known)| known).collect();
        let records = parallel::for_each(store.settings.parallel_operations, &closed, |known| {
            let record = self.record_from_folder(known);
            work.did(1, 0);
            record
        });
        let records = records.into_iter().collect::<Result<Vec<_>, _>>()?;
        let open: Vec<(Arc<Mailbox>, Known)> = open.into_iter().filter_map(|(mailbox, known)| Some((mailbox?, known))).collect();

        let mut anew = index::epoch::begin_anew(&store.paths.index).map_err(failed)?;
        let mut change = anew.begin().map_err(failed)?;
        for record in records.iter().flatten() {
            change.insert_mailbox(record).map_err(failed)?;
        }
        let mut healed = Vec::with_capacity(open.len());
        for (mailbox, known) in &open {
            let special_use = known.special_use.map(|special_use| special_use_name(special_use).to_owned());
            healed.push(mailbox.write_anew(&mut change, &known.folder, special_use, &work, &failed)?);
            work.did(1, 0);
        }
        change.commit().map_err(failed)?;
        store.close_damaged();
        let index = index::epoch::replace(&store.paths.index, store.lease.epoch(), anew).map_err(failed)?;
        self.trash.lock().extend(store.go_on_with(index));
        for ((mailbox, _), record) in open.iter().zip(healed) {
            mailbox.written_anew(record);
        }
        // Their rows are others now.
        self.untold.lock().clear();
        self.uncounted.lock().extend(records.iter().flatten().map(|record| record.id));
        tracing::warn!(
            user = %store.lease.user(),
            mailboxes = records.len() + open.len(),
            from_memory = open.len(),
            milliseconds = store.now().saturating_sub(begun).as_millis(),
            "the index was made anew"
        );
        Ok(())
    }

    /// What the folder of a mailbox that is not open says; `None`: it is gone.
    fn record_from_folder(&self, known: &Known) -> Result<Option<MailboxRecord>, StorageError> {
        let path = self.store.paths.folder(&known.folder);
        let entries = match self.store.filesystem.list(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(self.store.io("can't list", path))?,
        };
        let record = Marks::find(&entries).map(|marks| MailboxRecord {
            id: known.id,
            folder: known.folder.clone(),
            uid_validity: marks.uid_validity,
            uid_next: 1,
            highest_modseq: ModSeq::MIN,
            expunged_floor: 0,
            first_recent: 1,
            special_use: known.special_use.map(|special_use| special_use_name(special_use).to_owned()),
            uid_ceiling: marks.uid,
            modseq_ceiling: marks.modseq,
            cur_seen: 0,
            new_seen: 0,
            scan_due: ScanDue::Rebuild,
            adopted_below: OwnList::find(&entries).map_or(0, |list| list.uid_next),
        });
        Ok(record)
    }
}

impl crate::store::Store {
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::SeqCst)
    }
}
