//! Response codes: `[UIDNEXT 7]` and the like.

use bytes::{BufMut, BytesMut};
use index::{FlagSet, ModSeq, Uid, UidValidity};

use super::{
    fetch::{SYSTEM_FLAGS, parenthesised, writable},
    primitives::{number, quoted, uid_set},
};

/// A response code, RFC 3501 §7.1 unless another is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFCs")]
pub enum Code<'a> {
    Alert,
    /// RFC 5530.
    AlreadyExists,
    /// RFC 4315; one UID, or those of a MULTIAPPEND, ascending.
    AppendUid {
        validity: UidValidity,
        uids: &'a [Uid],
    },
    /// RFC 5530.
    AuthenticationFailed,
    /// RFC 5530.
    AuthorizationFailed,
    BadCharset(&'a [&'a str]),
    /// RFC 4469: as the client wrote it.
    BadUrl(&'a str),
    /// RFC 5465, with the events that are known.
    BadEvent,
    /// RFC 5530.
    Cannot,
    Capability(&'a [&'a str]),
    /// RFC 5530.
    ClientBug,
    /// RFC 7162.
    Closed,
    /// RFC 4978.
    CompressionActive,
    /// RFC 5530.
    ContactAdmin,
    /// RFC 4315: old and new UID, both ascending.
    CopyUid {
        validity: UidValidity,
        pairs: &'a [(Uid, Uid)],
    },
    /// RFC 5530.
    Corruption,
    /// RFC 5530.
    ExpungeIssued,
    /// RFC 9051.
    HasChildren,
    /// RFC 7162.
    HighestModSeq(ModSeq),
    /// RFC 9585: the command's tag, and how much is done of how much where that is known.
    InProgress {
        tag: &'a str,
        of: Option<(u32, u32)>,
    },
    /// RFC 5530.
    InUse,
    /// RFC 5530.
    Limit,
    /// RFC 9738: how many messages one command works on, and the last one that it got to, if that is known.
    MessageLimit {
        limit: u32,
        lowest: Option<Uid>,
    },
    /// RFC 8474.
    MailboxId(&'a str),
    /// RFC 5464: the size of the largest value that MAXSIZE left out.
    MetadataLongEntries(u64),
    /// RFC 5464: the largest value that is taken.
    MetadataMaxSize(u64),
    /// RFC 5464.
    MetadataTooMany,
    /// RFC 7162: sequence numbers or UIDs, ascending.
    Modified(&'a [u32]),
    /// RFC 7162.
    NoModSeq,
    /// RFC 5530.
    Nonexistent,
    /// RFC 5530.
    NoPerm,
    /// RFC 5465.
    NotificationOverflow,
    /// RFC 5267: the tag of a command whose results are not kept up to date.
    NoUpdate(&'a str),
    /// RFC 5530.
    OverQuota,
    /// As another node wrote it, whole.
    Passed(&'a str),
    Parse,
    /// Those of the system flags and these keywords; `more`: `\*`.
    PermanentFlags {
        system: FlagSet,
        keywords: &'a [String],
        more: bool,
    },
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
    /// RFC 9586.
    UidRequired,
    /// RFC 3516.
    UnknownCte,
    /// RFC 5466: as the client wrote it.
    UndefinedFilter(&'a str),
    /// The first unseen message's sequence number.
    Unseen(u32),
    /// RFC 6154.
    UseAttr,
}

/// How much of a URL is repeated: it shows which one it was.
const URL_BYTES_MAX: usize = 1000;

impl Code<'_> {
    /// Writes the code without its brackets.
    pub(super) fn write(&self, out: &mut BytesMut) {
        match self {
            Code::AppendUid { validity, uids } => {
                out.put_slice(b"APPENDUID ");
                number(out, validity.get().into());
                out.put_u8(b' ');
                uid_set(out, uids.iter().map(|uid| uid.get()));
            }
            Code::BadCharset(charsets) => {
                out.put_slice(b"BADCHARSET ");
                parenthesised(out, charsets.iter().copied());
            }
            Code::BadUrl(url) => {
                out.put_slice(b"BADURL ");
                // What a response code can't hold is no part of a URL either.
                let shown = |byte: u8| if byte.is_ascii_graphic() && byte != b']' { byte } else { b'?' };
                out.extend(url.bytes().take(URL_BYTES_MAX).map(shown));
            }
            Code::Capability(capabilities) => {
                out.put_slice(b"CAPABILITY");
                for capability in *capabilities {
                    out.put_u8(b' ');
                    out.put_slice(capability.as_bytes());
                }
            }
            Code::CopyUid { validity, pairs } => {
                out.put_slice(b"COPYUID ");
                number(out, validity.get().into());
                out.put_u8(b' ');
                uid_set(out, pairs.iter().map(|(old, _)| old.get()));
                out.put_u8(b' ');
                uid_set(out, pairs.iter().map(|(_, new)| new.get()));
            }
            Code::HighestModSeq(modseq) => numbered(out, "HIGHESTMODSEQ ", modseq.get()),
            Code::MailboxId(id) => {
                out.put_slice(b"MAILBOXID ");
                super::object_id(out, id);
            }
            Code::MessageLimit { limit, lowest } => {
                numbered(out, "MESSAGELIMIT ", (*limit).into());
                if let Some(lowest) = lowest {
                    out.put_u8(b' ');
                    number(out, lowest.get().into());
                }
            }
            Code::MetadataLongEntries(size) => numbered(out, "METADATA LONGENTRIES ", *size),
            Code::MetadataMaxSize(size) => numbered(out, "METADATA MAXSIZE ", *size),
            Code::Modified(numbers) => {
                out.put_slice(b"MODIFIED ");
                uid_set(out, numbers.iter().copied());
            }
            Code::Passed(code) => out.put_slice(code.as_bytes()),
            Code::NoPermanentFlags => out.put_slice(b"PERMANENTFLAGS ()"),
            Code::PermanentFlags { system, keywords, more } => {
                out.put_slice(b"PERMANENTFLAGS ");
                let system = SYSTEM_FLAGS.iter().filter(|(flag, _)| system.contains(*flag)).map(|(_, name)| *name);
                parenthesised(out, system.chain(writable(keywords.iter())).chain(more.then_some("\\*")));
            }
            Code::InProgress { tag, of } => {
                out.put_slice(b"INPROGRESS (");
                quoted(out, tag.as_bytes());
                match of {
                    Some((done, goal)) => {
                        out.put_u8(b' ');
                        number(out, (*done).into());
                        out.put_u8(b' ');
                        number(out, (*goal).into());
                    }
                    None => out.put_slice(b" NIL NIL"),
                }
                out.put_u8(b')');
            }
            Code::NoUpdate(tag) => {
                out.put_slice(b"NOUPDATE ");
                quoted(out, tag.as_bytes());
            }
            Code::UndefinedFilter(name) => {
                out.put_slice(b"UNDEFINED-FILTER ");
                out.put_slice(name.as_bytes());
            }
            Code::UidNext(next) => numbered(out, "UIDNEXT ", (*next).into()),
            Code::UidValidity(validity) => numbered(out, "UIDVALIDITY ", validity.get().into()),
            Code::Unseen(sequence) => numbered(out, "UNSEEN ", (*sequence).into()),
            word => out.put_slice(word.bare_word().as_bytes()),
        }
    }

    /// The whole code, for those without arguments.
    fn bare_word(&self) -> &'static str {
        match self {
            Code::Alert => "ALERT",
            Code::AlreadyExists => "ALREADYEXISTS",
            Code::AppendUid { .. } => "APPENDUID",
            Code::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Code::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Code::BadCharset(_) => "BADCHARSET",
            Code::BadUrl(_) => "BADURL",
            Code::BadEvent => {
                "BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange)"
            }
            Code::Cannot => "CANNOT",
            Code::Capability(_) => "CAPABILITY",
            Code::ClientBug => "CLIENTBUG",
            Code::Closed => "CLOSED",
            Code::CompressionActive => "COMPRESSIONACTIVE",
            Code::ContactAdmin => "CONTACTADMIN",
            Code::CopyUid { .. } => "COPYUID",
            Code::Corruption => "CORRUPTION",
            Code::ExpungeIssued => "EXPUNGEISSUED",
            Code::HasChildren => "HASCHILDREN",
            Code::HighestModSeq(_) => "HIGHESTMODSEQ",
            Code::InProgress { .. } => "INPROGRESS",
            Code::InUse => "INUSE",
            Code::Limit => "LIMIT",
            Code::MailboxId(_) => "MAILBOXID",
            Code::MessageLimit { .. } => "MESSAGELIMIT",
            Code::MetadataLongEntries(_) => "METADATA LONGENTRIES",
            Code::MetadataMaxSize(_) => "METADATA MAXSIZE",
            Code::MetadataTooMany => "METADATA TOOMANY",
            Code::Modified(_) => "MODIFIED",
            Code::NoModSeq => "NOMODSEQ",
            Code::Nonexistent => "NONEXISTENT",
            Code::NoPerm => "NOPERM",
            Code::NotificationOverflow => "NOTIFICATIONOVERFLOW",
            Code::NoUpdate(_) => "NOUPDATE",
            Code::OverQuota => "OVERQUOTA",
            Code::Passed(_) | Code::Parse => "PARSE",
            Code::PermanentFlags { .. } | Code::NoPermanentFlags => "PERMANENTFLAGS",
            Code::PrivacyRequired => "PRIVACYREQUIRED",
            Code::ReadOnly => "READ-ONLY",
            Code::ReadWrite => "READ-WRITE",
            Code::ServerBug => "SERVERBUG",
            Code::TooBig => "TOOBIG",
            Code::TryCreate => "TRYCREATE",
            Code::UidNext(_) => "UIDNEXT",
            Code::UidValidity(_) => "UIDVALIDITY",
            Code::Unavailable => "UNAVAILABLE",
            Code::UidRequired => "UIDREQUIRED",
            Code::UnknownCte => "UNKNOWN-CTE",
            Code::UndefinedFilter(_) => "UNDEFINED-FILTER",
            Code::Unseen(_) => "UNSEEN",
            Code::UseAttr => "USEATTR",
        }
    }
}

fn numbered(out: &mut BytesMut, word: &str, value: u64) {
    out.put_slice(word.as_bytes());
    number(out, value);
}
