//! GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208 §4.1).

use super::cursor::{Cursor, Parsed};
use crate::imap::wire::command::Command;

pub(super) fn command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    match verb {
        "GETQUOTA" => root(cursor).map(Command::GetQuota),
        "GETQUOTAROOT" => cursor.mailbox().map(Command::GetQuotaRoot),
        _ => {
            let root = root(cursor)?;
            cursor.space()?;
            cursor.parenthesised("a list of resources and limits", |cursor| {
                cursor.atom("a resource such as STORAGE")?;
                cursor.space()?;
                cursor.number("a limit").map(drop)
            })?;
            Ok(Command::SetQuota(root))
        }
    }
}

/// A root whose name is no text is no root of ours.
fn root(cursor: &mut Cursor<'_>) -> Parsed<String> {
    Ok(String::from_utf8_lossy(&cursor.astring("the name of a quota root")?).into_owned())
}
