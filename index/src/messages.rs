//! Messages: flags, MODSEQ, sizes, dates, file names, what was rendered, and which UIDs were expunged.

use rusqlite::{OptionalExtension, Row, params, types::Type};

use crate::{Change, FlagSet, IndexError, IndexReader, MailboxId, ModSeq, Uid, UserIndex};

/// What the index knows of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageRecord {
    /// Its UID.
    pub uid: Uid,
    /// Its flags and keywords.
    pub flags: FlagSet,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Bytes with CRLF line ends.
    pub size: u64,
    /// Bytes of the file.
    pub disk_size: u64,
    /// INTERNALDATE, Unix seconds.
    pub internal_date: i64,
    /// SAVEDATE, Unix seconds.
    pub save_date: i64,
    /// Its file, as in `cur/…`.
    pub file: String,
}

/// What was rendered of a message, ready to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenderedRecord<'a> {
    /// ENVELOPE.
    pub envelope: &'a [u8],
    /// BODYSTRUCTURE.
    pub body_structure: &'a [u8],
    /// Header fields.
    pub headers: &'a [u8],
}

fn id(mailbox: MailboxId, uid: u32) -> i64 {
    (mailbox.0 << 32) | i64::from(uid)
}
/// The UID in a row id: its lower half.
fn uid_of(id: i64) -> u32 {
    u32::try_from(id & 0xffff_ffff).unwrap_or(u32::MAX)
}
fn broken(column: usize, value: i64) -> rusqlite::Error {
    rusqlite::Error::IntegralValueOutOfRange(column, value)
}

/// Reads a row into `file`'s memory.
fn message(row: &Row<'_>, mut file: String) -> rusqlite::Result<MessageRecord> {
    let id: i64 = row.get(0)?;
    let modseq: i64 = row.get(2)?;
    file.clear();
    file.push_str(row.get_ref(7)?.as_str().map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, Type::Text, error.into()))?);
    Ok(MessageRecord {
        uid: Uid::new(uid_of(id)).ok_or_else(|| broken(0, id))?,
        flags: FlagSet::from_bits(row.get::<_, i64>(1)?.cast_unsigned()),
        modseq: ModSeq::new(modseq.cast_unsigned()).ok_or_else(|| broken(2, modseq))?,
        size: row.get::<_, i64>(3)?.cast_unsigned(),
        disk_size: row.get::<_, i64>(4)?.cast_unsigned(),
        internal_date: row.get(5)?,
        save_date: row.get(6)?,
        file,
    })
}

/// A column's bytes, without a copy.
fn blob<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    row.get_ref(column)?.as_blob().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, error.into()))
}

impl UserIndex {
    /// Every message of a mailbox, by UID.
    pub fn messages(&self, mailbox: MailboxId) -> Result<Vec<MessageRecord>, IndexError> {
        let mut messages = Vec::new();
        self.each_message(mailbox, &mut |message| messages.push(message.clone()))?;
        Ok(messages)
    }
    /// Calls `visit` with every message of a mailbox, by UID, in the memory of one.
    pub fn each_message(&self, mailbox: MailboxId, visit: &mut dyn FnMut(&MessageRecord)) -> Result<(), IndexError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, flags, modseq, size, disk_size, internal_date, save_date, file FROM messages WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        )?;
        let mut rows = statement.query([id(mailbox, 0), id(mailbox, u32::MAX)])?;
        let mut file = String::new();
        while let Some(row) = rows.next()? {
            let found = message(row, std::mem::take(&mut file))?;
            visit(&found);
            file = found.file;
        }
        Ok(())
    }
    /// The messages whose file names lack their flags or UID, by UID.
    pub fn write_backs(&self, mailbox: MailboxId) -> Result<Vec<u32>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT id FROM write_backs WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let rows = statement.query_map([id(mailbox, 0), id(mailbox, u32::MAX)], |row| row.get(0).map(uid_of))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl IndexReader {
    /// Calls `visit` with what was rendered of `uids` (ascending): one pass where they lie close together, single looks where they do not.
    pub fn rendered(&self, mailbox: MailboxId, uids: &[Uid], visit: &mut dyn FnMut(Uid, RenderedRecord<'_>)) -> Result<(), IndexError> {
        self.each_rendered("id, envelope, body_structure, headers", mailbox, uids, &mut |uid, row| {
            visit(uid, RenderedRecord { envelope: blob(row, 1)?, body_structure: blob(row, 2)?, headers: blob(row, 3)? });
            Ok(())
        })
    }
    /// Calls `visit` with the cached header fields of `uids` (ascending), without a copy: SEARCH looks at those of a whole mailbox.
    pub fn headers(&self, mailbox: MailboxId, uids: &[Uid], visit: &mut dyn FnMut(Uid, &[u8])) -> Result<(), IndexError> {
        self.each_rendered("id, headers", mailbox, uids, &mut |uid, row| {
            visit(uid, blob(row, 1)?);
            Ok(())
        })
    }
    fn each_rendered(
        &self,
        columns: &str,
        mailbox: MailboxId,
        uids: &[Uid],
        visit: &mut dyn FnMut(Uid, &Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), IndexError> {
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Ok(()) };
        let span = u64::from(last.get().saturating_sub(first.get()));
        // A step in the pass costs about a quarter of a look from the root of the tree.
        if span / 4 <= u64::try_from(uids.len()).unwrap_or(u64::MAX) {
            let mut wanted = uids.iter().copied().peekable();
            let mut statement =
                self.connection.prepare_cached(&format!("SELECT {columns} FROM rendered WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
            let mut rows = statement.query([id(mailbox, first.get()), id(mailbox, last.get())])?;
            while let Some(row) = rows.next()? {
                let found = uid_of(row.get(0)?);
                while wanted.next_if(|uid| uid.get() < found).is_some() {}
                if let Some(uid) = wanted.next_if(|uid| uid.get() == found) {
                    visit(uid, row)?;
                }
            }
        } else {
            let mut statement = self.connection.prepare_cached(&format!("SELECT {columns} FROM rendered WHERE id = ?1"))?;
            for uid in uids {
                statement.query_row([id(mailbox, uid.get())], |row| visit(*uid, row)).optional()?;
            }
        }
        Ok(())
    }
    /// UIDs expunged with a MODSEQ above `since`, ascending.
    pub fn expunged_since(&self, mailbox: MailboxId, since: u64) -> Result<Vec<Uid>, IndexError> {
        let mut statement =
            self.connection.prepare_cached("SELECT DISTINCT uid FROM expunged WHERE mailbox = ?1 AND modseq > ?2 ORDER BY uid")?;
        let rows = statement.query_map([mailbox.0, i64::try_from(since).unwrap_or(i64::MAX)], |row| row.get::<_, u32>(0))?;
        let uids: Vec<u32> = rows.collect::<Result<_, _>>()?;
        Ok(uids.into_iter().filter_map(Uid::new).collect())
    }
    /// POP3 UIDLs that an earlier server gave, by UID.
    pub fn uidls(&self, mailbox: MailboxId) -> Result<Vec<(u32, String)>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT id, uidl FROM uidls WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let rows = statement.query_map([id(mailbox, 0), id(mailbox, u32::MAX)], |row| Ok((uid_of(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Adds a message, or replaces its row.
    pub fn insert_message(&mut self, mailbox: MailboxId, message: &MessageRecord) -> Result<(), IndexError> {
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO messages (id, flags, modseq, size, disk_size, internal_date, save_date, file)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id(mailbox, message.uid.get()),
                message.flags.bits().cast_signed(),
                message.modseq.get().cast_signed(),
                message.size.cast_signed(),
                message.disk_size.cast_signed(),
                message.internal_date,
                message.save_date,
                message.file,
            ])?;
        Ok(())
    }
    /// Stores what was rendered of a message.
    pub fn insert_rendered(&mut self, mailbox: MailboxId, uid: Uid, rendered: [&[u8]; 3]) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO rendered (id, envelope, body_structure, headers)
             SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM messages WHERE id = ?1)",
        )?;
        insert.execute(params![id(mailbox, uid.get()), rendered[0], rendered[1], rendered[2]])?;
        Ok(())
    }
    /// Takes over what was rendered of a copied message, if it is there.
    pub fn copy_rendered(&mut self, from: (MailboxId, Uid), to: (MailboxId, Uid)) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO rendered (id, envelope, body_structure, headers)
             SELECT ?2, envelope, body_structure, headers FROM rendered WHERE id = ?1",
        )?;
        insert.execute([id(from.0, from.1.get()), id(to.0, to.1.get())])?;
        Ok(())
    }
    /// Changes a message's flags; its file name is to follow.
    pub fn set_flags(&mut self, mailbox: MailboxId, uid: Uid, flags: FlagSet, modseq: ModSeq) -> Result<(), IndexError> {
        self.set_flags_between(mailbox, (uid, uid), flags, modseq)
    }
    /// Changes the flags of every message from one UID to another; their file names are to follow.
    pub fn set_flags_between(
        &mut self,
        mailbox: MailboxId,
        (first, last): (Uid, Uid),
        flags: FlagSet,
        modseq: ModSeq,
    ) -> Result<(), IndexError> {
        let [first, last] = [first, last].map(|uid| id(mailbox, uid.get()));
        self.connection.prepare_cached("UPDATE messages SET flags = ?3, modseq = ?4 WHERE id BETWEEN ?1 AND ?2")?.execute(params![
            first,
            last,
            flags.bits().cast_signed(),
            modseq.get().cast_signed()
        ])?;
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO write_backs (id) SELECT id FROM messages WHERE id BETWEEN ?1 AND ?2")?
            .execute([first, last])?;
        Ok(())
    }
    /// The message's file name must be brought up to date.
    pub fn insert_write_back(&mut self, mailbox: MailboxId, uid: Uid) -> Result<(), IndexError> {
        self.connection.prepare_cached("INSERT OR IGNORE INTO write_backs (id) VALUES (?1)")?.execute([id(mailbox, uid.get())])?;
        Ok(())
    }
    /// The message's file has this name now.
    pub fn set_file(&mut self, mailbox: MailboxId, uid: Uid, file: &str) -> Result<(), IndexError> {
        let mut update = self.connection.prepare_cached("UPDATE messages SET file = ?2 WHERE id = ?1")?;
        update.execute(params![id(mailbox, uid.get()), file])?;
        Ok(())
    }
    /// The message's file name has its UID and flags.
    pub fn delete_write_back(&mut self, mailbox: MailboxId, uid: Uid) -> Result<(), IndexError> {
        self.connection.prepare_cached("DELETE FROM write_backs WHERE id = ?1")?.execute([id(mailbox, uid.get())])?;
        Ok(())
    }
    /// Remembers a POP3 UIDL that an earlier server gave.
    pub fn insert_uidl(&mut self, mailbox: MailboxId, uid: Uid, uidl: &str) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached("INSERT OR REPLACE INTO uidls (id, uidl) VALUES (?1, ?2)")?;
        insert.execute(params![id(mailbox, uid.get()), uidl])?;
        Ok(())
    }
    /// Forgets a message and remembers that it was expunged.
    pub fn expunge(&mut self, mailbox: MailboxId, uid: Uid, modseq: ModSeq) -> Result<(), IndexError> {
        self.expunge_between(mailbox, (uid, uid), modseq)
    }
    /// Forgets every message from one UID to another, and remembers that they were expunged.
    pub fn expunge_between(&mut self, mailbox: MailboxId, (first, last): (Uid, Uid), modseq: ModSeq) -> Result<(), IndexError> {
        let ids = [first, last].map(|uid| id(mailbox, uid.get()));
        let mut insert = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO expunged (mailbox, modseq, uid)
             SELECT ?1, ?2, id & 0xffffffff FROM messages WHERE id BETWEEN ?3 AND ?4",
        )?;
        insert.execute(params![mailbox.0, modseq.get().cast_signed(), ids[0], ids[1]])?;
        for statement in [
            "DELETE FROM messages WHERE id BETWEEN ?1 AND ?2",
            "DELETE FROM rendered WHERE id BETWEEN ?1 AND ?2",
            "DELETE FROM write_backs WHERE id BETWEEN ?1 AND ?2",
            "DELETE FROM uidls WHERE id BETWEEN ?1 AND ?2",
        ] {
            self.connection.prepare_cached(statement)?.execute(ids)?;
        }
        Ok(())
    }
    /// Keeps the newest `keep` expunged UIDs; gives the new floor if older ones were forgotten.
    pub fn trim_expunged(&mut self, mailbox: MailboxId, keep: u32) -> Result<Option<u64>, IndexError> {
        let floor: Option<i64> = self
            .connection
            .prepare_cached("SELECT modseq FROM expunged WHERE mailbox = ?1 ORDER BY modseq DESC LIMIT 1 OFFSET ?2")?
            .query_row(params![mailbox.0, keep], |row| row.get(0))
            .optional()?;
        let Some(floor) = floor else { return Ok(None) };
        self.connection.prepare_cached("DELETE FROM expunged WHERE mailbox = ?1 AND modseq <= ?2")?.execute([mailbox.0, floor])?;
        Ok(Some(floor.cast_unsigned()))
    }
    /// Forgets every message of a mailbox, without remembering them as expunged.
    pub fn clear_messages(&mut self, mailbox: MailboxId) -> Result<(), IndexError> {
        for table in ["messages", "rendered", "write_backs", "uidls"] {
            let delete = format!("DELETE FROM {table} WHERE id BETWEEN ?1 AND ?2");
            self.connection.prepare_cached(&delete)?.execute([id(mailbox, 0), id(mailbox, u32::MAX)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flag, testing::mailbox};

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }
    fn modseq(number: u64) -> ModSeq {
        ModSeq::new(number).unwrap()
    }
    fn record(number: u32) -> MessageRecord {
        MessageRecord {
            uid: uid(number),
            flags: FlagSet::of(&[Flag::Seen]),
            modseq: modseq(u64::from(number) + 1),
            size: 1 << 40,
            disk_size: 12,
            internal_date: -5,
            save_date: 1_763_748_000,
            file: format!("cur/{number}"),
        }
    }

    #[test]
    fn messages_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = (change.insert_mailbox(&mailbox("")).unwrap(), change.insert_mailbox(&mailbox(".B")).unwrap());
        for number in [1, 2, u32::MAX] {
            change.insert_message(a, &record(number)).unwrap();
            change.insert_rendered(a, uid(number), [b"e", b"b", &number.to_be_bytes()]).unwrap();
        }
        change.insert_message(b, &record(1)).unwrap();
        change.copy_rendered((a, uid(2)), (b, uid(1))).unwrap();
        change.set_flags(a, uid(2), FlagSet::EMPTY, modseq(40)).unwrap();
        change.commit().unwrap();
        let expected = MessageRecord { flags: FlagSet::EMPTY, modseq: modseq(40), ..record(2) };
        assert_eq!(index.messages(a).unwrap(), [record(1), expected, record(u32::MAX)]);
        assert_eq!(index.messages(b).unwrap(), [record(1)]);
        assert_eq!(index.write_backs(a).unwrap(), [2]);
        let reader = index.reader().unwrap();
        for wanted in [vec![1, 2], vec![2, 3, u32::MAX]] {
            let uids: Vec<Uid> = wanted.iter().copied().map(uid).collect();
            let mut found = Vec::new();
            reader.rendered(a, &uids, &mut |uid, rendered| found.push((uid.get(), rendered.headers.to_vec()))).unwrap();
            let expected: Vec<_> = wanted.into_iter().filter(|n| *n != 3).map(|n| (n, n.to_be_bytes().to_vec())).collect();
            assert_eq!(found, expected);
        }
        drop(reader);
        assert!(index.check().is_err(), "UIDs at or above UIDNEXT are found out");
    }

    #[test]
    fn what_a_mailbox_holds_is_counted_by_the_commit_that_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = (change.insert_mailbox(&mailbox("")).unwrap(), change.insert_mailbox(&mailbox(".B")).unwrap());
        for number in [1, 2, 3] {
            change.insert_message(a, &MessageRecord { size: 10, ..record(number) }).unwrap();
        }
        change.insert_message(a, &MessageRecord { size: 25, ..record(2) }).unwrap();
        change.set_flags(a, uid(3), FlagSet::EMPTY, modseq(40)).unwrap();
        change.expunge(a, uid(3), modseq(41)).unwrap();
        change.insert_message(b, &MessageRecord { size: 1 << 40, ..record(9) }).unwrap();
        change.commit().unwrap();
        assert_eq!(index.usages().unwrap(), [(a, 2, 35), (b, 1, 1 << 40)]);

        let mut change = index.begin().unwrap();
        change.clear_messages(b).unwrap();
        change.commit().unwrap();
        assert_eq!(index.usages().unwrap(), [(a, 2, 35), (b, 0, 0)]);
    }

    #[test]
    fn a_dropped_change_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        index.begin().unwrap().insert_mailbox(&mailbox("")).unwrap();
        assert!(index.mailboxes().unwrap().is_empty());
    }

    #[test]
    fn expunged_uids_are_remembered_down_to_the_floor() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let id = change.insert_mailbox(&mailbox("")).unwrap();
        for number in 1..=5 {
            change.insert_message(id, &record(number)).unwrap();
            change.expunge(id, uid(number), modseq(u64::from(number) + 10)).unwrap();
        }
        assert_eq!(change.trim_expunged(id, 5).unwrap(), None);
        assert_eq!(change.trim_expunged(id, 3).unwrap(), Some(12));
        change.commit().unwrap();
        let reader = index.reader().unwrap();
        assert_eq!(reader.expunged_since(id, 12).unwrap(), [uid(3), uid(4), uid(5)]);
        assert_eq!(reader.expunged_since(id, 14).unwrap(), [uid(5)]);
        assert!(index.messages(id).unwrap().is_empty());
    }
}
