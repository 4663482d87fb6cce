//! SEARCH and UID SEARCH: which messages of the view match (`search.rs` decides), and the answer (RFC 3501 §7.2.5, RFC 4731, RFC 7162 §3.1.5).
//!
//! What memory can decide is decided there; the rest by cached headers, many at once; what then is still open by reading messages,
//! several at once, on the blocking pool.

use std::{sync::Arc, time::UNIX_EPOCH};

use affinity::clock::wall_clock;
use futures::{StreamExt, stream};
use index::{ModSeq, Uid};
use storage::{Mailbox, Row, StorageError};

use super::search::{Context, Needs, Query, RowFacts, compile};
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::Selected,
    view::sequence,
    wire::{
        command::{Search, SearchKey, SearchReturn},
        response::{self, Esearch},
    },
};

/// Messages whose cached headers are asked for at once.
const BATCH_MESSAGES: usize = 256;
/// Messages read at once: enough to hide a server's latency.
const AHEAD_MESSAGES: usize = 8;

/// A message that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    /// Sequence number or UID, as the client asked.
    number: u32,
    modseq: ModSeq,
}

/// SEARCH and UID SEARCH.
pub async fn search<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    tag: &str,
    uid: bool,
    search: Search,
) -> Result<Reply, Stop> {
    let query = Arc::new(ready(selected, &search.key));
    if query.uses_modseq() {
        session.enable_condstore(Some(selected));
    }
    let (mut found, open) = decide_from_memory(selected, &query);
    let open = if query.reads_headers() { decide_from_headers(&session.held, selected, &query, open, &mut found).await? } else { open };
    decide_from_messages(&session.held, selected, &query, open, &mut found).await?;
    found.sort_unstable_by_key(|row| row.sequence);

    let number = |row: &RowFacts| Match { number: if uid { row.uid.get() } else { row.sequence }, modseq: row.modseq };
    let matches: Vec<Match> = found.iter().map(number).collect();
    let out = session.connection.output();
    match &search.return_options {
        None => {
            let modseq = if query.uses_modseq() { highest(&matches) } else { None };
            response::search(out, matches.iter().map(|found| found.number), modseq);
        }
        Some(options) => {
            let numbers: Vec<u32> = matches.iter().map(|found| found.number).collect();
            response::esearch(out, tag, uid, results(options, &matches, &numbers, query.uses_modseq()));
        }
    }
    Ok(Reply::ok("Search completed"))
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
        },
    )
}

/// What matches for sure, and what is open. Messages that are gone match nothing.
fn decide_from_memory(selected: &Selected, query: &Query) -> (Vec<RowFacts>, Vec<RowFacts>) {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    let messages = selected.mailbox.read();
    for (position, uid) in selected.view.uids().iter().enumerate() {
        let Some(row) = messages.get(*uid) else { continue };
        let facts = facts(selected, sequence(position), &row);
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
        modseq: row.modseq,
    }
}

/// Decides what cached headers can; gives back what is still open.
async fn decide_from_headers<H: Holding>(
    held: &H,
    selected: &Selected,
    query: &Arc<Query>,
    open: Vec<RowFacts>,
    found: &mut Vec<RowFacts>,
) -> Result<Vec<RowFacts>, Stop> {
    let mut undecided = Vec::new();
    for batch in open.chunks(BATCH_MESSAGES) {
        let (mailbox, query, rows) = (Arc::clone(&selected.mailbox), Arc::clone(query), batch.to_vec());
        let decided = held.run(move |_| from_headers(&mailbox, &query, &rows)).await?;
        for (row, answer) in batch.iter().zip(decided) {
            match answer {
                Some(true) => found.push(*row),
                Some(false) => {}
                None => undecided.push(*row),
            }
        }
    }
    Ok(undecided)
}

fn from_headers(mailbox: &Mailbox, query: &Query, rows: &[RowFacts]) -> Result<Vec<Option<bool>>, StorageError> {
    let uids: Vec<Uid> = rows.iter().map(|row| row.uid).collect();
    let rendered = mailbox.rendered(&uids)?;
    let decide = |(row, rendered): (&RowFacts, &Option<storage::Rendered>)| match rendered {
        Some(rendered) => query.decide_full(row, Some(&rendered.headers), None),
        None => Some(false),
    };
    Ok(rows.iter().zip(&rendered).map(decide).collect())
}

/// Reads what is still open.
async fn decide_from_messages<H: Holding>(
    held: &H,
    selected: &Selected,
    query: &Arc<Query>,
    open: Vec<RowFacts>,
    found: &mut Vec<RowFacts>,
) -> Result<(), Stop> {
    let reading = open.into_iter().map(|row| {
        let (mailbox, query) = (Arc::clone(&selected.mailbox), Arc::clone(query));
        let decided = held.run(move |_| from_message(&mailbox, &query, &row));
        Box::pin(async move { decided.await.map(|matches| matches.then_some(row)) })
    });
    let mut reading = stream::iter(reading).buffer_unordered(AHEAD_MESSAGES);
    while let Some(decided) = reading.next().await {
        found.extend(decided?);
    }
    Ok(())
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

fn highest(matches: &[Match]) -> Option<ModSeq> {
    matches.iter().map(|found| found.modseq).max()
}

/// What RETURN asks for; without options ALL. The MODSEQ is the highest of the messages that are named (RFC 4731 §3.2).
fn results<'a>(options: &[SearchReturn], matches: &[Match], numbers: &'a [u32], modseq: bool) -> Esearch<'a> {
    let asked = |option: SearchReturn| options.contains(&option) || (options.is_empty() && option == SearchReturn::All);
    let (first, last) = (matches.first(), matches.last());
    let min = first.filter(|_| asked(SearchReturn::Min));
    let max = last.filter(|_| asked(SearchReturn::Max));
    let names_all = asked(SearchReturn::All) || asked(SearchReturn::Count);
    let highest = if names_all { highest(matches) } else { min.into_iter().chain(max).map(|found| found.modseq).max() };
    Esearch {
        min: min.map(|found| found.number),
        max: max.map(|found| found.number),
        all: asked(SearchReturn::All).then_some(numbers),
        count: asked(SearchReturn::Count).then(|| u32::try_from(matches.len()).unwrap_or(u32::MAX)),
        modseq: highest.filter(|_| modseq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches() -> (Vec<Match>, Vec<u32>) {
        let found = |(number, modseq)| Match { number, modseq: ModSeq::new(modseq).unwrap() };
        let matches: Vec<Match> = [(2, 30), (5, 90), (9, 10)].map(found).into();
        let numbers = matches.iter().map(|found| found.number).collect();
        (matches, numbers)
    }

    #[test]
    fn return_names_what_was_asked_for() {
        let (matches, numbers) = matches();
        let asked = results(&[SearchReturn::Min, SearchReturn::Count], &matches, &numbers, false);
        assert_eq!(asked, Esearch { min: Some(2), count: Some(3), ..Esearch::default() });
        let all = results(&[], &matches, &numbers, false);
        assert_eq!(all, Esearch { all: Some(&numbers), ..Esearch::default() });
    }

    #[test]
    fn the_modseq_is_the_highest_of_the_messages_named() {
        let (matches, numbers) = matches();
        let modseq = |options: &[SearchReturn]| results(options, &matches, &numbers, true).modseq.map(ModSeq::get);
        assert_eq!(modseq(&[SearchReturn::Min]), Some(30));
        assert_eq!(modseq(&[SearchReturn::Max]), Some(10));
        assert_eq!(modseq(&[SearchReturn::Min, SearchReturn::Max]), Some(30));
        assert_eq!(modseq(&[SearchReturn::Min, SearchReturn::All]), Some(90));
    }

    #[test]
    fn nothing_found_has_a_count_and_no_least() {
        let asked = results(&[SearchReturn::Min, SearchReturn::Count, SearchReturn::All], &[], &[], true);
        assert_eq!(asked, Esearch { count: Some(0), all: Some(&[]), ..Esearch::default() });
    }
}
