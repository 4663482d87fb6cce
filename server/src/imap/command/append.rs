//! APPEND (RFC 3501 §6.3.11): the message is streamed from the wire into its file.
//!
//! - A message that is too large is refused before it is sent.
//! - What was taken of a message that is then refused is thrown away (`Staged` removes its file).

use bytes::BytesMut;
use index::FlagSet;
use storage::Staged;

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

/// APPEND, from its message on.
pub async fn append<H: Holding>(session: &mut Session<H>, start: AppendStart) -> Result<Reply, Stop> {
    let result = take(session, start).await;
    if result.is_err() {
        session.framer.refuse_literal();
    }
    result
}

async fn take<H: Holding>(session: &mut Session<H>, start: AppendStart) -> Result<Reply, Stop> {
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
    let name = valid(mailbox)?;
    let mailbox = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
    let target = mailbox.clone();
    let size = literal.size;
    let (staged, flags): (Staged, FlagSet) = session.held.run(move |_| Ok((target.stage(size)?, make_flags(&target, &flags)?))).await?;
    if session.framer.accept_literal() {
        response::continuation(session.connection.output(), "Ready for the message");
    }
    let staged = receive(session, staged).await?;
    if let Err(stop) = end(session).await {
        // Throwing it away removes its file: not on this thread.
        session
            .held
            .run(move |_| {
                drop(staged);
                Ok(())
            })
            .await?;
        return Err(stop);
    }
    let appended = session.held.run(move |_| mailbox.append(staged, flags, date)).await?;
    Ok(Reply::ok("Append completed").with(ReplyCode::Appended(appended)))
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

/// The end of the command must follow the message.
async fn end<H: Holding>(session: &mut Session<H>) -> Result<(), Stop> {
    loop {
        match session.framer.next(session.connection.input()) {
            Step::NeedInput => session.fill().await?,
            Step::Continue { text } => response::continuation(session.connection.output(), text),
            Step::AppendEnd => return Ok(()),
            Step::Refused(refusal) if refusal.fatal => return Err(Stop::Bye(refusal.reason.into())),
            Step::Refused(refusal) => return Err(Reply::bad(refusal.reason).into()),
            // The framer is still inside APPEND: neither can come.
            Step::Command(_) | Step::Append(_) => return Err(Reply::bad("Expected the end of APPEND").into()),
        }
    }
}
