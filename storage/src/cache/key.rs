//! What an entry is filed under: everything that tells a message from every other, so that a key means the same bytes for ever, whoever wrote meanwhile.
//!
//! Messages never change, so nothing is ever taken back from a cache: a message that is gone is not asked for, and another one has another key. A key is a
//! digest of the kind of the entry (for what is rendered: with the version of the rendering), and of
//! - the folder of the mailbox, below which users and mailboxes are told apart (the cluster is told apart by the files' headers)
//! - UIDVALIDITY and UID: what a mailbox that is deleted and made again never gives twice ("a UID means one message for ever under one UIDVALIDITY")
//! - the unique part of the file's name and the message's size: after an unclean takeover they tell the message that a dead holder showed from another one
//! - INTERNALDATE and SAVEDATE
//!
//! Where UIDVALIDITY and UIDs themselves begin anew (a user's whole tree was removed and made again, or restored from a backup), the unique part of a name that
//! Berth gave says the microsecond, node, epoch and count of its making. Names of other programs may be used twice ([`crate::EmailId`]); but a message with such a name has
//! the file server's time of its file's last change (ctime, which nobody can set) as its SAVEDATE, to the second, and is kept only once that second is long past.
//! A second message with the same key would have come into its mailbox in that very second, before the first one was kept, and while the first one was there.
//!
//! - each of these makes another key (`whatever_differs_has_another_key`)
//! - what has another program's name and is young has none (`a_young_file_of_another_program_has_no_key`)

use std::path::Path;

use index::UidValidity;
use sha2::{Digest, Sha256};

use crate::{Row, maildir::filename::FileName, object_id::first_128_bits};

/// From when on no other file can have the time stamps of a file of another program: more than the clocks of a host and its file server may be apart.
const SETTLED_SECONDS: i64 = 20 * 60;

/// What is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The message with CRLF line ends.
    Body,
    /// What this version of the rendering made of it.
    Rendered(u32),
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(super) u128);

impl Key {
    /// The key of a message in `file` of `folder`; `now`: Unix seconds. `None`: it is not to be kept (yet).
    pub fn of(kind: Kind, folder: &Path, validity: UidValidity, row: &Row, file: &str, now: i64) -> Option<Key> {
        if !row.is_known() {
            return None;
        }
        let base = FileName::of(file).base;
        if base.own().is_none() && now < row.save_date.saturating_add(SETTLED_SECONDS) {
            return None;
        }
        let (kind, version) = match kind {
            Kind::Body => (0_u32, 0),
            Kind::Rendered(version) => (1, version),
        };
        let folder = folder.as_os_str().as_encoded_bytes();
        let mut digest = Sha256::new();
        for number in [kind, version, validity.get(), row.uid.get()] {
            digest.update(number.to_le_bytes());
        }
        for number in [row.size, row.internal_date.cast_unsigned(), row.save_date.cast_unsigned(), folder.len() as u64] {
            digest.update(number.to_le_bytes());
        }
        digest.update(folder);
        digest.update(base.unique);
        Some(Key(first_128_bits(&digest.finalize())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use index::{FlagSet, ModSeq, Uid};

    use super::*;

    const OURS: &str = "cur/1763748000.M1763748001000042N7E3.node-a,S=5000,W=5000,U=7:2,";
    const FOREIGN: &str = "cur/1763748000.M52P9.host:2,S";

    fn row(uid: u32) -> Row {
        let (flags, modseq) = (FlagSet::EMPTY, ModSeq::MIN);
        Row { uid: Uid::new(uid).unwrap(), flags, modseq, size: 5_000, internal_date: 1_763_748_000, save_date: 1_763_748_001 }
    }
    fn validity(number: u32) -> UidValidity {
        UidValidity::new(number).unwrap()
    }
    const LATER: i64 = 1_800_000_000;

    #[test]
    fn whatever_differs_has_another_key() {
        let key =
            |kind, folder: &str, valid, row: Row, file: &str| Key::of(kind, Path::new(folder), validity(valid), &row, file, LATER).unwrap();
        let usual = key(Kind::Body, "/mail/ada", 5, row(7), OURS);
        assert_eq!(
            usual,
            key(Kind::Body, "/mail/ada", 5, row(7), &OURS.replace(":2,", ":2,FS").replace("cur/", "new/")),
            "flags make none"
        );
        let others = [
            usual,
            key(Kind::Rendered(0), "/mail/ada", 5, row(7), OURS),
            key(Kind::Rendered(1), "/mail/ada", 5, row(7), OURS),
            key(Kind::Body, "/mail/ada/.Sent", 5, row(7), OURS),
            key(Kind::Body, "/mail/bob", 5, row(7), OURS),
            key(Kind::Body, "/mail/ada", 6, row(7), OURS),
            key(Kind::Body, "/mail/ada", 5, row(8), OURS),
            key(Kind::Body, "/mail/ada", 5, row(7), &OURS.replace("000042N7", "000043N7")),
            key(Kind::Body, "/mail/ada", 5, row(7), FOREIGN),
            key(Kind::Body, "/mail/ada", 5, Row { size: 5_001, ..row(7) }, OURS),
            key(Kind::Body, "/mail/ada", 5, Row { internal_date: 1, ..row(7) }, OURS),
            key(Kind::Body, "/mail/ada", 5, Row { save_date: 1, ..row(7) }, OURS),
        ];
        assert_eq!(HashSet::from(others).len(), others.len());
    }

    #[test]
    fn a_young_file_of_another_program_has_no_key() {
        let of = |row: Row, file: &str, now| Key::of(Kind::Body, Path::new("/mail/ada"), validity(5), &row, file, now);
        let came = row(7).save_date;
        assert_eq!(of(row(7), FOREIGN, came + SETTLED_SECONDS - 1), None);
        assert_eq!(of(row(7), FOREIGN, came - 1), None);
        assert!(of(row(7), FOREIGN, came + SETTLED_SECONDS).is_some());
        assert!(of(row(7), OURS, came).is_some(), "no other message has such a name");
        assert_eq!(of(Row { internal_date: crate::columns::UNKNOWN, ..row(7) }, OURS, LATER), None);
    }
}
