//! FETCH and UID FETCH (RFC 3501 §6.4.5, RFC 7162 §3.1.4).
//!
//! - Metadata comes from memory, straight into the output buffer; header fields from the index, once they were asked for.
//! - Bodies are read several messages ahead of the client, within `AHEAD_READS` and `AHEAD_BYTES`.
//! - \Seen is set for all messages in one call before the first is sent, so that FLAGS are right in the same response.
//! - Messages that are gone are left out; by sequence number the command then ends with NO (RFC 2180 §4.1.2).
//! - So are those whose files can't be read, and no others with them (`a_file_that_cannot_be_read_costs_only_its_own_message`).

mod ahead;
pub mod body;
mod made;
mod send;

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use index::{Flag, FlagSet, ModSeq, Uid};
use storage::{
    EmailId, Rendered, Right, Row, SelectedFields, StoreOperation,
    mime::{FieldNames, Section, SectionText},
};

use self::{
    ahead::{Ahead, Found},
    body::{Form, Part, Prepared, Request, Wanted, partial_of},
    made::{Made, Ready},
    send::{send_part, without_nul},
};
use crate::{
    connection::Connection,
    imap::{
        holding::Holding,
        limits::Stopped,
        reply::{self, Reply, Stop},
        session::Session,
        sets::{self, Numbers},
        state::{Access, Selected},
        updates,
        view::{Expunges, View, sequence},
        wire::{
            command::{FetchItem, PartialRange, SequenceSet},
            enabled::Enabled,
            response::{Code, FetchWriter},
            sequence_set::Positions,
        },
    },
};

/// Rows looked at while the mailbox's lock is held once, and rendered by one call.
const BATCH_MESSAGES: usize = 256;
/// Bytes of the messages of a batch of which anything is rendered or selected: what is made of two batches is in memory, and a message may be nothing but header.
const BATCH_BYTES: u64 = 64 * 1024 * 1024;
/// Message files of one command that can't be read: with more of them it is not the files, and the command ends.
const UNREADABLE_MAX: usize = 8;
/// Sets of header fields of one command that the index is asked for, each in a pass of its own. More of them are read from the message.
const FIELD_SETS_MAX: usize = 4;

/// Which of the messages that a set names are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Only {
    /// Those that changed after this MODSEQ.
    pub changed_since: Option<u64>,
    /// Those at these places among all that the set names, whether they changed or not.
    pub partial: Option<PartialRange>,
    /// Without a limit on their number: SELECT has none (RFC 9738 §3.1).
    pub all: bool,
}

/// FETCH and UID FETCH.
pub async fn fetch<H: Holding>(
    session: &mut Session<H>,
    selected: &mut Selected,
    uid: bool,
    set: &SequenceSet,
    items: Vec<FetchItem>,
    only: Only,
) -> Result<Reply, Stop> {
    let Only { changed_since, partial, all } = only;
    let mut positions = sets::positions(set, Numbers::new(uid), selected)?;
    if let Some(range) = partial {
        positions = sets::narrow(&positions, range);
    }
    let limit = session.settings.message_limits.working().filter(|_| !all);
    let stopped = limit.and_then(|limit| limit.cut(&mut positions, &selected.view));
    if let (Some(stopped), Some(_)) = (stopped, partial) {
        return Err(stopped.limit.refuse(None, "FETCH").into());
    }
    if changed_since.is_some() || items.contains(&FetchItem::ModSeq) {
        session.enable_condstore(Some(selected));
    }
    let mut plan = Plan::new(items, uid, changed_since, session.enabled);
    if plan.sets_seen && selected.access == Access::ReadWrite && selected.rights.has(Right::Seen) {
        plan.seen_now = set_seen(session, selected, &positions, changed_since).await?;
    }
    updates::tell_keywords(&mut session.connection, selected);

    let mut told = Told::default();
    let mut rest: Box<dyn Iterator<Item = usize> + Send + Sync> = match stopped {
        None => Box::new(positions.iter().cloned().flatten()),
        Some(_) => Box::new(positions.iter().rev().flat_map(|part| part.clone().rev())),
    };
    let (connection, held) = (&mut session.connection, &session.held);
    let batch = next_batch(&mut rest, selected, &plan, changed_since, &mut told);
    let mut ready = Ready::of(held, selected, &plan, batch).await?;
    while let Some(sent) = ready {
        let batch = next_batch(&mut rest, selected, &plan, changed_since, &mut told);
        // What the next ones need is read while these are sent: the read is polled first, so it has begun when responses are made.
        let sending = deliver(connection, held, selected, &plan, sent, &mut told);
        let reading = async { Ok::<_, Stop>(Ready::of(held, selected, &plan, batch).await) };
        // What can't be read ends the command, but never in the middle of a response that is being sent: a literal has the bytes that were announced.
        let (read, ()) = tokio::try_join!(reading, sending)?;
        ready = read?;
    }
    drop(rest);
    told.known.sort_unstable_by_key(|(uid, _)| *uid);
    let expunges = if uid { Expunges::Tell } else { Expunges::KeepBack };
    updates::tell(&mut session.connection, selected, session.enabled, expunges, &told.known).await?;
    let reply = match told {
        Told { unknown_encoding: true, .. } => Reply::no(Code::UnknownCte, "The transfer encoding of a part is not known, or broken"),
        Told { too_much: true, .. } => Reply::no(Code::Limit, "The header fields of a message are too many for one command"),
        Told { unreadable: 1.., .. } => Reply::no(Code::ServerBug, "A message can't be read on the server"),
        Told { missing: true, .. } if !uid && stopped.is_some() => reply::also_expunged(),
        Told { missing: true, .. } if !uid => reply::expunged(),
        _ => Reply::ok("Fetch completed"),
    };
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// Sends items of messages that came, unasked: \Seen stays as it is, and those that are gone again are left out.
pub async fn push<H: Holding>(session: &mut Session<H>, selected: &Selected, uids: &[Uid], items: Vec<FetchItem>) -> Result<(), Stop> {
    let plan = Plan::new(items, session.enabled.uid(), None, session.enabled);
    let mut told = Told::default();
    let mut rest = uids.iter().filter_map(|uid| selected.view.uids().binary_search(uid).ok());
    while let Some(messages) = next_batch(&mut rest, selected, &plan, None, &mut told) {
        if let Some(ready) = Ready::of(&session.held, selected, &plan, Some(messages)).await? {
            deliver(&mut session.connection, &session.held, selected, &plan, ready, &mut told).await?;
        }
    }
    Ok(())
}

/// What each response has, and what must be read for it.
struct Plan {
    items: Vec<FetchItem>,
    /// Of each item.
    sources: Vec<Source>,
    /// What [`Source::Index`] reads.
    fields: Arc<Vec<FieldNames>>,
    /// Answers items that need the message, in their order.
    request: Arc<Request>,
    needs_rendered: bool,
    sets_seen: bool,
    /// Whether it tells more than names say.
    tells_facts: bool,
    /// Whether MODSEQ goes with FLAGS that were not asked for.
    enabled: Enabled,
    /// Messages that this command made \Seen, ascending.
    seen_now: Vec<Uid>,
}

impl Plan {
    fn new(mut items: Vec<FetchItem>, uid: bool, changed_since: Option<u64>, enabled: Enabled) -> Plan {
        for (wanted, item) in [(uid && !enabled.uid_only, FetchItem::Uid), (changed_since.is_some(), FetchItem::ModSeq)] {
            if wanted && !items.contains(&item) {
                items.insert(0, item);
            }
        }
        let needs_rendered = items.iter().any(|item| matches!(item, FetchItem::Envelope | FetchItem::BodyStructure));
        let body_structure = items.contains(&FetchItem::Body);
        let needs_file = body_structure || items.iter().any(|item| header_fields(item).is_none() && wanted(item).is_some());
        let mut fields = Vec::new();
        let sources: Vec<Source> = items.iter().map(|item| Source::of(item, needs_rendered, needs_file, &mut fields)).collect();
        let read = items.iter().zip(&sources).filter(|(_, source)| matches!(source, Source::File)).filter_map(|(item, _)| wanted(item));
        let request = Request { sections: read.collect(), body_structure };
        let sets_seen = items.iter().any(sets_seen);
        let tells_facts = items.iter().any(FetchItem::tells_facts);
        let (fields, request) = (Arc::new(fields), Arc::new(request));
        Plan { items, sources, fields, request, needs_rendered, sets_seen, tells_facts, enabled, seen_now: Vec::new() }
    }
    /// Whether header fields go with ENVELOPE or BODYSTRUCTURE.
    fn tells_cached_fields(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Rendered(_)))
    }
}

/// Where the bytes of a section come from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The message. Items that are no section say this as well.
    File,
    /// The cached header fields, which come with ENVELOPE and BODYSTRUCTURE.
    Rendered(FieldNames),
    /// Header fields that the index has, or will have: their place in [`Plan::fields`].
    Index(usize),
}

impl Source {
    fn of(item: &FetchItem, needs_rendered: bool, needs_file: bool, fields: &mut Vec<FieldNames>) -> Source {
        let Some(names) = header_fields(item).map(FieldNames::new) else { return Source::File };
        if names.are_cached() && needs_rendered {
            return Source::Rendered(names);
        }
        if let Some(place) = fields.iter().position(|known| *known == names) {
            return Source::Index(place);
        }
        let is_kept = names.are_cached() || (!needs_file && names.key().is_some());
        if !is_kept || fields.len() == FIELD_SETS_MAX {
            return Source::File;
        }
        fields.push(names);
        Source::Index(fields.len() - 1)
    }
}

/// Whether answering an item makes the message \Seen.
fn sets_seen(item: &FetchItem) -> bool {
    matches!(
        item,
        FetchItem::Rfc822 | FetchItem::Rfc822Text | FetchItem::Section { peek: false, .. } | FetchItem::Binary { peek: false, .. }
    )
}

/// The section of the message file that answers an item.
fn wanted(item: &FetchItem) -> Option<Wanted> {
    let whole = |text| Some(Wanted { section: Section { part: Vec::new(), text }, partial: None, form: Form::AsItIs });
    let decoded =
        |part: &[u32], partial, form| Some(Wanted { section: Section { part: part.to_vec(), text: SectionText::Whole }, partial, form });
    match item {
        FetchItem::Rfc822 => whole(SectionText::Whole),
        FetchItem::Rfc822Header => whole(SectionText::Header),
        FetchItem::Rfc822Text => whole(SectionText::Text),
        FetchItem::Section { section, partial, .. } => Some(Wanted { section: section.clone(), partial: *partial, form: Form::AsItIs }),
        FetchItem::Binary { part, partial, .. } => decoded(part, *partial, Form::Decoded),
        FetchItem::BinarySize(part) => decoded(part, None, Form::DecodedSize),
        FetchItem::Uid
        | FetchItem::Flags
        | FetchItem::InternalDate
        | FetchItem::SaveDate
        | FetchItem::EmailId
        | FetchItem::ThreadId
        | FetchItem::Preview { .. }
        | FetchItem::Snippet { .. }
        | FetchItem::Rfc822Size
        | FetchItem::Envelope
        | FetchItem::Body
        | FetchItem::BodyStructure
        | FetchItem::ModSeq => None,
    }
}

/// The names of HEADER.FIELDS of the message itself.
fn header_fields(item: &FetchItem) -> Option<&[String]> {
    match item {
        FetchItem::Section { section: Section { part, text: SectionText::HeaderFields(names) }, .. } if part.is_empty() => Some(names),
        _ => None,
    }
}

/// What the client was told while the command ran.
#[derive(Default)]
struct Told {
    /// Messages whose present metadata it got.
    known: Vec<(Uid, ModSeq)>,
    /// Whether a message was left out because it is gone.
    missing: bool,
    /// How many messages were left out because their files can't be read.
    unreadable: usize,
    /// Whether a part was left out because its transfer encoding can't be undone.
    unknown_encoding: bool,
    /// Whether header fields were left out because they would take too much memory.
    too_much: bool,
}

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
struct Message {
    sequence: u32,
    row: Row,
    /// If it was asked for.
    email_id: Option<EmailId>,
}

/// Makes messages \Seen that are not; which they were.
async fn set_seen<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    positions: &Positions,
    changed_since: Option<u64>,
) -> Result<Vec<Uid>, Stop> {
    let unseen: Vec<Uid> = {
        let messages = selected.mailbox.read();
        let rows = sets::uids(positions, &selected.view).into_iter().filter_map(|uid| messages.get(uid));
        let unseen = rows
            .filter(|row| row.is_known() && !row.flags.contains(Flag::Seen) && changed_since.is_none_or(|since| row.modseq.get() > since));
        unseen.map(|row| row.uid).collect()
    };
    if unseen.is_empty() {
        return Ok(unseen);
    }
    let mailbox = selected.writable()?;
    let stored = session.held.run(move |_| mailbox.store(&unseen, StoreOperation::Add(FlagSet::of(&[Flag::Seen])), None)).await;
    match stored.map_err(Stop::from) {
        Ok(stored) => Ok(stored.rows.iter().map(|row| row.uid).collect()),
        // The client wants its mail: that it could not be marked (no space, say) is in the log.
        Err(Stop::Reply(_)) => Ok(Vec::new()),
        Err(stop) => Err(stop),
    }
}

/// The next messages with their rows; `None` at the end.
fn next_batch(
    rest: &mut impl Iterator<Item = usize>,
    selected: &Selected,
    plan: &Plan,
    changed_since: Option<u64>,
    told: &mut Told,
) -> Option<VecDeque<Message>> {
    let wants_id = plan.items.contains(&FetchItem::EmailId);
    let view: &View = &selected.view;
    let messages = selected.mailbox.read();
    let mut batch = VecDeque::new();
    let is_made = plan.needs_rendered || !plan.fields.is_empty() || makes_previews(plan).is_some();
    let mut looked_at = 0;
    let mut bytes = 0_u64;
    while looked_at < BATCH_MESSAGES && bytes < BATCH_BYTES {
        let Some(position) = rest.next() else { break };
        looked_at += 1;
        let Some(uid) = view.uids().get(position) else { continue };
        let found = messages.position(*uid);
        match found.map(|found| messages.row(found)) {
            Some(row) if changed_since.is_some_and(|since| row.modseq.get() <= since) => {}
            Some(row) if plan.tells_facts && !row.is_known() => told.unreadable += 1,
            Some(row) => {
                let email_id = found.filter(|_| wants_id).map(|found| messages.email_id(found));
                bytes = bytes.saturating_add(if is_made { row.size } else { 0 });
                batch.push_back(Message { sequence: sequence(position), row, email_id });
            }
            None => told.missing = true,
        }
    }
    (looked_at > 0).then_some(batch)
}

/// Sends a batch.
async fn deliver<H: Holding>(
    connection: &mut Connection,
    held: &H,
    selected: &Selected,
    plan: &Plan,
    Ready { mut batch, made: Made { mut rendered, fields, previews }, unreadable }: Ready,
    told: &mut Told,
) -> Result<(), Stop> {
    told.unreadable += unreadable;
    let mut previews = previews.into_iter();
    let keywords = selected.mailbox.keywords();
    let mut ahead = Ahead::new(held, &selected.mailbox, &plan.request, batch.iter().map(|message| message.row).collect());
    while let Some(message) = batch.pop_front() {
        let preview = previews.next().flatten();
        let rendered = match rendered.as_mut().map(VecDeque::pop_front) {
            None => None,
            Some(Some(Some(rendered))) => Some(rendered),
            Some(Some(None) | None) => {
                ahead.skip().await?;
                told.missing = true;
                continue;
            }
        };
        let is_gone = fields.iter().any(|fields| fields.of(message.row.uid).is_none());
        if is_gone || (preview.is_none() && makes_previews(plan) == Some(true)) {
            ahead.skip().await?;
            told.missing = true;
            continue;
        }
        let prepared = match ahead.next().await? {
            Found::There(prepared) => prepared,
            Found::Gone => {
                told.missing = true;
                continue;
            }
            Found::Unreadable(error) => {
                told.unreadable += 1;
                if told.unreadable > UNREADABLE_MAX {
                    return Err(error.into());
                }
                made::log(&error, message.row.uid);
                continue;
            }
        };
        let has = |part| prepared.as_ref().is_some_and(|prepared| prepared.parts.contains(&part));
        told.unknown_encoding |= has(Part::UnknownEncoding);
        told.too_much |= has(Part::TooMuch);
        let recent = selected.view.is_recent(message.row.uid);
        let response = Response { plan, message, keywords: &keywords, recent, preview: preview.as_deref(), fields: &fields };
        response.send(connection, held, rendered.as_ref(), prepared.as_ref()).await?;
        if response.tells_all() && message.row.modseq.get() > selected.view.highest_modseq() {
            told.known.push((message.row.uid, message.row.modseq));
        }
        connection.flush_if_large().await?;
    }
    Ok(())
}

/// Whether previews are made where there are none; `None`: they are not asked for.
fn makes_previews(plan: &Plan) -> Option<bool> {
    let lazy = |item: &FetchItem| match item {
        FetchItem::Preview { lazy } | FetchItem::Snippet { lazy } => Some(*lazy),
        _ => None,
    };
    plan.items.iter().filter_map(lazy).reduce(|all, lazy| all && lazy).map(|lazy| !lazy)
}

/// One FETCH response.
struct Response<'a> {
    plan: &'a Plan,
    message: Message,
    keywords: &'a [String],
    recent: bool,
    /// If it was asked for, and is there.
    preview: Option<&'a str>,
    /// See [`Plan::fields`].
    fields: &'a [SelectedFields],
}

impl Response<'_> {
    /// Whether FLAGS go with it although nobody asked: this command changed them.
    fn adds_flags(&self) -> bool {
        self.changed_it() && !self.plan.items.contains(&FetchItem::Flags)
    }
    fn adds_modseq(&self) -> bool {
        self.has_flags() && self.plan.enabled.modseq() && !self.plan.items.contains(&FetchItem::ModSeq)
    }
    /// RFC 7162 §3.2.4: also where only \Seen was set on the way.
    fn adds_uid(&self) -> bool {
        self.changed_it() && self.plan.enabled.uid() && !self.plan.items.contains(&FetchItem::Uid)
    }
    fn changed_it(&self) -> bool {
        self.plan.seen_now.binary_search(&self.message.row.uid).is_ok()
    }
    fn has_flags(&self) -> bool {
        self.adds_flags() || self.plan.items.contains(&FetchItem::Flags)
    }
    /// Whether the client needs no other response to know the message's present flags.
    fn tells_all(&self) -> bool {
        self.has_flags()
    }

    /// Header fields that need no file.
    fn selected(&self, source: &Source, rendered: Option<&Rendered>) -> Option<Cow<'_, [u8]>> {
        match source {
            Source::File => None,
            Source::Index(place) => self.fields.get(*place).and_then(|fields| fields.of(self.message.row.uid)).map(Cow::Borrowed),
            Source::Rendered(names) => {
                let mut fields = Vec::new();
                names.select(&rendered?.headers, &mut fields);
                Some(Cow::Owned(fields))
            }
        }
    }

    async fn send<H: Holding>(
        &self,
        connection: &mut Connection,
        held: &H,
        rendered: Option<&Rendered>,
        prepared: Option<&Prepared>,
    ) -> Result<(), Stop> {
        let row = &self.message.row;
        let mut writer = FetchWriter::begin(connection.output(), self.plan.enabled, self.message.sequence, row.uid);
        let mut parts = prepared.map_or([].as_slice(), |prepared| prepared.parts.as_slice()).iter();
        if self.adds_uid() {
            writer.uid(connection.output(), row.uid);
        }
        if self.adds_modseq() {
            writer.modseq(connection.output(), row.modseq);
        }
        if self.adds_flags() {
            writer.flags(connection.output(), row.flags, self.keywords, self.recent);
        }
        for (item, source) in self.plan.items.iter().zip(&self.plan.sources) {
            let out = connection.output();
            if let (FetchItem::Section { name, partial, .. }, Some(bytes)) = (item, self.selected(source, rendered)) {
                writer.section(out, name, partial.map(|(origin, _)| origin), Some(&without_nul(partial_of(&bytes, *partial))));
                continue;
            }
            match (item, rendered) {
                (FetchItem::Uid, _) => writer.uid(out, row.uid),
                (FetchItem::Flags, _) => writer.flags(out, row.flags, self.keywords, self.recent),
                (FetchItem::InternalDate, _) => writer.internal_date(out, row.internal_date),
                (FetchItem::SaveDate, _) => writer.save_date(out, row.save_date),
                (FetchItem::EmailId, _) => {
                    if let Some(id) = self.message.email_id {
                        writer.email_id(out, id);
                    }
                }
                (FetchItem::Preview { .. }, _) => writer.preview(out, self.preview),
                (FetchItem::Snippet { .. }, _) => writer.snippet(out, self.preview),
                (FetchItem::ThreadId, _) => writer.no_thread_id(out),
                (FetchItem::Rfc822Size, _) => writer.size(out, row.size),
                (FetchItem::ModSeq, _) => writer.modseq(out, row.modseq),
                (FetchItem::Envelope, Some(rendered)) => writer.envelope(out, &rendered.envelope),
                (FetchItem::BodyStructure, Some(rendered)) => writer.body_structure(out, &rendered.body_structure),
                (FetchItem::Body, _) => {
                    if let Some(structure) = prepared.and_then(|prepared| prepared.body_structure.as_deref()) {
                        writer.body(out, structure);
                    }
                }
                (
                    FetchItem::Section { .. }
                    | FetchItem::Binary { .. }
                    | FetchItem::BinarySize(_)
                    | FetchItem::Rfc822
                    | FetchItem::Rfc822Header
                    | FetchItem::Rfc822Text,
                    _,
                ) => {
                    if let (Some(part), Some(prepared)) = (parts.next(), prepared) {
                        send_part(connection, held, &mut writer, item, part, prepared).await?;
                    }
                }
                // Planned and rendered together.
                (FetchItem::Envelope | FetchItem::BodyStructure, None) => {}
            }
        }
        if writer.is_empty() {
            writer.uid(connection.output(), row.uid); // all that was asked for is left out
        }
        writer.finish(connection.output());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
