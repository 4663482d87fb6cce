//! STORE and keywords: durable in the index with one commit; names follow in the background.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use index::{FlagSet, KeywordId, Uid};
use parking_lot::Mutex;

use super::{Mailbox, StoreOperation, Stored, state::State};
use crate::{
    Columns, StorageError,
    filesystem::read_small,
    maildir::{
        beside,
        filename::KEYWORD_LETTERS,
        further::{Further, without_letters},
        keywords::{self, KEYWORDS_BYTES_MAX, KEYWORDS_FILE},
    },
};

/// A STORE that waits for its turn; whoever's turn it is carries out all that wait, with one commit.
#[derive(Debug)]
pub(super) struct StoreRequest {
    /// Ascending, each once.
    uids: Vec<Uid>,
    operation: StoreOperation,
    unchanged_since: Option<u64>,
    answer: Mutex<Option<Stored>>,
}

impl Mailbox {
    /// Changes flags, durably, with one commit for any number of messages, and for all who ask at the same time. Blocking.
    pub fn store(&self, uids: &[Uid], operation: StoreOperation, unchanged_since: Option<u64>) -> Result<Stored, StorageError> {
        self.store.twice(|| self.try_store(uids, operation, unchanged_since))
    }
    fn try_store(&self, uids: &[Uid], operation: StoreOperation, unchanged_since: Option<u64>) -> Result<Stored, StorageError> {
        let _inside = self.store.enter_for_change()?;
        self.ensure_there()?;
        let folder = self.folder();
        let mut uids = uids.to_vec();
        uids.sort_unstable();
        uids.dedup();
        let request = Arc::new(StoreRequest { uids, operation, unchanged_since, answer: Mutex::new(None) });
        self.store_requests.lock().push(Arc::clone(&request));

        let mut state = self.state.lock();
        if request.answer.lock().is_none() {
            let mut group = std::mem::take(&mut *self.store_requests.lock());
            if !group.iter().any(|other| Arc::ptr_eq(other, &request)) {
                // Taken out by somebody whose commit failed: those who wait try again.
                group.push(Arc::clone(&request));
            }
            self.carry_out_stores(&mut state, &folder, &group)?;
        }
        let stored = request.answer.lock().take().unwrap_or_default();
        drop(state);
        self.store.acknowledge(stored)
    }

    /// Carries out all of `group`, in their order, with one commit.
    fn carry_out_stores(&self, state: &mut State, folder: &Path, group: &[Arc<StoreRequest>]) -> Result<(), StorageError> {
        let known = self.known_flags();
        let mut changes: BTreeMap<Uid, FlagSet> = BTreeMap::new();
        let mut stored = {
            let columns = self.columns.read();
            group.iter().map(|request| request.plan(&columns, known, &mut changes)).collect::<Vec<_>>()
        };
        if !changes.is_empty() {
            let modseq = self.next_modseq(state, folder)?;
            let runs = self.columns.read().runs(changes.iter().map(|(uid, flags)| (*uid, *flags)));
            self.commit(state, modseq, |change| {
                runs.iter().try_for_each(|(uids, flags)| change.set_flags_between(self.id, *uids, *flags, modseq))
            })?;
            let now = self.store.now();
            let mut columns = self.columns.write();
            for (uid, flags) in &changes {
                columns.set_flags(*uid, *flags, modseq);
                state.write_back.entry(uid.get()).or_insert(now);
            }
            for row in stored.iter_mut().flat_map(|stored| &mut stored.rows) {
                if let Some(changed) = columns.get(row.uid) {
                    *row = changed;
                }
            }
            drop(columns);
            self.changes.send_replace(modseq.get());
            self.store.note_activity();
        }
        for (request, stored) in group.iter().zip(stored) {
            *request.answer.lock() = Some(stored);
        }
        Ok(())
    }

    /// Makes a keyword: in the folder's file first, since its letter is in file names.
    pub(super) fn make_keyword(&self, name: &str) -> Result<KeywordId, StorageError> {
        self.ensure_there()?;
        let folder = self.folder();
        let mut state = self.state.lock();
        if let Some(id) = self.known_keyword(name) {
            return Ok(id);
        }
        let mut names = self.read_keywords(&folder)?;
        let position = match names.iter().position(|known| known.eq_ignore_ascii_case(name)) {
            Some(position) => position,
            None if names.len() >= usize::from(KeywordId::COUNT) => return Err(StorageError::TooManyKeywords),
            None => {
                names.push(name.to_owned());
                names.len() - 1
            }
        };
        self.set_keywords(&mut state, &folder, names)?;
        KeywordId::new(position).ok_or(StorageError::TooManyKeywords)
    }
    /// Makes sure that every letter up to `position` has a keyword.
    pub(super) fn ensure_keyword_letters(&self, folder: &std::path::Path, position: usize) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        if position < self.keywords.read().len() {
            return Ok(());
        }
        let mut names = self.read_keywords(folder)?;
        keywords::extend_to(&mut names, position);
        self.set_keywords(&mut state, folder, names)
    }
    /// Takes the file's keywords over.
    pub(super) fn load_keywords(&self, folder: &std::path::Path) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        let mut names = self.read_keywords(folder)?;
        let further = self.read_further(folder)?;
        if !further.names.is_empty() {
            keywords::extend_to(&mut names, usize::from(KEYWORD_LETTERS) - 1);
            names.truncate(usize::from(KEYWORD_LETTERS));
            names.extend(further.names);
            names.truncate(usize::from(KeywordId::COUNT));
        }
        if names == **self.keywords.read() {
            return Ok(());
        }
        let highest = self.columns.read().highest_modseq();
        self.commit(&mut state, highest, |change| change.set_keywords(self.id, &names))?;
        *self.keywords.write() = Arc::new(names);
        Ok(())
    }
    /// The file's keywords, where it has more than we know (another program added some), else ours.
    fn read_keywords(&self, folder: &std::path::Path) -> Result<Vec<String>, StorageError> {
        let path = folder.join(KEYWORDS_FILE);
        let file = read_small(self.store.filesystem.as_ref(), &path, KEYWORDS_BYTES_MAX).map_err(self.store.io("can't read", path))?;
        let theirs = file.map(|file| keywords::parse(&file)).unwrap_or_default();
        let ours = self.keywords();
        Ok(if theirs.len() > ours.len() { theirs } else { ours.to_vec() })
    }
    fn set_keywords(&self, state: &mut super::State, folder: &std::path::Path, names: Vec<String>) -> Result<(), StorageError> {
        let (path, scratch) = (folder.join(KEYWORDS_FILE), folder.join("tmp").join(self.store.scratch()));
        self.store.ensure_not_abandoned()?;
        let (lettered, further) = names.split_at(names.len().min(usize::from(KEYWORD_LETTERS)));
        if self.keywords().len() < lettered.len() {
            self.store.replace_small(&path, &scratch, keywords::print(lettered).as_bytes())?;
        }
        self.write_further(folder, further)?;
        let highest = self.columns.read().highest_modseq();
        self.commit(state, highest, |change| change.set_keywords(self.id, &names))?;
        *self.keywords.write() = Arc::new(names);
        Ok(())
    }
}

/// Keywords without letters.
impl Mailbox {
    /// What the file beside the mail says of this mailbox.
    pub(super) fn read_further(&self, folder: &Path) -> Result<Further, StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let read = filesystem.list(folder).and_then(|entries| beside::KEYWORDS.read(filesystem, folder, &entries));
        let further = Further::parse(&read.map_err(self.store.io("can't read the keywords in", folder))?.unwrap_or_default());
        Ok(if further.uid_validity == self.uid_validity().get() { further } else { Further::default() })
    }
    /// Brings the file up to date with what messages have now. Before their flags count as written back.
    pub(super) fn keep_further(&self, folder: &Path) -> Result<(), StorageError> {
        let names = self.keywords();
        self.write_further(folder, names.get(usize::from(KEYWORD_LETTERS)..).unwrap_or_default())
    }
    fn write_further(&self, folder: &Path, names: &[String]) -> Result<(), StorageError> {
        if names.is_empty() {
            return Ok(());
        }
        let messages = {
            let columns = self.columns.read();
            let flags = (0..columns.len()).map(|position| (columns.row(position).uid.get(), without_letters(columns.flags(position))));
            flags.filter(|(_, flags)| !flags.is_empty()).collect()
        };
        let content = Further { uid_validity: self.uid_validity().get(), names: names.to_vec(), messages }.print();
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = hasher.finish().max(1);
        if self.further_written.load(Ordering::SeqCst) == hash {
            return Ok(());
        }
        let scratch = folder.join("tmp").join(self.store.scratch());
        beside::KEYWORDS
            .write(self.store.filesystem.as_ref(), folder, &scratch, content.as_bytes())
            .map_err(self.store.io("can't write the keywords in", folder))?;
        self.further_written.store(hash, Ordering::SeqCst);
        Ok(())
    }
}

impl StoreRequest {
    /// What is to change, on top of `changes` by those before.
    fn plan(&self, columns: &Columns, known: FlagSet, changes: &mut BTreeMap<Uid, FlagSet>) -> Stored {
        let mut stored = Stored::default();
        for uid in &self.uids {
            let Some(row) = columns.get(*uid) else {
                stored.missing.push(*uid);
                continue;
            };
            let changed = changes.get(uid);
            // What somebody before changed has the MODSEQ of this commit, above all that anybody knows.
            if self.unchanged_since.is_some_and(|since| changed.is_some() || row.modseq.get() > since) {
                stored.modified.push(*uid);
                continue;
            }
            let before = changed.copied().unwrap_or(row.flags);
            let flags = match self.operation {
                StoreOperation::Replace(flags) => keep_passed(flags, before),
                StoreOperation::Add(flags) => before.union(flags),
                StoreOperation::Remove(flags) => before.difference(flags),
                StoreOperation::ReplaceOf { of, with } => keep_passed(before.difference(of).union(with.intersection(of)), before),
            };
            let flags = flags.intersection(known);
            if flags != before {
                changes.insert(*uid, flags);
            }
            stored.rows.push(row);
        }
        stored
    }
}

/// FLAGS replaces what IMAP knows; the Maildir's P is no IMAP flag and stays.
fn keep_passed(flags: FlagSet, before: FlagSet) -> FlagSet {
    if before.contains(index::Flag::Passed) { flags.with(index::Flag::Passed) } else { flags }
}

#[cfg(test)]
mod tests {
    use affinity::Handover;
    use index::{Flag, FlagSet};

    use crate::{
        StoreOperation,
        tests::{User, append, uid},
    };

    #[test]
    fn stores_that_come_together_share_one_commit() {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        append(&inbox, "one", FlagSet::EMPTY).unwrap();
        append(&inbox, "two", FlagSet::EMPTY).unwrap();
        let before = inbox.read().highest_modseq().get();
        let add = |number, flag| inbox.store(&[uid(number)], StoreOperation::Add(FlagSet::of(&[flag])), None);
        let conditional = |since| inbox.store(&[uid(1)], StoreOperation::Replace(FlagSet::EMPTY), Some(since));

        let stored = std::thread::scope(|scope| {
            let busy = inbox.state.lock();
            let waiting = |count: usize| {
                while inbox.store_requests.lock().len() < count {
                    std::thread::yield_now();
                }
            };
            let seen = scope.spawn(|| add(1, Flag::Seen));
            waiting(1);
            let flagged = scope.spawn(|| add(1, Flag::Flagged));
            waiting(2);
            let other = scope.spawn(|| add(2, Flag::Seen));
            waiting(3);
            let late = scope.spawn(|| conditional(before));
            waiting(4);
            drop(busy);
            [seen, flagged, other, late].map(|thread| thread.join().unwrap().unwrap())
        });
        let row = inbox.read().get(uid(1)).unwrap();
        assert_eq!(row.flags, FlagSet::of(&[Flag::Seen, Flag::Flagged]));
        assert_eq!(inbox.read().get(uid(2)).unwrap().modseq, row.modseq, "one commit, one MODSEQ");
        assert_eq!(row.modseq.get(), before + 1);
        for told in stored.iter().flat_map(|stored| &stored.rows) {
            assert_eq!(inbox.read().get(told.uid), Some(*told));
        }
        assert_eq!(stored[3].modified, [uid(1)], "others were faster");
    }
}
