//! Address lists (RFC 5322 §3.4, §4.4) as ENVELOPE wants them: raw strings, groups kept.
//!
//! What is broken degrades as Dovecot's users know it: the parts that can't be made out are [`MISSING_MAILBOX`],
//! [`MISSING_DOMAIN`], [`SYNTAX_ERROR`] or [`INVALID_ROUTE`]; reading goes on after the next comma.

use super::tokens::{Cursor, collapse, is_atom};

const MISSING_MAILBOX: &[u8] = b"MISSING_MAILBOX";
const MISSING_DOMAIN: &[u8] = b"MISSING_DOMAIN";
const SYNTAX_ERROR: &[u8] = b"SYNTAX_ERROR";
const INVALID_ROUTE: &[u8] = b"INVALID_ROUTE";

/// Most entries of one list. Two bytes of a hostile header make an entry of forty, three times over for From: this bounds the answer.
/// The longest lists that people write have some thousand.
pub(super) const ADDRESSES_MAX: usize = 16_384;

/// One entry of a list (RFC 9051 §7.5.2). A group begins with one that has only `mailbox` (its name) and ends with one that has nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Address {
    pub name: Option<Vec<u8>>,
    pub route: Option<Vec<u8>>,
    pub mailbox: Option<Vec<u8>>,
    pub host: Option<Vec<u8>>,
}

impl Address {
    /// Whether not all of it could be made out.
    pub fn is_broken(&self) -> bool {
        let is = |part: &Option<Vec<u8>>, marks: &[&[u8]]| part.as_deref().is_some_and(|part| marks.contains(&part));
        is(&self.mailbox, &[MISSING_MAILBOX]) || is(&self.host, &[MISSING_DOMAIN, SYNTAX_ERROR]) || is(&self.route, &[INVALID_ROUTE])
    }
    fn new(name: Option<Vec<u8>>, mailbox: &[u8], host: &[u8]) -> Address {
        Address {
            name: name.map(|name| collapse(&name)).filter(|name| !name.is_empty()),
            route: None,
            mailbox: Some(mailbox.to_vec()),
            host: Some(host.to_vec()),
        }
    }
}

/// Appends the addresses of a field's value to `list`.
pub(super) fn parse(value: &[u8], list: &mut Vec<Address>) {
    let mut cursor = Cursor::new(value);
    let mut in_group = false;
    while list.len() < ADDRESSES_MAX {
        cursor.skip_space();
        match cursor.peek() {
            None => break,
            Some(b',') => cursor.advance(), // RFC 5322 §4.4: empty entries are old syntax
            Some(b';') => {
                cursor.advance();
                if std::mem::take(&mut in_group) {
                    list.push(Address::default());
                }
            }
            Some(_) => match entry(&mut cursor, in_group) {
                Entry::GroupStart(name) => {
                    in_group = true;
                    list.push(Address { mailbox: Some(name), ..Address::default() });
                }
                Entry::Address(address) => {
                    list.push(address);
                    skip_to_separator(&mut cursor);
                }
            },
        }
    }
    if in_group {
        list.push(Address::default());
    }
}

enum Entry {
    GroupStart(Vec<u8>),
    Address(Address),
}

fn entry(cursor: &mut Cursor<'_>, in_group: bool) -> Entry {
    cursor.comment = None;
    let words = Words::read(cursor, usize::MAX);
    match cursor.peek() {
        Some(b':') if !in_group => {
            cursor.advance();
            Entry::GroupStart(collapse(&words.text))
        }
        Some(b'<') => {
            cursor.advance();
            Entry::Address(angle(cursor, Some(words.text)))
        }
        Some(b'@') if words.locals <= 1 => {
            cursor.advance();
            let host = domain(cursor).unwrap_or(MISSING_DOMAIN.to_vec());
            cursor.skip_space();
            let mailbox = if words.locals == 0 { MISSING_MAILBOX } else { &words.local };
            Entry::Address(Address::new(cursor.comment.take(), mailbox, &host))
        }
        _ if words.locals == 1 => Entry::Address(Address::new(cursor.comment.take(), &words.local, MISSING_DOMAIN)),
        _ => Entry::Address(Address::new(Some(words.text), MISSING_MAILBOX, MISSING_DOMAIN)),
    }
}

/// What follows `<`: `@route:mailbox@host>`.
fn angle(cursor: &mut Cursor<'_>, name: Option<Vec<u8>>) -> Address {
    cursor.skip_space();
    let route = match route(cursor) {
        Ok(route) => route,
        Err(InvalidRoute) => {
            let address = Address::new(name, MISSING_MAILBOX, MISSING_DOMAIN);
            return Address { route: Some(INVALID_ROUTE.to_vec()), ..address };
        }
    };
    let words = Words::read(cursor, 1);
    let host = if cursor.take(b'@') { domain(cursor) } else { Some(MISSING_DOMAIN.to_vec()) };
    cursor.skip_space();
    let host = host.filter(|_| cursor.take(b'>')).unwrap_or(SYNTAX_ERROR.to_vec());
    let mailbox = if words.locals == 0 { MISSING_MAILBOX } else { &words.local };
    Address { route, ..Address::new(name, mailbox, &host) }
}

struct InvalidRoute;

/// The source route of RFC 5322 §4.4: `@a,@b:`.
fn route(cursor: &mut Cursor<'_>) -> Result<Option<Vec<u8>>, InvalidRoute> {
    if cursor.peek() != Some(b'@') {
        return Ok(None);
    }
    let mut route = Vec::new();
    loop {
        cursor.skip_space();
        match cursor.peek() {
            Some(b'@') => {
                cursor.advance();
                if !route.is_empty() {
                    route.push(b',');
                }
                route.push(b'@');
                route.extend(domain(cursor).ok_or(InvalidRoute)?);
            }
            Some(b',') => cursor.advance(),
            Some(b':') => {
                cursor.advance();
                cursor.skip_space();
                return Ok(Some(route));
            }
            _ => return Err(InvalidRoute),
        }
    }
}

/// A dot-atom (with the space that old syntax allows around dots) or a literal in brackets.
fn domain(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    cursor.skip_space();
    if cursor.peek() == Some(b'[') {
        let (content, ended) = cursor.domain_literal();
        return ended.then(|| [b"[", content.as_slice(), b"]"].concat());
    }
    let mut domain = Vec::new();
    loop {
        let atom = cursor.run(is_atom);
        if atom.is_empty() {
            return None;
        }
        domain.extend_from_slice(atom);
        cursor.skip_space();
        if !cursor.take(b'.') {
            return Some(domain);
        }
        domain.push(b'.');
        cursor.skip_space();
    }
}

/// A run of words, which turns out to be a display name, a group's name or a local part when the next special is seen.
#[derive(Default)]
struct Words {
    /// As a name: one space where there was any, and between words that touch.
    text: Vec<u8>,
    /// As a local part: words and dots put together.
    local: Vec<u8>,
    /// How many local parts there are: words with no dot between them are two.
    locals: usize,
}

impl Words {
    /// Reads until a special, the end, or one local part more than `locals_max`.
    fn read(cursor: &mut Cursor<'_>, locals_max: usize) -> Words {
        let mut words = Words::default();
        let mut after_word = false;
        loop {
            let spaced = cursor.skip_space();
            let is_dot = cursor.peek() == Some(b'.');
            let starts_local = words.locals == 0 || (!is_dot && after_word);
            let is_word = cursor.peek().is_some_and(|byte| byte == b'"' || is_atom(byte));
            if !(is_dot || is_word) || (starts_local && words.locals == locals_max) {
                return words;
            }
            words.locals += usize::from(starts_local);
            if !words.text.is_empty() && (spaced || (is_word && after_word)) {
                words.text.push(b' ');
            }
            match cursor.peek() {
                Some(b'.') => {
                    cursor.advance();
                    words.push(b".");
                }
                Some(b'"') => match cursor.quoted() {
                    (content, true) => words.push(&content),
                    (_, false) => return Words { locals: 0, ..words },
                },
                _ => words.push(cursor.run(is_atom)),
            }
            after_word = is_word;
        }
    }
    fn push(&mut self, word: &[u8]) {
        self.text.extend_from_slice(word);
        self.local.extend_from_slice(word);
    }
}

/// Passes over what does not belong to an address that has been read.
fn skip_to_separator(cursor: &mut Cursor<'_>) {
    loop {
        cursor.skip_space();
        match cursor.peek() {
            None | Some(b',' | b';') => return,
            Some(b'"') => drop(cursor.quoted()),
            Some(_) => cursor.advance(),
        }
    }
}
