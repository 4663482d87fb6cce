//! The messages of one POP3 session: the INBOX as it was at login.
//!
//! Invariants, each with the test that guards it:
//! - message numbers stay, whatever other sessions and deliveries do (`numbers_stay_while_mail_comes_and_goes`)
//! - whoever is told that QUIT is done may log in at once (`the_maildrop_is_free_before_quit_is_answered`)
//! - +OK to QUIT only once the removals are durable and the lease is still ours (`Inbox::remove`)

use std::{future::Future, sync::Arc};

use index::Uid;
use parking_lot::Mutex;
use storage::{Account, Mailbox, MailboxName, MessageReader, StorageError};

use super::MaildropLock;
use crate::forward::Held;

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
    /// Removes messages for good; those that are gone already are no error.
    fn remove(&self, positions: Vec<usize>) -> impl Future<Output = Result<(), StorageError>> + Send;
    /// Gives up the exclusive access (RFC 1939 §6: before the answer to QUIT, so that the client may log in again at once).
    fn release(&self);
    /// Resolves, with a text for the client, when the session has to end. Safe to cancel.
    fn taken_away(&self) -> impl Future<Output = String> + Send;
}

/// The INBOX as it was when it was opened. Its calls block.
#[derive(Debug, Clone)]
pub struct Inbox {
    mailbox: Arc<Mailbox>,
    uids: Arc<[Uid]>,
    sizes: Arc<[u64]>,
}

impl Inbox {
    /// Takes the snapshot.
    pub fn open(account: &Arc<Account>) -> Result<Inbox, StorageError> {
        let mailbox = account.mailbox(&MailboxName::inbox())?;
        mailbox.refresh(false)?;
        let (uids, sizes) = {
            let columns = mailbox.read();
            let sizes: Vec<u64> = (0..columns.len()).map(|position| columns.row(position).size).collect();
            (Arc::from(columns.uids()), sizes.into())
        };
        Ok(Inbox { mailbox, uids, sizes })
    }

    fn identifiers(&self) -> Result<Vec<String>, StorageError> {
        self.mailbox.uidl(&self.uids)
    }

    fn open_message(&self, position: usize) -> Result<Arc<MessageReader>, StorageError> {
        let uid = self.uids.get(position).ok_or(StorageError::Expunged)?;
        self.mailbox.open_message(*uid).map(Arc::new)
    }

    fn remove(&self, positions: &[usize]) -> Result<(), StorageError> {
        let uids: Vec<Uid> = positions.iter().filter_map(|position| self.uids.get(*position).copied()).collect();
        self.mailbox.remove(&uids)?;
        Ok(())
    }
}

fn read_piece(message: &MessageReader, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
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
    pub async fn open(held: Held, lock: MaildropLock) -> Result<HeldInbox, StorageError> {
        let inbox = held.run(Inbox::open).await?;
        Ok(HeldInbox { held, inbox, lock: Mutex::new(Some(lock)) })
    }
}

impl Maildrop for HeldInbox {
    type Message = Arc<MessageReader>;

    fn sizes(&self) -> &[u64] {
        &self.inbox.sizes
    }
    async fn identifiers(&self) -> Result<Vec<String>, StorageError> {
        let inbox = self.inbox.clone();
        self.held.run(move |_| inbox.identifiers()).await
    }
    async fn open(&self, position: usize) -> Result<Arc<MessageReader>, StorageError> {
        let inbox = self.inbox.clone();
        self.held.run(move |_| inbox.open_message(position)).await
    }
    async fn read(&self, message: &Arc<MessageReader>, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let message = Arc::clone(message);
        self.held.run(move |_| read_piece(&message, offset, length)).await
    }
    async fn remove(&self, positions: Vec<usize>) -> Result<(), StorageError> {
        let inbox = self.inbox.clone();
        self.held.run(move |_| inbox.remove(&positions)).await
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
