//! A shared directory in memory that fails on demand: for tests.
//!
//! One server (`MemoryNames`), any number of clients ([`FaultyDirectory`], one per node) that can be cut off, answered with errors, or
//! given a reply as after a resend.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

use crate::swap::SharedDirectory;

/// What goes wrong with one rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It works; the reply is lost, the request sent again, and that one finds nothing.
    Resent,
    /// It works, and an error is returned.
    ErrorAfter,
    /// It does not work, and an error is returned.
    ErrorBefore,
}

/// What the server has: files (with content) and folders (`None`) by path. The root is there always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct MemoryNames {
    entries: BTreeMap<String, Option<Vec<u8>>>,
}

impl MemoryNames {
    pub(crate) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        if !folder.is_empty() && self.entries.get(folder) != Some(&None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = self.entries.range(prefix.clone()..).map_while(|(path, _)| path.strip_prefix(&prefix));
        Ok(below.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
    pub(crate) fn rename(&mut self, old: &str, new: &str) -> io::Result<()> {
        let entry = self.entries.get(old).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.parent_of(new)?;
        if entry.is_none() {
            if !self.list(new).unwrap_or_default().is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let prefix = format!("{old}/");
            let below: Vec<String> = self.entries.keys().filter(|path| path.starts_with(&prefix)).cloned().collect();
            for path in below {
                if let (Some(content), Some(rest)) = (self.entries.remove(&path), path.strip_prefix(&prefix)) {
                    self.entries.insert(format!("{new}/{rest}"), content);
                }
            }
        }
        self.entries.remove(old);
        self.entries.insert(new.to_owned(), entry);
        Ok(())
    }
    pub(crate) fn create(&mut self, path: &str, content: Option<Vec<u8>>) -> io::Result<()> {
        self.parent_of(path)?;
        if self.entries.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.entries.insert(path.to_owned(), content);
        Ok(())
    }
    fn parent_of(&self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) if self.entries.get(parent) != Some(&None) => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    }
}

/// One node's view of the server. `clone` is the same node; [`FaultyDirectory::another_client`] is another.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDirectory {
    server: Arc<Mutex<MemoryNames>>,
    client: Arc<Client>,
}

#[derive(Debug, Default)]
struct Client {
    faults: Mutex<VecDeque<Fault>>,
    /// Where renames and listings fail, and how many more of them.
    failing: Mutex<(String, usize)>,
    /// Where renames and listings panic.
    panicking: Mutex<Option<String>>,
    state: Mutex<Contact>,
    restored: Condvar,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Contact {
    #[default]
    Good,
    Hangs,
    Errors,
}

impl FaultyDirectory {
    /// A server with the folders of a new cluster.
    pub(crate) fn cluster() -> FaultyDirectory {
        let directory = FaultyDirectory::default();
        for folder in crate::root::FOLDERS {
            directory.create_folder(folder).expect("nothing fails yet");
        }
        directory
    }
    /// A client of a server that has these names.
    pub(crate) fn over(names: MemoryNames) -> FaultyDirectory {
        FaultyDirectory { server: Arc::new(Mutex::new(names)), client: Arc::default() }
    }
    /// The server's names, which are gone from here.
    pub(crate) fn take_names(&self) -> MemoryNames {
        std::mem::take(&mut *self.server.lock())
    }
    pub(crate) fn another_client(&self) -> FaultyDirectory {
        FaultyDirectory { server: Arc::clone(&self.server), client: Arc::default() }
    }
    /// The next rename goes wrong like this.
    pub(crate) fn next_rename(&self, fault: Fault) {
        self.client.faults.lock().push_back(fault);
    }
    /// The next `count` renames and listings below `folder` fail and do nothing.
    pub(crate) fn fail_below(&self, folder: &str, count: usize) {
        *self.client.failing.lock() = (folder.to_owned(), count);
    }
    /// The next rename or listing below `folder` panics.
    pub(crate) fn panic_below(&self, folder: &str) {
        *self.client.panicking.lock() = Some(folder.to_owned());
    }
    /// Every call waits from now on, as on a hard mount without its server.
    pub(crate) fn hang(&self) {
        *self.client.state.lock() = Contact::Hangs;
    }
    /// Every call fails from now on.
    pub(crate) fn fail(&self) {
        *self.client.state.lock() = Contact::Errors;
        self.client.restored.notify_all();
    }
    /// All is well again; calls that waited go on.
    pub(crate) fn restore(&self) {
        *self.client.state.lock() = Contact::Good;
        self.client.restored.notify_all();
    }
    fn reach(&self) -> io::Result<()> {
        let mut state = self.client.state.lock();
        while *state == Contact::Hangs {
            self.client.restored.wait(&mut state);
        }
        if *state == Contact::Errors { Err(io::Error::other("injected")) } else { Ok(()) }
    }
    fn reach_below(&self, path: &str) -> io::Result<()> {
        self.reach()?;
        let panics = self.client.panicking.lock().take_if(|folder| path.starts_with(&**folder)).is_some();
        assert!(!panics, "of a test, at {path}");
        let (folder, left) = &mut *self.client.failing.lock();
        if *left == 0 || !path.starts_with(&*folder) {
            return Ok(());
        }
        *left -= 1;
        Err(io::Error::other("injected"))
    }
}

impl SharedDirectory for FaultyDirectory {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.reach_below(folder)?;
        self.server.lock().list(folder)
    }
    fn refresh(&self, folder: &str) -> io::Result<()> {
        self.list(folder).map(drop)
    }
    fn rename(&self, old: &str, new: &str) -> io::Result<()> {
        self.reach_below(old)?;
        let fault = self.client.faults.lock().pop_front();
        let mut server = self.server.lock();
        match fault {
            None => server.rename(old, new),
            Some(Fault::Resent) => server.rename(old, new).and(Err(io::ErrorKind::NotFound.into())),
            Some(Fault::ErrorAfter) => server.rename(old, new).and(Err(io::Error::other("injected"))),
            Some(Fault::ErrorBefore) => Err(io::Error::other("injected")),
        }
    }
    fn create(&self, name: &str) -> io::Result<()> {
        self.write(name, b"")
    }
    fn create_folder(&self, folder: &str) -> io::Result<()> {
        self.reach()?;
        self.server.lock().create(folder, None)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.reach()?;
        self.server.lock().entries.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        if self.list(folder)?.is_empty() { self.remove(folder) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) }
    }
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.reach()?;
        self.server.lock().create(name, Some(content.to_vec()))
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.reach()?;
        self.server.lock().entries.get(name).cloned().flatten().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn sync(&self, _folder: &str) -> io::Result<()> {
        self.reach()
    }
}
