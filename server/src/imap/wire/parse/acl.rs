//! SETACL, DELETEACL, GETACL, LISTRIGHTS, MYRIGHTS (RFC 4314 §3).

use super::cursor::{Cursor, Fail, Parsed};
use crate::imap::wire::command::Command;

/// Longest identifier: a user's name, or a group's, and a sign or two.
const IDENTIFIER_BYTES_MAX: usize = 512;
/// Longest list of rights: each a few times over.
const RIGHTS_BYTES_MAX: usize = 64;

pub(super) fn command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    let mailbox = cursor.mailbox()?;
    match verb {
        "GETACL" => return Ok(Command::GetAcl(mailbox)),
        "MYRIGHTS" => return Ok(Command::MyRights(mailbox)),
        _ => cursor.space()?,
    }
    let identifier = text(cursor, "an identifier", IDENTIFIER_BYTES_MAX)?;
    match verb {
        "DELETEACL" => Ok(Command::DeleteAcl { mailbox, identifier }),
        "LISTRIGHTS" => Ok(Command::ListRights { mailbox, identifier }),
        _ => {
            cursor.space()?;
            Ok(Command::SetAcl { mailbox, identifier, rights: text(cursor, "rights", RIGHTS_BYTES_MAX)? })
        }
    }
}

fn text(cursor: &mut Cursor<'_>, what: &str, bytes_max: usize) -> Parsed<String> {
    let bytes = cursor.astring(what)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Fail::new(format!("{what} must be UTF-8")))?;
    if text.len() > bytes_max {
        return Err(Fail::new(format!("{what} of more than {bytes_max} bytes")));
    }
    Ok(text.to_owned())
}
