//! SELECT and EXAMINE (RFC 3501 §6.3.1, RFC 7162 §3.1.8, RFC 8474 §4.2).

use index::{Flag, ModSeq};
use storage::Columns;

use super::{list, mailboxes, notify::Heard, vanished};
use crate::imap::{
    guest,
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::{Access, NOTHING_TOLD, Selected, State},
    updates,
    view::{View, sequence},
    wire::{
        command::Select,
        response::{self, Code, Condition},
    },
};

/// SELECT and EXAMINE. Whatever was selected is not any more, also when this fails.
pub async fn select<H: Holding>(session: &mut Session<H>, state: &mut State, select: Select) -> Result<Reply, Stop> {
    if select.resync.is_some() {
        session.needs_qresync()?;
    }
    session.leave_selected(state);
    let written = mailboxes::other_spelling(&select.mailbox);
    let name = mailboxes::valid(select.mailbox)?;
    let rights = session.rights(&name).await?;
    let (mailbox, object_id) = session
        .held
        .run(move |account| {
            let mailbox = account.mailbox(&name)?;
            mailbox.refresh(false)?;
            let object_id = mailbox.object_id()?;
            Ok((mailbox, object_id))
        })
        .await?;
    if select.condstore {
        session.enable_condstore(None);
    }
    let access = if select.read_only || !guest::may_write(rights) { Access::ReadOnly } else { Access::ReadWrite };
    let mut changes = mailbox.changes();
    changes.mark_unchanged();
    let first_recent = session.enabled.recent().then(|| mailbox.recent(access == Access::ReadWrite));
    let (mut view, uid_next, unseen) = {
        let messages = mailbox.read();
        (View::open(&*messages), messages.uid_next(), first_unseen(&messages))
    };
    if let Some(first) = first_recent {
        view.claim_recent(first, uid_next);
    }

    let (saved, contexts) = Default::default();
    let heard = Box::new(session.following.as_ref().map_or(Heard::ALWAYS, |following| following.heard()));
    let announced = view.uid_next();
    let mut selected = Selected {
        mailbox,
        access,
        rights,
        view,
        changes,
        keywords_told: NOTHING_TOLD,
        expunges_owed: false,
        saved,
        contexts,
        heard,
        must_tell: false,
        announced,
        own: Vec::new(),
    };
    updates::tell_keywords(&mut session.connection, &mut selected);
    let Selected { mailbox, view, .. } = &selected;
    let out = session.connection.output();
    response::exists(out, view.exists());
    if session.enabled.recent() {
        response::recent(out, view.recent_count());
    }
    if let Some(sequence) = unseen.filter(|_| !session.enabled.rev2 && !session.enabled.uid_only) {
        response::untagged(out, Condition::Ok, Some(&Code::Unseen(sequence)), "First unseen");
    }
    response::untagged(out, Condition::Ok, Some(&Code::UidValidity(mailbox.uid_validity())), "UIDs valid");
    response::untagged(out, Condition::Ok, Some(&Code::UidNext(uid_next)), "Predicted next UID");
    if let Some(modseq) = ModSeq::new(view.highest_modseq()) {
        response::untagged(out, Condition::Ok, Some(&Code::HighestModSeq(modseq)), "Highest");
    }
    response::untagged(out, Condition::Ok, Some(&Code::MailboxId(&object_id)), "Id of the mailbox");
    if session.enabled.rev2 {
        list::announce(session, &selected.mailbox.name(), written.as_deref()).await?;
    }
    if let Some(resync) = select.resync {
        vanished::resynchronise(session, &mut selected, resync).await?;
    }
    *state = State::Selected(selected);
    Ok(match access {
        Access::ReadWrite => Reply::ok("Select completed").with(Code::ReadWrite.into()),
        Access::ReadOnly => Reply::ok(if select.read_only { "Examine completed" } else { "Select completed" }).with(Code::ReadOnly.into()),
    })
}

fn first_unseen(messages: &Columns) -> Option<u32> {
    (0..messages.len()).find(|position| !messages.row(*position).flags.contains(Flag::Seen)).map(sequence)
}
