//! Removes what deliveries that died left in `tmp/`.

use std::{io, sync::atomic::Ordering};

use super::Mailbox;
use crate::{StorageError, filesystem::remove_quietly, parallel, store::unix_micros};

/// The age from which a file in `tmp/` belongs to nobody: the Maildir convention.
const ABANDONED_AFTER_NANOSECONDS: i64 = 36 * 60 * 60 * 1_000_000_000;

impl Mailbox {
    /// Looks through `tmp/` once after opening. Background work.
    pub(crate) fn tidy(&self) -> Result<(), StorageError> {
        if self.is_deleted() || self.tidied.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let tmp = self.folder().join("tmp");
        let filesystem = self.store.filesystem.as_ref();
        let entries = match filesystem.list(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(self.store.io("can't list", &tmp))?,
        };
        let files: Vec<_> = entries.into_iter().filter(|entry| entry.is_folder != Some(true)).map(|entry| tmp.join(entry.name)).collect();
        let oldest = unix_micros().saturating_mul(1_000).saturating_sub(ABANDONED_AFTER_NANOSECONDS);
        parallel::for_each(self.store.settings.parallel_operations, &files, |file| {
            let is_old = filesystem.attributes(file).is_ok_and(|attributes| attributes.modified < oldest);
            if is_old && self.store.ensure_not_abandoned().is_ok() {
                remove_quietly(filesystem, file);
            }
        });
        Ok(())
    }
}
