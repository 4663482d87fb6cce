//! What an earlier server left beside the mail: UIDs, UIDVALIDITY, keywords, POP3 UIDLs, subscriptions; read when a Maildir is taken over in place.
//!
//! Nothing of the earlier server is changed or removed, and messages keep their names where those say all that a message is: so the earlier server
//! can go on where it was, as long as the mail was not worked with.
//!
//! Invariants, each with the test that guards it:
//! - UIDs, UIDVALIDITY, UIDNEXT, flags, keywords, dates and UIDLs stay, also when the index is lost (`what_dovecot_left_stays`, `what_courier_left_stays`)
//! - MODSEQs begin above all that an earlier server can have told (`what_dovecot_left_stays`)
//! - a list that can't be read is said, and costs only its own mailbox (`a_broken_list_is_said`)

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
};

use index::{Flag, FlagSet, KeywordId, Uid};

use crate::{
    AccountPaths, MailboxName, StorageError,
    filesystem::{Entry, Filesystem, Shared, read_small},
    layout,
    maildir::{
        ceiling::{Marks, RELEASED},
        courier,
        filename::{FileName, KEYWORD_LETTERS, identity},
        keywords::{self, KEYWORDS_BYTES_MAX, KEYWORDS_FILE},
        layout::{SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_FILE, parse_subscriptions},
        uidlist::{COURIER_FILE, DOVECOT_FILE, Listed, UIDLIST_BYTES_MAX, UidList},
    },
    parallel,
    store::io_error,
};

/// Dovecot's note of the highest UIDVALIDITY that any mailbox of the user was given, in hexadecimal.
pub(crate) const DOVECOT_VALIDITY_PREFIX: &str = "dovecot-uidvalidity.";
/// File operations under way at once when nobody waits for the answer.
const PARALLEL: usize = 16;

/// Whose lists were found beside a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// `dovecot-uidlist`.
    Dovecot,
    /// `courierimapuiddb` or `courierpop3dsizelist`.
    Courier,
}

/// What an earlier server left beside one mailbox's messages.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub server: Option<Server>,
    /// The UIDs of its messages.
    pub list: Option<UidList>,
    /// The list's UIDVALIDITY means nothing: there were POP3 UIDLs only.
    pub needs_validity: bool,
    /// Keywords by letter; empty where only the file in the mailbox folder says so.
    pub keywords: Vec<String>,
    /// What could not be understood.
    pub problems: Vec<String>,
}

/// Reads what lies in a mailbox's `folder`, whose listing is `entries`, and in `control`, its folder of control files elsewhere.
pub(crate) fn read(filesystem: &dyn Filesystem, folder: &Path, entries: &[Entry], control: Option<&Path>) -> io::Result<Earlier> {
    let mut earlier = Earlier::default();
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    if let Some(control) = control {
        earlier.read_list(filesystem, &control.join(DOVECOT_FILE), Server::Dovecot)?;
        let keywords = read_small(filesystem, &control.join(KEYWORDS_FILE), KEYWORDS_BYTES_MAX)?;
        earlier.keywords = keywords.map(|file| keywords::parse(&file)).unwrap_or_default();
    }
    if earlier.list.is_none() && has(DOVECOT_FILE) {
        earlier.read_list(filesystem, &folder.join(DOVECOT_FILE), Server::Dovecot)?;
    }
    if earlier.server.is_none() && has(COURIER_FILE) {
        earlier.read_list(filesystem, &folder.join(COURIER_FILE), Server::Courier)?;
    }
    if earlier.server != Some(Server::Dovecot) {
        if has(courier::POP3_FILE) {
            earlier.read_pop3(filesystem, &folder.join(courier::POP3_FILE))?;
        }
        if has(courier::KEYWORDS_FOLDER) {
            earlier.read_courier_keywords(filesystem, &folder.join(courier::KEYWORDS_FOLDER))?;
        }
    }
    Ok(earlier)
}

impl Earlier {
    fn read_list(&mut self, filesystem: &dyn Filesystem, path: &Path, server: Server) -> io::Result<()> {
        let Some(file) = read_small(filesystem, path, UIDLIST_BYTES_MAX)? else { return Ok(()) };
        self.server = Some(server);
        match UidList::parse(&file) {
            Ok(list) => {
                if list.bad_lines > 0 {
                    self.problems.push(format!("{}: {} lines can't be read; their messages get new UIDs", path.display(), list.bad_lines));
                }
                self.list = Some(list);
            }
            Err(why) => self.problems.push(format!("{}: {why}; all messages get new UIDs", path.display())),
        }
        Ok(())
    }

    fn read_pop3(&mut self, filesystem: &dyn Filesystem, path: &Path) -> io::Result<()> {
        let Some(file) = read_small(filesystem, path, UIDLIST_BYTES_MAX)? else { return Ok(()) };
        self.server = Some(Server::Courier);
        let uidls = courier::parse_pop3(&file);
        match &mut self.list {
            Some(list) => {
                let known: HashMap<String, Uid> = list.messages.iter().map(|(uid, listed)| (listed.name.clone(), *uid)).collect();
                for (name, uidl) in uidls {
                    match known.get(&name).and_then(|uid| list.messages.get_mut(uid)) {
                        Some(listed) => listed.uidl = Some(uidl),
                        // Only POP3 has seen it: it comes next, in the order of this file.
                        None => list.push(Listed { name, uidl: Some(uidl), ..Listed::default() }),
                    }
                }
            }
            None => {
                let mut list = UidList::new(index::UidValidity::MIN);
                for (name, uidl) in uidls {
                    list.push(Listed { name, uidl: Some(uidl), ..Listed::default() });
                }
                self.needs_validity = true;
                self.list = Some(list);
            }
        }
        Ok(())
    }

    fn read_courier_keywords(&mut self, filesystem: &dyn Filesystem, folder: &Path) -> io::Result<()> {
        let read = |name: &str| read_small(filesystem, &folder.join(name), UIDLIST_BYTES_MAX);
        let mut keywords = read(courier::KEYWORDS_LIST)?.map(|file| courier::Keywords::parse_list(&file)).unwrap_or_default();
        let entries = filesystem.list(folder)?;
        for (file, message) in courier::in_order(entries.iter().map(|entry| entry.name.as_str())) {
            if let Some(content) = read(file)? {
                keywords.apply(message, &content);
            }
        }
        let letters = usize::from(KEYWORD_LETTERS);
        if keywords.names.len() > letters {
            let lost = keywords.names.split_off(letters);
            self.problems.push(format!("{}: no letters are left for the keywords {}", folder.display(), lost.join(" ")));
        }
        if let Some(list) = &mut self.list {
            for listed in list.messages.values_mut() {
                let positions = keywords.messages.get(&listed.name).into_iter().flatten().filter(|position| **position < letters);
                listed.keywords = positions
                    .filter_map(|position| KeywordId::new(*position))
                    .fold(FlagSet::EMPTY, |flags, id| flags.with(Flag::Keyword(id)));
            }
        }
        self.keywords = keywords.names;
        Ok(())
    }
}

/// The subscriptions that an earlier server kept elsewhere or in another form.
pub(crate) fn subscriptions(
    filesystem: &dyn Filesystem,
    paths: &AccountPaths,
    entries: &[Entry],
) -> io::Result<Option<BTreeSet<MailboxName>>> {
    if let Some(control) = &paths.control
        && let Some(file) = read_small(filesystem, &control.join(SUBSCRIPTIONS_FILE), SUBSCRIPTIONS_BYTES_MAX)?
    {
        return Ok(Some(parse_subscriptions(&file, paths.layout)));
    }
    if entries.iter().any(|entry| entry.name == courier::SUBSCRIPTIONS_FILE) {
        let file = read_small(filesystem, &paths.maildir.join(courier::SUBSCRIPTIONS_FILE), SUBSCRIPTIONS_BYTES_MAX)?;
        return Ok(file.map(|file| courier::parse_subscriptions(&file)));
    }
    Ok(None)
}

/// The highest UIDVALIDITY that Dovecot gave to any mailbox of the user, from the listing of the Maildir or of its control files.
pub(crate) fn highest_validity(entries: &[Entry]) -> Option<u32> {
    let highest = |entry: &Entry| u32::from_str_radix(entry.name.strip_prefix(DOVECOT_VALIDITY_PREFIX)?, 16).ok();
    entries.iter().filter_map(highest).max()
}

/// What taking over one mailbox would mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxReport {
    /// The mailbox.
    pub name: MailboxName,
    /// It is ours already.
    pub is_ours: bool,
    /// Whose lists were found.
    pub server: Option<Server>,
    /// Its messages.
    pub messages: usize,
    /// Those that keep their UIDs.
    pub with_uid: usize,
    /// Those with a POP3 UIDL of their own.
    pub with_uidl: usize,
    /// Those that must be read once, since their names don't say how large they are.
    pub to_be_read: usize,
    /// Its keywords.
    pub keywords: usize,
    /// UIDVALIDITY and UIDNEXT that stay.
    pub numbers: Option<(u32, u32)>,
    /// What could not be understood.
    pub problems: Vec<String>,
}

/// What taking over a user's Maildir would mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every mailbox, INBOX first.
    pub mailboxes: Vec<MailboxReport>,
    /// It was handed back to another server by [`crate::release::to_dovecot`].
    pub is_released: bool,
    /// What lies in the Maildir, but is no mailbox.
    pub problems: Vec<String>,
}

/// Looks at a Maildir that is to be taken over, and changes nothing. `None`: there is none. Calls `progress` after each mailbox. Blocking.
pub fn check(paths: &AccountPaths, progress: &mut dyn FnMut(&MailboxReport)) -> Result<Option<Report>, StorageError> {
    let entries = match Shared.list(&paths.maildir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("can't list", &paths.maildir, error)),
    };
    let list = |folder: &Path| match Shared.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(|error| io_error("can't list", folder, error)),
    };
    let inbox_entries = match &paths.inbox {
        None => entries.clone(),
        Some(inbox) => list(inbox)?,
    };
    let is_released = Marks::find(&inbox_entries).is_none() && Marks::find_as(RELEASED, &inbox_entries).is_some();
    let mut report = Report { is_released, ..Report::default() };
    let found = layout::find(&Shared, paths, &entries, PARALLEL).map_err(|error| io_error("can't list", &paths.maildir, error))?;
    let contradiction = layout::contradiction(&Shared, paths, &entries, &found);
    report.problems.extend(contradiction.map_err(|error| io_error("can't list", &paths.maildir, error))?);
    report.problems.extend(found.problems);
    let mut folders = vec![(String::new(), MailboxName::inbox())];
    folders.extend(found.mailboxes);
    folders.sort_by(|a, b| (!a.1.is_inbox(), &a.1).cmp(&(!b.1.is_inbox(), &b.1)));
    for (folder, name) in folders {
        let (path, control) = (paths.folder(&folder), paths.control_of(&folder));
        let mailbox = check_mailbox(name, &path, control.as_deref()).map_err(|error| io_error("can't read", &path, error))?;
        progress(&mailbox);
        report.mailboxes.push(mailbox);
    }
    Ok(Some(report))
}

fn check_mailbox(name: MailboxName, folder: &Path, control: Option<&Path>) -> io::Result<MailboxReport> {
    let listings = parallel::for_each(PARALLEL, &[None, Some("cur"), Some("new")], |below| match below {
        None => Shared.list(folder),
        Some(below) => match Shared.list(&folder.join(below)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listing => listing,
        },
    });
    let mut listings = listings.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter();
    let entries = listings.next().unwrap_or_default();
    let earlier = read(&Shared, folder, &entries, control)?;
    let is_ours = Marks::find(&entries).is_some();
    let files: Vec<Entry> = listings.flatten().filter(|entry| !entry.name.starts_with('.') && entry.is_folder != Some(true)).collect();
    let by_name: HashMap<&str, &Listed> =
        earlier.list.iter().flat_map(|list| list.messages.values()).map(|listed| (listed.name.as_str(), listed)).collect();
    let mut report = MailboxReport {
        name,
        is_ours,
        server: earlier.server,
        messages: files.len(),
        with_uid: 0,
        with_uidl: 0,
        to_be_read: 0,
        keywords: earlier.keywords.len(),
        numbers: earlier.list.as_ref().filter(|_| !earlier.needs_validity).map(|list| (list.uid_validity.get(), list.uid_next)),
        problems: earlier.problems,
    };
    if report.keywords == 0 && entries.iter().any(|entry| entry.name == KEYWORDS_FILE) {
        let file = read_small(&Shared, &folder.join(KEYWORDS_FILE), KEYWORDS_BYTES_MAX)?;
        report.keywords = file.map_or(0, |file| keywords::parse(&file).len());
    }
    for file in &files {
        let base = FileName::parse(&file.name).base;
        let listed = by_name.get(identity(&file.name));
        report.with_uid += usize::from(listed.is_some() || base.uid.is_some());
        report.with_uidl += usize::from(listed.is_some_and(|listed| listed.uidl.is_some()));
        report.to_be_read += usize::from(base.size.is_none());
    }
    Ok(report)
}

/// Lets a Maildir that was handed back be taken over again when it is opened next. `false`: it was not handed back.
pub fn take_back(paths: &AccountPaths) -> Result<bool, StorageError> {
    let maildir = paths.inbox();
    let entries = Shared.list(maildir).map_err(|error| io_error("can't list", maildir, error))?;
    let Some(marks) = Marks::find_as(RELEASED, &entries).filter(|_| Marks::find(&entries).is_none()) else { return Ok(false) };
    let (from, to) = (maildir.join(marks.print_as(RELEASED)), maildir.join(marks.print_as(crate::maildir::ceiling::RETURNED)));
    Shared.rename(&from, &to).and_then(|()| Shared.sync_folder(maildir)).map_err(|error| io_error("can't rename", &from, error))?;
    Ok(true)
}
