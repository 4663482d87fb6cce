//! GETQUOTA and GETQUOTAROOT (RFC 9208); SETQUOTA is refused: limits are the administrator's, and QUOTASET is not offered.

use storage::RootUsage;

use super::mailboxes::valid;
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    wire::{
        command::MailboxArgument,
        response::{self, Code, Resource},
    },
};

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
    let spelling = session.enabled.names();
    response::quota_root(session.connection.output(), name.as_str(), roots.iter().map(|root| root.name.as_str()), spelling);
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
    response::quota(session.connection.output(), &root.name, &resources);
}
