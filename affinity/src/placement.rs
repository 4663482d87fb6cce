//! Where a user without a holder is placed: weighted rendezvous hashing.
//!
//! Invariants, each with the test that guards it:
//! - every node that sees the same peers places a user alike, whatever their order (`placement_does_not_depend_on_order`)
//! - a node that comes or goes moves only the users it gains or had (`a_node_that_goes_moves_only_its_own_users`)
//! - shares follow the weights (`shares_follow_the_weights`)

use crate::{HolderId, NodeName, Peer, UserName};

/// The peer that `user` is placed on. Peers that drain or have weight 0 are chosen only where there is no other: a mailbox that can be
/// served is served. Suspect peers never are.
pub fn place<'a>(user: &UserName, peers: impl Iterator<Item = &'a Peer> + Clone) -> Option<&'a HolderId> {
    let up = peers.filter(|peer| !peer.suspect);
    let eligible = up.clone().filter(|peer| !peer.draining && peer.weight > 0);
    best(user, eligible.map(|peer| (peer, peer.weight))).or_else(|| best(user, up.map(|peer| (peer, 1))))
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
            weight,
            info: None,
        }
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
    fn the_hash_never_changes() {
        assert_eq!(stable_hash(&[b"ada"]), 0x3a1c_c4cd_d6e1_8909);
    }
}
