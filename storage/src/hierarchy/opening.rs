//! Opens an account: compares the Maildir's folders with the index, takes over what an earlier server left, makes what a new user lacks.
//!
//! A folder's state file is made last, and the account's note of its highest UIDVALIDITY after all folders: what was interrupted is done again
//! (`a_takeover_that_was_interrupted_is_done_again`).

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use affinity::Epoch;
use index::{MailboxRecord, ScanDue, UidValidity};

use super::{Known, acls};
use crate::{
    Account, MailboxName, SpecialUse, StorageError,
    adopt::{self, Earlier},
    filesystem::{Entry, create_folders, read_small, remove_quietly},
    layout,
    maildir::{
        ceiling::{Marks, RELEASED, RETURNED},
        keywords::{self, KEYWORDS_FILE},
        layout::{
            CREATING_PREFIX, DELETED_PREFIX, SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_FILE, WRITING_PREFIX, find_special_use, find_validity,
            parse_subscriptions, print_subscriptions, special_use_file, special_use_from, validity_file,
        },
        uidlist::OwnList,
    },
    object_id::new_guid,
    parallel,
    quota::{MAILDIRSIZE_FILE, SET_FILE},
    store::first_modseq,
};

/// A folder that has no state file yet.
struct Unknown {
    folder: String,
    name: MailboxName,
    entries: Vec<Entry>,
    earlier: Earlier,
}

impl Unknown {
    /// The UIDVALIDITY that an earlier server gave.
    fn validity(&self) -> Option<UidValidity> {
        self.earlier.list.as_ref().filter(|_| !self.earlier.needs_validity).map(|list| list.uid_validity)
    }
}

impl Account {
    /// Compares the Maildir's folders with the index, and makes what a new user lacks.
    pub(crate) fn find_mailboxes(&self, written_in: Option<Epoch>) -> Result<(), StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let maildir = &self.store.paths.maildir;
        let mut entries = match filesystem.list(maildir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folders(filesystem, maildir).map_err(self.store.io("can't make", maildir))?;
                Vec::new()
            }
            Err(error) => return Err(self.store.io("can't list", maildir)(error)),
        };
        let records = self.store.with_writer(|index| index.mailboxes())?;
        let late = self.undo_late_deletions(&entries, &records, written_in)?;
        if late.came_back {
            entries = filesystem.list(maildir).map_err(self.store.io("can't list", maildir))?;
        }
        let inbox_entries = match &self.store.paths.inbox {
            None => entries.clone(),
            Some(inbox) => match filesystem.list(inbox) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create_folders(filesystem, inbox).map_err(self.store.io("can't make", inbox))?;
                    Vec::new()
                }
                entries => entries.map_err(self.store.io("can't list", inbox))?,
            },
        };
        let is_ours = Marks::find(&inbox_entries).is_some();
        if !is_ours && Marks::find_as(RELEASED, &inbox_entries).is_some() {
            let why = "it was handed back to another server; `berth adopt` takes it back";
            return Err(self.store.io("can't open", maildir)(io::Error::other(why)));
        }
        self.maildirsize.lock().was_there = entries.iter().any(|entry| entry.name == MAILDIRSIZE_FILE);
        if entries.iter().any(|entry| entry.name == SET_FILE) {
            self.read_set_limits()?;
        }
        let found = layout::find(filesystem, &self.store.paths, &entries, self.store.settings.parallel_operations)
            .map_err(self.store.io("can't list the folders of", maildir))?;
        if let Some(why) =
            layout::contradiction(filesystem, &self.store.paths, &entries, &found).map_err(self.store.io("can't list", maildir))?
        {
            return Err(self.store.io("can't open", maildir)(io::Error::other(why)));
        }
        for problem in &found.problems {
            tracing::warn!(user = %self.store.lease.user(), problem, "a folder is left out");
        }
        let incomplete = records.iter().filter(|record| matches!(record.scan_due, ScanDue::Rebuild | ScanDue::Takeover));
        self.uncounted.lock().extend(incomplete.map(|record| record.id));
        let left_behind = entries.iter().filter(|entry| entry.name.starts_with(DELETED_PREFIX) || entry.name.starts_with(CREATING_PREFIX));
        self.trash.lock().extend(left_behind.map(|entry| maildir.join(&entry.name)).filter(|path| !late.kept.contains(path)));
        for entry in entries.iter().filter(|entry| entry.name.starts_with(WRITING_PREFIX)) {
            remove_quietly(filesystem, &maildir.join(&entry.name));
        }
        let validity_on_disk = find_validity(&entries);
        {
            let mut catalog = self.catalog.write();
            let recorded = records.iter().map(|record| record.uid_validity.get()).max();
            catalog.highest_validity = validity_on_disk.max(recorded).max(adopt::highest_validity(&entries)).unwrap_or(0);
            catalog.validity_on_disk = validity_on_disk;
        }

        let mut folders: BTreeMap<String, MailboxName> = found.mailboxes.into_iter().collect();
        folders.insert(String::new(), MailboxName::inbox());
        let listed = folders.clone();
        let missing = self.match_records(&mut folders, records);
        if !missing.is_empty() {
            self.ensure_settled(&listed)?;
        }
        let earlier_server = self.adopt(folders, missing, &inbox_entries)?;
        self.count_from_index()?;
        // What was handed back and comes again is as new.
        let first_time = validity_on_disk.is_none() || !is_ours;
        self.read_subscriptions(&entries, first_time)?;
        if validity_on_disk.is_none() {
            if !earlier_server {
                self.greet_new_user()?;
            }
            // Only now: what was done so far is done again when it was interrupted.
            self.keep_highest_validity()?;
        }
        Ok(())
    }

    /// Takes folders over that the index does not know: rebuilt after a loss, or made by another program. Whether an earlier server's lists were found.
    /// `missing`: mailboxes that the index knows in folders that are gone. The one whose UIDVALIDITY a new folder has was renamed, and the index was not
    /// told: it keeps what file names do not say yet.
    pub(super) fn adopt(
        &self,
        folders: BTreeMap<String, MailboxName>,
        mut missing: Vec<MailboxRecord>,
        inbox_entries: &[Entry],
    ) -> Result<bool, StorageError> {
        let folders: Vec<(String, MailboxName)> = folders.into_iter().collect();
        let listings = parallel::for_each(parallel::MAILBOXES, &folders, |(folder, _)| {
            let path = self.folder_path(folder);
            let entries = match folder.is_empty() {
                true => inbox_entries.to_vec(),
                false => self.store.filesystem.list(&path).map_err(self.store.io("can't list", &path))?,
            };
            let earlier = match Marks::find(&entries) {
                Some(_) => None,
                None => {
                    let control = self.store.paths.control_of(folder);
                    let read = adopt::read(self.store.filesystem.as_ref(), &path, &entries, control.as_deref());
                    Some(read.map_err(self.store.io("can't read the lists of an earlier server in", path))?)
                }
            };
            Ok::<_, StorageError>((entries, earlier))
        });
        // First all that have a UIDVALIDITY, so that the others get higher ones.
        let mut with_state = Vec::new();
        let mut without_state = Vec::new();
        let mut with_acl = Vec::new();
        for ((folder, name), listed) in folders.into_iter().zip(listings) {
            let (entries, earlier) = listed?;
            with_acl.extend(acls::is_there(&entries).then(|| name.clone()));
            match (Marks::find(&entries), earlier) {
                (Some(marks), _) if let Some(at) = missing.iter().position(|record| record.uid_validity == marks.uid_validity) => {
                    let record = missing.swap_remove(at);
                    tracing::info!(user = %self.store.lease.user(), mailbox = %name, from = record.folder, "the folder was renamed");
                    self.store.change(|change| change.set_folder(record.id, &folder))?;
                    let special_use = record.special_use.as_deref().and_then(special_use_from);
                    self.catalog.write().mailboxes.insert(name, Known { id: record.id, folder, special_use });
                }
                (Some(marks), _) => with_state.push((
                    name,
                    folder,
                    marks,
                    find_special_use(&entries),
                    OwnList::find(&entries).map_or(0, |list| list.uid_next),
                )),
                (None, earlier) => without_state.push(Unknown { folder, name, entries, earlier: earlier.unwrap_or_default() }),
            }
        }
        for record in missing {
            tracing::info!(user = %self.store.lease.user(), folder = record.folder, "mailbox folder is gone");
            self.forget_rows(record.id)?;
        }
        let recorded = parallel::for_each(parallel::MAILBOXES, &with_state, |(name, folder, marks, special_use, adopted_below)| {
            self.record(name, folder.clone(), *marks, *special_use, ScanDue::Rebuild, *adopted_below)
        });
        recorded.into_iter().try_for_each(|recorded| recorded.map(drop))?;
        let earlier_server = without_state.iter().any(|unknown| unknown.earlier.server.is_some());
        let (numbered, fresh): (Vec<_>, Vec<_>) = without_state.into_iter().partition(|unknown| unknown.validity().is_some());
        let kept = numbered.into_iter().filter_map(|unknown| Some((unknown.validity()?, unknown)));
        self.take_over_all(kept.collect())?;
        let validities = self.next_validities(fresh.len())?;
        self.take_over_all(validities.into_iter().zip(fresh).collect())?;
        let catalog = self.catalog.read();
        with_acl.iter().filter_map(|name| catalog.mailboxes.get(name)).for_each(|known| self.acl_is_there(known.id));
        Ok(earlier_server)
    }
    fn take_over_all(&self, mut folders: Vec<(UidValidity, Unknown)>) -> Result<(), StorageError> {
        // A folder that somebody copied has its original's id as well.
        let mut ids = HashSet::new();
        for (validity, unknown) in &mut folders {
            if let Some(list) = &mut unknown.earlier.list {
                list.uid_validity = *validity;
                if list.guid.as_ref().is_none_or(|guid| !ids.insert(guid.clone())) {
                    list.guid = Some(new_guid());
                }
            }
        }
        let taken = parallel::for_each(parallel::MAILBOXES, &folders, |(validity, unknown)| self.take_over(*validity, unknown));
        taken.into_iter().collect()
    }

    /// Takes one folder over; its state file comes last, so that all is done again when it was interrupted.
    fn take_over(&self, validity: UidValidity, unknown: &Unknown) -> Result<(), StorageError> {
        let Unknown { folder, name, entries, earlier } = unknown;
        let path = self.folder_path(folder);
        for problem in &earlier.problems {
            tracing::warn!(user = %self.store.lease.user(), mailbox = %name, problem, "taken over with a loss");
        }
        // Only an inbox that has nothing yet needs no look, and its first delivery no reservation.
        let new = !entries.iter().any(|entry| matches!(entry.name.as_str(), "cur" | "new"));
        let list = &earlier.list;
        let returned = Marks::find_as(RETURNED, entries).or_else(|| Marks::find_as(RELEASED, entries));
        let marks = match (list, new) {
            (Some(list), _) => Marks { uid: list.uid_next, modseq: first_modseq(), ..Marks::unreserved(validity) },
            (None, true) => Marks::new(validity),
            (None, false) => Marks { modseq: first_modseq(), ..Marks::unreserved(validity) },
        };
        let marks = Marks { modseq: marks.modseq.max(returned.map_or(0, |returned| returned.modseq)), ..marks };

        // Most folders need no other reservation than this one when they are opened.
        let reserved = if new { marks } else { marks.reserve_ahead() };
        let mut files = vec![reserved.print()];
        let special_use = find_special_use(entries).or_else(|| {
            let found = self.usual_special_use(name);
            files.extend(found.map(special_use_file));
            found
        });
        let is_there = |name: &str| entries.iter().any(|entry| entry.name == name);
        if !["cur", "new", "tmp"].into_iter().all(is_there) {
            self.fill_folder(&path, &[]).map_err(self.store.io("can't prepare mailbox folder", &path))?;
        }
        if !earlier.keywords.is_empty() {
            self.replace_file(&path, KEYWORDS_FILE, keywords::print(&earlier.keywords).as_bytes())?;
        }
        let adopted_below = list.as_ref().map_or(0, |list| list.uid_next);
        // Of a stay before this one: the earlier server's list says it all.
        let epoch = OwnList::find(entries).map_or(Epoch(0), |stale| stale.epoch).max(self.store.lease.epoch());
        let own = OwnList { epoch, uid_next: adopted_below };
        for stale in OwnList::all(entries).filter(|stale| *stale != own || list.is_none()) {
            remove_quietly(self.store.filesystem.as_ref(), &path.join(stale.print()));
        }
        if let Some(list) = list {
            self.replace_file(&path, &own.print(), list.print(false).as_bytes())?;
            tracing::info!(user = %self.store.lease.user(), mailbox = %name, messages = list.messages.len(), server = ?earlier.server, "taken over");
        }
        self.make_files(&path, &files).map_err(self.store.io("can't prepare mailbox folder", &path))?;
        let due = if new { ScanDue::No } else { ScanDue::Rebuild };
        let id = self.record(name, folder.clone(), reserved, special_use, due, adopted_below)?;
        if due == ScanDue::Rebuild {
            self.untold.lock().insert(id, marks);
        }
        Ok(())
    }
    /// The special use that the settings give to mailboxes of this name.
    fn usual_special_use(&self, name: &MailboxName) -> Option<SpecialUse> {
        self.store.settings.auto_create.iter().find(|(usual, _)| usual == name).and_then(|(_, special_use)| *special_use)
    }
    fn keep_highest_validity(&self) -> Result<(), StorageError> {
        let highest = {
            let catalog = self.catalog.read();
            if catalog.validity_on_disk.is_some() {
                return Ok(());
            }
            catalog.highest_validity
        };
        let path = self.store.paths.maildir.join(validity_file(highest));
        self.store.filesystem.create(&path).and_then(|file| file.finish()).map_err(self.store.io("can't make", path))?;
        self.catalog.write().validity_on_disk = Some(highest);
        Ok(())
    }

    fn read_subscriptions(&self, entries: &[Entry], first_time: bool) -> Result<(), StorageError> {
        let maildir = &self.store.paths.maildir;
        let has_own = entries.iter().any(|entry| entry.name == SUBSCRIPTIONS_FILE);
        if first_time && (!has_own || self.store.paths.control.is_some()) {
            let found = adopt::subscriptions(self.store.filesystem.as_ref(), &self.store.paths, entries)
                .map_err(self.store.io("can't read the subscriptions of an earlier server in", maildir))?;
            if let Some(names) = found {
                self.replace_file(maildir, SUBSCRIPTIONS_FILE, print_subscriptions(&names).as_bytes())?;
                self.catalog.write().subscriptions = names;
                return Ok(());
            }
        }
        if has_own {
            let path = self.store.paths.maildir.join(SUBSCRIPTIONS_FILE);
            let file =
                read_small(self.store.filesystem.as_ref(), &path, SUBSCRIPTIONS_BYTES_MAX).map_err(self.store.io("can't read", path))?;
            if file.as_ref().is_some_and(|file| file.len() >= SUBSCRIPTIONS_BYTES_MAX) {
                tracing::warn!(user = %self.user(), "the file of subscriptions is too large, the end of it is not read");
            }
            self.catalog.write().subscriptions = file.map(|file| parse_subscriptions(&file, self.store.paths.layout)).unwrap_or_default();
        }
        Ok(())
    }

    /// The mailboxes that the settings promise to a user who was never here.
    fn greet_new_user(&self) -> Result<(), StorageError> {
        for (name, special_use) in &self.store.settings.auto_create {
            if !name.is_inbox() && !self.catalog.read().mailboxes.contains_key(name) {
                self.create_parents(name)?;
                self.make(name, *special_use)?;
            }
        }
        if self.store.settings.auto_subscribe && self.catalog.read().subscriptions.is_empty() {
            let promised = self.store.settings.auto_create.iter().map(|(name, _)| name.clone());
            let names = promised.chain([MailboxName::inbox()]).collect();
            self.replace_file(&self.store.paths.maildir, SUBSCRIPTIONS_FILE, print_subscriptions(&names).as_bytes())?;
            self.catalog.write().subscriptions = names;
        }
        Ok(())
    }
}
