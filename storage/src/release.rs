//! The way back: writes what Dovecot keeps beside the mail, from names and small files alone, and lets nobody open the account any more.
//!
//! The user must be held by nobody, closed cleanly: then names say all there is to say. First the state file of the Maildir is renamed, which makes
//! every node refuse to open the account; only then the lease is looked at. So whoever opened it before is seen, and whoever comes later sees the name.
//!
//! Invariants, each with the test that guards it:
//! - Dovecot's list says the same UIDs, UIDVALIDITY and UIDLs as Berth did, and taken over again they stay (`handed_back_and_taken_over_again_all_stays`)
//! - a damaged list makes no wrong one of Dovecot's (`what_a_damaged_list_says_is_not_handed_back`)
//! - an account that is held is left as it was (`an_account_that_is_held_is_not_handed_back`)
//! - what root hands back belongs to whom the mail belongs (`what_root_hands_back_belongs_to_the_owner_of_the_mail`)
//! - an account that was handed back is not opened (`handed_back_and_taken_over_again_all_stays`)

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use index::Uid;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};

use crate::{
    AccountPaths, MailboxName,
    adopt::DOVECOT_VALIDITY_PREFIX,
    filesystem::{Entry, Filesystem, Shared, read_small, remove_quietly},
    layout,
    maildir::{
        ceiling::{Marks, RELEASED},
        filename::{FileName, identity},
        keywords::{KEYWORDS_BYTES_MAX, KEYWORDS_FILE},
        layout::{SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_FILE, parse_subscriptions},
        uidlist::{DOVECOT_FILE, Listed, OwnList, UIDLIST_BYTES_MAX, UidList, damaged_list},
    },
    names::encode_utf7,
};

/// File operations under way at once.
const PARALLEL: usize = 16;
/// Mode of what is written: as that of mail.
const FILE_MODE: u32 = 0o600;

/// Why a user's mail is not handed back.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Nothing of ours is there.
    #[error("{} was never opened by Berth: there is nothing to hand back", .0.display())]
    NotOurs(PathBuf),
    /// Somebody works with it.
    #[error("{0}")]
    Held(String),
    /// A list of UIDs is damaged: another server would give its messages new ones.
    #[error(
        "the list of UIDs {} is damaged ({damage}): run `berth index rebuild` for the user, on a running node: it writes the list from the index. \
         If the index is lost as well, first put a copy of the list from a backup in its place under this name: otherwise the messages of its damaged lines \
         get new UIDs. Then run this again. Nothing was changed", .path.display()
    )]
    DamagedList {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        damage: String,
    },
    /// The file system said no.
    #[error("can't hand back {}: {cause}; run it again", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

/// One mailbox that was handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The mailbox.
    pub name: MailboxName,
    /// Messages in the list that was written.
    pub messages: usize,
    /// The highest MODSEQ that a client may have been told: what Dovecot must go on above.
    pub modseq: u64,
}

/// Writes `dovecot-uidlist`, keywords and subscriptions, and removes the index. `ensure_free` says whether somebody holds the user. Blocking.
pub fn to_dovecot(paths: &AccountPaths, ensure_free: impl FnOnce() -> Result<(), String>) -> Result<Vec<Released>, ReleaseError> {
    let maildir = &paths.maildir;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| ReleaseError::Io { path, cause }
    };
    let entries = match Shared.list(maildir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries.map_err(failed(maildir))?,
    };
    let inbox = paths.inbox();
    let inbox_entries = match Shared.list(inbox) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries.map_err(failed(inbox))?,
    };
    let (ours, released) = (Marks::find(&inbox_entries), Marks::find_as(RELEASED, &inbox_entries));
    let Some(marks) = ours.or(released) else { return Err(ReleaseError::NotOurs(maildir.clone())) };
    let mut folders = vec![(String::new(), MailboxName::inbox())];
    folders.extend(layout::find(&Shared, paths, &entries, PARALLEL).map_err(failed(maildir))?.mailboxes);
    for (folder, _) in &folders {
        let path = paths.folder(folder);
        if let Some((path, damage)) = damaged_list(&Shared, &path).map_err(failed(&path))? {
            return Err(ReleaseError::DamagedList { path, damage });
        }
    }
    mark_released(inbox, &inbox_entries).map_err(failed(inbox))?;
    let all_done = || {
        match index::epoch::has_work_left(&paths.index) {
        Ok(false) => Ok(()),
        Ok(true) => Err("flags are still to be written into names of files, or files to be removed: the log says which folder fails; mend it, log in once, run it again".to_owned()),
        Err(error) => Err(error.to_string()),
    }
    };
    if let Err(why) = ensure_free().and_then(|()| all_done()) {
        if ours.is_some() {
            Shared.rename(&inbox.join(marks.print_as(RELEASED)), &inbox.join(marks.print())).map_err(failed(inbox))?;
        }
        return Err(ReleaseError::Held(why));
    }

    let mut released = Vec::new();
    let mut highest_validity = 0;
    for (folder, name) in folders {
        let path = paths.folder(&folder);
        let control = paths.control_of(&folder).unwrap_or_else(|| path.clone());
        let Some((messages, marks)) = release_mailbox(&path, &control).map_err(failed(&path))? else { continue };
        highest_validity = highest_validity.max(marks.uid_validity.get());
        released.push(Released { name, messages, modseq: marks.modseq });
    }
    let control = paths.control.as_ref().unwrap_or(maildir);
    release_account(paths, control, highest_validity).map_err(failed(control))?;
    Shared.remove_folder(&paths.index).map_err(failed(&paths.index))?;
    Ok(released)
}

fn mark_released(folder: &Path, entries: &[Entry]) -> io::Result<()> {
    if let Some(marks) = Marks::find(entries) {
        Shared.rename(&folder.join(marks.print()), &folder.join(marks.print_as(RELEASED)))?;
        Shared.sync_folder(folder)?;
    }
    Ok(())
}

/// How many messages are in the list that was written, and the mailbox's numbers; `None`: it never was ours.
fn release_mailbox(folder: &Path, control: &Path) -> io::Result<Option<(usize, Marks)>> {
    let entries = Shared.list(folder)?;
    let Some(marks) = Marks::find(&entries).or_else(|| Marks::find_as(RELEASED, &entries)) else { return Ok(None) };
    let earlier = match OwnList::find(&entries) {
        Some(own) => {
            read_small(&Shared, &folder.join(own.print()), UIDLIST_BYTES_MAX)?.and_then(|file| UidList::parse_own(own, &file).ok())
        }
        None => None,
    };
    let earlier = earlier.unwrap_or_else(|| UidList::new(marks.uid_validity));
    let by_name: HashMap<&str, Uid> = earlier.messages.iter().map(|(uid, listed)| (listed.name.as_str(), *uid)).collect();

    let mut list = UidList { uid_next: marks.uid, guid: earlier.guid.clone(), ..UidList::new(marks.uid_validity) };
    for below in ["cur", "new"] {
        for entry in Shared.list(&folder.join(below))? {
            let base = FileName::parse(&entry.name).base;
            let name = identity(&entry.name);
            let Some(uid) = by_name.get(name).copied().or(base.uid).filter(|uid| uid.get() < marks.uid) else { continue };
            let before = earlier.messages.get(&uid);
            let listed = Listed {
                name: name.to_owned(),
                uidl: before.and_then(|before| before.uidl.clone()),
                // Without one of its own, Dovecot takes the name for the id: a message that has another name now keeps its id.
                guid: before.and_then(|before| before.guid.clone().or_else(|| (before.name != name).then(|| before.name.clone()))),
                others: before.map(|before| before.others.clone()).unwrap_or_default(),
                ..Listed::default()
            };
            if let Some(own) = base.own() {
                set_date(&folder.join(below).join(&entry.name), own.internal_date)?;
            }
            list.messages.insert(uid, listed);
        }
    }
    let messages = list.messages.len();
    make_control(folder, control)?;
    replace(folder, control, DOVECOT_FILE, list.print(true).as_bytes())?;
    if control != folder
        && let Some(keywords) = read_small(&Shared, &folder.join(KEYWORDS_FILE), KEYWORDS_BYTES_MAX)?
    {
        replace(folder, control, KEYWORDS_FILE, &keywords)?;
    }
    mark_released(folder, &entries)?;
    Ok(Some((messages, marks)))
}

/// Subscriptions, and Dovecot's note of the highest UIDVALIDITY.
fn release_account(paths: &AccountPaths, control: &Path, highest_validity: u32) -> io::Result<()> {
    let maildir = &paths.maildir;
    if let Some(file) = read_small(&Shared, &maildir.join(SUBSCRIPTIONS_FILE), SUBSCRIPTIONS_BYTES_MAX)? {
        replace(maildir, control, SUBSCRIPTIONS_FILE, print_subscriptions(&parse_subscriptions(&file, paths.layout)).as_bytes())?;
    }
    for entry in Shared.list(control)? {
        let noted = entry.name.strip_prefix(DOVECOT_VALIDITY_PREFIX).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if noted.is_some_and(|noted| noted < highest_validity) {
            Shared.rename(&control.join(&entry.name), &control.join(format!("{DOVECOT_VALIDITY_PREFIX}{highest_validity:08x}")))?;
        }
    }
    Ok(())
}

/// Dovecot's version 2: levels separated by tabs, whatever the separator of its namespace.
fn print_subscriptions(names: &BTreeSet<MailboxName>) -> String {
    let lines = names.iter().map(|name| name.as_str().split('/').map(encode_utf7).collect::<Vec<_>>().join("\t") + "\n");
    "V\t2\n\n".to_owned() + &lines.collect::<String>()
}

/// Replaces a small file; it belongs to whom the mailbox belongs, whoever runs this.
fn replace(folder: &Path, control: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let (path, scratch) = (control.join(name), control.join(format!("{name}.berth")));
    Shared.remove_file(&scratch)?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&scratch)?;
        // Before it has its name: no reader finds one that is not theirs.
        give(&file, folder)?;
        file.write_all(content)?;
        file.sync_all()?;
        Shared.rename(&scratch, &path)
    })();
    if written.is_err() {
        remove_quietly(&Shared, &scratch);
    }
    written?;
    Shared.sync_folder(control)
}

/// Makes a folder for control files and those above it; they belong to whom the mailbox belongs.
fn make_control(folder: &Path, control: &Path) -> io::Result<()> {
    let made = match fs::create_dir(control) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_control(folder, control.parent().ok_or(error)?)?;
            fs::create_dir(control)
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => {
            made?;
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            give(&fs::File::from(rustix::fs::open(control, flags, Mode::empty())?), folder)
        }
    }
}

/// Gives what was just made to whom `folder` belongs.
fn give(made: &fs::File, folder: &Path) -> io::Result<()> {
    let (owner, own) = (fs::metadata(folder)?, made.metadata()?);
    if (owner.uid(), owner.gid()) == (own.uid(), own.gid()) { Ok(()) } else { fchown(made, Some(owner.uid()), Some(owner.gid())) }
}

/// Dovecot takes a file's time for the INTERNALDATE.
fn set_date(path: &Path, seconds: i64) -> io::Result<()> {
    if Shared.attributes(path)?.modified.div_euclid(1_000_000_000) == seconds {
        return Ok(());
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Ok(rustix::fs::utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty())?)
}
