//! Mailbox name ↔ Maildir++ folder: `Archive/2026` ↔ `.Archive.2026` (modified UTF-7 on disk, as existing servers write it).

use std::fmt;

use crate::StorageError;

/// Longest mailbox name in bytes of UTF-8, so that its folder fits into one file name even as modified UTF-7.
pub const MAILBOX_NAME_BYTES_MAX: usize = 180;
/// Deepest mailbox hierarchy.
pub const MAILBOX_DEPTH_MAX: usize = 32;

/// A mailbox name in UTF-8 (NFC), levels separated by `/`; INBOX in capitals. Only [`MailboxName::parse`] makes one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MailboxName(String);

impl MailboxName {
    /// The inbox.
    pub fn inbox() -> MailboxName {
        MailboxName("INBOX".to_owned())
    }
    /// Checks a name in UTF-8 (the protocol decodes modified UTF-7 first).
    pub fn parse(utf8: &str) -> Result<MailboxName, StorageError> {
        let _ = utf8;
        todo!()
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it is the inbox.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }
    /// The name one level up.
    pub fn parent(&self) -> Option<MailboxName> {
        self.0.rsplit_once('/').map(|(parent, _)| MailboxName(parent.to_owned()))
    }
    /// Whether `self` lies below `other`.
    pub fn is_below(&self, other: &MailboxName) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}
impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Modified UTF-7 (RFC 3501 §5.1.3) of `utf8`.
pub fn encode_utf7(utf8: &str) -> String {
    let _ = utf8;
    todo!()
}
/// Decodes modified UTF-7; `None` for what is not canonical (printable ASCII inside `&…-`, unfinished shifts, lone surrogates).
pub fn decode_utf7(encoded: &str) -> Option<String> {
    let _ = encoded;
    todo!()
}
