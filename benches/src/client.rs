//! A client that costs little: it reads to the tagged reply, counts, and skips literals. The strict one of `tests` would be what is measured.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

/// Longest wait for a reply: the slowest command of the slowest server, several times over.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

trait Socket: Read + Write + Send + Sync {}
impl<T: Read + Write + Send + Sync> Socket for T {}

/// One connection, IMAP or LMTP.
pub struct Client {
    socket: Box<dyn Socket>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    tags: u32,
}

/// What a command brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// Untagged responses.
    pub untagged: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// The number of the last `* n EXISTS`.
    pub exists: usize,
}

impl Client {
    /// Connects to `host:port`, with TLS from the first byte where `tls` is given. The greeting is not read yet.
    pub fn connect(address: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Client> {
        let address: SocketAddr = address.parse().with_context(|| format!("{address} is not host:port"))?;
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let socket: Box<dyn Socket> = match tls {
            None => Box::new(socket),
            Some(config) => {
                let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
                Box::new(StreamOwned::new(connection, socket))
            }
        };
        Ok(Client { socket, buffer: Vec::new(), start: 0, end: 0, tags: 0 })
    }
    /// Connects and logs in to IMAP.
    pub fn login(address: &str, tls: Option<&Arc<ClientConfig>>, user: &str, password: &str) -> Result<Client> {
        let mut client = Client::connect(address, tls)?;
        client.line()?;
        client.command(&format!("LOGIN {user} \"{password}\""))?;
        Ok(client)
    }
    /// Connects to LMTP.
    pub fn lmtp(address: &str) -> Result<Client> {
        let mut client = Client::connect(address, None)?;
        client.smtp_reply("220")?;
        client.send(b"LHLO bench.example\r\n")?;
        client.smtp_reply("250")?;
        Ok(client)
    }
    /// Delivers one message (dot-stuffed, with its last line) and waits for the 250.
    pub fn deliver(&mut self, recipient: &str, data: &[u8]) -> Result<()> {
        self.send(format!("MAIL FROM:<bench@bench.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n").as_bytes())?;
        self.smtp_reply("250")?;
        self.smtp_reply("250")?;
        self.smtp_reply("354")?;
        self.send(data)?;
        self.smtp_reply("250")
    }
    /// Sends a command and reads to its OK.
    pub fn command(&mut self, command: &str) -> Result<Answer> {
        let tag = self.begin(command)?;
        self.finish(&tag).with_context(|| command.to_owned())
    }
    /// APPEND with a literal that waits for nobody.
    pub fn append(&mut self, mailbox: &str, message: &[u8]) -> Result<Answer> {
        self.tags += 1;
        let tag = format!("t{}", self.tags);
        let mut bytes = format!("{tag} APPEND {mailbox} {{{}+}}\r\n", message.len()).into_bytes();
        bytes.extend_from_slice(message);
        bytes.extend_from_slice(b"\r\n");
        self.send(&bytes)?;
        self.finish(&tag).context("APPEND")
    }
    /// Sends a command, gives its tag.
    pub fn begin(&mut self, command: &str) -> Result<String> {
        self.tags += 1;
        let tag = format!("t{}", self.tags);
        self.send(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }
    /// Reads to the tagged reply, which must be OK.
    pub fn finish(&mut self, tag: &str) -> Result<Answer> {
        let mut answer = Answer::default();
        let mut in_response = false;
        loop {
            let (from, to) = self.line()?;
            let line = &self.buffer[from..to];
            if !in_response && line.starts_with(tag.as_bytes()) && line.get(tag.len()) == Some(&b' ') {
                ensure!(line[tag.len()..].starts_with(b" OK"), "the server said {}", String::from_utf8_lossy(line));
                return Ok(answer);
            }
            answer.bytes += (to - from) as u64;
            if !in_response {
                answer.untagged += 1;
                if let Some(number) = line.strip_suffix(b" EXISTS\r\n").and_then(|line| line.strip_prefix(b"* ")) {
                    answer.exists = std::str::from_utf8(number)?.parse()?;
                }
            }
            match literal(line) {
                Some(length) => {
                    self.skip(length)?;
                    answer.bytes += length as u64;
                    in_response = true;
                }
                None => in_response = false,
            }
        }
    }
    /// The next line as text.
    pub fn text_line(&mut self) -> Result<String> {
        let (from, to) = self.line()?;
        Ok(String::from_utf8_lossy(&self.buffer[from..to]).into_owned())
    }
    /// Starts IDLE.
    pub fn idle(&mut self) -> Result<()> {
        self.begin("IDLE")?;
        while !self.text_line()?.starts_with('+') {}
        Ok(())
    }

    fn smtp_reply(&mut self, code: &str) -> Result<()> {
        loop {
            let line = self.text_line()?;
            ensure!(line.starts_with(code), "{code} was expected: {line}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes)?;
        Ok(self.socket.flush()?)
    }
    /// The next line with its CRLF, as a range of the buffer.
    fn line(&mut self) -> Result<(usize, usize)> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.start + searched..self.end]) {
                let from = self.start;
                self.start += searched + at + 1;
                return Ok((from, self.start));
            }
            searched = self.end - self.start;
            self.fill()?;
        }
    }
    fn skip(&mut self, mut count: usize) -> Result<()> {
        loop {
            let here = count.min(self.end - self.start);
            self.start += here;
            count -= here;
            if count == 0 {
                return Ok(());
            }
            self.fill()?;
        }
    }
    fn fill(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        let read = self.socket.read(&mut self.buffer[self.end..])?;
        if read == 0 {
            bail!("the server closed the connection");
        }
        self.end += read;
        Ok(())
    }
    /// Gives back the buffer of a connection that will sit idle.
    pub fn shrink(&mut self) {
        self.buffer = self.buffer[self.start..self.end].to_vec();
        (self.start, self.end) = (0, self.buffer.len());
    }
}

/// The length of the literal that a line announces.
fn literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}\r\n")?;
    let open = memchr::memrchr(b'{', line)?;
    std::str::from_utf8(&line[open + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests_of_client {
    use super::literal;

    #[test]
    fn a_literal_is_announced_at_the_end_of_a_line_only() {
        assert_eq!(literal(b"* 1 FETCH (BODY[] {42}\r\n"), Some(42));
        assert_eq!(literal(b"* 1 FETCH (X {42})\r\n"), None);
        assert_eq!(literal(b"* OK {x}\r\n"), None);
    }
}
