//! A guest session with the holder of somebody else's mail, here or on another node: what it answers is passed on as it comes.
//!
//! Invariants, each with the test that guards it:
//! - however the bytes arrive, the same responses come out (`responses_are_cut_the_same_however_they_arrive`)
//! - bytes of a literal are never taken for a response (`a_literal_is_never_read_as_a_response`)

use affinity::UserName;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::imap::{
    reply::{Reply, ReplyCode},
    wire::{enabled::Enabled, response::Condition},
};

/// Longest line that must be read as a whole: a COPYUID of a hundred thousand messages that are apart.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// As much of a line's end as a literal's announcement takes.
const TAIL_BYTES: usize = 24;

/// What came out of the other session.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of an untagged response.
    Part(Bytes),
    /// `+`
    Continuation,
    /// The answer to the command.
    Tagged(Reply),
    /// `* BYE`: the session is over.
    Bye(String),
}

/// Where in a response we are.
#[derive(Debug, PartialEq, Eq)]
enum Inside {
    Start,
    Line,
    Literal(u64),
}

/// Cuts what comes into responses.
#[derive(Debug)]
pub struct Responses {
    input: BytesMut,
    inside: Inside,
    tail: Vec<u8>,
}

impl Responses {
    fn new() -> Responses {
        Responses { input: BytesMut::new(), inside: Inside::Start, tail: Vec::new() }
    }
    /// The next piece of what is there; an error: this is no IMAP.
    fn next(&mut self, tag: &str) -> Result<Option<Piece>, &'static str> {
        match self.inside {
            Inside::Literal(left) => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
                let left = left.saturating_sub(length as u64);
                self.inside = if left == 0 { Inside::Line } else { Inside::Literal(left) };
                Ok((length > 0).then(|| Piece::Part(self.input.split_to(length).freeze())))
            }
            Inside::Line => Ok(self.line()),
            Inside::Start => {
                const LONGEST_WORD: usize = "* ENABLED ".len();
                let end = memchr::memchr(b'\n', &self.input);
                if end.is_none() && self.input.len() < LONGEST_WORD {
                    return Ok(None);
                }
                let starts = |word: &str| self.input.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
                let has_text = ["* OK ", "* NO ", "* BAD ", "* BYE ", "* ENABLED"].into_iter().any(starts);
                if starts("* ") && !has_text {
                    self.inside = Inside::Line;
                    return Ok(self.line());
                }
                let Some(end) = end else {
                    return if self.input.len() > LINE_BYTES_MAX { Err("a line without an end") } else { Ok(None) };
                };
                let line = self.input.split_to(end + 1).freeze();
                if line.starts_with(b"* BYE ") {
                    Ok(Some(Piece::Bye(text_of(line.get(6..).unwrap_or_default()).1)))
                } else if line.starts_with(b"* ") {
                    Ok(Some(Piece::Part(line)))
                } else if line.starts_with(b"+") {
                    Ok(Some(Piece::Continuation))
                } else {
                    tagged(&line, tag).map(|reply| Some(Piece::Tagged(reply))).ok_or("an answer to another command")
                }
            }
        }
    }
    /// As much of a line as is there.
    fn line(&mut self) -> Option<Piece> {
        if self.input.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', &self.input).map(|end| end + 1);
        let part = self.input.split_to(end.unwrap_or(self.input.len())).freeze();
        self.tail.extend_from_slice(part.get(part.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        if end.is_some() {
            self.inside = match announced(&self.tail) {
                None => Inside::Start,
                Some(0) => Inside::Line,
                Some(size) => Inside::Literal(size),
            };
            self.tail.clear();
        }
        Some(Piece::Part(part))
    }
}

/// The size of the literal that the end of a line announces.
fn announced(line: &[u8]) -> Option<u64> {
    let digits = line.strip_suffix(b"}\r\n")?;
    let at = digits.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(digits.get(at + 1..)?).ok()?.parse().ok()
}

fn tagged(line: &[u8], tag: &str) -> Option<Reply> {
    let rest = line.strip_prefix(tag.as_bytes())?.strip_prefix(b" ")?;
    let (condition, rest) = [(Condition::Ok, "OK "), (Condition::No, "NO "), (Condition::Bad, "BAD ")]
        .into_iter()
        .find_map(|(condition, word)| Some((condition, rest.strip_prefix(word.as_bytes())?)))?;
    let (code, text) = text_of(rest);
    Some(Reply { condition, code: code.map(ReplyCode::Passed), text: text.into() })
}

/// The response code and the text of a line; a code may have a quoted string with a bracket.
fn text_of(line: &[u8]) -> (Option<String>, String) {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    if let Some(rest) = line.strip_prefix('[') {
        let (mut quoted, mut escaped) = (false, false);
        for (at, character) in rest.char_indices() {
            match character {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ']' if !quoted => {
                    let (code, text) = rest.split_at(at);
                    return (Some(code.to_owned()), text.trim_start_matches(']').trim_start().to_owned());
                }
                _ => {}
            }
        }
    }
    (None, line.to_owned())
}

/// One guest session.
pub struct Link {
    /// Whose mail.
    pub owner: UserName,
    /// What it was told that the client enabled.
    pub enabled: Enabled,
    /// The mailbox that it has selected, as the client knows it.
    pub selected: String,
    /// By EXAMINE.
    pub read_only: bool,
    stream: DuplexStream,
    responses: Responses,
}

impl Link {
    /// Over a stream at whose other end the session runs.
    pub fn new(owner: UserName, stream: DuplexStream) -> Link {
        Link { owner, enabled: Enabled::NOTHING, selected: String::new(), read_only: false, stream, responses: Responses::new() }
    }
    /// Sends bytes; an error: the session is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }
    /// The next piece of the answer to the command with this tag, of what is there; an error: this is no IMAP.
    pub fn next(&mut self, tag: &str) -> Result<Option<Piece>, &'static str> {
        self.responses.next(tag)
    }
    /// Waits for more; `false`: the session is gone. Safe to cancel.
    pub async fn fill(&mut self) -> bool {
        self.responses.input.reserve(READ_BYTES);
        matches!(self.stream.read_buf(&mut self.responses.input).await, Ok(read) if read > 0)
    }
    /// Waits for its end, while nothing was asked: why. Such a session says nothing else by itself. Safe to cancel.
    pub async fn ended(&mut self) -> Option<String> {
        loop {
            match self.responses.next("") {
                Ok(Some(Piece::Bye(text))) => return Some(text),
                Ok(Some(_)) => {}
                Err(_) => return None,
                Ok(None) if self.fill().await => {}
                Ok(None) => return None,
            }
        }
    }
    /// Whether what came last ended a response.
    pub fn is_between_responses(&self) -> bool {
        self.responses.inside == Inside::Start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that comes out, parts put together.
    fn cut(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<Piece>) {
        let (mut responses, mut parts, mut pieces) = (Responses::new(), Vec::new(), Vec::new());
        let mut rest = bytes;
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            responses.input.extend_from_slice(now);
            rest = later;
            while let Some(piece) = responses.next("t1").unwrap() {
                match piece {
                    Piece::Part(part) => parts.extend_from_slice(&part),
                    other => pieces.push(other),
                }
            }
        }
        (parts, pieces)
    }

    const TALK: &[u8] =
        b"* 1 FETCH (BODY[] {8}\r\nt1 OK \r\n UID 3)\r\n+ go on\r\n* OK [ALERT] a {9}\r\n* LIST () \"/\" {3}\r\na\r\n\r\n* 2 EXISTS\r\n\
        * X {0}\r\n x\r\nt1 NO [BADURL \"a]\\\"b\"] it is not\r\n* BYE [UNAVAILABLE] gone\r\n";

    #[test]
    fn a_literal_is_never_read_as_a_response() {
        let (parts, pieces) = cut(TALK, &[TALK.len()]);
        let reply =
            Reply { condition: Condition::No, code: Some(ReplyCode::Passed("BADURL \"a]\\\"b\"".into())), text: "it is not".into() };
        assert_eq!(pieces, [Piece::Continuation, Piece::Tagged(reply), Piece::Bye("gone".into())]);
        assert!(parts.starts_with(b"* 1 FETCH (BODY[] {8}\r\nt1 OK \r\n UID 3)\r\n* OK") && parts.ends_with(b"* X {0}\r\n x\r\n"));
    }

    #[test]
    fn what_is_no_imap_is_an_error() {
        for bytes in [&b"t2 OK other\r\n"[..], b"t1 PREAUTH x\r\n", b"HTTP/1.1 200\r\n"] {
            let mut responses = Responses::new();
            responses.input.extend_from_slice(bytes);
            assert!(responses.next("t1").is_err());
        }
    }

    proptest! {
        #[test]
        fn responses_are_cut_the_same_however_they_arrive(sizes in prop::collection::vec(1_usize..9, 1..9)) {
            prop_assert_eq!(cut(TALK, &sizes), cut(TALK, &[TALK.len()]));
        }
    }
}
