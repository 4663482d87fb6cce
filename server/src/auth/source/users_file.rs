//! A users file in memory, read again when it changes.
//!
//! Invariants, each with the test that guards it:
//! - a file that can't be read changes nothing (`a_reload_that_fails_keeps_the_users`)
//! - who was just added is found without a reload (`a_user_who_was_just_added_is_found_without_a_reload`)

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use affinity::{NameRules, UserName, swap::open_undelegated};
use anyhow::anyhow;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::Credential;
use crate::auth::{passwd_file::Users, record::UserRecord, scheme::Scheme};

/// How often the file is looked at for changes, one request each on NFS.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// The same when a user is not found: they may have been added a moment ago.
pub(in crate::auth) const REFRESH_INTERVAL_UNKNOWN: Duration = Duration::from_secs(1);
/// How long an unknown user waits for that look; a shared directory that hangs must not hold up logins.
const REFRESH_WAIT: Duration = Duration::from_secs(2);

/// One users file.
pub struct UsersFile {
    file: PathBuf,
    present: ArcSwap<Present>,
    last_refresh: Mutex<Option<Instant>>,
    /// One reader of the file at a time.
    reading: Mutex<()>,
}

struct Present {
    rules: NameRules,
    scheme: Scheme,
    stamp: Stamp,
    users: Arc<Users>,
}

/// Tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// Of a file as it is now.
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() }
    }
    /// Of a file as the file server has it: an NFS client asks when a file is opened, and answers a look at its path from memory for up to a minute.
    pub(in crate::auth) fn now(file: &Path) -> io::Result<Stamp> {
        Ok(Stamp::of(&open_undelegated(file, OFlags::RDONLY)?.metadata()?))
    }
}

impl UsersFile {
    /// Reads a file.
    pub fn open(file: PathBuf, rules: &NameRules, scheme: Scheme) -> anyhow::Result<UsersFile> {
        let present = Present::read(&file, rules, scheme)?;
        Ok(UsersFile { file, present: ArcSwap::from_pointee(present), last_refresh: Mutex::new(None), reading: Mutex::new(()) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Its users now.
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.present.load().users)
    }

    /// One user. Looks at the file now and then in the background; for a user who isn't known, waits for that.
    pub async fn find(self: &Arc<Self>, user: &UserName) -> Option<(Arc<UserRecord>, Credential)> {
        let known = self.present.load().users.get(user).is_some();
        let interval = if known { REFRESH_INTERVAL } else { REFRESH_INTERVAL_UNKNOWN };
        if self.refresh_is_due(interval) {
            let this = Arc::clone(self);
            let refreshing = tokio::task::spawn_blocking(move || this.refresh());
            if !known {
                // On a timeout the look goes on, and a later attempt finds what it found.
                drop(timeout(REFRESH_WAIT, refreshing).await);
            }
        }
        let present = self.present.load();
        let entry = present.users.get(user)?;
        Some((Arc::clone(&entry.record), entry.password.clone().map_or(Credential::None, Credential::Stored)))
    }

    fn refresh_is_due(&self, interval: Duration) -> bool {
        let now = Instant::now();
        let mut last = self.last_refresh.lock();
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if due {
            *last = Some(now);
        }
        due
    }

    /// Reads the file again if it changed.
    fn refresh(&self) {
        // Somebody is at it, and perhaps hangs with the file server: one thread that hangs is enough.
        let Some(_reading) = self.reading.try_lock() else { return };
        let present = self.present.load_full();
        let changed = Stamp::now(&self.file).map(|stamp| stamp != present.stamp);
        let reread = match changed {
            Ok(false) => return,
            Ok(true) => self.store(&present.rules, present.scheme),
            Err(error) => Err(anyhow!(error).context(format!("can't look at the users file {}", self.file.display()))),
        };
        if let Err(error) = reread {
            error!("the users stay as they were: {error:#}");
        }
    }

    /// The caller holds `reading`.
    fn store(&self, rules: &NameRules, scheme: Scheme) -> anyhow::Result<()> {
        let new = Present::read(&self.file, rules, scheme)?;
        info!(users = new.users.len(), file = %self.file.display(), "users read");
        self.present.store(Arc::new(new));
        Ok(())
    }
}

impl Present {
    fn read(file: &Path, rules: &NameRules, scheme: Scheme) -> anyhow::Result<Present> {
        let (text, stamp) = read_with_stamp(file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!("there is no users file {}: make it with `berth user add NAME`, or set `auth.passwd_file`", file.display())
            }
            io::ErrorKind::PermissionDenied => {
                anyhow!(error).context(format!("can't read the users file {}: {}", file.display(), may_not_read(file)))
            }
            _ => anyhow!(error).context(format!("can't read the users file {}", file.display())),
        })?;
        let (users, bad) = Users::parse(&text, rules, scheme);
        for line in &bad {
            warn!("{}, line {}: {}", file.display(), line.number, line.why);
        }
        Ok(Present { rules: rules.clone(), scheme, stamp, users: Arc::new(users) })
    }
}

/// Whose a file is that this process may not read, and what to do.
pub(in crate::auth) fn may_not_read(file: &Path) -> String {
    let own = rustix::process::geteuid().as_raw();
    match fs::metadata(file) {
        Ok(there) => {
            let (uid, gid, mode) = (there.uid(), there.gid(), there.mode() & 0o777);
            format!(
                "it belongs to uid {uid}, gid {gid} (mode {mode:04o}) and this is uid {own}: `chown {own}` it, or let its group read it"
            )
        }
        Err(_) => format!("this is uid {own}: its folders must let that one in"),
    }
}

/// The stamp is from before the reading: if the file is being written in place, the next look finds it changed and reads it again.
pub(in crate::auth) fn read_with_stamp(file: &Path) -> io::Result<(String, Stamp)> {
    // A read delegation that a dead host left behind would make `berth user` wait 100 s for its rename.
    let mut opened = open_undelegated(file, OFlags::RDONLY)?;
    let stamp = Stamp::of(&opened.metadata()?);
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes)?;
    // A line that isn't UTF-8 then names no user, the others are untouched.
    Ok((String::from_utf8_lossy(&bytes).into_owned(), stamp))
}
