//! The list of UIDs beside the mail: which UIDs files have whose names don't say so. It came from an earlier server, or was made here for the files of
//! other programs: one file instead of a rename for each of them.
//!
//! Invariants, each with the test that guards it:
//! - many files of other programs get no new names, and keep their UIDs without the index (`many_files_of_another_program_keep_their_names`)
//! - a damaged list is kept aside, and a sound one takes its place (`a_damaged_list_is_kept_aside_and_a_sound_one_takes_its_place`)
//! - whatever fails or dies while a list is made, no UID is two messages (`whatever_fails_while_many_files_are_taken_over_no_uid_means_two_messages`)

use std::{collections::HashMap, io, path::Path, sync::atomic::Ordering};

use index::{FlagSet, Uid};
use parking_lot::MutexGuard;

use super::{
    Mailbox,
    scan::{says_everything, says_sizes},
    state::{Pending, Progress, Rendering, State},
};
use crate::{
    Row, StorageError, Usage,
    columns::UNKNOWN,
    filesystem::{read_small, remove_quietly},
    maildir::{
        filename::{FileName, identity},
        scan::{Found, Plan, assign},
        uidlist::{Listed, OwnList, UIDLIST_BYTES_MAX, UidList},
    },
};

/// More files of other programs than this at once go into the list; so few are renamed as soon as a list is written.
pub(super) const RENAMED_MAX: usize = 64;

/// How often a list is looked for that was there a moment ago.
const LOOKED_FOR_MAX: usize = 3;

/// What a list says of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByName {
    pub uid: Uid,
    keywords: FlagSet,
    /// Bytes of the file, and with CRLF line ends.
    pub sizes: (Option<u64>, Option<u64>),
}

/// The list of a mailbox, by the names of its files up to the colon.
pub(super) type Names = HashMap<String, ByName>;

/// By name.
pub(super) fn by_name(list: &UidList) -> Names {
    let listed = list.messages.iter();
    let by_name = |(uid, listed): (&Uid, &Listed)| {
        let sizes = (listed.disk_size, listed.size);
        (listed.name.clone(), ByName { uid: *uid, keywords: listed.keywords, sizes })
    };
    listed.map(by_name).collect()
}

/// Whether a list can say which UID the file has: its name does not, and is one line.
pub(super) fn can_be_listed(file: &str) -> bool {
    let name = identity(file);
    !name.is_empty() && !name.contains(char::is_control) && FileName::parse(name).base.uid.is_none()
}

impl Mailbox {
    /// The list that counts of `lists`, which lie in the folder.
    pub(super) fn list_beside(&self, folder: &Path, lists: &[OwnList]) -> Result<Option<(OwnList, UidList)>, StorageError> {
        let Some(own) = lists.iter().max() else {
            if self.adopted_below().is_some() {
                tracing::error!(folder = %folder.display(), "the list of UIDs is gone: messages with names of other programs get new ones; restore it from a backup");
            }
            return Ok(None);
        };
        let (own, file) = self.read_list(folder, *own)?;
        match UidList::parse_own(own, &file) {
            Ok(list) if list.uid_validity == self.uid_validity() => {
                if let Some(damage) = list.damage() {
                    self.keep_aside(folder, own, &file, &damage)?;
                }
                self.list_has_guid(list.guid.as_deref());
                Ok(Some((own, list)))
            }
            Ok(_) => Ok(None),
            Err(why) => {
                self.keep_aside(folder, own, &file, &why)?;
                // One without a line that can be read.
                Ok(Some((own, UidList { bad_lines: 1, ..UidList::new(self.uid_validity()) })))
            }
        }
    }
    /// A damaged list is there for whoever repairs it, under another name, before a sound one takes its place.
    fn keep_aside(&self, folder: &Path, own: OwnList, file: &[u8], damage: &str) -> Result<(), StorageError> {
        let (path, aside) = (folder.join(own.print()), folder.join(own.print_aside()));
        let filesystem = self.store.filesystem.as_ref();
        if filesystem.attributes(&aside).is_err() {
            let scratch = folder.join("tmp").join(self.store.scratch());
            self.store.replace_small(&aside, &scratch, file)?;
        }
        tracing::error!(
            list = %path.display(), damage, kept = %aside.display(),
            "the list of UIDs is damaged: messages of its damaged lines get new UIDs; to have theirs again, restore list and index from a backup"
        );
        Ok(())
    }
    /// Reads a list. Whoever replaced it since the folder was listed wrote another one: what can't be found is no reason to give new UIDs.
    fn read_list(&self, folder: &Path, mut own: OwnList) -> Result<(OwnList, Vec<u8>), StorageError> {
        for _ in 0..LOOKED_FOR_MAX {
            let path = folder.join(own.print());
            let file = read_small(self.store.filesystem.as_ref(), &path, UIDLIST_BYTES_MAX).map_err(self.store.io("can't read", &path))?;
            if let Some(file) = file {
                return Ok((own, file));
            }
            own = self.lists(folder)?.into_iter().max().unwrap_or(own);
        }
        Err(self.store.io("can't read", folder.join(own.print()))(io::ErrorKind::NotFound.into()))
    }
    /// The lists in the folder now.
    pub(super) fn lists(&self, folder: &Path) -> Result<Vec<OwnList>, StorageError> {
        let entries = self.store.filesystem.list(folder).map_err(self.store.io("can't list", folder))?;
        Ok(OwnList::all(&entries).collect())
    }

    /// Files with the names that a list knows have the UIDs that it says.
    pub(super) fn apply_list(names: &Names, new: &mut [Found]) {
        for found in new {
            let Some(listed) = names.get(identity(&found.file)) else { continue };
            let base = found.name().base;
            found.uid = Some(listed.uid);
            // A name that stays says itself which keywords are left, once it has any.
            if !says_sizes(&base) || found.flags.keywords().next().is_none() {
                found.flags = found.flags.union(listed.keywords);
            }
        }
    }

    /// Shows very many files before anybody sees the mailbox, by their names alone: what names don't say is learnt later, and rows follow. So names and
    /// the list must say every UID that is shown.
    pub(super) fn admit_many(
        &self,
        folder: &Path,
        plan: &Plan,
        new: Vec<Found>,
        list: Option<(OwnList, UidList)>,
        names: &Names,
    ) -> Result<MutexGuard<'_, State>, StorageError> {
        let mut state = self.state.lock();
        self.apply(&mut state, folder, plan)?;
        let out_of_uids = || StorageError::Limit { what: "the number of UIDs given in this mailbox", limit: u32::MAX.into() };
        let acceptable = state.uid_next..state.told_below;
        state.uid_next = acceptable.end.max(state.uid_next);
        let assigned = assign(new, acceptable, state.uid_next).ok_or_else(out_of_uids)?;
        let last = assigned.last().map_or(0, |(uid, _)| *uid);
        let end = last.checked_add(1).ok_or_else(out_of_uids)?.max(state.uid_next);
        self.reserve(&state, folder, end, 0)?;
        state.uid_next = end;
        let modseq = self.next_modseq(&state, folder)?;

        let known_sizes = |found: &Found| names.get(identity(&found.file)).map_or((None, None), |listed| listed.sizes);
        // The list may say a UID that another file has by its name.
        let says = |uid: u32, found: &Found| names.get(identity(&found.file)).is_some_and(|listed| listed.uid.get() == uid);
        let unlisted = assigned.iter().any(|(uid, found)| can_be_listed(&found.file) && !says(*uid, found));
        if unlisted {
            let files = assigned.iter().filter(|(_, found)| can_be_listed(&found.file));
            let files = files.filter_map(|(uid, found)| Some((Uid::new(*uid)?, found.file.as_str(), known_sizes(found))));
            let own = self.write_list(folder, list, files, end)?;
            state.record.adopted_below = own.uid_next;
            state.lists.push(own);
        }
        let mut unknown = false;
        let mut rows_can_wait = true;
        let mut usage = Usage::default();
        let now = self.store.now();
        let mut columns = self.columns.write();
        columns.reserve(assigned.len());
        for (uid, found) in assigned {
            let Some(uid) = Uid::new(uid) else { continue };
            let FileName { base, flags: flags_in_name, .. } = FileName::of(&found.file);
            let (disk_size, listed_size) = known_sizes(&found);
            let size = base.size.or(listed_size);
            let (internal_date, save_date) = match base.own() {
                Some(own) if says_everything(&base) => (own.internal_date, own.moment.div_euclid(1_000_000)),
                _ => {
                    unknown = true;
                    (UNKNOWN, UNKNOWN)
                }
            };
            let is_listed = can_be_listed(&found.file);
            let is_said = is_listed || base.uid == Some(uid);
            rows_can_wait &= is_said;
            let is_complete = is_listed || (is_said && says_everything(&base) && found.file.starts_with("cur/"));
            if !is_complete || flags_in_name != found.flags {
                state.write_back.insert(uid.get(), now);
            }
            let size = size.unwrap_or(0);
            usage = usage.plus(Usage { bytes: size, messages: 1 });
            let disk_size = base.disk_size.or(disk_size).unwrap_or(size);
            state.pending.insert(uid.get(), Pending { disk_size, rendering: Rendering::Later });
            columns.push(Row { uid, flags: found.flags, modseq, size, internal_date, save_date }, &found.file);
        }
        columns.raise(end, modseq);
        let (highest, uid_next) = (columns.highest_modseq(), columns.uid_next());
        drop(columns);
        self.changes.send_replace(highest.get());
        self.store.quota.found(self.id, usage);
        self.facts.set(unknown);
        // What was expunged is not known, nor what is \\Recent: absent UIDs count, and rather nothing than everything is recent.
        state.record.expunged_floor = highest.get();
        self.recent_from.store(uid_next, Ordering::SeqCst);
        state.record.scan_due = self.store.due_after_rebuild();
        state.deferred = rows_can_wait;
        Ok(state)
    }

    /// Writes a list of these files and all that the list before says. Durable when it returns. Every message with a UID below `uid_next` whose name does
    /// not say it is to be among them.
    pub(super) fn write_list<'a>(
        &self,
        folder: &Path,
        before: Option<(OwnList, UidList)>,
        files: impl Iterator<Item = (Uid, &'a str, (Option<u64>, Option<u64>))>,
        uid_next: u32,
    ) -> Result<OwnList, StorageError> {
        self.ensure_ours()?;
        let epoch = self.store.lease.epoch();
        let (epoch, mut list) = match before {
            // Epochs may have begun anew, with the leases: lists go on.
            Some((own, list)) => (epoch.max(own.epoch), list),
            None => (epoch, UidList::new(self.uid_validity())),
        };
        let files: Vec<_> = files.collect();
        let now: HashMap<&str, Uid> = files.iter().map(|(uid, file, _)| (identity(file), *uid)).collect();
        list.messages.retain(|uid, listed| now.get(listed.name.as_str()).is_none_or(|now| now == uid));
        for (uid, file, (disk_size, size)) in files {
            let listed = list.messages.entry(uid).or_default();
            identity(file).clone_into(&mut listed.name);
            (listed.disk_size, listed.size) = (disk_size, size);
        }
        list.uid_next = uid_next;
        let own = OwnList { epoch, uid_next };
        let (path, scratch) = (folder.join(own.print()), folder.join("tmp").join(self.store.scratch()));
        self.store.replace_small(&path, &scratch, list.print(false).as_bytes())?;
        self.list_has_guid(list.guid.as_deref());
        Ok(own)
    }
    /// Whether the user is still ours: who went on may have made a list meanwhile.
    fn ensure_ours(&self) -> Result<(), StorageError> {
        self.store.ensure_not_abandoned()?;
        self.store.lease.confirm(self.store.settings.suspended_wait)?;
        Ok(())
    }
    /// The index knows that `own` is the list by now: the others are not needed.
    pub(super) fn remove_other_lists(&self, folder: &Path, lists: &[OwnList], own: OwnList) {
        if self.ensure_ours().is_err() {
            return;
        }
        for other in lists.iter().filter(|other| **other != own) {
            remove_quietly(self.store.filesystem.as_ref(), &folder.join(other.print()));
        }
    }
    /// Writes another list that says how large the files are: whoever needs the list again need not read them.
    pub(super) fn list_sizes(&self, folder: &Path, disk_sizes: &HashMap<Uid, u64>) -> Result<(), StorageError> {
        let lists = self.lists(folder)?;
        let Some(before) = self.list_beside(folder, &lists)? else { return Ok(()) };
        self.replace_list(folder, &lists, before, disk_sizes)
    }
    /// Writes a sound list from memory where there is a damaged one: no UID is lost.
    pub(crate) fn mend_list(&self) -> Result<(), StorageError> {
        let _disk = self.disk.lock();
        let folder = self.folder();
        let lists = self.lists(&folder)?;
        match self.list_beside(&folder, &lists)? {
            Some(before) if before.1.bad_lines > 0 => self.replace_list(&folder, &lists, before, &HashMap::new()),
            _ => Ok(()),
        }
    }
    /// What the index says of POP3 UIDLs that were in damaged lines.
    fn add_known_uidls(&self, list: &mut UidList) -> Result<(), StorageError> {
        let known = self.store.read(|index| index.uidls(self.id))?;
        let columns = self.columns.read();
        for (uid, uidl) in known.into_iter().filter_map(|(uid, uidl)| Some((Uid::new(uid)?, uidl))) {
            if let Some(file) = columns.file_of(uid).filter(|file| !identity(file).contains(char::is_control)) {
                let name = identity(&file).to_owned();
                list.messages.entry(uid).or_insert(Listed { name, uidl: Some(uidl), ..Listed::default() });
            }
        }
        Ok(())
    }
    /// Writes another list of all messages whose names don't say their UIDs, in the place of `before` and of the others.
    pub(super) fn replace_list(
        &self,
        folder: &Path,
        lists: &[OwnList],
        mut before: (OwnList, UidList),
        disk_sizes: &HashMap<Uid, u64>,
    ) -> Result<(), StorageError> {
        if before.1.bad_lines > 0 {
            self.add_known_uidls(&mut before.1)?;
        }
        let (files, uid_next) = {
            let mut state = self.state.lock();
            if state.uid_next <= before.0.uid_next {
                // No two lists have one name.
                let gap = self.allocate(&mut state, folder, 1)?;
                self.settle(&mut state, [(gap, Progress::Failed)]);
            }
            let columns = self.columns.read();
            let files = columns.rows().enumerate().map(|(position, row)| (row, columns.file(position)));
            let files: Vec<(Row, String)> = files.filter(|(_, file)| can_be_listed(file)).collect();
            (files, state.uid_next)
        };
        let sizes = files.iter().map(|(row, file)| {
            let known = before.1.messages.get(&row.uid).and_then(|listed| listed.disk_size);
            let in_name = FileName::parse(identity(file)).base.disk_size;
            let size = if row.is_known() { Some(row.size) } else { before.1.messages.get(&row.uid).and_then(|listed| listed.size) };
            (row.uid, file.as_str(), (disk_sizes.get(&row.uid).copied().or(known).or(in_name), size))
        });
        let own = self.write_list(folder, Some(before.clone()), sizes, uid_next)?;
        let mut state = self.state.lock();
        self.store.change(|change| change.set_adopted(self.id, own.uid_next))?;
        state.record.adopted_below = own.uid_next;
        drop(state);
        self.remove_other_lists(folder, lists, own);
        Ok(())
    }
}
