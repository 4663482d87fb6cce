//! Socket ↔ protocol core: buffers, timeouts, byte counts, TLS upgrade.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use futures::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    deflate::Deflated,
    node::admission::{InCheck, Stranger},
    pressure::Credit,
    tls::{TlsAcceptor, TlsFacts},
};

/// Anything that carries a session: TCP, TLS, or one stream of a relay link.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// How much is read at once: one TLS record.
const READ_CHUNK_BYTES: usize = 16 * 1024;
/// The same before login, where nothing that is long is sent: as many commands as this holds are run before others have their turn.
const STRANGER_CHUNK_BYTES: usize = 2 * 1024;
/// Output beyond this is sent before more is made.
pub const OUTPUT_HIGH_WATER_BYTES: usize = 64 * 1024;
/// Content up to this is copied into the output: cheaper than a system call of its own.
const COPIED_BYTES_MAX: usize = 32 * 1024;

/// Why a connection ended without a LOGOUT or QUIT.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The client closed it.
    #[error("the client closed the connection")]
    Closed,
    /// Nothing came, or nothing could be sent, for too long.
    #[error("no progress for {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The network's error.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A client's connection with its buffers.
pub struct Connection {
    stream: Carrier,
    /// What is known of the client; log lines take it from here.
    pub client: Client,
    /// What the handshake agreed, on the node that the client reached.
    pub tls: Option<Arc<TlsFacts>>,
    input: BytesMut,
    output: BytesMut,
    write_timeout: Duration,
    activity: Arc<Activity>,
    stranger: Option<Stranger>,
    credit: Credit,
    /// Since the last look at the credit.
    commands: u32,
    /// Input came and [`Connection::fill`] did not say so yet.
    untold: bool,
}

/// What bytes go through.
enum Carrier {
    Plain(Box<dyn Stream>),
    Deflated(Box<Deflated<Box<dyn Stream>>>),
}

impl Carrier {
    fn get(&mut self) -> Pin<&mut dyn Stream> {
        match self {
            Carrier::Plain(stream) => Pin::new(&mut **stream),
            Carrier::Deflated(stream) => Pin::new(&mut **stream),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get().poll_read(cx, buf)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get().poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get().poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get().poll_shutdown(cx)
    }
}

/// When a client was last heard of.
#[derive(Debug, Default)]
pub struct Activity {
    /// Seconds of `tokio::time::Instant` since `Activity::start`.
    last: AtomicU64,
    start: std::sync::OnceLock<tokio::time::Instant>,
}

impl Activity {
    fn now(&self) -> u64 {
        self.start.get_or_init(tokio::time::Instant::now).elapsed().as_secs()
    }
    fn note(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }
    /// Whole seconds since the client's last byte.
    pub fn idle_s(&self) -> u64 {
        self.now().saturating_sub(self.last.load(Ordering::Relaxed))
    }
}

impl Connection {
    /// Wraps a stream; `input` was read ahead (a relayed session's pipelined commands). `write_timeout`: how long a client may take nothing.
    pub fn new(stream: Box<dyn Stream>, client: Client, input: BytesMut, write_timeout: Duration) -> Connection {
        Connection {
            stream: Carrier::Plain(stream),
            client,
            tls: None,
            input,
            output: BytesMut::new(),
            write_timeout,
            activity: Arc::default(),
            stranger: None,
            credit: Credit::default(),
            commands: 0,
            untold: false,
        }
    }

    /// Whose client has not logged in yet, and is counted as such.
    pub fn of_a_stranger(self, stranger: Option<Stranger>) -> Connection {
        Connection { stranger, ..self }
    }

    /// With what the handshake agreed, where that was before.
    pub fn with_tls(self, tls: Option<Arc<TlsFacts>>) -> Connection {
        Connection { tls, ..self }
    }

    /// The client is somebody: the connection no longer has to make room for others.
    pub fn logged_in(&mut self) {
        self.stranger = None;
    }

    /// Cancelled when a client that has not logged in has to make room for others.
    pub fn room_wanted(&self) -> Option<CancellationToken> {
        self.stranger.as_ref().map(Stranger::room_wanted)
    }

    /// The client waits for a password to be checked, until the guard is dropped.
    pub fn in_check(&self) -> Option<InCheck> {
        self.stranger.as_ref().map(Stranger::in_check)
    }

    /// A command is carried out: whoever sends many rests where the node has more to do than it can.
    pub fn commanded(&mut self) {
        self.commands = self.commands.saturating_add(1);
    }

    /// What was read and not used yet; take bytes from its front.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Waits for more input, at most `limit`. Safe to cancel: nothing is lost, and what came before that is told the next time.
    pub async fn fill(&mut self, limit: Duration) -> Result<(), ConnectionError> {
        if std::mem::take(&mut self.untold) {
            return Ok(());
        }
        if let Some(rest) = self.credit.spend(std::mem::take(&mut self.commands)) {
            sleep(rest).await;
        }
        let read = match self.read().now_or_never() {
            Some(read) => {
                // Who sends without a pause takes turns with everybody else, piece by piece.
                yield_now().await;
                read?
            }
            None => {
                // Nothing is there yet: who waits keeps no buffers.
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                if self.output.is_empty() {
                    self.output = BytesMut::new();
                }
                timeout(limit, self.read()).await.map_err(|_| ConnectionError::Timeout(limit))??
            }
        };
        self.activity.note();
        self.untold = false;
        if read == 0 { Err(ConnectionError::Closed) } else { Ok(()) }
    }

    /// Reads what is there. The bytes come over the stack, so that waiting costs no buffer.
    async fn read(&mut self) -> io::Result<usize> {
        let Connection { stream, input, stranger, untold, .. } = self;
        let limit = if stranger.is_some() { STRANGER_CHUNK_BYTES } else { READ_CHUNK_BYTES };
        poll_fn(|context| {
            let mut chunk = [0; READ_CHUNK_BYTES];
            let mut chunk = ReadBuf::new(chunk.get_mut(..limit).unwrap_or_default());
            ready!(Pin::new(&mut *stream).poll_read(context, &mut chunk))?;
            input.extend_from_slice(chunk.filled());
            *untold = !chunk.filled().is_empty();
            Poll::Ready(Ok(chunk.filled().len()))
        })
        .await
    }

    /// Where replies are written; [`Connection::flush`] sends them.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Sends what was written once it is much, so that a large FETCH takes bounded memory.
    pub async fn flush_if_large(&mut self) -> Result<(), ConnectionError> {
        if self.output.len() >= OUTPUT_HIGH_WATER_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends all that was written.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.output.has_remaining() {
            let written = timeout(self.write_timeout, self.stream.write(&self.output))
                .await
                .map_err(|_| ConnectionError::Timeout(self.write_timeout))??;
            if written == 0 {
                return Err(ConnectionError::Closed);
            }
            self.output.advance(written);
        }
        timeout(self.write_timeout, self.stream.flush()).await.map_err(|_| ConnectionError::Timeout(self.write_timeout))??;
        Ok(())
    }

    /// Sends bytes that are not copied into the output first: the content of a message. What was written before goes first.
    pub async fn send(&mut self, mut bytes: &[u8]) -> Result<(), ConnectionError> {
        if bytes.len() < COPIED_BYTES_MAX {
            self.output.extend_from_slice(bytes);
            return self.flush_if_large().await;
        }
        self.flush().await?;
        while !bytes.is_empty() {
            let written =
                timeout(self.write_timeout, self.stream.write(bytes)).await.map_err(|_| ConnectionError::Timeout(self.write_timeout))??;
            if written == 0 {
                return Err(ConnectionError::Closed);
            }
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Turns the connection into a TLS one (STARTTLS, STLS). Plain text that was sent ahead is thrown away: it must not be taken for commands inside TLS.
    pub async fn start_tls(mut self, acceptor: &TlsAcceptor, limit: Duration) -> Result<Connection, ConnectionError> {
        self.flush().await?;
        self.input.clear();
        let Carrier::Plain(plain) = self.stream else { return Err(io::Error::from(io::ErrorKind::Unsupported).into()) };
        let (stream, facts) = timeout(limit, acceptor.accept(plain)).await.map_err(|_| ConnectionError::Timeout(limit))??;
        self.client.tls = Some(facts.text.clone());
        self.tls = Some(Arc::new(facts));
        Ok(Connection { stream: Carrier::Plain(stream), ..self })
    }

    /// Compresses everything from now on, both ways (RFC 4978). What was read ahead is taken for compressed: a client waits for the answer.
    pub async fn start_deflate(&mut self) -> Result<(), ConnectionError> {
        self.flush().await?;
        self.stream = match std::mem::replace(&mut self.stream, Carrier::Plain(Box::new(tokio::io::empty()))) {
            Carrier::Plain(plain) => Carrier::Deflated(Box::new(Deflated::new(plain, std::mem::take(&mut self.input)))),
            deflated @ Carrier::Deflated(_) => deflated,
        };
        Ok(())
    }

    /// Sends what was written as the end of the compressed stream, if it is compressed; everything is plain from now on (RFC 8437 §4.1).
    pub async fn stop_deflate(&mut self) -> Result<(), ConnectionError> {
        let Carrier::Deflated(deflated) = &mut self.stream else { return self.flush().await };
        let limit = self.write_timeout;
        // All in one piece with its end: a client that stops to inflate after the last line has read that too.
        timeout(limit, deflated.write_all(&self.output)).await.map_err(|_| ConnectionError::Timeout(limit))??;
        self.output.clear();
        if let Carrier::Deflated(deflated) = std::mem::replace(&mut self.stream, Carrier::Plain(Box::new(tokio::io::empty()))) {
            let (plain, ahead) = timeout(limit, deflated.finish()).await.map_err(|_| ConnectionError::Timeout(limit))??;
            self.stream = Carrier::Plain(plain);
            self.input.extend_from_slice(&ahead);
        }
        Ok(())
    }

    /// Whether it is compressed.
    pub fn is_deflated(&self) -> bool {
        matches!(self.stream, Carrier::Deflated(_))
    }

    /// Sends what is left and closes the sending side.
    pub async fn close(mut self) {
        if self.flush().await.is_ok() {
            // The client may be gone already; there is nobody to tell.
            drop(timeout(self.write_timeout, self.stream.shutdown()).await);
        }
    }

    /// The parts, for relaying: the stream and what was read ahead.
    pub fn into_parts(self) -> (Box<dyn Stream>, Client, BytesMut) {
        let stream = match self.stream {
            Carrier::Plain(stream) => stream,
            Carrier::Deflated(stream) => stream,
        };
        (stream, self.client, self.input)
    }

    /// When the client was last heard of, for lists of sessions.
    pub fn activity(&self) -> Arc<Activity> {
        self.activity.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SessionId;

    fn client() -> Client {
        let (address, local) = ("192.0.2.1:1234".parse().unwrap(), "192.0.2.2:143".parse().unwrap());
        Client { session: SessionId::random(), address, local, ingress: "a".parse().unwrap(), tls: None }
    }

    #[tokio::test]
    async fn what_came_while_a_wait_was_given_up_is_told_the_next_time() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut connection = Connection::new(Box::new(ours), client(), BytesMut::new(), Duration::from_secs(10));
        let limit = Duration::from_secs(10);
        theirs.write_all(b"a NOOP\r\n").await.unwrap();
        // It is read, then others have their turns, and something else happens meanwhile.
        assert!(connection.fill(limit).now_or_never().is_none());
        assert!(connection.fill(limit).now_or_never().is_some());
        assert_eq!(connection.input().split(), b"a NOOP\r\n"[..]);
        assert!(connection.fill(limit).now_or_never().is_none(), "told once");
    }
}
