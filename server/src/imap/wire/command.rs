//! Commands as values: what `parse.rs` makes and `imap/command/` runs.
//!
//! Mailbox names are decoded (UTF-8), strings are bytes, sets are ranges that are never expanded.

mod notify;
mod searching;

use index::Flag;
use smallvec::SmallVec;
use storage::{MailboxName, SpecialUse, mime::Section};

pub use notify::{EventGroup, Events, Filter, Notify};
pub use searching::{
    Date, Esearch, PartialRange, Search, SearchKey, SearchReturn, Sort, SortCriterion, SortKey, Source, Thread, ThreadAlgorithm,
};

/// A tagged command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// Its tag.
    pub tag: String,
    /// What to do.
    pub command: Command,
}

/// What a client says about itself with ID: names and values (`None` for NIL).
pub type IdFields = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Every command that is implemented. Commands that are known but not allowed in a state are refused by the state machine, not here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum Command {
    Capability,
    Noop,
    Logout,
    /// RFC 8437.
    Unauthenticate,
    /// RFC 5465.
    Notify(Notify),
    /// RFC 5267: tags, at least one.
    CancelUpdate(Vec<String>),
    /// RFC 4978: the algorithm, in capitals.
    Compress(String),
    /// RFC 2971; `None` for NIL.
    Id(Option<IdFields>),
    StartTls,
    /// Mechanism and initial response, already decoded from base64 (`=` is an empty one).
    Authenticate {
        mechanism: String,
        initial: Option<Vec<u8>>,
    },
    Login {
        user: Vec<u8>,
        password: Vec<u8>,
    },
    Enable(Vec<String>),
    Select(Select),
    Create {
        mailbox: MailboxArgument,
        special_use: Vec<SpecialUse>,
    },
    Delete(MailboxArgument),
    Rename {
        from: MailboxArgument,
        to: MailboxArgument,
    },
    Subscribe(MailboxArgument),
    Unsubscribe(MailboxArgument),
    List(List),
    Lsub {
        reference: String,
        pattern: String,
    },
    Namespace,
    Status {
        mailbox: MailboxArgument,
        items: Vec<StatusItem>,
    },
    /// RFC 9208; the quota root's name.
    GetQuota(String),
    GetQuotaRoot(MailboxArgument),
    /// Refused: limits are the administrator's.
    SetQuota {
        /// The quota root's name.
        root: String,
        /// Resources, in any case, and their limits.
        limits: Vec<(String, u64)>,
    },
    /// RFC 5464.
    GetMetadata(GetMetadata),
    /// RFC 5464: entries with their new values (`None`: NIL), each once; `mailbox`: see [`GetMetadata`].
    SetMetadata {
        mailbox: Option<MailboxArgument>,
        values: Vec<(String, Option<Vec<u8>>)>,
    },
    /// RFC 4314; the rights as written, with their sign.
    SetAcl {
        mailbox: MailboxArgument,
        identifier: String,
        rights: String,
    },
    DeleteAcl {
        mailbox: MailboxArgument,
        identifier: String,
    },
    GetAcl(MailboxArgument),
    ListRights {
        mailbox: MailboxArgument,
        identifier: String,
    },
    MyRights(MailboxArgument),
    /// APPEND or REPLACE without a literal that is content: all of it is elsewhere already. Those with one are streamed (`framing.rs`).
    Append(Box<AppendStart>),
    Idle,
    Check,
    Close,
    Unselect,
    Expunge,
    /// UID EXPUNGE (RFC 4315).
    UidExpunge(SequenceSet),
    Search {
        uid: bool,
        search: Search,
    },
    /// RFC 7377.
    Esearch(Box<Esearch>),
    Sort {
        uid: bool,
        sort: Sort,
    },
    Thread {
        uid: bool,
        thread: Thread,
    },
    Fetch {
        uid: bool,
        set: SequenceSet,
        items: Vec<FetchItem>,
        changed_since: Option<u64>,
        vanished: bool,
        /// Only these of the messages that the set names (RFC 9394 §3.3).
        partial: Option<PartialRange>,
    },
    Store {
        uid: bool,
        set: SequenceSet,
        unchanged_since: Option<u64>,
        how: StoreHow,
        silent: bool,
        flags: Vec<FlagArgument>,
    },
    Copy {
        uid: bool,
        set: SequenceSet,
        mailbox: MailboxArgument,
    },
    Move {
        uid: bool,
        set: SequenceSet,
        mailbox: MailboxArgument,
    },
}

/// One list of them for both ways to look at them: what a guest's rights are asked for is what is given the owner's names.
macro_rules! named_mailboxes {
    ($command:expr, $each:ident $(, $mutable:tt)?) => {
        match $command {
            Command::Select(select) => vec![&$($mutable)? select.mailbox],
            Command::Create { mailbox, .. }
            | Command::Delete(mailbox)
            | Command::Subscribe(mailbox)
            | Command::Unsubscribe(mailbox)
            | Command::Status { mailbox, .. }
            | Command::GetQuotaRoot(mailbox)
            | Command::SetAcl { mailbox, .. }
            | Command::DeleteAcl { mailbox, .. }
            | Command::GetAcl(mailbox)
            | Command::ListRights { mailbox, .. }
            | Command::MyRights(mailbox)
            | Command::Copy { mailbox, .. }
            | Command::Move { mailbox, .. } => vec![mailbox],
            Command::Rename { from, to } => vec![from, to],
            Command::GetMetadata(GetMetadata { mailbox, .. }) | Command::SetMetadata { mailbox, .. } => mailbox.$each().collect(),
            Command::Append(start) => vec![&$($mutable)? start.mailbox],
            _ => Vec::new(),
        }
    };
}

impl Command {
    /// The mailboxes that it names, in their order.
    pub fn mailboxes(&self) -> Vec<&MailboxArgument> {
        named_mailboxes!(self, iter)
    }
    /// The same, to be changed.
    pub fn mailboxes_mut(&mut self) -> Vec<&mut MailboxArgument> {
        named_mailboxes!(self, iter_mut, mut)
    }
    /// Whether it is a CONDSTORE enabling command (RFC 7162 §3.1).
    pub fn enables_condstore(&self) -> bool {
        match self {
            Command::Select(select) => select.condstore,
            Command::Status { items, .. } => items.contains(&StatusItem::HighestModSeq),
            Command::Fetch { items, changed_since, .. } => changed_since.is_some() || items.contains(&FetchItem::ModSeq),
            Command::Store { unchanged_since, .. } => unchanged_since.is_some(),
            Command::Search { search, .. } => search.key.asks_modseq(),
            Command::Sort { sort, .. } => sort.key.asks_modseq(),
            _ => false,
        }
    }
    /// Whether it is of the ACL extension (RFC 4314, RFC 8440).
    pub fn is_of_acl(&self) -> bool {
        match self {
            Command::SetAcl { .. } | Command::DeleteAcl { .. } | Command::GetAcl(_) | Command::ListRights { .. } | Command::MyRights(_) => {
                true
            }
            Command::List(list) => list.return_my_rights,
            _ => false,
        }
    }
    /// Whether it is about the selected mailbox.
    pub fn is_of_selected(&self) -> bool {
        matches!(
            self,
            Command::Noop
                | Command::Check
                | Command::Idle
                | Command::Close
                | Command::Unselect
                | Command::Expunge
                | Command::UidExpunge(_)
                | Command::CancelUpdate(_)
                | Command::Search { .. }
                | Command::Sort { .. }
                | Command::Thread { .. }
                | Command::Fetch { .. }
                | Command::Store { .. }
                | Command::Copy { .. }
                | Command::Move { .. }
        )
    }
    /// Whether it needs more of messages of the selected mailbox than UIDs, flags and MODSEQs.
    pub fn tells_facts(&self) -> bool {
        match self {
            Command::Fetch { items, .. } => items.iter().any(FetchItem::tells_facts),
            Command::Search { .. } | Command::Sort { .. } | Command::Thread { .. } | Command::Copy { .. } | Command::Move { .. } => true,
            _ => false,
        }
    }
    /// Whether it names a message by its sequence number, or is answered with one (REPLACE is not asked: it may be streamed).
    pub fn names_sequence_numbers(&self) -> bool {
        match self {
            Command::Fetch { uid, .. } | Command::Store { uid, .. } | Command::Copy { uid, .. } | Command::Move { uid, .. } => !uid,
            Command::Search { uid, search: Search { key, .. } }
            | Command::Sort { uid, sort: Sort { key, .. } }
            | Command::Thread { uid, thread: Thread { key, .. } } => !uid || key.any(&names_a_number),
            Command::Esearch(esearch) => esearch.search.key.any(&names_a_number),
            Command::Select(select) => select.resync.as_ref().is_some_and(|resync| resync.matches.is_some()),
            _ => false,
        }
    }
}

fn names_a_number(key: &SearchKey) -> bool {
    matches!(key, SearchKey::Sequence(SequenceSet::Ranges(_)))
}

/// A mailbox as a client names it. A name that no mailbox can have is kept, so that the answer is NO (or an empty LIST), not BAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxArgument {
    /// A possible name.
    Valid(MailboxName),
    /// A possible name that is another spelling of a mailbox's own (`inbox`, letters with their marks apart), which a client with IMAP4rev2 is told.
    Renamed {
        /// The mailbox's own name.
        name: MailboxName,
        /// As the client wrote it.
        written: String,
    },
    /// Not a possible name; the text is for the NO.
    Impossible(String),
}

/// SELECT and EXAMINE with parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// Which mailbox.
    pub mailbox: MailboxArgument,
    /// EXAMINE.
    pub read_only: bool,
    /// `(CONDSTORE)`, RFC 7162.
    pub condstore: bool,
    /// `(QRESYNC (…))`, RFC 7162 §3.2.5.
    pub resync: Option<Resync>,
}

/// GETMETADATA (RFC 5464 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetMetadata {
    /// `None`: the server.
    pub mailbox: Option<MailboxArgument>,
    /// As written, each once, at least one.
    pub entries: Vec<String>,
    /// MAXSIZE: larger values are not told.
    pub size_max: Option<u64>,
    /// How far below the entries.
    pub depth: Depth,
}

/// DEPTH (RFC 5464 §4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The entry alone.
    Zero,
    /// And what lies right below.
    One,
    /// And all that lies below.
    Infinity,
}

/// The message that REPLACE puts another in place of (RFC 8508).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// UID REPLACE.
    pub uid: bool,
    /// Which.
    pub message: SequenceBound,
}

/// APPEND or REPLACE up to its first literal that is content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendStart {
    /// The command's tag.
    pub tag: String,
    /// The message that goes, if this is REPLACE.
    pub replaces: Option<Replaced>,
    /// Where to.
    pub mailbox: MailboxArgument,
    /// The rest; its first piece is a [`AppendPiece::Message`].
    pub line: AppendLine,
}

/// What an APPEND says between two literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendLine {
    /// In order.
    pub pieces: Vec<AppendPiece>,
    /// More content of the message that was begun last, still on the wire; `None`: the command ends.
    pub literal: Option<LiteralHeader>,
}

/// One thing that an APPEND says of its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendPiece {
    /// A message begins (RFC 3502: several may).
    Message {
        /// In the client's order.
        flags: Vec<FlagArgument>,
        /// The date-time as Unix seconds.
        date: Option<i64>,
    },
    /// More content of it: what this IMAP URL names (RFC 4469).
    Url(String),
}

/// A literal as announced: `{12}`, `{12+}`, `~{12}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiteralHeader {
    /// Announced bytes.
    pub size: u64,
    /// `{n+}` (RFC 7888): the bytes come without waiting for `+`.
    pub non_sync: bool,
    /// `~{n}` (literal8, RFC 3516): may have NUL.
    pub binary: bool,
}

/// What a client knows of a mailbox that it opens again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    /// The UIDVALIDITY for which the rest holds.
    pub uid_validity: u32,
    /// All changes up to this MODSEQ.
    pub modseq: u64,
    /// The UIDs it has; `None`: all.
    pub known: Option<SequenceSet>,
    /// Sequence numbers and the UIDs that they named, as many of one as of the other.
    pub matches: Option<(SequenceSet, SequenceSet)>,
}

/// LIST, basic and extended (RFC 5258, 5819, 6154).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub struct List {
    pub reference: String,
    /// UTF-8, with `*` and `%`.
    pub patterns: Vec<String>,
    pub select_subscribed: bool,
    pub select_remote: bool,
    pub select_recursive_match: bool,
    pub select_special_use: bool,
    pub return_subscribed: bool,
    pub return_children: bool,
    pub return_special_use: bool,
    pub return_status: Option<Vec<StatusItem>>,
    /// RFC 9590; empty: none.
    pub return_metadata: Vec<String>,
    /// RFC 8440.
    pub return_my_rights: bool,
    /// Whether any extended syntax was used: answers must then say CHILDREN-free basics as RFC 5258 wants.
    pub extended: bool,
}

/// STATUS data items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    Deleted,
    /// RFC 9208: the bytes of what has \Deleted.
    DeletedStorage,
    Size,
    HighestModSeq,
    /// RFC 7889: the largest message that APPEND takes.
    AppendLimit,
    /// RFC 8474.
    MailboxId,
}

/// FETCH data items; macros are expanded by the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum FetchItem {
    Uid,
    Flags,
    InternalDate,
    /// RFC 8514.
    SaveDate,
    /// RFC 8474.
    EmailId,
    ThreadId,
    /// RFC 8970; `lazy`: NIL where it would have to be made.
    Preview {
        lazy: bool,
    },
    /// PREVIEW before it was one (draft-slusarz-imap-fetch-snippet).
    Snippet {
        lazy: bool,
    },
    Rfc822Size,
    Envelope,
    /// `BODY` without a section.
    Body,
    BodyStructure,
    ModSeq,
    /// RFC822 (= BODY[]), but answered under its own name.
    Rfc822,
    Rfc822Header,
    Rfc822Text,
    /// `BODY[section]<partial>`; `peek`: does not set \Seen. `name` is what the answer repeats: the section as the client wrote it, in capitals, as in `HEADER.FIELDS (FROM TO)`.
    Section {
        section: Section,
        peek: bool,
        partial: Option<(u64, u64)>,
        name: String,
    },
    /// `BINARY[part]<partial>` (RFC 3516): without its transfer encoding.
    Binary {
        part: Vec<u32>,
        peek: bool,
        partial: Option<(u64, u64)>,
    },
    BinarySize(Vec<u32>),
}

impl FetchItem {
    /// Whether it tells more of a message than its UID, flags and MODSEQ.
    pub fn tells_facts(&self) -> bool {
        !matches!(self, FetchItem::Uid | FetchItem::Flags | FetchItem::ModSeq)
    }
}

/// How STORE changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum StoreHow {
    Replace,
    Add,
    Remove,
}

/// A flag as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlagArgument {
    /// A system flag.
    System(Flag),
    /// A keyword, as written.
    Keyword(String),
}

/// `1:4,7,9:*`, as ranges; `*` is [`u32::MAX`] plus `star`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceSet {
    /// Ranges in the order of the client.
    Ranges(SmallVec<[SequenceRange; 4]>),
    /// `$` (RFC 5182): what the last SEARCH saved.
    Saved,
}

/// One range; `low` may be larger than `high` until resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceRange {
    /// First.
    pub low: SequenceBound,
    /// Last.
    pub high: SequenceBound,
}

/// A number or `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceBound {
    /// From 1.
    Number(u32),
    /// The largest in use.
    Star,
}
