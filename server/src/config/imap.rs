//! `[imap]`

use serde::{Deserialize, Serialize};

/// RFC 9738 §3: limits SHOULD NOT be lower.
const MESSAGES_MIN: u32 = 1000;

/// `[imap]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImapSection {
    /// MESSAGELIMIT: how many messages one command works on; 0: no limit.
    pub message_limit: u32,
    /// SAVELIMIT: how many messages one COPY or APPEND stores; 0: no limit beside `message_limit`.
    pub save_limit: u32,
}

impl ImapSection {
    /// What is wrong with it.
    pub(super) fn check(&self, say: &mut impl FnMut(&'static str, String)) {
        for (key, limit) in [("imap.message_limit", self.message_limit), ("imap.save_limit", self.save_limit)] {
            if (1..MESSAGES_MIN).contains(&limit) {
                say(key, format!("must be 0 (none) or {MESSAGES_MIN} at least (RFC 9738 §3)"));
            }
        }
        if self.message_limit > 0 && self.save_limit > 0 {
            say(
                "imap.save_limit",
                "goes instead of `imap.message_limit`, which limits COPY and APPEND as well: remove one (RFC 9738 §3)".to_owned(),
            );
        }
    }
}
