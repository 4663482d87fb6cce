//! New messages: written and synced in `tmp/`, put into `cur/`, visible in UID order. Index rows follow.
//!
//! On a disk that is a rename. On NFS it is a link, and the name in `tmp/` goes later: the kernel does one rename between folders at a time for a whole
//! export, each for a round trip, but links into different folders all at once (`deliveries_to_a_file_server_wait_for_no_rename`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use index::{FlagSet, Uid};

use super::{
    Appended, Mailbox,
    state::{NewMessage, Pending, Progress, Rendering},
    transfer::has_no_links,
};
use crate::{
    Staged, StorageError, Usage,
    filesystem::remove_quietly,
    maildir::{
        filename::{Base, FileName},
        further::without_letters,
    },
    parallel,
    staged::Complete,
};

/// UIDs given whose files are on their way; what is not settled when it is dropped becomes a gap, so that later messages do not wait for ever.
pub(super) struct InFlight<'a> {
    mailbox: &'a Mailbox,
    pub first: u32,
    count: u32,
    settled: bool,
}

impl<'a> InFlight<'a> {
    /// Gives `count` UIDs.
    pub fn allocate(mailbox: &'a Mailbox, folder: &Path, count: usize) -> Result<InFlight<'a>, StorageError> {
        let mut state = mailbox.state.lock();
        mailbox.ensure_there()?;
        let first = mailbox.allocate(&mut state, folder, count)?;
        Ok(InFlight { mailbox, first, count: u32::try_from(count).unwrap_or(u32::MAX), settled: false })
    }
    /// The `position`-th UID.
    pub fn uid(&self, position: usize) -> Uid {
        let offset = u32::try_from(position).unwrap_or(u32::MAX).min(self.count.saturating_sub(1));
        Uid::new(self.first + offset).unwrap_or_else(|| unreachable!("UIDs begin with 1"))
    }
    /// Shows the messages, and waits until all before them are visible as well. Their rows may wait.
    pub fn publish(mut self, messages: Vec<NewMessage>) -> Result<(), StorageError> {
        self.settled = true;
        let (mailbox, further) = (self.mailbox, messages.iter().any(|message| !without_letters(message.flags).is_empty()));
        let mut state = mailbox.state.lock();
        mailbox.settle(&mut state, (self.first..).zip(messages.into_iter().map(Progress::Done)));
        mailbox.wait_until_visible(&mut state, self.first + self.count);
        // Keywords that names have no letters for are beside the mail before anybody is answered, or in the index.
        if further && mailbox.keep_further(&mailbox.folder()).is_err() {
            return mailbox.flush(&mut state);
        }
        if state.has_many_rows() && !state.deferred {
            // The messages are durable in the Maildir: that the index could not take the rows is no reason to refuse them.
            mailbox.flush(&mut state).unwrap_or_else(|error| tracing::warn!(%error, "index rows wait"));
        }
        Ok(())
    }
}

/// What became of a message's name in `tmp/`.
enum Placed {
    Renamed,
    /// It is there still.
    Linked,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let mut state = self.mailbox.state.lock();
            self.mailbox.settle(&mut state, (self.first..self.first + self.count).map(|uid| (uid, Progress::Failed)));
        }
    }
}

impl Mailbox {
    /// Several at once, all or none (MULTIAPPEND, RFC 3502). Blocking.
    pub fn append_all(&self, messages: Vec<(Staged, FlagSet, Option<i64>)>) -> Result<Vec<Appended>, StorageError> {
        self.append_instead(messages, None)
    }
    /// As [`Mailbox::append_all`]; what `replaced` holds goes right after, so that only the difference counts against quotas (REPLACE, RFC 8508 §3.3).
    /// Blocking.
    pub fn append_instead(
        &self,
        messages: Vec<(Staged, FlagSet, Option<i64>)>,
        replaced: Option<(&Mailbox, Uid)>,
    ) -> Result<Vec<Appended>, StorageError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let _inside = self.store.enter_for_change()?;
        self.ensure_there()?;
        let folder = self.folder();
        let known = self.known_flags();
        let usage = Usage::of(messages.iter().map(|(staged, ..)| staged.len()));
        let replaced = replaced.map(|(mailbox, uid)| (mailbox.id, mailbox.usage_of(&[uid])));
        let room = self.store.quota.take_room(self.id, usage, replaced)?;
        let at_once = self.store.settings.parallel_operations;

        // One delivery is finished here; several have their fsyncs under way together.
        let cells: Vec<_> = messages.into_iter().map(|message| parking_lot::Mutex::new(Some(message))).collect();
        let completed = parallel::for_each(at_once, &cells, |cell| {
            let Some((staged, flags, date)) = cell.lock().take() else { return Err(StorageError::Expunged) };
            Ok((staged.complete()?, flags, date))
        });
        let mut completed: Vec<(Complete, FlagSet, Option<i64>)> = completed.into_iter().collect::<Result<_, _>>()?;
        let asked = self.store.asked();
        let rendering = |raw: &[u8]| Rendering::Ready(Arc::new(super::render::render(raw, &asked)));
        let renderings: Vec<Rendering> =
            completed.iter().map(|(complete, ..)| complete.content.as_deref().map_or(Rendering::Later, rendering)).collect();

        let in_flight = InFlight::allocate(self, &folder, completed.len())?;
        let mut new = Vec::with_capacity(completed.len());
        let mut places = Vec::with_capacity(completed.len());
        for (position, ((complete, flags, date), rendering)) in completed.iter().zip(renderings).enumerate() {
            let (unique, internal_date, save_date) = self.store.unique(*date);
            let size = complete.staged.len();
            let flags = flags.intersection(known);
            let base = Base { unique, disk_size: Some(size), size: Some(size), uid: Some(in_flight.uid(position)), email_id: None };
            let file = format!("cur/{}", FileName { base, flags, unknown_flags: String::new() }.print());
            places.push((complete.staged.is_linked(), complete.staged.path(), folder.join(&file)));
            let pending = Pending { disk_size: size, rendering };
            new.push(NewMessage {
                flags,
                size,
                internal_date,
                save_date,
                file,
                pending,
                write_back_due: !without_letters(flags).is_empty(),
            });
        }
        let filesystem = self.store.filesystem.as_ref();
        let placed = parallel::for_each(at_once, &places, |(is_link, from, to)| {
            self.store.ensure_not_abandoned()?;
            self.put_in_place(*is_link, from, to).map_err(self.store.io("can't put a message at", to))
        });
        let places: Vec<PathBuf> = places.into_iter().map(|(.., to)| to).collect();
        for ((complete, ..), placed) in completed.iter_mut().zip(&placed) {
            if matches!(placed, Ok(Placed::Renamed)) {
                complete.staged.renamed();
            }
        }
        let linked: Vec<bool> = placed.iter().map(|placed| matches!(placed, Ok(Placed::Linked))).collect();
        let mut failure = placed.into_iter().find_map(Result::err);
        if failure.is_none() {
            failure = filesystem.sync_folder(&folder.join("cur")).map_err(self.store.io("can't sync", folder.join("cur"))).err();
        }
        if let Some(failure) = failure {
            // All or none, also where a rename worked and its answer got lost. What can't be removed is a new message at the next look at the
            // folder: nobody was told that it is gone for good. The next holder's messages are not ours to remove.
            for to in &places {
                if self.store.ensure_not_abandoned().is_ok() {
                    remove_quietly(filesystem, to);
                }
            }
            return Err(failure);
        }
        for ((complete, ..), _) in completed.iter_mut().zip(linked).filter(|(_, linked)| *linked) {
            self.left_in_tmp.lock().push(complete.staged.linked(), self.store.now());
        }
        let uid_validity = self.uid_validity();
        let appended = (0..new.len()).map(|position| Appended { uid_validity, uid: in_flight.uid(position) }).collect();
        in_flight.publish(new)?;
        room.used();
        self.store.acknowledge(appended)
    }

    /// Gives a message that is durable its name. What is a link already is renamed: a third name would cost two requests more.
    fn put_in_place(&self, is_link: bool, from: &Path, to: &Path) -> io::Result<Placed> {
        let filesystem = self.store.filesystem.as_ref();
        if self.store.is_remote && !is_link && self.left_in_tmp.lock().has_room() {
            match filesystem.link(from, to) {
                Err(error) if has_no_links(&error) => self.left_in_tmp.lock().no_links_here(),
                result => return result.map(|()| Placed::Linked),
            }
        }
        filesystem.rename(from, to).map(|()| Placed::Renamed)
    }

    /// Every flag that has a meaning here: the system's, and the mailbox's keywords.
    pub(super) fn known_flags(&self) -> FlagSet {
        let system = FlagSet::from_bits(0b11_1111);
        (0..self.keywords.read().len()).filter_map(index::KeywordId::new).fold(system, |set, id| set.with(index::Flag::Keyword(id)))
    }
}
