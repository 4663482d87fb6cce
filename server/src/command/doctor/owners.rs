//! Whether the account that nodes run as may use what is on the shared directory: somebody may have made it as root.
//!
//! That account is the owner of the shared directory (docs/install.md).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use affinity::{
    Root,
    names::{FENCED, INFO, LEASES, NODES, SETTINGS},
};
use anyhow::Context;

use crate::config::Config;

const READ: u32 = 0o4;
const READ_WRITE: u32 = 0o6;
/// A folder that is listed, and whose names change.
const ALL: u32 = 0o7;
/// Folders looked at in each of `settings/` and `leases/`: there are as many as nodes, and 256.
const LOOKED_AT_MAX: usize = 10_000;

/// Whom nodes run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Whoever the shared directory belongs to.
    pub fn of(root: &Path) -> io::Result<Account> {
        fs::metadata(root).map(|root| Account { uid: root.uid(), gid: root.gid() })
    }

    /// Whether this process runs as it.
    pub fn is_this(self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid
    }

    /// As people know it.
    pub fn name(self) -> String {
        let named = |list: String| {
            let uid = self.uid.to_string();
            list.lines().find(|line| line.split(':').nth(2) == Some(&uid)).and_then(|line| line.split(':').next()).map(str::to_owned)
        };
        fs::read_to_string("/etc/passwd").ok().and_then(named).unwrap_or_else(|| format!("uid {}", self.uid))
    }

    /// What is to be done where it lacks one of the rights `wanted` (rwx); `None`: it has them, or nothing is there.
    fn lacks(self, path: &Path, wanted: u32) -> Option<String> {
        let there = match fs::metadata(path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(format!("can't look at {}: {error}", path.display())),
        };
        let (uid, gid, mode) = (there.uid(), there.gid(), there.mode());
        let rights = if self.uid == uid {
            mode >> 6
        } else if self.gid == gid {
            mode >> 3
        } else {
            mode
        };
        if self.uid == 0 || rights & wanted == wanted {
            return None;
        }
        let Account { uid: own, gid: group } = self;
        Some(format!(
            "{} belongs to uid {uid}, gid {gid} (mode {:04o}): nodes, which run as {}, can't use it; `chown -R {own}:{group} {}`",
            path.display(),
            mode & 0o7777,
            self.name(),
            path.display()
        ))
    }
}

/// What on the shared directory the nodes' account can't use.
pub fn of_cluster(root: &Root) -> anyhow::Result<Vec<String>> {
    let path = root.path();
    let account = Account::of(path).with_context(|| format!("can't look at {}", path.display()))?;
    let mut wrong: Vec<String> =
        [NODES, FENCED, INFO, SETTINGS, LEASES].iter().filter_map(|name| account.lacks(&path.join(name), ALL)).collect();
    wrong.extend(account.lacks(&path.join("berth.toml"), READ));
    wrong.extend(account.lacks(&path.join("app-passwords"), READ));
    for folder in [root.settings(), path.join(LEASES)] {
        // What can't be listed was told above.
        let inside = fs::read_dir(&folder).into_iter().flatten().flatten().take(LOOKED_AT_MAX);
        wrong.extend(inside.map(|entry| entry.path()).filter(|path| path.is_dir()).filter_map(|path| account.lacks(&path, ALL)));
    }
    Ok(wrong)
}

/// The users files that the nodes' account can't read, or (its own, where passwords are stored anew) lock.
pub fn of_users(config: &Config) -> anyhow::Result<Vec<String>> {
    let account = Account::of(&config.node.root).with_context(|| format!("can't look at {}", config.node.root.display()))?;
    let mut wrong = Vec::new();
    for file in config.users_files() {
        wrong.extend(account.lacks(&file, READ));
        if config.auth.upgrade_weak {
            let mut lock = file.into_os_string();
            lock.push(".lock");
            wrong.extend(account.lacks(&PathBuf::from(lock), READ_WRITE));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use affinity::Timings;

    use super::*;

    #[test]
    fn what_the_nodes_account_cannot_use_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::init(folder.path(), &Timings::default()).unwrap();
        root.set(&"mail2".parse().unwrap(), "weight", "50").unwrap();
        let users = folder.path().join("users");
        fs::write(&users, "").unwrap();
        assert_eq!(of_cluster(&root).unwrap(), Vec::<String>::new());
        // Whoever runs this test is neither of the two.
        let others = Account { uid: 4242, gid: 4343 };
        let settings = folder.path().join("settings/mail2");
        for (path, mode) in [(&settings, 0o750), (&users, 0o640)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let said = others.lacks(&settings, ALL).unwrap();
        assert!(said.contains("settings/mail2 belongs to uid") && said.contains("chown -R 4242:4343"), "{said}");
        assert!(others.lacks(&users, READ).is_some());
        fs::set_permissions(&users, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(others.lacks(&users, READ), None);
        assert_eq!(others.lacks(&folder.path().join("nowhere"), READ), None);
        assert_eq!(Account { uid: 0, gid: 0 }.lacks(&settings, ALL), None);
    }
}
