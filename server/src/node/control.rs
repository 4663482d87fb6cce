//! The control socket `<local_dir>/control.sock`: one JSON line asked, one answered. Who can open the socket (mode 0600) may ask.

use std::{io, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use affinity::UserName;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{Node, sessions::SessionLine};
use crate::forward::frames::{self, Request, WhoReply};

/// Longest question.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How long an asker may take, and how long another node may.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Every session and lease of the cluster (of one user).
    Who {
        /// Only this user's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<UserName>,
    },
    /// Every node, with what it serves.
    Nodes,
}

/// The answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Question::Who`].
    Who(Who),
    /// To [`Question::Nodes`].
    Nodes {
        /// Sorted by name.
        nodes: Vec<NodeLine>,
    },
    /// The question was not understood.
    Error {
        /// Why.
        error: String,
    },
}

/// Who holds whom.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Who {
    /// Sessions, by user.
    pub sessions: Vec<SessionLine>,
    /// Leases, by user.
    pub held: Vec<HeldLine>,
    /// Nodes that did not answer: what they serve is missing here.
    pub silent: Vec<String>,
}

/// One lease.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldLine {
    /// Whose.
    pub user: UserName,
    /// Its generation.
    pub epoch: u64,
    /// Who holds it.
    pub holder: String,
}

/// One node.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// This start of it.
    pub incarnation: String,
    /// `up`, `suspect`, `draining`.
    pub state: String,
    /// Its beat.
    pub beat: u64,
    /// How long the beat has not changed, milliseconds.
    pub beat_age_ms: u64,
    /// Share of new users.
    pub weight: u32,
    /// Its program.
    pub version: Option<String>,
    /// Where its relay is.
    pub relay: Vec<String>,
    /// Unix time of its start.
    pub started: Option<u64>,
    /// Sessions it serves; `None`: it did not answer.
    pub sessions: Option<usize>,
    /// Users it holds; `None`: it did not answer.
    pub held: Option<usize>,
    /// Whether it is the node that answers.
    pub here: bool,
}

/// Answers until the node stops.
pub async fn listen(node: Arc<Node>, path: PathBuf) -> anyhow::Result<()> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => anyhow::bail!("can't replace {}: {error}", path.display()),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(|error| anyhow::anyhow!("can't listen on {}: {error}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "can't accept on the control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = node.stop_listening.cancelled() => return,
            };
            let node = node.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(&node, stream).await {
                    tracing::debug!(%error, "a control connection ended early");
                }
            });
        }
    });
    Ok(())
}

async fn serve(node: &Arc<Node>, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(ANSWER_TIMEOUT, BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Question>(&line) {
        Ok(Question::Who { user }) => Answer::Who(who(node, user).await),
        Ok(Question::Nodes) => Answer::Nodes { nodes: nodes(node).await },
        Err(error) => Answer::Error { error: error.to_string() },
    };
    let mut text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Asks every live node, this one included.
async fn ask_all(node: &Arc<Node>, user: Option<UserName>) -> Vec<(affinity::Peer, Option<WhoReply>)> {
    let me = node.keeper.me();
    let asked = node.keeper.peers().into_iter().map(|peer| {
        let (user, me) = (user.clone(), me.clone());
        async move {
            let reply = if peer.holder == me { Some(own(node, user.as_ref())) } else { ask(node, &peer, user).await };
            (peer, reply)
        }
    });
    join_all(asked).await
}

/// What this node itself serves.
pub fn own(node: &Arc<Node>, user: Option<&UserName>) -> WhoReply {
    let held = node
        .keeper
        .held()
        .into_iter()
        .filter(|(held, _)| user.is_none_or(|user| user == held))
        .map(|(user, epoch)| (user, epoch.0))
        .collect();
    WhoReply { sessions: node.sessions.list(user), held }
}

async fn ask(node: &Arc<Node>, peer: &affinity::Peer, user: Option<UserName>) -> Option<WhoReply> {
    let exchange = async {
        let (mut stream, _broken) = node.links.open(node, &peer.holder).await.map_err(io::Error::other)?;
        frames::write(&mut stream, &Request::Who { user }).await?;
        frames::read::<WhoReply, _>(&mut stream).await
    };
    match timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(Ok(reply)) => Some(reply),
        Ok(Err(error)) => {
            tracing::warn!(peer = %peer.holder, %error, "a node does not answer");
            None
        }
        Err(_) => None,
    }
}

async fn who(node: &Arc<Node>, user: Option<UserName>) -> Who {
    let mut who = Who::default();
    for (peer, reply) in ask_all(node, user).await {
        match reply {
            Some(reply) => {
                who.sessions.extend(reply.sessions);
                who.held.extend(reply.held.into_iter().map(|(user, epoch)| HeldLine { user, epoch, holder: peer.holder.node.to_string() }));
            }
            None => who.silent.push(peer.holder.node.to_string()),
        }
    }
    who.sessions.sort_by(|a, b| (&a.user, b.since_s).cmp(&(&b.user, a.since_s)));
    who.held.sort_by(|a, b| a.user.cmp(&b.user));
    who
}

async fn nodes(node: &Arc<Node>) -> Vec<NodeLine> {
    let me = node.keeper.me();
    ask_all(node, None)
        .await
        .into_iter()
        .map(|(peer, reply)| NodeLine {
            name: peer.holder.node.to_string(),
            incarnation: peer.holder.incarnation.to_string(),
            state: match (peer.suspect, peer.draining) {
                (true, _) => "suspect",
                (false, true) => "draining",
                (false, false) => "up",
            }
            .to_owned(),
            beat: peer.beat,
            beat_age_ms: u64::try_from(peer.unchanged_for.as_millis()).unwrap_or(u64::MAX),
            weight: peer.weight,
            version: peer.info.as_ref().map(|info| info.version.clone()),
            relay: peer.info.as_ref().map(|info| info.relay.clone()).unwrap_or_default(),
            started: peer.info.as_ref().map(|info| info.started),
            sessions: reply.as_ref().map(|reply| reply.sessions.len()),
            held: reply.as_ref().map(|reply| reply.held.len()),
            here: peer.holder == me,
        })
        .collect()
}
