//! A line-based connection, plain or TLS, with a deadline on every read and a transcript for messages.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::{tls, wait::Deadline};

/// How long a reply may take unless a test says otherwise: longer than the failover that a request may have to sit out.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of the transcript that an error shows.
const TRANSCRIPT_LINES: usize = 30;
/// How much of a long line the transcript keeps.
const TRANSCRIPT_WIDTH: usize = 200;
/// How long one read waits before the deadline is looked at again.
const READ_SLICE: Duration = Duration::from_millis(100);

/// The connection is closed: not an error to a test that waits for just that.
#[derive(Debug, thiserror::Error)]
#[error("the server closed the connection")]
pub struct Closed;

/// A connection that knows lines.
pub struct Wire {
    stream: Option<Stream>,
    input: Vec<u8>,
    transcript: VecDeque<String>,
    patience: Duration,
    deflate: Option<Deflate>,
}

/// Both directions of a compressed connection (RFC 4978).
struct Deflate {
    compress: Compress,
    decompress: Decompress,
    /// Nothing compressed is sent any more, and what comes is compressed up to the end of its stream.
    ends: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<Wire> {
        Wire::connect_within(address, PATIENCE)
    }

    /// Connects within `patience`, which every reply may take as well.
    pub fn connect_within(address: &str, patience: Duration) -> Result<Wire> {
        let address: SocketAddr = address.parse().with_context(|| format!("{address} is not host:port"))?;
        let socket = TcpStream::connect_timeout(&address, patience).with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_SLICE))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Wire { stream: Some(Stream::Plain(socket)), input: Vec::new(), transcript: VecDeque::new(), patience, deflate: None })
    }

    /// Connects with TLS from the first byte.
    pub fn connect_tls(address: &str) -> Result<Wire> {
        let mut wire = Wire::connect(address)?;
        wire.start_tls()?;
        Ok(wire)
    }

    /// Goes on in TLS. Anything that the server sent ahead of it is an error.
    pub fn start_tls(&mut self) -> Result<()> {
        self.start_tls_as(tls::trusting_client()?)
    }

    /// The same with other settings, such as a certificate of the client's own.
    pub fn start_tls_as(&mut self, settings: Arc<ClientConfig>) -> Result<()> {
        ensure!(self.input.is_empty(), "the server sent plain text ahead of TLS: {:?}", String::from_utf8_lossy(&self.input));
        let Some(Stream::Plain(socket)) = self.stream.take() else { bail!("TLS is on already") };
        socket.set_read_timeout(Some(self.patience))?;
        let connection = ClientConnection::new(settings, ServerName::try_from("localhost")?)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).context("TLS handshake")?;
        }
        stream.sock.set_read_timeout(Some(READ_SLICE))?;
        self.stream = Some(Stream::Tls(Box::new(stream)));
        self.note("--", b"TLS");
        Ok(())
    }

    /// Compresses everything from now on. Anything that the server sent ahead of it is an error.
    pub fn start_deflate(&mut self) -> Result<()> {
        ensure!(self.input.is_empty(), "the server sent bytes ahead of compressed ones: {:?}", String::from_utf8_lossy(&self.input));
        self.deflate =
            Some(Deflate { compress: Compress::new(Compression::default(), false), decompress: Decompress::new(false), ends: false });
        self.note("--", b"DEFLATE");
        Ok(())
    }

    /// Sends bytes as the last compressed ones, if it is compressed; what the server sends is plain behind the end of its compressed stream.
    pub fn send_last(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(bytes)?;
        if let Some(deflate) = &mut self.deflate {
            deflate.ends = true;
        }
        Ok(())
    }

    /// Whether it is compressed.
    pub fn is_deflated(&self) -> bool {
        self.deflate.is_some()
    }

    /// How long each reply may take from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How long each reply may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.note("C:", bytes);
        let deflate = self.deflate.as_mut().filter(|deflate| !deflate.ends);
        let packed = deflate.map(|deflate| pack(&mut deflate.compress, bytes)).transpose()?;
        let bytes = packed.as_deref().unwrap_or(bytes);
        let sent = match self.stream.as_mut() {
            Some(Stream::Plain(stream)) => stream.write_all(bytes),
            Some(Stream::Tls(stream)) => stream.write_all(bytes).and_then(|()| stream.flush()),
            None => bail!("the connection was given up"),
        };
        sent.map_err(|cause| if is_closed(&cause) { anyhow!(Closed) } else { anyhow!(cause) }).with_context(|| self.story())
    }

    /// One line without its CRLF. A bare LF or CR in it is an error.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        let deadline = Deadline::after(self.patience);
        self.line_by(deadline)
    }

    /// The same, until a deadline.
    pub fn line_by(&mut self, deadline: Deadline) -> Result<Vec<u8>> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.input[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + at;
            }
            searched = self.input.len();
            self.fill(deadline)?;
        };
        let mut line: Vec<u8> = self.input.drain(..=end).collect();
        line.pop();
        let closed_by_cr = line.pop() == Some(b'\r');
        self.note("S:", &line);
        ensure!(closed_by_cr, "a line ended in a bare LF\n{}", self.story());
        ensure!(!line.contains(&b'\r'), "a bare CR in a line\n{}", self.story());
        Ok(line)
    }

    /// Exactly `count` bytes.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        let deadline = Deadline::after(self.patience);
        while self.input.len() < count {
            self.fill(deadline)?;
        }
        let bytes: Vec<u8> = self.input.drain(..count).collect();
        self.note("S:", &bytes);
        Ok(bytes)
    }

    /// Waits until the server closes the connection; what it said before.
    pub fn until_closed(&mut self) -> Result<Vec<u8>> {
        let deadline = Deadline::after(self.patience);
        loop {
            match self.fill(deadline) {
                Ok(()) => {}
                Err(error) if error.is::<Closed>() => return Ok(std::mem::take(&mut self.input)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The last lines that went over the connection.
    pub fn story(&self) -> String {
        let lines: Vec<&str> = self.transcript.iter().map(String::as_str).collect();
        format!("the connection so far:\n{}", lines.join("\n"))
    }

    fn fill(&mut self, deadline: Deadline) -> Result<()> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = match self.stream.as_mut() {
                Some(Stream::Plain(stream)) => stream.read(&mut chunk),
                Some(Stream::Tls(stream)) => stream.read(&mut chunk),
                None => bail!("the connection was given up"),
            };
            match read {
                Ok(0) => return Err(anyhow!(Closed)).with_context(|| self.story()),
                Ok(count) => {
                    let Some(deflate) = &mut self.deflate else {
                        self.input.extend_from_slice(&chunk[..count]);
                        return Ok(());
                    };
                    let before = self.input.len();
                    if let Some(plain) = unpack(&mut deflate.decompress, &chunk[..count], &mut self.input)? {
                        ensure!(deflate.ends, "the server ended the compressed stream");
                        self.input.extend_from_slice(plain);
                        self.deflate = None;
                    }
                    if self.input.len() > before {
                        return Ok(());
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                    ensure!(!deadline.passed(), "no reply within {:?}; {}", deadline.elapsed(), self.story());
                }
                Err(error) if is_closed(&error) => return Err(anyhow!(Closed)).with_context(|| self.story()),
                Err(error) => return Err(error).with_context(|| self.story()),
            }
        }
    }

    fn note(&mut self, who: &str, bytes: &[u8]) {
        if self.transcript.len() == TRANSCRIPT_LINES {
            self.transcript.pop_front();
        }
        let shown = &bytes[..bytes.len().min(TRANSCRIPT_WIDTH)];
        let rest = if shown.len() < bytes.len() { format!(" … {} bytes", bytes.len()) } else { String::new() };
        self.transcript.push_back(format!("{who} {}{rest}", String::from_utf8_lossy(shown).trim_end()));
    }
}

fn pack(compress: &mut Compress, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(bytes.len() + 1024);
    let start = compress.total_in();
    loop {
        let taken = usize::try_from(compress.total_in() - start)?;
        compress.compress_vec(&bytes[taken..], &mut packed, FlushCompress::Sync)?;
        if packed.len() < packed.capacity() {
            return Ok(packed);
        }
        packed.reserve(packed.len());
    }
}

/// `Some`: the compressed stream ended, and this is behind it.
fn unpack<'a>(decompress: &mut Decompress, packed: &'a [u8], into: &mut Vec<u8>) -> Result<Option<&'a [u8]>> {
    let start = decompress.total_in();
    loop {
        let taken = usize::try_from(decompress.total_in() - start)?;
        into.reserve(16 * 1024);
        let status = decompress.decompress_vec(&packed[taken..], into, FlushDecompress::None).context("not DEFLATE")?;
        if status == flate2::Status::StreamEnd {
            return Ok(packed.get(usize::try_from(decompress.total_in() - start)?..));
        }
        // Output that waited from before comes alone: room that is left says nothing about the input then.
        if decompress.total_in() - start == packed.len() as u64 && into.len() < into.capacity() {
            return Ok(None);
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted
    )
}

/// Whether an error means that the server closed the connection.
pub fn was_closed(error: &anyhow::Error) -> bool {
    error.is::<Closed>()
}
