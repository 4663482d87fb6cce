//! A message on its way in, after DATA or in BDAT's chunks: to its end, in bounded memory, and to its end even when it is refused.

use std::io;

use bytes::Buf;

use super::{
    binary,
    message::{Message, Spool},
    reply::Reply,
    session::{SILENCE_MAX, Settings},
    wire::DataDecoder,
};
use crate::connection::{Connection, ConnectionError};

/// How much of a message is collected before it is spooled: few trips to the blocking pool for a large one.
const SPOOL_WRITE_BYTES: usize = 64 * 1024;

/// What has come of a message.
pub struct Receiver {
    settings: Settings,
    /// The reply, once something is wrong with the message; the rest of it is read and dropped.
    spool: Result<Spool, Reply>,
    /// Read, and not spooled yet.
    piece: Vec<u8>,
}

impl Receiver {
    /// Nothing yet.
    pub fn new(settings: &Settings) -> Receiver {
        Receiver { settings: settings.clone(), spool: Ok(Spool::new(&settings.spool_dir)), piece: Vec::new() }
    }

    /// Reads what follows DATA, up to the dot.
    pub async fn data(mut self, connection: &mut Connection) -> Result<Result<Message, Reply>, ConnectionError> {
        let mut decoder = DataDecoder::default();
        loop {
            let input = connection.input();
            let decoded = decoder.decode(input, &mut self.piece);
            input.advance(decoded.used);
            if decoded.complete {
                return Ok(self.finish(false).await);
            }
            self.spool_if_large().await;
            connection.fill(SILENCE_MAX).await?;
        }
    }

    /// Reads the `bytes` that follow BDAT.
    pub async fn chunk(&mut self, connection: &mut Connection, bytes: u64) -> Result<(), ConnectionError> {
        let mut left = bytes;
        loop {
            left -= take(connection, left, |piece| self.piece.extend_from_slice(piece));
            self.spool_if_large().await;
            if left == 0 {
                // A refusal is known with the chunk that causes it.
                self.spool().await;
                return Ok(());
            }
            connection.flush().await?;
            connection.fill(SILENCE_MAX).await?;
        }
    }

    /// Reads the `bytes` that follow a BDAT which came too early.
    pub async fn skip(connection: &mut Connection, bytes: u64) -> Result<(), ConnectionError> {
        let mut left = bytes;
        loop {
            left -= take(connection, left, |_| {});
            if left == 0 {
                return Ok(());
            }
            connection.flush().await?;
            connection.fill(SILENCE_MAX).await?;
        }
    }

    /// What is wrong with the message so far.
    pub fn refused(&self) -> Option<&Reply> {
        self.spool.as_ref().err()
    }

    /// The message is whole. `binary`: as BODY=BINARYMIME announced it.
    pub async fn finish(mut self, binary: bool) -> Result<Message, Reply> {
        self.spool().await;
        let message = self.spool?.finish();
        if !binary {
            return Ok(message);
        }
        let text = binary::to_text(message, self.settings.spool_dir.clone()).await.map_err(|error| no_room(&self.settings, &error))?;
        if text.len() > self.settings.message_bytes_max { Err(too_large()) } else { Ok(text) }
    }

    async fn spool_if_large(&mut self) {
        if self.piece.len() >= SPOOL_WRITE_BYTES {
            self.spool().await;
        }
    }

    async fn spool(&mut self) {
        let refused = || Err(too_large());
        self.spool = match std::mem::replace(&mut self.spool, refused()) {
            Ok(spool) if spool.len().saturating_add(self.piece.len() as u64) > self.settings.message_bytes_max => refused(),
            Ok(spool) => spool.take(&mut self.piece).await.map_err(|error| no_room(&self.settings, &error)),
            refused => refused,
        };
        self.piece.clear();
    }
}

/// What is larger than SIZE says.
pub fn too_large() -> Reply {
    Reply::new(552, "5.3.4", "The message is larger than this server takes")
}

fn no_room(settings: &Settings, error: &io::Error) -> Reply {
    tracing::error!(folder = %settings.spool_dir.display(), %error, "a large message can't be spooled");
    Reply::new(452, "4.3.1", "No room for the message now, try again")
}

/// Takes up to `left` bytes of what was read; gives how many.
fn take(connection: &mut Connection, left: u64, mut with: impl FnMut(&[u8])) -> u64 {
    let input = connection.input();
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    with(input.get(..count).unwrap_or_default());
    input.advance(count);
    count as u64
}
