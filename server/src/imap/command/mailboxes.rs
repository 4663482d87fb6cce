//! CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE.

use storage::{CreateOptions, MailboxName, SpecialUse};

use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::State,
    wire::{command::MailboxArgument, response::Code},
};

/// The name, or the NO for one that no mailbox can have.
pub fn valid(mailbox: MailboxArgument) -> Result<MailboxName, Reply> {
    match mailbox {
        MailboxArgument::Valid(name) => Ok(name),
        MailboxArgument::Impossible(reason) => Err(Reply::no(Code::Cannot, reason)),
    }
}

/// CREATE (RFC 3501 §6.3.3) with a special use (RFC 6154 §3).
pub async fn create<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, special_use: &[SpecialUse]) -> Result<Reply, Stop> {
    let name = valid(mailbox)?;
    let special_use = match special_use {
        [] => None,
        [one] => Some(*one),
        [_, _, ..] => return Err(Reply::no(Code::UseAttr, "A mailbox can have one special use").into()),
    };
    session.held.run(move |account| account.create(&name, CreateOptions { special_use })).await?;
    Ok(Reply::ok("Create completed"))
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

/// RENAME.
pub async fn rename<H: Holding>(session: &mut Session<H>, from: MailboxArgument, to: MailboxArgument) -> Result<Reply, Stop> {
    let (from, to) = (valid(from)?, valid(to)?);
    session.held.run(move |account| account.rename(&from, &to)).await?;
    Ok(Reply::ok("Rename completed"))
}

/// SUBSCRIBE and UNSUBSCRIBE.
pub async fn subscribe<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, subscribed: bool) -> Result<Reply, Stop> {
    let name = valid(mailbox)?;
    session.held.run(move |account| account.set_subscribed(&name, subscribed)).await?;
    Ok(Reply::ok(if subscribed { "Subscribe completed" } else { "Unsubscribe completed" }))
}
