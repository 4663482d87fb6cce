//! What can go wrong with an index. Nothing of it loses mail: an index can always be rebuilt from the Maildir.

use std::{io, path::PathBuf};

use rusqlite::{ErrorCode, ffi};

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
    /// It could not be written; what was there is as it was.
    #[error("the index can't be written: {0}")]
    Unwritable(#[source] rusqlite::Error),
    /// It could not be read, for a reason that may pass. Nothing says that its content is wrong.
    #[error("the index can't be read: {0}")]
    Unreadable(#[source] rusqlite::Error),
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
    /// Whether this file will never be of use again.
    pub fn is_lost(&self) -> bool {
        matches!(self, IndexError::Damaged(_) | IndexError::Newer { .. })
    }
    /// Whether whoever has all of it in memory had better write it anew.
    pub fn needs_rebuild(&self) -> bool {
        self.is_lost() || matches!(self, IndexError::Unreadable(_))
    }
    /// The same for another who took part in what failed.
    pub fn again(&self) -> IndexError {
        let of_sqlite = |error: &rusqlite::Error| {
            let code = error.sqlite_error().copied().unwrap_or_else(|| ffi::Error::new(ffi::SQLITE_ERROR));
            rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
        };
        match self {
            IndexError::Damaged(why) => IndexError::Damaged(why.clone()),
            IndexError::Busy => IndexError::Busy,
            IndexError::Closed => IndexError::Closed,
            IndexError::Full => IndexError::Full,
            IndexError::Newer { found, known } => IndexError::Newer { found: *found, known: *known },
            IndexError::Unwritable(error) => IndexError::Unwritable(of_sqlite(error)),
            IndexError::Unreadable(error) => IndexError::Unreadable(of_sqlite(error)),
            IndexError::Io { doing, path, cause } => {
                IndexError::Io { doing, path: path.clone(), cause: io::Error::new(cause.kind(), cause.to_string()) }
            }
        }
    }
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> IndexError {
        let path = path.into();
        move |cause| IndexError::Io { doing, path, cause }
    }
}

/// SQLite's extended codes of writes that failed: the file is as it was, so there is nothing to rebuild.
const WRITES: [i32; 4] = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC, ffi::SQLITE_IOERR_TRUNCATE];

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> IndexError {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        let write_failed = extended.is_some_and(|code| WRITES.contains(&code));
        let cut_short = extended == Some(ffi::SQLITE_IOERR_SHORT_READ);
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => IndexError::Busy,
            Some(ErrorCode::DiskFull) => IndexError::Full,
            Some(ErrorCode::ReadOnly) => IndexError::Unwritable(error),
            Some(ErrorCode::SystemIoFailure) if write_failed => IndexError::Unwritable(error),
            Some(ErrorCode::SystemIoFailure) if !cut_short => IndexError::Unreadable(error),
            Some(ErrorCode::CannotOpen | ErrorCode::OutOfMemory) => IndexError::Unreadable(error),
            // Every statement is ours and valid: that one is refused, or a value has another type, means that the file is not what we wrote.
            _ => IndexError::Damaged(error.to_string()),
        }
    }
}
