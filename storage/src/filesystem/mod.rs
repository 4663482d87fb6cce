//! The calls on the shared file system, with what NFS really does.
//!
//! - A listing is fresh when the directory's attributes were asked of the server just before ([`Filesystem::list`]); a *path* may be stale
//!   for as long as attributes are cached (47 s were seen). So the store lists, and never asks whether a name exists.
//! - `rename` of an exact source is decided by the server once. A resent request (its first reply was lost) answers `NotFound` although it
//!   worked: then the target is there. Targets are unique, so finding one means that it is ours.
//! - `write` never reports a lost file; only `fsync` does. Nothing counts before [`NewFile::finish`] returned, and after a good `fsync` there is
//!   nothing left for `close` to report.
//! - A host that opened a file may be given a read delegation and then be lost: everybody else's rename or unlink of that file waits for 103 s.
//!   [`Filesystem::open`] therefore opens with `O_DIRECT`, for which servers give none, and clears it afterwards, so that the page cache serves
//!   later reads. New files are opened for writing only, which gives none either.
//! - A rename on a local file system is durable after an fsync of the directory; on NFS it is when it returns, and that fsync costs nothing.
//!
//! [`Shared`] is the real thing, [`Faulty`] fails on demand.

mod faulty;
mod shared;

use std::{fmt::Debug, io, path::Path};

pub use faulty::{Failure, Faulty};
pub use shared::Shared;

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name; entries whose names are no UTF-8 are left out: nothing of ours has such names.
    pub name: String,
    /// Whether it is a folder (`None`: the file system does not say in listings).
    pub is_folder: Option<bool>,
}

/// An entry of a listing as it passes by.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// As in [`Entry`].
    pub name: &'a str,
    /// As in [`Entry`].
    pub is_folder: Option<bool>,
    /// `None`: nobody wanted them, it is gone, or nobody could say.
    pub attributes: Option<Attributes>,
}

/// What a file's attributes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Bytes.
    pub size: u64,
    /// Time of the last change of content, Unix nanoseconds.
    pub modified: i64,
    /// Time of the last change of anything, Unix nanoseconds.
    pub changed: i64,
}

/// A file being written, known to nobody yet.
pub trait NewFile: Send + Debug {
    /// Adds bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content durable and closes the file.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A file open for reading.
pub trait OpenFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; fewer bytes only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What the store asks of a file system. Every call blocks.
pub trait Filesystem: Send + Sync + Debug {
    /// Makes a file under a name that nothing else ever has: the epoch of the lease is part of it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// Adds bytes at the end of a file that is there, without waiting until they are durable.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Opens a file for reading, without a delegation.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Renames to a name that is unique; `NotFound` means that it did not happen, also after a lost reply.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second, unique name; `AlreadyExists` of a resent request counts as done.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; `false`: it was gone already (also after a lost reply).
    fn remove_file(&self, path: &Path) -> io::Result<bool>;
    /// Makes a folder; there already is fine.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it; gone already is fine.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// What is in a folder now, as the server says.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.each_entry(folder, &|_| false, &mut |Listed { name, is_folder, .. }| {
            entries.push(Entry { name: name.to_owned(), is_folder })
        })?;
        Ok(entries)
    }
    /// As [`Filesystem::list`], entry by entry, in the memory of a few; with the attributes that each `wanted` file had a moment ago. The NFS client sees
    /// that each entry is looked at, and asks the server for many at once (READDIRPLUS), as for `ls -l`.
    fn each_entry(&self, folder: &Path, wanted: &dyn Fn(&str) -> bool, visit: &mut dyn FnMut(Listed<'_>)) -> io::Result<()>;
    /// Attributes as the server says them now.
    fn attributes(&self, path: &Path) -> io::Result<Attributes>;
    /// Whether other hosts may keep files here from being renamed or removed: those that were lost with a delegation.
    fn is_remote(&self, folder: &Path) -> bool;
    /// Makes renames in a folder durable (local file systems).
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Reads a small file whole; `None` if it is not there.
pub(crate) fn read_small(filesystem: &dyn Filesystem, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match filesystem.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = vec![0; usize::try_from(file.length()?).unwrap_or(usize::MAX).min(bytes_max)];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    Ok(Some(content))
}

/// Makes a small file, durable as soon as its folder is.
pub(crate) fn write_small(filesystem: &dyn Filesystem, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = filesystem.create(path)?;
    file.write(content)?;
    file.finish()
}

/// Removes what nobody needs; what stays is found later.
pub(crate) fn remove_quietly(filesystem: &dyn Filesystem, path: &Path) {
    if let Err(error) = filesystem.remove_file(path) {
        tracing::debug!(file = %path.display(), %error, "left behind");
    }
}

/// Makes a folder and those above it.
pub(crate) fn create_folders(filesystem: &dyn Filesystem, path: &Path) -> io::Result<()> {
    match filesystem.create_folder(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path.parent().ok_or(error)?;
            create_folders(filesystem, above)?;
            filesystem.create_folder(path)
        }
        result => result,
    }
}
