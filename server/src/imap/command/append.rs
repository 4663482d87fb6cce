//! APPEND (RFC 3501 §6.3.11) of one message or several (RFC 3502), and REPLACE (RFC 8508): each is streamed from the wire into its file.
//!
//! - A message that is too large is refused before it is sent.
//! - What was taken of a message that is then refused, and all before it, is thrown away (`Staged` removes its file).
//! - Of messages that wait for others only small ones stay in memory (`MESSAGES_MAX` times `WAITING_BYTES_MAX`).

use std::sync::Arc;

use bytes::BytesMut;
use index::{FlagSet, Uid, UidValidity};
use smallvec::smallvec;
use storage::{Mailbox, Staged};

use super::{expunge, mailboxes::valid};
use crate::imap::{
    holding::Holding,
    reply::{self, Reply, ReplyCode, Stop},
    session::Session,
    sets::{self, Numbers},
    state::{Selected, State, make_flags},
    wire::{
        command::{FlagArgument, Replaced, SequenceRange, SequenceSet},
        framing::{AppendNext, AppendStart, LiteralHeader, Step},
        response::{self, Code},
    },
};

/// How much is handed to the blocking pool at once: a thread per network packet would be wasted.
const CHUNK_BYTES: usize = 64 * 1024;

/// Most messages of one APPEND: until the last has come, each holds an open file. Who has more sends several APPENDs.
const MESSAGES_MAX: usize = 100;
/// Bytes of a message that waits for others in memory; a larger one waits in its file.
const WAITING_BYTES_MAX: u64 = 32 * 1024;

/// A message as announced.
struct Announced {
    flags: Vec<FlagArgument>,
    date: Option<i64>,
    literal: LiteralHeader,
}

/// A message that was received.
type Received = (Staged, FlagSet, Option<i64>);

/// What follows a message.
enum Next {
    Message(Announced),
    End,
}

/// APPEND, from its message on.
pub async fn append<H: Holding>(session: &mut Session<H>, state: &mut State, start: AppendStart) -> Result<Reply, Stop> {
    let mut received = Vec::new();
    let result = match start.replaces {
        None => take(session, start, None, &mut received).await.map(|stored| stored.reply("Append completed")),
        Some(replaced) => replace(session, state, start, replaced, &mut received).await,
    };
    if result.is_err() {
        session.framer.refuse_literal();
        if !received.is_empty() {
            // Throwing them away removes their files: not on this thread.
            let thrown_away = session.held.run(move |_| {
                drop(received);
                Ok(())
            });
            thrown_away.await?;
        }
    }
    result
}

/// REPLACE (RFC 8508): the new message is stored, then the old one goes.
async fn replace<H: Holding>(
    session: &mut Session<H>,
    state: &mut State,
    start: AppendStart,
    replaced: Replaced,
    received: &mut Vec<Received>,
) -> Result<Reply, Stop> {
    let selected = state.selected()?;
    let (source, old) = (selected.writable()?, to_be_replaced(selected, replaced)?);
    let stored = take(session, start, Some(old), received).await?;
    let (target, new) = (Arc::clone(&stored.mailbox), stored.uids.clone());
    let removed = session.held.run(move |_| {
        source.remove(&[old]).inspect_err(|_| {
            // Neither or both: that the new one stays after a failure is the lesser harm, and in the log.
            target.remove(&new).map(drop).unwrap_or_else(|error| tracing::warn!(%error, "REPLACE leaves its new message"));
        })
    });
    let removed = removed.await?;
    session.acknowledge().await?;
    stored.reply("Replacement message ready").write_untagged(session.connection.output());
    expunge::removed(session, selected, !removed.is_empty(), Reply::ok("Replace completed")).await
}

/// The message that REPLACE names; it must be there.
fn to_be_replaced(selected: &Selected, replaced: Replaced) -> Result<Uid, Reply> {
    let Replaced { uid, message } = replaced;
    let set = SequenceSet::Ranges(smallvec![SequenceRange { low: message, high: message }]);
    let named = sets::uids(&sets::positions(&set, Numbers::new(uid), selected)?, &selected.view);
    let there = named.first().copied().filter(|uid| selected.mailbox.read().position(*uid).is_some());
    there.ok_or_else(reply::expunged)
}

/// Messages that are durable.
struct Stored {
    mailbox: Arc<Mailbox>,
    validity: Option<UidValidity>,
    uids: Vec<Uid>,
}

impl Stored {
    /// OK with APPENDUID.
    fn reply(&self, text: &'static str) -> Reply {
        let reply = Reply::ok(text);
        match self.validity {
            Some(validity) => reply.with(ReplyCode::Appended { validity, uids: self.uids.clone() }),
            None => reply,
        }
    }
}

/// Takes all messages, then stores all or none. `replaces`: what the only message takes the place of.
async fn take<H: Holding>(
    session: &mut Session<H>,
    start: AppendStart,
    replaces: Option<Uid>,
    received: &mut Vec<Received>,
) -> Result<Stored, Stop> {
    let AppendStart { mailbox, flags, date, literal, .. } = start;
    let mut announced = Announced { flags, date, literal };
    check(session, &announced)?;
    let name = valid(mailbox)?;
    let mailbox = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
    loop {
        receive(session, &mailbox, announced, received).await?;
        announced = match next(session).await? {
            Next::End => break,
            Next::Message(_) if replaces.is_some() => return Err(Reply::bad("REPLACE takes one message").into()),
            Next::Message(_) if received.len() >= MESSAGES_MAX => {
                return Err(Reply::no(Code::Limit, format!("One APPEND takes {MESSAGES_MAX} messages at most")).into());
            }
            Next::Message(announced) => announced,
        };
        check(session, &announced)?;
        leave_memory(session, received).await?;
    }
    let messages = std::mem::take(received);
    let target = Arc::clone(&mailbox);
    let appended = session.held.run(move |_| target.append_all(messages)).await?;
    let validity = appended.first().map(|first| first.uid_validity);
    Ok(Stored { mailbox, validity, uids: appended.iter().map(|appended| appended.uid).collect() })
}

/// What is refused before it is sent.
fn check<H>(session: &Session<H>, announced: &Announced) -> Result<(), Reply> {
    let literal = announced.literal;
    if literal.size > session.settings.message_bytes {
        let text = format!("The message is larger than the {} bytes allowed", session.settings.message_bytes);
        return Err(Reply::no(Code::TooBig, text));
    }
    if literal.size == 0 {
        return Err(Reply::no(Code::Cannot, "The message is empty"));
    }
    Ok(())
}

/// Streams the message into its file; it is thrown away with what came before if that fails.
async fn receive<H: Holding>(
    session: &mut Session<H>,
    mailbox: &Arc<Mailbox>,
    announced: Announced,
    received: &mut Vec<Received>,
) -> Result<(), Stop> {
    let Announced { flags, date, literal } = announced;
    let target = Arc::clone(mailbox);
    let prepared = session.held.run(move |_| Ok((target.stage(literal.size)?, make_flags(&target, &flags)?)));
    let (staged, flags) = prepared.await?;
    if session.framer.accept_literal() {
        response::continuation(session.connection.output(), "Ready for the message");
    }
    let (staged, is_text) = stream(session, staged).await?;
    received.push((staged, flags, date));
    if literal.binary && !is_text {
        // Kept with text's line ends, it would come back changed (RFC 3516 §4.4).
        return Err(Reply::no(Code::UnknownCte, "Binary content can't be stored: encode it as base64").into());
    }
    Ok(())
}

/// Keeps what waits for further messages from taking memory.
async fn leave_memory<H: Holding>(session: &Session<H>, received: &mut Vec<Received>) -> Result<(), Stop> {
    let Some((mut staged, flags, date)) = received.pop_if(|(staged, ..)| staged.len() > WAITING_BYTES_MAX) else { return Ok(()) };
    let staged = session.held.run(move |_| staged.leave_memory().map(|()| staged)).await?;
    received.push((staged, flags, date));
    Ok(())
}

/// Streams the message that was accepted; whether it is text: no NUL, and every line ends with CRLF.
async fn stream<H: Holding>(session: &mut Session<H>, mut staged: Staged) -> Result<(Staged, bool), Stop> {
    let mut chunk = BytesMut::new();
    let (mut is_text, mut after_cr) = (true, false);
    loop {
        match session.framer.literal_chunk(session.connection.input()) {
            Some(bytes) => {
                is_text &= continues_text(&bytes, &mut after_cr);
                chunk.extend_from_slice(&bytes);
            }
            None if session.framer.literal_remaining() == 0 => break,
            None => session.fill().await?,
        }
        if chunk.len() >= CHUNK_BYTES {
            staged = write(&session.held, staged, chunk.split()).await?;
        }
    }
    let staged = if chunk.is_empty() { staged } else { write(&session.held, staged, chunk).await? };
    Ok((staged, is_text))
}

/// Whether bytes have no NUL and no LF without CR. `after_cr`: whether those before ended with CR.
fn continues_text(bytes: &[u8], after_cr: &mut bool) -> bool {
    let before = |at: usize| at.checked_sub(1).map_or(*after_cr, |at| bytes.get(at) == Some(&b'\r'));
    let is_text = memchr::memchr(0, bytes).is_none() && memchr::memchr_iter(b'\n', bytes).all(before);
    *after_cr = bytes.last().map_or(*after_cr, |last| *last == b'\r');
    is_text
}

async fn write<H: Holding>(held: &H, mut staged: Staged, bytes: BytesMut) -> Result<Staged, Stop> {
    Ok(held.run(move |_| staged.write(&bytes).map(|()| staged)).await?)
}

/// The end of the command, or another message, must follow.
async fn next<H: Holding>(session: &mut Session<H>) -> Result<Next, Stop> {
    loop {
        match session.framer.next(session.connection.input()) {
            Step::NeedInput => session.fill().await?,
            Step::Continue { text } => response::continuation(session.connection.output(), text),
            Step::AppendEnd => return Ok(Next::End),
            Step::AppendNext(AppendNext { flags, date, literal }) => return Ok(Next::Message(Announced { flags, date, literal })),
            Step::Refused(refusal) if refusal.fatal => return Err(Stop::Bye(refusal.reason.into())),
            Step::Refused(refusal) => return Err(Reply::bad(refusal.reason).into()),
            // The framer is still inside APPEND: neither can come.
            Step::Command(_) | Step::Append(_) => return Err(Reply::bad("Expected the end of APPEND").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_binary_however_it_is_cut() {
        for (message, expected) in [("a\r\nb\r\n", true), ("a\nb", false), ("\n", false), ("a\r\n\n", false), ("a\0", false), ("\r", true)]
        {
            for cut in 0..=message.len() {
                let (one, other) = message.as_bytes().split_at(cut);
                let mut after_cr = false;
                let is_text = continues_text(one, &mut after_cr) & continues_text(other, &mut after_cr);
                assert_eq!(is_text, expected, "{message:?} at {cut}");
            }
        }
    }
}
