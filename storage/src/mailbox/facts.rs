//! Dates and sizes that file names don't say, of many files at once: not known when the mailbox is opened, but before anybody is told.
//!
//! Opening a mailbox that another program filled takes a look at the names alone. Until the files were looked at, the columns and the index say
//! [`UNKNOWN`] for the dates; the holder looks at them in the background, or whoever asks first waits for it ([`Mailbox::learn`]).
//!
//! Invariants, each with the test that guards it:
//! - nobody is told a date or size that is not known yet (`dates_and_sizes_are_learnt_before_anybody_is_told`)
//! - what is not known when the holder dies is learnt by the next one (`what_was_not_learnt_before_a_holder_died_is_learnt_later`)

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
};

use index::Uid;
use parking_lot::Mutex;

use super::{
    Mailbox,
    state::{Pending, Rendering},
};
use crate::{
    Columns, StorageError, Usage,
    columns::{Learnt, UNKNOWN},
    filesystem::Attributes,
    maildir::filename::{FileName, identity},
    parallel,
};

/// Listings after which a file that was in none of them is gone: another program may rename it while its folder is listed.
const LISTINGS_MAX: usize = 3;

/// What is not known of some messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Nothing = 0,
    Dates = 1,
    DatesAndSizes = 2,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Facts {
    due: AtomicU8,
    /// Held by who learns them: taken before the locks of the mailbox.
    learning: Mutex<()>,
}

impl Facts {
    pub fn set(&self, due: Due) {
        self.due.store(due as u8, Ordering::SeqCst);
    }
    pub fn are_due(&self) -> bool {
        self.due.load(Ordering::SeqCst) != Due::Nothing as u8
    }
    /// Of what the index has.
    pub fn of(columns: &Columns) -> Facts {
        let unknown = columns.rows().any(|row| row.internal_date == UNKNOWN);
        let facts = Facts::default();
        // Which of the sizes are known is not written down.
        facts.set(if unknown { Due::DatesAndSizes } else { Due::Nothing });
        facts
    }
}

/// A message of which something is not known.
struct Wanted {
    uid: Uid,
    /// What its name or the list says.
    size: Option<u64>,
}

impl Mailbox {
    /// Whether dates and sizes of some messages are not known yet: [`Mailbox::learn`] before they are told. From memory.
    pub fn is_incomplete(&self) -> bool {
        self.facts.are_due()
    }
    /// Finds out the dates and sizes that are not known yet. Blocking where there are any.
    pub fn learn(&self) -> Result<(), StorageError> {
        if !self.is_incomplete() {
            return Ok(());
        }
        let _inside = self.store.enter()?;
        self.learn_inside()
    }
    /// As [`Mailbox::learn`], for those who are inside the store, and for closing.
    pub(super) fn learn_inside(&self) -> Result<(), StorageError> {
        if !self.is_incomplete() {
            return Ok(());
        }
        let _alone = self.facts.learning.lock();
        if !self.is_incomplete() || self.is_deleted() {
            return Ok(());
        }
        let folder = self.folder();
        let mut wanted = self.wanted();
        let mut learnt = HashMap::with_capacity(wanted.len());
        let mut disk_sizes = HashMap::new();
        for _ in 0..LISTINGS_MAX {
            if wanted.is_empty() {
                break;
            }
            for sub in ["cur/", "new/"] {
                self.look_at_files(&folder, sub, &mut wanted, &mut learnt, &mut disk_sizes)?;
            }
        }
        let all_there = wanted.is_empty();
        for (name, Wanted { uid, size }) in wanted {
            // It is gone, which the next look at the folder tells.
            let seconds = FileName::parse(&name).base.seconds().unwrap_or(0);
            learnt.insert(uid, Learnt { size: size.unwrap_or(0), internal_date: seconds, save_date: seconds });
        }
        self.put_in(&learnt, &disk_sizes, all_there);
        if !disk_sizes.is_empty() {
            self.list_sizes(&folder, &disk_sizes)?;
        }
        Ok(())
    }

    /// By name, up to the colon.
    fn wanted(&self) -> HashMap<String, Wanted> {
        let columns = self.columns.read();
        let unknown = columns.rows().enumerate().filter(|(_, row)| row.internal_date == UNKNOWN);
        let wanted = unknown.map(|(position, row)| {
            let file = columns.file(position);
            let name = identity(&file).to_owned();
            let size = FileName::parse(&name).base.size.or((row.size > 0).then_some(row.size));
            (name, Wanted { uid: row.uid, size })
        });
        wanted.collect()
    }

    /// Looks at those of the wanted files that are in this folder.
    fn look_at_files(
        &self,
        folder: &Path,
        sub: &str,
        wanted: &mut HashMap<String, Wanted>,
        learnt: &mut HashMap<Uid, Learnt>,
        disk_sizes: &mut HashMap<Uid, u64>,
    ) -> Result<(), StorageError> {
        self.store.ensure_not_abandoned()?;
        let path = folder.join(sub);
        let listed = self.store.filesystem.list_with_attributes(&path, &|name| wanted.contains_key(identity(name)));
        let mut unread: Vec<(String, Attributes)> = Vec::new();
        for (entry, attributes) in listed.map_err(self.store.io("can't list", &path))? {
            let (Some(attributes), name) = (attributes, identity(&entry.name)) else { continue };
            match wanted.get(name).map(|wanted| wanted.size) {
                Some(Some(size)) => {
                    if let Some(found) = wanted.remove(name) {
                        learnt.insert(found.uid, facts(name, size, attributes));
                    }
                }
                Some(None) => unread.push((entry.name, attributes)),
                None => {}
            }
        }
        let sizes = parallel::for_each(self.store.settings.parallel_operations, &unread, |(name, _)| {
            self.store.ensure_not_abandoned()?;
            match self.read_foreign(&path.join(name)) {
                Ok(raw) => Ok(Some(u64::try_from(raw.len()).unwrap_or(u64::MAX))),
                // Renamed meanwhile: the next listing tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.store.io("can't read", path.join(name))(error)),
            }
        });
        for ((name, attributes), size) in unread.iter().zip(sizes) {
            let name = identity(name);
            if let Some(size) = size?
                && let Some(found) = wanted.remove(name)
            {
                disk_sizes.insert(found.uid, attributes.size);
                learnt.insert(found.uid, facts(name, size, *attributes));
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
        let complete = columns.with(learnt);
        drop(columns);
        *self.columns.write() = complete;
        self.facts.set(Due::Nothing);
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
