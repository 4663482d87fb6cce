//! EXPUNGE: durable in the index with one commit; files are removed in the background.

use std::{collections::HashSet, sync::atomic::Ordering};

use index::{Flag, ModSeq, Uid};

use super::{
    Mailbox,
    state::{REMOVED_MAX, Removal, State},
};
use crate::{
    Row, StorageError,
    maildir::filename::{FileName, identity},
    parallel,
};

/// Expunged UIDs that are remembered for QRESYNC; a client that was away for more starts afresh.
const EXPUNGED_KEPT: u32 = 20_000;

impl Mailbox {
    /// Expunges those of `uids` (`None`: all messages) that have \Deleted; gives those that are gone now, ascending. Blocking.
    pub fn expunge(&self, uids: Option<&[Uid]>) -> Result<Vec<Uid>, StorageError> {
        self.expunge_where(uids, |row| row.flags.contains(Flag::Deleted))
    }
    /// Expunges `uids` whatever their flags (POP3 QUIT, MOVE). Blocking.
    pub fn remove(&self, uids: &[Uid]) -> Result<Vec<Uid>, StorageError> {
        self.expunge_where(Some(uids), |_| true)
    }

    fn expunge_where(&self, uids: Option<&[Uid]>, wanted: impl Fn(&Row) -> bool) -> Result<Vec<Uid>, StorageError> {
        self.store.twice(|| self.try_expunge(uids, &wanted))
    }
    fn try_expunge(&self, uids: Option<&[Uid]>, wanted: impl Fn(&Row) -> bool) -> Result<Vec<Uid>, StorageError> {
        let _inside = self.store.enter_for_change()?;
        self.ensure_there()?;
        let folder = self.folder();
        let mut state = self.state.lock();
        let (gone, files): (Vec<Uid>, Vec<String>) = {
            let columns = self.columns.read();
            let mut positions: Vec<usize> = match uids {
                Some(uids) => uids.iter().filter_map(|uid| columns.position(*uid)).collect(),
                None => (0..columns.len()).collect(),
            };
            positions.sort_unstable();
            positions.dedup();
            positions.retain(|position| wanted(&columns.row(*position)));
            positions.into_iter().map(|position| (columns.row(position).uid, columns.file(position))).unzip()
        };
        if !gone.is_empty() {
            let modseq = self.next_modseq(&state, &folder)?;
            self.commit_expunge(&mut state, &gone, modseq, |change| {
                files.iter().try_for_each(|file| change.insert_removal(self.id, file))
            })?;
            state.removals.extend(files.into_iter().map(|file| Removal { recorded: file.clone(), file }));
            self.store.quota.gone(self.id, self.usage_of(&gone));
            self.forget(&mut state, &gone, modseq);
        }
        drop(state);
        self.store.acknowledge(gone)
    }

    /// Takes expunged messages (ascending) out of memory.
    pub(super) fn forget(&self, state: &mut State, gone: &[Uid], modseq: ModSeq) {
        for uid in gone {
            state.write_back.remove(&uid.get());
        }
        self.columns.write().remove(gone, modseq);
        self.store.leftovers.store(true, Ordering::SeqCst);
        self.changes.send_replace(modseq.get());
        self.store.note_activity();
    }

    /// What a dead holder's host brought back after it was removed is no message, and goes again.
    pub(super) fn remove_again(&self, state: &mut State, found: &[String]) -> Result<(), StorageError> {
        let again: Vec<&String> = found.iter().filter(|file| state.removed.contains(identity(file))).collect();
        if again.is_empty() {
            return Ok(());
        }
        tracing::info!(files = again.len(), "a lost host's COPY came again after its messages were expunged: they are removed again");
        let highest = self.columns.read().highest_modseq();
        self.commit(state, highest, |change| again.iter().try_for_each(|file| change.insert_removal(self.id, file)))?;
        state.removed.retain(|name| !again.iter().any(|file| identity(file) == name));
        state.removals.extend(again.into_iter().map(|file| Removal { recorded: file.clone(), file: file.clone() }));
        self.store.leftovers.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Removes the files of expunged messages. Background work, and before the account is closed.
    pub(crate) fn remove_files(&self) -> Result<(), StorageError> {
        if self.is_deleted() || !self.store.is_live() || self.state.lock().removals.is_empty() {
            return Ok(());
        }
        let _disk = self.disk.lock();
        let folder = self.folder();
        let removals = self.state.lock().removals.clone();
        let filesystem = self.store.filesystem.as_ref();
        let remove = |file: &String| {
            self.store.ensure_not_abandoned()?;
            let path = folder.join(file);
            filesystem.remove_file(&path).map_err(self.store.io("can't remove", path))
        };
        let files: Vec<String> = removals.iter().map(|removal| removal.file.clone()).collect();
        let results = parallel::for_each(parallel::NAMES, &files, remove);
        if results.iter().any(|result| matches!(result, Ok(false))) {
            // Gone by itself, or another program changed its flags: a file that stays would come back as a new message.
            let removing: HashSet<&str> = files.iter().map(|file| identity(file)).collect();
            let mut left = Vec::new();
            self.each_file(&folder, &|_| false, &mut |file, _| left.extend(removing.contains(identity(file)).then(|| file.to_owned())))?;
            left.iter().try_for_each(|file| remove(file).map(drop))?;
        }
        // What the index forgets must not come back after a power loss (`a_removal_is_forgotten_when_it_is_durable`).
        for sub in ["cur", "new"].into_iter().filter(|sub| files.iter().any(|file| file.starts_with(sub))) {
            let path = folder.join(sub);
            filesystem.sync_folder(&path).map_err(self.store.io("can't sync", path))?;
        }
        let mut failure = None;
        let mut gone = HashSet::new();
        for (removal, result) in removals.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    gone.insert(removal.recorded);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let mut state = self.state.lock();
        let highest = self.columns.read().highest_modseq();
        self.ensure_there()?;
        let mut prepared = self.prepare(&state, highest);
        self.store.change(|change| {
            self.write_prepared(&state, &prepared, change)?;
            gone.iter().try_for_each(|file| change.delete_removal(self.id, file))?;
            change.trim_expunged(&mut prepared.record, EXPUNGED_KEPT)
        })?;
        self.committed(&mut state, prepared);
        if self.store.follows_a_dead_client() {
            let epoch = self.store.lease.epoch();
            let is_earlier = |file: &str| FileName::of(file).base.own().is_some_and(|own| own.epoch < epoch);
            let there = REMOVED_MAX.saturating_sub(state.removed.len());
            let removed = gone.iter().filter(|file| is_earlier(file)).take(there).map(|file| identity(file).to_owned());
            state.removed.extend(removed);
        }
        state.removals.retain(|removal| !gone.contains(&removal.recorded));
        failure.map_or(Ok(()), Err)
    }
}
