//! Finds the messages of the view that match: the first half of SEARCH, SORT and THREAD.
//!
//! What memory can decide is decided there; the rest by summaries and cached headers, many at once; what then is still open by reading messages,
//! several at once, on the blocking pool.
//!
//! Invariants, each with the test that guards it:
//! - a command ends when its client leaves or its account is taken away, however much there is to read (`a_search_ends_when_the_account_is_taken_away`)
//! - messages under way take bounded memory and threads ([`ROOM`])

use std::{sync::Arc, time::UNIX_EPOCH};

use affinity::clock::wall_clock;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use index::Uid;
use storage::{Mailbox, Row, StorageError};
use tokio::sync::Semaphore;

use super::{Context, Needs, Query, RowFacts, compile, filters};
use crate::imap::{
    holding::Holding,
    limits::{Limit, MessageLimits, Stopped},
    patience::{Progress, while_wanted},
    reply::{Reply, Stop},
    session::Session,
    state::Selected,
    view::sequence,
    wire::command::SearchKey,
};

/// Messages whose cached headers are asked for at once.
pub const BATCH_MESSAGES: usize = 256;
/// Batches under way: one is read from the index while others are looked through.
pub const BATCHES_AHEAD: usize = 3;
/// Messages read at once: enough to hide a server's latency.
const AHEAD_MESSAGES: usize = 8;
/// Parts of memory that messages under way take, on the whole node: 256 MiB, and 128 of the 512 blocking threads, so that one user's searches leave room for
/// all that others do.
static ROOM: Semaphore = Semaphore::const_new(128);
/// One part. A smaller message takes a whole one.
const PART_BYTES: u64 = 2 << 20;
/// What one message takes at most, however large it is.
const PARTS_MAX: u32 = 32;

/// What a search found.
pub struct Found {
    /// The messages that match, in the order of the mailbox.
    pub rows: Vec<RowFacts>,
    /// Whether MODSEQ was among the keys.
    pub modseq: bool,
    /// How many messages were looked at, where that is limited.
    pub searched: usize,
    /// Where it stopped.
    pub stopped: Option<Stopped>,
}

/// How many messages may be looked at (RFC 9738), and what if there are more.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// What is told.
    pub limit: Limit,
    /// How many of it are left.
    pub left: usize,
    /// For the answer where nothing is done then; `None`: the last ones are searched.
    pub refused: Option<&'static str>,
}

impl Most {
    /// What a session's limits allow.
    pub fn of(limits: MessageLimits, refused: Option<&'static str>) -> Option<Most> {
        limits.working().map(|limit| Most { limit, left: limit.most(), refused })
    }
}

/// The messages that match.
pub async fn find<H: Holding>(session: &mut Session<H>, selected: &Selected, key: &SearchKey, most: Option<Most>) -> Result<Found, Stop> {
    let query = Arc::new(ready(selected, &filters::resolve(session, key).await?));
    if query.uses_modseq() {
        session.enable_condstore(Some(selected));
    }
    let (decided, searched, stopped) = match most {
        None => (decide_from_memory(selected, &query, selected.view.uids().iter().copied().enumerate()), 0, None),
        Some(most) => {
            let (places, stopped) = searched(selected, &query, most)?;
            (decide_from_memory(selected, &query, places.iter().copied()), places.len(), stopped)
        }
    };
    Ok(Found { rows: complete(session, selected, &query, decided).await?, modseq: query.uses_modseq(), searched, stopped })
}

/// Messages with their places in the view.
type Places = Vec<(usize, Uid)>;

/// The messages to look at, in the order of the mailbox: those that the sets among the keys name, the last ones if there are too many.
fn searched(selected: &Selected, query: &Query, most: Most) -> Result<(Places, Option<Stopped>), Reply> {
    let messages = selected.mailbox.read();
    let is_searched = |(position, uid): &(usize, Uid)| query.searches(sequence(*position), *uid) && messages.position(*uid).is_some();
    let mut named = selected.view.uids().iter().copied().enumerate().rev().filter(is_searched);
    let mut places: Places = named.by_ref().take(most.left).collect();
    let more = named.next().is_some();
    if let (true, Some(what)) = (more, most.refused) {
        return Err(most.limit.refuse(None, what));
    }
    let stopped = places.last().filter(|_| more).map(|(_, lowest)| Stopped { limit: most.limit, lowest: *lowest });
    places.reverse();
    Ok((places, stopped))
}

/// Those of `uids` that match, in the order of the mailbox; filters in `key` are resolved.
pub async fn among<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    key: &SearchKey,
    uids: &[Uid],
) -> Result<Vec<RowFacts>, Stop> {
    let query = Arc::new(ready(selected, key));
    let places = uids.iter().filter_map(|uid| Some((selected.view.uids().binary_search(uid).ok()?, *uid)));
    let decided = decide_from_memory(selected, &query, places);
    complete(session, selected, &query, decided).await
}

/// Decides what memory left open.
async fn complete<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    query: &Arc<Query>,
    (mut found, mut open): (Vec<RowFacts>, Vec<RowFacts>),
) -> Result<Vec<RowFacts>, Stop> {
    let Session { connection, held, settings, tag, .. } = &mut *session;
    let progress = Progress::of(tag, u32::try_from(open.len()).unwrap_or(u32::MAX));
    for (step, is_taken) in [(from_summaries as Step, query.reads_summaries()), (from_headers, query.reads_headers())] {
        if is_taken && !open.is_empty() {
            let work = decide_from_index(held, selected, query, step, open, &mut found, &progress);
            open = while_wanted(connection, held, settings, &progress, work).await?;
        }
    }
    if !open.is_empty() {
        let work = decide_from_messages(held, selected, query, open, &mut found, &progress);
        while_wanted(connection, held, settings, &progress, work).await?;
    }
    found.sort_unstable_by_key(|row| row.sequence);
    Ok(found)
}

fn ready(selected: &Selected, key: &SearchKey) -> Query {
    let now = wall_clock().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    compile(
        key,
        &Context {
            message_count: selected.view.exists(),
            largest_uid: selected.view.uids().last().map_or(0, |uid| uid.get()),
            keywords: &selected.mailbox.keywords(),
            now: i64::try_from(now).unwrap_or(i64::MAX),
            saved: &selected.saved,
        },
    )
}

/// What matches for sure, and what is open, of messages at these places in the view. Messages that are gone match nothing.
fn decide_from_memory(selected: &Selected, query: &Query, places: impl Iterator<Item = (usize, Uid)>) -> (Vec<RowFacts>, Vec<RowFacts>) {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    let messages = selected.mailbox.read();
    for (position, uid) in places {
        let Some(at) = messages.position(uid) else { continue };
        let row = messages.row(at);
        if query.uses_facts() && !row.is_known() {
            // Its file can't be read: nobody can say.
            continue;
        }
        let email_id = query.uses_email_id().then(|| messages.email_id(at));
        let facts = RowFacts { email_id, ..facts(selected, sequence(position), &row) };
        match query.decide_row(&facts) {
            Some(true) => found.push(facts),
            Some(false) => {}
            None => open.push(facts),
        }
    }
    (found, open)
}

fn facts(selected: &Selected, sequence: u32, row: &Row) -> RowFacts {
    RowFacts {
        sequence,
        uid: row.uid,
        flags: row.flags,
        recent: selected.view.is_recent(row.uid),
        size: row.size,
        internal_date: row.internal_date,
        save_date: row.save_date,
        modseq: row.modseq,
        email_id: None,
    }
}

/// What the index says of some messages, each with the answer, if it is enough for one.
type Step = fn(&Mailbox, &Query, Vec<RowFacts>) -> Result<Vec<(RowFacts, Option<bool>)>, StorageError>;

/// Decides what `step` can; gives back what is still open.
async fn decide_from_index<H: Holding>(
    held: &H,
    selected: &Selected,
    query: &Arc<Query>,
    step: Step,
    open: Vec<RowFacts>,
    found: &mut Vec<RowFacts>,
    progress: &Progress<'_>,
) -> Result<Vec<RowFacts>, StorageError> {
    let batch = |rows: Vec<RowFacts>| -> BoxFuture<'_, _> {
        let (mailbox, query) = (Arc::clone(&selected.mailbox), Arc::clone(query));
        Box::pin(held.run(move |_| step(&mailbox, &query, rows)))
    };
    let batches: Vec<BoxFuture<'_, _>> = open.chunks(BATCH_MESSAGES).map(|rows| batch(rows.to_vec())).collect();
    let mut undecided = Vec::new();
    let mut decided = stream::iter(batches).buffered(BATCHES_AHEAD);
    while let Some(batch) = decided.try_next().await? {
        progress.add(batch.iter().filter(|(_, answer)| answer.is_some()).count());
        for (row, answer) in batch {
            match answer {
                Some(true) => found.push(row),
                Some(false) => {}
                None => undecided.push(row),
            }
        }
    }
    Ok(undecided)
}

fn from_summaries(mailbox: &Mailbox, query: &Query, rows: Vec<RowFacts>) -> Result<Vec<(RowFacts, Option<bool>)>, StorageError> {
    let uids: Vec<Uid> = rows.iter().map(|row| row.uid).collect();
    let mut answers = Answers::new(rows, &uids);
    mailbox.visit_summaries(&uids, &mut |uid, summary| answers.give(uid, |row| query.decide_summary(row, summary)))?;
    Ok(answers.decided)
}

fn from_headers(mailbox: &Mailbox, query: &Query, rows: Vec<RowFacts>) -> Result<Vec<(RowFacts, Option<bool>)>, StorageError> {
    let uids: Vec<Uid> = rows.iter().map(|row| row.uid).collect();
    let mut answers = Answers::new(rows, &uids);
    mailbox.visit_headers(&uids, &mut |uid, headers| answers.give(uid, |row| query.decide_full(row, Some(headers), None)))?;
    Ok(answers.decided)
}

/// Messages of which some are asked about.
struct Answers<'u> {
    decided: Vec<(RowFacts, Option<bool>)>,
    places: UidPlaces<'u>,
}

impl<'u> Answers<'u> {
    fn new(rows: Vec<RowFacts>, uids: &'u [Uid]) -> Answers<'u> {
        // Messages that are gone match nothing.
        Answers { decided: rows.into_iter().map(|row| (row, Some(false))).collect(), places: UidPlaces::of(uids) }
    }
    fn give(&mut self, uid: Uid, decide: impl FnOnce(&RowFacts) -> Option<bool>) {
        if let Some((row, answer)) = self.places.find(uid).and_then(|at| self.decided.get_mut(at)) {
            *answer = decide(row);
        }
    }
}

/// Where UIDs stand in a list in which they go up, as those of a view do; mostly they are asked for in its order.
pub struct UidPlaces<'u> {
    uids: &'u [Uid],
    next: usize,
}

impl<'u> UidPlaces<'u> {
    /// Of this list.
    pub fn of(uids: &'u [Uid]) -> UidPlaces<'u> {
        UidPlaces { uids, next: 0 }
    }
    /// The place of one of them.
    pub fn find(&mut self, uid: Uid) -> Option<usize> {
        let at = if self.uids.get(self.next) == Some(&uid) { self.next } else { self.uids.binary_search(&uid).ok()? };
        self.next = at + 1;
        Some(at)
    }
}

/// Reads what is still open.
async fn decide_from_messages<H: Holding>(
    held: &H,
    selected: &Selected,
    query: &Arc<Query>,
    open: Vec<RowFacts>,
    found: &mut Vec<RowFacts>,
    progress: &Progress<'_>,
) -> Result<(), StorageError> {
    let read = |row: RowFacts| -> BoxFuture<'_, Result<Option<RowFacts>, StorageError>> {
        let (mailbox, query) = (Arc::clone(&selected.mailbox), Arc::clone(query));
        Box::pin(async move {
            let room = ROOM.acquire_many(parts(row.size)).await.ok(); // it is never closed
            // The room is given back by the thread that reads, also when nobody waits for it any more.
            let work = move |_: &Arc<storage::Account>| {
                let decided = from_message(&mailbox, &query, &row);
                drop(room);
                decided
            };
            held.run(work).await.map(|matches| matches.then_some(row))
        })
    };
    let mut reading = stream::iter(open.into_iter().map(read)).buffer_unordered(AHEAD_MESSAGES);
    while let Some(decided) = reading.try_next().await? {
        progress.add(1);
        found.extend(decided);
    }
    Ok(())
}

fn parts(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PART_BYTES)).unwrap_or(PARTS_MAX).clamp(1, PARTS_MAX)
}

fn from_message(mailbox: &Mailbox, query: &Query, row: &RowFacts) -> Result<bool, StorageError> {
    let message = match mailbox.open_message(row.uid).and_then(|reader| reader.read_all()) {
        Ok(message) => message,
        Err(StorageError::Expunged) => return Ok(false),
        Err(error) => return Err(error),
    };
    debug_assert!(query.needs() > Needs::Nothing, "what memory decides is never read");
    Ok(query.decide_full(row, None, Some(&message)).unwrap_or(false))
}
