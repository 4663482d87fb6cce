//! Brings a database into the page cache with few large requests: SQLite would ask for it page by page, all over the file.
//!
//! What every opening reads lies at the beginning; the rest is asked for when somebody wants rows of a large mailbox, or what was rendered.
//! The descriptor stays open as long as SQLite has the file: closing any drops the process's lock.

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

use rustix::fs::{Advice, OFlags, fadvise};

/// One READ request of most NFS servers. At the beginning of an index: schema, mailboxes, and all of a small account.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK: u64 = CHUNK_BYTES as u64;
/// Of a larger index, much may never be asked for: it is read as it is needed.
const READ_AHEAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Messages that lie on more pages than are worth a wait for each.
const MANY: i64 = 100;

/// See the module.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    file: File,
    asked: AtomicBool,
    /// Messages that were wanted so far, of all mailboxes.
    wanted: AtomicI64,
}

impl ReadAhead {
    /// Reads the beginning. Before SQLite opens the file; what can't be read, SQLite reports.
    pub fn begin(database: &Path) -> Option<ReadAhead> {
        let read = affinity::open_undelegated(database, OFlags::RDONLY).and_then(|mut file| {
            let read = file.read(&mut vec![0; CHUNK_BYTES])?;
            Ok(ReadAhead { file, asked: AtomicBool::new(read < CHUNK_BYTES), wanted: AtomicI64::new(0) })
        });
        read.inspect_err(|error| tracing::debug!(index = %database.display(), %error, "not read ahead")).ok()
    }
    /// The rows of so many messages are wanted.
    pub fn wanted(&self, messages: i64) {
        if self.wanted.fetch_add(messages, Ordering::SeqCst).saturating_add(messages) > MANY {
            self.rest();
        }
    }
    /// Has the kernel read the rest, many requests at once; who wants it does not wait for more than they read.
    pub fn rest(&self) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            let end = self.file.metadata().map_or(0, |metadata| metadata.len()).min(READ_AHEAD_BYTES_MAX);
            ask_for(&self.file, CHUNK, end);
        }
    }
}

/// Has the kernel read so many bytes from an offset on, several requests at once, without a wait for any of them.
pub(crate) fn ask_for(file: &File, mut offset: u64, end: u64) {
    while offset < end {
        // Of a longer range than one request it would read only so much.
        if fadvise(file, offset, std::num::NonZeroU64::new(CHUNK), Advice::WillNeed).is_err() {
            return;
        }
        offset += CHUNK;
    }
}
