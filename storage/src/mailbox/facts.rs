//! Dates and sizes that file names don't say, of many files at once: not known when the mailbox is opened, but before anybody is told.
//!
//! Opening a mailbox that another program filled takes a look at the names alone. Until the files were looked at, the columns and the index say
//! [`crate::columns::UNKNOWN`] for the dates; the holder looks at them in the background, or whoever asks first waits for it ([`Mailbox::learn`]).
//!
//! Invariants, each with the test that guards it:
//! - nobody is told a date or size that is not known yet (`dates_and_sizes_are_learnt_before_anybody_is_told`)
//! - a file that can't be read fails who asks for that message alone (`a_file_that_cannot_be_read_keeps_nobody_from_the_others`)
//! - however many files can't be read, those behind them are (`many_files_that_cannot_be_read_hold_nobody_back`)
//! - what is not known when the holder dies is learnt by the next one (`what_was_not_learnt_before_a_holder_died_is_learnt_later`)

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use index::Uid;
use parking_lot::Mutex;

use super::{
    Mailbox,
    state::{Pending, Rendering},
};
use crate::{
    Columns, StorageError, Usage,
    columns::Learnt,
    filesystem::Attributes,
    maildir::filename::{FileName, identity},
    parallel,
};

/// Listings after which a file that was in none of them is gone: another program may rename it while its folder is listed.
const LISTINGS_MAX: usize = 3;

/// Files read in one go: whoever closes the account, heals its index, or renames the mailbox waits no longer than that.
const READ_AT_ONCE: usize = if cfg!(test) { 50 } else { 2048 };

/// What could not be looked at is tried again after this: its folders are not listed for every command.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Facts {
    due: AtomicBool,
    /// When all that is due was tried in vain.
    tried: Mutex<Option<Duration>>,
    /// Held by who learns them: taken before the locks of the mailbox. Has the sizes on disk that the list does not say yet.
    learning: Mutex<HashMap<Uid, u64>>,
}

impl Facts {
    pub fn set(&self, due: bool) {
        self.due.store(due, Ordering::SeqCst);
    }
    /// Of what the index has.
    pub fn of(columns: &Columns) -> Facts {
        let facts = Facts::default();
        facts.set(columns.rows().any(|row| !row.is_known()));
        facts
    }
}

/// A message of which something is not known.
struct Wanted {
    uid: Uid,
    /// What its name or the list says.
    size: Option<u64>,
}

/// What is still wanted, by name up to the colon, and what was found of it.
struct Search<'a> {
    wanted: HashMap<String, Wanted>,
    learnt: HashMap<Uid, Learnt>,
    disk_sizes: HashMap<Uid, u64>,
    /// Names that were listed last time, though nobody could say how large and how old.
    listed: HashSet<String>,
    /// Names of files that can't be read.
    unreadable: &'a mut HashSet<String>,
    /// Files were left unread for the next go.
    more: bool,
}

impl Mailbox {
    /// Whether dates and sizes of some messages are not known yet, and may become known: [`Mailbox::learn`] before they are told. From memory.
    pub fn is_incomplete(&self) -> bool {
        let waits = |tried: Duration| self.store.now().saturating_sub(tried) < TRIED_AGAIN_AFTER;
        self.facts.due.load(Ordering::SeqCst) && !self.facts.tried.lock().is_some_and(waits)
    }
    /// Finds out the dates and sizes that are not known yet. Blocking where there are any. Files that can't be read keep nobody from the others: their
    /// messages [stay unknown](crate::Row::is_known), and are tried again later.
    pub fn learn(&self) -> Result<(), StorageError> {
        let mut unreadable = HashSet::new();
        while self.is_incomplete() {
            let _inside = self.store.enter()?;
            if !self.learn_some(None, &mut unreadable)? {
                break;
            }
        }
        Ok(())
    }
    /// As [`Mailbox::learn`], for those who are inside the store.
    pub(super) fn learn_inside(&self) -> Result<(), StorageError> {
        let mut unreadable = HashSet::new();
        while self.is_incomplete() && self.learn_some(None, &mut unreadable)? {}
        Ok(())
    }
    /// As [`Mailbox::learn_inside`], of these messages alone; an error for the first of which size and dates are not known then.
    pub(super) fn learn_these(&self, uids: &[Uid]) -> Result<(), StorageError> {
        let wanted: HashSet<Uid> = {
            let columns = self.columns.read();
            uids.iter().copied().filter(|uid| columns.get(*uid).is_some_and(|row| !row.is_known())).collect()
        };
        let mut unreadable = HashSet::new();
        while !wanted.is_empty() && self.learn_some(Some(&wanted), &mut unreadable)? {}
        self.ensure_known(uids)
    }
    /// An error for the first of these messages whose size and dates could not be learnt. From memory.
    pub fn ensure_known(&self, uids: &[Uid]) -> Result<(), StorageError> {
        let file = {
            let columns = self.columns.read();
            let unknown = uids.iter().find(|uid| columns.get(**uid).is_some_and(|row| !row.is_known()));
            unknown.map(|uid| columns.file_of(*uid).unwrap_or_default())
        };
        let Some(file) = file else { return Ok(()) };
        let cause = io::Error::other("its size and date are not known: see the log, and let the server's user read it");
        Err(self.store.io("can't look at", self.folder().join(file))(cause))
    }

    /// One go, for all or for these; whether there is more to be read. `unreadable`: names of files that could not be read in a go before, which this one adds
    /// to: they hold nobody back who comes after them.
    fn learn_some(&self, which: Option<&HashSet<Uid>>, unreadable: &mut HashSet<String>) -> Result<bool, StorageError> {
        let mut disk_sizes = self.facts.learning.lock();
        if self.is_deleted() {
            return Ok(false);
        }
        let folder = self.folder();
        let unreadable_before = unreadable.len();
        let wanted = self.wanted(which);
        let mut search =
            Search { wanted, learnt: HashMap::new(), disk_sizes: HashMap::new(), listed: HashSet::new(), unreadable, more: false };
        for _ in 0..LISTINGS_MAX {
            if search.more || search.wanted.keys().all(|name| search.unreadable.contains(name)) {
                break;
            }
            search.listed.clear();
            for sub in ["cur/", "new/"] {
                self.look_at_files(&folder, sub, &mut search)?;
            }
        }
        let Search { wanted, mut learnt, disk_sizes: found, listed, unreadable, more } = search;
        let is_gone = |name: &String| !more && !listed.contains(name) && !unreadable.contains(name);
        let gone: Vec<_> = wanted.into_iter().filter(|(name, _)| is_gone(name)).collect();
        let all_there = gone.is_empty();
        for (name, Wanted { uid, size }) in gone {
            // The next look at the folder tells.
            let seconds = FileName::parse(&name).base.seconds().unwrap_or(0);
            learnt.insert(uid, Learnt { size: size.unwrap_or(0), internal_date: seconds, save_date: seconds });
        }
        self.put_in(&learnt, &found, all_there);
        disk_sizes.extend(found);
        let more = more && (!learnt.is_empty() || unreadable.len() > unreadable_before);
        if which.is_none() {
            *self.facts.tried.lock() = (!more).then(|| self.store.now());
        }
        Ok(more)
    }

    /// Whether [`Mailbox::list_what_was_learnt`] has something to do. From memory; whoever learns now is not done.
    pub(super) fn is_list_due(&self) -> bool {
        self.facts.learning.try_lock().is_none_or(|sizes| !sizes.is_empty())
    }
    /// The list says what was read: whoever needs it again need not read the files.
    pub(super) fn list_what_was_learnt(&self) -> Result<(), StorageError> {
        let mut disk_sizes = self.facts.learning.lock();
        if disk_sizes.is_empty() || self.is_deleted() {
            return Ok(());
        }
        self.list_sizes(&self.folder(), &disk_sizes)?;
        disk_sizes.clear();
        Ok(())
    }

    /// By name, up to the colon.
    fn wanted(&self, which: Option<&HashSet<Uid>>) -> HashMap<String, Wanted> {
        let columns = self.columns.read();
        let unknown = columns.rows().enumerate().filter(|(_, row)| !row.is_known() && which.is_none_or(|which| which.contains(&row.uid)));
        let wanted = unknown.map(|(position, row)| {
            let file = columns.file(position);
            let name = identity(&file).to_owned();
            let size = FileName::parse(&name).base.size.or((row.size > 0).then_some(row.size));
            (name, Wanted { uid: row.uid, size })
        });
        wanted.collect()
    }

    /// Looks at those of the wanted files that are in this folder.
    fn look_at_files(&self, folder: &Path, sub: &str, search: &mut Search<'_>) -> Result<(), StorageError> {
        self.store.ensure_not_abandoned()?;
        let path = folder.join(sub);
        let mut unread: Vec<(String, Attributes)> = Vec::new();
        let looking = RefCell::new(search);
        let is_wanted = |name: &str| {
            let search = looking.borrow();
            search.wanted.contains_key(identity(name)) && !search.unreadable.contains(identity(name))
        };
        let listed = self.store.filesystem.each_entry(&path, &is_wanted, &mut |entry| {
            let mut looking = looking.borrow_mut();
            let Search { wanted, learnt, listed, .. } = &mut **looking;
            let name = identity(entry.name);
            match (wanted.get(name).map(|wanted| wanted.size), entry.attributes) {
                (Some(Some(size)), Some(attributes)) => {
                    if let Some(found) = wanted.remove(name) {
                        learnt.insert(found.uid, facts(name, size, attributes));
                    }
                }
                (Some(None), Some(attributes)) => unread.push((entry.name.to_owned(), attributes)),
                (Some(_), None) => {
                    listed.insert(name.to_owned());
                }
                (None, _) => {}
            }
        });
        listed.map_err(self.store.io("can't list", &path))?;
        let Search { wanted, learnt, disk_sizes, listed, unreadable, more } = looking.into_inner();
        *more |= unread.len() > READ_AT_ONCE;
        unread.truncate(READ_AT_ONCE);
        let sizes = parallel::for_each(self.store.settings.parallel_operations, &unread, |(name, _)| {
            self.store.ensure_not_abandoned()?;
            match self.read_foreign(&path.join(name)) {
                Ok(raw) => Ok::<io::Result<u64>, StorageError>(Ok(u64::try_from(raw.len()).unwrap_or(u64::MAX))),
                Err(error) => Ok(Err(error)),
            }
        });
        for ((file, attributes), size) in unread.iter().zip(sizes) {
            let name = identity(file);
            match size? {
                Ok(size) => {
                    if let Some(found) = wanted.remove(name) {
                        disk_sizes.insert(found.uid, attributes.size);
                        learnt.insert(found.uid, facts(name, size, *attributes));
                    }
                }
                // Renamed meanwhile: the next listing tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    listed.insert(name.to_owned());
                }
                Err(error) => {
                    let file = path.join(file);
                    tracing::error!(file = %file.display(), %error, "a message can't be read, so its size is not known: let the server's user read it");
                    unreadable.insert(name.to_owned());
                }
            }
        }
        Ok(())
    }

    /// What was learnt is known from here on; its rows go to the index with the next ones.
    fn put_in(&self, learnt: &HashMap<Uid, Learnt>, disk_sizes: &HashMap<Uid, u64>, all_there: bool) {
        let mut state = self.state.lock();
        let columns = self.columns.read();
        let mut grown = Usage::default();
        let mut pending: BTreeMap<u32, Pending> = std::mem::take(&mut state.pending);
        for row in columns.rows() {
            let Some(facts) = learnt.get(&row.uid) else { continue };
            grown.bytes = grown.bytes.saturating_add(facts.size.saturating_sub(row.size));
            let disk_size = disk_sizes.get(&row.uid).copied();
            let pending = pending.entry(row.uid.get()).or_insert(Pending { disk_size: facts.size, rendering: Rendering::Later });
            pending.disk_size = disk_size.unwrap_or(pending.disk_size);
        }
        state.pending = pending;
        state.look_again |= !all_there;
        let known = columns.with(learnt);
        drop(columns);
        self.facts.set(known.rows().any(|row| !row.is_known()));
        *self.columns.write() = known;
        self.store.quota.found(self.id, grown);
    }
}

fn facts(name: &str, size: u64, attributes: Attributes) -> Learnt {
    let seconds = |nanoseconds: i64| nanoseconds.div_euclid(1_000_000_000);
    match FileName::parse(name).base.own() {
        Some(own) => Learnt { size, internal_date: own.internal_date, save_date: own.moment.div_euclid(1_000_000) },
        None => Learnt { size, internal_date: seconds(attributes.modified), save_date: seconds(attributes.changed) },
    }
}
