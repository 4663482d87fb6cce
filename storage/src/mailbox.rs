//! One open mailbox: columns in memory, SQLite as their durable form, message files in its folder.
//!
//! Every change (new message, flags, expunge) takes a MODSEQ above the highest and moves [`Mailbox::changes`].
//! New messages become visible in UID order, even when their files are written at the same time.

use std::sync::Arc;

use index::{FlagSet, KeywordId, ModSeq, Uid, UidValidity};
use parking_lot::RwLockReadGuard;
use tokio::sync::watch;

use crate::{MailboxName, Staged, StorageError};

/// One message's metadata. All of it is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its UID.
    pub uid: Uid,
    /// Its flags and keywords.
    pub flags: FlagSet,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// RFC822.SIZE: bytes with CRLF line ends.
    pub size: u64,
    /// INTERNALDATE, Unix seconds.
    pub internal_date: i64,
    /// When it came into this mailbox, Unix seconds (SAVEDATE, RFC 8514).
    pub save_date: i64,
}

/// A mailbox's messages in memory, sorted by UID.
#[derive(Debug, Default)]
pub struct Columns {}

impl Columns {
    /// How many messages.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The UIDs, ascending.
    pub fn uids(&self) -> &[Uid] {
        todo!()
    }
    /// The message at `position` (0-based; panics beyond the end, as a slice does).
    pub fn row(&self, position: usize) -> Row {
        let _ = position;
        todo!()
    }
    /// Where `uid` is.
    pub fn position(&self, uid: Uid) -> Option<usize> {
        let _ = uid;
        todo!()
    }
    /// The message with `uid`.
    pub fn get(&self, uid: Uid) -> Option<Row> {
        self.position(uid).map(|position| self.row(position))
    }
    /// The next UID to be given.
    pub fn uid_next(&self) -> u32 {
        todo!()
    }
    /// The highest MODSEQ that any change took.
    pub fn highest_modseq(&self) -> ModSeq {
        todo!()
    }
}

/// The numbers of STATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9051 §6.3.11 names them")]
pub struct Status {
    pub messages: u32,
    pub recent: u32,
    pub unseen: u32,
    pub deleted: u32,
    pub size: u64,
    pub uid_next: u32,
    pub uid_validity: UidValidity,
    pub highest_modseq: ModSeq,
}

/// What APPEND and deliveries give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Of the mailbox.
    pub uid_validity: UidValidity,
    /// Of the message.
    pub uid: Uid,
}

/// What COPY and MOVE did (UIDPLUS' COPYUID).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Of the target.
    pub uid_validity: UidValidity,
    /// Old and new UID, both ascending.
    pub pairs: Vec<(Uid, Uid)>,
}

/// How STORE changes flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperation {
    /// `FLAGS`.
    Replace(FlagSet),
    /// `+FLAGS`.
    Add(FlagSet),
    /// `-FLAGS`.
    Remove(FlagSet),
}

/// What STORE did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The messages whose flags are now as asked (also where nothing had to change), ascending, with their rows.
    pub rows: Vec<Row>,
    /// Not changed: their MODSEQ is above UNCHANGEDSINCE (RFC 7162 §3.1.3).
    pub modified: Vec<Uid>,
    /// Not there any more.
    pub missing: Vec<Uid>,
}

/// What was rendered once, when the message passed through: ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The parenthesised ENVELOPE (RFC 9051 §7.5.2).
    pub envelope: Arc<[u8]>,
    /// The parenthesised BODYSTRUCTURE with extension data.
    pub body_structure: Arc<[u8]>,
    /// The raw header fields named in [`crate::mime::CACHED_FIELDS`], in the order of the message, each line with its CRLF, without the blank line.
    pub headers: Arc<[u8]>,
}

/// One open mailbox.
#[derive(Debug)]
pub struct Mailbox {}

impl Mailbox {
    /// Its present name (changes by RENAME). From memory.
    pub fn name(&self) -> MailboxName {
        todo!()
    }
    /// Never changes for this mailbox.
    pub fn uid_validity(&self) -> UidValidity {
        todo!()
    }
    /// Whether it was deleted while open.
    pub fn is_deleted(&self) -> bool {
        todo!()
    }
    /// The messages. From memory; hold the guard for microseconds, never across a wait.
    pub fn read(&self) -> RwLockReadGuard<'_, Columns> {
        todo!()
    }
    /// Moves to the highest MODSEQ at every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        todo!()
    }
    /// Keyword names by [`KeywordId::position`]. From memory.
    pub fn keywords(&self) -> Arc<Vec<String>> {
        todo!()
    }
    /// The id of keyword `name` (ASCII case-insensitive), made durable first when it is new. Blocking when it is.
    pub fn keyword(&self, name: &str) -> Result<KeywordId, StorageError> {
        let _ = name;
        todo!()
    }
    /// The numbers of STATUS. From memory.
    pub fn status(&self) -> Status {
        todo!()
    }
    /// The first UID that no read-write session has claimed as \Recent yet; `claim` takes them all for the calling session. Messages with this UID and above are its recent ones.
    pub fn recent(&self, claim: bool) -> u32 {
        let _ = claim;
        todo!()
    }
    /// Looks at the folder for changes by other programs, at most every `rescan_interval` unless `force`. Blocking.
    pub fn refresh(&self, force: bool) -> Result<(), StorageError> {
        let _ = force;
        todo!()
    }
    /// Starts a message. `size_hint`: the announced size. Blocking.
    pub fn stage(&self, size_hint: u64) -> Result<Staged, StorageError> {
        let _ = size_hint;
        todo!()
    }
    /// Makes a staged message durable and visible. `internal_date`: Unix seconds, default now. Blocking.
    pub fn append(&self, staged: Staged, flags: FlagSet, internal_date: Option<i64>) -> Result<Appended, StorageError> {
        let _ = (staged, flags, internal_date);
        todo!()
    }
    /// Several at once, all or none (MULTIAPPEND, RFC 3502). Blocking.
    pub fn append_all(&self, messages: Vec<(Staged, FlagSet, Option<i64>)>) -> Result<Vec<Appended>, StorageError> {
        let _ = messages;
        todo!()
    }
    /// Changes flags, durably, with one commit for any number of messages. Blocking.
    pub fn store(&self, uids: &[Uid], operation: StoreOperation, unchanged_since: Option<u64>) -> Result<Stored, StorageError> {
        let _ = (uids, operation, unchanged_since);
        todo!()
    }
    /// Expunges those of `uids` (`None`: all messages) that have \Deleted; gives those that are gone now, ascending. Blocking.
    pub fn expunge(&self, uids: Option<&[Uid]>) -> Result<Vec<Uid>, StorageError> {
        let _ = uids;
        todo!()
    }
    /// Expunges `uids` whatever their flags (POP3 QUIT, MOVE). Blocking.
    pub fn remove(&self, uids: &[Uid]) -> Result<Vec<Uid>, StorageError> {
        let _ = uids;
        todo!()
    }
    /// Copies by hard link where possible; all or none. Keywords are mapped by name. Blocking.
    pub fn copy_to(&self, uids: &[Uid], target: &Mailbox) -> Result<Copied, StorageError> {
        let _ = (uids, target);
        todo!()
    }
    /// Moves by rename; a message is at no time in neither. Blocking.
    pub fn move_to(&self, uids: &[Uid], target: &Mailbox) -> Result<Copied, StorageError> {
        let _ = (uids, target);
        todo!()
    }
    /// ENVELOPE, BODYSTRUCTURE and cached header fields, in the order of `uids`; `None` for messages that are gone. Renders what is missing. Blocking.
    pub fn rendered(&self, uids: &[Uid]) -> Result<Vec<Option<Rendered>>, StorageError> {
        let _ = uids;
        todo!()
    }
    /// Opens a message for reading. Blocking.
    pub fn open_message(&self, uid: Uid) -> Result<MessageReader, StorageError> {
        let _ = uid;
        todo!()
    }
    /// UIDs expunged after `since` as far as remembered, ascending; `None`: `since` is older than memory reaches, so every absent UID counts (RFC 7162 §3.2.10). Blocking.
    pub fn expunged_since(&self, since: u64) -> Result<Option<Vec<Uid>>, StorageError> {
        let _ = since;
        todo!()
    }
    /// The POP3 UIDL of a message: adopted from an earlier server, else made from UIDVALIDITY and UID. From memory or the index.
    pub fn uidl(&self, uids: &[Uid]) -> Result<Vec<String>, StorageError> {
        let _ = uids;
        todo!()
    }
    /// Whether a flag can be kept for ever (PERMANENTFLAGS) and new keywords can be made.
    pub fn accepts_new_keywords(&self) -> bool {
        todo!()
    }
}

/// A message's bytes, always with CRLF line ends, whatever the file has.
#[derive(Debug)]
pub struct MessageReader {}

impl MessageReader {
    /// RFC822.SIZE.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; fewer bytes only at the end. Blocking.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let _ = (offset, buffer);
        todo!()
    }
    /// The whole message; messages are bounded by `message_bytes_max`. Blocking.
    pub fn read_all(&self) -> Result<Vec<u8>, StorageError> {
        todo!()
    }
}
