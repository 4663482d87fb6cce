//! CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE.

pub mod acl;

use storage::{CreateOptions, MailboxName, SpecialUse, mailbox_object_id};

use super::list;
use crate::imap::{
    holding::Holding,
    reply::{Reply, ReplyCode, Stop},
    session::Session,
    state::State,
    wire::{command::MailboxArgument, response::Code},
};

/// The name, or the NO for one that no mailbox can have.
pub fn valid(mailbox: MailboxArgument) -> Result<MailboxName, Reply> {
    match mailbox {
        MailboxArgument::Valid(name) | MailboxArgument::Renamed { name, .. } => Ok(name),
        MailboxArgument::Impossible(reason) => Err(Reply::no(Code::Cannot, reason)),
    }
}

/// How the client spelt the name, where that is another way than ours and the client wants to know.
pub fn other_spelling(mailbox: &MailboxArgument) -> Option<String> {
    match mailbox {
        MailboxArgument::Renamed { written, .. } => Some(written.clone()),
        MailboxArgument::Valid(_) | MailboxArgument::Impossible(_) => None,
    }
}

/// CREATE (RFC 3501 §6.3.3) with a special use (RFC 6154 §3), answered with MAILBOXID (RFC 8474 §4.1).
pub async fn create<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, special_use: &[SpecialUse]) -> Result<Reply, Stop> {
    let written = other_spelling(&mailbox);
    let name = valid(mailbox)?;
    let special_use = match special_use {
        [] => None,
        [one] => Some(*one),
        [_, _, ..] => return Err(Reply::no(Code::UseAttr, "A mailbox can have one special use").into()),
    };
    if session.guest.is_some() && special_use.is_some() {
        // Where the owner's programs file what is sent or thrown away is the owner's own affair.
        return Err(Reply::no(Code::UseAttr, "Only the owner gives a mailbox a special use").into());
    }
    let made = name.clone();
    let validity = session.held.run(move |account| account.create(&made, CreateOptions { special_use })).await?;
    if written.is_some() {
        list::announce(session, &name, written.as_deref()).await?;
    }
    Ok(Reply::ok("Create completed").with(ReplyCode::MailboxId(mailbox_object_id(validity))))
}

/// DELETE. One that is selected here is closed first, so that its own session goes on.
pub async fn delete<H: Holding>(session: &mut Session<H>, state: &mut State, mailbox: MailboxArgument) -> Result<Reply, Stop> {
    let name = valid(mailbox)?;
    let own = matches!(&*state, State::Selected(selected) if selected.mailbox.name() == name);
    session.held.run(move |account| account.delete(&name)).await?;
    if own {
        *state = State::Authenticated;
    }
    Ok(Reply::ok("Delete completed"))
}

fn written(mailbox: &MailboxArgument) -> String {
    match mailbox {
        MailboxArgument::Valid(name) => name.as_str().to_owned(),
        MailboxArgument::Renamed { written, .. } | MailboxArgument::Impossible(written) => written.clone(),
    }
}

/// RENAME.
pub async fn rename<H: Holding>(session: &mut Session<H>, from: MailboxArgument, to: MailboxArgument) -> Result<Reply, Stop> {
    let written = other_spelling(&from).or_else(|| other_spelling(&to).map(|_| written(&from)));
    let (from, to) = (valid(from)?, valid(to)?);
    if session.guest.is_some() && from.is_inbox() {
        // It moves the messages, and they come under the rights of where they go.
        return Err(Reply::no(Code::Cannot, "Only the owner renames INBOX").into());
    }
    let renamed = to.clone();
    session.held.run(move |account| account.rename(&from, &renamed)).await?;
    if written.is_some() {
        list::announce(session, &to, written.as_deref()).await?;
    }
    Ok(Reply::ok("Rename completed"))
}

/// SUBSCRIBE and UNSUBSCRIBE.
pub async fn subscribe<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, subscribed: bool) -> Result<Reply, Stop> {
    let name = valid(mailbox)?;
    session.held.run(move |account| account.set_subscribed(&name, subscribed)).await?;
    Ok(Reply::ok(if subscribed { "Subscribe completed" } else { "Unsubscribe completed" }))
}
