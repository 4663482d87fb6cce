//! The local cache: bodies of messages that were read twice, and what was rendered of messages, on this host's own disk.
//!
//! A fixed number of files of equal size (segments) are filled one after the other; the oldest is dropped whole for the next. What is read from the oldest
//! ones is copied forward, so what is in use stays. A table in memory says where each entry is. Everything here blocks, but for `offer` and `keep`, which hand
//! bytes to a thread of its own, and let them go where that one is behind: nobody waits for a cache.
//!
//! Files are read and written with pread and pwrite, not mapped: a disk that fails, or a file that is cut short, is then a miss, where a map would end the
//! process (SIGBUS). The table is an anonymous map: as large as the cache needs, without a page for what was never used, and out of the allocator's sight.
//!
//! Invariants, each with the test that guards it:
//! - what is found is what was kept under that very key (`whatever_byte_is_damaged_the_right_bytes_or_none_are_found`)
//! - a key means the same bytes for ever (`key.rs`)
//! - a restart finds what was there (`what_was_kept_is_found_after_a_restart`)
//! - it never takes more of the disk than it was given, all of it from the start (`it_takes_what_it_was_given_and_no_more`)
//! - files can be cut, removed or overwritten at any time (`files_that_are_cut_or_removed_in_use_are_misses`)
//! - two processes never share one (`a_second_process_goes_without`)
//! - a stop at any moment leaves what was there (`a_stop_before_all_is_found_overwrites_nothing`)
//! - files that anybody else made or may write to are made anew (`files_of_others_are_made_anew`)
//! - no trouble of it is anybody's error: the caller reads the file as without it (`a_cache_that_fails_is_off_and_says_nothing_more`)

mod error;
mod key;
mod segment;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use fs2::FileExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use error::CacheError;
pub(crate) use key::{Key, Kind};

use crate::filesystem::{Filesystem, Shared as SharedFilesystem};
use segment::{Scope, Segment};
use table::{Place, Seen, Table};
use writer::Writer;

/// Segments of a cache: dropping one loses a sixteenth.
const SEGMENTS: usize = 16;
/// So many of the oldest segments give what is read from them to the newest.
const OLD_SEGMENTS: u64 = 4;
/// Largest entry. Larger messages are streamed to clients: a request or two are little beside their bytes, and a cached one would be held in memory whole.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;
/// Least size: a segment holds several of the largest entries.
pub const CACHE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Largest size: the table counts in 64 bytes, in 32 bits.
pub const CACHE_BYTES_MAX: u64 = 128 * 1024 * 1024 * 1024;
/// Entries that wait to be written: at most 16 MiB of memory.
const WAITING_MAX: usize = 64;

/// The local cache of a node. One for all its accounts.
#[derive(Debug)]
pub struct Cache {
    shared: Arc<Shared>,
    /// `None` while it is dropped.
    orders: Option<SyncSender<Order>>,
}

/// What readers and the writer share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    segments: Vec<Segment>,
    bytes: u64,
    lookup: Mutex<Lookup>,
    /// The generation that is being filled.
    newest: AtomicU64,
    off: AtomicBool,
    stopping: AtomicBool,
    counts: Counts,
    /// The folder, locked while the cache is open.
    _lock: File,
}

/// Locked for moments only.
#[derive(Debug)]
struct Lookup {
    table: Table,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Counts {
    found: AtomicU64,
    missed: AtomicU64,
    bytes_found: AtomicU64,
    kept: AtomicU64,
    bytes_kept: AtomicU64,
    let_go: AtomicU64,
}

/// What the writer is to do.
#[derive(Debug)]
enum Order {
    Keep(Key, Box<[u8]>),
    /// All orders before it are done.
    Answer(SyncSender<()>),
}

/// What a cache did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFigures {
    /// Its size in bytes.
    pub bytes: u64,
    /// Entries that were asked for and found.
    pub found: u64,
    /// Entries that were asked for and not there.
    pub missed: u64,
    /// Bytes of those that were found.
    pub bytes_found: u64,
    /// Entries that were written.
    pub kept: u64,
    /// Their bytes.
    pub bytes_kept: u64,
    /// Entries that were not written because others were waiting.
    pub let_go: u64,
    /// An error switched it off.
    pub off: bool,
}

impl Cache {
    /// Opens the cache in `folder`, which is made where it is missing, and takes `bytes` of its disk at once. What is there of another `scope` (the cluster) or
    /// size is dropped. What is there is found little by little, in the background. Blocking.
    pub fn open(folder: &Path, bytes: u64, scope: &str) -> Result<Cache, CacheError> {
        let shared = Arc::new(Shared::open(folder, bytes, scope)?);
        let (orders, waiting) = sync_channel(WAITING_MAX);
        start(&shared, waiting).map_err(CacheError::io("can't start the thread of", folder))?;
        Ok(Cache { shared, orders: Some(orders) })
    }
    /// The bytes that were kept under `key`. Blocking, on a local disk.
    pub(crate) fn get(&self, key: Key) -> Option<Vec<u8>> {
        let found = self.find(key);
        let counts = &self.shared.counts;
        match &found {
            Some(bytes) => {
                counts.found.fetch_add(1, Ordering::Relaxed);
                counts.bytes_found.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            None => {
                counts.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        found
    }
    fn find(&self, key: Key) -> Option<Vec<u8>> {
        let shared = &self.shared;
        let place = shared.place(key)?;
        match shared.segments.get(place.segment)?.read(place, key) {
            Ok(Some(bytes)) => {
                if shared.is_old(place.generation) {
                    self.keep(key, &bytes);
                }
                Some(bytes)
            }
            // Damaged, cut, or overwritten a moment ago.
            Ok(None) => {
                shared.lookup.lock().table.remove(key, place);
                None
            }
            Err(error) => {
                shared.give_up("read", &error);
                None
            }
        }
    }

    /// These bytes were read from the mail store: from the second time on they are worth a place. Most messages are read once, after they came.
    pub(crate) fn offer(&self, key: Key, bytes: &[u8]) {
        if self.shared.is_off() || self.shared.place(key).is_some() {
            return;
        }
        let again = self.shared.lookup.lock().seen.again(key);
        if again {
            self.keep(key, bytes);
        }
    }
    /// As [`Cache::offer`], for what took more than reading it.
    pub(crate) fn keep(&self, key: Key, bytes: &[u8]) {
        if self.shared.is_off() || bytes.len() > ENTRY_BYTES_MAX {
            return;
        }
        let taken = self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Keep(key, bytes.into())).is_ok());
        if !taken {
            self.shared.counts.let_go.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it did since it was opened. From memory.
    pub fn figures(&self) -> CacheFigures {
        let counts = &self.shared.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheFigures {
            bytes: self.shared.bytes,
            found: count(&counts.found),
            missed: count(&counts.missed),
            bytes_found: count(&counts.bytes_found),
            kept: count(&counts.kept),
            bytes_kept: count(&counts.bytes_kept),
            let_go: count(&counts.let_go),
            off: self.shared.is_off(),
        }
    }
    /// Waits until what was there is found and what was kept is written, for tests. Blocking.
    #[doc(hidden)]
    pub fn settle(&self) {
        let (answer, answered) = sync_channel(1);
        if self.orders.as_ref().is_some_and(|orders| orders.send(Order::Answer(answer)).is_ok()) {
            answered.recv().unwrap_or_default();
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // Nobody waits for a disk here: the folder is free when the writer has noticed.
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(self.orders.take());
    }
}

impl Shared {
    fn open(folder: &Path, bytes: u64, scope: &str) -> Result<Shared, CacheError> {
        let bytes = bytes.clamp(segment::BYTES_MIN * SEGMENTS as u64, CACHE_BYTES_MAX);
        ensure_ours(folder)?;
        let lock = lock(folder)?;
        let scope = Scope::of(scope);
        let segments = segments(folder, bytes / SEGMENTS as u64, scope)?;
        let table = Table::new(bytes, segments.first().map_or(segment::BYTES_MIN, Segment::bytes), segment::UNIT)
            .map_err(CacheError::io("can't get memory for the table of", folder))?;
        let newest = segments.iter().map(Segment::generation).max().unwrap_or(0);
        Ok(Shared {
            folder: folder.to_owned(),
            segments,
            bytes,
            lookup: Mutex::new(Lookup { table, seen: Seen::default() }),
            newest: AtomicU64::new(newest),
            off: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            counts: Counts::default(),
            _lock: lock,
        })
    }
    /// Where the entry is, unless its segment was dropped.
    fn place(&self, key: Key) -> Option<Place> {
        if self.is_off() {
            return None;
        }
        let place = self.lookup.lock().table.get(key)?;
        self.segments.get(place.segment)?.has(place.generation).then_some(place)
    }
    fn segment_bytes(&self) -> u64 {
        self.segments.first().map_or(segment::BYTES_MIN, Segment::bytes)
    }
    /// Whether the segment of this generation is among the next to be dropped.
    fn is_old(&self, generation: u32) -> bool {
        let newest = table::low(self.newest.load(Ordering::SeqCst).into());
        u64::from(newest.wrapping_sub(generation)) >= SEGMENTS as u64 - OLD_SEGMENTS
    }
    fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }
    /// A disk that fails once fails again: said once, and everything is read from the mail store from here on.
    fn give_up(&self, doing: &str, error: &io::Error) {
        if !self.off.swap(true, Ordering::SeqCst) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "the local cache can't be {doing}: this node goes on without it until it is started again");
        }
    }
}

fn start(shared: &Arc<Shared>, waiting: Receiver<Order>) -> io::Result<()> {
    let writer = Writer::new(Arc::clone(shared));
    thread::Builder::new().name("cache".to_owned()).spawn(move || writer.run(&waiting)).map(drop)
}

/// Makes the folder, for us alone; one that is there must be ours, local, and closed to others' writes: whoever writes here says what mail is.
fn ensure_ours(folder: &Path) -> Result<(), CacheError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(CacheError::io("can't make the folder", folder))?;
    let found = fs::metadata(folder).map_err(CacheError::io("can't look at the folder", folder))?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(CacheError::NotOurs(folder.to_owned()));
    }
    if SharedFilesystem.is_remote(folder) {
        return Err(CacheError::Remote(folder.to_owned()));
    }
    Ok(())
}

/// Locks the folder itself: files in it may be removed at any time.
fn lock(folder: &Path) -> Result<File, CacheError> {
    let file = File::open(folder).map_err(CacheError::io("can't open", folder))?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(CacheError::InUse(folder.to_owned())),
        Err(error) => Err(CacheError::io("can't lock", folder)(error)),
    }
}

/// Opens or makes all segments; where one can't be made, what was made now is removed, and no more: a full disk is not to stay full of an empty cache.
fn segments(folder: &Path, bytes: u64, scope: Scope) -> Result<Vec<Segment>, CacheError> {
    let bytes = bytes / segment::UNIT * segment::UNIT;
    let path = |number: usize| folder.join(format!("segment-{number:02}"));
    let mut opened = Vec::with_capacity(SEGMENTS);
    for number in 0..SEGMENTS {
        match Segment::open(path(number), bytes, scope) {
            Ok(segment) => opened.push(segment),
            Err(error) => {
                opened.iter().for_each(Segment::unmake);
                return Err(CacheError::io("can't make the files of", folder)(error));
            }
        }
    }
    Ok(opened)
}
