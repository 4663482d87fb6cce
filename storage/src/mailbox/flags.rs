//! STORE and keywords: durable in the index with one commit; names follow in the background.

use std::sync::Arc;

use index::{FlagSet, KeywordId, Uid};

use super::{Mailbox, StoreOperation, Stored};
use crate::{
    StorageError,
    filesystem::{read_small, replace_small},
    maildir::{
        filename::{KEYWORD_LETTERS, nameable},
        keywords::{self, KEYWORDS_BYTES_MAX, KEYWORDS_FILE},
    },
};

impl Mailbox {
    /// Changes flags, durably, with one commit for any number of messages. Blocking.
    pub fn store(&self, uids: &[Uid], operation: StoreOperation, unchanged_since: Option<u64>) -> Result<Stored, StorageError> {
        let _inside = self.store.enter_for_change()?;
        self.ensure_there()?;
        let folder = self.folder();
        let known = self.known_flags();
        let mut uids = uids.to_vec();
        uids.sort_unstable();
        uids.dedup();

        let mut state = self.state.lock();
        let mut stored = Stored::default();
        let mut changes: Vec<(Uid, FlagSet)> = Vec::new();
        {
            let columns = self.columns.read();
            for uid in uids {
                let Some(row) = columns.get(uid) else {
                    stored.missing.push(uid);
                    continue;
                };
                if unchanged_since.is_some_and(|since| row.modseq.get() > since) {
                    stored.modified.push(uid);
                    continue;
                }
                let flags = match operation {
                    StoreOperation::Replace(flags) => keep_passed(flags, row.flags),
                    StoreOperation::Add(flags) => row.flags.union(flags),
                    StoreOperation::Remove(flags) => row.flags.difference(flags),
                };
                let flags = nameable(flags).intersection(known);
                if flags != row.flags {
                    changes.push((uid, flags));
                }
                stored.rows.push(row);
            }
        }
        if !changes.is_empty() {
            let modseq = self.next_modseq(&state, &folder)?;
            self.commit(&mut state, modseq, |change| {
                changes.iter().try_for_each(|(uid, flags)| change.set_flags(self.id, *uid, *flags, modseq))
            })?;
            let now = self.store.now();
            let mut columns = self.columns.write();
            for (uid, flags) in &changes {
                columns.set_flags(*uid, *flags, modseq);
                state.write_back.entry(uid.get()).or_insert(now);
            }
            for row in &mut stored.rows {
                if let Some(changed) = columns.get(row.uid) {
                    *row = changed;
                }
            }
            drop(columns);
            self.changes.send_replace(modseq.get());
        }
        drop(state);
        self.store.acknowledge(stored)
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
            None if names.len() >= usize::from(KEYWORD_LETTERS) => return Err(StorageError::TooManyKeywords),
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
        let names = self.read_keywords(folder)?;
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
        replace_small(self.store.filesystem.as_ref(), &path, &scratch, keywords::print(&names).as_bytes())
            .map_err(self.store.io("can't write", path))?;
        let highest = self.columns.read().highest_modseq();
        self.commit(state, highest, |change| change.set_keywords(self.id, &names))?;
        *self.keywords.write() = Arc::new(names);
        Ok(())
    }
}

/// FLAGS replaces what IMAP knows; the Maildir's P is no IMAP flag and stays.
fn keep_passed(flags: FlagSet, before: FlagSet) -> FlagSet {
    if before.contains(index::Flag::Passed) { flags.with(index::Flag::Passed) } else { flags }
}
