//! Telling a client what happened in its mailbox: EXPUNGE, EXISTS, RECENT, FLAGS and FETCH that nobody asked for.

use index::{ModSeq, Uid};
use storage::Right;

use crate::{
    connection::Connection,
    imap::{
        guest,
        reply::{MOVED_AWAY, Stop},
        state::{Access, Selected},
        view::Expunges,
        wire::{
            enabled::Enabled,
            response::{self, Code, Condition, Earlier, FetchWriter},
        },
    },
};

/// Moves the view and writes what changed. `known`: see [`crate::imap::view::View::update`].
pub async fn tell(
    connection: &mut Connection,
    selected: &mut Selected,
    enabled: Enabled,
    expunges: Expunges,
    known: &[(Uid, ModSeq)],
) -> Result<(), Stop> {
    if selected.mailbox.is_deleted() {
        return Err(Stop::Bye("The selected mailbox was deleted".into()));
    }
    if !selected.heard.messages && !selected.must_tell {
        return Ok(());
    }
    if !selected.view.is_behind(&*selected.mailbox.read(), expunges) {
        return Ok(());
    }
    let first_recent = enabled.recent().then(|| selected.mailbox.recent(selected.access == Access::ReadWrite));
    let (updates, uid_next) = {
        let messages = selected.mailbox.read();
        (selected.view.update(&*messages, expunges, known), messages.uid_next())
    };
    tell_keywords(connection, selected);
    selected.contexts.leave(connection.output(), &updates.vanished, &updates.expunged);
    if enabled.vanished() {
        if !updates.vanished.is_empty() {
            response::vanished(connection.output(), Earlier::No, updates.vanished.iter().map(|uid| (uid.get(), uid.get())));
        }
    } else {
        for sequence in updates.expunged {
            response::expunge(connection.output(), sequence);
            connection.flush_if_large().await?;
        }
    }
    if let Some(exists) = updates.exists {
        response::exists(connection.output(), exists);
        if let Some(first) = first_recent {
            selected.view.claim_recent(first, uid_next);
            response::recent(connection.output(), selected.view.recent_count());
        }
    }
    let keywords = selected.mailbox.keywords();
    for (sequence, row) in updates.changed.into_iter().filter(|_| selected.heard.flags) {
        let recent = selected.view.is_recent(row.uid);
        let out = connection.output();
        let mut fetch = FetchWriter::begin(out, enabled, sequence, row.uid);
        if enabled.uid() || (selected.heard.by_notify && !enabled.uid_only) {
            fetch.uid(out, row.uid);
        }
        if enabled.modseq() {
            fetch.modseq(out, row.modseq);
        }
        fetch.flags(out, row.flags, &keywords, recent);
        fetch.finish(out);
        connection.flush_if_large().await?;
    }
    Ok(())
}

/// Before each tagged answer to a client with QRESYNC: while expunges are kept back, how far it knows everything. It would take the highest MODSEQ that the command
/// brought for that, and after a lost connection never hear of expunges below it (RFC 7162 §3.2 and §6).
pub fn tell_owed(connection: &mut Connection, selected: &mut Selected, enabled: Enabled) {
    if enabled.qresync() && selected.view.keeps_back() {
        tell_highest(connection, selected.view.told_with_expunges(), "Some expunged messages are told later");
        selected.expunges_owed = true;
    } else if std::mem::take(&mut selected.expunges_owed) {
        tell_highest(connection, selected.view.highest_modseq(), "All is told");
    }
}

fn tell_highest(connection: &mut Connection, modseq: u64, text: &str) {
    if let Some(modseq) = ModSeq::new(modseq) {
        response::untagged(connection.output(), Condition::Ok, Some(&Code::HighestModSeq(modseq)), text);
    }
}

/// Names keywords that came up since the client was last told, before they are used.
pub fn tell_keywords(connection: &mut Connection, selected: &mut Selected) {
    let keywords = selected.mailbox.keywords();
    if keywords.len() == selected.keywords_told {
        return;
    }
    selected.keywords_told = keywords.len();
    let out = connection.output();
    response::flags(out, &keywords);
    let code = match selected.access {
        Access::ReadWrite => {
            let may_write = selected.rights.has(Right::Write);
            Code::PermanentFlags {
                system: guest::changeable(selected.rights),
                keywords: if may_write { &keywords } else { &[] },
                more: may_write && selected.mailbox.accepts_new_keywords(),
            }
        }
        Access::ReadOnly => Code::NoPermanentFlags,
    };
    response::untagged(out, Condition::Ok, Some(&code), "Flags that are kept");
}

/// What a session says when its account is taken away.
pub fn farewell(text: &str) -> Stop {
    Stop::Bye(if text.is_empty() { MOVED_AWAY.into() } else { text.to_owned().into() })
}
