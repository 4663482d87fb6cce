//! A strict IMAP client: every response is parsed whole, and one that the grammar does not allow is an error.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{
    rules::Rules,
    value::{Piece, Pieces, ResponseText, Untagged, Value, announced_literal, response_text, untagged},
    wire::Wire,
};
use crate::wait::Deadline;

/// A connection to an IMAP server.
pub struct Imap {
    wire: Wire,
    prefix: String,
    tags: u32,
    rules: Rules,
    /// The greeting.
    pub greeting: Untagged,
}

/// What a tagged response said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Ok,
    /// It could not be done.
    No,
    /// It was not understood, or not now.
    Bad,
}

/// All that a command brought.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The tagged response's status.
    pub status: Status,
    /// Its code and text.
    pub text: ResponseText,
    /// The untagged responses before it, in order.
    pub untagged: Vec<Untagged>,
}

/// One message as FETCH gives it: items by name in capitals.
pub type Message = BTreeMap<String, Value>;

impl Reply {
    /// Fails unless the status is OK.
    pub fn ok(self) -> Result<Reply> {
        ensure!(self.status == Status::Ok, "the server answered {:?} {:?}", self.status, self.text);
        Ok(self)
    }

    /// Untagged responses of one name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &Untagged> {
        self.untagged.iter().filter(move |response| response.name == name)
    }

    /// Arguments of a response code, tagged or untagged.
    pub fn code(&self, name: &str) -> Option<&str> {
        self.untagged
            .iter()
            .filter_map(|response| response.text.as_ref())
            .chain([&self.text])
            .find(|text| text.code.as_deref() == Some(name))
            .map(|text| text.arguments.as_str())
    }

    /// The same, as a number that must be there.
    pub fn code_number(&self, name: &str) -> Result<u64> {
        let arguments = self.code(name).with_context(|| format!("no [{name}] in the reply"))?;
        arguments.parse().with_context(|| format!("[{name} {arguments}] has no number"))
    }

    /// The number of the last `* n EXISTS`.
    pub fn exists(&self) -> Option<u32> {
        self.all("EXISTS").last().and_then(|response| response.number)
    }

    /// FETCH responses by sequence number (UIDFETCH: by UID); several for one message are joined.
    pub fn messages(&self) -> Result<BTreeMap<u32, Message>> {
        let mut messages: BTreeMap<u32, Message> = BTreeMap::new();
        for response in self.all("FETCH").chain(self.all("UIDFETCH")) {
            let number = response.number.context("FETCH without a sequence number")?;
            messages.entry(number).or_default().extend(fetch_items(response)?);
        }
        Ok(messages)
    }

    /// The numbers of `* SEARCH`.
    pub fn search(&self) -> Result<Vec<u64>> {
        self.all("SEARCH")
            .flat_map(|response| &response.values)
            .filter(|value| !matches!(value, Value::List(_)))
            .map(Value::number)
            .collect()
    }
}

/// The items of one FETCH response.
pub fn fetch_items(response: &Untagged) -> Result<Message> {
    let [items] = response.values.as_slice() else { bail!("FETCH without one list: {response:?}") };
    let items = items.list()?;
    ensure!(items.len() % 2 == 0, "an item without a value in {items:?}");
    items.chunks_exact(2).map(|pair| Ok((pair[0].text()?.to_ascii_uppercase(), pair[1].clone()))).collect()
}

impl Imap {
    /// Connects and reads the greeting.
    pub fn connect(address: &str) -> Result<Imap> {
        Imap::from_wire(Wire::connect(address)?)
    }

    /// The same with implicit TLS.
    pub fn connect_tls(address: &str) -> Result<Imap> {
        Imap::from_wire(Wire::connect_tls(address)?)
    }

    /// Connects and logs in.
    pub fn login(address: &str, user: &str, password: &str) -> Result<Imap> {
        let mut imap = Imap::connect(address)?;
        imap.command(&format!("LOGIN {} {}", quoted(user), quoted(password)))?.ok()?;
        Ok(imap)
    }

    /// Over a connection whose greeting is not read yet.
    pub fn from_wire(wire: Wire) -> Result<Imap> {
        let placeholder = Untagged { number: None, name: String::new(), values: Vec::new(), text: None };
        let mut imap = Imap { wire, prefix: "t".to_owned(), tags: 0, rules: Rules::default(), greeting: placeholder };
        imap.greeting = match imap.response(Deadline::after(imap.wire.patience()))? {
            Response::Untagged(greeting) if matches!(greeting.name.as_str(), "OK" | "PREAUTH" | "BYE") => greeting,
            other => bail!("{other:?} is no greeting"),
        };
        Ok(imap)
    }

    /// STARTTLS, then goes on in TLS.
    pub fn start_tls(&mut self) -> Result<()> {
        self.command("STARTTLS")?.ok()?;
        self.wire.start_tls()
    }

    /// COMPRESS DEFLATE, then goes on compressed.
    pub fn start_deflate(&mut self) -> Result<()> {
        self.command("COMPRESS DEFLATE")?.ok()?;
        self.wire.start_deflate()
    }

    /// UNAUTHENTICATE; the connection is as it was before the login, but for TLS.
    pub fn unauthenticate(&mut self) -> Result<Reply> {
        let tag = self.next_tag();
        self.wire.send_last(format!("{tag} UNAUTHENTICATE\r\n").as_bytes())?;
        let reply = self.finish(&tag)?.ok()?;
        self.rules = Rules::default();
        Ok(reply)
    }

    /// Connects, each step within `patience`; tags begin with `prefix`, so that they can be found in the server's log.
    pub fn connect_as(address: &str, prefix: &str, patience: Duration) -> Result<Imap> {
        let mut imap = Imap::from_wire(Wire::connect_within(address, patience)?)?;
        prefix.clone_into(&mut imap.prefix);
        Ok(imap)
    }

    /// The tag that was sent last.
    pub fn last_tag(&self) -> String {
        format!("{}{}", self.prefix, self.tags)
    }

    /// The connection underneath.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends one command and reads to its tagged response.
    pub fn command(&mut self, command: &str) -> Result<Reply> {
        let tag = self.send(command)?;
        self.finish(&tag)
    }

    /// Sends `before`, a synchronising literal, and `after`.
    pub fn command_with_literal(&mut self, before: &str, literal: &[u8], after: &str) -> Result<Reply> {
        let tag = self.next_tag();
        self.wire.send(format!("{tag} {before} {{{}}}\r\n", literal.len()).as_bytes())?;
        let mut seen = Vec::new();
        loop {
            match self.response(Deadline::after(self.wire.patience()))? {
                Response::Continue(_) => break,
                Response::Untagged(response) => seen.push(response),
                Response::Tagged { tag: answered, status, text } => {
                    ensure!(answered == tag, "{answered} was answered, {tag} was sent; {}", self.wire.story());
                    return Ok(Reply { status, text, untagged: seen });
                }
            }
        }
        self.wire.send(literal)?;
        self.wire.send(format!("{after}\r\n").as_bytes())?;
        let mut reply = self.finish(&tag)?;
        seen.append(&mut reply.untagged);
        Ok(Reply { untagged: seen, ..reply })
    }

    /// APPEND with a synchronising literal; gives the APPENDUID (UIDVALIDITY, UID).
    pub fn append(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> Result<(u32, u32)> {
        let reply = self.command_with_literal(&format!("APPEND {} ({flags})", quoted(mailbox)), message, "")?.ok()?;
        let code = reply.code("APPENDUID").context("no APPENDUID")?;
        let (validity, uid) = code.split_once(' ').context("APPENDUID without two numbers")?;
        Ok((validity.parse()?, uid.parse()?))
    }

    /// SELECT.
    pub fn select(&mut self, mailbox: &str) -> Result<Reply> {
        self.command(&format!("SELECT {}", quoted(mailbox)))?.ok()
    }

    /// Every message of the selected mailbox: UID → bytes of the whole message.
    pub fn bodies(&mut self) -> Result<BTreeMap<u32, Vec<u8>>> {
        let reply = self.command("UID FETCH 1:* (UID BODY.PEEK[])")?.ok()?;
        let mut bodies = BTreeMap::new();
        let mut last_uid = 0;
        for items in reply.messages()?.values() {
            let uid = u32::try_from(items.get("UID").context("no UID")?.number()?)?;
            ensure!(uid > last_uid, "UIDs do not rise with sequence numbers: {uid} after {last_uid}");
            last_uid = uid;
            bodies.insert(uid, items.get("BODY[]").context("no BODY[]")?.bytes()?.to_vec());
        }
        Ok(bodies)
    }

    /// UID → flags, sorted, without `\Recent` (which is each session's own).
    pub fn flags(&mut self) -> Result<BTreeMap<u32, Vec<String>>> {
        let reply = self.command("UID FETCH 1:* (UID FLAGS)")?.ok()?;
        reply
            .messages()?
            .values()
            .map(|items| {
                let uid = u32::try_from(items.get("UID").context("no UID")?.number()?)?;
                let flags = items.get("FLAGS").context("no FLAGS")?.list()?;
                let mut flags = flags.iter().map(Value::text).collect::<Result<Vec<_>>>()?;
                flags.retain(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
                flags.sort();
                Ok((uid, flags))
            })
            .collect()
    }

    /// Starts IDLE: the server waits, and says what happens ([`Imap::next_untagged`]).
    pub fn idle(&mut self) -> Result<String> {
        let tag = self.send("IDLE")?;
        loop {
            match self.response(Deadline::after(self.wire.patience()))? {
                Response::Continue(_) => return Ok(tag),
                Response::Untagged(_) => {}
                Response::Tagged { status, text, .. } => bail!("IDLE was answered {status:?} {text:?}"),
            }
        }
    }

    /// Waits for the continuation request; untagged responses before it are added to `told`.
    pub fn continued(&mut self, told: &mut Vec<Untagged>) -> Result<()> {
        loop {
            match self.response(Deadline::after(self.wire.patience()))? {
                Response::Continue(_) => return Ok(()),
                Response::Untagged(response) => told.push(response),
                Response::Tagged { status, text, .. } => bail!("{status:?} {text:?} came instead of a continuation request"),
            }
        }
    }

    /// Ends IDLE.
    pub fn done(&mut self, tag: &str) -> Result<Reply> {
        self.wire.send(b"DONE\r\n")?;
        self.finish(tag)
    }

    /// The next untagged response, within `limit`.
    pub fn next_untagged(&mut self, limit: Duration) -> Result<Untagged> {
        match self.response(Deadline::after(limit))? {
            Response::Untagged(response) => Ok(response),
            other => bail!("{other:?} came instead of an untagged response"),
        }
    }

    /// Waits for an untagged response of one name, over others.
    pub fn wait_for(&mut self, name: &str, limit: Duration) -> Result<Untagged> {
        let deadline = Deadline::after(limit);
        loop {
            let response = self.next_untagged(deadline.left())?;
            if response.name == name {
                return Ok(response);
            }
        }
    }

    /// LOGOUT; the server must say BYE and close.
    pub fn logout(mut self) -> Result<()> {
        let reply = self.command("LOGOUT")?.ok()?;
        ensure!(reply.all("BYE").count() == 1, "LOGOUT without one BYE");
        self.wire.until_closed()?;
        Ok(())
    }

    /// Sends a command line under a new tag, without waiting.
    pub fn send(&mut self, command: &str) -> Result<String> {
        let tag = self.next_tag();
        self.wire.send(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// Reads to the tagged response of `tag`.
    pub fn finish(&mut self, tag: &str) -> Result<Reply> {
        let mut seen = Vec::new();
        loop {
            match self.response(Deadline::after(self.wire.patience()))? {
                Response::Untagged(response) => seen.push(response),
                Response::Tagged { tag: answered, status, text } => {
                    ensure!(answered == tag, "{answered} was answered, {tag} was sent; {}", self.wire.story());
                    return Ok(Reply { status, text, untagged: seen });
                }
                Response::Continue(text) => bail!("a continuation request {text:?} that nobody waits for; {}", self.wire.story()),
            }
        }
    }

    fn next_tag(&mut self) -> String {
        self.tags += 1;
        self.last_tag()
    }

    fn response(&mut self, deadline: Deadline) -> Result<Response> {
        let mut pieces = Pieces::default();
        let mut line = self.wire.line_by(deadline)?;
        if let Some(text) = line.strip_prefix(b"+ ") {
            return Ok(Response::Continue(String::from_utf8_lossy(text).into_owned()));
        }
        let is_untagged = line.starts_with(b"* ");
        while let Some((size, before)) = announced_literal(&line).filter(|_| is_untagged) {
            pieces.0.push(Piece::Line(before.to_vec()));
            pieces.0.push(Piece::Literal(self.wire.exactly(size)?));
            line = self.wire.line()?;
        }
        pieces.0.push(Piece::Line(line));
        let understood = self.understand(pieces);
        understood.with_context(|| self.wire.story())
    }

    fn understand(&mut self, mut pieces: Pieces) -> Result<Response> {
        self.rules.check_bytes(&pieces)?;
        let Some(Piece::Line(first)) = pieces.0.first_mut() else { bail!("an empty response") };
        if first.starts_with(b"* ") {
            first.drain(..2);
            let response = untagged(&pieces)?;
            self.rules.check(&response)?;
            return Ok(Response::Untagged(response));
        }
        let end = first.iter().position(|byte| *byte == b' ').context("a response without a tag")?;
        let tag = String::from_utf8(first[..end].to_vec())?;
        let rest = &first[end + 1..];
        for (word, status) in [("OK", Status::Ok), ("NO", Status::No), ("BAD", Status::Bad)] {
            if let Some(text) = rest.strip_prefix(word.as_bytes()) {
                return Ok(Response::Tagged { tag, status, text: response_text(text)? });
            }
        }
        bail!("neither OK nor NO nor BAD after the tag {tag}")
    }
}

#[derive(Debug)]
enum Response {
    Untagged(Untagged),
    Tagged { tag: String, status: Status, text: ResponseText },
    Continue(String),
}

/// A quoted string.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
