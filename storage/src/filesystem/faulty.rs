//! A file system that fails on demand, for tests: at the n-th call that changes something, and from then on or once.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{Attributes, Filesystem, Listed, NewFile, OpenFile, Shared};

/// How often a demanded failure happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// That call alone.
    Once,
    /// That call and all after it, as when the process died.
    FromThenOn,
}

/// Fails on demand, and is the real file system otherwise. Clones share their state.
#[derive(Debug, Clone)]
pub struct Faulty {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    calls: AtomicU64,
    /// The call that fails, from 1; 0: none.
    fails_at: AtomicU64,
    /// 1 if all later ones fail as well.
    goes_on: AtomicU64,
    /// The error's number (errno).
    errno: i32,
    remote: AtomicBool,
    /// Files whose attributes were asked for, and contents.
    looks: AtomicU64,
    /// What happens before the call with this number, once.
    event: Mutex<Option<(u64, Event)>>,
    /// What happens before this file is looked at, once.
    before_look: Mutex<Option<(PathBuf, Event)>>,
    /// What happens between a listing and its caller.
    after_listing: Mutex<Option<ListingEvent>>,
}

/// Something that happens after a listing.
struct ListingEvent(Box<dyn FnMut(&Path) + Send>);

impl fmt::Debug for ListingEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListingEvent")
    }
}

/// Something that happens in the middle of an operation.
struct Event(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

impl Faulty {
    /// One that does not fail yet; its failures will be `errno`.
    pub fn new(errno: i32) -> Faulty {
        let number = AtomicU64::default;
        let state = State {
            calls: number(),
            fails_at: number(),
            goes_on: number(),
            errno,
            remote: AtomicBool::default(),
            looks: number(),
            event: Mutex::default(),
            before_look: Mutex::default(),
            after_listing: Mutex::default(),
        };
        Faulty { state: Arc::new(state) }
    }
    /// Lets the `call`-th changing call from now on (from 1) fail.
    pub fn fail_at(&self, call: u64, failure: Failure) {
        self.state.calls.store(0, Ordering::SeqCst);
        self.state.goes_on.store(u64::from(failure == Failure::FromThenOn), Ordering::SeqCst);
        self.state.fails_at.store(call, Ordering::SeqCst);
    }
    /// Lets `event` happen before the `call`-th changing call from now on (from 1).
    pub fn on_call(&self, call: u64, event: impl FnOnce() + Send + 'static) {
        self.state.calls.store(0, Ordering::SeqCst);
        *self.state.event.lock() = Some((call, Event(Box::new(event))));
    }
    /// Lets `event` happen after every listing of a folder, before the caller has it.
    pub fn after_listing(&self, event: impl FnMut(&Path) + Send + 'static) {
        *self.state.after_listing.lock() = Some(ListingEvent(Box::new(event)));
    }
    /// Lets `event` happen before `file` is looked at.
    pub fn before_look(&self, file: PathBuf, event: impl FnOnce() + Send + 'static) {
        *self.state.before_look.lock() = Some((file, Event(Box::new(event))));
    }
    /// Says from now on that it is one of a file server.
    pub fn pretend_remote(&self) {
        self.state.remote.store(true, Ordering::SeqCst);
    }
    /// No more failures.
    pub fn heal(&self) {
        self.state.fails_at.store(0, Ordering::SeqCst);
    }
    /// Files that were looked at so far: their attributes, or what is in them.
    pub fn looks(&self) -> u64 {
        self.state.looks.load(Ordering::SeqCst)
    }
    /// Changing calls since the last [`Faulty::fail_at`].
    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }
}

impl State {
    fn looking(&self, path: &Path) {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let event = self.before_look.lock().take_if(|(file, _)| file == path);
        if let Some((_, Event(event))) = event {
            event();
        }
    }
    fn changing(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let event = self.event.lock().take_if(|(at, _)| *at == call);
        if let Some((_, Event(event))) = event {
            event();
        }
        let fails_at = self.fails_at.load(Ordering::SeqCst);
        let goes_on = self.goes_on.load(Ordering::SeqCst) == 1;
        if fails_at != 0 && (call == fails_at || (goes_on && call > fails_at)) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    state: Arc<State>,
    file: Box<dyn NewFile>,
}

impl NewFile for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.state.changing()?;
        self.file.write(bytes)
    }
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.state.changing()?;
        self.file.finish()
    }
}

impl Faulty {
    /// What is to happen after a listing.
    fn listed(&self, folder: &Path) {
        // Taken out meanwhile: the event may list folders itself.
        let event = self.state.after_listing.lock().take();
        if let Some(ListingEvent(mut event)) = event {
            event(folder);
            self.state.after_listing.lock().get_or_insert(ListingEvent(event));
        }
    }
}

impl Filesystem for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.state.changing()?;
        Ok(Box::new(FaultyFile { state: Arc::clone(&self.state), file: Shared.create(path)? }))
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state.changing()?;
        Shared.append(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.state.looking(path);
        Shared.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.changing()?;
        Shared.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.changing()?;
        Shared.link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<bool> {
        self.state.changing()?;
        Shared.remove_file(path)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.state.changing()?;
        Shared.create_folder(path)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.state.changing()?;
        Shared.remove_folder(path)
    }
    fn each_entry(&self, folder: &Path, wanted: &dyn Fn(&str) -> bool, visit: &mut dyn FnMut(Listed<'_>)) -> io::Result<()> {
        let counted = |name: &str| wanted(name) && self.state.looks.fetch_add(1, Ordering::SeqCst) < u64::MAX;
        let listed = Shared.each_entry(folder, &counted, visit);
        self.listed(folder);
        listed
    }
    fn attributes(&self, path: &Path) -> io::Result<Attributes> {
        self.state.looking(path);
        Shared.attributes(path)
    }
    fn is_remote(&self, _folder: &Path) -> bool {
        self.state.remote.load(Ordering::SeqCst)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.state.changing()?;
        Shared.sync_folder(folder)
    }
}
