//! Lines and literals: cuts the client's bytes into commands, without I/O.

use bytes::{Bytes, BytesMut};

use super::command::{FlagArgument, MailboxArgument};

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

/// A literal as announced: `{12}`, `{12+}`, `~{12}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiteralHeader {
    /// Announced bytes.
    pub size: u64,
    /// `{n+}` (RFC 7888): the bytes come without waiting for `+`.
    pub non_sync: bool,
    /// `~{n}` (literal8, RFC 3516): may have NUL.
    pub binary: bool,
}

/// An APPEND up to its message; the message is still on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendStart {
    /// The command's tag.
    pub tag: String,
    /// Where to.
    pub mailbox: MailboxArgument,
    /// The flags, in the client's order.
    pub flags: Vec<FlagArgument>,
    /// The date-time as Unix seconds.
    pub date: Option<i64>,
    /// The message's size and kind.
    pub literal: LiteralHeader,
}

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
#[derive(Debug, PartialEq, Eq)]
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
    /// The line end after the last message of an APPEND that was taken completely: carry it out.
    AppendEnd,
    /// The command (also an APPEND after its message: throw that away) is refused.
    Refused(Refusal),
}

/// A line as it is (AUTHENTICATE, IDLE).
#[derive(Debug, PartialEq, Eq)]
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
    utf8: bool,
}

impl Framer {
    /// A framer at the start of a command.
    pub fn new(limits: Limits) -> Framer {
        Framer { limits, utf8: false }
    }
    /// Other limits from the next line on (after login).
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }
    /// Mailbox names of APPEND are UTF-8 (after ENABLE UTF8=ACCEPT).
    pub fn set_utf8(&mut self, utf8: bool) {
        self.utf8 = utf8;
    }
    /// The next step. Takes what it uses from the front of `input`; nobody else may while a command is under way.
    pub fn next(&mut self, input: &mut BytesMut) -> Step {
        let _ = input;
        todo!()
    }
    /// The next line, uninterpreted, of at most `line_bytes_max` bytes. Only between commands.
    pub fn next_line(&mut self, input: &mut BytesMut, line_bytes_max: usize) -> LineStep {
        let _ = (input, line_bytes_max);
        todo!()
    }
    /// Takes the message that [`Step::Append`] announced; `true`: the client waits, send `+ ` first.
    #[must_use = "a client that waits for `+` must get it"]
    pub fn accept_literal(&mut self) -> bool {
        todo!()
    }
    /// Bytes of the message that are there, never more than it has; `None`: read more, or (see [`Framer::literal_remaining`]) it is complete.
    pub fn literal_chunk(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        let _ = input;
        todo!()
    }
    /// How many bytes of the message are still to be taken; 0: complete, go on with [`Framer::next`].
    pub fn literal_remaining(&self) -> u64 {
        todo!()
    }
    /// Gives the APPEND up (answer NO now): what the client sends of it nevertheless is skipped. Also in the middle of a message.
    pub fn refuse_literal(&mut self) {
        todo!()
    }
    /// Whether no command is under way: a place to end a session for an update or move.
    pub fn is_idle(&self) -> bool {
        todo!()
    }
}
