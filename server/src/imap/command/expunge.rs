//! EXPUNGE, UID EXPUNGE (RFC 4315 §2.1) and CLOSE. What is gone is told by the updates that follow every command.

use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    sets::{self, Numbers},
    state::{Access, Selected, State},
    wire::command::SequenceSet,
};

/// EXPUNGE, or with a set UID EXPUNGE.
pub async fn expunge<H: Holding>(session: &mut Session<H>, selected: &mut Selected, set: Option<&SequenceSet>) -> Result<Reply, Stop> {
    let mailbox = selected.writable()?;
    let uids = match set {
        Some(set) => Some(sets::uids(&sets::positions(set, Numbers::Uids, selected)?, &selected.view)),
        None => None,
    };
    session.held.run(move |_| mailbox.expunge(uids.as_deref())).await?;
    Ok(Reply::ok("Expunge completed"))
}

/// CLOSE: expunges, unless the mailbox is open read-only, and tells nothing of it.
pub async fn close<H: Holding>(session: &mut Session<H>, state: &mut State) -> Result<Reply, Stop> {
    let selected = state.selected()?;
    if selected.access == Access::ReadWrite {
        let mailbox = selected.writable()?;
        session.held.run(move |_| mailbox.expunge(None)).await?;
    }
    *state = State::Authenticated;
    Ok(Reply::ok("Close completed"))
}
