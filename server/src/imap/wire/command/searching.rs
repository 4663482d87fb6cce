//! What SEARCH, SORT and THREAD look for, and what they give.

use super::{FetchItem, FlagArgument, MailboxArgument, SequenceSet};

/// SEARCH (RFC 9051 §6.4.4, RFC 4731).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// `RETURN (…)`: `None` asks for the old `* SEARCH`; `Some([])` means ALL.
    pub return_options: Option<Vec<SearchReturn>>,
    /// The charset as named; strings in `key` are UTF-8 already. An unknown charset is the parser's `BadCharset`.
    pub charset: Option<String>,
    /// What to find.
    pub key: SearchKey,
    /// What UPDATE sends of messages that come (RFC 5465 §7).
    pub update_items: Vec<FetchItem>,
}

impl Search {
    /// What to tell, without the old way to tell it.
    pub fn options(&self) -> Vec<SearchReturn> {
        self.return_options.clone().unwrap_or_default()
    }
}

/// ESEARCH (RFC 7377).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Esearch {
    /// At least one; the selected mailbox where none is named.
    pub sources: Vec<Source>,
    /// What to find in each.
    pub search: Search,
}

/// Which mailboxes to search (RFC 7377 §2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum Source {
    Selected,
    /// All of the user's: filters may deliver to any.
    Inboxes,
    Personal,
    Subscribed,
    Subtree(Vec<MailboxArgument>),
    /// These and what lies right below.
    SubtreeOne(Vec<MailboxArgument>),
    Mailboxes(Vec<MailboxArgument>),
}

/// RFC 4731 §3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum SearchReturn {
    Min,
    Max,
    All,
    Count,
    /// RFC 5182.
    Save,
    /// RFC 9394.
    Partial(PartialRange),
    /// RFC 5267 §4.2.
    Context,
    /// RFC 5267 §4.3; what goes with it is [`Search::update_items`].
    Update,
}

/// `1:500` or `-1:-100` (RFC 9394 §4), as written: that is how it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialRange {
    /// One end, from 1.
    pub one: u32,
    /// The other, from 1; may be the lower one.
    pub other: u32,
    /// Counted from the last result: both are written with a minus.
    pub from_end: bool,
}

impl PartialRange {
    /// The positions among `len` results.
    pub fn positions(&self, len: usize) -> std::ops::Range<usize> {
        let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let first = place(self.one.min(self.other)).saturating_sub(1).min(len);
        let end = place(self.one.max(self.other)).min(len);
        if self.from_end { len - end..len - first } else { first..end }
    }
}

/// SORT (RFC 5256), with the results of RFC 5267 §3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// `RETURN (…)`: `None` asks for `* SORT`; `Some([])` means ALL.
    pub return_options: Option<Vec<SearchReturn>>,
    /// By what, the most important first; at least one.
    pub criteria: Vec<SortCriterion>,
    /// What to find; strings are UTF-8 already.
    pub key: SearchKey,
    /// As in [`Search`].
    pub update_items: Vec<FetchItem>,
}

/// One of the things to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortCriterion {
    /// What.
    pub key: SortKey,
    /// REVERSE.
    pub reverse: bool,
}

/// RFC 5256 §3, RFC 5957 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum SortKey {
    Arrival,
    Cc,
    Date,
    DisplayFrom,
    DisplayTo,
    From,
    Size,
    Subject,
    To,
}

/// THREAD (RFC 5256).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// How.
    pub algorithm: ThreadAlgorithm,
    /// What to find; strings are UTF-8 already.
    pub key: SearchKey,
}

/// How messages become threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadAlgorithm {
    /// By base subject.
    OrderedSubject,
    /// By References and In-Reply-To, then by base subject.
    References,
    /// By References and In-Reply-To alone, the thread with the newest message last.
    Refs,
}

/// A calendar day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// As written.
    pub year: i16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31, valid for the month.
    pub day: u8,
}

/// Search keys. Negations such as UNSEEN are `Not(Flag(Seen))`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum SearchKey {
    All,
    And(Vec<SearchKey>),
    Or(Box<SearchKey>, Box<SearchKey>),
    Not(Box<SearchKey>),
    Flag(FlagArgument),
    Recent,
    /// RECENT UNSEEN.
    New,
    Header {
        field: String,
        value: String,
    },
    Body(String),
    Text(String),
    Before(Date),
    On(Date),
    Since(Date),
    SentBefore(Date),
    SentOn(Date),
    SentSince(Date),
    Larger(u64),
    Smaller(u64),
    /// RFC 8514; SAVEDATESUPPORTED is [`SearchKey::All`].
    SavedBefore(Date),
    SavedOn(Date),
    SavedSince(Date),
    /// RFC 5032, seconds.
    Older(u32),
    Younger(u32),
    Uid(SequenceSet),
    Sequence(SequenceSet),
    /// RFC 8474, as written.
    EmailId(String),
    ThreadId(String),
    /// RFC 5466: what the account keeps under this name.
    Filter(String),
    /// RFC 7162 §3.1.5; the entry name and type are accepted and count for all flags.
    ModSeq(u64),
}

impl SearchKey {
    /// Whether it names messages by sequence number (RFC 7162 §3.2.10.2: these do not move during such a UID SEARCH).
    pub fn names_sequence_numbers(&self) -> bool {
        self.any(&|key| matches!(key, SearchKey::Sequence(_)))
    }

    /// Whether it asks for MODSEQs (RFC 7162 §3.1.5).
    pub fn asks_modseq(&self) -> bool {
        self.any(&|key| matches!(key, SearchKey::ModSeq(_)))
    }

    /// How deep keys lie in it.
    pub fn depth(&self) -> usize {
        match self {
            SearchKey::And(keys) => 1 + keys.iter().map(SearchKey::depth).max().unwrap_or(0),
            SearchKey::Or(one, other) => 1 + one.depth().max(other.depth()),
            SearchKey::Not(key) => 1 + key.depth(),
            _ => 1,
        }
    }

    /// How many keys it is, those inside counted.
    pub fn count(&self) -> usize {
        match self {
            SearchKey::And(keys) => 1 + keys.iter().map(SearchKey::count).sum::<usize>(),
            SearchKey::Or(one, other) => 1 + one.count() + other.count(),
            SearchKey::Not(key) => 1 + key.count(),
            _ => 1,
        }
    }

    /// Whether it or a key inside of it is `wanted`.
    pub fn any(&self, wanted: &impl Fn(&SearchKey) -> bool) -> bool {
        wanted(self)
            || match self {
                SearchKey::And(keys) => keys.iter().any(|key| key.any(wanted)),
                SearchKey::Or(one, other) => one.any(wanted) || other.any(wanted),
                SearchKey::Not(key) => key.any(wanted),
                _ => false,
            }
    }
}
