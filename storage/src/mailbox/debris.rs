//! Removes what deliveries that died left in `tmp/`.

use std::{io, sync::atomic::Ordering, time::Duration};

use super::Mailbox;
use crate::{StorageError, filesystem::remove_quietly, parallel, store::unix_micros};

/// The age from which a file in `tmp/` belongs to nobody: the Maildir convention.
const ABANDONED_AFTER_NANOSECONDS: i64 = 36 * 60 * 60 * 1_000_000_000;

/// How long a mailbox on a file server is open before that: nothing in there is in a hurry, and whoever only looks in is not to pay for a listing.
/// Accounts stay open for `linger`, and have their background work done also while nobody uses them.
const TIDIED_AFTER: Duration = Duration::from_secs(60);

impl Mailbox {
    /// Whether `tmp/` is to be looked through.
    pub(super) fn is_tidying_due(&self, now: Duration) -> bool {
        let wait = if self.store.is_remote { TIDIED_AFTER } else { Duration::ZERO };
        !self.tidied.load(Ordering::SeqCst) && now.saturating_sub(self.opened_at) >= wait
    }
    /// Looks through `tmp/` once after opening. Background work.
    pub(super) fn tidy(&self, now: Duration) -> Result<(), StorageError> {
        if self.is_deleted() || !self.is_tidying_due(now) {
            return Ok(());
        }
        self.tidied.store(true, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use affinity::{Handover, clock::wall_clock};

    use super::TIDIED_AFTER;
    use crate::tests::User;

    #[test]
    fn what_died_goes_at_once_on_a_disk_and_after_a_minute_on_a_file_server() {
        for remote in [false, true] {
            let mut user = User::new();
            if remote {
                user.faulty.pretend_remote();
            }
            let held = user.open(Handover::Clean);
            let inbox = held.inbox();
            let (died, on_its_way) = (user.maildir().join("tmp/1.died"), user.maildir().join("tmp/2.on_its_way"));
            let file = File::create(&died).unwrap();
            file.set_modified(wall_clock() - Duration::from_secs(37 * 60 * 60)).unwrap();
            File::create(&on_its_way).unwrap();
            held.run_background_work().unwrap();
            assert_eq!(died.exists(), remote);
            let a_minute_later = inbox.store.now() + TIDIED_AFTER;
            assert_eq!(inbox.is_tidying_due(a_minute_later), remote, "nobody else wakes the mailbox for it");
            inbox.tidy(a_minute_later).unwrap();
            assert!(!died.exists() && on_its_way.exists() && !inbox.is_tidying_due(a_minute_later), "once");
        }
    }
}
