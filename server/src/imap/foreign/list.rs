//! Other users' mailboxes in LIST: from what is published of them, so that no holder is asked; their numbers and annotations from their holders.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, BytesMut};
use storage::{MailboxEntry, MailboxName, Right, Rights};

use super::{OTHERS, Place, SHARED, link::Link};
use crate::imap::{
    holding::Holding,
    reply::Stop,
    session::Session,
    state::State,
    wire::{
        command::{List, StatusItem},
        response::{self, status_item},
    },
};

/// Other users' mailboxes that a LIST may name, with what the user may do there.
pub type Theirs = HashMap<MailboxName, (Place, Rights)>;

/// Sessions that one LIST has with other users' holders.
#[derive(Default)]
pub struct Links(HashMap<affinity::UserName, Option<Link>>);

/// Whether a pattern may name something below `namespace`: no more than a look at what stands before its first wildcard.
fn may_name(list: &List, namespace: &str) -> bool {
    list.patterns.iter().any(|pattern| {
        let whole = format!("{}{pattern}", list.reference);
        let fixed = whole.split(['*', '%']).next().unwrap_or_default();
        fixed.starts_with(namespace) || namespace.starts_with(fixed)
    })
}

impl<H: Holding> Session<H> {
    /// Adds to `entries` what others share with this user, and the levels above.
    pub async fn list_theirs(&self, list: &List, entries: &mut Vec<MailboxEntry>) -> Theirs {
        let mut theirs = Theirs::new();
        let Some(sharing) = &self.sharing else { return theirs };
        let (others, shared) = self.namespaces();
        let wanted = |namespace: &str, is_there: bool| is_there && may_name(list, namespace);
        let (others, shared) = (wanted(OTHERS, others.is_some()), wanted(SHARED, shared.is_some()));
        if !others && !shared {
            return theirs;
        }
        let (who, shares) = match (sharing.neighbours.who().await, sharing.neighbours.shares().await) {
            (Ok(who), Ok(shares)) => (who, shares),
            (who, shares) => {
                // The user's own mailboxes are told all the same.
                let why = who.err().or_else(|| shares.err().map(|error| error.to_string())).unwrap_or_default();
                tracing::warn!(why, "LIST leaves other users' mailboxes out");
                return theirs;
            }
        };
        for (owner, shares) in shares {
            let is_shared = sharing.account.as_ref() == Some(&owner);
            if owner == who.user || !(if is_shared { shared } else { others }) {
                continue;
            }
            let place = self.place(owner);
            for (name, acl) in &shares.0 {
                let rights = acl.rights_of(&who);
                if let (true, Ok(name)) = (rights.has(Right::Lookup), MailboxName::parse(&format!("{}{name}", place.prefix))) {
                    theirs.insert(name, (place.clone(), rights));
                }
            }
        }
        add(entries, &theirs);
        theirs
    }

    /// STATUS and annotations of one of them, from its holder; nothing if that can't be had now (RFC 5819 §2).
    pub async fn tell_theirs(
        &mut self,
        state: &State,
        links: &mut Links,
        place: &Place,
        name: &MailboxName,
        list: &List,
    ) -> Result<(), Stop> {
        let names = self.enabled.names();
        let mut commands = Vec::new();
        let command = |verb: &str, rest: &str| {
            let mut bytes = BytesMut::from(verb);
            response::mailbox_name(&mut bytes, name.as_str(), names);
            bytes.put_slice(rest.as_bytes());
            String::from_utf8_lossy(&bytes).into_owned()
        };
        if let Some(items) = &list.return_status {
            let items: Vec<&str> = items.iter().map(|item: &StatusItem| status_item(*item)).collect();
            commands.push(command("STATUS ", &format!(" ({})\r\n", items.join(" "))));
        }
        if !list.return_metadata.is_empty() {
            let mut entries = BytesMut::new();
            for entry in &list.return_metadata {
                entries.put_u8(b' ');
                response::astring(&mut entries, entry.as_bytes());
            }
            commands.push(command("GETMETADATA ", &format!(" ({})\r\n", String::from_utf8_lossy(&entries).trim_start())));
        }
        if commands.is_empty() {
            return Ok(());
        }
        let is_selected = self.selected_elsewhere(state).is_some_and(|link| link.owner == place.owner);
        // Names come owner by owner: one such session at a time.
        links.0.retain(|owner, link| link.is_none() || *owner == place.owner);
        let kept = if is_selected { None } else { links.0.remove(&place.owner) };
        let mut link = match kept {
            Some(None) => return Ok(()), // it could not be had for another mailbox of the same user
            Some(Some(link)) => link,
            None => match self.link(is_selected, place).await {
                Ok(link) => link,
                Err(Stop::Reply(_)) => {
                    links.0.insert(place.owner.clone(), None);
                    return Ok(());
                }
                Err(stop) => return Err(stop),
            },
        };
        for command in commands {
            let asked = self.ask(&mut link, &command).await;
            match self.answer(is_selected, asked) {
                Ok(_) => {}
                Err(Stop::Reply(_)) => {
                    links.0.insert(place.owner.clone(), None);
                    return Ok(());
                }
                Err(stop) => return Err(stop),
            }
        }
        if is_selected {
            self.keep(link);
        } else {
            links.0.insert(place.owner.clone(), Some(link));
        }
        Ok(())
    }
}

/// Puts them and the levels above among the user's own entries, of which some may be no more than subscriptions to them.
fn add(entries: &mut Vec<MailboxEntry>, theirs: &Theirs) {
    let mut levels: BTreeMap<MailboxName, (bool, bool)> = BTreeMap::new();
    for name in theirs.keys() {
        levels.entry(name.clone()).or_default().0 = true;
        let mut above = name.parent();
        while let Some(level) = above {
            above = level.parent();
            levels.entry(level).or_default().1 = true;
        }
    }
    for entry in entries.iter_mut() {
        if let Some((selectable, has_children)) = levels.remove(&entry.name) {
            entry.selectable |= selectable;
            entry.has_children |= has_children;
        }
    }
    let more = levels.into_iter().map(|(name, (selectable, has_children))| MailboxEntry {
        name,
        selectable,
        subscribed: false,
        special_use: None,
        has_children,
    });
    entries.extend(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patterns_that_may_name_them_look_at_other_users_mailboxes() {
        let list = |reference: &str, pattern: &str| List { reference: reference.into(), patterns: vec![pattern.into()], ..List::default() };
        for (reference, pattern, expected) in [
            ("", "*", true),
            ("", "%", true),
            ("", "Other Users/%", true),
            ("Other Users/", "ada/*", true),
            ("", "O*", true),
            ("", "INBOX", false),
            ("", "Archive/%", false),
            ("Archive/", "*", false),
        ] {
            assert_eq!(may_name(&list(reference, pattern), OTHERS), expected, "{reference:?} {pattern:?}");
        }
    }

    #[test]
    fn levels_above_are_told_once_and_subscriptions_become_mailboxes() {
        let name = |text: &str| MailboxName::parse(text).unwrap();
        let place = Place { owner: UserName::normalise("ada").unwrap(), prefix: "Other Users/ada/".into() };
        let theirs: Theirs =
            ["Other Users/ada/x", "Other Users/ada/x/y"].map(|text| (name(text), (place.clone(), Rights::ALL))).into_iter().collect();
        let subscribed =
            MailboxEntry { name: name("Other Users/ada/x"), selectable: false, subscribed: true, special_use: None, has_children: false };
        let mut entries = vec![subscribed.clone()];
        add(&mut entries, &theirs);
        assert_eq!(entries[0], MailboxEntry { selectable: true, has_children: true, ..subscribed });
        let told: Vec<(&str, bool, bool)> =
            entries[1..].iter().map(|entry| (entry.name.as_str(), entry.selectable, entry.has_children)).collect();
        assert_eq!(told, [("Other Users", false, true), ("Other Users/ada", false, true), ("Other Users/ada/x/y", true, false)]);
    }

    use affinity::UserName;
}
