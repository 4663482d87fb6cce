//! STORE and UID STORE (RFC 3501 §6.4.6, RFC 7162 §3.1.3).

use index::{FlagSet, ModSeq, Uid};
use storage::{Right, Rights, Row, StoreOperation, Stored};

use crate::{
    connection::Connection,
    imap::{
        guest,
        holding::Holding,
        limits::Stopped,
        reply::{self, Reply, ReplyCode, Stop},
        session::Session,
        sets::{self, Numbers},
        state::{Selected, known_flags},
        updates,
        view::Expunges,
        wire::{
            command::{FlagArgument, SequenceSet, StoreHow},
            enabled::Enabled,
            response::FetchWriter,
        },
    },
};

/// What to change.
pub struct Change {
    /// Only messages whose MODSEQ is not above this.
    pub unchanged_since: Option<u64>,
    /// FLAGS, +FLAGS, -FLAGS.
    pub how: StoreHow,
    /// Whether the client works the new flags out itself.
    pub silent: bool,
    /// As the client names them.
    pub flags: Vec<FlagArgument>,
}

/// STORE and UID STORE.
pub async fn store<H: Holding>(
    session: &mut Session<H>,
    selected: &mut Selected,
    uid: bool,
    set: &SequenceSet,
    change: Change,
) -> Result<Reply, Stop> {
    let mailbox = selected.writable()?;
    let mut positions = sets::positions(set, Numbers::new(uid), selected)?;
    let stopped = session.settings.message_limits.working().and_then(|limit| limit.cut(&mut positions, &selected.view));
    let uids = sets::uids(&positions, &selected.view);
    let Change { unchanged_since, how, silent, flags } = change;
    let (flags, may_change) = permitted(selected, how, flags)?;
    if unchanged_since.is_some() {
        session.enable_condstore(Some(selected));
    }
    // What others changed is told first: a silent STORE then leaves the client with the right flags.
    updates::tell(&mut session.connection, selected, session.enabled, Expunges::KeepBack, &[]).await?;
    let before = flags_of(selected, &uids);

    let keywords = selected.mailbox.keywords();
    let (operation, stored) = session
        .held
        .run(move |_| {
            let operation = match how {
                StoreHow::Replace => match (mailbox.make_flags(&flags)?, may_change) {
                    (flags, None) => StoreOperation::Replace(flags),
                    (with, Some(of)) => StoreOperation::ReplaceOf { of, with },
                },
                StoreHow::Add => StoreOperation::Add(mailbox.make_flags(&flags)?),
                StoreHow::Remove => StoreOperation::Remove(known_flags(&keywords, &flags)),
            };
            Ok((operation, mailbox.store(&uids, operation, unchanged_since)?))
        })
        .await?;

    updates::tell_keywords(&mut session.connection, selected);
    let answer = Answer { uid, enabled: session.enabled };
    for row in in_order(&stored.rows, stopped.is_some()) {
        let expected = before.get(row.uid).map(|flags| apply(operation, flags));
        let flags = !silent || expected != Some(row.flags);
        answer.write(&mut session.connection, selected, row, flags).await?;
    }
    // Why it was not changed spares the client a FETCH (RFC 7162 §3.1.3, example 6).
    for uid in in_order(&stored.modified, stopped.is_some()) {
        let row = selected.mailbox.read().get(*uid);
        if let Some(row) = row {
            answer.write(&mut session.connection, selected, &row, true).await?;
        }
    }
    let known: Vec<(Uid, ModSeq)> = stored.rows.iter().map(|row| (row.uid, row.modseq)).collect();
    let expunges = if uid { Expunges::Tell } else { Expunges::KeepBack };
    let numbers = modified(selected, uid, &stored);
    updates::tell(&mut session.connection, selected, session.enabled, expunges, &known).await?;
    let reply = outcome(uid, &stored, numbers, stopped.is_some());
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// From the highest UID down for a command that stops at a limit (RFC 9738 §3.1).
fn in_order<T>(list: &[T], downwards: bool) -> impl Iterator<Item = &T> {
    let at = move |place: usize| if downwards { list.len() - 1 - place } else { place };
    (0..list.len()).filter_map(move |place| list.get(at(place)))
}

/// The flags that a guest may change of those that they name, and for `FLAGS` which those are; no `Some` for the owner.
fn permitted(selected: &Selected, how: StoreHow, flags: Vec<FlagArgument>) -> Result<(Vec<FlagArgument>, Option<FlagSet>), Reply> {
    if selected.rights == Rights::ALL {
        return Ok((flags, None));
    }
    let (named, of) = (flags.len(), guest::changeable(selected.rights));
    let flags = guest::permitted(flags, selected.rights);
    let nothing = if named == 0 { how == StoreHow::Replace && of.is_empty() } else { flags.is_empty() };
    // Where some may be changed, it is no error that others may not: clients do not expect it (RFC 4314 §4).
    if nothing { Err(guest::no_permission(Rights::of(&[Right::Seen, Right::Write, Right::DeleteMessages]))) } else { Ok((flags, Some(of))) }
}

/// Which items the FETCH responses of one STORE have.
struct Answer {
    uid: bool,
    enabled: Enabled,
}

impl Answer {
    async fn write(&self, connection: &mut Connection, selected: &Selected, row: &Row, flags: bool) -> Result<(), Stop> {
        let Some(sequence) = selected.view.sequence_of(row.uid) else { return Ok(()) };
        let modseq = self.enabled.modseq();
        if !flags && !modseq {
            return Ok(());
        }
        let out = connection.output();
        let mut fetch = FetchWriter::begin(out, self.enabled, sequence, row.uid);
        if !self.enabled.uid_only && (self.uid || modseq) {
            fetch.uid(out, row.uid);
        }
        if modseq {
            fetch.modseq(out, row.modseq);
        }
        if flags {
            fetch.flags(out, row.flags, &selected.mailbox.keywords(), selected.view.is_recent(row.uid));
        }
        fetch.finish(out);
        connection.flush_if_large().await?;
        Ok(())
    }
}

/// The flags of messages before the change, by UID.
struct Before(Vec<(Uid, FlagSet)>);

impl Before {
    fn get(&self, uid: Uid) -> Option<FlagSet> {
        let at = self.0.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        self.0.get(at).map(|(_, flags)| *flags)
    }
}

/// The flags that the client was told. Of what somebody else changed since, it knows nothing: a silent STORE tells it.
fn flags_of(selected: &Selected, uids: &[Uid]) -> Before {
    let messages = selected.mailbox.read();
    let told = selected.view.highest_modseq();
    let rows = uids.iter().filter_map(|uid| messages.get(*uid)).filter(|row| row.modseq.get() <= told);
    Before(rows.map(|row| (row.uid, row.flags)).collect())
}

/// The flags a client expects.
fn apply(operation: StoreOperation, flags: FlagSet) -> FlagSet {
    match operation {
        StoreOperation::Replace(new) => new,
        StoreOperation::Add(more) => flags.union(more),
        StoreOperation::Remove(less) => flags.difference(less),
        StoreOperation::ReplaceOf { of, with } => flags.difference(of).union(with.intersection(of)),
    }
}

/// The messages that were not changed, as the client counts.
fn modified(selected: &Selected, uid: bool, stored: &Stored) -> Vec<u32> {
    let number = |message: &Uid| if uid { Some(message.get()) } else { selected.view.sequence_of(*message) };
    stored.modified.iter().filter_map(number).collect()
}

fn outcome(uid: bool, stored: &Stored, modified: Vec<u32>, stopped: bool) -> Reply {
    let reply = match (stored.missing.is_empty() || uid, stopped) {
        (true, _) => Reply::ok("Store completed"),
        (false, true) => reply::also_expunged(),
        (false, false) => reply::expunged(),
    };
    if modified.is_empty() { reply } else { reply.with(ReplyCode::Modified(modified)) }
}

#[cfg(test)]
mod tests {
    use index::Flag;

    use super::*;

    #[test]
    fn a_silent_client_knows_what_its_change_makes_of_the_flags() {
        let seen = FlagSet::of(&[Flag::Seen]);
        let both = FlagSet::of(&[Flag::Seen, Flag::Deleted]);
        assert_eq!(apply(StoreOperation::Add(FlagSet::of(&[Flag::Deleted])), seen), both);
        assert_eq!(apply(StoreOperation::Remove(FlagSet::of(&[Flag::Deleted])), both), seen);
        assert_eq!(apply(StoreOperation::Replace(FlagSet::EMPTY), both), FlagSet::EMPTY);
    }

    #[test]
    fn messages_that_are_gone_are_an_error_only_by_sequence_number() {
        let stored = Stored { missing: vec![Uid::new(4).unwrap()], ..Stored::default() };
        assert_eq!(outcome(false, &stored, vec![], false), reply::expunged());
        assert_eq!(outcome(true, &stored, vec![], false), Reply::ok("Store completed"));
        assert_eq!(outcome(true, &stored, vec![7], false).code, Some(ReplyCode::Modified(vec![7])));
    }
}
