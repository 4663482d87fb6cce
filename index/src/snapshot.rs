//! A large mailbox's messages in one file beside the database: read in one go, where rows take as many steps as there are messages.
//!
//! Written when nobody uses the mailbox any more, or the account is closed. The database says which file is right, by its length and checksum: a file that does not fit is as good as none,
//! and the rows are read. So it is not locked, and a folder without it lacks nothing.
//!
//! Invariants, each with the test that guards it:
//! - after any change of a message's row there is no snapshot (`any_change_of_a_message_forgets_the_snapshot`)
//! - a file that is not as it was written is not read (`a_snapshot_that_does_not_fit_is_none`)

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use rustix::fs::OFlags;

use crate::{Change, IndexError, MailboxId, UserIndex, ahead::ask_for};

/// What follows is the mailbox's row.
const PREFIX: &str = "messages-";
/// A mailbox of millions of messages: more is not read into memory at once.
pub const SNAPSHOT_BYTES_MAX: usize = 128 << 20;

/// The length and checksum of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot(i64);

/// How many messages the database says a mailbox has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Messages.
    pub messages: usize,
    /// The sum of their sizes.
    pub bytes: u64,
    /// Which snapshot says them all.
    pub snapshot: Option<Snapshot>,
}

impl Snapshot {
    fn of(bytes: &[u8]) -> Snapshot {
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX >> 32);
        Snapshot((length << 32) | i64::from(crc32fast::hash(bytes)))
    }
    /// As the database has it.
    pub(crate) fn from_number(number: i64) -> Option<Snapshot> {
        (number > 0).then_some(Snapshot(number))
    }
    fn length(self) -> usize {
        usize::try_from(self.0 >> 32).unwrap_or(usize::MAX)
    }
}

impl UserIndex {
    fn snapshot_path(&self, mailbox: MailboxId) -> PathBuf {
        self.folder().join(format!("{PREFIX}{}", mailbox.0))
    }
    /// What the file of this snapshot says; `None`: it does not fit.
    pub fn read_snapshot(&self, mailbox: MailboxId, snapshot: Snapshot) -> Option<Vec<u8>> {
        let path = self.snapshot_path(mailbox);
        let read = || -> io::Result<Option<Vec<u8>>> {
            let mut file = affinity::open_undelegated(&path, OFlags::RDONLY)?;
            let end = file.metadata()?.len();
            let length = usize::try_from(end).unwrap_or(usize::MAX);
            if length != snapshot.length() || length > SNAPSHOT_BYTES_MAX {
                return Ok(None);
            }
            ask_for(&file, 0, end);
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes)?;
            Ok((Snapshot::of(&bytes) == snapshot).then_some(bytes))
        };
        let found = read();
        if !matches!(found, Ok(Some(_))) {
            tracing::debug!(snapshot = %path.display(), ?found, "rows are read instead");
        }
        found.ok().flatten()
    }
    /// Writes a snapshot; it counts once [`Change::set_snapshot`] is durable. Nobody may change a row of the mailbox in between.
    pub fn write_snapshot(&self, mailbox: MailboxId, bytes: &[u8]) -> Result<Snapshot, IndexError> {
        let path = self.snapshot_path(mailbox);
        let opened = affinity::open_undelegated(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC);
        // A file server may say only then that there is no room. What did not fit must not keep the room that the database needs.
        let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()));
        if written.is_err()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(snapshot = %path.display(), %error, "stays, and counts for nothing");
        }
        written.map_err(IndexError::io("can't write", path))?;
        Ok(Snapshot::of(bytes))
    }
    /// Removes the file of a mailbox that is no more.
    pub fn remove_snapshot(&self, mailbox: MailboxId) -> Result<(), IndexError> {
        let path = self.snapshot_path(mailbox);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IndexError::io("can't remove", path)(error)),
            _ => Ok(()),
        }
    }
    /// Removes the files of mailboxes that are no more.
    pub fn remove_stale_snapshots(&self) -> Result<(), IndexError> {
        let there: Vec<String> = self.mailboxes()?.into_iter().map(|mailbox| mailbox.id.0.to_string()).collect();
        let folder = self.folder();
        for entry in
            std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(IndexError::io("can't list", folder))?
        {
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if of.is_some_and(|of| !there.iter().any(|there| there == of)) {
                std::fs::remove_file(entry.path()).map_err(IndexError::io("can't remove", entry.path()))?;
            }
        }
        Ok(())
    }
}

impl Change<'_> {
    /// The mailbox's rows say what this snapshot says.
    pub fn set_snapshot(&mut self, mailbox: MailboxId, snapshot: Snapshot) -> Result<(), IndexError> {
        self.connection.prepare_cached("UPDATE mailboxes SET snapshot = ?2 WHERE id = ?1")?.execute([mailbox.0, snapshot.0])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlagSet, ModSeq, Uid, testing};

    fn snapshot(index: &UserIndex, mailbox: MailboxId) -> Option<Snapshot> {
        let mut found = None;
        index
            .contents(
                mailbox,
                &mut |held| {
                    found = held.snapshot;
                    true
                },
                &mut |_| (),
            )
            .unwrap();
        found
    }

    #[test]
    fn a_snapshot_that_there_is_no_room_for_keeps_none() {
        let folder = tempfile::tempdir().unwrap();
        let index = UserIndex::open(folder.path()).unwrap();
        let path = index.snapshot_path(MailboxId(7));
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        assert!(index.write_snapshot(MailboxId(7), b"large").unwrap_err().to_string().contains("can't write"));
        assert!(path.symlink_metadata().is_err(), "what did not fit is gone");
    }

    #[test]
    fn any_change_of_a_message_forgets_the_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = testing::two_mailboxes_of_three(&mut change);
        change.commit().unwrap();
        let of = |number| Uid::new(number).unwrap();
        let later = ModSeq::new(9).unwrap();
        type Work<'a> = &'a dyn Fn(&mut Change<'_>) -> Result<(), IndexError>;
        let message = testing::message(2);
        let works: [(&str, Work<'_>); 9] = [
            ("replaced", &|change| change.insert_message(a, &message)),
            ("added", &|change| change.insert_message(a, &testing::message(7))),
            ("flags", &|change| change.set_flags(a, of(1), FlagSet::EMPTY, later)),
            ("flags of many", &|change| change.set_flags_between(a, (of(1), of(3)), FlagSet::EMPTY, later)),
            ("file", &|change| change.set_file(a, of(3), "cur/other")),
            ("expunged", &|change| change.expunge(a, of(7), later)),
            ("cleared", &|change| change.clear_messages(a)),
            ("taken over", &|change| change.taken_over_uncleanly()),
            ("another mailbox", &|change| change.set_file(b, of(1), "cur/other")),
        ];
        for (what, work) in works {
            let written = index.write_snapshot(a, what.as_bytes()).unwrap();
            let mut change = index.begin().unwrap();
            change.set_snapshot(a, written).unwrap();
            change.commit().unwrap();
            assert_eq!(snapshot(&index, a), Some(written), "{what}");
            assert_eq!(index.read_snapshot(a, written).unwrap(), what.as_bytes());
            let mut change = index.begin().unwrap();
            work(&mut change).unwrap();
            change.commit().unwrap();
            assert_eq!(snapshot(&index, a), if what == "another mailbox" { Some(written) } else { None }, "{what}");
        }
    }

    #[test]
    fn a_snapshot_that_does_not_fit_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = testing::two_mailboxes_of_three(&mut change);
        change.commit().unwrap();
        let written = index.write_snapshot(a, b"0123456789").unwrap();
        assert_eq!(index.read_snapshot(b, written), None, "it is another mailbox's");
        for bytes in [&b"0123456788"[..], b"012345678", b"01234567890", b""] {
            std::fs::write(index.snapshot_path(a), bytes).unwrap();
            assert_eq!(index.read_snapshot(a, written), None);
        }
        let again = index.write_snapshot(a, b"0123456789").unwrap();
        assert_eq!((again, index.read_snapshot(a, written)), (written, Some(b"0123456789".to_vec())));
        index.write_snapshot(b, b"x").unwrap();
        let mut change = index.begin().unwrap();
        change.delete_mailbox(a).unwrap();
        change.commit().unwrap();
        index.remove_stale_snapshots().unwrap();
        assert!(!index.snapshot_path(a).exists() && index.snapshot_path(b).exists());
    }
}
