//! `index/<epoch>/`: go on after a clean handover, copy after an unclean one.
//!
//! A fenced host may still have writes on their way to the files it had open, so after an unclean takeover those files are only read: database and
//! write-ahead log are copied to new files under the new epoch. The copy's database gets its name last, so a folder with `index.db` is complete.
//!
//! Invariants, each with the test that guards it:
//! - after an unclean takeover the old epoch's files are never written (`an_unclean_takeover_copies`)
//! - a half-made copy is never used (`a_half_made_copy_is_passed_over`)
//! - a damaged copy becomes an empty index, never an error (`a_damaged_index_starts_empty`)
//! - an index that can't be copied for another reason is kept (`an_index_that_cannot_be_copied_now_is_not_given_up`,
//!   `an_index_that_late_writes_go_on_changing_is_not_given_up`, `a_log_that_was_seen_is_not_taken_for_missing`)
//! - an index of an earlier epoch does not stand in for one that was being replaced (`a_replacement_that_was_interrupted_uncovers_no_earlier_index`)
//! - a log that is damaged in the middle is said (`a_log_that_is_damaged_in_the_middle_is_said`)
//! - an index that is made anew takes the place of the old one when it is complete (`a_new_index_takes_the_place_of_a_damaged_one`)
//! - an index that can't be looked at is not taken for none (`a_folder_that_cannot_be_listed_is_no_empty_one`)
//! - a root that is missing is made and looked at again: this client may only remember that it was (`an_index_that_was_remembered_as_missing_is_found`)
//!
//! What is there is known from two listings, of the root and of the newest folder: asking for each name costs as many requests as there are names.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use affinity::{Epoch, Handover, swap::list_fresh};
use rustix::{
    fs::{AtFlags, CWD, OFlags, StatxFlags},
    io::Errno,
};

use crate::{IndexError, UserIndex, ahead::ReadAhead};

/// The database in an epoch's folder.
pub(crate) const DATABASE: &str = "index.db";
const LOG: &str = "index.db-wal";
const COPY: &str = "index.db.copy";
/// An empty file that says: do not trust this index, rebuild it.
const REBUILD: &str = "rebuild";
/// What is copied at once.
const COPY_BYTES: usize = 1024 * 1024;
/// The folder of an index that is made anew beside the one that it replaces.
const ANEW: &str = "rebuilding";
/// The one that it replaced, until it is removed.
const ASIDE: &str = "replaced";
/// How often a copy is tried while late writes change its source.
const COPY_TRIES: u32 = 3;

/// A user's index, ready to use.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub index: UserIndex,
    /// It has nothing to say: rebuild it from the Maildir.
    pub empty: bool,
    /// Copied from another holder's files: what the log lacked must be looked for in the Maildir.
    pub copied: bool,
    /// The number of the folder that it came from: a holder of that epoch, or of a later one, wrote it last. `None`: there was none.
    pub written_in: Option<Epoch>,
    /// Folders of earlier epochs, to be removed in the background ([`remove_old`]).
    pub old: Vec<PathBuf>,
}

/// Opens the index under `root` (`…/<user>/index`) for the holder of `epoch`.
pub fn open(root: &Path, epoch: Epoch, handover: Handover) -> Result<Opened, IndexError> {
    open_by(&names, root, epoch, handover)
}

fn open_by(look: Look<'_>, root: &Path, epoch: Epoch, handover: Handover) -> Result<Opened, IndexError> {
    let (folders, left) = folders(look, root)?;
    let own = root.join(epoch.to_string());
    let newest = newest(look, &folders)?;
    let written_in = newest.as_ref().map(|(number, ..)| *number);
    let opened = match newest {
        // Our own folder: an earlier opening under this lease.
        Some((number, folder, found)) if number == epoch || handover == Handover::Clean => match try_open(&folder, found) {
            Ok(index) => Some((index, folder, false)),
            Err(IndexError::Busy) if number != epoch => copy_and_open(&folder, found, &own)?.map(|index| (index, own.clone(), true)),
            Err(error) if error.is_lost() => {
                tracing::warn!(index = %folder.display(), %error, "index is rebuilt from the Maildir");
                None
            }
            Err(error) => return Err(error),
        },
        Some((_, folder, found)) => copy_and_open(&folder, found, &own)?.map(|index| (index, own.clone(), true)),
        None => None,
    };
    let (index, folder, empty, copied) = match opened {
        Some((index, folder, copied)) => (index, folder, false, copied),
        None => {
            clear(&own)?;
            create_dir_all(&own)?;
            (UserIndex::open(&own)?, own, true, false)
        }
    };
    let mut old: Vec<PathBuf> = folders.into_iter().map(|(_, old)| old).filter(|old| *old != folder).collect();
    old.extend(left);
    Ok(Opened { index, empty, copied, written_in, old })
}

/// Whether the newest index under `root` says of something in the mailboxes' folders that it is still to be done. Of a user whom nobody holds.
pub fn has_work_left(root: &Path) -> Result<bool, IndexError> {
    let Some((_, folder, found)) = newest(&names, &folders(&names, root)?.0)? else { return Ok(false) };
    match try_open(&folder, found).and_then(|index| index.mailboxes_with_work()) {
        Ok(mailboxes) => Ok(!mailboxes.is_empty()),
        // It has nothing to say.
        Err(error) if error.is_lost() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says that the index in `folder` must be rebuilt at the next opening. Best effort: a damaged file is noticed then anyway.
pub fn mark_for_rebuild(folder: &Path) {
    if let Err(error) = fs::File::create(folder.join(REBUILD)) {
        tracing::warn!(index = %folder.display(), %error, "can't mark the index for rebuilding");
    }
}

/// An empty index that is filled anew while nobody uses the one of `epoch`; [`replace`] puts it in its place.
pub fn begin_anew(root: &Path) -> Result<UserIndex, IndexError> {
    let folder = root.join(ANEW);
    clear(&folder)?;
    create_dir_all(&folder)?;
    UserIndex::open(&folder)
}

/// Puts an index that is complete in the place of the one of `epoch`, which nobody has open.
pub fn replace(root: &Path, epoch: Epoch, anew: UserIndex) -> Result<UserIndex, IndexError> {
    let (from, to) = (anew.folder().to_owned(), root.join(epoch.to_string()));
    anew.close()?;
    let aside = root.join(ASIDE);
    clear(&aside)?;
    // Between the two renames a crash leaves only those of earlier epochs, which know less than the one that is replaced.
    for (_, earlier) in folders(&names, root)?.0.into_iter().filter(|(_, folder)| *folder != to) {
        fs::File::create(earlier.join(REBUILD)).map_err(IndexError::io("can't mark", earlier))?;
    }
    for (from, to) in [(&to, &aside), (&from, &to)] {
        #[expect(clippy::disallowed_methods, reason = "folders of our own that nobody else has open")]
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && to == &aside => {}
            renamed => renamed.map_err(IndexError::io("can't rename", from))?,
        }
    }
    clear(&aside)?;
    UserIndex::open(&to)
}

/// Removes an earlier epoch's folder. May wait for a lost host's file delegations: background work only.
pub fn remove_old(folder: &Path) -> Result<(), IndexError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IndexError::io("can't remove", folder)(error)),
        _ => Ok(()),
    }
}

fn create_dir_all(path: &Path) -> Result<(), IndexError> {
    fs::create_dir_all(path).map_err(IndexError::io("can't make", path))
}

/// An epoch's folder.
type Folder = (Epoch, PathBuf);
/// [`names`], or what a test puts in its place.
type Look<'a> = &'a dyn Fn(&Path) -> io::Result<Option<Vec<String>>>;

/// The epochs' folders, ascending, and what an interrupted rebuild left behind. Makes the root where it is missing.
fn folders(look: Look<'_>, root: &Path) -> Result<(Vec<Folder>, Vec<PathBuf>), IndexError> {
    let failed = IndexError::io("can't list", root);
    let names = match look(root) {
        Ok(None) => {
            // An NFS client remembers for up to a minute that a name was missing. Making it asks the server, who has it all the same perhaps.
            create_dir_all(root)?;
            look(root).and_then(|names| names.ok_or_else(|| io::ErrorKind::NotFound.into())).map_err(failed)?
        }
        names => names.map_err(failed)?.unwrap_or_default(),
    };
    let epoch = |name: &String| Some((Epoch(name.parse().ok()?), root.join(name)));
    let mut found: Vec<Folder> = names.iter().filter_map(epoch).collect();
    found.sort();
    let left = [ANEW, ASIDE].into_iter().filter(|left| names.iter().any(|name| name == left));
    Ok((found, left.map(|left| root.join(left)).collect()))
}

/// The names in a folder as the server has them now. `None`: there is no such folder.
fn names(folder: &Path) -> io::Result<Option<Vec<String>>> {
    match list_fresh(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        listed => listed.map(Some),
    }
}

/// What lies beside a database.
#[derive(Debug, Clone, Copy)]
struct Beside {
    log: bool,
    rebuild: bool,
}

/// The newest folder that has a database.
fn newest(look: Look<'_>, folders: &[Folder]) -> Result<Option<(Epoch, PathBuf, Beside)>, IndexError> {
    for (number, folder) in folders.iter().rev() {
        let names = look(folder).map_err(IndexError::io("can't list", folder))?.unwrap_or_default();
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        if has(DATABASE) {
            return Ok(Some((*number, folder.clone(), Beside { log: has(LOG), rebuild: has(REBUILD) })));
        }
    }
    Ok(None)
}

fn try_open(folder: &Path, found: Beside) -> Result<UserIndex, IndexError> {
    if found.rebuild {
        return Err(IndexError::Damaged("marked for rebuilding".to_owned()));
    }
    let ahead = ReadAhead::begin(&folder.join(DATABASE));
    if found.log {
        say_damage_of_log(folder);
    }
    UserIndex::open_read_ahead(folder, ahead)
}

/// `None`: it is damaged; the reason is logged. An error: it may be whole, and has what file names lack, so nothing is rebuilt for want of space.
fn copy_and_open(from: &Path, found: Beside, to: &Path) -> Result<Option<UserIndex>, IndexError> {
    if found.rebuild {
        return Ok(None);
    }
    let copied = copy(&stamps, from, to)
        .inspect(|()| say_damage_of_log(to))
        .and_then(|()| UserIndex::open(to))
        .and_then(|index| index.check(&mut |_, _| ()).map(|()| index));
    match copied {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.is_lost() => {
            tracing::warn!(index = %from.display(), %error, "the index of the holder before is damaged, and rebuilt from the Maildir");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// SQLite takes a log only up to the first frame that does not fit, without a word.
fn say_damage_of_log(folder: &Path) {
    let log = folder.join(LOG);
    match read_log(&log).map(|bytes| crate::log::check(&bytes)) {
        Ok(Some(damage)) => tracing::warn!(
            log = %log.display(),
            frame = damage.frame,
            lost = damage.lost,
            "the index's log is damaged: later commits are lost, flags and expunges are as the file names say"
        ),
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(log = %log.display(), %error, "the index's log can't be read"),
    }
}

fn read_log(log: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Closing leaves an empty one, and the listing told its size.
    if fs::metadata(log)?.len() > 0 {
        // Without a delegation, which SQLite's open for writing would have to give back.
        affinity::open_undelegated(log, OFlags::RDONLY)?.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Copies database and log. No connection of this process that may still write has `from` open: closing our descriptor drops its lock.
fn copy(stamps: Stamps<'_>, from: &Path, to: &Path) -> Result<(), IndexError> {
    clear(to)?;
    create_dir_all(to)?;
    for _ in 0..COPY_TRIES {
        let before = stamps(from)?;
        let (database, log) = (from.join(DATABASE), from.join(LOG));
        copy_file(&database, &to.join(COPY))?;
        // As it was seen: what can't be looked at is not taken for missing.
        if before[1].is_some() {
            copy_file(&log, &to.join(LOG))?;
        }
        if stamps(from)? == before {
            let (copy, database) = (to.join(COPY), to.join(DATABASE));
            #[expect(clippy::disallowed_methods, reason = "a file of our own in a folder that nobody else has seen")]
            return fs::rename(&copy, &database).map_err(IndexError::io("can't rename", copy));
        }
    }
    let cause = io::Error::new(io::ErrorKind::ResourceBusy, "late writes of the holder before go on changing it: try again");
    Err(IndexError::io("can't copy", from)(cause))
}

/// Reads and writes: `copy_file_range`, which `fs::copy` and `io::copy` use, lets an NFSv4.2 server copy by itself, and a client that misses the
/// server's call at the end (its connection broke meanwhile) waits for ever.
fn copy_file(from: &Path, to: &Path) -> Result<(), IndexError> {
    let mut source = affinity::open_undelegated(from, OFlags::RDONLY).map_err(IndexError::io("can't read", from))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mut target = affinity::open_undelegated(to, flags).map_err(IndexError::io("can't write", to))?;
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        let read = source.read(&mut chunk).map_err(IndexError::io("can't read", from))?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        target.write_all(bytes).map_err(IndexError::io("can't write", to))?;
    }
    target.sync_all().map_err(IndexError::io("can't write", to))
}

/// Size, and seconds and nanoseconds of the last change.
type Stamp = (u64, i64, u32);
/// [`stamps`], or what a test puts in its place.
type Stamps<'a> = &'a dyn Fn(&Path) -> Result<[Option<Stamp>; 2], IndexError>;

/// Sizes and change times of database and log, asked of the server.
fn stamps(folder: &Path) -> Result<[Option<Stamp>; 2], IndexError> {
    let stamp = |name: &str| {
        let path = folder.join(name);
        match rustix::fs::statx(CWD, &path, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS) {
            Ok(stat) => Ok(Some((stat.stx_size, stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(IndexError::io("can't look at", path)(error.into())),
        }
    };
    Ok([stamp(DATABASE)?, stamp(LOG)?])
}

/// Empties a folder of our own epoch, if it is there.
fn clear(folder: &Path) -> Result<(), IndexError> {
    remove_old(folder)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::testing::mailbox;

    fn with_one_mailbox(root: &Path, epoch: u64) -> UserIndex {
        let mut index = open(root, Epoch(epoch), Handover::Clean).unwrap().index;
        let mut change = index.begin().unwrap();
        change.insert_mailbox(&mailbox("")).unwrap();
        change.commit().unwrap();
        index
    }

    #[test]
    fn a_clean_handover_goes_on_with_the_same_folder() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 3).close().unwrap();
        let opened = open(root.path(), Epoch(7), Handover::Clean).unwrap();
        assert!(!opened.empty && !opened.copied && opened.old.is_empty());
        assert_eq!(opened.index.mailboxes().unwrap().len(), 1);
        assert_eq!(opened.index.folder(), root.path().join("3"));
    }

    #[test]
    fn an_unclean_takeover_copies() {
        let root = tempfile::tempdir().unwrap();
        // Still open and not checkpointed, as a fenced process leaves it.
        let dead = with_one_mailbox(root.path(), 3);
        let before = fs::read(root.path().join("3/index.db")).unwrap();
        let mut opened = open(root.path(), Epoch(4), Handover::Unclean).unwrap();
        assert!(!opened.empty && opened.copied);
        assert_eq!(opened.index.mailboxes().unwrap().len(), 1, "what the log held is there");
        let mut change = opened.index.begin().unwrap();
        change.insert_mailbox(&mailbox(".Sent")).unwrap();
        change.commit().unwrap();
        opened.index.checkpoint().unwrap();
        assert_eq!(fs::read(root.path().join("3/index.db")).unwrap(), before);
        assert_eq!(dead.mailboxes().unwrap().len(), 1);
        assert_eq!(opened.old, [root.path().join("3")]);
        remove_old(&opened.old[0]).unwrap();
        assert!(!root.path().join("3").exists());
    }

    #[test]
    fn a_half_made_copy_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 3).close().unwrap();
        fs::create_dir(root.path().join("4")).unwrap();
        fs::write(root.path().join("4/index.db.copy"), b"half").unwrap();
        let opened = open(root.path(), Epoch(5), Handover::Unclean).unwrap();
        assert!(opened.copied);
        assert_eq!(opened.index.mailboxes().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_index_starts_empty() {
        for handover in [Handover::Clean, Handover::Unclean] {
            let root = tempfile::tempdir().unwrap();
            with_one_mailbox(root.path(), 3).close().unwrap();
            fs::write(root.path().join("3/index.db"), vec![7; 20_000]).unwrap();
            let opened = open(root.path(), Epoch(4), handover).unwrap();
            assert!(opened.empty, "{handover:?}");
            assert_eq!(opened.index.folder(), root.path().join("4"));
        }
    }

    #[test]
    fn an_index_that_cannot_be_copied_now_is_not_given_up() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 3).close().unwrap();
        // Something else has the name that the copy needs, as a full disk would keep it from being written.
        fs::write(root.path().join("4"), b"x").unwrap();
        assert!(matches!(open(root.path(), Epoch(4), Handover::Unclean), Err(IndexError::Io { .. })));
        fs::remove_file(root.path().join("4")).unwrap();
        assert_eq!(open(root.path(), Epoch(4), Handover::Unclean).unwrap().index.mailboxes().unwrap().len(), 1);
    }

    #[test]
    fn an_index_that_late_writes_go_on_changing_is_not_given_up() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 3).close().unwrap();
        let looks = Cell::new(0);
        let changing = |_: &Path| {
            looks.set(looks.get() + 1);
            Ok([Some((4096, looks.get(), 0)), None])
        };
        let error = copy(&changing, &root.path().join("3"), &root.path().join("4")).unwrap_err();
        assert!(matches!(error, IndexError::Io { .. }) && !error.is_lost(), "{error}");
        assert!(!root.path().join("4").join(DATABASE).exists());
        assert_eq!(open(root.path(), Epoch(4), Handover::Unclean).unwrap().index.mailboxes().unwrap().len(), 1);
    }

    #[test]
    fn a_log_that_was_seen_is_not_taken_for_missing() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 3).close().unwrap();
        fs::remove_file(root.path().join("3").join(LOG)).unwrap_or_default();
        let with_log = |_: &Path| Ok([Some((4096, 0, 0)), Some((4096, 0, 0))]);
        let error = copy(&with_log, &root.path().join("3"), &root.path().join("4")).unwrap_err();
        assert!(matches!(error, IndexError::Io { .. }), "{error}");
        assert!(!root.path().join("4").join(DATABASE).exists());
    }

    #[test]
    fn a_replacement_that_was_interrupted_uncovers_no_earlier_index() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 2).close().unwrap();
        let damaged = open(root.path(), Epoch(3), Handover::Unclean).unwrap();
        assert_eq!(damaged.old, [root.path().join("2")], "not removed yet");
        drop(damaged);
        let anew = begin_anew(root.path()).unwrap();
        replace(root.path(), Epoch(3), anew).unwrap().close().unwrap();
        // As between the two renames.
        fs::remove_dir_all(root.path().join("3")).unwrap();
        assert!(open(root.path(), Epoch(4), Handover::Unclean).unwrap().empty);
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_no_empty_one() {
        let root = tempfile::tempdir().unwrap();
        with_one_mailbox(root.path(), 3).close().unwrap();
        // More levels of links than anybody follows: an error that root gets as well.
        let (folder, aside) = (root.path().join("3"), root.path().join("aside"));
        #[expect(clippy::disallowed_methods, reason = "the folder is moved out of sight")]
        fs::rename(&folder, &aside).unwrap();
        std::os::unix::fs::symlink("3", &folder).unwrap();
        assert!(matches!(open(root.path(), Epoch(4), Handover::Clean), Err(IndexError::Io { .. })));
        assert!(!root.path().join("4").exists(), "no empty index takes its place");
        fs::remove_file(&folder).unwrap();
        #[expect(clippy::disallowed_methods, reason = "and back")]
        fs::rename(&aside, &folder).unwrap();
        assert_eq!(open(root.path(), Epoch(4), Handover::Clean).unwrap().index.mailboxes().unwrap().len(), 1);
    }

    #[test]
    fn an_index_that_was_remembered_as_missing_is_found() {
        for handover in [Handover::Clean, Handover::Unclean] {
            let root = tempfile::tempdir().unwrap();
            with_one_mailbox(root.path(), 3).close().unwrap();
            let looks = Cell::new(0);
            let look = |folder: &Path| {
                looks.set(looks.get() + 1);
                if looks.get() == 1 { Ok(None) } else { names(folder) }
            };
            let opened = open_by(&look, root.path(), Epoch(4), handover).unwrap();
            assert!(!opened.empty);
            assert_eq!(opened.index.mailboxes().unwrap().len(), 1);
        }
        // One that is missing wherever one looks is not taken for an empty one.
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(open_by(&|_| Ok(None), root.path(), Epoch(4), Handover::Clean), Err(IndexError::Io { .. })));
    }

    #[test]
    fn a_root_that_is_missing_is_made() {
        let user = tempfile::tempdir().unwrap();
        let root = user.path().join("ada/index");
        assert!(open(&root, Epoch(4), Handover::Clean).unwrap().empty);
        assert!(root.join("4").join(DATABASE).exists());
    }

    #[test]
    fn a_new_index_takes_the_place_of_a_damaged_one() {
        let root = tempfile::tempdir().unwrap();
        let damaged = with_one_mailbox(root.path(), 3);
        let mut anew = begin_anew(root.path()).unwrap();
        let mut change = anew.begin().unwrap();
        change.insert_mailbox(&mailbox(".B")).unwrap();
        change.commit().unwrap();
        drop(damaged);
        let index = replace(root.path(), Epoch(3), anew).unwrap();
        assert_eq!(index.folder(), root.path().join("3"));
        assert_eq!(index.mailboxes().unwrap()[0].folder, ".B");
        index.close().unwrap();
        // Interrupted before it was complete.
        drop(begin_anew(root.path()).unwrap());
        let opened = open(root.path(), Epoch(4), Handover::Unclean).unwrap();
        assert_eq!(opened.index.mailboxes().unwrap()[0].folder, ".B");
        assert_eq!(opened.old, [root.path().join("3"), root.path().join(ANEW)]);
    }

    #[test]
    fn a_log_that_is_damaged_in_the_middle_is_said() {
        let root = tempfile::tempdir().unwrap();
        let mut index = with_one_mailbox(root.path(), 3);
        for folder in [".B", ".C"] {
            let mut change = index.begin().unwrap();
            change.insert_mailbox(&mailbox(folder)).unwrap();
            change.commit().unwrap();
        }
        let log = fs::read(root.path().join("3").join(LOG)).unwrap();
        assert_eq!(crate::log::check(&log), None);
        assert_eq!(crate::log::check(&log[..log.len() - 1]), None, "a log may end anywhere");
        let frame = 24 + 4096;
        let frames = (log.len() - 32) / frame;
        for (at, damage) in [(32 + frame + 100, 1), (32 + 2 * frame + 17, 2), (3, 0)] {
            let mut damaged = log.clone();
            damaged[at] ^= 0x10;
            assert_eq!(crate::log::check(&damaged), Some(crate::log::Damage { frame: damage, lost: frames - damage }), "byte {at}");
        }
    }

    #[test]
    fn an_index_marked_for_rebuilding_starts_empty_even_under_the_same_lease() {
        let root = tempfile::tempdir().unwrap();
        let index = with_one_mailbox(root.path(), 3);
        mark_for_rebuild(index.folder());
        index.close().unwrap();
        let opened = open(root.path(), Epoch(3), Handover::Clean).unwrap();
        assert!(opened.empty);
        assert!(opened.index.mailboxes().unwrap().is_empty());
    }
}
