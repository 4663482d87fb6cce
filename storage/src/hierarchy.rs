//! Which mailboxes there are: found at opening, created, deleted, renamed, subscribed.
//!
//! A mailbox appears and disappears by one rename of its folder: it is made under a name no listing shows, and removed under one.
//!
//! Invariants, each with the test that guards it:
//! - no two mailboxes of a user ever have the same UIDVALIDITY (`a_mailbox_made_anew_has_a_higher_uidvalidity`)
//! - mailboxes, special uses and subscriptions survive the index (`the_index_can_be_deleted_at_any_time`)

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use index::{MailboxId, MailboxRecord, ModSeq, ScanDue, UidValidity};

use crate::{
    Account, CreateOptions, MailboxEntry, MailboxName, SpecialUse, StorageError,
    adopt::{self, Earlier},
    filesystem::{Entry, create_folders, read_small, remove_quietly, replace_small},
    maildir::{
        ceiling::{Marks, RELEASED, RETURNED},
        keywords::{self, KEYWORDS_FILE},
        layout::{
            CREATING_PREFIX, DELETED_PREFIX, FOLDER_MARK, SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_FILE, find_special_use, find_validity,
            parse_subscriptions, print_subscriptions, special_use_file, special_use_from, special_use_name, validity_file,
        },
        uidlist,
    },
    parallel,
    store::{first_modseq, unix_micros},
};

/// The mailboxes of an account, in memory.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub mailboxes: BTreeMap<MailboxName, Known>,
    pub subscriptions: BTreeSet<MailboxName>,
    /// The highest UIDVALIDITY given to any mailbox of the user.
    highest_validity: u32,
    /// The number in the name of the Maildir's `berth-uidvalidity` file; `None`: there is none yet.
    validity_on_disk: Option<u32>,
}

/// One mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub id: MailboxId,
    /// Below the Maildir.
    pub folder: String,
    pub special_use: Option<SpecialUse>,
}

impl Catalog {
    /// Name and folder of the mailbox with row `id`.
    pub fn find(&self, id: MailboxId) -> Option<(MailboxName, String)> {
        self.mailboxes.iter().find(|(_, known)| known.id == id).map(|(name, known)| (name.clone(), known.folder.clone()))
    }
    fn has_children(&self, name: &MailboxName) -> bool {
        self.mailboxes.keys().any(|other| other.is_below(name))
    }
}

impl Account {
    /// Every mailbox, hierarchy-only level and subscription, sorted by name (INBOX first). From memory.
    pub fn list(&self) -> Result<Vec<MailboxEntry>, StorageError> {
        let _inside = self.store.enter()?;
        let catalog = self.catalog.read();
        let mut entries: BTreeMap<(bool, MailboxName), MailboxEntry> = BTreeMap::new();
        let mut add = |name: &MailboxName, known: Option<&Known>, subscribed: bool| {
            let entry = entries.entry((!name.is_inbox(), name.clone())).or_insert_with(|| MailboxEntry {
                name: name.clone(),
                selectable: false,
                subscribed: false,
                special_use: None,
                has_children: false,
            });
            entry.selectable |= known.is_some();
            entry.subscribed |= subscribed;
            entry.special_use = entry.special_use.or(known.and_then(|known| known.special_use));
        };
        for (name, known) in &catalog.mailboxes {
            add(name, Some(known), false);
            let mut above = name.parent();
            while let Some(level) = above {
                add(&level, None, false);
                above = level.parent();
            }
        }
        for name in &catalog.subscriptions {
            add(name, None, true);
        }
        let parents: BTreeSet<MailboxName> = catalog.mailboxes.keys().filter_map(MailboxName::parent).collect();
        let is_above = |name: &MailboxName| parents.iter().any(|parent| parent == name || parent.is_below(name));
        Ok(entries.into_values().map(|entry| MailboxEntry { has_children: is_above(&entry.name), ..entry }).collect())
    }

    /// Makes a mailbox and its missing parents. Blocking, durable.
    pub fn create(&self, name: &MailboxName, options: CreateOptions) -> Result<UidValidity, StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        name.check_new()?;
        self.ensure_free(name)?;
        self.create_parents(name)?;
        let validity = self.make(name, options.special_use)?;
        self.list_changed();
        self.store.acknowledge(validity)
    }

    /// Deletes a mailbox; one with children becomes a level of the hierarchy (RFC 9051 §6.3.5). Blocking, durable.
    pub fn delete(&self, name: &MailboxName) -> Result<(), StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        if name.is_inbox() {
            return Err(StorageError::NotAllowed("INBOX can't be deleted"));
        }
        let (known, has_children) = {
            let catalog = self.catalog.read();
            (catalog.mailboxes.get(name).cloned(), catalog.has_children(name))
        };
        let Some(known) = known else {
            return Err(match has_children {
                true => StorageError::NotAllowed("this is only a level of the hierarchy: delete the mailboxes below it"),
                false => StorageError::NoMailbox(name.clone()),
            });
        };
        let maildir = &self.store.paths.maildir;
        let (from, to) = (maildir.join(&known.folder), maildir.join(format!("{DELETED_PREFIX}{}", self.store.scratch())));
        let rename = || {
            self.store.filesystem.rename(&from, &to).map_err(self.store.io("can't rename", &from))?;
            self.store.filesystem.sync_folder(maildir).map_err(self.store.io("can't sync", maildir))
        };
        match self.loaded_mailbox(known.id) {
            Some(mailbox) => mailbox.retire(rename)?,
            None => rename()?,
        }
        self.catalog.write().mailboxes.remove(name);
        self.forget_mailbox(known.id);
        self.trash.lock().push(to);
        self.store.change(|change| change.delete_mailbox(known.id))?;
        self.list_changed();
        self.store.acknowledge(())
    }

    /// Renames a mailbox with its children; INBOX moves its messages instead (RFC 9051 §6.3.6). Blocking, durable.
    pub fn rename(self: &Arc<Self>, from: &MailboxName, to: &MailboxName) -> Result<(), StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        to.check_new()?;
        self.ensure_free(to)?;
        if to == from || to.is_below(from) {
            return Err(StorageError::NotAllowed("a mailbox can't be moved below itself"));
        }
        if from.is_inbox() {
            self.create_parents(to)?;
            self.make(to, None)?;
            self.list_changed();
            let (inbox, target) = (self.mailbox(from)?, self.mailbox(to)?);
            let uids = inbox.read().uids().to_vec();
            inbox.move_to(&uids, &target)?;
            return self.store.acknowledge(());
        }
        let moves: Vec<(MailboxName, MailboxName, Known)> = {
            let catalog = self.catalog.read();
            let affected = catalog.mailboxes.iter().filter(|(name, _)| *name == from || name.is_below(from));
            let renamed = affected.map(|(name, known)| {
                let rest = name.as_str().get(from.as_str().len()..).unwrap_or_default();
                let new = MailboxName::parse(&format!("{to}{rest}"))?;
                Ok((name.clone(), new, known.clone()))
            });
            renamed.collect::<Result<_, StorageError>>()?
        };
        if moves.is_empty() {
            return Err(StorageError::NoMailbox(from.clone()));
        }
        for (_, new, _) in &moves {
            self.ensure_free(new)?;
        }
        self.create_parents(to)?;
        for (old, new, known) in moves {
            self.move_folder(&old, new, known)?;
        }
        self.list_changed();
        self.store.acknowledge(())
    }

    /// Subscribes or unsubscribes; unsubscribing an unknown name is fine. Blocking, durable.
    pub fn set_subscribed(&self, name: &MailboxName, subscribed: bool) -> Result<(), StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        let mut names = self.catalog.read().subscriptions.clone();
        let changed = if subscribed { names.insert(name.clone()) } else { names.remove(name) };
        if changed {
            self.replace_file(&self.store.paths.maildir, SUBSCRIPTIONS_FILE, print_subscriptions(&names).as_bytes())?;
            self.catalog.write().subscriptions = names;
            self.list_changed();
        }
        self.store.acknowledge(())
    }

    fn list_changed(&self) {
        self.list_changes.send_modify(|changes| *changes += 1);
    }
    fn ensure_free(&self, name: &MailboxName) -> Result<(), StorageError> {
        let catalog = self.catalog.read();
        if name.is_inbox() || catalog.mailboxes.contains_key(name) {
            return Err(StorageError::MailboxExists(name.clone()));
        }
        let limit = self.store.settings.mailboxes_max;
        if catalog.mailboxes.len() >= limit {
            return Err(StorageError::Limit { what: "the number of mailboxes", limit: u64::try_from(limit).unwrap_or(u64::MAX) });
        }
        Ok(())
    }
    fn create_parents(&self, name: &MailboxName) -> Result<(), StorageError> {
        let mut missing = Vec::new();
        let mut above = name.parent();
        while let Some(parent) = above {
            if !parent.is_inbox() && !self.catalog.read().mailboxes.contains_key(&parent) {
                missing.push(parent.clone());
            }
            above = parent.parent();
        }
        for parent in missing.into_iter().rev() {
            self.make(&parent, None)?;
        }
        Ok(())
    }

    /// Makes one mailbox: under a name that no listing shows, then in its place with one rename.
    fn make(&self, name: &MailboxName, special_use: Option<SpecialUse>) -> Result<UidValidity, StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let maildir = &self.store.paths.maildir;
        let marks = Marks::new(self.next_validity()?);
        let folder = name.to_folder();
        let (scratch, path) = (maildir.join(format!("{CREATING_PREFIX}{}", self.store.scratch())), maildir.join(&folder));
        let mut files = vec![FOLDER_MARK.to_owned(), marks.print()];
        files.extend(special_use.map(special_use_file));
        let made = (|| {
            filesystem.create_folder(&scratch)?;
            self.fill_folder(&scratch, &files)?;
            filesystem.rename(&scratch, &path)
        })();
        match made {
            Ok(()) => {}
            Err(error) => {
                self.trash.lock().push(scratch);
                return Err(match error.kind() {
                    // A folder that is no mailbox we know: another program made it since we looked.
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => StorageError::MailboxExists(name.clone()),
                    _ => self.store.io("can't make mailbox folder", path)(error),
                });
            }
        }
        filesystem.sync_folder(maildir).map_err(self.store.io("can't sync", maildir))?;
        self.record(name, folder, marks, special_use, ScanDue::No, 0)?;
        Ok(marks.uid_validity)
    }
    /// Writes a small file into a mailbox folder: readers see the old content or the new.
    fn replace_file(&self, folder: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
        let (path, scratch) = (folder.join(name), folder.join("tmp").join(self.store.scratch()));
        replace_small(self.store.filesystem.as_ref(), &path, &scratch, content).map_err(self.store.io("can't write", path))
    }
    /// `cur`, `new`, `tmp` and empty files.
    fn fill_folder(&self, folder: &Path, files: &[String]) -> io::Result<()> {
        let filesystem = self.store.filesystem.as_ref();
        for name in ["cur", "new", "tmp"] {
            filesystem.create_folder(&folder.join(name))?;
        }
        for file in files {
            match filesystem.create(&folder.join(file)) {
                Ok(file) => file.finish()?,
                // Empty files whose names say it all: made before an interruption.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        filesystem.sync_folder(folder)
    }
    fn record(
        &self,
        name: &MailboxName,
        folder: String,
        marks: Marks,
        special_use: Option<SpecialUse>,
        scan_due: ScanDue,
        adopted_below: u32,
    ) -> Result<(), StorageError> {
        let record = MailboxRecord {
            id: MailboxId::NEW,
            folder: folder.clone(),
            uid_validity: marks.uid_validity,
            uid_next: 1,
            highest_modseq: ModSeq::MIN,
            expunged_floor: 0,
            first_recent: 1,
            special_use: special_use.map(|special_use| special_use_name(special_use).to_owned()),
            uid_ceiling: marks.uid,
            modseq_ceiling: marks.modseq,
            cur_seen: 0,
            new_seen: 0,
            scan_due,
            adopted_below,
        };
        let id = self.store.change(|change| change.insert_mailbox(&record))?;
        let mut catalog = self.catalog.write();
        catalog.highest_validity = catalog.highest_validity.max(marks.uid_validity.get());
        catalog.mailboxes.insert(name.clone(), Known { id, folder, special_use });
        Ok(())
    }
    fn move_folder(&self, old: &MailboxName, new: MailboxName, known: Known) -> Result<(), StorageError> {
        let maildir = &self.store.paths.maildir;
        let folder = new.to_folder();
        let (from, to) = (maildir.join(&known.folder), maildir.join(&folder));
        let rename = || {
            self.store.filesystem.rename(&from, &to).map_err(self.store.io("can't rename", &from))?;
            self.store.filesystem.sync_folder(maildir).map_err(self.store.io("can't sync", maildir))
        };
        match self.loaded_mailbox(known.id) {
            Some(mailbox) => mailbox.relocate(new.clone(), to.clone(), rename)?,
            None => rename()?,
        }
        let mut catalog = self.catalog.write();
        catalog.mailboxes.remove(old);
        catalog.mailboxes.insert(new, Known { folder: folder.clone(), ..known });
        drop(catalog);
        self.store.change(|change| change.set_folder(known.id, &folder))
    }

    /// A UIDVALIDITY that no mailbox of the user ever had: the time, or one more than the highest. Durable before it is used.
    fn next_validity(&self) -> Result<UidValidity, StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let maildir = &self.store.paths.maildir;
        let (highest, on_disk) = {
            let catalog = self.catalog.read();
            (catalog.highest_validity, catalog.validity_on_disk)
        };
        let now = u32::try_from(unix_micros().div_euclid(1_000_000)).unwrap_or(1);
        let next = now.max(highest.saturating_add(1));
        let path = maildir.join(validity_file(next));
        let made = match on_disk {
            Some(last) => match filesystem.rename(&maildir.join(validity_file(last)), &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => filesystem.create(&path).and_then(|file| file.finish()),
                result => result,
            },
            None => filesystem.create(&path).and_then(|file| file.finish()),
        };
        made.map_err(self.store.io("can't make", path))?;
        let mut catalog = self.catalog.write();
        catalog.highest_validity = next;
        catalog.validity_on_disk = Some(next);
        UidValidity::new(next).ok_or(StorageError::Limit { what: "UIDVALIDITY", limit: u32::MAX.into() })
    }
}

/// Opening.
impl Account {
    /// Compares the Maildir's folders with the index, and makes what a new user lacks.
    pub(crate) fn find_mailboxes(&self) -> Result<(), StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let maildir = &self.store.paths.maildir;
        let entries = match filesystem.list(maildir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folders(filesystem, maildir).map_err(self.store.io("can't make", maildir))?;
                Vec::new()
            }
            Err(error) => return Err(self.store.io("can't list", maildir)(error)),
        };
        if Marks::find(&entries).is_none() && Marks::find_as(RELEASED, &entries).is_some() {
            let why = "it was handed back to another server; `berth adopt` takes it back";
            return Err(self.store.io("can't open", maildir)(io::Error::other(why)));
        }
        let records = self.store.with_writer(|index| index.mailboxes())?;
        let left_behind = entries.iter().filter(|entry| entry.name.starts_with(DELETED_PREFIX) || entry.name.starts_with(CREATING_PREFIX));
        self.trash.lock().extend(left_behind.map(|entry| maildir.join(&entry.name)));
        let validity_on_disk = find_validity(&entries);
        {
            let mut catalog = self.catalog.write();
            let recorded = records.iter().map(|record| record.uid_validity.get()).max();
            catalog.highest_validity = validity_on_disk.max(recorded).max(adopt::highest_validity(&entries)).unwrap_or(0);
            catalog.validity_on_disk = validity_on_disk;
        }

        let mut folders: BTreeMap<String, MailboxName> = entries
            .iter()
            .filter(|entry| entry.is_folder != Some(false))
            .filter_map(|entry| Some((entry.name.clone(), MailboxName::from_folder(&entry.name).filter(|name| !name.is_inbox())?)))
            .collect();
        folders.insert(String::new(), MailboxName::inbox());
        for record in records {
            match folders.remove(&record.folder) {
                Some(name) => {
                    let special_use = record.special_use.as_deref().and_then(special_use_from);
                    self.catalog.write().mailboxes.insert(name, Known { id: record.id, folder: record.folder, special_use });
                }
                None => {
                    tracing::info!(folder = record.folder, "mailbox folder is gone");
                    self.store.change(|change| change.delete_mailbox(record.id))?;
                }
            }
        }
        let earlier_server = self.adopt(folders, &entries)?;
        self.read_subscriptions(&entries, validity_on_disk.is_none())?;
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
    fn adopt(&self, folders: BTreeMap<String, MailboxName>, maildir_entries: &[Entry]) -> Result<bool, StorageError> {
        let folders: Vec<(String, MailboxName)> = folders.into_iter().collect();
        let listings = parallel::for_each(self.store.settings.parallel_operations, &folders, |(folder, _)| {
            let path = self.folder_path(folder);
            let entries = match folder.is_empty() {
                true => maildir_entries.to_vec(),
                false => self.store.filesystem.list(&path).map_err(self.store.io("can't list", &path))?,
            };
            let earlier = match Marks::find(&entries) {
                Some(_) => None,
                None => {
                    let control = self.store.paths.control.as_deref().map(|control| control.join(folder));
                    let read = adopt::read(self.store.filesystem.as_ref(), &path, &entries, control.as_deref());
                    Some(read.map_err(self.store.io("can't read the lists of an earlier server in", path))?)
                }
            };
            Ok::<_, StorageError>((entries, earlier))
        });
        // First all that have a UIDVALIDITY, so that the others get higher ones.
        let mut without_state = Vec::new();
        for ((folder, name), listed) in folders.into_iter().zip(listings) {
            let (entries, earlier) = listed?;
            match (Marks::find(&entries), earlier) {
                (Some(marks), _) => {
                    let adopted_below = uidlist::find_own(&entries).unwrap_or(0);
                    self.record(&name, folder, marks, find_special_use(&entries), ScanDue::Rebuild, adopted_below)?;
                }
                (None, earlier) => without_state.push((folder, name, entries, earlier.unwrap_or_default())),
            }
        }
        let earlier_server = without_state.iter().any(|(.., earlier)| earlier.server.is_some());
        let (mut numbered, fresh): (Vec<_>, Vec<_>) =
            without_state.into_iter().partition(|(.., earlier)| earlier.list.is_some() && !earlier.needs_validity);
        numbered.extend(fresh);
        for (folder, name, entries, earlier) in numbered {
            self.take_over(&name, folder, &entries, earlier)?;
        }
        Ok(earlier_server)
    }

    /// Takes one folder over; its state file comes last, so that all is done again when it was interrupted.
    fn take_over(&self, name: &MailboxName, folder: String, entries: &[Entry], earlier: Earlier) -> Result<(), StorageError> {
        let path = self.folder_path(&folder);
        for problem in &earlier.problems {
            tracing::warn!(user = %self.store.lease.user(), mailbox = %name, problem, "taken over with a loss");
        }
        // Only an inbox that has nothing yet needs no look, and its first delivery no reservation.
        let new = !entries.iter().any(|entry| matches!(entry.name.as_str(), "cur" | "new"));
        let list = match (earlier.list, earlier.needs_validity) {
            (Some(list), true) => Some(uidlist::UidList { uid_validity: self.next_validity()?, ..list }),
            (list, _) => list,
        };
        let returned = Marks::find_as(RETURNED, entries).or_else(|| Marks::find_as(RELEASED, entries));
        let marks = match (&list, new) {
            (Some(list), _) => Marks { uid: list.uid_next, modseq: first_modseq(), ..Marks::unreserved(list.uid_validity) },
            (None, true) => Marks::new(self.next_validity()?),
            (None, false) => Marks { modseq: first_modseq(), ..Marks::unreserved(self.next_validity()?) },
        };
        let marks = Marks { modseq: marks.modseq.max(returned.map_or(0, |returned| returned.modseq)), ..marks };

        let mut files = vec![marks.print()];
        let special_use = find_special_use(entries).or_else(|| {
            let found = self.usual_special_use(name);
            files.extend(found.map(special_use_file));
            found
        });
        self.fill_folder(&path, &[]).map_err(self.store.io("can't prepare mailbox folder", &path))?;
        if !earlier.keywords.is_empty() && !entries.iter().any(|entry| entry.name == KEYWORDS_FILE) {
            self.replace_file(&path, KEYWORDS_FILE, keywords::print(&earlier.keywords).as_bytes())?;
        }
        let adopted_below = list.as_ref().map_or(0, |list| list.uid_next);
        if let Some(stale) = uidlist::find_own(entries).filter(|stale| *stale != adopted_below) {
            remove_quietly(self.store.filesystem.as_ref(), &path.join(uidlist::own_file(stale)));
        }
        if let Some(list) = &list {
            self.replace_file(&path, &uidlist::own_file(adopted_below), list.print(false).as_bytes())?;
            tracing::info!(user = %self.store.lease.user(), mailbox = %name, messages = list.messages.len(), server = ?earlier.server, "taken over");
        }
        self.fill_folder(&path, &files).map_err(self.store.io("can't prepare mailbox folder", &path))?;
        self.record(name, folder, marks, special_use, if new { ScanDue::No } else { ScanDue::Rebuild }, adopted_below)
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
        if first_time && !entries.iter().any(|entry| entry.name == SUBSCRIPTIONS_FILE) {
            let found = adopt::subscriptions(self.store.filesystem.as_ref(), maildir, entries, self.store.paths.control.as_deref())
                .map_err(self.store.io("can't read the subscriptions of an earlier server in", maildir))?;
            if let Some(names) = found {
                self.replace_file(maildir, SUBSCRIPTIONS_FILE, print_subscriptions(&names).as_bytes())?;
                self.catalog.write().subscriptions = names;
            }
        } else if entries.iter().any(|entry| entry.name == SUBSCRIPTIONS_FILE) {
            let path = self.store.paths.maildir.join(SUBSCRIPTIONS_FILE);
            let file =
                read_small(self.store.filesystem.as_ref(), &path, SUBSCRIPTIONS_BYTES_MAX).map_err(self.store.io("can't read", path))?;
            self.catalog.write().subscriptions = file.map(|file| parse_subscriptions(&file)).unwrap_or_default();
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
        Ok(())
    }
}
