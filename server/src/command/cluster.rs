//! `berth nodes` and `berth who`: from the node on this host, or else from the shared directory itself.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use affinity::{Address, NameRules, Root, UserName};
use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ConfigFile, control, directory, table};
use crate::node::{
    control::{HeldLine, NodeLine, Question, Who},
    sessions::SessionLine,
};

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
/// Asks the node on this host if one runs, which asks all others: every session, and who holds whom. Otherwise reads from the shared
/// directory which node holds whom.
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
    fn ask<Reply: serde::de::DeserializeOwned>(&self, question: &Question) -> anyhow::Result<Option<(Source, Reply)>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        Ok(control::ask(socket, question)?.map(|reply| (Source::Node(socket.clone()), reply)))
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

/// One held lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HeldRow {
    pub user: String,
    /// The node; `None`: the lease is free.
    pub holder: Option<String>,
    /// Which start of it; only the directory says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    pub epoch: u64,
    /// The holder is no node any more: whoever serves the user next takes over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

impl From<HeldLine> for HeldRow {
    fn from(line: HeldLine) -> HeldRow {
        HeldRow { user: line.user.to_string(), holder: Some(line.holder), incarnation: None, epoch: line.epoch, gone: false }
    }
}

/// The node's answer to [`Question::Nodes`].
#[derive(Debug, Deserialize)]
struct Nodes {
    nodes: Vec<NodeLine>,
}

pub(super) fn nodes(args: &NodesArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let (source, nodes) = match found.ask::<Nodes>(&Question::Nodes)? {
        Some((source, answer)) => (source, answer.nodes),
        None => (Source::Directory(found.root.clone()), directory::nodes(&found.open()?)?),
    };
    let mut out = io::stdout().lock();
    if args.place.json {
        writeln!(out, "{}", json!({ "source": source.json(), "nodes": nodes }))?;
    } else {
        print_nodes(&mut out, &nodes)?;
        eprintln!("{source}");
    }
    Ok(())
}

pub(super) fn who(args: &WhoArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let user = args.user.as_deref().map(|user| normalise(user, &found.rules)).transpose()?;
    let (source, sessions, held, silent) = match found.ask::<Who>(&Question::Who { user: user.clone() })? {
        Some((source, Who { sessions, held, silent })) => (source, Some(sessions), held.into_iter().map(HeldRow::from).collect(), silent),
        None => {
            let (held, broken) = directory::leases(&found.open()?, user.as_ref())?;
            for error in broken {
                eprintln!("{error}");
            }
            (Source::Directory(found.root.clone()), None, held, Vec::new())
        }
    };
    let mut out = io::stdout().lock();
    if args.place.json {
        // Without a node, sessions are unknown (null), not none.
        writeln!(out, "{}", json!({ "source": source.json(), "sessions": sessions, "held": held, "silent": silent }))?;
    } else {
        print_who(&mut out, sessions.as_deref(), &held)?;
        eprintln!("{source}");
        if !silent.is_empty() {
            eprintln!("no answer from {}: what they serve is missing here", silent.join(", "));
        }
    }
    Ok(())
}

fn normalise(user: &str, rules: &NameRules) -> anyhow::Result<UserName> {
    Ok(Address::parse(user, rules).with_context(|| format!("{user:?} can't be a user"))?.user)
}

fn print_nodes(out: &mut impl Write, nodes: &[NodeLine]) -> io::Result<()> {
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            vec![
                node.name.clone(),
                or_dash(Some(node.state.clone())),
                or_dash(node.sessions.map(|sessions| sessions.to_string())),
                or_dash(node.held.map(|held| held.to_string())),
                node.incarnation.clone(),
                node.beat.to_string(),
                or_dash(node.version.clone()),
                or_dash(Some(node.relay.join(" "))),
                or_dash(node.started.map(date)),
            ]
        })
        .collect();
    table::print(out, &["NODE", "STATE", "SESSIONS", "USERS", "INCARNATION", "BEAT", "VERSION", "RELAY", "SINCE"], &rows)
}

fn print_who(out: &mut impl Write, sessions: Option<&[SessionLine]>, held: &[HeldRow]) -> io::Result<()> {
    if let Some(sessions) = sessions {
        let rows: Vec<Vec<String>> = sessions
            .iter()
            .map(|session| {
                vec![
                    session.user.to_string(),
                    session.protocol.to_string(),
                    session.client.to_string(),
                    session.ingress.to_string(),
                    session.holder.to_string(),
                    humantime::format_duration(Duration::from_secs(session.since_s)).to_string(),
                    session.session.to_string(),
                ]
            })
            .collect();
        table::print(out, &["USER", "PROTOCOL", "CLIENT", "INGRESS", "HOLDER", "SINCE", "SESSION"], &rows)?;
        writeln!(out)?;
    }
    let rows: Vec<Vec<String>> = held
        .iter()
        .map(|held| {
            let gone = if held.gone { " (gone)" } else { "" };
            vec![held.user.clone(), held.holder.clone().unwrap_or_else(|| "free".to_owned()) + gone, held.epoch.to_string()]
        })
        .collect();
    table::print(out, &["USER", "HELD BY", "EPOCH"], &rows)
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
        let node = NodeLine {
            name: "mail1".to_owned(),
            incarnation: "00000000000000ff".to_owned(),
            state: "up".to_owned(),
            beat: 12,
            beat_age_ms: 3,
            weight: 100,
            version: Some("0.1.0".to_owned()),
            relay: vec!["mail1:8143".to_owned()],
            started: Some(1_763_748_000),
            sessions: Some(4),
            held: None,
            here: true,
        };
        assert_eq!(
            text(|out| print_nodes(out, &[node])),
            concat!(
                "NODE   STATE  SESSIONS  USERS  INCARNATION       BEAT  VERSION  RELAY       SINCE\n",
                "mail1  up     4         -      00000000000000ff  12    0.1.0    mail1:8143  2025-11-21T18:00:00Z\n"
            )
        );
    }

    #[test]
    fn leases_say_who_holds_them() {
        let held = |user: &str, holder: Option<&str>, gone| HeldRow {
            user: user.to_owned(),
            holder: holder.map(str::to_owned),
            incarnation: None,
            epoch: 3,
            gone,
        };
        let rows = [held("ada", Some("mail1"), false), held("bob", None, false), held("eve", Some("mail2"), true)];
        let expected = "USER  HELD BY       EPOCH\nada   mail1         3\nbob   free          3\neve   mail2 (gone)  3\n";
        assert_eq!(text(|out| print_who(out, None, &rows)), expected);
        let with_sessions = text(|out| print_who(out, Some(&[]), &rows));
        assert!(with_sessions.starts_with("USER  PROTOCOL  CLIENT") && with_sessions.ends_with(expected), "{with_sessions}");
    }

    #[test]
    fn what_a_node_answers_is_understood() {
        use crate::node::control::Answer;
        let held = HeldLine { user: UserName::normalise("ada").unwrap(), epoch: 3, holder: "mail1".to_owned() };
        let answer = serde_json::to_string(&Answer::Who(Who { sessions: Vec::new(), held: vec![held], silent: vec!["mail2".to_owned()] }));
        let who: Who = serde_json::from_str(&answer.unwrap()).unwrap();
        assert_eq!((who.held[0].holder.as_str(), who.silent[0].as_str()), ("mail1", "mail2"));
        let answer = serde_json::to_string(&Answer::Nodes { nodes: Vec::new() }).unwrap();
        assert!(serde_json::from_str::<Nodes>(&answer).unwrap().nodes.is_empty());
    }
}
