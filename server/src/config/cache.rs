//! `[cache]`: mail on a disk of this host.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use storage::{CACHE_BYTES_MAX, CACHE_BYTES_MIN};

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSection {
    /// A folder on a disk of this host; none: no cache.
    pub dir: Option<PathBuf>,
    /// What it takes of that disk, all of it at once.
    pub size: ByteSize,
}

impl Default for CacheSection {
    fn default() -> Self {
        CacheSection { dir: None, size: ByteSize::gib(2) }
    }
}

impl CacheSection {
    /// What is wrong with it, where the shared directory is `root`.
    pub(super) fn check(&self, root: &Path, say: &mut impl FnMut(&'static str, String)) {
        if let Some(dir) = &self.dir {
            if !dir.is_absolute() {
                say("cache.dir", format!("{} is relative: write the path from /", dir.display()));
            } else if dir.starts_with(root) && root.is_absolute() {
                say("cache.dir", "lies in the shared directory, whose requests it is to save: choose a folder on a local disk".to_owned());
            }
        }
        if !(CACHE_BYTES_MIN..=CACHE_BYTES_MAX).contains(&self.size.as_u64()) {
            let (least, most) = (ByteSize(CACHE_BYTES_MIN), ByteSize(CACHE_BYTES_MAX));
            say("cache.size", format!("{} is not between {least} and {most}", self.size));
        }
    }
}
