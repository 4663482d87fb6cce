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
            let mut limits = Vec::new();
            cursor.parenthesised("a list of resources and limits", |cursor| {
                let resource = cursor.atom("a resource such as STORAGE")?;
                cursor.space()?;
                limits.push((resource, cursor.number("a limit")?));
                Ok(())
            })?;
            Ok(Command::SetQuota { root, limits })
        }
    }
}

/// A root whose name is no text is no root of ours.
fn root(cursor: &mut Cursor<'_>) -> Parsed<String> {
    Ok(String::from_utf8_lossy(&cursor.astring("the name of a quota root")?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::wire::{
        enabled::Enabled,
        parse::{Options, parse},
    };

    #[test]
    fn the_examples_of_setquota_are_read() {
        let limits = |limits: &[(&str, u64)]| limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
        let examples = [
            ("S0001 SETQUOTA \"#user/alice\" (STORAGE 510)", "#user/alice", limits(&[("STORAGE", 510)])),
            ("S0002 SETQUOTA \"!partition/sda4\" (STORAGE 99999999)", "!partition/sda4", limits(&[("STORAGE", 99_999_999)])),
            ("a SETQUOTA \"\" ()", "", limits(&[])),
            ("a SETQUOTA x (MESSAGE 9223372036854775807 X-A 0)", "x", limits(&[("MESSAGE", u64::MAX >> 1), ("X-A", 0)])),
        ];
        for (text, root, limits) in examples {
            let read = parse(text.as_bytes(), Options { enabled: Enabled::NOTHING, nesting: 10 }).unwrap().command;
            assert_eq!(read, Command::SetQuota { root: root.to_owned(), limits }, "{text}");
        }
    }
}
