//! `berth index`: a user's index is compared with itself, or made anew, on the user's holder.

use std::{sync::Arc, time::Duration};

use affinity::{Clock, SystemClock, UserName};
use storage::StorageError;

use super::{
    Node,
    at_holder::{self, Answer},
};
use crate::{
    command::control::{INDEX_WAIT, IndexReply},
    forward::{Held, frames::Request},
};

/// A little less than whoever asks waits.
const LIMIT: Duration = INDEX_WAIT.saturating_sub(Duration::from_secs(30));

/// Checks a user's index or makes it anew, on the node that holds the user.
pub async fn of(node: &Arc<Node>, user: &UserName, rebuild: bool) -> Result<IndexReply, String> {
    let request = || Request::Index { user: user.clone(), rebuild };
    match at_holder::ask(node, user, request, LIMIT).await? {
        Answer::Here(held) => report(node, &held, rebuild).await,
        Answer::There(reply) => Ok(reply),
    }
}

/// The same on the holder.
pub async fn report(node: &Arc<Node>, held: &Held, rebuild: bool) -> Result<IndexReply, String> {
    let clock = SystemClock::new();
    let worked = held.run(move |account| {
        if rebuild {
            account.rebuild_index()?;
            return Ok(account.list()?.iter().filter(|entry| entry.selectable).count());
        }
        let mut checked = 0;
        account.check_index(&mut |mailboxes| checked = mailboxes)?;
        Ok(checked)
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
