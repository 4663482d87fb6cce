//! SELECT, EXAMINE, CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS.

use storage::SpecialUse;

use super::{
    ParseErrorKind,
    cursor::{Cursor, Fail, Parsed},
    mailbox_argument,
};
use crate::imap::wire::command::{Command, Select, StatusItem};

pub(super) fn command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    match verb {
        "SELECT" => select(cursor, false),
        "EXAMINE" => select(cursor, true),
        "CREATE" => create(cursor),
        "DELETE" => cursor.mailbox().map(Command::Delete),
        "SUBSCRIBE" => cursor.mailbox().map(Command::Subscribe),
        "UNSUBSCRIBE" => cursor.mailbox().map(Command::Unsubscribe),
        "RENAME" => {
            let from = cursor.mailbox()?;
            cursor.space()?;
            Ok(Command::Rename { from, to: cursor.mailbox()? })
        }
        _ => {
            let mailbox = cursor.mailbox()?;
            cursor.space()?;
            Ok(Command::Status { mailbox, items: status_items(cursor)? })
        }
    }
}

/// RFC 3501 §6.3.1 with the parameters of RFC 4466.
fn select(cursor: &mut Cursor<'_>, read_only: bool) -> Parsed<Command> {
    let mut select = Select { mailbox: cursor.mailbox()?, read_only, condstore: false };
    if cursor.more() {
        cursor.parenthesised("a list of parameters", |cursor| match cursor.word().as_str() {
            "CONDSTORE" => {
                select.condstore = true;
                Ok(())
            }
            "QRESYNC" => Err(Fail::new("QRESYNC is not offered")),
            _ => Err(Fail::new("the only parameter of SELECT is CONDSTORE")),
        })?;
    }
    Ok(Command::Select(select))
}

fn create(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let name = cursor.astring("a mailbox name")?;
    // RFC 3501 §6.3.3: a separator at the end says that mailboxes below will follow; here every mailbox can have them.
    let name = name.strip_suffix(b"/").filter(|name| !name.is_empty()).unwrap_or(&name);
    let mailbox = mailbox_argument(name, cursor.options.utf8);
    let mut special_use = Vec::new();
    if cursor.more() {
        cursor.parenthesised("a list of parameters", |cursor| match cursor.word().as_str() {
            "USE" => {
                cursor.space()?;
                cursor.parenthesised("a list of special uses", |cursor| {
                    let used = self::special_use(cursor)?;
                    if !special_use.contains(&used) {
                        special_use.push(used);
                    }
                    Ok(())
                })
            }
            _ => Err(Fail::new("the only parameter of CREATE is USE")),
        })?;
    }
    Ok(Command::Create { mailbox, special_use })
}

fn special_use(cursor: &mut Cursor<'_>) -> Parsed<SpecialUse> {
    cursor.require(b'\\', "a special use such as \\Sent")?;
    match cursor.atom("a special use")?.to_ascii_uppercase().as_str() {
        "ALL" => Ok(SpecialUse::All),
        "ARCHIVE" => Ok(SpecialUse::Archive),
        "DRAFTS" => Ok(SpecialUse::Drafts),
        "FLAGGED" => Ok(SpecialUse::Flagged),
        "JUNK" => Ok(SpecialUse::Junk),
        "SENT" => Ok(SpecialUse::Sent),
        "TRASH" => Ok(SpecialUse::Trash),
        _ => Err(Fail { reason: "this special use is not supported".to_owned(), kind: ParseErrorKind::UnknownUse }),
    }
}

/// Reads the list of what STATUS (or LIST RETURN STATUS) asks for, each once.
pub(super) fn status_items(cursor: &mut Cursor<'_>) -> Parsed<Vec<StatusItem>> {
    let mut items = Vec::new();
    cursor.parenthesised("a list of status items", |cursor| {
        let start = cursor.position();
        let item = match cursor.word().as_str() {
            "MESSAGES" => StatusItem::Messages,
            "RECENT" => StatusItem::Recent,
            "UIDNEXT" => StatusItem::UidNext,
            "UIDVALIDITY" => StatusItem::UidValidity,
            "UNSEEN" => StatusItem::Unseen,
            "DELETED" => StatusItem::Deleted,
            "SIZE" => StatusItem::Size,
            "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            _ => return Err(cursor.expected_at(start, "a status item such as MESSAGES")),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    if items.is_empty() { Err(Fail::new("STATUS asks for nothing: name an item such as MESSAGES")) } else { Ok(items) }
}
