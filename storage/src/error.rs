//! What can go wrong with mail on disk. The variants are named for the situation; each protocol's `reply.rs` turns them into what a client sees.

use std::{io, path::PathBuf};

use affinity::{LeaseLost, UserName};

use crate::MailboxName;

/// An error of the mail store.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No mailbox of this name.
    #[error("no mailbox {0}")]
    NoMailbox(MailboxName),
    /// A mailbox of this name is there.
    #[error("mailbox {0} exists already")]
    MailboxExists(MailboxName),
    /// The operation is not for this mailbox (DELETE INBOX, a name with children, and the like).
    #[error("{0}")]
    NotAllowed(&'static str),
    /// Only a level of the hierarchy, with mailboxes below it.
    #[error("{0} is only a level of the hierarchy: delete the mailboxes below it")]
    HasChildren(MailboxName),
    /// A mailbox name that the store can't hold.
    #[error("the mailbox name is not allowed: {0}")]
    BadName(String),
    /// The message was expunged meanwhile.
    #[error("the message was expunged")]
    Expunged,
    /// More keywords than a mailbox can have.
    #[error("the mailbox has as many keywords as it can hold")]
    TooManyKeywords,
    /// A limit of the configuration.
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// What is too large or too many.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The message would not fit into one of the quota roots that count the mailbox.
    #[error("quota root {root:?} is full")]
    OverQuota {
        /// Which.
        root: String,
    },
    /// ENOSPC or EDQUOT.
    #[error("no space to store a message under {}: free some, the sender will retry", .path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The account is closed or closing: route again.
    #[error("the account of {0} is closing")]
    Closing(UserName),
    /// The lease is gone: nothing may be acknowledged.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// The index was found damaged; it is made anew by the next call.
    #[error("the index of {0} was found damaged and is made anew: try again")]
    IndexDamaged(UserName),
    /// The index failed; it is rebuilt from the Maildir at the next opening.
    #[error("the index of {user} failed: {reason}")]
    Index {
        /// Whose.
        user: UserName,
        /// How.
        reason: String,
    },
    /// The file system said no.
    #[error("{doing} {}: {cause}", .path.display())]
    Io {
        /// What was tried, as in "can't rename".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

impl StorageError {
    /// EDQUOT rather than ENOSPC: the user's own affair.
    pub fn is_over_quota(&self) -> bool {
        matches!(self, StorageError::NoSpace { cause, .. } if cause.kind() == io::ErrorKind::QuotaExceeded)
    }
    /// Whether it was the file system's answer about something in this folder.
    pub(crate) fn is_about(&self, folder: &std::path::Path) -> bool {
        matches!(self, StorageError::Io { path, .. } | StorageError::NoSpace { path, .. } if path.starts_with(folder))
    }
    /// What should be there is not.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, StorageError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
    /// An answer of the file server (EIO, ESTALE, EROFS, a time-out) that may be another one later, without a change by the user.
    pub fn may_pass(&self) -> bool {
        use io::ErrorKind::{Interrupted, ReadOnlyFilesystem, StaleNetworkFileHandle, TimedOut};
        /// The number of EIO, which has no kind of its own.
        const EIO: i32 = 5;
        let StorageError::Io { cause, .. } = self else { return false };
        cause.raw_os_error() == Some(EIO) || matches!(cause.kind(), Interrupted | ReadOnlyFilesystem | StaleNetworkFileHandle | TimedOut)
    }
}
