//! One file of the cache: a header, then entries, each with its own.
//!
//! A file's header says of which generation its entries are, and whose they are; an entry's header says generation, key and length, and has checksums of itself
//! and of the content. Whatever else stands in the file is no entry: headers' checksums begin with a number that nobody knows, another one for each generation, so no
//! part of a message is ever taken for a header (`a_body_that_looks_like_an_entry_is_none`). Nothing is synced: what a crash loses is a miss. Numbers are little-endian.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use rustix::{
    fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate},
    io::retry_on_intr,
    process::geteuid,
};
use sha2::{Digest, Sha256};

use super::{Key, table::Place, table::low};
use crate::object_id::first_128_bits;

/// Entries begin at multiples of it.
pub(super) const UNIT: u64 = 64;
/// Least bytes of a segment.
pub(super) const BYTES_MIN: u64 = 4_096;
/// Of a file and of an entry.
pub(super) const HEADER_BYTES: usize = 64;
/// Changes with the form of files: others are dropped.
const FILE_MAGIC: u32 = u32::from_le_bytes(*b"BeC2");
const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"BeE2");

/// Whose entries they are: those of another cluster say nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope(u128);

impl Scope {
    pub fn of(text: &str) -> Scope {
        Scope(first_128_bits(&Sha256::digest(text)))
    }
}

/// What a header says: magic, checksum of the rest, generation, whose or which, how many bytes, checksum of the content; of a file: the
/// salt of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    magic: u32,
    generation: u64,
    id: u128,
    bytes: u64,
    content: u32,
    /// 0 in an entry.
    salt: u128,
}

impl Header {
    /// `salt`: that of the file, 0 for the file's own.
    fn print(self, salt: u128) -> [u8; HEADER_BYTES] {
        let mut text = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(there) = text.get_mut(at..at + bytes.len()) {
                there.copy_from_slice(bytes);
            }
        };
        put(0, &self.magic.to_le_bytes());
        put(8, &self.generation.to_le_bytes());
        put(16, &self.id.to_le_bytes());
        put(32, &self.bytes.to_le_bytes());
        put(40, &self.content.to_le_bytes());
        put(44, &self.salt.to_le_bytes());
        let sum = checksum(&text, salt);
        text[4..8].copy_from_slice(&sum.to_le_bytes());
        text
    }
    /// `None`: it is none.
    fn parse(text: &[u8; HEADER_BYTES], magic: u32, salt: u128) -> Option<Header> {
        let sum = u32::from_le_bytes(*text[4..].first_chunk()?);
        let header = Header {
            magic: u32::from_le_bytes(*text.first_chunk()?),
            generation: u64::from_le_bytes(*text[8..].first_chunk()?),
            id: u128::from_le_bytes(*text[16..].first_chunk()?),
            bytes: u64::from_le_bytes(*text[32..].first_chunk()?),
            content: u32::from_le_bytes(*text[40..].first_chunk()?),
            salt: u128::from_le_bytes(*text[44..].first_chunk()?),
        };
        (header.magic == magic && sum == checksum(text, salt)).then_some(header)
    }
}

fn checksum(text: &[u8; HEADER_BYTES], salt: u128) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&salt.to_le_bytes());
    sum.update(&text[8..]);
    sum.finalize()
}

/// Bytes that an entry takes.
pub(super) fn room_for(content: usize) -> u64 {
    (HEADER_BYTES as u64).saturating_add(content as u64).next_multiple_of(UNIT)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    bytes: u64,
    scope: Scope,
    /// Replaced where somebody removed it.
    file: RwLock<Arc<File>>,
    /// Of its entries; 0: it has none.
    generation: AtomicU64,
    /// Of the headers of its entries.
    salt: RwLock<u128>,
    is_new: bool,
}

impl Segment {
    /// Opens or makes one.
    pub fn open(path: PathBuf, bytes: u64, scope: Scope) -> io::Result<Segment> {
        let there = File::options().read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path);
        let there = there.ok().filter(|file| is_whole(file, bytes));
        let is_new = there.is_none();
        let file = there.map_or_else(|| make(&path, bytes), Ok)?;
        // What can't be read has no entries.
        let header = read_header(&file, 0).ok().flatten().and_then(|text| Header::parse(&text, FILE_MAGIC, 0));
        let (generation, salt) = match header {
            Some(header) if header.id == scope.0 && header.bytes == bytes => (header.generation, header.salt),
            _ => (0, 0),
        };
        read_what_is_asked_for(&file);
        let (file, generation) = (RwLock::new(Arc::new(file)), AtomicU64::new(generation));
        Ok(Segment { path, bytes, scope, file, generation, salt: RwLock::new(salt), is_new })
    }
    /// Removes the file, if it was made when this was opened.
    pub fn unmake(&self) {
        if self.is_new {
            fs::remove_file(&self.path).unwrap_or_default();
        }
    }
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Of its entries; 0: it has none.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
    /// Whether its entries are of this generation (of which these are the lower bits).
    pub fn has(&self, generation: u32) -> bool {
        let ours = self.generation();
        ours != 0 && low(ours.into()) == generation
    }

    /// Drops all entries, for those of a new generation; where the first one goes.
    pub fn begin(&self, generation: u64) -> io::Result<u64> {
        // Before anything is overwritten: who reads an old entry looks at this afterwards.
        self.generation.store(generation, Ordering::SeqCst);
        if !is_whole(&self.file(), self.bytes) {
            let file = make(&self.path, self.bytes)?;
            read_what_is_asked_for(&file);
            *self.file.write() = Arc::new(file);
        }
        let salt = rand::random();
        let header = Header { magic: FILE_MAGIC, generation, id: self.scope.0, bytes: self.bytes, content: 0, salt };
        self.file().write_all_at(&header.print(0), 0)?;
        *self.salt.write() = salt;
        Ok(HEADER_BYTES as u64)
    }
    /// Writes an entry of the present generation.
    pub fn write(&self, offset: u64, key: Key, content: &[u8]) -> io::Result<Place> {
        let generation = self.generation();
        let bytes = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let header = Header { magic: ENTRY_MAGIC, generation, id: key.0, bytes: bytes.into(), content: crc32fast::hash(content), salt: 0 };
        let mut entry = Vec::with_capacity(HEADER_BYTES + content.len());
        entry.extend_from_slice(&header.print(*self.salt.read()));
        entry.extend_from_slice(content);
        self.file().write_all_at(&entry, offset)?;
        Ok(Place { segment: 0, generation: low(generation.into()), offset, bytes })
    }
    /// The content of an entry; `None`: it is not there, or not as it was written.
    pub fn read(&self, place: Place, key: Key) -> io::Result<Option<Vec<u8>>> {
        let file = self.file();
        let salt = *self.salt.read();
        let header = read_header(&file, place.offset)?.and_then(|text| Header::parse(&text, ENTRY_MAGIC, salt));
        let Some(header) = header else { return Ok(None) };
        let is_it = header.id == key.0 && header.bytes == u64::from(place.bytes) && low(header.generation.into()) == place.generation;
        if !is_it {
            return Ok(None);
        }
        let mut content = vec![0; usize::try_from(place.bytes).unwrap_or(0)];
        if !fill(&file, &mut content, place.offset + HEADER_BYTES as u64)? || crc32fast::hash(&content) != header.content {
            return Ok(None);
        }
        // Unless it was dropped meanwhile, nothing was written over it.
        Ok(self.has(place.generation).then_some(content))
    }
    /// Calls `visit` with every entry, until it says no; where the next one would go.
    pub fn each(&self, visit: &mut dyn FnMut(Key, Place) -> bool) -> io::Result<u64> {
        let file = self.file();
        let (generation, salt) = (self.generation(), *self.salt.read());
        let mut offset = HEADER_BYTES as u64;
        while let Some(header) = read_header(&file, offset)?.and_then(|text| Header::parse(&text, ENTRY_MAGIC, salt)) {
            let bytes = u32::try_from(header.bytes).unwrap_or(u32::MAX);
            let end = offset.saturating_add(room_for(usize::try_from(bytes).unwrap_or(usize::MAX)));
            let place = Place { segment: 0, generation: low(generation.into()), offset, bytes };
            if header.generation != generation || end > self.bytes || !visit(Key(header.id), place) {
                break;
            }
            offset = end;
        }
        Ok(offset)
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file.read())
    }
}

/// Whether the file is there under one name, as long as it was made, and nobody else's: who made it, or may write to it, says what mail is.
fn is_whole(file: &File, bytes: u64) -> bool {
    let is_ours = |found: &Metadata| found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0 && found.nlink() == 1;
    file.metadata().is_ok_and(|found| found.is_file() && is_ours(&found) && found.len() == bytes)
}

/// Makes a file that has all its space: a full disk says so now.
fn make(path: &Path, bytes: u64) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let made = match retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, bytes)) {
        // File systems without such a call (ZFS) give space when it is written: then a full disk switches the cache off.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
        made => made.map_err(io::Error::from),
    };
    if made.is_err() {
        fs::remove_file(path).unwrap_or_default();
    }
    made.map(|()| file)
}

/// Entries are read whole, in no order, and after a start only their headers: reading ahead would read the whole disk then.
fn read_what_is_asked_for(file: &File) {
    // Advice that is not taken changes nothing.
    fadvise(file, 0, None, Advice::Random).unwrap_or_default();
}

fn read_header(file: &File, offset: u64) -> io::Result<Option<[u8; HEADER_BYTES]>> {
    let mut text = [0; HEADER_BYTES];
    Ok(fill(file, &mut text, offset)?.then_some(text))
}

/// Whether there were as many bytes.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_looks_like_an_entry_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Segment::open(folder.path().join("segment"), 16 * 1024, Scope::of("cluster")).unwrap();
        let segment = open();
        let first = segment.begin(7).unwrap();
        // As if its sender knew all but what comes: contents begin where an entry may.
        let fake = Header { magic: ENTRY_MAGIC, generation: 8, id: 5, bytes: 0, content: 0, salt: 0 };
        segment.write(first, Key(1), &fake.print(*segment.salt.read()).repeat(4)).unwrap();
        let first = segment.begin(8).unwrap();
        segment.write(first, Key(2), b"short").unwrap();
        let mut found = Vec::new();
        for segment in [segment, open()] {
            segment
                .each(&mut |key, _| {
                    found.push(key);
                    true
                })
                .unwrap();
        }
        assert_eq!(found, [Key(2), Key(2)]);
    }
}
