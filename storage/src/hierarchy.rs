//! Which mailboxes there are: found at opening, created, deleted, renamed, subscribed.
//!
//! A mailbox appears and disappears by one rename of its folder: it is made under a name no listing shows, and removed under one (`folders.rs`).
//!
//! Invariants, each with the test that guards it:
//! - no two mailboxes of a user ever have the same UIDVALIDITY (`a_mailbox_made_anew_has_a_higher_uidvalidity`)
//! - mailboxes, special uses and subscriptions survive the index (`the_index_can_be_deleted_at_any_time`)

pub mod acl;
pub(crate) mod acls;
pub(crate) mod annotations;
mod folders;
pub(crate) mod late;
mod opening;
pub mod shares;
pub(crate) mod watched;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    ops::Bound,
    path::Path,
    sync::Arc,
};

use index::{MailboxId, MailboxRecord, ModSeq, ScanDue, UidValidity};

use crate::{
    Account, CreateOptions, Layout, MailboxEntry, MailboxName, SpecialUse, StorageError, Usage,
    maildir::{
        ceiling::Marks,
        layout::{
            CREATING_PREFIX, SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_FILE, WRITING_PREFIX, print_subscriptions, special_use_file,
            special_use_name, validity_file,
        },
    },
    store::unix_micros,
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
    /// Id, name and folder of the mailboxes with these rows.
    pub fn find(&self, ids: &HashSet<MailboxId>) -> Vec<(MailboxId, MailboxName, String)> {
        let found = self.mailboxes.iter().filter(|(_, known)| ids.contains(&known.id));
        found.map(|(name, known)| (known.id, name.clone(), known.folder.clone())).collect()
    }
    /// Name and folder of a mailbox that had these when they were asked for.
    pub fn place(&self, id: MailboxId, name: MailboxName, folder: &str) -> Result<(MailboxName, String), StorageError> {
        if self.mailboxes.get(&name).is_some_and(|known| known.id == id && known.folder == folder) {
            return Ok((name, folder.to_owned()));
        }
        let now = self.mailboxes.iter().find(|(_, known)| known.id == id);
        now.map(|(name, known)| (name.clone(), known.folder.clone())).ok_or(StorageError::NoMailbox(name))
    }
    /// What lies below a name follows it: one look, however many mailboxes there are.
    fn has_children(&self, name: &str) -> bool {
        let first = format!("{name}/");
        let after = self.mailboxes.range::<str, _>((Bound::Included(first.as_str()), Bound::Unbounded)).next();
        after.is_some_and(|(next, _)| next.as_str().starts_with(&first))
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
        Ok(entries.into_values().map(|entry| MailboxEntry { has_children: catalog.has_children(entry.name.as_str()), ..entry }).collect())
    }

    /// Whether there is a mailbox of this name. From memory.
    pub fn is_mailbox(&self, name: &MailboxName) -> bool {
        self.catalog.read().mailboxes.contains_key(name)
    }

    /// Whether a mailbox is called so, or lies below. From memory.
    pub fn has_level(&self, name: &str) -> bool {
        let catalog = self.catalog.read();
        catalog.mailboxes.contains_key(name) || catalog.has_children(name)
    }

    /// Makes a mailbox and its missing parents. Blocking, durable.
    pub fn create(&self, name: &MailboxName, options: CreateOptions) -> Result<UidValidity, StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        name.check_new()?;
        self.store.paths.layout.folder(name)?;
        self.ensure_free(name)?;
        self.ensure_room(self.missing_parents(name).len() + 1)?;
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
            (catalog.mailboxes.get(name).cloned(), catalog.has_children(name.as_str()))
        };
        let Some(known) = known else {
            return Err(match has_children {
                true => StorageError::HasChildren(name.clone()),
                false => StorageError::NoMailbox(name.clone()),
            });
        };
        let rename = || self.remove_folder(&known.folder);
        let slots = self.slots([known.id].into_iter());
        let opened: Vec<_> = slots.iter().map(|slot| slot.lock()).collect();
        match opened.iter().find_map(|opened| opened.as_ref()) {
            Some((mailbox, _)) => mailbox.retire(rename)?,
            None => rename()?,
        }
        self.catalog.write().mailboxes.remove(name);
        self.store.quota.mailbox_is_gone(known.id);
        self.forget_mailbox(known.id);
        drop(opened);
        self.forget_rows(known.id)?;
        self.shared_mailboxes_changed(&[known.id], true)?;
        self.list_changed();
        self.store.acknowledge(())
    }

    /// Renames a mailbox with its children; INBOX moves its messages instead (RFC 9051 §6.3.6). Blocking, durable.
    pub fn rename(self: &Arc<Self>, from: &MailboxName, to: &MailboxName) -> Result<(), StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        to.check_new()?;
        self.store.paths.layout.folder(to)?;
        self.ensure_free(to)?;
        if to == from || to.is_below(from) {
            return Err(StorageError::NotAllowed("a mailbox can't be moved below itself"));
        }
        self.ensure_room(self.missing_parents(to).len() + usize::from(from.is_inbox()))?;
        if from.is_inbox() {
            self.create_parents(to)?;
            self.make(to, None)?;
            self.list_changed();
            let (inbox, target) = (self.mailbox(from)?, self.mailbox(to)?);
            let uids = inbox.read().uids().to_vec();
            inbox.move_to(&uids, &target)?;
            self.copy_annotations(from, to)?;
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
        let ids: Vec<MailboxId> = moves.iter().map(|(.., known)| known.id).collect();
        let renamed = self.create_parents(to).and_then(|()| match self.store.paths.layout {
            Layout::MaildirPlusPlus => moves.into_iter().try_for_each(|(old, new, known)| {
                let (source, target) = (known.folder.clone(), Layout::MaildirPlusPlus.folder(&new)?);
                self.move_folder(&source, &target, vec![(old, new, known)])
            }),
            // The folders below move along.
            Layout::Fs => self.move_folder(&Layout::Fs.folder(from)?, &Layout::Fs.folder(to)?, moves),
        });
        // Also of those that were made or renamed before one failed.
        let told = self.shared_mailboxes_changed(&ids, false);
        self.list_changed();
        renamed.and(told)?;
        self.store.acknowledge(())
    }

    /// Subscribes or unsubscribes; unsubscribing an unknown name is fine. Blocking, durable.
    pub fn set_subscribed(&self, name: &MailboxName, subscribed: bool) -> Result<(), StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        let mut names = self.catalog.read().subscriptions.clone();
        let changed = if subscribed { names.insert(name.clone()) } else { names.remove(name) };
        if changed {
            let file = print_subscriptions(&names);
            // Of mailboxes there may yet be, or were: a client that goes on subscribing has no more than what is read again.
            let most = self.store.settings.mailboxes_max.saturating_mul(2);
            let limits = [
                ("the number of subscriptions", names.len(), most),
                ("the size of all subscriptions together", file.len(), SUBSCRIPTIONS_BYTES_MAX),
            ];
            if let Some((what, _, limit)) = limits.into_iter().find(|(_, is, most)| subscribed && is > most) {
                return Err(StorageError::Limit { what, limit: u64::try_from(limit).unwrap_or(u64::MAX) });
            }
            self.replace_file(&self.store.paths.maildir, SUBSCRIPTIONS_FILE, file.as_bytes())?;
            self.catalog.write().subscriptions = names;
            self.list_changed();
        }
        self.store.acknowledge(())
    }

    fn list_changed(&self) {
        self.list_changes.send_modify(|changes| *changes += 1);
        self.store.note_activity();
    }
    fn ensure_free(&self, name: &MailboxName) -> Result<(), StorageError> {
        let catalog = self.catalog.read();
        if name.is_inbox() || catalog.mailboxes.contains_key(name) {
            return Err(StorageError::MailboxExists(name.clone()));
        }
        Ok(())
    }
    /// Whether so many more mailboxes may be made.
    fn ensure_room(&self, more: usize) -> Result<(), StorageError> {
        let limit = self.store.settings.mailboxes_max;
        if more > 0 && self.catalog.read().mailboxes.len() + more > limit {
            return Err(StorageError::Limit { what: "the number of mailboxes", limit: u64::try_from(limit).unwrap_or(u64::MAX) });
        }
        Ok(())
    }
    /// Levels above that are no mailboxes yet, topmost last.
    fn missing_parents(&self, name: &MailboxName) -> Vec<MailboxName> {
        let mut missing = Vec::new();
        let mut above = name.parent();
        while let Some(parent) = above {
            if !parent.is_inbox() && !self.catalog.read().mailboxes.contains_key(&parent) {
                missing.push(parent.clone());
            }
            above = parent.parent();
        }
        missing
    }
    fn create_parents(&self, name: &MailboxName) -> Result<(), StorageError> {
        for parent in self.missing_parents(name).into_iter().rev() {
            self.make(&parent, None)?;
        }
        Ok(())
    }

    /// Makes one mailbox: under a name that no listing shows, then in its place with one rename.
    fn make(&self, name: &MailboxName, special_use: Option<SpecialUse>) -> Result<UidValidity, StorageError> {
        let maildir = &self.store.paths.maildir;
        let folder = self.store.paths.layout.folder(name)?;
        let marks = Marks::new(self.next_validity()?);
        let scratch = maildir.join(format!("{CREATING_PREFIX}{}", self.store.scratch()));
        let files: Vec<String> = self.folder_marks().chain([marks.print()]).chain(special_use.map(special_use_file)).collect();
        self.place_folder(name, &folder, &scratch, &files)?;
        let above = maildir.join(&folder);
        let above = above.parent().unwrap_or(maildir);
        self.store.filesystem.sync_folder(above).map_err(self.store.io("can't sync", above))?;
        self.record(name, folder, marks, special_use, ScanDue::No, 0)?;
        self.inherit_acl(name)?;
        Ok(marks.uid_validity)
    }
    /// Writes a small file into a mailbox folder: readers see the old content or the new.
    pub(crate) fn replace_file(&self, folder: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
        // The Maildir has a `tmp` where INBOX is.
        let scratch = match folder == self.store.paths.maildir && folder != self.store.paths.inbox() {
            true => folder.join(format!("{WRITING_PREFIX}{}", self.store.scratch())),
            false => folder.join("tmp").join(self.store.scratch()),
        };
        self.store.replace_small(&folder.join(name), &scratch, content)
    }
    /// `cur`, `new`, `tmp` and empty files.
    fn fill_folder(&self, folder: &Path, files: &[String]) -> io::Result<()> {
        let filesystem = self.store.filesystem.as_ref();
        for name in ["cur", "new", "tmp"] {
            filesystem.create_folder(&folder.join(name))?;
        }
        self.make_files(folder, files)
    }
    /// Empty files: they are durable as soon as the folder is.
    fn make_files(&self, folder: &Path, files: &[String]) -> io::Result<()> {
        let filesystem = self.store.filesystem.as_ref();
        for file in files {
            match filesystem.create(&folder.join(file)) {
                Ok(file) => drop(file),
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
    ) -> Result<MailboxId, StorageError> {
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
        self.untold.lock().remove(&id);
        let mut catalog = self.catalog.write();
        catalog.highest_validity = catalog.highest_validity.max(marks.uid_validity.get());
        catalog.mailboxes.insert(name.clone(), Known { id, folder, special_use });
        drop(catalog);
        self.store.quota.mailbox_is_there(id, name, Usage::default());
        if scan_due != ScanDue::No {
            self.uncounted.lock().push(id);
        }
        Ok(id)
    }
    /// A UIDVALIDITY that no mailbox of the user ever had. Durable before it is used.
    fn next_validity(&self) -> Result<UidValidity, StorageError> {
        let next = self.next_validities(1)?.pop();
        next.ok_or(StorageError::Limit { what: "UIDVALIDITY", limit: u32::MAX.into() })
    }
    /// As many that no mailbox of the user ever had: from the time on, or from one more than the highest.
    fn next_validities(&self, count: usize) -> Result<Vec<UidValidity>, StorageError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let filesystem = self.store.filesystem.as_ref();
        let maildir = &self.store.paths.maildir;
        let (highest, on_disk) = {
            let catalog = self.catalog.read();
            (catalog.highest_validity, catalog.validity_on_disk)
        };
        let now = u32::try_from(unix_micros().div_euclid(1_000_000)).unwrap_or(1);
        let out_of_numbers = || StorageError::Limit { what: "UIDVALIDITY", limit: u32::MAX.into() };
        let first = now.max(highest.saturating_add(1));
        let last = u32::try_from(count - 1).ok().and_then(|more| first.checked_add(more)).ok_or_else(out_of_numbers)?;
        let path = maildir.join(validity_file(last));
        let made = match on_disk {
            Some(before) => match filesystem.rename(&maildir.join(validity_file(before)), &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => filesystem.create(&path).and_then(|file| file.finish()),
                result => result,
            },
            None => filesystem.create(&path).and_then(|file| file.finish()),
        };
        made.map_err(self.store.io("can't make", path))?;
        let mut catalog = self.catalog.write();
        catalog.highest_validity = last;
        catalog.validity_on_disk = Some(last);
        Ok((first..=last).filter_map(UidValidity::new).collect())
    }
}
