//! The local cache of this node: opened at the start, if the settings name a folder; a node that can't have it goes without.

use std::sync::Arc;

use bytesize::ByteSize;
use storage::{Cache, CacheFigures};

use crate::config::CacheSection;

/// Opens it. What keeps it from being opened is said here; nobody else hears of it. Blocking.
pub fn open(section: &CacheSection, cluster_id: &str) -> Option<Arc<Cache>> {
    let dir = section.dir.as_ref()?;
    match Cache::open(dir, section.size.as_u64(), cluster_id) {
        Ok(cache) => {
            tracing::info!(dir = %dir.display(), size = %section.size, "the local cache is open");
            Some(Arc::new(cache))
        }
        Err(error) => {
            tracing::warn!(%error, "this node goes without its local cache ([cache] dir) until it is started again");
            None
        }
    }
}

/// What it did, for the log.
pub fn say_figures(cache: Option<&Cache>) {
    if let Some(cache) = cache {
        tracing::info!("the local cache: {}", in_words(&cache.figures()));
    }
}

/// What it did, for people.
pub fn in_words(figures: &CacheFigures) -> String {
    let CacheFigures { bytes, found, missed, bytes_found, kept, bytes_kept, let_go, off } = *figures;
    let (size, served, written) = (ByteSize(bytes), ByteSize(bytes_found), ByteSize(bytes_kept));
    let asked = found.saturating_add(missed);
    let percent = found.saturating_mul(100).checked_div(asked).unwrap_or(0);
    let state = if off { ", off since an error (the log has it)" } else { "" };
    format!(
        "{size}{state}; {found} of {asked} readings came from it ({percent} %, {served}), {kept} entries were written ({written}), {let_go} let go"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_one_line() {
        let figures =
            CacheFigures { bytes: 2 << 30, found: 3, missed: 1, bytes_found: 4096, kept: 2, bytes_kept: 2048, let_go: 0, off: false };
        let said = "2.0 GiB; 3 of 4 readings came from it (75 %, 4.0 KiB), 2 entries were written (2.0 KiB), 0 let go";
        assert_eq!(in_words(&figures), said);
        assert!(in_words(&CacheFigures { off: true, ..CacheFigures::default() }).contains("off since an error"));
    }

    #[test]
    fn a_node_without_the_setting_or_the_folder_goes_without() {
        assert!(open(&CacheSection::default(), "id").is_none());
        let section = CacheSection { dir: Some("/proc/none/such".into()), ..CacheSection::default() };
        assert!(open(&section, "id").is_none());
    }
}
