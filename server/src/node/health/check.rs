//! Looks at file systems, the clock and limits: for the node itself, and for `berth doctor`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use affinity::swap::{MountedDirectory, SharedDirectory};
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Least free space: below, a delivery or an index may fail at any time.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Least free inodes.
const FREE_FILES_MIN: u64 = 1_000;
/// More difference than this between the clocks of a host and its file server, and something is wrong with one of them: names and dates of
/// messages are made from the one and compared with the other, and certificates with the first.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(600);
/// Descriptors beside those of connections: indexes, messages that are read, links, the runtime.
const DESCRIPTORS_BESIDE: u64 = 2_000;
/// What a probe writes: a block, so that it needs space.
const PROBE: [u8; 4096] = [b'x'; 4096];

/// What is wrong with the file system at `path`.
pub fn space(what: &str, path: &Path) -> Vec<String> {
    let stat = match statvfs(path) {
        Ok(stat) => stat,
        Err(error) => return vec![refused(what, path, error)],
    };
    let mut found = Vec::new();
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        found.push(refused(what, path, Errno::ROFS));
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

/// Tries to write under `path`, or its nearest parent that is there: an export may be read-only, or a quota be used up, without a word in
/// what [`space`] sees. `name` is this node's own, and the file is gone afterwards.
pub fn write_probe(what: &str, path: &Path, name: &str) -> Option<String> {
    let folder = path.ancestors().find(|folder| folder.is_dir())?;
    let written = MountedDirectory::new(folder).and_then(|directory| {
        directory.write(name, &PROBE)?;
        directory.remove(name)
    });
    match written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
        // Where an operator makes users' folders by hand, this one may be none of our business.
        Ok(()) | Err(Errno::ACCESS | Errno::PERM) => None,
        Err(error) => Some(refused(what, path, error)),
    }
}

fn refused(what: &str, path: &Path, error: Errno) -> String {
    let path = path.display();
    match error {
        Errno::STALE => format!("{what}, {path}, is a stale mount: mount it again"),
        Errno::ROFS => format!("{what}, {path}, is read-only: look at the mount's options and the export's"),
        Errno::NOSPC => format!("{what}, {path}, is full"),
        Errno::DQUOT => format!("{what}, {path}, is over the quota of the user that this program runs as"),
        error => format!("{what}, {path}, can't be used: {error}"),
    }
}

/// The part of a path template that is the same for all users.
pub fn fixed_part(root: &Path, template: &str) -> PathBuf {
    let whole = root.join(template);
    whole.components().take_while(|part| !part.as_os_str().to_string_lossy().contains('{')).collect()
}

/// What is wrong where this host's clock says `here`, and the file server's said `there` a moment ago.
pub fn clock(here: SystemTime, there: SystemTime) -> Option<String> {
    let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let difference = since_epoch(here).abs_diff(since_epoch(there));
    let which = if here > there { "ahead of" } else { "behind" };
    (difference > CLOCK_DIFFERENCE_MAX).then(|| {
        let seconds = humantime::format_duration(Duration::from_secs(difference.as_secs()));
        format!("this host's clock is {seconds} {which} the file server's: run NTP on both")
    })
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
        assert_eq!(space("here", &std::env::temp_dir()), Vec::<String>::new());
        let found = space("node.local_dir", Path::new("/nowhere/at/all"));
        assert!(found.len() == 1 && found[0].contains("node.local_dir, /nowhere/at/all"), "{found:?}");
        let found = space("proc", Path::new("/proc"));
        assert!(found.iter().any(|what| what.contains("is full")), "a file system without room: {found:?}");
    }

    #[test]
    fn a_probe_leaves_nothing_and_names_what_refuses_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write_probe("mail", &folder.path().join("not/there/yet"), ".probe"), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let said = refused("mail", Path::new("/srv/mail"), Errno::STALE);
        assert!(said.contains("stale mount"), "{said}");
        assert!(refused("mail", Path::new("/srv/mail"), Errno::DQUOT).contains("quota"));
        let said = write_probe("proc", Path::new("/proc"), ".probe").unwrap();
        assert!(said.contains("proc, /proc, can't be used"), "{said}");
    }

    #[test]
    fn the_part_of_a_path_that_all_users_share() {
        let root = Path::new("/srv/berth");
        assert_eq!(fixed_part(root, "mail/{domain}/{local}/Maildir"), Path::new("/srv/berth/mail"));
        assert_eq!(fixed_part(root, "/var/mail/x-{user}"), Path::new("/var/mail"));
        assert_eq!(fixed_part(root, "{user}"), root);
    }

    #[test]
    fn a_clock_that_is_far_off_is_named() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(clock(now, now - Duration::from_secs(599)), None);
        assert!(clock(now, now - Duration::from_secs(7200)).unwrap().contains("2h ahead of"));
        assert!(clock(UNIX_EPOCH, now).unwrap().contains("behind"));
    }

    #[test]
    fn few_descriptors_are_warned_of_with_advice() {
        assert_eq!(descriptors_are_few(None, 20_000), None);
        assert_eq!(descriptors_are_few(Some(1 << 20), 20_000), None);
        assert!(descriptors_are_few(Some(1024), 20_000).unwrap().contains("LimitNOFILE"));
    }
}
