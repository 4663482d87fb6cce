//! Lines and literals: cuts the client's bytes into commands, without I/O.
//!
//! Invariants, each with the test that guards it:
//! - however the bytes arrive, the same steps come out (`byte_by_byte_is_the_same_as_at_once`)
//! - what a client announces costs nothing: memory is taken by bytes that came, up to the limits (`an_announced_literal_takes_no_memory`)
//! - after a refused command the next one is found again, or the refusal is fatal (`a_refused_command_is_skipped_with_its_literals`)
//! - bytes of a literal are never taken for a command (`a_literal_is_never_read_as_a_command`)
//! - APPEND's message is handed out as it comes, never gathered (`a_message_is_streamed`)

mod announcement;
#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes, BytesMut};

use self::announcement::{Announcement, announcement};
use super::{
    command::{AppendLine, AppendStart, LiteralHeader},
    enabled::Enabled,
    parse::{
        Options,
        append::{Announced, Head, Inside, announced_after, continued},
        tag_of,
    },
};

/// How much one command may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All lines of one command together, without literals.
    pub line_bytes: usize,
    /// One literal that is no message.
    pub literal_bytes: usize,
    /// All lines and literals of one command together, messages aside.
    pub command_bytes: usize,
}

/// How much of a line that is too long is skipped in the hope of its end: who sends more is no IMAP client.
const SKIPPED_LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Largest refused literal that is skipped when the client sends it unasked: for more, closing the connection is kinder than hours of transfer.
const SKIPPED_LITERAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most literals before the message of an APPEND: its arguments are read anew at each.
const APPEND_LITERALS_MAX: usize = 32;
/// How much of a skipped line's end is kept: the longest announcement that is of use, and CR.
const TAIL_BYTES: usize = 32;

/// A command that can't be taken. Its bytes are skipped without storing them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The command's tag; `None`: answer untagged.
    pub tag: Option<String>,
    /// What is wrong, for the answer's text.
    pub reason: String,
    /// Where the next command starts is unknown: answer `* BYE` and close. Otherwise answer BAD and go on.
    pub fatal: bool,
}

/// What came out of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read more, then ask again.
    NeedInput,
    /// The client waits: send `+ ` with `text`, then ask again.
    Continue {
        /// Text of the continuation request.
        text: &'static str,
    },
    /// A whole command: its lines and literals, without the final line end.
    Command(Bytes),
    /// An APPEND whose message comes next: call [`Framer::accept_literal`] and take it with [`Framer::literal_chunk`], or [`Framer::refuse_literal`].
    Append(AppendStart),
    /// What follows a literal of an APPEND that was taken completely: more of it as with [`Step::Append`], or its end: carry it out.
    AppendMore(AppendLine),
    /// The command (also an APPEND after its message: throw that away) is refused.
    Refused(Refusal),
}

/// A line as it is (AUTHENTICATE, IDLE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineStep {
    /// Read more, then ask again.
    NeedInput,
    /// One line without its end.
    Line(Bytes),
    /// The line has more bytes than allowed; it is skipped.
    TooLong,
}

/// Cuts one connection's input into commands.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    enabled: Enabled,
    state: State,
    /// The command so far, from its first literal on; each of its lines but the last ends in CRLF.
    command: BytesMut,
    /// Bytes of its lines.
    line_bytes: usize,
    /// Its literals.
    literals: usize,
    /// How far the input was searched for a line end.
    searched: usize,
    /// The APPEND whose content was taken and whose end has not come.
    append: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    tag: String,
    inside: Inside,
}

#[derive(Debug)]
enum State {
    /// In a line, the first or one after a literal.
    Line,
    /// In a literal that is an argument.
    Literal { remaining: usize },
    /// Before or in content of an APPEND; `waiting`: the client wants `+` first.
    Message { append: UnderWay, remaining: u64, waiting: bool },
    /// In a literal of a refused command.
    SkipLiteral { remaining: u64 },
    /// In a line of a refused command (`raw`: of AUTHENTICATE or IDLE), with its last bytes.
    SkipLine { skipped: u64, tail: Vec<u8>, raw: bool },
    /// Nothing can be understood any more.
    Lost { reason: &'static str },
}

impl Framer {
    /// A framer at the start of a command.
    pub fn new(limits: Limits) -> Framer {
        Framer {
            limits,
            enabled: Enabled::NOTHING,
            state: State::Line,
            command: BytesMut::new(),
            line_bytes: 0,
            literals: 0,
            searched: 0,
            append: None,
        }
    }
    /// Other limits from the next line on (after login).
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }
    /// How the client writes APPEND's arguments from now on.
    pub fn set_enabled(&mut self, enabled: Enabled) {
        self.enabled = enabled;
    }

    /// The next step. Takes what it uses from the front of `input`; nobody else may while a command is under way.
    ///
    /// A message that was announced and not taken completely counts as refused.
    pub fn next(&mut self, input: &mut BytesMut) -> Step {
        loop {
            match &mut self.state {
                State::Line => {
                    let budget = (self.limits.line_bytes.saturating_sub(self.line_bytes))
                        .min(self.limits.command_bytes.saturating_sub(self.command.len()));
                    let step = match self.take_line(input, budget) {
                        TakenLine::Incomplete => return Step::NeedInput,
                        TakenLine::TooLong => Some(self.refuse_long_line(input, budget)),
                        TakenLine::Line(line) => self.line(line),
                    };
                    if let Some(step) = step {
                        return step;
                    }
                }
                State::Literal { remaining } => {
                    let available = (*remaining).min(input.len());
                    self.command.extend_from_slice(&input[..available]);
                    input.advance(available);
                    *remaining -= available;
                    if *remaining > 0 {
                        return Step::NeedInput;
                    }
                    self.state = State::Line;
                }
                State::Message { remaining: 0, .. } => {
                    if let State::Message { append, .. } = std::mem::replace(&mut self.state, State::Line) {
                        self.append = Some(append);
                    }
                }
                State::Message { .. } => self.refuse_literal(),
                _ => {
                    if let Some(step) = self.skip(input) {
                        return step;
                    }
                }
            }
        }
    }

    /// The next line, uninterpreted, of at most `line_bytes_max` bytes. Only between commands.
    pub fn next_line(&mut self, input: &mut BytesMut, line_bytes_max: usize) -> LineStep {
        while !matches!(self.state, State::Line) {
            match self.skip(input) {
                None => {}
                Some(Step::NeedInput) => return LineStep::NeedInput,
                Some(_) => return LineStep::TooLong,
            }
        }
        match self.take_line(input, line_bytes_max) {
            TakenLine::Incomplete => LineStep::NeedInput,
            TakenLine::Line(line) => LineStep::Line(line.freeze()),
            TakenLine::TooLong => {
                self.skip_line(true);
                LineStep::TooLong
            }
        }
    }

    /// Takes the message that [`Step::Append`] announced; `true`: the client waits, send `+ ` first.
    #[must_use = "a client that waits for `+` must get it"]
    pub fn accept_literal(&mut self) -> bool {
        match &mut self.state {
            State::Message { waiting, .. } => std::mem::take(waiting),
            _ => false,
        }
    }
    /// Bytes of the message that are there, never more than it has; `None`: read more, or (see [`Framer::literal_remaining`]) it is complete.
    pub fn literal_chunk(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        let State::Message { remaining, waiting, .. } = &mut self.state else { return None };
        *waiting = false;
        let available = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
        if available == 0 {
            return None;
        }
        *remaining = remaining.saturating_sub(available as u64);
        self.searched = 0;
        Some(input.split_to(available).freeze())
    }
    /// How many bytes of the message are still to be taken; 0: complete, go on with [`Framer::next`].
    pub fn literal_remaining(&self) -> u64 {
        match self.state {
            State::Message { remaining, .. } => remaining,
            _ => 0,
        }
    }
    /// Gives the APPEND up (answer NO now): what the client sends of it nevertheless is skipped. Also in the middle of a message, or after it.
    pub fn refuse_literal(&mut self) {
        if let State::Message { remaining, waiting, .. } = self.state {
            // A client that waits for `+` takes the NO as the end of its command and sends nothing more of it.
            self.state = if waiting { State::Line } else { State::SkipLiteral { remaining } };
        } else if self.append.is_some() {
            self.reset();
            self.skip_line(false);
        }
    }
    /// Whether no command is under way, and nothing of a refused one is to be skipped: a place to hand the session over.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Line) && self.command.is_empty() && self.append.is_none()
    }

    /// Takes one line without its end (CRLF or a bare LF) if it has at most `budget` bytes.
    fn take_line(&mut self, input: &mut BytesMut, budget: usize) -> TakenLine {
        let from = self.searched.min(input.len());
        let end = memchr::memchr(b'\n', &input[from..]).map(|position| from + position);
        let length = without_cr(&input[..end.unwrap_or(input.len())]).len();
        if length > budget {
            self.searched = 0;
            return TakenLine::TooLong;
        }
        let Some(end) = end else {
            self.searched = input.len();
            return TakenLine::Incomplete;
        };
        self.searched = 0;
        let mut line = input.split_to(end + 1);
        line.truncate(length);
        TakenLine::Line(line)
    }

    /// Judges one whole line of a command; `None`: go on.
    fn line(&mut self, line: BytesMut) -> Option<Step> {
        self.line_bytes += line.len();
        let announcement = announcement(&line);
        let announcement_at = line.len() - announcement.map_or(0, |announcement| announcement.length);
        let nul = memchr::memchr(0, &line).is_some();
        if announcement.is_none() && !nul && self.command.is_empty() && self.append.is_none() {
            self.reset();
            return Some(Step::Command(line.freeze())); // the common case is not copied
        }
        let head = self.command.len() + announcement_at;
        self.command.extend_from_slice(&line);
        if nul {
            return Some(self.refuse("a command line has a NUL byte".to_owned(), announcement));
        }
        let Some(announcement) = announcement else {
            let command = self.command.split().freeze();
            let step = match self.append.take() {
                None => Step::Command(command),
                Some(UnderWay { tag, inside }) => match continued(&command, inside, false, self.enabled) {
                    Ok(Announced::Content(pieces, _)) => Step::AppendMore(AppendLine { pieces, literal: None }),
                    Ok(_) => refused(Some(tag), "the end of APPEND is missing"),
                    Err(fail) => refused(Some(tag), &fail.reason),
                },
            };
            self.reset();
            return Some(step);
        };
        let Some(size) = announcement.size else {
            return Some(self.refuse("the announced literal is too large".to_owned(), Some(announcement)));
        };
        let literal = LiteralHeader { size, non_sync: announcement.non_sync, binary: announcement.binary };
        let head = &self.command[..head];
        let judged = match &self.append {
            None => announced_after(head, Options { enabled: self.enabled, nesting: 0 }),
            Some(under_way) => continued(head, under_way.inside, true, self.enabled),
        };
        match judged {
            Err(fail) => Some(self.refuse(fail.reason, Some(announcement))),
            Ok(Announced::Argument { of_append }) => self.argument(literal, of_append, announcement),
            Ok(Announced::Start(Head { tag, replaces, mailbox, pieces, inside })) => {
                self.expect_content(UnderWay { tag: tag.clone(), inside }, literal);
                Some(Step::Append(AppendStart { tag, replaces, mailbox, line: AppendLine { pieces, literal: Some(literal) } }))
            }
            Ok(Announced::Content(pieces, inside)) => {
                let tag = self.append.take().map(|under_way| under_way.tag).unwrap_or_default();
                self.expect_content(UnderWay { tag, inside }, literal);
                Some(Step::AppendMore(AppendLine { pieces, literal: Some(literal) }))
            }
        }
    }

    fn expect_content(&mut self, append: UnderWay, literal: LiteralHeader) {
        self.reset();
        self.state = State::Message { append, remaining: literal.size, waiting: !literal.non_sync };
    }

    /// Starts a literal that is an argument.
    fn argument(&mut self, literal: LiteralHeader, of_append: bool, announcement: Announcement) -> Option<Step> {
        self.literals += 1;
        let room = self.limits.command_bytes.saturating_sub(self.command.len()).min(self.limits.literal_bytes);
        match usize::try_from(literal.size).ok().filter(|size| *size <= room) {
            None => Some(self.refuse(format!("the literal is too large: {room} bytes are possible here"), Some(announcement))),
            Some(_) if of_append && self.literals > APPEND_LITERALS_MAX => {
                Some(self.refuse("APPEND has too many literals before its message".to_owned(), Some(announcement)))
            }
            Some(remaining) => {
                self.command.extend_from_slice(b"\r\n");
                self.state = State::Literal { remaining };
                (!literal.non_sync).then_some(Step::Continue { text: "Ready for the literal" })
            }
        }
    }

    /// Refuses the command under way.
    fn refuse(&mut self, reason: String, announcement: Option<Announcement>) -> Step {
        let tag = self.tag(&self.command);
        self.reset();
        self.skip_announced(announcement);
        Step::Refused(Refusal { tag, reason, fatal: matches!(self.state, State::Lost { .. }) })
    }

    /// The tag of the command under way, which begins with `start` if it is no APPEND whose content was taken.
    fn tag(&self, start: &[u8]) -> Option<String> {
        self.append.as_ref().map_or_else(|| tag_of(start), |under_way| Some(under_way.tag.clone()))
    }

    /// What to do about a literal that a refused command's line ends in.
    fn skip_announced(&mut self, announcement: Option<Announcement>) {
        self.state = match announcement {
            Some(Announcement { non_sync: true, size: Some(size), .. }) if size <= SKIPPED_LITERAL_BYTES_MAX => {
                State::SkipLiteral { remaining: size }
            }
            // The bytes come unasked, and there are too many to wait for their end.
            Some(Announcement { non_sync: true, .. }) => State::Lost { reason: "the announced literal is too large" },
            // The command ends here: a client that waits for `+` takes BAD as its end.
            _ => State::Line,
        };
    }

    fn refuse_long_line(&mut self, input: &BytesMut, budget: usize) -> Step {
        // Only what any arrival of the bytes would show.
        let tag = self.tag(if self.command.is_empty() { &input[..budget.min(input.len())] } else { &self.command });
        self.reset();
        self.skip_line(false);
        refused(tag, "the command line is too long")
    }

    fn skip_line(&mut self, raw: bool) {
        self.state = State::SkipLine { skipped: 0, tail: Vec::new(), raw };
    }

    /// Skips what is left of a refused command; `None`: go on.
    fn skip(&mut self, input: &mut BytesMut) -> Option<Step> {
        self.searched = 0;
        match &mut self.state {
            State::SkipLiteral { remaining } => {
                let available = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                input.advance(available);
                *remaining = remaining.saturating_sub(available as u64);
                if *remaining > 0 {
                    return Some(Step::NeedInput);
                }
                self.skip_line(false);
                None
            }
            State::SkipLine { skipped, tail, raw } => {
                let end = memchr::memchr(b'\n', input);
                let part = &input[..end.unwrap_or(input.len())];
                *skipped = skipped.saturating_add(part.len() as u64);
                tail.extend_from_slice(&part[part.len().saturating_sub(TAIL_BYTES)..]);
                tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
                input.advance(end.map_or(input.len(), |end| end + 1));
                if *skipped > SKIPPED_LINE_BYTES_MAX {
                    self.state = State::Lost { reason: "a line has no end" };
                    return None;
                }
                if end.is_none() {
                    return Some(Step::NeedInput);
                }
                let announcement = if *raw { None } else { announcement(without_cr(tail)) };
                self.skip_announced(announcement);
                None
            }
            State::Lost { reason } => {
                input.clear();
                Some(Step::Refused(Refusal { tag: None, reason: (*reason).to_owned(), fatal: true }))
            }
            State::Message { .. } => {
                self.refuse_literal();
                None
            }
            State::Literal { .. } | State::Line => {
                self.reset();
                None
            }
        }
    }

    /// Back to the start of a command.
    fn reset(&mut self) {
        self.state = State::Line;
        self.append = None;
        self.line_bytes = 0;
        self.literals = 0;
        if !self.command.is_empty() {
            self.command = BytesMut::new(); // an idle session keeps no buffer
        }
    }
}

fn refused(tag: Option<String>, reason: &str) -> Step {
    Step::Refused(Refusal { tag, reason: reason.to_owned(), fatal: false })
}

enum TakenLine {
    Incomplete,
    TooLong,
    Line(BytesMut),
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
