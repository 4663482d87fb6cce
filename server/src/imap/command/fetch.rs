//! FETCH and UID FETCH (RFC 3501 §6.4.5, RFC 7162 §3.1.4).
//!
//! - Metadata comes from memory, straight into the output buffer.
//! - Bodies are read several messages ahead of the client, within `AHEAD_READS` and `AHEAD_BYTES`.
//! - \Seen is set for all messages in one call before the first is sent, so that FLAGS are right in the same response.
//! - Messages that are gone are left out; by sequence number the command then ends with NO (RFC 2180 §4.1.2).

pub mod body;
mod send;

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use index::{Flag, FlagSet, ModSeq, Uid};
use storage::{
    EmailId, Mailbox, Rendered, Right, Row, StorageError, StoreOperation,
    mime::{CACHED_FIELDS, Section, SectionText},
};

use self::{
    body::{Form, Part, Prepared, Request, Wanted, cached_fields},
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
/// How many groups of messages are read at once: those of a whole batch on a local disk, enough to hide a file server's latency.
const AHEAD_READS: usize = 32;
/// Most messages that one call reads, one after the other: on a local disk, changing threads costs more than reading a message. On a file server each is
/// read by itself.
const GROUP_MESSAGES: usize = 16;
/// How many bytes reading ahead may hold for one session.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Which of the messages that a set names are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Only {
    /// Those that changed after this MODSEQ.
    pub changed_since: Option<u64>,
    /// Those at these places among all that the set names, whether they changed or not.
    pub partial: Option<PartialRange>,
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
    let Only { changed_since, partial } = only;
    let mut positions = sets::positions(set, Numbers::new(uid), selected)?;
    if let Some(range) = partial {
        positions = sets::narrow(&positions, range);
    }
    let stopped = session.settings.message_limits.working().and_then(|limit| limit.cut(&mut positions, &selected.view));
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

    let mut told = Told { known: Vec::new(), missing: false, unreadable: false, unknown_encoding: false };
    let mut rest: Box<dyn Iterator<Item = usize> + Send + Sync> = match stopped {
        None => Box::new(positions.iter().cloned().flatten()),
        Some(_) => Box::new(positions.iter().rev().flat_map(|part| part.clone().rev())),
    };
    loop {
        let batch = next_batch(&mut rest, selected, &plan, changed_since, &mut told);
        match batch {
            Some(messages) if messages.is_empty() => {}
            Some(messages) => deliver(session, selected, &plan, messages, &mut told).await?,
            None => break,
        }
    }
    drop(rest);
    told.known.sort_unstable_by_key(|(uid, _)| *uid);
    let expunges = if uid { Expunges::Tell } else { Expunges::KeepBack };
    updates::tell(&mut session.connection, selected, session.enabled, expunges, &told.known).await?;
    let reply = match told {
        Told { unknown_encoding: true, .. } => Reply::no(Code::UnknownCte, "The transfer encoding of a part is not known, or broken"),
        Told { unreadable: true, .. } => Reply::no(Code::ServerBug, "A message can't be read on the server"),
        Told { missing: true, .. } if !uid && stopped.is_some() => reply::also_expunged(),
        Told { missing: true, .. } if !uid => reply::expunged(),
        _ => Reply::ok("Fetch completed"),
    };
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// Sends items of messages that came, unasked: \Seen stays as it is, and those that are gone again are left out.
pub async fn push<H: Holding>(session: &mut Session<H>, selected: &Selected, uids: &[Uid], items: Vec<FetchItem>) -> Result<(), Stop> {
    let plan = Plan::new(items, session.enabled.uid(), None, session.enabled);
    let mut told = Told { known: Vec::new(), missing: false, unreadable: false, unknown_encoding: false };
    let mut rest = uids.iter().filter_map(|uid| selected.view.uids().binary_search(uid).ok());
    while let Some(messages) = next_batch(&mut rest, selected, &plan, None, &mut told) {
        if !messages.is_empty() {
            deliver(session, selected, &plan, messages, &mut told).await?;
        }
    }
    Ok(())
}

/// What each response has, and what must be read for it.
struct Plan {
    items: Vec<FetchItem>,
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
        let request = Request { sections: items.iter().filter_map(wanted).collect(), body_structure: items.contains(&FetchItem::Body) };
        let needs_rendered =
            items.iter().any(|item| matches!(item, FetchItem::Envelope | FetchItem::BodyStructure) || cached_names(item).is_some());
        let sets_seen = items.iter().any(sets_seen);
        let tells_facts = items.iter().any(FetchItem::tells_facts);
        Plan { items, request: Arc::new(request), needs_rendered, sets_seen, tells_facts, enabled, seen_now: Vec::new() }
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
        FetchItem::Section { section, partial, .. } if cached_names(item).is_none() => {
            Some(Wanted { section: section.clone(), partial: *partial, form: Form::AsItIs })
        }
        FetchItem::Binary { part, partial, .. } => decoded(part, *partial, Form::Decoded),
        FetchItem::BinarySize(part) => decoded(part, None, Form::DecodedSize),
        FetchItem::Section { .. }
        | FetchItem::Uid
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

/// The names of HEADER.FIELDS that the cached headers can answer.
fn cached_names(item: &FetchItem) -> Option<&[String]> {
    let FetchItem::Section { section: Section { part, text: SectionText::HeaderFields(names) }, .. } = item else { return None };
    let cached = part.is_empty() && names.iter().all(|name| CACHED_FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)));
    cached.then_some(names)
}

/// What the client was told while the command ran.
struct Told {
    /// Messages whose present metadata it got.
    known: Vec<(Uid, ModSeq)>,
    /// Whether a message was left out because it is gone.
    missing: bool,
    /// Whether a message was left out because its file can't be read.
    unreadable: bool,
    /// Whether a part was left out because its transfer encoding can't be undone.
    unknown_encoding: bool,
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
    let mut looked_at = 0;
    for position in rest.take(BATCH_MESSAGES) {
        looked_at += 1;
        let Some(uid) = view.uids().get(position) else { continue };
        let found = messages.position(*uid);
        match found.map(|found| messages.row(found)) {
            Some(row) if changed_since.is_some_and(|since| row.modseq.get() <= since) => {}
            Some(row) if plan.tells_facts && !row.is_known() => told.unreadable = true,
            Some(row) => {
                let email_id = found.filter(|_| wants_id).map(|found| messages.email_id(found));
                batch.push_back(Message { sequence: sequence(position), row, email_id });
            }
            None => told.missing = true,
        }
    }
    (looked_at > 0).then_some(batch)
}

/// Sends a batch.
async fn deliver<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    plan: &Plan,
    mut batch: VecDeque<Message>,
    told: &mut Told,
) -> Result<(), Stop> {
    let mut rendered = render(&session.held, selected, plan, &batch).await?;
    let mut previews = previews(&session.held, selected, plan, &batch).await?.into_iter();
    let (connection, held) = (&mut session.connection, &session.held);
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
        if preview.is_none() && makes_previews(plan) == Some(true) {
            ahead.skip().await?;
            told.missing = true;
            continue;
        }
        let Some(prepared) = ahead.next().await? else {
            told.missing = true;
            continue;
        };
        told.unknown_encoding |= prepared.as_ref().is_some_and(|prepared| prepared.parts.contains(&Part::UnknownEncoding));
        let response =
            Response { plan, message, keywords: &keywords, recent: selected.view.is_recent(message.row.uid), preview: preview.as_deref() };
        response.send(connection, held, rendered.as_ref(), prepared.as_ref()).await?;
        if response.tells_all() && message.row.modseq.get() > selected.view.highest_modseq() {
            told.known.push((message.row.uid, message.row.modseq));
        }
        connection.flush_if_large().await?;
    }
    Ok(())
}

/// What is rendered of a batch's messages, if the plan needs any of it.
async fn render<H: Holding>(
    held: &H,
    selected: &Selected,
    plan: &Plan,
    batch: &VecDeque<Message>,
) -> Result<Option<VecDeque<Option<Rendered>>>, Stop> {
    if !plan.needs_rendered {
        return Ok(None);
    }
    let uids: Vec<Uid> = batch.iter().map(|message| message.row.uid).collect();
    let mailbox = Arc::clone(&selected.mailbox);
    Ok(Some(held.run(move |_| mailbox.rendered(&uids)).await?.into()))
}

/// Whether previews are made where there are none; `None`: they are not asked for.
fn makes_previews(plan: &Plan) -> Option<bool> {
    let lazy = |item: &FetchItem| match item {
        FetchItem::Preview { lazy } | FetchItem::Snippet { lazy } => Some(*lazy),
        _ => None,
    };
    plan.items.iter().filter_map(lazy).reduce(|all, lazy| all && lazy).map(|lazy| !lazy)
}

/// The previews of a batch, if they are asked for. Those of messages that are gone are left out with them.
async fn previews<H: Holding>(
    held: &H,
    selected: &Selected,
    plan: &Plan,
    batch: &VecDeque<Message>,
) -> Result<Vec<Option<Arc<str>>>, Stop> {
    let Some(make) = makes_previews(plan) else { return Ok(Vec::new()) };
    let uids: Vec<Uid> = batch.iter().map(|message| message.row.uid).collect();
    let mailbox = Arc::clone(&selected.mailbox);
    Ok(held.run(move |_| mailbox.previews(&uids, make)).await?)
}

/// Reads message files ahead of the client, in order.
struct Ahead<'a, H> {
    held: &'a H,
    mailbox: &'a Arc<Mailbox>,
    request: &'a Arc<Request>,
    /// Not started yet.
    rows: VecDeque<Row>,
    /// Messages of the next group: it doubles, so that the first message comes soon and the others at little cost.
    group: usize,
    /// Costs of the messages under way and ready, in order.
    costs: VecDeque<u64>,
    bytes: u64,
    reading: FuturesOrdered<BoxFuture<'a, Result<Vec<Read>, StorageError>>>,
    ready: VecDeque<Read>,
}

/// What became of reading one message.
type Read = Result<Prepared, StorageError>;

impl<'a, H: Holding> Ahead<'a, H> {
    fn new(held: &'a H, mailbox: &'a Arc<Mailbox>, request: &'a Arc<Request>, rows: VecDeque<Row>) -> Ahead<'a, H> {
        Ahead {
            held,
            mailbox,
            request,
            rows,
            group: 1,
            costs: VecDeque::new(),
            bytes: 0,
            reading: FuturesOrdered::new(),
            ready: VecDeque::new(),
        }
    }

    fn start(&mut self) {
        while !self.rows.is_empty() && self.reading.len() < AHEAD_READS {
            let mut uids = Vec::new();
            while let Some(row) = self.rows.front().filter(|_| uids.len() < self.group) {
                let cost = self.request.cost(row.size);
                let full = self.bytes.saturating_add(cost) > AHEAD_BYTES;
                if full && !self.costs.is_empty() {
                    break;
                }
                uids.push(row.uid);
                self.costs.push_back(cost);
                self.bytes += cost;
                self.rows.pop_front();
            }
            if uids.is_empty() {
                return;
            }
            self.group = if self.mailbox.is_remote() { 1 } else { (self.group * 2).min(GROUP_MESSAGES) };
            let (mailbox, request) = (Arc::clone(self.mailbox), Arc::clone(self.request));
            let read = move |_: &_| Ok(uids.into_iter().map(|uid| request.prepare(&mailbox, uid)).collect());
            self.reading.push_back(Box::pin(self.held.run(read)));
        }
    }

    /// What was read of the next message (`Some(None)`: nothing is needed); `None`: it is gone.
    async fn next(&mut self) -> Result<Option<Option<Prepared>>, Stop> {
        if self.request.is_empty() {
            return Ok(Some(None));
        }
        self.start();
        if self.ready.is_empty() {
            let Some(group) = self.reading.next().await else { return Ok(None) };
            self.ready.extend(group?);
            self.start();
        }
        let Some(prepared) = self.ready.pop_front() else { return Ok(None) };
        self.bytes -= self.costs.pop_front().unwrap_or_default();
        match prepared {
            Ok(prepared) => Ok(Some(Some(prepared))),
            Err(StorageError::Expunged) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves the next message out.
    async fn skip(&mut self) -> Result<(), Stop> {
        self.next().await.map(drop)
    }
}

/// One FETCH response.
struct Response<'a> {
    plan: &'a Plan,
    message: Message,
    keywords: &'a [String],
    recent: bool,
    /// If it was asked for, and is there.
    preview: Option<&'a str>,
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
        for item in &self.plan.items {
            let out = connection.output();
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
                (FetchItem::Section { name, partial, .. }, Some(rendered)) if let Some(names) = cached_names(item) => {
                    let mut bytes = cached_fields(&rendered.headers, names, *partial);
                    without_nul(&mut bytes);
                    writer.section(out, name, partial.map(|(origin, _)| origin), Some(&bytes));
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
mod tests {
    use super::*;
    use crate::imap::wire::enabled::Awareness;

    fn section(text: SectionText, peek: bool) -> FetchItem {
        FetchItem::Section { section: Section { part: vec![], text }, peek, partial: None, name: String::new() }
    }
    fn fields(names: &[&str]) -> FetchItem {
        section(SectionText::HeaderFields(names.iter().map(|name| (*name).to_owned()).collect()), true)
    }

    #[test]
    fn header_fields_of_a_list_view_need_no_message_file() {
        let plan = Plan::new(vec![FetchItem::Flags, fields(&["From", "SUBJECT", "date"])], true, None, Enabled::NOTHING);
        assert!(plan.request.is_empty() && plan.needs_rendered && !plan.sets_seen);
        let plan = Plan::new(vec![fields(&["From", "X-Other"])], true, None, Enabled::NOTHING);
        assert_eq!(plan.request.sections.len(), 1);
        assert!(!plan.needs_rendered);
    }

    #[test]
    fn only_reading_the_text_marks_a_message_as_seen() {
        assert!(sets_seen(&FetchItem::Rfc822) && sets_seen(&FetchItem::Rfc822Text) && !sets_seen(&FetchItem::Rfc822Header));
        assert!(sets_seen(&section(SectionText::Whole, false)) && !sets_seen(&section(SectionText::Whole, true)));
        assert!(!sets_seen(&FetchItem::Envelope) && !sets_seen(&FetchItem::Body));
    }

    #[test]
    fn uid_and_modseq_are_added_where_the_command_implies_them() {
        let plan = Plan::new(vec![FetchItem::Flags], true, Some(7), Enabled { awareness: Awareness::CondStore, ..Enabled::NOTHING });
        assert_eq!(plan.items, [FetchItem::ModSeq, FetchItem::Uid, FetchItem::Flags]);
        let plan = Plan::new(vec![FetchItem::Uid], true, None, Enabled::NOTHING);
        assert_eq!(plan.items, [FetchItem::Uid]);
    }
}
