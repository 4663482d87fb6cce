//! APPEND up to its message (RFC 3501 §6.3.11). The message is streamed, so the framer asks at each literal what it is.

use super::{
    Options,
    cursor::{Cursor, Fail, Parsed},
    flags,
};
use crate::imap::wire::{
    command::{FlagArgument, MailboxArgument},
    date::parse_date_time,
};

/// What comes before the message.
#[derive(Debug)]
pub(crate) struct Head {
    pub tag: String,
    pub mailbox: MailboxArgument,
    pub flags: Vec<FlagArgument>,
    pub date: Option<i64>,
}

/// What a literal is that was announced after some part of a command.
#[derive(Debug)]
pub(crate) enum Announced {
    /// An argument: APPEND's mailbox or a flag, or one of another command.
    Argument { of_append: bool },
    /// The message of this APPEND.
    Message(Head),
}

/// Judges the literal that is announced right after `head`.
pub(crate) fn announced_after(head: &[u8], options: Options) -> Parsed<Announced> {
    let mut cursor = Cursor::new(head, options);
    let Ok(tag) = cursor.tag() else { return Ok(Announced::Argument { of_append: false }) };
    if cursor.space().is_err() || !cursor.atom("a command").is_ok_and(|verb| verb.eq_ignore_ascii_case("APPEND")) {
        return Ok(Announced::Argument { of_append: false });
    }
    cursor.space()?;
    if cursor.peek().is_none() {
        return Ok(Announced::Argument { of_append: true }); // the mailbox
    }
    let mailbox = cursor.mailbox()?;
    cursor.space()?;
    let mut start = Head { tag, mailbox, flags: Vec::new(), date: None };
    if cursor.peek() == Some(b'(') {
        let Some(flags) = flags_so_far(&mut cursor)? else { return Ok(Announced::Argument { of_append: true }) };
        start.flags = flags;
        cursor.space()?;
    }
    start.date = optional_date_time(&mut cursor)?;
    match cursor.peek() {
        None => Ok(Announced::Message(start)),
        Some(b'U' | b'u') => Err(Fail::new("APPEND UTF8 (...) is not offered: send the message as a plain literal")),
        Some(b'C' | b'c') => Err(Fail::new("CATENATE is not offered: send the message as one literal")),
        Some(_) => Err(cursor.expected("flags, a date-time or the message as a literal")),
    }
}

/// What stands between a message and the next one's literal (RFC 3502).
pub(crate) fn next_message(line: &[u8]) -> Parsed<(Vec<FlagArgument>, Option<i64>)> {
    let mut cursor = Cursor::new(line, Options { utf8: false, nesting: 0 });
    cursor.space()?;
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        flags = flags::list(&mut cursor)?;
        cursor.space()?;
    }
    let date = optional_date_time(&mut cursor)?;
    if cursor.peek().is_some() { Err(cursor.expected("flags, a date-time or the message as a literal")) } else { Ok((flags, date)) }
}

/// Why an APPEND without a message is not one.
pub(super) fn why_incomplete(cursor: &mut Cursor<'_>) -> Fail {
    let mut arguments = || {
        cursor.space()?;
        cursor.mailbox()?;
        cursor.space()?;
        if cursor.peek() == Some(b'(') {
            flags::list(cursor)?;
            cursor.space()?;
        }
        if cursor.peek() == Some(b'"') {
            date_time(cursor)?;
            cursor.space()?;
        }
        Ok(())
    };
    match arguments() {
        Err(fail) => fail,
        Ok(()) => Fail::new("APPEND ends with the message as a literal, as in {310}"),
    }
}

/// Reads the flags; `None`: the list is not closed yet, the literal is a flag.
fn flags_so_far(cursor: &mut Cursor<'_>) -> Parsed<Option<Vec<FlagArgument>>> {
    cursor.require(b'(', "a list of flags")?;
    let mut read = Vec::new();
    loop {
        cursor.skip_spaces();
        if cursor.peek().is_none() {
            return Ok(None);
        }
        if cursor.take(b')') {
            return Ok(Some(read));
        }
        read.push(flags::flag(cursor)?);
        if !matches!(cursor.peek(), Some(b' ' | b')')) {
            return Err(cursor.expected("a space or \")\""));
        }
    }
}

fn optional_date_time(cursor: &mut Cursor<'_>) -> Parsed<Option<i64>> {
    if cursor.peek() != Some(b'"') {
        return Ok(None);
    }
    let date = date_time(cursor)?;
    cursor.space()?;
    Ok(Some(date))
}

fn date_time(cursor: &mut Cursor<'_>) -> Parsed<i64> {
    let text = cursor.string("a date-time")?;
    parse_date_time(&text).ok_or_else(|| Fail::new("the date-time is not like \"17-Jul-2026 02:44:25 -0700\", or no such day exists"))
}
