//! Work that may take long: it ends when nobody waits for it any more, and a client that waits hears how far it is (RFC 9585).
//!
//! Invariant: work goes on whatever the client does, since a search may hold room that other users' searches wait for
//! (`a_search_goes_on_while_its_client_reads_nothing`).

use std::{
    future::{Future, pending},
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
};

use futures::future::{Either, select};
use storage::StorageError;
use tokio::time::{Instant, interval_at};

use crate::{
    connection::{Connection, ConnectionError},
    imap::{
        holding::Holding,
        reply::Stop,
        session::Settings,
        updates,
        wire::response::{self, Code, Condition},
    },
};

/// How far a command is.
#[derive(Debug)]
pub struct Progress<'a> {
    tag: &'a str,
    done: AtomicU32,
    /// `None`: not known, and so is `done`.
    goal: Option<u32>,
}

impl<'a> Progress<'a> {
    /// The command with this tag; how much there is to do is not known.
    pub fn unknown(tag: &'a str) -> Progress<'a> {
        Progress { tag, done: AtomicU32::new(0), goal: None }
    }
    /// The same, with so many messages to look at.
    pub fn of(tag: &'a str, goal: u32) -> Progress<'a> {
        Progress { goal: Some(goal), ..Progress::unknown(tag) }
    }
    /// So many more are done.
    pub fn add(&self, messages: usize) {
        self.done.fetch_add(u32::try_from(messages).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
    fn tell(&self, connection: &mut Connection) {
        let of = self.goal.map(|goal| (self.done.load(Ordering::Relaxed).min(goal), goal));
        let code = Code::InProgress { tag: self.tag, of };
        response::untagged(connection.output(), Condition::Ok, Some(&code), "Still working");
    }
}

/// Does `work` as long as the client is there and the account is held here; every `progress_interval` the client is told how far it is.
pub async fn while_wanted<H: Holding, T>(
    connection: &mut Connection,
    held: &H,
    settings: &Settings,
    progress: &Progress<'_>,
    work: impl Future<Output = Result<T, StorageError>> + Send,
) -> Result<T, Stop> {
    connection.flush_if_large().await?;
    let mut work = pin!(work);
    // A script that sent all it wants and closed its side still gets its answers.
    let mut silent = connection.input().is_empty();
    let mut told = interval_at(Instant::now() + settings.progress_interval, settings.progress_interval);
    loop {
        let filled = async { if silent { connection.fill(settings.idle_timeout).await } else { pending().await } };
        tokio::select! {
            biased;
            text = held.taken_away() => return Err(updates::farewell(&text)),
            done = &mut work => return Ok(done?),
            // Only to see it leave: once it has sent more, that waits, and so is bounded.
            filled = filled => match filled {
                Ok(()) => silent = false,
                Err(ConnectionError::Timeout(_)) => {}
                Err(error) => return Err(error.into()),
            },
            _ = told.tick() => {
                progress.tell(connection);
                // Who reads slowly keeps no work waiting: it may have got what others wait for.
                match select(pin!(connection.flush()), &mut work).await {
                    Either::Left((flushed, _)) => flushed?,
                    Either::Right((done, flushed)) => {
                        flushed.await?;
                        return Ok(done?);
                    }
                }
            }
        }
    }
}
