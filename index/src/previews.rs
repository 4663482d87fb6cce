//! Previews of messages (PREVIEW, RFC 8970), in a table of their own: lists of messages ask for them, nothing else does.

use rusqlite::{OptionalExtension, params};

use crate::{Change, IndexError, IndexReader, MailboxId, Uid, checksum::Sum, messages::id};

const TABLE: &str = "previews";

fn sum(preview: &str) -> Sum {
    Sum::of(TABLE).text(preview)
}

impl IndexReader {
    /// The previews of `uids`, in their order; `None`: there is none yet.
    pub fn previews(&self, mailbox: MailboxId, uids: &[Uid]) -> Result<Vec<Option<String>>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT preview, sum - id FROM previews WHERE id = ?1")?;
        let mut previews = Vec::with_capacity(uids.len());
        for uid in uids {
            let found: Option<(String, i64)> =
                statement.query_row([id(mailbox, uid.get())], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            if let Some((preview, stored)) = &found {
                sum(preview).check(TABLE, *stored)?;
            }
            previews.push(found.map(|(preview, _)| preview));
        }
        Ok(previews)
    }
}

impl Change<'_> {
    /// Stores the preview of a message that is there; it goes with the message.
    pub fn insert_preview(&mut self, mailbox: MailboxId, uid: Uid, preview: &str) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO previews (id, preview, sum) SELECT ?1, ?2, ?3 + ?1 WHERE EXISTS (SELECT 1 FROM messages WHERE id = ?1)",
        )?;
        insert.execute(params![id(mailbox, uid.get()), preview, sum(preview).get()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ModSeq, UserIndex,
        testing::{self, two_mailboxes_of_three},
    };

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    #[test]
    fn an_index_of_the_version_before_keeps_all_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (id, _) = two_mailboxes_of_three(&mut change);
        change.insert_rendered(id, uid(2), [b"envelope", b"structure", b"headers"]).unwrap();
        change.commit().unwrap();
        let before = "DROP TABLE previews; DROP TABLE summaries; DROP TABLE answers; DROP TABLE asked; DROP TABLE leftovers;
            ALTER TABLE mailboxes DROP COLUMN snapshot; PRAGMA user_version = 4";
        index.connection.execute_batch(before).unwrap();
        let rows = |index: &UserIndex| -> Vec<String> {
            let dump = "SELECT quote(id) || quote(file) || quote(modseq) FROM messages UNION ALL SELECT quote(id) || quote(envelope) || quote(shape_sum) FROM rendered";
            let mut statement = index.connection.prepare(dump).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let had = rows(&index);
        drop(index);
        let mut index = UserIndex::open(folder.path()).unwrap();
        assert_eq!((had.len(), &had), (7, &rows(&index)));
        assert_eq!(index.reader().unwrap().previews(id, &[uid(2)]).unwrap(), [None]);
        let mut change = index.begin().unwrap();
        change.insert_preview(id, uid(2), "Hello").unwrap();
        change.insert_summary(id, uid(2), b"summary").unwrap();
        change.commit().unwrap();
        assert_eq!(index.reader().unwrap().previews(id, &[uid(2)]).unwrap(), [Some("Hello".to_owned())]);
    }

    #[test]
    fn a_preview_is_read_back_copied_and_goes_with_its_message() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (id, other) = two_mailboxes_of_three(&mut change);
        change.insert_preview(id, uid(1), "Gr\u{fc}\u{df}e").unwrap();
        change.insert_preview(id, uid(9), "of nothing").unwrap();
        change.copy_made((id, (uid(1), uid(1))), (other, uid(2))).unwrap();
        change.commit().unwrap();
        let uids = [1, 2, 3, 9].map(uid);
        let hello = Some("Gr\u{fc}\u{df}e".to_owned());
        assert_eq!(index.reader().unwrap().previews(id, &uids).unwrap(), [hello.clone(), None, None, None]);
        assert_eq!(index.reader().unwrap().previews(other, &uids).unwrap(), [None, hello.clone(), None, None]);
        let mut change = index.begin().unwrap();
        change.expunge_between(id, (uid(1), uid(1)), ModSeq::new(2).unwrap()).unwrap();
        change.commit().unwrap();
        testing::sweep_all(&mut index);
        assert_eq!(index.reader().unwrap().previews(id, &uids).unwrap(), [None, None, None, None]);
        assert_eq!(index.reader().unwrap().previews(other, &uids).unwrap(), [None, hello, None, None]);
        index.connection.execute("UPDATE previews SET preview = 'Grusse'", []).unwrap();
        assert!(index.reader().unwrap().previews(other, &uids).unwrap_err().needs_rebuild());
    }
}
