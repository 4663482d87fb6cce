//! Folders that are watched by inotify while a session waits: mail that other programs on this host drop in, and flags that they change, are seen at
//! once. What other hosts do is not seen this way; for that there is `rescan_interval`. Costs the file server nothing.
//!
//! One inotify instance serves the process: a host allows few. What this process does itself causes events too; whether they say anything new is
//! decided from memory ([`Mailbox::look_at`]).
//!
//! Invariants, each with the test that guards it:
//! - a change by another program is told, once, and watching ends with its guard (`changes_by_other_programs_are_told_at_once`)
//! - our own changes need no look at the folder (`our_own_changes_need_no_look`)

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{ModifyKind, RenameMode},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Mailbox;

/// Where a mailbox has its messages.
const WATCHED_FOLDERS: [&str; 2] = ["cur", "new"];
/// Names that are kept between two looks; of more, the folder itself tells.
const NAMES_MAX: usize = 64;

/// Most watched mailboxes of the process, each two of the host's inotify watches (`fs.inotify.max_user_watches`, at least 8,192); 0: none.
static MAILBOXES_MAX: AtomicUsize = AtomicUsize::new(2048);
static WATCHES: OnceLock<Option<Watches>> = OnceLock::new();

/// Sets how many mailboxes are watched at most; further ones are looked at by `rescan_interval` alone.
pub fn limit(mailboxes: usize) {
    MAILBOXES_MAX.store(mailboxes, Ordering::SeqCst);
}

/// What happened to one file, by its name with `cur/` or `new/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// It is there, perhaps under a new name.
    Here(String),
    /// It is gone, perhaps to another name.
    Gone(String),
}

/// What happened since it was last taken.
#[derive(Debug, Default)]
pub struct Happened {
    pub(crate) files: Vec<Noticed>,
    /// More than is kept.
    pub(crate) more: bool,
}

/// A mailbox that is watched as long as this value is there.
#[derive(Debug)]
pub struct Watching {
    watches: &'static Watches,
    folder: PathBuf,
    changes: watch::Receiver<u64>,
    watched: Arc<Watched>,
}

#[derive(Debug)]
struct Watches {
    /// Held while a folder begins or ends to be watched, or one end would undo the next beginning.
    watcher: Mutex<RecommendedWatcher>,
    /// By mailbox folder. The thread that hears events takes it: never held while the watcher, which waits for that thread, is called.
    mailboxes: Arc<Mutex<HashMap<PathBuf, Arc<Watched>>>>,
}

#[derive(Debug)]
struct Watched {
    users: AtomicUsize,
    changes: watch::Sender<u64>,
    happened: Mutex<Happened>,
}

impl Watching {
    /// Resolves when something happened. Safe to cancel.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    /// What happened since it was last asked, by anybody.
    pub fn take(&self) -> Happened {
        std::mem::take(&mut *self.watched.happened.lock())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watcher = self.watches.watcher.lock();
        if self.watched.users.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        self.watches.mailboxes.lock().remove(&self.folder);
        unwatch(&mut watcher, &self.folder);
    }
}

/// Watches a mailbox folder; `None`: there are too many already, or the host allows no more.
pub(crate) fn watch(folder: &Path) -> Option<Watching> {
    let limit = MAILBOXES_MAX.load(Ordering::SeqCst);
    if limit == 0 {
        return None;
    }
    let watches = WATCHES.get_or_init(Watches::new).as_ref()?;
    let mut watcher = watches.watcher.lock();
    let mut mailboxes = watches.mailboxes.lock();
    if let Some(watched) = mailboxes.get(folder) {
        watched.users.fetch_add(1, Ordering::SeqCst);
        let watched = Arc::clone(watched);
        return Some(Watching { watches, folder: folder.to_owned(), changes: watched.changes.subscribe(), watched });
    }
    if mailboxes.len() >= limit {
        tracing::debug!(limit, "no more mailboxes are watched");
        return None;
    }
    let (changes, receiver) = watch::channel(0);
    let watched = Arc::new(Watched { users: AtomicUsize::new(1), changes, happened: Mutex::default() });
    mailboxes.insert(folder.to_owned(), Arc::clone(&watched));
    drop(mailboxes);
    let begun = WATCHED_FOLDERS.iter().try_for_each(|name| watcher.watch(&folder.join(name), RecursiveMode::NonRecursive));
    if let Err(error) = begun {
        tracing::debug!(folder = %folder.display(), %error, "not watched");
        watches.mailboxes.lock().remove(folder);
        unwatch(&mut watcher, folder);
        return None;
    }
    Some(Watching { watches, folder: folder.to_owned(), changes: receiver, watched })
}

impl Watches {
    fn new() -> Option<Watches> {
        let mailboxes: Arc<Mutex<HashMap<PathBuf, Arc<Watched>>>> = Arc::default();
        let known = Arc::clone(&mailboxes);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => hear(&known, &event),
            Err(error) => tracing::debug!(%error, "a watched folder can't be followed"),
        });
        match watcher {
            Ok(watcher) => Some(Watches { watcher: Mutex::new(watcher), mailboxes }),
            Err(error) => {
                tracing::warn!(%error, "folders can't be watched: changes by other programs are seen at `mail.rescan_interval`");
                None
            }
        }
    }
}

fn unwatch(watcher: &mut RecommendedWatcher, folder: &Path) {
    for name in WATCHED_FOLDERS {
        // The folder may be gone, and its watch with it.
        watcher.unwatch(&folder.join(name)).unwrap_or_default();
    }
}

fn hear(mailboxes: &Mutex<HashMap<PathBuf, Arc<Watched>>>, event: &Event) {
    if event.need_rescan() {
        // The kernel dropped events: of which folders, it does not say.
        for watched in mailboxes.lock().values() {
            watched.add(None);
        }
        return;
    }
    let gone = match event.kind {
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => true,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => false,
        _ => return,
    };
    for path in &event.paths {
        let Some(inner) = path.parent() else { continue };
        let Some(watched) = inner.parent().and_then(|folder| mailboxes.lock().get(folder).cloned()) else { continue };
        let file =
            inner.file_name().zip(path.file_name()).and_then(|(inner, name)| Some(format!("{}/{}", inner.to_str()?, name.to_str()?)));
        if let Some(file) = file.filter(|file| !file.contains("/.")) {
            watched.add(Some(if gone { Noticed::Gone(file) } else { Noticed::Here(file) }));
        }
    }
}

impl Watched {
    fn add(&self, noticed: Option<Noticed>) {
        let mut happened = self.happened.lock();
        match noticed {
            Some(noticed) if happened.files.len() < NAMES_MAX => happened.files.push(noticed),
            _ => happened.more = true,
        }
        drop(happened);
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl Mailbox {
    /// Watches the folder for changes by other programs on this host; `None`: it can't be watched. Blocking.
    pub fn watch(&self) -> Option<Watching> {
        watch(&self.folder_path())
    }
}
