//! APPEND (RFC 3501 §6.3.11) of one message or several (RFC 3502): each is streamed from the wire into its file.
//!
//! - A message that is too large is refused before it is sent.
//! - What was taken of a message that is then refused, and all before it, is thrown away (`Staged` removes its file).
//! - Of messages that wait for others only small ones stay in memory (`MESSAGES_MAX` times `WAITING_BYTES_MAX`).

use std::sync::Arc;

use bytes::BytesMut;
use index::FlagSet;
use storage::{Mailbox, Staged};

use super::mailboxes::valid;
use crate::imap::{
    holding::Holding,
    reply::{self, Reply, ReplyCode, Stop},
    session::Session,
    state::make_flags,
    wire::{
        command::FlagArgument,
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
pub async fn append<H: Holding>(session: &mut Session<H>, start: AppendStart) -> Result<Reply, Stop> {
    let mut received = Vec::new();
    let result = take(session, start, &mut received).await;
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

/// Takes all messages, then stores all or none.
async fn take<H: Holding>(session: &mut Session<H>, start: AppendStart, received: &mut Vec<Received>) -> Result<Reply, Stop> {
    let AppendStart { mailbox, flags, date, literal, .. } = start;
    let mut announced = Announced { flags, date, literal };
    check(session, &announced)?;
    let name = valid(mailbox)?;
    let mailbox = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
    loop {
        receive(session, &mailbox, announced, received).await?;
        announced = match next(session).await? {
            Next::End => break,
            Next::Message(_) if received.len() >= MESSAGES_MAX => {
                return Err(Reply::no(Code::Limit, format!("One APPEND takes {MESSAGES_MAX} messages at most")).into());
            }
            Next::Message(announced) => announced,
        };
        check(session, &announced)?;
        leave_memory(session, received).await?;
    }
    let messages = std::mem::take(received);
    let appended = session.held.run(move |_| mailbox.append_all(messages)).await?;
    let reply = Reply::ok("Append completed");
    Ok(match appended.first() {
        Some(first) => {
            let uids = appended.iter().map(|appended| appended.uid).collect();
            reply.with(ReplyCode::Appended { validity: first.uid_validity, uids })
        }
        None => reply,
    })
}

/// What is refused before it is sent.
fn check<H>(session: &Session<H>, announced: &Announced) -> Result<(), Reply> {
    let literal = announced.literal;
    if literal.binary {
        return Err(Reply::bad("BINARY is not offered: send the message as a plain literal"));
    }
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
    received.push((stream(session, staged).await?, flags, date));
    Ok(())
}

/// Keeps what waits for further messages from taking memory.
async fn leave_memory<H: Holding>(session: &Session<H>, received: &mut Vec<Received>) -> Result<(), Stop> {
    let Some((mut staged, flags, date)) = received.pop_if(|(staged, ..)| staged.len() > WAITING_BYTES_MAX) else { return Ok(()) };
    let staged = session.held.run(move |_| staged.leave_memory().map(|()| staged)).await?;
    received.push((staged, flags, date));
    Ok(())
}

async fn stream<H: Holding>(session: &mut Session<H>, mut staged: Staged) -> Result<Staged, Stop> {
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
