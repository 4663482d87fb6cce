//! IMAP responses as a small tree of values, parsed strictly (RFC 9051 §9; RFC 3501 where that is wider).

use anyhow::{Context, Result, bail, ensure};

/// One value of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `NIL`.
    Nil,
    /// An atom, a number, or an item name with its section, as in `BODY[HEADER.FIELDS (TO)]<0>`.
    Atom(String),
    /// A quoted string or a literal.
    Text(Vec<u8>),
    /// A parenthesised list.
    List(Vec<Value>),
}

impl Value {
    /// The number it is.
    pub fn number(&self) -> Result<u64> {
        match self {
            Value::Atom(atom) => atom.parse().with_context(|| format!("{atom} is not a number")),
            other => bail!("{other:?} is not a number"),
        }
    }

    /// Atom or text as text.
    pub fn text(&self) -> Result<String> {
        match self {
            Value::Atom(atom) => Ok(atom.clone()),
            Value::Text(bytes) => Ok(String::from_utf8(bytes.clone())?),
            other => bail!("{other:?} is not a string"),
        }
    }

    /// The bytes of a string.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self {
            Value::Text(bytes) => Ok(bytes),
            other => bail!("{other:?} is not a string"),
        }
    }

    /// The members of a list.
    pub fn list(&self) -> Result<&[Value]> {
        match self {
            Value::List(values) => Ok(values),
            other => bail!("{other:?} is not a list"),
        }
    }
}

/// One untagged response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untagged {
    /// The number before the name, as in `* 5 EXISTS`.
    pub number: Option<u32>,
    /// `EXISTS`, `FETCH`, `OK`, … in capitals.
    pub name: String,
    /// What follows; for OK, NO, BAD, BYE and PREAUTH the text is in `text` instead.
    pub values: Vec<Value>,
    /// For OK, NO, BAD, BYE and PREAUTH.
    pub text: Option<ResponseText>,
}

/// Code and human-readable text of a status response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseText {
    /// Name of the code in capitals, as in `UIDNEXT`.
    pub code: Option<String>,
    /// What follows the name inside the brackets.
    pub arguments: String,
    /// The text.
    pub text: String,
}

/// A response line, in pieces: text, with each literal in its place.
#[derive(Debug, Default)]
pub struct Pieces(pub Vec<Piece>);

/// A piece of a response.
#[derive(Debug)]
pub enum Piece {
    /// Text of a line, without the literal's announcement.
    Line(Vec<u8>),
    /// A literal.
    Literal(Vec<u8>),
}

/// Size of the literal that a line announces at its end, and the line without it.
pub fn announced_literal(line: &[u8]) -> Option<(usize, &[u8])> {
    let inside = line.strip_suffix(b"}")?;
    let open = inside.iter().rposition(|byte| *byte == b'{')?;
    let digits = std::str::from_utf8(&inside[open + 1..]).ok()?;
    let size = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    // literal8: `~{5}`
    let end = if line[..open].ends_with(b"~") { open - 1 } else { open };
    Some((size, &line[..end]))
}

/// Parses what follows `* `.
pub fn untagged(pieces: &Pieces) -> Result<Untagged> {
    let mut parser = Parser { pieces: &pieces.0, piece: 0, at: 0 };
    let mut name = parser.word()?;
    let number = name.parse::<u32>().ok();
    if number.is_some() {
        parser.space()?;
        name = parser.word()?;
    }
    name.make_ascii_uppercase();
    if matches!(name.as_str(), "OK" | "NO" | "BAD" | "BYE" | "PREAUTH") {
        ensure!(number.is_none(), "a number before {name}");
        let text = response_text(&parser.rest()?)?;
        return Ok(Untagged { number, name, values: Vec::new(), text: Some(text) });
    }
    let mut values = Vec::new();
    while !parser.at_end() {
        parser.space()?;
        // `* SEARCH` and the like may end in one space only where nothing follows: that is refused here.
        values.push(parser.value(0)?);
    }
    Ok(Untagged { number, name, values, text: None })
}

/// Parses what follows `OK `: `[CODE arguments] text`.
pub fn response_text(rest: &[u8]) -> Result<ResponseText> {
    let text = std::str::from_utf8(rest).context("a status text that is not UTF-8")?;
    let text = text.strip_prefix(' ').context("no space after the status")?;
    let Some(inside) = text.strip_prefix('[') else {
        ensure!(!text.is_empty(), "a status without text");
        return Ok(ResponseText { code: None, arguments: String::new(), text: text.to_owned() });
    };
    let (code, text) = inside.split_once(']').context("a response code without its end")?;
    let (name, arguments) = code.split_once(' ').unwrap_or((code, ""));
    let text = text.strip_prefix(' ').context("no space after the response code")?;
    if name.eq_ignore_ascii_case("MESSAGELIMIT") {
        check_message_limit(arguments)?;
    }
    Ok(ResponseText { code: Some(name.to_ascii_uppercase()), arguments: arguments.to_owned(), text: text.to_owned() })
}

/// `message-limit [SP uniqueid]`, both nz-number (RFC 9738 §5).
fn check_message_limit(arguments: &str) -> Result<()> {
    let numbers: Vec<&str> = arguments.split(' ').collect();
    ensure!((1..=2).contains(&numbers.len()), "MESSAGELIMIT {arguments:?}");
    for number in numbers {
        let is_number = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u32>().is_ok();
        ensure!(is_number, "MESSAGELIMIT {arguments:?}");
    }
    Ok(())
}

/// Deepest nesting taken: a hostile server must not overflow our stack.
const NESTING_MAX: usize = 100;

struct Parser<'a> {
    pieces: &'a [Piece],
    piece: usize,
    at: usize,
}

impl Parser<'_> {
    fn line(&self) -> &[u8] {
        match self.pieces.get(self.piece) {
            Some(Piece::Line(line)) => &line[self.at.min(line.len())..],
            _ => &[],
        }
    }

    fn peek(&self) -> Option<u8> {
        self.line().first().copied()
    }

    fn at_end(&self) -> bool {
        self.line().is_empty() && self.piece + 1 >= self.pieces.len()
    }

    fn space(&mut self) -> Result<()> {
        ensure!(self.peek() == Some(b' '), "a space is missing before {:?}", String::from_utf8_lossy(self.line()));
        self.at += 1;
        Ok(())
    }

    fn word(&mut self) -> Result<String> {
        let length = self.line().iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(byte)).count();
        ensure!(length > 0, "a word is missing before {:?}", String::from_utf8_lossy(self.line()));
        let word = String::from_utf8(self.line()[..length].to_vec())?;
        self.at += length;
        Ok(word)
    }

    fn rest(&mut self) -> Result<Vec<u8>> {
        ensure!(self.piece + 1 == self.pieces.len(), "a literal in a status text");
        let rest = self.line().to_vec();
        self.at += rest.len();
        Ok(rest)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        ensure!(depth < NESTING_MAX, "lists nested deeper than {NESTING_MAX}");
        match self.peek() {
            None => self.literal(),
            Some(b'(') => self.list(depth),
            Some(b'"') => self.quoted(),
            Some(_) => self.atom(),
        }
    }

    fn literal(&mut self) -> Result<Value> {
        let Some(Piece::Literal(bytes)) = self.pieces.get(self.piece + 1) else { bail!("a value is missing at the end of the response") };
        let value = Value::Text(bytes.clone());
        self.piece += 2;
        self.at = 0;
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut values = Vec::new();
        loop {
            match self.peek() {
                Some(b')') => {
                    self.at += 1;
                    return Ok(Value::List(values));
                }
                // Addresses and body parts stand beside each other without a space: `((…)(…) "MIXED")`.
                Some(b'(') if matches!(values.last(), Some(Value::List(_))) => {}
                _ if values.is_empty() => {}
                _ => self.space()?,
            }
            values.push(self.value(depth + 1)?);
        }
    }

    fn quoted(&mut self) -> Result<Value> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = self.peek().context("a quoted string without its end")?;
            self.at += 1;
            match byte {
                b'"' => return Ok(Value::Text(text)),
                b'\\' => {
                    let escaped = self.peek().filter(|byte| b"\\\"".contains(byte)).context("a backslash before neither \\ nor \"")?;
                    self.at += 1;
                    text.push(escaped);
                }
                0 => bail!("NUL in a quoted string"),
                other => text.push(other),
            }
        }
    }

    /// An atom; inside `[…]` (a FETCH item's section) spaces, parentheses and strings belong to it.
    fn atom(&mut self) -> Result<Value> {
        let mut atom = Vec::new();
        let mut in_section = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'[' => in_section = true,
                b']' => in_section = false,
                b' ' | b'(' | b')' | b'"' if !in_section => break,
                0..=31 | 127 => bail!("control character {byte} in an atom"),
                _ => {}
            }
            atom.push(byte);
            self.at += 1;
        }
        ensure!(!atom.is_empty() && !in_section, "no value at {:?}", String::from_utf8_lossy(self.line()));
        let atom = String::from_utf8(atom).context("an atom that is not UTF-8")?;
        Ok(if atom.eq_ignore_ascii_case("NIL") { Value::Nil } else { Value::Atom(atom) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Untagged> {
        untagged(&Pieces(vec![Piece::Line(line.as_bytes().to_vec())]))
    }

    #[test]
    fn a_fetch_with_a_literal_becomes_a_tree() {
        let pieces = Pieces(vec![
            Piece::Line(b"5 FETCH (UID 7 BODY[HEADER.FIELDS (TO \"x\")]<0> ".to_vec()),
            Piece::Literal(b"hello".to_vec()),
            Piece::Line(b" FLAGS (\\Seen $Junk))".to_vec()),
        ]);
        let response = untagged(&pieces).unwrap();
        assert_eq!((response.number, response.name.as_str()), (Some(5), "FETCH"));
        let items = response.values[0].list().unwrap();
        assert_eq!(items[2], Value::Atom("BODY[HEADER.FIELDS (TO \"x\")]<0>".into()));
        assert_eq!(items[3], Value::Text(b"hello".to_vec()));
        assert_eq!(items[5].list().unwrap().len(), 2);
    }

    #[test]
    fn body_parts_may_touch_but_other_values_may_not() {
        assert!(parse("1 FETCH (BODYSTRUCTURE ((\"TEXT\" NIL)(\"TEXT\" NIL) \"MIXED\"))").is_ok());
        assert!(parse("1 FETCH (FLAGS()UID 5)").is_err());
        assert!(parse("1 FETCH (UID  5)").is_err());
    }

    #[test]
    fn a_status_has_code_arguments_and_text() {
        let response = parse("OK [UIDNEXT 4392] Predicted next UID").unwrap();
        let text = response.text.unwrap();
        assert_eq!((text.code.as_deref(), text.arguments.as_str(), text.text.as_str()), (Some("UIDNEXT"), "4392", "Predicted next UID"));
    }

    #[test]
    fn the_answers_of_rfc_9738_are_read() {
        for (line, code, arguments) in [
            ("OK [MESSAGELIMIT 1000 23221] FETCH completed with 1000 partial results", "MESSAGELIMIT", "1000 23221"),
            ("NO [MESSAGELIMIT 1000 20001] Too many messages to copy, try a smaller subset", "MESSAGELIMIT", "1000 20001"),
            (
                "OK [COPYUID 1397597919 20001:21000 22363:23362] Some messages were not moved",
                "COPYUID",
                "1397597919 20001:21000 22363:23362",
            ),
            ("NO [MESSAGELIMIT 1000] FETCH exceeds the maximum 1000-message limit", "MESSAGELIMIT", "1000"),
            ("OK [EXPUNGEISSUED] Some messages were also expunged", "EXPUNGEISSUED", ""),
        ] {
            let text = parse(line).unwrap().text.unwrap();
            assert_eq!((text.code.as_deref(), text.arguments.as_str()), (Some(code), arguments), "{line}");
        }
        for refused in ["", " 0", " 1000 0", " 1000 ", " 1000 7 8", " 01000", " 4294967296", " x"] {
            assert!(parse(&format!("OK [MESSAGELIMIT{refused}] text")).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_refused() {
        for line in ["1 FETCH (UID 5", "LIST (\\x) \"/", "SEARCH 1  2", "SEARCH ", "LIST () \"\\a\" x", "OK", "OK ", "5 OK text"] {
            assert!(parse(line).is_err(), "{line}");
        }
        let deep = format!("1 FETCH {}", "(".repeat(100_000));
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn literals_are_announced_at_the_end_of_a_line_only() {
        assert_eq!(announced_literal(b"* 1 FETCH (BODY[] {310}"), Some((310, &b"* 1 FETCH (BODY[] "[..])));
        assert_eq!(announced_literal(b"x ~{3}"), Some((3, &b"x "[..])));
        assert_eq!(announced_literal(b"* OK {3} x"), None);
        assert_eq!(announced_literal(b"* OK {3+}"), None);
    }
}
