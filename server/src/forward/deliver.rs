//! One message for many recipients: each is stored by the holder of their lease; recipients of one holder travel together.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use affinity::HolderId;
use tokio::{io::AsyncWriteExt, sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    frames::{self, DeliveryReply, Request},
    held::Use,
    link::RelayStream,
    route::{Route, Router},
};
use crate::{
    client::Client,
    lmtp::{
        delivery::{Addressee, Delivery, Envelope, Outcome},
        message::Message,
        reply,
    },
    node::{Node, SUSPENDED_WAIT},
};

/// Recipients that are routed or stored at once: enough to keep the file system busy, few enough for other senders.
pub(super) const PARALLEL: usize = 32;
/// How much of a message is sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long another node may take to receive a message and store it for all its recipients: as long as this one would wait for the file server, or the sender is
/// told to try again while the message is stored. Senders wait ten minutes (RFC 5321 §4.5.3.2.6).
const STORE_TIMEOUT: Duration = SUSPENDED_WAIT.saturating_add(Duration::from_secs(120));

/// How often a message is sent that may be stored each time: a holder that dies, and the next one.
const UNANSWERED_MAX: u32 = 3;

/// What every part of one delivery needs.
#[derive(Clone)]
struct Job {
    node: Arc<Node>,
    client: Client,
    envelope: Envelope,
    message: Message,
    /// For the recipients that this node holds.
    here: Delivery,
}

/// Delivers one message to every recipient, each at its holder, local and remote at the same time; the outcomes are in the order of `to`.
pub async fn deliver(node: &Arc<Node>, client: &Client, envelope: &Envelope, to: &[Addressee], message: &Message) -> Vec<Outcome> {
    let here = Delivery::new(node.deliveries.clone(), &node.config(), client.clone(), envelope.clone(), message.clone(), to.len());
    let job = Job { node: node.clone(), client: client.clone(), envelope: envelope.clone(), message: message.clone(), here };
    let mut outcomes: Vec<Option<Outcome>> = vec![None; to.len()];
    let mut open: Vec<(usize, Router<'_>)> =
        to.iter().enumerate().map(|(index, addressee)| (index, Router::new(node, addressee.user.clone(), Use::Delivery))).collect();
    let mut unanswered = vec![0; to.len()];

    // Each round routes what is open, then does all of it; "not mine" and unreachable nodes come back for the next round. Routers bound the rounds.
    while !open.is_empty() {
        let routed = futures::future::join_all(open.iter_mut().map(|(_, router)| router.next())).await;
        let mut work: JoinSet<Vec<(usize, Round)>> = JoinSet::new();
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let mut remote: BTreeMap<HolderId, (bool, Vec<(usize, Addressee)>)> = BTreeMap::new();
        for ((index, _), route) in open.iter().zip(routed) {
            let index = *index;
            let Some(addressee) = to.get(index) else { continue };
            match route {
                Ok(Route::Here(held)) => {
                    let (job, addressee, permits) = (job.clone(), addressee.clone(), permits.clone());
                    work.spawn(async move {
                        let _permit = permits.acquire_owned().await;
                        vec![(index, Round::Done(job.here.store(&held, &addressee).await))]
                    });
                }
                Ok(Route::There { node, placement }) => {
                    let group = remote.entry(node).or_default();
                    group.0 |= placement;
                    group.1.push((index, addressee.clone()));
                }
                Err(error) => {
                    tracing::warn!(user = %addressee.user, %error, "delivery deferred");
                    work.spawn(async move { vec![(index, Round::Done(reply::route_error(&error)))] });
                }
            }
        }
        for (holder, (placement, group)) in remote {
            work.spawn(deliver_there(job.clone(), holder, placement, group));
        }
        let mut again = Vec::new();
        while let Some(finished) = work.join_next().await {
            for (index, round) in finished.unwrap_or_default() {
                match round {
                    Round::Done(outcome) => {
                        if let Some(slot) = outcomes.get_mut(index) {
                            *slot = Some(outcome);
                        }
                    }
                    Round::NotMine(redirect) => again.push((index, Again::NotMine(redirect))),
                    Round::Unreachable { placement, reason } => again.push((index, Again::Unreachable { placement, reason })),
                    Round::Unanswered { reason } => {
                        if let Some(times) = unanswered.get_mut(index) {
                            *times += 1;
                            if *times >= UNANSWERED_MAX {
                                continue;
                            }
                        }
                        again.push((index, Again::Unreachable { placement: false, reason }));
                    }
                }
            }
        }
        let mut next = Vec::new();
        for (index, mut router) in open {
            let Some(position) = again.iter().position(|(i, _)| *i == index) else { continue };
            match again.swap_remove(position).1 {
                Again::NotMine(redirect) => {
                    if let Err(error) = router.not_mine(redirect) {
                        if let Some(slot) = outcomes.get_mut(index) {
                            *slot = Some(reply::route_error(&error));
                        }
                        continue;
                    }
                }
                Again::Unreachable { placement, reason } => router.unreachable(placement, reason),
            }
            next.push((index, router));
        }
        open = next;
    }
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| Outcome::temporary("delivery was interrupted, please try again")))
        .collect()
}

enum Round {
    Done(Outcome),
    NotMine(frames::Redirect),
    Unreachable { placement: bool, reason: String },
    Unanswered { reason: String },
}

enum Again {
    NotMine(frames::Redirect),
    Unreachable { placement: bool, reason: String },
}

async fn deliver_there(job: Job, holder: HolderId, placement: bool, group: Vec<(usize, Addressee)>) -> Vec<(usize, Round)> {
    let (indexes, to): (Vec<usize>, Vec<Addressee>) = group.into_iter().unzip();
    match timeout(STORE_TIMEOUT, send(&job, &holder, &to)).await {
        Ok(Ok(replies)) if replies.len() == indexes.len() => indexes
            .into_iter()
            .zip(replies)
            .map(|(index, reply)| match reply {
                DeliveryReply::Done(outcome) => (index, Round::Done(outcome)),
                DeliveryReply::NotMine(redirect) => (index, Round::NotMine(redirect)),
            })
            .collect(),
        Ok(Ok(_)) => indexes
            .into_iter()
            .map(|index| (index, Round::Done(Outcome::temporary("another node gave a wrong number of answers"))))
            .collect(),
        Ok(Err(SendError::NotSent(reason))) => {
            indexes.into_iter().map(|index| (index, Round::Unreachable { placement, reason: reason.clone() })).collect()
        }
        // It may be stored, and a second try then stores it twice. So would the sender's own, minutes later; it never hears of the failover.
        Ok(Err(SendError::Unknown(reason))) => {
            let sender = &job.envelope.sender;
            tracing::warn!(%holder, reason, sender, "a relayed delivery got no answer and is tried again");
            indexes.into_iter().map(|index| (index, Round::Unanswered { reason: reason.clone() })).collect()
        }
        Err(_) => indexes
            .into_iter()
            .map(|index| (index, Round::Done(Outcome::temporary("another node took too long to store the message"))))
            .collect(),
    }
}

enum SendError {
    /// The node can't have stored anything.
    NotSent(String),
    /// It may have.
    Unknown(String),
}

async fn send(job: &Job, holder: &HolderId, to: &[Addressee]) -> Result<Vec<DeliveryReply>, SendError> {
    let (mut stream, broken) = job.node.links.open(&job.node, holder).await.map_err(|error| SendError::NotSent(error.to_string()))?;
    let request =
        Request::Deliver { client: job.client.clone(), envelope: job.envelope.clone(), to: to.to_vec(), bytes: job.message.len() };
    let exchange = async {
        // The holder stores nothing before it has the last byte, so an error up to there is "not sent".
        let sent = async {
            frames::write(&mut stream, &request).await?;
            send_message(&mut stream, &job.message).await
        };
        sent.await.map_err(|error: io::Error| SendError::NotSent(error.to_string()))?;
        stream.flush().await.map_err(|error| SendError::Unknown(error.to_string()))?;
        frames::read::<Vec<DeliveryReply>, _>(&mut stream).await.map_err(|error| SendError::Unknown(error.to_string()))
    };
    tokio::select! {
        // First: an answer that is here counts, whatever became of the link.
        biased;
        replies = exchange => replies,
        why = broken.heard() => Err(SendError::Unknown(format!("the link to node {holder} broke: {why}"))),
    }
}

async fn send_message(stream: &mut RelayStream, message: &Message) -> io::Result<()> {
    let mut offset = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    while offset < message.len() {
        let read = message.read_into(offset, &mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.write_all(chunk.get(..read).unwrap_or_default()).await?;
        offset += read as u64;
    }
    Ok(())
}
