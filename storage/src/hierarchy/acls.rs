//! ACLs of mailboxes (RFC 4314), in Dovecot's file `dovecot-acl` in the mailbox's folder, so that it moves and goes with it; and what is published of
//! them (`shares.rs`).
//!
//! Which mailboxes have such a file is known without looking into every folder: it is what was published, and what a look at a folder showed that the
//! index did not know (taken over, or rebuilt). A file that somebody else puts into a folder counts after `berth index rebuild`.
//!
//! Invariants, each with the test that guards it:
//! - an ACL survives the index, the holder and a rename, and ends with its mailbox (`acls_stay_with_their_mailbox_and_are_published`)
//! - what is published is put right when the account is opened (`what_was_published_wrongly_is_put_right_at_the_next_opening`)
//! - a file that can't be understood gives nobody anything, and is kept (`a_broken_acl_gives_nobody_anything`)
//! - a mailbox that is made below a shared one is shared alike (RFC 4314 §4) (`acls_stay_with_their_mailbox_and_are_published`)

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

use index::MailboxId;

use crate::{
    Account, Acl, AclChange, MailboxName, StorageError,
    acl::{ENTRIES_MAX, Subject},
    filesystem::{Entry, read_small},
    shares::{OwnShares, Shares},
};

const FILE: &str = "dovecot-acl";
/// Longest file that is read: more than [`ENTRIES_MAX`] entries take.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// What is known of the ACLs of one account. Changed under `Account::structure` alone.
#[derive(Debug, Default)]
pub(crate) struct Acls {
    /// Mailboxes whose folder has the file.
    with_file: BTreeSet<MailboxId>,
    read: HashMap<MailboxId, Arc<Acl>>,
    /// `None`: not looked at yet, or that failed.
    own: Option<OwnShares>,
}

/// Whether a listing of a mailbox folder shows an ACL.
pub(super) fn is_there(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.name == FILE)
}

impl Account {
    /// Whether mailboxes can be shared here.
    pub fn shares(&self) -> bool {
        self.store.paths.shares.is_some()
    }
    /// The ACL of a mailbox. Mostly from memory, else blocking.
    pub fn acl(&self, name: &MailboxName) -> Result<Arc<Acl>, StorageError> {
        let _inside = self.store.enter()?;
        let id = self.catalog.read().mailboxes.get(name).map(|known| known.id);
        let id = id.ok_or_else(|| StorageError::NoMailbox(name.clone()))?;
        {
            let acls = self.acls.lock();
            if !acls.with_file.contains(&id) {
                return Ok(Arc::default());
            }
            if let Some(acl) = acls.read.get(&id) {
                return Ok(Arc::clone(acl));
            }
        }
        let _structure = self.structure.lock();
        self.read_acl(name)
    }
    /// Changes one entry of a mailbox's ACL. Blocking; durable, and published, when it returns.
    pub fn change_acl(&self, name: &MailboxName, subject: Subject, change: AclChange) -> Result<(), StorageError> {
        let _inside = self.store.enter_for_change()?;
        let _structure = self.structure.lock();
        if !self.shares() {
            return Err(StorageError::NotAllowed("mailboxes are not shared on this server"));
        }
        let mut acl = Acl::clone(&*self.read_acl(name)?);
        if acl.change(subject, change) {
            if acl.len() > ENTRIES_MAX {
                let limit = u64::try_from(ENTRIES_MAX).unwrap_or(u64::MAX);
                return Err(StorageError::Limit { what: "the number of entries in an ACL", limit });
            }
            self.write_acl(name, acl)?;
        }
        self.publish_shares()?;
        self.list_changed();
        self.store.acknowledge(())
    }
    /// A mailbox just made is shared as the one above it.
    pub(super) fn inherit_acl(&self, name: &MailboxName) -> Result<(), StorageError> {
        let above = name.parent().filter(|above| self.has_acl(above));
        if let Some(above) = above.filter(|_| self.shares()) {
            let acl = match self.read_acl(&above) {
                // Nobody else sees it, then.
                Err(error @ (StorageError::Io { .. } | StorageError::Limit { .. })) => {
                    tracing::warn!(user = %self.store.lease.user(), mailbox = %name, %error, "a new mailbox is not shared as the one above it");
                    return Ok(());
                }
                acl => acl?,
            };
            if !acl.is_empty() {
                self.write_acl(name, Acl::clone(&acl))?;
                self.publish_shares()?;
            }
        }
        Ok(())
    }
    /// A mailbox is gone, or called otherwise.
    pub(super) fn shared_mailboxes_changed(&self, ids: &[MailboxId], gone: bool) -> Result<(), StorageError> {
        {
            let mut acls = self.acls.lock();
            if !ids.iter().any(|id| acls.with_file.contains(id)) {
                return Ok(());
            }
            for id in ids.iter().filter(|_| gone) {
                acls.with_file.remove(id);
                acls.read.remove(id);
            }
        }
        if self.shares() { self.publish_shares() } else { Ok(()) }
    }
    /// A look at the folder of a mailbox showed an ACL.
    pub(super) fn acl_is_there(&self, id: MailboxId) {
        self.acls.lock().with_file.insert(id);
    }
    /// At opening: what was published is compared with what is, and put right. An account whose shares can't be told is served all the same.
    pub(crate) fn look_at_shares(&self) {
        if self.shares()
            && let Err(error) = self.own_shares().and_then(|()| self.publish_shares())
        {
            tracing::warn!(user = %self.user(), %error, "what this user shares could not be published");
        }
    }

    fn has_acl(&self, name: &MailboxName) -> bool {
        let id = self.catalog.read().mailboxes.get(name).map(|known| known.id);
        id.is_some_and(|id| self.acls.lock().with_file.contains(&id))
    }
    fn read_acl(&self, name: &MailboxName) -> Result<Arc<Acl>, StorageError> {
        let known = self.catalog.read().mailboxes.get(name).map(|known| (known.id, known.folder.clone()));
        let (id, folder) = known.ok_or_else(|| StorageError::NoMailbox(name.clone()))?;
        if let Some(acl) = self.acls.lock().read.get(&id) {
            return Ok(Arc::clone(acl));
        }
        let folder = self.folder_path(&folder);
        let filesystem = self.store.filesystem.as_ref();
        // What this host remembers of the name may be from before another one wrote it: the folder's fresh attributes end that.
        filesystem.attributes(&folder).map_err(self.store.io("can't look at", &folder))?;
        let path = folder.join(FILE);
        let content = read_small(filesystem, &path, FILE_BYTES_MAX).map_err(self.store.io("can't read", &path))?;
        let broken =
            |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{what:?} is no entry of an ACL: mend or remove it"));
        let acl = match content {
            None => Acl::default(),
            Some(content) => {
                let text = String::from_utf8(content).map_err(|_| broken("text that is not UTF-8".to_owned()));
                let read = text.and_then(|text| Acl::parse(&text).map_err(broken));
                read.map_err(self.store.io("can't understand", &path))?
            }
        };
        let acl = Arc::new(acl);
        self.acls.lock().read.insert(id, Arc::clone(&acl));
        Ok(acl)
    }
    fn write_acl(&self, name: &MailboxName, acl: Acl) -> Result<(), StorageError> {
        let known = self.catalog.read().mailboxes.get(name).map(|known| (known.id, known.folder.clone()));
        let (id, folder) = known.ok_or_else(|| StorageError::NoMailbox(name.clone()))?;
        {
            // After a failure the file may be the old one or the new one.
            let mut acls = self.acls.lock();
            acls.read.remove(&id);
            acls.with_file.insert(id);
        }
        self.replace_file(&self.folder_path(&folder), FILE, acl.print().as_bytes())?;
        self.acls.lock().read.insert(id, Arc::new(acl));
        Ok(())
    }
    /// Looks once at what was published: its mailboxes have an ACL. Where one of them is gone, its holder may have died while it got another name: then
    /// every folder is looked at.
    fn own_shares(&self) -> Result<(), StorageError> {
        let Some(folder) = self.store.paths.shares.as_deref().filter(|_| self.acls.lock().own.is_none()) else { return Ok(()) };
        let own = OwnShares::open(self.store.filesystem.as_ref(), folder, self.user(), self.store.lease.epoch())
            .map_err(self.store.io("can't look at what is shared in", folder))?;
        let mailboxes: HashMap<_, _> =
            self.catalog.read().mailboxes.iter().map(|(name, known)| (name.clone(), (known.id, known.folder.clone()))).collect();
        let named: Vec<&MailboxName> = own.published.iter().flat_map(|shares| shares.0.keys()).collect();
        let with_file = if named.iter().all(|name| mailboxes.contains_key(*name)) {
            named.iter().filter_map(|name| mailboxes.get(*name)).map(|(id, _)| *id).collect()
        } else {
            self.folders_with_acl(mailboxes.into_values())?
        };
        let mut acls = self.acls.lock();
        acls.with_file.extend(with_file);
        acls.own = Some(own);
        Ok(())
    }
    fn folders_with_acl(&self, mailboxes: impl Iterator<Item = (MailboxId, String)>) -> Result<Vec<MailboxId>, StorageError> {
        let mut found = Vec::new();
        for (id, folder) in mailboxes {
            let path = self.folder_path(&folder).join(FILE);
            match self.store.filesystem.attributes(&path) {
                Ok(_) => found.push(id),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.store.io("can't look at", path)(error)),
            }
        }
        Ok(found)
    }
    fn publish_shares(&self) -> Result<(), StorageError> {
        self.own_shares()?;
        let with_file = self.acls.lock().with_file.iter().copied().collect();
        let mut shares = Shares::default();
        for (_, name, _) in self.catalog.read().find(&with_file) {
            match self.read_acl(&name) {
                Ok(acl) if acl.is_empty() => {}
                Ok(acl) => drop(shares.0.insert(name, Acl::clone(&acl))),
                Err(error @ (StorageError::LeaseLost(_) | StorageError::Closing(_))) => return Err(error),
                // Nobody is given anything by what can't be read; it is read again at the next opening.
                Err(error) => {
                    tracing::warn!(user = %self.user(), mailbox = %name, %error, "a mailbox is not shared");
                    shares.0.insert(name, Acl::default());
                }
            }
        }
        let mut acls = self.acls.lock();
        let Some(own) = acls.own.as_mut() else { return Ok(()) };
        let folder = self.store.paths.shares.clone().unwrap_or_default();
        own.publish(self.store.filesystem.as_ref(), shares, &self.store.scratch())
            .map_err(self.store.io("can't publish what is shared in", folder))
    }
}
