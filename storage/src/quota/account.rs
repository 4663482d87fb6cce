//! What sessions, deliveries and operators ask of an account about its quotas.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use index::MailboxId;

use super::{Crossing, QuotaRules, RootUsage, Usage};
use crate::{Account, MailboxName, StorageError};

/// Mailboxes that one round of background work counts: each may be a listing of a large folder.
const COUNTED_AT_ONCE: usize = 4;

/// What holds for one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaSettings {
    /// Its roots and limits.
    pub rules: QuotaRules,
    /// Percentages that are told when they are crossed, ascending.
    pub thresholds: Arc<[u64]>,
    /// Whether limits come from `maildirsize` where the rules have none.
    pub limits_from_maildirsize: bool,
}

impl Account {
    /// Limits from now on. Reads `maildirsize` where they come from there; otherwise from memory. Blocking.
    pub fn set_quota(&self, settings: &QuotaSettings) -> Result<(), StorageError> {
        let _inside = self.store.enter()?;
        let mut set = self.set_limits.lock();
        if set.settings != *settings {
            set.settings = settings.clone();
        }
        self.apply_limits(&set)?;
        let mut file = self.maildirsize.lock();
        if file.opened_with.is_none() {
            file.opened_with = Some(self.store.quota.main().0);
        }
        Ok(())
    }
    /// Every quota root, or those that count one mailbox (there or not). Blocking where mailboxes are still to be counted.
    pub fn quota(&self, mailbox: Option<&MailboxName>) -> Result<Vec<RootUsage>, StorageError> {
        let _inside = self.store.enter()?;
        if self.store.quota.rules().any() {
            while self.count_next()? {}
        }
        let mut roots = match mailbox {
            Some(name) => self.store.quota.usage_in(name),
            None => self.store.quota.usage(),
        };
        for main in roots.iter_mut().filter(|root| root.name == super::MAIN_ROOT) {
            // Also mailboxes whose messages don't count: their number is limited.
            main.mailboxes = self.catalog.read().mailboxes.len();
        }
        Ok(roots)
    }
    /// Most mailboxes that the user may have.
    pub fn mailboxes_max(&self) -> usize {
        self.store.settings.mailboxes_max
    }
    /// Whether a message of `bytes` would fit into a mailbox (there or not) now. From memory.
    pub fn has_room(&self, mailbox: &MailboxName, bytes: u64) -> Result<(), StorageError> {
        self.store.quota.has_room_in(mailbox, Usage { bytes, messages: 1 })
    }
    /// Thresholds that were crossed since this was asked last. From memory.
    pub fn quota_crossings(&self) -> Vec<Crossing> {
        self.store.quota.crossings()
    }
    /// Compares every mailbox with its folder, counts anew, and writes `maildirsize`; the mailboxes for which the ledger was wrong. Blocking.
    pub fn recount(self: &Arc<Self>) -> Result<Vec<MailboxName>, StorageError> {
        let names: Vec<MailboxName> = self.catalog.read().mailboxes.keys().cloned().collect();
        let mut counted = Vec::with_capacity(names.len());
        for name in names {
            match self.mailbox(&name).and_then(|mailbox| mailbox.refresh(true).map(|()| mailbox)) {
                Ok(mailbox) => counted.push(mailbox),
                Err(StorageError::NoMailbox(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // Nobody is inside: no message is on its way, so that what is visible is what is held.
        let alone = self.store.alone()?;
        let mut wrong = Vec::new();
        for mailbox in counted.iter().filter(|mailbox| !mailbox.is_deleted()) {
            if mailbox.correct_usage() {
                tracing::warn!(user = %self.store.lease.user(), mailbox = %mailbox.name(), "its usage was counted wrongly");
                wrong.push(mailbox.name());
            }
        }
        drop(alone);
        let _inside = self.store.enter_for_change()?;
        self.maildirsize.lock().renew_now(&self.store)?;
        self.store.acknowledge(wrong)
    }

    /// Begins with what the index counted.
    pub(crate) fn count_from_index(&self) -> Result<(), StorageError> {
        let usages = self.store.with_writer(|index| index.usages())?;
        let usages: HashMap<MailboxId, Usage> = usages.into_iter().map(|(id, messages, bytes)| (id, Usage { bytes, messages })).collect();
        for (name, known) in &self.catalog.read().mailboxes {
            self.store.quota.mailbox_is_there(known.id, name, usages.get(&known.id).copied().unwrap_or_default());
        }
        Ok(())
    }
    /// Opens mailboxes whose usage is not known, some at a time. Background work.
    pub(crate) fn count_some(&self) -> Result<(), StorageError> {
        for _ in 0..COUNTED_AT_ONCE {
            if !self.store.quota.rules().any() || !self.count_next()? {
                return Ok(());
            }
        }
        Ok(())
    }
    fn count_next(&self) -> Result<bool, StorageError> {
        let Some(id) = self.uncounted.lock().last().copied() else { return Ok(false) };
        let entry = self.catalog.read().find(&HashSet::from([id])).pop();
        if let Some((_, name, folder)) = entry {
            match self.load(id, name, &folder) {
                Ok(mailbox) => mailbox.learn()?,
                Err(StorageError::NoMailbox(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.uncounted.lock().retain(|other: &MailboxId| *other != id);
        Ok(true)
    }
}
