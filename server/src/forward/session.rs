//! A session after login: served here, or relayed to the holder for as long as it lasts.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use affinity::HolderId;
use bytes::BytesMut;
use futures::StreamExt;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tracing::Span;

use super::{
    Held, Preamble, frames,
    frames::{Request, SessionReply},
    held::{Farewell, Use},
    link::RelayStream,
    pump,
    route::{Route, RouteError, Router},
};
use crate::{
    client::Protocol,
    connection::Connection,
    imap,
    node::Node,
    pop3,
    session::{End, Left},
};

/// How long another node may take to accept a session: it may open a large mailbox first.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its streams a link may take to be known as broken: its task has to run.
pub(super) const BREAK_SEEN: Duration = Duration::from_millis(100);
/// How long after a session's end its holder's word of why may take: it was sent first.
const REASON_TOLD: Duration = Duration::from_millis(100);
/// What an IMAP client is told whose holder can't be reached any more.
const GOODBYE: &[u8] = b"* BYE [UNAVAILABLE] The connection to the server that has your mail was lost, please connect again\r\n";
/// How long that may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// After login: serves the session here or relays it to the holder, until it ends. `Err` gives the connection back, so that the protocol can say the error.
pub async fn enter(node: Arc<Node>, mut connection: Connection, preamble: Preamble) -> Result<Left, (Box<Connection>, RouteError)> {
    Span::current().record("user", preamble.user.as_str());
    let what_for = Use::of(&preamble, &node.config().limits);
    connection.logged_in();
    let mut router = Router::new(&node, preamble.user.clone(), what_for);
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
                    return Ok(relay(&node, &to, connection, stream, broken, &preamble).await);
                }
                Ok(Offered::NotMine(redirect)) => {
                    if let Err(error) = router.not_mine(redirect) {
                        return Err((Box::new(connection), error));
                    }
                }
                Ok(Offered::No(error)) => return Err((Box::new(connection), error)),
                Err(error) => router.unreachable(placement, error.to_string()),
            },
        }
    }
}

enum Offered {
    Accepted(RelayStream, Farewell),
    NotMine(frames::Redirect),
    No(RouteError),
}

async fn offer(node: &Arc<Node>, to: &HolderId, preamble: &Preamble) -> Result<Offered, io::Error> {
    let (mut stream, broken) = node.links.open(node, to).await.map_err(io::Error::other)?;
    let exchange = async {
        let request = if preamble.guest.is_some() { Request::Guest } else { Request::Session };
        frames::write(&mut stream, &request(preamble.clone())).await?;
        frames::read::<SessionReply, _>(&mut stream).await
    };
    let reply = tokio::select! {
        reply = timeout(ACCEPT_TIMEOUT, exchange) => reply.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("node {to} did not answer")))??,
        why = broken.heard() => return Err(io::Error::other(format!("the link to node {to} broke: {why}"))),
    };
    Ok(match reply {
        SessionReply::Accepted => Offered::Accepted(stream, broken),
        SessionReply::NotMine(redirect) => Offered::NotMine(redirect),
        SessionReply::TooMany { limit, of } => Offered::No(RouteError::TooManySessions { user: preamble.user.clone(), limit, of }),
        SessionReply::Refused(reason) => Offered::No(RouteError::Refused(reason)),
    })
}

/// Relays until either side ends, or the holder gives the client back.
async fn relay(
    node: &Arc<Node>,
    to: &HolderId,
    connection: Connection,
    holder: RelayStream,
    broken: Farewell,
    preamble: &Preamble,
) -> Left {
    let link_broke = |why: String| format!("the link to the holder {} broke: {why}", to.node);
    let mut holder = Holder { stream: holder, shut: false };
    let write_timeout = node.config().limits.write_timeout;
    let facts = connection.tls.clone();
    let (mut client, who, ahead) = connection.into_parts();
    if !ahead.is_empty() {
        // Commands that the client sent behind its login.
        let sent = timeout(write_timeout, async {
            holder.write_all(&ahead).await?;
            holder.flush().await
        });
        if !matches!(sent.await, Ok(Ok(()))) {
            return Left::Ended(End::because("the holder takes nothing"));
        }
    }
    drop(ahead);
    let why = tokio::select! {
        biased;
        why = broken.heard() => link_broke(why),
        () = node.stop_sessions.cancelled() => "this node is shutting down".to_owned(),
        result = pump::both_ways(&mut client, holder, preamble.mark.as_ref(), write_timeout) => match result {
            Ok(None) => {
                let told = node.goodbyes.of(preamble.client.session, REASON_TOLD).await;
                return Left::Ended(End::because(told.map_or_else(|| "closed".to_owned(), |why| format!("{} ended it: {why}", to.node))));
            }
            Ok(Some(unused)) => {
                let back = Connection::new(client, who, BytesMut::from(&*unused), write_timeout);
                return Left::Back(Box::new(back.with_tls(facts)));
            }
            // Its streams fail a moment before the link is known as broken.
            Err(error) => timeout(BREAK_SEEN, broken.heard()).await.map_or_else(|_| format!("relay ended: {error}"), link_broke),
        },
    };
    if preamble.protocol == Protocol::Imap {
        // A client that is in the middle of a response takes this for a part of it, and sees it end early all the same.
        let goodbye = async {
            client.write_all(GOODBYE).await?;
            client.shutdown().await
        };
        // Whoever is gone needs none.
        drop(timeout(GOODBYE_TIMEOUT, goodbye).await);
    }
    Left::Ended(End::because(why))
}

/// The holder's end of a session: one that is cut, by a broken link or by a holder that gave up, is an error and not an end.
struct Holder {
    stream: RelayStream,
    /// We have said our last word: then closed is closed.
    shut: bool,
}

impl pump::Holder for Holder {
    type Piece = yamux::Packet;

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<yamux::Packet>>> {
        let stream = self.stream.get_mut();
        match ready!(stream.poll_next_unpin(cx)) {
            Some(piece) => Poll::Ready(piece.map(Some)),
            None if !self.shut && stream.is_closed() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the holder cut the session")))
            }
            None => Poll::Ready(Ok(None)),
        }
    }
}

impl AsyncWrite for Holder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Runs a session on its holder (a client's own, or one that another node relays).
pub async fn serve_here(node: Arc<Node>, connection: Connection, held: Held, preamble: Preamble) -> Left {
    let _registered = node.sessions.register(&preamble, &node.keeper.me(), connection.activity(), held.kick());
    match preamble.protocol {
        Protocol::Imap => imap::serve(node.clone(), connection, held, preamble).await,
        Protocol::Pop3 => Left::Ended(pop3::serve(node.clone(), connection, held, preamble).await),
        // LMTP is routed per recipient and never enters as a session.
        Protocol::Lmtp => Left::Ended(End::because("LMTP is not forwarded as a session")),
    }
}
