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

use super::reply::Reply;

/// Longest command line with its line end: RFC 5321's 512 and what SIZE, BODY and SMTPUTF8 add, times two for long sender addresses.
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
    /// RCPT, with the address as it was written.
    Rcpt(String),
    /// DATA.
    Data,
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
        "RSET" => bare(Command::Rset),
        "NOOP" => Ok(Command::Noop),
        "VRFY" if !rest.is_empty() => Ok(Command::Vrfy),
        "VRFY" => Err(Reply::new(501, "5.5.4", "Syntax: VRFY address")),
        "STARTTLS" => bare(Command::StartTls),
        "QUIT" => bare(Command::Quit),
        _ => Err(Reply::new(500, "5.5.1", "The command is not known")),
    }
}

fn host(raw: &str) -> Option<String> {
    let raw = raw.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    ((1..=HOST_BYTES_MAX).contains(&raw.len()) && raw.chars().all(plain)).then(|| raw.to_owned())
}

fn mail(rest: &str) -> Result<MailFrom, Reply> {
    let syntax = || Reply::new(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]");
    let (sender, parameters) = path(rest, "FROM:").ok_or_else(syntax)?;
    let mut mail = MailFrom { sender: sender.to_owned(), ..MailFrom::default() };
    let mut seen: Vec<String> = Vec::new();
    for parameter in parameters.split(' ').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
            None => (parameter.to_ascii_uppercase(), None),
        };
        match (keyword.as_str(), value) {
            ("SIZE", Some(size)) if !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) => {
                mail.size = Some(size.parse().unwrap_or(u64::MAX));
            }
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("7BIT") || body.eq_ignore_ascii_case("8BITMIME") => {}
            ("SMTPUTF8", None) => mail.utf8 = true,
            ("SIZE" | "BODY" | "SMTPUTF8", _) => return Err(Reply::new(501, "5.5.4", format!("{keyword} has no such value"))),
            _ => return Err(not_advertised(&keyword)),
        }
        if seen.contains(&keyword) {
            return Err(Reply::new(501, "5.5.4", format!("{keyword} is given twice")));
        }
        seen.push(keyword);
    }
    if !mail.sender.is_ascii() && !mail.utf8 {
        return Err(Reply::new(550, "5.6.7", "The sender's address needs SMTPUTF8"));
    }
    Ok(mail)
}

fn rcpt(rest: &str) -> Result<String, Reply> {
    let syntax = || Reply::new(501, "5.5.4", "Syntax: RCPT TO:<address>");
    let (address, parameters) = path(rest, "TO:").ok_or_else(syntax)?;
    if address.is_empty() {
        return Err(syntax());
    }
    match parameters.split(' ').find(|parameter| !parameter.is_empty()) {
        Some(parameter) => Err(not_advertised(&parameter.split('=').next().unwrap_or_default().to_ascii_uppercase())),
        None => Ok(address.to_owned()),
    }
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
            Ok(Command::Rcpt(address)) => address,
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
        assert_eq!(said, MailFrom { sender: String::new(), size: Some(1000), utf8: true });
        assert_eq!(mail("mail from: <a@b> size=99999999999999999999999").size, Some(u64::MAX));
        assert_eq!(mail("MAIL FROM:<zoë@例え.jp> SMTPUTF8").sender, "zoë@例え.jp");
        assert_eq!(code("MAIL FROM:<zoë@例え.jp>"), 550);
    }

    #[test]
    fn parameters_that_were_not_advertised_are_refused() {
        for line in ["MAIL FROM:<a@b> RET=HDRS", "MAIL FROM:<a@b> AUTH=<>", "RCPT TO:<a@b> NOTIFY=NEVER", "RCPT TO:<a@b> SIZE=1"] {
            assert_eq!(code(line), 555, "{line}");
        }
        for line in
            ["MAIL FROM:<a@b> BODY=BINARYMIME", "MAIL FROM:<a@b> SIZE=x", "MAIL FROM:<a@b> SIZE=1 SIZE=2", "MAIL FROM:<a@b> SMTPUTF8=1"]
        {
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
        for line in ["", " ", "BDAT 1 LAST", "MAILFROM:<a@b>"] {
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
            if let Ok(Command::Rcpt(address)) = parse(line.as_bytes()) {
                prop_assert!(!address.is_empty());
            }
        }
    }
}
