//! What many clients asked of a whole cluster while it was struck by faults, and the proof that every promise was kept.
//!
//! A [`History`] has every request with its reply and both times, what the nodes said about the leases under which they acknowledged, and what was
//! found at the end. [`check`] is a plain function of it. Properties, each with a history that must fail in `tests.rs`:
//!
//! - an acknowledged message is there, once, unless somebody expunged it (`messages.rs`)
//! - a UID is never two messages; UIDNEXT, HIGHESTMODSEQ and UIDVALIDITY never go back (`uids.rs`)
//! - flags are what some order of the acknowledged changes gives (`flags.rs`)
//! - one epoch has one holder, and holders follow each other in the order that clients see (`holders.rs`)
//! - mailboxes are there or gone as was acknowledged (`mailboxes.rs`)
//!
//! A request whose reply never came has an unknown outcome: it may have been done, and may be done at any time until the end.

mod flags;
mod holders;
mod mailboxes;
mod messages;
mod record;
mod uids;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

pub use record::{Recorder, read, write};

/// Microseconds since the history began, by one clock.
pub type Micros = u64;
/// A message by its UIDVALIDITY and UID: Berth never gives two mailboxes of one user the same UIDVALIDITY.
pub type Key = (u32, u32);

/// Everything that was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct History {
    /// How it was made, for people.
    pub title: String,
    /// Requests, in the order of their identifiers.
    pub operations: Vec<Operation>,
    /// What was done to the hosts.
    pub faults: Vec<Fault>,
    /// What the nodes said about their acknowledgements.
    pub acknowledgements: Vec<Acknowledgement>,
    /// LMTP senders (one per try) whose relayed delivery the ingress carried out again, since the first holder's answer was lost.
    pub carried_out_again: BTreeSet<String>,
    /// What was there in the end, as several readers saw it.
    pub finals: Vec<Final>,
}

/// One request of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its place in [`History::operations`].
    pub id: usize,
    /// Who asked.
    pub client: String,
    /// Whose mail.
    pub user: String,
    /// Through which node.
    pub node: String,
    /// Names the request in the nodes' logs: an IMAP tag, an LMTP sender. Never used twice.
    pub tag: String,
    /// Just before it was sent.
    pub sent: Micros,
    /// Just after the reply was read, or the connection was found broken.
    pub ended: Micros,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the protocols' own names")]
pub enum Request {
    /// LMTP, into INBOX.
    Deliver {
        message: String,
    },
    Append {
        mailbox: String,
        message: String,
        flags: BTreeSet<String>,
    },
    /// Adds or takes away one flag.
    Store {
        validity: u32,
        targets: Targets,
        add: bool,
        flag: String,
    },
    Copy {
        validity: u32,
        targets: Targets,
        to: String,
    },
    Move {
        validity: u32,
        targets: Targets,
        to: String,
    },
    /// UID EXPUNGE of messages that have \Deleted: sent only after its STORE was acknowledged.
    Expunge {
        validity: u32,
        targets: Targets,
    },
    Create {
        mailbox: String,
    },
    Delete {
        mailbox: String,
    },
    Rename {
        from: String,
        to: String,
    },
    /// SELECT and FETCH of all UIDs, Message-IDs and flags.
    Look {
        mailbox: String,
    },
}

/// UIDs, and the messages that the client believes them to be.
pub type Targets = BTreeMap<u32, String>;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Acknowledged.
    Done(Answer),
    /// Refused for good: nothing was done.
    Refused(String),
    /// Refused for now, or no reply: nobody knows.
    Unknown(String),
}

/// What an acknowledgement told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing but that it was done.
    Plain,
    /// APPENDUID or COPYUID: where messages are now. Source UIDs (0 for APPEND) with their new ones.
    Placed {
        /// UIDVALIDITY of the mailbox they are in.
        validity: u32,
        /// Source UID and new UID.
        uids: Vec<(u32, u32)>,
    },
    /// What a look saw.
    Seen(Mailbox),
}

/// A mailbox as a client sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the protocol's own names")]
pub struct Mailbox {
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    pub messages: BTreeMap<u32, Message>,
}

/// One message of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its Message-ID; something else where the bytes are not those that were sent.
    pub id: String,
    /// Its flags.
    pub flags: BTreeSet<String>,
}

/// Something that was done to the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it began.
    pub from: Micros,
    /// When it was over.
    pub until: Micros,
    /// What it was.
    pub what: String,
}

/// A node told a client that a request was done, under this lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Whose lease.
    pub user: String,
    /// Its generation.
    pub epoch: u64,
    /// The incarnation that had it.
    pub holder: String,
    /// The request's tag.
    pub tag: String,
}

/// All of one user's mail, read in peace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    /// Who read: a node's name, or how else.
    pub by: String,
    /// When reading began.
    pub at: Micros,
    /// Whose mail.
    pub user: String,
    /// Mailboxes by name.
    pub mailboxes: BTreeMap<String, Mailbox>,
    /// Only Message-IDs are known (files on disk): UIDs are counted up from 1.
    pub without_uids: bool,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The property, in a few words.
    pub property: &'static str,
    /// What contradicts it.
    pub what: String,
    /// Operations that have to do with it.
    pub operations: Vec<usize>,
}

/// Everything that contradicts a promise.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for user in history.users() {
        let of_user = OfUser::new(history, user);
        violations.extend(messages::check(&of_user));
        violations.extend(uids::check(&of_user));
        violations.extend(flags::check(&of_user));
        violations.extend(mailboxes::check(&of_user));
        violations.extend(holders::check(&of_user));
    }
    violations
}

impl History {
    fn users(&self) -> BTreeSet<&str> {
        let of_finals = self.finals.iter().map(|one| one.user.as_str());
        self.operations.iter().map(|one| one.user.as_str()).chain(of_finals).collect()
    }
}

/// The part of a history that has to do with one user: users share nothing.
struct OfUser<'a> {
    user: &'a str,
    operations: Vec<&'a Operation>,
    acknowledgements: Vec<&'a Acknowledgement>,
    carried_out_again: &'a BTreeSet<String>,
    finals: Vec<&'a Final>,
}

impl<'a> OfUser<'a> {
    fn new(history: &'a History, user: &'a str) -> OfUser<'a> {
        OfUser {
            user,
            operations: history.operations.iter().filter(|one| one.user == user).collect(),
            acknowledgements: history.acknowledgements.iter().filter(|one| one.user == user).collect(),
            carried_out_again: &history.carried_out_again,
            finals: history.finals.iter().filter(|one| one.user == user).collect(),
        }
    }

    /// The final state as the first reader with UIDs saw it: message by UIDVALIDITY and UID, with the mailbox.
    fn final_messages(&self) -> BTreeMap<Key, (&'a str, &'a Message)> {
        let first = self.finals.iter().find(|one| !one.without_uids);
        let mailboxes = first.into_iter().flat_map(|one| &one.mailboxes);
        mailboxes
            .flat_map(|(name, mailbox)| {
                mailbox.messages.iter().map(move |(uid, message)| ((mailbox.uid_validity, *uid), (name.as_str(), message)))
            })
            .collect()
    }

    /// Every moment at which somebody saw a mailbox: during the history, and at its end.
    fn looks(&self) -> Vec<Seen<'a>> {
        let during = self.operations.iter().filter_map(|one| match (&one.request, &one.outcome) {
            (Request::Look { mailbox: name }, Outcome::Done(Answer::Seen(mailbox))) => {
                Some(Seen { name, mailbox, sent: one.sent, ended: one.ended, operation: Some(one.id), by: &one.client })
            }
            _ => None,
        });
        let finals = self.finals.iter().filter(|one| !one.without_uids).flat_map(|one| {
            let seen = |(name, mailbox): (&'a String, &'a Mailbox)| Seen {
                name,
                mailbox,
                sent: one.at,
                ended: Micros::MAX,
                operation: None,
                by: &one.by,
            };
            one.mailboxes.iter().map(seen)
        });
        during.chain(finals).collect()
    }

    fn violation(&self, property: &'static str, what: impl fmt::Display, operations: impl IntoIterator<Item = usize>) -> Violation {
        let mut operations: Vec<usize> = operations.into_iter().collect();
        operations.dedup();
        Violation { property, what: format!("{}: {what}", self.user), operations }
    }
}

/// One look at one mailbox.
#[derive(Clone, Copy)]
struct Seen<'a> {
    name: &'a str,
    mailbox: &'a Mailbox,
    sent: Micros,
    ended: Micros,
    operation: Option<usize>,
    by: &'a str,
}

impl Operation {
    /// Whether it was acknowledged.
    pub fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_))
    }
    /// Whether nobody knows if it was done.
    pub fn has_no_answer(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }
    /// Whether it may have been done.
    pub fn may_be_done(&self) -> bool {
        !matches!(self.outcome, Outcome::Refused(_))
    }
    /// After this moment it has no effect any more: never, where nobody knows.
    fn over(&self) -> Micros {
        if self.has_no_answer() { Micros::MAX } else { self.ended }
    }
    /// Messages that it placed, as acknowledged: what each is, where it came from, where it is.
    fn placed(&self) -> Vec<Placed<'_>> {
        let Outcome::Done(Answer::Placed { validity, uids }) = &self.outcome else { return Vec::new() };
        let placed = uids.iter().filter_map(|(source, uid)| match &self.request {
            Request::Append { message, .. } => Some(Placed { message, from: None, key: (*validity, *uid) }),
            Request::Copy { validity: from, targets, .. } | Request::Move { validity: from, targets, .. } => {
                Some(Placed { message: targets.get(source)?, from: Some((*from, *source)), key: (*validity, *uid) })
            }
            _ => None,
        });
        placed.collect()
    }
}

/// A message that was put somewhere.
struct Placed<'a> {
    message: &'a str,
    from: Option<Key>,
    key: Key,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |micros: Micros| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        write!(
            f,
            "#{} {}–{} {} via {} [{}] {:?}",
            self.id,
            seconds(self.sent),
            seconds(self.ended),
            self.client,
            self.node,
            self.tag,
            self.request
        )?;
        match &self.outcome {
            Outcome::Done(Answer::Seen(mailbox)) => write!(
                f,
                " → {} messages, UIDVALIDITY {}, UIDNEXT {}, HIGHESTMODSEQ {}",
                mailbox.messages.len(),
                mailbox.uid_validity,
                mailbox.uid_next,
                mailbox.highest_modseq
            ),
            outcome => write!(f, " → {outcome:?}"),
        }
    }
}
