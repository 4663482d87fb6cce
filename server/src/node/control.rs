//! The control socket `<local_dir>/control.sock`: one JSON line asked, one answered. Who can open the socket (mode 0600) may ask.

use std::{io, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use affinity::UserName;
use futures::future::join_all;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{Node, sessions::SessionLine};
use crate::{
    command::control::{self, HeldRow, NodeRow, NodesReply, Request as Question, SessionRow},
    forward::frames::{self, Request, WhoReply},
};

/// Longest question.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How long an asker may take, and how long another node may.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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
        Ok(Question::Who { user }) => match user.map(|user| UserName::normalise(&user)).transpose() {
            Ok(user) => serde_json::to_vec(&who(node, user).await),
            Err(error) => serde_json::to_vec(&serde_json::json!({ "error": error.to_string() })),
        },
        Ok(Question::Nodes) => serde_json::to_vec(&nodes(node).await),
        Err(error) => serde_json::to_vec(&serde_json::json!({ "error": error.to_string() })),
    };
    let mut text = answer.map_err(io::Error::other)?;
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

async fn who(node: &Arc<Node>, user: Option<UserName>) -> control::WhoReply {
    let mut who = control::WhoReply::default();
    for (peer, reply) in ask_all(node, user).await {
        let Some(reply) = reply else {
            who.silent.push(peer.holder.node.to_string());
            continue;
        };
        who.sessions.extend(reply.sessions.into_iter().map(session_row));
        who.held.extend(reply.held.into_iter().map(|(user, epoch)| HeldRow {
            user: user.to_string(),
            node: Some(peer.holder.node.to_string()),
            incarnation: Some(peer.holder.incarnation.to_string()),
            epoch,
            gone: false,
        }));
    }
    who.sessions.sort_by(|a, b| (&a.user, b.since_s).cmp(&(&b.user, a.since_s)));
    who.held.sort_by(|a, b| a.user.cmp(&b.user));
    who
}

fn session_row(line: SessionLine) -> SessionRow {
    SessionRow {
        user: line.user.to_string(),
        protocol: line.protocol.to_string(),
        session: line.session.to_string(),
        client: line.client.to_string(),
        ingress: line.ingress.to_string(),
        holder: line.holder.to_string(),
        since_s: line.since_s,
        idle_s: line.idle_s,
    }
}

async fn nodes(node: &Arc<Node>) -> NodesReply {
    let rows = ask_all(node, None).await.into_iter().map(|(peer, reply)| NodeRow {
        name: peer.holder.node.to_string(),
        incarnation: peer.holder.incarnation.to_string(),
        beat: peer.beat,
        version: peer.info.as_ref().map(|info| info.version.clone()),
        relay: peer.info.as_ref().map(|info| info.relay.clone()).unwrap_or_default(),
        since: peer.info.as_ref().map(|info| info.started),
        state: Some(
            match (peer.suspect, peer.draining) {
                (true, _) => "suspect",
                (false, true) => "draining",
                (false, false) => "up",
            }
            .to_owned(),
        ),
        sessions: reply.as_ref().map(|reply| reply.sessions.len()),
        held: reply.as_ref().map(|reply| reply.held.len()),
    });
    NodesReply { nodes: rows.collect() }
}
