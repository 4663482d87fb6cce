//! What operators ask of nodes, done here or, over the relay links, on the node that it concerns.
//!
//! Weights, drains, tags and pins are settings on the shared directory, which `berth` changes by itself; nodes follow them. What needs a running node
//! is here: who is served, ending sessions, handing a user over, reading settings at once.

use std::{io, sync::Arc, time::Duration};

use affinity::{HolderId, NodeName, Peer, UserName};
use futures::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Node, health, sessions::SessionFilter};
use crate::{
    command::place::no_user,
    forward::{
        accounts::{Claim, Opened},
        frames::{self, Moved, Request, StatusReply, WhoReply},
        held::Use,
    },
};

/// How long another node may take to answer from memory. Less than `berth` waits for this node.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How long a handover may take: sessions finish their command, then the account is written back, closed and opened elsewhere.
const MOVE_LIMIT: Duration = Duration::from_secs(60);
/// What a client reads whose user is moved.
const MOVING: &str = "your mail moves to another server, please connect again";
/// What a client reads whose node is drained.
pub const DRAINING: &str = "this server is taken out of service, please connect again";

/// What a client reads whose node can't serve as it should.
const UNFIT: &str = "this server can't serve mail at present, please connect again";

/// What this node itself serves.
pub fn own(node: &Arc<Node>, user: Option<&UserName>) -> WhoReply {
    let held = node.keeper.held().into_iter().filter(|(held, _)| user.is_none_or(|user| user == held)).map(|(user, epoch)| (user, epoch.0));
    WhoReply { sessions: node.sessions.list(user), held: held.collect(), more: false }
}

/// How this node is.
pub fn status(node: &Arc<Node>) -> StatusReply {
    StatusReply {
        sessions: node.sessions.count(),
        connections: node.admission.count(),
        held: node.keeper.held().len(),
        draining: node.accounts.placing.is_draining(),
        trouble: health::trouble(node),
    }
}

/// Who is served, by every live node; `None` where one does not answer.
pub async fn who_everywhere(node: &Arc<Node>, user: Option<&UserName>) -> Vec<(Peer, Option<WhoReply>)> {
    everywhere(node, |peer, is_this| async move {
        if is_this {
            return Some(own(node, user));
        }
        let exchange = async {
            let (mut stream, _broken) = node.links.open(node, &peer.holder).await.map_err(io::Error::other)?;
            frames::write(&mut stream, &Request::Who { user: user.cloned() }).await?;
            frames::read_who(&mut stream).await
        };
        said(&peer.holder, timeout(ANSWER_LIMIT, exchange).await)
    })
    .await
}

/// How every live node is; what they say of their users is remembered for the day they die.
pub async fn status_everywhere(node: &Arc<Node>) -> Vec<(Peer, Option<StatusReply>)> {
    let answers = everywhere(node, |peer, is_this| async move {
        if is_this { Some(status(node)) } else { ask(node, &peer.holder, &Request::Status, ANSWER_LIMIT).await.ok() }
    })
    .await;
    let mut last_held = node.last_held.lock();
    last_held.retain(|holder, _| answers.iter().any(|(peer, _)| peer.holder == *holder));
    for (peer, status) in &answers {
        if let Some(status) = status {
            tracing::debug!(peer = %peer.holder, held = status.held, "a node told how many users it holds");
            last_held.insert(peer.holder.clone(), status.held);
        }
    }
    answers
}

/// Ends sessions on every live node: how many, and who did not answer.
pub async fn end_everywhere(node: &Arc<Node>, filter: &SessionFilter, why: &str) -> (usize, Vec<String>) {
    let answers = everywhere(node, |peer, is_this| async move {
        if is_this {
            return Some(node.sessions.end(filter, why));
        }
        let request = Request::End { filter: filter.clone(), why: why.to_owned() };
        ask(node, &peer.holder, &request, ANSWER_LIMIT).await.ok()
    })
    .await;
    let silent = answers.iter().filter(|(_, ended)| ended.is_none()).map(|(peer, _)| peer.holder.node.to_string()).collect();
    (answers.iter().filter_map(|(_, ended)| *ended).sum(), silent)
}

/// A node that stops or drains: sessions that came in through it are told so by those who serve them.
pub async fn end_relayed(node: &Arc<Node>, why: &str) {
    let filter = SessionFilter { ingress: Some(node.keeper.me().node), ..SessionFilter::default() };
    end_everywhere(node, &filter, why).await;
}

/// A user whom a source has; what is done for others would make folders for nobody.
pub async fn known(node: &Arc<Node>, user: UserName) -> Result<UserName, String> {
    match node.auth.record(&user).await {
        Ok(Some(_)) => Ok(user),
        Ok(None) => Err(no_user(&user)),
        Err(error) => Err(error.to_string()),
    }
}

/// Moves a user to a node, from wherever they are; the new epoch.
pub async fn move_user(node: &Arc<Node>, user: &UserName, to: &NodeName) -> Moved {
    let seen = node.keeper.look(user).await.map_err(|error| error.to_string())?;
    // Somebody who was removed is held for a while yet; whom nobody ever held may be misspelt.
    if seen.epoch.0 == 0 {
        known(node, user.clone()).await?;
    }
    let peers = node.keeper.peers();
    let target = peers.iter().filter(|peer| peer.holder.node == *to).max_by_key(|peer| !peer.suspect);
    let target = match target {
        None => return Err(format!("no node {to} is up: `berth nodes` shows all")),
        Some(peer) if peer.suspect => return Err(format!("node {to} gives no sign of life")),
        // It would give the user up at once.
        Some(peer) if peer.draining => return Err(format!("{to} is drained: `berth undrain {to}` first")),
        Some(peer) if peer.trouble => return Err(format!("{to} is in trouble and gives its users up: `berth nodes` says why")),
        Some(peer) => peer.holder.clone(),
    };
    match seen.holder {
        Some(holder) if holder == target => Ok(seen.epoch.0),
        Some(holder) if holder == node.keeper.me() => hand_over(node, user, target).await,
        Some(holder) if peers.iter().any(|peer| peer.holder == holder) => {
            ask(node, &holder, &Request::Move { user: user.clone(), to: target }, MOVE_LIMIT).await?
        }
        // Free, or its holder is gone: who asks for it gets it.
        _ => ask_to_take(node, user, &target).await,
    }
}

/// On the holder: ends the user's sessions, closes the account, and has `to` take the lease.
pub async fn hand_over(node: &Arc<Node>, user: &UserName, to: HolderId) -> Moved {
    tracing::info!(%user, %to, "an operator moves a user");
    if !node.accounts.move_to(user, to.clone(), MOVING).await {
        return Err(format!("{user} could not be closed on {}: its log says why", node.keeper.me().node));
    }
    ask_to_take(node, user, &to).await
}

async fn ask_to_take(node: &Arc<Node>, user: &UserName, to: &HolderId) -> Moved {
    if *to == node.keeper.me() {
        return take(node, user).await;
    }
    ask(node, to, &Request::Take { user: user.clone() }, MOVE_LIMIT).await?
}

/// On the target: takes the lease and opens the account.
pub async fn take(node: &Arc<Node>, user: &UserName) -> Moved {
    let paths = node.account_paths(user).await.map_err(|error| error.to_string())?;
    match node.accounts.open(user, paths, Use::Delivery, Claim::Anyway).await {
        Ok(Opened::Here(held)) => Ok(held.lease().epoch().0),
        Ok(Opened::HeldBy(_)) if !node.accounts.placing.permits(user) => {
            Err(format!("{} lacks a tag that {user} needs: `berth where {user}` and `berth tag` show them", node.keeper.me().node))
        }
        Ok(Opened::HeldBy(holder)) => Err(format!("{user} is held by {holder}")),
        Ok(Opened::Suspect(holder)) => Err(format!("{user} is held by {holder}, which gives no sign of life: try again in some seconds")),
        Ok(Opened::Nowhere(why)) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

/// How often a node is greeted that can't be reached, and how long after each try.
const GREETINGS: u32 = 3;
const GREETING_PAUSE: Duration = Duration::from_secs(2);

/// A node that starts dials the others, which look for it then, and not only at their next beat: whoever waits for users of a node that was restarted
/// is served that much sooner.
pub async fn greet(node: Arc<Node>) {
    let me = node.keeper.me();
    let others = node.keeper.peers().into_iter().filter(|peer| peer.holder != me);
    let greeting = others.map(|peer| {
        let node = &node;
        async move {
            for _ in 0..GREETINGS {
                let Err(error) = node.links.open(node, &peer.holder).await else { return };
                tracing::debug!(peer = %peer.holder, %error, "a node could not be greeted");
                tokio::time::sleep(GREETING_PAUSE).await;
            }
        }
    });
    join_all(greeting).await;
}

/// Settings on the shared directory were changed: every live node reads and follows them now. Gives those that said so, and those that did not.
pub async fn settings_everywhere(node: &Arc<Node>) -> (Vec<String>, Vec<String>) {
    let answers = everywhere(node, |peer, is_this| async move {
        if is_this {
            return Some(follow_settings(node).await);
        }
        ask::<bool>(node, &peer.holder, &Request::Settings, ANSWER_LIMIT).await.ok()
    })
    .await;
    let (read, silent): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, read)| *read == Some(true));
    let names = |answers: Vec<(Peer, Option<bool>)>| answers.into_iter().map(|(peer, _)| peer.holder.node.to_string()).collect();
    (names(read), names(silent))
}

/// Tells the other nodes of failed logins, once a second at most; a node that does not answer goes without.
pub async fn share_failures(node: &Arc<Node>) {
    let news = node.auth.failures();
    if news.is_empty() {
        return;
    }
    let me = node.keeper.me();
    let others = node.keeper.peers().into_iter().filter(|peer| peer.holder != me && !peer.suspect);
    let telling = others.map(|peer| {
        let request = Request::Failures { news: news.clone() };
        async move {
            if let Err(error) = ask::<bool>(node, &peer.holder, &request, ANSWER_LIMIT).await {
                tracing::debug!(error, "a node was not told of failed logins");
            }
        }
    });
    join_all(telling).await;
}

/// Reads the settings and acts on them; whether they could be read.
pub async fn follow_settings(node: &Arc<Node>) -> bool {
    let read = timeout(ANSWER_LIMIT, node.keeper.read_settings()).await;
    follow(node);
    matches!(read, Ok(Ok(())))
}

/// Acts on what the settings and this node's health say: takes no new users and hands over those it has, or takes them again. Called every second.
pub fn follow(node: &Arc<Node>) {
    let draining = node.keeper.settings(&node.keeper.me().node).draining();
    let unfit = node.health.is_unfit();
    let placing = &node.accounts.placing;
    let was_draining = placing.set_draining(draining);
    placing.set_unfit(unfit);
    if was_draining != draining {
        match draining {
            true => tracing::warn!("draining: this node takes no new users and hands over those it has"),
            false => tracing::warn!("no longer draining: this node takes users again"),
        }
        if draining {
            let node = node.clone();
            tokio::spawn(async move { end_relayed(&node, DRAINING).await });
        }
    }
    let gives_up = draining || node.health.gives_users_up();
    let kept = if gives_up { node.accounts.drain_some(if draining { DRAINING } else { UNFIT }) } else { 0 };
    if placing.set_keeping(kept > 0) != (kept > 0) && kept > 0 {
        tracing::warn!(users = kept, "no other node takes these users: this one goes on serving them");
    }
}

/// Asks another node; errors are for people.
pub async fn ask<Reply: DeserializeOwned>(node: &Arc<Node>, to: &HolderId, request: &Request, limit: Duration) -> Result<Reply, String> {
    let exchange = async {
        let (mut stream, broken) = node.links.open(node, to).await.map_err(io::Error::other)?;
        frames::write(&mut stream, request).await?;
        tokio::select! {
            reply = frames::read::<Reply, _>(&mut stream) => reply,
            why = broken.heard() => Err(io::Error::other(format!("the link broke: {why}"))),
        }
    };
    match timeout(limit, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(format!("node {}: {error}", to.node)),
        Err(_) => Err(format!("node {} did not answer within {}", to.node, humantime::format_duration(limit))),
    }
}

fn said<T>(holder: &HolderId, answer: Result<io::Result<T>, tokio::time::error::Elapsed>) -> Option<T> {
    match answer {
        Ok(Ok(reply)) => Some(reply),
        Ok(Err(error)) => {
            tracing::warn!(peer = %holder, %error, "a node does not answer");
            None
        }
        Err(_) => None,
    }
}

/// Asks all nodes at once, this one included.
async fn everywhere<T, Asked: Future<Output = Option<T>>>(
    node: &Arc<Node>,
    question: impl Fn(Peer, bool) -> Asked,
) -> Vec<(Peer, Option<T>)> {
    let me = node.keeper.me();
    let asked = node.keeper.peers().into_iter().map(|peer| {
        let answer = question(peer.clone(), peer.holder == me);
        async move { (peer, answer.await) }
    });
    join_all(asked).await
}
