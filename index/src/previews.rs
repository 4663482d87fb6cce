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
    /// Takes over the preview of a copied message, if it is there.
    pub fn copy_preview(&mut self, from: (MailboxId, Uid), to: (MailboxId, Uid)) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO previews (id, preview, sum) SELECT ?2, preview, sum - ?1 + ?2 FROM previews WHERE id = ?1",
        )?;
        insert.execute([id(from.0, from.1.get()), id(to.0, to.1.get())])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlagSet, MessageRecord, ModSeq, UserIndex, testing::mailbox};

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }
    fn three_messages(change: &mut Change<'_>) -> MailboxId {
        let id = change.insert_mailbox(&mailbox("")).unwrap();
        for number in 1..4 {
            let (size, file) = (12, format!("cur/{number}"));
            let modseq = ModSeq::new(1).unwrap();
            let record = MessageRecord {
                uid: uid(number),
                flags: FlagSet::EMPTY,
                modseq,
                size,
                disk_size: size,
                internal_date: 0,
                save_date: 0,
                file,
            };
            change.insert_message(id, &record).unwrap();
        }
        id
    }

    #[test]
    fn an_index_of_the_version_before_keeps_all_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let id = three_messages(&mut change);
        change.insert_rendered(id, uid(2), [b"envelope", b"structure", b"headers"]).unwrap();
        change.commit().unwrap();
        let before = "DROP TRIGGER preview_goes; DROP TABLE previews; PRAGMA user_version = 4";
        index.connection.execute_batch(before).unwrap();
        let rows = |index: &UserIndex| -> Vec<String> {
            let dump = "SELECT quote(id) || quote(file) || quote(modseq) FROM messages UNION ALL SELECT quote(id) || quote(envelope) || quote(shape_sum) FROM rendered";
            let mut statement = index.connection.prepare(dump).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let had = rows(&index);
        drop(index);
        let mut index = UserIndex::open(folder.path()).unwrap();
        assert_eq!((had.len(), &had), (4, &rows(&index)));
        assert_eq!(index.reader().unwrap().previews(id, &[uid(2)]).unwrap(), [None]);
        let mut change = index.begin().unwrap();
        change.insert_preview(id, uid(2), "Hello").unwrap();
        change.commit().unwrap();
        assert_eq!(index.reader().unwrap().previews(id, &[uid(2)]).unwrap(), [Some("Hello".to_owned())]);
    }

    #[test]
    fn a_preview_is_read_back_copied_and_goes_with_its_message() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let id = three_messages(&mut change);
        change.insert_preview(id, uid(1), "Gr\u{fc}\u{df}e").unwrap();
        change.insert_preview(id, uid(9), "of nothing").unwrap();
        change.copy_preview((id, uid(1)), (id, uid(2))).unwrap();
        change.commit().unwrap();
        let uids = [1, 2, 3, 9].map(uid);
        let hello = Some("Gr\u{fc}\u{df}e".to_owned());
        assert_eq!(index.reader().unwrap().previews(id, &uids).unwrap(), [hello.clone(), hello.clone(), None, None]);
        let mut change = index.begin().unwrap();
        change.expunge_between(id, (uid(1), uid(1)), ModSeq::new(2).unwrap()).unwrap();
        change.commit().unwrap();
        assert_eq!(index.reader().unwrap().previews(id, &uids).unwrap(), [None, hello, None, None]);
        index.connection.execute("UPDATE previews SET preview = 'Grusse'", []).unwrap();
        assert!(index.reader().unwrap().previews(id, &uids).unwrap_err().needs_rebuild());
    }
}
