//! SORT and UID SORT (RFC 5256, RFC 5957), with the results of RFC 5267 §3 and RFC 7162 §3.1.6.
//!
//! What to sort by is taken from the columns in memory, or from summaries or ENVELOPE in one pass over the index; then the order
//! is made on the blocking pool. Text is compared by `i;unicode-casemap` ([`casemap`]).
//!
//! Invariants, each with the test that guards it:
//! - the order is total and equal messages keep the mailbox's order, also in reverse (`equal_messages_stay_in_the_order_of_the_mailbox`)
//! - sorting takes n log n comparisons of keys that were made once (`a_hundred_thousand_messages_are_sorted_in_time`)

mod envelope;

use std::{cmp::Ordering, sync::Arc};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use index::Uid;
use smallvec::SmallVec;
use storage::{
    Mailbox, Rendered, StorageError,
    mime::{Summary, casemap, decode_words, summarise},
};

use self::envelope::{AddressField, first_address};
use super::{
    contexts::{self, FoundResults},
    search::{
        RowFacts, filters,
        find::{BATCH_MESSAGES, BATCHES_AHEAD, Found, Most, UidPlaces, find},
    },
    search_command::{Match, highest, results},
};
use crate::imap::{
    holding::Holding,
    patience::{Progress, while_wanted},
    reply::{Reply, Stop},
    session::Session,
    state::Selected,
    wire::{
        command::{SearchReturn, Sort, SortCriterion, SortKey},
        response,
    },
};

/// SORT and UID SORT.
pub async fn sort<H: Holding>(session: &mut Session<H>, selected: &mut Selected, tag: &str, uid: bool, sort: Sort) -> Result<Reply, Stop> {
    selected.contexts.refuse_reuse(tag)?;
    let most = Most::of(session.settings.message_limits, Some("SORT"));
    let Found { rows: found, modseq, .. } = find(session, selected, &sort.key, most).await?;
    let Session { connection, held, settings, .. } = &mut *session;
    let criteria: Arc<[SortCriterion]> = sort.criteria.into();
    let work = keyed(held, selected, &criteria, found);
    let sorted = while_wanted(connection, held, settings, &Progress::unknown(tag), work).await?;
    let matches: Vec<Match> = sorted.iter().map(|keyed| Match::new(&keyed.row, uid)).collect();
    let numbers: Vec<u32> = matches.iter().map(|found| found.number).collect();
    let out = session.connection.output();
    match &sort.return_options {
        None => response::sort(out, numbers, if modseq { highest(&matches) } else { None }),
        Some(options) => response::esearch(out, tag, uid, results(options, &matches, &numbers, modseq)),
    }
    if sort.return_options.is_some_and(|options| options.contains(&SearchReturn::Update)) {
        let key = filters::resolve(session, &sort.key).await?;
        let results = FoundResults::Sorted(criteria, sorted);
        contexts::begin(
            session,
            selected,
            tag,
            contexts::Found { uid, key, results, items: sort.update_items, scope: response::Scope::default() },
        );
    }
    Ok(Reply::ok("Sort completed"))
}

/// Messages in order, with what they are sorted by.
pub(super) async fn keyed<H: Holding>(
    held: &H,
    selected: &Selected,
    criteria: &Arc<[SortCriterion]>,
    rows: Vec<RowFacts>,
) -> Result<Vec<Keyed>, StorageError> {
    let needs = criteria.iter().map(|criterion| needs(criterion.key)).max().unwrap_or(Needs::Row);
    let all = Arc::clone(criteria);
    let keyed = match needs {
        Needs::Row => rows.into_iter().map(|row| Keyed { keys: keys(criteria, &row, None, b""), row }).collect(),
        Needs::Summary => {
            with_summaries(held, selected, rows, move |row, summary| Keyed { keys: keys(&all, &row, Some(summary), b""), row }).await?
        }
        Needs::Envelope => {
            let also_summary = criteria.iter().any(|criterion| self::needs(criterion.key) == Needs::Summary);
            let make = move |row: RowFacts, rendered: &Rendered| {
                let summary = if also_summary { summarise(&rendered.headers) } else { Vec::new() };
                Keyed { keys: keys(&all, &row, Summary::read(&summary).as_ref(), &rendered.envelope), row }
            };
            in_batches(held, selected, rows, move |mailbox, rows| of_rendered(mailbox, rows, also_summary, &make)).await?
        }
    };
    let (criteria, mut keyed) = (Arc::clone(criteria), keyed);
    held.run(move |_| {
        put_in_order(&mut keyed, &criteria);
        Ok(keyed)
    })
    .await
}

/// Calls `make` with each message of `rows` and its summary, on the blocking pool; those that are gone are left out. In the order of `rows`.
pub(super) async fn with_summaries<H: Holding, T: Send + 'static>(
    held: &H,
    selected: &Selected,
    rows: Vec<RowFacts>,
    make: impl Fn(RowFacts, &Summary<'_>) -> T + Send + Sync + 'static,
) -> Result<Vec<T>, StorageError> {
    in_batches(held, selected, rows, move |mailbox, rows| of_summaries(mailbox, rows, &make)).await
}

async fn in_batches<H: Holding, T: Send + 'static>(
    held: &H,
    selected: &Selected,
    rows: Vec<RowFacts>,
    make: impl Fn(&Mailbox, Vec<RowFacts>) -> Result<Vec<T>, StorageError> + Send + Sync + 'static,
) -> Result<Vec<T>, StorageError> {
    let make = Arc::new(make);
    let batch = |rows: Vec<RowFacts>| -> BoxFuture<'_, Result<Vec<T>, StorageError>> {
        let (mailbox, make) = (Arc::clone(&selected.mailbox), Arc::clone(&make));
        Box::pin(held.run(move |_| make(&mailbox, rows)))
    };
    let batches: Vec<BoxFuture<'_, _>> = rows.chunks(BATCH_MESSAGES).map(|rows| batch(rows.to_vec())).collect();
    let mut made = Vec::with_capacity(rows.len());
    let mut ready = stream::iter(batches).buffered(BATCHES_AHEAD);
    while let Some(batch) = ready.try_next().await? {
        made.extend(batch);
    }
    Ok(made)
}

fn of_rendered<T>(
    mailbox: &Mailbox,
    rows: Vec<RowFacts>,
    also_headers: bool,
    make: impl Fn(RowFacts, &Rendered) -> T,
) -> Result<Vec<T>, StorageError> {
    let uids: Vec<Uid> = rows.iter().map(|row| row.uid).collect();
    let rendered = if also_headers { mailbox.rendered(&uids)? } else { mailbox.shapes(&uids)? };
    Ok(rows.into_iter().zip(&rendered).filter_map(|(row, rendered)| Some(make(row, rendered.as_ref()?))).collect())
}

fn of_summaries<T>(mailbox: &Mailbox, rows: Vec<RowFacts>, make: impl Fn(RowFacts, &Summary<'_>) -> T) -> Result<Vec<T>, StorageError> {
    let uids: Vec<Uid> = rows.iter().map(|row| row.uid).collect();
    let (mut made, mut places) = (Vec::with_capacity(rows.len()), UidPlaces::of(&uids));
    mailbox.visit_summaries(&uids, &mut |uid, summary| {
        made.extend(places.find(uid).and_then(|at| rows.get(at)).map(|row| (uid, make(*row, summary))));
    })?;
    made.sort_by_key(|(uid, _)| *uid);
    Ok(made.into_iter().map(|(_, made)| made).collect())
}

/// A message and what it is sorted by, one key for each criterion.
#[derive(Debug, Clone)]
pub struct Keyed {
    keys: SmallVec<[Key; 2]>,
    /// The message.
    pub row: RowFacts,
}

/// Keys of one criterion are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    Text(Box<str>),
}

/// What a key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Row,
    Summary,
    Envelope,
}

fn needs(key: SortKey) -> Needs {
    match key {
        SortKey::Arrival | SortKey::Size => Needs::Row,
        SortKey::Date | SortKey::Subject => Needs::Summary,
        SortKey::From | SortKey::To | SortKey::Cc | SortKey::DisplayFrom | SortKey::DisplayTo => Needs::Envelope,
    }
}

fn keys(criteria: &[SortCriterion], row: &RowFacts, summary: Option<&Summary<'_>>, envelope: &[u8]) -> SmallVec<[Key; 2]> {
    criteria.iter().map(|criterion| key(criterion.key, row, summary, envelope)).collect()
}

fn key(key: SortKey, row: &RowFacts, summary: Option<&Summary<'_>>, envelope: &[u8]) -> Key {
    let text = |text: String| Key::Text(casemap(&text).into());
    match key {
        SortKey::Arrival => Key::Number(row.internal_date),
        SortKey::Size => Key::Number(i64::try_from(row.size).unwrap_or(i64::MAX)),
        SortKey::Date => Key::Number(sent(row, summary)),
        SortKey::Subject => Key::Text(summary.map_or("", Summary::base_subject).into()),
        SortKey::From => text(mailbox_of(envelope, AddressField::From)),
        SortKey::To => text(mailbox_of(envelope, AddressField::To)),
        SortKey::Cc => text(mailbox_of(envelope, AddressField::Cc)),
        SortKey::DisplayFrom => text(display(envelope, AddressField::From)),
        SortKey::DisplayTo => text(display(envelope, AddressField::To)),
    }
}

/// The sent date (RFC 5256 §2.2): INTERNALDATE where the Date field has none.
pub(super) fn sent(row: &RowFacts, summary: Option<&Summary<'_>>) -> i64 {
    summary.and_then(Summary::sent_date).map_or(row.internal_date, |(seconds, _)| seconds)
}

fn mailbox_of(envelope: &[u8], field: AddressField) -> String {
    first_address(envelope, field).map_or_else(String::new, |address| lossy(&address.mailbox))
}

/// RFC 5957 §3.
fn display(envelope: &[u8], field: AddressField) -> String {
    let Some(address) = first_address(envelope, field) else { return String::new() };
    let name = if address.name.is_empty() { String::new() } else { decode_words(&address.name) };
    match (name.is_empty(), address.host.is_empty()) {
        (false, _) => name,
        (true, false) if !address.mailbox.is_empty() => format!("{}@{}", lossy(&address.mailbox), lossy(&address.host)),
        (true, _) => lossy(&address.mailbox),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sorts; of equals, the one that is first in the mailbox comes first.
pub(super) fn put_in_order(keyed: &mut [Keyed], criteria: &[SortCriterion]) {
    keyed.sort_unstable_by(|one, other| {
        let by_keys = one.keys.iter().zip(&other.keys).zip(criteria).map(|((one, other), criterion)| {
            let order = one.cmp(other);
            if criterion.reverse { order.reverse() } else { order }
        });
        let decided = by_keys.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
        decided.then(one.row.uid.cmp(&other.row.uid))
    });
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use index::{FlagSet, ModSeq};
    use storage::mime::Structure;

    use super::*;

    fn in_order(mut keyed: Vec<Keyed>, criteria: &[SortCriterion]) -> Vec<RowFacts> {
        put_in_order(&mut keyed, criteria);
        keyed.into_iter().map(|keyed| keyed.row).collect()
    }
    pub fn row(sequence: u32, internal_date: i64, size: u64) -> RowFacts {
        RowFacts {
            sequence,
            uid: Uid::new(sequence * 10).unwrap(),
            flags: FlagSet::EMPTY,
            recent: false,
            size,
            internal_date,
            save_date: internal_date,
            modseq: ModSeq::new(1).unwrap(),
            email_id: None,
        }
    }
    fn rendered(header: &str) -> Rendered {
        let raw = format!("{}\r\n\r\n", header.replace('\n', "\r\n"));
        let structure = Structure::parse(raw.as_bytes());
        Rendered {
            envelope: structure.envelope().into(),
            body_structure: structure.body_structure(true).into(),
            headers: structure.cached_headers().into(),
        }
    }

    pub fn summary(header: &str) -> Vec<u8> {
        summarise(format!("{}\r\n\r\n", header.replace('\n', "\r\n")).as_bytes())
    }

    fn order(criteria: &[(SortKey, bool)], headers: &[&str]) -> Vec<u32> {
        let criteria: Vec<SortCriterion> = criteria.iter().map(|(key, reverse)| SortCriterion { key: *key, reverse: *reverse }).collect();
        let rows = (1..).zip(headers).map(|(sequence, header)| {
            let row = row(sequence, 1_000_000 + i64::from(sequence), 100);
            let keys = keys(&criteria, &row, Summary::read(&summary(header)).as_ref(), &rendered(header).envelope);
            Keyed { keys, row }
        });
        in_order(rows.collect(), &criteria).iter().map(|row| row.sequence).collect()
    }

    #[test]
    fn subjects_are_compared_without_prefixes_and_case() {
        let headers = ["Subject: Re: banana", "Subject: APPLE", "X: no subject", "Subject: [list] Fwd: cherry (fwd)", "Subject: apple"];
        assert_eq!(order(&[(SortKey::Subject, false)], &headers), [3, 2, 5, 1, 4]);
        assert_eq!(order(&[(SortKey::Subject, true)], &headers), [4, 1, 2, 5, 3]);
    }

    #[test]
    fn encoded_words_are_compared_as_they_read() {
        let headers = ["Subject: zebra", "Subject: =?utf-8?q?=C3=84pfel?=", "Subject: apfel", "Subject: =?iso-8859-1?q?Re:_=E4PFEL?="];
        assert_eq!(order(&[(SortKey::Subject, false)], &headers), [3, 2, 4, 1]);
    }

    #[test]
    fn dates_are_compared_in_utc_and_fall_back_to_the_internal_date() {
        let headers = [
            "Date: Mon, 1 Jan 2001 00:00:00 +0000",
            "Date: Sun, 31 Dec 2000 16:01:33 -0800", // 1 Jan 2001 00:01:33 +0000, the RFC's example
            "Date: Sun, 31 Dec 2000 23:59:59 +0000",
            "Subject: none",
            "Date: nonsense",
        ];
        assert_eq!(order(&[(SortKey::Date, false)], &headers), [4, 5, 3, 1, 2]);
    }

    #[test]
    fn addresses_are_compared_by_mailbox_or_as_they_are_displayed() {
        let headers = [
            "From: Zoe <alan@x>\nTo: group: one@two;",
            "From: bob@x",
            "From: =?utf-8?q?=C3=85sa?= <zed@x>",
            "From: \"\" <carl@x>",
            "X: nobody",
        ];
        assert_eq!(order(&[(SortKey::From, false)], &headers), [5, 1, 2, 4, 3]);
        assert_eq!(order(&[(SortKey::DisplayFrom, false)], &headers), [5, 3, 2, 4, 1]);
        assert_eq!(order(&[(SortKey::To, true)], &headers), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn equal_messages_stay_in_the_order_of_the_mailbox() {
        let headers = ["Subject: a"; 5];
        for reverse in [false, true] {
            assert_eq!(order(&[(SortKey::Subject, reverse), (SortKey::Size, reverse)], &headers), [1, 2, 3, 4, 5]);
        }
        assert_eq!(order(&[(SortKey::Subject, false), (SortKey::Arrival, true)], &headers), [5, 4, 3, 2, 1]);
    }

    #[test]
    fn a_hundred_thousand_messages_are_sorted_in_time() {
        let criteria = [SortCriterion { key: SortKey::Subject, reverse: true }];
        let summaries = [summary("Subject: Re: one"), summary("Subject: =?utf-8?q?zw=C3=B6lf?=")];
        #[expect(clippy::disallowed_methods, reason = "measures what the processor does; nothing waits")]
        let start = Instant::now();
        let keyed = (1..100_001_u32).zip(summaries.iter().cycle()).map(|(sequence, summary)| {
            let row = row(sequence, 0, 0);
            Keyed { keys: keys(&criteria, &row, Summary::read(summary).as_ref(), b""), row }
        });
        let sorted = in_order(keyed.collect(), &criteria);
        assert_eq!((sorted.len(), sorted[0].sequence, sorted[50_000].sequence), (100_000, 2, 1));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
