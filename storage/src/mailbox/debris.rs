//! Removes what deliveries that died left in `tmp/`.

use std::{collections::VecDeque, io, sync::atomic::Ordering, time::Duration};

use super::Mailbox;
use crate::{StorageError, filesystem::remove_quietly, maildir::filename::FileName, parallel, store::unix_micros};

/// The age from which a file in `tmp/` belongs to nobody: the Maildir convention.
const ABANDONED_AFTER_NANOSECONDS: i64 = 36 * 60 * 60 * 1_000_000_000;

/// How long a mailbox on a file server is open before that: nothing in there is in a hurry, and whoever only looks in is not to pay for a listing.
/// Accounts stay open for `linger`, and have their background work done also while nobody uses them.
const TIDIED_AFTER: Duration = Duration::from_secs(60);

/// How long no message came before names in `tmp/` are removed: the kernel makes one change to a folder at a time, and deliveries come first.
const QUIET: Duration = Duration::from_secs(2);
/// How long they stay where messages go on coming.
const KEPT_AT_MOST: Duration = Duration::from_secs(10);
/// Names that go in one round while messages come, and when the account is closed: others have to wait for it.
const IN_A_HURRY: usize = 64;
/// Names that wait at most; more messages are renamed.
const LEFT_MAX: usize = 1024;

/// Names in `tmp/` of messages that were linked to their places, and since when. Who dies leaves them to the next holder.
#[derive(Debug, Default)]
pub(super) struct LeftInTmp {
    names: VecDeque<(Duration, String)>,
    refused: bool,
}

impl LeftInTmp {
    pub fn push(&mut self, name: Option<String>, now: Duration) {
        self.names.extend(name.map(|name| (now, name)));
    }
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
    /// Whether another message may be linked.
    pub fn has_room(&self) -> bool {
        !self.refused && self.names.len() < LEFT_MAX
    }
    /// The file system has no links: it is not asked again.
    pub fn no_links_here(&mut self) {
        self.refused = true;
    }
    /// Those that are to go now.
    fn take_due(&mut self, now: Duration, closing: bool) -> Vec<String> {
        let is_quiet = self.names.back().is_some_and(|(last, _)| now.saturating_sub(*last) >= QUIET);
        let old = self.names.iter().take_while(|(since, _)| now.saturating_sub(*since) >= KEPT_AT_MOST).count();
        let due = match (closing, is_quiet) {
            (true, _) => self.names.len().min(IN_A_HURRY),
            (false, true) => self.names.len(),
            (false, false) => old.min(IN_A_HURRY),
        };
        self.names.drain(..due).map(|(_, name)| name).collect()
    }
}

impl Mailbox {
    /// Removes names of linked messages from `tmp/`. Background work, and before the account is closed: what is left then goes when `tmp/` is looked through.
    pub(super) fn clear_tmp(&self, closing: bool) {
        let folder = self.folder();
        if self.is_deleted() {
            return;
        }
        let names = self.left_in_tmp.lock().take_due(self.store.now(), closing);
        let tmp = folder.join("tmp");
        parallel::for_each(parallel::NAMES, &names, |name| {
            if self.store.ensure_not_abandoned().is_ok() {
                remove_quietly(self.store.filesystem.as_ref(), &tmp.join(name));
            }
        });
    }
    /// Whether `tmp/` is to be looked through.
    pub(super) fn is_tidying_due(&self, now: Duration) -> bool {
        let wait = if self.store.is_remote && !self.store.follows_a_dead_client() { TIDIED_AFTER } else { Duration::ZERO };
        !self.tidied.load(Ordering::SeqCst) && now.saturating_sub(self.opened_at) >= wait
    }
    /// Looks through `tmp/` once after opening. What earlier holders left goes whatever its age, after a dead one at once: its host may send once more the link
    /// whose answer it missed, and where the name in `tmp/` is gone that link finds nothing, as a rename would
    /// (`a_link_that_a_dead_holder_sends_again_finds_nothing`). Background work.
    pub(super) fn tidy(&self, now: Duration) -> Result<(), StorageError> {
        if self.is_deleted() || !self.is_tidying_due(now) {
            return Ok(());
        }
        self.tidied.store(true, Ordering::SeqCst);
        let folder = self.folder();
        let tmp = folder.join("tmp");
        let filesystem = self.store.filesystem.as_ref();
        let entries = match filesystem.list(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(self.store.io("can't list", &tmp))?,
        };
        let is_earlier = |name: &str| FileName::of(name).base.own().is_some_and(|own| own.epoch < self.store.lease.epoch());
        let files = entries.into_iter().filter(|entry| entry.is_folder != Some(true));
        let files: Vec<_> = files.map(|entry| (is_earlier(&entry.name), tmp.join(entry.name))).collect();
        let oldest = unix_micros().saturating_mul(1_000).saturating_sub(ABANDONED_AFTER_NANOSECONDS);
        parallel::for_each(self.store.settings.parallel_operations, &files, |(is_earlier, file)| {
            let is_old = *is_earlier || filesystem.attributes(file).is_ok_and(|attributes| attributes.modified < oldest);
            if is_old && self.store.ensure_not_abandoned().is_ok() {
                remove_quietly(filesystem, file);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        time::Duration,
    };

    use affinity::{Handover, clock::wall_clock};

    use index::FlagSet;

    use super::{IN_A_HURRY, LEFT_MAX, LeftInTmp, TIDIED_AFTER};
    use crate::{
        filesystem::{Failure, Faulty},
        tests::{User, append, uid},
    };

    fn in_tmp(user: &User) -> usize {
        fs::read_dir(user.maildir().join("tmp")).unwrap().count()
    }

    #[test]
    fn deliveries_to_a_file_server_wait_for_no_rename() {
        let mut user = User::new();
        user.faulty.pretend_remote();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        append(&inbox, "one", FlagSet::EMPTY).unwrap();
        assert_eq!(in_tmp(&user), 1, "linked, not renamed");
        held.run_background_work().unwrap();
        assert_eq!(in_tmp(&user), 1, "more may be on its way");
        append(&inbox, "two", FlagSet::EMPTY).unwrap();
        inbox.clear_tmp(true);
        assert_eq!(in_tmp(&user), 0);
        append(&inbox, "three", FlagSet::EMPTY).unwrap();
        held.close().unwrap();
        assert_eq!(in_tmp(&user), 0, "nothing is left to the next holder");
        let held = user.open(Handover::Clean);
        append(&held.inbox(), "four", FlagSet::EMPTY).unwrap();
        // The holder dies with a name in `tmp/`: the message is there once.
        user.die(held);
        let held = user.open(Handover::Unclean);
        assert_eq!((held.inbox().read().len(), in_tmp(&user)), (4, 1));
        assert!(held.inbox().file(uid(4)).is_some_and(|file| user.maildir().join(file).exists()));
    }

    #[test]
    fn a_link_that_a_dead_holder_sends_again_finds_nothing() {
        let mut user = User::new();
        user.faulty.pretend_remote();
        let held = user.open(Handover::Clean);
        append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
        user.die(held);
        let left = fs::read_dir(user.maildir().join("tmp")).unwrap().next().unwrap().unwrap().path();
        let held = user.open(Handover::Unclean);
        let inbox = held.inbox();
        let on_its_way = inbox.stage(0).unwrap().close().unwrap();
        held.run_background_work().unwrap();
        assert!(!left.exists() && on_its_way.path().exists(), "the dead holder's goes, our own stays");
    }

    #[test]
    fn names_are_left_while_messages_come_but_not_for_long() {
        let seconds = Duration::from_secs;
        let mut left = LeftInTmp::default();
        for second in 0..=10 {
            left.push(Some(second.to_string()), seconds(second));
        }
        assert_eq!(left.take_due(seconds(11), false), ["0", "1"], "older than ten seconds");
        assert_eq!(left.take_due(seconds(12), false).len(), 9, "quiet for two");
        assert!(left.is_empty() && left.has_room());
        (0..LEFT_MAX).for_each(|number| left.push(Some(number.to_string()), seconds(20)));
        assert!(!left.has_room());
        assert_eq!((left.take_due(seconds(20), false).len(), left.take_due(seconds(20), true).len()), (0, IN_A_HURRY));
    }

    #[test]
    fn where_links_are_refused_messages_are_renamed() {
        const EPERM: i32 = 1;
        let mut user = User::new();
        user.faulty = Faulty::new(EPERM);
        user.faulty.pretend_remote();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        // It is made, written, synced, and linked.
        user.faulty.fail_at(4, Failure::Once);
        append(&inbox, "one", FlagSet::EMPTY).unwrap();
        assert_eq!((inbox.read().len(), in_tmp(&user)), (1, 0));
    }

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
