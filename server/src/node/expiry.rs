//! Old messages go: each user once in `expiry.interval`, at a moment of their own, by the holder.
//!
//! The moment is a hash of the user's name within the interval, so that visits are spread evenly, need no memory, and no two nodes begin together. Who is
//! open here is visited here; of those whom nobody holds each node visits the ones that are its to serve, and closes them again. One visit is under way at
//! a time: some dozen requests for a user who was not open, next to none for one who was.
//!
//! Invariants, each with the test that guards it:
//! - every user has one moment in each interval (`every_user_has_one_moment_in_each_interval`)

use std::{hash::Hasher, sync::Arc, time::Duration};

use affinity::UserName;
use storage::{ExpiryRule, StorageError};

use super::Node;
use crate::forward::{
    accounts::{Claim, Opened},
    held::Use,
};

/// Messages that go at once; then others have their turn.
const BATCH: usize = 500;
/// Between two batches, and between two users.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is looked whose moment has come.
const TICK: Duration = Duration::from_secs(1);

/// Visits users until the node stops.
pub async fn run(node: Arc<Node>) {
    let mut seen = seconds();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = node.stop_listening.cancelled() => return,
        }
        let now = seconds();
        let rules = node.config().expiry.parsed();
        let interval = node.config().expiry.interval.as_secs();
        if !rules.is_empty() && !node.accounts.placing.takes_nobody() {
            let due = node.auth.users_of_files().into_iter().filter(|user| is_due(user, interval, seen, now));
            for user in due.collect::<Vec<_>>() {
                if node.stop_listening.is_cancelled() {
                    return;
                }
                if let Err(error) = visit(&node, &user, &rules).await {
                    tracing::warn!(%user, %error, "old messages could not be removed: at the next visit");
                }
            }
        }
        // However long the visits took: whose moment came meanwhile is next.
        seen = now;
    }
}

fn seconds() -> u64 {
    affinity::clock::wall_clock().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether the user's moment lies after `seen` and not after `now`.
fn is_due(user: &UserName, interval: u64, seen: u64, now: u64) -> bool {
    let interval = interval.max(1);
    // The same on every node and in every version: not the standard library's hasher, which promises neither.
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(user.as_str().as_bytes());
    let moment = hash.finish() % interval;
    // The last moment that is not after `now`.
    let passed = (now + interval - moment) / interval;
    passed > 0 && passed > (seen + interval - moment) / interval
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

async fn visit(node: &Arc<Node>, user: &UserName, rules: &Arc<[ExpiryRule]>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let paths = node.account_paths(user).await?;
    let was_open = node.accounts.is_open(user);
    if !was_open {
        let ours = node.accounts.placing.place(user).is_some_and(|place| place == node.keeper.me());
        // Whoever holds the user visits them; a holder that is gone is a login's business.
        if !ours || node.keeper.look(user).await?.holder.is_some() {
            return Ok(());
        }
        let maildir = paths.maildir.clone();
        if !tokio::task::spawn_blocking(move || maildir.is_dir()).await? {
            return Ok(());
        }
    }
    let Opened::Here(held) = node.accounts.open(user, paths, Use::Delivery, Claim::Asked).await? else { return Ok(()) };
    loop {
        let (rules, now) = (Arc::clone(rules), i64::try_from(seconds())?);
        let removed = match held.run(move |account| account.expire(&rules, now, BATCH)).await {
            Err(StorageError::Closing(_) | StorageError::LeaseLost(_)) => break,
            removed => removed?,
        };
        for (mailbox, messages) in &removed {
            tracing::info!(%user, %mailbox, messages, "old messages removed");
        }
        tokio::time::sleep(PAUSE).await;
        if removed.iter().map(|(_, messages)| messages).sum::<usize>() < BATCH {
            break;
        }
    }
    drop(held);
    if !was_open {
        node.accounts.close_unused(user).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_one_moment_in_each_interval() {
        let users: Vec<UserName> = (0..1_000).map(|number| UserName::normalise(&format!("user{number}")).unwrap()).collect();
        let (interval, start) = (1_000, 1_763_748_123);
        let mut fullest = 0;
        let mut visits = vec![0; users.len()];
        for second in 0..interval {
            let due: Vec<usize> = (0..users.len()).filter(|at| is_due(&users[*at], interval, start + second, start + second + 1)).collect();
            fullest = fullest.max(due.len());
            due.into_iter().for_each(|at| visits[at] += 1);
        }
        assert!(visits.iter().all(|visits| *visits == 1), "{visits:?}");
        assert!(fullest < 10, "{fullest} users in one second");
        assert!(users.iter().all(|user| is_due(user, interval, start, start + interval)), "none is left out by a long visit");
        assert!(!users.iter().any(|user| is_due(user, interval, start, start)));
    }
}
