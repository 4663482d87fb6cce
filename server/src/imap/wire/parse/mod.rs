//! Grammar: the bytes of one whole command → [`Tagged`].
//!
//! Invariants, each with the test that guards it:
//! - no bytes make it panic (`tests::fuzz`), and it recurses only where nesting is counted (`search::tests::nesting_is_limited`)
//! - what imap-codec accepts is accepted with the same meaning (`tests::oracle`)
//! - a complaint says what was expected and where, and never repeats a password (`complaints_say_what_and_where`)
//!
//! One file per family of commands. Beyond the grammar we take what clients really send: spaces at the end, double spaces,
//! any case, `]` in atoms, macros in parentheses, days with one digit.
//!
//! imap-codec covers the simple verbs (LOGIN, DELETE, LSUB, …) completely but reads none of them here, only in the tests: it
//! refuses a trailing space, takes names in UTF-8 either never or always (a feature of the build, where a session chooses with
//! ENABLE), and its one error says neither what is wrong nor where (`tests::oracle::why_imap_codec_is_only_the_oracle`). Two
//! grammars would also differ in what they tolerate from verb to verb.

use storage::{MailboxName, names::decode_utf7};

use self::cursor::{Cursor, Fail, Parsed};
use super::{
    command::{Command, MailboxArgument, SearchKey, Tagged},
    enabled::Enabled,
};

mod acl;
pub(super) mod append;
mod auth;
mod cursor;
mod fetch;
mod flags;
mod list;
mod mailbox;
mod metadata;
mod multisearch;
mod notify;
mod quota;
mod search;
mod sequence;
mod sort;
#[cfg(test)]
mod tests;

pub use auth::{SaslLine, sasl_line};
pub(super) use cursor::is_atom_char;
pub(super) use fetch::section_of;

/// How to read commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What the client enabled: with UTF-8, mailbox names are not modified UTF-7.
    pub enabled: Enabled,
    /// Deepest nesting of SEARCH keys (each NOT, OR and parenthesis counts); at most [`NESTING_MAX`].
    pub nesting: usize,
}

/// Deepest nesting that can be configured: who walks the keys recurses this deep, on a thread's 2 MiB of stack.
pub const NESTING_MAX: usize = 200;

/// Why a command can't be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The command's tag, if that was readable; otherwise answer untagged.
    pub tag: Option<String>,
    /// What was expected and where.
    pub reason: String,
    /// How to answer.
    pub kind: ParseErrorKind,
}

/// How to answer a command that can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// BAD.
    Bad,
    /// `NO [BADCHARSET (…)]` with these.
    BadCharset(&'static [&'static str]),
    /// The same, and what SEARCH RETURN (SAVE) saved before is forgotten (RFC 5182 §2.1).
    BadCharsetForSaving(&'static [&'static str]),
    /// `BAD [BADCHARSET (…)]` with these (RFC 5466 §3.1).
    BadCharsetForFilter(&'static [&'static str]),
    /// `NO [USEATTR]` (RFC 6154 §3): CREATE with a special use that is not known here.
    UnknownUse,
}

/// Reads one command as [`super::framing::Step::Command`] gives it: without the final line end.
pub fn parse(bytes: &[u8], options: Options) -> Result<Tagged, ParseError> {
    let mut cursor = Cursor::new(bytes, options);
    let refuse = |tag, fail: Fail| ParseError { tag, reason: fail.reason, kind: fail.kind };
    let tag = cursor.tag().map_err(|fail| refuse(None, fail))?;
    match command(&mut cursor, &tag) {
        Ok(command) => Ok(Tagged { tag, command }),
        Err(fail) => Err(refuse(Some(tag), fail)),
    }
}

/// Reads search keys that are kept under a name, in UTF-8; `None`: they are none, or not complete.
pub fn search_keys(text: &[u8], options: Options) -> Option<SearchKey> {
    let mut cursor = Cursor::new(text, options);
    let keys = search::keys(&mut cursor, None).ok()?;
    cursor.end().ok()?;
    Some(keys)
}

/// The tag at the start of a command that is otherwise not read.
pub(super) fn tag_of(bytes: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(bytes, Options { enabled: Enabled::NOTHING, nesting: 0 });
    cursor.tag().ok().filter(|_| cursor.peek() == Some(b' '))
}

fn command(cursor: &mut Cursor<'_>, tag: &str) -> Parsed<Command> {
    cursor.space()?;
    let verb = cursor.atom("a command")?.to_ascii_uppercase();
    let command = match verb.as_str() {
        "CAPABILITY" => Command::Capability,
        "NOOP" => Command::Noop,
        "LOGOUT" => Command::Logout,
        "STARTTLS" => Command::StartTls,
        "UNAUTHENTICATE" => Command::Unauthenticate,
        "NAMESPACE" => Command::Namespace,
        "IDLE" => Command::Idle,
        "CHECK" => Command::Check,
        "CLOSE" => Command::Close,
        "UNSELECT" => Command::Unselect,
        "EXPUNGE" => Command::Expunge,
        "UID" => {
            cursor.space()?;
            let verb = cursor.atom("a command after UID")?.to_ascii_uppercase();
            match verb.as_str() {
                "EXPUNGE" => {
                    cursor.space()?;
                    Command::UidExpunge(cursor.sequence_set()?)
                }
                "REPLACE" => Command::Append(Box::new(append::whole(cursor, tag.to_owned(), append::Verb::Replace { uid: true })?)),
                _ => on_messages(cursor, &verb, true)?,
            }
        }
        "NOTIFY" => {
            cursor.space()?;
            Command::Notify(notify::notify(cursor)?)
        }
        "CANCELUPDATE" => {
            let mut tags = Vec::new();
            while cursor.more() {
                tags.push(String::from_utf8_lossy(&cursor.astring("a tag")?).into_owned());
            }
            if tags.is_empty() {
                return Err(cursor.expected("a tag"));
            }
            Command::CancelUpdate(tags)
        }
        "COMPRESS" => {
            cursor.space()?;
            Command::Compress(cursor.atom("a compression algorithm")?.to_ascii_uppercase())
        }
        "ID" | "AUTHENTICATE" | "LOGIN" | "ENABLE" => {
            cursor.space()?;
            auth::command(cursor, &verb)?
        }
        "SELECT" | "EXAMINE" | "CREATE" | "DELETE" | "RENAME" | "SUBSCRIBE" | "UNSUBSCRIBE" | "STATUS" => {
            cursor.space()?;
            mailbox::command(cursor, &verb)?
        }
        "GETQUOTA" | "GETQUOTAROOT" | "SETQUOTA" => {
            cursor.space()?;
            quota::command(cursor, &verb)?
        }
        "SETACL" | "DELETEACL" | "GETACL" | "LISTRIGHTS" | "MYRIGHTS" => {
            cursor.space()?;
            acl::command(cursor, &verb)?
        }
        "GETMETADATA" | "SETMETADATA" => {
            cursor.space()?;
            metadata::command(cursor, &verb)?
        }
        "LIST" | "LSUB" => {
            cursor.space()?;
            list::command(cursor, &verb)?
        }
        // The framer takes those with content in a literal; what is here must do without.
        "APPEND" => Command::Append(Box::new(append::whole(cursor, tag.to_owned(), append::Verb::Append)?)),
        "REPLACE" => Command::Append(Box::new(append::whole(cursor, tag.to_owned(), append::Verb::Replace { uid: false })?)),
        "ESEARCH" => {
            cursor.space()?;
            Command::Esearch(Box::new(multisearch::esearch(cursor)?))
        }
        _ => on_messages(cursor, &verb, false)?,
    };
    cursor.end()?;
    Ok(command)
}

/// The commands that also have a UID form.
fn on_messages(cursor: &mut Cursor<'_>, verb: &str, uid: bool) -> Parsed<Command> {
    match verb {
        "SEARCH" => {
            cursor.space()?;
            Ok(Command::Search { uid, search: search::search(cursor)? })
        }
        "SORT" => {
            cursor.space()?;
            Ok(Command::Sort { uid, sort: sort::sort(cursor)? })
        }
        "THREAD" => {
            cursor.space()?;
            Ok(Command::Thread { uid, thread: sort::thread(cursor)? })
        }
        "FETCH" => {
            cursor.space()?;
            fetch::fetch(cursor, uid)
        }
        "STORE" => {
            cursor.space()?;
            flags::store(cursor, uid)
        }
        "COPY" | "MOVE" => {
            cursor.space()?;
            let set = cursor.sequence_set()?;
            cursor.space()?;
            let mailbox = cursor.mailbox()?;
            Ok(if verb == "COPY" { Command::Copy { uid, set, mailbox } } else { Command::Move { uid, set, mailbox } })
        }
        _ => {
            let shown: String = verb.chars().take(UNKNOWN_VERB_SHOWN_MAX).collect();
            Err(Fail::new(format!("unknown command {}{shown}", if uid { "UID " } else { "" })))
        }
    }
}

/// How much of an unknown command word is repeated.
const UNKNOWN_VERB_SHOWN_MAX: usize = 32;

impl Cursor<'_> {
    /// Reads a mailbox name.
    fn mailbox(&mut self) -> Parsed<MailboxArgument> {
        let name = self.astring("a mailbox name")?;
        Ok(mailbox_argument(&name, self.options.enabled))
    }
}

fn mailbox_argument(name: &[u8], enabled: Enabled) -> MailboxArgument {
    let text = match name_text(name, enabled) {
        Ok(text) => text,
        Err(reason) => return MailboxArgument::Impossible(reason.to_owned()),
    };
    match MailboxName::parse(&text) {
        Ok(name) if enabled.rev2 && name.as_str() != text => MailboxArgument::Renamed { name, written: text },
        Ok(name) => MailboxArgument::Valid(name),
        Err(error) => MailboxArgument::Impossible(error.to_string()),
    }
}

/// What a client wrote as (a part or pattern of) a mailbox name, in UTF-8; or why no mailbox can be called so.
fn name_text(name: &[u8], enabled: Enabled) -> Result<String, &'static str> {
    let text = std::str::from_utf8(name).map_err(|_| "the mailbox name is not valid UTF-8")?;
    // Decoded first: modified UTF-7 has no separator of its own, and "," instead of "/".
    let text = decoded(text, enabled)?;
    Ok(enabled.separator.read(&text)?.into_owned())
}

fn decoded(text: &str, enabled: Enabled) -> Result<String, &'static str> {
    if enabled.utf8() {
        // RFC 6855 §3: names are UTF-8 then, so that `&` is an ordinary character.
        Ok(text.to_owned())
    } else if !text.is_ascii() {
        Err("mailbox names with characters beyond ASCII are written in modified UTF-7 (RFC 3501, 5.1.3)")
    } else if !text.contains('&') {
        Ok(text.to_owned())
    } else {
        decode_utf7(text).ok_or("the mailbox name is not valid modified UTF-7 (RFC 3501, 5.1.3)")
    }
}
