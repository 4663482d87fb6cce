//! Compares the folder with the index and carries out what [`crate::maildir::scan`] says.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    io,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use index::{FlagSet, ScanDue, Uid};
use parking_lot::MutexGuard;

use super::{
    Mailbox,
    listed::{Names, RENAMED_MAX, by_name},
    render::render,
    state::{NewMessage, Pending, Progress, ROWS_AT_ONCE, Rendering, State},
};
use crate::{
    StorageError, Usage,
    filesystem::{Attributes, Listed},
    maildir::{
        filename::{Base, FileName, KEYWORD_LETTERS, identity},
        scan::{Comparison, Found, Known, Plan, Sightings, assign, plan},
        uidlist::UidList,
    },
    parallel,
    store::unix_micros,
};

/// A folder that changed less than this before it was listed may change again without another time stamp: it is listed again next time.
const STAMP_GRAIN_NANOSECONDS: i64 = 2_000_000_000;

/// How thoroughly to look at the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Only if its time stamps changed.
    WhenChanged,
    /// In any case.
    Thoroughly,
    /// When the mailbox is closed: only if its time stamps changed and say all, so that whoever opens it next need not.
    Leaving,
    /// For the first time after [`ScanDue`] was recorded; before any client sees the mailbox.
    Opening(ScanDue),
}

impl Mailbox {
    /// Whether `rescan_interval` has passed.
    pub(crate) fn look_is_due(&self) -> bool {
        let state = self.state.lock();
        state.look_again || self.store.now().saturating_sub(state.looked_at) >= self.store.settings.rescan_interval
    }
    /// Looks at the folder.
    pub(crate) fn look(&self, look: Look) -> Result<(), StorageError> {
        let _disk = self.disk.lock();
        let folder = self.folder();
        self.look_below(&folder, look)
    }
    /// As [`Mailbox::look`], for those who hold the locks.
    pub(super) fn look_below(&self, folder: &Path, look: Look) -> Result<(), StorageError> {
        self.ensure_there()?;
        let filesystem = self.store.filesystem.as_ref();
        let stamp = |name: &str| {
            let path = folder.join(name);
            filesystem
                .attributes(&path)
                .map(|attributes| attributes.changed.max(attributes.modified))
                .map_err(self.store.io("can't look at", path))
        };
        let stamps = [stamp("cur")?, stamp("new")?];
        let now = unix_micros().saturating_mul(1_000);
        let settled = |stamp: i64| if now.saturating_sub(stamp) < STAMP_GRAIN_NANOSECONDS { 0 } else { stamp };
        {
            let mut state = self.state.lock();
            state.looked_at = self.store.now();
            let same = stamps == [state.record.cur_seen, state.record.new_seen];
            if matches!(look, Look::WhenChanged | Look::Leaving) && same && !state.look_again {
                return Ok(());
            }
            if look == Look::Leaving && stamps.iter().any(|stamp| settled(*stamp) == 0) {
                return Ok(());
            }
        }
        // A message that comes while the folder is listed may be missing from the listing: it is not gone.
        let listed_from = self.columns.read().uid_next();
        let mut sightings = self.compare(folder, look)?;
        if !sightings.missing.is_empty() {
            sightings = sightings.and_again(self.compare(folder, look)?);
        }
        match look {
            Look::Opening(_) => drop(self.store.lease.confirm(self.store.settings.suspended_wait)?),
            Look::WhenChanged | Look::Thoroughly | Look::Leaving if !self.store.is_live() => {
                self.state.lock().look_again = true;
                return Ok(());
            }
            Look::WhenChanged | Look::Thoroughly | Look::Leaving => {}
        }
        let mut plan = self.plan(sightings, listed_from);
        let mut new = std::mem::take(&mut plan.new);
        let mut names = Names::default();
        let mut list = None;
        if matches!(look, Look::Opening(ScanDue::Takeover | ScanDue::Rebuild)) && !new.is_empty() {
            let lists = self.state.lock().lists.clone();
            list = self.list_beside(folder, &lists)?;
            let mut state = self.state.lock();
            match &list {
                Some((own, _)) if !lists.contains(own) => {
                    state.record.adopted_below = own.uid_next;
                    state.lists.push(*own);
                }
                Some(_) => {}
                // One of another UIDVALIDITY is nobody's.
                None => state.lists.clear(),
            }
            drop(state);
            names = list.as_ref().map(|(_, list)| by_name(list)).unwrap_or_default();
            Self::apply_list(&names, &mut new);
            self.apply_further(folder, &mut new)?;
        }
        let damaged = list.clone().filter(|(_, list)| list.bad_lines > 0);
        let letters = new.iter().map(|found| found.flags).chain(plan.renamed.iter().map(|(.., flags)| *flags));
        if let Some(highest) = letters.flat_map(|flags| flags.keywords().last()).max() {
            self.ensure_keyword_letters(folder, highest.position())?;
        }
        let uidls = if look == Look::Opening(ScanDue::Rebuild) { uidls(list.as_ref().map(|(_, list)| list)) } else { Vec::new() };
        let mut state = match look {
            Look::Opening(ScanDue::Rebuild) if is_large(&new) => self.admit_many(folder, &plan, new, list, &names)?,
            Look::Opening(due) => self.admit_at_opening(folder, &plan, new, due)?,
            Look::WhenChanged | Look::Thoroughly | Look::Leaving => self.admit(folder, &plan, new)?,
        };
        state.record.cur_seen = settled(stamps[0]);
        state.record.new_seen = settled(stamps[1]);
        state.look_again = plan.unsure;
        let (highest, uidls) = {
            let columns = self.columns.read();
            let there = uidls.into_iter().filter(|(uid, _)| columns.position(*uid).is_some());
            (columns.highest_modseq(), there.collect::<Vec<_>>())
        };
        let rows = if state.deferred { 0 } else { usize::MAX };
        let adopted_below = matches!(look, Look::Opening(ScanDue::Takeover | ScanDue::Rebuild)).then_some(state.record.adopted_below);
        self.commit_some(&mut state, highest, rows, |change| {
            adopted_below.iter().try_for_each(|below| change.set_adopted(self.id, *below))?;
            uidls.iter().try_for_each(|(uid, uidl)| change.insert_uidl(self.id, *uid, uidl))
        })?;
        if let (Some(below), true) = (adopted_below, !state.lists.is_empty()) {
            let lists = std::mem::take(&mut state.lists);
            drop(state);
            let own = lists.iter().filter(|list| list.uid_next == below).max().copied();
            own.iter().for_each(|own| self.remove_other_lists(folder, &lists, *own));
        } else {
            drop(state);
        }
        // What was read may have been replaced above.
        if let Some(damaged) = damaged.filter(|(own, _)| adopted_below == Some(own.uid_next)) {
            self.replace_list(folder, &[damaged.0], damaged, &HashMap::new())?;
        }
        Ok(())
    }

    /// Files whose names say a UID have the keywords without letters that the file beside the mail says.
    fn apply_further(&self, folder: &Path, new: &mut [Found]) -> Result<(), StorageError> {
        if self.keywords.read().len() <= usize::from(KEYWORD_LETTERS) {
            return Ok(());
        }
        let further = self.read_further(folder)?;
        for found in new {
            if let Some(flags) = found.uid.and_then(|uid| further.messages.get(&uid.get())) {
                found.flags = found.flags.union(*flags);
            }
        }
        Ok(())
    }

    /// Calls `visit` with every `cur/…` and `new/…`, as the server says now, and the attributes of those whose names (without their folder) are `wanted`.
    pub(super) fn each_file(
        &self,
        folder: &Path,
        wanted: &dyn Fn(&str) -> bool,
        visit: &mut dyn FnMut(&str, Option<Attributes>),
    ) -> Result<(), StorageError> {
        let mut file = String::new();
        for sub in ["cur/", "new/"] {
            let path = folder.join(sub);
            let listed = self.store.filesystem.each_entry(&path, wanted, &mut |Listed { name, is_folder, attributes }| {
                if name.starts_with('.') || is_folder == Some(true) {
                    return;
                }
                sub.clone_into(&mut file);
                file.push_str(name);
                visit(&file, attributes);
            });
            listed.map_err(self.store.io("can't list", path))?;
        }
        Ok(())
    }

    /// Lists the folder beside what is known.
    fn compare(&self, folder: &Path, look: Look) -> Result<Sightings, StorageError> {
        let mut comparison = {
            let columns = self.columns.read();
            Comparison::with(columns.len(), |visit| columns.each_file(visit))
        };
        // Of the first files whose names do not say everything: all of them where they are few.
        let asked = Cell::new(0);
        let wanted = |name: &str| {
            look == Look::Opening(ScanDue::Rebuild)
                && !says_everything(&FileName::parse(name).base)
                && asked.replace(asked.get() + 1) < RENAMED_MAX
        };
        self.each_file(folder, &wanted, &mut |file, attributes| comparison.see(file, attributes))?;
        Ok(comparison.finish())
    }
    /// What is to be done; `listed_from`: the UIDs from here on are newer than the listing.
    fn plan(&self, sightings: Sightings, listed_from: u32) -> Plan {
        let state = self.state.lock();
        let columns = self.columns.read();
        let known = |uid: Uid| {
            columns.position(uid).map(|position| Known {
                file: columns.file(position),
                flags: columns.flags(position),
                write_back_due: state.write_back.contains_key(&uid.get()),
            })
        };
        let since = columns.uids().partition_point(|uid| uid.get() < listed_from);
        let came: HashSet<String> = (since..columns.len()).map(|position| identity(&columns.file(position)).to_owned()).collect();
        let removing: Vec<String> =
            state.removals.iter().map(|removal| removal.file.clone()).chain(state.removed.iter().cloned()).collect();
        let mut plan = plan(sightings, known, &came, &removing);
        plan.gone.retain(|uid| uid.get() < listed_from);
        // Our own messages on their way in.
        let epoch = self.store.lease.epoch();
        if !state.in_flight.is_empty() {
            plan.new.retain(|found| {
                let base = Base::parse(identity(&found.file));
                let ours = base.own().is_some_and(|own| own.epoch == epoch);
                !(ours && base.uid.is_some_and(|uid| state.in_flight.contains_key(&uid.get())))
            });
        }
        plan
    }

    /// Finds out what names do not say; `None`: the file is gone again.
    fn inspect(&self, folder: &Path, new: &[Found], trust_names: bool) -> Result<Vec<Option<NewMessage>>, StorageError> {
        let inspected =
            parallel::for_each(self.store.settings.parallel_operations, new, |found| match self.inspect_one(folder, found, trust_names) {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.store.io("can't read", folder.join(&found.file))(error)),
            });
        inspected.into_iter().collect()
    }

    fn inspect_one(&self, folder: &Path, found: &Found, trust_name: bool) -> io::Result<NewMessage> {
        let FileName { base, flags, .. } = found.name();
        let mut message = NewMessage {
            flags,
            size: base.size.unwrap_or_default(),
            internal_date: 0,
            save_date: 0,
            file: found.file.clone(),
            pending: Pending { disk_size: base.disk_size.unwrap_or_default(), rendering: Rendering::Later },
            write_back_due: true,
        };
        let path = folder.join(&found.file);
        match base.own() {
            Some(own) if trust_name && says_everything(&base) => {
                message.internal_date = own.internal_date;
                message.save_date = own.moment.div_euclid(1_000_000);
                return Ok(message);
            }
            own => {
                let attributes = found.attributes.map_or_else(|| self.store.filesystem.attributes(&path), Ok)?;
                message.pending.disk_size = attributes.size;
                message.internal_date = own.map_or(attributes.modified.div_euclid(1_000_000_000), |own| own.internal_date);
                message.save_date = own.map_or(attributes.changed, |own| own.moment.saturating_mul(1_000)).div_euclid(1_000_000_000);
            }
        }
        if base.size.is_none() {
            let raw = self.read_foreign(&path)?;
            message.size = u64::try_from(raw.len()).unwrap_or(u64::MAX);
            message.pending.rendering = Rendering::Ready(Arc::new(render(&raw, &self.store.asked())));
        }
        Ok(message)
    }

    /// Files renamed or removed by other programs.
    pub(super) fn apply(&self, state: &mut State, folder: &Path, plan: &Plan) -> Result<(), StorageError> {
        if !plan.removing.is_empty() {
            let now: HashMap<&str, &String> = plan.removing.iter().map(|file| (identity(file), file)).collect();
            for removal in &mut state.removals {
                if let Some(file) = now.get(identity(&removal.file)) {
                    removal.file.clone_from(file);
                }
            }
            self.remove_again(state, &plan.removing)?;
        }
        if plan.renamed.is_empty() && plan.gone.is_empty() {
            return Ok(());
        }
        let modseq = self.next_modseq(state, folder)?;
        let changed: Vec<(Uid, FlagSet)> = {
            let columns = self.columns.read();
            // A client's change since the folder was listed stays, and goes into the name.
            let theirs = plan.renamed.iter().filter(|(uid, ..)| !state.write_back.contains_key(&uid.get()));
            let differs =
                |(uid, _, flags): &(Uid, String, FlagSet)| columns.get(*uid).filter(|row| row.flags != *flags).map(|row| (row.uid, *flags));
            theirs.filter_map(differs).collect()
        };
        self.commit(state, modseq, |change| {
            plan.renamed.iter().try_for_each(|(uid, file, _)| change.set_file(self.id, *uid, file))?;
            changed.iter().try_for_each(|(uid, flags)| change.set_flags(self.id, *uid, *flags, modseq))?;
            plan.gone.iter().try_for_each(|uid| change.expunge(self.id, *uid, modseq))
        })?;
        let mut columns = self.columns.write();
        for (uid, file, _) in &plan.renamed {
            columns.set_file(*uid, file);
        }
        for (uid, flags) in &changed {
            columns.set_flags(*uid, *flags, modseq);
        }
        drop(columns);
        self.store.quota.gone(self.id, self.usage_of(&plan.gone));
        self.forget(state, &plan.gone, modseq);
        Ok(())
    }

    /// Shows new files, each under the next UID: a UID in a strange file's name would be out of order.
    fn admit(&self, folder: &Path, plan: &Plan, new: Vec<Found>) -> Result<MutexGuard<'_, State>, StorageError> {
        let mut inspected = self.inspect(folder, &new, false)?;
        let mut state = self.state.lock();
        self.apply(&mut state, folder, plan)?;
        inspected.retain(Option::is_some);
        if !inspected.is_empty() {
            let first = self.allocate(&mut state, folder, inspected.len())?;
            let messages = inspected.into_iter().flatten();
            self.settle_found(&mut state, (first..).zip(messages.map(Progress::Done)).collect());
        }
        Ok(state)
    }

    /// Shows messages that nobody could refuse.
    fn settle_found(&self, state: &mut State, settled: Vec<(u32, Progress)>) {
        let sizes =
            settled.iter().filter_map(|(_, progress)| if let Progress::Done(message) = progress { Some(message.size) } else { None });
        let found = Usage::of(sizes);
        self.settle(state, settled);
        self.store.quota.found(self.id, found);
    }

    /// Shows new files before anybody sees the mailbox: names may say what the index lacks.
    fn admit_at_opening(&self, folder: &Path, plan: &Plan, new: Vec<Found>, due: ScanDue) -> Result<MutexGuard<'_, State>, StorageError> {
        let mut state = self.state.lock();
        self.apply(&mut state, folder, plan)?;
        let acceptable: Range<u32> = match due {
            ScanDue::Takeover | ScanDue::Rebuild => state.uid_next..state.told_below,
            ScanDue::Settle | ScanDue::No => 0..0,
        };
        if !acceptable.is_empty() {
            state.uid_next = acceptable.end;
        }
        let out_of_uids = StorageError::Limit { what: "the number of UIDs given in this mailbox", limit: u32::MAX.into() };
        let assigned = assign(new, acceptable, state.uid_next).ok_or(out_of_uids)?;
        let fresh = assigned.iter().filter(|(uid, _)| *uid >= state.uid_next).count();
        if fresh > 0 {
            self.allocate(&mut state, folder, fresh)?;
        }
        let (uids, new): (Vec<u32>, Vec<Found>) = assigned.into_iter().unzip();
        // Even without a fresh UID the messages take a MODSEQ.
        self.next_modseq(&state, folder)?;
        drop(state);
        let inspected = self.inspect(folder, &new, true)?;
        let mut state = self.state.lock();
        let adopted_below = state.record.adopted_below;
        let settled = uids.into_iter().zip(&new).zip(inspected).map(|((uid, found), message)| match message {
            Some(message) => {
                (uid, Progress::Done(NewMessage { write_back_due: !is_named(uid, found, &message, adopted_below), ..message }))
            }
            None => (uid, Progress::Failed),
        });
        self.settle_found(&mut state, settled.collect());
        match due {
            ScanDue::Takeover => state.record.scan_due = ScanDue::Settle,
            ScanDue::Rebuild => state.record.scan_due = self.store.due_after_rebuild(),
            ScanDue::Settle | ScanDue::No => {}
        }
        if due == ScanDue::Rebuild {
            // What was expunged before is not known: absent UIDs count.
            state.record.expunged_floor = self.columns.read().highest_modseq().get();
            // What is \Recent is not in names: rather nothing than everything.
            self.recent_from.store(self.columns.read().uid_next(), Ordering::SeqCst);
        }
        Ok(state)
    }
}

/// Whether so many files were found that nobody is to wait until each is looked at, or in the index.
fn is_large(new: &[Found]) -> bool {
    new.len() > ROWS_AT_ONCE || new.iter().any(|found| found.attributes.is_none() && !says_everything(&found.name().base))
}
/// POP3 UIDLs that an earlier server gave.
fn uidls(list: Option<&UidList>) -> Vec<(Uid, String)> {
    let messages = list.into_iter().flat_map(|list| &list.messages);
    messages.filter_map(|(uid, listed)| Some((*uid, listed.uidl.clone()?))).collect()
}

/// Whether the file itself need not be asked for its dates and sizes.
pub(super) fn says_everything(base: &Base) -> bool {
    base.own().is_some() && says_sizes(base)
}
pub(super) fn says_sizes(base: &Base) -> bool {
    base.size.is_some() && base.disk_size.is_some()
}

/// Whether a file's name says already all that a name is to say.
fn is_named(uid: u32, found: &Found, message: &NewMessage, adopted_below: u32) -> bool {
    let base = found.name().base;
    let complete = says_sizes(&base) && message.file.starts_with("cur/");
    let named = FileName::parse(message.file.rsplit_once('/').map_or("", |(_, name)| name));
    let settled = base.own().is_some() || (uid < adopted_below && named.flags == message.flags);
    complete && settled && base.uid.map(Uid::get) == Some(uid)
}
