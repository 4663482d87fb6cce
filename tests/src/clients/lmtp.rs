//! A strict LMTP client (RFC 2033): one reply per accepted recipient after DATA.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::wire::Wire;

/// A connection to an LMTP server.
pub struct Lmtp {
    wire: Wire,
    /// What LHLO offered.
    pub capabilities: Vec<String>,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpReply {
    /// Three digits.
    pub code: u16,
    /// The text of each line.
    pub lines: Vec<String>,
}

impl SmtpReply {
    /// Fails unless the code is `expected`.
    pub fn expect(self, expected: u16) -> Result<SmtpReply> {
        ensure!(self.code == expected, "{expected} was expected: {self:?}");
        Ok(self)
    }
}

impl Lmtp {
    /// Connects and says LHLO.
    pub fn connect(address: &str) -> Result<Lmtp> {
        Lmtp::greeted(Wire::connect(address)?)
    }

    /// The same, each step within `patience`.
    pub fn connect_within(address: &str, patience: Duration) -> Result<Lmtp> {
        Lmtp::greeted(Wire::connect_within(address, patience)?)
    }

    fn greeted(wire: Wire) -> Result<Lmtp> {
        let mut lmtp = Lmtp { wire, capabilities: Vec::new() };
        lmtp.reply()?.expect(220)?;
        let hello = lmtp.command("LHLO tests.example")?.expect(250)?;
        lmtp.capabilities = hello.lines.iter().skip(1).cloned().collect();
        Ok(lmtp)
    }

    /// Over a connection of which nothing is read yet.
    pub fn from_wire(wire: Wire) -> Lmtp {
        Lmtp { wire, capabilities: Vec::new() }
    }

    /// The connection underneath.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends a command and reads its reply.
    pub fn command(&mut self, command: &str) -> Result<SmtpReply> {
        self.wire.send(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    /// Reads one reply of one or more lines.
    pub fn reply(&mut self) -> Result<SmtpReply> {
        let mut reply = SmtpReply { code: 0, lines: Vec::new() };
        loop {
            let line = String::from_utf8(self.wire.line()?).context("a reply that is not UTF-8")?;
            let code = line.get(..3).and_then(|code| code.parse().ok()).with_context(|| format!("no reply code in {line:?}"))?;
            ensure!(reply.code == 0 || reply.code == code, "codes differ within one reply: {line:?}");
            reply.code = code;
            let last = match line.get(3..4) {
                Some(" ") | None => true,
                Some("-") => false,
                _ => anyhow::bail!("neither space nor hyphen after the code: {line:?}"),
            };
            reply.lines.push(line.get(4..).unwrap_or_default().to_owned());
            if last {
                return Ok(reply);
            }
        }
    }

    /// Delivers one message; the replies of the recipients, in their order.
    pub fn deliver(&mut self, sender: &str, recipients: &[&str], message: &[u8]) -> Result<Vec<SmtpReply>> {
        self.command(&format!("MAIL FROM:<{sender}>"))?.expect(250)?;
        for recipient in recipients {
            self.command(&format!("RCPT TO:<{recipient}>"))?.expect(250)?;
        }
        self.command("DATA")?.expect(354)?;
        self.wire.send(&dot_stuffed(message))?;
        recipients.iter().map(|_| self.reply()).collect()
    }

    /// The same; every recipient must get 250.
    pub fn deliver_ok(&mut self, sender: &str, recipients: &[&str], message: &[u8]) -> Result<()> {
        for reply in self.deliver(sender, recipients, message)? {
            reply.expect(250)?;
        }
        Ok(())
    }

    /// QUIT.
    pub fn quit(mut self) -> Result<()> {
        self.command("QUIT")?.expect(221)?;
        Ok(())
    }
}

/// The message as DATA carries it: leading dots doubled, ended by a line with one dot.
pub fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            data.push(b'.');
        }
        data.extend_from_slice(line);
    }
    if !data.ends_with(b"\r\n") {
        data.extend_from_slice(b"\r\n");
    }
    data.extend_from_slice(b".\r\n");
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_at_the_start_of_lines_are_doubled() {
        assert_eq!(dot_stuffed(b".a\r\nb.\r\n..\r\n"), b"..a\r\nb.\r\n...\r\n.\r\n");
        assert_eq!(dot_stuffed(b"x"), b"x\r\n.\r\n");
    }
}
