//! `berth index`: a user's index is compared with itself, or made anew, on the user's holder.

use std::{sync::Arc, time::Duration};

use affinity::{Clock, SystemClock, UserName};
use storage::{IndexProgress, StorageError};

use super::{
    Node,
    at_holder::{self, Answer},
};
use crate::{
    command::control::{INDEX_WAIT, IndexProgressReply, IndexReply},
    forward::{Held, frames::Request},
};

/// A little less than whoever asks waits.
const LIMIT: Duration = INDEX_WAIT.saturating_sub(Duration::from_secs(30));
/// It is in memory, and asked for again every second.
const PROGRESS_LIMIT: Duration = Duration::from_secs(2);

/// Checks a user's index or makes it anew, on the node that holds the user.
pub async fn of(node: &Arc<Node>, user: &UserName, rebuild: bool) -> Result<IndexReply, String> {
    let request = || Request::Index { user: user.clone(), rebuild };
    match at_holder::ask(node, user, request, LIMIT).await? {
        Answer::Here(held) => report(node, &held, rebuild).await,
        Answer::There(reply) => Ok(reply),
    }
}

/// How far that is, as the holder says.
pub async fn progress_of(node: &Arc<Node>, user: &UserName) -> Result<IndexProgressReply, String> {
    let request = || Request::IndexProgress { user: user.clone() };
    match at_holder::ask(node, user, request, PROGRESS_LIMIT).await? {
        Answer::Here(held) => progress(&held).await,
        Answer::There(reply) => Ok(reply),
    }
}

/// The same on the holder.
pub async fn progress(held: &Held) -> Result<IndexProgressReply, String> {
    let progress = held.run(|account| Ok(account.index_progress())).await.map_err(|error| error.to_string())?;
    let IndexProgress { mailboxes, of, messages } = progress.unwrap_or_default();
    Ok(IndexProgressReply { mailboxes, of, messages })
}

/// Checks an index or makes it anew, on the holder.
pub async fn report(node: &Arc<Node>, held: &Held, rebuild: bool) -> Result<IndexReply, String> {
    let clock = SystemClock::new();
    let worked = held.run(move |account| {
        if rebuild {
            account.rebuild_index()?;
            return Ok(account.list()?.iter().filter(|entry| entry.selectable).count());
        }
        account.check_index()
    });
    let (mailboxes, damage) = match worked.await {
        Ok(mailboxes) => (mailboxes, None),
        Err(error @ StorageError::IndexDamaged(_)) => (0, Some(error.to_string())),
        Err(error) => return Err(error.to_string()),
    };
    tracing::info!(user = %held.user(), rebuild, mailboxes, ?damage, "an operator looked at an index");
    let milliseconds = u64::try_from(clock.now().as_millis()).unwrap_or(u64::MAX);
    Ok(IndexReply { node: node.keeper.me().node.to_string(), mailboxes, milliseconds, damage })
}
