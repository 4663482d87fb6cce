//! Flags, and STORE (RFC 3501 §6.4.6, RFC 7162 §3.1.3).

use index::Flag;

use super::cursor::{Cursor, Fail, Parsed};
use crate::imap::wire::command::{Command, FlagArgument, StoreHow};

pub(super) fn store(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Command> {
    let set = cursor.sequence_set()?;
    cursor.space()?;
    let mut unchanged_since = None;
    if cursor.peek() == Some(b'(') {
        cursor.parenthesised("a list of modifiers", |cursor| match cursor.word().as_str() {
            "UNCHANGEDSINCE" => {
                cursor.space()?;
                unchanged_since = Some(cursor.number("a MODSEQ")?);
                Ok(())
            }
            _ => Err(Fail::new("the only modifier of STORE is UNCHANGEDSINCE")),
        })?;
        cursor.space()?;
    }
    let how = match cursor.peek() {
        Some(b'+') => StoreHow::Add,
        Some(b'-') => StoreHow::Remove,
        _ => StoreHow::Replace,
    };
    if how != StoreHow::Replace {
        cursor.advance(1);
    }
    let start = cursor.position();
    let silent = match cursor.word().as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(cursor.expected_at(start, "FLAGS or FLAGS.SILENT, with + or - before it or without")),
    };
    cursor.space()?;
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        flags = list(cursor)?;
    } else {
        flags.push(flag(cursor)?);
        while cursor.more() {
            flags.push(flag(cursor)?);
        }
    }
    Ok(Command::Store { uid, set, unchanged_since, how, silent, flags })
}

/// Reads `flag-list`.
pub(super) fn list(cursor: &mut Cursor<'_>) -> Parsed<Vec<FlagArgument>> {
    let mut flags = Vec::new();
    cursor.parenthesised("a list of flags", |cursor| {
        flags.push(flag(cursor)?);
        Ok(())
    })?;
    Ok(flags)
}

/// Reads `flag`; a keyword may also be a string, as some clients write it.
pub(super) fn flag(cursor: &mut Cursor<'_>) -> Parsed<FlagArgument> {
    match cursor.peek() {
        Some(b'\\') => {
            cursor.advance(1);
            system_flag(&cursor.atom("a flag's name after \"\\\"")?)
        }
        Some(b'"' | b'{') => {
            let text = cursor.string("a flag")?;
            let mut inner = Cursor::new(&text, cursor.options);
            let flag = if inner.take(b'\\') { system_flag(&inner.atom("a flag")?)? } else { keyword(&mut inner)? };
            if inner.peek().is_some() { Err(Fail::new("a flag has characters that no flag can have")) } else { Ok(flag) }
        }
        _ => keyword(cursor),
    }
}

/// Reads `flag-keyword`.
pub(super) fn keyword(cursor: &mut Cursor<'_>) -> Parsed<FlagArgument> {
    cursor.atom("a flag or keyword").map(FlagArgument::Keyword)
}

fn system_flag(name: &str) -> Parsed<FlagArgument> {
    let flag = match name.to_ascii_uppercase().as_str() {
        "ANSWERED" => Flag::Answered,
        "FLAGGED" => Flag::Flagged,
        "DELETED" => Flag::Deleted,
        "SEEN" => Flag::Seen,
        "DRAFT" => Flag::Draft,
        "RECENT" => return Err(Fail::new("\\Recent can't be changed by a client")),
        _ => return Err(Fail::new("unknown system flag: there are \\Answered, \\Flagged, \\Deleted, \\Seen and \\Draft")),
    };
    Ok(FlagArgument::System(flag))
}
