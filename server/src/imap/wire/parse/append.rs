//! APPEND (RFC 3501 §6.3.11, RFC 3502, RFC 4469, RFC 6855 §4) and REPLACE (RFC 8508). Messages are streamed, so the framer asks at each literal what it is.

use super::{
    Options,
    cursor::{Cursor, Fail, Parsed},
    flags,
};
use crate::imap::wire::{
    command::{AppendLine, AppendPiece, AppendStart, FlagArgument, MailboxArgument, Replaced},
    date::parse_date_time,
    enabled::Enabled,
};

/// What comes before the first literal that is content.
#[derive(Debug)]
pub(crate) struct Head {
    pub tag: String,
    pub replaces: Option<Replaced>,
    pub mailbox: MailboxArgument,
    pub pieces: Vec<AppendPiece>,
    pub inside: Inside,
}

/// What stands around a literal that is content, and must be closed after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Nothing: the literal is the message.
    Nothing,
    /// `UTF8 (…)`.
    Utf8,
    /// `CATENATE (… TEXT …)`.
    Catenate,
    /// `CATENATE (… UTF8 (…) …)`.
    CatenateUtf8,
}

/// What a literal is that was announced after some part of a command.
#[derive(Debug)]
pub(crate) enum Announced {
    /// An argument: APPEND's mailbox or a flag, or one of another command.
    Argument { of_append: bool },
    /// The first content of this APPEND.
    Start(Head),
    /// More content of an APPEND, after these pieces. Where no literal was announced: its end.
    Content(Vec<AppendPiece>, Inside),
}

/// Judges the literal that is announced right after `head`.
pub(crate) fn announced_after(head: &[u8], options: Options) -> Parsed<Announced> {
    let mut cursor = Cursor::new(head, options);
    let Ok(tag) = cursor.tag() else { return Ok(Announced::Argument { of_append: false }) };
    let Some(verb) = verb(&mut cursor) else { return Ok(Announced::Argument { of_append: false }) };
    let replaces = replaces(&mut cursor, verb)?;
    if cursor.peek().is_none() {
        return Ok(Announced::Argument { of_append: true }); // the mailbox
    }
    let mailbox = cursor.mailbox()?;
    cursor.space()?;
    Ok(match messages(&mut cursor, At::Message, true)? {
        (_, Ends::InArgument) => Announced::Argument { of_append: true },
        (pieces, Ends::Before(inside)) => Announced::Start(Head { tag, replaces, mailbox, pieces, inside }),
    })
}

/// Judges what follows content that was inside of `inside`: up to a literal (`announced`), or to the end of the command.
pub(crate) fn continued(line: &[u8], inside: Inside, announced: bool, enabled: Enabled) -> Parsed<Announced> {
    let mut cursor = Cursor::new(line, Options { enabled, nesting: 0 });
    Ok(match messages(&mut cursor, At::After(inside), announced)? {
        (_, Ends::InArgument) => Announced::Argument { of_append: true },
        (pieces, Ends::Before(inside)) => Announced::Content(pieces, inside),
    })
}

/// Reads an APPEND or REPLACE without a literal that is content, after its verb.
pub(super) fn whole(cursor: &mut Cursor<'_>, tag: String, verb: Verb) -> Parsed<AppendStart> {
    let replaces = replaces(cursor, verb)?;
    let mailbox = cursor.mailbox()?;
    cursor.space()?;
    let (pieces, _) = messages(cursor, At::Message, false)?;
    Ok(AppendStart { tag, replaces, mailbox, line: AppendLine { pieces, literal: None } })
}

/// A place in what an APPEND says of its messages.
enum At {
    /// Before a message.
    Message,
    /// Before content of a message that is put together.
    Part,
    /// After content.
    After(Inside),
}

/// What what was read ends before.
enum Ends {
    /// A literal that is an argument.
    InArgument,
    /// A literal that is content; without one, the end of the command.
    Before(Inside),
}

/// Reads what an APPEND says of its messages, to the end of what is there. `announced`: a literal follows.
fn messages(cursor: &mut Cursor<'_>, mut at: At, announced: bool) -> Parsed<(Vec<AppendPiece>, Ends)> {
    let mut pieces = Vec::new();
    loop {
        at = match at {
            At::Message => {
                let mut flags = Vec::new();
                if cursor.peek() == Some(b'(') {
                    match flags_so_far(cursor)? {
                        Some(all) => flags = all,
                        None if announced => return Ok((pieces, Ends::InArgument)),
                        None => return Err(cursor.expected("a flag or \")\"")),
                    }
                    cursor.space()?;
                }
                let date = optional_date_time(cursor)?;
                pieces.push(AppendPiece::Message { flags, date });
                match cursor.peek() {
                    None if announced => return Ok((pieces, Ends::Before(Inside::Nothing))),
                    None => return Err(Fail::new("APPEND ends with the message as a literal, as in {310}")),
                    Some(_) if cursor.take_word("UTF8") => {
                        cursor.space()?;
                        cursor.require(b'(', "\"(\" and the message as a literal, as in UTF8 (~{310}")?;
                        return content(cursor, pieces, announced, Inside::Utf8);
                    }
                    Some(_) if cursor.take_word("CATENATE") => {
                        cursor.space()?;
                        cursor.require(b'(', "\"(\" and the message's parts, as in CATENATE (URL \"/INBOX/;UID=7\" TEXT {310}")?;
                        At::Part
                    }
                    Some(_) => return Err(cursor.expected("flags, a date-time or the message as a literal")),
                }
            }
            At::Part if cursor.take_word("URL") => {
                cursor.space()?;
                if announced && cursor.peek().is_none() {
                    return Ok((pieces, Ends::InArgument));
                }
                let url = cursor.astring("an IMAP URL")?;
                pieces.push(AppendPiece::Url(String::from_utf8_lossy(&url).into_owned()));
                At::After(Inside::Catenate)
            }
            At::Part if cursor.take_word("TEXT") => {
                cursor.space()?;
                return content(cursor, pieces, announced, Inside::Catenate);
            }
            At::Part if cursor.take_word("UTF8") => {
                cursor.space()?;
                cursor.require(b'(', "\"(\" and a literal, as in UTF8 (~{310}")?;
                return content(cursor, pieces, announced, Inside::CatenateUtf8);
            }
            At::Part => return Err(cursor.expected("URL or TEXT")),
            At::After(Inside::Catenate) => {
                if cursor.take(b')') {
                    At::After(Inside::Nothing)
                } else {
                    cursor.space()?;
                    At::Part
                }
            }
            At::After(Inside::CatenateUtf8) => {
                cursor.require(b')', "\")\" after the literal")?;
                At::After(Inside::Catenate)
            }
            At::After(Inside::Utf8) => {
                cursor.require(b')', "\")\" after the message")?;
                At::After(Inside::Nothing)
            }
            At::After(Inside::Nothing) => {
                let spaced = cursor.peek() == Some(b' ');
                cursor.skip_spaces();
                if cursor.peek().is_none() && !announced {
                    return Ok((pieces, Ends::Before(Inside::Nothing)));
                }
                if !spaced {
                    return Err(cursor.expected("the end of APPEND, or a space and a further message"));
                }
                At::Message
            }
        };
    }
}

/// The literal that is content must come now.
fn content(cursor: &Cursor<'_>, pieces: Vec<AppendPiece>, announced: bool, inside: Inside) -> Parsed<(Vec<AppendPiece>, Ends)> {
    if announced && cursor.peek().is_none() { Ok((pieces, Ends::Before(inside))) } else { Err(cursor.expected("a literal, as in ~{310}")) }
}

fn replaces(cursor: &mut Cursor<'_>, verb: Verb) -> Parsed<Option<Replaced>> {
    cursor.space()?;
    match verb {
        Verb::Append => Ok(None),
        Verb::Replace { uid } => {
            let message = cursor.sequence_bound()?;
            cursor.space()?;
            Ok(Some(Replaced { uid, message }))
        }
    }
}

/// Which command a message is the argument of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Append,
    Replace { uid: bool },
}

/// Reads the command word; `None`: one that takes no message.
fn verb(cursor: &mut Cursor<'_>) -> Option<Verb> {
    let mut word = || {
        cursor.space().ok()?;
        cursor.atom("a command").ok().map(|word| word.to_ascii_uppercase())
    };
    match word()?.as_str() {
        "APPEND" => Some(Verb::Append),
        "REPLACE" => Some(Verb::Replace { uid: false }),
        "UID" if word()? == "REPLACE" => Some(Verb::Replace { uid: true }),
        _ => None,
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
