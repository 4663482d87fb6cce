//! Looks up the first address of a field in a rendered ENVELOPE (RFC 9051 §7.5.2), which is what RFC 5256 and RFC 5957 sort by.

/// The address fields that can be sorted by: their place in the ENVELOPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressField {
    From = 2,
    To = 5,
    Cc = 6,
}

/// The first address of a field; what is NIL is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstAddress {
    /// addr-name, encoded-words not decoded.
    pub name: Vec<u8>,
    /// addr-mailbox.
    pub mailbox: Vec<u8>,
    /// addr-host.
    pub host: Vec<u8>,
}

/// The first address of `field`; `None`: the field is NIL.
pub fn first_address(envelope: &[u8], field: AddressField) -> Option<FirstAddress> {
    let mut tokens = Tokens(envelope);
    tokens.open()?;
    for _ in 0..field as usize {
        tokens.skip()?;
    }
    tokens.open()?;
    tokens.open()?;
    let name = tokens.string()?;
    tokens.string()?;
    Some(FirstAddress { name, mailbox: tokens.string()?, host: tokens.string()? })
}

/// What is left to read. `None` from a method: something else stands there.
struct Tokens<'e>(&'e [u8]);

impl Tokens<'_> {
    fn spaces(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }
    fn open(&mut self) -> Option<()> {
        self.spaces();
        self.0 = self.0.strip_prefix(b"(")?;
        Some(())
    }
    /// A string; NIL is an empty one.
    fn string(&mut self) -> Option<Vec<u8>> {
        self.spaces();
        match self.0.first()? {
            b'"' => self.quoted(),
            b'{' => {
                let end = memchr::memchr(b'}', self.0)?;
                let size: usize = std::str::from_utf8(self.0.get(1..end)?).ok()?.parse().ok()?;
                let (literal, rest) = self.0.get(end + 1..)?.strip_prefix(b"\r\n")?.split_at_checked(size)?;
                self.0 = rest;
                Some(literal.to_vec())
            }
            _ => {
                self.0 = self.0.strip_prefix(b"NIL")?;
                Some(Vec::new())
            }
        }
    }
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut rest = self.0.get(1..)?;
        loop {
            let end = memchr::memchr2(b'"', b'\\', rest)?;
            let (plain, special) = rest.split_at_checked(end)?;
            text.extend_from_slice(plain);
            match special {
                [b'"', after @ ..] => {
                    self.0 = after;
                    return Some(text);
                }
                [b'\\', escaped, after @ ..] => {
                    text.push(*escaped);
                    rest = after;
                }
                _ => return None,
            }
        }
    }
    /// Passes over a string or a list.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.spaces();
            match self.0.first()? {
                b'(' => {
                    depth += 1;
                    self.0 = self.0.get(1..)?;
                }
                b')' => {
                    depth = depth.checked_sub(1)?;
                    self.0 = self.0.get(1..)?;
                }
                _ => drop(self.string()?),
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(header: &str) -> Vec<u8> {
        storage::mime::Structure::parse(format!("{}\r\n\r\n", header.replace('\n', "\r\n")).as_bytes()).envelope()
    }

    #[test]
    fn the_first_address_of_each_field_is_found() {
        let envelope = envelope(
            "Subject: a \"quoted\\ (subject\nFrom: \"Ada \\\"L\\\" (x)\" <ada@example.org>, b@c\nTo: u: one@two;\nCc: =?utf-8?q?=C3=A9?= <cc@d>\nBcc: x@y",
        );
        let address = |field| first_address(&envelope, field);
        let from = address(AddressField::From).unwrap();
        assert_eq!(
            (from.name.as_slice(), from.mailbox.as_slice(), from.host.as_slice()),
            (&b"Ada \"L\" (x)"[..], &b"ada"[..], &b"example.org"[..])
        );
        assert_eq!(address(AddressField::To).unwrap().mailbox, b"u", "a group stands first");
        assert_eq!(address(AddressField::Cc).unwrap().name, b"=?utf-8?q?=C3=A9?=");
    }

    #[test]
    fn what_is_missing_is_nil() {
        let envelope = envelope("X: y");
        assert_eq!(first_address(&envelope, AddressField::Cc), None);
    }

    #[test]
    fn literals_are_passed_over() {
        let raw = b"(NIL {5}\r\n(\"(\"a ((NIL NIL {1}\r\nx \"h\")) NIL NIL NIL NIL NIL NIL NIL)";
        assert_eq!(first_address(raw, AddressField::From).unwrap().mailbox, b"x");
        for end in 0..raw.len() {
            drop(first_address(&raw[..end], AddressField::Cc));
        }
    }
}
