//! An IMAP session of a user, through the control socket of the node on this host: whatever that node does, it ends up at the holder.

use std::{
    io::{BufRead, BufReader, BufWriter, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::command::control::Request;

/// How long an answer may take: a large mailbox may have to be opened first, a batch to be stored on a slow file server.
const ANSWER_WAIT: Duration = Duration::from_secs(300);
/// Longest line of an answer: flags and names of one message or mailbox.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A session.
pub struct Session {
    reader: BufReader<UnixStream>,
    writer: BufWriter<UnixStream>,
    tag: u64,
}

/// A literal in an answer: how long it is, and its bytes.
pub type Literal<'a> = (u64, &'a mut dyn Read);

/// What the server said in the end, and did not do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Session {
    /// Opens one.
    pub fn open(socket: &Path, user: &str) -> anyhow::Result<Session> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("this needs a running node on this host: nothing answers at {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        let mut session = Session { reader: BufReader::new(stream.try_clone()?), writer: BufWriter::new(stream), tag: 0 };
        let request = serde_json::to_string(&Request::Session { user: user.to_owned() })?;
        session.writer.write_all(format!("{request}\n").as_bytes())?;
        session.answer("login", &mut |_, _| Ok(())).context("the node did not open a session")?;
        // Names and headers are UTF-8 from here on.
        session.ask("ENABLE UTF8=ACCEPT", &mut |_, _| Ok(()))?;
        Ok(session)
    }

    /// Sends a command and hands each line of the answer (up to its literal, if it has one) to `each`. An error of type [`Refused`] is a NO.
    pub fn ask(&mut self, command: &str, each: &mut dyn FnMut(&str, Option<Literal<'_>>) -> anyhow::Result<()>) -> anyhow::Result<String> {
        let tag = self.begin(command)?;
        self.writer.write_all(b"\r\n")?;
        self.answer(&tag, each)
    }
    /// Writes the tag and the first part of a command; its tag, for [`Session::answer`].
    pub fn begin(&mut self, command: &str) -> anyhow::Result<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.writer.write_all(format!("{tag} {command}").as_bytes())?;
        Ok(tag)
    }
    /// Where the rest of a command goes.
    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }
    /// Reads an answer to its end; the text of its OK.
    pub fn answer(&mut self, tag: &str, each: &mut dyn FnMut(&str, Option<Literal<'_>>) -> anyhow::Result<()>) -> anyhow::Result<String> {
        self.writer.flush()?;
        let mut inside = false;
        loop {
            let line = self.line()?;
            let literal = line.strip_suffix('}').and_then(|line| line.rsplit_once('{')).and_then(|(_, size)| size.parse::<u64>().ok());
            if let Some(size) = literal {
                let mut bytes = (&mut self.reader).take(size);
                each(&line, Some((size, &mut bytes)))?;
                std::io::copy(&mut bytes, &mut std::io::sink())?;
                inside = true;
                continue;
            }
            if std::mem::take(&mut inside) {
                // The rest of a line whose literal was taken.
                continue;
            }
            if let Some(rest) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                return match rest.split_once(' ') {
                    // A holder of an older build does not know that this is an operator's session.
                    Some(("OK", text)) if text.starts_with("[MESSAGELIMIT") => {
                        bail!("the node did only a part of it (imap.message_limit): {text}")
                    }
                    Some(("OK", text)) => Ok(text.to_owned()),
                    _ => Err(Refused(rest.to_owned()).into()),
                };
            }
            if let Some(why) = line.strip_prefix("* BYE ") {
                bail!("the session ended: {why}");
            }
            each(&line, None)?;
        }
    }
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("the node does not answer")?;
        if line.pop() != Some(b'\n') {
            bail!("the node closed the session: its log says why");
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Every mailbox that can be selected.
    pub fn mailboxes(&mut self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        self.ask("LIST \"\" \"*\"", &mut |line, literal| {
            let Some(listed) = line.strip_prefix("* LIST (") else { return Ok(()) };
            let (attributes, rest) = listed.split_once(')').context("LIST without attributes")?;
            if is_no_mailbox(attributes) {
                return Ok(());
            }
            let name = match literal {
                Some((_, bytes)) => {
                    let mut name = String::new();
                    bytes.read_to_string(&mut name)?;
                    name
                }
                None => unquoted(rest.trim_start().split_once(' ').context("LIST without a name")?.1),
            };
            names.push(name);
            Ok(())
        })?;
        Ok(names)
    }
}

fn is_no_mailbox(attributes: &str) -> bool {
    attributes.split(' ').any(|attribute| attribute.eq_ignore_ascii_case("\\NoSelect") || attribute.eq_ignore_ascii_case("\\NonExistent"))
}

/// A string as IMAP quotes it.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What an atom or a quoted string says.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return text.to_owned() };
    let mut plain = String::new();
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        plain.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_read_back() {
        for text in ["", "a", "a b", "quote \" and \\ slash", "日本語"] {
            assert_eq!(unquoted(&quoted(text)), text);
        }
        assert_eq!(unquoted("INBOX"), "INBOX");
    }
}
