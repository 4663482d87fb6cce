//! What a client is told when a command is done: tagged replies, and errors of the store in the words of RFC 5530.
//!
//! Invariants, each with the test that guards it:
//! - a lost lease acknowledges nothing (`a_lost_lease_says_bye_and_no_more`)
//! - no path and no system error text reaches a client (`what_went_wrong_on_disk_stays_in_the_log`)

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use storage::StorageError;

use crate::{connection::ConnectionError, forward::RouteError};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 3501 §7.1 names them")]
pub enum Status {
    Ok,
    No,
    Bad,
}

/// The tagged reply, without its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it ended.
    pub status: Status,
    /// Response code without its brackets.
    pub code: Option<Cow<'static, str>>,
    /// For people.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// `OK text`.
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { status: Status::Ok, code: None, text: text.into() }
    }
    /// `NO [code] text`.
    pub fn no(code: &'static str, text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { status: Status::No, code: Some(code.into()), text: text.into() }
    }
    /// `BAD text`.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { status: Status::Bad, code: None, text: text.into() }
    }
    /// With a response code.
    #[must_use]
    pub fn code(self, code: impl Into<Cow<'static, str>>) -> Reply {
        Reply { code: Some(code.into()), ..self }
    }
    /// Writes the line; `*` as tag makes it untagged.
    pub fn write(&self, tag: &str, output: &mut BytesMut) {
        let status = match self.status {
            Status::Ok => " OK ",
            Status::No => " NO ",
            Status::Bad => " BAD ",
        };
        output.put_slice(tag.as_bytes());
        output.put_slice(status.as_bytes());
        if let Some(code) = &self.code {
            output.put_u8(b'[');
            output.put_slice(code.as_bytes());
            output.put_slice(b"] ");
        }
        put_text(output, &self.text);
        output.put_slice(b"\r\n");
    }
}

/// Writes text for people: RFC 3501's `text` is ASCII and never empty, and what a client sent must not end a line.
pub fn put_text(output: &mut BytesMut, text: &str) {
    if text.is_empty() {
        output.put_u8(b'.');
    }
    text.chars().for_each(|c| output.put_u8(if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' }));
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
            StorageError::NoMailbox(name) => Reply::no("NONEXISTENT", format!("There is no mailbox {name}")),
            StorageError::MailboxExists(name) => Reply::no("ALREADYEXISTS", format!("There is a mailbox {name} already")),
            StorageError::NotAllowed(what) => Reply::no("CANNOT", *what),
            StorageError::BadName(_) => Reply::no("CANNOT", error.to_string()),
            StorageError::Expunged => expunged(),
            StorageError::TooManyKeywords => Reply::no("LIMIT", "The mailbox has as many keywords as it can hold"),
            StorageError::Limit { .. } => Reply::no("LIMIT", error.to_string()),
            StorageError::NoSpace { .. } => {
                tracing::error!(%error, "storage is full");
                Reply::no("OVERQUOTA", "There is no space left for this")
            }
            StorageError::Closing(_) | StorageError::LeaseLost(_) => {
                tracing::info!(%error, "session ends without acknowledging");
                return Stop::Bye(MOVED_AWAY.into());
            }
            StorageError::Index { .. } | StorageError::Io { .. } => {
                tracing::error!(%error, "storage failed");
                Reply::no("SERVERBUG", "The mail store failed, its log has the details; please try again")
            }
        };
        Stop::Reply(reply)
    }
}

/// A message is gone that the client still counts.
pub fn expunged() -> Reply {
    Reply::no("EXPUNGEISSUED", "Some of the messages no longer exist")
}

/// `error` for a command that wants to put a message into a mailbox: the client may create it and try again (RFC 3501 §7.1).
pub fn for_target(error: StorageError) -> Stop {
    match error {
        StorageError::NoMailbox(name) => Reply::no("TRYCREATE", format!("There is no mailbox {name}: create it first")).into(),
        other => other.into(),
    }
}

/// A login that no node could serve.
pub fn route_error(error: &RouteError) -> Reply {
    match error {
        RouteError::TooManySessions { .. } => Reply::no("LIMIT", error.to_string()),
        RouteError::Unavailable { .. } | RouteError::TooManyHops { .. } | RouteError::Storage(_) => {
            tracing::warn!(%error, "no node serves this login");
            Reply::no("UNAVAILABLE", "The mailbox can't be reached at the moment, please try again")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use affinity::{Epoch, LeaseLost, UserName};
    use storage::MailboxName;

    use super::*;

    fn line(reply: &Reply, tag: &str) -> String {
        let mut output = BytesMut::new();
        reply.write(tag, &mut output);
        String::from_utf8(output.to_vec()).unwrap()
    }
    fn told(error: StorageError) -> String {
        match Stop::from(error) {
            Stop::Reply(reply) => line(&reply, "a"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_carry_tag_status_code_and_text() {
        assert_eq!(line(&Reply::ok("Done").code("READ-WRITE"), "a1"), "a1 OK [READ-WRITE] Done\r\n");
        assert_eq!(line(&Reply::bad(""), "*"), "* BAD .\r\n");
    }

    #[test]
    fn a_client_can_not_end_a_line_by_what_it_sent() {
        assert_eq!(line(&Reply::bad("x\r\n* OK y"), "a"), "a BAD x??* OK y\r\n");
    }

    #[test]
    fn a_missing_target_may_be_created() {
        let error = || StorageError::NoMailbox(MailboxName::inbox());
        assert!(told(error()).starts_with("a NO [NONEXISTENT]"));
        let Stop::Reply(reply) = for_target(error()) else { panic!() };
        assert!(line(&reply, "a").starts_with("a NO [TRYCREATE]"));
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
        for text in [told(io), told(full)] {
            assert!(!text.contains("/srv") && !text.contains("stale"), "{text}");
        }
    }
}
