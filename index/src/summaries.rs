//! Summaries of messages: what searches, sorts and threads look at. One that is missing is made again.

use std::sync::OnceLock;

use rusqlite::{Row, params};

use crate::{
    Change, IndexError, IndexReader, MailboxId, Uid, UserIndex,
    checksum::Sum,
    messages::{blob, id},
};

const COLUMNS: &str = "id, summary, sum";

/// Plus the row's id.
fn sum(summary: &[u8]) -> Sum {
    static BEGUN: OnceLock<u32> = OnceLock::new();
    Sum::of_many("summaries", &BEGUN).bytes(summary)
}
fn summary<'r>(row: &'r Row<'_>) -> rusqlite::Result<&'r [u8]> {
    let summary = blob(row, 1)?;
    sum(summary).check("summaries", row.get::<_, i64>(2)?.wrapping_sub(row.get(0)?))?;
    Ok(summary)
}

impl UserIndex {
    /// Reads the summaries of all messages with these ids.
    pub(crate) fn check_summaries(&self, ids: [i64; 2]) -> Result<(), IndexError> {
        self.check_rows(COLUMNS, "summaries WHERE", ids, |row| summary(row).map(|_| ()))
    }
}

impl IndexReader {
    /// Calls `visit` with the summaries of `uids` (ascending), without a copy.
    pub fn summaries(&self, mailbox: MailboxId, uids: &[Uid], visit: &mut dyn FnMut(Uid, &[u8])) -> Result<(), IndexError> {
        self.each_row(COLUMNS, "summaries WHERE", mailbox, uids, &mut |uid, row| {
            visit(uid, summary(row)?);
            Ok(())
        })
    }
}

impl Change<'_> {
    /// Stores the summary of a message that is there; it goes with the message.
    pub fn insert_summary(&mut self, mailbox: MailboxId, uid: Uid, summary: &[u8]) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO summaries (id, summary, sum) SELECT ?1, ?2, ?3 + ?1 WHERE EXISTS (SELECT 1 FROM messages WHERE id = ?1)",
        )?;
        insert.execute(params![id(mailbox, uid.get()), summary, sum(summary).get()])?;
        Ok(())
    }
    /// As an index of an earlier version has it.
    #[doc(hidden)]
    pub fn delete_summary_for_test(&mut self, mailbox: MailboxId, uid: Uid) -> Result<(), IndexError> {
        self.connection.prepare_cached("DELETE FROM summaries WHERE id = ?1")?.execute([id(mailbox, uid.get())])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModSeq, testing};

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }
    fn read(index: &UserIndex, mailbox: MailboxId) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        let all: Vec<Uid> = (1..=9).map(uid).collect();
        index.reader().unwrap().summaries(mailbox, &all, &mut |uid, bytes| found.push((uid.get(), bytes.to_vec()))).unwrap();
        found
    }

    #[test]
    fn summaries_are_read_back_copied_and_go_with_their_message() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = testing::two_mailboxes_of_three(&mut change);
        for number in [1, 2, 3, 9] {
            change.insert_summary(a, uid(number), &[number.try_into().unwrap()]).unwrap();
        }
        change.copy_made((a, (uid(2), uid(3))), (b, uid(1))).unwrap();
        change.commit().unwrap();
        assert_eq!(read(&index, a), [(1, vec![1]), (2, vec![2]), (3, vec![3])], "of a message that is not there none is kept");
        assert_eq!(read(&index, b), [(1, vec![2]), (2, vec![3])]);
        let mut change = index.begin().unwrap();
        change.expunge_between(a, (uid(1), uid(2)), ModSeq::new(2).unwrap()).unwrap();
        change.commit().unwrap();
        testing::sweep_all(&mut index);
        assert_eq!(read(&index, a), [(3, vec![3])]);
        index.connection.execute("UPDATE summaries SET summary = x'00'", []).unwrap();
        assert!(index.reader().unwrap().summaries(a, &[uid(3)], &mut |_, _| ()).unwrap_err().needs_rebuild());
    }
}
