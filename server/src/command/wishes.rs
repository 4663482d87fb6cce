//! `berth pin`, `unpin` and `tag`: where operators want users. Names on the shared directory: they survive restarts, and no two nodes can disagree.

use std::io::{self, Write};

use affinity::{NodeName, Tag};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    directory,
    moves::{self, Move},
    operate::say,
    place::{Place, normalise},
    table,
};

/// Keep a user on a node, or show who is pinned
///
/// Whenever that node can serve, the user is placed there; where it is down, drained or in trouble, another node serves meanwhile, and the user goes back
/// once nobody uses the account there. A user who is elsewhere now goes over when their sessions have ended, or at once with --now. A node that lacks a
/// tag of the user (`berth tag`) is passed over. Without arguments: all pins.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth pin ada@example.org mail2\n  berth pin ada@example.org mail2 --now\n  berth pin")]
pub struct PinArgs {
    /// The user
    #[arg(requires = "node")]
    user: Option<String>,
    /// The node
    node: Option<NodeName>,
    /// Move the user at once: sessions are told to connect again
    #[arg(long, requires = "user")]
    now: bool,
    /// Also to a node that was never seen
    #[arg(long, requires = "user")]
    force: bool,
    #[command(flatten)]
    place: Place,
}

/// Let a pinned user go where they belong by their name and the nodes' weights
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth unpin ada@example.org")]
pub struct UnpinArgs {
    /// The user
    user: String,
    #[command(flatten)]
    place: Place,
}

/// Show or change the tags of nodes
///
/// A user whose entry in the users file has `tags=eu,fast` is served only by nodes that have every one of these tags. Tags hold: where no such node is up,
/// logins and deliveries wait for one (`limits.route_wait`) and then get a temporary error. Users without tags are served by any node. A tag that is
/// taken away ends no session; the users whom it concerns go elsewhere once nobody uses their account.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth tag                          every node's tags\n  berth tag mail2 add eu fast\n  berth tag mail2 remove fast"
)]
pub struct TagArgs {
    /// The node
    node: Option<NodeName>,
    /// What to do
    #[arg(requires = "tags")]
    change: Option<Change>,
    /// The tags: a-z 0-9 - _ .
    tags: Vec<Tag>,
    /// Also those of a node that was never seen
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Change {
    /// Give it these tags
    Add,
    /// Take them away
    Remove,
}

pub(super) fn pin(args: &PinArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let root = found.open()?;
    let (Some(user), Some(node)) = (&args.user, &args.node) else {
        let pins = root.pins()?;
        let mut out = io::stdout().lock();
        if args.place.json {
            writeln!(out, "{}", json!({ "pins": pins }))?;
        } else {
            let rows: Vec<Vec<String>> = pins.iter().map(|(user, node)| vec![user.to_string(), node.to_string()]).collect();
            table::print(&mut out, &["USER", "PINNED TO"], &rows)?;
        }
        return Ok(());
    };
    let user = normalise(user, &found.rules)?;
    let peers = directory::peers(root.live_nodes()?);
    let known = peers.iter().any(|peer| peer.holder.node == *node);
    found.ensure_node(node, args.force)?;
    found.ensure_user(&user)?;
    root.pin(&user, Some(node))?;
    found.tell_nodes(&format!("pin of {user} to {node}"))?;
    let wish = found.wishes(&root)?.of(&user);
    let lacking = peers.iter().find(|peer| peer.holder.node == *node && !wish.permits(&peer.tags));
    if let Some(peer) = lacking {
        eprintln!(
            "{node} lacks a tag that {user} needs ({}): the pin does not hold until it has them",
            directory::list(&wish.tags, &peer.tags)
        );
    } else if !known {
        eprintln!("{node} is not up: {user} is served elsewhere until it is");
    }
    let moved = if args.now && known && lacking.is_none() {
        let one = Move { user: user.clone(), to: node.to_string() };
        let outcome = moves::run(&found, "berth pin --now", vec![one], 1)?;
        outcome.check()?;
        true
    } else {
        false
    };
    let where_now = if moved { "and is there now" } else { "and goes there when nobody uses the account elsewhere" };
    say(args.place.json, &json!({ "user": user, "node": node, "moved": moved }), &format!("{user} is pinned to {node}, {where_now}"))
}

pub(super) fn unpin(args: &UnpinArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = normalise(&args.user, &found.rules)?;
    let root = found.open()?;
    let was = root.pins()?.remove(&user);
    if was.is_none() {
        // A user who was removed may be pinned yet.
        found.ensure_user(&user)?;
    }
    root.pin(&user, None)?;
    found.tell_nodes(&format!("no pin of {user}"))?;
    let text = match &was {
        Some(node) => format!("{user} is no longer pinned to {node}"),
        None => format!("{user} was not pinned"),
    };
    say(args.place.json, &json!({ "user": user, "was": was }), &text)
}

pub(super) fn tag(args: &TagArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let root = found.open()?;
    if let Some(node) = &args.node {
        found.ensure_node(node, args.force)?;
    }
    if let (Some(node), Some(change)) = (&args.node, args.change) {
        let now = root.change_tags(node, |tags| match change {
            Change::Add => tags.extend(args.tags.iter().cloned()),
            Change::Remove => tags.retain(|tag| !args.tags.contains(tag)),
        })?;
        let words: Vec<String> = now.iter().map(ToString::to_string).collect();
        found.tell_nodes(&format!("tags={} of {node}", words.join(",")))?;
        let text = if words.is_empty() { format!("{node} has no tags") } else { format!("{node} has the tags {}", words.join(" ")) };
        return say(args.place.json, &json!({ "node": node, "tags": now }), &text);
    }
    // A node that is not up is shown for what is set for it.
    let mut nodes: Vec<NodeName> = root.live_nodes()?.into_iter().map(|node| node.holder.node).collect();
    nodes.extend(root.nodes_with_settings()?);
    nodes.sort();
    nodes.dedup();
    nodes.retain(|node| args.node.as_ref().is_none_or(|wanted| wanted == node));
    let mut out = io::stdout().lock();
    let mut rows = Vec::new();
    for node in nodes {
        let tags: Vec<String> = root.settings_of(&node)?.tags().into_iter().map(String::from).collect();
        rows.push((node, tags));
    }
    if args.place.json {
        let rows: Vec<_> = rows.iter().map(|(node, tags)| json!({ "node": node, "tags": tags })).collect();
        writeln!(out, "{}", json!({ "nodes": rows }))?;
    } else {
        let shown = |tags: &[String]| if tags.is_empty() { "-".to_owned() } else { tags.join(" ") };
        let rows: Vec<Vec<String>> = rows.iter().map(|(node, tags)| vec![node.to_string(), shown(tags)]).collect();
        table::print(&mut out, &["NODE", "TAGS"], &rows)?;
    }
    Ok(())
}
