//! Folders that came, moved or went under an open account: what a dead holder had asked the file server for and it carries out late, and what other programs do.
//!
//! Invariants, each with the test that guards it:
//! - a mailbox whose folder was renamed or removed is not looked for where it was (`folders_that_others_move_are_found_where_they_are`)
//! - what a dead holder's late requests do to folders is looked for as long as they can arrive (`a_dead_holders_late_rename_of_a_folder_is_followed`)
//! - a DELETE of an earlier holder that is carried out late takes nothing away (`a_dead_holders_late_deletion_is_undone`,
//!   `a_late_deletion_of_a_mailbox_with_children_is_undone`, `a_late_deletion_is_undone_by_whoever_finds_it_later`), and what came after it is never emptied
//!   (`what_a_late_deletion_took_from_the_next_holder_is_not_emptied`)
//! - what is known of a mailbox is forgotten only by two listings that are the same (`no_row_goes_by_a_listing_that_others_rename_under`)

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use affinity::Epoch;
use index::MailboxRecord;

use super::Known;
use crate::{
    Account, Layout, MailboxName, StorageError,
    filesystem::Entry,
    layout,
    maildir::{
        ceiling::Marks,
        filename::{Base, FileName},
        layout::{DELETED_PREFIX, special_use_from},
    },
};

/// How long to wait for calls that are inside the store: others come in only behind us.
const WAIT: Duration = Duration::from_millis(100);

/// When folders were looked for last.
#[derive(Debug, Default)]
pub(crate) struct FoldersLook {
    /// Since the account was opened.
    at: Duration,
    /// Nothing can arrive late any more.
    is_settled: bool,
}

impl Account {
    /// Looks for folders that others moved, where one was missed or a dead holder's requests may still arrive. Background work, not from within a call.
    pub(crate) fn look_at_folders_when_due(&self) {
        let now = self.store.now();
        let last = {
            let mut look = self.folders_look.lock();
            let follows = self.store.follows_a_dead_client() && !look.is_settled;
            let last = follows && now >= self.store.late_requests_last();
            // In the layout `fs` each level is a listing: once is enough.
            let due = last || (follows && self.store.paths.layout == Layout::MaildirPlusPlus);
            let due = due && now.saturating_sub(look.at) >= self.store.settings.late_look_interval;
            if !due && !self.store.misses_a_folder() {
                return;
            }
            look.at = now;
            last
        };
        match self.find_folders_again() {
            Ok(found) => self.folders_look.lock().is_settled |= last && found.is_some(),
            Err(error) => {
                tracing::warn!(user = %self.user(), %error, "folders that others moved can't be looked for: the next call that misses one tries again")
            }
        }
    }

    /// Whether a mailbox is not where it should be.
    pub(crate) fn misses_folder_of(&self, name: &MailboxName) -> bool {
        let folder = self.catalog.read().mailboxes.get(name).map(|known| self.folder_path(&known.folder));
        let looked = folder.map(|folder| self.store.filesystem.attributes(&folder.join("cur")));
        matches!(looked, Some(Err(error)) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Compares the folders with the mailboxes that are known: whether these are others now. `None`: it can't be done now, or from within a call.
    pub(crate) fn find_folders_again(&self) -> Result<Option<bool>, StorageError> {
        if !self.store.is_live() {
            return Ok(None);
        }
        // Before the look: who misses one meanwhile asks for another.
        self.store.found_all_folders();
        if !self.folders_differ()? {
            return Ok(Some(false));
        }
        let Some(_alone) = self.store.enter_alone(WAIT) else {
            self.store.miss_a_folder();
            return Ok(None);
        };
        self.store.ensure_open()?;
        let _structure = self.structure.lock();
        self.follow_folders().map(Some)
    }

    fn list_maildir(&self) -> Result<Vec<Entry>, StorageError> {
        let maildir = &self.store.paths.maildir;
        self.store.filesystem.list(maildir).map_err(self.store.io("can't list", maildir))
    }
    fn folders_in(&self, entries: &[Entry]) -> Result<BTreeMap<String, MailboxName>, StorageError> {
        let maildir = &self.store.paths.maildir;
        let found = layout::find(self.store.filesystem.as_ref(), &self.store.paths, entries, self.store.settings.parallel_operations)
            .map_err(self.store.io("can't list the folders of", maildir))?;
        Ok(found.mailboxes.into_iter().chain([(String::new(), MailboxName::inbox())]).collect())
    }
    fn folders_differ(&self) -> Result<bool, StorageError> {
        let found = self.folders_in(&self.list_maildir()?)?;
        let catalog = self.catalog.read();
        Ok(found.len() != catalog.mailboxes.len() || catalog.mailboxes.values().any(|known| !found.contains_key(&known.folder)))
    }

    /// With nobody inside.
    fn follow_folders(&self) -> Result<bool, StorageError> {
        let entries = self.list_maildir()?;
        let mut found = self.folders_in(&entries)?;
        let records = self.store.with_writer(|index| index.mailboxes())?;
        let mut folders = found.clone();
        let mut missing = self.match_records(&mut folders, records);
        if !missing.is_empty() {
            self.ensure_settled(&found)?;
        }
        // The listings may have taken longer than the lease.
        self.store.lease.confirm(self.store.settings.suspended_wait)?;
        for (path, deleted_in) in self.deleted_folders(entries.iter()) {
            // A mailbox that is missing now was there when the account was opened, so only an earlier holder's deletion is late.
            if deleted_in < self.store.lease.epoch()
                && let Some(back) = self.bring_back(&path, &mut missing)?
            {
                found.insert(back, MailboxName::inbox());
            }
        }
        let gone: Vec<(MailboxName, Known)> =
            self.catalog.write().mailboxes.extract_if(.., |_, known| !found.contains_key(&known.folder)).collect();
        if gone.is_empty() && folders.is_empty() {
            return Ok(true);
        }
        let adopted = self.adopt(folders, missing, &entries);
        let mut moved = Vec::new();
        let mut removed = Vec::new();
        for (old, known) in gone {
            let now = self.catalog.read().find(&HashSet::from([known.id])).pop();
            let open = self.loaded_mailbox(known.id);
            if let Some((id, name, folder)) = now {
                if let Some(mailbox) = open {
                    crate::mailbox::relocate(&[(mailbox, name.clone(), self.folder_path(&folder))], || Ok(()))?;
                }
                self.store.quota.mailbox_is_called(id, &name);
                moved.push(id);
            } else if adopted.is_err() {
                // The next look finds out.
                self.catalog.write().mailboxes.entry(old).or_insert(known);
            } else {
                if let Some(mailbox) = open {
                    mailbox.retire(|| Ok(()))?;
                }
                self.store.quota.mailbox_is_gone(known.id);
                self.forget_mailbox(known.id);
                removed.push(known.id);
                tracing::warn!(user = %self.user(), mailbox = %old, folder = known.folder, "the folder of a mailbox is gone: it is no mailbox any more");
            }
        }
        self.list_changed();
        adopted?;
        self.shared_mailboxes_changed(&moved, false)?;
        self.shared_mailboxes_changed(&removed, true)?;
        Ok(true)
    }

    /// Those that are where the index says are known, and taken from `folders`; the others' records.
    pub(super) fn match_records(&self, folders: &mut BTreeMap<String, MailboxName>, records: Vec<MailboxRecord>) -> Vec<MailboxRecord> {
        let mut missing = Vec::new();
        let mut catalog = self.catalog.write();
        for record in records {
            match folders.remove(&record.folder) {
                Some(name) => {
                    let special_use = record.special_use.as_deref().and_then(special_use_from);
                    catalog.mailboxes.entry(name).or_insert(Known { id: record.id, folder: record.folder, special_use });
                }
                None => missing.push(record),
            }
        }
        missing
    }

    /// A listing that somebody renames under may lack a folder that is there: rows go only by two that are the same.
    pub(super) fn ensure_settled(&self, listed: &BTreeMap<String, MailboxName>) -> Result<(), StorageError> {
        if self.folders_in(&self.list_maildir()?)? == *listed {
            return Ok(());
        }
        let cause = io::Error::new(io::ErrorKind::ResourceBusy, "its folders are being renamed: try again");
        Err(self.store.io("can't tell the mailboxes of", &self.store.paths.maildir)(cause))
    }

    /// Folders of deleted mailboxes, each with the epoch of the holder that deleted it.
    fn deleted_folders<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Vec<(PathBuf, Epoch)> {
        let deleted = entries.filter_map(|entry| {
            let own = Base::parse(entry.name.strip_prefix(DELETED_PREFIX)?).own()?;
            Some((self.store.paths.maildir.join(&entry.name), own.epoch))
        });
        deleted.collect()
    }
    /// Undoes the deletion of a folder, if it is the one of a mailbox that is missing: which one.
    fn bring_back(&self, path: &Path, missing: &mut Vec<MailboxRecord>) -> Result<Option<String>, StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let list = |folder: &Path| match filesystem.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            entries => entries.map(Some).map_err(self.store.io("can't list", folder)),
        };
        let Some(entries) = list(path)? else { return Ok(None) };
        let (from, to, at) = match Marks::find(&entries) {
            Some(marks) => {
                let Some(at) = missing.iter().position(|record| record.uid_validity == marks.uid_validity) else { return Ok(None) };
                let Some(record) = missing.get(at) else { return Ok(None) };
                (path.to_owned(), self.folder_path(&record.folder), at)
            }
            // In the layout `fs` a mailbox with others below lost its `cur` alone; whose it was, its state file beside says, if it is the only one.
            None if self.store.paths.layout == Layout::Fs && has_cur(&entries) => {
                let mut without_cur = Vec::new();
                for (at, record) in missing.iter().enumerate() {
                    let entries = list(&self.folder_path(&record.folder))?.unwrap_or_default();
                    if Marks::find(&entries).is_some_and(|marks| marks.uid_validity == record.uid_validity) && !has_cur(&entries) {
                        without_cur.push((at, self.folder_path(&record.folder).join("cur")));
                    }
                }
                let [(at, cur)] = without_cur.as_slice() else { return Ok(None) };
                (path.join("cur"), cur.clone(), *at)
            }
            None => return Ok(None),
        };
        if filesystem.attributes(&to).is_ok() {
            return Ok(None);
        }
        self.store.lease.confirm(self.store.settings.suspended_wait)?;
        filesystem.rename(&from, &to).map_err(self.store.io("can't bring back", &to))?;
        let above = to.parent().unwrap_or(&self.store.paths.maildir);
        filesystem.sync_folder(above).map_err(self.store.io("can't sync", above))?;
        let record = missing.swap_remove(at);
        tracing::warn!(
            user = %self.user(), folder = record.folder, deleted = %path.display(),
            "a DELETE that an earlier holder sent was carried out late: it is undone, since nobody was told and the mailbox was in use"
        );
        Ok(Some(record.folder))
    }

    /// At opening: folders that were deleted late come back, or stay where they are; whether any came back. `written_in`: the epoch of the index.
    pub(super) fn undo_late_deletions(
        &self,
        entries: &[Entry],
        records: &[MailboxRecord],
        written_in: Option<Epoch>,
    ) -> Result<LateDeletions, StorageError> {
        let mut late = LateDeletions::default();
        let deleted = self.deleted_folders(entries.iter());
        if deleted.is_empty() {
            return Ok(late);
        }
        let found = self.folders_in(entries)?;
        let mut missing: Vec<MailboxRecord> = records.iter().filter(|record| !found.contains_key(&record.folder)).cloned().collect();
        for (path, deleted_in) in deleted {
            let has_later = self.has_later_messages(&path, deleted_in)?;
            // A later holder's index has the mailbox, so that holder had it after the deletion was sent.
            let was_in_use = written_in.is_some_and(|written_in| written_in > deleted_in);
            if (has_later || was_in_use) && self.bring_back(&path, &mut missing)?.is_some() {
                late.came_back = true;
            } else if has_later {
                self.say_kept(&path);
                late.kept.insert(path);
            }
        }
        Ok(late)
    }
    fn say_kept(&self, folder: &Path) {
        tracing::error!(
            user = %self.user(), folder = %folder.display(),
            "a deleted mailbox has messages that came after its deletion: it is not emptied; rename its folder to have them back"
        );
    }
    /// Whether a folder that is only to be removed got messages of a later holder since; then it stays.
    pub(crate) fn has_come_late(&self, folder: &Path) -> bool {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let deleted_in = name.strip_prefix(DELETED_PREFIX).and_then(|unique| Base::parse(unique).own()).map(|own| own.epoch);
        let late =
            deleted_in.is_some_and(|epoch| epoch < self.store.lease.epoch() && self.has_later_messages(folder, epoch).unwrap_or(true));
        if late {
            self.say_kept(folder);
        }
        late
    }
    fn has_later_messages(&self, folder: &Path, deleted_in: Epoch) -> Result<bool, StorageError> {
        let mut has = false;
        for sub in ["cur", "new"] {
            let path = folder.join(sub);
            let visit = &mut |listed: crate::filesystem::Listed<'_>| {
                // Epochs may have begun anew, with the leases: what is above ours is of before.
                let epochs = deleted_in.0 + 1..=self.store.lease.epoch().0;
                has |= FileName::of(listed.name).base.own().is_some_and(|own| epochs.contains(&own.epoch.0));
            };
            match self.store.filesystem.each_entry(&path, &|_| false, visit) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.store.io("can't list", path)(error)),
                _ => {}
            }
        }
        Ok(has)
    }
}

fn has_cur(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.name == "cur")
}

/// What [`Account::undo_late_deletions`] found.
#[derive(Debug, Default)]
pub(super) struct LateDeletions {
    pub came_back: bool,
    /// Deleted folders that are not emptied.
    pub kept: HashSet<PathBuf>,
}
