//! LIST (RFC 3501, 5258, 5819, 6154, 9590, 8440) and LSUB.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

use super::{
    cursor::{Cursor, Fail, Parsed},
    mailbox::status_items,
    metadata::entries,
    name_text,
};
use crate::imap::wire::{
    command::{Command, List},
    enabled::Enabled,
};

/// Most patterns of one LIST: each is compared with every mailbox. Clients send one to three.
const PATTERNS_MAX: usize = 32;
/// Stands for a reference or pattern that is no possible name: no mailbox name has a NUL, so nothing matches.
const MATCHES_NOTHING: &str = "\0";

pub(super) fn command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    if verb == "LSUB" {
        let reference = reference(cursor)?;
        cursor.space()?;
        return Ok(Command::Lsub { reference, pattern: pattern(cursor)? });
    }
    let mut list = List::default();
    if cursor.peek() == Some(b'(') {
        selection_options(cursor, &mut list)?;
        cursor.space()?;
    }
    list.reference = reference(cursor)?;
    cursor.space()?;
    if cursor.peek() == Some(b'(') {
        list.extended = true;
        let patterns = &mut list.patterns;
        cursor.parenthesised("a list of patterns", |cursor| {
            if patterns.len() == PATTERNS_MAX {
                return Err(Fail::new(format!("LIST has more than {PATTERNS_MAX} patterns")));
            }
            patterns.push(pattern(cursor)?);
            Ok(())
        })?;
        if list.patterns.is_empty() {
            return Err(Fail::new("the list of patterns is empty"));
        }
    } else {
        list.patterns.push(pattern(cursor)?);
    }
    if cursor.more() {
        return_options(cursor, &mut list)?;
    }
    Ok(Command::List(list))
}

fn reference(cursor: &mut Cursor<'_>) -> Parsed<String> {
    Ok(matchable(cursor.astring("a reference name")?, cursor.options.enabled))
}

fn pattern(cursor: &mut Cursor<'_>) -> Parsed<String> {
    Ok(matchable(cursor.list_mailbox("a mailbox name or pattern")?, cursor.options.enabled))
}

/// The name as mailbox names are kept: UTF-8 in NFC.
fn matchable(name: Cow<'_, [u8]>, enabled: Enabled) -> String {
    name_text(&name, enabled).map_or_else(|_| MATCHES_NOTHING.to_owned(), |text| text.nfc().collect())
}

fn selection_options(cursor: &mut Cursor<'_>, list: &mut List) -> Parsed<()> {
    list.extended = true;
    cursor.parenthesised("a list of selection options", |cursor| {
        let start = cursor.position();
        match cursor.word().as_str() {
            "SUBSCRIBED" => {
                list.select_subscribed = true;
                list.return_subscribed = true; // RFC 5258 §3.1: implied
            }
            "REMOTE" => list.select_remote = true,
            "RECURSIVEMATCH" => list.select_recursive_match = true,
            "SPECIAL-USE" => {
                list.select_special_use = true;
                list.return_special_use = true;
            }
            _ => return Err(cursor.expected_at(start, "SUBSCRIBED, REMOTE, RECURSIVEMATCH or SPECIAL-USE")),
        }
        Ok(())
    })?;
    if list.select_recursive_match && !list.select_subscribed && !list.select_special_use {
        return Err(Fail::new("RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE beside it (RFC 5258, 3.1)"));
    }
    Ok(())
}

fn return_options(cursor: &mut Cursor<'_>, list: &mut List) -> Parsed<()> {
    let start = cursor.position();
    if cursor.word() != "RETURN" {
        return Err(cursor.expected_at(start, "RETURN"));
    }
    list.extended = true;
    cursor.space()?;
    cursor.parenthesised("a list of return options", |cursor| {
        let start = cursor.position();
        match cursor.word().as_str() {
            "SUBSCRIBED" => list.return_subscribed = true,
            "CHILDREN" => list.return_children = true,
            "SPECIAL-USE" => list.return_special_use = true,
            "STATUS" => {
                cursor.space()?;
                list.return_status = Some(status_items(cursor)?);
            }
            "MYRIGHTS" => list.return_my_rights = true,
            "METADATA" => {
                cursor.space()?;
                list.return_metadata = entries(cursor)?;
            }
            _ => return Err(cursor.expected_at(start, "SUBSCRIBED, CHILDREN, SPECIAL-USE, STATUS, METADATA or MYRIGHTS")),
        }
        Ok(())
    })
}
