//! The TRANSACTION and UPDATE states (RFC 1939 §5 and §6), on the holder.
//!
//! Invariants, each with the test that guards it:
//! - 100,000 messages are listed and removed in one session (`a_hundred_thousand_messages_take_one_session`;
//!   with files: `a_large_maildrop_is_listed_and_emptied_with_few_writes`)
//! - nothing is removed before QUIT, and nothing at all without one (`only_quit_removes_messages`)
//! - a message is streamed with bounded memory: the piece that is sent, the one read ahead, and the output up to its high water mark
//! - a session ends early only between commands, never inside a message (`a_session_that_is_taken_away_ends_between_commands`)

use std::time::Duration;

use bytes::BufMut;
use futures::FutureExt;
use storage::{StorageError, mime::Surrogate};

use super::{
    command::{self, Command, MessageNumber},
    maildrop::Maildrop,
    reply::{self, Offers},
    wire::{Stuffer, Top},
};
use crate::{
    connection::{Connection, ConnectionError},
    lines::{Line, LineReader},
    session::End,
};

/// How long a client may be silent (RFC 1939 §3: 10 minutes at least).
const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// How much of a message is read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What a session needs to know beside its mail.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What CAPA says: the same as before the login.
    pub offers: Offers,
    /// Whether the client takes characters beyond ASCII in headers; else it is sent surrogates of messages that have some (RFC 6856 §2.1).
    pub utf8: bool,
    /// Wrong commands before the connection is closed.
    pub bad_commands_max: usize,
}

/// Serves a logged-in session until it ends; the login is answered first.
pub async fn run<M: Maildrop>(maildrop: &M, mut connection: Connection, settings: Settings) -> End {
    reply::ok(connection.output(), "Logged in.");
    let deleted = vec![false; maildrop.sizes().len()];
    let totals = (maildrop.sizes().len(), maildrop.sizes().iter().sum());
    let seen = vec![false; deleted.len()];
    let mut session = Transaction { maildrop, settings, deleted, seen, totals, identifiers: None, bad_commands: 0 };
    match session.converse(&mut connection).await {
        Ok(end) => {
            connection.close().await;
            end
        }
        // RFC 1939 §3: an idle client's connection is closed without a word, and without the UPDATE state.
        Err(error) => error.into(),
    }
}

struct Transaction<'a, M> {
    maildrop: &'a M,
    settings: Settings,
    /// By position.
    deleted: Vec<bool>,
    /// Retrieved whole.
    seen: Vec<bool>,
    /// Number and bytes of the messages that are not marked for removal.
    totals: (usize, u64),
    /// Asked for once: they don't change.
    identifiers: Option<Vec<String>>,
    bad_commands: usize,
}

/// What the line before a message says.
#[derive(Debug, Clone, Copy)]
enum Announced {
    /// The size that LIST tells; left out where what is sent is seen not to be the message itself.
    Octets(u64),
    Top,
}

/// What a command came to.
type Answered = Result<(), Refusal>;

/// Why a command was not done.
enum Refusal {
    /// The client's mistake.
    Wrong(&'static str),
    /// Ours.
    Store(StorageError),
    /// Inside a response: it can't be finished, nor an error be said.
    Torn(StorageError),
    Connection(ConnectionError),
}

impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Refusal {
        Refusal::Connection(error)
    }
}

impl<M: Maildrop> Transaction<'_, M> {
    async fn converse(&mut self, connection: &mut Connection) -> Result<End, ConnectionError> {
        let maildrop = self.maildrop;
        let mut taken_away = std::pin::pin!(maildrop.taken_away());
        let mut lines = LineReader::new(command::LINE_BYTES_MAX);
        loop {
            if let Some(reason) = taken_away.as_mut().now_or_never() {
                return Ok(say_taken_away(connection, &reason));
            }
            let parsed = match lines.next(connection.input()) {
                Some(Line::Complete(line)) => command::parse(&line),
                Some(Line::TooLong) => Err("The line is too long"),
                None => {
                    connection.flush().await?;
                    tokio::select! {
                        filled = connection.fill(SILENCE_MAX) => filled?,
                        reason = taken_away.as_mut() => return Ok(say_taken_away(connection, &reason)),
                    }
                    continue;
                }
            };
            connection.commanded();
            let answered = match parsed {
                Ok(Command::Quit) => return Ok(self.quit(connection).await),
                Ok(command) => self.answer(connection, command).await,
                Err(wrong) => Err(Refusal::Wrong(wrong)),
            };
            match answered {
                Ok(()) => {}
                Err(Refusal::Wrong(text)) => {
                    reply::err(connection.output(), text);
                    self.bad_commands += 1;
                    if self.bad_commands > self.settings.bad_commands_max {
                        reply::err(connection.output(), "Too many wrong commands, nothing was removed");
                        return Ok(End::because("too many wrong commands"));
                    }
                }
                Err(Refusal::Store(error)) => {
                    tracing::warn!(session = %connection.client.session, %error, "a POP3 command failed");
                    reply::err(connection.output(), reply::storage_error(&error));
                }
                Err(Refusal::Torn(error)) => return Ok(End::because(format!("a message could not be read to its end: {error}"))),
                Err(Refusal::Connection(error)) => return Err(error),
            }
            connection.flush_if_large().await?;
        }
    }

    async fn answer(&mut self, connection: &mut Connection, command: Command) -> Answered {
        match command {
            Command::Stat => {
                let (count, bytes) = self.totals;
                reply::ok(connection.output(), &format!("{count} {bytes}"));
            }
            Command::List(Some(number)) => {
                let (position, size) = self.message(number)?;
                reply::ok(connection.output(), &format!("{} {size}", MessageNumber::of(position)));
            }
            Command::List(None) => self.list(connection).await?,
            Command::Uidl(number) => self.uidl(connection, number).await?,
            Command::Retr(number) => {
                let (position, size) = self.message(number)?;
                self.send(connection, position, Announced::Octets(size), None).await?;
                if let Some(seen) = self.seen.get_mut(position) {
                    *seen = true;
                }
            }
            Command::Top(number, lines) => {
                let (position, _) = self.message(number)?;
                self.send(connection, position, Announced::Top, Some(Top::new(lines))).await?;
            }
            Command::Dele(number) => {
                let (position, size) = self.message(number)?;
                if let Some(deleted) = self.deleted.get_mut(position) {
                    *deleted = true;
                    self.totals = (self.totals.0 - 1, self.totals.1 - size);
                }
                reply::ok(connection.output(), "Marked for removal");
            }
            Command::Rset => {
                self.deleted.fill(false);
                let sizes = self.maildrop.sizes();
                self.totals = (sizes.len(), sizes.iter().sum());
                let (count, bytes) = self.totals;
                reply::ok(connection.output(), &format!("maildrop has {count} messages ({bytes} octets)"));
            }
            Command::Noop => reply::ok(connection.output(), "Done"),
            Command::Capa => reply::capabilities(connection.output(), &self.settings.offers),
            Command::Lang(range) => reply::language(connection.output(), range.as_deref()).map_err(Refusal::Wrong)?,
            Command::Utf8 => return Err(Refusal::Wrong("UTF8 comes before the login")),
            Command::User(_) | Command::Pass(_) | Command::Mechanisms | Command::Auth { .. } | Command::Stls => {
                return Err(Refusal::Wrong("You are logged in already"));
            }
            // Handled by the caller, since it ends the session.
            Command::Quit => {}
        }
        Ok(())
    }

    /// The message that a number means, and its size.
    fn message(&self, number: MessageNumber) -> Result<(usize, u64), Refusal> {
        let found = number.position().and_then(|position| Some((position, *self.maildrop.sizes().get(position)?)));
        match found {
            Some((position, _)) if self.deleted.get(position) == Some(&true) => Err(Refusal::Wrong("The message is marked for removal")),
            Some(found) => Ok(found),
            None => Err(Refusal::Wrong("No such message")),
        }
    }

    /// Position and size of the messages that are not marked for removal.
    fn remaining(&self) -> impl Iterator<Item = (usize, u64)> {
        let sizes = self.maildrop.sizes().iter().copied().enumerate();
        sizes.zip(&self.deleted).filter(|(_, deleted)| !**deleted).map(|(message, _)| message)
    }

    async fn list(&self, connection: &mut Connection) -> Answered {
        let (count, bytes) = self.totals;
        reply::ok(connection.output(), &format!("{count} messages ({bytes} octets)"));
        for (position, size) in self.remaining() {
            connection.output().put_slice(format!("{} {size}\r\n", MessageNumber::of(position)).as_bytes());
            connection.flush_if_large().await?;
        }
        connection.output().put_slice(b".\r\n");
        Ok(())
    }

    async fn uidl(&mut self, connection: &mut Connection, number: Option<MessageNumber>) -> Answered {
        let asked = number.map(|number| self.message(number)).transpose()?;
        if self.identifiers.is_none() {
            self.identifiers = Some(self.maildrop.identifiers().await.map_err(Refusal::Store)?);
        }
        let identifiers = self.identifiers.as_deref().unwrap_or_default();
        let line = |position: usize| {
            let identifier = identifiers.get(position).map_or("", String::as_str);
            format!("{} {identifier}", MessageNumber::of(position))
        };
        if let Some((position, _)) = asked {
            reply::ok(connection.output(), &line(position));
            return Ok(());
        }
        reply::ok(connection.output(), "Unique identifiers follow");
        for (position, _) in self.remaining() {
            connection.output().put_slice(line(position).as_bytes());
            connection.output().put_slice(b"\r\n");
            connection.flush_if_large().await?;
        }
        connection.output().put_slice(b".\r\n");
        Ok(())
    }

    /// Streams a message, or its top. The next piece is read while this one is sent.
    async fn send(&self, connection: &mut Connection, position: usize, announced: Announced, mut top: Option<Top>) -> Answered {
        let message = self.maildrop.open(position).await.map_err(Refusal::Store)?;
        // Before +OK, so that a message that can't be read is an error and no torn response.
        let mut piece = self.maildrop.read(&message, 0, PIECE_BYTES).await.map_err(Refusal::Store)?;
        let mut surrogate = (!self.settings.utf8).then(Surrogate::default);
        let mut stuffer = Stuffer::default();
        let mut offset = 0;
        loop {
            let is_first = offset == 0;
            offset += piece.len() as u64;
            let is_last = piece.len() < PIECE_BYTES;
            let mut is_changed = false;
            if let Some(surrogate) = &mut surrogate {
                let mut made = Vec::with_capacity(piece.len());
                surrogate.write(&piece, &mut made);
                if is_last {
                    std::mem::take(surrogate).finish(&mut made);
                }
                is_changed = !piece.starts_with(&made);
                piece = made;
            }
            if is_first {
                let text = match announced {
                    Announced::Top => "The top of the message follows".to_owned(),
                    Announced::Octets(_) if is_changed => "The message follows".to_owned(),
                    Announced::Octets(octets) => format!("{octets} octets"),
                };
                reply::ok(connection.output(), &text);
            }
            // The lines that TOP counts are those of what is sent.
            let wanted = top.as_mut().map_or(piece.len(), |top| top.take(&piece));
            stuffer.write(piece.get(..wanted).unwrap_or_default(), connection.output());
            if is_last || top.as_ref().is_some_and(Top::is_complete) {
                break;
            }
            // The read begins before the socket is written to.
            let (next, sent) = tokio::join!(self.maildrop.read(&message, offset, PIECE_BYTES), connection.flush_if_large());
            sent?;
            piece = next.map_err(Refusal::Torn)?;
        }
        stuffer.finish(connection.output());
        Ok(())
    }

    /// The UPDATE state.
    async fn quit(&self, connection: &mut Connection) -> End {
        let set = |marks: &[bool]| -> Vec<usize> {
            marks.iter().enumerate().filter_map(|(position, marked)| marked.then_some(position)).collect()
        };
        let (seen, positions) = (set(&self.seen), set(&self.deleted));
        if positions.is_empty() {
            if !seen.is_empty()
                && let Err(error) = self.maildrop.update(seen, positions).await
            {
                // The client asked for nothing of it.
                tracing::warn!(session = %connection.client.session, %error, "retrieved messages are not marked as seen");
            }
            self.maildrop.release();
            reply::ok(connection.output(), "Bye");
            return End::logout();
        }
        let count = positions.len();
        let removed = self.maildrop.update(seen, positions).await;
        self.maildrop.release();
        match removed {
            Ok(()) => {
                reply::ok(connection.output(), &format!("Bye, {count} messages removed"));
                End::logout()
            }
            Err(error) => {
                tracing::warn!(session = %connection.client.session, %error, "POP3 removals failed");
                reply::err(connection.output(), "[SYS/TEMP] some deleted messages not removed");
                End::because(format!("logout, but messages were not removed: {error}"))
            }
        }
    }
}

fn say_taken_away(connection: &mut Connection, reason: &str) -> End {
    reply::err(connection.output(), &format!("[SYS/TEMP] {reason}"));
    End::because(reason)
}

#[cfg(test)]
mod tests;
