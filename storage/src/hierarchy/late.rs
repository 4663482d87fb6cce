//! Folders that came, moved or went under an open account: what a dead holder had asked the file server for and it carries out late, and what other programs do.
//!
//! Invariants, each with the test that guards it:
//! - a mailbox whose folder was renamed or removed is not looked for where it was (`folders_that_others_move_are_found_where_they_are`)
//! - what a dead holder's late requests do to folders is looked for as long as they can arrive (`a_dead_holders_late_rename_of_a_folder_is_followed`)
//! - a DELETE of an earlier holder that is carried out late takes nothing away (`a_dead_holders_late_deletion_is_undone`,
//!   `what_a_late_deletion_took_from_the_next_holder_is_not_emptied`)

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::PathBuf,
    time::Duration,
};

use affinity::Epoch;
use index::{MailboxId, MailboxRecord};

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
            let often = follows && self.store.paths.layout == Layout::MaildirPlusPlus;
            let due =
                last || self.store.misses_a_folder() || (often && now.saturating_sub(look.at) >= self.store.settings.late_look_interval);
            if !due {
                return;
            }
            look.at = now;
            last
        };
        match self.find_folders_again() {
            Ok(found) => self.folders_look.lock().is_settled |= last && found.is_some(),
            Err(error) => tracing::warn!(user = %self.user(), %error, "folders that others moved are looked for again"),
        }
    }

    /// Compares the folders with the mailboxes that are known: whether these are others now. `None`: it can't be done now, or from within a call.
    pub(crate) fn find_folders_again(&self) -> Result<Option<bool>, StorageError> {
        if !self.store.is_live() {
            return Ok(None);
        }
        if !self.folders_differ()? {
            self.store.found_all_folders();
            return Ok(Some(false));
        }
        let Some(_alone) = self.store.enter_alone(WAIT) else { return Ok(None) };
        self.store.ensure_open()?;
        let _structure = self.structure.lock();
        let changed = self.follow_folders()?;
        self.store.found_all_folders();
        Ok(Some(changed))
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
        let mut folders = self.folders_in(&entries)?;
        let records = self.store.with_writer(|index| index.mailboxes())?;
        let mut missing = self.match_records(&mut folders, records);
        self.ensure_gone(&missing)?;
        let trash: HashSet<PathBuf> = self.trash.lock().iter().cloned().collect();
        let appeared = entries.iter().filter(|entry| !trash.contains(&self.store.paths.maildir.join(&entry.name)));
        for (path, deleted_in) in self.deleted_folders(appeared) {
            // Ours is no folder of a mailbox that we know.
            if deleted_in < self.store.lease.epoch() {
                self.bring_back(&path, &mut missing)?;
            }
        }
        if missing.is_empty() && folders.is_empty() {
            return Ok(true);
        }
        let gone: Vec<(MailboxName, Known)> = {
            let mut catalog = self.catalog.write();
            let ids: HashSet<MailboxId> = missing.iter().map(|record| record.id).collect();
            let gone = catalog.mailboxes.extract_if(.., |_, known| ids.contains(&known.id));
            gone.collect()
        };
        self.adopt(folders, missing, &entries)?;
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
        self.shared_mailboxes_changed(&moved, false)?;
        self.shared_mailboxes_changed(&removed, true)?;
        self.list_changed();
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

    /// A listing that somebody renames under may lack a folder that is there.
    fn ensure_gone(&self, missing: &[MailboxRecord]) -> Result<(), StorageError> {
        missing.iter().try_for_each(|record| {
            let path = self.folder_path(&record.folder);
            let inner = if self.store.paths.layout == Layout::Fs { path.join("cur") } else { path };
            match self.store.filesystem.attributes(&inner) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(self.store.io("can't look at", inner)(error)),
                Ok(_) => Err(self.store.io("was not listed, and is there:", inner)(io::ErrorKind::ResourceBusy.into())),
            }
        })
    }

    /// Folders of deleted mailboxes, each with the epoch of the holder that deleted it.
    fn deleted_folders<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Vec<(PathBuf, Epoch)> {
        let deleted = entries.filter_map(|entry| {
            let own = Base::parse(entry.name.strip_prefix(DELETED_PREFIX)?).own()?;
            Some((self.store.paths.maildir.join(&entry.name), own.epoch))
        });
        deleted.collect()
    }
    /// Undoes the deletion of a folder, if it is the one of a mailbox that is missing.
    fn bring_back(&self, path: &std::path::Path, missing: &mut Vec<MailboxRecord>) -> Result<bool, StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let marks = Marks::find(&filesystem.list(path).map_err(self.store.io("can't list", path))?);
        let of = |record: &MailboxRecord| marks.is_some_and(|marks| marks.uid_validity == record.uid_validity);
        let Some(at) = missing.iter().position(of) else { return Ok(false) };
        let Some(place) = missing.get(at).map(|record| self.folder_path(&record.folder)) else { return Ok(false) };
        if filesystem.attributes(&place).is_ok() {
            return Ok(false);
        }
        let record = missing.swap_remove(at);
        filesystem.rename(path, &place).map_err(self.store.io("can't bring back", &place))?;
        let maildir = &self.store.paths.maildir;
        filesystem.sync_folder(maildir).map_err(self.store.io("can't sync", maildir))?;
        tracing::warn!(
            user = %self.user(), folder = record.folder, deleted = %path.display(),
            "a DELETE that an earlier holder sent was carried out late: it is undone, since nobody was told and the mailbox was in use"
        );
        Ok(true)
    }

    /// At opening: deleted folders that have messages of later holders come back, or stay where they are; whether any came back.
    pub(super) fn undo_late_deletions(&self, entries: &[Entry], records: &[MailboxRecord]) -> Result<LateDeletions, StorageError> {
        let mut late = LateDeletions::default();
        let mut missing: Vec<MailboxRecord> =
            records.iter().filter(|record| !entries.iter().any(|entry| entry.name == record.folder)).cloned().collect();
        for (path, deleted_in) in self.deleted_folders(entries.iter()) {
            if !self.has_later_messages(&path, deleted_in)? {
                continue;
            }
            if self.bring_back(&path, &mut missing)? {
                late.came_back = true;
            } else {
                tracing::error!(
                    user = %self.user(), folder = %path.display(),
                    "a deleted mailbox has messages that came after its deletion: it is not emptied; rename its folder to have them back"
                );
                late.kept.insert(path);
            }
        }
        Ok(late)
    }
    fn has_later_messages(&self, folder: &std::path::Path, deleted_in: Epoch) -> Result<bool, StorageError> {
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

/// What [`Account::undo_late_deletions`] found.
#[derive(Debug, Default)]
pub(super) struct LateDeletions {
    pub came_back: bool,
    /// Deleted folders that are not emptied.
    pub kept: HashSet<PathBuf>,
}
