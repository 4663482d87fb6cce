//! Nodes and leases as the names in the shared directory say, without asking anybody: the truth, but without sessions.
//!
//! Only listings and the published `info/`; nothing is opened that a node might rename, nothing is changed.

use std::{
    fs, io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use affinity::{Epoch, HolderId, NodeInfo, Root, UserName};
use anyhow::Context;
use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::control::{HeldRow, NodeRow};

/// Listings under way at once: each is a round trip or two to the file server.
const LISTINGS_AT_ONCE: usize = 16;

/// Every node in `nodes/`, sorted by name.
pub fn nodes(root: &Root) -> anyhow::Result<Vec<NodeRow>> {
    let mut rows: Vec<NodeRow> = list(&root.nodes())?
        .iter()
        .filter_map(|name| {
            let (holder, beat) = name.rsplit_once(',')?;
            Some(node_row(root, &holder.parse().ok()?, beat.parse().ok()?))
        })
        .collect();
    // A beat that is renamed during the listing may show twice.
    rows.sort_by(|a, b| (&a.name, &a.incarnation, b.beat).cmp(&(&b.name, &b.incarnation, a.beat)));
    rows.dedup_by(|a, b| (&a.name, &a.incarnation) == (&b.name, &b.incarnation));
    Ok(rows)
}

fn node_row(root: &Root, holder: &HolderId, beat: u64) -> NodeRow {
    let read = fs::read(root.info().join(holder.to_string()));
    // Published a moment before the node file; one that can't be read leaves its columns empty.
    let info: Option<NodeInfo> = read.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    NodeRow {
        name: holder.node.to_string(),
        incarnation: holder.incarnation.to_string(),
        beat,
        version: info.as_ref().map(|info| info.version.clone()),
        since: info.as_ref().map(|info| info.started),
        relay: info.map(|info| info.relay).unwrap_or_default(),
        state: None,
    }
}

/// Who holds whom, sorted by user: every held lease, or one user's lease also when it is free.
pub fn leases(root: &Root, user: Option<&UserName>) -> anyhow::Result<Vec<HeldRow>> {
    if let Some(user) = user {
        return Ok(lease(&root.lease(user), user)?.into_iter().collect());
    }
    let leases = root.path().join("leases");
    let buckets = list(&leases)?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let worker = || -> anyhow::Result<()> {
        while let Some(bucket) = buckets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bucket = leases.join(bucket);
            for name in list(&bucket)? {
                let Ok(user) = UserName::from_encoded(&name) else { continue };
                if let Some(row) = lease(&bucket.join(&name), &user)?.filter(|row| row.node.is_some()) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..LISTINGS_AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("listing the leases failed"))))
    })?;
    let mut rows = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|a, b| a.user.cmp(&b.user));
    Ok(rows)
}

/// `<epoch>,<holder>` or `<epoch>,free`; the highest epoch counts. `None`: never held.
fn lease(folder: &Path, user: &UserName) -> anyhow::Result<Option<HeldRow>> {
    let names = list(folder)?;
    let read = |name: &String| {
        let (epoch, holder) = name.split_once(',')?;
        let holder: Option<HolderId> = if holder == "free" { None } else { Some(holder.parse().ok()?) };
        Some((Epoch(epoch.parse().ok()?), holder))
    };
    let newest = names.iter().filter_map(read).max_by_key(|(epoch, _)| *epoch);
    Ok(newest.map(|(epoch, holder)| HeldRow {
        user: user.to_string(),
        node: holder.as_ref().map(|holder| holder.node.to_string()),
        incarnation: holder.map(|holder| holder.incarnation.to_string()),
        epoch: epoch.0,
    }))
}

/// A fresh listing; nothing where there is no folder.
fn list(folder: &Path) -> anyhow::Result<Vec<String>> {
    let listed = || -> io::Result<Vec<String>> {
        // Without this, an NFS client may answer from what it listed up to a minute ago.
        rustix::fs::statx(CWD, folder, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?;
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    match listed() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.with_context(|| format!("can't list {}", folder.display())),
    }
}
