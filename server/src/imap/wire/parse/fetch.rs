//! FETCH (RFC 3501 §6.4.5, RFC 7162 §3.1.4, RFC 8970 §6, RFC 9394 §3.3).

use storage::mime::{Section, SectionText};

use super::{
    Options,
    cursor::{Cursor, Fail, Parsed, is_atom_char},
    search::partial_range,
};
use crate::imap::wire::{
    command::{Command, FetchItem},
    enabled::Enabled,
};

/// Most items of one FETCH: each is answered for every message, so a short command must not ask for a message 10,000 times. Clients ask for less than 20.
const ITEMS_MAX: usize = 256;

pub(super) fn fetch(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Command> {
    let set = cursor.sequence_set()?;
    cursor.space()?;
    let items = if cursor.peek() == Some(b'(') {
        items(cursor)?
    } else {
        let mut items = Vec::new();
        item(cursor, &mut items)?;
        items
    };
    let (mut changed_since, mut vanished, mut partial) = (None, false, None);
    if cursor.more() {
        cursor.parenthesised("a list of modifiers", |cursor| match cursor.word().as_str() {
            "CHANGEDSINCE" => {
                cursor.space()?;
                changed_since = Some(cursor.number("a MODSEQ")?);
                Ok(())
            }
            "VANISHED" if uid => {
                vanished = true;
                Ok(())
            }
            "PARTIAL" if uid && partial.is_none() => {
                cursor.space()?;
                partial = Some(partial_range(cursor)?);
                Ok(())
            }
            _ => Err(Fail::new("the modifiers of FETCH are CHANGEDSINCE and, for UID FETCH, VANISHED and PARTIAL, each once")),
        })?;
        if vanished && changed_since.is_none() {
            return Err(Fail::new("VANISHED needs CHANGEDSINCE beside it (RFC 7162, 3.2.6)"));
        }
    }
    Ok(Command::Fetch { uid, set, items, changed_since, vanished, partial })
}

/// Reads items in parentheses, at least one.
pub(super) fn items(cursor: &mut Cursor<'_>) -> Parsed<Vec<FetchItem>> {
    let mut items = Vec::new();
    cursor.parenthesised("a list of items", |cursor| item(cursor, &mut items))?;
    if items.is_empty() { Err(Fail::new("no item is asked for: name one such as FLAGS")) } else { Ok(items) }
}

/// Reads one item or macro.
fn item(cursor: &mut Cursor<'_>, items: &mut Vec<FetchItem>) -> Parsed<()> {
    let start = cursor.position();
    let name = cursor.word();
    let simple = match name.as_str() {
        "BODY" | "BODY.PEEK" if cursor.peek() == Some(b'[') => {
            let read = section(cursor, name == "BODY.PEEK")?;
            return push(items, read);
        }
        "BINARY" | "BINARY.PEEK" | "BINARY.SIZE" => {
            let read = binary(cursor, &name)?;
            return push(items, read);
        }
        "ALL" | "FAST" | "FULL" => {
            let parts = [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size, FetchItem::Envelope, FetchItem::Body];
            let count = match name.as_str() {
                "FAST" => 3,
                "ALL" => 4,
                _ => 5,
            };
            return parts.into_iter().take(count).try_for_each(|part| push(items, part));
        }
        "UID" => FetchItem::Uid,
        "FLAGS" => FetchItem::Flags,
        "INTERNALDATE" => FetchItem::InternalDate,
        "SAVEDATE" => FetchItem::SaveDate,
        "PREVIEW" => FetchItem::Preview { lazy: preview_is_lazy(cursor)? },
        "SNIPPET" => FetchItem::Snippet { lazy: snippet_is_lazy(cursor)? },
        "EMAILID" => FetchItem::EmailId,
        "THREADID" => FetchItem::ThreadId,
        "RFC822.SIZE" => FetchItem::Rfc822Size,
        "ENVELOPE" => FetchItem::Envelope,
        "BODY" => FetchItem::Body,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "MODSEQ" => FetchItem::ModSeq,
        "RFC822" => FetchItem::Rfc822,
        "RFC822.HEADER" => FetchItem::Rfc822Header,
        "RFC822.TEXT" => FetchItem::Rfc822Text,
        _ => return Err(cursor.expected_at(start, "a FETCH item such as FLAGS or BODY[]")),
    };
    push(items, simple)
}

/// Reads ` (LAZY)` if it is next.
fn preview_is_lazy(cursor: &mut Cursor<'_>) -> Parsed<bool> {
    if !cursor.rest().starts_with(b" (") {
        return Ok(false);
    }
    cursor.space()?;
    let mut lazy = false;
    cursor.parenthesised("a list of modifiers", |cursor| {
        let start = cursor.position();
        lazy = true;
        if cursor.word() == "LAZY" { Ok(()) } else { Err(cursor.expected_at(start, "LAZY")) }
    })?;
    if lazy { Ok(true) } else { Err(Fail::new("the list of modifiers is empty")) }
}

/// Reads a list of algorithms if it is next: ` (FUZZY)`, ` (LAZY=FUZZY)` or both, of which the one that makes a snippet counts.
fn snippet_is_lazy(cursor: &mut Cursor<'_>) -> Parsed<bool> {
    if !cursor.rest().starts_with(b" (") {
        return Ok(false);
    }
    cursor.space()?;
    let (mut some, mut lazy) = (false, true);
    cursor.parenthesised("a list of algorithms", |cursor| {
        let start = cursor.position();
        some = true;
        match cursor.word().as_str() {
            "LAZY" if cursor.rest().starts_with(b"=") => {
                cursor.require(b'=', "\"=\"")?;
                let start = cursor.position();
                if cursor.word() == "FUZZY" { Ok(()) } else { Err(cursor.expected_at(start, "FUZZY")) }
            }
            "FUZZY" => {
                lazy = false;
                Ok(())
            }
            _ => Err(cursor.expected_at(start, "FUZZY or LAZY=FUZZY")),
        }
    })?;
    if some { Ok(lazy) } else { Err(Fail::new("the list of algorithms is empty")) }
}

/// Keeps each item once: a second answer would say nothing new.
fn push(items: &mut Vec<FetchItem>, item: FetchItem) -> Parsed<()> {
    if items.contains(&item) {
        return Ok(());
    }
    if items.len() == ITEMS_MAX {
        return Err(Fail::new(format!("FETCH has more than {ITEMS_MAX} items")));
    }
    items.push(item);
    Ok(())
}

/// Reads `[section]<partial>`.
fn section(cursor: &mut Cursor<'_>, peek: bool) -> Parsed<FetchItem> {
    cursor.require(b'[', "\"[\"")?;
    let section = section_spec(cursor)?;
    cursor.require(b']', "\"]\" after the section")?;
    let partial = byte_range(cursor)?;
    Ok(FetchItem::Section { name: section_name(&section), section, peek, partial })
}

/// Reads `<offset.count>` if it is next.
fn byte_range(cursor: &mut Cursor<'_>) -> Parsed<Option<(u64, u64)>> {
    if !cursor.take(b'<') {
        return Ok(None);
    }
    let origin = cursor.number("the first byte")?;
    cursor.require(b'.', "\".\" and a number of bytes")?;
    let count = cursor.number("a number of bytes")?;
    if count == 0 {
        return Err(Fail::new("a partial fetch of 0 bytes is not possible"));
    }
    cursor.require(b'>', "\">\"")?;
    Ok(Some((origin, count)))
}

/// Reads `[part]<partial>` after `item` (RFC 3516 §7); BINARY.SIZE has no partial.
fn binary(cursor: &mut Cursor<'_>, item: &str) -> Parsed<FetchItem> {
    cursor.require(b'[', "\"[\"")?;
    let mut part = Vec::new();
    if cursor.peek() != Some(b']') {
        part.push(cursor.nz_number("a part number")?);
        while cursor.take(b'.') {
            part.push(cursor.nz_number("a part number")?);
        }
    }
    cursor.require(b']', "\"]\" after the part: BINARY has no HEADER, TEXT or MIME")?;
    if item == "BINARY.SIZE" {
        return Ok(FetchItem::BinarySize(part));
    }
    Ok(FetchItem::Binary { part, peek: item == "BINARY.PEEK", partial: byte_range(cursor)? })
}

/// The section that a URL names; `None`: it is none.
pub(crate) fn section_of(text: &[u8]) -> Option<Section> {
    let mut cursor = Cursor::new(text, Options { enabled: Enabled::NOTHING, nesting: 0 });
    let section = section_spec(&mut cursor).ok()?;
    cursor.peek().is_none().then_some(section)
}

fn section_spec(cursor: &mut Cursor<'_>) -> Parsed<Section> {
    let mut part = Vec::new();
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        part.push(cursor.nz_number("a part number")?);
        if !cursor.take(b'.') {
            return Ok(Section { part, text: SectionText::Whole });
        }
    }
    if part.is_empty() && cursor.peek() == Some(b']') {
        return Ok(Section::default());
    }
    let start = cursor.position();
    let text = match cursor.word().as_str() {
        "HEADER" => SectionText::Header,
        "TEXT" => SectionText::Text,
        "MIME" if !part.is_empty() => SectionText::Mime,
        "HEADER.FIELDS" => SectionText::HeaderFields(header_fields(cursor)?),
        "HEADER.FIELDS.NOT" => SectionText::HeaderFieldsNot(header_fields(cursor)?),
        _ => {
            return Err(
                cursor.expected_at(start, "a section: a part number, HEADER, HEADER.FIELDS (...), TEXT, or MIME after a part number")
            );
        }
    };
    Ok(Section { part, text })
}

fn header_fields(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    cursor.space()?;
    let mut fields = Vec::new();
    cursor.parenthesised("a list of header fields", |cursor| {
        let name = cursor.astring("a header field")?;
        // The answer repeats the name, so it must fit into a line.
        match std::str::from_utf8(&name) {
            Ok(name) if name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => fields.push(name.to_ascii_uppercase()),
            _ => return Err(Fail::new("a header field's name has characters that no field can have")),
        }
        Ok(())
    })?;
    if fields.is_empty() { Err(Fail::new("the list of header fields is empty")) } else { Ok(fields) }
}

/// The section as the answer repeats it.
fn section_name(section: &Section) -> String {
    let mut name = section.part.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let (word, fields) = match &section.text {
        SectionText::Whole => return name,
        SectionText::Header => ("HEADER", None),
        SectionText::HeaderFields(fields) => ("HEADER.FIELDS", Some(fields)),
        SectionText::HeaderFieldsNot(fields) => ("HEADER.FIELDS.NOT", Some(fields)),
        SectionText::Text => ("TEXT", None),
        SectionText::Mime => ("MIME", None),
    };
    if !name.is_empty() {
        name.push('.');
    }
    name.push_str(word);
    if let Some(fields) = fields {
        let fields: Vec<String> = fields.iter().map(|field| repeated_field(field)).collect();
        name.push_str(&format!(" ({})", fields.join(" ")));
    }
    name
}

fn repeated_field(field: &str) -> String {
    let plain = !field.is_empty() && field.bytes().all(|byte| is_atom_char(byte) && byte != b'[');
    if plain { field.to_owned() } else { format!("\"{}\"", field.replace('\\', "\\\\").replace('"', "\\\"")) }
}
