//! Whose a file on the shared directory is that root makes: nodes run as an account of their own, operators often as root.
//!
//! Invariant: what root makes belongs to whoever its folder belongs to (`what_root_makes_belongs_to_the_owner_of_its_folder`).

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

/// Gives a file or folder that this process has just made to the owner and group of its folder, if this process is root. Others can't, and need not.
pub fn follow_folder(made: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let folder = made.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (folder, own) = (fs::metadata(folder)?, fs::symlink_metadata(made)?);
    if (folder.uid(), folder.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    lchown(made, Some(folder.uid()), Some(folder.gid())).map_err(|error| {
        let text = format!(
            "{} would not belong to the owner of its folder (uid {}), and nodes could not read it: {error}; run this as that user",
            made.display(),
            folder.uid()
        );
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
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
        // A node that runs as root shares its files with nobody.
        MountedDirectory::new(folder.path()).unwrap().create("settings/own").unwrap();
        assert_eq!(owner(&folder.path().join("settings/own")), (0, 0));
    }
}
