//! What keeps this node from serving: looked at in the background, shown by `berth nodes` and `berth doctor`.

use std::{path::Path, sync::Arc, time::Duration};

use affinity::{Clock, NodeState, SystemClock};
use parking_lot::Mutex;
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::time::timeout;

use super::Node;

/// How often it is looked.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long the file systems may take to answer a look.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Least free space: below, a delivery or an index may fail at any time.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Least free inodes.
const FREE_FILES_MIN: u64 = 1_000;
/// How long a drain that a node was told of counts before its settings do: they are read every ten beats.
const DRAIN_TOLD: Duration = Duration::from_secs(30);
/// Descriptors beside those of connections: indexes, messages that are read, links, the runtime.
const DESCRIPTORS_BESIDE: u64 = 2_000;

/// What the last look showed.
#[derive(Debug)]
pub struct Health {
    clock: SystemClock,
    trouble: Mutex<Vec<String>>,
    drain_told: Mutex<Option<(bool, Duration)>>,
}

impl Default for Health {
    fn default() -> Health {
        Health { clock: SystemClock::new(), trouble: Mutex::default(), drain_told: Mutex::default() }
    }
}

impl Health {
    /// What keeps this node from serving, as of the last look.
    pub fn trouble(&self) -> Vec<String> {
        self.trouble.lock().clone()
    }
    /// An operator changed the setting a moment ago.
    pub fn drain_was_set(&self, on: bool) {
        *self.drain_told.lock() = Some((on, self.clock.now()));
    }
    /// What holds now, where the settings as read last say `setting`.
    pub fn is_drained(&self, setting: bool) -> bool {
        let mut told = self.drain_told.lock();
        match *told {
            Some((on, since)) if on != setting && self.clock.now().saturating_sub(since) < DRAIN_TOLD => on,
            _ => {
                *told = None;
                setting
            }
        }
    }
}

/// Looks; what is new is logged.
pub async fn look(node: &Arc<Node>) {
    let config = node.config();
    let (root, local_dir) = (config.node.root.clone(), config.node.local_dir.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let mut found = check_space("node.local_dir", &local_dir);
        found.extend(check_space("the shared directory", &root));
        found
    });
    let mut found = match timeout(ANSWER_LIMIT, looking).await {
        Ok(found) => found.unwrap_or_default(),
        Err(_) => vec![format!("the file systems do not answer within {}", humantime::format_duration(ANSWER_LIMIT))],
    };
    match node.keeper.state() {
        NodeState::Up => {}
        NodeState::Suspended => found.push("no contact with the shared directory: nothing is acknowledged".to_owned()),
        NodeState::Out => found.push("fenced: it is joining again".to_owned()),
    }
    let mut trouble = node.health.trouble.lock();
    for what in found.iter().filter(|what| !trouble.contains(what)) {
        tracing::error!(what, "this node can't serve as it should");
    }
    *trouble = found;
}

/// What is wrong with the file system at `path`.
pub fn check_space(what: &str, path: &Path) -> Vec<String> {
    let stat = match statvfs(path) {
        Ok(stat) => stat,
        Err(Errno::STALE) => return vec![format!("{what}, {}, is a stale mount: mount it again", path.display())],
        Err(error) => return vec![format!("{what}, {}, can't be looked at: {error}", path.display())],
    };
    let mut found = Vec::new();
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        found.push(format!("{what}, {}, is mounted read-only", path.display()));
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < FREE_BYTES_MIN {
        found.push(format!("{what}, {}, is full: {} left", path.display(), bytesize::ByteSize(free)));
    }
    // File systems without a fixed number of inodes say 0 of 0.
    if stat.f_files > 0 && stat.f_favail < FREE_FILES_MIN {
        found.push(format!("{what}, {}, has no room for files: {} inodes left", path.display(), stat.f_favail));
    }
    found
}

/// Raises the limit of open files to what the host permits; warns where that is too few for `connections`.
pub fn raise_descriptor_limit(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files can't be raised to the hard limit");
    }
    if let Some(warning) = descriptors_are_few(getrlimit(Resource::Nofile).current, connections) {
        tracing::warn!("{warning}");
    }
}

/// What to say where `limit` descriptors (`None`: any number) don't suffice.
pub fn descriptors_are_few(limit: Option<u64>, connections: usize) -> Option<String> {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(DESCRIPTORS_BESIDE);
    limit.filter(|limit| *limit < wanted).map(|limit| {
        format!(
            "only {limit} open files are permitted, {wanted} are needed for limits.connections: raise LimitNOFILE (systemd) or ulimit -Hn"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_missing_place_is_named() {
        assert_eq!(check_space("here", &std::env::temp_dir()), Vec::<String>::new());
        let found = check_space("node.local_dir", Path::new("/nowhere/at/all"));
        assert!(found.len() == 1 && found[0].contains("node.local_dir, /nowhere/at/all"), "{found:?}");
        let found = check_space("proc", Path::new("/proc"));
        assert!(found.iter().any(|what| what.contains("is full")), "a file system without room: {found:?}");
    }

    #[test]
    fn few_descriptors_are_warned_of_with_advice() {
        assert_eq!(descriptors_are_few(None, 20_000), None);
        assert_eq!(descriptors_are_few(Some(1 << 20), 20_000), None);
        assert!(descriptors_are_few(Some(1024), 20_000).unwrap().contains("LimitNOFILE"));
    }

    #[test]
    fn what_an_operator_said_counts_until_the_settings_say_it_too() {
        let health = Health::default();
        assert!(!health.is_drained(false));
        health.drain_was_set(true);
        assert!(health.is_drained(false), "the settings are not read yet");
        assert!(health.is_drained(true));
        assert!(!health.is_drained(false), "and then they count again");
    }
}
