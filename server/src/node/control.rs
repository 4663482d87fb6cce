//! The control socket `<local_dir>/control.sock`: one JSON line asked, one answered. Who can open the socket (mode 0600) may ask.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use affinity::{NameError, NodeName, UserName, ending::last_beat};
use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};
use tracing::Instrument;

use super::{
    Node, index, operate, quota,
    sessions::{SessionFilter, SessionLine},
    socket::{Permissions, bind_unix},
};
use crate::{
    acme::renewal::{self, Outcome},
    client::{Client, SessionId},
    command::control::{self, HeldRow, KickReply, MoveReply, NodeRow, NodesReply, Request as Question, SessionRow},
    connection::Connection,
    imap,
};

/// Longest question.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Most of what an asker says that goes into the log.
const LOGGED_CHARS_MAX: usize = 200;
/// How long an asker may take to ask, and to take the answer.
const ASKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers until the node stops.
pub async fn listen(node: Arc<Node>, path: PathBuf) -> anyhow::Result<()> {
    let (listener, file) = bind_unix(&path, Permissions::PRIVATE)?;
    tokio::spawn(async move {
        let _removed_at_the_end = file;
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
    // Who asks, for the log.
    let by = stream.peer_cred().map_or_else(|_| "control socket".to_owned(), |peer| format!("control socket, uid {}", peer.uid()));
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut asked = BufReader::new(read.take(LINE_BYTES_MAX));
    timeout(ASKER_TIMEOUT, asked.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Question>(&line) {
        Ok(Question::Session { user }) => {
            // The asker waits for an answer before it says more.
            let stream = asked.into_inner().into_inner().reunite(write).map_err(io::Error::other)?;
            return session(node, stream, &user).await;
        }
        Ok(question) => answer(node, question, &by).await.unwrap_or_else(|error| json!({ "error": error })),
        Err(error) => json!({ "error": format!("not understood: {error}") }),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(ASKER_TIMEOUT, write.write_all(&text)).await?
}

/// An IMAP session without a password: whoever can open the control socket can read the mail anyway.
async fn session(node: &Arc<Node>, mut stream: UnixStream, user: &str) -> io::Result<()> {
    let user = match UserName::normalise(user) {
        Ok(user) if node.auth.knows(&user).await => user,
        Ok(user) => return refuse(&mut stream, &format!("there is no user {user}")).await,
        Err(error) => return refuse(&mut stream, &error.to_string()).await,
    };
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Client { session: SessionId::random(), address: here, local: here, ingress: node.keeper.me().node, tls: None };
    let span = tracing::info_span!(
        "session",
        session = %client.session,
        protocol = "imap",
        client = "control socket",
        ingress = %client.ingress,
        user = %user,
        holder = tracing::field::Empty
    );
    let connection = Connection::new(Box::new(stream), client, BytesMut::new(), node.config().limits.write_timeout);
    let end = imap::serve_operator(node.clone(), connection, user).instrument(span.clone()).await;
    span.in_scope(|| tracing::info!(reason = end.0, "session of an operator ended"));
    Ok(())
}

async fn refuse(stream: &mut UnixStream, why: &str) -> io::Result<()> {
    let line = format!("{} NO {}\r\n", imap::OPERATOR_TAG, why.replace(char::is_control, " "));
    timeout(ASKER_TIMEOUT, stream.write_all(line.as_bytes())).await?
}

async fn answer(node: &Arc<Node>, question: Question, by: &str) -> Result<Value, String> {
    let wrong = |error: NameError| error.to_string();
    let user_of = |user: &str| UserName::normalise(user).map_err(wrong);
    let node_of = |name: &str| name.parse::<NodeName>().map_err(wrong);
    let value = match question {
        Question::Who { user } => serde_json::to_value(who(node, user.as_deref().map(user_of).transpose()?).await),
        Question::Nodes => serde_json::to_value(nodes(node).await),
        Question::Kick { user, ip, node: which, why } => {
            let user = user.as_deref().map(user_of).transpose()?;
            let filter = SessionFilter { user, ip, node: which.as_deref().map(node_of).transpose()?, ingress: None };
            let (ended, silent) = operate::end_everywhere(node, &filter, &why).await;
            tracing::warn!(
                user = filter.user.as_ref().map(tracing::field::display),
                ip = filter.ip.as_ref().map(tracing::field::display),
                node = filter.node.as_ref().map(tracing::field::display),
                ended,
                why,
                by,
                "an operator ended sessions"
            );
            // Somebody who was removed may have sessions yet; a misspelt name has none.
            let unknown_user = match &filter.user {
                Some(user) if ended == 0 && silent.is_empty() => matches!(node.auth.record(user).await, Ok(None)),
                _ => false,
            };
            serde_json::to_value(KickReply { ended, silent, unknown_user })
        }
        Question::Move { user, to } => {
            let (user, to) = (user_of(&user)?, node_of(&to)?);
            let epoch = operate::move_user(node, &user, &to).await?;
            tracing::info!(%user, %to, epoch, by, "an operator moved a user");
            serde_json::to_value(MoveReply { epoch })
        }
        // It is no question: see `serve`.
        Question::Session { .. } => return Err("a session begins with its own line".to_owned()),
        Question::Index { user, rebuild } => {
            serde_json::to_value(index::of(node, &operate::known(node, user_of(&user)?).await?, rebuild).await?)
        }
        Question::IndexProgress { user } => serde_json::to_value(index::progress_of(node, &user_of(&user)?).await?),
        Question::Quota { user, recount } => {
            serde_json::to_value(quota::of(node, &operate::known(node, user_of(&user)?).await?, recount).await?)
        }
        Question::Tls => {
            let served = node.tls.iter().flat_map(|tls| tls.certificates());
            serde_json::to_value(control::TlsReply { fingerprints: served.map(|served| served.facts.fingerprint.clone()).collect() })
        }
        Question::Renew => {
            // An asker that goes away must not leave half an order.
            let node = node.clone();
            let looked = tokio::spawn(async move { renewal::look(&node, true).await }).await.map_err(|error| error.to_string())?;
            let nothing = match looked.map_err(|error| format!("{error:#}"))? {
                Outcome::Renewed => None,
                Outcome::Nothing(why) => Some(why),
            };
            serde_json::to_value(control::RenewReply { nothing })
        }
        Question::Settings { change } => {
            if let Some(change) = change {
                tracing::info!(change = one_line(&change), by, "an operator changed a setting");
            }
            let (read, silent) = operate::settings_everywhere(node).await;
            serde_json::to_value(control::SettingsReply { read: Some(read), silent })
        }
        Question::Fenced { holder } => {
            tracing::warn!(holder = one_line(&holder), by, "an operator fenced a node");
            node.keeper.look_soon();
            serde_json::to_value(control::FencedReply { logged: true })
        }
    };
    value.map_err(|error| error.to_string())
}

/// What an asker says goes into the log as one short line.
fn one_line(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn who(node: &Arc<Node>, user: Option<UserName>) -> control::WhoReply {
    let mut who = control::WhoReply::default();
    for (peer, reply) in operate::who_everywhere(node, user.as_ref()).await {
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
    let rows = operate::status_everywhere(node).await.into_iter().map(|(peer, status)| {
        let draining = status.as_ref().map_or(peer.draining, |status| status.draining);
        let state = match (peer.suspect, &status) {
            (true, _) => "suspect",
            (false, None) => "silent",
            (false, Some(status)) if !status.trouble.is_empty() => "trouble",
            (false, Some(_)) if draining => "draining",
            (false, Some(_)) => "up",
        };
        NodeRow {
            name: peer.holder.node.to_string(),
            incarnation: peer.holder.incarnation.to_string(),
            beat: last_beat(peer.beat),
            version: peer.info.as_ref().map(|info| info.version.clone()),
            relay: peer.info.as_ref().map(|info| info.relay.clone()).unwrap_or_default(),
            since: peer.info.as_ref().map(|info| info.started),
            state: Some(state.to_owned()),
            weight: Some(peer.weight),
            tags: peer.tags.into_iter().map(String::from).collect(),
            sessions: status.as_ref().map(|status| status.sessions),
            connections: status.as_ref().map(|status| status.connections),
            held: status.as_ref().map(|status| status.held),
            trouble: status.map(|status| status.trouble).unwrap_or_default(),
        }
    });
    NodesReply { nodes: rows.collect(), fenced: Vec::new(), cache: node.cache.as_ref().map(|cache| cache.figures()) }
}
