//! One user's open mail state on its holder: every session and delivery of the user shares it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use affinity::{Handover, Lease, UserName};
use index::UidValidity;
use tokio::sync::watch;

use crate::{Mailbox, MailboxName, StorageError};

/// Where one user's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPaths {
    /// `…/<user>/Maildir`.
    pub maildir: PathBuf,
    /// `…/<user>/index`, which holds one folder per epoch.
    pub index: PathBuf,
}

/// Settings of the store, the same for all accounts of a node.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// Names this node in Maildir file names.
    pub node: affinity::NodeName,
    /// Mailboxes that are made when an account is opened for the first time, with their special use.
    pub auto_create: Vec<(MailboxName, Option<SpecialUse>)>,
    /// Largest message in bytes.
    pub message_bytes_max: u64,
    /// Most mailboxes per user.
    pub mailboxes_max: usize,
    /// How long changed flags may wait before they are written to file names.
    pub write_back_after: Duration,
    /// How often an open mailbox is compared with its folder for changes by other programs.
    pub rescan_interval: Duration,
    /// How many file operations of one bulk command are under way at once.
    pub parallel_operations: usize,
    /// Longest silence of a fenced host's late requests, `dead_after`: the second scan after an unclean takeover.
    pub settle_after: Duration,
}

/// RFC 6154 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the RFC's own names")]
pub enum SpecialUse {
    All,
    Archive,
    Drafts,
    Flagged,
    Junk,
    Sent,
    Trash,
}

impl SpecialUse {
    /// Every one.
    pub const ALL: [SpecialUse; 7] =
        [SpecialUse::All, SpecialUse::Archive, SpecialUse::Drafts, SpecialUse::Flagged, SpecialUse::Junk, SpecialUse::Sent, SpecialUse::Trash];
    /// As IMAP writes it: `\Drafts`.
    pub fn as_str(self) -> &'static str {
        match self {
            SpecialUse::All => "\\All",
            SpecialUse::Archive => "\\Archive",
            SpecialUse::Drafts => "\\Drafts",
            SpecialUse::Flagged => "\\Flagged",
            SpecialUse::Junk => "\\Junk",
            SpecialUse::Sent => "\\Sent",
            SpecialUse::Trash => "\\Trash",
        }
    }
    /// Reads what [`SpecialUse::as_str`] gives, in any case.
    pub fn parse(attribute: &str) -> Option<SpecialUse> {
        SpecialUse::ALL.into_iter().find(|special_use| special_use.as_str().eq_ignore_ascii_case(attribute))
    }
}

/// One line of LIST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxEntry {
    /// Its name.
    pub name: MailboxName,
    /// `false`: only a level of the hierarchy (\NonExistent or \NoSelect).
    pub selectable: bool,
    /// Subscribed (may be true for names that are no mailbox).
    pub subscribed: bool,
    /// Its special use.
    pub special_use: Option<SpecialUse>,
    /// Whether mailboxes lie below.
    pub has_children: bool,
}

/// Options of CREATE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// RFC 6154 §3.
    pub special_use: Option<SpecialUse>,
}

/// One user's open mail state on its holder. No lease, no account.
#[derive(Debug)]
pub struct Account {}

impl Account {
    /// Opens (and where needed makes, rebuilds, copies or adopts) the user's mail. Blocking.
    pub fn open(
        paths: AccountPaths,
        lease: Lease,
        handover: Handover,
        settings: Arc<StorageSettings>,
    ) -> Result<Arc<Account>, StorageError> {
        let _ = (paths, lease, handover, settings);
        todo!()
    }
    /// Whose.
    pub fn user(&self) -> &UserName {
        todo!()
    }
    /// The lease it is held under.
    pub fn lease(&self) -> &Lease {
        todo!()
    }
    /// Clean closing: writes all back, checkpoints the index. Only then may the lease be released. Further calls give `Closing`. Blocking.
    pub fn close(&self) -> Result<(), StorageError> {
        todo!()
    }
    /// The lease is lost: stops every background task at once, writes nothing more, lets go of the index. Does not block on the shared file system.
    pub fn abandon(&self) {
        todo!()
    }
    /// Writes due flags to file names and batched rows to the index; called every second or so by the holder for accounts with work. Blocking.
    pub fn run_background_work(&self) -> Result<(), StorageError> {
        todo!()
    }
    /// Every mailbox, hierarchy-only level and subscription, sorted by name (INBOX first). From memory.
    pub fn list(&self) -> Result<Vec<MailboxEntry>, StorageError> {
        todo!()
    }
    /// Moves whenever a mailbox is made, renamed, deleted, or subscribed.
    pub fn list_changes(&self) -> watch::Receiver<u64> {
        todo!()
    }
    /// Opens a mailbox (shared by all sessions). The first opening after a takeover or by an interval looks at the folder. Blocking.
    pub fn mailbox(self: &Arc<Self>, name: &MailboxName) -> Result<Arc<Mailbox>, StorageError> {
        let _ = name;
        todo!()
    }
    /// Makes a mailbox and its missing parents. Blocking, durable.
    pub fn create(&self, name: &MailboxName, options: CreateOptions) -> Result<UidValidity, StorageError> {
        let _ = (name, options);
        todo!()
    }
    /// Deletes a mailbox; one with children becomes a level of the hierarchy (RFC 9051 §6.3.5). Blocking, durable.
    pub fn delete(&self, name: &MailboxName) -> Result<(), StorageError> {
        let _ = name;
        todo!()
    }
    /// Renames a mailbox with its children; INBOX moves its messages instead (RFC 9051 §6.3.6). Blocking, durable.
    pub fn rename(self: &Arc<Self>, from: &MailboxName, to: &MailboxName) -> Result<(), StorageError> {
        let _ = (from, to);
        todo!()
    }
    /// Subscribes or unsubscribes; unsubscribing an unknown name is fine. Blocking, durable.
    pub fn set_subscribed(&self, name: &MailboxName, subscribed: bool) -> Result<(), StorageError> {
        let _ = (name, subscribed);
        todo!()
    }
}
