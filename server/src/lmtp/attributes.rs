//! XCLIENT and XFORWARD: what a proxy or a content filter in front says of the client before it (Postfix's XCLIENT_README and XFORWARD_README).
//!
//! Invariants, each with the test that guards it:
//! - no value holds a control character or more bytes than a log line should carry (`values_are_plain_and_short`)
//! - an attribute that was not offered is an error: it might have mattered (`attributes_that_were_not_offered_are_refused`)

use std::net::{IpAddr, Ipv6Addr};

use super::reply::Reply;

/// Longest value, decoded: a host name (RFC 1035 §2.3.4).
const VALUE_BYTES_MAX: usize = 255;
/// What stands for "not known".
const UNKNOWN: [&str; 2] = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];

/// Which of the two commands it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// XCLIENT: act as if this were the client.
    Client,
    /// XFORWARD: for the log only.
    Forward,
}

impl Said {
    /// What LHLO offers.
    pub fn offer(self) -> &'static str {
        match self {
            Said::Client => "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
            Said::Forward => "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
        }
    }

    /// Whether the attribute is one of those.
    pub fn has(self, attribute: &Attribute) -> bool {
        let name = match attribute {
            Attribute::Address(_) => "ADDR",
            Attribute::Port(_) => "PORT",
            Attribute::Helo(_) => "HELO",
            Attribute::Other { name, .. } => name,
        };
        self.offer().split(' ').skip(1).any(|offered| offered == name)
    }
}

/// One attribute; `None`: not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// ADDR.
    Address(Option<IpAddr>),
    /// PORT.
    Port(Option<u16>),
    /// HELO.
    Helo(Option<String>),
    /// One that only the log sees.
    Other {
        /// In capitals.
        name: &'static str,
        /// Decoded.
        value: Option<String>,
    },
}

/// Reads `NAME=value …`.
pub fn parse(rest: &str) -> Result<Vec<Attribute>, Reply> {
    let bad = |what: &str| Reply::new(501, "5.5.4", format!("{what} is not an attribute with a value"));
    let attributes: Vec<Attribute> = rest
        .split(' ')
        .filter(|said| !said.is_empty())
        .map(|said| said.split_once('=').and_then(|(name, value)| attribute(name, value)).ok_or_else(|| bad(said)))
        .collect::<Result<_, _>>()?;
    if attributes.is_empty() { Err(Reply::new(501, "5.5.4", "Syntax: attribute=value …")) } else { Ok(attributes) }
}

fn attribute(name: &str, raw: &str) -> Option<Attribute> {
    let decoded = decode(raw).filter(|value| value.len() <= VALUE_BYTES_MAX && !value.contains(char::is_control))?;
    let known = !UNKNOWN.iter().any(|unknown| decoded.eq_ignore_ascii_case(unknown));
    let value = known.then_some(decoded);
    Some(match name.to_ascii_uppercase().as_str() {
        "ADDR" => Attribute::Address(value.map(|value| address(&value).ok_or(())).transpose().ok()?),
        "PORT" => Attribute::Port(value.map(|value| value.parse().map_err(drop)).transpose().ok()?),
        "HELO" => Attribute::Helo(value.map(|value| super::command::host(&value).ok_or(())).transpose().ok()?),
        "NAME" => Attribute::Other { name: "NAME", value },
        "PROTO" => Attribute::Other { name: "PROTO", value },
        "LOGIN" => Attribute::Other { name: "LOGIN", value },
        "IDENT" => Attribute::Other { name: "IDENT", value },
        "SOURCE" => Attribute::Other { name: "SOURCE", value },
        "DESTADDR" => Attribute::Other { name: "DESTADDR", value },
        "DESTPORT" => Attribute::Other { name: "DESTPORT", value },
        _ => return None,
    })
}

fn address(raw: &str) -> Option<IpAddr> {
    match raw.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("IPV6:") => raw.get(5..)?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => raw.parse().ok(),
    }
}

/// xtext (RFC 3461 §4): `+` and two capital hexadecimal digits stand for a byte.
pub fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'=' => return None,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn other(name: &'static str, value: &str) -> Attribute {
        Attribute::Other { name, value: Some(value.to_owned()) }
    }

    /// The examples of XCLIENT_README and XFORWARD_README.
    #[test]
    fn the_examples_of_postfix_are_read() {
        assert_eq!(
            parse("NAME=spike.porcupine.org ADDR=168.100.189.2"),
            Ok(vec![other("NAME", "spike.porcupine.org"), Attribute::Address("168.100.189.2".parse().ok())])
        );
        assert_eq!(
            parse("helo=spike.porcupine.org PROTO=ESMTP IDENT=B4FBC5E4 SOURCE=REMOTE"),
            Ok(vec![
                Attribute::Helo(Some("spike.porcupine.org".into())),
                other("PROTO", "ESMTP"),
                other("IDENT", "B4FBC5E4"),
                other("SOURCE", "REMOTE")
            ])
        );
        assert_eq!(parse("ADDR=IPV6:2001:db8::7"), Ok(vec![Attribute::Address("2001:db8::7".parse().ok())]));
        assert_eq!(parse("ADDR=[UNAVAILABLE] PORT=[TEMPUNAVAIL]"), Ok(vec![Attribute::Address(None), Attribute::Port(None)]));
        assert_eq!(parse("LOGIN=ada+40example.org"), Ok(vec![other("LOGIN", "ada@example.org")]));
    }

    #[test]
    fn attributes_that_were_not_offered_are_refused() {
        for rest in ["", "COLOUR=red", "ADDR", "ADDR=300.1.1.1", "PORT=x", "PORT=65536", "ADDR=+0", "NAME=a=b", "HELO=(x)"] {
            assert_eq!(parse(rest).map_err(|reply| reply.code), Err(501), "{rest}");
        }
        assert!(!Said::Forward.has(&other("LOGIN", "x")) && Said::Client.has(&other("LOGIN", "x")));
        assert!(!Said::Client.has(&other("IDENT", "x")) && Said::Forward.has(&other("IDENT", "x")));
    }

    #[test]
    fn values_are_plain_and_short() {
        assert!(parse("NAME=a+0D+0Ab").is_err());
        assert!(parse(&format!("NAME={}", "x".repeat(VALUE_BYTES_MAX + 1))).is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(rest in "([A-Z]{4}=)?[+=A-F0-9.: \\[\\]é]{0,40}") {
            drop(parse(&rest));
        }
    }
}
