//! APPEND (RFC 3501 §6.3.11) with several messages (RFC 3502); each is streamed from the wire into its file.
//!
//! - A message that is too large is refused before it is sent.
//! - What was taken of a message that is then refused is thrown away (`Staged` removes its file).

use std::sync::Arc;

use bytes::BytesMut;
use index::{FlagSet, Uid};
use storage::{Mailbox, Staged};

use super::mailboxes::valid;
use crate::imap::{
    holding::Holding,
    reply::{self, Reply, ReplyCode, Stop},
    session::Session,
    state::make_flags,
    wire::{
        framing::{AppendStart, Step},
        response::{self, Code},
    },
};

/// How much is handed to the blocking pool at once: a thread per network packet would be wasted.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most messages of one command: each keeps a file open until all are there.
const MESSAGES_MAX: usize = 64;

type Message = (Staged, FlagSet, Option<i64>);

/// APPEND, from its first message on.
pub async fn append<H: Holding>(session: &mut Session<H>, start: AppendStart) -> Result<Reply, Stop> {
    let mut messages = Vec::new();
    let mut target = None;
    let mut next = start;
    loop {
        match take(session, &mut target, next, messages.len()).await {
            Ok(message) => messages.push(message),
            Err(stop) => {
                session.framer.refuse_literal();
                return Err(discard(session, messages, stop).await);
            }
        }
        next = match after_message(session).await {
            Ok(Some(start)) => start,
            Ok(None) => break,
            Err(stop) => return Err(discard(session, messages, stop).await),
        };
    }
    let Some(target) = target else { return Err(Reply::bad("APPEND needs a message literal").into()) };
    let appended = session.held.run(move |_| target.append_all(messages)).await?;
    let Some(first) = appended.first() else { return Ok(Reply::ok("Append completed")) };
    let uids: Vec<Uid> = appended.iter().map(|message| message.uid).collect();
    Ok(Reply::ok("Append completed").with(ReplyCode::Appended { uid_validity: first.uid_validity, uids }))
}

/// Throws away what was taken: that removes files, so it is done on the blocking pool.
async fn discard<H: Holding>(session: &mut Session<H>, messages: Vec<Message>, stop: Stop) -> Stop {
    let removed = session.held.run(move |_| {
        drop(messages);
        Ok(())
    });
    match removed.await.map_err(Stop::from) {
        Ok(()) | Err(Stop::Reply(_)) => stop,
        Err(worse) => worse,
    }
}

/// Takes one message.
async fn take<H: Holding>(
    session: &mut Session<H>,
    target: &mut Option<Arc<Mailbox>>,
    start: AppendStart,
    already: usize,
) -> Result<Message, Stop> {
    let AppendStart { mailbox, flags, date, literal, .. } = start;
    if literal.binary {
        return Err(Reply::bad("BINARY is not offered: send the message as a plain literal").into());
    }
    if literal.size > session.settings.message_bytes {
        let text = format!("The message is larger than the {} bytes allowed", session.settings.message_bytes);
        return Err(Reply::no(Code::TooBig, text).into());
    }
    if literal.size == 0 {
        return Err(Reply::no(Code::Cannot, "The message is empty").into());
    }
    if already >= MESSAGES_MAX {
        return Err(Reply::no(Code::Limit, format!("At most {MESSAGES_MAX} messages can be appended at once")).into());
    }
    let mailbox = match target {
        Some(mailbox) => Arc::clone(mailbox),
        None => {
            let name = valid(mailbox)?;
            let mailbox = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
            Arc::clone(target.insert(mailbox))
        }
    };
    let size = literal.size;
    let (staged, flags) = session.held.run(move |_| Ok((mailbox.stage(size)?, make_flags(&mailbox, &flags)?))).await?;
    if session.framer.accept_literal() {
        response::continuation(session.connection.output(), "Ready for the message");
    }
    Ok((receive(session, staged).await?, flags, date))
}

/// Streams the message that was accepted.
async fn receive<H: Holding>(session: &mut Session<H>, mut staged: Staged) -> Result<Staged, Stop> {
    let mut chunk = BytesMut::new();
    loop {
        match session.framer.literal_chunk(session.connection.input()) {
            Some(bytes) => chunk.extend_from_slice(&bytes),
            None if session.framer.literal_remaining() == 0 => break,
            None => session.fill().await?,
        }
        if chunk.len() >= CHUNK_BYTES {
            staged = write(&session.held, staged, chunk.split()).await?;
        }
    }
    if chunk.is_empty() { Ok(staged) } else { write(&session.held, staged, chunk).await }
}

async fn write<H: Holding>(held: &H, mut staged: Staged, bytes: BytesMut) -> Result<Staged, Stop> {
    Ok(held.run(move |_| staged.write(&bytes).map(|()| staged)).await?)
}

/// What follows a message: another one, or `None`, the end of the command.
async fn after_message<H: Holding>(session: &mut Session<H>) -> Result<Option<AppendStart>, Stop> {
    loop {
        match session.framer.next(session.connection.input()) {
            Step::NeedInput => session.fill().await?,
            Step::Continue { text } => response::continuation(session.connection.output(), text),
            Step::Append(start) => return Ok(Some(start)),
            Step::AppendEnd => return Ok(None),
            Step::Refused(refusal) if refusal.fatal => return Err(Stop::Bye(refusal.reason.into())),
            Step::Refused(refusal) => return Err(Reply::bad(refusal.reason).into()),
            // The framer is still inside APPEND: a command can't come.
            Step::Command(_) => return Err(Reply::bad("Expected the end of APPEND").into()),
        }
    }
}
