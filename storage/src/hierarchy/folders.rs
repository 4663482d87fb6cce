//! Folders of mailboxes come, move and go, in either layout.
//!
//! A mailbox appears and disappears by one rename. In the layout `fs` a folder may have others below it that stay: then it is `cur/` alone that is
//! renamed away, or made last.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Known;
use crate::{
    Account, Layout, MailboxName, StorageError,
    filesystem::{create_folders, remove_quietly},
    maildir::layout::{DELETED_PREFIX, FOLDER_MARK},
};

/// One mailbox that a rename of folders concerns: its name, the new one, what is known of it.
pub(super) type Moved = (MailboxName, MailboxName, Known);

/// What a mailbox folder has; `cur` last, since that makes it one.
const INNER: [&str; 3] = ["new", "tmp", "cur"];

impl Account {
    /// Puts a mailbox folder with these empty files in its place; `scratch` is a name in the Maildir that no listing shows.
    pub(super) fn place_folder(&self, name: &MailboxName, folder: &str, scratch: &Path, files: &[String]) -> Result<(), StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let path = self.store.paths.folder(folder);
        let fs = self.store.paths.layout == Layout::Fs;
        let made = (|| {
            filesystem.create_folder(scratch)?;
            self.fill_folder(scratch, files)?;
            if fs && let Some(above) = path.parent() {
                create_folders(filesystem, above)?;
            }
            filesystem.rename(scratch, &path)
        })();
        let Err(error) = made else { return Ok(()) };
        self.trash.lock().push(scratch.to_owned());
        let there = matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists);
        if there && fs && self.fill_level(&path, files).map_err(self.store.io("can't make mailbox folder", &path))? {
            return Ok(());
        }
        // A folder that is no mailbox we know: another program made it since we looked.
        Err(if there { StorageError::MailboxExists(name.clone()) } else { self.store.io("can't make mailbox folder", path)(error) })
    }

    /// Makes a folder a mailbox that was only a level of the hierarchy. `false`: it is one.
    fn fill_level(&self, path: &Path, files: &[String]) -> io::Result<bool> {
        let filesystem = self.store.filesystem.as_ref();
        let entries = filesystem.list(path)?;
        if entries.iter().any(|entry| entry.name == "cur") {
            return Ok(false);
        }
        // What a mailbox that was here left behind.
        for entry in entries.iter().filter(|entry| entry.is_folder == Some(false)) {
            filesystem.remove_file(&path.join(&entry.name))?;
        }
        for file in files {
            filesystem.create(&path.join(file))?.finish()?;
        }
        for name in INNER {
            filesystem.create_folder(&path.join(name))?;
        }
        filesystem.sync_folder(path)?;
        Ok(true)
    }

    /// Takes a mailbox out of the listing, and leaves its files to the background.
    pub(super) fn remove_folder(&self, folder: &str) -> Result<(), StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let maildir = &self.store.paths.maildir;
        let (from, to) = (maildir.join(folder), maildir.join(format!("{DELETED_PREFIX}{}", self.store.scratch())));
        let has_more = match self.store.paths.layout {
            Layout::MaildirPlusPlus => None,
            Layout::Fs => {
                let entries = filesystem.list(&from).map_err(self.store.io("can't list", &from))?;
                let stays = |name: &str, is_folder: Option<bool>| !INNER.contains(&name) && is_folder != Some(false);
                entries.iter().any(|entry| stays(&entry.name, entry.is_folder)).then_some(entries)
            }
        };
        let Some(entries) = has_more else {
            filesystem.rename(&from, &to).map_err(self.store.io("can't rename", &from))?;
            filesystem.sync_folder(maildir).map_err(self.store.io("can't sync", maildir))?;
            return self.empty_later(to);
        };
        filesystem.create_folder(&to).map_err(self.store.io("can't make", &to))?;
        let cur = from.join("cur");
        filesystem.rename(&cur, &to.join("cur")).map_err(self.store.io("can't rename", &cur))?;
        filesystem.sync_folder(&from).map_err(self.store.io("can't sync", &from))?;
        self.empty_later(to.clone())?;
        // It is no mailbox any more; what can't be taken away now is, should the mailbox be made again.
        for inner in ["new", "tmp"] {
            if let Err(error) = filesystem.rename(&from.join(inner), &to.join(inner)) {
                tracing::debug!(folder = %from.display(), %error, "left behind");
            }
        }
        for entry in entries.iter().filter(|entry| entry.is_folder == Some(false)) {
            remove_quietly(filesystem, &from.join(&entry.name));
        }
        Ok(())
    }

    /// The background removes what was deleted, once it is sure that we held the user when the rename was done: before, the mailbox may be another holder's,
    /// who brings it back (`what_was_deleted_after_the_lease_is_not_emptied`).
    fn empty_later(&self, deleted: PathBuf) -> Result<(), StorageError> {
        self.trash.lock().push(deleted);
        self.store.lease.confirm(self.store.settings.suspended_wait)?;
        Ok(())
    }

    /// Renames a folder, and tells all that lie in it (`moves`).
    pub(super) fn move_folder(&self, from: &str, to: &str, moves: Vec<Moved>) -> Result<(), StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let paths = &self.store.paths;
        let (source, target) = (paths.folder(from), paths.folder(to));
        let moves = moves
            .into_iter()
            .map(|(old, new, known)| {
                let folder = paths.layout.folder(&new)?;
                Ok((old, new, Known { folder, ..known }))
            })
            .collect::<Result<Vec<Moved>, StorageError>>()?;
        let rename = || {
            if paths.layout == Layout::Fs
                && let Some(above) = target.parent()
            {
                create_folders(filesystem, above).map_err(self.store.io("can't make", above))?;
            }
            match filesystem.rename(&source, &target) {
                Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                    return Err(StorageError::NotAllowed("mailboxes lie below that name already"));
                }
                renamed => renamed.map_err(self.store.io("can't rename", &source))?,
            }
            for folder in [target.parent(), source.parent()].into_iter().flatten() {
                filesystem.sync_folder(folder).map_err(self.store.io("can't sync", folder))?;
            }
            Ok(())
        };
        let slots = self.slots(moves.iter().map(|(.., known)| known.id));
        let opened: Vec<_> = slots.iter().map(|slot| slot.lock()).collect();
        let with_opened = moves.iter().zip(&opened);
        let open: Vec<_> = with_opened
            .filter_map(|((_, new, known), opened)| Some((opened.as_ref()?.0.clone(), new.clone(), paths.folder(&known.folder))))
            .collect();
        crate::mailbox::relocate(&open, rename)?;
        let mut catalog = self.catalog.write();
        for (old, new, known) in &moves {
            catalog.mailboxes.remove(old);
            catalog.mailboxes.insert(new.clone(), known.clone());
        }
        drop((catalog, opened));
        for (_, new, known) in &moves {
            self.store.quota.mailbox_is_called(known.id, new);
        }
        self.store.change(|change| moves.iter().try_for_each(|(.., known)| change.set_folder(known.id, &known.folder)))
    }

    /// The empty files of a new mailbox folder, beside its state.
    pub(super) fn folder_marks(&self) -> impl Iterator<Item = String> + use<> {
        // Maildir++ tells other programs by it what is a folder.
        (self.store.paths.layout == Layout::MaildirPlusPlus).then(|| FOLDER_MARK.to_owned()).into_iter()
    }
}
