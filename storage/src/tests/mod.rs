//! The store as a whole: a user on a temporary directory, opened, closed and taken over.

mod acls;
mod adopted;
mod annotations;
mod cached;
mod changes;
mod damage;
mod faults;
mod folders;
mod foreign;
mod late;
mod layouts;
mod leftovers;
mod listed;
mod object_ids;
mod quota;
mod size;
mod snapshots;
mod survival;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use affinity::{Clock, Epoch, Handover, HolderId, Incarnation, Lease, Tenure, TestClock, UserName};
use index::{FlagSet, Uid};

use crate::{
    Account, AccountPaths, Appended, Layout, Mailbox, MailboxName, SpecialUse, StorageError, StorageSettings,
    filesystem::{Faulty, Filesystem},
};

/// EIO: what a file server that lost a file answers.
const EIO: i32 = 5;

/// One user's files, and whoever holds them now.
pub(super) struct User {
    folder: tempfile::TempDir,
    pub faulty: Faulty,
    pub clock: TestClock,
    pub settings: StorageSettings,
    pub layout: Layout,
    /// INBOX lies beside the Maildir.
    pub inbox: bool,
    /// Mailboxes may be shared.
    pub sharing: bool,
    epoch: u64,
}

/// In memory where the host has such a place: thousands of fsyncs take minutes on a disk.
pub(super) fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// An open account and the tenure under which it is held.
pub(super) struct Held {
    pub account: Arc<Account>,
    pub tenure: Arc<Tenure>,
}

impl std::ops::Deref for Held {
    type Target = Arc<Account>;
    fn deref(&self) -> &Arc<Account> {
        &self.account
    }
}

impl User {
    pub fn new() -> User {
        User {
            folder: folder_in_memory(),
            faulty: Faulty::new(EIO),
            clock: TestClock::default(),
            settings: StorageSettings {
                node: "node-a".parse().unwrap(),
                auto_create: vec![(name("Sent"), Some(SpecialUse::Sent))],
                auto_subscribe: false,
                message_bytes_max: (4 << 20).into(),
                mailboxes_max: 100,
                write_back_after: Duration::ZERO,
                rescan_interval: Duration::ZERO,
                parallel_operations: 16,
                settle_after: Duration::ZERO,
                late_look_interval: Duration::ZERO,
                suspended_wait: Duration::ZERO,
                cache: None,
            },
            layout: Layout::default(),
            inbox: false,
            sharing: false,
            epoch: 0,
        }
    }
    pub fn maildir(&self) -> PathBuf {
        self.folder.path().join("Maildir")
    }
    pub fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }
    /// Where an earlier server may have had its control files.
    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }
    /// Where everything is.
    pub fn paths(&self) -> AccountPaths {
        let paths = AccountPaths::new(self.maildir(), self.index());
        AccountPaths {
            control: Some(self.control()),
            inbox: self.inbox.then(|| self.folder.path().join("inbox")),
            layout: self.layout,
            shares: self.sharing.then(|| self.folder.path().join(crate::shares::FOLDER)),
            ..paths
        }
    }
    /// Every file and folder of the user.
    pub fn everything(&self) -> std::collections::BTreeSet<PathBuf> {
        let mut found = std::collections::BTreeSet::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                found.insert(entry.path());
            }
        }
        found
    }
    /// The next holder opens the account.
    pub fn open(&mut self, handover: Handover) -> Held {
        self.try_open(handover).unwrap()
    }
    pub fn try_open(&mut self, handover: Handover) -> Result<Held, StorageError> {
        self.epoch += 1;
        let holder = HolderId { node: self.settings.node.clone(), incarnation: Incarnation::random() };
        let tenure = Tenure::new(holder, Arc::new(self.clock.clone()));
        tenure.extend(self.clock.now() + Duration::from_secs(5));
        let lease = Lease::for_test(UserName::normalise("ada").unwrap(), Epoch(self.epoch), Arc::clone(&tenure));
        let paths = self.paths();
        let filesystem: Arc<dyn Filesystem> = Arc::new(self.faulty.clone());
        let account = Account::open_on(filesystem, paths, lease, handover, Arc::new(self.settings.clone()))?;
        Ok(Held { account, tenure })
    }
    /// The holder dies: nothing of its memory is left.
    pub fn die(&self, held: Held) {
        held.tenure.end();
        held.account.abandon();
    }
    pub fn delete_index(&self) {
        std::fs::remove_dir_all(self.index()).unwrap();
    }
    /// The names in `cur/` and `new/` of a folder below the Maildir.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        for sub in ["cur", "new"] {
            for entry in std::fs::read_dir(self.maildir().join(folder).join(sub)).unwrap() {
                names.push(format!("{sub}/{}", entry.unwrap().file_name().into_string().unwrap()));
            }
        }
        names.sort();
        names
    }
}

pub(super) fn name(text: &str) -> MailboxName {
    MailboxName::parse(text).unwrap()
}
pub(super) fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}
pub(super) fn message(subject: &str) -> Vec<u8> {
    format!("From: ada@example.org\r\nSubject: {subject}\r\n\r\nHello {subject}\r\n").into_bytes()
}

impl Held {
    pub fn inbox(&self) -> Arc<Mailbox> {
        self.account.mailbox(&MailboxName::inbox()).unwrap()
    }
    pub fn open(&self, mailbox: &str) -> Arc<Mailbox> {
        self.account.mailbox(&name(mailbox)).unwrap()
    }
}

pub(super) fn append(mailbox: &Mailbox, subject: &str, flags: FlagSet) -> Result<Appended, StorageError> {
    let bytes = message(subject);
    let mut staged = mailbox.stage(0)?;
    staged.write(&bytes)?;
    mailbox.append(staged, flags, Some(1_000_000_000))
}

/// What a client could see of a mailbox, apart from MODSEQs and SAVEDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub uid_validity: u32,
    pub keywords: Vec<String>,
    pub messages: BTreeMap<u32, (FlagSet, u64, i64, Vec<u8>)>,
}

pub(super) fn picture(mailbox: &Mailbox) -> Picture {
    mailbox.learn().unwrap();
    let rows: Vec<_> = mailbox.read().rows().collect();
    let messages = rows.into_iter().map(|row| {
        let content = mailbox.open_message(row.uid).unwrap().read_all().unwrap();
        assert_eq!(content.len() as u64, row.size);
        (row.uid.get(), (row.flags, row.size, row.internal_date, content))
    });
    Picture { uid_validity: mailbox.uid_validity().get(), messages: messages.collect(), keywords: mailbox.keywords().to_vec() }
}
