//! One user's SQLite index: what IMAP must remember, in a form that is read in one pass and committed with one write.
//!
//! The Maildir is the truth for UIDs, flags, keywords and UIDVALIDITY; this file is their fast form, and the durable form of changes that file
//! names do not have yet. Invariants, each with the test that guards it:
//! - what was committed is read back as it was (`messages_are_read_back`)
//! - an expunged UID is remembered until its MODSEQ falls under the floor (`expunged_uids_are_remembered_down_to_the_floor`)
//! - a row that is not as it was written, or missing, is noticed (`whatever_byte_is_damaged_nothing_wrong_is_read`)
//! - a change that is not committed changes nothing (`a_dropped_change_changes_nothing`)
//! - a change that begins a transaction takes time linear in what it changes (`many_messages_apart_are_expunged_in_linear_time`); one beside changes that
//!   joined before is under a savepoint, and each of its statements takes time for every page that it changed so far
//! - after an unclean takeover the old epoch's files are never written ([`epoch`])
//!
//! The database file of an open index must be opened and closed nowhere else in the process: closing any descriptor of it drops SQLite's lock.
//! Not here: message files (`storage`), sequence numbers (`server`).

mod ahead;
mod asked;
mod checksum;
pub mod epoch;
pub mod error;
pub mod flags;
pub mod ids;
mod leftovers;
mod log;
mod mailboxes;
mod messages;
mod open;
mod previews;
mod rendered;
mod snapshot;
mod summaries;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use ahead::ReadAhead;
pub use asked::FieldsKind;
pub use error::IndexError;
pub use flags::{Flag, FlagSet, KeywordId};
pub use ids::{ModSeq, Uid, UidValidity};
pub use leftovers::Leftover;
pub use mailboxes::{Contents, MailboxId, MailboxRecord, ScanDue};
pub use messages::MessageRecord;
pub use rendered::RenderedRecord;
pub use snapshot::{Held, SNAPSHOT_BYTES_MAX, Snapshot};

/// One user's index, the only connection that writes.
#[derive(Debug)]
pub struct UserIndex {
    connection: Connection,
    folder: PathBuf,
    /// The database's file, for reading ahead. After the connection: closing it drops SQLite's lock.
    ahead: Option<ReadAhead>,
}

/// A second connection, for long reads beside the writer. Drop it before [`UserIndex::close`].
#[derive(Debug)]
pub struct IndexReader {
    connection: Connection,
}

/// Changes that become durable together. Dropped without [`Change::commit`] or [`Change::join`]: nothing happened.
#[derive(Debug)]
pub struct Change<'a> {
    connection: &'a Connection,
    /// No other change is in the transaction.
    alone: bool,
    done: bool,
    /// What mailboxes have more (or fewer) of since it began.
    counts: Vec<(MailboxId, mailboxes::Counts)>,
    /// A mailbox's first id and the last of its ids that are to be swept, as it was when it was first asked for.
    highest_leftover: Option<(i64, Option<i64>)>,
}

impl UserIndex {
    /// Opens `<folder>/index.db`, and makes or migrates it.
    pub fn open(folder: &Path) -> Result<UserIndex, IndexError> {
        UserIndex::open_read_ahead(folder, None)
    }
    /// `ahead`: the database's file.
    pub(crate) fn open_read_ahead(folder: &Path, ahead: Option<ReadAhead>) -> Result<UserIndex, IndexError> {
        // Whatever happens, SQLite's connection is closed before the descriptor is.
        let connection = open::writer(&folder.join(epoch::DATABASE))?;
        Ok(UserIndex { connection, folder: folder.to_owned(), ahead })
    }
    /// `index/<epoch>`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// A connection for long reads.
    pub fn reader(&self) -> Result<IndexReader, IndexError> {
        self.ahead.iter().for_each(ReadAhead::rest);
        Ok(IndexReader { connection: open::reader(&self.folder.join(epoch::DATABASE))? })
    }
    /// Starts a change, beside those that joined the transaction since the last commit.
    pub fn begin(&mut self) -> Result<Change<'_>, IndexError> {
        let alone = self.connection.is_autocommit();
        if alone {
            self.run("BEGIN IMMEDIATE")?;
        }
        // From here on, dropping it undoes it.
        let change = Change { connection: &self.connection, alone, done: false, counts: Vec::new(), highest_leftover: None };
        if !alone {
            // Only where there is something else to keep: under a savepoint, the end of every statement walks over all pages that were changed before.
            self.run("SAVEPOINT change")?;
        }
        Ok(change)
    }
    /// Whether changes wait for [`UserIndex::commit`]. Some errors end the transaction: then what joined is lost.
    pub fn is_changing(&self) -> bool {
        !self.connection.is_autocommit()
    }
    /// Makes all changes that joined durable.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        self.run("COMMIT")
    }
    /// Forgets all changes that joined.
    pub fn rollback(&mut self) {
        if self.is_changing()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::warn!(%error, "can't roll back");
        }
    }
    fn run(&self, statement: &str) -> Result<(), IndexError> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }
    /// Reads the whole file and compares it with itself. Calls `progress` with the numbers of mailboxes and messages that were
    /// checked, at every message.
    pub fn check(&self, progress: &mut dyn FnMut(usize, u64)) -> Result<(), IndexError> {
        // What is in memory says nothing about the file.
        self.connection.execute_batch("PRAGMA shrink_memory")?;
        let answer: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if answer != "ok" {
            return Err(IndexError::Damaged(answer));
        }
        let astray: i64 = self.connection.query_row(
            "SELECT count(*) FROM messages LEFT JOIN mailboxes ON mailboxes.id = messages.id >> 32
             WHERE mailboxes.id IS NULL OR (messages.id & 0xffffffff) >= mailboxes.uid_next OR messages.modseq > mailboxes.highest_modseq",
            [],
            |row| row.get(0),
        )?;
        if astray > 0 {
            return Err(IndexError::Damaged(format!("{astray} messages are beyond their mailbox's UIDNEXT or HIGHESTMODSEQ")));
        }
        let mut messages = 0;
        for (checked, mailbox) in self.mailboxes()?.into_iter().enumerate() {
            self.contents(mailbox.id, &mut |_| true, &mut |_| {
                messages += 1;
                progress(checked, messages);
            })?;
            self.check_the_rest(mailbox.id)?;
            progress(checked + 1, messages);
        }
        self.leftovers(u32::MAX).map(drop)
    }
    /// Ends the transaction, as SQLite does by itself after some errors.
    #[doc(hidden)]
    pub fn lose_all_for_test(&self) -> Result<(), IndexError> {
        Ok(self.connection.execute_batch("ROLLBACK")?)
    }
    /// Gives back the memory of caches: nobody will ask for a while.
    pub fn rest(&mut self) -> Result<(), IndexError> {
        self.connection.flush_prepared_statement_cache();
        Ok(self.connection.execute_batch("PRAGMA shrink_memory")?)
    }
    /// Moves the log into the database as far as readers allow: background work.
    pub fn checkpoint(&self) -> Result<(), IndexError> {
        self.checkpoint_as("PASSIVE")
    }
    /// Moves the whole log into the database: what can fail about [`UserIndex::close`].
    pub fn checkpoint_all(&self) -> Result<(), IndexError> {
        self.checkpoint_as("TRUNCATE")
    }
    /// Moves the whole log into the database and closes both.
    pub fn close(self) -> Result<(), IndexError> {
        self.checkpoint_all()?;
        self.connection.close().map_err(|(_, error)| error.into())
    }
    fn checkpoint_as(&self, mode: &str) -> Result<(), IndexError> {
        let busy: i64 = self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))?;
        if busy != 0 && mode != "PASSIVE" { Err(IndexError::Busy) } else { Ok(()) }
    }
}

impl Change<'_> {
    /// Makes all of it durable, with the changes that joined before.
    pub fn commit(mut self) -> Result<(), IndexError> {
        self.write_counts()?;
        self.run("COMMIT")?;
        self.done = true;
        Ok(())
    }
    /// Lets it become durable with the next commit.
    pub fn join(mut self) -> Result<(), IndexError> {
        self.write_counts()?;
        if !self.alone {
            self.run("RELEASE change")?;
        }
        self.done = true;
        Ok(())
    }
    fn run(&self, statement: &str) -> Result<(), IndexError> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }
}

impl Change<'_> {
    /// Ends the whole transaction, as SQLite does by itself after some errors.
    #[doc(hidden)]
    pub fn lose_all_for_test(&self) -> Result<(), IndexError> {
        self.run("ROLLBACK")
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Some errors end the whole transaction; then there is nothing to undo.
        if self.done || self.connection.is_autocommit() {
            return;
        }
        let undone =
            if self.alone { self.run("ROLLBACK") } else { self.run("ROLLBACK TO change").and_then(|()| self.run("RELEASE change")) };
        if let Err(error) = undone {
            tracing::warn!(%error, "can't undo a change");
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// An empty mailbox's record.
    pub fn mailbox(folder: &str) -> MailboxRecord {
        MailboxRecord {
            id: MailboxId::NEW,
            folder: folder.to_owned(),
            uid_validity: UidValidity::new(1_763_748_000).unwrap(),
            uid_next: 1,
            highest_modseq: ModSeq::MIN,
            expunged_floor: 0,
            first_recent: 1,
            special_use: None,
            uid_ceiling: 1025,
            modseq_ceiling: 1025,
            cur_seen: 0,
            new_seen: 0,
            scan_due: ScanDue::No,
            adopted_below: 0,
        }
    }

    /// Deletes all that is left of messages that are gone.
    pub fn sweep_all(index: &mut UserIndex) {
        let leftovers = index.leftovers(u32::MAX).unwrap();
        let mut change = index.begin().unwrap();
        assert!(change.sweep(&leftovers, u32::MAX).unwrap().is_empty());
        change.commit().unwrap();
    }

    /// Two mailboxes with messages 1, 2 and 3.
    pub fn two_mailboxes_of_three(change: &mut Change<'_>) -> (MailboxId, MailboxId) {
        let [a, b] = ["", ".B"].map(|folder| change.insert_mailbox(&mailbox(folder)).unwrap());
        for (mailbox, number) in [a, b].into_iter().flat_map(|mailbox| (1..4).map(move |number| (mailbox, number))) {
            change.insert_message(mailbox, &message(number)).unwrap();
        }
        (a, b)
    }
    /// A message of 12 bytes.
    pub fn message(number: u32) -> MessageRecord {
        MessageRecord {
            uid: Uid::new(number).unwrap(),
            flags: FlagSet::EMPTY,
            modseq: ModSeq::MIN,
            size: 12,
            disk_size: 12,
            internal_date: 0,
            save_date: 0,
            file: format!("cur/{number}"),
        }
    }
}

#[cfg(test)]
mod damage;
