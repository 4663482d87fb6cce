//! Writes all that is known of an open mailbox into an index that is made anew.

use index::{Change, IndexError, MailboxRecord, MessageRecord, Uid};

use super::{Mailbox, state::Rendering};
use crate::{StorageError, heal::IndexWork, maildir::filename::FileName};

impl Mailbox {
    /// Writes everything; the record that was written. Nobody else is inside the store.
    pub(crate) fn write_anew(
        &self,
        change: &mut Change<'_>,
        folder: &str,
        special_use: Option<String>,
        work: &IndexWork<'_>,
        failed: &impl Fn(IndexError) -> StorageError,
    ) -> Result<MailboxRecord, StorageError> {
        let listed = {
            let place = self.folder();
            let lists = if self.adopted_below().is_some() { self.lists(&place)? } else { Vec::new() };
            self.list_beside(&place, &lists)?
        };
        let uidls = match listed {
            Some((_, list)) => list.messages.into_iter().filter_map(|(uid, listed)| Some((uid, listed.uidl?))).collect(),
            None => Vec::new(),
        };
        let state = self.state.lock();
        let columns = self.columns.read();
        let highest = columns.highest_modseq();
        let record = MailboxRecord {
            folder: folder.to_owned(),
            special_use,
            // Which UIDs were expunged is not known any more: absent ones count.
            expunged_floor: highest.get(),
            ..self.prepare(&state, highest).record
        };
        let write = |change: &mut Change<'_>| {
            change.insert_mailbox(&record)?;
            for position in 0..columns.len() {
                let row = columns.row(position);
                let file = columns.file(position);
                let pending = state.pending.get(&row.uid.get());
                let in_name = FileName::of(&file).base.disk_size;
                let message = MessageRecord {
                    uid: row.uid,
                    flags: row.flags,
                    modseq: row.modseq,
                    size: row.size,
                    disk_size: pending.map(|pending| pending.disk_size).or(in_name).unwrap_or(row.size),
                    internal_date: row.internal_date,
                    save_date: row.save_date,
                    file,
                };
                change.insert_message(self.id, &message)?;
                work.did(0, 1);
                if let Some(Rendering::Ready(made)) = pending.map(|pending| &pending.rendering) {
                    made.insert(change, self.id, row.uid)?;
                }
            }
            for uid in state.write_back.keys().filter_map(|uid| Uid::new(*uid)).filter(|uid| columns.position(*uid).is_some()) {
                change.insert_write_back(self.id, uid)?;
            }
            for removal in &state.removals {
                change.insert_removal(self.id, &removal.recorded)?;
            }
            change.set_keywords(self.id, &self.keywords())?;
            uidls
                .iter()
                .filter(|(uid, _)| columns.position(*uid).is_some())
                .try_for_each(|(uid, uidl)| change.insert_uidl(self.id, *uid, uidl))
        };
        write(change).map_err(failed)?;
        Ok(record)
    }

    /// What [`Mailbox::write_anew`] wrote is in force.
    pub(crate) fn written_anew(&self, record: MailboxRecord) {
        let mut state = self.state.lock();
        state.pending.clear();
        state.deferred = false;
        state.record = record;
    }
}
