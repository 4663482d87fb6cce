//! What a server may say, by what the client enabled: the test client holds every response against these rules.

use anyhow::{Result, bail, ensure};

use super::value::{Piece, Pieces, Untagged, Value};

/// What `* ENABLED` named so far.
#[derive(Debug, Default)]
pub struct Rules {
    rev2: bool,
    utf8: bool,
    uid_only: bool,
}

impl Rules {
    /// Outside of literals there is UTF-8 only for who enabled it (RFC 6855 §3, RFC 9051 appendix A), and then it is valid.
    pub fn check_bytes(&self, pieces: &Pieces) -> Result<()> {
        for piece in &pieces.0 {
            let Piece::Line(line) = piece else { continue };
            ensure!(line.is_ascii() || (self.utf8 && std::str::from_utf8(line).is_ok()), "8-bit bytes outside of a literal");
        }
        Ok(())
    }

    /// Whether this response is legal now.
    pub fn check(&mut self, response: &Untagged) -> Result<()> {
        match response.name.as_str() {
            "ENABLED" => {
                for value in &response.values {
                    let name = value.text()?.to_ascii_uppercase();
                    self.rev2 |= name == "IMAP4REV2";
                    self.uid_only |= name == "UIDONLY";
                    self.utf8 |= name == "IMAP4REV2" || name == "UTF8=ACCEPT";
                }
            }
            "FETCH" | "EXPUNGE" if self.uid_only => bail!("{} after ENABLE UIDONLY", response.name),
            "UIDFETCH" if !self.uid_only => bail!("UIDFETCH without ENABLE UIDONLY"),
            "RECENT" | "SEARCH" if self.rev2 => bail!("{} after ENABLE IMAP4rev2", response.name),
            "FETCH" if self.rev2 => ensure!(!has_recent(&response.values), "\\Recent after ENABLE IMAP4rev2"),
            _ => {}
        }
        Ok(())
    }
}

fn has_recent(values: &[Value]) -> bool {
    values.iter().any(|value| match value {
        Value::Atom(atom) => atom.eq_ignore_ascii_case("\\Recent"),
        Value::List(values) => has_recent(values),
        Value::Nil | Value::Text(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::value::untagged;

    fn check(rules: &mut Rules, line: &str) -> Result<()> {
        let pieces = Pieces(vec![Piece::Line(line.as_bytes().to_vec())]);
        rules.check_bytes(&pieces)?;
        rules.check(&untagged(&pieces)?)
    }

    #[test]
    fn sequence_numbers_are_refused_after_uidonly() {
        let mut rules = Rules::default();
        assert!(check(&mut rules, "5 UIDFETCH (FLAGS ())").is_err());
        check(&mut rules, "5 EXPUNGE").unwrap();
        check(&mut rules, "ENABLED UIDONLY").unwrap();
        assert!(check(&mut rules, "5 EXPUNGE").is_err() && check(&mut rules, "5 FETCH (FLAGS ())").is_err());
        check(&mut rules, "5 UIDFETCH (FLAGS ())").unwrap();
    }

    #[test]
    fn what_enable_forbids_is_refused_from_then_on() {
        let mut rules = Rules::default();
        for line in ["1 RECENT", "SEARCH 1", "1 FETCH (FLAGS (\\Recent))"] {
            check(&mut rules, line).unwrap();
        }
        assert!(check(&mut rules, "LIST () \"/\" \"ü\"").is_err());
        check(&mut rules, "ENABLED IMAP4rev2").unwrap();
        for line in ["1 RECENT", "SEARCH 1", "1 FETCH (FLAGS (\\Recent))"] {
            assert!(check(&mut rules, line).is_err(), "{line}");
        }
        check(&mut rules, "LIST () \"/\" \"ü\"").unwrap();
    }
}
