//! Response codes: `[UIDNEXT 7]` and the like.

use bytes::BytesMut;
use index::{ModSeq, Uid, UidValidity};

/// A response code, RFC 3501 §7.1 unless another is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum Code<'a> {
    Alert,
    /// RFC 5530.
    AlreadyExists,
    /// RFC 4315; one UID, or those of a MULTIAPPEND, ascending.
    AppendUid { validity: UidValidity, uids: &'a [Uid] },
    /// RFC 5530.
    AuthenticationFailed,
    /// RFC 5530.
    AuthorizationFailed,
    BadCharset(&'a [&'a str]),
    /// RFC 5530.
    Cannot,
    Capability(&'a [&'a str]),
    /// RFC 5530.
    ClientBug,
    /// RFC 7162.
    Closed,
    /// RFC 5530.
    ContactAdmin,
    /// RFC 4315: old and new UID, both ascending.
    CopyUid { validity: UidValidity, pairs: &'a [(Uid, Uid)] },
    /// RFC 5530.
    Corruption,
    /// RFC 5530.
    ExpungeIssued,
    /// RFC 9051.
    HasChildren,
    /// RFC 7162.
    HighestModSeq(ModSeq),
    /// RFC 5530.
    InUse,
    /// RFC 5530.
    Limit,
    /// RFC 7162: sequence numbers or UIDs, ascending.
    Modified(&'a [u32]),
    /// RFC 7162.
    NoModSeq,
    /// RFC 5530.
    Nonexistent,
    /// RFC 5530.
    NoPerm,
    /// RFC 5530.
    OverQuota,
    Parse,
    /// The system flags and these keywords; `more`: `\*`.
    PermanentFlags { keywords: &'a [String], more: bool },
    /// `PERMANENTFLAGS ()`: a mailbox that is open read-only.
    NoPermanentFlags,
    /// RFC 5530.
    PrivacyRequired,
    ReadOnly,
    ReadWrite,
    /// RFC 5530.
    ServerBug,
    /// RFC 4469, 7888.
    TooBig,
    TryCreate,
    UidNext(u32),
    UidValidity(UidValidity),
    /// RFC 5530.
    Unavailable,
    /// RFC 3516.
    UnknownCte,
    /// The first unseen message's sequence number.
    Unseen(u32),
    /// RFC 6154.
    UseAttr,
}

impl Code<'_> {
    /// Writes the code without its brackets.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let _ = out;
        todo!()
    }
}
