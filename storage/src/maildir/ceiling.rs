//! The one state file of a mailbox folder: empty, never opened, its name carries UIDVALIDITY and the reserved ceilings of UIDNEXT and MODSEQ.
//!
//! A UID or MODSEQ is told to nobody before a ceiling above it is in the name. So whoever takes over from a dead holder, or rebuilds a lost
//! index, goes on at the ceilings and gives nothing that was given before; and a late request of the dead holder names a file that is no more.
//! The name changes by compare-and-rename alone: `NotFound` is answered by a fresh listing.
//!
//! Invariants, each with the test that guards it:
//! - ceilings only rise, also when somebody else changed the name meanwhile (`a_stale_view_never_lowers_a_ceiling`)
//! - what we print we read back (`state_names_are_read_back`)

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use index::UidValidity;
use parking_lot::Mutex;

use crate::filesystem::{Entry, Filesystem};

/// How many numbers one reservation covers: a rename per thousand deliveries, and after a crash a thousand of four billion UIDs are skipped.
pub(crate) const RESERVED_AHEAD: u32 = 1024;
/// How often a swap is tried when the name changed under us; only a dead holder's late swap can do that.
const SWAP_TRIES: u32 = 8;

/// The state file of a mailbox that is ours.
const STATE: &str = "berth-state,";
/// What it is called once the mailbox was handed back to another server: in the Maildir itself, the account is opened no more.
pub(crate) const RELEASED: &str = "berth-released,";
/// What it is called once the mailbox may be taken over again: MODSEQs go on above.
pub(crate) const RETURNED: &str = "berth-returned,";

/// What the state file's name says. Numbers below the ceilings may have been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub uid_validity: UidValidity,
    pub uid: u32,
    pub modseq: u64,
}

impl Marks {
    /// Of a new mailbox.
    pub fn new(uid_validity: UidValidity) -> Marks {
        Marks { uid_validity, uid: 1 + RESERVED_AHEAD, modseq: 1 + u64::from(RESERVED_AHEAD) }
    }
    /// Of a folder that is taken over: nothing was given by us.
    pub fn unreserved(uid_validity: UidValidity) -> Marks {
        Marks { uid_validity, uid: 1, modseq: 1 }
    }
    /// With room for so many that opening the mailbox need not make some.
    pub fn reserve_ahead(self) -> Marks {
        Marks { uid: self.uid.saturating_add(RESERVED_AHEAD), modseq: self.modseq.saturating_add(RESERVED_AHEAD.into()), ..self }
    }
    pub fn print(self) -> String {
        self.print_as(STATE)
    }
    /// With [`RELEASED`] or [`RETURNED`].
    pub fn print_as(self, prefix: &str) -> String {
        format!("{prefix}V{},U{},M{}", self.uid_validity, self.uid, self.modseq)
    }
    #[cfg(test)]
    pub fn parse(name: &str) -> Option<Marks> {
        Marks::parse_as(STATE, name)
    }
    fn parse_as(prefix: &str, name: &str) -> Option<Marks> {
        let (validity, rest) = name.strip_prefix(prefix)?.strip_prefix('V')?.split_once(",U")?;
        let (uid, modseq) = rest.split_once(",M")?;
        let modseq = modseq.parse().ok().filter(|modseq| *modseq <= u64::MAX >> 1)?;
        Some(Marks { uid_validity: UidValidity::new(validity.parse().ok()?)?, uid: uid.parse().ok()?, modseq })
    }
    /// The highest marks in a listing of the mailbox folder (there is one state file, unless somebody copied a backup in).
    pub fn find(entries: &[Entry]) -> Option<Marks> {
        Marks::find_as(STATE, entries)
    }
    /// The same of [`RELEASED`] or [`RETURNED`].
    pub fn find_as(prefix: &str, entries: &[Entry]) -> Option<Marks> {
        entries
            .iter()
            .filter_map(|entry| Marks::parse_as(prefix, &entry.name))
            .max_by_key(|marks| (marks.uid_validity, marks.uid, marks.modseq))
    }
}

/// The ceilings of an open mailbox.
#[derive(Debug)]
pub(crate) struct Ceiling {
    uid_validity: UidValidity,
    uid: AtomicU32,
    modseq: AtomicU64,
    /// What the file was called when we last saw it; locked while it is being changed.
    on_disk: Mutex<Marks>,
}

impl Ceiling {
    pub fn new(marks: Marks) -> Ceiling {
        Ceiling {
            uid_validity: marks.uid_validity,
            uid: AtomicU32::new(marks.uid),
            modseq: AtomicU64::new(marks.modseq),
            on_disk: Mutex::new(marks),
        }
    }
    pub fn marks(&self) -> Marks {
        Marks { uid_validity: self.uid_validity, uid: self.uid.load(Ordering::SeqCst), modseq: self.modseq.load(Ordering::SeqCst) }
    }
    /// Whether UIDs below `uid` and MODSEQs below `modseq` are reserved.
    pub fn covers(&self, uid: u32, modseq: u64) -> bool {
        let marks = self.marks();
        uid <= marks.uid && modseq <= marks.modseq
    }
    /// Reserves UIDs below `uid` and MODSEQs below `modseq`, and some ahead.
    pub fn raise(&self, filesystem: &dyn Filesystem, folder: &Path, uid: u32, modseq: u64) -> io::Result<()> {
        let mut on_disk = self.on_disk.lock();
        for _ in 0..SWAP_TRIES {
            if self.covers(uid, modseq) {
                return Ok(());
            }
            let seen = self.marks();
            let wanted = Marks {
                uid: if uid <= seen.uid { seen.uid } else { uid.saturating_add(RESERVED_AHEAD) },
                modseq: if modseq <= seen.modseq { seen.modseq } else { modseq.saturating_add(RESERVED_AHEAD.into()) },
                ..seen
            };
            match filesystem.rename(&folder.join(on_disk.print()), &folder.join(wanted.print())) {
                Ok(()) => {
                    *on_disk = wanted;
                    filesystem.sync_folder(folder)?;
                    self.set(wanted);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match Marks::find(&filesystem.list(folder)?) {
                        Some(marks) if marks.uid_validity == self.uid_validity => {
                            *on_disk = marks;
                            self.set(marks);
                        }
                        Some(_) => return Err(io::Error::other("the mailbox folder was replaced by another one")),
                        // Somebody removed it: what we know covers everything we told.
                        None => {
                            filesystem.create(&folder.join(seen.print()))?.finish()?;
                            *on_disk = seen;
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the mailbox's state file goes on changing under its only holder"))
    }
    fn set(&self, marks: Marks) {
        self.uid.fetch_max(marks.uid, Ordering::SeqCst);
        self.modseq.fetch_max(marks.modseq, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::Shared;

    fn marks(uid: u32, modseq: u64) -> Marks {
        Marks { uid_validity: UidValidity::new(7).unwrap(), uid, modseq }
    }

    #[test]
    fn state_names_are_read_back() {
        assert_eq!(Marks::parse(&marks(3, 9).print()), Some(marks(3, 9)));
        for bad in
            ["", "berth-state,V0,U1,M1", "berth-state,V1,U,M1", "berth-state,V1,U1,M18446744073709551615", "berth-state,V1,U4294967296,M1"]
        {
            assert_eq!(Marks::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_stale_view_never_lowers_a_ceiling() {
        let folder = tempfile::tempdir().unwrap();
        let on_disk = marks(5000, 20);
        std::fs::write(folder.path().join(on_disk.print()), b"").unwrap();
        let stale = Ceiling::new(marks(1025, 1025));
        stale.raise(&Shared, folder.path(), 1026, 1).unwrap();
        assert_eq!(stale.marks(), marks(5000, 1025), "the listing's UID ceiling covers what was asked for");
        stale.raise(&Shared, folder.path(), 5001, 1026).unwrap();
        assert_eq!(Marks::find(&Shared.list(folder.path()).unwrap()), Some(marks(6025, 2050)));
    }

    #[test]
    fn a_reservation_is_in_the_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(marks(1025, 1025).print()), b"").unwrap();
        let ceiling = Ceiling::new(marks(1025, 1025));
        assert!(ceiling.covers(1025, 1025) && !ceiling.covers(1026, 1));
        ceiling.raise(&Shared, folder.path(), 1026, 7).unwrap();
        assert_eq!(Marks::find(&Shared.list(folder.path()).unwrap()), Some(marks(2050, 1025)));
    }
}
