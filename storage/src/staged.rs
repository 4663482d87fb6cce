//! A message on its way into a mailbox: in memory as long as it is small, else in a file in `tmp/`; nobody was told about it.
//!
//! Invariants, each with the test that guards it:
//! - the file is what IMAP sends: every line ends with CRLF, however the bytes were split (`bare_line_feeds_are_repaired_however_the_bytes_are_split`)
//! - dropped, it leaves nothing behind (`a_dropped_message_leaves_nothing_behind`)
//! - what several mailboxes share is written once (`a_shared_message_is_one_file_with_a_name_in_each_mailbox`)

use std::{path::PathBuf, sync::Arc};

use parking_lot::RecursiveRwLock;

use crate::{
    StorageError,
    filesystem::{NewFile, remove_quietly},
    store::Store,
};

/// Bytes kept in memory before the file is made: most messages; so many deliveries at once stay within some hundred megabytes. What is in memory
/// when the message is complete is rendered from there.
const MEMORY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes per write once the file is there: one WRITE request of most NFS servers.
const WRITE_BYTES: usize = 256 * 1024;

/// A message being written into a mailbox's `tmp/`. Dropped without [`crate::Mailbox::append`]: its file is removed.
#[derive(Debug)]
pub struct Staged {
    store: Arc<Store>,
    folder: Arc<RecursiveRwLock<PathBuf>>,
    buffer: Vec<u8>,
    file: Option<Box<dyn NewFile>>,
    /// The file's name in `tmp/`, while it is ours to remove.
    name: Option<String>,
    written: u64,
    after_cr: bool,
    /// The file has whole and durable bytes already; `buffer` holds them if they were in memory.
    linked: bool,
}

/// A message that is whole and durable in a `tmp/` folder, for links from several mailboxes; its own file goes with this value.
#[derive(Debug)]
pub struct SharedFile(Complete);

/// A staged message whose bytes are durable.
#[derive(Debug)]
pub(crate) struct Complete {
    /// Removes the file when dropped before it was renamed.
    pub staged: Staged,
    /// Its bytes, if they are still in memory.
    pub content: Option<Vec<u8>>,
}

impl Staged {
    pub(crate) fn new(store: Arc<Store>, folder: Arc<RecursiveRwLock<PathBuf>>, size_hint: u64) -> Staged {
        let capacity = usize::try_from(size_hint).unwrap_or(usize::MAX).min(MEMORY_BYTES_MAX);
        Staged { store, folder, buffer: Vec::with_capacity(capacity), file: None, name: None, written: 0, after_cr: false, linked: false }
    }
    /// Adds bytes; a bare LF becomes CRLF, so that the file is what IMAP sends. Blocking.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let before = self.buffer.len();
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(at);
            self.buffer.extend_from_slice(line);
            let has_cr = line.last().map_or(self.after_cr, |last| *last == b'\r');
            self.buffer.extend_from_slice(if has_cr { b"\n" } else { b"\r\n" });
            self.after_cr = false;
            rest = after.get(1..).unwrap_or_default();
        }
        self.buffer.extend_from_slice(rest);
        if let Some(last) = rest.last() {
            self.after_cr = *last == b'\r';
        }
        self.written += u64::try_from(self.buffer.len() - before).unwrap_or(u64::MAX);
        let limit = self.store.settings.message_bytes_max.get();
        if self.written > limit {
            return Err(StorageError::Limit { what: "the message's size in bytes", limit });
        }
        let keep = if self.file.is_some() { WRITE_BYTES } else { MEMORY_BYTES_MAX };
        if self.buffer.len() > keep { self.spill() } else { Ok(()) }
    }
    /// Bytes written so far (after line-ending repair).
    pub fn len(&self) -> u64 {
        self.written
    }
    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A message whose bytes are those of `shared`, without writing them again. Blocking; an error says that a copy is needed.
    pub(crate) fn link(store: Arc<Store>, folder: Arc<RecursiveRwLock<PathBuf>>, shared: &SharedFile) -> Result<Staged, StorageError> {
        let SharedFile(Complete { staged: original, content }) = shared;
        let mut staged = Staged::new(store, folder, 0);
        staged.name = Some(staged.store.scratch());
        let path = staged.path();
        if let Err(error) = staged.store.filesystem.link(&original.path(), &path) {
            staged.name = None;
            return Err(staged.store.io("can't link", path)(error));
        }
        staged.written = original.written;
        staged.buffer = content.clone().unwrap_or_default();
        staged.linked = true;
        Ok(staged)
    }
    /// Makes the bytes durable, so that several mailboxes can have them. Blocking.
    pub fn share(self) -> Result<SharedFile, StorageError> {
        self.complete().map(SharedFile)
    }

    /// Makes the bytes durable.
    pub(crate) fn complete(mut self) -> Result<Complete, StorageError> {
        if self.linked {
            let content = std::mem::take(&mut self.buffer);
            return Ok(Complete { staged: self, content: (!content.is_empty()).then_some(content) });
        }
        let in_memory = self.file.is_none();
        let content = self.spill_keeping()?;
        if let Some(file) = self.file.take() {
            let path = self.path();
            file.finish().map_err(self.store.io("can't write", path))?;
        }
        Ok(Complete { staged: self, content: in_memory.then_some(content) })
    }
    /// Where the file is now.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.read().join("tmp").join(self.name.as_deref().unwrap_or_default())
    }
    /// The file has another name now: there is nothing to remove.
    pub(crate) fn renamed(&mut self) {
        self.name = None;
    }

    /// Whether the file is one that has, or had, another name.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked
    }
    /// The message has a name elsewhere as well: this one, in `tmp/`, is the caller's to remove.
    pub(crate) fn linked(&mut self) -> Option<String> {
        self.name.take()
    }

    /// Moves what is in memory to the file, for a message that has to wait for others. Blocking.
    pub fn leave_memory(&mut self) -> Result<(), StorageError> {
        if self.linked {
            self.buffer = Vec::new();
        }
        self.spill_keeping().map(drop)
    }

    /// The same with all bytes durable and the file closed, for one of very many that wait. Blocking.
    pub fn close(self) -> Result<Staged, StorageError> {
        let Complete { mut staged, .. } = self.complete()?;
        staged.linked = true;
        Ok(staged)
    }

    fn spill(&mut self) -> Result<(), StorageError> {
        let mut buffer = self.spill_keeping()?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }
    /// Writes the buffer into the file, which it makes if need be, and gives it back.
    fn spill_keeping(&mut self) -> Result<Vec<u8>, StorageError> {
        if self.linked {
            return Ok(Vec::new());
        }
        if self.file.is_none() {
            self.name = Some(self.store.scratch());
            let path = self.path();
            self.file = Some(self.store.filesystem.create(&path).map_err(self.store.io("can't make", path))?);
        }
        let path = self.path();
        let buffer = std::mem::take(&mut self.buffer);
        match self.file.as_mut() {
            Some(file) if !buffer.is_empty() => file.write(&buffer).map_err(self.store.io("can't write", path))?,
            _ => {}
        }
        Ok(buffer)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.name.is_none() || self.store.ensure_not_abandoned().is_err() {
            return;
        }
        self.file = None;
        let path = self.path();
        remove_quietly(self.store.filesystem.as_ref(), &path);
    }
}
