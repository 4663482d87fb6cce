//! Answers other nodes: one task per stream of a relay link.

use std::{io, pin::pin, sync::Arc, time::Duration};

use affinity::HolderId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tracing::Instrument;

use super::{
    Held, Mark,
    accounts::{Claim, Opened},
    deliver::PARALLEL,
    frames::{self, AtHolder, DeliveryReply, Redirect, Request, SessionReply},
    goodbyes::ENDED,
    held::Use,
    link::{Opener, RelayStream},
    route::RouteError,
    session::{BREAK_SEEN, serve_here},
};
use crate::{
    client::{Client, SessionId},
    connection::{Connection, ConnectionError},
    lmtp::{
        delivery::{Addressee, Delivery, Envelope, Outcome},
        message::{Message, Spool},
        receive::too_large,
        reply,
    },
    node::{Node, index, operate, quota, traffic::Counted},
    session::{End, Left},
};

/// How long a node may take to say what it wants on a stream that it opened.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a relayed message is collected before it is spooled: few trips to the blocking pool for a large one.
const PIECE_BYTES: u64 = 64 * 1024;
/// How long a relayed message may take to arrive.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// One stream that another node opened.
pub async fn stream(node: Arc<Node>, mut stream: RelayStream, from: Opener) {
    let request = match timeout(REQUEST_TIMEOUT, frames::read::<Request, _>(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a relay request can't be understood: do all nodes run the same version?");
            return;
        }
        Err(_) => return,
    };
    if frames::hear(&mut stream).await.is_err() {
        return;
    }
    let result = match request {
        Request::Session(preamble) => session(&node, stream, super::Preamble { guest: None, ..preamble }, from).await,
        Request::Guest(preamble) if preamble.guest.is_some() && node.config().mail.sharing => session(&node, stream, preamble, from).await,
        Request::Guest(_) => {
            frames::write(&mut stream, &SessionReply::Refused("mailboxes are not shared here (mail.sharing)".into())).await
        }
        Request::Deliver { client, envelope, to, bytes } => deliver(&node, &mut stream, client, envelope, to, bytes).await,
        Request::Who { user } => frames::write_who(&mut stream, operate::own(&node, user.as_ref())).await,
        Request::Status => frames::write(&mut stream, &operate::status(&node)).await,
        Request::End { filter, why } => frames::write(&mut stream, &node.sessions.end(&filter, &why)).await,
        Request::Move { user, to } => frames::write(&mut stream, &operate::hand_over(&node, &user, to).await).await,
        Request::Take { user } => frames::write(&mut stream, &operate::take(&node, &user).await).await,
        Request::Index { user, rebuild } => {
            let answer = match open(&node, &user, Use::Delivery).await {
                Ok(held) => AtHolder::Done(index::report(&node, &held, rebuild).await),
                Err(NotHere::Redirect(redirect)) => AtHolder::NotMine(redirect),
                Err(NotHere::Error(error)) => AtHolder::Done(Err(error.to_string())),
            };
            frames::write(&mut stream, &answer).await
        }
        Request::IndexProgress { user } => {
            let answer = match open(&node, &user, Use::Delivery).await {
                Ok(held) => AtHolder::Done(index::progress(&held).await),
                Err(NotHere::Redirect(redirect)) => AtHolder::NotMine(redirect),
                Err(NotHere::Error(error)) => AtHolder::Done(Err(error.to_string())),
            };
            frames::write(&mut stream, &answer).await
        }
        Request::Quota { user, recount } => {
            let answer = match open(&node, &user, Use::Delivery).await {
                Ok(held) => AtHolder::Done(quota::report(&node, &held, recount).await),
                Err(NotHere::Redirect(redirect)) => AtHolder::NotMine(redirect),
                Err(NotHere::Error(error)) => AtHolder::Done(Err(error.to_string())),
            };
            frames::write(&mut stream, &answer).await
        }
        Request::Settings => frames::write(&mut stream, &operate::follow_settings(&node).await).await,
        Request::Ended { session, why } => {
            node.goodbyes.tell(session, &why);
            frames::write(&mut stream, &true).await
        }
        Request::Failures { news } => {
            node.auth.hear_failures(news);
            frames::write(&mut stream, &true).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a relay stream ended early");
    }
}

async fn session(node: &Arc<Node>, mut stream: RelayStream, preamble: super::Preamble, from: Opener) -> io::Result<()> {
    let what_for = Use::of(&preamble, &node.config().limits);
    let reply = match open(node, &preamble.user, what_for).await {
        Ok(held) => {
            frames::write(&mut stream, &SessionReply::Accepted).await?;
            let client = preamble.client.clone();
            let span = tracing::info_span!("session", session = %client.session, protocol = %preamble.protocol, client = %client.address, ingress = %client.ingress, user = %preamble.user);
            let write_timeout = node.config().limits.write_timeout;
            let (counted, traffic) = Counted::new(stream);
            let connection = Connection::new(Box::new(counted), client, bytes::BytesMut::new(), write_timeout);
            async {
                tracing::info!("relayed session start");
                let (mark, session, goodbye) = (preamble.mark.clone(), preamble.client.session, held.goodbye());
                let mut serving = pin!(serve_here(node.clone(), connection, held, preamble));
                let left = tokio::select! {
                    // First: once the session has ended it is too late.
                    biased;
                    why = goodbye.heard() => {
                        tokio::spawn(tell(node.clone(), from.peer.clone(), session, why));
                        serving.await
                    }
                    left = &mut serving => left,
                };
                let end = match (left, mark) {
                    (Left::Ended(end), _) => unless_cut(end, &from).await,
                    (Left::Back(connection), Some(mark)) => give_back(*connection, &mark, write_timeout).await,
                    (Left::Back(connection), None) => {
                        connection.close().await;
                        End::because("the ingress takes no client back")
                    }
                };
                tracing::info!(bytes_in = traffic.bytes_in(), bytes_out = traffic.bytes_out(), reason = end.0, "relayed session end");
            }
            .instrument(span)
            .await;
            return Ok(());
        }
        Err(NotHere::Redirect(redirect)) => SessionReply::NotMine(redirect),
        Err(NotHere::Error(RouteError::TooManySessions { limit, of, .. })) => SessionReply::TooMany { limit, of },
        Err(NotHere::Error(error)) => SessionReply::Refused(error.to_string()),
    };
    frames::write(&mut stream, &reply).await
}

/// Tells the node that the client reached why its session ends.
async fn tell(node: Arc<Node>, ingress: HolderId, session: SessionId, why: String) {
    // Older builds can't read it, and would warn of each.
    let hears = |peer: affinity::Peer| peer.info.is_some_and(|info| info.capabilities.iter().any(|one| one == ENDED));
    if !node.keeper.peer(&ingress).is_some_and(hears) {
        return;
    }
    if let Err(error) = operate::ask::<bool>(&node, &ingress, &Request::Ended { session, why }, REQUEST_TIMEOUT).await {
        tracing::debug!(error, "the ingress was not told why a session ends");
    }
}

/// A session whose link broke looks as one whose client went.
async fn unless_cut(end: End, from: &Opener) -> End {
    // What the session itself says of its end is why: the link may have broken since.
    let is_closed = end == End::from(ConnectionError::Closed);
    if !(is_closed || end.is_of_network() && from.broken.is_said()) {
        return end;
    }
    match timeout(BREAK_SEEN, from.broken.heard()).await {
        Ok(why) => End::because(format!("the link to the ingress {} broke: {why}", from.peer.node)),
        Err(_) => end,
    }
}

/// Gives a client back to its ingress: the mark, what was read of it and not used, and what the ingress had under way.
async fn give_back(connection: Connection, mark: &Mark, limit: Duration) -> End {
    let (mut stream, _, unused) = connection.into_parts();
    let giving = async {
        stream.write_all(mark.as_bytes()).await?;
        stream.write_all(&unused).await?;
        stream.flush().await?;
        let mut chunk = vec![0; 8 * 1024];
        loop {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return stream.shutdown().await;
            }
            stream.write_all(chunk.get(..read).unwrap_or_default()).await?;
        }
    };
    match timeout(limit, giving).await {
        Ok(Ok(())) => End::because("the client logs in anew"),
        Ok(Err(error)) => End::because(format!("the client logs in anew; its ingress: {error}")),
        Err(_) => End::because("the client logs in anew; its ingress takes nothing"),
    }
}

enum NotHere {
    Redirect(Redirect),
    Error(RouteError),
}

/// Opens the account here if the lease is or can be ours: this answer is authoritative.
async fn open(node: &Arc<Node>, user: &affinity::UserName, what_for: Use) -> Result<Held, NotHere> {
    let paths = node.account_paths(user).await.map_err(NotHere::Error)?;
    match node.accounts.open(user, paths, what_for, Claim::Asked).await {
        Ok(Opened::Here(held)) => Ok(held),
        Ok(Opened::HeldBy(holder)) => Err(NotHere::Redirect(Redirect { holder: Some(holder) })),
        Ok(Opened::Suspect(_) | Opened::Nowhere(_)) | Err(RouteError::Leaving | RouteError::Affinity(_)) => {
            Err(NotHere::Redirect(Redirect { holder: None }))
        }
        Err(error) => Err(NotHere::Error(error)),
    }
}

async fn deliver(
    node: &Arc<Node>,
    stream: &mut RelayStream,
    client: Client,
    envelope: Envelope,
    to: Vec<Addressee>,
    bytes: u64,
) -> io::Result<()> {
    let message = timeout(MESSAGE_TIMEOUT, receive(node, stream, bytes)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let Some(message) = message else {
        let too_large = DeliveryReply::Done(Outcome::from(too_large()));
        return frames::write(stream, &vec![too_large; to.len()]).await;
    };
    let delivery = Delivery::new(node.deliveries.clone(), &node.config(), client, envelope, message, to.len());
    let failed = DeliveryReply::Done(Outcome::temporary("delivery failed unexpectedly, please try again"));
    let mut replies = vec![failed; to.len()];
    let mut storing = JoinSet::new();
    let permits = Arc::new(Semaphore::new(PARALLEL));
    for (index, addressee) in to.into_iter().enumerate() {
        let (node, delivery, permits) = (node.clone(), delivery.clone(), permits.clone());
        storing.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let reply = match open(&node, &addressee.user, Use::Delivery).await {
                Ok(held) => DeliveryReply::Done(delivery.store(&held, &addressee).await),
                Err(NotHere::Redirect(redirect)) => DeliveryReply::NotMine(redirect),
                Err(NotHere::Error(RouteError::Storage(error))) => DeliveryReply::Done(reply::storage_error(&error)),
                Err(NotHere::Error(_)) => {
                    DeliveryReply::Done(Outcome::temporary("the mailbox can't be opened at present, please try again"))
                }
            };
            (index, reply)
        });
    }
    while let Some(stored) = storing.join_next().await {
        match stored {
            Ok((index, reply)) => {
                if let Some(of) = replies.get_mut(index) {
                    *of = reply;
                }
            }
            // The others' answers count all the same.
            Err(error) => tracing::error!(%error, "a delivery failed unexpectedly"),
        }
    }
    frames::write(stream, &replies).await
}

/// `None`: it is larger than this node takes, and was read to its end.
async fn receive(node: &Arc<Node>, stream: &mut RelayStream, bytes: u64) -> io::Result<Option<Message>> {
    let limit = node.config().limits.message_bytes.as_u64();
    if bytes > limit {
        tracing::warn!(bytes, limit, "a relayed message is refused: limits.message_bytes is higher at the node that took it");
        tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await?;
        return Ok(None);
    }
    let mut spool = Spool::new(&node.config().node.local_dir);
    let mut left = bytes;
    while left > 0 {
        let mut piece = Vec::with_capacity(usize::try_from(left.min(PIECE_BYTES)).unwrap_or_default());
        let read = stream.take(left.min(PIECE_BYTES)).read_to_end(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= read as u64;
        spool = spool.take(&mut piece).await?;
    }
    Ok(Some(spool.finish()))
}
