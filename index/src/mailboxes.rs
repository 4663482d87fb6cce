//! Mailboxes: UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, keywords, and what is still to be done in their folders.

use rusqlite::{Connection, Row, params};

use crate::{
    Change, Held, IndexError, MessageRecord, ModSeq, Snapshot, UidValidity, UserIndex,
    checksum::{Sum, damaged, ensure_ascending},
};

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

/// All that opening a mailbox needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// The mailbox.
    pub record: MailboxRecord,
    /// Keyword names by position, without gaps.
    pub keywords: Vec<String>,
    /// Files of expunged messages that are still to be removed.
    pub removals: Vec<String>,
    /// UIDs of messages whose file names lack their flags or UID, ascending.
    pub write_backs: Vec<u32>,
}

const COLUMNS: &str = "id, folder, special_use, adopted_below, place_sum, uid_validity, uid_next, highest_modseq, expunged_floor, \
                       first_recent, uid_ceiling, modseq_ceiling, cur_seen, new_seen, scan_due, numbers_sum, messages, bytes, \
                       expunged_rows, uidl_rows, other_rows, snapshot";
const TABLE: &str = "mailboxes";

impl MailboxRecord {
    fn place_sum(&self) -> Sum {
        let sum = Sum::of(TABLE).number(self.id.0).text(&self.folder);
        sum.text(self.special_use.as_deref().unwrap_or("-")).number(self.adopted_below.into())
    }
    fn numbers_sum(&self) -> Sum {
        let sum = Sum::of(TABLE).number(self.id.0).number(self.uid_validity.get().into()).number(self.uid_next.into());
        let sum = sum.number(self.highest_modseq.get().cast_signed()).number(self.expunged_floor.cast_signed());
        let sum = sum.number(self.first_recent.into()).number(self.uid_ceiling.into()).number(self.modseq_ceiling.cast_signed());
        sum.number(self.cur_seen).number(self.new_seen).number(self.scan_due.number())
    }
}

/// How many rows a mailbox has elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub messages: i64,
    /// The sum of their sizes.
    pub bytes: i64,
    pub expunged: i64,
    pub uidls: i64,
    /// Write-backs, removals and keywords.
    pub others: i64,
    /// See [`Snapshot`].
    pub snapshot: Option<Snapshot>,
}

impl Counts {
    /// An error, if `found` rows of `what` are not as many as there should be.
    pub(crate) fn compare(mailbox: MailboxId, what: &str, found: usize, expected: i64) -> Result<(), IndexError> {
        if signed(found) == expected {
            return Ok(());
        }
        Err(IndexError::Damaged(format!("mailbox {} has {found} rows of {what} instead of {expected}", mailbox.0)))
    }
}

/// The mailbox, and how many rows it has elsewhere.
fn record(row: &Row<'_>) -> rusqlite::Result<(MailboxRecord, Counts)> {
    let uid_validity: u32 = row.get(5)?;
    let highest_modseq: i64 = row.get(7)?;
    let zero = || damaged(TABLE, "it has a number that can't be zero");
    let record = MailboxRecord {
        id: MailboxId(row.get(0)?),
        folder: row.get(1)?,
        special_use: row.get(2)?,
        adopted_below: row.get(3)?,
        uid_validity: UidValidity::new(uid_validity).ok_or_else(zero)?,
        uid_next: row.get(6)?,
        highest_modseq: ModSeq::new(highest_modseq.cast_unsigned()).ok_or_else(zero)?,
        expunged_floor: row.get::<_, i64>(8)?.cast_unsigned(),
        first_recent: row.get(9)?,
        uid_ceiling: row.get(10)?,
        modseq_ceiling: row.get::<_, i64>(11)?.cast_unsigned(),
        cur_seen: row.get(12)?,
        new_seen: row.get(13)?,
        scan_due: ScanDue::from_number(row.get(14)?),
    };
    let counts = Counts {
        messages: row.get(16)?,
        bytes: row.get(17)?,
        expunged: row.get(18)?,
        uidls: row.get(19)?,
        others: row.get(20)?,
        snapshot: Snapshot::from_number(row.get(21)?),
    };
    record.place_sum().check(TABLE, row.get(4)?)?;
    let counted = [counts.messages, counts.bytes, counts.expunged, counts.uidls, counts.others];
    record.numbers_sum().check(TABLE, counted.into_iter().fold(row.get(15)?, i64::wrapping_sub))?;
    Ok((record, counts))
}

fn keyword_sum(mailbox: MailboxId, position: i64, name: &str) -> Sum {
    Sum::of("keywords").number(mailbox.0).number(position).text(name)
}
fn removal_sum(mailbox: MailboxId, file: &str) -> Sum {
    Sum::of("removals").number(mailbox.0).text(file)
}

/// One mailbox.
pub(crate) fn record_and_counts(connection: &Connection, id: MailboxId) -> Result<Option<(MailboxRecord, Counts)>, IndexError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mailboxes WHERE id = ?1"))?;
    let mut rows = statement.query_map([id.0], record)?;
    Ok(rows.next().transpose()?)
}

impl UserIndex {
    /// Every mailbox.
    pub fn mailboxes(&self) -> Result<Vec<MailboxRecord>, IndexError> {
        Ok(self.records_and_counts()?.into_iter().map(|(record, _)| record).collect())
    }
    fn records_and_counts(&self) -> Result<Vec<(MailboxRecord, Counts)>, IndexError> {
        let mut statement = self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mailboxes ORDER BY id"))?;
        let mailboxes: Vec<(MailboxRecord, Counts)> = statement.query_map([], record)?.collect::<Result<_, _>>()?;
        ensure_ascending(TABLE, mailboxes.iter().map(|(mailbox, _)| mailbox.id))?;
        let total: i64 = self.connection.prepare_cached("SELECT mailboxes FROM totals")?.query_row([], |row| row.get(0))?;
        if signed(mailboxes.len()) != total {
            return Err(IndexError::Damaged(format!("it has {} mailboxes instead of {total}", mailboxes.len())));
        }
        Ok(mailboxes)
    }
    /// One mailbox with all that it has but what was rendered. Calls `begin` with the number of its messages, then, unless it says that they are known,
    /// `visit` with each, by UID.
    pub fn contents(
        &self,
        id: MailboxId,
        begin: &mut dyn FnMut(&Held) -> bool,
        visit: &mut dyn FnMut(&MessageRecord),
    ) -> Result<Option<Contents>, IndexError> {
        let Some((record, counts)) = record_and_counts(&self.connection, id)? else { return Ok(None) };
        let held = Held {
            messages: usize::try_from(counts.messages).unwrap_or(0),
            bytes: counts.bytes.cast_unsigned(),
            snapshot: counts.snapshot,
        };
        if begin(&held) {
            self.each_counted_message(id, counts, visit)?;
        }
        let contents = Contents { record, keywords: self.keywords(id)?, removals: self.removals(id)?, write_backs: self.write_backs(id)? };
        let others = contents.keywords.len() + contents.removals.len() + contents.write_backs.len();
        Counts::compare(id, "keywords, removals and write_backs", others, counts.others)?;
        Ok(Some(contents))
    }
    fn each_counted_message(&self, id: MailboxId, counts: Counts, visit: &mut dyn FnMut(&MessageRecord)) -> Result<(), IndexError> {
        self.ahead.iter().for_each(|ahead| ahead.wanted(counts.messages));
        let mut messages = 0;
        let mut bytes: i64 = 0;
        self.each_message(id, &mut |message| {
            messages += 1;
            bytes = bytes.wrapping_add(message.size.cast_signed());
            visit(message);
        })?;
        Counts::compare(id, "messages", messages, counts.messages)?;
        if bytes != counts.bytes {
            return Err(IndexError::Damaged(format!("mailbox {} has {bytes} bytes instead of {}", id.0, counts.bytes)));
        }
        Ok(())
    }
    /// Which snapshot says what the mailbox's rows say.
    pub fn snapshot(&self, id: MailboxId) -> Result<Option<Snapshot>, IndexError> {
        Ok(record_and_counts(&self.connection, id)?.and_then(|(_, counts)| counts.snapshot))
    }
    /// One mailbox.
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<MailboxRecord>, IndexError> {
        Ok(record_and_counts(&self.connection, id)?.map(|(record, _)| record))
    }
    /// Keyword names by position, without gaps.
    pub fn keywords(&self, mailbox: MailboxId) -> Result<Vec<String>, IndexError> {
        let mut statement =
            self.connection.prepare_cached("SELECT position, name, sum FROM keywords WHERE mailbox = ?1 ORDER BY position")?;
        let rows = statement.query_map([mailbox.0], |row| {
            let (position, name): (i64, String) = (row.get(0)?, row.get(1)?);
            keyword_sum(mailbox, position, &name).check("keywords", row.get(2)?)?;
            Ok((position, name))
        })?;
        let keywords: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
        ensure_ascending("keywords", keywords.iter().map(|(position, _)| position))?;
        Ok(keywords.into_iter().map(|(_, name)| name).collect())
    }
    /// Messages and bytes of every mailbox, as of the last commit.
    pub fn usages(&self) -> Result<Vec<(MailboxId, u64, u64)>, IndexError> {
        let usage = |(record, counts): (MailboxRecord, Counts)| (record.id, counts.messages.cast_unsigned(), counts.bytes.cast_unsigned());
        Ok(self.records_and_counts()?.into_iter().map(usage).collect())
    }
    /// Files of expunged messages that are still to be removed.
    pub fn removals(&self, mailbox: MailboxId) -> Result<Vec<String>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT file, sum FROM removals WHERE mailbox = ?1 ORDER BY file")?;
        let rows = statement.query_map([mailbox.0], |row| {
            let file: String = row.get(0)?;
            removal_sum(mailbox, &file).check("removals", row.get(1)?)?;
            Ok(file)
        })?;
        let removals: Vec<String> = rows.collect::<Result<_, _>>()?;
        ensure_ascending("removals", removals.iter())?;
        Ok(removals)
    }
    /// The mailboxes whose folders lack changes that the index has.
    pub fn mailboxes_with_work(&self) -> Result<Vec<MailboxId>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT id >> 32 FROM write_backs UNION SELECT mailbox FROM removals")?;
        let rows = statement.query_map([], |row| row.get(0).map(MailboxId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Adds a mailbox and gives its row: a new one for [`MailboxId::NEW`].
    pub fn insert_mailbox(&mut self, mailbox: &MailboxRecord) -> Result<MailboxId, IndexError> {
        let id = (mailbox.id != MailboxId::NEW).then_some(mailbox.id.0);
        self.connection
            .prepare_cached(
                "INSERT INTO mailboxes (id, folder, special_use, adopted_below, place_sum, uid_validity, uid_next, highest_modseq,
                     expunged_floor, first_recent, uid_ceiling, modseq_ceiling, cur_seen, new_seen, scan_due, numbers_sum)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0)",
            )?
            .execute(params![id, mailbox.folder, mailbox.special_use, mailbox.adopted_below, mailbox.uid_validity.get()])?;
        let mailbox = MailboxRecord { id: MailboxId(self.connection.last_insert_rowid()), ..mailbox.clone() };
        self.set_place_sum(&mailbox)?;
        self.update_mailbox(&mailbox)?;
        self.connection.prepare_cached("UPDATE totals SET mailboxes = mailboxes + 1")?.execute([])?;
        Ok(mailbox.id)
    }
    fn set_place_sum(&self, mailbox: &MailboxRecord) -> Result<(), IndexError> {
        let mut update = self.connection.prepare_cached("UPDATE mailboxes SET place_sum = ?2 WHERE id = ?1")?;
        update.execute([mailbox.id.0, mailbox.place_sum().get()])?;
        Ok(())
    }
    /// Writes all of a mailbox's record but its folder, special use and what was adopted.
    pub fn update_mailbox(&mut self, mailbox: &MailboxRecord) -> Result<(), IndexError> {
        self.connection
            .prepare_cached(
                "UPDATE mailboxes SET uid_validity = ?2, uid_next = ?3, highest_modseq = ?4, expunged_floor = ?5, first_recent = ?6,
                     uid_ceiling = ?7, modseq_ceiling = ?8, cur_seen = ?9, new_seen = ?10, scan_due = ?11,
                     numbers_sum = ?12 + messages + bytes + expunged_rows + uidl_rows + other_rows
                 WHERE id = ?1",
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
                mailbox.numbers_sum().get(),
            ])?;
        Ok(())
    }
    /// The mailbox lies in another folder now.
    pub fn set_folder(&mut self, mailbox: MailboxId, folder: &str) -> Result<(), IndexError> {
        let Some(record) = self.record_now(mailbox)? else { return Ok(()) };
        self.connection.prepare_cached("UPDATE mailboxes SET folder = ?2 WHERE id = ?1")?.execute(params![mailbox.0, folder])?;
        self.set_place_sum(&MailboxRecord { folder: folder.to_owned(), ..record })
    }
    /// Messages with UIDs below keep the names they came with: a list beside the mail has their UIDs.
    pub fn set_adopted(&mut self, mailbox: MailboxId, adopted_below: u32) -> Result<(), IndexError> {
        let Some(record) = self.record_now(mailbox)? else { return Ok(()) };
        let mut update = self.connection.prepare_cached("UPDATE mailboxes SET adopted_below = ?2 WHERE id = ?1")?;
        update.execute(params![mailbox.0, adopted_below])?;
        drop(update);
        self.set_place_sum(&MailboxRecord { adopted_below, ..record })
    }
    /// The row as it is: whoever has the mailbox open may not know of all that changed it.
    fn record_now(&self, mailbox: MailboxId) -> Result<Option<MailboxRecord>, IndexError> {
        let mut query = self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mailboxes WHERE id = ?1"))?;
        let found = query.query_map([mailbox.0], |row| Ok(record(row)?.0))?.next().transpose()?;
        Ok(found)
    }
    /// Every mailbox is to be compared with its folder and to go on above its ceilings when it is opened next.
    pub fn taken_over_uncleanly(&mut self) -> Result<(), IndexError> {
        let records: Vec<MailboxRecord> = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM mailboxes"))?
            .query_map([], |row| Ok(record(row)?.0))?
            .collect::<Result<_, _>>()?;
        for record in records.into_iter().filter(|record| record.scan_due != ScanDue::Rebuild) {
            self.update_mailbox(&MailboxRecord { scan_due: ScanDue::Takeover, cur_seen: 0, new_seen: 0, ..record })?;
        }
        // Their files stay with the holder before.
        self.connection.prepare_cached("UPDATE mailboxes SET snapshot = 0")?.execute([])?;
        Ok(())
    }
    /// What the mailbox has more (or fewer) of since the change began, written when it is complete. Whoever changes a message's row asks for it,
    /// whatever it counts: then no snapshot is right any more.
    pub(crate) fn counts(&mut self, mailbox: MailboxId) -> &mut Counts {
        let found = self.counts.iter().position(|(counted, _)| *counted == mailbox);
        let position = found.unwrap_or_else(|| {
            self.counts.push((mailbox, Counts::default()));
            self.counts.len() - 1
        });
        &mut self.counts[position].1
    }
    pub(crate) fn write_counts(&mut self) -> Result<(), IndexError> {
        for (mailbox, Counts { messages, bytes, expunged, uidls, others, snapshot: _ }) in std::mem::take(&mut self.counts) {
            self.connection
                .prepare_cached(
                    "UPDATE mailboxes SET expunged_rows = expunged_rows + ?2, uidl_rows = uidl_rows + ?3, other_rows = other_rows + ?4,
                         messages = messages + ?5, bytes = bytes + ?6, numbers_sum = numbers_sum + ?2 + ?3 + ?4 + ?5 + ?6,
                         snapshot = 0 WHERE id = ?1",
                )?
                .execute([mailbox.0, expunged, uidls, others, messages, bytes])?;
        }
        Ok(())
    }
    /// Forgets a mailbox and all of its messages.
    pub fn delete_mailbox(&mut self, mailbox: MailboxId) -> Result<(), IndexError> {
        self.clear_messages(mailbox)?;
        for statement in [
            "DELETE FROM removals WHERE mailbox = ?1",
            "DELETE FROM expunged WHERE mailbox = ?1",
            "DELETE FROM keywords WHERE mailbox = ?1",
        ] {
            self.connection.prepare_cached(statement)?.execute([mailbox.0])?;
        }
        let gone = self.connection.prepare_cached("DELETE FROM mailboxes WHERE id = ?1")?.execute([mailbox.0])?;
        self.connection.prepare_cached("UPDATE totals SET mailboxes = mailboxes - ?1")?.execute([signed(gone)])?;
        self.counts.retain(|(counted, _)| *counted != mailbox);
        Ok(())
    }
    /// Replaces the keyword list.
    pub fn set_keywords(&mut self, mailbox: MailboxId, names: &[String]) -> Result<(), IndexError> {
        let gone = self.connection.prepare_cached("DELETE FROM keywords WHERE mailbox = ?1")?.execute([mailbox.0])?;
        let mut insert = self.connection.prepare_cached("INSERT INTO keywords (mailbox, position, name, sum) VALUES (?1, ?2, ?3, ?4)")?;
        for (position, name) in (0_i64..).zip(names) {
            insert.execute(params![mailbox.0, position, name, keyword_sum(mailbox, position, name).get()])?;
        }
        drop(insert);
        self.counts(mailbox).others += signed(names.len()) - signed(gone);
        Ok(())
    }
    /// Remembers that a file is to be removed.
    pub fn insert_removal(&mut self, mailbox: MailboxId, file: &str) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO removals (mailbox, file, sum) VALUES (?1, ?2, ?3)")?;
        let new = insert.execute(params![mailbox.0, file, removal_sum(mailbox, file).get()])?;
        drop(insert);
        self.counts(mailbox).others += signed(new);
        Ok(())
    }
    /// The file is gone.
    pub fn delete_removal(&mut self, mailbox: MailboxId, file: &str) -> Result<(), IndexError> {
        let mut delete = self.connection.prepare_cached("DELETE FROM removals WHERE mailbox = ?1 AND file = ?2")?;
        let gone = delete.execute(params![mailbox.0, file])?;
        drop(delete);
        self.counts(mailbox).others -= signed(gone);
        Ok(())
    }
}

/// A number of rows.
pub(crate) fn signed(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
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
        let updated = MailboxRecord { adopted_below: 8, ..updated };
        change.set_adopted(updated.id, updated.adopted_below).unwrap();
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
