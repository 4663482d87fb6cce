//! Whether what inotify saw is news: our own deliveries, renames and removals are known from memory.

use super::{Look, Mailbox};
use crate::{
    StorageError,
    maildir::filename::FileName,
    watch::{Happened, Noticed},
};

impl Mailbox {
    /// Looks at the folder if anything that happened is not known already. Blocking.
    pub fn look_at(&self, happened: &Happened) -> Result<(), StorageError> {
        let _inside = self.store.enter()?;
        if self.is_deleted() {
            return Ok(());
        }
        let _disk = self.disk.lock();
        // Whoever renames and removes files holds that lock until memory says the same.
        if !happened.more && happened.files.iter().all(|noticed| self.is_known(noticed)) {
            return Ok(());
        }
        let folder = self.folder();
        self.look_below(&folder, Look::Thoroughly)
    }

    fn is_known(&self, noticed: &Noticed) -> bool {
        let (Noticed::Here(file) | Noticed::Gone(file)) = noticed;
        let base = FileName::of(file).base;
        let Some(uid) = base.uid else { return false };
        let state = self.state.lock();
        if state.in_flight.contains_key(&uid.get()) {
            return true;
        }
        let columns = self.columns.read();
        let ours = columns.position(uid).map(|position| columns.file(position));
        match (noticed, ours) {
            (Noticed::Here(_), Some(ours)) => ours == *file,
            // Under another name by now, which is ours.
            (Noticed::Gone(_), Some(ours)) => ours != *file,
            (Noticed::Gone(_), None) => uid.get() < state.uid_next,
            // Expunged, and removed by now or soon; a name that only claims a UID is news.
            (Noticed::Here(_), None) => base.own().is_some_and(|own| own.epoch == self.store.lease.epoch()),
        }
    }

    /// The path of the folder now.
    pub(crate) fn folder_path(&self) -> std::path::PathBuf {
        self.folder().clone()
    }

    /// The file of a message, for tests.
    #[cfg(test)]
    pub(crate) fn file(&self, uid: index::Uid) -> Option<String> {
        let columns = self.columns.read();
        columns.position(uid).map(|position| columns.file(position))
    }
}

#[cfg(test)]
mod tests {
    use affinity::Handover;
    use index::{Flag, FlagSet};

    use super::*;
    use crate::{
        StoreOperation,
        tests::{User, append, uid},
    };

    /// What inotify tells until `count` names were seen.
    fn heard(watching: &crate::watch::Watching, count: usize) -> Happened {
        let mut all = Happened::default();
        for _ in 0..500 {
            let happened = watching.take();
            all.files.extend(happened.files);
            all.more |= happened.more;
            if all.files.len() >= count {
                return all;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("inotify told {all:?}, {count} were expected");
    }

    #[test]
    fn changes_by_other_programs_are_told_at_once() {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        append(&inbox, "one", FlagSet::EMPTY).unwrap();
        append(&inbox, "two", FlagSet::EMPTY).unwrap();
        let watching = inbox.watch().unwrap();
        let again = inbox.watch().unwrap();
        drop(again);
        let tmp = user.maildir().join("tmp/1.x");
        std::fs::write(&tmp, "Subject: dropped in\n\nx\n").unwrap();
        #[expect(clippy::disallowed_methods, reason = "this is the other program")]
        std::fs::rename(&tmp, user.maildir().join("new/1.x.host")).unwrap();
        inbox.look_at(&heard(&watching, 1)).unwrap();
        assert_eq!(inbox.read().len(), 3);
        let file = user.maildir().join(inbox.file(uid(1)).unwrap());
        #[expect(clippy::disallowed_methods, reason = "this is the other program")]
        std::fs::rename(&file, format!("{}S", file.display())).unwrap();
        inbox.look_at(&heard(&watching, 2)).unwrap();
        assert!(inbox.read().get(uid(1)).unwrap().flags.contains(Flag::Seen));
        std::fs::remove_file(user.maildir().join(inbox.file(uid(2)).unwrap())).unwrap();
        inbox.look_at(&heard(&watching, 1)).unwrap();
        assert_eq!(inbox.read().len(), 2);
        let before = watching.take();
        assert!(before.files.is_empty() && !before.more, "nothing is told twice: {before:?}");
    }

    #[test]
    fn our_own_changes_need_no_look() {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        let inbox = held.inbox();
        append(&inbox, "one", FlagSet::EMPTY).unwrap();
        let watching = inbox.watch().unwrap();
        append(&inbox, "two", FlagSet::EMPTY).unwrap();
        inbox.store(&[uid(1)], StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None).unwrap();
        held.run_background_work().unwrap();
        inbox.remove(&[uid(2)]).unwrap();
        held.run_background_work().unwrap();
        // One came, one was renamed, one was removed.
        let happened = heard(&watching, 4);
        assert!(happened.files.iter().all(|noticed| inbox.is_known(noticed)), "{happened:?}");
        assert!(!inbox.is_known(&Noticed::Here("new/5.foreign,U=1:2,".to_owned())));
        assert!(!inbox.is_known(&Noticed::Gone(inbox.file(uid(1)).unwrap())));
    }
}
