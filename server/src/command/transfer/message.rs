//! One message on its way in: collected in bounded memory, and recognised when it is there already.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    io,
    path::Path,
};

use crate::lmtp::message::{Message, Spool};

/// How much of a header is kept to recognise a message.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// The header fields that tell messages apart, beside their size.
pub const TELLING_FIELDS: [&str; 4] = ["message-id", "date", "subject", "from"];

/// A message from a source.
#[derive(Debug)]
pub struct Found {
    /// Its mailbox, levels separated by `/`.
    pub mailbox: String,
    /// As IMAP writes them.
    pub flags: Vec<String>,
    /// INTERNALDATE, Unix seconds; `None`: now.
    pub date: Option<i64>,
    /// What tells it from others.
    pub identity: u64,
    /// Its bytes.
    pub message: Message,
}

/// Collects a message's bytes.
#[derive(Debug)]
pub struct Collector {
    spool: Spool,
    header: Vec<u8>,
    header_ended: bool,
    size: u64,
    after_cr: bool,
}

impl Collector {
    /// Large messages are kept in a file without a name in `scratch`.
    pub fn new(scratch: &Path) -> Collector {
        Collector { spool: Spool::new(scratch), header: Vec::new(), header_ended: false, size: 0, after_cr: false }
    }
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            let has_cr = at.checked_sub(1).map_or(self.after_cr, |before| bytes.get(before) == Some(&b'\r'));
            // Stored with CRLF, whatever it has here.
            self.size += u64::from(!has_cr);
        }
        self.size += bytes.len() as u64;
        self.after_cr = bytes.last().map_or(self.after_cr, |last| *last == b'\r');
        if !self.header_ended {
            let room = HEADER_BYTES_MAX - self.header.len();
            self.header.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            let ends = [&b"\n\n"[..], b"\n\r\n"].iter().any(|end| memchr::memmem::find(&self.header, end).is_some());
            self.header_ended = ends || self.header.len() >= HEADER_BYTES_MAX;
        }
        self.spool.write(bytes)
    }
    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }
    /// What was collected.
    pub fn finish(self, mailbox: String, flags: Vec<String>, date: Option<i64>) -> Found {
        let identity = identity(&self.header, self.size);
        Found { mailbox, flags, date, identity, message: self.spool.finish() }
    }
}

/// What tells a message from others: its size with CRLF line ends and some of its header fields, however they are folded.
pub fn identity(header: &[u8], size: u64) -> u64 {
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut wanted = false;
    for line in String::from_utf8_lossy(header).lines() {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let (true, Some((_, value))) = (wanted, fields.last_mut()) {
                value.extend(line.split_whitespace());
            }
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        let name = name.trim_end().to_ascii_lowercase();
        wanted = TELLING_FIELDS.contains(&name.as_str());
        if wanted {
            fields.push((name, value.split_whitespace().collect()));
        }
    }
    let mut hasher = DefaultHasher::new();
    (size, fields).hash(&mut hasher);
    hasher.finish()
}

/// The flags of Maildir letters; `keywords` by letter from `a` on.
pub fn flags_of(letters: &str, keywords: &[String]) -> Vec<String> {
    let flag = |letter: char| match letter {
        'D' => Some("\\Draft".to_owned()),
        'F' => Some("\\Flagged".to_owned()),
        'R' => Some("\\Answered".to_owned()),
        'S' => Some("\\Seen".to_owned()),
        'T' => Some("\\Deleted".to_owned()),
        'a'..='z' => keywords.get(usize::from(u8::try_from(letter).ok()? - b'a')).filter(|name| is_keyword(name)).cloned(),
        _ => None,
    };
    letters.chars().filter_map(flag).collect()
}

/// Whether IMAP can say it: an atom.
pub fn is_keyword(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(bytes: &[u8], cut: usize) -> Found {
        let mut collector = Collector::new(Path::new("/tmp"));
        let (one, other) = bytes.split_at(cut);
        collector.write(one).unwrap();
        collector.write(other).unwrap();
        collector.finish("INBOX".into(), Vec::new(), None)
    }

    #[test]
    fn a_message_is_recognised_with_any_line_ends_and_folding() {
        let unix = b"Message-ID: <1@a>\nSubject: a\n b\nX: y\n\nbody\n";
        let wire = b"message-id: <1@a>\r\nSubject: a\r\n b\r\nX: y\r\n\r\nbody\r\n";
        let stored = identity(b"Message-ID: <1@a>\r\nSubject: a\r\n b\r\n\r\n", wire.len() as u64);
        for message in [&unix[..], wire] {
            for cut in 0..message.len() {
                assert_eq!(collected(message, cut).identity, stored, "at {cut}");
            }
        }
        assert_ne!(collected(b"Message-ID: <2@a>\nSubject: a\n b\nX: y\n\nbody\n", 0).identity, stored);
        assert_ne!(collected(b"Message-ID: <1@a>\nSubject: a\n b\nX: y\n\nbodies\n", 0).identity, stored);
    }

    #[test]
    fn letters_are_flags_and_keywords() {
        let keywords = ["$Junk".to_owned(), "not an atom".to_owned()];
        assert_eq!(flags_of("FSTabz!", &keywords), ["\\Flagged", "\\Seen", "\\Deleted", "$Junk"]);
    }
}
