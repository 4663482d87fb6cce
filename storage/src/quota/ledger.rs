//! What a user's mailboxes hold, against what they may hold.
//!
//! Invariants, each with the test that guards it:
//! - no root ever holds more than it may, however many deliveries come at once (`no_more_room_is_given_than_there_is`)
//! - what does not come gives its room back (`room_that_is_not_used_is_given_back`)
//! - a message that moves within a root takes no room there, and counts once (`a_move_within_a_root_takes_no_room`)
//! - a threshold is told once for each crossing (`thresholds_are_told_when_they_are_crossed`)

use std::{collections::HashMap, sync::Arc};

use index::MailboxId;
use parking_lot::Mutex;

use super::rules::{LimitSource, Limits, QuotaRules};
use crate::{MailboxName, StorageError};

/// Crossings that wait to be told; of more the oldest are forgotten.
const CROSSINGS_MAX: usize = 64;

/// Messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// RFC822.SIZE of all.
    pub bytes: u64,
    /// How many.
    pub messages: u64,
}

impl Usage {
    /// Of messages with these sizes.
    pub(crate) fn of(sizes: impl Iterator<Item = u64>) -> Usage {
        sizes.fold(Usage::default(), |usage, bytes| usage.plus(Usage { bytes, messages: 1 }))
    }
    pub(crate) fn plus(self, other: Usage) -> Usage {
        Usage { bytes: self.bytes.saturating_add(other.bytes), messages: self.messages.saturating_add(other.messages) }
    }
    fn minus(self, other: Usage) -> Usage {
        Usage { bytes: self.bytes.saturating_sub(other.bytes), messages: self.messages.saturating_sub(other.messages) }
    }
    fn fits(self, limits: Limits) -> bool {
        limits.bytes.is_none_or(|limit| self.bytes <= limit) && limits.messages.is_none_or(|limit| self.messages <= limit)
    }
    /// How full, in percent of the tighter limit; `None`: nothing is limited.
    fn percent(self, limits: Limits) -> Option<u64> {
        let part = |used: u64, limit: Option<u64>| limit.map(|limit| u128::from(used) * 100 / u128::from(limit.max(1)));
        let fullest = part(self.bytes, limits.bytes).max(part(self.messages, limits.messages))?;
        Some(u64::try_from(fullest).unwrap_or(u64::MAX))
    }
}

/// One quota root of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootUsage {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub usage: Usage,
    /// What it may hold.
    pub limits: Limits,
    /// How many mailboxes it counts.
    pub mailboxes: usize,
    /// Whether mail is refused when it is full.
    pub enforced: bool,
    /// Who says what it may hold; `None`: nobody does.
    pub source: Option<LimitSource>,
}

/// A threshold that was crossed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// The root's name.
    pub root: String,
    /// The threshold in percent: the highest one crossed upwards, or the lowest one crossed downwards.
    pub percent: u64,
    /// Whether it was crossed upwards.
    pub up: bool,
    /// What the root holds now.
    pub usage: Usage,
    /// What it may hold.
    pub limits: Limits,
}

/// One user's ledger.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    /// Whether rules were ever set.
    begun: bool,
    rules: Arc<QuotaRules>,
    /// In percent, ascending.
    thresholds: Arc<[u64]>,
    roots: Vec<Root>,
    mailboxes: HashMap<MailboxId, Account>,
    crossings: Vec<Crossing>,
    /// Counts changes that no append of ours explains: other programs', and whole mailboxes'.
    recounts: u64,
}

impl Default for Books {
    fn default() -> Books {
        Books {
            begun: false,
            rules: Arc::default(),
            thresholds: Arc::default(),
            roots: vec![Root::default()],
            mailboxes: HashMap::new(),
            crossings: Vec::new(),
            recounts: 0,
        }
    }
}

/// One root.
#[derive(Debug, Default)]
struct Root {
    held: Usage,
    /// In two mailboxes of the root at the moment.
    moving: Usage,
    /// How many thresholds it is at or above.
    level: usize,
}

/// One mailbox.
#[derive(Debug)]
struct Account {
    name: MailboxName,
    held: Usage,
    /// The roots that count it, with what they may hold when something is put here.
    roots: Vec<(usize, Limits)>,
}

/// Room that was taken for messages on their way into a mailbox; given back unless [`Room::used`].
#[derive(Debug)]
#[must_use = "dropped, it gives the room back"]
pub(crate) struct Room<'a> {
    quota: &'a Quota,
    target: MailboxId,
    /// Where the messages come from, if they leave there.
    source: Option<MailboxId>,
    usage: Usage,
    used: bool,
}

impl Room<'_> {
    /// The messages are there.
    pub fn used(mut self) {
        self.used = true;
    }
    /// The messages are there, and those of them that were still in the source left it: `left`.
    pub fn moved(mut self, left: Usage) {
        self.used = true;
        let mut books = self.quota.books.lock();
        if let Some(source) = self.source {
            books.moved(source, self.target, self.usage);
            books.take(source, left);
        }
        books.look_at_levels();
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        let mut books = self.quota.books.lock();
        if let Some(source) = self.source {
            books.moved(source, self.target, self.usage);
        }
        books.take(self.target, self.usage);
        books.look_at_levels();
    }
}

impl Quota {
    /// Other limits from now on.
    pub fn set_rules(&self, rules: Arc<QuotaRules>, thresholds: Arc<[u64]>) {
        let mut books = self.books.lock();
        if books.rules == rules && books.thresholds == thresholds && books.begun {
            return;
        }
        let first = !std::mem::replace(&mut books.begun, true);
        (books.rules, books.thresholds) = (rules, thresholds);
        books.count_roots();
        if first {
            // What was crossed before this holder began was told by the one before.
            books.look_at_levels();
            books.crossings.clear();
        } else {
            books.look_at_levels();
        }
    }
    /// The present rules.
    pub fn rules(&self) -> Arc<QuotaRules> {
        Arc::clone(&self.books.lock().rules)
    }
    /// A mailbox is there, with what it holds.
    pub fn mailbox_is_there(&self, id: MailboxId, name: &MailboxName, held: Usage) {
        let mut books = self.books.lock();
        let roots = books.roots_of(name);
        books.mailboxes.insert(id, Account { name: name.clone(), held: Usage::default(), roots });
        books.put(id, held);
    }
    /// A mailbox has another name: other rules may hold.
    pub fn mailbox_is_called(&self, id: MailboxId, name: &MailboxName) {
        let mut books = self.books.lock();
        let Some(held) = books.mailboxes.get(&id).map(|account| account.held) else { return };
        books.take(id, held);
        let roots = books.roots_of(name);
        books.mailboxes.insert(id, Account { name: name.clone(), held: Usage::default(), roots });
        books.put(id, held);
        books.recounts += 1;
        books.look_at_levels();
    }
    /// A mailbox is gone with all it held.
    pub fn mailbox_is_gone(&self, id: MailboxId) {
        let mut books = self.books.lock();
        if let Some(held) = books.mailboxes.get(&id).map(|account| account.held) {
            books.take(id, held);
        }
        books.mailboxes.remove(&id);
        books.look_at_levels();
    }
    /// Messages came that nobody could refuse: other programs brought them.
    pub fn found(&self, id: MailboxId, usage: Usage) {
        let mut books = self.books.lock();
        books.put(id, usage);
        books.recounts += u64::from(usage.messages > 0);
        books.look_at_levels();
    }
    /// Messages are gone.
    pub fn gone(&self, id: MailboxId, usage: Usage) {
        let mut books = self.books.lock();
        books.take(id, usage);
        books.look_at_levels();
    }
    /// What a mailbox really holds; whether the ledger said otherwise.
    pub fn correct(&self, id: MailboxId, really: Usage) -> bool {
        let mut books = self.books.lock();
        let Some(held) = books.mailboxes.get(&id).map(|account| account.held).filter(|held| *held != really) else { return false };
        books.take(id, held);
        books.put(id, really);
        books.recounts += 1;
        books.look_at_levels();
        true
    }
    /// Whether `usage` more would fit into a mailbox now, without what it replaces.
    pub fn has_room(&self, id: MailboxId, usage: Usage, replaced: Option<(MailboxId, Usage)>) -> Result<(), StorageError> {
        self.books.lock().has_room(id, None, usage, replaced)
    }
    /// The same by name, also for a mailbox that is not there yet.
    pub fn has_room_in(&self, name: &MailboxName, usage: Usage) -> Result<(), StorageError> {
        let books = self.books.lock();
        let roots = books.roots_of(name);
        books.check(&roots, |_| false, usage, None)
    }
    /// Takes room in a mailbox. `replaced`: what goes, and from where, as soon as the new messages are there.
    pub fn take_room(&self, target: MailboxId, usage: Usage, replaced: Option<(MailboxId, Usage)>) -> Result<Room<'_>, StorageError> {
        let mut books = self.books.lock();
        books.has_room(target, None, usage, replaced)?;
        books.put(target, usage);
        books.look_at_levels();
        Ok(Room { quota: self, target, source: None, usage, used: false })
    }
    /// Takes room for messages that leave `source`: none in roots that count both.
    pub fn take_room_to_move(&self, source: MailboxId, target: MailboxId, usage: Usage) -> Result<Room<'_>, StorageError> {
        let mut books = self.books.lock();
        books.has_room(target, Some(source), usage, None)?;
        books.put(target, usage);
        for root in books.shared_roots(source, target) {
            if let Some(root) = books.roots.get_mut(root) {
                root.moving = root.moving.plus(usage);
            }
        }
        books.look_at_levels();
        Ok(Room { quota: self, target, source: Some(source), usage, used: false })
    }
    /// Every root.
    pub fn usage(&self) -> Vec<RootUsage> {
        let books = self.books.lock();
        (0..books.roots.len()).filter_map(|root| books.usage(root)).collect()
    }
    /// The roots that count a mailbox, there or not.
    pub fn usage_in(&self, name: &MailboxName) -> Vec<RootUsage> {
        let books = self.books.lock();
        books.roots_of(name).into_iter().filter_map(|(root, _)| books.usage(root)).collect()
    }
    /// Thresholds crossed since this was asked last.
    pub fn crossings(&self) -> Vec<Crossing> {
        std::mem::take(&mut self.books.lock().crossings)
    }
    /// Use and limits of the main root, and a number that moves when others than ourselves changed it.
    pub fn main(&self) -> (Usage, Limits, u64) {
        let books = self.books.lock();
        let held = books.roots.first().map(Root::net).unwrap_or_default();
        (held, books.rules.main_limits(), books.recounts)
    }
}

impl Root {
    fn net(&self) -> Usage {
        self.held.minus(self.moving)
    }
}

impl Books {
    fn roots_of(&self, name: &MailboxName) -> Vec<(usize, Limits)> {
        self.rules.roots.iter().enumerate().filter_map(|(root, rules)| Some((root, rules.limits_in(name)?))).collect()
    }
    fn count_roots(&mut self) {
        let rules = Arc::clone(&self.rules);
        let levels: Vec<usize> = self.roots.iter().map(|root| root.level).collect();
        let level = |at: usize| levels.get(at).copied().unwrap_or(0);
        self.roots = (0..rules.roots.len()).map(|at| Root { level: level(at), ..Root::default() }).collect();
        for account in self.mailboxes.values_mut() {
            account.roots =
                rules.roots.iter().enumerate().filter_map(|(root, rules)| Some((root, rules.limits_in(&account.name)?))).collect();
            for (root, _) in &account.roots {
                if let Some(root) = self.roots.get_mut(*root) {
                    root.held = root.held.plus(account.held);
                }
            }
        }
    }
    fn put(&mut self, id: MailboxId, usage: Usage) {
        let Some(account) = self.mailboxes.get_mut(&id) else { return };
        account.held = account.held.plus(usage);
        for (root, _) in &account.roots {
            if let Some(root) = self.roots.get_mut(*root) {
                root.held = root.held.plus(usage);
            }
        }
    }
    fn take(&mut self, id: MailboxId, usage: Usage) {
        let Some(account) = self.mailboxes.get_mut(&id) else { return };
        account.held = account.held.minus(usage);
        for (root, _) in &account.roots {
            if let Some(root) = self.roots.get_mut(*root) {
                root.held = root.held.minus(usage);
            }
        }
    }
    fn moved(&mut self, source: MailboxId, target: MailboxId, usage: Usage) {
        for root in self.shared_roots(source, target) {
            if let Some(root) = self.roots.get_mut(root) {
                root.moving = root.moving.minus(usage);
            }
        }
    }
    fn counts(&self, id: MailboxId, root: usize) -> bool {
        self.mailboxes.get(&id).is_some_and(|account| account.roots.iter().any(|(counted, _)| *counted == root))
    }
    fn shared_roots(&self, one: MailboxId, other: MailboxId) -> Vec<usize> {
        (0..self.roots.len()).filter(|root| self.counts(one, *root) && self.counts(other, *root)).collect()
    }
    fn has_room(
        &self,
        target: MailboxId,
        source: Option<MailboxId>,
        usage: Usage,
        replaced: Option<(MailboxId, Usage)>,
    ) -> Result<(), StorageError> {
        let Some(account) = self.mailboxes.get(&target) else { return Ok(()) };
        self.check(&account.roots, |root| source.is_some_and(|source| self.counts(source, root)), usage, replaced)
    }
    fn check(
        &self,
        roots: &[(usize, Limits)],
        counts_it_already: impl Fn(usize) -> bool,
        usage: Usage,
        replaced: Option<(MailboxId, Usage)>,
    ) -> Result<(), StorageError> {
        for (at, limits) in roots {
            let (Some(root), Some(rules)) = (self.roots.get(*at), self.rules.roots.get(*at)) else { continue };
            let freed = replaced.filter(|(from, _)| self.counts(*from, *at)).map(|(_, freed)| freed).unwrap_or_default();
            let then = root.net().plus(usage).minus(freed);
            // What makes it smaller is welcome also where it is over.
            let grows = then.bytes > root.net().bytes || then.messages > root.net().messages;
            if rules.enforced && grows && !counts_it_already(*at) && !then.fits(*limits) {
                return Err(StorageError::OverQuota { root: rules.name.clone() });
            }
        }
        Ok(())
    }
    fn usage(&self, at: usize) -> Option<RootUsage> {
        let (root, rules) = (self.roots.get(at)?, self.rules.roots.get(at)?);
        let mailboxes = self.mailboxes.values().filter(|account| account.roots.iter().any(|(counted, _)| *counted == at)).count();
        let (name, limits, source) = (rules.name.clone(), rules.default_limits(), rules.source());
        Some(RootUsage { name, usage: root.net(), limits, mailboxes, enforced: rules.enforced, source })
    }
    fn look_at_levels(&mut self) {
        let (rules, thresholds) = (Arc::clone(&self.rules), Arc::clone(&self.thresholds));
        for (root, rules) in self.roots.iter_mut().zip(&rules.roots) {
            let limits = rules.default_limits();
            let level = root.net().percent(limits).map_or(0, |percent| thresholds.partition_point(|threshold| *threshold <= percent));
            let before = std::mem::replace(&mut root.level, level);
            let crossed = if level > before { level.checked_sub(1) } else { Some(level) };
            if let (true, Some(percent)) = (level != before, crossed.and_then(|at| thresholds.get(at))) {
                let (root, usage) = (rules.name.clone(), root.net());
                self.crossings.push(Crossing { root, percent: *percent, up: level > before, usage, limits });
            }
        }
        let forgotten = self.crossings.len().saturating_sub(CROSSINGS_MAX);
        self.crossings.drain(..forgotten);
    }
}

#[cfg(test)]
mod tests {
    use index::{MailboxId, MailboxRecord, ModSeq, ScanDue, UidValidity, UserIndex};

    use super::*;

    /// Rows of an index, since only an index gives them.
    fn ids(count: usize) -> Vec<MailboxId> {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        (0..count)
            .map(|number| {
                change
                    .insert_mailbox(&MailboxRecord {
                        id: MailboxId::NEW,
                        folder: format!(".{number}"),
                        uid_validity: UidValidity::new(1).unwrap(),
                        uid_next: 1,
                        highest_modseq: ModSeq::MIN,
                        expunged_floor: 0,
                        first_recent: 1,
                        special_use: None,
                        uid_ceiling: 1,
                        modseq_ceiling: 1,
                        cur_seen: 0,
                        new_seen: 0,
                        scan_due: ScanDue::No,
                        adopted_below: 0,
                    })
                    .unwrap()
            })
            .collect()
    }
    /// INBOX, Trash, Junk and Archive with `fields` and thresholds at 80 and 95 %.
    fn quota(fields: &[(&str, &str)]) -> (Quota, Vec<MailboxId>) {
        let (rules, complaints) = QuotaRules::default().with_fields(fields.iter().copied());
        assert_eq!(complaints, Vec::<String>::new());
        let quota = Quota::default();
        quota.set_rules(Arc::new(rules), [80, 95].into());
        let ids = ids(4);
        for (id, name) in ids.iter().zip(["INBOX", "Trash", "Junk", "Archive"]) {
            quota.mailbox_is_there(*id, &MailboxName::parse(name).unwrap(), Usage::default());
        }
        (quota, ids)
    }
    fn usage(bytes: u64) -> Usage {
        Usage { bytes, messages: 1 }
    }
    fn bytes(quota: &Quota) -> Vec<u64> {
        quota.usage().iter().map(|root| root.usage.bytes).collect()
    }

    #[test]
    fn no_more_room_is_given_than_there_is() {
        let (quota, ids) = quota(&[("quota_rule", "*:bytes=1000")]);
        let given = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if let Ok(room) = quota.take_room(ids[0], usage(7), None) {
                            given.fetch_add(7, std::sync::atomic::Ordering::SeqCst);
                            room.used();
                        }
                    }
                });
            }
        });
        assert_eq!(given.into_inner(), 994);
        assert_eq!(bytes(&quota), [994]);
        quota.take_room(ids[0], usage(6), None).unwrap().used();
        assert!(matches!(quota.take_room(ids[0], usage(1), None), Err(StorageError::OverQuota { .. })));
        quota.take_room(ids[0], usage(10), Some((ids[0], usage(10)))).unwrap().used();
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let (quota, ids) = quota(&[("quota_rule", "*:messages=1")]);
        let room = quota.take_room(ids[0], usage(5), None).unwrap();
        assert!(quota.has_room(ids[0], usage(1), None).is_err());
        drop(room);
        assert_eq!(bytes(&quota), [0]);
        quota.has_room(ids[0], usage(1), None).unwrap();
    }

    #[test]
    fn a_move_within_a_root_takes_no_room() {
        let fields = [("quota_rule", "*:bytes=10"), ("quota2", "maildir:Archive:ns=Archive/"), ("quota2_rule", "*:bytes=4")];
        let (quota, ids) = quota(&fields);
        quota.take_room(ids[0], usage(10), None).unwrap().used();
        let room = quota.take_room_to_move(ids[0], ids[1], usage(10)).unwrap();
        assert_eq!(bytes(&quota), [10, 0], "it counts once while it is in both");
        room.moved(usage(10));
        assert_eq!(bytes(&quota), [10, 0]);
        assert!(quota.take_room_to_move(ids[1], ids[3], usage(10)).is_err(), "the other root has less room");
        assert_eq!(bytes(&quota), [10, 0]);
        let room = quota.take_room_to_move(ids[1], ids[3], usage(4)).unwrap();
        drop(room);
        assert_eq!(bytes(&quota), [10, 0]);
        // Expunged in the source before the move came to its end.
        let room = quota.take_room_to_move(ids[1], ids[3], usage(4)).unwrap();
        quota.gone(ids[1], usage(4));
        room.moved(Usage::default());
        assert_eq!(bytes(&quota), [10, 4]);
    }

    #[test]
    fn an_ignored_mailbox_does_not_count_and_trash_may_take_more() {
        let fields = [("quota_rule", "*:bytes=100"), ("quota_rule2", "Trash:bytes=+10%"), ("quota_rule3", "Junk:ignore")];
        let (quota, ids) = quota(&fields);
        quota.take_room(ids[2], usage(5_000), None).unwrap().used();
        quota.take_room(ids[0], usage(100), None).unwrap().used();
        assert!(quota.take_room(ids[0], usage(1), None).is_err());
        quota.take_room(ids[1], usage(10), None).unwrap().used();
        assert!(quota.take_room(ids[1], usage(1), None).is_err());
        assert_eq!(bytes(&quota), [110]);
        // A rule that stops to hold with a name.
        quota.mailbox_is_called(ids[2], &MailboxName::parse("Spam").unwrap());
        assert_eq!(bytes(&quota), [5_110]);
        quota.mailbox_is_gone(ids[2]);
        assert_eq!(bytes(&quota), [110]);
        assert_eq!(quota.usage()[0].mailboxes, 3);
    }

    #[test]
    fn thresholds_are_told_when_they_are_crossed() {
        let (quota, ids) = quota(&[("quota_rule", "*:bytes=100")]);
        let told = |quota: &Quota| quota.crossings().iter().map(|crossing| (crossing.percent, crossing.up)).collect::<Vec<_>>();
        quota.found(ids[0], usage(79));
        assert_eq!(told(&quota), []);
        quota.found(ids[0], usage(1));
        assert_eq!(told(&quota), [(80, true)]);
        quota.found(ids[0], usage(1));
        assert_eq!(told(&quota), []);
        quota.found(ids[0], usage(500));
        assert_eq!(told(&quota), [(95, true)]);
        quota.gone(ids[0], usage(500));
        assert_eq!(told(&quota), [(95, false)]);
        quota.gone(ids[0], usage(81));
        assert_eq!(told(&quota), [(80, false)]);
        quota.found(ids[0], usage(100));
        assert_eq!(told(&quota), [(95, true)], "of two at once the higher one");
        let unlimited = Arc::new(QuotaRules::default());
        quota.set_rules(unlimited, [80, 95].into());
        assert_eq!(told(&quota), [(80, false)], "without a limit nothing is full");
    }

    #[test]
    fn what_opens_full_was_told_before() {
        let (rules, _) = QuotaRules::default().with_fields([("quota_rule", "*:bytes=100")].into_iter());
        let quota = Quota::default();
        quota.mailbox_is_there(ids(1)[0], &MailboxName::inbox(), usage(99));
        quota.set_rules(Arc::new(rules), [80, 95].into());
        assert_eq!(quota.crossings(), []);
        assert_eq!(bytes(&quota), [99]);
    }
}
