//! `berth nodes` and `berth who`: from the node on this host, or else from the shared directory itself.

use std::{
    io::{self, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use affinity::NodeName;
use clap::Args;
use serde_json::json;

pub use super::control::{FencedRow, HeldRow, NodeRow, NodesReply, Request, SessionRow, WhoReply};
use super::{
    directory,
    place::{Place, Source, normalise},
    table,
};
use crate::client::Protocol;

/// How long the shared directory may take to tell of ended nodes, which a node's own answer must not wait for.
const FENCED_WAIT: Duration = Duration::from_secs(3);

/// Show the nodes of the cluster
///
/// Asks the node on this host if one runs, and reads the shared directory otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth nodes\n  berth nodes --root /srv/berth --json")]
pub struct NodesArgs {
    #[command(flatten)]
    place: Place,
}

/// Show who is served where
///
/// Asks the node on this host if one runs, which asks all others: every session and every held user. Otherwise reads from the shared directory which node holds whom.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth who\n  berth who ada@example.org\n  berth who --node mail2 --protocol imap\n  berth who --root /srv/berth    every held user of the cluster"
)]
pub struct WhoArgs {
    /// Only this user
    user: Option<String>,
    /// Only sessions served by or reached through this node, and what it holds
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Only sessions of this protocol: imap or pop3
    #[arg(long, value_parser = protocol)]
    protocol: Option<Protocol>,
    #[command(flatten)]
    place: Place,
}

pub(super) fn nodes(args: &NodesArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let (source, mut reply) = match found.ask::<NodesReply>(&Request::Nodes)? {
        Some(answer) => answer,
        None => (found.directory(), NodesReply { nodes: directory::nodes(&found.open()?)?, fenced: Vec::new(), cache: None }),
    };
    // On a thread: where the file server is away this would hang, and what the node said is worth showing all the same.
    let (done, fenced) = mpsc::channel();
    let opened = found.clone();
    thread::spawn(move || done.send(opened.open().and_then(|root| Ok(directory::fenced(&root)?))));
    match fenced.recv_timeout(FENCED_WAIT) {
        Ok(fenced) => reply.fenced = fenced?,
        Err(_) => eprintln!("the shared directory does not answer: nodes that were fenced or left are not shown"),
    }
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", json!({ "source": source.json(), "nodes": reply.nodes, "fenced": reply.fenced, "cache": reply.cache }))?;
    } else {
        print_nodes(&mut out, &reply.nodes)?;
        print_trouble(&mut out, &reply.nodes)?;
        print_fenced(&mut out, &reply.fenced)?;
        eprintln!("{source}");
    }
    Ok(())
}

pub(super) fn who(args: &WhoArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = args.user.as_deref().map(|user| normalise(user, &found.rules)).transpose()?;
    if let Some(node) = &args.node {
        found.ensure_node(node, false)?;
    }
    let (source, mut reply) = match found.ask::<WhoReply>(&Request::Who { user: user.as_ref().map(ToString::to_string) })? {
        Some(answer) => answer,
        None => {
            let (held, broken) = directory::leases(&found.open()?, user.as_ref())?;
            for error in broken {
                eprintln!("{error}");
            }
            (found.directory(), WhoReply { held, ..WhoReply::default() })
        }
    };
    if let Some(node) = args.node.as_ref().map(NodeName::as_str) {
        reply.sessions.retain(|session| session.holder == node || session.ingress == node);
        reply.held.retain(|held| held.node.as_deref() == Some(node));
    }
    if let Some(protocol) = args.protocol {
        reply.sessions.retain(|session| session.protocol == protocol.to_string());
    }
    let mut out = io::stdout().lock();
    if args.place.json {
        // Without a node, sessions are unknown (null), not none.
        let sessions = matches!(source, Source::Node(_)).then_some(&reply.sessions);
        writeln!(out, "{}", json!({ "source": source.json(), "sessions": sessions, "held": reply.held, "silent": reply.silent }))?;
    } else {
        print_who(&mut out, &reply, matches!(source, Source::Node(_)))?;
        if !reply.silent.is_empty() {
            eprintln!("these nodes did not answer, what they serve is missing: {}", reply.silent.join(" "));
        }
        eprintln!("{source}");
    }
    let is_there = !reply.sessions.is_empty() || reply.held.iter().any(|held| held.epoch > 0);
    if user.is_some_and(|user| !is_there && found.knows(&user) == Some(false)) {
        eprintln!("no source has this user: is the name right?");
    }
    Ok(())
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "imap" => Ok(Protocol::Imap),
        "pop3" => Ok(Protocol::Pop3),
        _ => Err("imap or pop3; LMTP has no sessions of a user".to_owned()),
    }
}

fn count(count: Option<usize>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn print_nodes(out: &mut impl Write, nodes: &[NodeRow]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            vec![
                node.name.clone(),
                node.state.clone().unwrap_or_else(|| "-".to_owned()),
                node.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string()),
                if node.tags.is_empty() { "-".to_owned() } else { node.tags.join(",") },
                count(node.connections),
                count(node.sessions),
                count(node.held),
                node.incarnation.clone(),
                node.beat.to_string(),
                node.version.clone().unwrap_or_else(|| "-".to_owned()),
                if node.relay.is_empty() { "-".to_owned() } else { node.relay.join(" ") },
                node.since.map_or_else(|| "-".to_owned(), date),
            ]
        })
        .collect();
    table::print(
        out,
        &["NODE", "STATE", "WEIGHT", "TAGS", "CONNECTIONS", "SESSIONS", "HELD", "INCARNATION", "BEAT", "VERSION", "RELAY", "SINCE"],
        &rows,
    )
}

fn print_trouble(out: &mut impl Write, nodes: &[NodeRow]) -> io::Result<()> {
    for node in nodes {
        for trouble in &node.trouble {
            writeln!(out, "{}: {trouble}", node.name)?;
        }
    }
    Ok(())
}

fn print_fenced(out: &mut impl Write, fenced: &[FencedRow]) -> io::Result<()> {
    if fenced.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = fenced
        .iter()
        .map(|row| {
            let at = row.at.map_or_else(|| "-".to_owned(), date);
            let back = if row.back { "runs again" } else { "does not run" };
            vec![row.name.clone(), why(row), row.incarnation.clone(), row.beat.to_string(), at, back.to_owned()]
        })
        .collect();
    writeln!(out)?;
    table::print(out, &["ENDED", "WHY", "INCARNATION", "LAST BEAT", "AT", "NOW"], &rows)
}

/// How a start of a node ended, in words.
fn why(row: &FencedRow) -> String {
    match (row.why.as_str(), &row.by) {
        ("left", _) => "left (stopped)".to_owned(),
        ("fenced", Some(by)) => format!("silent, fenced by {by}"),
        ("operator", _) => "fenced by an operator".to_owned(),
        ("resigned", _) => "gave its users up".to_owned(),
        ("restarted", _) => "was started again".to_owned(),
        ("name-taken", _) => "another start took its name".to_owned(),
        _ => "-".to_owned(),
    }
}

fn print_who(out: &mut impl Write, reply: &WhoReply, with_sessions: bool) -> io::Result<()> {
    if with_sessions {
        let rows: Vec<Vec<String>> = reply
            .sessions
            .iter()
            .map(|session| {
                let time = |seconds| humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string();
                vec![
                    session.user.clone(),
                    session.protocol.clone(),
                    session.client.clone(),
                    session.ingress.clone(),
                    session.holder.clone(),
                    time(session.since_s),
                    time(session.idle_s),
                    session.session.clone(),
                ]
            })
            .collect();
        table::print(out, &["USER", "PROTOCOL", "CLIENT", "INGRESS", "HOLDER", "SINCE", "IDLE", "SESSION"], &rows)?;
        writeln!(out)?;
    }
    let rows: Vec<Vec<String>> = reply
        .held
        .iter()
        .map(|held| {
            let gone = if held.gone { " (gone)" } else { "" };
            vec![
                held.user.clone(),
                held.node.clone().unwrap_or_else(|| "free".to_owned()) + gone,
                held.epoch.to_string(),
                held.incarnation.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    table::print(out, &["USER", "HELD BY", "EPOCH", "INCARNATION"], &rows)
}

/// Unix seconds as people read them, UTC.
fn date(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nodes_are_a_table() {
        let node = NodeRow {
            name: "mail1".to_owned(),
            incarnation: "00000000000000ff".to_owned(),
            beat: 12,
            version: Some("0.1.0".to_owned()),
            relay: vec!["mail1:8143".to_owned()],
            since: Some(1_763_748_000),
            state: None,
            weight: Some(50),
            tags: vec!["eu".to_owned(), "fast".to_owned()],
            sessions: Some(2),
            connections: Some(7),
            held: None,
            trouble: vec!["node.local_dir is full".to_owned()],
        };
        assert_eq!(
            text(|out| print_nodes(out, std::slice::from_ref(&node))),
            "NODE   STATE  WEIGHT  TAGS     CONNECTIONS  SESSIONS  HELD  INCARNATION       BEAT  VERSION  RELAY       SINCE\n\
             mail1  -      50      eu,fast  7            2         -     00000000000000ff  12    0.1.0    mail1:8143  2025-11-21T18:00:00Z\n"
        );
        assert_eq!(text(|out| print_trouble(out, &[node])), "mail1: node.local_dir is full\n");
    }

    #[test]
    fn what_ended_says_how() {
        let row = |why: &str, by: Option<&str>| FencedRow {
            name: "mail2".to_owned(),
            incarnation: "ff".to_owned(),
            beat: 351,
            why: why.to_owned(),
            by: by.map(str::to_owned),
            at: None,
            back: true,
        };
        assert_eq!(
            text(|out| print_fenced(out, &[row("fenced", Some("mail1")), row("left", None)])),
            "\nENDED  WHY                      INCARNATION  LAST BEAT  AT  NOW\n\
             mail2  silent, fenced by mail1  ff           351        -   runs again\n\
             mail2  left (stopped)           ff           351        -   runs again\n"
        );
    }

    #[test]
    fn leases_say_who_holds_them() {
        let held = |user: &str, node: Option<&str>| HeldRow {
            user: user.to_owned(),
            node: node.map(str::to_owned),
            incarnation: node.map(|_| "ff".to_owned()),
            epoch: 3,
            gone: false,
        };
        let reply = WhoReply { held: vec![held("ada", Some("mail1")), held("bob", None)], ..WhoReply::default() };
        assert_eq!(
            text(|out| print_who(out, &reply, false)),
            "USER  HELD BY  EPOCH  INCARNATION\nada   mail1    3      ff\nbob   free     3      -\n"
        );
    }
}
