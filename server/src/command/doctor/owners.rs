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
use rustix::fs::{Access, access};

use crate::config::Config;

const READ: u32 = 0o4;
const READ_WRITE: u32 = 0o6;
/// A folder that is listed, and whose names change.
const ALL: u32 = 0o7;
/// To go through a folder.
const SEARCH: u32 = 0o1;
/// Folders looked at in each of `settings/` and `leases/`: there are as many as nodes, and 256.
const LOOKED_AT_MAX: usize = 10_000;

/// Whom nodes run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    /// The group of the shared directory, for what is to be given away.
    gid: u32,
    /// All that it is in, as this host knows it.
    groups: Vec<u32>,
}

impl Account {
    /// Whoever the shared directory belongs to.
    pub fn of(root: &Path) -> io::Result<Account> {
        let root = fs::metadata(root)?;
        let (passwd, group) = (fs::read_to_string("/etc/passwd").unwrap_or_default(), fs::read_to_string("/etc/group").unwrap_or_default());
        // A directory service may know it: then all that is known is the directory's group.
        let groups = groups_of(&passwd, &group, root.uid()).unwrap_or_else(|| vec![root.gid()]);
        Ok(Account { uid: root.uid(), gid: root.gid(), groups })
    }

    /// Whether this process runs as it.
    pub fn is_this(&self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid
    }

    /// As people know it.
    pub fn name(&self) -> String {
        let named = |list: String| entry_of(&list, self.uid).and_then(|line| line.split(':').next()).map(str::to_owned);
        fs::read_to_string("/etc/passwd").ok().and_then(named).unwrap_or_else(|| format!("uid {}", self.uid))
    }

    /// What is to be done where it lacks one of the rights `wanted` (rwx); `None`: it has them, or nothing is there.
    fn lacks(&self, path: &Path, wanted: u32) -> Option<String> {
        let there = match fs::metadata(path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(format!("can't look at {}: {error}", path.display())),
        };
        let (uid, gid, mode) = (there.uid(), there.gid(), there.mode());
        let may = if self.is_this() {
            // The system knows best: lists of rights, read-only mounts, and what the file server makes of this user.
            access(path, Access::from_bits_truncate(wanted)).is_ok()
        } else {
            let rights = if self.uid == uid {
                mode >> 6
            } else if self.groups.contains(&gid) {
                mode >> 3
            } else {
                mode
            };
            self.uid == 0 || rights & wanted == wanted
        };
        if may {
            return None;
        }
        let what = format!(
            "{} belongs to uid {uid}, gid {gid} (mode {:04o}): nodes, which run as {}, can't",
            path.display(),
            mode & 0o7777,
            self.name()
        );
        Some(if wanted == SEARCH {
            format!("{what} get to what is below; `chmod o+x {}`", path.display())
        } else {
            format!("{what} use it; `chown -R {}:{} {}`", self.uid, self.gid, path.display())
        })
    }

    /// The folders above `path` that it can't go through.
    fn barred_from(&self, path: &Path) -> Vec<String> {
        path.ancestors().skip(1).filter_map(|folder| self.lacks(folder, SEARCH)).collect()
    }
}

/// The line of a user in `/etc/passwd`.
fn entry_of(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid))
}

/// The groups of a user, as `/etc/passwd` and `/etc/group` have them; `None`: they don't know the user.
fn groups_of(passwd: &str, group: &str, uid: u32) -> Option<Vec<u32>> {
    let mut entry = entry_of(passwd, uid)?.split(':');
    let name = entry.next()?;
    let own: u32 = entry.nth(2)?.parse().ok()?;
    let is_member = |line: &&str| line.split(':').nth(3).is_some_and(|members| members.split(',').any(|member| member == name));
    let others = group.lines().filter(is_member).filter_map(|line| line.split(':').nth(2)?.parse().ok());
    Some(std::iter::once(own).chain(others).collect())
}

/// What on the shared directory the nodes' account can't use.
pub fn of_cluster(root: &Root) -> anyhow::Result<Vec<String>> {
    let path = root.path();
    let account = Account::of(path).with_context(|| format!("can't look at {}", path.display()))?;
    let mut wrong = account.barred_from(path);
    wrong.extend([NODES, FENCED, INFO, SETTINGS, LEASES].iter().filter_map(|name| account.lacks(&path.join(name), ALL)));
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
        wrong.extend(account.barred_from(&file));
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
        let others = Account { uid: 4242, gid: 4343, groups: vec![4343] };
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
        assert_eq!(Account { uid: 0, gid: 0, groups: vec![0] }.lacks(&settings, ALL), None);
        // Its group may use it: one of several.
        let own = fs::metadata(&settings).unwrap().gid();
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(others.lacks(&settings, ALL).is_some());
        assert_eq!(Account { groups: vec![4343, own], ..others.clone() }.lacks(&settings, ALL), None);
        // A folder above that nobody else may enter.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let said = others.barred_from(&users);
        assert!(said.len() == 1 && said[0].contains("chmod o+x"), "{said:?}");
    }

    #[test]
    fn the_groups_of_an_account_are_those_of_the_host() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nberth:x:900:901::/nonexistent:/usr/sbin/nologin\n";
        let group = "root:x:0:\nberth:x:901:\nmail:x:8:postfix,berth\nstaff:x:50:berthold\n";
        assert_eq!(groups_of(passwd, group, 900), Some(vec![901, 8]));
        assert_eq!(groups_of(passwd, group, 902), None);
    }
}
