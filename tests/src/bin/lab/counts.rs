//! Counting NFS requests of one piece of work on one host.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    lab::{Cluster, Lab, MAIL, Node, STATE},
    wait,
};

/// Requests by operation.
pub type Requests = BTreeMap<String, u64>;

/// How long background work may go on after a measurement before that is a fault.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Without a request for so long, no work is left in the background.
pub const QUIET: Duration = Duration::from_millis(1_500);
/// The same after deliveries: names in `tmp/` go two seconds after the last one.
pub const QUIET_AFTER_DELIVERY: Duration = Duration::from_millis(3_500);

/// What was counted at one moment.
#[derive(Debug, Clone)]
pub struct Counts {
    mail: Requests,
    state: Requests,
    /// Beats of the node since it joined.
    beats: u64,
}

/// What happened between two moments.
#[derive(Debug, Clone)]
pub struct Used {
    /// On the mount with mail and indexes.
    pub mail: Requests,
    /// On the mount with the state, beats included.
    pub state: Requests,
    /// Beats meanwhile.
    pub beats: u64,
}

impl Counts {
    /// Now, on one node's host.
    pub fn of(lab: &Lab, cluster: &Cluster, node: &Node) -> Result<Counts> {
        // The number of beats stands in a name; looked at on the server, it costs the host no request.
        let folder = cluster.root.replace(STATE, "/export") + "/nodes";
        let listed = lab.exec("srv", &["ls", &folder])?;
        let mine = listed.lines().find(|name| name.starts_with(&format!("{},", node.name))).context("the node is not listed")?;
        let beats = mine.rsplit(',').next().and_then(|beat| beat.parse().ok()).with_context(|| format!("no beat in {mine}"))?;
        Ok(Counts { mail: lab.requests(&node.name, MAIL)?, state: lab.requests(&node.name, STATE)?, beats })
    }

    /// From `self` to `later`.
    pub fn until(&self, later: &Counts) -> Used {
        Used {
            mail: difference(&self.mail, &later.mail),
            state: difference(&self.state, &later.state),
            beats: later.beats.saturating_sub(self.beats),
        }
    }
}

/// Waits until the mail mount is quiet: what an operation left for the background is done.
pub fn settled(lab: &Lab, cluster: &Cluster, node: &Node, quiet: Duration) -> Result<Counts> {
    let mut last = Counts::of(lab, cluster, node)?;
    let mut same_since = wait::now();
    wait::until("a quiet mail mount", SETTLE_LIMIT, || {
        let now = Counts::of(lab, cluster, node)?;
        if now.mail != last.mail {
            last = now;
            same_since = wait::now();
        }
        ensure!(same_since.elapsed() > quiet, "requests go on");
        Ok(())
    })?;
    Ok(last)
}

fn difference(before: &Requests, after: &Requests) -> Requests {
    after
        .iter()
        .filter_map(|(name, count)| {
            let more = count.saturating_sub(before.get(name).copied().unwrap_or(0));
            (more > 0).then(|| (name.clone(), more))
        })
        .collect()
}

/// All operations together.
pub fn total(requests: &Requests) -> u64 {
    requests.values().sum()
}
