//! Small files that are replaced as a whole: subscriptions, keywords, lists of UIDs, quota, ACLs, annotations.
//!
//! Their names stay, so a dead holder's rename would put an old file over a new one whenever it lands. It finds its source gone instead
//! (`a_dead_holders_late_replacement_finds_nothing`), and who is past the deadline asks for no rename (`a_file_that_took_too_long_replaces_nothing`).

use std::{io, path::Path};

use super::Store;
use crate::{
    StorageError,
    filesystem::{remove_quietly, write_small},
    maildir::{filename::Base, layout::WRITING_PREFIX},
};

impl Store {
    /// Readers see the old content or the new. `scratch`: a unique name on the same file system, in a `tmp/` or after [`WRITING_PREFIX`].
    pub fn replace_small(&self, path: &Path, scratch: &Path, content: &[u8]) -> Result<(), StorageError> {
        self.ensure_not_abandoned()?;
        if let Some(folder) = scratch.parent()
            && self.follows_a_dead_client()
            && !self.swept.lock().contains(folder)
        {
            self.sweep_writes(folder)?;
            self.swept.lock().insert(folder.to_owned());
        }
        let filesystem = self.filesystem.as_ref();
        let failed = |error| self.io("can't write", path)(error);
        let replaced = write_small(filesystem, scratch, content)
            .map_err(failed)
            .and_then(|()| Ok(self.lease.confirm(self.settings.suspended_wait)?))
            .and_then(|_| filesystem.rename(scratch, path).map_err(failed));
        if replaced.is_err() {
            remove_quietly(filesystem, scratch);
        }
        replaced?;
        path.parent().map_or(Ok(()), |folder| filesystem.sync_folder(folder)).map_err(failed)
    }

    /// Removes what earlier holders were about to put in its place.
    fn sweep_writes(&self, folder: &Path) -> Result<(), StorageError> {
        let entries = match self.filesystem.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(self.io("can't list", folder))?,
        };
        let is_earlier = |name: &str| {
            let own = Base::parse(name.strip_prefix(WRITING_PREFIX).unwrap_or(name)).own();
            own.is_some_and(|own| own.epoch < self.lease.epoch())
        };
        for entry in entries.iter().filter(|entry| is_earlier(&entry.name)) {
            let path = folder.join(&entry.name);
            self.filesystem.remove_file(&path).map_err(self.io("can't remove", &path))?;
        }
        Ok(())
    }
}
