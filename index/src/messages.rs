//! Messages: flags, MODSEQ, sizes, dates, file names, and which UIDs were expunged.

use std::{collections::BTreeSet, sync::OnceLock};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    Change, FlagSet, IndexError, IndexReader, MailboxId, MailboxRecord, ModSeq, Uid, UserIndex,
    checksum::{Sum, damaged, ensure_ascending},
    mailboxes::{Counts, record_and_counts, signed},
};

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

/// A message's row id.
pub(crate) fn id(mailbox: MailboxId, uid: u32) -> i64 {
    (mailbox.0 << 32) | i64::from(uid)
}
/// The UID in a row id: its lower half.
fn uid_of(id: i64) -> u32 {
    u32::try_from(id & 0xffff_ffff).unwrap_or(u32::MAX)
}
/// Of the columns that change together: plus the row's id, so that SQL can change runs of rows.
fn flags_sum(flags: i64, modseq: i64) -> Sum {
    of_messages().numbers([flags, modseq])
}
fn facts_sum(id: i64, [size, disk_size, internal_date, save_date]: [i64; 4]) -> Sum {
    of_messages().numbers([id, size, disk_size, internal_date, save_date])
}
fn file_sum(id: i64, file: &str) -> Sum {
    of_messages().number(id).text(file)
}
/// There are three in every row, and opening a mailbox reads all of its rows.
fn of_messages() -> Sum {
    static BEGUN: OnceLock<u32> = OnceLock::new();
    Sum::of_many("messages", &BEGUN)
}
/// Plus the row's id.
fn write_back_sum() -> Sum {
    Sum::of("write_backs")
}
fn uidl_sum(id: i64, uidl: &str) -> Sum {
    Sum::of("uidls").number(id).text(uidl)
}
/// Plus the UID.
fn expunged_sum(mailbox: MailboxId, modseq: i64) -> Sum {
    Sum::of("expunged").number(mailbox.0).number(modseq)
}
const COLUMNS: &str = "id, flags, modseq, flags_sum, size, disk_size, internal_date, save_date, facts_sum, file, file_sum";

/// Reads a row into `file`'s memory.
fn message(row: &Row<'_>, mut file: String) -> rusqlite::Result<MessageRecord> {
    let (id, flags, modseq): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let facts: [i64; 4] = [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
    file.clear();
    file.push_str(row.get_ref(9)?.as_str().map_err(|_| damaged("messages", "its file name is no text"))?);
    flags_sum(flags, modseq).check("messages", row.get::<_, i64>(3)?.wrapping_sub(id))?;
    facts_sum(id, facts).check("messages", row.get(8)?)?;
    file_sum(id, &file).check("messages", row.get(10)?)?;
    let zero = || damaged("messages", "it has a number that can't be zero");
    Ok(MessageRecord {
        uid: Uid::new(uid_of(id)).ok_or_else(zero)?,
        flags: FlagSet::from_bits(flags.cast_unsigned()),
        modseq: ModSeq::new(modseq.cast_unsigned()).ok_or_else(zero)?,
        size: facts[0].cast_unsigned(),
        disk_size: facts[1].cast_unsigned(),
        internal_date: facts[2],
        save_date: facts[3],
        file,
    })
}

/// A column's bytes, without a copy.
pub(crate) fn blob<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    row.get_ref(column)?
        .as_blob()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, error.into()))
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
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
        let mut rows = statement.query([id(mailbox, 0), id(mailbox, u32::MAX)])?;
        let mut file = String::new();
        let mut last = None;
        while let Some(row) = rows.next()? {
            let found = message(row, std::mem::take(&mut file))?;
            ensure_ascending("messages", last.into_iter().chain([found.uid]))?;
            last = Some(found.uid);
            visit(&found);
            file = found.file;
        }
        Ok(())
    }
    /// The messages whose file names lack their flags or UID, by UID.
    pub fn write_backs(&self, mailbox: MailboxId) -> Result<Vec<u32>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT id, sum FROM write_backs WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let rows = statement.query_map([id(mailbox, 0), id(mailbox, u32::MAX)], |row| {
            let id: i64 = row.get(0)?;
            write_back_sum().check("write_backs", row.get::<_, i64>(1)?.wrapping_sub(id))?;
            Ok(uid_of(id))
        })?;
        let uids: Vec<u32> = rows.collect::<Result<_, _>>()?;
        ensure_ascending("write_backs", uids.iter())?;
        Ok(uids)
    }
    /// Reads what [`UserIndex::contents`] does not.
    pub(crate) fn check_the_rest(&self, mailbox: MailboxId) -> Result<(), IndexError> {
        let all = [id(mailbox, 0), id(mailbox, u32::MAX)];
        expunged(&self.connection, mailbox, 0)?;
        uidls(&self.connection, mailbox)?;
        self.check_rendered(all)?;
        self.check_summaries(all)?;
        self.check_answers(all)
    }
    /// Reads all rows with these ids; `table`: to be followed by what is asked of the id.
    pub(crate) fn check_rows(
        &self,
        columns: &str,
        table: &str,
        ids: [i64; 2],
        check: impl Fn(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), IndexError> {
        let mut statement = self.connection.prepare_cached(&format!("SELECT {columns} FROM {table} id BETWEEN ?1 AND ?2"))?;
        let mut rows = statement.query(ids)?;
        while let Some(row) = rows.next()? {
            check(row)?;
        }
        Ok(())
    }
}

/// All rows of the mailbox are read, whatever is asked for: only then their number tells that none is missing.
fn expunged(connection: &Connection, mailbox: MailboxId, since: u64) -> Result<Vec<Uid>, IndexError> {
    let view = connection.unchecked_transaction()?;
    let Some((_, counts)) = record_and_counts(connection, mailbox)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached("SELECT modseq, uid, sum FROM expunged WHERE mailbox = ?1 ORDER BY modseq, uid")?;
    let rows = statement.query_map([mailbox.0], |row| {
        let uid: u32 = row.get(1)?;
        let modseq: i64 = row.get(0)?;
        expunged_sum(mailbox, modseq).check("expunged", row.get::<_, i64>(2)?.wrapping_sub(uid.into()))?;
        Ok((modseq, uid))
    })?;
    let expunged: Vec<(i64, u32)> = rows.collect::<Result<_, _>>()?;
    ensure_ascending("expunged", expunged.iter())?;
    Counts::compare(mailbox, "expunged", expunged.len(), counts.expunged)?;
    view.finish()?;
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let uids: BTreeSet<u32> = expunged.into_iter().filter(|(modseq, _)| *modseq > since).map(|(_, uid)| uid).collect();
    Ok(uids.into_iter().filter_map(Uid::new).collect())
}

fn uidls(connection: &Connection, mailbox: MailboxId) -> Result<Vec<(u32, String)>, IndexError> {
    let view = connection.unchecked_transaction()?;
    let Some((_, counts)) = record_and_counts(connection, mailbox)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached("SELECT id, uidl, sum FROM uidls WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let rows = statement.query_map([id(mailbox, 0), id(mailbox, u32::MAX)], |row| {
        let (id, uidl): (i64, String) = (row.get(0)?, row.get(1)?);
        uidl_sum(id, &uidl).check("uidls", row.get(2)?)?;
        Ok((uid_of(id), uidl))
    })?;
    let uidls: Vec<(u32, String)> = rows.collect::<Result<_, _>>()?;
    ensure_ascending("uidls", uidls.iter().map(|(uid, _)| uid))?;
    Counts::compare(mailbox, "uidls", uidls.len(), counts.uidls)?;
    view.finish()?;
    Ok(uidls)
}

impl IndexReader {
    /// Calls `visit` with the rows of `uids` (ascending): one pass where they lie close together, single looks where they do not.
    pub(crate) fn each_row(
        &self,
        columns: &str,
        table: &str,
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
                self.connection.prepare_cached(&format!("SELECT {columns} FROM {table} id BETWEEN ?1 AND ?2 ORDER BY id"))?;
            let mut rows = statement.query([id(mailbox, first.get()), id(mailbox, last.get())])?;
            while let Some(row) = rows.next()? {
                let found = uid_of(row.get(0)?);
                while wanted.next_if(|uid| uid.get() < found).is_some() {}
                if let Some(uid) = wanted.next_if(|uid| uid.get() == found) {
                    visit(uid, row)?;
                }
            }
        } else {
            let mut statement = self.connection.prepare_cached(&format!("SELECT {columns} FROM {table} id = ?1"))?;
            for uid in uids {
                statement.query_row([id(mailbox, uid.get())], |row| visit(*uid, row)).optional()?;
            }
        }
        Ok(())
    }
    /// UIDs expunged with a MODSEQ above `since`, ascending.
    pub fn expunged_since(&self, mailbox: MailboxId, since: u64) -> Result<Vec<Uid>, IndexError> {
        expunged(&self.connection, mailbox, since)
    }
    /// POP3 UIDLs that an earlier server gave, by UID.
    pub fn uidls(&self, mailbox: MailboxId) -> Result<Vec<(u32, String)>, IndexError> {
        uidls(&self.connection, mailbox)
    }
}

impl Change<'_> {
    /// Adds a message, or replaces its row.
    pub fn insert_message(&mut self, mailbox: MailboxId, message: &MessageRecord) -> Result<(), IndexError> {
        let id = id(mailbox, message.uid.get());
        let (flags, modseq) = (message.flags.bits().cast_signed(), message.modseq.get().cast_signed());
        let facts = [message.size.cast_signed(), message.disk_size.cast_signed(), message.internal_date, message.save_date];
        let values = params![
            id,
            flags,
            modseq,
            flags_sum(flags, modseq).get() + id,
            facts[0],
            facts[1],
            facts[2],
            facts[3],
            facts_sum(id, facts).get(),
            message.file,
            file_sum(id, &message.file).get(),
        ];
        let insert = |otherwise: &str| {
            let insert = format!("INSERT OR {otherwise} INTO messages ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)");
            Ok::<usize, IndexError>(self.connection.prepare_cached(&insert)?.execute(values)?)
        };
        let is_new = insert("IGNORE")? == 1;
        let replaced: i64 = if is_new {
            0
        } else {
            let replaced =
                self.connection.prepare_cached("SELECT size FROM messages WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
            insert("REPLACE")?;
            replaced.unwrap_or(0)
        };
        let counts = self.counts(mailbox);
        counts.messages += i64::from(is_new);
        counts.bytes = counts.bytes.wrapping_add(facts[0]).wrapping_sub(replaced);
        if is_new { self.forget_leftover(id) } else { Ok(()) }
    }
    /// Takes over what was made of copied messages, where it is there: of the UIDs from one to another, the first copy has this UID and the others follow.
    pub fn copy_made(&mut self, from: (MailboxId, (Uid, Uid)), to: (MailboxId, Uid)) -> Result<(), IndexError> {
        let (mailbox, (first, last)) = from;
        let ids = [first, last].map(|uid| id(mailbox, uid.get()));
        let distance = id(to.0, to.1.get()) - ids[0];
        for (table, columns, sums) in [
            ("rendered", "envelope, body_structure, headers", &["shape_sum", "headers_sum"][..]),
            ("previews", "preview", &["sum"]),
            ("summaries", "summary", &["sum"]),
        ] {
            let moved: Vec<String> = sums.iter().map(|sum| format!("{sum} + ?3")).collect();
            let insert = format!(
                "INSERT OR REPLACE INTO {table} (id, {columns}, {}) SELECT id + ?3, {columns}, {} FROM {table} WHERE id BETWEEN ?1 AND ?2",
                sums.join(", "),
                moved.join(", ")
            );
            self.connection.prepare_cached(&insert)?.execute([ids[0], ids[1], distance])?;
        }
        self.copy_answers(ids, distance)
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
        let (flags, modseq) = (flags.bits().cast_signed(), modseq.get().cast_signed());
        self.connection
            .prepare_cached("UPDATE messages SET flags = ?3, modseq = ?4, flags_sum = ?5 + id WHERE id BETWEEN ?1 AND ?2")?
            .execute([first, last, flags, modseq, flags_sum(flags, modseq).get()])?;
        let new = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO write_backs (id, sum) SELECT id, ?3 + id FROM messages WHERE id BETWEEN ?1 AND ?2")?
            .execute([first, last, write_back_sum().get()])?;
        self.counts(mailbox).others += signed(new);
        Ok(())
    }
    /// The message's file name must be brought up to date.
    pub fn insert_write_back(&mut self, mailbox: MailboxId, uid: Uid) -> Result<(), IndexError> {
        let id = id(mailbox, uid.get());
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO write_backs (id, sum) VALUES (?1, ?2)")?;
        let new = insert.execute([id, write_back_sum().get() + id])?;
        drop(insert);
        self.counts(mailbox).others += signed(new);
        Ok(())
    }
    /// The message's file has this name now.
    pub fn set_file(&mut self, mailbox: MailboxId, uid: Uid, file: &str) -> Result<(), IndexError> {
        let id = id(mailbox, uid.get());
        let mut update = self.connection.prepare_cached("UPDATE messages SET file = ?2, file_sum = ?3 WHERE id = ?1")?;
        update.execute(params![id, file, file_sum(id, file).get()])?;
        drop(update);
        self.counts(mailbox);
        Ok(())
    }
    /// The message's file name has its UID and flags.
    pub fn delete_write_back(&mut self, mailbox: MailboxId, uid: Uid) -> Result<(), IndexError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM write_backs WHERE id = ?1")?;
        let gone = delete.execute([id(mailbox, uid.get())])?;
        drop(delete);
        self.counts(mailbox).others -= signed(gone);
        Ok(())
    }
    /// Remembers a POP3 UIDL that an earlier server gave.
    pub fn insert_uidl(&mut self, mailbox: MailboxId, uid: Uid, uidl: &str) -> Result<(), IndexError> {
        let id = id(mailbox, uid.get());
        let sum = uidl_sum(id, uidl).get();
        let new = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO uidls (id, uidl, sum) VALUES (?1, ?2, ?3)")?
            .execute(params![id, uidl, sum])?;
        if new == 0 {
            let mut update = self.connection.prepare_cached("UPDATE uidls SET uidl = ?2, sum = ?3 WHERE id = ?1")?;
            update.execute(params![id, uidl, sum])?;
        }
        self.counts(mailbox).uidls += signed(new);
        Ok(())
    }
    /// Forgets a message and remembers that it was expunged.
    pub fn expunge(&mut self, mailbox: MailboxId, uid: Uid, modseq: ModSeq) -> Result<(), IndexError> {
        self.expunge_between(mailbox, (uid, uid), modseq)
    }
    /// Forgets every message from one UID to another, and remembers that they were expunged. What was made of them is [swept](Change::sweep) later.
    pub fn expunge_between(&mut self, mailbox: MailboxId, (first, last): (Uid, Uid), modseq: ModSeq) -> Result<(), IndexError> {
        let ids = [first, last].map(|uid| id(mailbox, uid.get()));
        let modseq = modseq.get().cast_signed();
        let new = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO expunged (mailbox, modseq, uid, sum)
                 SELECT ?1, ?2, id & 0xffffffff, ?5 + (id & 0xffffffff) FROM messages WHERE id BETWEEN ?3 AND ?4",
            )?
            .execute([mailbox.0, modseq, ids[0], ids[1], expunged_sum(mailbox, modseq).get()])?;
        self.counts(mailbox).expunged += signed(new);
        if new > 0 {
            self.remember_leftover(ids)?;
        }
        self.delete_messages(mailbox, ids)
    }
    /// Remembers that messages without a row were expunged: they came and went between two commits. Those that are remembered already stay as they are.
    pub fn expunge_unwritten(&mut self, mailbox: MailboxId, uids: &[Uid], modseq: ModSeq) -> Result<(), IndexError> {
        let modseq = modseq.get().cast_signed();
        let sum = expunged_sum(mailbox, modseq).get();
        let mut insert =
            self.connection.prepare_cached("INSERT OR IGNORE INTO expunged (mailbox, modseq, uid, sum) VALUES (?1, ?2, ?3, ?4)")?;
        let mut new = 0;
        for uid in uids {
            new += insert.execute([mailbox.0, modseq, uid.get().into(), sum + i64::from(uid.get())])?;
        }
        drop(insert);
        self.counts(mailbox).expunged += signed(new);
        Ok(())
    }
    fn delete_messages(&mut self, mailbox: MailboxId, ids: [i64; 2]) -> Result<(), IndexError> {
        let delete = |table: &str| -> Result<i64, IndexError> {
            let delete = format!("DELETE FROM {table} WHERE id BETWEEN ?1 AND ?2");
            Ok(signed(self.connection.prepare_cached(&delete)?.execute(ids)?))
        };
        let size = "SELECT coalesce(sum(size), 0) FROM messages WHERE id BETWEEN ?1 AND ?2";
        let bytes: i64 = self.connection.prepare_cached(size)?.query_row(ids, |row| row.get(0))?;
        let messages = delete("messages")?;
        let (write_backs, uidls) = (delete("write_backs")?, delete("uidls")?);
        let counts = self.counts(mailbox);
        counts.messages -= messages;
        counts.bytes = counts.bytes.wrapping_sub(bytes);
        counts.others -= write_backs;
        counts.uidls -= uidls;
        Ok(())
    }
    /// Keeps the newest `keep` expunged UIDs; if older ones are forgotten, the mailbox says so from the same commit on.
    pub fn trim_expunged(&mut self, record: &mut MailboxRecord, keep: u32) -> Result<(), IndexError> {
        let mailbox = record.id;
        let floor: Option<i64> = self
            .connection
            .prepare_cached("SELECT modseq FROM expunged WHERE mailbox = ?1 ORDER BY modseq DESC LIMIT 1 OFFSET ?2")?
            .query_row(params![mailbox.0, keep], |row| row.get(0))
            .optional()?;
        let Some(floor) = floor else { return Ok(()) };
        let mut delete = self.connection.prepare_cached("DELETE FROM expunged WHERE mailbox = ?1 AND modseq <= ?2")?;
        let gone = delete.execute([mailbox.0, floor])?;
        drop(delete);
        self.counts(mailbox).expunged -= signed(gone);
        record.expunged_floor = floor.cast_unsigned();
        self.update_mailbox(record)
    }
    /// Forgets every message of a mailbox, without remembering them as expunged.
    pub fn clear_messages(&mut self, mailbox: MailboxId) -> Result<(), IndexError> {
        let all = [id(mailbox, 0), id(mailbox, u32::MAX)];
        self.delete_made(all)?;
        self.connection.prepare_cached("DELETE FROM leftovers WHERE first BETWEEN ?1 AND ?2")?.execute(all)?;
        self.delete_messages(mailbox, all)
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
        change.copy_made((a, (uid(2), uid(2))), (b, uid(1))).unwrap();
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
        assert!(index.check(&mut |_, _| ()).is_err(), "UIDs at or above UIDNEXT are found out");
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
        let mut record = MailboxRecord { id, ..mailbox("") };
        change.trim_expunged(&mut record, 5).unwrap();
        assert_eq!(record.expunged_floor, 0);
        change.trim_expunged(&mut record, 3).unwrap();
        change.commit().unwrap();
        assert_eq!((record.expunged_floor, index.mailboxes().unwrap()[0].expunged_floor), (12, 12), "of the same commit");
        let reader = index.reader().unwrap();
        assert_eq!(reader.expunged_since(id, 12).unwrap(), [uid(3), uid(4), uid(5)]);
        assert_eq!(reader.expunged_since(id, 14).unwrap(), [uid(5)]);
        assert!(index.messages(id).unwrap().is_empty());
    }
}
