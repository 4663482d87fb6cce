//! The words of structured header fields (RFC 5322 §3.2, RFC 2045 §5.1): white space, comments, atoms, quoted strings.
//!
//! Reading only ever moves forward, so a field costs time linear in its size.

/// A place in a field's value. Line ends count as white space.
#[derive(Debug)]
pub(super) struct Cursor<'v> {
    rest: &'v [u8],
    /// The last comment that was passed over.
    pub comment: Option<Vec<u8>>,
}

impl<'v> Cursor<'v> {
    pub fn new(value: &'v [u8]) -> Cursor<'v> {
        Cursor { rest: value, comment: None }
    }
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }
    pub fn advance(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }
    /// Takes `byte` if it comes next.
    pub fn take(&mut self, byte: u8) -> bool {
        let comes_next = self.peek() == Some(byte);
        if comes_next {
            self.advance();
        }
        comes_next
    }
    /// Passes over white space and comments; whether there was any.
    pub fn skip_space(&mut self) -> bool {
        let before = self.rest.len();
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.peek() != Some(b'(') {
                return self.rest.len() != before;
            }
            self.comment = Some(self.read_comment());
        }
    }
    /// The longest run of bytes that `belongs` takes.
    pub fn run(&mut self, belongs: impl Fn(u8) -> bool) -> &'v [u8] {
        let length = self.rest.iter().position(|byte| !belongs(*byte)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(length);
        self.rest = rest;
        run
    }
    /// The content of the quoted string that begins here, and whether its end is there; the cursor stands after it.
    pub fn quoted(&mut self) -> (Vec<u8>, bool) {
        self.delimited(b'"')
    }
    /// The content of the domain literal that begins here (without the brackets), and whether its end is there.
    pub fn domain_literal(&mut self) -> (Vec<u8>, bool) {
        self.delimited(b']')
    }
    fn delimited(&mut self, end: u8) -> (Vec<u8>, bool) {
        self.advance();
        let mut content = Vec::new();
        while let Some(byte) = self.peek() {
            self.advance();
            match byte {
                b'\\' => self.push_escaped(&mut content),
                b'\r' | b'\n' => {}
                _ if byte == end => return (content, true),
                _ => content.push(byte),
            }
        }
        (content, false)
    }
    fn push_escaped(&mut self, content: &mut Vec<u8>) {
        if let Some(escaped) = self.peek().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.advance();
            content.push(escaped);
        }
    }
    /// Comments nest: the outermost brackets go, the inner ones stay.
    fn read_comment(&mut self) -> Vec<u8> {
        self.advance();
        let mut content = Vec::new();
        let mut depth = 1usize;
        while let Some(byte) = self.peek() {
            self.advance();
            match byte {
                b'\\' => {
                    self.push_escaped(&mut content);
                    continue;
                }
                b'(' => depth += 1,
                b')' if depth == 1 => break,
                b')' => depth -= 1,
                b'\r' | b'\n' => continue,
                _ => {}
            }
            content.push(byte);
        }
        content
    }
}

/// Every run of white space becomes one space; none is left at the ends.
pub(super) fn collapse(text: &[u8]) -> Vec<u8> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(&b' ')
}

/// RFC 5322 §3.2.3, without the dot; 8-bit characters are taken, since mail has them (RFC 6532).
pub(super) fn is_atom(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80..) || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// RFC 2045 §5.1; 8-bit characters are taken, since mail has them.
pub(super) fn is_token(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}
