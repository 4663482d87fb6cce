//! APPEND (RFC 3501 §6.3.11) of one message or several (RFC 3502), and REPLACE (RFC 8508): each is streamed from the wire
//! into its file, or put together from texts and parts of other messages (RFC 4469).
//!
//! - A message that is too large is refused before it is sent.
//! - What was taken of a message that is then refused, and all before it, is thrown away (`Staged` removes its file).
//! - Of messages that wait for others only small ones stay in memory (`WAITING_MAX` times `WAITING_BYTES_MAX`).

mod catenate;

use std::sync::Arc;

use bytes::BytesMut;
use index::{FlagSet, Uid, UidValidity};
use smallvec::smallvec;
use storage::{Mailbox, MailboxName, Staged};

use super::{
    expunge, list,
    mailboxes::{other_spelling, valid},
    notify,
};
use crate::imap::{
    guest,
    holding::Holding,
    reply::{self, Reply, ReplyCode, Stop},
    session::{Session, uid_required},
    sets::{self, Numbers},
    state::{Selected, State, make_flags},
    wire::{
        command::{AppendLine, AppendPiece, AppendStart, LiteralHeader, Replaced, SequenceRange, SequenceSet},
        framing::Step,
        response::{self, Code},
    },
};

/// How much is handed to the blocking pool at once: a thread per network packet would be wasted.
const CHUNK_BYTES: usize = 64 * 1024;

/// Most messages of one APPEND, unless a limit is advertised (RFC 9738). Who has more sends several APPENDs.
const MESSAGES_MAX: usize = 100;
/// So many messages wait in memory or in open files for the last one of their APPEND; more wait in closed ones.
pub const WAITING_MAX: usize = 100;
/// Bytes of a message that waits for others in memory; a larger one waits in its file.
const WAITING_BYTES_MAX: u64 = 32 * 1024;

/// A message that was received.
type Received = (Staged, FlagSet, Option<i64>);

/// A message that is being received.
struct Coming {
    staged: Staged,
    flags: FlagSet,
    date: Option<i64>,
    content: Content,
}

/// APPEND, from its message on.
pub async fn append<H: Holding>(session: &mut Session<H>, state: &mut State, start: AppendStart) -> Result<Reply, Stop> {
    let mut received = Vec::new();
    let result = match start.replaces {
        None => {
            let selected = state.opened().map(|selected| selected.mailbox.name());
            let stored = take(session, selected.as_ref(), start, None, &mut received).await;
            stored.map(|stored| {
                stored.known(session, state.selected().ok());
                stored.reply("Append completed")
            })
        }
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
    if session.enabled.uid_only && !replaced.uid {
        return Err(uid_required().into());
    }
    let selected = state.selected()?;
    let (source, old) = (selected.writable()?, to_be_replaced(selected, replaced)?);
    let name = selected.mailbox.name();
    let stored = take(session, Some(&name), start, Some((Arc::clone(&selected.mailbox), old)), received).await?;
    let (target, new) = (Arc::clone(&stored.mailbox), stored.uids.clone());
    let removed = session.held.run(move |_| {
        source.remove(&[old]).inspect_err(|_| {
            // Neither or both: that the new one stays after a failure is the lesser harm, and in the log.
            target.remove(&new).map(drop).unwrap_or_else(|error| tracing::warn!(%error, "REPLACE leaves its new message"));
        })
    });
    let removed = removed.await?;
    stored.known(session, Some(&mut *selected));
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
    /// NOTIFY tells nothing of what the client did.
    fn known<H>(&self, session: &mut Session<H>, selected: Option<&mut Selected>) {
        notify::made(session, selected, &self.mailbox, self.uids.iter().copied());
    }
    /// OK with APPENDUID.
    fn reply(&self, text: &'static str) -> Reply {
        let reply = Reply::ok(text);
        match self.validity {
            Some(validity) => reply.with(ReplyCode::Appended { validity, uids: self.uids.clone() }),
            None => reply,
        }
    }
}

/// Takes all messages, then stores all or none. `selected`: the name of the selected mailbox; `replaces`: what the only message takes the place of.
async fn take<H: Holding>(
    session: &mut Session<H>,
    selected: Option<&MailboxName>,
    start: AppendStart,
    replaces: Option<(Arc<Mailbox>, Uid)>,
    received: &mut Vec<Received>,
) -> Result<Stored, Stop> {
    let AppendStart { mailbox, mut line, .. } = start;
    if let Some(literal) = line.literal {
        check(session, 0, literal)?;
    }
    let written = other_spelling(&mailbox);
    let name = valid(mailbox)?;
    let rights = session.rights(&name).await?;
    let mailbox = session.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?;
    let mut coming: Option<Coming> = None;
    loop {
        let AppendLine { pieces, literal } = line;
        for piece in pieces {
            let (flags, date) = match piece {
                AppendPiece::Message { flags, date } => (guest::permitted(flags, rights), date),
                AppendPiece::Url(url) => {
                    let Some(Coming { staged, flags, date, content }) = coming.take() else { return Err(no_message().into()) };
                    let (staged, content) = catenate::add(session, selected, &url, staged, content).await?;
                    coming = Some(Coming { staged, flags, date, content });
                    continue;
                }
            };
            if let Some(coming) = coming.take() {
                received.push(whole(session, coming)?);
                leave_memory(session, received).await?;
                if replaces.is_some() {
                    return Err(Reply::bad("REPLACE takes one message").into());
                }
                if let Some(limit) = session.settings.message_limits.saving() {
                    if received.len() >= limit.most() {
                        return Err(limit.refuse(None, "APPEND").into());
                    }
                } else if let most = (if session.guest.is_some() { guest::APPEND_MAX } else { MESSAGES_MAX })
                    && received.len() >= most
                {
                    return Err(Reply::no(Code::Limit, format!("One APPEND takes {most} messages at most")).into());
                }
            }
            let target = Arc::clone(&mailbox);
            let size = literal.map_or(0, |literal| literal.size);
            let instead = replaces.clone();
            let prepared = session.held.run(move |_| {
                let replaced = instead.as_ref().map(|(from, uid)| (from.as_ref(), *uid));
                Ok((target.stage_instead(size, replaced)?, make_flags(&target, &flags)?))
            });
            let (staged, flags) = prepared.await?;
            coming = Some(Coming { staged, flags, date, content: Content::default() });
        }
        let Some(literal) = literal else { break };
        let Some(under_way) = coming.take() else { return Err(no_message().into()) };
        check(session, under_way.content.bytes, literal)?;
        coming = Some(receive(session, under_way, literal).await?);
        line = next(session).await?;
    }
    if let Some(coming) = coming {
        received.push(whole(session, coming)?);
    }
    let messages = std::mem::take(received);
    let target = Arc::clone(&mailbox);
    let store = move |_: &_| target.append_instead(messages, replaces.as_ref().map(|(from, uid)| (from.as_ref(), *uid)));
    let appended = session.held.run(store).await?;
    if let Some(written) = written {
        list::announce(session, &mailbox.name(), Some(&written)).await?;
    }
    let validity = appended.first().map(|first| first.uid_validity);
    Ok(Stored { mailbox, validity, uids: appended.iter().map(|appended| appended.uid).collect() })
}

/// What is refused before it is sent. `before`: bytes of the same message that came already.
fn check<H>(session: &Session<H>, before: u64, literal: LiteralHeader) -> Result<(), Reply> {
    let limit = session.settings.message_bytes;
    if before.saturating_add(literal.size) > limit {
        return Err(Reply::no(Code::TooBig, format!("The message is larger than the {limit} bytes allowed")));
    }
    Ok(())
}

/// The grammar has no content before a message begins.
fn no_message() -> Reply {
    Reply::bad("Expected a message")
}

/// Streams more of a message into its file; it is thrown away with what came before if that fails.
async fn receive<H: Holding>(session: &mut Session<H>, coming: Coming, literal: LiteralHeader) -> Result<Coming, Stop> {
    if session.framer.accept_literal() {
        response::continuation(session.connection.output(), "Ready for the message");
    }
    let coming = stream(session, coming).await?;
    if literal.binary && !coming.content.is_text {
        // Kept with text's line ends, it would come back changed (RFC 3516 §4.4).
        return Err(Reply::no(Code::UnknownCte, "Binary content can't be stored: encode it as base64").into());
    }
    Ok(coming)
}

/// A message that has come to its end.
fn whole<H: Holding>(session: &Session<H>, coming: Coming) -> Result<Received, Reply> {
    let Coming { staged, flags, date, content } = coming;
    if session.is_of_a_node() {
        return Ok((staged, flags, date)); // a message on its way between users is stored here already, whatever it has
    }
    if content.bytes == 0 {
        return Err(Reply::no(Code::Cannot, "The message is empty"));
    }
    if content.header_has_8_bit && !session.enabled.utf8() && session.settings.refuse_8bit_headers {
        let text = "The header has characters beyond ASCII: ENABLE UTF8=ACCEPT first, or encode them as RFC 2047 has it";
        return Err(Reply::no(Code::Cannot, text));
    }
    Ok((staged, flags, date))
}

/// Keeps what waits for further messages from taking memory, and many from holding files.
async fn leave_memory<H: Holding>(session: &Session<H>, received: &mut Vec<Received>) -> Result<(), Stop> {
    let many = received.len() > WAITING_MAX;
    let Some((mut staged, flags, date)) = received.pop_if(|(staged, ..)| many || staged.len() > WAITING_BYTES_MAX) else { return Ok(()) };
    let leave = move |_: &_| if many { staged.close() } else { staged.leave_memory().map(|()| staged) };
    let staged = session.held.run(leave).await?;
    received.push((staged, flags, date));
    Ok(())
}

/// Streams the literal that was accepted.
async fn stream<H: Holding>(session: &mut Session<H>, coming: Coming) -> Result<Coming, Stop> {
    let Coming { mut staged, flags, date, mut content } = coming;
    let mut chunk = BytesMut::new();
    loop {
        match session.framer.literal_chunk(session.connection.input()) {
            Some(bytes) => {
                content.look_at(&bytes);
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
    Ok(Coming { staged, flags, date, content })
}

/// What is found out about a message while it comes.
#[derive(Debug, Clone, Copy)]
struct Content {
    /// How many there are so far.
    pub bytes: u64,
    /// No NUL, and every line ends with CRLF.
    is_text: bool,
    /// RFC 6855 §4.
    header_has_8_bit: bool,
    in_header: bool,
    line_is_empty: bool,
    after_cr: bool,
}

impl Default for Content {
    fn default() -> Content {
        Content { bytes: 0, is_text: true, header_has_8_bit: false, in_header: true, line_is_empty: true, after_cr: false }
    }
}

impl Content {
    pub fn look_at(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let before = |at: usize| at.checked_sub(1).map_or(self.after_cr, |at| bytes.get(at) == Some(&b'\r'));
        self.is_text &= memchr::memchr(0, bytes).is_none() && memchr::memchr_iter(b'\n', bytes).all(before);
        self.after_cr = bytes.last().map_or(self.after_cr, |last| *last == b'\r');
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.in_header {
                return;
            }
            self.header_has_8_bit |= !line.is_ascii();
            self.line_is_empty &= line.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
            if line.ends_with(b"\n") {
                self.in_header = !self.line_is_empty;
                self.line_is_empty = true;
            }
        }
    }
}

async fn write<H: Holding>(held: &H, mut staged: Staged, bytes: BytesMut) -> Result<Staged, Stop> {
    Ok(held.run(move |_| staged.write(&bytes).map(|()| staged)).await?)
}

/// What follows the literal that was taken.
pub async fn next<H: Holding>(session: &mut Session<H>) -> Result<AppendLine, Stop> {
    loop {
        match session.framer.next(session.connection.input()) {
            Step::NeedInput => session.fill().await?,
            Step::Continue { text } => response::continuation(session.connection.output(), text),
            Step::AppendMore(line) => return Ok(line),
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

    /// What is found out, however the message is cut in two.
    fn judged(message: &[u8]) -> (bool, bool) {
        let judged = |cut: usize| {
            let (one, other) = message.split_at(cut);
            let mut content = Content::default();
            content.look_at(one);
            content.look_at(other);
            (content.is_text, content.header_has_8_bit)
        };
        let at_once = judged(0);
        assert!((0..=message.len()).all(|cut| judged(cut) == at_once), "{message:?}");
        at_once
    }

    #[test]
    fn text_is_told_from_binary_however_it_is_cut() {
        for (message, expected) in [("a\r\nb\r\n", true), ("a\nb", false), ("\n", false), ("a\r\n\n", false), ("a\0", false), ("\r", true)]
        {
            assert_eq!(judged(message.as_bytes()).0, expected, "{message:?}");
        }
    }

    #[test]
    fn characters_beyond_ascii_are_noticed_in_the_header_only() {
        for (message, expected) in
            [("Subject: ü\r\n\r\n", true), ("a: b\r\n\r\nü", false), ("a: b\n\nü", false), ("a: b\r\n c: ü", true), ("\r\nü", false)]
        {
            assert_eq!(judged(message.as_bytes()).1, expected, "{message:?}");
        }
    }
}
