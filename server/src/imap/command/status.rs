//! STATUS (RFC 3501 §6.3.10, RFC 8438, RFC 7162 §3.1.7, RFC 9208 §4.1.4).

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
        response,
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
    let asked = name.clone();
    let numbers = session.held.run(move |account| look(account, &asked)).await?;
    let values = values(items, &numbers, session.settings.message_bytes);
    let names = session.enabled.names();
    response::status(session.connection.output(), name.as_str(), &values, names);
    Ok(Reply::ok("Status completed"))
}

/// HIGHESTMODSEQ enables CONDSTORE (RFC 7162 §3.1).
pub fn notice<H: Holding>(session: &mut Session<H>, state: &State, items: &[StatusItem]) {
    if items.contains(&StatusItem::HighestModSeq) {
        session.enable_condstore(state.opened());
    }
}

/// A mailbox's numbers, with what other programs brought. Blocking.
pub fn look(account: &Arc<Account>, name: &MailboxName) -> Result<Status, StorageError> {
    let mailbox = account.mailbox(name)?;
    mailbox.refresh(false)?;
    Ok(mailbox.status())
}

/// What was asked for, in the client's order. `append_limit`: the largest message of APPEND, the same in every mailbox.
pub fn values(items: &[StatusItem], numbers: &Status, append_limit: u64) -> Vec<(StatusItem, u64)> {
    let value = |item: StatusItem| match item {
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
    };
    items.iter().map(|item| (*item, value(*item))).collect()
}
