//! Search contexts (RFC 5267): SEARCH and SORT whose results are kept up to date, until CANCELUPDATE or until the mailbox is left.
//!
//! - Results follow the view: what goes is told before its EXPUNGE or VANISHED (`Contexts::leave`), what comes after its EXISTS (`follow`).
//! - Only messages that came or changed since the last look are looked at again; the sort keys of the others are kept.
//! - Sequence numbers and `$` among the keys mean the messages that they named when the command came.
//!
//! Invariants, each with the test that guards it:
//! - a client that applies what it is told has the results that the command would have now (`replayed_updates_are_what_the_command_would_find`)

use std::{collections::BTreeSet, sync::Arc};

use bytes::BytesMut;
use index::Uid;
use smallvec::smallvec;

use super::{
    fetch,
    search::{RowFacts, find},
    sort::{self, Keyed},
};
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::Selected,
    view::View,
    wire::{
        command::{FetchItem, SearchKey, SequenceBound, SequenceRange, SequenceSet, SortCriterion},
        response::{self, Code, Condition, Move, Scope},
    },
};

/// Most contexts of a session: each looks at every message that changes.
const CONTEXTS_MAX: usize = 8;
/// Most results of a sorted context: what they are sorted by stays in memory, about 200 bytes each.
const SORTED_MAX: usize = 20_000;

/// The contexts of one selected mailbox.
#[derive(Debug, Default)]
pub struct Contexts {
    kept: Vec<Context>,
    /// Changes up to this MODSEQ were looked at,
    looked_at: u64,
    /// and messages below this UID.
    uid_next: u32,
}

#[derive(Debug)]
struct Context {
    tag: String,
    /// Whether results are told as UIDs.
    uid: bool,
    key: SearchKey,
    results: Results,
    /// What a client wants to have of a message that comes and is found (RFC 5465 §7).
    items: Vec<FetchItem>,
    scope: Scope,
}

/// In the requested order.
#[derive(Debug)]
enum Results {
    Mailbox(Vec<Uid>),
    Sorted { criteria: Arc<[SortCriterion]>, list: Vec<Keyed> },
}

/// What a searching command with UPDATE found, to be kept.
pub struct Found {
    /// Whether it was a UID command.
    pub uid: bool,
    /// Its keys, filters resolved.
    pub key: SearchKey,
    /// In the order of the mailbox; of SORT: with keys, in the order asked for.
    pub results: FoundResults,
    /// What to send of messages that come.
    pub items: Vec<FetchItem>,
    /// What responses say of the mailbox.
    pub scope: Scope,
}

/// The results of SEARCH or of SORT.
pub enum FoundResults {
    /// SEARCH.
    Mailbox(Vec<Uid>),
    /// SORT.
    Sorted(Arc<[SortCriterion]>, Vec<Keyed>),
}

impl Contexts {
    /// A tag names one context only (RFC 5267 §4.3).
    pub fn refuse_reuse(&self, tag: &str) -> Result<(), Reply> {
        if self.kept.iter().any(|context| context.tag == tag) { Err(Reply::bad("Tag reuse: a context is kept under it")) } else { Ok(()) }
    }

    /// CANCELUPDATE.
    pub fn cancel(&mut self, tags: &[String]) {
        self.kept.retain(|context| !tags.contains(&context.tag));
    }

    fn keep(&mut self, tag: &str, found: Found, view: &View) -> Result<(), &'static str> {
        if self.kept.len() >= CONTEXTS_MAX {
            return Err("Too many contexts, give CANCELUPDATE first");
        }
        if found.key.any(&|key| matches!(key, SearchKey::Older(_) | SearchKey::Younger(_))) {
            return Err("What changes with time alone is not followed");
        }
        let results = match found.results {
            FoundResults::Mailbox(uids) => Results::Mailbox(uids),
            FoundResults::Sorted(_, list) if list.len() > SORTED_MAX => {
                return Err("Too many messages to keep them sorted, SEARCH can follow them");
            }
            FoundResults::Sorted(criteria, list) => Results::Sorted { criteria, list },
        };
        if self.kept.is_empty() {
            (self.looked_at, self.uid_next) = (view.highest_modseq(), view.uid_next());
        }
        self.kept.push(Context { tag: tag.to_owned(), uid: found.uid, key: found.key, results, items: found.items, scope: found.scope });
        Ok(())
    }

    /// Tells that messages leave the view, before that itself is told. `vanished` ascending, `sequences` their numbers so far, descending.
    pub fn leave(&mut self, out: &mut BytesMut, vanished: &[Uid], sequences: &[u32]) {
        for context in &mut self.kept {
            let number = |uid: Uid| match context.uid {
                true => Some(uid.get()),
                false => vanished.binary_search(&uid).ok().and_then(|at| sequences.iter().rev().nth(at).copied()),
            };
            let removed = context.results.remove(&vanished.iter().copied().collect(), &number);
            response::esearch_update(out, &context.tag, &context.scope, context.uid, &removed, &[]);
        }
    }
}

impl Results {
    /// Takes messages out; what to tell.
    fn remove(&mut self, gone: &BTreeSet<Uid>, number: &impl Fn(Uid) -> Option<u32>) -> Vec<Move> {
        match self {
            Results::Mailbox(uids) => {
                let removed: Vec<u32> = uids.iter().filter(|uid| gone.contains(uid)).filter_map(|uid| number(*uid)).collect();
                uids.retain(|uid| !gone.contains(uid));
                if removed.is_empty() { Vec::new() } else { vec![Move { position: 0, numbers: removed }] }
            }
            Results::Sorted { list, .. } => {
                let mut moves: Vec<Move> = Vec::new();
                let mut position = 1;
                list.retain(|keyed| {
                    if !gone.contains(&keyed.row.uid) {
                        position += 1;
                        return true;
                    }
                    add_at(&mut moves, (position, position), number(keyed.row.uid));
                    false
                });
                moves
            }
        }
    }

    fn uids(&self) -> BTreeSet<Uid> {
        match self {
            Results::Mailbox(uids) => uids.iter().copied().collect(),
            Results::Sorted { list, .. } => list.iter().map(|keyed| keyed.row.uid).collect(),
        }
    }
}

/// Adds a number to the last move if it belongs there: it began at the same place, or ends right before `at`.
fn add_at(moves: &mut Vec<Move>, (position, begins): (u32, u32), number: Option<u32>) {
    let Some(number) = number else { return };
    match moves.last_mut() {
        Some(last) if last.position == begins => last.numbers.push(number),
        _ => moves.push(Move { position, numbers: vec![number] }),
    }
}

/// Keeps what a command found, or says why not.
pub fn begin<H: Holding>(session: &mut Session<H>, selected: &mut Selected, tag: &str, mut found: Found) {
    found.key = fixed(found.key, selected);
    if let Err(why) = selected.contexts.keep(tag, found, &selected.view) {
        refuse(session, tag, why);
    }
}

/// Says that results are not kept.
pub fn refuse<H: Holding>(session: &mut Session<H>, tag: &str, why: &str) {
    response::untagged(session.connection.output(), Condition::No, Some(&Code::NoUpdate(tag)), why);
}

/// Tells what came to the results and what left them, as far as the client was told of the messages. Cheap when nothing changed.
pub async fn follow<H: Holding>(session: &mut Session<H>, selected: &mut Selected) -> Result<(), Stop> {
    let (told, uid_next) = (selected.view.highest_modseq(), selected.view.uid_next());
    let (looked_at, first_new) = (selected.contexts.looked_at, selected.contexts.uid_next);
    if selected.contexts.kept.is_empty() || (told == looked_at && uid_next == first_new) {
        return Ok(());
    }
    let candidates: Vec<Uid> = {
        let messages = selected.mailbox.read();
        let is_news = |uid: &Uid| {
            let modseq = messages.get(*uid).map_or(0, |row| row.modseq.get());
            uid.get() >= first_new || (looked_at < modseq && modseq <= told)
        };
        selected.view.uids().iter().copied().filter(is_news).collect()
    };
    let mut contexts = std::mem::take(&mut selected.contexts.kept);
    let mut followed = Ok(());
    let mut gone_wrong = Vec::new();
    for (at, context) in contexts.iter_mut().enumerate() {
        match update(session, selected, context, &candidates, first_new).await {
            Ok(()) => {}
            Err(Stop::Reply(reply)) => gone_wrong.push((at, reply)),
            Err(stop) => {
                followed = Err(stop);
                break;
            }
        }
    }
    for (at, reply) in gone_wrong.into_iter().rev() {
        let context = contexts.remove(at);
        refuse(session, &context.tag, &reply.text);
    }
    selected.contexts.kept = contexts;
    (selected.contexts.looked_at, selected.contexts.uid_next) = (told, uid_next);
    followed
}

async fn update<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    context: &mut Context,
    candidates: &[Uid],
    first_new: u32,
) -> Result<(), Stop> {
    let matching = find::among(session, selected, &context.key, candidates).await?;
    let matched: BTreeSet<Uid> = matching.iter().map(|row| row.uid).collect();
    let had = context.results.uids();
    let is_here = |uid: &Uid| selected.view.sequence_of(*uid).is_some();
    let gone: BTreeSet<Uid> =
        candidates.iter().copied().filter(|uid| had.contains(uid) && !matched.contains(uid) && is_here(uid)).collect();
    let come: Vec<RowFacts> = matching.into_iter().filter(|row| !had.contains(&row.uid)).collect();
    let number = |uid: Uid| if context.uid { Some(uid.get()) } else { selected.view.sequence_of(uid) };
    let removed = context.results.remove(&gone, &number);
    let added = match &mut context.results {
        Results::Mailbox(uids) => {
            let numbers: Vec<u32> = come.iter().filter_map(|row| number(row.uid)).collect();
            uids.extend(come.iter().map(|row| row.uid));
            uids.sort_unstable();
            if numbers.is_empty() { Vec::new() } else { vec![Move { position: 0, numbers }] }
        }
        Results::Sorted { criteria, list } => {
            let keyed = sort::keyed(&session.held, selected, criteria, come.clone()).await?;
            if list.len() + keyed.len() > SORTED_MAX {
                return Err(Reply::bad("Too many messages by now to keep them sorted").into());
            }
            let new: BTreeSet<Uid> = keyed.iter().map(|keyed| keyed.row.uid).collect();
            list.extend(keyed);
            sort::put_in_order(list, criteria);
            let mut moves: Vec<Move> = Vec::new();
            for (position, keyed) in (1..).zip(list.iter()).filter(|(_, keyed)| new.contains(&keyed.row.uid)) {
                let begins = moves.last().map(|last| last.position + u32::try_from(last.numbers.len()).unwrap_or(u32::MAX));
                let begins = if begins == Some(position) { moves.last().map_or(position, |last| last.position) } else { position };
                add_at(&mut moves, (position, begins), number(keyed.row.uid));
            }
            moves
        }
    };
    if !context.items.is_empty() {
        let news: Vec<Uid> = come.iter().map(|row| row.uid).filter(|uid| uid.get() >= first_new).collect();
        fetch::push(session, selected, &news, context.items.clone()).await?;
    }
    response::esearch_update(session.connection.output(), &context.tag, &context.scope, context.uid, &removed, &added);
    Ok(session.connection.flush_if_large().await?)
}

/// The keys with what they name at this moment by number. In UIDs, `*` stands for all that is still to come where it ends a range.
fn fixed(key: SearchKey, selected: &Selected) -> SearchKey {
    let uids = selected.view.uids();
    let largest = uids.last().map_or(0, |uid| uid.get());
    let range = |low: u32, high: u32| SequenceRange { low: SequenceBound::Number(low), high: SequenceBound::Number(high) };
    match key {
        SearchKey::Sequence(SequenceSet::Ranges(set)) => {
            let named = SequenceSet::Ranges(set).resolve(selected.view.exists());
            let uid = |sequence: u32| uids.get(usize::try_from(sequence).ok()?.checked_sub(1)?).map(|uid| uid.get());
            let ranges = named.into_iter().filter_map(|(low, high)| Some(range(uid(low)?, uid(high.min(selected.view.exists()))?)));
            SearchKey::Uid(or_nothing(ranges.collect()))
        }
        SearchKey::Sequence(SequenceSet::Saved) | SearchKey::Uid(SequenceSet::Saved) => {
            SearchKey::Uid(or_nothing(selected.saved.runs().map(|(low, high)| range(low, high)).collect()))
        }
        SearchKey::Uid(SequenceSet::Ranges(set)) => {
            let open = |range: &SequenceRange| match (range.low, range.high) {
                (SequenceBound::Number(low), SequenceBound::Star) | (SequenceBound::Star, SequenceBound::Number(low)) if low <= largest => {
                    SequenceRange { low: SequenceBound::Number(low), high: SequenceBound::Number(u32::MAX) }
                }
                _ => *range,
            };
            let ranges = SequenceSet::Ranges(set.iter().map(open).collect()).resolve(largest);
            SearchKey::Uid(or_nothing(ranges.into_iter().map(|(low, high)| range(low, high)).collect()))
        }
        SearchKey::And(keys) => SearchKey::And(keys.into_iter().map(|key| fixed(key, selected)).collect()),
        SearchKey::Or(one, other) => SearchKey::Or(Box::new(fixed(*one, selected)), Box::new(fixed(*other, selected))),
        SearchKey::Not(key) => SearchKey::Not(Box::new(fixed(*key, selected))),
        other => other,
    }
}

/// A set that names nobody has no form: the highest UID is never given, and so is in no mailbox.
fn or_nothing(ranges: smallvec::SmallVec<[SequenceRange; 4]>) -> SequenceSet {
    let nobody = SequenceRange { low: SequenceBound::Number(u32::MAX), high: SequenceBound::Number(u32::MAX) };
    SequenceSet::Ranges(if ranges.is_empty() { smallvec![nobody] } else { ranges })
}
