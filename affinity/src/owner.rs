//! Whose a file on the shared directory is that root makes: nodes run as an account of their own, operators often as root.
//!
//! Invariants: what root makes belongs to whoever its folder belongs to, and what others put in its place is left alone
//! (`what_root_makes_belongs_to_the_owner_of_its_folder`).

use std::{
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat};

/// Gives a file or folder that this process has just made, by its path, to the owner and group of its folder, if this process is root. Others can't, and need not.
pub fn follow_folder(made: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // No file is opened by this: nothing is delegated. What has taken its place meanwhile is not followed.
    let open = openat(CWD, made, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    follow_folder_of(&open, made)
}

/// The same for a file that is open: whatever has its name by now, this is the one that is given away.
pub fn follow_folder_of(made: impl AsFd, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (folder, own) = (fs::metadata(folder)?, fstat(&made)?);
    if (folder.uid(), folder.gid()) == (own.st_uid, own.st_gid) {
        return Ok(());
    }
    let kind = FileType::from_raw_mode(own.st_mode);
    if own.st_uid != 0 {
        let text = format!(
            "{} belongs to uid {} (root squashed by the file server, or replaced): run this as that user",
            path.display(),
            own.st_uid
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if kind.is_symlink() || (kind.is_file() && own.st_nlink != 1) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} was replaced while it was made", path.display())));
    }
    let (user, group) = (Uid::from_raw(folder.uid()), Gid::from_raw(folder.gid()));
    chownat(&made, "", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(|error| {
        let error = io::Error::from(error);
        let text = format!(
            "{} would not belong to the owner of its folder (uid {}), and nodes could not read it: {error}; run this as that user",
            path.display(),
            folder.uid()
        );
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::lchown;

    use super::*;
    use crate::{
        Root, Timings,
        swap::{MountedDirectory, SharedDirectory},
    };

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_its_folder() {
        // Nobody else can give files away, and then nothing is to be done.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        lchown(folder.path(), Some(4242), Some(4343)).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).map(|made| (made.uid(), made.gid())).unwrap();
        let root = Root::init(folder.path(), &Timings::default()).unwrap();
        for name in ["berth.toml", "settings", "leases", "nodes"] {
            assert_eq!(owner(&folder.path().join(name)), (4242, 4343), "{name}");
        }
        let node = "a".parse().unwrap();
        root.set(&node, "weight", "50").unwrap();
        root.pin(&crate::UserName::normalise("ada").unwrap(), Some(&node)).unwrap();
        for name in ["settings/a", "settings/users"] {
            let made = folder.path().join(name);
            assert_eq!(owner(&made), (4242, 4343), "{name}");
            assert!(fs::read_dir(&made).unwrap().all(|inside| owner(&inside.unwrap().path()) == (4242, 4343)), "in {name}");
        }
        // What somebody else put in the place of what was made is left alone.
        let (secret, made) = (folder.path().join("secret"), folder.path().join("made"));
        fs::write(&secret, "").unwrap();
        fs::hard_link(&secret, &made).unwrap();
        assert!(follow_folder(&made).is_err());
        fs::remove_file(&made).unwrap();
        std::os::unix::fs::symlink(&secret, &made).unwrap();
        assert!(follow_folder(&made).is_err());
        assert_eq!(owner(&secret), (0, 0));
        // As a file server does that takes root for somebody else.
        let squashed = folder.path().join("squashed");
        fs::write(&squashed, "").unwrap();
        lchown(&squashed, Some(65_534), None).unwrap();
        let said = follow_folder(&squashed).unwrap_err().to_string();
        assert!(said.contains("belongs to uid 65534") && said.contains("run this as that user"), "{said}");
        // A node that runs as root shares its files with nobody.
        MountedDirectory::new(folder.path()).unwrap().create("settings/own").unwrap();
        assert_eq!(owner(&folder.path().join("settings/own")), (0, 0));
    }
}
