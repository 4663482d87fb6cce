//! COPY by link(2) and MOVE by rename(2), many at once.
//!
//! A moved message is at no time in neither mailbox: its file is renamed first, then it is shown in the target, then it leaves the source.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use index::{Flag, FlagSet, KeywordId, Uid};

use super::{
    Copied, Mailbox,
    append::InFlight,
    state::{NewMessage, Pending, Rendering},
};
use crate::{
    EmailId, Row, StorageError, Usage,
    filesystem::{Filesystem, remove_quietly},
    maildir::{
        filename::{Base, FileName},
        further::without_letters,
    },
    parallel,
};

/// Bytes per read and write where a file must be copied: one request of most NFS servers.
const COPY_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Copy,
    Move,
}

struct Item {
    from: PathBuf,
    /// Where a copy is written before it is complete.
    scratch: PathBuf,
    to: PathBuf,
}

impl Mailbox {
    /// Copies by hard link where possible; all or none. Keywords are mapped by name. Blocking.
    pub fn copy_to(&self, uids: &[Uid], target: &Mailbox) -> Result<Copied, StorageError> {
        self.copy_keeping(uids, target, FlagSet::from_bits(u64::MAX))
    }
    /// Moves by rename; a message is at no time in neither. Blocking.
    pub fn move_to(&self, uids: &[Uid], target: &Mailbox) -> Result<Copied, StorageError> {
        self.move_keeping(uids, target, FlagSet::from_bits(u64::MAX))
    }
    /// Copies; of the flags only those of `kept` come with them. Blocking.
    pub fn copy_keeping(&self, uids: &[Uid], target: &Mailbox, kept: FlagSet) -> Result<Copied, StorageError> {
        self.transfer(uids, target, Kind::Copy, kept)
    }
    /// Moves; of the flags only those of `kept` come with them. Blocking.
    pub fn move_keeping(&self, uids: &[Uid], target: &Mailbox, kept: FlagSet) -> Result<Copied, StorageError> {
        self.transfer(uids, target, Kind::Move, kept)
    }

    fn transfer(&self, uids: &[Uid], target: &Mailbox, kind: Kind, kept: FlagSet) -> Result<Copied, StorageError> {
        let _inside = self.store.enter_for_change()?;
        self.ensure_there()?;
        target.ensure_there()?;
        self.learn_these(uids)?;
        // Copies take over what the index has of their originals.
        self.store.write_answers()?;
        // Nobody renames or removes the source's files meanwhile.
        let _disk = self.disk.lock();
        let (source_folder, target_folder) = (self.folder(), target.folder());
        let mut wanted = uids.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let sources: Vec<(Row, String)> = {
            let columns = self.columns.read();
            let with_kept = |row: Row| Row { flags: row.flags.intersection(kept), ..row };
            wanted.iter().filter_map(|uid| Some((with_kept(columns.get(*uid)?), columns.file_of(*uid)?))).collect()
        };
        let uid_validity = target.uid_validity();
        if sources.is_empty() {
            return self.store.acknowledge(Copied { uid_validity, pairs: Vec::new() });
        }
        let usage = Usage::of(sources.iter().map(|(row, _)| row.size));
        let room = match kind {
            Kind::Copy => self.store.quota.take_room(target.id, usage, None)?,
            Kind::Move => self.store.quota.take_room_to_move(self.id, target.id, usage)?,
        };
        let keywords = self.map_keywords(&sources, target)?;
        let renderings = self.renderings(&sources);

        let in_flight = InFlight::allocate(target, &target_folder, sources.len())?;
        let mut items = Vec::with_capacity(sources.len());
        let mut new = Vec::with_capacity(sources.len());
        let mut pairs = Vec::with_capacity(sources.len());
        for (position, ((row, file), rendering)) in sources.iter().zip(renderings).enumerate() {
            let uid = in_flight.uid(position);
            let (unique, _, save_date) = self.store.unique(Some(row.internal_date));
            let old = FileName::of(file);
            let email_id = Some(EmailId::of(file, row.size));
            let base = Base { unique, disk_size: old.base.disk_size, size: Some(row.size), uid: Some(uid), email_id };
            let flags = map_flags(row.flags, &keywords);
            let complete = base.disk_size.is_some();
            let disk_size = base.disk_size.unwrap_or(row.size);
            let name = FileName { base, flags, unknown_flags: String::new() }.print();
            items.push(Item {
                from: source_folder.join(file),
                scratch: target_folder.join("tmp").join(&name),
                to: target_folder.join("cur").join(&name),
            });
            new.push(NewMessage {
                flags,
                size: row.size,
                internal_date: row.internal_date,
                save_date,
                file: format!("cur/{name}"),
                pending: Pending { disk_size, rendering },
                write_back_due: !complete || !without_letters(flags).is_empty(),
            });
            pairs.push((row.uid, uid));
        }
        if let Err(error) = self.carry_out(&items, kind, &target_folder) {
            self.state.lock().look_again = true;
            return Err(error);
        }
        in_flight.publish(new)?;
        match kind {
            Kind::Copy => room.used(),
            Kind::Move => {
                let left = self.leave_source(&pairs, &source_folder);
                room.moved(left.as_ref().copied().unwrap_or_default());
                left?;
            }
        }
        self.store.acknowledge(Copied { uid_validity, pairs })
    }

    /// All or none.
    fn carry_out(&self, items: &[Item], kind: Kind, target_folder: &Path) -> Result<(), StorageError> {
        let filesystem = self.store.filesystem.as_ref();
        let results = parallel::for_each(parallel::NAMES, items, |item| {
            self.store.ensure_not_abandoned()?;
            let done = match kind {
                Kind::Copy => match filesystem.link(&item.from, &item.to) {
                    Err(error) if has_no_links(&error) => copy_file(filesystem, item),
                    result => result,
                },
                Kind::Move => match filesystem.rename(&item.from, &item.to) {
                    Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                        copy_file(filesystem, item).and_then(|()| filesystem.remove_file(&item.from).map(drop))
                    }
                    result => result,
                },
            };
            done.map_err(self.store.io("can't bring a message to", &item.to))
        });
        let cur = target_folder.join("cur");
        let failure = results.iter().position(Result::is_err);
        let result = match failure {
            None => filesystem.sync_folder(&cur).map_err(self.store.io("can't sync", cur)),
            Some(_) => results.into_iter().collect(),
        };
        if result.is_err() && self.store.ensure_not_abandoned().is_ok() {
            for item in items {
                match kind {
                    Kind::Copy => remove_quietly(filesystem, &item.to),
                    // Not there: it was not moved. If it can't be moved back it is found in the target, and gone from the source.
                    Kind::Move => {
                        if let Err(error) = filesystem.rename(&item.to, &item.from) {
                            tracing::debug!(file = %item.to.display(), %error, "not moved back");
                        }
                    }
                }
            }
        }
        result
    }

    /// The moved messages are shown in the target, whose rows follow as those of any new message do; here they are expunged. What left.
    fn leave_source(&self, pairs: &[(Uid, Uid)], source_folder: &Path) -> Result<Usage, StorageError> {
        let gone: Vec<Uid> = pairs.iter().map(|(old, _)| *old).collect();
        let mut state = self.state.lock();
        let modseq = self.next_modseq(&state, source_folder)?;
        self.commit_expunge(&mut state, &gone, modseq, |_| Ok(()))?;
        let left = self.usage_of(&gone);
        self.forget(&mut state, &gone, modseq);
        Ok(left)
    }

    /// The target's keyword for each of ours that the messages have; what it has no room for is left out, as other flags it can't keep would be.
    fn map_keywords(&self, sources: &[(Row, String)], target: &Mailbox) -> Result<HashMap<KeywordId, KeywordId>, StorageError> {
        let used = sources.iter().fold(FlagSet::EMPTY, |flags, (row, _)| flags.union(row.flags));
        let names = self.keywords();
        let mut map = HashMap::new();
        for id in used.keywords() {
            let Some(name) = names.get(id.position()) else { continue };
            match target.known_keyword(name).map_or_else(|| target.make_keyword(name), Ok) {
                Ok(mapped) => {
                    map.insert(id, mapped);
                }
                Err(StorageError::TooManyKeywords) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(map)
    }

    fn renderings(&self, sources: &[(Row, String)]) -> Vec<Rendering> {
        let state = self.state.lock();
        let rendering = |(row, _): &(Row, String)| match state.pending.get(&row.uid.get()) {
            Some(pending) => pending.rendering.clone(),
            None => Rendering::CopyOf(self.id, row.uid),
        };
        sources.iter().map(rendering).collect()
    }
}

fn map_flags(flags: FlagSet, keywords: &HashMap<KeywordId, KeywordId>) -> FlagSet {
    flags.keywords().fold(flags.intersection(FlagSet::from_bits(0b11_1111)), |mapped, id| match keywords.get(&id) {
        Some(id) => mapped.with(Flag::Keyword(*id)),
        None => mapped,
    })
}

/// Errors of link(2) that say that there are no (more) links here.
pub(super) fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn copy_file(filesystem: &dyn Filesystem, item: &Item) -> io::Result<()> {
    let copied = (|| {
        let from = filesystem.open(&item.from)?;
        let mut to = filesystem.create(&item.scratch)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        loop {
            let read = from.read_at(offset, &mut buffer)?;
            if read == 0 {
                break;
            }
            to.write(buffer.get(..read).unwrap_or_default())?;
            offset += u64::try_from(read).unwrap_or(u64::MAX);
        }
        to.finish()?;
        filesystem.rename(&item.scratch, &item.to)
    })();
    if copied.is_err() {
        remove_quietly(filesystem, &item.scratch);
    }
    copied
}
