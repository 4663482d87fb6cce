//! Tasks that a node can't do without: where one of them ends, the node does, so that other nodes take over and its supervisor starts it again.
//!
//! Invariants, each with the test that guards it:
//! - neither a panic nor an error nor an early end goes unnoticed (`whatever_ends_a_vital_task_is_told`)

use tokio_util::sync::CancellationToken;

use crate::forward::held::Farewell;

/// The tasks of one node.
#[derive(Debug, Default)]
pub struct Vital {
    ended: Farewell,
}

impl Vital {
    /// Runs `work`, which is not to end before `stop`.
    pub fn run(&self, what: &'static str, stop: CancellationToken, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (ended, work) = (self.ended.clone(), tokio::spawn(work));
        tokio::spawn(async move {
            let why = match work.await {
                Ok(Ok(())) => "it came to an end".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => panic.to_string(),
            };
            if !stop.is_cancelled() {
                ended.say(&format!("{what}: {why}"));
            }
        });
    }

    /// Resolves with what happened when one of them has ended. Safe to cancel.
    pub async fn ended(&self) -> String {
        self.ended.heard().await
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whatever_ends_a_vital_task_is_told() {
        let (stop, limit) = (CancellationToken::new(), Duration::from_secs(60));
        let vital = Vital::default();
        vital.run("housekeeping", stop.clone(), pending());
        assert!(timeout(limit, vital.ended()).await.is_err(), "all is well");
        vital.run("relay", stop.clone(), async { anyhow::bail!("no socket") });
        assert_eq!(timeout(limit, vital.ended()).await.unwrap(), "relay: no socket");

        let vital = Vital::default();
        vital.run("events", stop.clone(), async { panic!("of a test") });
        let told = timeout(limit, vital.ended()).await.unwrap();
        assert!(told.starts_with("events: ") && told.contains("panic"), "{told}");

        let vital = Vital::default();
        stop.cancel();
        vital.run("housekeeping", stop, async { Ok(()) });
        assert!(timeout(limit, vital.ended()).await.is_err(), "the node leaves");
    }
}
