//! Who shares what: for each user who shares mailboxes one small file in a folder of the shared directory, so that LIST asks nobody's holder.
//!
//! `<user>,<epoch>.<n>` has a line `berth-shares 1`, then for each shared mailbox a line: its name, then a tab and an entry of its ACL for each. A file
//! is written whole under a name that was never used, and never changed: no reader, on whatever node, sees an old or half one, since names come from a
//! fresh listing and the highest epoch and number count. What a dead holder writes late has a lower epoch. Only the user's holder writes it, before it
//! acknowledges a change; it is a copy of the `dovecot-acl` files, and whoever opens the account puts it right (`hierarchy/acls.rs`).
//!
//! Invariants, each with the test that guards it:
//! - the newest file of each user counts (`the_newest_file_of_each_user_counts`)
//! - what can't be understood shares nothing (`any_file_is_read_or_refused`)

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use affinity::{Epoch, UserName};
use parking_lot::Mutex;

use crate::{
    Acl, MailboxName,
    filesystem::{Entry, Filesystem, Shared, create_folders, read_small, remove_quietly},
};

/// The folder, below the root of the shared directory.
pub const FOLDER: &str = "sharing";
/// Longest file that is read or written: ten thousand mailboxes of a few entries.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
const HEADER: &str = "berth-shares 1\n";
/// A file on its way begins with it: no user's name does.
const WRITING: char = '~';

/// What one user shares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares(pub BTreeMap<MailboxName, Acl>);

impl Shares {
    pub(crate) fn print(&self) -> String {
        let mut file = HEADER.to_owned();
        for (name, acl) in &self.0 {
            let entries: String = acl.print().lines().map(|line| format!("\t{line}")).collect();
            file.push_str(&format!("{name}{entries}\n"));
        }
        file
    }
    pub(crate) fn parse(file: &str) -> Option<Shares> {
        let lines = file.strip_prefix(HEADER)?.lines().map(|line| {
            let (name, entries) = line.split_once('\t').unwrap_or((line, ""));
            let name = MailboxName::parse(name).ok()?;
            Some((name, Acl::parse(&entries.replace('\t', "\n")).ok()?))
        });
        lines.collect::<Option<_>>().map(Shares)
    }
}

/// Which of a user's files; the highest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    epoch: Epoch,
    number: u64,
}

fn file_name(user: &UserName, version: Version) -> String {
    format!("{},{}.{}", user.encoded(), version.epoch.0, version.number)
}
fn read_name(name: &str) -> Option<(UserName, Version)> {
    let (user, version) = name.rsplit_once(',')?;
    let (epoch, number) = version.split_once('.')?;
    let version = Version { epoch: Epoch(epoch.parse().ok()?), number: number.parse().ok()? };
    Some((UserName::from_encoded(user).ok()?, version))
}

/// What everybody shares, by user.
pub type AllShares = Vec<(UserName, Arc<Shares>)>;

/// The folder as everybody reads it.
#[derive(Debug)]
pub struct SharesFolder {
    path: PathBuf,
    /// Files never change: what was read of one holds.
    read: Mutex<HashMap<UserName, (Version, Arc<Shares>)>>,
}

/// How often the folder is listed while its files are replaced.
const LISTINGS_MAX: usize = 5;

impl SharesFolder {
    /// The folder below `root`.
    pub fn new(root: &Path) -> SharesFolder {
        SharesFolder { path: root.join(FOLDER), read: Mutex::default() }
    }
    /// What everybody shares now. One listing, and one reading for each file that is new. Blocking.
    pub fn all(&self) -> io::Result<AllShares> {
        for _ in 0..LISTINGS_MAX {
            if let Some(all) = self.try_all()? {
                return Ok(all);
            }
        }
        Err(io::Error::other("what users share changes faster than it can be read"))
    }
    /// `None`: a file was replaced after the listing.
    fn try_all(&self) -> io::Result<Option<AllShares>> {
        let entries = match Shared.list(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
            entries => entries?,
        };
        let mut newest: BTreeMap<UserName, Version> = BTreeMap::new();
        for (user, version) in entries.iter().filter_map(|entry| read_name(&entry.name)) {
            let known = newest.entry(user).or_insert(version);
            *known = version.max(*known);
        }
        let known = self.read.lock().clone();
        let mut all = HashMap::with_capacity(newest.len());
        for (user, version) in newest {
            let shares = match known.get(&user).filter(|(read, _)| *read == version) {
                Some((_, shares)) => Arc::clone(shares),
                None => match self.read(&user, version)? {
                    Some(shares) => Arc::new(shares),
                    None => return Ok(None),
                },
            };
            all.insert(user, (version, shares));
        }
        let mut sorted: Vec<_> = all.iter().map(|(user, (_, shares))| (user.clone(), Arc::clone(shares))).collect();
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        *self.read.lock() = all;
        Ok(Some(sorted))
    }
    fn read(&self, user: &UserName, version: Version) -> io::Result<Option<Shares>> {
        let name = file_name(user, version);
        let content = read_small(&Shared, &self.path.join(&name), FILE_BYTES_MAX)?;
        let shares = content.map(|content| std::str::from_utf8(&content).ok().and_then(Shares::parse));
        if shares == Some(None) {
            tracing::warn!(file = name, "what this user shares can't be understood: `berth index rebuild` of the user writes it anew");
        }
        Ok(shares.map(Option::unwrap_or_default))
    }
}

/// One user's file, in the hands of their holder.
#[derive(Debug)]
pub(crate) struct OwnShares {
    folder: PathBuf,
    user: UserName,
    epoch: Epoch,
    /// The newest that is there.
    newest: Option<Version>,
    /// Files that are there, the newest among them, and what was left on its way.
    there: Vec<String>,
    /// What the newest says; `None`: there is none, or it can't be understood.
    pub published: Option<Shares>,
}

impl OwnShares {
    /// Looks at what is there.
    pub fn open(filesystem: &dyn Filesystem, folder: &Path, user: &UserName, epoch: Epoch) -> io::Result<OwnShares> {
        let entries = match filesystem.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries?,
        };
        let mine = |entry: &Entry| {
            let on_its_way = entry.name.strip_prefix(WRITING).is_some_and(|rest| rest.starts_with(&format!("{},", user.encoded())));
            on_its_way || read_name(&entry.name).is_some_and(|(whose, _)| whose == *user)
        };
        let there: Vec<String> = entries.into_iter().filter(mine).map(|entry| entry.name).collect();
        let newest = there.iter().filter_map(|name| read_name(name)).map(|(_, version)| version).max();
        let content = match newest {
            Some(version) => read_small(filesystem, &folder.join(file_name(user, version)), FILE_BYTES_MAX)?,
            None => None,
        };
        let published = content.and_then(|content| String::from_utf8(content).ok()).and_then(|content| Shares::parse(&content));
        Ok(OwnShares { folder: folder.to_owned(), user: user.clone(), epoch, newest, there, published })
    }
    /// Publishes what the user shares now, durably, unless that is known already. `scratch`: a name that nothing else has.
    pub fn publish(&mut self, filesystem: &dyn Filesystem, shares: Shares, scratch: &str) -> io::Result<()> {
        let said = self.published.as_ref();
        if said == Some(&shares) || (said.is_none() && self.newest.is_none() && shares.0.is_empty()) {
            return Ok(());
        }
        let content = shares.print();
        if content.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("what the user shares takes more than {FILE_BYTES_MAX} bytes")));
        }
        let epoch = self.newest.map_or(self.epoch, |newest| newest.epoch.max(self.epoch));
        let number = self.newest.filter(|newest| newest.epoch == epoch).map_or(1, |newest| newest.number.saturating_add(1));
        let (version, scratch) = (Version { epoch, number }, format!("{WRITING}{},{scratch}", self.user.encoded()));
        let name = file_name(&self.user, version);
        create_folders(filesystem, &self.folder)?;
        // Whatever comes of it, the name is used, and nobody knows what is published.
        self.newest = Some(version);
        self.published = None;
        let scratch = self.folder.join(scratch);
        let written = (|| {
            let mut file = filesystem.create(&scratch)?;
            file.write(content.as_bytes())?;
            file.finish()?;
            filesystem.rename(&scratch, &self.folder.join(&name))?;
            filesystem.sync_folder(&self.folder)
        })();
        if written.is_err() {
            remove_quietly(filesystem, &scratch);
            return written;
        }
        self.published = Some(shares);
        for older in std::mem::replace(&mut self.there, vec![name.clone()]).into_iter().filter(|older| *older != name) {
            remove_quietly(filesystem, &self.folder.join(older));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(name: &str) -> UserName {
        UserName::normalise(name).unwrap()
    }
    fn shares(mailboxes: &[(&str, &str)]) -> Shares {
        Shares(mailboxes.iter().map(|(name, acl)| (MailboxName::parse(name).unwrap(), Acl::parse(acl).unwrap())).collect())
    }

    #[test]
    fn the_newest_file_of_each_user_counts() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        let everybody = SharesFolder::new(root.path());
        assert_eq!(everybody.all().unwrap(), []);
        let own = |name: &str, epoch| OwnShares::open(&Shared, &folder, &user(name), Epoch(epoch)).unwrap();
        let mut ada = own("ada@example.org", 3);
        ada.publish(&Shared, Shares::default(), "s").unwrap();
        assert!(!folder.exists(), "whoever shares nothing needs no file");
        let (one, two) = (shares(&[("Work", "anyone lr")]), shares(&[("Work/a b", "user=bob lr\ngroup=x l")]));
        for (number, shares) in [&one, &two, &one].into_iter().enumerate() {
            ada.publish(&Shared, shares.clone(), &format!("s{number}")).unwrap();
            own("bob", 1).publish(&Shared, two.clone(), "b").unwrap();
            assert_eq!(
                everybody.all().unwrap(),
                [(user("ada@example.org"), Arc::new(shares.clone())), (user("bob"), Arc::new(two.clone()))]
            );
        }
        let names = || {
            let mut names: Vec<String> = Shared.list(&folder).unwrap().into_iter().map(|entry| entry.name).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["ada@example.org,3.3", "bob,1.1"]);
        // What a dead holder wrote late counts for nothing, and goes.
        std::fs::write(folder.join("ada@example.org,2.9"), two.print()).unwrap();
        std::fs::write(folder.join("~ada@example.org,left"), "x").unwrap();
        assert_eq!(*everybody.all().unwrap()[0].1, one);
        let mut next = own("ada@example.org", 4);
        assert_eq!(next.published.as_ref(), Some(&one));
        next.publish(&Shared, Shares::default(), "s").unwrap();
        assert_eq!(names(), ["ada@example.org,4.1", "bob,1.1"]);
        assert_eq!(*everybody.all().unwrap()[0].1, Shares::default());
        // One that is broken shares nothing, and is written anew.
        std::fs::write(folder.join("ada@example.org,4.2"), "rubbish").unwrap();
        assert_eq!(*everybody.all().unwrap()[0].1, Shares::default());
        own("ada@example.org", 4).publish(&Shared, Shares::default(), "s").unwrap();
        assert_eq!(names(), ["ada@example.org,4.3", "bob,1.1"]);
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(file in "(berth-shares 1\n)?([a-z=\t\n ]|.){0,60}") {
            if let Some(shares) = Shares::parse(&file) {
                prop_assert_eq!(Shares::parse(&shares.print()), Some(shares));
            }
        }
    }
}
