//! `berth rebalance --dry-run`: how far users are from where they belong.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use affinity::{HolderId, UserName};
use clap::Args;
use serde_json::json;

use super::{directory, place::Place, table};

/// Show which users are not on the node they belong on
///
/// Users go where they belong by themselves when nobody has used them for `mail.linger`; `berth move` moves one at once. This shows who would move, and
/// how many users each node would have.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth rebalance --dry-run\n  berth rebalance --dry-run --json | jq -r '.moves[] | \"berth move \\(.user) \\(.to)\"'"
)]
pub struct RebalanceArgs {
    /// Only show (nothing else can be done yet, so it must be given)
    #[arg(long, required = true)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// One user who is not where they belong.
#[derive(Debug, PartialEq, Eq)]
struct Misplaced {
    user: UserName,
    from: HolderId,
    to: HolderId,
}

/// Users of one node: as it is, and as it would be.
type Counts = BTreeMap<String, (usize, usize)>;

pub(super) fn run(args: &RebalanceArgs) -> anyhow::Result<()> {
    let root = args.place.find()?.open()?;
    let leases: Vec<(UserName, HolderId)> = root
        .leases()?
        .filter_map(|lease| match lease {
            Ok(lease) => Some((lease.user, lease.seen.holder?)),
            Err(error) => {
                eprintln!("{error}");
                None
            }
        })
        .collect();
    // Listed after the leases: who is missing then is gone for good.
    let peers = directory::peers(root.live_nodes()?);
    let (counts, moves) = plan(leases, &peers);
    let mut out = io::stdout().lock();
    if args.place.json {
        let nodes: BTreeMap<_, _> = counts.iter().map(|(node, (now, then))| (node, json!({ "held": now, "would_hold": then }))).collect();
        let moves: Vec<_> =
            moves.iter().map(|one| json!({ "user": one.user, "from": one.from.node.to_string(), "to": one.to.node.to_string() })).collect();
        writeln!(out, "{}", json!({ "nodes": nodes, "moves": moves }))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = counts.iter().map(|(node, (now, then))| vec![node.clone(), now.to_string(), then.to_string()]).collect();
    table::print(&mut out, &["NODE", "HELD", "WOULD HOLD"], &rows)?;
    if !moves.is_empty() {
        writeln!(out)?;
        let rows: Vec<Vec<String>> =
            moves.iter().map(|one| vec![one.user.to_string(), one.from.node.to_string(), one.to.node.to_string()]).collect();
        table::print(&mut out, &["USER", "FROM", "TO"], &rows)?;
    }
    Ok(())
}

/// Who would move. Users of nodes that are gone belong to nobody now: whoever serves them next takes over.
fn plan(leases: Vec<(UserName, HolderId)>, peers: &[affinity::Peer]) -> (Counts, Vec<Misplaced>) {
    let mut counts: Counts = peers.iter().map(|peer| (peer.holder.node.to_string(), (0, 0))).collect();
    let mut moves = Vec::new();
    for (user, from) in leases {
        if !peers.iter().any(|peer| peer.holder == from) {
            continue;
        }
        let to = directory::preferred(&user, peers).unwrap_or_else(|| from.clone());
        counts.entry(from.node.to_string()).or_default().0 += 1;
        counts.entry(to.node.to_string()).or_default().1 += 1;
        if from.node != to.node {
            moves.push(Misplaced { user, from, to });
        }
    }
    moves.sort_by(|a, b| a.user.cmp(&b.user));
    (counts, moves)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use affinity::{Incarnation, Peer};

    use super::*;

    #[test]
    fn a_drained_nodes_users_would_move_and_no_others() {
        let peer = |name: &str, draining| Peer {
            holder: HolderId { node: name.parse().unwrap(), incarnation: Incarnation::random() },
            beat: 1,
            unchanged_for: Duration::ZERO,
            suspect: false,
            draining,
            weight: 100,
            info: None,
        };
        let peers = [peer("a", true), peer("b", false)];
        let user = |name: &str| UserName::normalise(name).unwrap();
        let dead = peer("c", false).holder;
        let leases = vec![(user("ada"), peers[0].holder.clone()), (user("bob"), peers[1].holder.clone()), (user("eve"), dead)];
        let (counts, moves) = plan(leases, &peers);
        assert_eq!(counts, [("a".to_owned(), (1, 0)), ("b".to_owned(), (1, 2))].into());
        assert_eq!(moves, [Misplaced { user: user("ada"), from: peers[0].holder.clone(), to: peers[1].holder.clone() }]);
    }
}
