//! What a listing of `cur/` and `new/` says against what we know. Pure rules; the mailbox carries them out.
//!
//! Invariants, each with the test that guards it:
//! - flags that another program changed are applied; our own change that no name has yet wins (`flags_in_names_are_applied_unless_ours_are_due`)
//! - what is missing from a listing is gone only when another one lacks it as well (`what_is_gone_is_gone_twice`)
//! - what comes or goes while the folder is listed is neither new nor gone (`what_came_or_went_while_the_folder_was_listed_is_left_alone`)
//! - of two files that claim one UID the higher epoch keeps it (`the_higher_epoch_keeps_a_uid`)
//! - a UID outside what may be accepted is never taken from a name (`only_uids_in_range_are_accepted`)

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    ops::Range,
};

use affinity::Epoch;
use index::{FlagSet, Uid};

use super::filename::{FileName, identity};
use crate::filesystem::Attributes;

/// A message we know.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its file as last seen, with `cur/` or `new/`.
    pub file: String,
    pub flags: FlagSet,
    /// Its file name lacks a change of ours.
    pub write_back_due: bool,
}

/// A file that is none of ours yet. Of a folder that is taken over there are as many as it has messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// With `cur/` or `new/`.
    pub file: String,
    /// What its name says, or a list that knows it by its name.
    pub uid: Option<Uid>,
    pub flags: FlagSet,
    /// Where the listing said them.
    pub attributes: Option<Attributes>,
}

impl Found {
    fn new(file: String, attributes: Option<Attributes>) -> Found {
        let FileName { base, flags, .. } = FileName::of(&file);
        Found { uid: base.uid, flags, file, attributes }
    }
    /// The parts of its name, with the UID and flags it has now.
    pub fn name(&self) -> FileName {
        let mut name = FileName::of(&self.file);
        name.base.uid = self.uid;
        name.flags = self.flags;
        name
    }
}

/// One or two listings against what we know, file by file: neither the listing nor the names that we know are in memory as a whole.
///
/// What is known is kept as hashes of names, 16 bytes a message. Their keys are others each time: names that share a hash now do not share one at the next look.
#[derive(Debug)]
pub(crate) struct Comparison {
    keys: RandomState,
    /// By the hash of a name's [`identity`].
    known: HashMap<u64, Sought, BuildHasherDefault<IsHashed>>,
    sightings: Sightings,
    /// Where in `sightings.new` a name is, by the hash of its identity.
    new: HashMap<u64, usize, BuildHasherDefault<IsHashed>>,
}

/// A message whose file is looked for.
#[derive(Debug, Clone, Copy)]
struct Sought {
    uid: Uid,
    /// Of what is not the identity: folder and flags.
    rest: [u8; 3],
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    /// Under the name that we know; there may be another one, from before or after a rename by another program: the next listing tells.
    AsKnown,
    /// Under another name alone.
    Otherwise,
}

/// What listings had that is not as we know it.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// Messages without a file, ascending.
    pub missing: Vec<Uid>,
    /// Files of messages that we know by another name.
    pub renamed: BTreeMap<Uid, String>,
    /// Files of no message.
    pub new: Vec<Found>,
}

impl Comparison {
    /// With so many messages, which `known` calls its argument with: each UID and file.
    pub fn with(messages: usize, known: impl FnOnce(&mut dyn FnMut(Uid, &str))) -> Comparison {
        let keys = RandomState::new();
        let mut sought = HashMap::with_capacity_and_hasher(messages, BuildHasherDefault::default());
        known(&mut |uid, file| {
            let (name, rest) = hashes(&keys, file);
            sought.insert(name, Sought { uid, rest, seen: Seen::No });
        });
        Comparison { keys, known: sought, sightings: Sightings::default(), new: HashMap::default() }
    }
    /// A file of the listing, with `cur/` or `new/`.
    pub fn see(&mut self, file: &str, attributes: Option<Attributes>) {
        let (name, rest) = hashes(&self.keys, file);
        let Sightings { renamed, new, .. } = &mut self.sightings;
        if let Some(sought) = self.known.get_mut(&name) {
            if sought.rest == rest {
                if std::mem::replace(&mut sought.seen, Seen::AsKnown) == Seen::Otherwise {
                    renamed.remove(&sought.uid);
                }
            } else if sought.seen != Seen::AsKnown {
                sought.seen = Seen::Otherwise;
                renamed.insert(sought.uid, file.to_owned());
            }
            return;
        }
        let found = Found::new(file.to_owned(), attributes);
        match self.new.get(&name).and_then(|at| new.get_mut(*at)) {
            // Two names of one file, from before and after a rename by another program.
            Some(other) if identity(&other.file) == identity(file) => *other = found,
            Some(_) => new.push(found),
            None => {
                self.new.insert(name, new.len());
                new.push(found);
            }
        }
    }
    /// What was seen and what was not.
    pub fn finish(self) -> Sightings {
        let mut sightings = self.sightings;
        sightings.missing = self.known.into_values().filter(|sought| sought.seen == Seen::No).map(|sought| sought.uid).collect();
        sightings.missing.sort_unstable();
        sightings
    }
}

impl Sightings {
    /// With a later listing: a file that is renamed while its folder is listed may be missed, so what is missing is missing twice.
    pub fn and_again(mut self, mut later: Sightings) -> Sightings {
        let before: HashSet<Uid> = self.missing.into_iter().collect();
        for uid in &later.missing {
            if let Some(file) = self.renamed.remove(uid) {
                later.renamed.insert(*uid, file);
            }
        }
        later.missing.retain(|uid| before.contains(uid));
        let again: HashSet<&str> = later.new.iter().map(|found| identity(&found.file)).collect();
        self.new.retain(|found| !again.contains(identity(&found.file)));
        later.new.extend(self.new);
        later
    }
}

/// Of a file's identity, and of the rest.
fn hashes(keys: &RandomState, file: &str) -> (u64, [u8; 3]) {
    let name = identity(file);
    let start = file.rfind('/').map_or(0, |at| at + 1);
    let rest = (file.get(..start), file.get(start + name.len()..));
    let [a, b, c, ..] = keys.hash_one(rest).to_le_bytes();
    (keys.hash_one(name), [a, b, c])
}

/// The keys of these maps are hashes already.
#[derive(Debug, Default)]
pub(crate) struct IsHashed(u64);

impl Hasher for IsHashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The file has another name, and the message perhaps other flags.
    pub renamed: Vec<(Uid, String, FlagSet)>,
    /// The file is gone.
    pub gone: Vec<Uid>,
    /// New files, the oldest first.
    pub new: Vec<Found>,
    /// Files to be removed, under the names they have now.
    pub removing: Vec<String>,
    /// Two names shared a hash: the next look tells which is which.
    pub unsure: bool,
}

/// What to do about `sightings`, as things are now. `known`: the message with a UID, if it is there; `came`: names of those that came since the first of the listings
/// began, up to the colon; `removing`: files of expunged messages, which are no new messages.
pub(crate) fn plan(sightings: Sightings, known: impl Fn(Uid) -> Option<Known>, came: &HashSet<String>, removing: &[String]) -> Plan {
    let Sightings { missing, renamed, new } = sightings;
    let mut plan = Plan { gone: missing.into_iter().filter(|uid| known(*uid).is_some()).collect(), ..Plan::default() };
    for (uid, file) in renamed {
        let Some(message) = known(uid) else { continue };
        if identity(&message.file) != identity(&file) {
            plan.unsure = true;
        } else if message.file != file {
            let flags = flags_after(&message, &file);
            plan.renamed.push((uid, file, flags));
        }
    }
    let removing: HashSet<&str> = removing.iter().map(|file| identity(file)).collect();
    let mut ordered: Vec<(Option<i64>, Found)> = Vec::with_capacity(new.len());
    for found in new {
        let name = identity(&found.file);
        if removing.contains(name) {
            plan.removing.push(found.file);
        } else if !came.contains(name) {
            ordered.push((FileName::of(&found.file).base.seconds(), found));
        }
    }
    ordered.sort_unstable_by(|(a_seconds, a), (b_seconds, b)| (a_seconds, &a.file).cmp(&(b_seconds, &b.file)));
    plan.new = ordered.into_iter().map(|(_, found)| found).collect();
    plan
}

/// What another program changed in the name is changed in the message, unless the name still lacks a change of ours: then ours wins.
fn flags_after(message: &Known, file: &str) -> FlagSet {
    if message.write_back_due {
        return message.flags;
    }
    let (before, after) = (FileName::parse(&message.file).flags, FileName::parse(file).flags);
    message.flags.union(after.difference(before)).difference(before.difference(after))
}

/// Gives every new file a UID: its own where it lies in `acceptable`, otherwise one from `next` on. Ascending by UID.
pub(crate) fn assign(new: Vec<Found>, acceptable: Range<u32>, mut next: u32) -> Option<Vec<(u32, Found)>> {
    let mut claimed: BTreeMap<u32, Found> = BTreeMap::new();
    let mut without: Vec<Found> = Vec::new();
    for found in new {
        match found.uid.map(Uid::get).filter(|uid| acceptable.contains(uid)) {
            None => without.push(found),
            Some(uid) => match claimed.remove(&uid) {
                None => {
                    claimed.insert(uid, found);
                }
                Some(other) => {
                    let (keeps, loses) = if epoch(&found) > epoch(&other) { (found, other) } else { (other, found) };
                    claimed.insert(uid, keeps);
                    without.push(loses);
                }
            },
        }
    }
    if let Some((highest, _)) = claimed.last_key_value() {
        next = next.max(highest.checked_add(1)?);
    }
    let mut assigned: Vec<(u32, Found)> = claimed.into_iter().collect();
    for found in without {
        assigned.push((next, found));
        next = next.checked_add(1)?;
    }
    Some(assigned)
}

fn epoch(found: &Found) -> Option<Epoch> {
    FileName::of(&found.file).base.own().map(|own| own.epoch)
}

#[cfg(test)]
mod tests {
    use index::Flag;

    use super::*;

    fn known(uid: u32, file: &str, flags: &[Flag], write_back_due: bool) -> (Uid, Known) {
        (Uid::new(uid).unwrap(), Known { file: file.to_owned(), flags: FlagSet::of(flags), write_back_due })
    }
    /// What one listing after the other says.
    fn compared(messages: &[(Uid, Known)], listings: &[&[&str]], removing: &[&str]) -> Plan {
        let look = |files: &&[&str]| {
            let mut comparison =
                Comparison::with(messages.len(), |visit| messages.iter().for_each(|(uid, message)| visit(*uid, &message.file)));
            files.iter().for_each(|file| comparison.see(file, None));
            comparison.finish()
        };
        let sightings = listings.iter().map(look).reduce(Sightings::and_again).unwrap();
        let removing: Vec<String> = removing.iter().map(|file| (*file).to_owned()).collect();
        plan(
            sightings,
            |uid| messages.iter().find(|(known, _)| *known == uid).map(|(_, message)| message.clone()),
            &HashSet::new(),
            &removing,
        )
    }
    fn renamed(uid: u32, file: &str, flags: &[Flag]) -> (Uid, String, FlagSet) {
        (Uid::new(uid).unwrap(), file.to_owned(), FlagSet::of(flags))
    }
    fn found(file: &str) -> Found {
        Found::new(file.to_owned(), None)
    }

    #[test]
    fn flags_in_names_are_applied_unless_ours_are_due() {
        let messages = [
            known(1, "cur/a:2,F", &[Flag::Flagged], false),
            known(2, "cur/b:2,", &[Flag::Answered], true),
            known(3, "cur/c:2,", &[], false),
            known(4, "cur/d:2,", &[], false),
        ];
        let plan = compared(&messages, &[&["cur/a:2,S", "cur/b:2,D", "cur/c:2,", "new/x"]], &[]);
        assert_eq!(plan.renamed, [renamed(1, "cur/a:2,S", &[Flag::Seen]), renamed(2, "cur/b:2,D", &[Flag::Answered])]);
        assert_eq!(plan.gone, [Uid::new(4).unwrap()]);
        assert_eq!((plan.new, plan.unsure), (vec![found("new/x")], false));
    }

    #[test]
    fn files_being_removed_are_no_new_messages() {
        let plan = compared(&[], &[&["cur/2.b:2,", "cur/a:2,S", "cur/1.b:2,"]], &["cur/a:2,"]);
        assert_eq!(plan.removing, ["cur/a:2,S"]);
        assert_eq!(plan.new, [found("cur/1.b:2,"), found("cur/2.b:2,")], "the oldest first");
    }

    #[test]
    fn a_file_that_is_listed_under_two_names_is_one() {
        let messages = [known(1, "cur/a:2,", &[], false), known(2, "new/b", &[], false)];
        for listing in [
            ["cur/a:2,", "cur/a:2,S", "cur/b:2,", "cur/b:2,F", "new/c", "cur/c:2,S"],
            ["cur/a:2,S", "cur/a:2,", "cur/b:2,", "cur/b:2,F", "new/c", "cur/c:2,S"],
        ] {
            let plan = compared(&messages, &[&listing], &[]);
            assert_eq!(plan.renamed, [renamed(2, "cur/b:2,F", &[Flag::Flagged])], "the one that we know may be the older one");
            assert_eq!((plan.gone, plan.new), (vec![], vec![found("cur/c:2,S")]));
        }
    }

    #[test]
    fn what_is_gone_is_gone_twice() {
        let messages = ["a", "b", "c", "d"].iter().zip(1..).map(|(name, uid)| known(uid, &format!("cur/{name}:2,"), &[], false));
        let messages: Vec<_> = messages.collect();
        let first: &[&str] = &["cur/a:2,", "cur/b:2,S", "cur/c:2,F", "new/x", "new/y"];
        let second: &[&str] = &["cur/c:2,S", "cur/x:2,", "new/z"];
        let plan = compared(&messages, &[first, second], &[]);
        assert_eq!(plan.gone, [Uid::new(4).unwrap()]);
        assert_eq!(plan.renamed, [renamed(2, "cur/b:2,S", &[Flag::Seen]), renamed(3, "cur/c:2,S", &[Flag::Seen])], "the later one counts");
        assert_eq!(plan.new, [found("cur/x:2,"), found("new/y"), found("new/z")]);
    }

    #[test]
    fn what_came_or_went_while_the_folder_was_listed_is_left_alone() {
        let (uid, message) = known(1, "cur/a:2,", &[], false);
        let look = |files: &[&str]| {
            let mut comparison = Comparison::with(1, |visit| visit(uid, &message.file));
            files.iter().for_each(|file| comparison.see(file, None));
            comparison.finish()
        };
        let came = HashSet::from(["b".to_owned()]);
        let (_, after) = known(1, "cur/a:2,S", &[Flag::Seen], false);
        let at_once = plan(look(&["cur/a:2,S", "cur/b:2,", "cur/c:2,"]), |_| Some(after.clone()), &came, &[]);
        assert_eq!(at_once, Plan { new: vec![found("cur/c:2,")], ..Plan::default() }, "we have it by that name by now");
        assert_eq!(plan(look(&["cur/a:2,S"]), |_| None, &came, &[]), Plan::default());
        assert_eq!(plan(look(&[]), |_| None, &came, &[]), Plan::default());
    }

    #[test]
    fn names_that_share_a_hash_are_not_mixed_up() {
        let (uid, other) = known(1, "cur/b:2,", &[], false);
        let sightings = Sightings { renamed: BTreeMap::from([(uid, "cur/a:2,S".to_owned())]), ..Sightings::default() };
        assert_eq!(plan(sightings, |_| Some(other.clone()), &HashSet::new(), &[]), Plan { unsure: true, ..Plan::default() });
    }

    #[test]
    fn the_higher_epoch_keeps_a_uid() {
        let (old, new) = (found("cur/5.M5N1E3.a,U=9:2,"), found("cur/6.M6N1E4.b,U=9:2,"));
        for order in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]] {
            assert_eq!(assign(order, 1..1025, 1025).unwrap(), [(9, new.clone()), (1025, old.clone())]);
        }
    }

    #[test]
    fn only_uids_in_range_are_accepted() {
        let files = vec![found("cur/1.a,U=4:2,"), found("cur/2.b,U=5:2,"), found("cur/3.c,U=4294967295:2,"), found("new/4.d")];
        let uids: Vec<u32> = assign(files, 5..100, 100).unwrap().into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(uids, [5, 100, 101, 102]);
        assert_eq!(assign(vec![found("new/1.a"), found("new/2.b")], 1..1, u32::MAX), None, "UIDs have run out");
    }
}
