//! Header fields that were read for a client, on their way into the index: whoever asked does not wait for a commit.
//!
//! Invariants, each with the test that guards it:
//! - what was read is not read again, whether it is written or waits (`header_fields_that_were_asked_for_are_read_once`)
//! - so much waits at most, and none for longer than to the next round of background work (`fields_that_were_read_wait_for_the_next_round_at_most`)

use index::{MailboxId, Uid};

use super::Store;
use crate::{StorageError, mailbox::KEEP_AGAIN_AFTER};

/// Sets of header fields that the index keeps for one user: the mail programs of one person, and to spare.
const ASKED_MAX: u32 = 8;
/// Bytes that wait in memory: the fields of some ten thousand messages.
const WAITING_BYTES_MAX: usize = if cfg!(test) { 1000 } else { 2 << 20 };
/// What an answer takes in memory beside its bytes.
const OVERHEAD_BYTES: usize = 48;

/// The same fields of some messages.
#[derive(Debug)]
pub(crate) struct Answers {
    pub mailbox: MailboxId,
    /// The set of fields.
    pub key: String,
    /// Ascending.
    pub fields: Vec<(Uid, Vec<u8>)>,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    answers: Vec<Answers>,
    bytes: usize,
}

impl Store {
    /// Keeps what was read, soon.
    pub fn keep_answers(&self, answers: Answers) -> Result<(), StorageError> {
        let is_too_much = {
            let mut waiting = self.answers.lock();
            waiting.bytes += answers.fields.iter().map(|(_, fields)| fields.len() + OVERHEAD_BYTES).sum::<usize>();
            waiting.answers.push(answers);
            waiting.bytes > WAITING_BYTES_MAX
        };
        if is_too_much { self.write_answers() } else { Ok(()) }
    }
    /// Whether answers for one of these messages (ascending) wait.
    pub fn has_answers(&self, mailbox: MailboxId, key: &str, uids: &[Uid]) -> bool {
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return false };
        self.answers.lock().answers.iter().filter(|answers| answers.mailbox == mailbox && answers.key == key).any(|answers| {
            let near = answers.fields.iter().skip_while(|(uid, _)| uid < first).take_while(|(uid, _)| uid <= last);
            near.into_iter().any(|(uid, _)| uids.binary_search(uid).is_ok())
        })
    }
    /// Writes what waits. What can't be written is read again when it is asked for: a full disk must not keep anybody from reading.
    pub fn write_answers(&self) -> Result<(), StorageError> {
        let Waiting { answers, .. } = std::mem::take(&mut *self.answers.lock());
        if answers.is_empty() || self.now() < *self.keep_again_at.lock() {
            return Ok(());
        }
        let written = self.change(|change| {
            for Answers { mailbox, key, fields } in &answers {
                let kind = change.keep_fields(key, ASKED_MAX)?;
                fields.iter().try_for_each(|(uid, fields)| change.insert_answer(*mailbox, *uid, kind, fields))?;
            }
            Ok(())
        });
        self.forget_asked();
        match written {
            Err(lost @ StorageError::LeaseLost(_)) => Err(lost),
            Err(error) => {
                *self.keep_again_at.lock() = self.now() + KEEP_AGAIN_AFTER;
                tracing::debug!(%error, "header fields that were read are not kept");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
    #[cfg(test)]
    pub(crate) fn answers_waiting(&self) -> usize {
        self.answers.lock().answers.iter().map(|answers| answers.fields.len()).sum()
    }
}
