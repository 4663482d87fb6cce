//! ENVELOPE, BODYSTRUCTURE, header fields, previews and summaries: made once, when the message passes through, and stored ready to send.
//!
//! Header fields beyond [`crate::mime::CACHED_FIELDS`] are kept for those who ask: once a client has asked for some of many messages, the index
//! keeps them of these, and of every message that comes (`header_fields_that_were_asked_for_are_read_once`).
//!
//! What is rendered on demand goes to the local cache as well: where the index lacks it (made anew, or it could not be written), no file is read again
//! (`what_was_rendered_is_not_rendered_again_without_the_index`).

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use index::{Change, FieldsKind, IndexError, MailboxId, RenderedRecord, Uid};

use super::{Mailbox, Rendered, state::Rendering};
use crate::{
    StorageError,
    cache::Kind,
    mime::{FieldNames, Structure, Summary, summarise},
    parallel,
    store::{Answers, AskedFields},
};

/// Changes with whatever is rendered: the local cache then has nothing for this version (`the_version_changes_with_the_rendering`).
const VERSION: u32 = 1;

/// Messages of one request whose fields or summaries are worth a commit: whoever asks for the fields of a few reads their files.
const KEPT_AT_ONCE: usize = if cfg!(test) { 2 } else { 16 };
/// The longest summary, and fields of one message, that are kept: no mail is so by accident, and what is longer is made when it is asked for.
const KEPT_BYTES_MAX: usize = 8 * 1024;
/// How long nothing is kept after that failed: others' changes share the commit, and a full disk stays full for a while.
pub(crate) const KEEP_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Headers read at once on a local disk: there is no latency to hide.
const LOCAL_READS: usize = 2;

/// Renders a message with CRLF line ends; `asked` are the header fields that are kept beyond those of every message.
pub(super) fn render(raw: &[u8], asked: &AskedFields) -> Made {
    let structure = Structure::parse(raw);
    let rendered = Rendered {
        envelope: structure.envelope().into(),
        body_structure: structure.body_structure(true).into(),
        headers: structure.cached_headers().into(),
    };
    let fields = asked.iter().map(|(kind, names)| {
        let mut fields = Vec::new();
        names.select(structure.raw_header(), &mut fields);
        (*kind, fields)
    });
    let summary = kept_summary(&summarise(&rendered.headers)).to_vec();
    Made { summary, fields: fields.collect(), rendered, preview: structure.preview().into() }
}

/// All that is made of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    rendered: Rendered,
    preview: Arc<str>,
    summary: Vec<u8>,
    fields: Vec<(FieldsKind, Vec<u8>)>,
}

impl Made {
    /// Stores it.
    pub fn insert(&self, change: &mut Change<'_>, mailbox: MailboxId, uid: Uid) -> Result<(), IndexError> {
        let Made { rendered, preview, summary, fields } = self;
        change.insert_preview(mailbox, uid, preview)?;
        change.insert_rendered(mailbox, uid, [&rendered.envelope, &rendered.body_structure, &rendered.headers])?;
        change.insert_summary(mailbox, uid, summary)?;
        fields.iter().filter(|(_, bytes)| is_kept(bytes)).try_for_each(|(kind, bytes)| change.insert_answer(mailbox, uid, *kind, bytes))
    }
}

fn is_kept(made: &[u8]) -> bool {
    made.len() <= KEPT_BYTES_MAX
}
/// An empty one in place of one that is too long: it is made when it is asked for.
fn kept_summary(summary: &[u8]) -> &[u8] {
    if is_kept(summary) { summary } else { b"" }
}

/// Header fields of messages, one after the other.
#[derive(Debug, Default)]
pub struct SelectedFields {
    bytes: Vec<u8>,
    /// By UID, once all are there.
    places: Vec<(Uid, Range<usize>)>,
}

impl SelectedFields {
    /// Those of a message, with the blank line; `None`: it is gone.
    pub fn of(&self, uid: Uid) -> Option<&[u8]> {
        let place = self.places.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        self.bytes.get(self.places.get(place)?.1.clone())
    }
    fn add(&mut self, uid: Uid, put: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        put(&mut self.bytes);
        self.places.push((uid, start..self.bytes.len()));
    }
    fn in_order(mut self) -> SelectedFields {
        self.places.sort_unstable_by_key(|(uid, _)| *uid);
        self
    }
}

/// Those of `wanted` that a pass over the index does not find; both go up.
struct Absent<'w> {
    wanted: std::iter::Peekable<std::slice::Iter<'w, Uid>>,
    absent: Vec<Uid>,
}

impl<'w> Absent<'w> {
    fn of(wanted: &'w [Uid]) -> Absent<'w> {
        Absent { wanted: wanted.iter().peekable(), absent: Vec::new() }
    }
    fn found(&mut self, uid: Uid) {
        while let Some(skipped) = self.wanted.next_if(|wanted| **wanted < uid) {
            self.absent.push(*skipped);
        }
        self.wanted.next_if(|wanted| **wanted == uid);
    }
    fn rest(mut self) -> Vec<Uid> {
        self.absent.extend(self.wanted);
        self.absent
    }
}

impl Made {
    /// Each part after its length, as [`Made::parse`] reads it: the rest is made of these.
    fn print(&self) -> Vec<u8> {
        let Made { rendered: Rendered { envelope, body_structure, headers }, preview, .. } = self;
        let mut text = Vec::new();
        for part in [envelope, body_structure, headers, preview.as_bytes()] {
            text.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            text.extend_from_slice(part);
        }
        text
    }
    fn parse(mut text: &[u8]) -> Option<Made> {
        let mut part = || {
            let (length, rest) = text.split_first_chunk()?;
            let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            text = rest;
            Some(part)
        };
        let rendered = Rendered { envelope: part()?.into(), body_structure: part()?.into(), headers: part()?.into() };
        let preview = std::str::from_utf8(part()?).ok()?.into();
        let summary = kept_summary(&summarise(&rendered.headers)).to_vec();
        Some(Made { summary, fields: Vec::new(), rendered, preview })
    }
}

/// What `read` gives of each of `uids` that is still there, several at once. After an error the rest is left: each might wait as long.
fn of_those_there<T: Send>(
    at_once: usize,
    uids: &[Uid],
    read: impl Fn(Uid) -> Result<T, StorageError> + Sync,
) -> Result<Vec<(Uid, T)>, StorageError> {
    let failed = AtomicBool::new(false);
    let all = parallel::for_each(at_once, uids, |uid| {
        if failed.load(Ordering::SeqCst) {
            return Ok(None);
        }
        match read(*uid) {
            Ok(read) => Ok(Some((*uid, read))),
            Err(StorageError::Expunged) => Ok(None),
            Err(error) => {
                failed.store(true, Ordering::SeqCst);
                Err(error)
            }
        }
    });
    all.into_iter().filter_map(Result::transpose).collect()
}

impl Mailbox {
    /// ENVELOPE, BODYSTRUCTURE and cached header fields, in the order of `uids`; `None` for messages that are gone. Renders what is missing. Blocking.
    pub fn rendered(&self, uids: &[Uid]) -> Result<Vec<Option<Rendered>>, StorageError> {
        self.store.twice(|| self.try_rendered(uids, true))
    }
    /// As [`Mailbox::rendered`], for those who need no header fields: they may be left out.
    pub fn shapes(&self, uids: &[Uid]) -> Result<Vec<Option<Rendered>>, StorageError> {
        self.store.twice(|| self.try_rendered(uids, false))
    }
    fn try_rendered(&self, uids: &[Uid], with_headers: bool) -> Result<Vec<Option<Rendered>>, StorageError> {
        let _inside = self.store.enter()?;
        let (ready, mut wanted) = self.ready(uids);
        let mut found: Vec<(Uid, Rendered)> = Vec::with_capacity(uids.len());
        let mut visit = |uid, record: RenderedRecord<'_>| {
            let RenderedRecord { envelope, body_structure, headers } = record;
            found.push((uid, Rendered { envelope: envelope.into(), body_structure: body_structure.into(), headers: headers.into() }));
        };
        self.store.read(|index| match with_headers {
            true => index.rendered(self.id, &wanted, &mut visit),
            false => index.shapes(self.id, &wanted, &mut visit),
        })?;
        wanted.retain(|uid| found.binary_search_by_key(uid, |(uid, _)| *uid).is_err());
        found.extend(ready.into_iter().map(|(uid, made)| (uid, made.rendered.clone())));
        found.extend(self.render_now(&wanted)?.into_iter().map(|(uid, made)| (uid, made.rendered)));
        found.sort_unstable_by_key(|(uid, _)| *uid);
        // Mostly they are asked for in this order.
        let mut next = 0;
        let found = uids.iter().map(|uid| {
            let at = match found.get(next) {
                Some((there, _)) if there == uid => Ok(next),
                _ => found.binary_search_by_key(uid, |(uid, _)| *uid),
            };
            at.ok().and_then(|at| {
                next = at + 1;
                found.get(at).map(|(_, rendered)| rendered.clone())
            })
        });
        Ok(found.collect())
    }

    /// Calls `visit` with the cached header fields of each of `uids` that is there, in no order. Renders what is missing. Blocking.
    pub fn visit_headers(&self, uids: &[Uid], visit: &mut dyn FnMut(Uid, &[u8])) -> Result<(), StorageError> {
        self.visit_or_render(uids, visit).map(drop)
    }
    /// As [`Mailbox::visit_headers`]; the messages that were rendered for it.
    fn visit_or_render(&self, uids: &[Uid], visit: &mut dyn FnMut(Uid, &[u8])) -> Result<Vec<Uid>, StorageError> {
        let _inside = self.store.enter()?;
        let (ready, wanted) = self.ready(uids);
        ready.iter().for_each(|(uid, made)| visit(*uid, &made.rendered.headers));
        let mut absent = Absent::of(&wanted);
        self.store.read(|index| {
            index.rendered(self.id, &wanted, &mut |uid, record| {
                absent.found(uid);
                visit(uid, record.headers);
            })
        })?;
        let rendered = self.render_now(&absent.rest())?;
        rendered.iter().for_each(|(uid, made)| visit(*uid, &made.rendered.headers));
        Ok(rendered.into_iter().map(|(uid, _)| uid).collect())
    }

    /// Calls `visit` with the summary of each of `uids` that is there, in no order. Makes what is missing. Blocking.
    pub fn visit_summaries(&self, uids: &[Uid], visit: &mut dyn FnMut(Uid, &Summary<'_>)) -> Result<(), StorageError> {
        let _inside = self.store.enter()?;
        let mut visit = |uid, summary: &[u8]| Summary::read(summary).map(|summary| visit(uid, &summary)).is_some();
        let (ready, wanted) = self.ready(uids);
        let (mut long, mut outdated) = (Vec::new(), Vec::new());
        for (uid, made) in &ready {
            if !visit(*uid, &made.summary) {
                long.push(*uid);
            }
        }
        let mut absent = Absent::of(&wanted);
        self.store.read(|index| {
            index.summaries(self.id, &wanted, &mut |uid, summary| {
                absent.found(uid);
                if !visit(uid, summary) {
                    let unread = if summary.is_empty() { &mut long } else { &mut outdated };
                    unread.push(uid);
                }
            })
        })?;
        let all: Vec<Uid> = absent.rest().into_iter().chain(outdated).chain(long.iter().copied()).collect();
        if all.is_empty() {
            return Ok(());
        }
        let mut made: Vec<(Uid, Vec<u8>)> = Vec::with_capacity(all.len());
        let rendered = self.visit_or_render(&all, &mut |uid, headers| {
            let summary = summarise(headers);
            visit(uid, &summary);
            made.push((uid, summary));
        })?;
        // What was rendered is kept; of what was rendered by an earlier version the summary is not.
        made.retain(|(uid, _)| !rendered.contains(uid) && !long.contains(uid));
        if made.len() < KEPT_AT_ONCE {
            return Ok(());
        }
        self.keep(|change| made.iter().try_for_each(|(uid, summary)| change.insert_summary(self.id, *uid, kept_summary(summary))))
    }

    /// The header fields `names` of each of `uids` that is there, as they stand in it. What was asked of many messages is kept. Blocking.
    pub fn header_fields(&self, uids: &[Uid], names: &FieldNames) -> Result<SelectedFields, StorageError> {
        self.store.twice(|| self.try_header_fields(uids, names))
    }
    fn try_header_fields(&self, uids: &[Uid], names: &FieldNames) -> Result<SelectedFields, StorageError> {
        let _inside = self.store.enter()?;
        let mut selected = SelectedFields::default();
        if names.are_cached() {
            self.visit_headers(uids, &mut |uid, headers| selected.add(uid, |out| names.select(headers, out)))?;
            return Ok(selected.in_order());
        }
        let (ready, mut wanted) = self.ready(uids);
        let key = names.key();
        if key.as_ref().is_some_and(|key| self.store.has_answers(self.id, key, &wanted)) {
            self.store.write_answers()?;
        }
        let asked = self.store.asked().iter().find(|(_, asked)| asked == names).map(|(kind, _)| *kind);
        for (uid, made) in ready {
            match made.fields.iter().find(|(kind, _)| Some(*kind) == asked) {
                Some((_, fields)) => selected.add(uid, |out| out.extend_from_slice(fields)),
                None => wanted.push(uid),
            }
        }
        wanted.sort_unstable();
        if let Some(kind) = asked {
            let mut absent = Absent::of(&wanted);
            self.store.read(|index| {
                index.answers(self.id, kind, &wanted, &mut |uid, fields| {
                    absent.found(uid);
                    selected.add(uid, |out| out.extend_from_slice(fields));
                })
            })?;
            wanted = absent.rest();
        }
        let at_once = if self.is_remote() { self.store.settings.parallel_operations } else { LOCAL_READS };
        let read = of_those_there(at_once, &wanted, |uid| {
            let mut fields = Vec::new();
            names.select(&self.open_message(uid)?.read_header()?, &mut fields);
            Ok(fields)
        })?;
        if let Some(key) = key.filter(|_| read.len() >= KEPT_AT_ONCE) {
            let fields = read.iter().filter(|(_, fields)| is_kept(fields)).cloned().collect();
            self.store.keep_answers(Answers { mailbox: self.id, key, fields })?;
        }
        read.iter().for_each(|(uid, fields)| selected.add(*uid, |out| out.extend_from_slice(fields)));
        Ok(selected.in_order())
    }

    /// Previews (RFC 8970), in the order of `uids`; `None` for messages that are gone, and unless `make` for those that have none yet. Blocking.
    pub fn previews(&self, uids: &[Uid], make: bool) -> Result<Vec<Option<Arc<str>>>, StorageError> {
        let _inside = self.store.enter()?;
        let (ready, mut wanted) = self.ready(uids);
        let mut found: HashMap<Uid, Arc<str>> = ready.into_iter().map(|(uid, made)| (uid, Arc::clone(&made.preview))).collect();
        let kept = self.store.read(|index| index.previews(self.id, &wanted))?;
        found.extend(wanted.iter().zip(kept).filter_map(|(uid, preview)| Some((*uid, preview?.into()))));
        if make {
            wanted.retain(|uid| !found.contains_key(uid));
            found.extend(self.render_now(&wanted)?.into_iter().map(|(uid, made)| (uid, made.preview)));
        }
        Ok(uids.iter().map(|uid| found.get(uid).cloned()).collect())
    }

    /// Those of `uids` that are there: rendered ones that the index lacks, and the others, ascending.
    fn ready(&self, uids: &[Uid]) -> (Vec<(Uid, Arc<Made>)>, Vec<Uid>) {
        let (mut ready, mut wanted) = (Vec::new(), Vec::with_capacity(uids.len()));
        let mut copies = false;
        let state = self.state.lock();
        let columns = self.columns.read();
        for uid in uids.iter().filter(|uid| columns.position(**uid).is_some()) {
            match state.pending.get(&uid.get()).map(|pending| &pending.rendering) {
                Some(Rendering::Ready(made)) => ready.push((*uid, Arc::clone(made))),
                other => {
                    copies |= matches!(other, Some(Rendering::CopyOf(..)));
                    wanted.push(*uid);
                }
            }
        }
        drop(columns);
        drop(state);
        if copies {
            self.write_copies();
        }
        wanted.sort_unstable();
        wanted.dedup();
        (ready, wanted)
    }
    /// Copies are asked for before their rows are in the index: what was made of their originals comes with these. Else it is made again.
    fn write_copies(&self) {
        if self.store.now() >= *self.store.keep_again_at.lock()
            // Those of a rebuild wait as well, and nobody waits for these.
            && !self.state.lock().deferred
            && let Err(error) = self.flush_all()
        {
            *self.store.keep_again_at.lock() = self.store.now() + KEEP_AGAIN_AFTER;
            tracing::debug!(%error, "rows of copies wait");
        }
    }

    /// From the local cache, or from its file.
    fn render_one(&self, uid: Uid) -> Result<Made, StorageError> {
        let cache = self.store.settings.cache.as_ref();
        let key = cache.and_then(|_| {
            let columns = self.columns.read();
            let position = columns.position(uid)?;
            let (row, file) = (columns.row(position), columns.file(position));
            drop(columns);
            Some((self.cache_key(Kind::Rendered(VERSION), &row, &file)?, row.size))
        });
        let cache = cache.zip(key);
        if let Some(made) = cache.and_then(|(cache, (key, _))| Made::parse(&cache.get(key)?)) {
            return Ok(made);
        }
        let raw = self.open_message(uid)?.read_all()?;
        let made = render(&raw, &self.store.asked());
        // A file that is not as long as it was is not what the key says (`what_another_length_gave_is_not_kept`).
        if let Some((cache, (key, size))) = cache
            && raw.len() as u64 == size
        {
            cache.keep(key, &made.print());
        }
        Ok(made)
    }

    /// Renders messages from their files, and keeps the result.
    fn render_now(&self, uids: &[Uid]) -> Result<Vec<(Uid, Made)>, StorageError> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let rendered = of_those_there(self.store.settings.parallel_operations, uids, |uid| self.render_one(uid))?;
        let mut state = self.state.lock();
        for (uid, rendered) in &rendered {
            if let Some(pending) = state.pending.get_mut(&uid.get()) {
                pending.rendering = Rendering::Ready(Arc::new(rendered.clone()));
            }
        }
        drop(state);
        self.keep(|change| rendered.iter().try_for_each(|(uid, made)| made.insert(change, self.id, *uid)))?;
        Ok(rendered)
    }

    /// As an index of an earlier version has it.
    #[cfg(test)]
    pub(crate) fn forget_summaries(&self) -> Result<(), StorageError> {
        let all: Vec<Uid> = self.columns.read().uids().to_vec();
        self.store.change(|change| all.iter().try_for_each(|uid| change.delete_summary_for_test(self.id, *uid)))
    }
    #[cfg(test)]
    pub(crate) fn summaries_kept(&self) -> Result<usize, StorageError> {
        let all: Vec<Uid> = self.columns.read().uids().to_vec();
        let mut kept = 0;
        self.store.read(|index| index.summaries(self.id, &all, &mut |_, _| kept += 1))?;
        Ok(kept)
    }
    /// Stores what can be made again: a full disk must not keep anybody from reading.
    fn keep(&self, work: impl FnOnce(&mut Change<'_>) -> Result<(), IndexError>) -> Result<(), StorageError> {
        if self.store.now() < *self.store.keep_again_at.lock() {
            return Ok(());
        }
        match self.store.change(work) {
            Err(lost @ StorageError::LeaseLost(_)) => Err(lost),
            Err(error) => {
                *self.store.keep_again_at.lock() = self.store.now() + KEEP_AGAIN_AFTER;
                tracing::debug!(%error, "what was made of messages is not kept");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "From: \"Ada L.\" <ada@example.org>\r\nTo: b@example.org, c@example.org\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\
        Message-ID: <1@example.org>\r\nReferences: <0@example.org>\r\nDate: Sat, 22 Nov 2025 10:00:00 +0100\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello world\r\n--b\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n--b\r\nContent-Type: image/png; name=a.png\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\nAAAA\r\n--b--\r\n";

    #[test]
    fn the_version_changes_with_the_rendering() {
        let sum = crc32fast::hash(&render(MESSAGE.as_bytes(), &[]).print());
        assert_eq!((VERSION, sum), (1, 2_414_245_640), "another rendering is another version: raise it, and write the new sum here");
    }

    #[test]
    fn what_is_printed_is_read_back_and_cut_short_it_is_nothing() {
        let made = render(MESSAGE.as_bytes(), &[]);
        let text = made.print();
        assert_eq!(Made::parse(&text), Some(made));
        for end in 0..text.len() {
            assert_eq!(Made::parse(&text[..end]), None, "{end}");
        }
    }
}
