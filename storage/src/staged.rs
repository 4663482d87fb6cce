//! A message on its way into a mailbox: a file in `tmp/` that nobody was told about.

use crate::StorageError;

/// A message being written into a mailbox's `tmp/`. Dropped without [`crate::Mailbox::append`]: its file is removed.
#[derive(Debug)]
pub struct Staged {}

impl Staged {
    /// Adds bytes; a bare LF becomes CRLF, so that the file is what IMAP sends. Blocking.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let _ = bytes;
        todo!()
    }
    /// Bytes written so far (after line-ending repair).
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
