//! LMTP's commands: one line to one [`Command`], or to the reply that says what is wrong with it.
//!
//! Invariants, each with the test that guards it:
//! - no address or host name holds a control character, so none can end a line of the Received field
//!   (`control_characters_are_refused_wherever_they_stand`)
//! - an address is kept as it was written, quotes included (`a_quoted_local_part_keeps_its_quotes`)
//! - what was not advertised is refused with 555, never ignored (`parameters_that_were_not_advertised_are_refused`)
//!
//! `smtp-proto` is not used here: it drops the quotes of local parts, refuses addresses without a domain (which local users
//! have), and reads `DATA x` as DATA. It is the second opinion in the tests.

use super::{
    attributes::{self, Attribute, Said},
    reply::Reply,
};

/// Longest command line with its line end: RFC 5321's 512, what SIZE, BODY, SMTPUTF8 and DSN (500 for ORCPT alone) add, and long sender addresses.
pub const LINE_BYTES_MAX: usize = 2048;
/// Longest address: twice the 256 of RFC 5321 §4.5.3.1.3, since VERP and SRS senders pass it; the trace fields stay below 998 bytes a line.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Longest host name in LHLO (RFC 5321 §4.5.3.1.2).
const HOST_BYTES_MAX: usize = 255;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `LHLO host`.
    Lhlo(String),
    /// EHLO or HELO, which LMTP does not have (RFC 2033 §4.1).
    SmtpHello,
    /// MAIL.
    Mail(MailFrom),
    /// RCPT.
    Rcpt(RcptTo),
    /// DATA.
    Data,
    /// BDAT (RFC 3030): how many bytes follow the line, and whether they end the message.
    Bdat {
        /// Bytes after the line.
        bytes: u64,
        /// LAST was said.
        last: bool,
    },
    /// XCLIENT or XFORWARD: what a proxy or filter says of the client before it.
    Said(Said, Vec<Attribute>),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// STARTTLS.
    StartTls,
    /// QUIT.
    Quit,
}

/// What MAIL says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailFrom {
    /// The reverse path without angle brackets, as it was written; empty for bounces.
    pub sender: String,
    /// SIZE (RFC 1870).
    pub size: Option<u64>,
    /// SMTPUTF8 (RFC 6531): addresses may have more than ASCII.
    pub utf8: bool,
    /// BODY=BINARYMIME (RFC 3030): lines and bytes as they please, and BDAT only.
    pub binary: bool,
}

/// What RCPT says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptTo {
    /// The forward path without angle brackets, as it was written.
    pub address: String,
    /// ORCPT (RFC 3461 §4.2), decoded: address type and address.
    pub original: Option<(String, String)>,
}

/// Reads one line, without its line end.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    let line = std::str::from_utf8(line).map_err(|_| Reply::new(500, "5.5.2", "The line is not UTF-8"))?;
    if line.contains(|c: char| c.is_control()) {
        return Err(Reply::new(500, "5.5.2", "The line holds control characters"));
    }
    let line = line.trim_end_matches(' ');
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let bare = |command| if rest.is_empty() { Ok(command) } else { Err(Reply::new(501, "5.5.4", "The command takes no argument")) };
    match verb.to_ascii_uppercase().as_str() {
        "LHLO" => host(rest).map(Command::Lhlo).ok_or(Reply::new(501, "5.5.4", "Syntax: LHLO hostname")),
        "EHLO" | "HELO" => Ok(Command::SmtpHello),
        "MAIL" => mail(rest).map(Command::Mail),
        "RCPT" => rcpt(rest).map(Command::Rcpt),
        "DATA" => bare(Command::Data),
        "BDAT" => bdat(rest).ok_or(Reply::new(501, "5.5.4", "Syntax: BDAT bytes [LAST]")),
        "XCLIENT" => attributes::parse(rest).map(|said| Command::Said(Said::Client, said)),
        "XFORWARD" => attributes::parse(rest).map(|said| Command::Said(Said::Forward, said)),
        "RSET" => bare(Command::Rset),
        "NOOP" => Ok(Command::Noop),
        "VRFY" if !rest.is_empty() => Ok(Command::Vrfy),
        "VRFY" => Err(Reply::new(501, "5.5.4", "Syntax: VRFY address")),
        "STARTTLS" => bare(Command::StartTls),
        "QUIT" => bare(Command::Quit),
        _ => Err(Reply::new(500, "5.5.1", "The command is not known")),
    }
}

pub(super) fn host(raw: &str) -> Option<String> {
    let raw = raw.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    ((1..=HOST_BYTES_MAX).contains(&raw.len()) && raw.chars().all(plain)).then(|| raw.to_owned())
}

/// Digits only: `+1` and `0x1` are no chunk sizes, and two readings of one size would be two messages.
fn bdat(rest: &str) -> Option<Command> {
    let (bytes, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((bytes, last)) if last.eq_ignore_ascii_case("LAST") => (bytes, true),
        Some(_) => return None,
    };
    Some(Command::Bdat { bytes: digits(bytes)?, last })
}

fn digits(raw: &str) -> Option<u64> {
    let plain = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| raw.parse().unwrap_or(u64::MAX))
}

fn mail(rest: &str) -> Result<MailFrom, Reply> {
    let syntax = || Reply::new(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]");
    let (sender, parameters) = path(rest, "FROM:").ok_or_else(syntax)?;
    let mut mail = MailFrom { sender: sender.to_owned(), ..MailFrom::default() };
    for (keyword, value) in self::parameters(parameters)? {
        let known = match (keyword.as_str(), value) {
            ("SIZE", Some(size)) => {
                mail.size = digits(size);
                mail.size.is_some()
            }
            ("BODY", Some(body)) => {
                mail.binary = body.eq_ignore_ascii_case("BINARYMIME");
                mail.binary || body.eq_ignore_ascii_case("7BIT") || body.eq_ignore_ascii_case("8BITMIME")
            }
            ("SMTPUTF8", None) => {
                mail.utf8 = true;
                true
            }
            // RFC 3461: the transfer agent in front sends notifications, from our replies; here they are read and passed over.
            ("RET", Some(what)) => what.eq_ignore_ascii_case("FULL") || what.eq_ignore_ascii_case("HDRS"),
            ("ENVID", Some(id)) => attributes::decode(id).is_some(),
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => false,
            _ => return Err(not_advertised(&keyword)),
        };
        if !known {
            return Err(no_such_value(&keyword));
        }
    }
    if !mail.sender.is_ascii() && !mail.utf8 {
        return Err(Reply::new(550, "5.6.7", "The sender's address needs SMTPUTF8"));
    }
    Ok(mail)
}

fn rcpt(rest: &str) -> Result<RcptTo, Reply> {
    let syntax = || Reply::new(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]");
    let (address, parameters) = path(rest, "TO:").ok_or_else(syntax)?;
    if address.is_empty() {
        return Err(syntax());
    }
    let mut rcpt = RcptTo { address: address.to_owned(), original: None };
    for (keyword, value) in self::parameters(parameters)? {
        let known = match (keyword.as_str(), value) {
            ("NOTIFY", Some(when)) => notify(when),
            ("ORCPT", Some(original)) => {
                rcpt.original = self::original(original);
                rcpt.original.is_some()
            }
            ("NOTIFY" | "ORCPT", None) => false,
            _ => return Err(not_advertised(&keyword)),
        };
        if !known {
            return Err(no_such_value(&keyword));
        }
    }
    Ok(rcpt)
}

/// RFC 3461 §4.1: NEVER alone, or any of the others.
fn notify(when: &str) -> bool {
    let others = ["SUCCESS", "FAILURE", "DELAY"];
    when.eq_ignore_ascii_case("NEVER") || when.split(',').all(|said| others.iter().any(|word| said.eq_ignore_ascii_case(word)))
}

/// RFC 3461 §4.2: `rfc822;ada@example.org`, the address in xtext. It goes into a header field, so only plain ASCII is kept.
fn original(raw: &str) -> Option<(String, String)> {
    let (kind, address) = raw.split_once(';')?;
    let address = attributes::decode(address)?;
    let plain = |text: &str| !text.is_empty() && text.len() <= ADDRESS_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let atom = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (plain(kind) && atom && plain(&address)).then(|| (kind.to_owned(), address))
}

/// Keywords in capitals, with their values; none twice.
fn parameters(raw: &str) -> Result<Vec<(String, Option<&str>)>, Reply> {
    let mut parameters: Vec<(String, Option<&str>)> = Vec::new();
    for parameter in raw.split(' ').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
            None => (parameter.to_ascii_uppercase(), None),
        };
        if parameters.iter().any(|(seen, _)| *seen == keyword) {
            return Err(Reply::new(501, "5.5.4", format!("{keyword} is given twice")));
        }
        parameters.push((keyword, value));
    }
    Ok(parameters)
}

fn no_such_value(keyword: &str) -> Reply {
    Reply::new(501, "5.5.4", format!("{keyword} has no such value"))
}

fn not_advertised(keyword: &str) -> Reply {
    Reply::new(555, "5.5.4", format!("The parameter {keyword} is not supported"))
}

/// Takes `FROM:<path>` apart: the address without a source route (RFC 5321 appendix C says to drop it), and what follows.
fn path<'a>(rest: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let rest = rest.trim_start_matches(' ');
    let (head, rest) = rest.split_at_checked(prefix.len())?;
    let rest = rest.trim_start_matches(' ').strip_prefix('<')?;
    let mut quoted = false;
    let mut escaped = false;
    let mut end = None;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                end = Some(at);
                break;
            }
            '<' | ' ' if !quoted => return None,
            _ => {}
        }
    }
    let (path, after) = rest.split_at_checked(end?)?;
    let after = after.strip_prefix('>')?;
    let address = if path.starts_with('@') { path.split_once(':')?.1 } else { path };
    let sound = head.eq_ignore_ascii_case(prefix)
        && (after.is_empty() || after.starts_with(' '))
        && address.len() <= ADDRESS_BYTES_MAX
        && !address.starts_with('@')
        && !address.ends_with('@');
    sound.then_some((address, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smtp_proto::Request;

    use super::*;

    fn code(line: &str) -> u16 {
        parse(line.as_bytes()).expect_err(line).code
    }

    fn mail(line: &str) -> MailFrom {
        match parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn rcpt(line: &str) -> String {
        match parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => rcpt.address,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_commands_of_rfc_2033_are_read() {
        assert_eq!(parse(b"LHLO foo.edu"), Ok(Command::Lhlo("foo.edu".into())));
        assert_eq!(mail("MAIL FROM:<chris@bar.com>").sender, "chris@bar.com");
        assert_eq!(rcpt("RCPT TO:<pat@foo.edu>"), "pat@foo.edu");
        assert_eq!(parse(b"DATA"), Ok(Command::Data));
        assert_eq!(parse(b"quit "), Ok(Command::Quit));
    }

    #[test]
    fn parameters_that_were_advertised_are_read() {
        let said = mail("MAIL FROM:<> SIZE=1000 BODY=8BITMIME SMTPUTF8");
        assert_eq!(said, MailFrom { sender: String::new(), size: Some(1000), utf8: true, binary: false });
        assert!(mail("MAIL FROM:<a@b> BODY=BinaryMIME").binary);
        assert_eq!(mail("mail from: <a@b> size=99999999999999999999999").size, Some(u64::MAX));
        assert_eq!(mail("MAIL FROM:<zoë@例え.jp> SMTPUTF8").sender, "zoë@例え.jp");
        assert_eq!(code("MAIL FROM:<zoë@例え.jp>"), 550);
    }

    #[test]
    fn parameters_that_were_not_advertised_are_refused() {
        for line in ["MAIL FROM:<a@b> MT-PRIORITY=3", "MAIL FROM:<a@b> AUTH=<>", "RCPT TO:<a@b> RRVS=x", "RCPT TO:<a@b> SIZE=1"] {
            assert_eq!(code(line), 555, "{line}");
        }
        for line in ["MAIL FROM:<a@b> BODY=BINARY", "MAIL FROM:<a@b> SIZE=x", "MAIL FROM:<a@b> SIZE=1 SIZE=2", "MAIL FROM:<a@b> SMTPUTF8=1"]
        {
            assert_eq!(code(line), 501, "{line}");
        }
    }

    /// The examples of RFC 3461 §10, and values that its grammar does not have.
    #[test]
    fn the_parameters_of_delivery_notifications_are_read() {
        assert_eq!(mail("MAIL FROM:<Alice@Example.ORG> RET=HDRS ENVID=QQ314159").sender, "Alice@Example.ORG");
        let Ok(Command::Rcpt(bob)) = parse(b"RCPT TO:<Bob@Example.COM> NOTIFY=SUCCESS,delay ORCPT=rfc822;Bob+2Bbox@Example.COM") else {
            panic!("refused");
        };
        assert_eq!(bob.original, Some(("rfc822".to_owned(), "Bob+box@Example.COM".to_owned())));
        for line in [
            "MAIL FROM:<a@b> RET=ALL",
            "MAIL FROM:<a@b> ENVID=a+2",
            "RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS",
            "RCPT TO:<a@b> NOTIFY=",
            "RCPT TO:<a@b> ORCPT=a@b",
            "RCPT TO:<a@b> ORCPT=rfc822;a+0D+0AX:y",
            "RCPT TO:<a@b> ORCPT=rfc822;a ORCPT=rfc822;a",
        ] {
            assert_eq!(code(line), 501, "{line}");
        }
    }

    #[test]
    fn a_chunk_has_one_size() {
        assert_eq!(parse(b"BDAT 86 LAST"), Ok(Command::Bdat { bytes: 86, last: true }));
        assert_eq!(parse(b"bdat 0"), Ok(Command::Bdat { bytes: 0, last: false }));
        for line in ["BDAT", "BDAT x", "BDAT +1", "BDAT -1", "BDAT 1 2", "BDAT 1  LAST", "BDAT 1 LAST LAST", "BDAT 0x10"] {
            assert_eq!(code(line), 501, "{line}");
        }
    }

    #[test]
    fn a_quoted_local_part_keeps_its_quotes() {
        assert_eq!(rcpt(r#"RCPT TO:<"ada > \"love\" lace"@example.org>"#), r#""ada > \"love\" lace"@example.org"#);
    }

    #[test]
    fn a_source_route_is_dropped() {
        assert_eq!(rcpt("RCPT TO:<@hosta.int,@jkl.org:userc@d.bar.org>"), "userc@d.bar.org");
    }

    #[test]
    fn users_without_a_domain_are_recipients() {
        assert_eq!(rcpt("RCPT TO:<ada>"), "ada");
    }

    #[test]
    fn control_characters_are_refused_wherever_they_stand() {
        for line in ["LHLO a\tb", "MAIL FROM:<a\rb@c>", "RCPT TO:<\"a\0b\"@c>", "NOOP \u{85}", "RCPT TO:<a\x7f@b>"] {
            assert_eq!(code(line), 500, "{line:?}");
        }
        assert_eq!(parse(b"RCPT TO:<\xff@b>").unwrap_err().code, 500);
    }

    #[test]
    fn malformed_commands_are_refused() {
        let long = format!("RCPT TO:<{}@b>", "x".repeat(ADDRESS_BYTES_MAX));
        for line in [
            "LHLO",
            "LHLO (x)",
            "MAIL",
            "MAIL FROM:",
            "MAIL FROM:a@b",
            "MAIL FROM:<a@b",
            "MAIL FROM:<a@b>x",
            "MAIL TO:<a@b>",
            "RCPT TO:<>",
            "RCPT TO:<a b>",
            "RCPT TO:<@b>",
            "RCPT TO:<a@>",
            "RCPT TO:<\"a@b>",
            "DATA x",
            "VRFY",
            &long,
        ] {
            assert_eq!(code(line), 501, "{line}");
        }
        for line in ["", " ", "BDAT1 LAST", "MAILFROM:<a@b>"] {
            assert_eq!(code(line), 500, "{line}");
        }
        assert_eq!(parse(b"EHLO a"), Ok(Command::SmtpHello));
    }

    proptest! {
        /// Where `smtp-proto` reads an address without quotes, we read the same.
        #[test]
        fn addresses_are_read_as_another_parser_reads_them(address in "[a-z0-9+.=-]{1,9}@[a-z0-9.-]{1,9}", size in 0u32..) {
            let line = format!("MAIL FROM:<{address}> SIZE={size}\r\n");
            if let Ok(Request::Mail { from }) = Request::parse(&mut line.as_bytes().iter()) {
                let ours = mail(line.trim_end());
                prop_assert_eq!(ours.sender, from.address);
                prop_assert_eq!(ours.size, Some(from.size as u64));
            }
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in prop_oneof!["(?i)(mail from:|rcpt to:|lhlo )?[<>@:\"\\\\ a-zé=]{0,40}", ".{0,40}"]) {
            if let Ok(Command::Rcpt(rcpt)) = parse(line.as_bytes()) {
                prop_assert!(!rcpt.address.is_empty());
            }
        }
    }
}
