//! Lists of UIDs beside the mail: `dovecot-uidlist` (versions 1 and 3), Courier's `courierimapuiddb` (the same as version 1), and our copy of either.
//!
//! A Maildir that is taken over keeps its file names, which say nothing of UIDs. So what the earlier server's list said is kept in a file of our
//! own, in Dovecot's version 3, written once and never changed: `berth-uidlist,N<next>`. As long as a message has the name it had then, its UID is
//! the list's; when its name is replaced by one of ours, `U=` says the same.
//!
//! Version 3: `3 V<uidvalidity> N<uidnext> G<guid>`, then `<uid> <letter><value> … :<name>` a line: `P` is a POP3 UIDL (empty: the name), `G` a GUID.
//! Ours alone has `K`, the letters of keywords that the message had elsewhere than in its name.
//!
//! Invariants, each with the test that guards it:
//! - what we print we read back (`lists_are_read_back`)
//! - any file is read without a panic, and bad lines cost only their own message (`bad_lines_are_counted_and_left_out`)

use std::{collections::BTreeMap, fmt::Write};

use index::{Flag, FlagSet, KeywordId, Uid, UidValidity};

use super::filename::{KEYWORD_LETTERS, identity};
use crate::filesystem::Entry;

/// Dovecot's list, in the mailbox folder or the folder of its control files.
pub(crate) const DOVECOT_FILE: &str = "dovecot-uidlist";
/// Courier's.
pub(crate) const COURIER_FILE: &str = "courierimapuiddb";
/// Longest list that is read: some millions of messages.
pub(crate) const UIDLIST_BYTES_MAX: usize = 512 * 1024 * 1024;

const OWN_PREFIX: &str = "berth-uidlist,N";

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UidList {
    pub uid_validity: UidValidity,
    /// Above all UIDs that were given.
    pub uid_next: u32,
    /// Dovecot's id of the mailbox.
    pub guid: Option<String>,
    /// By UID.
    pub messages: BTreeMap<Uid, Listed>,
    /// Lines that could not be read.
    pub bad_lines: usize,
}

/// One message of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listed {
    /// Its file's name up to the colon.
    pub name: String,
    /// The POP3 UIDL it had.
    pub uidl: Option<String>,
    /// Dovecot's id of the message.
    pub guid: Option<String>,
    /// Keywords that its name did not have.
    pub keywords: FlagSet,
    /// Other fields, as they stand there.
    pub others: Vec<String>,
}

/// The name of our own list.
pub(crate) fn own_file(uid_next: u32) -> String {
    format!("{OWN_PREFIX}{uid_next}")
}

/// The UIDNEXT in the name of our own list, from a listing of the mailbox folder: every message in the list has a lower UID.
pub(crate) fn find_own(entries: &[Entry]) -> Option<u32> {
    entries.iter().filter_map(|entry| entry.name.strip_prefix(OWN_PREFIX)?.parse().ok()).max()
}

impl UidList {
    /// An empty one.
    pub fn new(uid_validity: UidValidity) -> UidList {
        UidList { uid_validity, uid_next: 1, guid: None, messages: BTreeMap::new(), bad_lines: 0 }
    }
    /// Adds a message with the next UID.
    pub fn push(&mut self, listed: Listed) {
        if let (Some(uid), Some(next)) = (Uid::new(self.uid_next), self.uid_next.checked_add(1)) {
            self.messages.insert(uid, listed);
            self.uid_next = next;
        }
    }
    /// Reads a list of any version; the error says why its first line can't be understood.
    pub fn parse(file: &[u8]) -> Result<UidList, String> {
        let text = String::from_utf8_lossy(file);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let (version, header) = first.split_once(' ').unwrap_or((first, ""));
        let mut list = match version {
            "1" => header_1(header),
            "3" => header_3(header),
            _ => None,
        }
        .ok_or_else(|| format!("its first line is {first:?}"))?;
        for line in lines.filter(|line| !line.is_empty()) {
            let parsed = line.split_once(' ').and_then(|(uid, rest)| {
                let uid = uid.parse().ok().and_then(Uid::new)?;
                let listed =
                    if version == "1" { Some(Listed { name: identity(rest).to_owned(), ..Listed::default() }) } else { fields(rest) };
                Some((uid, listed.filter(|listed| !listed.name.is_empty())?))
            });
            match parsed {
                Some((uid, listed)) if uid.get() < u32::MAX => {
                    list.uid_next = list.uid_next.max(uid.get() + 1);
                    list.messages.insert(uid, listed);
                }
                _ => list.bad_lines += 1,
            }
        }
        Ok(list)
    }
    /// Version 3. `for_dovecot`: without what only we understand.
    pub fn print(&self, for_dovecot: bool) -> String {
        let mut text = format!("3 V{} N{}", self.uid_validity, self.uid_next);
        text.extend(self.guid.iter().map(|guid| format!(" G{guid}")));
        text.push('\n');
        for (uid, listed) in &self.messages {
            // Writing to a String can't fail.
            write!(text, "{}", uid.get()).unwrap_or_default();
            let fields = [('P', &listed.uidl), ('G', &listed.guid)];
            let fields = fields.into_iter().filter_map(|(letter, value)| value.as_ref().map(|value| format!("{letter}{value}")));
            let letters: String = letters(listed.keywords);
            let keywords = (!for_dovecot && !letters.is_empty()).then(|| format!("K{letters}"));
            text.extend(fields.chain(keywords).chain(listed.others.iter().cloned()).map(|field| format!(" {field}")));
            writeln!(text, " :{}", listed.name).unwrap_or_default();
        }
        text
    }
}

/// The id of the mailbox, from the beginning of a list.
pub(crate) fn read_guid(beginning: &[u8]) -> Option<String> {
    let (first, _) = beginning.split_at(beginning.iter().position(|byte| *byte == b'\n')?);
    header_3(std::str::from_utf8(first).ok()?.strip_prefix("3 ")?)?.guid
}

/// `<uidvalidity> <uidnext>`.
fn header_1(header: &str) -> Option<UidList> {
    let (validity, next) = header.split_once(' ')?;
    let list = UidList::new(UidValidity::new(validity.parse().ok()?)?);
    Some(UidList { uid_next: next.trim_end().parse().ok().filter(|next| *next > 0)?, ..list })
}

fn header_3(header: &str) -> Option<UidList> {
    let value = |letter: char| header.split(' ').find_map(|field| field.strip_prefix(letter));
    let list = UidList::new(UidValidity::new(value('V')?.parse().ok()?)?);
    Some(UidList { uid_next: value('N')?.parse().ok().filter(|next| *next > 0)?, guid: value('G').map(str::to_owned), ..list })
}

/// `<letter><value> … :<name>`.
fn fields(mut rest: &str) -> Option<Listed> {
    let mut listed = Listed::default();
    loop {
        if let Some(name) = rest.strip_prefix(':') {
            identity(name).clone_into(&mut listed.name);
            // An empty UIDL is short for the name.
            if listed.uidl.as_deref() == Some("") {
                listed.uidl = Some(listed.name.clone());
            }
            return Some(listed);
        }
        let (field, after) = rest.split_once(' ')?;
        rest = after;
        let mut letters = field.chars();
        match (letters.next(), letters.as_str()) {
            (Some('P'), value) => listed.uidl = Some(value.to_owned()),
            (Some('G'), value) => listed.guid = Some(value.to_owned()),
            (Some('K'), value) => listed.keywords = keywords(value),
            (Some(_), _) => listed.others.push(field.to_owned()),
            (None, _) => {}
        }
    }
}

fn letters(keywords: FlagSet) -> String {
    let positions = keywords.keywords().filter_map(|id| u8::try_from(id.position()).ok());
    positions.filter(|position| *position < KEYWORD_LETTERS).map(|position| char::from(b'a' + position)).collect()
}

fn keywords(letters: &str) -> FlagSet {
    let ids = letters.bytes().filter(u8::is_ascii_lowercase).filter_map(|letter| KeywordId::new(usize::from(letter - b'a')));
    ids.fold(FlagSet::EMPTY, |flags, id| flags.with(Flag::Keyword(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    #[test]
    fn lists_are_read_back() {
        let text = "3 V1763748000 N90 G0123456789abcdef\n1 :1.a,S=3,W=4\n5 P0000002a Gfeed Kac O7 :2.b\n";
        let list = UidList::parse(text.as_bytes()).unwrap();
        assert_eq!((list.uid_validity.get(), list.uid_next, list.bad_lines), (1_763_748_000, 90, 0));
        let second = &list.messages[&uid(5)];
        assert_eq!((second.uidl.as_deref(), second.guid.as_deref(), &*second.name), (Some("0000002a"), Some("feed"), "2.b"));
        assert_eq!(second.keywords.keywords().map(KeywordId::position).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(list.print(false), text);
        assert_eq!(list.print(true), text.replace(" Kac", ""));
        assert_eq!(find_own(&[Entry { name: own_file(90), is_folder: None }]), Some(90));
    }

    #[test]
    fn the_first_version_and_couriers_are_read() {
        let list = UidList::parse(b"1 1763748000 7\n3 1.a:2,S\n9 2.b\n").unwrap();
        assert_eq!((list.uid_validity.get(), list.uid_next), (1_763_748_000, 10), "lines were added after the first one was written");
        let names: Vec<_> = list.messages.iter().map(|(uid, listed)| (uid.get(), listed.name.as_str())).collect();
        assert_eq!(names, [(3, "1.a"), (9, "2.b")]);
    }

    #[test]
    fn an_empty_uidl_is_short_for_the_name() {
        let list = UidList::parse(b"3 V1 N2\n1 P :1.a,S=3\n").unwrap();
        assert_eq!(list.messages[&uid(1)].uidl.as_deref(), Some("1.a,S=3"));
    }

    #[test]
    fn bad_lines_are_counted_and_left_out() {
        let list = UidList::parse(b"3 V1 N2\n0 :zero\nx :x\n4294967295 :last\n4\n5 \n6 :\n7 P\n8 :good\n\xff\xfe\n").unwrap();
        assert_eq!(list.bad_lines, 8);
        assert_eq!(list.messages.keys().copied().collect::<Vec<_>>(), [uid(8)]);
        for bad in ["", "2 1 1", "1 0 1", "1 1", "3 V0 N1", "3 N1", "3 V1 N0", "1 1 x"] {
            assert!(UidList::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
