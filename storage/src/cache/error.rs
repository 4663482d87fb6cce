//! Why there is no cache.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a cache can't be opened: the node goes without.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CacheError {
    #[error("{} is in use by another process: give each node of this host a folder of its own", .0.display())]
    InUse(PathBuf),
    #[error("{} belongs to another account, or others may write to it: whoever can do that says what mail is; chown it to the node's account and chmod it 0700", .0.display())]
    NotOurs(PathBuf),
    #[error("{} is on a file server: the cache is to save its requests; name a folder on a disk of this host", .0.display())]
    Remote(PathBuf),
    #[error("{doing} the local cache, {}: {cause}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl CacheError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
        let path = path.to_owned();
        move |cause| CacheError::Io { doing, path, cause }
    }
}
