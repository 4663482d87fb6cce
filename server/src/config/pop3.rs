//! `[pop3]`

use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage::UidlFormat;

/// Longer than this, a client would seem to be locked out.
const LOGIN_DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// `[pop3]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pop3Section {
    /// What UIDL says of messages that no earlier server named, in Dovecot's words.
    pub uidl_format: String,
    /// Whether a message that was retrieved is seen (for IMAP) after QUIT.
    pub mark_seen: bool,
    /// The keyword that DELE gives instead of removing; empty: it removes.
    pub deleted_flag: String,
    /// Shortest time between two logins of one user.
    #[serde(with = "humantime_serde")]
    pub login_delay: Duration,
}

impl Default for Pop3Section {
    fn default() -> Self {
        Pop3Section { uidl_format: "%08Xu%08Xv".to_owned(), mark_seen: true, deleted_flag: String::new(), login_delay: Duration::ZERO }
    }
}

impl Pop3Section {
    /// What is wrong with it.
    pub(super) fn check(&self, say: &mut impl FnMut(&'static str, String)) {
        if let Err(why) = self.uidl_format.parse::<UidlFormat>() {
            say("pop3.uidl_format", format!("{:?}: {why}", self.uidl_format));
        }
        // RFC 9051 §9: what an atom may hold.
        let is_atom = self.deleted_flag.bytes().all(|byte| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte));
        if !is_atom || self.deleted_flag.len() > 64 {
            say("pop3.deleted_flag", format!("{:?} can't be a keyword, as in \"$POP3Deleted\"", self.deleted_flag));
        }
        if self.login_delay > LOGIN_DELAY_MAX {
            say("pop3.login_delay", "must be 1day at most".to_owned());
        }
    }

    /// The format, which was checked when it was read.
    pub fn format(&self) -> UidlFormat {
        self.uidl_format.parse().unwrap_or_default()
    }
}
