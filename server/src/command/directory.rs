//! Nodes and leases as the names in the shared directory say, without asking anybody: the truth, but without sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
};

use affinity::{AffinityError, Ending, HolderId, LeaseSeen, NodeName, NodeSeen, Peer, Root, Seen, Tag, UserName, Wish, ending::last_beat};

use crate::auth::Authenticator;

use super::control::{FencedRow, HeldRow, NodeRow};

/// Every node in `nodes/`, sorted by name.
pub fn nodes(root: &Root) -> Result<Vec<NodeRow>, AffinityError> {
    let mut rows: Vec<NodeRow> = root
        .live_nodes()?
        .into_iter()
        .map(|node| NodeRow {
            name: node.holder.node.to_string(),
            incarnation: node.holder.incarnation.to_string(),
            beat: last_beat(node.beat),
            version: node.info.as_ref().map(|info| info.version.clone()),
            since: node.info.as_ref().map(|info| info.started),
            relay: node.info.map(|info| info.relay).unwrap_or_default(),
            // One look can't tell whether the beat moves.
            state: node.settings.draining().then(|| "draining".to_owned()),
            weight: Some(node.settings.weight()),
            tags: node.settings.tags().into_iter().map(String::from).collect(),
            sessions: None,
            connections: None,
            held: None,
            trouble: node.settings.trouble().map(str::to_owned).into_iter().collect(),
        })
        .collect();
    // A beat that is renamed during the listing may show twice, one after the other: the later one counts.
    rows.reverse();
    rows.dedup_by(|earlier, later| (&earlier.name, &earlier.incarnation) == (&later.name, &later.incarnation));
    rows.reverse();
    Ok(rows)
}

/// The latest start of each node that ended.
pub fn fenced(root: &Root) -> Result<Vec<FencedRow>, AffinityError> {
    let live: BTreeSet<NodeName> = root.live_nodes()?.into_iter().map(|node| node.holder.node).collect();
    let mut latest: BTreeMap<String, FencedRow> = BTreeMap::new();
    for ended in root.fenced_nodes()? {
        // A rename sets this time; the file itself is never opened.
        let at = root.path().join(ended.path()).symlink_metadata().ok().map(|metadata| metadata.ctime());
        let (holder, how) = (&ended.file.holder, ended.ending());
        let row = FencedRow {
            name: holder.node.to_string(),
            incarnation: holder.incarnation.to_string(),
            beat: ended.file.last_beat(),
            why: how.word().to_owned(),
            by: if let Ending::Fenced { by } = &how { Some(by.to_string()) } else { None },
            at: at.and_then(|at| u64::try_from(at).ok()),
            back: live.contains(&holder.node),
        };
        let best = latest.entry(row.name.clone()).or_insert_with(|| row.clone());
        if row.at > best.at {
            *best = row;
        }
    }
    Ok(latest.into_values().collect())
}

/// The nodes as placement sees them. Whether a node is silent shows only in time, so none is here.
pub fn peers(nodes: Vec<NodeSeen>) -> Vec<Peer> {
    let peer = |node: NodeSeen| Peer {
        draining: node.settings.draining(),
        trouble: node.settings.trouble().is_some(),
        weight: node.settings.weight(),
        tags: node.settings.tags(),
        holder: node.holder,
        beat: node.beat,
        unchanged_for: std::time::Duration::ZERO,
        suspect: false,
        info: node.info.map(std::sync::Arc::new),
    };
    nodes.into_iter().map(peer).collect()
}

/// What operators wish for users.
pub struct Wishes {
    pins: BTreeMap<UserName, NodeName>,
    users: Option<Authenticator>,
}

impl Wishes {
    /// From pins, and tags by the users' entries.
    pub fn new(pins: BTreeMap<UserName, NodeName>, users: Option<Authenticator>) -> Wishes {
        Wishes { pins, users }
    }
    /// One user's.
    pub fn of(&self, user: &UserName) -> Wish {
        let recorded = self.users.as_ref().map(|users| users.wish(user)).unwrap_or_default();
        Wish { pin: self.pins.get(user).cloned().or(recorded.pin), tags: recorded.tags }
    }
}

/// Tags that are wanted and not there.
pub fn list(wanted: &BTreeSet<Tag>, there: &BTreeSet<Tag>) -> String {
    wanted.difference(there).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Who holds whom, sorted by user: every held lease, or one user's also when it is free; and what could not be read.
pub fn leases(root: &Root, user: Option<&UserName>) -> Result<(Vec<HeldRow>, Vec<AffinityError>), AffinityError> {
    let mut broken = Vec::new();
    let seen: Vec<LeaseSeen> = match user {
        Some(user) => vec![LeaseSeen { user: user.clone(), seen: root.look(user)? }],
        None => root.leases()?.filter_map(|lease| lease.map_err(|error| broken.push(error)).ok()).collect(),
    };
    // Listed after the leases: who is missing then is gone for good.
    let live: BTreeSet<HolderId> = root.live_nodes()?.into_iter().map(|node| node.holder).collect();
    let mut rows: Vec<HeldRow> = seen
        .into_iter()
        .filter(|lease| user.is_some() || lease.seen.holder.is_some())
        .map(|LeaseSeen { user, seen: Seen { epoch, holder } }| HeldRow {
            user: user.to_string(),
            gone: holder.as_ref().is_some_and(|holder| !live.contains(holder)),
            node: holder.as_ref().map(|holder| holder.node.to_string()),
            incarnation: holder.map(|holder| holder.incarnation.to_string()),
            epoch: epoch.0,
        })
        .collect();
    rows.sort_by(|a, b| a.user.cmp(&b.user));
    Ok((rows, broken))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use affinity::{Timings, ending::TAKEN};

    use super::*;

    const LIVE: &str = "mail1,00000000000000aa";
    const GONE: &str = "mail2,00000000000000bb";

    /// A cluster as `mail1` and a dead `mail2` left it.
    fn cluster() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::init(folder.path(), &Timings::default()).unwrap();
        fs::write(root.nodes().join(format!("{LIVE},7")), "").unwrap();
        let info = r#"{"relay":["mail1:8143"],"certificate_pin":"00","version":"0.1.0","capabilities":[],"started":5}"#;
        fs::write(root.info().join(LIVE), info).unwrap();
        for (user, lease) in [("ada", format!("3,{LIVE}")), ("bob", format!("9,{GONE}")), ("carol", "2,free".to_owned())] {
            let lease_folder = root.lease(&name(user));
            fs::create_dir_all(&lease_folder).unwrap();
            fs::write(lease_folder.join(lease), "").unwrap();
        }
        (folder, root)
    }
    fn name(user: &str) -> UserName {
        UserName::normalise(user).unwrap()
    }

    #[test]
    fn nodes_are_shown_with_what_they_publish() {
        let (_folder, root) = cluster();
        let rows = nodes(&root).unwrap();
        let expected = NodeRow {
            name: "mail1".to_owned(),
            incarnation: "00000000000000aa".to_owned(),
            beat: 7,
            version: Some("0.1.0".to_owned()),
            relay: vec!["mail1:8143".to_owned()],
            since: Some(5),
            state: None,
            weight: Some(100),
            tags: Vec::new(),
            sessions: None,
            connections: None,
            held: None,
            trouble: Vec::new(),
        };
        assert_eq!(rows, [expected]);
        fs::write(root.nodes().join(format!("{LIVE},8")), "").unwrap();
        let beats: Vec<u64> = nodes(&root).unwrap().iter().map(|row| row.beat).collect();
        assert_eq!(beats, [8], "a node that beats during the listing is one node");
    }

    #[test]
    fn the_latest_end_of_each_node_is_shown_with_its_reason() {
        let (_folder, root) = cluster();
        let taken = format!("mail4,00000000000000d1,{},by=mail1", 7 + TAKEN);
        for name in ["mail1,00000000000000a1,3", "mail2,00000000000000b1,4,by=mail1", "mail3,00000000000000c1,5,left", &taken] {
            fs::write(root.fenced().join(name), "").unwrap();
        }
        let rows = fenced(&root).unwrap();
        let shown: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.beat, row.why.as_str(), row.by.as_deref(), row.back)).collect();
        assert_eq!(
            shown,
            [
                ("mail1", 3, "unknown", None, true),
                ("mail2", 4, "fenced", Some("mail1"), false),
                ("mail3", 5, "left", None, false),
                ("mail4", 7, "name-taken", None, false),
            ]
        );
        assert!(rows.iter().all(|row| row.at.is_some()));
    }

    #[test]
    fn held_users_are_shown_with_their_holder_and_whether_it_is_gone() {
        let (_folder, root) = cluster();
        let (rows, broken) = leases(&root, None).unwrap();
        let shown: Vec<_> = rows.iter().map(|row| (row.user.as_str(), row.node.as_deref(), row.epoch, row.gone)).collect();
        assert_eq!(shown, [("ada", Some("mail1"), 3, false), ("bob", Some("mail2"), 9, true)]);
        assert!(broken.is_empty());
    }

    #[test]
    fn one_user_is_shown_also_when_free() {
        let (_folder, root) = cluster();
        let (rows, _) = leases(&root, Some(&name("carol"))).unwrap();
        assert_eq!((rows[0].node.as_deref(), rows[0].epoch), (None, 2));
        let (rows, _) = leases(&root, Some(&name("eve"))).unwrap();
        assert_eq!((rows[0].node.as_deref(), rows[0].epoch), (None, 0), "never held");
    }
}
