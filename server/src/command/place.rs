//! Where a command asks: the node on this host, by its configuration, or the shared directory itself.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use affinity::{Address, NameRules, NodeName, Root, UserName};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{
    ConfigFile, control,
    control::{NodesReply, Request, SettingsReply},
    directory::Wishes,
    runtime,
};
use crate::{
    auth::Authenticator,
    config::{AuthSection, Limits},
};

/// Which cluster, and how to answer.
#[derive(Debug, Args)]
pub struct Place {
    /// The configuration of the node on this host [env: BERTH_CONFIG] [default: /etc/berth/berth.toml]
    #[arg(long, short = 'c', value_name = "FILE", conflicts_with = "root")]
    pub config: Option<PathBuf>,
    /// Read this shared directory, ask no node
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The same for what only a running node can do.
#[derive(Debug, Args)]
pub struct NodePlace {
    /// The configuration of the node on this host [env: BERTH_CONFIG] [default: /etc/berth/berth.toml]
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl NodePlace {
    /// Reads the configuration.
    pub fn find(&self) -> anyhow::Result<Found> {
        Place { config: self.config.clone(), root: None, json: self.json }.find()
    }
}

/// Who says that they read a changed setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Nobody could be asked: nodes see it within ten beats.
    NotAsked,
    /// These nodes did.
    By(Vec<String>),
}

impl Told {
    /// Whether this node did.
    pub fn includes(&self, node: &NodeName) -> bool {
        matches!(self, Told::By(nodes) if nodes.iter().any(|name| name == node.as_str()))
    }
}

/// Where to ask.
#[derive(Debug, Clone)]
pub struct Found {
    /// The control socket of the node on this host; `None`: no node is to be asked.
    pub socket: Option<PathBuf>,
    /// The shared directory.
    pub root: PathBuf,
    /// What cluster it must be.
    pub cluster_id: Option<String>,
    /// How user names are written.
    pub rules: NameRules,
    /// Who the users are; `None`: only known with a configuration.
    users: Option<(AuthSection, PathBuf)>,
    /// Users that may be moved at once.
    pub parallel_moves: usize,
}

impl Place {
    /// Reads the configuration.
    pub fn find(&self) -> anyhow::Result<Found> {
        if let Some(root) = &self.root {
            return Ok(Found {
                socket: None,
                root: root.clone(),
                cluster_id: None,
                rules: NameRules::default(),
                users: None,
                parallel_moves: Limits::default().parallel_moves,
            });
        }
        let config = ConfigFile::or_default(self.config.as_ref()).load()?;
        Ok(Found {
            socket: Some(config.control_socket()),
            users: Some((config.auth.clone(), config.passwd_file())),
            parallel_moves: config.limits.parallel_moves,
            root: config.node.root,
            cluster_id: config.node.cluster_id,
            rules: config.auth.names,
        })
    }
}

impl Found {
    /// Opens the shared directory.
    pub fn open(&self) -> anyhow::Result<Root> {
        Ok(Root::open(&self.root, self.cluster_id.as_deref())?)
    }

    /// What operators wish for users. Tags are in the users file, whose place only a configuration tells.
    pub fn wishes(&self, root: &Root) -> anyhow::Result<Wishes> {
        let users = self.users.as_ref().and_then(|(section, file)| {
            let opened = Authenticator::open(section, file.clone());
            opened.inspect_err(|error| eprintln!("the tags of users are not known: {error:#}")).ok()
        });
        Ok(Wishes::new(root.pins()?, users))
    }

    /// After a change of settings: has every node read them now. The setting is what counts; nodes look at it every ten beats in any case. An error
    /// where nodes were asked and none could read it. `change` is for the log.
    pub fn tell_nodes(&self, change: &str) -> anyhow::Result<Told> {
        match self.ask::<SettingsReply>(&Request::Settings { change: Some(change.to_owned()) }) {
            Ok(None) => {
                eprintln!("no node runs on this host that could tell the others: they see it within ten beats");
                Ok(Told::NotAsked)
            }
            Ok(Some((_, SettingsReply { read: None, silent }))) => {
                eprintln!("the node on this host is of an older build and can't say who saw it: {}", silent.join(" "));
                Ok(Told::NotAsked)
            }
            Ok(Some((_, reply))) if reply.read.as_ref().is_some_and(Vec::is_empty) && !reply.silent.is_empty() => {
                bail!(
                    "it is set, but no node could read it ({}): their logs say why, and `berth doctor` looks at owners and modes",
                    reply.silent.join(" ")
                )
            }
            Ok(Some((_, reply))) => {
                if !reply.silent.is_empty() {
                    eprintln!("these nodes did not say that they saw it, they do within ten beats if they can: {}", reply.silent.join(" "));
                }
                Ok(Told::By(reply.read.unwrap_or_default()))
            }
            Err(error) => {
                eprintln!("nodes were not told and see it within ten beats: {error:#}");
                Ok(Told::NotAsked)
            }
        }
    }

    /// Whether a node says now that it has read the settings.
    pub fn confirms(&self, node: &NodeName) -> bool {
        let asked = self.ask::<SettingsReply>(&Request::Settings { change: None });
        matches!(asked, Ok(Some((_, reply))) if reply.read.iter().flatten().any(|name| name == node.as_str()))
    }

    /// Refuses a node that nobody knows, unless `force`: a misspelt name would stay under `settings/` for ever.
    pub fn ensure_node(&self, node: &NodeName, force: bool) -> anyhow::Result<()> {
        // A node that runs knows the others without the shared directory, which may be away, or not for this account to read.
        let asked = || self.ask::<NodesReply>(&Request::Nodes).ok().flatten();
        if force || asked().is_some_and(|(_, reply)| reply.nodes.iter().any(|row| row.name == node.as_str())) {
            return Ok(());
        }
        let known = match self.known_nodes() {
            Ok(known) => known,
            Err(error) => {
                eprintln!("whether there is a node {node} can't be told: {error}");
                return Ok(());
            }
        };
        if known.contains(node) {
            return Ok(());
        }
        let known: Vec<&str> = known.iter().map(NodeName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(" ") };
        bail!(
            "no node {node} was ever seen, known: {known}; nothing was done (--force, where there is one, sets up a node that is yet to come)"
        )
    }

    /// Nodes that are up, that were, and that have settings.
    fn known_nodes(&self) -> anyhow::Result<BTreeSet<NodeName>> {
        let root = self.open()?;
        let mut known: BTreeSet<NodeName> = root.live_nodes()?.into_iter().map(|seen| seen.holder.node).collect();
        known.extend(root.fenced_nodes()?.into_iter().map(|ended| ended.file.holder.node));
        known.extend(root.nodes_with_settings()?);
        Ok(known)
    }

    /// Whether a source has the user; `None`: that can't be told, which is said.
    pub fn knows(&self, user: &UserName) -> Option<bool> {
        let (section, file) = self.users.as_ref()?;
        let asked = Authenticator::open(section, file.clone()).and_then(|users| Ok(runtime()?.block_on(users.record(user))?.is_some()));
        asked.inspect_err(|error| eprintln!("whether there is a user {user} can't be told: {error:#}")).ok()
    }

    /// Refuses a user whom no source has.
    pub fn ensure_user(&self, user: &UserName) -> anyhow::Result<()> {
        if self.knows(user) == Some(false) {
            bail!("{}; nothing was done", no_user(user));
        }
        Ok(())
    }

    /// The shared directory as a source.
    pub fn directory(&self) -> Source {
        Source::Directory(self.root.clone())
    }

    /// The answer of the node on this host; an error where none runs: `what` needs one.
    pub fn ask_node<Reply: serde::de::DeserializeOwned>(&self, what: &str, request: &Request) -> anyhow::Result<Reply> {
        match self.ask(request)? {
            Some((_, reply)) => Ok(reply),
            None => bail!("{what} needs a running node on this host: run it where one is, with its configuration"),
        }
    }

    /// The answer of the node on this host, if one runs.
    pub fn ask<Reply: serde::de::DeserializeOwned>(&self, request: &Request) -> anyhow::Result<Option<(Source, Reply)>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        Ok(control::ask(socket, request)?.map(|reply| (Source::Node(socket.clone()), reply)))
    }
}

/// Where an answer is from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The node behind this socket.
    Node(PathBuf),
    /// The shared directory itself.
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
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Source::Node(socket) => json!({ "node": socket }),
            Source::Directory(root) => json!({ "directory": root }),
        }
    }
}

/// What is said of a user whom no source has.
pub fn no_user(user: &UserName) -> String {
    format!("there is no user {user} (`berth user list`, `berth user test {user}`)")
}

/// A user name as it is typed.
pub fn normalise(user: &str, rules: &NameRules) -> anyhow::Result<UserName> {
    Ok(Address::parse(user, rules).with_context(|| format!("{user:?} can't be a user"))?.user)
}
