//! Reading messages: always with CRLF line ends, whatever the file has.

use std::{io, path::PathBuf, sync::Arc};

use index::Uid;

use super::{Look, Mailbox};
use crate::{StorageError, filesystem::OpenFile, store::Store};

/// How often a file that is not where it should be is looked for: our own rename, then another program's.
const OPEN_TRIES: u32 = 3;

/// A message's bytes, always with CRLF line ends, whatever the file has.
#[derive(Debug)]
pub struct MessageReader {
    store: Arc<Store>,
    path: PathBuf,
    content: Content,
    len: u64,
}

#[derive(Debug)]
enum Content {
    /// The file is what IMAP sends.
    File(Box<dyn OpenFile>),
    /// The file has bare line feeds.
    Repaired(Vec<u8>),
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
            Content::File(file) => file.read_at(offset, buffer).map_err(self.store.io("can't read", &self.path)),
            Content::Repaired(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        }
    }
    /// The whole message; messages are bounded by `message_bytes_max`. Blocking.
    pub fn read_all(&self) -> Result<Vec<u8>, StorageError> {
        match &self.content {
            Content::File(file) => read_file(file.as_ref(), self.len).map_err(self.store.io("can't read", &self.path)),
            Content::Repaired(bytes) => Ok(bytes.clone()),
        }
    }
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
                columns.position(uid).map(|position| (columns.row(position).size, columns.file(position)))
            };
            let Some((size, file)) = found else { return Err(StorageError::Expunged) };
            let opened = {
                let path = self.folder().join(file);
                (self.open_file(&path, size), path)
            };
            match opened {
                (Ok((content, len)), path) => return Ok(MessageReader { store: Arc::clone(&self.store), path, content, len }),
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

    fn open_file(&self, path: &std::path::Path, size: u64) -> io::Result<(Content, u64)> {
        let file = self.store.filesystem.open(path)?;
        let on_disk = file.length()?;
        if on_disk == size {
            return Ok((Content::File(file), size));
        }
        let repaired = with_crlf(read_file(file.as_ref(), on_disk)?);
        let len = u64::try_from(repaired.len()).unwrap_or(u64::MAX);
        Ok((Content::Repaired(repaired), len))
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
    use super::with_crlf;

    #[test]
    fn bare_line_feeds_get_their_carriage_return() {
        assert_eq!(with_crlf(b"\na\r\nb\n\nc".to_vec()), b"\r\na\r\nb\r\n\r\nc");
        assert_eq!(with_crlf(b"a\r\n".to_vec()), b"a\r\n");
    }
}
