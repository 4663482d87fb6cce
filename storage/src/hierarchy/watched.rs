//! What happens in an account as a whole, for those who follow more than one mailbox (NOTIFY, RFC 5465): all from memory, but for the numbers of mailboxes
//! that are not open, which are those of the index. Nothing is looked for on disk: what other programs bring to a mailbox is news once somebody opens it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use index::{MailboxId, ModSeq, UidValidity};
use tokio::sync::watch;

use crate::{Account, MailboxName, StorageError};

/// Changes of annotations that are remembered: who follows them reads them a moment later.
const ANNOTATION_CHANGES_MAX: usize = 1_024;

/// The numbers of a mailbox that tell whether anything changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in STATUS")]
pub struct Numbers {
    pub uid_validity: UidValidity,
    pub uid_next: u32,
    pub messages: u32,
    pub highest_modseq: ModSeq,
}

/// An annotation that was set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationChange {
    /// Of which mailbox; `None`: of the account.
    pub mailbox: Option<MailboxId>,
    /// Its entry, in small letters.
    pub entry: String,
    /// By whom: what was given to [`Account::annotate_as`].
    pub origin: u64,
}

/// The last changes of annotations.
#[derive(Debug, Default)]
pub(crate) struct AnnotationLog {
    /// How many there were before the first of `last`.
    forgotten: u64,
    last: VecDeque<AnnotationChange>,
}

impl AnnotationLog {
    pub(crate) fn note(&mut self, change: AnnotationChange) {
        if self.last.len() == ANNOTATION_CHANGES_MAX {
            self.last.pop_front();
            self.forgotten += 1;
        }
        self.last.push_back(change);
    }
    fn since(&self, seen: u64) -> Option<Vec<AnnotationChange>> {
        let skip = usize::try_from(seen.checked_sub(self.forgotten)?).ok()?;
        Some(self.last.iter().skip(skip).cloned().collect())
    }
    fn end(&self) -> u64 {
        self.forgotten + self.last.len() as u64
    }
}

impl Account {
    /// Moves at every change of an open mailbox, of which mailboxes there are, of subscriptions and of annotations.
    pub fn activity(&self) -> watch::Receiver<u64> {
        self.store.events.subscribe()
    }

    /// Every mailbox by its id, which stays over RENAME, and what is subscribed. From memory.
    pub fn known_mailboxes(&self) -> (BTreeMap<MailboxId, MailboxName>, BTreeSet<MailboxName>) {
        let catalog = self.catalog.read();
        (catalog.mailboxes.iter().map(|(name, known)| (known.id, name.clone())).collect(), catalog.subscriptions.clone())
    }

    /// The numbers of the mailboxes that are open: only these change. May wait for one that is being opened.
    pub fn open_numbers(&self) -> HashMap<MailboxId, Numbers> {
        self.loaded().iter().map(|mailbox| (mailbox.id(), mailbox.numbers())).collect()
    }

    /// The numbers of all mailboxes. Blocking.
    pub fn all_numbers(&self) -> Result<HashMap<MailboxId, Numbers>, StorageError> {
        let _inside = self.store.enter()?;
        let (records, usages) = self.store.with_writer(|index| Ok((index.mailboxes()?, index.usages()?)))?;
        let counts: HashMap<MailboxId, u64> = usages.into_iter().map(|(id, messages, _)| (id, messages)).collect();
        let of = |record: index::MailboxRecord| {
            let messages = counts.get(&record.id).copied().and_then(|count| u32::try_from(count).ok()).unwrap_or_default();
            let numbers =
                Numbers { uid_validity: record.uid_validity, uid_next: record.uid_next, messages, highest_modseq: record.highest_modseq };
            (record.id, numbers)
        };
        let mut numbers: HashMap<MailboxId, Numbers> = records.into_iter().map(of).collect();
        numbers.extend(self.open_numbers());
        Ok(numbers)
    }

    /// How many changes of annotations there were.
    pub fn annotation_changes(&self) -> u64 {
        self.annotation_log.lock().end()
    }

    /// The changes of annotations after the first `seen`, and how many there were by now; `None`: some are forgotten.
    pub fn annotated_since(&self, seen: u64) -> Option<(Vec<AnnotationChange>, u64)> {
        let log = self.annotation_log.lock();
        Some((log.since(seen)?, log.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_too_late_learns_that_changes_are_forgotten() {
        let mut log = AnnotationLog::default();
        let change = |number: usize| AnnotationChange { mailbox: None, entry: format!("/private/{number}"), origin: 1 };
        (0..ANNOTATION_CHANGES_MAX).for_each(|number| log.note(change(number)));
        assert_eq!(log.since(0).map(|changes| changes.len()), Some(ANNOTATION_CHANGES_MAX));
        log.note(change(ANNOTATION_CHANGES_MAX));
        assert_eq!((log.since(0), log.end()), (None, ANNOTATION_CHANGES_MAX as u64 + 1));
        assert_eq!(log.since(log.end() - 1), Some(vec![change(ANNOTATION_CHANGES_MAX)]));
        assert_eq!(log.since(log.end()), Some(Vec::new()));
    }
}
