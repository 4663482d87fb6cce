//! A strict POP3 client (RFC 1939).

use anyhow::{Result, bail, ensure};

use super::wire::Wire;

/// A connection to a POP3 server.
pub struct Pop3 {
    wire: Wire,
    /// The greeting's text.
    pub greeting: String,
}

impl Pop3 {
    /// Connects and reads the greeting.
    pub fn connect(address: &str) -> Result<Pop3> {
        Pop3::greeted(Wire::connect(address)?)
    }

    /// The same with implicit TLS.
    pub fn connect_tls(address: &str) -> Result<Pop3> {
        Pop3::greeted(Wire::connect_tls(address)?)
    }

    fn greeted(wire: Wire) -> Result<Pop3> {
        let mut pop3 = Pop3 { wire, greeting: String::new() };
        pop3.greeting = pop3.reply()?.map_err(|text| anyhow::anyhow!("greeted with -ERR {text}"))?;
        Ok(pop3)
    }

    /// Connects and logs in.
    pub fn login(address: &str, user: &str, password: &str) -> Result<Pop3> {
        let mut pop3 = Pop3::connect(address)?;
        pop3.ok(&format!("USER {user}"))?;
        pop3.ok(&format!("PASS {password}"))?;
        Ok(pop3)
    }

    /// STLS, then goes on in TLS.
    pub fn start_tls(&mut self) -> Result<()> {
        self.ok("STLS")?;
        self.wire.start_tls()
    }

    /// The connection underneath.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends a command; `Ok` is the text after +OK, `Err` the text after -ERR.
    pub fn command(&mut self, command: &str) -> Result<Result<String, String>> {
        self.wire.send(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    /// Reads one status line.
    pub fn reply(&mut self) -> Result<Result<String, String>> {
        let line = String::from_utf8(self.wire.line()?)?;
        ensure!(line.len() <= 510, "a status line of {} bytes (RFC 2449 allows 512 with CRLF)", line.len());
        if let Some(text) = line.strip_prefix("+OK") {
            return Ok(Ok(text.trim_start().to_owned()));
        }
        if let Some(text) = line.strip_prefix("-ERR") {
            return Ok(Err(text.trim_start().to_owned()));
        }
        bail!("neither +OK nor -ERR: {line:?}")
    }

    /// A command that must succeed.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        match self.command(command)? {
            Ok(text) => Ok(text),
            Err(text) => bail!("{command} was answered -ERR {text}"),
        }
    }

    /// A command that must fail; the text after -ERR.
    pub fn err(&mut self, command: &str) -> Result<String> {
        match self.command(command)? {
            Ok(text) => bail!("{command} was answered +OK {text}"),
            Err(text) => Ok(text),
        }
    }

    /// A command with a multi-line reply, its lines without dot-stuffing.
    pub fn lines(&mut self, command: &str) -> Result<Vec<Vec<u8>>> {
        self.ok(command)?;
        let mut lines = Vec::new();
        loop {
            let mut line = self.wire.line()?;
            if line == b"." {
                return Ok(lines);
            }
            if line.starts_with(b".") {
                line.remove(0);
            }
            lines.push(line);
        }
    }

    /// RETR: the message's bytes.
    pub fn retrieve(&mut self, number: usize) -> Result<Vec<u8>> {
        let lines = self.lines(&format!("RETR {number}"))?;
        Ok(lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect())
    }

    /// QUIT.
    pub fn quit(mut self) -> Result<()> {
        self.ok("QUIT")?;
        self.wire.until_closed()?;
        Ok(())
    }
}
