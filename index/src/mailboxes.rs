//! Mailboxes: UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, keywords, and what is still to be done in their folders.

use rusqlite::{Row, params};

use crate::{Change, IndexError, ModSeq, UidValidity, UserIndex};

/// A mailbox's row; never given twice in one index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MailboxId(pub(crate) i64);

impl MailboxId {
    /// Of a record that is not inserted yet.
    pub const NEW: MailboxId = MailboxId(0);
}

/// Whether the folder must be compared with the index before its content can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanDue {
    /// Only when the folder changed.
    No,
    /// Once more, after a dead holder's late requests can't arrive any more.
    Settle,
    /// The index has no rows (it was rebuilt, or the mailbox is new to it).
    Rebuild,
    /// The holder before died: the index may lack what it told clients, up to the ceilings in the folder's state file.
    Takeover,
}

impl ScanDue {
    fn number(self) -> i64 {
        match self {
            ScanDue::No => 0,
            ScanDue::Settle => 1,
            ScanDue::Rebuild => 2,
            ScanDue::Takeover => 3,
        }
    }
    fn from_number(number: i64) -> ScanDue {
        match number {
            0 => ScanDue::No,
            1 => ScanDue::Settle,
            2 => ScanDue::Rebuild,
            _ => ScanDue::Takeover,
        }
    }
}

/// What the index knows of one mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailboxRecord {
    /// Its row.
    pub id: MailboxId,
    /// Its Maildir++ folder; empty: the inbox.
    pub folder: String,
    /// Its generation of UIDs.
    pub uid_validity: UidValidity,
    /// Above every UID with a row, and above every UID this index knows to have been given.
    pub uid_next: u32,
    /// The highest MODSEQ given.
    pub highest_modseq: ModSeq,
    /// Expunges up to this MODSEQ are forgotten.
    pub expunged_floor: u64,
    /// Messages from this UID on are \Recent to the next session.
    pub first_recent: u32,
    /// Its special use, as the file beside the mail says.
    pub special_use: Option<String>,
    /// UIDs below may have been given (a copy; the truth is a file name in the folder).
    pub uid_ceiling: u32,
    /// MODSEQs below may have been told (a copy; the truth is a file name in the folder).
    pub modseq_ceiling: u64,
    /// Change time of `cur/` at the last scan; 0: look again.
    pub cur_seen: i64,
    /// Change time of `new/` at the last scan; 0: look again.
    pub new_seen: i64,
    /// What kind of scan is due.
    pub scan_due: ScanDue,
    /// Messages with UIDs below keep the file names that an earlier server gave them; their UIDs are in a list beside the mail.
    pub adopted_below: u32,
}

const COLUMNS: &str = "id, folder, uid_validity, uid_next, highest_modseq, expunged_floor, first_recent, special_use, uid_ceiling, \
                       modseq_ceiling, cur_seen, new_seen, scan_due, adopted_below";

fn record(row: &Row<'_>) -> rusqlite::Result<MailboxRecord> {
    let broken = |column: usize, value: i64| rusqlite::Error::IntegralValueOutOfRange(column, value);
    let uid_validity: u32 = row.get(2)?;
    let highest_modseq: i64 = row.get(4)?;
    Ok(MailboxRecord {
        id: MailboxId(row.get(0)?),
        folder: row.get(1)?,
        uid_validity: UidValidity::new(uid_validity).ok_or_else(|| broken(2, 0))?,
        uid_next: row.get(3)?,
        highest_modseq: ModSeq::new(highest_modseq.cast_unsigned()).ok_or_else(|| broken(4, highest_modseq))?,
        expunged_floor: row.get::<_, i64>(5)?.cast_unsigned(),
        first_recent: row.get(6)?,
        special_use: row.get(7)?,
        uid_ceiling: row.get(8)?,
        modseq_ceiling: row.get::<_, i64>(9)?.cast_unsigned(),
        cur_seen: row.get(10)?,
        new_seen: row.get(11)?,
        scan_due: ScanDue::from_number(row.get(12)?),
        adopted_below: row.get(13)?,
    })
}

impl UserIndex {
    /// Every mailbox.
    pub fn mailboxes(&self) -> Result<Vec<MailboxRecord>, IndexError> {
        let mut statement = self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mailboxes"))?;
        let rows = statement.query_map([], record)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
    /// One mailbox.
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<MailboxRecord>, IndexError> {
        let mut statement = self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mailboxes WHERE id = ?1"))?;
        let mut rows = statement.query_map([id.0], record)?;
        Ok(rows.next().transpose()?)
    }
    /// Keyword names by position, without gaps.
    pub fn keywords(&self, mailbox: MailboxId) -> Result<Vec<String>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT name FROM keywords WHERE mailbox = ?1 ORDER BY position")?;
        let rows = statement.query_map([mailbox.0], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
    /// Messages and bytes of every mailbox, as of the last commit.
    pub fn usages(&self) -> Result<Vec<(MailboxId, u64, u64)>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT id, messages, bytes FROM mailboxes")?;
        let rows = statement.query_map([], |row| {
            Ok((MailboxId(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, i64>(2)?.cast_unsigned()))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
    /// Files of expunged messages that are still to be removed.
    pub fn removals(&self, mailbox: MailboxId) -> Result<Vec<String>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT file FROM removals WHERE mailbox = ?1")?;
        let rows = statement.query_map([mailbox.0], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
    /// The mailboxes whose folders lack changes that the index has.
    pub fn mailboxes_with_work(&self) -> Result<Vec<MailboxId>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT id >> 32 FROM write_backs UNION SELECT mailbox FROM removals")?;
        let rows = statement.query_map([], |row| row.get(0).map(MailboxId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Adds a mailbox and gives its row.
    pub fn insert_mailbox(&mut self, mailbox: &MailboxRecord) -> Result<MailboxId, IndexError> {
        self.connection.prepare_cached(
            "INSERT INTO mailboxes (folder, uid_validity, uid_next, highest_modseq, expunged_floor, first_recent, special_use, uid_ceiling,
                                    modseq_ceiling, cur_seen, new_seen, scan_due, adopted_below)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            mailbox.folder,
            mailbox.uid_validity.get(),
            mailbox.uid_next,
            mailbox.highest_modseq.get().cast_signed(),
            mailbox.expunged_floor.cast_signed(),
            mailbox.first_recent,
            mailbox.special_use,
            mailbox.uid_ceiling,
            mailbox.modseq_ceiling.cast_signed(),
            mailbox.cur_seen,
            mailbox.new_seen,
            mailbox.scan_due.number(),
            mailbox.adopted_below,
        ])?;
        Ok(MailboxId(self.connection.last_insert_rowid()))
    }
    /// Writes all of a mailbox's record but its folder, special use and what was adopted.
    pub fn update_mailbox(&mut self, mailbox: &MailboxRecord) -> Result<(), IndexError> {
        self.connection
            .prepare_cached(
                "UPDATE mailboxes SET uid_validity = ?2, uid_next = ?3, highest_modseq = ?4, expunged_floor = ?5, first_recent = ?6,
                                  uid_ceiling = ?7, modseq_ceiling = ?8, cur_seen = ?9, new_seen = ?10, scan_due = ?11 WHERE id = ?1",
            )?
            .execute(params![
                mailbox.id.0,
                mailbox.uid_validity.get(),
                mailbox.uid_next,
                mailbox.highest_modseq.get().cast_signed(),
                mailbox.expunged_floor.cast_signed(),
                mailbox.first_recent,
                mailbox.uid_ceiling,
                mailbox.modseq_ceiling.cast_signed(),
                mailbox.cur_seen,
                mailbox.new_seen,
                mailbox.scan_due.number(),
            ])?;
        Ok(())
    }
    /// The mailbox lies in another folder now.
    pub fn set_folder(&mut self, mailbox: MailboxId, folder: &str) -> Result<(), IndexError> {
        self.connection.prepare_cached("UPDATE mailboxes SET folder = ?2 WHERE id = ?1")?.execute(params![mailbox.0, folder])?;
        Ok(())
    }
    /// Every mailbox is to be compared with its folder and to go on above its ceilings when it is opened next.
    pub fn taken_over_uncleanly(&mut self) -> Result<(), IndexError> {
        self.connection.execute(
            "UPDATE mailboxes SET scan_due = ?1, cur_seen = 0, new_seen = 0 WHERE scan_due <> ?2",
            [ScanDue::Takeover.number(), ScanDue::Rebuild.number()],
        )?;
        Ok(())
    }
    /// Forgets a mailbox and all of its messages.
    pub fn delete_mailbox(&mut self, mailbox: MailboxId) -> Result<(), IndexError> {
        self.clear_messages(mailbox)?;
        for statement in [
            "DELETE FROM removals WHERE mailbox = ?1",
            "DELETE FROM expunged WHERE mailbox = ?1",
            "DELETE FROM keywords WHERE mailbox = ?1",
            "DELETE FROM mailboxes WHERE id = ?1",
        ] {
            self.connection.prepare_cached(statement)?.execute([mailbox.0])?;
        }
        Ok(())
    }
    /// Replaces the keyword list.
    pub fn set_keywords(&mut self, mailbox: MailboxId, names: &[String]) -> Result<(), IndexError> {
        self.connection.prepare_cached("DELETE FROM keywords WHERE mailbox = ?1")?.execute([mailbox.0])?;
        let mut insert = self.connection.prepare_cached("INSERT INTO keywords (mailbox, position, name) VALUES (?1, ?2, ?3)")?;
        for (position, name) in names.iter().enumerate() {
            insert.execute(params![mailbox.0, i64::try_from(position).unwrap_or(i64::MAX), name])?;
        }
        Ok(())
    }
    /// Remembers that a file is to be removed.
    pub fn insert_removal(&mut self, mailbox: MailboxId, file: &str) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO removals (mailbox, file) VALUES (?1, ?2)")?;
        insert.execute(params![mailbox.0, file])?;
        Ok(())
    }
    /// The file is gone.
    pub fn delete_removal(&mut self, mailbox: MailboxId, file: &str) -> Result<(), IndexError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM removals WHERE mailbox = ?1 AND file = ?2")?;
        delete.execute(params![mailbox.0, file])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::mailbox;

    #[test]
    fn a_mailbox_is_read_back_and_its_row_is_never_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let first = MailboxRecord { adopted_below: 7, ..mailbox(".A") };
        let id = change.insert_mailbox(&first).unwrap();
        change.set_keywords(id, &["$Junk".into(), "todo".into()]).unwrap();
        change.insert_removal(id, "cur/x").unwrap();
        let updated = MailboxRecord { id, uid_next: 9, scan_due: ScanDue::Settle, ..first };
        change.update_mailbox(&updated).unwrap();
        change.commit().unwrap();
        assert_eq!(index.mailboxes().unwrap(), [updated]);
        assert_eq!(index.keywords(id).unwrap(), ["$Junk", "todo"]);
        assert_eq!(index.mailboxes_with_work().unwrap(), [id]);

        let mut change = index.begin().unwrap();
        change.delete_mailbox(id).unwrap();
        let next = change.insert_mailbox(&mailbox(".A")).unwrap();
        change.taken_over_uncleanly().unwrap();
        change.commit().unwrap();
        assert_ne!(next, id);
        assert_eq!(index.mailbox(next).unwrap().unwrap().scan_due, ScanDue::Takeover);
        assert!(index.mailboxes_with_work().unwrap().is_empty());
    }
}
