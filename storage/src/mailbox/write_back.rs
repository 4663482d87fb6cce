//! Brings file names up to date: UID, flags, sizes; many renames at once. Background work, and before the account is closed.

use index::{FlagSet, Uid};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    time::Duration,
};

use super::{Look, Mailbox, listed::can_be_listed};
use crate::{
    EmailId, Row, StorageError,
    maildir::filename::{Base, FILE_NAME_BYTES_MAX, FileName, identity},
    parallel,
};

/// Renames of one round: between rounds the names become durable in the index.
const ROUND: usize = 1024;
/// Rounds in which other programs may have been faster before the rest is left for the next time.
const RETRIES: u32 = 3;

struct Job {
    uid: Uid,
    flags: FlagSet,
    from: String,
    to: String,
}

enum Outcome {
    Done,
    /// Another program renamed or removed the file, or this node is suspended.
    Left,
    Failed(StorageError),
}

impl Mailbox {
    /// Writes back what has been due for `age`.
    pub(crate) fn write_back(&self, age: Duration) -> Result<(), StorageError> {
        if self.is_deleted() || self.state.lock().write_back.is_empty() {
            return Ok(());
        }
        // Names say dates and sizes.
        self.learn_for_names(age)?;
        let _disk = self.disk.lock();
        let folder = self.folder();
        let mut retries = 0;
        let mut from = 0;
        loop {
            let (jobs, last) = self.jobs(&folder, age, from)?;
            let Some(last) = last else { return Ok(()) };
            if jobs.is_empty() || self.round(&folder, &jobs)? {
                // Each is looked at once: however many wait, a round costs no more.
                from = last.saturating_add(1);
            } else {
                retries += 1;
                if retries > RETRIES {
                    return Ok(());
                }
                self.look_below(&folder, Look::Thoroughly)?;
            }
        }
    }

    /// Messages that the list does not know need names that say all. What can't be learnt stays due.
    fn learn_for_names(&self, age: Duration) -> Result<(), StorageError> {
        let now = self.store.now();
        let unknown: Vec<Uid> = {
            let state = self.state.lock();
            let columns = self.columns.read();
            let due = state.write_back.iter().filter(|(_, since)| now.saturating_sub(**since) >= age);
            let rows = due.filter_map(|(uid, _)| columns.position(Uid::new(*uid)?)).map(|position| (columns.row(position), position));
            let rows =
                rows.filter(|(row, position)| !row.is_known() && !is_listed(row, &columns.file(*position), state.record.adopted_below));
            rows.map(|(row, _)| row.uid).collect()
        };
        if let Err(error) = self.learn_these(&unknown) {
            self.store.ensure_not_abandoned()?;
            tracing::warn!(mailbox = %self.name(), %error, "messages keep their names");
        }
        Ok(())
    }

    /// The next ones of UIDs `from` and above, and the last UID that was looked at.
    fn jobs(&self, folder: &Path, age: Duration, from: u32) -> Result<(Vec<Job>, Option<u32>), StorageError> {
        let now = self.store.now();
        let mut rows: Vec<(Row, String)> = Vec::new();
        let adopted_below;
        {
            let state = self.state.lock();
            let columns = self.columns.read();
            adopted_below = state.record.adopted_below;
            let due = state.write_back.range(from..).filter(|(_, since)| now.saturating_sub(**since) >= age);
            let there = due.filter_map(|(uid, _)| columns.position(Uid::new(*uid)?));
            rows.extend(there.take(ROUND).map(|position| (columns.row(position), columns.file(position))));
        }
        let last = rows.last().map(|(row, _)| row.uid.get());
        let mut jobs = Vec::with_capacity(rows.len());
        for (row, from) in rows {
            if let Some(to) = self.name_for(folder, &row, &from, adopted_below)? {
                jobs.push(Job { uid: row.uid, flags: row.flags, from, to });
            }
        }
        Ok((jobs, last))
    }

    /// The name that says all there is to say about a message: its own where it already has our form. `None`: there is none yet.
    fn name_for(&self, folder: &Path, row: &Row, file: &str, adopted_below: u32) -> Result<Option<String>, StorageError> {
        let mut parsed = FileName::of(file);
        parsed.flags = row.flags;
        let Base { uid, size, disk_size, .. } = parsed.base;
        let says_sizes = size == Some(row.size) && disk_size.is_some();
        if (says_sizes || !row.is_known()) && uid.is_none() && is_listed(row, file, adopted_below) {
            // The list knows it by this name, and so would an earlier server.
            return Ok(Some(format!("cur/{}{}", identity(file), parsed.print_flags())));
        }
        if !row.is_known() {
            return Ok(None);
        }
        let complete = parsed.base.uid == Some(row.uid) && parsed.base.size == Some(row.size) && parsed.base.disk_size.is_some();
        if !complete {
            let disk_size = match parsed.base.disk_size {
                Some(size) => size,
                None => match self.store.filesystem.attributes(&folder.join(file)) {
                    Ok(attributes) => attributes.size,
                    // The rename will say so.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => row.size,
                    Err(error) => return Err(self.store.io("can't look at", folder.join(file))(error)),
                },
            };
            parsed.base = Base { disk_size: Some(disk_size), size: Some(row.size), uid: Some(row.uid), ..parsed.base };
        }
        // The seconds at the beginning are the INTERNALDATE: other programs' names may say something else.
        if parsed.base.seconds() != Some(row.internal_date) || parsed.print().len() > FILE_NAME_BYTES_MAX {
            // The message stays what it is.
            parsed.base.email_id = Some(EmailId::of(file, row.size));
            parsed.base.unique = self.store.unique(Some(row.internal_date)).0;
        }
        Ok(Some(format!("cur/{}", parsed.print())))
    }

    /// `false`: some files were left: they were not where we thought, or may be another node's by now.
    fn round(&self, folder: &Path, jobs: &[Job]) -> Result<bool, StorageError> {
        self.keep_further(folder)?;
        let filesystem = self.store.filesystem.as_ref();
        let outcomes = parallel::for_each(parallel::NAMES, jobs, |job| {
            if job.from == job.to {
                return Outcome::Done;
            }
            if let Err(lost) = self.store.ensure_not_abandoned() {
                return Outcome::Failed(lost);
            }
            if !self.store.is_live() {
                return Outcome::Left;
            }
            match filesystem.rename(&folder.join(&job.from), &folder.join(&job.to)) {
                Ok(()) => Outcome::Done,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Left,
                Err(error) => Outcome::Failed(self.store.io("can't rename to", folder.join(&job.to))(error)),
            }
        });
        let cur = folder.join("cur");
        let synced = filesystem.sync_folder(&cur).map_err(self.store.io("can't sync", cur));

        let mut state = self.state.lock();
        let mut named: BTreeMap<Uid, &Job> = BTreeMap::new();
        let mut all_there = true;
        let mut failure = synced.err();
        for (job, outcome) in jobs.iter().zip(outcomes) {
            match outcome {
                Outcome::Done => {
                    named.insert(job.uid, job);
                }
                Outcome::Left => all_there = false,
                Outcome::Failed(error) => failure = failure.or(Some(error)),
            }
        }
        {
            // What is on disk is so, whatever becomes of the commit.
            let mut columns = self.columns.write();
            for (uid, job) in &named {
                columns.set_file(*uid, &job.to);
            }
        }
        let columns = self.columns.read();
        let mut finished = Vec::new();
        let mut expunged: HashMap<&str, &str> = HashMap::new();
        for (uid, job) in &named {
            match columns.get(*uid) {
                Some(row) if row.flags == job.flags => finished.push(*uid),
                Some(_) => {}
                // Expunged while it was renamed.
                None => {
                    expunged.insert(identity(&job.from), &job.to);
                }
            }
        }
        let highest = columns.highest_modseq();
        drop(columns);
        if !expunged.is_empty() {
            for removal in &mut state.removals {
                if let Some(to) = expunged.get(identity(&removal.file)) {
                    removal.file = (*to).to_owned();
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.commit(&mut state, highest, |change| {
            named.iter().try_for_each(|(uid, job)| change.set_file(self.id, *uid, &job.to))?;
            finished.iter().try_for_each(|uid| change.delete_write_back(self.id, *uid))
        })?;
        for uid in finished {
            state.write_back.remove(&uid.get());
        }
        Ok(all_there)
    }
}

/// Whether the list says the message's UID.
fn is_listed(row: &Row, file: &str, adopted_below: u32) -> bool {
    row.uid.get() < adopted_below && can_be_listed(file)
}
