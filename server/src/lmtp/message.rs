//! A message between DATA and its mailboxes: in memory while small, in an unlinked node-local file when large.
//!
//! Invariants, each with the test that guards it:
//! - a message never takes more memory than [`MEMORY_BYTES_MAX`] (`a_large_message_leaves_memory`)
//! - nothing stays on the disk when the message is dropped, or the process dies (`a_spool_file_has_no_name`)

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;

/// Messages up to this size stay in memory: most mail does, and a thousand deliveries at once take 256 MiB.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024;

/// A message being received.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Memory(Vec<u8>),
    File { file: File, len: u64 },
}

impl Spool {
    /// `dir`: node-local folder for large ones.
    pub fn new(dir: &Path) -> Spool {
        Spool { dir: dir.to_owned(), bytes: Bytes::Memory(Vec::new()) }
    }
    /// Adds bytes. May block on the local disk once the message is large.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.fits_memory(bytes.len())
            && let Bytes::Memory(so_far) = &self.bytes
        {
            // O_TMPFILE where the file system has it: the file never has a name.
            let mut file = tempfile::tempfile_in(&self.dir)?;
            file.write_all(so_far)?;
            let len = so_far.len() as u64;
            self.bytes = Bytes::File { file, len };
        }
        match &mut self.bytes {
            Bytes::Memory(so_far) => {
                // Exactly: doubling would take up to twice the limit.
                so_far.reserve_exact(bytes.len());
                so_far.extend_from_slice(bytes);
            }
            Bytes::File { file, len } => {
                file.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
        }
        Ok(())
    }
    /// Adds bytes, on the blocking pool where that touches the disk. `bytes` is empty afterwards.
    pub async fn take(mut self, bytes: &mut Vec<u8>) -> io::Result<Spool> {
        if self.fits_memory(bytes.len()) {
            self.write(bytes)?;
            bytes.clear();
            return Ok(self);
        }
        let bytes = std::mem::take(bytes);
        spawn_blocking(move || self.write(&bytes).map(|()| self)).await.map_err(io::Error::other)?
    }
    /// Whether `more` bytes can be added without touching the disk.
    fn fits_memory(&self, more: usize) -> bool {
        matches!(&self.bytes, Bytes::Memory(so_far) if so_far.len().saturating_add(more) <= MEMORY_BYTES_MAX)
    }
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.bytes.len()
    }
    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// No more bytes will come.
    pub fn finish(self) -> Message {
        Message { bytes: Arc::new(self.bytes) }
    }
}

/// A received message; clones share the bytes.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Arc<Bytes>,
}

impl Message {
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len()
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`, on the blocking pool where that touches the disk; how many bytes.
    pub async fn read_into(&self, offset: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if let Bytes::Memory(_) = &*self.bytes {
            return self.read_at(offset, buffer);
        }
        let (message, mut filled) = (self.clone(), std::mem::take(buffer));
        let read = spawn_blocking(move || message.read_at(offset, &mut filled).map(|count| (count, filled)));
        let (count, filled) = read.await.map_err(io::Error::other)??;
        *buffer = filled;
        Ok(count)
    }
    /// Fills `buffer` from `offset`; fewer bytes only at the end. May block on the local disk.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &*self.bytes {
            _ if offset >= self.len() => Ok(0),
            Bytes::Memory(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(rest) {
                    *to = *from;
                }
                Ok(count)
            }
            Bytes::File { file, .. } => {
                let mut filled = 0;
                while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
                    match file.read_at(free, offset + filled as u64) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(filled)
            }
        }
    }
}

impl Bytes {
    fn len(&self) -> u64 {
        match self {
            Bytes::Memory(bytes) => bytes.len() as u64,
            Bytes::File { len, .. } => *len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(dir: &Path, pieces: usize) -> (Spool, Vec<u8>) {
        let mut spool = Spool::new(dir);
        let mut expected = Vec::new();
        for n in 0..pieces {
            let piece: Vec<u8> = (0..10_007).map(|i| u8::try_from((i * 7 + n) % 251).unwrap()).collect();
            spool.write(&piece).unwrap();
            expected.extend_from_slice(&piece);
        }
        (spool, expected)
    }

    #[test]
    fn a_message_is_read_back_from_memory_and_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        for pieces in [0, 1, 26, 27, 60] {
            let (spool, expected) = spool(dir.path(), pieces);
            assert_eq!(spool.len(), expected.len() as u64);
            let message = spool.finish().clone();
            let mut read = Vec::new();
            let mut buffer = vec![0; 4_093];
            loop {
                let count = message.read_at(read.len() as u64, &mut buffer).unwrap();
                read.extend_from_slice(&buffer[..count]);
                if count < buffer.len() {
                    break;
                }
            }
            assert_eq!(read, expected, "{pieces} pieces");
            assert_eq!(message.read_at(u64::MAX / 2, &mut buffer).unwrap(), 0);
        }
    }

    #[test]
    fn a_large_message_leaves_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path());
        spool.write(&vec![b'x'; MEMORY_BYTES_MAX]).unwrap();
        assert!(matches!(spool.bytes, Bytes::Memory(_)));
        assert!(!spool.fits_memory(1));
        spool.write(b"y").unwrap();
        assert!(matches!(spool.bytes, Bytes::File { .. }));
        assert!(!spool.fits_memory(0), "once on disk, always on disk");
    }

    #[test]
    fn a_spool_file_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = spool(dir.path(), 60);
        assert!(matches!(spool.bytes, Bytes::File { .. }));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_spool_folder_is_an_error_not_a_panic() {
        let mut spool = Spool::new(Path::new("/nonexistent/spool"));
        assert!(spool.write(&vec![0; MEMORY_BYTES_MAX + 1]).is_err());
    }
}
