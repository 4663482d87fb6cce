//! A session after login: served here, or relayed to the holder for as long as it lasts.

use std::{io, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    Held, Preamble, frames,
    frames::{Request, SessionReply},
    held::Use,
    link::RelayStream,
    pump,
    route::{Route, RouteError, Router},
};
use crate::{client::Protocol, connection::Connection, imap, node::Node, pop3, session::End};

/// How long another node may take to accept a session: it may open a large mailbox first.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// After login: serves the session here or relays it to the holder, until it ends. `Err` gives the connection back, so that the protocol can say the error.
pub async fn enter(node: Arc<Node>, connection: Connection, preamble: Preamble) -> Result<End, (Box<Connection>, RouteError)> {
    Span::current().record("user", preamble.user.as_str());
    let max = node.config().limits.sessions_per_user;
    let mut router = Router::new(&node, preamble.user.clone(), Use::Session { max });
    loop {
        let route = match router.next().await {
            Ok(route) => route,
            Err(error) => return Err((Box::new(connection), error)),
        };
        match route {
            Route::Here(held) => {
                Span::current().record("holder", node.keeper.me().node.as_str());
                tracing::info!(master = preamble.master.as_ref().map(tracing::field::display), "logged in");
                return Ok(serve_here(node.clone(), connection, held, preamble).await);
            }
            Route::There { node: to, placement } => match offer(&node, &to, &preamble).await {
                Ok(Offered::Accepted(stream, broken)) => {
                    Span::current().record("holder", to.node.as_str());
                    tracing::info!(master = preamble.master.as_ref().map(tracing::field::display), "logged in");
                    return Ok(relay(&node, connection, stream, broken).await);
                }
                Ok(Offered::NotMine(redirect)) => {
                    if let Err(error) = router.not_mine(redirect) {
                        return Err((Box::new(connection), error));
                    }
                }
                Ok(Offered::Refused(reason)) => return Err((Box::new(connection), RouteError::Refused(reason))),
                Err(error) => router.unreachable(placement, error.to_string()).await,
            },
        }
    }
}

enum Offered {
    Accepted(RelayStream, CancellationToken),
    NotMine(frames::Redirect),
    Refused(String),
}

async fn offer(node: &Arc<Node>, to: &affinity::HolderId, preamble: &Preamble) -> Result<Offered, io::Error> {
    let (mut stream, broken) = node.links.open(node, to).await.map_err(io::Error::other)?;
    let exchange = async {
        frames::write(&mut stream, &Request::Session(preamble.clone())).await?;
        frames::read::<SessionReply, _>(&mut stream).await
    };
    let reply = tokio::select! {
        reply = timeout(ACCEPT_TIMEOUT, exchange) => reply.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("node {to} did not answer")))??,
        () = broken.cancelled() => return Err(io::Error::other(format!("the link to node {to} broke"))),
    };
    Ok(match reply {
        SessionReply::Accepted => Offered::Accepted(stream, broken),
        SessionReply::NotMine(redirect) => Offered::NotMine(redirect),
        SessionReply::Refused(reason) => Offered::Refused(reason),
    })
}

/// Relays until either side ends.
async fn relay(node: &Arc<Node>, connection: Connection, mut holder: RelayStream, broken: CancellationToken) -> End {
    let write_timeout = node.config().limits.write_timeout;
    let (client, _facts, ahead) = connection.into_parts();
    if !ahead.is_empty() {
        // Commands that the client sent behind its login.
        let sent = timeout(write_timeout, async {
            tokio::io::AsyncWriteExt::write_all(&mut holder, &ahead).await?;
            tokio::io::AsyncWriteExt::flush(&mut holder).await
        });
        if !matches!(sent.await, Ok(Ok(()))) {
            return End::because("the holder takes nothing");
        }
    }
    drop(ahead);
    tokio::select! {
        result = pump::both_ways(client, holder, write_timeout) => match result {
            Ok(()) => End::because("closed"),
            Err(error) => End::because(format!("relay ended: {error}")),
        },
        () = broken.cancelled() => End::because("the link to the holder broke"),
        () = node.stop_sessions.cancelled() => End::because("this node is shutting down"),
    }
}

/// Runs a session on its holder (a client's own, or one that another node relays).
pub async fn serve_here(node: Arc<Node>, connection: Connection, held: Held, preamble: Preamble) -> End {
    let _registered = node.sessions.register(&preamble, &node.keeper.me(), connection.activity(), held.kick());
    match preamble.protocol {
        Protocol::Imap => imap::serve(node.clone(), connection, held, preamble).await,
        Protocol::Pop3 => pop3::serve(node.clone(), connection, held, preamble).await,
        // LMTP is routed per recipient and never enters as a session.
        Protocol::Lmtp => End::because("LMTP is not forwarded as a session"),
    }
}
