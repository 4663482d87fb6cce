//! Annotations (METADATA, RFC 5464): entries with values, of a mailbox or of the account, in a small file beside the mail.
//!
//! `berth-metadata` lies in the mailbox's folder, so that it moves, goes and comes back with it; `berth-account-metadata` in the Maildir. A file has a line
//! `berth-metadata 1`, then for each entry a line `<name> <bytes>`, so many bytes, and a line end. It is replaced as a whole, by rename.
//! The index does not have them.
//!
//! Invariants, each with the test that guards it:
//! - what was set survives the index, the holder and a rename (`annotations_stay_with_their_mailbox`)
//! - a mailbox made anew has none (`annotations_stay_with_their_mailbox`)
//! - of the entries set together all are or none (`too_many_or_too_large_annotations_change_nothing`)
//! - a file that can't be understood is left as it is, and said (`a_broken_file_of_annotations_is_said_and_kept`)

use std::{collections::HashMap, io, sync::Arc};

use index::MailboxId;

use crate::{Account, AnnotationChange, MailboxName, StorageError, filesystem::read_small, parallel};

/// Largest value in bytes (RFC 5464 §4.1 wants 1024): a note or a filter, no document.
pub const ANNOTATION_BYTES_MAX: usize = 32 * 1024;
/// Most entries of one mailbox, or of the account (RFC 5464 §4.1 wants 10).
pub const ANNOTATIONS_MAX: usize = 128;
/// Most bytes of all names and values of one mailbox, or of the account: what one change writes.
const TOGETHER_BYTES_MAX: usize = 256 * 1024;
/// Longest file that is read: more than is ever written.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Larger ones are read again each time, so that many mailboxes don't fill memory.
const CACHED_BYTES_MAX: usize = 4 * 1024;

const MAILBOX_FILE: &str = "berth-metadata";
const ACCOUNT_FILE: &str = "berth-account-metadata";
const HEADER: &[u8] = b"berth-metadata 1\n";

/// Entries and their values; names in small letters, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations(std::collections::BTreeMap<String, Vec<u8>>);

/// What became of a change of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Annotated {
    /// All are durable.
    Done,
    /// None was changed: there would be too many, or too much.
    TooMany,
}

impl Annotations {
    /// The value of an entry, in any case.
    pub fn get(&self, entry: &str) -> Option<&[u8]> {
        self.0.get(&entry.to_ascii_lowercase()).map(Vec::as_slice)
    }
    /// All entries with their values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(entry, value)| (entry.as_str(), value.as_slice()))
    }
    fn bytes(&self) -> usize {
        self.0.iter().map(|(entry, value)| entry.len() + value.len()).sum()
    }
    /// With these changes; whether anything changed.
    fn apply(&mut self, changes: &[(String, Option<Vec<u8>>)]) -> bool {
        let before = self.clone();
        for (entry, value) in changes {
            let entry = entry.to_ascii_lowercase();
            match value {
                Some(value) => drop(self.0.insert(entry, value.clone())),
                None => drop(self.0.remove(&entry)),
            }
        }
        *self != before
    }
    fn print(&self) -> Vec<u8> {
        let mut file = HEADER.to_vec();
        for (entry, value) in &self.0 {
            file.extend_from_slice(format!("{entry} {}\n", value.len()).as_bytes());
            file.extend_from_slice(value);
            file.push(b'\n');
        }
        file
    }
    fn parse(file: &[u8]) -> Option<Annotations> {
        let mut rest = file.strip_prefix(HEADER)?;
        let mut annotations = Annotations::default();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')?);
            // Names have no control characters, but may have spaces.
            let (entry, length) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
            let (value, after) = after.get(1..)?.split_at_checked(length.parse().ok()?)?;
            annotations.0.insert(entry.to_owned(), value.to_owned());
            rest = after.strip_prefix(b"\n")?;
        }
        Some(annotations)
    }
}

/// What was read, by mailbox; `None`: the account's own. Changed under `Account::structure` alone.
pub(crate) type Cache = HashMap<Option<MailboxId>, Arc<Annotations>>;

impl Account {
    /// The annotations of a mailbox, or of the account. Mostly from memory, else blocking.
    pub fn annotations(&self, mailbox: Option<&MailboxName>) -> Result<Arc<Annotations>, StorageError> {
        let found = self.annotations_of(&[mailbox.cloned()])?.pop();
        found.unwrap_or_else(|| Ok(Arc::default()))
    }
    /// The same of many, in their order. Blocking.
    pub fn annotations_of(&self, targets: &[Option<MailboxName>]) -> Result<Vec<Result<Arc<Annotations>, StorageError>>, StorageError> {
        let _inside = self.store.enter()?;
        let places: Vec<_> = targets.iter().map(|target| self.place(target.as_ref())).collect();
        {
            let cache = self.annotations.lock();
            let cached: Option<Vec<_>> =
                places.iter().map(|place| place.as_ref().ok().and_then(|(id, _)| cache.get(id)).cloned().map(Ok)).collect();
            if let Some(cached) = cached {
                return Ok(cached);
            }
        }
        // Nobody renames the folders meanwhile, or writes what is read.
        let _structure = self.structure.lock();
        Ok(parallel::for_each(parallel::MAILBOXES, targets, |target| self.read_annotations(target.as_ref())))
    }
    /// Sets entries, or removes those without a value: all or none. Blocking, durable.
    pub fn annotate(&self, mailbox: Option<&MailboxName>, changes: &[(String, Option<Vec<u8>>)]) -> Result<Annotated, StorageError> {
        self.annotate_as(0, mailbox, changes)
    }
    /// The same; `origin` tells who did it to those who follow annotations ([`crate::AnnotationChange`]).
    pub fn annotate_as(
        &self,
        origin: u64,
        mailbox: Option<&MailboxName>,
        changes: &[(String, Option<Vec<u8>>)],
    ) -> Result<Annotated, StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        let mut annotations = Annotations::clone(&*self.read_annotations(mailbox)?);
        let before = (annotations.0.len(), annotations.bytes());
        if !annotations.apply(changes) {
            return self.store.acknowledge(Annotated::Done);
        }
        let now = (annotations.0.len(), annotations.bytes());
        if now.0 > ANNOTATIONS_MAX.max(before.0) || now.1 > TOGETHER_BYTES_MAX.max(before.1) {
            return Ok(Annotated::TooMany);
        }
        self.write_annotations(mailbox, annotations)?;
        let (id, _) = self.place(mailbox)?;
        let mut log = self.annotation_log.lock();
        for (entry, _) in changes {
            log.note(AnnotationChange { mailbox: id, entry: entry.to_ascii_lowercase(), origin });
        }
        drop(log);
        self.store.note_activity();
        self.store.acknowledge(Annotated::Done)
    }
    /// RENAME of INBOX leaves them there and copies them (RFC 5464 §4.1).
    pub(super) fn copy_annotations(&self, from: &MailboxName, to: &MailboxName) -> Result<(), StorageError> {
        let annotations = self.read_annotations(Some(from))?;
        if annotations.0.is_empty() { Ok(()) } else { self.write_annotations(Some(to), Annotations::clone(&annotations)) }
    }

    fn place(&self, mailbox: Option<&MailboxName>) -> Result<(Option<MailboxId>, (std::path::PathBuf, &'static str)), StorageError> {
        let Some(name) = mailbox else { return Ok((None, (self.store.paths.maildir.clone(), ACCOUNT_FILE))) };
        let catalog = self.catalog.read();
        let known = catalog.mailboxes.get(name).ok_or_else(|| StorageError::NoMailbox(name.clone()))?;
        Ok((Some(known.id), (self.folder_path(&known.folder), MAILBOX_FILE)))
    }
    fn read_annotations(&self, mailbox: Option<&MailboxName>) -> Result<Arc<Annotations>, StorageError> {
        let (id, (folder, file)) = self.place(mailbox)?;
        if let Some(cached) = self.annotations.lock().get(&id) {
            return Ok(Arc::clone(cached));
        }
        let filesystem = self.store.filesystem.as_ref();
        // That there is no such file may be what this host remembers from before another one wrote it: the folder's fresh attributes end that.
        filesystem.attributes(&folder).map_err(self.store.io("can't look at", &folder))?;
        let path = folder.join(file);
        let content = read_small(filesystem, &path, FILE_BYTES_MAX).map_err(self.store.io("can't read", &path))?;
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "it is broken: restore it from a backup, or remove it");
        let annotations = match content {
            Some(content) => Annotations::parse(&content).ok_or_else(broken).map_err(self.store.io("can't understand", &path))?,
            None => Annotations::default(),
        };
        Ok(self.remember(id, annotations))
    }
    fn write_annotations(&self, mailbox: Option<&MailboxName>, annotations: Annotations) -> Result<(), StorageError> {
        let (id, (folder, file)) = self.place(mailbox)?;
        // After a failure the file may be the old one or the new one.
        self.annotations.lock().remove(&id);
        self.replace_file(&folder, file, &annotations.print())?;
        self.remember(id, annotations);
        Ok(())
    }
    fn remember(&self, id: Option<MailboxId>, annotations: Annotations) -> Arc<Annotations> {
        let annotations = Arc::new(annotations);
        if annotations.bytes() <= CACHED_BYTES_MAX {
            self.annotations.lock().insert(id, Arc::clone(&annotations));
        }
        annotations
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn files_are_read_back(entries in prop::collection::btree_map("/[ -~]{0,20}", prop::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let annotations = Annotations(entries);
            prop_assert_eq!(Annotations::parse(&annotations.print()), Some(annotations));
        }
        #[test]
        fn any_file_is_read(file in prop::collection::vec(any::<u8>(), 0..80), cut in 0..80_usize) {
            let _read = Annotations::parse(&file);
            let whole = Annotations([("/private/comment".to_owned(), file)].into()).print();
            prop_assert_eq!(Annotations::parse(whole.get(..cut).unwrap_or_default()).is_some(), cut == HEADER.len() || cut == whole.len());
        }
    }
}
