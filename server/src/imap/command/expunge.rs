//! EXPUNGE, UID EXPUNGE (RFC 4315 §2.1) and CLOSE. What is gone is told by the updates that follow every command.

use index::{Flag, ModSeq};
use storage::Right;

use crate::imap::{
    holding::Holding,
    limits::Stopped,
    reply::{Reply, Stop},
    session::Session,
    sets::{self, Numbers},
    state::{Access, Selected, State},
    updates,
    view::Expunges,
    wire::{command::SequenceSet, response::Code},
};

/// EXPUNGE, or with a set UID EXPUNGE.
pub async fn expunge<H: Holding>(session: &mut Session<H>, selected: &mut Selected, set: Option<&SequenceSet>) -> Result<Reply, Stop> {
    let mailbox = selected.writable()?;
    let (mut uids, mut stopped) = (None, None);
    if let Some(set) = set {
        let mut named = sets::uids(&sets::positions(set, Numbers::Uids, selected)?, &selected.view);
        if let Some(limit) = session.settings.message_limits.working() {
            let messages = selected.mailbox.read();
            named.retain(|uid| messages.get(*uid).is_some_and(|row| row.flags.contains(Flag::Deleted)));
            stopped = limit.cut_uids(&mut named);
        }
        uids = Some(named);
    }
    let expunged = session.held.run(move |_| mailbox.expunge(uids.as_deref())).await?;
    let reply = removed(session, selected, !expunged.is_empty(), Reply::ok("Expunge completed")).await?;
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// Tells what is gone; a client that knows VANISHED then gets the MODSEQ of it with the tagged OK (RFC 7162 §3.2.7, §3.2.9).
pub async fn removed<H: Holding>(session: &mut Session<H>, selected: &mut Selected, any: bool, reply: Reply) -> Result<Reply, Stop> {
    selected.must_tell |= any;
    if !any || !session.enabled.qresync() {
        return Ok(reply);
    }
    updates::tell(&mut session.connection, selected, session.enabled, Expunges::Tell, &[]).await?;
    Ok(match ModSeq::new(selected.view.highest_modseq()) {
        Some(modseq) => reply.with(Code::HighestModSeq(modseq).into()),
        None => reply,
    })
}

/// CLOSE: expunges, unless the mailbox is open read-only or the client is a guest without `e`, and tells nothing of it.
pub async fn close<H: Holding>(session: &mut Session<H>, state: &mut State) -> Result<Reply, Stop> {
    let selected = state.selected()?;
    if selected.access == Access::ReadWrite && selected.rights.has(Right::Expunge) {
        let mailbox = selected.writable()?;
        let expunged = session.held.run(move |_| mailbox.expunge(None)).await?;
        if let Some(following) = &mut session.following {
            following.know_messages(&selected.mailbox, 0, expunged.len());
        }
    }
    *state = State::Authenticated;
    Ok(Reply::ok("Close completed"))
}
