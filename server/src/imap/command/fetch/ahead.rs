//! Message files that FETCH reads ahead of the client, in order, within [`AHEAD_READS`] and [`AHEAD_BYTES`].

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use index::Uid;
use storage::{Mailbox, Row, StorageError};

use super::{
    body::{Prepared, Request, When},
    made::is_of_one_file,
};
use crate::imap::{holding::Holding, reply::Stop};

/// How many groups of messages are read at once: those of a whole batch on a local disk, enough to hide a file server's latency.
const AHEAD_READS: usize = 32;
/// Most messages that one call reads, one after the other: on a local disk, changing threads costs more than reading a message. On a file server each is
/// read by itself.
const GROUP_MESSAGES: usize = 16;
/// How many bytes reading ahead may hold for one session.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Reads message files ahead of the client, in order.
pub(super) struct Ahead<'a, H> {
    held: &'a H,
    mailbox: &'a Arc<Mailbox>,
    request: &'a Arc<Request>,
    /// Not started yet.
    rows: VecDeque<Row>,
    /// Messages of the next group: it doubles, so that the first message comes soon and the others at little cost.
    group: usize,
    /// Costs of the messages under way and ready, in order.
    costs: VecDeque<u64>,
    bytes: u64,
    reading: FuturesOrdered<BoxFuture<'a, Result<Vec<Read>, StorageError>>>,
    ready: VecDeque<Read>,
}

/// What is known of the next message.
pub(super) enum Found {
    /// `None`: nothing was to be read.
    There(Option<Prepared>),
    Gone,
    Unreadable(StorageError),
}

/// What became of reading a message; `None`: it is to be read at its turn, since it takes too much memory before.
type Read = (Uid, Result<Option<Prepared>, StorageError>);

impl<'a, H: Holding> Ahead<'a, H> {
    pub fn new(held: &'a H, mailbox: &'a Arc<Mailbox>, request: &'a Arc<Request>, rows: VecDeque<Row>) -> Ahead<'a, H> {
        Ahead {
            held,
            mailbox,
            request,
            rows,
            group: 1,
            costs: VecDeque::new(),
            bytes: 0,
            reading: FuturesOrdered::new(),
            ready: VecDeque::new(),
        }
    }

    fn start(&mut self) {
        while !self.rows.is_empty() && self.reading.len() < AHEAD_READS {
            let mut uids = Vec::new();
            while let Some(row) = self.rows.front().filter(|_| uids.len() < self.group) {
                let cost = match self.request.cost(row.size) {
                    cost if cost < row.size && self.mailbox.is_held_when_open(row.uid) => row.size,
                    cost => cost,
                };
                let full = self.bytes.saturating_add(cost) > AHEAD_BYTES;
                if full && !self.costs.is_empty() {
                    break;
                }
                uids.push(row.uid);
                self.costs.push_back(cost);
                self.bytes += cost;
                self.rows.pop_front();
            }
            if uids.is_empty() {
                return;
            }
            self.group = if self.mailbox.is_remote() { 1 } else { (self.group * 2).min(GROUP_MESSAGES) };
            let (mailbox, request) = (Arc::clone(self.mailbox), Arc::clone(self.request));
            let read = move |_: &_| Ok(uids.into_iter().map(|uid| (uid, request.prepare(&mailbox, uid, When::Ahead))).collect());
            self.reading.push_back(Box::pin(self.held.run(read)));
        }
    }

    /// What was read of the next message.
    pub async fn next(&mut self) -> Result<Found, Stop> {
        if self.request.is_empty() {
            return Ok(Found::There(None));
        }
        self.start();
        if self.ready.is_empty() {
            let Some(group) = self.reading.next().await else { return Ok(Found::Gone) };
            self.ready.extend(group?);
            self.start();
        }
        let Some((uid, mut read)) = self.ready.pop_front() else { return Ok(Found::Gone) };
        self.bytes -= self.costs.pop_front().unwrap_or_default();
        if matches!(read, Ok(None)) {
            let (mailbox, request) = (Arc::clone(self.mailbox), Arc::clone(self.request));
            read = self.held.run(move |_| request.prepare(&mailbox, uid, When::AtItsTurn)).await;
        }
        match read {
            Ok(prepared) => Ok(Found::There(prepared)),
            Err(StorageError::Expunged) => Ok(Found::Gone),
            Err(error) if is_of_one_file(&error) => Ok(Found::Unreadable(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves the next message out.
    pub async fn skip(&mut self) -> Result<(), Stop> {
        self.next().await.map(drop)
    }
}
