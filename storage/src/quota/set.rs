//! Limits that operators set for one user: they take the place of what the user's source or the configuration says, until they are removed.
//!
//! They lie in `berth-quota` in the Maildir, so that every holder finds them. The file has a line `berth-quota 1`, then for each root a line
//! `<bytes> <messages> <name>`, with `-` for no limit. It is replaced as a whole, by rename, and read when the account is opened.
//! A line `maildirsize <bytes> <messages>` keeps what `maildirsize` said before, for users whose limits come from there (`quota.limits_from_maildirsize`).
//!
//! Invariants, each with the test that guards it:
//! - what was set holds for every later holder, with or without the index (`limits_that_were_set_win_until_they_are_removed`)
//! - a limit that was set and removed leaves what was before, also in `maildirsize` (`maildirsize_says_again_what_it_said_when_a_limit_is_removed`)
//! - what was refused does not come back once it is undone (`a_limit_that_was_refused_and_undone_does_not_come_back`)
//! - a file that can't be understood is said, and keeps nobody from their mail (`a_broken_file_of_limits_is_said`)

use std::collections::BTreeMap;

use super::{Limits, MAIN_ROOT, Maildirsize, QuotaSettings, RootUsage};
use crate::{Account, StorageError, filesystem::read_small};

/// In the Maildir.
pub(crate) const SET_FILE: &str = "berth-quota";
const HEADER: &str = "berth-quota 1";
const MAILDIRSIZE: &str = "maildirsize";
/// Longest file that is read: more than a user's roots take.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// What was set for a user, over what else holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SetLimits {
    /// What holds otherwise.
    pub settings: QuotaSettings,
    by_root: BTreeMap<String, Limits>,
    /// What `maildirsize` said before.
    maildirsize: Option<Limits>,
    /// The file may say something else: it was broken, or a change of it failed.
    unsure: bool,
}

impl SetLimits {
    fn print(&self) -> String {
        let limit = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let numbers = |limits: &Limits| format!("{} {}", limit(limits.bytes), limit(limits.messages));
        let before = self.maildirsize.iter().map(|limits| format!("{MAILDIRSIZE} {}\n", numbers(limits)));
        let set = self.by_root.iter().map(|(root, limits)| format!("{} {root}\n", numbers(limits)));
        [format!("{HEADER}\n")].into_iter().chain(before).chain(set).collect()
    }
    fn parse(file: &[u8]) -> Option<SetLimits> {
        let limit = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
        let limits = |bytes, messages| Some(Limits { bytes: limit(bytes)?, messages: limit(messages)? });
        let mut lines = std::str::from_utf8(file).ok()?.strip_suffix('\n')?.split('\n');
        lines.next().filter(|header| *header == HEADER)?;
        let mut set = SetLimits::default();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            match (words.next()?, words.next()?, words.next()?) {
                (MAILDIRSIZE, bytes, messages) => set.maildirsize = Some(limits(bytes, messages)?),
                (bytes, messages, root) => drop(set.by_root.insert(root.to_owned(), limits(bytes, messages)?)),
            }
        }
        Some(set)
    }
}

impl Account {
    /// Sets what a root may hold, in place of all that its source says of it; `None`: what the source says holds again. The answer is the root as it is
    /// then, `None` where there is none of this name. Blocking, durable.
    pub fn set_limits(&self, root: &str, limits: Option<Limits>) -> Result<Option<RootUsage>, StorageError> {
        let _inside = self.store.enter_for_change()?;
        // The file has one on a line.
        if !self.store.quota.rules().has_root(root) || root.contains('\n') {
            return self.store.acknowledge(None);
        }
        let mut set = self.set_limits.lock();
        let mut wanted = set.clone();
        match limits {
            Some(limits) => drop(wanted.by_root.insert(root.to_owned(), limits)),
            None => drop(wanted.by_root.remove(root)),
        }
        if root == MAIN_ROOT {
            wanted.maildirsize = limits.and(set.maildirsize.or(self.maildirsize.lock().said));
        }
        if wanted != *set || set.unsure {
            set.unsure = true;
            self.change_limits(&wanted).or_else(|error| self.apply_limits(&set).and(Err(error)))?;
            *set = SetLimits { unsure: false, ..wanted };
        }
        let usage = self.store.quota.usage().into_iter().find(|known| known.name == root);
        self.store.acknowledge(usage)
    }
    fn change_limits(&self, wanted: &SetLimits) -> Result<(), StorageError> {
        let write = || self.replace_file(&self.store.paths.maildir, SET_FILE, wanted.print().as_bytes());
        let follow = || self.apply_limits(wanted).and_then(|()| self.maildirsize.lock().limits_changed(&self.store));
        // What `maildirsize` said is forgotten only after it says that again.
        if wanted.by_root.contains_key(MAIN_ROOT) { write().and_then(|()| follow()) } else { follow().and_then(|()| write()) }
    }
    /// Has the ledger follow: what was set, over what holds otherwise. Reads `maildirsize` where limits come from there.
    pub(super) fn apply_limits(&self, set: &SetLimits) -> Result<(), StorageError> {
        let mut rules = set.settings.rules.clone();
        let mut file = self.maildirsize.lock();
        if set.settings.limits_from_maildirsize && !rules.main_limits().any() && (file.was_there || file.said.is_some()) {
            // Once: from then on it is ours. It was ours before if it says what was set.
            let said = match file.said {
                Some(said) => said,
                None if set.by_root.contains_key(MAIN_ROOT) => *file.said.insert(set.maildirsize.unwrap_or_default()),
                None => *file.said.insert(Maildirsize::limits(&self.store)?),
            };
            rules = rules.with_maildirsize(said);
        }
        drop(file);
        self.store.quota.set_rules(rules.with_set(&set.by_root).into(), set.settings.thresholds.clone());
        Ok(())
    }
    pub(crate) fn read_set_limits(&self) -> Result<(), StorageError> {
        let path = self.store.paths.maildir.join(SET_FILE);
        let file = read_small(self.store.filesystem.as_ref(), &path, FILE_BYTES_MAX).map_err(self.store.io("can't read", &path))?;
        match file.as_deref().map(SetLimits::parse) {
            Some(Some(set)) => *self.set_limits.lock() = set,
            Some(None) => {
                let user = &self.store.lease.user();
                self.set_limits.lock().unsure = true;
                tracing::warn!(%user, file = %path.display(), "is broken, so limits are those of the user's source: set them again");
            }
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn files_are_read_back(
            by_root in prop::collection::btree_map("[ -~ä]{1,20}", any::<(Option<u64>, Option<u64>)>(), 0..4), before in any::<Option<Option<u64>>>(),
        ) {
            let limits = |(bytes, messages)| Limits { bytes, messages };
            let by_root = by_root.into_iter().map(|(root, pair)| (root, limits(pair))).collect();
            let set = SetLimits { by_root, maildirsize: before.map(|bytes| limits((bytes, None))), ..SetLimits::default() };
            prop_assert_eq!(SetLimits::parse(set.print().as_bytes()), Some(set.clone()));
            prop_assert!(SetLimits::parse(set.print().trim_end().as_bytes()).is_none(), "cut short");
        }
        #[test]
        fn any_file_is_read(file in prop::collection::vec(any::<u8>(), 0..80)) {
            let _read = SetLimits::parse(&file);
        }
    }
}
