//! What a client is told when a command is done: tagged replies, and errors of the store in the words of RFC 5530.
//!
//! Invariants, each with the test that guards it:
//! - a lost lease acknowledges nothing (`a_lost_lease_says_bye_and_no_more`)
//! - no path and no system error text reaches a client (`what_went_wrong_on_disk_stays_in_the_log`)

use std::borrow::Cow;

use bytes::BytesMut;
use storage::{Copied, StorageError};

use crate::{
    connection::ConnectionError,
    forward::RouteError,
    imap::wire::response::{self, Code, Condition},
};

/// The tagged reply, without its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How the command ended.
    pub condition: Condition,
    /// Response code.
    pub code: Option<ReplyCode>,
    /// For people.
    pub text: Cow<'static, str>,
}

/// A response code with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyCode {
    /// One that borrows nothing.
    Plain(Code<'static>),
    /// APPENDUID: the messages of one APPEND, at least one.
    Appended {
        /// Of the mailbox.
        validity: index::UidValidity,
        /// Ascending.
        uids: Vec<index::Uid>,
    },
    /// BADURL.
    BadUrl(String),
    /// COPYUID.
    Copied(Copied),
    /// MAILBOXID.
    MailboxId(String),
    /// UNDEFINED-FILTER.
    UndefinedFilter(String),
    /// As it is sent: a list of capabilities, or what another node wrote.
    Passed(String),
    /// MODIFIED: sequence numbers or UIDs, ascending.
    Modified(Vec<u32>),
}

impl Reply {
    /// `OK text`.
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { condition: Condition::Ok, code: None, text: text.into() }
    }
    /// `NO [code] text`.
    pub fn no(code: Code<'static>, text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { condition: Condition::No, code: Some(ReplyCode::Plain(code)), text: text.into() }
    }
    /// `BAD text`.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { condition: Condition::Bad, code: None, text: text.into() }
    }
    /// With a response code.
    #[must_use]
    pub fn with(self, code: ReplyCode) -> Reply {
        Reply { code: Some(code), ..self }
    }
    /// Writes the tagged line.
    pub fn write(&self, out: &mut BytesMut, tag: &str) {
        response::tagged(out, tag, self.condition, self.code.as_ref().map(ReplyCode::code).as_ref(), &self.text);
    }
    /// Writes the untagged line.
    pub fn write_untagged(&self, out: &mut BytesMut) {
        response::untagged(out, self.condition, self.code.as_ref().map(ReplyCode::code).as_ref(), &self.text);
    }
}

impl From<Code<'static>> for ReplyCode {
    fn from(code: Code<'static>) -> ReplyCode {
        ReplyCode::Plain(code)
    }
}

impl ReplyCode {
    fn code(&self) -> Code<'_> {
        match self {
            ReplyCode::Plain(code) => *code,
            ReplyCode::Appended { validity, uids } => Code::AppendUid { validity: *validity, uids },
            ReplyCode::BadUrl(url) => Code::BadUrl(url),
            ReplyCode::Copied(Copied { uid_validity, pairs }) => Code::CopyUid { validity: *uid_validity, pairs },
            ReplyCode::MailboxId(id) => Code::MailboxId(id),
            ReplyCode::UndefinedFilter(name) => Code::UndefinedFilter(name),
            ReplyCode::Passed(code) => Code::Passed(code),
            ReplyCode::Modified(numbers) => Code::Modified(numbers),
        }
    }
}

/// Why a command did not come to its tagged OK.
#[derive(Debug)]
pub enum Stop {
    /// The session goes on with this reply.
    Reply(Reply),
    /// The session ends with `* BYE [UNAVAILABLE] text`; the command is not answered.
    Bye(Cow<'static, str>),
    /// The connection is gone.
    Connection(ConnectionError),
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Stop {
        Stop::Reply(reply)
    }
}
impl From<ConnectionError> for Stop {
    fn from(error: ConnectionError) -> Stop {
        Stop::Connection(error)
    }
}

/// What the client is told when its account goes away under it.
pub const MOVED_AWAY: &str = "The mailbox is being served elsewhere, please connect again";

impl From<StorageError> for Stop {
    /// What the client is told; what only the operator can repair is logged here, once.
    fn from(error: StorageError) -> Stop {
        let reply = match &error {
            StorageError::NoMailbox(name) => Reply::no(Code::Nonexistent, format!("There is no mailbox {name}")),
            StorageError::MailboxExists(name) => Reply::no(Code::AlreadyExists, format!("There is a mailbox {name} already")),
            StorageError::NotAllowed(what) => Reply::no(Code::Cannot, *what),
            StorageError::HasChildren(_) => Reply::no(Code::HasChildren, error.to_string()),
            StorageError::BadName(_) => Reply::no(Code::Cannot, error.to_string()),
            StorageError::Expunged => expunged(),
            StorageError::TooManyKeywords => Reply::no(Code::Limit, "The mailbox has as many keywords as it can hold"),
            StorageError::Limit { .. } => Reply::no(Code::Limit, error.to_string()),
            StorageError::OverQuota { root } => Reply::no(Code::OverQuota, format!("There is no room left in quota root {root:?}")),
            StorageError::NoSpace { .. } if error.is_over_quota() => {
                tracing::warn!(%error, "over the file system's quota");
                Reply::no(Code::OverQuota, "There is no space left for this")
            }
            StorageError::NoSpace { .. } => {
                tracing::error!(%error, "storage is full");
                Reply::no(Code::Unavailable, "The mail store is full, please try again later")
            }
            StorageError::Closing(_) | StorageError::LeaseLost(_) => {
                tracing::info!(%error, "session ends without acknowledging");
                return Stop::Bye(MOVED_AWAY.into());
            }
            StorageError::IndexDamaged(_) => {
                tracing::warn!(%error, "a command is answered with UNAVAILABLE");
                Reply::no(Code::Unavailable, "The mailbox index was damaged and is made anew, please try again")
            }
            StorageError::Io { .. } if error.may_pass() => {
                tracing::error!(%error, "the file server fails");
                Reply::no(Code::Unavailable, "The mail store does not answer as it should, please try again later")
            }
            StorageError::Index { .. } | StorageError::Io { .. } => {
                tracing::error!(%error, "storage failed");
                Reply::no(Code::ServerBug, "The mail store failed, its log has the details; please try again")
            }
        };
        Stop::Reply(reply)
    }
}

/// A message is gone that the client still counts.
pub fn expunged() -> Reply {
    Reply::no(Code::ExpungeIssued, "Some of the messages no longer exist")
}

/// The same with what there is to say of a limit, where RFC 9738 §3.1 has it.
pub fn also_expunged() -> Reply {
    Reply::ok("Some messages were also expunged").with(Code::ExpungeIssued.into())
}

/// `error` for a command that wants to put a message into a mailbox: the client may create it and try again (RFC 3501 §7.1).
pub fn for_target(error: StorageError) -> Stop {
    match error {
        StorageError::NoMailbox(name) => Reply::no(Code::TryCreate, format!("There is no mailbox {name}: create it first")).into(),
        other => other.into(),
    }
}

/// A login that no node could serve.
pub fn route_error(error: &RouteError) -> Reply {
    match error {
        RouteError::TooManySessions { .. } => Reply::no(Code::Limit, error.to_string()),
        RouteError::Unavailable { .. }
        | RouteError::TooManyHops { .. }
        | RouteError::Refused(_)
        | RouteError::Leaving
        | RouteError::Users { .. }
        | RouteError::Affinity(_)
        | RouteError::Storage(_) => {
            tracing::warn!(%error, "no node serves this login");
            Reply::no(Code::Unavailable, "The mailbox can't be reached at the moment, please try again")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use affinity::{Epoch, LeaseLost, UserName};
    use storage::MailboxName;

    use super::*;

    fn line(reply: &Reply) -> String {
        let mut out = BytesMut::new();
        reply.write(&mut out, "a");
        String::from_utf8(out.to_vec()).unwrap()
    }
    fn told(error: StorageError) -> String {
        match Stop::from(error) {
            Stop::Reply(reply) => line(&reply),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_target_may_be_created() {
        let error = || StorageError::NoMailbox(MailboxName::inbox());
        assert!(told(error()).starts_with("a NO [NONEXISTENT]"));
        let Stop::Reply(reply) = for_target(error()) else { panic!() };
        assert!(line(&reply).starts_with("a NO [TRYCREATE]"));
    }

    #[test]
    fn a_lost_lease_says_bye_and_no_more() {
        let user = UserName::normalise("ada").unwrap();
        let lost = StorageError::LeaseLost(LeaseLost { user: user.clone(), epoch: Epoch(1) });
        assert!(matches!(Stop::from(lost), Stop::Bye(_)));
        assert!(matches!(Stop::from(StorageError::Closing(user)), Stop::Bye(_)));
    }

    #[test]
    fn what_went_wrong_on_disk_stays_in_the_log() {
        let cause = || io::Error::other("stale handle");
        let io = StorageError::Io { doing: "can't read", path: "/srv/mail/ada".into(), cause: cause() };
        let full = StorageError::NoSpace { path: "/srv/mail/ada".into(), cause: cause() };
        let kinds = [
            (StorageError::NoSpace { path: "/srv".into(), cause: io::ErrorKind::QuotaExceeded.into() }, "OVERQUOTA"),
            (StorageError::NoSpace { path: "/srv".into(), cause: io::ErrorKind::StorageFull.into() }, "UNAVAILABLE"),
            (StorageError::Io { doing: "x", path: "/srv".into(), cause: io::Error::from_raw_os_error(5) }, "UNAVAILABLE"),
            (StorageError::Io { doing: "x", path: "/srv".into(), cause: io::ErrorKind::StaleNetworkFileHandle.into() }, "UNAVAILABLE"),
            (StorageError::Io { doing: "x", path: "/srv".into(), cause: io::ErrorKind::ReadOnlyFilesystem.into() }, "UNAVAILABLE"),
            (StorageError::Io { doing: "x", path: "/srv".into(), cause: io::ErrorKind::PermissionDenied.into() }, "SERVERBUG"),
            (StorageError::IndexDamaged(UserName::normalise("ada").unwrap()), "UNAVAILABLE"),
        ];
        for (error, code) in kinds {
            assert!(told(error).starts_with(&format!("a NO [{code}]")), "{code}");
        }
        for text in [told(io), told(full)] {
            assert!(!text.contains("/srv") && !text.contains("stale"), "{text}");
        }
    }
}
