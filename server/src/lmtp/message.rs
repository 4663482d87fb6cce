//! A message between DATA and its mailboxes: in memory while small, in an unlinked node-local file when large.

use std::{io, path::Path};

/// Messages up to this size stay in memory.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024;

/// A message being received.
#[derive(Debug)]
pub struct Spool {}

impl Spool {
    /// `dir`: node-local folder for large ones.
    pub fn new(dir: &Path) -> Spool {
        let _ = dir;
        todo!()
    }
    /// Adds bytes. May block on the local disk once the message is large.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _ = bytes;
        todo!()
    }
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// No more bytes will come.
    pub fn finish(self) -> Message {
        todo!()
    }
}

/// A received message; clones share the bytes.
#[derive(Debug, Clone)]
pub struct Message {}

impl Message {
    /// Bytes.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; fewer bytes only at the end. May block on the local disk.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let _ = (offset, buffer);
        todo!()
    }
}
