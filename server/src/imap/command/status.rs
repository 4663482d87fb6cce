//! STATUS (RFC 3501 §6.3.10, RFC 8438, RFC 7162 §3.1.7, RFC 8474 §4.3, RFC 9208 §4.1.4).

pub mod quota;

use std::sync::Arc;

use storage::{Account, MailboxName, Status, StorageError};

use super::mailboxes::valid;
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::State,
    wire::{
        command::{MailboxArgument, StatusItem},
        response::{self, StatusValue},
    },
};

/// STATUS.
pub async fn status<H: Holding>(
    session: &mut Session<H>,
    state: &State,
    mailbox: MailboxArgument,
    items: &[StatusItem],
) -> Result<Reply, Stop> {
    let name = valid(mailbox)?;
    notice(session, state, items);
    let (asked, wants_id, wants_sizes) = (name.clone(), items.contains(&StatusItem::MailboxId), wants_sizes(items));
    let (numbers, object_id) = session.held.run(move |account| look(account, &asked, wants_id, wants_sizes)).await?;
    let values = values(items, &numbers, session.settings.message_bytes, object_id.as_deref());
    let (shown, names) = (session.shown(name.as_str()), session.enabled.names());
    response::status(session.connection.output(), &shown, &values, names);
    Ok(Reply::ok("Status completed"))
}

/// HIGHESTMODSEQ enables CONDSTORE (RFC 7162 §3.1).
pub fn notice<H: Holding>(session: &mut Session<H>, state: &State, items: &[StatusItem]) {
    if items.contains(&StatusItem::HighestModSeq) {
        session.enable_condstore(state.opened());
    }
}

/// Whether an item tells sizes, which may have to be learnt first.
pub fn wants_sizes(items: &[StatusItem]) -> bool {
    items.iter().any(|item| matches!(item, StatusItem::Size | StatusItem::DeletedStorage))
}

/// A mailbox's numbers, with what other programs brought, and its MAILBOXID if that is wanted. Blocking.
fn look(account: &Arc<Account>, name: &MailboxName, wants_id: bool, wants_sizes: bool) -> Result<(Status, Option<Arc<str>>), StorageError> {
    let mailbox = account.mailbox(name)?;
    mailbox.refresh(false)?;
    if wants_sizes {
        mailbox.learn()?;
    }
    let object_id = if wants_id { Some(mailbox.object_id()?) } else { None };
    Ok((mailbox.status(), object_id))
}

/// What was asked for, in the client's order. `append_limit`: the largest message of APPEND, the same in every mailbox; `object_id`: where it was asked for.
pub fn values<'a>(
    items: &[StatusItem],
    numbers: &Status,
    append_limit: u64,
    object_id: Option<&'a str>,
) -> Vec<(StatusItem, StatusValue<'a>)> {
    let value = |item: StatusItem| {
        Some(StatusValue::Number(match item {
            StatusItem::Messages => u64::from(numbers.messages),
            StatusItem::Recent => u64::from(numbers.recent),
            StatusItem::UidNext => u64::from(numbers.uid_next),
            StatusItem::UidValidity => u64::from(numbers.uid_validity.get()),
            StatusItem::Unseen => u64::from(numbers.unseen),
            StatusItem::Deleted => u64::from(numbers.deleted),
            StatusItem::DeletedStorage => numbers.deleted_size,
            StatusItem::Size => numbers.size,
            StatusItem::HighestModSeq => numbers.highest_modseq.get(),
            StatusItem::AppendLimit => append_limit,
            StatusItem::MailboxId => return object_id.map(StatusValue::ObjectId),
        }))
    };
    items.iter().filter_map(|item| Some((*item, value(*item)?))).collect()
}
