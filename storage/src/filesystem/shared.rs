//! The real file system, local or NFS.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::OnceLock,
};

use parking_lot::Mutex;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags};

use super::{Attributes, Filesystem, Listed, NewFile, OpenFile};

/// `statfs` says this of NFS.
const NFS_MAGIC: u64 = 0x6969;

/// What one call gives of a listing: the NFS client asks for as much as there is room for (12,800 names: 6 requests instead of the 12 with 32 KiB).
const LISTING_BYTES: usize = 256 * 1024;

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shared;

#[derive(Debug)]
struct Writing(File);

impl NewFile for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[derive(Debug)]
struct Reading(File);

impl OpenFile for Reading {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + u64::try_from(filled).unwrap_or(u64::MAX);
            match self.0.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Filesystem for Shared {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        // 0600: mail is nobody else's; write-only: no read delegation. Not O_EXCL: NFS would set the attributes by another request, with the folder locked.
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Box::new(Writing(file)))
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::options().append(true).open(path)?.write_all(bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let direct = File::options().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
        let file = match direct {
            Ok(file) => {
                let flags = rustix::fs::fcntl_getfl(&file)?;
                rustix::fs::fcntl_setfl(&file, flags.difference(OFlags::DIRECT))?;
                file
            }
            // File systems without O_DIRECT have no delegations either.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => File::open(path)?,
            Err(error) => return Err(error),
        };
        Ok(Box::new(Reading(file)))
    }
    #[expect(clippy::disallowed_methods, reason = "this is storage's file system: it adds the rule for resent replies")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.attributes(to).is_ok() => Ok(()),
            result => result,
        }
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if keeps_names_by_itself(from.parent().unwrap_or(from)).unwrap_or(false) && protects_hard_links() {
            // The kernel asks the server whether we may read and write the file, and does so while nobody else can link into the folder. What it is told
            // before, it does not ask again: so the round trips of several links go on at once. Whatever the answer is, the link says it.
            rustix::fs::access(from, Access::READ_OK | Access::WRITE_OK).unwrap_or_default();
        }
        match fs::hard_link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }
    fn remove_file(&self, path: &Path) -> io::Result<bool> {
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        // An empty one is one request.
        let removed = match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => fs::remove_dir_all(path),
            result => result,
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
    fn each_entry(&self, folder: &Path, wanted: &dyn Fn(&str) -> bool, visit: &mut dyn FnMut(Listed<'_>)) -> io::Result<()> {
        let opened = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Asking for the attributes makes the client drop a listing that is out of date. Of the open folder: opening asks as well, unless the folder was
        // never seen before, and then one request is enough.
        attributes(opened.as_fd(), Path::new(""), AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC)?;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut listing = RawDir::new(&opened, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let is_folder = match entry.file_type() {
                // NFS does not always say in a listing. Only mailboxes' folders begin with a dot; asking about every message would be a request each.
                FileType::Unknown if name.starts_with('.') => fs::symlink_metadata(folder.join(name)).ok().map(|found| found.is_dir()),
                FileType::Unknown => None,
                kind => Some(kind.is_dir()),
            };
            let found = wanted(name).then(|| attributes(opened.as_fd(), Path::new(name), AtFlags::empty()));
            if let Some(Err(error)) = &found
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %folder.join(name).display(), %error, "a file's size and date can't be asked for");
            }
            visit(Listed { name, is_folder, attributes: found.and_then(Result::ok) });
        }
        Ok(())
    }
    fn attributes(&self, path: &Path) -> io::Result<Attributes> {
        attributes(CWD, path, AtFlags::STATX_FORCE_SYNC)
    }
    fn is_remote(&self, folder: &Path) -> bool {
        keeps_names_by_itself(folder).unwrap_or(false)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Opening a folder that was just changed is a request.
        if keeps_names_by_itself(folder)? {
            return Ok(());
        }
        File::open(folder)?.sync_all()
    }
}

fn attributes(folder: BorrowedFd<'_>, path: &Path, how: AtFlags) -> io::Result<Attributes> {
    let stat = rustix::fs::statx(folder, path, how, StatxFlags::BASIC_STATS)?;
    let nanoseconds = |seconds: i64, rest: u32| seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(rest));
    Ok(Attributes {
        size: stat.stx_size,
        modified: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        changed: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    })
}

/// Whether the kernel lets nobody link to what they can't write (`fs.protected_hardlinks`); read once.
fn protects_hard_links() -> bool {
    static PROTECTS: OnceLock<bool> = OnceLock::new();
    *PROTECTS.get_or_init(|| fs::read("/proc/sys/fs/protected_hardlinks").is_ok_and(|said| said.starts_with(b"1")))
}

/// Whether the file system made a rename durable before it answered: NFS does. Asked once per mount; costs no request after that.
fn keeps_names_by_itself(folder: &Path) -> io::Result<bool> {
    static MOUNTS: Mutex<BTreeMap<(u32, u32), bool>> = Mutex::new(BTreeMap::new());
    let stat = rustix::fs::statx(CWD, folder, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)?;
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    if let Some(known) = MOUNTS.lock().get(&device) {
        return Ok(*known);
    }
    let is_nfs = u64::try_from(rustix::fs::statfs(folder)?.f_type).is_ok_and(|magic| magic == NFS_MAGIC);
    MOUNTS.lock().insert(device, is_nfs);
    Ok(is_nfs)
}

#[cfg(test)]
mod tests {
    use super::{super::Entry, *};

    #[test]
    fn a_rename_whose_reply_was_lost_counts_as_done() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&to, b"moved by the request whose reply was lost").unwrap();
        Shared.rename(&from, &to).unwrap();
        std::fs::remove_file(&to).unwrap();
        assert_eq!(Shared.rename(&from, &to).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_are_read_at_any_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message");
        let mut file = Shared.create(&path).unwrap();
        file.write(b"hello").unwrap();
        file.finish().unwrap();
        let file = Shared.open(&path).unwrap();
        let mut buffer = [0; 7];
        assert_eq!(file.read_at(1, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"ello");
        assert_eq!(file.length().unwrap(), 5);
        assert_eq!(Shared.list(folder.path()).unwrap(), [Entry { name: "message".into(), is_folder: Some(false) }]);
    }
}
