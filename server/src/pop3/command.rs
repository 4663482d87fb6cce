//! POP3's commands: one line to one [`Command`].
//!
//! Invariants, each with the test that guards it:
//! - a password is all that follows `PASS `, spaces included (`a_password_may_hold_spaces`)
//! - no name holds a control character: inside, NUL stands between a user and the master user who logs in
//!   (`control_characters_are_refused_but_in_passwords`)
//! - only AUTH may be longer than other commands (`only_auth_may_be_long`)

/// Longest line with its line end: RFC 5034 §4 lets an initial response make AUTH longer than other commands; the same holds for later responses.
/// Tokens are long; RFC 4954 §4 has this limit for SMTP.
pub const LINE_BYTES_MAX: usize = 12_288;
/// Longest line of every other command: RFC 2449 §4 says 255, names and passwords may need more.
const COMMAND_BYTES_MAX: usize = 512;

/// A command, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `USER name`.
    User(String),
    /// `PASS password`.
    Pass(Vec<u8>),
    /// `AUTH`: which mechanisms are there?
    Mechanisms,
    /// `AUTH mechanism [initial response]`, the response still in base64.
    Auth {
        /// As it was written.
        mechanism: String,
        /// `=` stands for an empty one.
        initial_response: Option<String>,
    },
    /// STLS.
    Stls,
    /// CAPA.
    Capa,
    /// STAT.
    Stat,
    /// LIST, of one message or of all.
    List(Option<MessageNumber>),
    /// UIDL, of one message or of all.
    Uidl(Option<MessageNumber>),
    /// RETR.
    Retr(MessageNumber),
    /// TOP.
    Top(MessageNumber, u64),
    /// DELE.
    Dele(MessageNumber),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// UTF8 (RFC 6856).
    Utf8,
    /// LANG (RFC 6856): list all, or speak this one.
    Lang(Option<String>),
    /// QUIT.
    Quit,
}

/// What a client calls a message: 1 for the first of the maildrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageNumber(u32);

impl MessageNumber {
    /// Where the message is, counted from 0; `None` for number 0.
    pub fn position(self) -> Option<usize> {
        usize::try_from(self.0).ok()?.checked_sub(1)
    }
    /// What the client calls the message at `position`.
    pub fn of(position: usize) -> usize {
        position + 1
    }
}

/// What is wrong with a line, for the client.
pub type Wrong = &'static str;

/// Reads one line, without its line end.
pub fn parse(line: &[u8]) -> Result<Command, Wrong> {
    let (verb, rest) = match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default()),
        None => (line, &[][..]),
    };
    let verb = verb.to_ascii_uppercase();
    // The line end counts too.
    if line.len() + 2 > COMMAND_BYTES_MAX && verb != b"AUTH" {
        return Err("The line is too long");
    }
    if verb == b"PASS" {
        if std::str::from_utf8(rest).is_err() {
            // RFC 6856 §2.2.
            return Err("The password is not UTF-8");
        }
        return if rest.is_empty() { Err("Syntax: PASS password") } else { Ok(Command::Pass(rest.to_vec())) };
    }
    let rest = std::str::from_utf8(rest).map_err(|_| "The command is not UTF-8")?;
    if rest.contains(|c: char| c.is_control()) {
        return Err("The command holds control characters");
    }
    let mut arguments = rest.split(' ').filter(|argument| !argument.is_empty());
    let command = match verb.as_slice() {
        b"USER" => {
            let name = rest.trim();
            return if name.is_empty() { Err("Syntax: USER name") } else { Ok(Command::User(name.to_owned())) };
        }
        b"AUTH" => match arguments.next() {
            Some(mechanism) => Command::Auth { mechanism: mechanism.to_owned(), initial_response: arguments.next().map(str::to_owned) },
            None => Command::Mechanisms,
        },
        b"STLS" => Command::Stls,
        b"CAPA" => Command::Capa,
        b"STAT" => Command::Stat,
        b"LIST" => Command::List(arguments.next().map(number).transpose()?),
        b"UIDL" => Command::Uidl(arguments.next().map(number).transpose()?),
        b"RETR" => Command::Retr(number(arguments.next().unwrap_or_default())?),
        b"DELE" => Command::Dele(number(arguments.next().unwrap_or_default())?),
        b"TOP" => {
            let message = number(arguments.next().unwrap_or_default())?;
            let lines = arguments.next().filter(|lines| lines.bytes().all(|b| b.is_ascii_digit())).ok_or("Syntax: TOP message lines")?;
            // More lines than fit a number are all lines.
            Command::Top(message, lines.parse().unwrap_or(u64::MAX))
        }
        b"RSET" => Command::Rset,
        b"NOOP" => Command::Noop,
        b"UTF8" => Command::Utf8,
        b"LANG" => Command::Lang(arguments.next().map(str::to_owned)),
        b"QUIT" => Command::Quit,
        _ => return Err("The command is not known"),
    };
    if arguments.next().is_some() { Err("The command takes fewer arguments") } else { Ok(command) }
}

fn number(raw: &str) -> Result<MessageNumber, Wrong> {
    if raw.is_empty() || !raw.bytes().all(|b| b.is_ascii_digit()) {
        return Err("The command needs a message number");
    }
    // A number beyond this is beyond every maildrop.
    Ok(MessageNumber(raw.parse().unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_commands_of_rfc_1939_are_read() {
        assert_eq!(parse(b"USER mrose"), Ok(Command::User("mrose".into())));
        assert_eq!(parse(b"stat"), Ok(Command::Stat));
        assert_eq!(parse(b"LIST"), Ok(Command::List(None)));
        assert_eq!(parse(b"LIST 2"), Ok(Command::List(Some(MessageNumber(2)))));
        assert_eq!(parse(b"Retr 1"), Ok(Command::Retr(MessageNumber(1))));
        assert_eq!(parse(b"TOP 1 10"), Ok(Command::Top(MessageNumber(1), 10)));
        assert_eq!(parse(b"UIDL "), Ok(Command::Uidl(None)));
        assert_eq!(parse(b"utf8"), Ok(Command::Utf8));
        assert_eq!(parse(b"LANG MUL"), Ok(Command::Lang(Some("MUL".into()))));
        assert_eq!(parse(b"AUTH"), Ok(Command::Mechanisms));
        assert_eq!(parse(b"AUTH plain ="), Ok(Command::Auth { mechanism: "plain".into(), initial_response: Some("=".into()) }));
    }

    #[test]
    fn a_password_may_hold_spaces() {
        assert_eq!(parse(b"PASS  secret phrase "), Ok(Command::Pass(b" secret phrase ".to_vec())));
        assert_eq!(parse("pass p\u{e4}ss".as_bytes()), Ok(Command::Pass("p\u{e4}ss".into())));
    }

    #[test]
    fn names_and_passwords_are_utf8() {
        assert_eq!(parse("USER J\u{f6}rg".as_bytes()), Ok(Command::User("J\u{f6}rg".into())));
        assert_eq!(parse(b"USER J\xf6rg"), Err("The command is not UTF-8"));
        assert_eq!(parse(b"PASS J\xf6rg"), Err("The password is not UTF-8"));
    }

    #[test]
    fn control_characters_are_refused_but_in_passwords() {
        for line in ["USER ada\0root", "USER a\tb", "LIST 1\r", "AUTH PLAIN\x7f"] {
            assert_eq!(parse(line.as_bytes()), Err("The command holds control characters"), "{line:?}");
        }
        assert!(parse(b"PASS a\tb").is_ok());
    }

    #[test]
    fn malformed_commands_are_refused() {
        for line in [
            "",
            " ",
            "LAST",
            "RETR",
            "RETR x",
            "RETR -1",
            "RETR 1 2",
            "TOP 1",
            "TOP 1 -1",
            "STAT 1",
            "USER",
            "USER  ",
            "PASS",
            "PASS ",
            "AUTH a b c",
            "UTF8 x",
            "LANG a b",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert_eq!(parse(b"RETR 99999999999"), Ok(Command::Retr(MessageNumber(u32::MAX))));
        assert_eq!(MessageNumber(0).position(), None);
    }

    #[test]
    fn only_auth_may_be_long() {
        let long = "x".repeat(600);
        assert_eq!(parse(format!("USER {long}").as_bytes()), Err("The line is too long"));
        assert!(parse(format!("AUTH PLAIN {long}").as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(parse(&line));
        }
    }
}
