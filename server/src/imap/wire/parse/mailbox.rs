//! SELECT, EXAMINE, CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS.

use storage::SpecialUse;

use super::{
    ParseErrorKind,
    cursor::{Cursor, Fail, Parsed},
    mailbox_argument,
};
use crate::imap::wire::command::{Command, Resync, Select, SequenceSet, StatusItem};

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
    let mut select = Select { mailbox: cursor.mailbox()?, read_only, condstore: false, resync: None };
    if cursor.more() {
        cursor.parenthesised("a list of parameters", |cursor| match cursor.word().as_str() {
            "CONDSTORE" => {
                select.condstore = true;
                Ok(())
            }
            "QRESYNC" => {
                cursor.space()?;
                select.resync = Some(resync(cursor)?);
                Ok(())
            }
            _ => Err(Fail::new("the parameters of SELECT are CONDSTORE and QRESYNC")),
        })?;
    }
    Ok(Command::Select(select))
}

/// Reads `(uidvalidity modseq [known-uids] [(sequence-set uid-set)])` (RFC 7162 §3.2.5).
fn resync(cursor: &mut Cursor<'_>) -> Parsed<Resync> {
    cursor.require(b'(', "what is known of the mailbox, as in (QRESYNC (67890007 20050715194045000))")?;
    let uid_validity = cursor.nz_number("a UIDVALIDITY")?;
    cursor.space()?;
    let modseq = cursor.number("a MODSEQ")?;
    let mut resync = Resync { uid_validity, modseq, known: None, matches: None };
    if cursor.peek() == Some(b' ') {
        cursor.space()?;
        if cursor.peek() != Some(b'(') {
            resync.known = Some(known_set(cursor)?);
        }
        if resync.known.is_none() || cursor.peek() == Some(b' ') {
            cursor.skip_spaces();
            cursor.require(b'(', "sequence numbers and their UIDs, as in (1,5 7,19)")?;
            let sequence = known_set(cursor)?;
            cursor.space()?;
            let uids = known_set(cursor)?;
            cursor.require(b')', "\")\"")?;
            if count(&sequence) != count(&uids) {
                return Err(Fail::new("there are not as many UIDs as sequence numbers (RFC 7162, 3.2.5.2)"));
            }
            resync.matches = Some((sequence, uids));
        }
    }
    cursor.require(b')', "\")\"")?;
    Ok(resync)
}

/// Reads a set without `*` and `$`: what a client knows has numbers.
fn known_set(cursor: &mut Cursor<'_>) -> Parsed<SequenceSet> {
    let start = cursor.position();
    let set = cursor.sequence_set()?;
    if set.is_all_numbers() { Ok(set) } else { Err(cursor.expected_at(start, "a set of numbers, without \"*\"")) }
}

fn count(set: &SequenceSet) -> u64 {
    set.resolve(0).iter().map(|(low, high)| u64::from(high - low) + 1).sum()
}

fn create(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let name = cursor.astring("a mailbox name")?;
    // RFC 3501 §6.3.3: a separator at the end says that mailboxes below will follow; here every mailbox can have them.
    let separator = cursor.options.enabled.separator.as_str().as_bytes();
    let name = name.strip_suffix(separator).filter(|name| !name.is_empty()).unwrap_or(&name);
    let mailbox = mailbox_argument(name, cursor.options.enabled);
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
    let name = format!("\\{}", cursor.atom("a special use")?);
    SpecialUse::parse(&name)
        .ok_or_else(|| Fail { reason: "this special use is not supported".to_owned(), kind: ParseErrorKind::UnknownUse })
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
            "DELETED-STORAGE" => StatusItem::DeletedStorage,
            "SIZE" => StatusItem::Size,
            "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            "APPENDLIMIT" => StatusItem::AppendLimit,
            "MAILBOXID" => StatusItem::MailboxId,
            _ => return Err(cursor.expected_at(start, "a status item such as MESSAGES")),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    if items.is_empty() { Err(Fail::new("STATUS asks for nothing: name an item such as MESSAGES")) } else { Ok(items) }
}
