//! What a listing of `cur/` and `new/` says against what we know. Pure rules; the mailbox carries them out.
//!
//! Invariants, each with the test that guards it:
//! - flags that another program changed are applied; our own change that no name has yet wins (`flags_in_names_are_applied_unless_ours_are_due`)
//! - of two files that claim one UID the higher epoch keeps it (`the_higher_epoch_keeps_a_uid`)
//! - a UID outside what may be accepted is never taken from a name (`only_uids_in_range_are_accepted`)

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use affinity::Epoch;
use index::{FlagSet, Uid};

use super::filename::{FileName, identity};
use crate::filesystem::Attributes;

/// A message we know.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub uid: Uid,
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

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The file has another name, and the message perhaps other flags.
    pub renamed: Vec<(Uid, String, FlagSet)>,
    /// The file is gone.
    pub gone: Vec<Uid>,
    /// New files, by their position in the listing.
    pub new: Vec<usize>,
    /// Files to be removed, under the names they have now.
    pub removing: Vec<String>,
}

/// Compares a listing with what we know. `removing`: files of expunged messages; they are no new messages.
pub(crate) fn compare(known: impl Iterator<Item = Known>, listed: &[String], removing: &[String]) -> Plan {
    let mut plan = Plan::default();
    let mut by_identity: HashMap<&str, usize> = HashMap::with_capacity(listed.len());
    // Two names at once: one was listed before, one after a rename by another program.
    let mut twice: HashSet<&str> = HashSet::new();
    for (position, file) in listed.iter().enumerate() {
        if let Some(other) = by_identity.insert(identity(file), position) {
            twice.extend([&*listed[other], file]);
        }
    }
    for message in known {
        match by_identity.remove(identity(&message.file)).map(|position| &*listed[position]) {
            None => plan.gone.push(message.uid),
            // The next listing tells.
            Some(file) if file == message.file || twice.contains(message.file.as_str()) => {}
            Some(file) => plan.renamed.push((message.uid, file.to_owned(), flags_after(&message, file))),
        }
    }
    let removing: HashSet<&str> = removing.iter().map(|file| identity(file)).collect();
    for (identity, position) in by_identity {
        if removing.contains(identity) {
            plan.removing.push(listed[position].clone());
        } else {
            plan.new.push(position);
        }
    }
    plan.new.sort_unstable();
    plan
}

/// The new files of a listing, the oldest first. `attributes`: of the files listed, where they are known.
pub(crate) fn found(listed: Vec<String>, attributes: &[Option<Attributes>], new: &[usize]) -> Vec<Found> {
    let mut new = new.iter().peekable();
    let mut found: Vec<(Option<i64>, Found)> = listed
        .into_iter()
        .enumerate()
        .filter(|(position, _)| new.next_if_eq(&position).is_some())
        .map(|(position, file)| (FileName::of(&file).base.seconds(), Found::new(file, attributes.get(position).copied().flatten())))
        .collect();
    found.sort_unstable_by(|(a_seconds, a), (b_seconds, b)| (a_seconds, &a.file).cmp(&(b_seconds, &b.file)));
    found.into_iter().map(|(_, found)| found).collect()
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

    fn known(uid: u32, file: &str, flags: &[Flag], write_back_due: bool) -> Known {
        Known { uid: Uid::new(uid).unwrap(), file: file.to_owned(), flags: FlagSet::of(flags), write_back_due }
    }
    fn listed(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }
    fn found(file: &str) -> Found {
        Found::new(file.to_owned(), None)
    }

    #[test]
    fn flags_in_names_are_applied_unless_ours_are_due() {
        let seen = FlagSet::of(&[Flag::Seen]);
        let messages = [
            known(1, "cur/a:2,F", &[Flag::Flagged], false),
            known(2, "cur/b:2,", &[Flag::Answered], true),
            known(3, "cur/c:2,", &[], false),
            known(4, "cur/d:2,", &[], false),
        ];
        let files = listed(&["cur/a:2,S", "cur/b:2,D", "cur/c:2,", "new/x"]);
        let plan = compare(messages.into_iter(), &files, &[]);
        assert_eq!(
            plan.renamed,
            [
                (Uid::new(1).unwrap(), "cur/a:2,S".to_owned(), seen),
                (Uid::new(2).unwrap(), "cur/b:2,D".to_owned(), FlagSet::of(&[Flag::Answered]))
            ]
        );
        assert_eq!(plan.gone, [Uid::new(4).unwrap()]);
        assert_eq!(super::found(files, &[], &plan.new), [found("new/x")]);
    }

    #[test]
    fn files_being_removed_are_no_new_messages() {
        let files = listed(&["cur/2.b:2,", "cur/a:2,S", "cur/1.b:2,"]);
        let plan = compare(std::iter::empty(), &files, &listed(&["cur/a:2,"]));
        assert_eq!(plan.removing, ["cur/a:2,S"]);
        assert_eq!(super::found(files, &[], &plan.new), [found("cur/1.b:2,"), found("cur/2.b:2,")], "the oldest first");
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
