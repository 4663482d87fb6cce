//! Grammar: the bytes of one whole command → [`Tagged`].

use super::command::Tagged;

/// How to read commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Mailbox names are UTF-8 (after ENABLE UTF8=ACCEPT); otherwise modified UTF-7.
    pub utf8: bool,
    /// Deepest nesting of SEARCH keys (each NOT, OR and parenthesis counts).
    pub nesting: usize,
}

/// Why a command can't be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The command's tag, if that was readable; otherwise answer untagged.
    pub tag: Option<String>,
    /// What was expected and where.
    pub reason: String,
    /// How to answer.
    pub kind: ParseErrorKind,
}

/// How to answer a command that can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// BAD.
    Bad,
    /// `NO [BADCHARSET (…)]` with these.
    BadCharset(&'static [&'static str]),
    /// `NO [USEATTR]` (RFC 6154 §3): CREATE with a special use that is not known here.
    UnknownUse,
}

/// Reads one command as [`super::framing::Step::Command`] gives it: without the final line end.
pub fn parse(command: &[u8], options: Options) -> Result<Tagged, ParseError> {
    let _ = (command, options);
    todo!()
}

/// A line of the client within AUTHENTICATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslLine {
    /// `*`: given up (answer BAD).
    Cancel,
    /// The decoded response.
    Response(Vec<u8>),
    /// Not base64 (answer BAD).
    Malformed,
}
/// Reads a line of the client within AUTHENTICATE.
pub fn sasl_line(line: &[u8]) -> SaslLine {
    let _ = line;
    todo!()
}
