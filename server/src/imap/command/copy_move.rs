//! COPY and MOVE (RFC 3501 §6.4.7, RFC 6851), answered with COPYUID (RFC 4315 §3).

use std::sync::Arc;

use index::{Flag, FlagSet, Uid};
use storage::{Copied, Rights};

use super::{expunge::removed, mailboxes::valid, notify};
use crate::imap::{
    guest,
    holding::Holding,
    limits::Stopped,
    patience::{Progress, while_wanted},
    reply::{self, Reply, ReplyCode, Stop},
    session::Session,
    sets::{self, Numbers},
    state::Selected,
    wire::command::{MailboxArgument, SequenceSet},
};

/// COPY and UID COPY: all or none.
pub async fn copy<H: Holding>(
    session: &mut Session<H>,
    selected: &mut Selected,
    uid: bool,
    set: &SequenceSet,
    target: MailboxArgument,
) -> Result<Reply, Stop> {
    let name = valid(target)?;
    let uids = present(selected, uid, set)?;
    if let Some(stopped) = session.settings.message_limits.saving().and_then(|limit| limit.would_stop(&uids)) {
        return Err(stopped.limit.refuse(Some(stopped.lowest), "COPY").into());
    }
    let kept = kept_by(session.rights(&name).await?);
    let target = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
    if uids.is_empty() {
        return Ok(Reply::ok("No messages to copy"));
    }
    let (source, into) = (selected.mailbox.clone(), Arc::clone(&target));
    let Session { connection, held, settings, tag, .. } = &mut *session;
    let work = held.run(move |_| source.copy_keeping(&uids, &into, kept));
    let copied = while_wanted(connection, held, settings, &Progress::unknown(tag), work).await?;
    notify::made(session, Some(selected), &target, copied.pairs.iter().map(|(_, new)| *new));
    Ok(done("Copy completed", copied))
}

/// MOVE and UID MOVE. COPYUID comes before the EXPUNGEs, untagged (RFC 6851 §4.3).
pub async fn move_messages<H: Holding>(
    session: &mut Session<H>,
    selected: &mut Selected,
    uid: bool,
    set: &SequenceSet,
    target: MailboxArgument,
) -> Result<Reply, Stop> {
    let name = valid(target)?;
    let source = selected.writable()?;
    let mut uids = present(selected, uid, set)?;
    let stopped = session.settings.message_limits.working().and_then(|limit| limit.cut_uids(&mut uids));
    let kept = kept_by(session.rights(&name).await?);
    let target = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
    if uids.is_empty() {
        return Ok(Reply::ok("No messages to move"));
    }
    let into = Arc::clone(&target);
    let Session { connection, held, settings, tag, .. } = &mut *session;
    let work = held.run(move |_| source.move_keeping(&uids, &into, kept));
    let moved = while_wanted(connection, held, settings, &Progress::unknown(tag), work).await?;
    notify::made(session, Some(&mut *selected), &target, moved.pairs.iter().map(|(_, new)| *new));
    session.acknowledge().await?;
    let any = !moved.pairs.is_empty();
    done("Moved", moved).write_untagged(session.connection.output());
    let reply = removed(session, selected, any, Reply::ok("Move completed")).await?;
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// The flags that messages keep on their way into a mailbox with these rights: a guest may not set others there (RFC 4314 §4).
fn kept_by(rights: Rights) -> FlagSet {
    guest::changeable(rights).with(Flag::Passed)
}

/// The UIDs that a set names and that are still there. A sequence number whose message is gone is an error: the client believes in it.
pub fn present(selected: &Selected, uid: bool, set: &SequenceSet) -> Result<Vec<Uid>, Reply> {
    let named = sets::uids(&sets::positions(set, Numbers::new(uid), selected)?, &selected.view);
    let messages = selected.mailbox.read();
    let there: Vec<Uid> = named.iter().copied().filter(|uid| messages.position(*uid).is_some()).collect();
    if !uid && there.len() < named.len() { Err(reply::expunged()) } else { Ok(there) }
}

fn done(text: &'static str, copied: Copied) -> Reply {
    let reply = Reply::ok(text);
    if copied.pairs.is_empty() { reply } else { reply.with(ReplyCode::Copied(copied)) }
}
