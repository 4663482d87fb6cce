//! What a mail transfer agent is told: replies with enhanced status codes (RFC 2034), and errors turned into them.
//!
//! Invariants, each with the test that guards it:
//! - nothing that may pass later is refused for good: the sender would bounce it (`what_may_pass_later_is_temporary`)
//! - no reply names a file or breaks its line (`a_reply_is_one_line_without_paths`)

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use storage::StorageError;

use super::delivery::Outcome;
use crate::{auth::AuthError, config::OverQuota, forward::RouteError};

/// Longest text of a reply: RFC 5321 §4.5.3.1.5 allows 512 bytes a line with code and line end.
const TEXT_BYTES_MAX: usize = 480;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// RFC 5321 §4.2.
    pub code: u16,
    /// RFC 3463, as in `2.0.0`; empty where RFC 2034 has none (greeting, LHLO, 354).
    pub enhanced: &'static str,
    /// For people.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced status code.
    pub fn new(code: u16, enhanced: &'static str, text: impl Into<Cow<'static, str>>) -> Reply {
        Reply { code, enhanced, text: text.into() }
    }

    /// Writes the line.
    pub fn write(&self, out: &mut BytesMut) {
        write_line(out, self.code, self.enhanced, &self.text);
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Outcome {
        Outcome { code: reply.code, enhanced: reply.enhanced.to_owned(), text: reply.text.into_owned() }
    }
}

impl Outcome {
    /// Writes the line.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        write_line(out, self.code, &self.enhanced, &self.text);
    }
}

fn write_line(out: &mut BytesMut, code: u16, enhanced: &str, text: &str) {
    out.put_slice(code.to_string().as_bytes());
    out.put_u8(b' ');
    if !enhanced.is_empty() {
        out.put_slice(enhanced.as_bytes());
        out.put_u8(b' ');
    }
    // An address in the text may be UTF-8 (RFC 6531 §3.7.4.2); what would break the line can't come from here, but an outcome may come from a peer.
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    for c in text.get(..end).unwrap_or_default().chars() {
        let c = if c.is_control() { ' ' } else { c };
        out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// What a recipient is told when the store refuses a message. Log `error` itself: the reply has no path in it.
pub fn storage_error(error: &StorageError) -> Outcome {
    match error {
        // Who has settings for it asks [`over_quota`] instead.
        StorageError::OverQuota { .. } => over_quota(OverQuota::Defer).into(),
        StorageError::NoSpace { .. } if error.is_over_quota() => Reply::new(452, "4.2.2", "The mailbox is full").into(),
        StorageError::NoSpace { .. } => Reply::new(452, "4.3.1", "No space to store the message").into(),
        StorageError::Limit { what, .. } => {
            Reply::new(552, "5.2.3", format!("The message is refused: too large or too many: {what}")).into()
        }
        StorageError::Closing(_) | StorageError::LeaseLost(_) => Outcome::temporary("The mailbox is moving to another node, try again"),
        StorageError::NoMailbox(_)
        | StorageError::MailboxExists(_)
        | StorageError::NotAllowed(_)
        | StorageError::HasChildren(_)
        | StorageError::BadName(_)
        | StorageError::Expunged
        | StorageError::TooManyKeywords
        | StorageError::IndexDamaged(_)
        | StorageError::Index { .. }
        | StorageError::Io { .. } => Outcome::temporary("The message could not be stored, try again"),
    }
}

/// What a sender is told whose message does not fit into the mailbox.
pub fn over_quota(setting: OverQuota) -> Reply {
    match setting {
        OverQuota::Defer => Reply::new(452, "4.2.2", "The mailbox is full, try again later"),
        OverQuota::Refuse => Reply::new(552, "5.2.2", "The mailbox is full"),
    }
}

/// What a recipient is told when no node can take the message now.
pub fn route_error(error: &RouteError) -> Outcome {
    match error {
        RouteError::Storage(error) => storage_error(error),
        RouteError::Unavailable { .. }
        | RouteError::TooManyHops { .. }
        | RouteError::TooManySessions { .. }
        | RouteError::Refused(_)
        | RouteError::Users { .. }
        | RouteError::Leaving
        | RouteError::Affinity(_) => Outcome::temporary("The mailbox can't be reached now, try again"),
    }
}

/// What RCPT answers when the users can't be asked.
pub fn lookup_error(error: &AuthError) -> Reply {
    match error {
        AuthError::Unavailable(_) | AuthError::Crowded => Reply::new(454, "4.7.0", "Users can't be looked up now, try again"),
        AuthError::NotAllowed(_) => Reply::new(550, "5.2.1", "The mailbox is disabled"),
        AuthError::WrongCredentials => Reply::new(550, "5.1.1", "No such user here"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use affinity::{Epoch, LeaseLost, UserName};

    use super::*;

    fn user() -> UserName {
        UserName::normalise("ada").unwrap()
    }

    fn no_space(kind: io::ErrorKind) -> StorageError {
        StorageError::NoSpace { path: "/srv/mail/ada".into(), cause: kind.into() }
    }

    #[test]
    fn what_may_pass_later_is_temporary() {
        for (error, enhanced) in [
            (no_space(io::ErrorKind::StorageFull), "4.3.1"),
            (no_space(io::ErrorKind::QuotaExceeded), "4.2.2"),
            (StorageError::Closing(user()), "4.3.0"),
            (StorageError::LeaseLost(LeaseLost { user: user(), epoch: Epoch(3) }), "4.3.0"),
            (StorageError::Index { user: user(), reason: "x".into() }, "4.3.0"),
            (StorageError::IndexDamaged(user()), "4.3.0"),
        ] {
            let outcome = storage_error(&error);
            assert!((400..500).contains(&outcome.code), "{error}");
            assert_eq!(outcome.enhanced, enhanced, "{error}");
        }
        assert_eq!(route_error(&RouteError::TooManyHops { user: user(), hops: 3 }).code, 451);
        assert_eq!(lookup_error(&AuthError::Unavailable("x".into())).code, 454);
    }

    #[test]
    fn a_reply_is_one_line_without_paths() {
        let mut out = BytesMut::new();
        storage_error(&no_space(io::ErrorKind::StorageFull)).write(&mut out);
        assert_eq!(&out[..], b"452 4.3.1 No space to store the message\r\n");
        out.clear();
        Outcome { code: 250, enhanced: "2.0.0".into(), text: format!("a\r\nb{}", "é".repeat(999)) }.write(&mut out);
        assert!(out.starts_with(b"250 2.0.0 a  b") && out.len() <= 512);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    }
}
