//! The messages of one POP3 session: the INBOX as it was at login.
//!
//! Invariants, each with the test that guards it:
//! - message numbers stay, whatever other sessions and deliveries do (`numbers_stay_while_mail_comes_and_goes`)
//! - a message that POP3 hid stays for IMAP, and hidden from POP3 (`with_a_flag_for_deleted_messages_they_stay_for_imap`)
//! - whoever is told that QUIT is done may log in at once (`the_maildrop_is_free_before_quit_is_answered`)
//! - +OK to QUIT only once the removals are durable and the lease is still ours (`Inbox::update`)

use std::{future::Future, sync::Arc};

use index::{Flag, FlagSet, KeywordId, Uid};
use parking_lot::Mutex;
use storage::{Account, Mailbox, MailboxName, StorageError, StoreOperation, UidlFormat};

use super::MaildropLock;
use crate::{
    config::Pop3Section,
    forward::{Held, Opened},
};

/// What a session asks of its maildrop. Positions count from 0 and never change.
pub trait Maildrop: Sync {
    /// An opened message.
    type Message: Sync;
    /// The size of each message in bytes with CRLF line ends.
    fn sizes(&self) -> &[u64];
    /// The unique identifier of each message.
    fn identifiers(&self) -> impl Future<Output = Result<Vec<String>, StorageError>> + Send;
    /// Opens a message for reading.
    fn open(&self, position: usize) -> impl Future<Output = Result<Self::Message, StorageError>> + Send;
    /// Reads `length` bytes from `offset`; fewer only at the end.
    fn read(&self, message: &Self::Message, offset: u64, length: usize) -> impl Future<Output = Result<Vec<u8>, StorageError>> + Send;
    /// QUIT: marks messages as seen, and removes (or hides) others; those that are gone already are no error.
    fn update(&self, seen: Vec<usize>, removed: Vec<usize>) -> impl Future<Output = Result<(), StorageError>> + Send;
    /// Gives up the exclusive access (RFC 1939 §6: before the answer to QUIT, so that the client may log in again at once).
    fn release(&self);
    /// Resolves, with a text for the client, when the session has to end. Safe to cancel.
    fn taken_away(&self) -> impl Future<Output = String> + Send;
}

/// What sessions do to messages, by the settings.
#[derive(Debug, Clone)]
pub struct Rules {
    format: UidlFormat,
    mark_seen: bool,
    /// The keyword of messages that POP3 does not show any more; `None`: they are removed.
    deleted_flag: Option<String>,
}

impl Rules {
    /// As the settings say.
    pub fn new(settings: &Pop3Section) -> Rules {
        let deleted_flag = Some(settings.deleted_flag.clone()).filter(|flag| !flag.is_empty());
        Rules { format: settings.format(), mark_seen: settings.mark_seen, deleted_flag }
    }
}

/// The INBOX as it was when it was opened. Its calls block.
#[derive(Debug, Clone)]
pub struct Inbox {
    rules: Arc<Rules>,
    mailbox: Arc<Mailbox>,
    uids: Arc<[Uid]>,
    sizes: Arc<[u64]>,
}

impl Inbox {
    /// Takes the snapshot.
    pub fn open(account: &Arc<Account>, rules: Rules) -> Result<Inbox, StorageError> {
        let mailbox = account.mailbox(&MailboxName::inbox())?;
        mailbox.refresh(false)?;
        mailbox.learn()?;
        let keywords = mailbox.keywords();
        let hidden = rules.deleted_flag.as_ref().and_then(|flag| keywords.iter().position(|known| known.eq_ignore_ascii_case(flag)));
        let hidden = hidden.and_then(KeywordId::new).map(Flag::Keyword);
        let shown: Vec<(Uid, u64)> = {
            let columns = mailbox.read();
            // One that can't be read now has no size, and could not be sent.
            let rows = (0..columns.len()).map(|position| columns.row(position)).filter(storage::Row::is_known);
            rows.filter(|row| hidden.is_none_or(|hidden| !row.flags.contains(hidden))).map(|row| (row.uid, row.size)).collect()
        };
        let (uids, sizes): (Vec<Uid>, Vec<u64>) = shown.into_iter().unzip();
        Ok(Inbox { rules: Arc::new(rules), mailbox, uids: uids.into(), sizes: sizes.into() })
    }

    fn identifiers(&self) -> Result<Vec<String>, StorageError> {
        self.mailbox.uidl(&self.uids, &self.rules.format)
    }

    fn open_message(&self, position: usize) -> Result<Arc<Opened>, StorageError> {
        let uid = self.uids.get(position).ok_or(StorageError::Expunged)?;
        self.mailbox.open_message(*uid).map(|reader| Arc::new(Opened::new(reader)))
    }

    fn update(&self, seen: &[usize], removed: &[usize]) -> Result<(), StorageError> {
        let uids =
            |positions: &[usize]| -> Vec<Uid> { positions.iter().filter_map(|position| self.uids.get(*position).copied()).collect() };
        let (seen, removed) = (uids(seen), uids(removed));
        if self.rules.mark_seen && !seen.is_empty() {
            self.mailbox.store(&seen, StoreOperation::Add(FlagSet::EMPTY.with(Flag::Seen)), None)?;
        }
        if removed.is_empty() {
            return Ok(());
        }
        match &self.rules.deleted_flag {
            Some(name) => {
                let flag = Flag::Keyword(self.mailbox.keyword(name)?);
                self.mailbox.store(&removed, StoreOperation::Add(FlagSet::EMPTY.with(flag)), None)?;
            }
            None => {
                self.mailbox.remove(&removed)?;
            }
        }
        Ok(())
    }
}

fn read_piece(message: &Opened, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
    let mut piece = vec![0; length];
    let count = message.read_at(offset, &mut piece)?;
    piece.truncate(count);
    Ok(piece)
}

/// The INBOX of an account that is held.
#[derive(Debug)]
pub struct HeldInbox {
    held: Held,
    inbox: Inbox,
    lock: Mutex<Option<MaildropLock>>,
}

impl HeldInbox {
    /// Takes the snapshot, under the exclusive access.
    pub async fn open(held: Held, lock: MaildropLock, rules: Rules) -> Result<HeldInbox, StorageError> {
        let inbox = held.run(|account| Inbox::open(account, rules)).await?;
        Ok(HeldInbox { held, inbox, lock: Mutex::new(Some(lock)) })
    }
}

impl Maildrop for HeldInbox {
    type Message = Arc<Opened>;

    fn sizes(&self) -> &[u64] {
        &self.inbox.sizes
    }
    async fn identifiers(&self) -> Result<Vec<String>, StorageError> {
        let inbox = self.inbox.clone();
        self.held.run(move |_| inbox.identifiers()).await
    }
    async fn open(&self, position: usize) -> Result<Arc<Opened>, StorageError> {
        let inbox = self.inbox.clone();
        self.held.run(move |_| inbox.open_message(position)).await
    }
    async fn read(&self, message: &Arc<Opened>, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let message = Arc::clone(message);
        self.held.run(move |_| read_piece(&message, offset, length)).await
    }
    async fn update(&self, seen: Vec<usize>, removed: Vec<usize>) -> Result<(), StorageError> {
        let inbox = self.inbox.clone();
        self.held.run(move |_| inbox.update(&seen, &removed)).await
    }
    fn release(&self) {
        drop(self.lock.lock().take());
    }
    async fn taken_away(&self) -> String {
        self.held.taken_away().await
    }
}

#[cfg(test)]
mod tests;
