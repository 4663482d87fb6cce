//! `berth nodes` and `berth who`: from the node on this host, or else from the shared directory itself.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use affinity::{Address, NameRules, Root, UserName};
use anyhow::Context;
use clap::Args;
use serde_json::json;

pub use super::control::{HeldRow, NodeRow, NodesReply, Request, SessionRow, WhoReply};
use super::{ConfigFile, control, directory, table};

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
    after_help = "Examples:\n  berth who\n  berth who ada@example.org\n  berth who --root /srv/berth    every held user of the cluster"
)]
pub struct WhoArgs {
    /// Only this user
    user: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// The configuration of the node on this host [env: BERTH_CONFIG] [default: /etc/berth/berth.toml]
    #[arg(long, short = 'c', value_name = "FILE", conflicts_with = "root")]
    config: Option<PathBuf>,
    /// Read this shared directory, ask no node
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where to ask.
struct Found {
    socket: Option<PathBuf>,
    root: PathBuf,
    cluster_id: Option<String>,
    rules: NameRules,
}

impl Place {
    fn find(&self) -> anyhow::Result<Found> {
        if let Some(root) = &self.root {
            return Ok(Found { socket: None, root: root.clone(), cluster_id: None, rules: NameRules::default() });
        }
        let config = ConfigFile::or_default(self.config.as_ref()).load()?;
        Ok(Found {
            socket: Some(config.control_socket()),
            root: config.node.root,
            cluster_id: config.node.cluster_id,
            rules: config.auth.names,
        })
    }
}

impl Found {
    fn open(&self) -> anyhow::Result<Root> {
        Ok(Root::open(&self.root, self.cluster_id.as_deref())?)
    }

    /// The answer of the node on this host, if one runs.
    fn ask<Reply: serde::de::DeserializeOwned>(&self, request: &Request) -> anyhow::Result<Option<(Source, Reply)>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        Ok(control::ask(socket, request)?.map(|reply| (Source::Node(socket.clone()), reply)))
    }
}

/// Where an answer is from.
#[derive(Debug, Clone)]
enum Source {
    Node(PathBuf),
    Directory(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Node(socket) => write!(f, "from the node on this host ({})", socket.display()),
            Source::Directory(root) => write!(f, "from the shared directory ({}); no node was asked", root.display()),
        }
    }
}

impl Source {
    fn json(&self) -> serde_json::Value {
        match self {
            Source::Node(socket) => json!({ "node": socket }),
            Source::Directory(root) => json!({ "directory": root }),
        }
    }
}

pub(super) fn nodes(args: &NodesArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let (source, reply) = match found.ask(&Request::Nodes)? {
        Some(answer) => answer,
        None => (Source::Directory(found.root.clone()), NodesReply { nodes: directory::nodes(&found.open()?)? }),
    };
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", json!({ "source": source.json(), "nodes": reply.nodes }))?;
    } else {
        print_nodes(&mut out, &reply.nodes)?;
        eprintln!("{source}");
    }
    Ok(())
}

pub(super) fn who(args: &WhoArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = args.user.as_deref().map(|user| normalise(user, &found.rules)).transpose()?;
    let (source, reply) = match found.ask(&Request::Who { user: user.as_ref().map(ToString::to_string) })? {
        Some(answer) => answer,
        None => {
            let (held, broken) = directory::leases(&found.open()?, user.as_ref())?;
            for error in broken {
                eprintln!("{error}");
            }
            (Source::Directory(found.root.clone()), WhoReply { held, ..WhoReply::default() })
        }
    };
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
    Ok(())
}

pub(super) fn normalise(user: &str, rules: &NameRules) -> anyhow::Result<UserName> {
    Ok(Address::parse(user, rules).with_context(|| format!("{user:?} can't be a user"))?.user)
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
    table::print(out, &["NODE", "STATE", "SESSIONS", "HELD", "INCARNATION", "BEAT", "VERSION", "RELAY", "SINCE"], &rows)
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
            sessions: Some(2),
            held: None,
        };
        assert_eq!(
            text(|out| print_nodes(out, &[node])),
            "NODE   STATE  SESSIONS  HELD  INCARNATION       BEAT  VERSION  RELAY       SINCE\n\
             mail1  -      2         -     00000000000000ff  12    0.1.0    mail1:8143  2025-11-21T18:00:00Z\n"
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
