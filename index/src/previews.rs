//! Previews of messages (PREVIEW, RFC 8970), in a table of their own: lists of messages ask for them, nothing else does.

use rusqlite::{OptionalExtension, params};

use crate::{Change, IndexError, IndexReader, MailboxId, Uid};

/// A message's row id.
fn id(mailbox: MailboxId, uid: Uid) -> i64 {
    (mailbox.0 << 32) | i64::from(uid.get())
}

impl IndexReader {
    /// The previews of `uids`, in their order; `None`: there is none yet.
    pub fn previews(&self, mailbox: MailboxId, uids: &[Uid]) -> Result<Vec<Option<String>>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT preview FROM previews WHERE id = ?1")?;
        let found = uids.iter().map(|uid| statement.query_row([id(mailbox, *uid)], |row| row.get(0)).optional());
        Ok(found.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Stores the preview of a message that is there; it goes with the message.
    pub fn insert_preview(&mut self, mailbox: MailboxId, uid: Uid, preview: &str) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO previews (id, preview) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM messages WHERE id = ?1)",
        )?;
        insert.execute(params![id(mailbox, uid), preview])?;
        Ok(())
    }
    /// Takes over the preview of a copied message, if it is there.
    pub fn copy_preview(&mut self, from: (MailboxId, Uid), to: (MailboxId, Uid)) -> Result<(), IndexError> {
        let mut insert =
            self.connection.prepare_cached("INSERT OR REPLACE INTO previews (id, preview) SELECT ?2, preview FROM previews WHERE id = ?1")?;
        insert.execute([id(from.0, from.1), id(to.0, to.1)])?;
        Ok(())
    }
}
