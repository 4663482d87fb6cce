//! What a POP3 client is told: `-ERR` with the response codes of RFC 2449 and RFC 3206, and which capabilities there are.
//!
//! Invariants, each with the test that guards it:
//! - a problem of ours is never "wrong password": clients would ask the user for another (`a_problem_of_ours_is_never_a_wrong_password`)
//! - no reply names a file (the texts are fixed)

use bytes::{BufMut, BytesMut};
use storage::StorageError;

use crate::{
    auth::{AuthError, sasl::Mechanism},
    forward::RouteError,
};

/// Writes `+OK text`.
pub fn ok(out: &mut BytesMut, text: &str) {
    line(out, "+OK ", text);
}

/// Writes `-ERR text`.
pub fn err(out: &mut BytesMut, text: &str) {
    line(out, "-ERR ", text);
}

fn line(out: &mut BytesMut, head: &str, text: &str) {
    out.put_slice(head.as_bytes());
    // A text may come from a peer or hold a name; it must stay one line.
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// What can be used on a connection, for CAPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// USER and PASS: whether passwords may be sent over it.
    pub passwords: bool,
    /// AUTH.
    pub mechanisms: Vec<Mechanism>,
    /// STLS.
    pub tls: bool,
    /// Shortest time between logins, in seconds; 0: none.
    pub login_delay_s: u64,
    /// After how many days messages go by themselves; `None`: never.
    pub expire_days: Option<u64>,
}

/// The languages of our texts, with what they call themselves. RFC 2277 §4.5 has everybody understand the second: it is English, too.
const LANGUAGES: [(&str, &str); 2] = [("en", "English"), ("i-default", "English for everybody")];

/// Answers LANG (RFC 6856 §3): English is all there is, so nothing needs remembering. A range with a region is cut until it fits (RFC 4647 §3.4).
pub fn language(out: &mut BytesMut, range: Option<&str>) -> Result<(), &'static str> {
    match range {
        None => {
            ok(out, "Language listing follows:");
            for (tag, name) in LANGUAGES {
                line(out, "", &format!("{tag} {name}"));
            }
            out.put_slice(b".\r\n");
            Ok(())
        }
        Some(range) => {
            let fits = |tag: &str| {
                let begins = range.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
                begins && matches!(range.as_bytes().get(tag.len()), None | Some(b'-'))
            };
            let found = LANGUAGES.iter().find(|(tag, _)| range == "*" || fits(tag));
            let (tag, name) = found.ok_or("That language is not spoken here: LANG lists those that are")?;
            ok(out, &format!("{tag} {name} it is"));
            Ok(())
        }
    }
}

/// Writes the answer to CAPA (RFC 2449 §5), the same in both states.
pub fn capabilities(out: &mut BytesMut, offers: &Offers) {
    ok(out, "Capabilities follow");
    out.put_slice(b"TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nUTF8 USER\r\nLANG\r\n");
    match offers.expire_days {
        Some(days) => out.put_slice(format!("EXPIRE {days}\r\n").as_bytes()),
        None => out.put_slice(b"EXPIRE NEVER\r\n"),
    }
    if offers.login_delay_s > 0 {
        out.put_slice(format!("LOGIN-DELAY {}\r\n", offers.login_delay_s).as_bytes());
    }
    if offers.passwords {
        out.put_slice(b"USER\r\n");
    }
    if !offers.mechanisms.is_empty() {
        out.put_slice(b"SASL");
        for mechanism in &offers.mechanisms {
            out.put_u8(b' ');
            out.put_slice(mechanism.name().as_bytes());
        }
        out.put_slice(b"\r\n");
    }
    if offers.tls {
        out.put_slice(b"STLS\r\n");
    }
    out.put_slice(b"IMPLEMENTATION Berth\r\n.\r\n");
}

/// What a client is told whose login was not accepted.
pub fn auth_error(error: &AuthError) -> &'static str {
    match error {
        AuthError::WrongCredentials => "[AUTH] Wrong user name or password",
        AuthError::NotAllowed(_) => "[SYS/PERM] This login is not allowed",
        AuthError::Crowded => "[SYS/TEMP] Too many wrong passwords came from this network, try again later",
        AuthError::Unavailable(_) => "[SYS/TEMP] Users can't be looked up now, try again later",
    }
}

/// What a client is told whose maildrop no node can serve now.
pub fn route_error(error: &RouteError) -> &'static str {
    match error {
        RouteError::Storage(error) => storage_error(error),
        RouteError::TooManySessions { .. } => "[IN-USE] You have as many sessions as are allowed",
        RouteError::Unavailable { .. }
        | RouteError::TooManyHops { .. }
        | RouteError::Refused(_)
        | RouteError::Users { .. }
        | RouteError::Leaving
        | RouteError::Affinity(_) => "[SYS/TEMP] The maildrop can't be reached now, try again later",
    }
}

/// What a client is told when the store refuses. Log `error` itself.
pub fn storage_error(error: &StorageError) -> &'static str {
    match error {
        StorageError::Expunged => "The message was removed by another session",
        StorageError::Closing(_) | StorageError::LeaseLost(_) => "[SYS/TEMP] The maildrop is moving to another node, try again",
        StorageError::NoSpace { .. } => "[SYS/TEMP] No space is left, try again later",
        StorageError::NoMailbox(_)
        | StorageError::MailboxExists(_)
        | StorageError::NotAllowed(_)
        | StorageError::HasChildren(_)
        | StorageError::BadName(_)
        | StorageError::TooManyKeywords
        | StorageError::Limit { .. }
        | StorageError::OverQuota { .. }
        | StorageError::IndexDamaged(_)
        | StorageError::Index { .. }
        | StorageError::Io { .. } => "[SYS/TEMP] The maildrop can't be read now, try again later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_ours_is_never_a_wrong_password() {
        assert!(auth_error(&AuthError::Unavailable("x".into())).starts_with("[SYS/TEMP] "));
        assert!(auth_error(&AuthError::NotAllowed("x".into())).starts_with("[SYS/PERM] "));
        assert!(auth_error(&AuthError::WrongCredentials).starts_with("[AUTH] "));
    }

    #[test]
    fn english_is_spoken_and_nothing_else() {
        let said = |range| {
            let mut out = BytesMut::new();
            language(&mut out, range).map(|()| String::from_utf8(out.to_vec()).unwrap())
        };
        assert_eq!(said(None).unwrap(), "+OK Language listing follows:\r\nen English\r\ni-default English for everybody\r\n.\r\n");
        assert!(said(Some("EN")).unwrap().starts_with("+OK en "));
        assert!(said(Some("*")).unwrap().starts_with("+OK en "));
        assert!(said(Some("en-GB")).unwrap().starts_with("+OK en ") && said(Some("I-Default")).unwrap().starts_with("+OK i-default "));
        assert!(["MUL", "e", "eng", "english", "\u{e9}n", ""].into_iter().all(|range| said(Some(range)).is_err()));
    }

    #[test]
    fn a_reply_is_one_line() {
        let mut out = BytesMut::new();
        err(&mut out, "a\r\n+OK b");
        assert_eq!(&out[..], b"-ERR a  +OK b\r\n");
    }
}
