//! Messages that come again: their sender did not hear that they were stored, or was told so by nobody it believes.
//!
//! What is remembered is the Message-ID together with the reverse path, for each mailbox, by whoever holds the user's lease. It is kept in memory, and after
//! a change of holder read from the newest messages that are in the mailbox: what was removed or moved from there by then may be stored again.
//!
//! Invariants, each with the test that guards it:
//! - a message is only called a duplicate of one that is stored: of two at once, one waits (`of_two_at_once_one_is_stored_and_one_waits_for_it`)
//! - however many messages come, the newest are known (`the_newest_messages_are_remembered`)
//! - a message without a Message-ID is none (`a_message_without_an_id_is_always_stored`)

use std::{hash::Hash, sync::Arc};

use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use storage::{Account, Mailbox, StorageError, mime::HeaderBlock};

/// Messages remembered by a node: some 200 bytes each.
const REMEMBERED_MAX: u64 = 100_000;
/// Messages of a mailbox that a new holder looks at: what came in the seconds before a failover, with room to spare.
const LOOKED_AT_MAX: usize = 100;
/// How much of a message is searched for its header fields.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// One tenure's view of one mailbox.
type Place = (String, u64, String);

/// When a message was stored (Unix seconds); locked while somebody stores it.
pub type Slot = Arc<Mutex<Option<i64>>>;

/// What was stored lately.
#[derive(Debug)]
pub struct Duplicates {
    slots: Cache<(Place, [u8; 32]), Slot>,
    /// Mailboxes that were looked at since this node holds them.
    seen: Cache<Place, Arc<Mutex<bool>>>,
}

impl Default for Duplicates {
    fn default() -> Duplicates {
        Duplicates { slots: newest(), seen: newest() }
    }
}

/// Remembers the newest: a policy that asks how often a key was wanted keeps old ones, and a message that comes again comes twice.
fn newest<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>() -> Cache<K, V> {
    Cache::builder().max_capacity(REMEMBERED_MAX).eviction_policy(EvictionPolicy::lru()).build()
}

/// The fields that tell messages apart: Message-ID and the reverse path.
pub fn identity(head: &[u8], sender: &str) -> Option<[u8; 32]> {
    let id = HeaderBlock::new(head).values("message-id").next()?;
    let id = id.trim();
    (!id.is_empty()).then(|| Sha256::new().chain_update(id).chain_update([0]).chain_update(sender).finalize().into())
}

impl Duplicates {
    /// Where it is noted when this message was stored in `mailbox`. Blocking.
    pub fn slot(&self, account: &Account, mailbox: &Mailbox, identity: [u8; 32], window_s: i64) -> Result<Slot, StorageError> {
        let place = place(account, mailbox);
        let seen = self.seen.get_with_by_ref(&place, Arc::default);
        let mut seen = seen.lock();
        if !*seen {
            self.look(mailbox, &place, window_s)?;
            *seen = true;
        }
        drop(seen);
        Ok(self.slots.get_with((place, identity), Arc::default))
    }

    /// What became of the last message is not known: the next one looks.
    pub fn look_again(&self, account: &Account, mailbox: &Mailbox) {
        self.seen.invalidate(&place(account, mailbox));
    }

    /// Notes the newest messages of a mailbox.
    fn look(&self, mailbox: &Mailbox, place: &Place, window_s: i64) -> Result<(), StorageError> {
        let since = now_s().saturating_sub(window_s);
        let newest: Vec<_> = {
            let columns = mailbox.read();
            let rows = columns.uids().iter().rev().take(LOOKED_AT_MAX).filter_map(|uid| columns.get(*uid));
            rows.take_while(|row| row.save_date >= since).map(|row| (row.uid, row.save_date)).collect()
        };
        for (uid, saved) in newest {
            let mut head = vec![0; HEADER_BYTES_MAX];
            let read = match mailbox.open_message(uid).and_then(|message| message.read_at(0, &mut head)) {
                Ok(read) => read,
                // Removed in the meantime.
                Err(StorageError::Expunged) => continue,
                Err(error) => return Err(error),
            };
            let head = head.get(..read).unwrap_or_default();
            let sender = HeaderBlock::new(head).values("return-path").next().unwrap_or_default();
            let sender = sender.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
            if let Some(identity) = identity(head, &sender) {
                self.slots.insert((place.clone(), identity), Arc::new(Mutex::new(Some(saved))));
            }
        }
        Ok(())
    }
}

fn place(account: &Account, mailbox: &Mailbox) -> Place {
    let lease = account.lease();
    (lease.user().to_string(), lease.epoch().0, mailbox.name().as_str().to_owned())
}

/// Now, in Unix seconds: windows are hours long.
pub fn now_s() -> i64 {
    let since = affinity::clock::wall_clock().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_messages_are_remembered() {
        let cache = newest();
        (0..3 * REMEMBERED_MAX).for_each(|message| cache.get_with(message, || ()));
        cache.run_pending_tasks();
        assert_eq!((2 * REMEMBERED_MAX + 1000..3 * REMEMBERED_MAX).filter(|message| !cache.contains_key(message)).count(), 0);
        assert!(cache.entry_count() <= REMEMBERED_MAX);
    }
}
