//! What errors of the mail store say of this node: one user's damaged index is that user's, many at once are the node's.

use std::{collections::HashMap, io, time::Duration};

use affinity::{Clock, SystemClock, UserName};
use parking_lot::Mutex;
use rustix::io::Errno;
use storage::StorageError;
use tokio::sync::Notify;

/// Users whose indexes failed within [`WITHIN`] before that is the node's trouble.
const USERS: usize = 3;
/// How long a failure counts.
const WITHIN: Duration = Duration::from_secs(60);
/// Most users that are remembered.
const USERS_MAX: usize = 1_000;

/// What the store's errors showed.
#[derive(Debug)]
pub struct Evidence {
    clock: SystemClock,
    indexes: Mutex<HashMap<UserName, (Duration, String)>>,
    /// Somebody met an error that a look at the file systems may explain.
    look: Notify,
}

impl Default for Evidence {
    fn default() -> Evidence {
        Evidence { clock: SystemClock::new(), indexes: Mutex::default(), look: Notify::new() }
    }
}

impl Evidence {
    /// An operation of the store failed.
    pub fn saw(&self, error: &StorageError) {
        match error {
            StorageError::Index { user, reason } => {
                let now = self.clock.now();
                let mut indexes = self.indexes.lock();
                indexes.retain(|_, (at, _)| now.saturating_sub(*at) < WITHIN);
                if indexes.len() < USERS_MAX {
                    indexes.insert(user.clone(), (now, reason.clone()));
                }
                // Also where there is no space, or none may be written.
                self.look.notify_one();
            }
            StorageError::NoSpace { .. } => self.look.notify_one(),
            StorageError::Io { cause, .. } if is_telling(cause) => self.look.notify_one(),
            _ => {}
        }
    }

    /// What the errors of late mean, if anything.
    pub fn trouble(&self) -> Option<String> {
        let now = self.clock.now();
        let indexes = self.indexes.lock();
        let mut recent: Vec<_> = indexes.values().filter(|(at, _)| now.saturating_sub(*at) < WITHIN).collect();
        recent.sort();
        let (_, last) = recent.last()?;
        (recent.len() >= USERS).then(|| format!("the indexes of {} users failed within a minute, the last one so: {last}", recent.len()))
    }

    /// Until somebody meets an error that is worth a look.
    pub async fn is_worth_a_look(&self) {
        self.look.notified().await;
    }
}

/// Whether an error may concern everybody on this node.
fn is_telling(error: &io::Error) -> bool {
    let told = [Errno::ROFS, Errno::STALE, Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|error| told.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(user: &str) -> StorageError {
        StorageError::Index { user: UserName::normalise(user).unwrap(), reason: "disk I/O error".to_owned() }
    }

    #[tokio::test]
    async fn many_failed_indexes_are_the_nodes_trouble_and_one_is_not() {
        let evidence = Evidence::default();
        for _ in 0..10 {
            evidence.saw(&failed("ada"));
        }
        assert_eq!(evidence.trouble(), None);
        evidence.saw(&failed("bob"));
        evidence.saw(&failed("carol"));
        let said = evidence.trouble().unwrap();
        assert!(said.contains("3 users") && said.contains("disk I/O error"), "{said}");
        evidence.is_worth_a_look().await;
    }

    #[tokio::test]
    async fn errors_that_concern_everybody_are_worth_a_look() {
        let worth = |error: StorageError| async move {
            let evidence = Evidence::default();
            evidence.saw(&error);
            tokio::time::timeout(Duration::from_millis(20), evidence.is_worth_a_look()).await.is_ok()
        };
        let io = |errno: Errno| StorageError::Io { doing: "can't rename", path: "x".into(), cause: errno.into() };
        assert!(worth(io(Errno::ROFS)).await && worth(io(Errno::STALE)).await);
        assert!(worth(StorageError::NoSpace { path: "x".into(), cause: Errno::NOSPC.into() }).await);
        assert!(!worth(io(Errno::NOENT)).await && !worth(StorageError::Expunged).await);
    }
}
