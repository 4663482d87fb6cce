//! STATUS (RFC 3501 §6.3.10, RFC 8438, RFC 7162 §3.1.7, RFC 8474 §4.3, RFC 9208 §4.1.4); GETQUOTA and GETQUOTAROOT (RFC 9208). SETQUOTA is refused: limits are
//! the administrator's, and QUOTASET is not offered.

use std::sync::Arc;

use storage::{Account, MailboxName, RootUsage, Status, StorageError};

use super::mailboxes::valid;
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::State,
    wire::{
        command::{MailboxArgument, StatusItem},
        response::{self, Code, Resource, StatusValue},
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

/// GETQUOTA.
pub async fn get_quota<H: Holding>(session: &mut Session<H>, root: String) -> Result<Reply, Stop> {
    let roots = session.held.run(|account| account.quota(None)).await?;
    match roots.iter().find(|known| known.name == root) {
        Some(found) => {
            write(session, found);
            Ok(Reply::ok("Getquota completed"))
        }
        None => Err(Reply::no(Code::Nonexistent, "There is no such quota root").into()),
    }
}

/// GETQUOTAROOT; the mailbox need not be there.
pub async fn get_quota_root<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument) -> Result<Reply, Stop> {
    let name = valid(mailbox)?;
    let asked = name.clone();
    let roots = session.held.run(move |account| account.quota(Some(&asked))).await?;
    let (shown, spelling) = (session.shown(name.as_str()), session.enabled.names());
    let roots_shown: Vec<String> = roots.iter().map(|root| session.shown(&root.name)).collect();
    response::quota_root(session.connection.output(), &shown, roots_shown.iter().map(String::as_str), spelling);
    for root in &roots {
        write(session, root);
    }
    Ok(Reply::ok("Getquotaroot completed"))
}

/// SETQUOTA.
pub fn set_quota() -> Reply {
    Reply::no(Code::NoPerm, "Quotas are set by the administrator")
}

fn write<H: Holding>(session: &mut Session<H>, root: &RootUsage) {
    let mut resources = Vec::with_capacity(3);
    if let Some(limit) = root.limits.bytes {
        // Both rounded up: what is full looks full, and what is not does not.
        resources.push(Resource { name: "STORAGE", usage: root.usage.bytes.div_ceil(1024), limit: limit.div_ceil(1024) });
    }
    if let Some(limit) = root.limits.messages {
        resources.push(Resource { name: "MESSAGE", usage: root.usage.messages, limit });
    }
    if root.name == storage::MAIN_ROOT {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let limit = number(session.held.account().mailboxes_max());
        resources.push(Resource { name: "MAILBOX", usage: number(root.mailboxes), limit });
    }
    let shown = session.shown(&root.name);
    response::quota(session.connection.output(), &shown, &resources);
}
