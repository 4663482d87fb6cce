//! GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208 §4.1).

use storage::{Limits, RootUsage};

use crate::imap::{
    command::mailboxes::valid,
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
    let (shown, spelling) = (session.shown(name.as_str()), session.enabled.names());
    let roots_shown: Vec<String> = roots.iter().map(|root| session.shown(&root.name)).collect();
    response::quota_root(session.connection.output(), &shown, roots_shown.iter().map(String::as_str), spelling);
    for root in &roots {
        write(session, root);
    }
    Ok(Reply::ok("Getquotaroot completed"))
}

/// SETQUOTA. An empty list gives back what the user's source says: that an operator may want, and nobody that there is no limit at all.
pub async fn set_quota<H: Holding>(session: &mut Session<H>, root: String, limits: &[(String, u64)]) -> Result<Reply, Stop> {
    if !session.settings.may_set_quota {
        return Err(Reply::no(Code::NoPerm, "Only an operator sets quotas: a master user who logged in for this user").into());
    }
    let limits = if limits.is_empty() { None } else { Some(wanted(limits)?) };
    let asked = root.clone();
    match session.held.run(move |account| account.set_limits(&asked, limits)).await? {
        Some(found) => {
            tracing::info!(root, ?limits, "an operator set a quota");
            write(session, &found);
            Ok(Reply::ok("Setquota completed"))
        }
        None => Err(Reply::no(Code::Nonexistent, "There is no such quota root").into()),
    }
}

fn wanted(limits: &[(String, u64)]) -> Result<Limits, Reply> {
    let mut wanted = Limits::default();
    for (resource, limit) in limits {
        let (place, limit) = match resource.to_ascii_uppercase().as_str() {
            "STORAGE" => {
                let bytes = limit.checked_mul(1024).filter(|bytes| i64::try_from(*bytes).is_ok());
                (&mut wanted.bytes, bytes.ok_or_else(|| Reply::no(Code::Cannot, "The limit of STORAGE is too large"))?)
            }
            "MESSAGE" => (&mut wanted.messages, *limit),
            "MAILBOX" => return Err(Reply::no(Code::Cannot, "The limit of MAILBOX is the same for all users")),
            _ => return Err(Reply::no(Code::Cannot, format!("{resource} is not limited here: STORAGE and MESSAGE are"))),
        };
        if place.replace(limit).is_some() {
            return Err(Reply::bad(format!("{resource} is named twice")));
        }
    }
    Ok(wanted)
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
