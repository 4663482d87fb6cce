//! What can go wrong with an index. Nothing of it loses mail: an index can always be rebuilt from the Maildir.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

/// An error of a user's index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The file is damaged or unreadable: rebuild it from the Maildir.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// Another process holds the file: most likely a lock that a lost host left on the file server.
    #[error("another process holds the index")]
    Busy,
    /// It may not be written any more.
    #[error("the index is closed")]
    Closed,
    /// No space to write it.
    #[error("no space to write the index")]
    Full,
    /// Written by a newer program.
    #[error("the index has version {found}, this program knows up to {known}: run the newer program, or delete the index")]
    Newer {
        /// What the file says.
        found: i64,
        /// The last one known here.
        known: i64,
    },
    /// A statement failed for another reason: a fault of this program.
    #[error("the index refused a statement: {0}")]
    Statement(#[source] rusqlite::Error),
    /// The file system said no.
    #[error("{doing} {}: {cause}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

impl IndexError {
    /// Whether the index must be rebuilt before it is used again.
    pub fn needs_rebuild(&self) -> bool {
        matches!(self, IndexError::Damaged(_) | IndexError::Newer { .. })
    }
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> IndexError {
        let path = path.into();
        move |cause| IndexError::Io { doing, path, cause }
    }
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> IndexError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
                IndexError::Damaged(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => IndexError::Busy,
            Some(ErrorCode::DiskFull) => IndexError::Full,
            _ => IndexError::Statement(error),
        }
    }
}
