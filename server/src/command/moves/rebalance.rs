//! `berth rebalance`: brings users to where they belong.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use affinity::{HolderId, Peer, UserName, placement};
use clap::Args;
use serde_json::json;

use super::Move;
use crate::command::{
    control::{Request, WhoReply},
    directory::{self, Wishes},
    place::{Found, Place},
    table,
};

/// Move users to the nodes they belong on
///
/// Users go where they belong by themselves when nobody has used them for `mail.linger`; a user with a mail program that stays connected never is idle.
/// This moves every user who is not where pins, tags, weights and drains want them: those without sessions first, then those with few. Sessions of a
/// user who moves finish their command and are told to connect again. `limits.parallel_moves` are under way at a time (or --parallel). It may be
/// interrupted at any time: moves that were begun are finished, and the next run goes on where this one ended.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth rebalance --dry-run\n  berth rebalance --idle\n  berth rebalance --limit 1000 --parallel 8\n  berth rebalance --json | jq '.failed'"
)]
pub struct RebalanceArgs {
    /// Only show who would move, and how many users each node would have
    #[arg(long)]
    dry_run: bool,
    /// Only users without sessions: nobody notices
    #[arg(long)]
    idle: bool,
    /// At most so many users
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// So many at a time, 1 to 256 [default: limits.parallel_moves]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,
    #[command(flatten)]
    place: Place,
}

/// One user who is not where they belong.
#[derive(Debug, PartialEq, Eq)]
struct Misplaced {
    user: UserName,
    from: HolderId,
    to: HolderId,
    /// `None`: nobody was asked.
    sessions: Option<usize>,
}

/// Users of one node: as it is, and as it would be.
type Counts = BTreeMap<String, (usize, usize)>;

pub(in crate::command) fn run(args: &RebalanceArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let (counts, mut moves) = look(&found)?;
    if args.idle {
        moves.retain(|one| one.sessions == Some(0));
    }
    moves.truncate(args.limit.unwrap_or(usize::MAX));
    if args.dry_run {
        return print(&counts, &moves, args.place.json);
    }
    let moves = moves.into_iter().map(|one| Move { user: one.user, to: one.to.node.to_string() }).collect();
    let parallel = args.parallel.map_or(found.parallel_moves, usize::from);
    let outcome = super::run(&found, "berth rebalance", moves, parallel)?;
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", outcome.json())?;
    } else {
        writeln!(out, "{}", outcome.said())?;
    }
    outcome.check()
}

/// Who is where, and who is to be elsewhere, in the order in which they are best moved.
fn look(found: &Found) -> anyhow::Result<(Counts, Vec<Misplaced>)> {
    let root = found.open()?;
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
    let (counts, mut moves) = plan(leases, &peers, &found.wishes(&root)?);
    let sessions: Option<HashMap<String, usize>> = found.ask::<WhoReply>(&Request::Who { user: None })?.map(|(_, reply)| {
        let mut counts = HashMap::new();
        for session in reply.sessions {
            *counts.entry(session.user).or_insert(0) += 1;
        }
        counts
    });
    for one in &mut moves {
        one.sessions = sessions.as_ref().map(|counts| counts.get(one.user.as_str()).copied().unwrap_or(0));
    }
    moves.sort_by(|a, b| (a.sessions, &a.user).cmp(&(b.sessions, &b.user)));
    Ok((counts, moves))
}

fn print(counts: &Counts, moves: &[Misplaced], as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let nodes: BTreeMap<_, _> = counts.iter().map(|(node, (now, then))| (node, json!({ "held": now, "would_hold": then }))).collect();
        let row = |one: &Misplaced| json!({ "user": one.user, "from": one.from.node, "to": one.to.node, "sessions": one.sessions });
        writeln!(out, "{}", json!({ "nodes": nodes, "moves": moves.iter().map(row).collect::<Vec<_>>() }))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = counts.iter().map(|(node, (now, then))| vec![node.clone(), now.to_string(), then.to_string()]).collect();
    table::print(&mut out, &["NODE", "HELD", "WOULD HOLD"], &rows)?;
    if !moves.is_empty() {
        writeln!(out)?;
        let sessions = |one: &Misplaced| one.sessions.map_or_else(|| "-".to_owned(), |sessions| sessions.to_string());
        let row = |one: &Misplaced| vec![one.user.to_string(), one.from.node.to_string(), one.to.node.to_string(), sessions(one)];
        table::print(&mut out, &["USER", "FROM", "TO", "SESSIONS"], &moves.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Who would move. Users of nodes that are gone belong to nobody now: whoever serves them next takes over.
fn plan(leases: Vec<(UserName, HolderId)>, peers: &[Peer], wishes: &Wishes) -> (Counts, Vec<Misplaced>) {
    let mut counts: Counts = peers.iter().map(|peer| (peer.holder.node.to_string(), (0, 0))).collect();
    let mut moves = Vec::new();
    for (user, from) in leases {
        if !peers.iter().any(|peer| peer.holder == from) {
            continue;
        }
        let to = placement::place(&user, &wishes.of(&user), peers.iter()).map_or_else(|| from.clone(), |placed| placed.on.clone());
        counts.entry(from.node.to_string()).or_default().0 += 1;
        counts.entry(to.node.to_string()).or_default().1 += 1;
        if from.node != to.node {
            moves.push(Misplaced { user, from, to, sessions: None });
        }
    }
    (counts, moves)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use affinity::Incarnation;

    use super::*;

    #[test]
    fn a_drained_nodes_users_would_move_and_no_others() {
        let peer = |name: &str, draining| Peer {
            holder: HolderId { node: name.parse().unwrap(), incarnation: Incarnation::random() },
            beat: 1,
            unchanged_for: Duration::ZERO,
            suspect: false,
            draining,
            trouble: false,
            weight: 100,
            tags: BTreeSet::new(),
            info: None,
        };
        let peers = [peer("a", true), peer("b", false)];
        let user = |name: &str| UserName::normalise(name).unwrap();
        let dead = peer("c", false).holder;
        let leases = vec![(user("ada"), peers[0].holder.clone()), (user("bob"), peers[1].holder.clone()), (user("eve"), dead)];
        let (counts, moves) = plan(leases, &peers, &Wishes::new(BTreeMap::new(), None));
        assert_eq!(counts, [("a".to_owned(), (1, 0)), ("b".to_owned(), (1, 2))].into());
        assert_eq!(moves, [Misplaced { user: user("ada"), from: peers[0].holder.clone(), to: peers[1].holder.clone(), sessions: None }]);
    }
}
