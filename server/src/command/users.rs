//! `berth where`, `berth move`, `berth kick`: one user, or some sessions.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use affinity::{HolderId, NodeName, Peer, Rule, Seen, UserName, Wish, placement};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{
    control::{KickReply, Request, WhoReply},
    directory, many,
    moves::{self, Move},
    place::{NodePlace, Place, no_user, normalise},
    usage,
};

/// Show which node has a user, and why
///
/// Reads the shared directory: holder and epoch of the lease, pin, and the node that the user belongs on by pin, tags, weights and drains. Asks the node
/// on this host, if one runs, how many sessions there are.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth where ada@example.org")]
pub struct WhereArgs {
    /// The user
    user: String,
    #[command(flatten)]
    place: Place,
}

/// Move users to a node
///
/// The holder lets running commands finish, says goodbye to the user's sessions, closes the account and hands the lease over; the other node takes it
/// at once. Clients connect again, mail that arrives meanwhile waits. When nobody has used the account for `mail.linger`, the user may be placed anew
/// (`berth pin` keeps them there). Of many users `limits.parallel_moves` move at a time; an interrupt lets those under way finish.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth move ada@example.org mail2\n  berth move ada@example.org bob@example.org mail2\n  berth move --from mail1 mail2"
)]
pub struct MoveArgs {
    /// The users, and last the node that they move to
    #[arg(required = true, value_names = ["USER", "NODE"])]
    users_and_node: Vec<String>,
    /// Everybody whom this node holds, instead of users
    #[arg(long, value_name = "NODE")]
    from: Option<NodeName>,
    #[command(flatten)]
    place: NodePlace,
}

/// End sessions
///
/// All that fit everything that is given, on every node. Running commands are finished, then the clients are told why; they may connect again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth kick ada@example.org\n  berth kick --ip 192.0.2.7 --why 'too many requests'\n  berth kick --node mail2"
)]
pub struct KickArgs {
    /// Sessions of this user
    user: Option<String>,
    /// Sessions from this address
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Sessions served by or reached through this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// What the clients are told
    #[arg(long, value_name = "TEXT", default_value = "your session was ended by the administrator", value_parser = one_line)]
    why: String,
    #[command(flatten)]
    place: NodePlace,
}

/// Most characters of a text for clients: one line of any protocol.
const WHY_CHARS_MAX: usize = 200;

/// A text that can't end its line early or begin another.
fn one_line(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > WHY_CHARS_MAX || text.chars().any(|c| !(' '..='~').contains(&c)) {
        return Err(format!("one line of 1 to {WHY_CHARS_MAX} ASCII characters"));
    }
    Ok(text.to_owned())
}

pub(super) fn whereabouts(args: &WhereArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = normalise(&args.user, &found.rules)?;
    let root = found.open()?;
    let seen = root.look(&user)?;
    if found.knows(&user) == Some(false) {
        if seen.epoch.0 == 0 {
            bail!("{}", no_user(&user));
        }
        eprintln!("no source knows {user} now: this is what was left");
    }
    // Listed after the lease: who is missing then is gone for good.
    let peers = directory::peers(root.live_nodes()?);
    let wish = found.wishes(&root)?.of(&user);
    let placed = placement::place(&user, &wish, peers.iter());
    let gone = seen.holder.as_ref().is_some_and(|holder| !peers.iter().any(|peer| peer.holder == *holder));
    let asked = found.ask::<WhoReply>(&Request::Who { user: Some(user.to_string()) });
    let asked = asked.inspect_err(|error| eprintln!("sessions are not known: {error:#}")).ok().flatten();
    let sessions = asked.map(|(_, reply)| reply.sessions.len());
    let why = explain(&user, &wish, &seen, &peers, sessions);

    let tags: Vec<String> = wish.tags.iter().map(ToString::to_string).collect();
    let mut out = io::stdout().lock();
    if args.place.json {
        let rule = placed.map(|placed| match placed.by {
            Rule::Pin => "pin",
            Rule::Weight => "weight",
            Rule::LastResort => "last resort",
        });
        let line = json!({
            "user": user,
            "holder": seen.holder.as_ref().map(|holder| &holder.node),
            "incarnation": seen.holder.as_ref().map(|holder| holder.incarnation),
            "epoch": seen.epoch.0,
            "gone": gone,
            "preferred": placed.map(|placed| &placed.on.node),
            "by": rule,
            "pin": wish.pin,
            "tags": tags,
            "sessions": sessions,
            "why": why.join("; "),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let name = |holder: Option<&HolderId>| holder.map_or_else(|| "-".to_owned(), |holder| holder.node.to_string());
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    writeln!(out, "user       {user}")?;
    writeln!(out, "holder     {}{}", name(seen.holder.as_ref()), if gone { " (gone)" } else { "" })?;
    writeln!(out, "epoch      {}", seen.epoch)?;
    writeln!(out, "sessions   {}", or_none(sessions.map(|sessions| sessions.to_string()).unwrap_or_default()))?;
    writeln!(out, "pinned to  {}", or_none(wish.pin.as_ref().map(ToString::to_string).unwrap_or_default()))?;
    writeln!(out, "tags       {}", or_none(tags.join(" ")))?;
    writeln!(out, "preferred  {}", name(placed.map(|placed| placed.on)))?;
    for (number, line) in why.iter().enumerate() {
        writeln!(out, "{}{line}", if number == 0 { "why        " } else { "           " })?;
    }
    Ok(())
}

/// Why the user is where they are, and what comes next, for people.
fn explain(user: &UserName, wish: &Wish, seen: &Seen, peers: &[Peer], sessions: Option<usize>) -> Vec<String> {
    let tags = || directory::list(&wish.tags, &std::collections::BTreeSet::new());
    let Some(placed) = placement::place(user, wish, peers.iter()) else {
        let none = if wish.tags.is_empty() { "no node is up".to_owned() } else { format!("no node with the tags {} is up", tags()) };
        return vec![format!("{none}: logins and deliveries wait for one, and then get a temporary error")];
    };
    let by = match placed.by {
        Rule::Pin => "by its pin".to_owned(),
        Rule::Weight if wish.tags.is_empty() => "by its name and the nodes' weights".to_owned(),
        Rule::Weight => format!("by its name and the weights of the nodes with the tags {}", tags()),
        Rule::LastResort => "because no other that may have it is up and takes users".to_owned(),
    };
    let on = &placed.on.node;
    let holder = seen.holder.as_ref().map(|holder| (holder, peers.iter().find(|peer| peer.holder == *holder)));
    let mut why = Vec::new();
    match holder {
        None => why.push(format!("free: the next login or delivery is placed on {on}, {by}")),
        Some((holder, None)) => {
            why.push(format!("{} is gone: whoever serves {user} next takes over, which is to be {on}, {by}", holder.node));
        }
        Some((holder, Some(_))) if holder.node == *on => why.push(format!("it belongs there, {by}")),
        Some((holder, Some(peer))) => {
            let holder = &holder.node;
            why.push(if peer.draining {
                format!("{holder} is being drained, {on} is next, {by}")
            } else if peer.trouble {
                format!("{holder} is in trouble (`berth nodes`), {on} is next, {by}")
            } else if placed.by == Rule::Pin || !wish.permits(&peer.tags) {
                format!("it belongs on {on}, {by}, and goes there as soon as nobody uses it")
            } else {
                format!("{holder} has it since before, or was told to; it belongs on {on}, {by}, and goes there once nobody used it for mail.linger")
            });
        }
    }
    match (holder, sessions) {
        (Some((_, Some(_))), Some(0)) => {
            why.push("nobody uses it: the lease lingers, so that the next session finds warm caches".to_owned())
        }
        (Some((_, Some(_))), Some(1)) => why.push("1 session uses it".to_owned()),
        (Some((_, Some(_))), Some(sessions)) => why.push(format!("in use by {}", many(sessions, "session"))),
        _ => {}
    }
    if let Some(pin) = wish.pin.as_ref().filter(|_| placed.by != Rule::Pin) {
        let state = match peers.iter().find(|peer| peer.holder.node == *pin) {
            None => "is not up".to_owned(),
            Some(peer) if !wish.permits(&peer.tags) => format!("lacks the tags {}", directory::list(&wish.tags, &peer.tags)),
            Some(peer) if peer.draining => "is being drained".to_owned(),
            Some(peer) if peer.trouble => "is in trouble".to_owned(),
            Some(_) => "gives no sign of life".to_owned(),
        };
        why.push(format!("the pin does not hold at present: {pin} {state}"));
    }
    why
}

pub(super) fn move_users(args: &MoveArgs) -> anyhow::Result<()> {
    let (node, users) = match (args.users_and_node.split_last(), &args.from) {
        (Some((node, [])), Some(_)) => (node, [].as_slice()),
        (Some((node, users)), None) if !users.is_empty() => (node, users),
        _ => return Err(super::usage("move", "the users and then the node are needed, or --from NODE and the node")),
    };
    let node: NodeName = node.parse().with_context(|| format!("{node:?} can't be a node"))?;
    let found = args.place.find()?;
    for node in [Some(&node), args.from.as_ref()].into_iter().flatten() {
        found.ensure_node(node, false)?;
    }
    let users: Vec<UserName> = match &args.from {
        None => users.iter().map(|user| normalise(user, &found.rules)).collect::<anyhow::Result<_>>()?,
        Some(from) if *from == node => bail!("{from} is where they are"),
        Some(from) => {
            let reply: WhoReply = found.ask_node("berth move --from", &Request::Who { user: None })?;
            if reply.silent.iter().any(|silent| *silent == from.as_str()) {
                bail!("{from} does not say whom it holds: it does not answer");
            }
            let held = reply.held.into_iter().filter(|held| held.node.as_deref() == Some(from.as_str()));
            held.map(|held| Ok(UserName::normalise(&held.user)?)).collect::<anyhow::Result<_>>()?
        }
    };
    let is_one = args.from.is_none() && users.len() == 1;
    let moves = users.into_iter().map(|user| Move { user, to: node.to_string() }).collect();
    let outcome = moves::run(&found, "berth move", moves, found.parallel_moves)?;
    let mut out = io::stdout().lock();
    match (outcome.moved.first(), outcome.failed.first()) {
        // One user has a plain answer.
        (None, Some((_, error))) if is_one => bail!("{error}"),
        (Some((one, epoch)), _) if is_one && args.place.json => {
            writeln!(out, "{}", json!({ "user": one.user, "node": node, "epoch": epoch }))?;
        }
        (Some((one, epoch)), _) if is_one => writeln!(out, "{} is on {node} now (epoch {epoch})", one.user)?,
        _ if args.place.json => writeln!(out, "{}", outcome.json())?,
        _ => writeln!(out, "{}", outcome.said())?,
    }
    outcome.check()
}

pub(super) fn kick(args: &KickArgs) -> anyhow::Result<()> {
    if args.user.is_none() && args.ip.is_none() && args.node.is_none() {
        return Err(usage("kick", "whose sessions? Name a USER, or give --ip or --node"));
    }
    let found = args.place.find()?;
    let user = args.user.as_deref().map(|user| normalise(user, &found.rules)).transpose()?;
    if let Some(node) = &args.node {
        found.ensure_node(node, false)?;
    }
    let request = Request::Kick {
        user: user.map(|user| user.to_string()),
        ip: args.ip,
        node: args.node.as_ref().map(ToString::to_string),
        why: args.why.clone(),
    };
    let reply: KickReply = found.ask_node("berth kick", &request)?;
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", json!(reply))?;
    } else {
        writeln!(out, "{} told to end", many(reply.ended, "session"))?;
    }
    if reply.unknown_user {
        eprintln!("no source has this user: is the name right?");
    }
    if !reply.silent.is_empty() {
        bail!("these nodes did not answer, the sessions that they serve go on: {}", reply.silent.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use affinity::{Epoch, Incarnation};

    use super::*;

    fn peer(node: &str) -> Peer {
        Peer {
            holder: HolderId { node: node.parse().unwrap(), incarnation: Incarnation::random() },
            beat: 1,
            unchanged_for: Duration::ZERO,
            suspect: false,
            draining: false,
            trouble: false,
            weight: 100,
            tags: BTreeSet::new(),
            info: None,
        }
    }

    #[test]
    fn where_says_why() {
        let user = UserName::normalise("ada").unwrap();
        let mut peers = vec![peer("a"), peer("b")];
        let held = |peers: &[Peer], number: usize| Seen { epoch: Epoch(3), holder: Some(peers[number].holder.clone()) };
        let free = Seen { epoch: Epoch(3), holder: None };
        let pinned = |node: &str| Wish { pin: Some(node.parse().unwrap()), ..Wish::default() };
        let said = |wish: &Wish, seen: &Seen, peers: &[Peer], sessions| explain(&user, wish, seen, peers, sessions).join("; ");
        assert!(said(&pinned("b"), &free, &peers, None).contains("placed on b, by its pin"));
        let text = said(&pinned("b"), &held(&peers, 0), &peers, Some(2));
        assert!(text.contains("goes there as soon as nobody uses it; in use by 2 sessions"), "{text}");
        assert!(
            said(&pinned("a"), &held(&peers, 0), &peers, Some(0)).contains("belongs there, by its pin; nobody uses it: the lease lingers")
        );
        let text = said(&pinned("z"), &held(&peers, 0), &peers, None);
        assert!(text.contains("the pin does not hold at present: z is not up"), "{text}");
        let eu = Wish { tags: BTreeSet::from(["eu".parse().unwrap()]), ..pinned("a") };
        assert!(said(&eu, &free, &peers, None).contains("no node with the tags eu is up: logins and deliveries wait"));
        peers[1].tags = eu.tags.clone();
        let text = said(&eu, &held(&peers, 0), &peers, None);
        assert!(
            text.contains("belongs on b")
                && text.contains("with the tags eu, and goes there as soon")
                && text.contains("a lacks the tags eu"),
            "{text}"
        );
        peers[0].draining = true;
        assert!(said(&Wish::default(), &held(&peers, 0), &peers, None).contains("a is being drained, b is next"));
        let gone = Seen { epoch: Epoch(3), holder: Some(peer("c").holder) };
        assert!(said(&Wish::default(), &gone, &peers, None).contains("c is gone: whoever serves ada next"));
    }

    #[test]
    fn a_text_for_clients_is_one_line() {
        assert!(one_line("maintenance until 12:00").is_ok());
        for text in ["", "a\r\nA1 OK", "\u{7}", &"x".repeat(WHY_CHARS_MAX + 1), "zoë"] {
            assert!(one_line(text).is_err(), "{text:?}");
        }
    }
}
