//! Where a user without a holder is placed: weighted rendezvous hashing, within what operators wish.
//!
//! Invariants, each with the test that guards it:
//! - every node that sees the same peers places a user alike, whatever their order (`placement_does_not_depend_on_order`)
//! - a node that comes or goes moves only the users it gains or had (`a_node_that_goes_moves_only_its_own_users`)
//! - shares follow the weights (`shares_follow_the_weights`)
//! - a user is never placed on a node that lacks one of their tags (`tags_hold_whatever_else_is_up`)
//! - a pin holds wherever its node can serve, and keeps nobody from being served (`a_pin_holds_while_its_node_can_serve`)

use std::collections::BTreeSet;

use crate::{HolderId, NodeName, Peer, UserName, settings::Tag};

/// What operators wish for a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The node that is to have the user whenever it can.
    pub pin: Option<NodeName>,
    /// Only nodes with all of these may have the user.
    pub tags: BTreeSet<Tag>,
}

impl Wish {
    /// Whether a node with these tags may have the user at all.
    pub fn permits(&self, tags: &BTreeSet<Tag>) -> bool {
        self.tags.is_subset(tags)
    }
}

/// Where a user is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<'a> {
    /// On whom.
    pub on: &'a HolderId,
    /// By what.
    pub by: Rule,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The user is pinned to that node.
    Pin,
    /// The name and the nodes' weights.
    Weight,
    /// The same, though that node drains, has weight 0 or is in trouble: no other that may have the user is up.
    LastResort,
}

/// The peer that `user` is placed on. Peers that drain, have weight 0 or say that they are in trouble are chosen only where there is no other:
/// a mailbox that can be served is served. Suspect peers never are, nor any that lacks a tag.
pub fn place<'a>(user: &UserName, wish: &Wish, peers: impl Iterator<Item = &'a Peer> + Clone) -> Option<Placed<'a>> {
    let up = peers.filter(|peer| !peer.suspect && wish.permits(&peer.tags));
    let pinned = up.clone().filter(|peer| wish.pin.as_ref() == Some(&peer.holder.node) && !peer.draining && !peer.trouble);
    if let Some(on) = best(user, pinned.map(|peer| (peer, 1))) {
        return Some(Placed { on, by: Rule::Pin });
    }
    let eligible = up.clone().filter(|peer| peer.takes_users()).map(|peer| (peer, peer.weight));
    if let Some(on) = best(user, eligible) {
        return Some(Placed { on, by: Rule::Weight });
    }
    let sound = up.clone().filter(|peer| !peer.trouble).map(|peer| (peer, 1));
    best(user, sound).or_else(|| best(user, up.map(|peer| (peer, 1)))).map(|on| Placed { on, by: Rule::LastResort })
}

fn best<'a>(user: &UserName, candidates: impl Iterator<Item = (&'a Peer, u32)>) -> Option<&'a HolderId> {
    candidates
        .map(|(peer, weight)| (score(user, &peer.holder.node, weight), &peer.holder))
        // Two incarnations of one node score alike for as long as the older is not fenced: any rule does that all nodes share.
        .max_by(|(a, a_holder), (b, b_holder)| a.total_cmp(b).then_with(|| a_holder.cmp(b_holder)))
        .map(|(_, holder)| holder)
}

/// -weight / ln(u) with u in (0, 1): the highest of several such scores falls on each node in proportion to its weight.
/// By node and not incarnation, so that a restart moves nobody.
fn score(user: &UserName, node: &NodeName, weight: u32) -> f64 {
    let hash = stable_hash(&[user.as_str().as_bytes(), node.as_str().as_bytes()]);
    // 32 bits are exact in an f64; the halves keep u off 0 and 1.
    let u = (f64::from(u32::try_from(hash >> 32).unwrap_or(u32::MAX)) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -f64::from(weight) / u.ln()
}

/// A 64-bit hash that is the same in every version of this program: FNV-1a over the parts (a zero byte between them), then mixed
/// (splitmix64), since FNV alone leaves the high bits of short names alike. Lease folders depend on it: never change it.
pub(crate) fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::Incarnation;

    fn peer(node: &str, weight: u32) -> Peer {
        Peer {
            holder: HolderId { node: node.parse().unwrap(), incarnation: Incarnation::random() },
            beat: 1,
            unchanged_for: Duration::ZERO,
            suspect: false,
            draining: false,
            trouble: false,
            weight,
            tags: BTreeSet::new(),
            info: None,
        }
    }

    /// The holder, without any wish.
    fn place<'a>(user: &UserName, peers: impl Iterator<Item = &'a Peer> + Clone) -> Option<&'a HolderId> {
        super::place(user, &Wish::default(), peers).map(|placed| placed.on)
    }

    fn users() -> impl Iterator<Item = UserName> {
        (0..3000).map(|n| UserName::normalise(&format!("user{n}@example.org")).unwrap())
    }

    #[test]
    fn placement_does_not_depend_on_order() {
        let mut peers = [peer("a", 100), peer("b", 100), peer("c", 50)];
        let before: Vec<_> = users().map(|user| place(&user, peers.iter()).cloned()).collect();
        peers.reverse();
        assert_eq!(before, users().map(|user| place(&user, peers.iter()).cloned()).collect::<Vec<_>>());
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_users() {
        let peers = [peer("a", 100), peer("b", 100), peer("c", 100)];
        for user in users() {
            let with = place(&user, peers.iter()).unwrap();
            let without = place(&user, peers[..2].iter()).unwrap();
            assert!(with == without || with.node.as_str() == "c", "{user} moved from {with} to {without}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let peers = [peer("a", 100), peer("b", 200), peer("c", 0)];
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        for user in users() {
            *count.entry(place(&user, peers.iter()).unwrap().node.to_string()).or_default() += 1;
        }
        assert!((900..1100).contains(&count["a"]) && (1900..2100).contains(&count["b"]), "{count:?}");
        assert!(!count.contains_key("c"), "weight 0 takes nobody");
    }

    #[test]
    fn suspect_nodes_get_nobody_and_draining_ones_only_in_need() {
        let user = UserName::normalise("ada").unwrap();
        let mut peers = [peer("a", 100), peer("b", 100)];
        peers[0].draining = true;
        assert_eq!(place(&user, peers.iter()).unwrap().node.as_str(), "b");
        peers[1].suspect = true;
        assert_eq!(place(&user, peers.iter()).unwrap().node.as_str(), "a");
        peers[0].suspect = true;
        assert_eq!(place(&user, peers.iter()), None);
    }

    #[test]
    fn tags_hold_whatever_else_is_up() {
        let tags = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<Tag>>();
        let mut peers = [peer("a", 100), peer("b", 100), peer("c", 100)];
        peers[0].tags = tags(&["eu"]);
        peers[1].tags = tags(&["eu", "fast"]);
        let wish = |names: &[&str]| Wish { pin: Some("c".parse().unwrap()), tags: tags(names) };
        for user in users().take(300) {
            let on = |names: &[&str]| super::place(&user, &wish(names), peers.iter()).map(|placed| placed.on.node.as_str());
            assert!(matches!(on(&["eu"]), Some("a" | "b")));
            assert_eq!(on(&["fast", "eu"]), Some("b"));
            assert_eq!(on(&["us"]), None, "the pin does not break the tag");
            assert_eq!(on(&[]), Some("c"));
        }
        peers[1].trouble = true;
        let user = users().next().unwrap();
        let placed = super::place(&user, &wish(&["fast"]), peers.iter()).unwrap();
        assert_eq!((placed.on.node.as_str(), placed.by), ("b", Rule::LastResort), "in trouble, but the only one that may");
    }

    #[test]
    fn a_pin_holds_while_its_node_can_serve() {
        let mut peers = [peer("a", 100), peer("b", 100)];
        for user in users().take(100) {
            for pin in ["a", "b"] {
                let wish = Wish { pin: Some(pin.parse().unwrap()), ..Wish::default() };
                let placed = super::place(&user, &wish, peers.iter()).unwrap();
                assert_eq!((placed.on.node.as_str(), placed.by), (pin, Rule::Pin));
            }
        }
        let (user, wish) = (users().next().unwrap(), Wish { pin: Some("b".parse().unwrap()), ..Wish::default() });
        peers[1].weight = 0;
        assert_eq!(super::place(&user, &wish, peers.iter()).unwrap().by, Rule::Pin, "a pin counts more than a weight");
        for break_it in
            [|peer: &mut Peer| peer.draining = true, |peer: &mut Peer| peer.trouble = true, |peer: &mut Peer| peer.suspect = true]
        {
            let mut peers = peers.clone();
            break_it(&mut peers[1]);
            let placed = super::place(&user, &wish, peers.iter()).unwrap();
            assert_eq!((placed.on.node.as_str(), placed.by), ("a", Rule::Weight));
        }
        let wish = Wish { pin: Some("z".parse().unwrap()), ..Wish::default() };
        assert_eq!(super::place(&user, &wish, peers.iter()).unwrap().on.node.as_str(), "a", "a pin to a node that is not there");
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(stable_hash(&[b"ada"]), 0x3a1c_c4cd_d6e1_8909);
    }
}
