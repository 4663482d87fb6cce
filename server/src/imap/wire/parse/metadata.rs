//! GETMETADATA, SETMETADATA (RFC 5464 §5).

use storage::ANNOTATIONS_MAX;

use super::{
    cursor::{Cursor, Fail, Parsed},
    mailbox_argument,
};
use crate::imap::wire::command::{Command, Depth, GetMetadata, MailboxArgument};

/// Most entries of one command: no mailbox has more.
const ENTRIES_MAX: usize = ANNOTATIONS_MAX;
/// Longest name of an entry: each is repeated in answers.
const ENTRY_BYTES_MAX: usize = 512;

pub(super) fn command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    if verb == "GETMETADATA" { get(cursor).map(Command::GetMetadata) } else { set(cursor) }
}

fn get(cursor: &mut Cursor<'_>) -> Parsed<GetMetadata> {
    let mut get = GetMetadata { mailbox: None, entries: Vec::new(), size_max: None, depth: Depth::Zero };
    if cursor.peek() == Some(b'(') {
        options(cursor, &mut get)?;
        cursor.space()?;
    }
    get.mailbox = target(cursor)?;
    cursor.space()?;
    // The grammar has options before the mailbox, the examples after it.
    if cursor.rest().get(1).is_some_and(u8::is_ascii_alphabetic) && cursor.peek() == Some(b'(') {
        options(cursor, &mut get)?;
        cursor.space()?;
    }
    get.entries = entries(cursor)?;
    // An example has several without parentheses.
    while cursor.more() {
        push(&mut get.entries, entry(cursor, Use::Read)?)?;
    }
    Ok(get)
}

fn options(cursor: &mut Cursor<'_>, get: &mut GetMetadata) -> Parsed<()> {
    cursor.parenthesised("a list of options", |cursor| {
        let start = cursor.position();
        match cursor.word().as_str() {
            "MAXSIZE" => {
                cursor.space()?;
                get.size_max = Some(cursor.number("a number of bytes")?);
            }
            "DEPTH" => {
                cursor.space()?;
                let start = cursor.position();
                get.depth = match cursor.word().as_str() {
                    "0" => Depth::Zero,
                    "1" => Depth::One,
                    "INFINITY" => Depth::Infinity,
                    _ => return Err(cursor.expected_at(start, "0, 1 or infinity")),
                };
            }
            _ => return Err(cursor.expected_at(start, "MAXSIZE or DEPTH")),
        }
        Ok(())
    })
}

fn set(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let mailbox = target(cursor)?;
    cursor.space()?;
    let mut values: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    cursor.parenthesised("a list of entries and values", |cursor| {
        let entry = entry(cursor, Use::Write)?;
        if values.iter().any(|(other, _)| other.eq_ignore_ascii_case(&entry)) {
            return Err(Fail::new("an entry is named twice"));
        }
        if values.len() == ENTRIES_MAX {
            return Err(Fail::new(format!("there are more than {ENTRIES_MAX} entries")));
        }
        cursor.space()?;
        values.push((entry, cursor.nstring8("a value, or NIL")?.map(std::borrow::Cow::into_owned)));
        Ok(())
    })?;
    if values.is_empty() { Err(Fail::new("the list of entries is empty")) } else { Ok(Command::SetMetadata { mailbox, values }) }
}

/// The empty name is the server's.
fn target(cursor: &mut Cursor<'_>) -> Parsed<Option<MailboxArgument>> {
    let name = cursor.astring("a mailbox name, or \"\" for the server")?;
    Ok((!name.is_empty()).then(|| mailbox_argument(&name, cursor.options.enabled)))
}

/// Reads one entry to look for, or a list of them.
pub(super) fn entries(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    let mut entries = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.parenthesised("a list of entries", |cursor| push(&mut entries, entry(cursor, Use::Read)?))?;
    } else {
        entries.push(entry(cursor, Use::Read)?);
    }
    if entries.is_empty() { Err(Fail::new("the list of entries is empty")) } else { Ok(entries) }
}

fn push(entries: &mut Vec<String>, entry: String) -> Parsed<()> {
    if entries.iter().any(|other| other.eq_ignore_ascii_case(&entry)) {
        return Ok(());
    }
    if entries.len() == ENTRIES_MAX {
        return Err(Fail::new(format!("there are more than {ENTRIES_MAX} entries")));
    }
    entries.push(entry);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Also a level above entries, for DEPTH.
    Read,
    Write,
}

/// Reads the name of an entry (RFC 5464 §3.2).
fn entry(cursor: &mut Cursor<'_>, how: Use) -> Parsed<String> {
    let start = cursor.position();
    let name = cursor.astring("the name of an entry such as /private/comment")?;
    let Some(name) =
        std::str::from_utf8(&name).ok().filter(|name| name.bytes().all(|byte| matches!(byte, 0x1a..=0x7e) && !b"*%".contains(&byte)))
    else {
        return Err(Fail::new("the name of an entry has characters that none can have (RFC 5464, 3.2)"));
    };
    if name.len() > ENTRY_BYTES_MAX {
        return Err(Fail::new(format!("the name of an entry has more than {ENTRY_BYTES_MAX} bytes")));
    }
    let mut parts = name.split('/');
    let rooted = parts.next() == Some("");
    let parts: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    let levels = match parts.get(1).map(String::as_str) {
        Some("vendor") => 4,
        _ => 2,
    };
    let scoped = parts.first().is_some_and(|scope| ["private", "shared"].contains(&scope.as_str()));
    if !rooted || !scoped || parts.iter().any(String::is_empty) || (how == Use::Write && parts.len() < levels) {
        return Err(cursor.expected_at(start, "an entry such as /private/comment or /shared/vendor/<token>/<name>"));
    }
    Ok(name.to_owned())
}
