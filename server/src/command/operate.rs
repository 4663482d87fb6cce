//! `berth drain`, `undrain`, `weight`, `fence`: what a node may do. Settings on the shared directory, so they need no running node, survive restarts,
//! and no two nodes can disagree about them.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use affinity::{
    Ending, NodeName, Root,
    names::{NODES, NodeFile},
    swap::{MountedDirectory, SharedDirectory, Swapped, swap},
};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{
    control::{FencedReply, NodesReply, Request},
    directory, many,
    moves::progress::Progress,
    place::{Found, Place, Told},
    seconds,
};

/// Between two looks at a node that drains.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node that holds nobody may take to say that it read a drain: a little more than the ten beats after which it looks by itself.
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);
/// Tries to fence a node: each that is lost means that it gave another sign of life.
const FENCE_TRIES: u32 = 50;

/// Take a node out of service
///
/// It takes no new users, lets running commands finish, ends the sessions that it serves or relays with a clear text, and hands every user over to the
/// other nodes, `limits.parallel_moves` at a time. It goes on relaying connections that reach it. The state is kept on the shared directory: a node
/// that is drained stays so when it restarts, until `berth undrain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth drain mail2 && ssh mail2 systemctl stop berth\n  berth drain mail2 --no-wait")]
pub struct DrainArgs {
    /// The node
    node: NodeName,
    /// Don't wait until it holds nobody
    #[arg(long)]
    no_wait: bool,
    /// Also a node that was never seen
    #[arg(long)]
    force: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration, conflicts_with = "no_wait")]
    timeout: Duration,
    #[command(flatten)]
    place: Place,
}

/// Put a drained node back into service
///
/// Its share of users comes back as they become idle elsewhere; nobody is moved (`berth rebalance` would).
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth undrain mail2")]
pub struct UndrainArgs {
    /// The node
    node: NodeName,
    /// Also a node that was never seen
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

/// Set a node's share of users
///
/// Shares are relative: with 200 a node gets twice the users of one with 100, the default. 0: new users only where no other node is up. Nobody who is
/// held is moved.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth weight mail2 50\n  berth weight mail2 100")]
pub struct WeightArgs {
    /// The node
    node: NodeName,
    /// Its share, 0 to 10000
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    weight: u32,
    /// Also of a node that was never seen
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

/// Declare a node dead, for a node that is stuck but still beats
///
/// All its sessions are cut, and its users are taken over by others uncleanly: indexes are copied and mailboxes scanned. If the process still runs it
/// notices at its next beat, drops everything without another write, and joins again. A node that gives no sign of life is fenced by the others
/// without this command; for maintenance use `berth drain`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth fence mail2 --yes")]
pub struct FenceArgs {
    /// The node
    node: NodeName,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    found.ensure_node(&args.node, args.force)?;
    let root = found.open()?;
    let peers = directory::peers(root.live_nodes()?);
    if !peers.iter().any(|peer| peer.holder.node != args.node && peer.takes_users()) {
        bail!("no other node takes users: {} would go on serving those it has; nothing was changed", args.node);
    }
    let is_up = peers.iter().any(|peer| peer.holder.node == args.node);
    if !is_up {
        eprintln!("{} is not up: it will take no users when it is", args.node);
    }
    // Before it begins: those that go at once count as well.
    let before = held_by(&found, &root, &args.node)?;
    root.set(&args.node, "drain", "yes")?;
    let told = found.tell_nodes(&format!("drain of {}", args.node))?;
    // Who could not be asked can't confirm: as without a node on this host, the setting is what counts.
    let mut confirmed = !is_up || told.includes(&args.node) || matches!(told, Told::NotAsked);
    if args.no_wait {
        if !confirmed {
            bail!("the drain is set, but {} did not say that it read it; it does within ten beats if it can", args.node);
        }
        return say(args.place.json, &json!({ "node": args.node, "drain": true }), &format!("{} takes no new users", args.node));
    }
    let Drained { first, left, took } = wait_until_empty(&found, &root, &args.node, args.timeout, before, &mut confirmed)?;
    if left == 0 && !confirmed {
        bail!(
            "the drain is set and {} holds nobody, but it did not say that it read it: its log says why, `berth doctor` looks at owners and modes",
            args.node
        );
    }
    if left > 0 {
        bail!(
            "{} still holds {left} of {} after {}{}: `berth who --node {}` shows them. Users whose tags no other node has stay (`berth tag`)",
            args.node,
            many(first, "user"),
            humantime::format_duration(args.timeout),
            if confirmed { "; it goes on handing them over" } else { " and did not say that it read the drain: its log says why" },
            args.node
        );
    }
    let json = json!({ "node": args.node, "drain": true, "held": 0, "handed_over": first, "took_s": seconds(took) });
    say(
        args.place.json,
        &json,
        &format!("{} is drained: handed over {} in {} s, it holds nobody", args.node, many(first, "user"), took.as_secs()),
    )
}

pub(super) fn undrain(args: &UndrainArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    found.ensure_node(&args.node, args.force)?;
    found.open()?.set(&args.node, "drain", "")?;
    found.tell_nodes(&format!("undrain of {}", args.node))?;
    say(args.place.json, &json!({ "node": args.node, "drain": false }), &format!("{} takes users again", args.node))
}

pub(super) fn weight(args: &WeightArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    found.ensure_node(&args.node, args.force)?;
    found.open()?.set(&args.node, "weight", &args.weight.to_string())?;
    found.tell_nodes(&format!("weight={} of {}", args.weight, args.node))?;
    say(args.place.json, &json!({ "node": args.node, "weight": args.weight }), &format!("{} has weight {}", args.node, args.weight))
}

struct Drained {
    /// Users that it held at first.
    first: usize,
    left: usize,
    took: Duration,
}

/// Shows how many users the node still holds until that is none and it has said that it drains, or the time is up.
fn wait_until_empty(
    found: &Found,
    root: &Root,
    node: &NodeName,
    limit: Duration,
    before: usize,
    confirmed: &mut bool,
) -> anyhow::Result<Drained> {
    let mut progress = Progress::new();
    let mut first = before;
    loop {
        let left = held_by(found, root, node)?;
        let took = progress.elapsed();
        first = first.max(left);
        // Who hands its users over has read it.
        *confirmed |= first > 0 && left == 0;
        progress.show(&format!("{node} holds {left} of {}", many(first, "user")));
        let unconfirmed = !*confirmed && took < limit.min(CONFIRM_LIMIT);
        if (left == 0 && !unconfirmed) || took >= limit {
            return Ok(Drained { first, left, took });
        }
        if unconfirmed {
            *confirmed = found.confirms(node);
        }
        std::thread::sleep(LOOK);
    }
}

/// How many users a node holds: by its own word, or else by the leases, each of which has to be looked at.
fn held_by(found: &Found, root: &Root, node: &NodeName) -> anyhow::Result<usize> {
    if let Ok(Some((_, reply))) = found.ask::<NodesReply>(&Request::Nodes) {
        let rows: Vec<_> = reply.nodes.into_iter().filter(|row| row.name == node.as_str()).collect();
        if rows.iter().all(|row| row.held.is_some()) {
            return Ok(rows.iter().filter_map(|row| row.held).sum());
        }
    }
    let live: Vec<_> = root.live_nodes()?.into_iter().map(|seen| seen.holder).filter(|holder| holder.node == *node).collect();
    if live.is_empty() {
        return Ok(0);
    }
    // What is broken is nobody's: `berth leases check` tells.
    let held = root
        .leases()?
        .filter(|lease| lease.as_ref().is_ok_and(|lease| lease.seen.holder.as_ref().is_some_and(|holder| live.contains(holder))));
    Ok(held.count())
}

pub(super) fn fence(args: &FenceArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let root = found.open()?;
    let Some(node) = root.live_nodes()?.into_iter().find(|seen| seen.holder.node == args.node) else {
        bail!("{} is not up: there is nobody to fence", args.node);
    };
    if !args.yes {
        let sessions = found.ask::<NodesReply>(&Request::Nodes).ok().flatten().and_then(|(_, reply)| {
            reply.nodes.into_iter().find(|row| row.incarnation == node.holder.incarnation.to_string()).and_then(|row| row.sessions)
        });
        let sessions = sessions.map_or_else(|| "all its".to_owned(), |sessions| format!("{sessions}"));
        eprintln!(
            "Fencing {} cuts {sessions} sessions at once; its users are taken over uncleanly (indexes copied, mailboxes scanned).\n\
             `berth drain {}` takes a node out of service without an error. Fence only a node that is stuck.",
            args.node, args.node
        );
        confirm(&args.node)?;
    }
    let directory = MountedDirectory::new(root.path()).with_context(|| format!("can't look at {}", root.path().display()))?;
    for _ in 0..FENCE_TRIES {
        let files = directory.list(NODES).with_context(|| format!("can't list {}", root.nodes().display()))?;
        let file = files.iter().filter_map(|name| name.parse::<NodeFile>().ok()).find(|file| file.holder == node.holder);
        let Some(file) = file else { break };
        if swap(&directory, &file.in_nodes(), &file.ended(Ending::Operator).path())? == Swapped::Won {
            // For the log, and so that a node looks at once; the fence is done in any case.
            match found.ask::<FencedReply>(&Request::Fenced { holder: file.holder.to_string() }) {
                Ok(Some(_)) => {}
                Ok(None) => eprintln!("no node runs on this host: no log says that this was an operator"),
                Err(error) => eprintln!("no log says that this was an operator: {error:#}"),
            }
            let text = format!("{} is fenced; if it runs, it joins again as a new incarnation", file.holder);
            return say(args.place.json, &json!({ "fenced": file.holder.to_string(), "beat": file.beat }), &text);
        }
    }
    bail!("{} was not fenced by this command: it left, was fenced by others, or beats too fast", args.node)
}

fn confirm(node: &NodeName) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("nothing was done: --yes says that you know what it does");
    }
    eprint!("Type the node's name to go on: ");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    if line.trim() != node.as_str() {
        bail!("nothing was done");
    }
    Ok(())
}

/// The outcome, as a line of JSON or of text.
pub(super) fn say(as_json: bool, line: &serde_json::Value, text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{text}")?;
    }
    Ok(())
}
