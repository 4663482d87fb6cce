//! What fuzzers feed (`tests/fuzz`): every reader of names and files that others write, each with what must hold for any bytes.
//!
//! The same entry points run on stable, bounded, over the corpus and over what is made from it (`no_input_breaks_a_reader`).

use std::path::{Component, Path};

use crate::{
    Layout, MailboxName,
    maildir::{courier, filename::FileName, keywords, layout, uidlist::UidList},
    mime::Surrogate,
};

/// Feeds one input.
pub type Target = fn(&[u8]);

/// By name, as in `tests/fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("maildir_name", maildir_name),
    ("mailbox_name", mailbox_name),
    ("dovecot_uidlist", dovecot_uidlist),
    ("maildir_files", maildir_files),
    ("surrogate", surrogate),
];

/// File names of `cur/` and `new/`, which any program may make: what we print of one, we read as the same.
pub fn maildir_name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let printed = FileName::parse(text).print();
    assert_eq!(FileName::parse(&printed).print(), printed, "of {text:?}");
}

/// Mailbox names of clients: their folder stays in the Maildir, and is read as the same name.
pub fn mailbox_name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(name) = MailboxName::parse(text) {
        for way in [Layout::MaildirPlusPlus, Layout::Fs] {
            let Ok(folder) = way.folder(&name) else { continue };
            let inside = folder.is_empty() || Path::new(&folder).components().all(|part| matches!(part, Component::Normal(_)));
            assert!(inside && !folder.contains('\0') && !folder.starts_with('/'), "{text:?} is {folder:?}");
            assert_eq!(way.name(&folder).as_ref(), Some(&name), "{text:?} is {folder:?}");
        }
    }
    // Folders that other programs made.
    for way in [Layout::MaildirPlusPlus, Layout::Fs] {
        if let Some(name) = way.name(text) {
            assert!(MailboxName::parse(name.as_str()).is_ok(), "{text:?} is {name}");
        }
    }
}

/// `dovecot-uidlist`.
pub fn dovecot_uidlist(input: &[u8]) {
    drop(UidList::parse(input));
}

/// The small files beside the mail.
pub fn maildir_files(input: &[u8]) {
    drop(keywords::parse(input));
    drop(courier::parse_pop3(input));
    drop(courier::parse_subscriptions(input));
    for way in [Layout::MaildirPlusPlus, Layout::Fs] {
        drop(layout::parse_subscriptions(input, way));
    }
}

/// A message for a client that takes only ASCII in headers: whatever the pieces, the same, and nothing is left to change in it.
pub fn surrogate(input: &[u8]) {
    let made = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut surrogate, mut out) = (Surrogate::default(), Vec::new());
        pieces.for_each(|piece| surrogate.write(piece, &mut out));
        surrogate.finish(&mut out);
        out
    };
    let message = [b"Date: x\r\nTo: y\r\n", input].concat();
    let whole = made(&mut std::iter::once(message.as_slice()));
    assert!(made(&mut message.chunks(7)) == whole, "how it is cut changes it");
    assert!(made(&mut std::iter::once(whole.as_slice())) == whole, "its surrogate is not ASCII where it has to be");
}

/// Runs every target over its corpus and over what is made from it: cut, repeated, joined and changed in places.
pub fn exercise(targets: &[(&str, Target)], corpus: &Path, rounds: u32) {
    for (name, target) in targets {
        let folder = corpus.join(name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("no corpus for {name} ({}): {error}", folder.display()));
        let mut seeds: Vec<Vec<u8>> =
            files.map(|file| std::fs::read(file.unwrap_or_else(|error| panic!("{error}")).path()).unwrap_or_default()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} is empty", folder.display());
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            target(seed);
            for line in seed.split(|byte| *byte == b'\n') {
                target(line);
            }
        }
        for _ in 0..rounds {
            target(&changed(&seeds, &mut numbers));
        }
    }
}

/// The same numbers every time: a failure comes again. (xorshift64*)
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % limit.max(1)
    }
}

/// What breaks parsers: empty, NUL, dots, slashes, percent signs, quotes, braces, look-alikes, bytes that are no UTF-8, numbers at their limits.
const PIECES: &[&[u8]] = &[
    b"",
    b"\0",
    b"..",
    b"/",
    b"%",
    b"%2e%2e",
    b"\"",
    b"\\",
    b"{3}\r\n",
    b"(",
    b")",
    b"[",
    b"]",
    b"*",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":2,",
    b",U=",
    "\u{ff0f}".as_bytes(),
    "\u{2024}\u{2024}".as_bytes(),
    "\u{e9}".as_bytes(),
    "e\u{301}".as_bytes(),
    "\u{202e}".as_bytes(),
    b"\xff\xfe",
    b"\xc0\xaf",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"-1",
    b"0",
    b"&-",
    b"&AAAA-",
];

fn changed(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = seeds.get(numbers.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(6) {
            0 => input.truncate(at),
            1 => {
                let piece = PIECES.get(numbers.below(PIECES.len())).copied().unwrap_or_default();
                input.splice(at..at, piece.iter().copied());
            }
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = u8::try_from(numbers.below(256)).unwrap_or(0);
                }
            }
            3 => {
                let piece = PIECES.get(numbers.below(PIECES.len())).copied().unwrap_or_default();
                let many = piece.repeat(1 + numbers.below(300));
                input.splice(at..at, many);
            }
            4 => {
                let other = seeds.get(numbers.below(seeds.len())).cloned().unwrap_or_default();
                let from = numbers.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(other.get(from..).unwrap_or_default());
            }
            _ => {
                let end = at + numbers.below(input.len() - at + 1);
                input.drain(at..end);
            }
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_input_breaks_a_reader() {
        exercise(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus"), 4_000);
    }
}
