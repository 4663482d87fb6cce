//! Evaluates SEARCH keys (RFC 9051 §6.4.4) without I/O of its own, cheapest facts first.
//!
//! The caller goes through four steps and stops for a message as soon as one gives an answer:
//! ```text
//! let query = compile(&search.key, &context);
//! 1. query.decide_row(&row)                              every message, from memory
//! 2. query.decide_summary(&row, &summary)                the undecided ones, if query.reads_summaries(): fetched for many at once
//! 3. query.decide_full(&row, Some(&headers), None)       the undecided ones, if query.reads_headers():
//!                                                        `headers` is Rendered::headers, fetched for many at once
//! 4. query.decide_full(&row, headers, Some(&message))    the rest: `message` is MessageReader::read_all()
//! ```
//! Step 1 decides all when [`Query::needs`] says `Nothing`, step 2 when it says `Summary`, step 3 when it says `Headers`, step 4 always.
//! A message that can't be read any more (expunged meanwhile) simply does not match.
//!
//! Invariants, each with the test that guards it:
//! - a step never contradicts a later one (`an_early_answer_is_the_final_answer`)
//! - the cost of a message is linear in its size and in the number of keys, whatever is searched for (`long_repetitive_needles_are_cheap`)
//!
//! Text is compared by substring in `i;unicode-casemap` ([`storage::mime::casemap`]), as I18NLEVEL=1 wants (RFC 5255 §4.2): without regard to case in any
//! script, and a letter is found in one with a mark.
//! INTERNALDATE is printed in UTC, so its day is the UTC day; a Date field's day is the one written there.
//! How deep keys nest is the parser's limit.

pub mod filters;
pub mod find;
pub mod multisearch;

use std::{cell::OnceCell, ops::Range};

use index::{Flag, FlagSet, KeywordId, ModSeq, Uid};
use memchr::memmem::Finder;
use smallvec::SmallVec;
use storage::{
    EmailId, NoEmailId,
    mime::{CACHED_FIELDS, HeaderBlock, SUMMARY_FIELDS, Structure, Summary, casemap},
};

use crate::imap::{
    sets::SavedUids,
    wire::command::{Date, FlagArgument, SearchKey, SequenceBound, SequenceSet},
};

const SECONDS_PER_DAY: i64 = 86_400;

/// What keys are resolved against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Messages in the session's view: what `*` is as a sequence number; 0: none.
    pub message_count: u32,
    /// The largest UID in the view: what `*` is as a UID; 0: none.
    pub largest_uid: u32,
    /// The mailbox's keywords by position ([`storage::Mailbox::keywords`]).
    pub keywords: &'a [String],
    /// Unix seconds, for OLDER and YOUNGER.
    pub now: i64,
    /// What `$` is (RFC 5182): the same messages as a UID and as a sequence number.
    pub saved: &'a SavedUids,
}

/// What is in memory about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowFacts {
    /// Its sequence number in the session's view, from 1.
    pub sequence: u32,
    /// Its UID.
    pub uid: Uid,
    /// Its flags and keywords.
    pub flags: FlagSet,
    /// Whether it is \Recent in this session.
    pub recent: bool,
    /// RFC822.SIZE.
    pub size: u64,
    /// INTERNALDATE, Unix seconds.
    pub internal_date: i64,
    /// When it came into this mailbox, Unix seconds.
    pub save_date: i64,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Its EMAILID, where [`Query::uses_email_id`].
    pub email_id: Option<EmailId>,
}

/// The most that deciding a message can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// The row.
    Nothing,
    /// The row and the summary.
    Summary,
    /// The row and the cached header fields.
    Headers,
    /// The message.
    Body,
}

/// SEARCH keys made ready for many messages.
#[derive(Debug)]
pub struct Query {
    root: Node,
    /// What BODY and TEXT look for, folded.
    needles: Vec<Finder<'static>>,
    needs: Needs,
    reads_summaries: bool,
    reads_headers: bool,
    uses_modseq: bool,
    uses_email_id: bool,
    uses_facts: bool,
}

/// Makes `key` ready: sets are resolved and sorted, days become seconds, keywords become bits, text is folded.
pub fn compile(key: &SearchKey, context: &Context<'_>) -> Query {
    let mut query = Query {
        root: Node::Constant(true),
        needles: Vec::new(),
        needs: Needs::Nothing,
        reads_summaries: false,
        reads_headers: false,
        uses_modseq: false,
        uses_email_id: false,
        uses_facts: false,
    };
    query.root = query.compile_node(key, context);
    query
}

impl Query {
    /// The most that deciding a message can take.
    pub fn needs(&self) -> Needs {
        self.needs
    }
    /// Whether summaries can decide anything that the row can't.
    pub fn reads_summaries(&self) -> bool {
        self.reads_summaries
    }
    /// Whether the cached header fields can decide anything that row and summary can't.
    pub fn reads_headers(&self) -> bool {
        self.reads_headers
    }
    /// Whether MODSEQ is among the keys: the answer then ends with the highest MODSEQ of the messages found (RFC 7162 §3.1.5).
    pub fn uses_modseq(&self) -> bool {
        self.uses_modseq
    }
    /// Whether it judges by dates and sizes of files, or by what follows from them.
    pub fn uses_facts(&self) -> bool {
        self.uses_facts || self.uses_email_id
    }
    /// Whether EMAILID is among the keys.
    pub fn uses_email_id(&self) -> bool {
        self.uses_email_id
    }
    /// Whether the sets among the keys leave open if the message matches: then it counts as searched (RFC 9738 §3.1).
    pub fn searches(&self, sequence: u32, uid: Uid) -> bool {
        by_sets(&self.root, sequence, uid) != Some(false)
    }
    /// Decides from the row alone; `None`: that is not enough.
    pub fn decide_row(&self, row: &RowFacts) -> Option<bool> {
        self.decide_full(row, None, None)
    }
    /// Decides from the row and the summary; `None`: that is not enough.
    pub fn decide_summary(&self, row: &RowFacts, summary: &Summary<'_>) -> Option<bool> {
        self.evidence(row, Some(*summary), None, None).decide(&self.root)
    }
    /// Decides from what is given; never `None` when `message` is.
    ///
    /// `headers`: the cached fields ([`storage::Rendered::headers`]); `message`: all of it, with CRLF line ends.
    pub fn decide_full(&self, row: &RowFacts, headers: Option<&[u8]>, message: Option<&[u8]>) -> Option<bool> {
        self.evidence(row, None, headers, message).decide(&self.root)
    }
    fn evidence<'q, 'm>(
        &'q self,
        row: &'q RowFacts,
        summary: Option<Summary<'m>>,
        headers: Option<&'m [u8]>,
        message: Option<&'m [u8]>,
    ) -> Evidence<'q, 'm> {
        Evidence {
            query: self,
            row,
            summary,
            message: message.map(|raw| Parsed { raw, structure: OnceCell::new() }),
            headers: headers.map(HeaderBlock::new),
            in_headers: OnceCell::new(),
            in_body: OnceCell::new(),
        }
    }
}

/// A key, resolved.
#[derive(Debug)]
enum Node {
    Constant(bool),
    And(Vec<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Flag(Flag),
    Recent,
    /// Sorted, not overlapping, inclusive.
    Uid(Vec<(u32, u32)>),
    Sequence(Vec<(u32, u32)>),
    /// INTERNALDATE in this span.
    Internal(Range<i64>),
    /// SAVEDATE in this span.
    Saved(Range<i64>),
    Sent(SentTest, Date),
    Larger(u64),
    Smaller(u64),
    ModSeq(u64),
    EmailId(EmailId),
    Header(Box<HeaderTest>),
    /// Position in [`Query::needles`].
    Body(usize),
    Text(usize),
}

#[derive(Debug)]
struct HeaderTest {
    field: String,
    needle: Finder<'static>,
    /// Whether the cached fields have it.
    cached: bool,
    /// Its place in a summary, which says what text there is: whether a field is there that says nothing, it does not.
    summarised: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum SentTest {
    Before,
    On,
    Since,
}

impl Query {
    fn compile_node(&mut self, key: &SearchKey, context: &Context<'_>) -> Node {
        let day = |date: &Date| unix_day(date).saturating_mul(SECONDS_PER_DAY);
        let node = self.compile_key(key, context, day);
        self.uses_facts |= matches!(node, Node::Internal(_) | Node::Saved(_) | Node::Larger(_) | Node::Smaller(_));
        node
    }
    fn compile_key(&mut self, key: &SearchKey, context: &Context<'_>, day: impl Fn(&Date) -> i64) -> Node {
        match key {
            SearchKey::All => Node::Constant(true),
            SearchKey::And(keys) => Node::And(keys.iter().map(|key| self.compile_node(key, context)).collect()),
            SearchKey::Or(one, other) => Node::Or(Box::new(self.compile_node(one, context)), Box::new(self.compile_node(other, context))),
            SearchKey::Not(key) => Node::Not(Box::new(self.compile_node(key, context))),
            SearchKey::Flag(FlagArgument::System(flag)) => Node::Flag(*flag),
            SearchKey::Flag(FlagArgument::Keyword(name)) => {
                keyword(name, context.keywords).map_or(Node::Constant(false), |id| Node::Flag(Flag::Keyword(id)))
            }
            SearchKey::Recent => Node::Recent,
            SearchKey::New => Node::And(vec![Node::Recent, Node::Not(Box::new(Node::Flag(Flag::Seen)))]),
            SearchKey::Before(date) => Node::Internal(i64::MIN..day(date)),
            SearchKey::On(date) => Node::Internal(day(date)..day(date) + SECONDS_PER_DAY),
            SearchKey::Since(date) => Node::Internal(day(date)..i64::MAX),
            SearchKey::SavedBefore(date) => Node::Saved(i64::MIN..day(date)),
            SearchKey::SavedOn(date) => Node::Saved(day(date)..day(date) + SECONDS_PER_DAY),
            SearchKey::SavedSince(date) => Node::Saved(day(date)..i64::MAX),
            SearchKey::Older(seconds) => Node::Internal(i64::MIN..context.now.saturating_sub(i64::from(*seconds)).saturating_add(1)),
            SearchKey::Younger(seconds) => Node::Internal(context.now.saturating_sub(i64::from(*seconds))..i64::MAX),
            SearchKey::SentBefore(date) => self.sent(SentTest::Before, *date),
            SearchKey::SentOn(date) => self.sent(SentTest::On, *date),
            SearchKey::SentSince(date) => self.sent(SentTest::Since, *date),
            SearchKey::Larger(size) => Node::Larger(*size),
            SearchKey::Smaller(size) => Node::Smaller(*size),
            SearchKey::Uid(SequenceSet::Saved) | SearchKey::Sequence(SequenceSet::Saved) => Node::Uid(context.saved.runs().collect()),
            SearchKey::Uid(set) => Node::Uid(resolve(set, context.largest_uid)),
            SearchKey::Sequence(set) => Node::Sequence(resolve(set, context.message_count)),
            SearchKey::ModSeq(modseq) => {
                self.uses_modseq = true;
                Node::ModSeq(*modseq)
            }
            SearchKey::EmailId(id) => match id.parse() {
                Ok(id) => {
                    self.uses_email_id = true;
                    Node::EmailId(id)
                }
                Err(NoEmailId) => Node::Constant(false),
            },
            // What they stand for takes their place before (`filters.rs`).
            SearchKey::Filter(_) => Node::Constant(false),
            // No message has one (RFC 8474 §5.2).
            SearchKey::ThreadId(_) => Node::Constant(false),
            SearchKey::Header { field, value } => {
                let cached = CACHED_FIELDS.iter().any(|name| name.eq_ignore_ascii_case(field));
                let place = SUMMARY_FIELDS.iter().position(|name| name.eq_ignore_ascii_case(field));
                let summarised = place.filter(|_| !value.is_empty());
                match (summarised, cached) {
                    (Some(_), _) => self.note(Needs::Summary),
                    (None, true) => self.note(Needs::Headers),
                    (None, false) => self.note(Needs::Body),
                }
                Node::Header(Box::new(HeaderTest { field: field.clone(), needle: needle(value), cached, summarised }))
            }
            SearchKey::Body(text) | SearchKey::Text(text) if text.is_empty() => Node::Constant(true),
            SearchKey::Body(text) => {
                self.note(Needs::Body);
                Node::Body(self.add_needle(text))
            }
            SearchKey::Text(text) => {
                self.note(Needs::Headers);
                self.note(Needs::Body);
                Node::Text(self.add_needle(text))
            }
        }
    }
    fn sent(&mut self, test: SentTest, date: Date) -> Node {
        self.note(Needs::Summary);
        Node::Sent(test, date)
    }
    fn note(&mut self, needs: Needs) {
        self.needs = self.needs.max(needs);
        self.reads_summaries |= needs == Needs::Summary;
        self.reads_headers |= needs == Needs::Headers;
    }
    fn add_needle(&mut self, text: &str) -> usize {
        self.needles.push(needle(text));
        self.needles.len() - 1
    }
}

/// What is known about one message, worked out when first asked for.
struct Evidence<'q, 'm> {
    query: &'q Query,
    row: &'q RowFacts,
    summary: Option<Summary<'m>>,
    headers: Option<HeaderBlock<'m>>,
    message: Option<Parsed<'m>>,
    /// For each of [`Query::needles`]: whether a header field of the message or its parts has it.
    in_headers: OnceCell<Vec<bool>>,
    /// For each of [`Query::needles`]: whether a text part has it.
    in_body: OnceCell<Vec<bool>>,
}

struct Parsed<'m> {
    raw: &'m [u8],
    structure: OnceCell<Structure<'m>>,
}

impl<'m> Parsed<'m> {
    fn structure(&self) -> &Structure<'m> {
        self.structure.get_or_init(|| Structure::parse(self.raw))
    }
    fn header(&self) -> HeaderBlock<'m> {
        self.structure().header_block()
    }
}

impl<'m> Evidence<'_, 'm> {
    fn decide(&self, node: &Node) -> Option<bool> {
        let row = self.row;
        match node {
            Node::Constant(answer) => Some(*answer),
            Node::And(nodes) => self.all(nodes),
            Node::Or(one, other) => match self.decide(one) {
                Some(true) => Some(true),
                Some(false) => self.decide(other),
                None => self.decide(other).filter(|matches| *matches),
            },
            Node::Not(node) => self.decide(node).map(|matches| !matches),
            Node::Flag(flag) => Some(row.flags.contains(*flag)),
            Node::Recent => Some(row.recent),
            Node::Uid(ranges) => Some(within(ranges, row.uid.get())),
            Node::Sequence(ranges) => Some(within(ranges, row.sequence)),
            Node::Internal(span) => Some(span.contains(&row.internal_date)),
            Node::Saved(span) => Some(span.contains(&row.save_date)),
            Node::Larger(size) => Some(row.size > *size),
            Node::Smaller(size) => Some(row.size < *size),
            Node::EmailId(id) => Some(row.email_id == Some(*id)),
            Node::ModSeq(modseq) => Some(row.modseq.get() >= *modseq),
            Node::Sent(test, date) => {
                let sent = match &self.summary {
                    Some(summary) => Some(summary.sent_date()),
                    None => self.cached_fields().map(|fields| fields.sent_date()),
                };
                sent.map(|sent| sent_matches(sent, *test, *date))
            }
            Node::Header(test) => {
                if let (Some(place), Some(summary)) = (test.summarised, &self.summary) {
                    return Some(test.needle.find(summary.field(place)).is_some());
                }
                let fields = if test.cached { self.cached_fields() } else { self.message.as_ref().map(Parsed::header) };
                fields.map(|fields| fields.values(&test.field).any(|value| has(&value, &test.needle)))
            }
            Node::Body(needle) => self.message.as_ref().map(|message| self.in_body(message)[*needle]),
            Node::Text(needle) => self.decide_text(*needle),
        }
    }
    /// Every node is looked at until one says no: a later, cheaper one may know.
    fn all(&self, nodes: &[Node]) -> Option<bool> {
        let mut answer = Some(true);
        for node in nodes {
            match self.decide(node) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => answer = None,
            }
        }
        answer
    }
    /// Where the cached fields can be read: in the copy of them, else in the message.
    fn cached_fields(&self) -> Option<HeaderBlock<'m>> {
        self.headers.or_else(|| self.message.as_ref().map(Parsed::header))
    }
    fn decide_text(&self, needle: usize) -> Option<bool> {
        if let Some(message) = &self.message {
            return Some(self.in_headers(message)[needle] || self.in_body(message)[needle]);
        }
        // A hit in the cached fields is a hit in the message; no hit there says nothing.
        let headers = self.headers?;
        let mut hit = false;
        headers.texts(&mut |text| {
            hit = has(text, &self.query.needles[needle]);
            !hit
        });
        hit.then_some(true)
    }
    /// Looks for all needles in one pass, so that each part is decoded once.
    fn in_body(&self, message: &Parsed<'_>) -> &[bool] {
        self.in_body.get_or_init(|| self.look(|visit| message.structure().text_parts(visit)))
    }
    fn in_headers(&self, message: &Parsed<'_>) -> &[bool] {
        self.in_headers.get_or_init(|| self.look(|visit| message.structure().header_texts(visit)))
    }
    fn look(&self, visit_all: impl FnOnce(&mut dyn FnMut(&str) -> bool)) -> Vec<bool> {
        let mut hits = vec![false; self.query.needles.len()];
        visit_all(&mut |text| {
            let folded = casemap(text);
            for (needle, hit) in self.query.needles.iter().zip(&mut hits) {
                *hit = *hit || needle.find(folded.as_bytes()).is_some();
            }
            hits.contains(&false)
        });
        hits
    }
}

/// What sets of sequence numbers and UIDs alone say.
fn by_sets(node: &Node, sequence: u32, uid: Uid) -> Option<bool> {
    let said = |node: &Node| by_sets(node, sequence, uid);
    match node {
        Node::Constant(answer) => Some(*answer),
        Node::Uid(ranges) => Some(within(ranges, uid.get())),
        Node::Sequence(ranges) => Some(within(ranges, sequence)),
        Node::Not(node) => said(node).map(|matches| !matches),
        Node::And(nodes) => match nodes.iter().map(said).collect::<SmallVec<[_; 4]>>() {
            said if said.contains(&Some(false)) => Some(false),
            said => said.iter().all(Option::is_some).then_some(true),
        },
        Node::Or(one, other) => match (said(one), said(other)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            (None, _) | (_, None) => None,
        },
        _ => None,
    }
}

fn sent_matches(sent: Option<(i64, (i16, u8, u8))>, test: SentTest, date: Date) -> bool {
    let Some((_, (year, month, day))) = sent else { return false };
    let sent = Date { year, month, day };
    match test {
        SentTest::Before => sent < date,
        SentTest::On => sent == date,
        SentTest::Since => sent >= date,
    }
}

fn has(text: &str, needle: &Finder<'static>) -> bool {
    needle.needle().is_empty() || needle.find(casemap(text).as_bytes()).is_some()
}

fn needle(text: &str) -> Finder<'static> {
    Finder::new(casemap(text).as_bytes()).into_owned()
}

fn keyword(name: &str, keywords: &[String]) -> Option<KeywordId> {
    KeywordId::new(keywords.iter().position(|keyword| keyword.eq_ignore_ascii_case(name))?)
}

/// Sorted ranges that don't overlap; `*` is `largest`, and in an empty mailbox nothing matches.
fn resolve(set: &SequenceSet, largest: u32) -> Vec<(u32, u32)> {
    let SequenceSet::Ranges(ranges) = set else { return Vec::new() };
    if largest == 0 {
        return Vec::new();
    }
    let number = |bound| match bound {
        SequenceBound::Number(number) => number,
        SequenceBound::Star => largest,
    };
    let mut resolved: Vec<(u32, u32)> =
        ranges.iter().map(|range| (number(range.low), number(range.high))).map(|(one, other)| (one.min(other), one.max(other))).collect();
    resolved.sort_unstable();
    resolved.dedup_by(|next, previous| {
        let joins = next.0 <= previous.1;
        if joins {
            previous.1 = previous.1.max(next.1);
        }
        joins
    });
    resolved
}

fn within(ranges: &[(u32, u32)], number: u32) -> bool {
    let candidate = ranges.partition_point(|range| range.1 < number);
    ranges.get(candidate).is_some_and(|range| range.0 <= number)
}

/// Days from 1970-01-01 in the Gregorian calendar, for any date (years counted from March, so that the leap day is the last).
fn unix_day(date: &Date) -> i64 {
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests;
