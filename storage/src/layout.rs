//! Where a user's mailboxes are: Maildir++ (`.Archive.2026` beside `cur/`) or `fs` (`Archive/2026/`), with INBOX and control files elsewhere if need be.
//!
//! Invariants, each with the test that guards it:
//! - a name and its folder give each other back, in both layouts (`names_are_read_back_from_their_folders_in_both_layouts`)
//! - no mailbox has a folder that something else has: `cur`, another server's files, ours (`what_has_another_meaning_is_no_mailbox`)
//! - of two folders with one name, the one that we would make is the mailbox, and the other is said (`two_folders_of_one_name_are_one_mailbox`)
//! - a tree of the other layout is never taken for an account without mail (`a_tree_of_the_other_layout_is_refused`)

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{
    MailboxName, StorageError,
    filesystem::{Entry, Filesystem},
    names::{FOLDER_BYTES_MAX, encode_utf7, read_level},
    parallel,
};

/// Deepest folder that is looked into: what no mailbox name can reach has none.
const DEPTH_MAX: usize = FOLDER_BYTES_MAX / 2;
/// Names that something else has inside a mailbox folder of the layout `fs`, in full.
const TAKEN: [&str; 6] = ["cur", "new", "tmp", "subscriptions", "maildirfolder", "maildirsize"];
/// Beginnings of such names.
const TAKEN_PREFIXES: [&str; 4] = ["berth-", "dovecot-", "dovecot.", "courier"];

/// How mailbox names become folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `.Archive.2026`: all folders beside each other in the Maildir.
    #[default]
    MaildirPlusPlus,
    /// `Archive/2026`: folders in folders, Dovecot's `LAYOUT=fs`.
    Fs,
}

impl Layout {
    /// As the settings name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Layout::MaildirPlusPlus => "maildir++",
            Layout::Fs => "fs",
        }
    }
    /// The folder of a mailbox, below the Maildir; empty: INBOX. An error: this layout can't hold the name.
    pub(crate) fn folder(self, name: &MailboxName) -> Result<String, StorageError> {
        let refuse = |why: &str| Err(StorageError::BadName(why.to_owned()));
        match self {
            Layout::MaildirPlusPlus if name.as_str().contains('.') => refuse("it has a \".\", which separates levels on disk"),
            Layout::MaildirPlusPlus => Ok(name.to_folder()),
            Layout::Fs if name.is_inbox() => Ok(String::new()),
            Layout::Fs => {
                let levels: Vec<String> = name.as_str().split('/').map(encode_utf7).collect();
                if levels.iter().any(|level| is_taken(level)) {
                    return refuse("it has a level that has another meaning on disk");
                }
                Ok(levels.join("/"))
            }
        }
    }
    /// The mailbox in a folder; `None`: the folder of no mailbox.
    pub(crate) fn name(self, folder: &str) -> Option<MailboxName> {
        match self {
            Layout::MaildirPlusPlus => MailboxName::from_folder(folder),
            Layout::Fs if folder.is_empty() => Some(MailboxName::inbox()),
            Layout::Fs => {
                let levels: Vec<String> = folder.split('/').map(read_level).collect::<Option<_>>()?;
                // A slash inside a level can only come from modified UTF-7, and no folder has it.
                let name = MailboxName::parse(&levels.join("/")).ok().filter(|name| !name.is_inbox())?;
                (levels.len() == name.as_str().split('/').count()).then_some(name)
            }
        }
    }
}

impl FromStr for Layout {
    type Err = String;
    fn from_str(text: &str) -> Result<Layout, String> {
        [Layout::MaildirPlusPlus, Layout::Fs].into_iter().find(|layout| layout.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no layout: maildir++ (folders named .Archive.2026) or fs (folders in folders, Dovecot's LAYOUT=fs)")
        })
    }
}

fn is_taken(level: &str) -> bool {
    level.starts_with('.') || TAKEN.contains(&level) || TAKEN_PREFIXES.iter().any(|prefix| level.starts_with(prefix))
}

/// Where one user's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPaths {
    /// `…/<user>/Maildir`.
    pub maildir: PathBuf,
    /// `…/<user>/index`, which holds one folder per epoch.
    pub index: PathBuf,
    /// Where an earlier server kept its control files (lists of UIDs, keywords, subscriptions), if not in the Maildir; only read.
    pub control: Option<PathBuf>,
    /// INBOX, if it is not the Maildir itself.
    pub inbox: Option<PathBuf>,
    /// Where folders are in the Maildir.
    pub layout: Layout,
    /// Where it is published what the user shares with others (`shares.rs`), the same for all users; `None`: mailboxes are not shared.
    pub shares: Option<PathBuf>,
}

impl AccountPaths {
    /// Maildir++, with everything in the Maildir.
    pub fn new(maildir: PathBuf, index: PathBuf) -> AccountPaths {
        AccountPaths { maildir, index, control: None, inbox: None, layout: Layout::default(), shares: None }
    }
    /// The folder of INBOX.
    pub fn inbox(&self) -> &Path {
        self.inbox.as_deref().unwrap_or(&self.maildir)
    }
    /// Where a mailbox lies; `folder` is below the Maildir, empty for INBOX.
    pub(crate) fn folder(&self, folder: &str) -> PathBuf {
        if folder.is_empty() { self.inbox().to_owned() } else { self.maildir.join(folder) }
    }
    /// Where an earlier server kept the control files of a mailbox: Dovecot gives INBOX a folder of its own there.
    pub(crate) fn control_of(&self, folder: &str) -> Option<PathBuf> {
        let inbox = match self.layout {
            Layout::MaildirPlusPlus => ".INBOX",
            Layout::Fs => "INBOX",
        };
        Some(self.control.as_deref()?.join(if folder.is_empty() { inbox } else { folder }))
    }
}

/// The folders of a Maildir.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// Those of mailboxes, without INBOX, by folder.
    pub mailboxes: Vec<(String, MailboxName)>,
    /// What has messages, but can't be a mailbox.
    pub problems: Vec<String>,
}

/// Every mailbox but INBOX. `entries`: the listing of the Maildir.
pub(crate) fn find(filesystem: &dyn Filesystem, paths: &AccountPaths, entries: &[Entry], at_once: usize) -> io::Result<Folders> {
    let mut found = Folders::default();
    match paths.layout {
        Layout::MaildirPlusPlus => {
            for entry in entries.iter().filter(|entry| entry.is_folder != Some(false) && entry.name.starts_with('.')) {
                match MailboxName::from_folder(&entry.name).filter(|name| !name.is_inbox()) {
                    Some(name) => found.mailboxes.push((entry.name.clone(), name)),
                    None => found.refuse(paths, &entry.name),
                }
            }
        }
        Layout::Fs => {
            let mut level = below("", entries);
            let mut depth = 0;
            while !level.is_empty() && depth < DEPTH_MAX {
                let listings = parallel::for_each(at_once, &level, |folder| match filesystem.list(&paths.maildir.join(folder)) {
                    Ok(entries) => Ok(Some(entries)),
                    // Some file systems don't say in a listing what is a folder.
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => Ok(None),
                    Err(error) => Err(error),
                });
                let mut next = Vec::new();
                for (folder, entries) in level.into_iter().zip(listings) {
                    let Some(entries) = entries? else { continue };
                    next.extend(below(&folder, &entries));
                    if !has_messages(&entries) || paths.maildir.join(&folder) == paths.inbox() {
                        continue;
                    }
                    match paths.layout.name(&folder) {
                        Some(name) => found.mailboxes.push((folder, name)),
                        None => found.refuse(paths, &folder),
                    }
                }
                level = next;
                depth += 1;
            }
        }
    }
    found.refuse_second_spellings(paths);
    Ok(found)
}

impl Folders {
    /// A name can be spelled in several ways: decomposed letters, plain UTF-8.
    fn refuse_second_spellings(&mut self, paths: &AccountPaths) {
        let usual = |folder: &str, name: &MailboxName| paths.layout.folder(name).is_ok_and(|usual| usual == folder);
        self.mailboxes.sort_by(|(a, a_name), (b, b_name)| (a_name, !usual(a, a_name), a).cmp(&(b_name, !usual(b, b_name), b)));
        let mut mailboxes: Vec<(String, MailboxName)> = Vec::with_capacity(self.mailboxes.len());
        for (folder, name) in std::mem::take(&mut self.mailboxes) {
            match mailboxes.last().filter(|(_, last)| *last == name) {
                Some((first, _)) => self.problems.push(format!(
                    "{} is a second folder of the mailbox {name}, which is {first}: it stays where it is; give it another name",
                    paths.maildir.join(&folder).display()
                )),
                None => mailboxes.push((folder, name)),
            }
        }
        self.mailboxes = mailboxes;
    }
    fn refuse(&mut self, paths: &AccountPaths, folder: &str) {
        self.problems.push(format!("{} is the name of no mailbox: it stays where it is", paths.maildir.join(folder).display()));
    }
}

/// Folders of the layout `fs` that may be mailboxes or have some below.
fn below(folder: &str, entries: &[Entry]) -> Vec<String> {
    let may_be = entries.iter().filter(|entry| entry.is_folder != Some(false) && !is_taken(&entry.name));
    may_be.map(|entry| if folder.is_empty() { entry.name.clone() } else { format!("{folder}/{}", entry.name) }).collect()
}

fn has_messages(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.name == "cur" && entry.is_folder != Some(false))
}

/// What the tree says against the setting: the folders of the other layout that have messages, where there are none of this one. Costs nothing where
/// there is no such folder.
pub(crate) fn contradiction(
    filesystem: &dyn Filesystem,
    paths: &AccountPaths,
    entries: &[Entry],
    found: &Folders,
) -> io::Result<Option<String>> {
    if !found.mailboxes.is_empty() {
        return Ok(None);
    }
    let is_other = |entry: &&Entry| match paths.layout {
        Layout::MaildirPlusPlus => !is_taken(&entry.name),
        Layout::Fs => MailboxName::from_folder(&entry.name).is_some_and(|name| !name.is_inbox()),
    };
    for entry in entries.iter().filter(|entry| entry.is_folder != Some(false)).filter(is_other) {
        let folder = paths.maildir.join(&entry.name);
        let listing = match filesystem.list(&folder) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => continue,
            listing => listing?,
        };
        if has_messages(&listing) && folder != paths.inbox() {
            let other = match paths.layout {
                Layout::MaildirPlusPlus => Layout::Fs,
                Layout::Fs => Layout::MaildirPlusPlus,
            };
            return Ok(Some(format!(
                "{} is a mailbox of the layout {}, and there is none of the layout {}: set `mail.layout = \"{}\"`, or move that folder away",
                folder.display(),
                other.as_str(),
                paths.layout.as_str(),
                other.as_str()
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> MailboxName {
        MailboxName::parse(text).unwrap()
    }

    proptest! {
        #[test]
        fn names_are_read_back_from_their_folders_in_both_layouts(text in "[a-cé日😀&./ -]{1,20}|.{0,30}") {
            if let Ok(name) = MailboxName::parse(&text) {
                for layout in [Layout::MaildirPlusPlus, Layout::Fs] {
                    if let Ok(folder) = layout.folder(&name) {
                        prop_assert_eq!(layout.name(&folder), Some(name.clone()));
                        prop_assert!(!folder.starts_with('/') && !folder.split('/').any(|level| level == ".." || level == "."));
                    }
                }
            }
        }
        #[test]
        fn any_folder_name_is_taken_or_refused(folder in any::<String>()) {
            if let Some(name) = Layout::Fs.name(&folder) {
                prop_assert!(MailboxName::parse(name.as_str()).is_ok());
            }
        }
    }

    #[test]
    fn folders_of_fs_are_those_of_dovecot() {
        for (mailbox, folder) in
            [("INBOX", ""), ("INBOX/Work", "INBOX/Work"), ("Archive/20.26", "Archive/20.26"), ("Entwürfe/&", "Entw&APw-rfe/&-")]
        {
            assert_eq!(Layout::Fs.folder(&name(mailbox)).unwrap(), folder);
            assert_eq!(Layout::Fs.name(folder), Some(name(mailbox)));
        }
        assert!(Layout::MaildirPlusPlus.folder(&name("Archive/20.26")).unwrap_err().to_string().contains("\".\""));
        assert_eq!(Layout::Fs.name("Entwürfe"), Some(name("Entwürfe")), "as Dovecot with UTF-8 writes it");
        for folder in ["INBOX", "inbox", "a//b", "&AC8-"] {
            assert_eq!(Layout::Fs.name(folder), None, "{folder}");
        }
    }

    #[test]
    fn what_has_another_meaning_is_no_mailbox() {
        for taken in ["cur", "a/new", "tmp/x", "subscriptions", "berth-deleted,1", "a/dovecot-uidlist", "courierimapuiddb", "dovecot.index"]
        {
            assert!(Layout::Fs.folder(&name(taken)).is_err(), "{taken}");
        }
    }

    #[test]
    fn layouts_are_named_as_dovecot_names_them() {
        assert_eq!("fs".parse(), Ok(Layout::Fs));
        assert_eq!("maildir++".parse(), Ok(Layout::MaildirPlusPlus));
        assert!("FS".parse::<Layout>().unwrap_err().contains("LAYOUT=fs"));
    }
}
