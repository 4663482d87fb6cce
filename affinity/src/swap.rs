//! The two calls everything is built on: `swap` (compare-and-rename) and a fresh listing.
//!
//! Invariants, each with the test that guards it:
//! - of many swaps of one name exactly one is won (`of_many_swaps_of_one_name_one_is_won`)
//! - a swap that worked but whose reply was lost is won (`a_resent_swap_is_won`)
//! - a directory that is away is an error, never a lost swap (`a_directory_that_is_away_loses_no_swap`)
//! - no state file is ever opened, and what is opened leaves no delegation behind (ARCHITECTURE.md, Shared directory)
//!
//! Durability. An NFS export is `sync`: a rename is durable when it is answered. On a local file system a won swap may be undone by a loss
//! of power. That does not matter for node files (every process of the host is gone as well, and its beats with it) nor for releases (the
//! lease then looks held by a dead node: an unclean takeover, which is safe). It does for a lease that was taken: mail and index folders
//! carry its epoch, so an epoch must not come twice. Therefore the lease folder is synced after it was won, and only there.

use std::{
    fmt::Debug,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, StatxFlags},
    io::Errno,
};

use crate::{
    names::NODES,
    owner::{follow_folder, follow_folder_of},
};

/// Most bytes read of a small shared file (`berth.toml`, `info/…`): ours have a few hundred.
pub const SMALL_FILE_BYTES_MAX: u64 = 64 * 1024;
/// What one call gives of a listing: the nodes of a large cluster.
const LISTING_BYTES: usize = 32 * 1024;
/// `statfs` says this of NFS.
const NFS_MAGIC: u64 = 0x6969;

/// What became of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Swapped {
    /// It was ours to do, and it is done.
    Won,
    /// The old name was gone: somebody else was first.
    Lost,
}

/// A directory that several nodes share, seen as names. Paths are relative to its root, with `/` between parts.
///
/// Every call blocks, on a hard mount for as long as the server is away. An error leaves open whether the call took effect, or will.
pub trait SharedDirectory: Send + Sync + Debug {
    /// The names in `folder` as the server has them now, without `.` and `..`. Not atomic: a file that is renamed meanwhile may show under
    /// both names or neither.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes the client forget that names were missing in `folder` (negative lookups stay cached for a minute).
    fn refresh(&self, folder: &str) -> io::Result<()>;
    /// Renames a file, or a folder onto nothing or an empty folder. `NotFound` also for a request that was resent after it had worked.
    fn rename(&self, old: &str, new: &str) -> io::Result<()>;
    /// Makes an empty file; `AlreadyExists` if the name is taken. It is never opened again.
    fn create(&self, name: &str) -> io::Result<()>;
    /// Makes a folder.
    fn create_folder(&self, folder: &str) -> io::Result<()>;
    /// Removes an empty file that nobody opened.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, folder: &str) -> io::Result<()>;
    /// Writes a file that is never renamed or changed afterwards; durable when this returns.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Reads such a file, at most [`SMALL_FILE_BYTES_MAX`].
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes the names in `folder` durable where the file system does not do so by itself.
    fn sync(&self, folder: &str) -> io::Result<()>;
}

/// Compare-and-rename: `old` is what was seen, `new` a name that nobody else can want and that is never used again.
pub fn swap(directory: &dyn SharedDirectory, old: &str, new: &str) -> io::Result<Swapped> {
    match directory.rename(old, new) {
        Ok(()) => Ok(Swapped::Won),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Only a fresh listing tells "somebody was first" from "our own first request was, and its reply was lost".
            // If the folder can't be listed (unmounted, say), nothing was decided: an error.
            let (folder, name) = new.rsplit_once('/').unwrap_or(("", new));
            let won = directory.list(folder)?.iter().any(|listed| listed == name);
            Ok(if won { Swapped::Won } else { Swapped::Lost })
        }
        Err(error) => Err(error),
    }
}

/// A mounted directory: NFS or local.
#[derive(Debug, Clone)]
pub struct MountedDirectory {
    root: PathBuf,
    syncs_itself: bool,
    is_operators: bool,
    /// `nodes/`, which is listed once a beat: opening a folder takes two requests.
    nodes: Arc<Mutex<Option<OwnedFd>>>,
}

impl MountedDirectory {
    /// Finds out what file system `root` is on.
    pub fn new(root: &Path) -> io::Result<MountedDirectory> {
        let magic = rustix::fs::statfs(root)?.f_type;
        let syncs_itself = u64::try_from(magic).is_ok_and(|magic| magic == NFS_MAGIC);
        Ok(MountedDirectory { root: root.to_owned(), syncs_itself, is_operators: false, nodes: Arc::default() })
    }

    /// For an operator's command, which root may run where nodes are another account: what it makes belongs to the owner of its folder.
    #[must_use = "gives the same directory back"]
    pub fn for_operator(self) -> MountedDirectory {
        MountedDirectory { is_operators: true, ..self }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Lists `nodes/` and keeps it open for the next time.
    fn list_nodes(&self) -> io::Result<Vec<String>> {
        let path = self.path(NODES);
        // Whoever lists it right now, or hangs in there, has the place in it where the listing goes on.
        let Some(mut kept) = self.nodes.try_lock() else { return list_fresh(&path) };
        let opened = match kept.take().filter(|opened| is_at(opened, &path)) {
            Some(opened) => opened,
            None => open_folder(&path)?,
        };
        // After an error it is opened anew.
        let names = names_in(&opened)?;
        *kept = Some(opened);
        Ok(names)
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The names in a folder as the server has them now.
pub fn list_fresh(folder: &Path) -> io::Result<Vec<String>> {
    names_in(&open_folder(folder)?)
}

fn names_in(opened: &OwnedFd) -> io::Result<Vec<String>> {
    // Asking for the attributes makes an NFS client drop a listing that is out of date, and what it remembers of names that were missing.
    let _fresh = rustix::fs::statx(opened, "", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?;
    rustix::fs::seek(opened, SeekFrom::Start(0))?;
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(LISTING_BYTES);
    let mut listing = RawDir::new(opened, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        // A name that is not UTF-8 is not ours; lossy is enough to warn of it.
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether the path still leads to the folder that was opened: something else may have been mounted there. Known without a request.
fn is_at(opened: &OwnedFd, path: &Path) -> bool {
    let id = |folder, path: &Path, how| {
        let stat = rustix::fs::statx(folder, path, how | AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
        Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    };
    let there = id(CWD, path, AtFlags::empty());
    there.is_some() && there == id(opened.as_fd(), Path::new(""), AtFlags::EMPTY_PATH)
}

impl SharedDirectory for MountedDirectory {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        // Where a request is a system call there is nothing to be gained.
        if folder == NODES && self.syncs_itself { self.list_nodes() } else { list_fresh(&self.path(folder)) }
    }

    fn refresh(&self, folder: &str) -> io::Result<()> {
        rustix::fs::statx(CWD, self.path(folder), AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?;
        Ok(())
    }

    fn rename(&self, old: &str, new: &str) -> io::Result<()> {
        Ok(rustix::fs::rename(self.path(old), self.path(new))?)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        // O_WRONLY takes no read delegation; closed at once.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let path = self.path(name);
        let made = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o640))?;
        if self.is_operators {
            // Where it can't be given away it must not stay: nodes could not read it.
            follow_folder_of(&made, &path).inspect_err(|_| rustix::fs::unlink(&path).unwrap_or_default())?;
        }
        Ok(())
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        let path = self.path(folder);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o750))?;
        if self.is_operators {
            follow_folder(&path).inspect_err(|_| rustix::fs::rmdir(&path).unwrap_or_default())?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlink(self.path(name))?)
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        Ok(rustix::fs::rmdir(self.path(folder))?)
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        write_durably(&self.path(name), content)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read_small(&self.path(name))
    }

    fn sync(&self, folder: &str) -> io::Result<()> {
        if self.syncs_itself {
            return Ok(());
        }
        File::open(self.path(folder))?.sync_all()
    }
}

/// Reads a small shared file without leaving a read delegation behind.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_undelegated(path, OFlags::RDONLY)?.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Writes a small shared file and syncs it.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    // Not O_EXCL: where O_DIRECT is refused the file may have been made nevertheless, and the second try must open it.
    let mut file = open_undelegated(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Writes a small file that only this account may read, and syncs it.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    // O_WRONLY takes no read delegation.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(content)?;
    file.sync_all()
}

/// An NFS server that gave a host a read delegation makes everybody wait for that host, even after it closed the file; an open with
/// `O_DIRECT` gets none, and without the flag afterwards reads go through the page cache again. Some file systems (tmpfs) refuse the flag.
pub fn open_undelegated(path: &Path, flags: OFlags) -> io::Result<File> {
    let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o640));
    let opened = match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        Ok(opened) => {
            rustix::fs::fcntl_setfl(&opened, rustix::fs::fcntl_getfl(&opened)? - OFlags::DIRECT)?;
            opened
        }
        Err(Errno::INVAL) => rustix::fs::open(path, flags, mode)?,
        Err(error) => return Err(error.into()),
    };
    Ok(File::from(opened))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::faulty::{Fault, FaultyDirectory};

    #[test]
    fn of_many_swaps_of_one_name_one_is_won() {
        let folder = tempfile::tempdir().unwrap();
        let directory = MountedDirectory::new(folder.path()).unwrap();
        for round in 0..50 {
            directory.create(&format!("{round}")).unwrap();
            let start = Barrier::new(4);
            let won = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..4)
                    .map(|me| {
                        let (directory, start) = (&directory, &start);
                        scope.spawn(move || {
                            start.wait();
                            swap(directory, &format!("{round}"), &format!("{round},{me}")).unwrap() == Swapped::Won
                        })
                    })
                    .collect();
                tries.into_iter().map(|one| one.join().unwrap()).filter(|won| *won).count()
            });
            assert_eq!(won, 1);
        }
    }

    #[test]
    fn a_resent_swap_is_won() {
        let directory = FaultyDirectory::default();
        directory.create("old").unwrap();
        directory.next_rename(Fault::Resent);
        assert_eq!(swap(&directory, "old", "new").unwrap(), Swapped::Won);
        assert_eq!(swap(&directory, "old", "other").unwrap(), Swapped::Lost);
    }

    #[test]
    fn a_directory_that_is_away_loses_no_swap() {
        let folder = tempfile::tempdir().unwrap();
        let directory = MountedDirectory::new(folder.path()).unwrap();
        assert!(swap(&directory, "nodes/a", "nodes/b").is_err(), "nodes/ is missing, as under an unmounted mount point");
    }

    #[test]
    fn listings_show_what_others_did_and_small_files_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (MountedDirectory::new(folder.path()).unwrap(), MountedDirectory::new(folder.path()).unwrap());
        a.create_folder("nodes").unwrap();
        assert!(b.list("nodes").unwrap().is_empty());
        a.create("nodes/x").unwrap();
        assert_eq!(a.create("nodes/x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(b.list("nodes").unwrap(), ["x"]);
        a.write("info", b"{}").unwrap();
        assert_eq!(b.read("info").unwrap(), b"{}");
        a.sync("nodes").unwrap();
    }

    #[test]
    fn nodes_kept_open_show_what_others_did_and_are_opened_anew_where_they_are_others() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (MountedDirectory::new(folder.path()).unwrap(), MountedDirectory::new(folder.path()).unwrap());
        assert!(a.list_nodes().is_err(), "an unmounted mount point has none");
        a.create_folder("nodes").unwrap();
        for number in 0..3 {
            b.create(&format!("nodes/{number}")).unwrap();
            assert_eq!(a.list_nodes().unwrap().len(), number + 1);
        }
        b.rename("nodes/0", "nodes/0,1").unwrap();
        assert!(a.list_nodes().unwrap().contains(&"0,1".to_owned()));
        assert!(a.nodes.lock().is_some());
        // Something else is mounted there.
        b.rename("nodes", "elsewhere").unwrap();
        assert!(a.list_nodes().is_err());
        b.create_folder("nodes").unwrap();
        assert_eq!(a.list_nodes().unwrap(), [] as [&str; 0]);
        let _somebody_hangs = a.nodes.lock();
        b.create("nodes/late").unwrap();
        assert_eq!(a.list_nodes().unwrap(), ["late"]);
    }

    #[test]
    fn small_files_work_where_o_direct_is_refused() {
        // tmpfs; skipped where the system has none.
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = folder.path().join("info");
        write_durably(&path, b"first").unwrap();
        write_durably(&path, b"2nd").unwrap();
        assert_eq!(read_small(&path).unwrap(), b"2nd");
    }
}
