//! Follows changes of the configuration file, the users and the certificates: on SIGHUP, and when a file changes.
//!
//! What is wrong is logged and changes nothing. Listen addresses, node name and root need a restart, and the log says so.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use affinity::swap::open_undelegated;
use notify::{RecursiveMode, Watcher};
use rustix::fs::OFlags;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Node, certificates};
use crate::{
    config::{Config, TlsSection},
    tls::{self, Tls},
};

/// Several changes of one file come together.
const SETTLE: Duration = Duration::from_millis(200);
/// Files on the shared directory are changed by other nodes too, which inotify does not see: they are looked at this often.
const POLL: Duration = Duration::from_secs(15);

/// Until aborted.
pub async fn follow(node: Arc<Node>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut files = watched(&node);
    let mut watching = watch(&files, changed.clone());
    let mut poll = tokio::time::interval(POLL);
    let mut seen = states(files.clone()).await;
    loop {
        let forced = tokio::select! {
            _ = hangup.recv() => true,
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
                false
            }
            _ = poll.tick() => false,
        };
        let now = states(files.clone()).await;
        if forced || now != seen {
            seen = now;
            reload(&node).await;
            let new = watched(&node);
            if new != files {
                files = new;
                // The old one ends here.
                drop(watching);
                watching = watch(&files, changed.clone());
                seen = states(files.clone()).await;
            }
        }
    }
}

fn watched(node: &Node) -> Vec<PathBuf> {
    let config = node.config();
    let mut files = vec![node.config_file.clone(), config.passwd_file()];
    files.extend(tls::files(&config.tls));
    files
}

/// Watches the folders: editors and certificate tools replace files.
fn watch(files: &[PathBuf], changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let watching = try_watch(files, changed);
    if let Err(error) = &watching {
        tracing::warn!(%error, "files can't be watched for changes: they are polled");
    }
    watching.ok()
}

fn try_watch(files: &[PathBuf], changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One that waits already is enough.
            changed.try_send(()).ok();
        }
    })?;
    for folder in files.iter().filter_map(|file| file.parent()) {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

type States = BTreeMap<PathBuf, Option<(u64, Option<SystemTime>)>>;

async fn states(files: Vec<PathBuf>) -> States {
    let looking = tokio::task::spawn_blocking(move || {
        files
            .into_iter()
            .map(|file| {
                let state = state(&file);
                (file, state)
            })
            .collect::<States>()
    });
    looking.await.unwrap_or_default()
}

/// Opening is what makes an NFS client look again (close-to-open).
fn state(file: &Path) -> Option<(u64, Option<SystemTime>)> {
    // Without a delegation: it would make everybody who replaces the users file wait for this host.
    let metadata = open_undelegated(file, OFlags::RDONLY).and_then(|open| open.metadata()).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

fn reload_tls(node: &Node, tls: &Tls, section: &TlsSection, all: &mut bool) -> bool {
    match tls.reload(section, &node.config().node.root) {
        Ok(()) => {
            certificates::warn(tls, section);
            true
        }
        Err(error) => {
            *all = false;
            tracing::error!(error = format!("{error:#}"), "certificates not reloaded: the old ones stay");
            false
        }
    }
}

async fn reload(node: &Arc<Node>) {
    let file = node.config_file.clone();
    let node = node.clone();
    let done = tokio::task::spawn_blocking(move || {
        let mut all = true;
        match Config::load(&file) {
            Ok(new) => {
                let old = node.config();
                for (what, differs) in [
                    ("[listen]", new.listen != old.listen),
                    ("[node]", new.node != old.node),
                    ("[mail]", new.mail != old.mail),
                    ("[cache]", new.cache != old.cache),
                    ("limits.mailboxes", new.limits.mailboxes != old.limits.mailboxes),
                ] {
                    if differs {
                        tracing::warn!("changes of {what} take effect at the next start");
                    }
                }
                if let Err(error) = node.auth.reload(&new.auth) {
                    all = false;
                    tracing::error!(error = format!("{error:#}"), "users not reloaded: the old ones stay");
                }
                let tls = match &node.tls {
                    Some(tls) => reload_tls(&node, tls, &new.tls, &mut all).then(|| new.tls.clone()),
                    None => {
                        if new.tls.is_on() {
                            tracing::warn!("the first certificate of [tls] takes effect at the next start");
                        }
                        None
                    }
                };
                let effective = Config {
                    tls: tls.unwrap_or_else(|| old.tls.clone()),
                    listen: old.listen.clone(),
                    node: old.node.clone(),
                    cache: old.cache.clone(),
                    limits: crate::config::Limits { mailboxes: old.limits.mailboxes, ..new.limits },
                    mail: crate::config::MailSection { linger: new.mail.linger, ..old.mail.clone() },
                    ..new
                };
                // First: what doors promise is what the store takes.
                node.accounts.set_message_bytes_max(super::stored_bytes_max(&effective));
                node.config.store(Arc::new(effective));
            }
            Err(error) => {
                all = false;
                tracing::error!(error = format!("{error:#}"), "configuration not reloaded: the old one stays");
                if let Some(tls) = &node.tls {
                    reload_tls(&node, tls, &node.config().tls, &mut all);
                }
            }
        }
        if all {
            tracing::info!("configuration, users and certificates reloaded");
        }
    });
    if let Err(error) = done.await {
        tracing::error!(%error, "the reload failed unexpectedly");
    }
}
