//! `berth where`, `berth move`, `berth kick`: one user, or some sessions.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::IpAddr,
};

use affinity::{HolderId, NodeName};
use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{
    control::{KickReply, MoveReply, Request},
    directory,
    place::{Place, normalise},
};

/// Show which node has a user, and why
///
/// Reads the shared directory: holder and epoch of the lease, and the node that the user belongs on by weights and drains.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth where ada@example.org")]
pub struct WhereArgs {
    /// The user
    user: String,
    #[command(flatten)]
    place: Place,
}

/// Move a user to a node
///
/// The holder lets running commands finish, says goodbye to the user's sessions, closes the account and hands the lease over; the other node takes it
/// at once. Clients connect again, mail that arrives meanwhile waits. When nobody has used the account for `mail.linger`, the user may be placed anew.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth move ada@example.org mail2")]
pub struct MoveArgs {
    /// The user
    user: String,
    /// The node
    node: NodeName,
    #[command(flatten)]
    place: Place,
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
    #[arg(required_unless_present_any = ["ip", "node"])]
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
    place: Place,
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
    // Listed after the lease: who is missing then is gone for good.
    let peers = directory::peers(root.live_nodes()?);
    let live: BTreeSet<HolderId> = peers.iter().map(|peer| peer.holder.clone()).collect();
    let preferred = directory::preferred(&user, &peers);
    let gone = seen.holder.as_ref().is_some_and(|holder| !live.contains(holder));
    let drains = |node: &HolderId| peers.iter().any(|peer| peer.holder == *node && peer.draining);
    let why = match (&seen.holder, &preferred) {
        (_, None) => "no node is up".to_owned(),
        (None, Some(preferred)) => format!("free: the next login or delivery is placed on {}", preferred.node),
        (Some(holder), Some(preferred)) if gone => {
            format!("{} is gone: whoever serves {user} next takes over, which is to be {}", holder.node, preferred.node)
        }
        (Some(holder), Some(preferred)) if holder.node == preferred.node => "it belongs there, by name and weights".to_owned(),
        (Some(holder), Some(preferred)) if drains(holder) => format!("{} is being drained, {} is next", holder.node, preferred.node),
        (Some(holder), Some(preferred)) => {
            format!("{} has it since before, or was told to; it belongs on {} once nobody uses it", holder.node, preferred.node)
        }
    };
    let mut out = io::stdout().lock();
    if args.place.json {
        let line = json!({
            "user": user,
            "holder": seen.holder.as_ref().map(|holder| holder.node.to_string()),
            "incarnation": seen.holder.as_ref().map(|holder| holder.incarnation.to_string()),
            "epoch": seen.epoch.0,
            "gone": gone,
            "preferred": preferred.map(|holder| holder.node.to_string()),
            "why": why,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let name = |holder: &Option<HolderId>| holder.as_ref().map_or_else(|| "-".to_owned(), |holder| holder.node.to_string());
    writeln!(out, "user       {user}")?;
    writeln!(out, "holder     {}{}", name(&seen.holder), if gone { " (gone)" } else { "" })?;
    writeln!(out, "epoch      {}", seen.epoch)?;
    writeln!(out, "preferred  {}", name(&preferred))?;
    writeln!(out, "why        {why}")?;
    Ok(())
}

pub(super) fn move_user(args: &MoveArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = normalise(&args.user, &found.rules)?;
    let request = Request::Move { user: user.to_string(), to: args.node.to_string() };
    let MoveReply { epoch } = found.ask_node("berth move", &request)?;
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", json!({ "user": user, "node": args.node, "epoch": epoch }))?;
    } else {
        writeln!(out, "{user} is on {} now (epoch {epoch})", args.node)?;
    }
    Ok(())
}

pub(super) fn kick(args: &KickArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = args.user.as_deref().map(|user| normalise(user, &found.rules)).transpose()?;
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
        writeln!(out, "{} sessions were told to end", reply.ended)?;
    }
    if !reply.silent.is_empty() {
        bail!("these nodes did not answer, the sessions that they serve go on: {}", reply.silent.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_for_clients_is_one_line() {
        assert!(one_line("maintenance until 12:00").is_ok());
        for text in ["", "a\r\nA1 OK", "\u{7}", &"x".repeat(WHY_CHARS_MAX + 1), "zoë"] {
            assert!(one_line(text).is_err(), "{text:?}");
        }
    }
}
