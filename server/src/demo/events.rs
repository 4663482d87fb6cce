//! Who holds whom, live: what a fresh look at the shared directory shows, one line per change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use affinity::{HolderId, Root, UserName};

use super::layout::Layout;

/// How often the directory is looked at: a person should see a failover as it happens.
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Picture {
    nodes: BTreeSet<HolderId>,
    holders: BTreeMap<UserName, (u64, Option<HolderId>)>,
}

/// Prints changes (or, without `print`, only notices when the directory goes away) until cancelled.
pub async fn follow(layout: &Layout, print: bool) -> anyhow::Result<()> {
    if !print {
        return std::future::pending().await;
    }
    let root = Root::open(&layout.root, None)?;
    let mut before: Option<Picture> = None;
    loop {
        let looking = root.clone();
        match tokio::task::spawn_blocking(move || look(&looking)).await? {
            Ok(now) => {
                for line in changes(before.as_ref(), &now) {
                    println!("  {line}");
                }
                before = Some(now);
            }
            Err(error) => println!("  can't look at the shared directory: {error}"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn look(root: &Root) -> Result<Picture, affinity::AffinityError> {
    let nodes = root.live_nodes()?.into_iter().map(|node| node.holder).collect();
    // A folder that is being renamed this moment shows at the next look.
    let holders = root.leases()?.filter_map(Result::ok).map(|lease| (lease.user, (lease.seen.epoch.0, lease.seen.holder))).collect();
    Ok(Picture { nodes, holders })
}

fn changes(before: Option<&Picture>, now: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    let nothing = Picture::default();
    let old = before.unwrap_or(&nothing);
    for gone in old.nodes.difference(&now.nodes) {
        lines.push(format!("{} is gone (incarnation {})", gone.node, gone.incarnation));
    }
    for new in now.nodes.difference(&old.nodes) {
        lines.push(format!("{} is up (incarnation {})", new.node, new.incarnation));
    }
    for (user, (epoch, holder)) in &now.holders {
        let was = old.holders.get(user).and_then(|(_, holder)| holder.as_ref());
        if old.holders.get(user) == Some(&(*epoch, holder.clone())) {
            continue;
        }
        match (was, holder) {
            (None, Some(holder)) => lines.push(format!("{user} → {} (epoch {epoch})", holder.node)),
            (Some(was), Some(holder)) => lines.push(format!("{user}: {} → {} (epoch {epoch})", was.node, holder.node)),
            (Some(was), None) => lines.push(format!("{user}: released by {} (epoch {epoch})", was.node)),
            (None, None) => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_reads_as_one() {
        let holder = |raw: &str| raw.parse::<HolderId>().unwrap();
        let (a, b) = (holder("node1,0000000000000001"), holder("node2,0000000000000002"));
        let user = UserName::normalise("ada").unwrap();
        let before = Picture { nodes: [a.clone(), b.clone()].into(), holders: [(user.clone(), (1, Some(a)))].into() };
        let after = Picture { nodes: [b.clone()].into(), holders: [(user.clone(), (2, Some(b)))].into() };
        assert_eq!(changes(Some(&before), &after), ["node1 is gone (incarnation 0000000000000001)", "ada: node1 → node2 (epoch 2)"]);
        assert!(changes(Some(&after), &after).is_empty());
        assert_eq!(changes(None, &after).len(), 2);
    }
}
