//! Reading messages: always with CRLF line ends, whatever the file has.
//!
//! A message that the local cache has is read from there, without a request to the file server (`a_body_that_is_read_again_comes_from_the_cache`); whatever is
//! the matter with the cache, it is read from its file.

use std::{io, path::PathBuf, sync::Arc};

use index::Uid;
use memchr::memmem;

use super::{Look, Mailbox};
use crate::{
    Row, StorageError,
    cache::{ENTRY_BYTES_MAX, Key, Kind},
    filesystem::OpenFile,
    maildir::filename::FileName,
    mime::header_length,
    store::{Store, unix_micros},
};

/// How often a file that is not where it should be is looked for: our own rename, then another program's.
const OPEN_TRIES: u32 = 3;
/// How much is read at once to find the end of a header: more than most headers have.
const HEADER_CHUNK_BYTES: usize = 16 * 1024;

/// A message's bytes, always with CRLF line ends, whatever the file has.
#[derive(Debug)]
pub struct MessageReader {
    store: Arc<Store>,
    path: PathBuf,
    content: Content,
    len: u64,
    /// Under which the local cache may have it.
    key: Option<Key>,
}

#[derive(Debug)]
enum Content {
    /// The file is what IMAP sends.
    File(Box<dyn OpenFile>),
    /// Read already: the file has bare line feeds, or the local cache had it.
    Held(Vec<u8>),
}

impl MessageReader {
    /// RFC822.SIZE.
    pub fn len(&self) -> u64 {
        self.len
    }
    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; fewer bytes only at the end. Blocking.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        match &self.content {
            Content::File(file) => {
                let read = file.read_at(offset, buffer).map_err(self.store.io("can't read", &self.path))?;
                if offset == 0 {
                    self.offer(&buffer[..read]);
                }
                Ok(read)
            }
            Content::Held(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        }
    }
    /// The whole message; messages are bounded by `message_bytes_max`. Blocking.
    pub fn read_all(self) -> Result<Vec<u8>, StorageError> {
        match self.content {
            Content::File(ref file) => {
                let bytes = read_file(file.as_ref(), self.len).map_err(self.store.io("can't read", &self.path))?;
                self.offer(&bytes);
                Ok(bytes)
            }
            Content::Held(bytes) => Ok(bytes),
        }
    }
    /// These bytes were read from its beginning: if they are all there are, the local cache may want them.
    fn offer(&self, bytes: &[u8]) {
        if let (Some(cache), Some(key)) = (&self.store.settings.cache, self.key)
            && u64::try_from(bytes.len()).is_ok_and(|read| read == self.len)
        {
            cache.offer(key, bytes);
        }
    }
    /// The header with its blank line, as [`crate::mime::Structure`] finds it; without a blank line the whole message is read for that. Blocking.
    pub fn read_header(&self) -> Result<Vec<u8>, StorageError> {
        Ok(self.read_header_up_to(usize::MAX)?.unwrap_or_default())
    }
    /// The same; `None` where it is longer than `most`, of which little more is read. Blocking.
    pub fn read_header_up_to(&self, most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        let mut read = Vec::new();
        loop {
            let old = read.len();
            read.resize(old + HEADER_CHUNK_BYTES, 0);
            let got = match read.get_mut(old..) {
                Some(buffer) => self.read_at(u64::try_from(old).unwrap_or(u64::MAX), buffer)?,
                None => 0,
            };
            read.truncate(old + got);
            if let Some(end) = header_end(&read, old) {
                read.truncate(end);
                return Ok(Some(read).filter(|read| read.len() <= most));
            }
            if got == 0 {
                read.truncate(header_length(&read));
                return Ok(Some(read).filter(|read| read.len() <= most));
            }
            if read.len() > most {
                return Ok(None);
            }
        }
    }
}

/// Where the header ends; what lies before `searched` was looked at.
fn header_end(raw: &[u8], searched: usize) -> Option<usize> {
    if raw.starts_with(b"\r\n") {
        return Some(2);
    }
    let from = searched.saturating_sub(3);
    memmem::find(raw.get(from..)?, b"\r\n\r\n").map(|at| from + at + 4)
}

fn read_file(file: &dyn OpenFile, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// `raw` with a CR before every LF that has none.
pub(super) fn with_crlf(raw: Vec<u8>) -> Vec<u8> {
    let bare = bare_line_feeds(&raw);
    if bare == 0 {
        return raw;
    }
    let mut repaired = Vec::with_capacity(raw.len() + bare);
    let mut previous = 0;
    for byte in raw {
        if byte == b'\n' && previous != b'\r' {
            repaired.push(b'\r');
        }
        repaired.push(byte);
        previous = byte;
    }
    repaired
}

fn bare_line_feeds(raw: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', raw).filter(|at| at.checked_sub(1).and_then(|before| raw.get(before)) != Some(&b'\r')).count()
}

impl Mailbox {
    /// Opens a message for reading. Blocking.
    pub fn open_message(&self, uid: Uid) -> Result<MessageReader, StorageError> {
        let _inside = self.store.enter()?;
        for attempt in 0..OPEN_TRIES {
            let found = {
                let columns = self.columns.read();
                columns.position(uid).map(|position| (columns.row(position), columns.file(position)))
            };
            let Some((row, file)) = found else { return Err(StorageError::Expunged) };
            let key = self.cache_key(Kind::Body, &row, &file);
            let opened = {
                let path = self.folder().join(file);
                match self.cached(key, row.size) {
                    Some(bytes) => (Ok((Content::Held(bytes), row.size)), path),
                    None => (self.open_file(&path, row.size), path),
                }
            };
            match opened {
                (Ok((content, len)), path) => {
                    // A file that is not as long as it was is not what the key says.
                    let key = key.filter(|_| len == row.size);
                    let reader = MessageReader { store: Arc::clone(&self.store), path, content, len, key };
                    if let Content::Held(bytes) = &reader.content {
                        reader.offer(bytes);
                    }
                    return Ok(reader);
                }
                (Err(error), _) if error.kind() == io::ErrorKind::NotFound => match attempt {
                    // Our own renames are done when we get the lock.
                    0 => drop(self.disk.lock()),
                    _ if self.is_deleted() => return Err(StorageError::Expunged),
                    _ => self.look(Look::Thoroughly)?,
                },
                (Err(error), path) => return Err(self.store.io("can't open", path)(error)),
            }
        }
        Err(StorageError::Expunged)
    }

    /// Whether opening a message reads all of it, as far as its name says: its file has bare line feeds.
    pub fn is_held_when_open(&self, uid: Uid) -> bool {
        let columns = self.columns.read();
        let Some(position) = columns.position(uid) else { return false };
        FileName::of(&columns.file(position)).base.disk_size != Some(columns.row(position).size)
    }

    fn open_file(&self, path: &std::path::Path, size: u64) -> io::Result<(Content, u64)> {
        let file = self.store.filesystem.open(path)?;
        let on_disk = file.length()?;
        if on_disk == size {
            return Ok((Content::File(file), size));
        }
        let repaired = with_crlf(read_file(file.as_ref(), on_disk)?);
        let len = u64::try_from(repaired.len()).unwrap_or(u64::MAX);
        Ok((Content::Held(repaired), len))
    }

    /// What the local cache has of a message; `None` also where there is no cache.
    fn cached(&self, key: Option<Key>, size: u64) -> Option<Vec<u8>> {
        let bytes = self.store.settings.cache.as_ref()?.get(key?)?;
        u64::try_from(bytes.len()).is_ok_and(|len| len == size).then_some(bytes)
    }
    /// Under which the local cache has it; `None` also where there is no cache.
    pub(super) fn cache_key(&self, kind: Kind, row: &Row, file: &str) -> Option<Key> {
        self.store.settings.cache.as_ref()?;
        if kind == Kind::Body && row.size > ENTRY_BYTES_MAX as u64 {
            return None;
        }
        let now = unix_micros().div_euclid(1_000_000);
        Key::of(kind, &self.folder(), self.uid_validity(), row, file, now)
    }

    /// The content of a file that is no message of ours yet, with CRLF line ends.
    pub(super) fn read_foreign(&self, path: &std::path::Path) -> io::Result<Vec<u8>> {
        let file = self.store.filesystem.open(path)?;
        let len = file.length()?;
        read_file(file.as_ref(), len).map(with_crlf)
    }
}

#[cfg(test)]
mod tests {
    use super::{header_end, with_crlf};

    #[test]
    fn bare_line_feeds_get_their_carriage_return() {
        assert_eq!(with_crlf(b"\na\r\nb\n\nc".to_vec()), b"\r\na\r\nb\r\n\r\nc");
        assert_eq!(with_crlf(b"a\r\n".to_vec()), b"a\r\n");
    }

    #[test]
    fn the_header_ends_with_its_blank_line_even_across_two_reads() {
        assert_eq!(header_end(b"A: b\r\n\r\nbody", 0), Some(8));
        assert_eq!(header_end(b"A: b\r\n\r\nbody", 7), Some(8));
        assert_eq!(header_end(b"\r\nbody", 0), Some(2));
        assert_eq!(header_end(b"A: b\r\n", 0), None);
    }
}
