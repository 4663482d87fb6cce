//! Reading tokens: atoms, strings, numbers, each with what was expected when it is not there.
//!
//! Nothing here looks beyond the command or allocates more than the command has bytes.
//! A complaint shows one character at most of what stands there: it may be a password.

use std::borrow::Cow;

use super::{Options, ParseErrorKind};

/// Largest number that IMAP has room for (RFC 9051 §9 `number64`).
const NUMBER_MAX: u64 = u64::MAX >> 1;
/// Longest tag: it is repeated in each answer. Clients use less than 20 bytes.
const TAG_BYTES_MAX: usize = 128;

/// Why something can't be read.
#[derive(Debug)]
pub(crate) struct Fail {
    pub reason: String,
    pub kind: ParseErrorKind,
}
impl Fail {
    pub fn new(reason: impl Into<String>) -> Fail {
        Fail { reason: reason.into(), kind: ParseErrorKind::Bad }
    }
}

pub(crate) type Parsed<T> = Result<T, Fail>;

/// A place in a command.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    pub options: Options,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], options: Options) -> Cursor<'a> {
        Cursor { bytes, at: 0, options }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
    /// How many bytes are read.
    pub fn position(&self) -> usize {
        self.at
    }
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    pub fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.bytes.len());
    }

    /// The complaint that `what` is not here.
    pub fn expected(&self, what: &str) -> Fail {
        self.expected_at(self.at, what)
    }
    /// The complaint that `what` is not at `position`.
    pub fn expected_at(&self, position: usize, what: &str) -> Fail {
        let found = match self.bytes.get(position).copied() {
            None => "the end of the command".to_owned(),
            Some(byte) if byte.is_ascii_graphic() || byte == b' ' => format!("\"{}\"", char::from(byte)),
            Some(byte) => format!("byte 0x{byte:02x}"),
        };
        Fail::new(format!("expected {what} at byte {}, found {found}", position + 1))
    }

    /// Reads `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
        }
        there
    }
    /// Reads `byte`; `what` says what it is.
    pub fn require(&mut self, byte: u8, what: &str) -> Parsed<()> {
        if self.take(byte) { Ok(()) } else { Err(self.expected(what)) }
    }
    /// Reads one space or more: some clients write two.
    pub fn space(&mut self) -> Parsed<()> {
        self.require(b' ', "a space")?;
        self.skip_spaces();
        Ok(())
    }
    pub fn skip_spaces(&mut self) {
        while self.take(b' ') {}
    }
    /// Reads spaces and says whether anything follows them: an optional argument.
    pub fn more(&mut self) -> bool {
        let spaced = self.peek() == Some(b' ');
        self.skip_spaces();
        spaced && self.peek().is_some()
    }
    /// The end of the command; trailing spaces are common and harmless.
    pub fn end(&mut self) -> Parsed<()> {
        self.skip_spaces();
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end of the command")) }
    }

    /// Reads the bytes that `wanted` accepts.
    pub fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !wanted(*byte)).unwrap_or(rest.len());
        self.advance(length);
        rest.get(..length).unwrap_or_default()
    }
    fn some_while(&mut self, what: &str, wanted: impl Fn(u8) -> bool) -> Parsed<&'a [u8]> {
        let read = self.take_while(wanted);
        if read.is_empty() { Err(self.expected(what)) } else { Ok(read) }
    }

    /// Reads `tag`.
    pub fn tag(&mut self) -> Parsed<String> {
        let start = self.at;
        let tag = self.some_while("a tag", |byte| is_astring_char(byte) && byte != b'+')?;
        if tag.len() > TAG_BYTES_MAX {
            self.at = start;
            return Err(Fail::new(format!("the tag has more than {TAG_BYTES_MAX} bytes")));
        }
        Ok(ascii(tag))
    }
    /// Reads `atom`.
    pub fn atom(&mut self, what: &str) -> Parsed<String> {
        self.some_while(what, is_atom_char).map(ascii)
    }
    /// Reads a word of the grammar (letters, digits, `.`, `-`) in capitals; may be empty.
    pub fn word(&mut self) -> String {
        ascii(self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')).to_ascii_uppercase()
    }
    /// Reads the word `wanted` (in capitals here, in any case there) if it is next.
    pub fn take_word(&mut self, wanted: &str) -> bool {
        let rest = self.rest();
        let there = rest.get(..wanted.len()).is_some_and(|word| word.eq_ignore_ascii_case(wanted.as_bytes()))
            && rest.get(wanted.len()).is_none_or(|byte| !is_astring_char(*byte));
        if there {
            self.advance(wanted.len());
        }
        there
    }
    /// Reads `astring`: an atom (with `]` too), or a string.
    pub fn astring(&mut self, what: &str) -> Parsed<Cow<'a, [u8]>> {
        if self.is_at_string() { self.string(what) } else { self.some_while(what, is_astring_char).map(Cow::Borrowed) }
    }
    /// Reads `list-mailbox`: an astring with wildcards.
    pub fn list_mailbox(&mut self, what: &str) -> Parsed<Cow<'a, [u8]>> {
        let wanted = |byte| is_astring_char(byte) || byte == b'%' || byte == b'*';
        if self.is_at_string() { self.string(what) } else { self.some_while(what, wanted).map(Cow::Borrowed) }
    }
    fn is_at_string(&self) -> bool {
        matches!(self.peek(), Some(b'"' | b'{'))
    }
    /// Reads `string`: quoted or a literal.
    pub fn string(&mut self, what: &str) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal().map(Cow::Borrowed),
            _ => Err(self.expected(what)),
        }
    }
    /// Reads `nstring`.
    pub fn nstring(&mut self, what: &str) -> Parsed<Option<Cow<'a, [u8]>>> {
        if self.take_nil() { Ok(None) } else { self.string(what).map(Some) }
    }
    /// Reads `nstring` or `literal8` (RFC 3516), which may have NUL.
    pub fn nstring8(&mut self, what: &str) -> Parsed<Option<Cow<'a, [u8]>>> {
        if self.peek() == Some(b'~') && self.rest().get(1) == Some(&b'{') {
            self.at += 1;
            return self.literal_bytes().map(|bytes| Some(Cow::Borrowed(bytes)));
        }
        self.nstring(what)
    }
    /// Reads NIL if it is next.
    pub fn take_nil(&mut self) -> bool {
        self.take_word("NIL")
    }

    /// Reads a quoted string; where these may have UTF-8 it must be valid (RFC 6855 §3).
    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let start = self.at;
        let text = self.quoted_bytes()?;
        if self.options.enabled.utf8() && std::str::from_utf8(&text).is_err() {
            return Err(Fail::new(format!("the quoted string at byte {} is not valid UTF-8", start + 1)));
        }
        Ok(text)
    }

    fn quoted_bytes(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.require(b'"', "a quoted string")?;
        let plain = self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
        if self.take(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_vec();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(byte @ (b'"' | b'\\')) => text.push(byte),
                        _ => return Err(self.expected("\"\\\" or a double quote after \"\\\"")),
                    }
                    self.at += 1;
                }
                Some(byte) if !matches!(byte, b'\r' | b'\n' | 0) => {
                    text.push(byte);
                    self.at += 1;
                }
                _ => return Err(self.expected("the closing double quote")),
            }
        }
    }

    fn literal(&mut self) -> Parsed<&'a [u8]> {
        let bytes = self.literal_bytes()?;
        if bytes.contains(&0) {
            return Err(Fail::new(format!("the literal that ends at byte {} has a NUL", self.at)));
        }
        Ok(bytes)
    }

    fn literal_bytes(&mut self) -> Parsed<&'a [u8]> {
        self.require(b'{', "a literal")?;
        let size = usize::try_from(self.number("the literal's size")?).unwrap_or(usize::MAX);
        self.take(b'+');
        self.require(b'}', "\"}\"")?;
        self.take(b'\r');
        self.require(b'\n', "the line end after the literal's size")?;
        let bytes = self.rest().get(..size).ok_or_else(|| Fail::new("a literal is shorter than announced"))?;
        self.advance(size);
        Ok(bytes)
    }

    /// Reads `number64`.
    pub fn number(&mut self, what: &str) -> Parsed<u64> {
        let start = self.at;
        let digits = self.some_while(what, |byte| byte.is_ascii_digit())?;
        let value = digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        value.filter(|value| *value <= NUMBER_MAX).ok_or_else(|| {
            self.at = start;
            Fail::new(format!("the number at byte {} is too large", start + 1))
        })
    }
    /// Reads a number that fits 32 bits and is not 0.
    pub fn nz_number(&mut self, what: &str) -> Parsed<u32> {
        let start = self.at;
        let value = self.number(what)?;
        u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| {
            self.at = start;
            Fail::new(format!("expected {what} at byte {}: a number from 1 to {}", start + 1, u32::MAX))
        })
    }

    /// Reads `(`, items with spaces between them, `)`. Spaces at its ends are tolerated, no item is fine: the caller judges that.
    pub fn parenthesised(&mut self, what: &str, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.require(b'(', what)?;
        self.skip_spaces();
        while !self.take(b')') {
            item(self)?;
            if self.peek() != Some(b')') {
                self.require(b' ', "a space or \")\"")?;
                self.skip_spaces();
            }
        }
        Ok(())
    }
}

/// RFC 3501 §9 `ATOM-CHAR`.
pub(crate) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// RFC 3501 §9 `ASTRING-CHAR`.
pub(crate) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// Bytes that were checked to be ASCII.
fn ascii(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
