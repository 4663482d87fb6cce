//! Header fields that clients asked for of many messages, set by set. What is missing is made again.
//!
//! Invariants, each with the test that guards it:
//! - answers go with their message and are copied with it (`answers_are_read_back_copied_and_go_with_their_message`)
//! - only so many sets of header fields are kept; the oldest makes room (`the_oldest_header_fields_make_room`)

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    Change, IndexError, IndexReader, MailboxId, Uid, UserIndex,
    checksum::Sum,
    messages::{blob, id},
};

/// A set of header fields that is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FieldsKind(i64);

/// All kinds, in SQL.
const KINDS: &str = "kind IN (SELECT kind FROM asked)";

const COLUMNS: &str = "id, kind, fields, sum";

/// Plus the row's id.
fn sum(kind: FieldsKind, fields: &[u8]) -> Sum {
    Sum::of("answers").number(kind.0).bytes(fields)
}
fn asked_sum(kind: FieldsKind, names: &str) -> Sum {
    Sum::of("asked").number(kind.0).text(names)
}

/// A row of all its columns, whose bytes are checked.
fn answer<'r>(row: &'r Row<'_>) -> rusqlite::Result<&'r [u8]> {
    let fields = blob(row, 2)?;
    sum(FieldsKind(row.get(1)?), fields).check("answers", row.get::<_, i64>(3)?.wrapping_sub(row.get(0)?))?;
    Ok(fields)
}

impl UserIndex {
    /// The sets of header fields that are kept, the oldest first.
    pub fn asked_fields(&self) -> Result<Vec<(FieldsKind, String)>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT kind, names, sum FROM asked ORDER BY kind")?;
        let rows = statement.query_map([], asked)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
    /// Reads the answers of all messages with these ids.
    pub(crate) fn check_answers(&self, ids: [i64; 2]) -> Result<(), IndexError> {
        self.check_rows(COLUMNS, &format!("answers WHERE {KINDS} AND"), ids, |row| answer(row).map(|_| ()))
    }
}

impl IndexReader {
    /// Calls `visit` with the header fields of `uids` (ascending), without a copy.
    pub fn answers(&self, mailbox: MailboxId, kind: FieldsKind, uids: &[Uid], visit: &mut dyn FnMut(Uid, &[u8])) -> Result<(), IndexError> {
        self.each_row(COLUMNS, &format!("answers WHERE kind = {} AND", kind.0), mailbox, uids, &mut |uid, row| {
            visit(uid, answer(row)?);
            Ok(())
        })
    }
}

fn asked(row: &Row<'_>) -> rusqlite::Result<(FieldsKind, String)> {
    let (kind, names): (FieldsKind, String) = (FieldsKind(row.get(0)?), row.get(1)?);
    asked_sum(kind, &names).check("asked", row.get(2)?)?;
    Ok((kind, names))
}

impl Change<'_> {
    /// Stores header fields of a message that is there, where they are kept; they go with the message.
    pub fn insert_answer(&mut self, mailbox: MailboxId, uid: Uid, kind: FieldsKind, fields: &[u8]) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO answers (kind, id, fields, sum) SELECT ?1, ?2, ?3, ?4 + ?2
             WHERE EXISTS (SELECT 1 FROM messages WHERE id = ?2) AND EXISTS (SELECT 1 FROM asked WHERE kind = ?1)",
        )?;
        insert.execute(params![kind.0, id(mailbox, uid.get()), fields, sum(kind, fields).get()])?;
        Ok(())
    }
    /// The kind of a set of header fields, from now on one of those that are kept: at most `most`, the oldest makes room.
    pub fn keep_fields(&mut self, names: &str, most: u32) -> Result<FieldsKind, IndexError> {
        let known = "SELECT kind, names, sum FROM asked WHERE names = ?1";
        if let Some((kind, _)) = self.connection.prepare_cached(known)?.query_row([names], asked).optional()? {
            return Ok(kind);
        }
        let oldest = "SELECT kind FROM asked ORDER BY kind DESC LIMIT -1 OFFSET ?1";
        let too_many: Vec<i64> = {
            let mut statement = self.connection.prepare_cached(oldest)?;
            let rows = statement.query_map([most.saturating_sub(1)], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        for kind in too_many {
            self.connection.prepare_cached("DELETE FROM answers WHERE kind = ?1")?.execute([kind])?;
            self.connection.prepare_cached("DELETE FROM asked WHERE kind = ?1")?.execute([kind])?;
        }
        self.connection.prepare_cached("INSERT INTO asked (names, sum) VALUES (?1, 0)")?.execute([names])?;
        let kind = FieldsKind(self.connection.last_insert_rowid());
        let update = "UPDATE asked SET sum = ?2 WHERE kind = ?1";
        self.connection.prepare_cached(update)?.execute([kind.0, asked_sum(kind, names).get()])?;
        Ok(kind)
    }
    /// Takes over the header fields of copied messages: `ids` from one to another, each copy's id is higher by `distance`.
    pub(crate) fn copy_answers(&self, ids: [i64; 2], distance: i64) -> Result<(), IndexError> {
        let insert = format!(
            "INSERT OR REPLACE INTO answers (kind, id, fields, sum)
             SELECT kind, id + ?3, fields, sum + ?3 FROM answers WHERE {KINDS} AND id BETWEEN ?1 AND ?2"
        );
        self.connection.prepare_cached(&insert)?.execute([ids[0], ids[1], distance])?;
        Ok(())
    }
    /// The number of rows.
    pub(crate) fn delete_answers(&self, ids: [i64; 2]) -> Result<usize, IndexError> {
        let delete = format!("DELETE FROM answers WHERE {KINDS} AND id BETWEEN ?1 AND ?2");
        Ok(self.connection.prepare_cached(&delete)?.execute(ids)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModSeq, testing};

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }
    fn read(index: &UserIndex, mailbox: MailboxId, kind: FieldsKind) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        let all: Vec<Uid> = (1..=9).map(uid).collect();
        index.reader().unwrap().answers(mailbox, kind, &all, &mut |uid, bytes| found.push((uid.get(), bytes.to_vec()))).unwrap();
        found
    }

    #[test]
    fn answers_are_read_back_copied_and_go_with_their_message() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = testing::two_mailboxes_of_three(&mut change);
        let kind = change.keep_fields("x-mailer", 8).unwrap();
        for number in [1, 2, 3, 9] {
            change.insert_answer(a, uid(number), kind, &[number.try_into().unwrap()]).unwrap();
        }
        change.copy_made((a, (uid(2), uid(3))), (b, uid(1))).unwrap();
        change.commit().unwrap();
        assert_eq!(read(&index, a, kind), [(1, vec![1]), (2, vec![2]), (3, vec![3])], "of a message that is not there none is kept");
        assert_eq!(read(&index, b, kind), [(1, vec![2]), (2, vec![3])]);
        let mut change = index.begin().unwrap();
        change.expunge_between(a, (uid(1), uid(2)), ModSeq::new(2).unwrap()).unwrap();
        change.commit().unwrap();
        testing::sweep_all(&mut index);
        assert_eq!(read(&index, a, kind), [(3, vec![3])]);
        index.connection.execute("UPDATE answers SET fields = x'00'", []).unwrap();
        assert!(index.reader().unwrap().answers(a, kind, &[uid(3)], &mut |_, _| ()).unwrap_err().needs_rebuild());
    }

    #[test]
    fn the_oldest_header_fields_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, _) = testing::two_mailboxes_of_three(&mut change);
        let first = change.keep_fields("x-1", 2).unwrap();
        let second = change.keep_fields("x-2", 2).unwrap();
        for kind in [first, second] {
            change.insert_answer(a, uid(1), kind, b"X").unwrap();
        }
        assert_eq!(change.keep_fields("x-1", 2).unwrap(), first);
        let third = change.keep_fields("x-3", 2).unwrap();
        change.commit().unwrap();
        let mut change = index.begin().unwrap();
        change.insert_answer(a, uid(2), first, b"of a kind that is gone").unwrap();
        change.commit().unwrap();
        let asked = index.asked_fields().unwrap();
        assert_eq!(asked, [(second, "x-2".to_owned()), (third, "x-3".to_owned())]);
        assert_eq!([first, second, third].map(|kind| read(&index, a, kind).len()), [0, 1, 0]);
        assert!(third > second && second > first);
    }
}
