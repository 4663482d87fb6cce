//! Lists of UIDs beside the mail: `dovecot-uidlist` (versions 1 and 3), Courier's `courierimapuiddb` (the same as version 1), and our copy of either.
//!
//! A Maildir that is taken over keeps its file names, which say nothing of UIDs. So what the earlier server's list said, and which UIDs we gave to files of
//! other programs, is kept in a file of our own, in Dovecot's version 3: `berth-uidlist,N<next>,E<epoch>`. As long as a message has the name it had then,
//! its UID is the list's; when its name is replaced by one of ours, `U=` says the same. A list is never changed: another one under another name takes its
//! place, so that no reader on any node sees an old one. Of two, that of the higher epoch counts: a dead holder's may arrive late.
//!
//! Version 3: `3 V<uidvalidity> N<uidnext> G<guid>`, then `<uid> <letter><value> … :<name>` a line: `P` is a POP3 UIDL (empty: the name), `G` a GUID,
//! `S` and `W` are bytes on disk and with CRLF. Ours alone has `K`, the letters of keywords that the message had elsewhere than in its name, and at the
//! beginning of each line `C`, the CRC-32 of the rest of it; `L` in the first line says how many lines there are.
//!
//! Invariants, each with the test that guards it:
//! - what we print we read back (`lists_are_read_back`)
//! - any file is read without a panic, and bad lines cost only their own message (`bad_lines_are_counted_and_left_out`)
//! - no damage of a list of ours gives a message another one's UID (`whatever_byte_of_a_list_is_damaged_no_uid_means_another_message`)

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    path::{Path, PathBuf},
};

use affinity::Epoch;
use index::{Flag, FlagSet, KeywordId, Uid, UidValidity};

use super::filename::{KEYWORD_LETTERS, identity};
use crate::filesystem::{Entry, Filesystem, read_small};

/// Dovecot's list, in the mailbox folder or the folder of its control files.
pub(crate) const DOVECOT_FILE: &str = "dovecot-uidlist";
/// Courier's.
pub(crate) const COURIER_FILE: &str = "courierimapuiddb";
/// Longest list that is read: some millions of messages.
pub(crate) const UIDLIST_BYTES_MAX: usize = 512 * 1024 * 1024;

const OWN_PREFIX: &str = "berth-uidlist,N";
/// Before the name that a damaged list had.
const ASIDE_PREFIX: &str = "berth-damaged,";

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
    /// The first of them; 1 is the file's first line. `None` where the end is missing.
    pub first_bad_line: Option<usize>,
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
    /// Bytes of the file, where its name does not say so.
    pub disk_size: Option<u64>,
    /// Bytes with CRLF line ends, where its name does not say so.
    pub size: Option<u64>,
    /// Other fields, as they stand there.
    pub others: Vec<String>,
}

/// The name of a list of ours. The higher one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnList {
    /// Of the holder that wrote it; 0: one of the first version of Berth, which had no epochs in such names.
    pub epoch: Epoch,
    /// Every message in the list has a lower UID.
    pub uid_next: u32,
}

impl OwnList {
    /// As a file's name.
    pub fn print(self) -> String {
        match self.epoch {
            Epoch(0) => format!("{OWN_PREFIX}{}", self.uid_next),
            Epoch(epoch) => format!("{OWN_PREFIX}{},E{epoch}", self.uid_next),
        }
    }
    /// As the name that it is kept under when it is damaged, where nobody takes it for a list.
    pub fn print_aside(self) -> String {
        format!("{ASIDE_PREFIX}{}", self.print())
    }
    pub fn parse(name: &str) -> Option<OwnList> {
        let rest = name.strip_prefix(OWN_PREFIX)?;
        let (uid_next, epoch) = match rest.split_once(",E") {
            Some((uid_next, epoch)) => (uid_next, epoch.parse().ok().filter(|epoch| *epoch > 0)?),
            None => (rest, 0),
        };
        Some(OwnList { epoch: Epoch(epoch), uid_next: uid_next.parse().ok()? })
    }
    /// The one that counts, from a listing of the mailbox folder.
    pub fn find(entries: &[Entry]) -> Option<OwnList> {
        OwnList::all(entries).max()
    }
    /// All in a listing.
    pub fn all(entries: &[Entry]) -> impl Iterator<Item = OwnList> {
        entries.iter().filter_map(|entry| OwnList::parse(&entry.name))
    }
}

impl UidList {
    /// An empty one.
    pub fn new(uid_validity: UidValidity) -> UidList {
        UidList { uid_validity, uid_next: 1, guid: None, messages: BTreeMap::new(), bad_lines: 0, first_bad_line: None }
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
        UidList::parse_any(file, false)
    }
    /// Reads a list of ours: lines that are damaged are left out.
    pub fn parse_own(own: OwnList, file: &[u8]) -> Result<UidList, String> {
        // The first version of Berth had no checksums.
        UidList::parse_any(file, own.epoch > Epoch(0))
    }
    fn parse_any(file: &[u8], has_sums: bool) -> Result<UidList, String> {
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
        let summed = sums(header)?;
        if has_sums && summed.is_none() {
            return Err(format!("its first line is {first:?}"));
        }
        let mut count = 0;
        for (position, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            count += 1;
            let whole = if summed.is_some() { checked(line) } else { Some(line) };
            let parsed = whole.and_then(|line| line.split_once(' ')).and_then(|(uid, rest)| {
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
                _ => {
                    list.bad_lines += 1;
                    list.first_bad_line = list.first_bad_line.or(Some(position + 2));
                }
            }
        }
        list.bad_lines += summed.unwrap_or(0).saturating_sub(count);
        Ok(list)
    }
    /// What is wrong with it.
    pub fn damage(&self) -> Option<String> {
        let known = self.messages.len();
        match (self.bad_lines, self.first_bad_line) {
            (0, _) => None,
            (lines, Some(first)) => Some(format!("{lines} of {} lines, the first is line {first}", known + lines)),
            (lines, None) => Some(format!("{lines} of {} lines are missing at its end", known + lines)),
        }
    }
    /// Version 3. `for_dovecot`: without what only we understand.
    pub fn print(&self, for_dovecot: bool) -> String {
        let mut text = format!("3 V{} N{}", self.uid_validity, self.uid_next);
        // Writing to a String can't fail.
        self.guid.iter().for_each(|guid| write!(text, " G{guid}").unwrap_or_default());
        if !for_dovecot {
            write!(text, " L{}", self.messages.len()).unwrap_or_default();
            let sum = crc32fast::hash(text.as_bytes());
            write!(text, " C{sum:08x}").unwrap_or_default();
        }
        text.push('\n');
        let mut line = String::new();
        for (uid, listed) in &self.messages {
            line.clear();
            write!(line, "{}", uid.get()).unwrap_or_default();
            let mut field = |letter: char, value: &dyn std::fmt::Display| write!(line, " {letter}{value}").unwrap_or_default();
            listed.uidl.iter().for_each(|uidl| field('P', uidl));
            listed.guid.iter().for_each(|guid| field('G', guid));
            listed.disk_size.iter().for_each(|size| field('S', size));
            listed.size.iter().for_each(|size| field('W', size));
            if !for_dovecot && !listed.keywords.is_empty() {
                field('K', &letters(listed.keywords));
            }
            listed.others.iter().for_each(|other| write!(line, " {other}").unwrap_or_default());
            write!(line, " :{}", listed.name).unwrap_or_default();
            if !for_dovecot {
                write!(text, "C{:08x} ", crc32fast::hash(line.as_bytes())).unwrap_or_default();
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// How many lines follow a first line that says that they have checksums; `None`: it does not say so. The error: its own does not fit.
fn sums(header: &str) -> Result<Option<usize>, String> {
    let Some((before, sum)) = header.rsplit_once(" C") else {
        // Damage may have taken the mark away.
        return if header.split(' ').any(|field| field.starts_with(['L', 'C'])) {
            Err("its first line is damaged".to_owned())
        } else {
            Ok(None)
        };
    };
    let lines = before.rsplit_once(" L").and_then(|(_, lines)| lines.parse().ok());
    let fits = u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(format!("3 {before}").as_bytes()));
    match lines {
        Some(lines) if fits => Ok(Some(lines)),
        _ => Err("its first line is damaged".to_owned()),
    }
}
/// A line without its checksum, if that fits.
fn checked(line: &str) -> Option<&str> {
    let (sum, line) = line.strip_prefix('C')?.split_once(' ')?;
    (u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(line.as_bytes()))).then_some(line)
}

/// The list that counts in a mailbox folder and what is wrong with it; `None`: nothing, or there is none.
pub(crate) fn damaged_list(filesystem: &dyn Filesystem, folder: &Path) -> io::Result<Option<(PathBuf, String)>> {
    let entries = match filesystem.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let Some(own) = OwnList::find(&entries) else { return Ok(None) };
    let path = folder.join(own.print());
    let Some(file) = read_small(filesystem, &path, UIDLIST_BYTES_MAX)? else { return Ok(None) };
    let damage = UidList::parse_own(own, &file).map_or_else(Some, |list| list.damage());
    Ok(damage.map(|damage| (path, damage)))
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
            (Some('S'), value) if value.parse::<u64>().is_ok() => listed.disk_size = value.parse().ok(),
            (Some('W'), value) if value.parse::<u64>().is_ok() => listed.size = value.parse().ok(),
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
        let text = "3 V1763748000 N90 G0123456789abcdef\n1 :1.a,S=3,W=4\n5 P0000002a Gfeed S12 W13 Kac O7 :2.b\n";
        let list = UidList::parse(text.as_bytes()).unwrap();
        assert_eq!((list.uid_validity.get(), list.uid_next, list.bad_lines), (1_763_748_000, 90, 0));
        let second = &list.messages[&uid(5)];
        assert_eq!((second.uidl.as_deref(), second.guid.as_deref(), &*second.name), (Some("0000002a"), Some("feed"), "2.b"));
        assert_eq!((second.disk_size, second.size), (Some(12), Some(13)));
        assert_eq!(second.keywords.keywords().map(KeywordId::position).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(UidList::parse(list.print(false).as_bytes()).unwrap(), list);
        assert_eq!(read_guid(list.print(false).as_bytes()).as_deref(), Some("0123456789abcdef"));
        assert_eq!(list.print(true), text.replace(" Kac", ""));
    }

    #[test]
    fn of_several_lists_the_highest_epochs_counts() {
        let entry = |name: &str| Entry { name: name.to_owned(), is_folder: None };
        let own = |epoch, uid_next| OwnList { epoch: Epoch(epoch), uid_next };
        for list in [own(0, 90), own(3, 90)] {
            assert_eq!(OwnList::parse(&list.print()), Some(list));
        }
        let entries = ["berth-uidlist,N900", "berth-uidlist,N90,E7", "berth-uidlist,N95,E7", "berth-uidlist,N99,E6", "berth-uidlist,N5,Ex"];
        assert_eq!(OwnList::find(&entries.map(entry)), Some(own(7, 95)));
        assert_eq!(OwnList::find(&[entry("berth-uidlist,N90")]), Some(own(0, 90)));
    }

    #[test]
    fn whatever_byte_of_a_list_is_damaged_no_uid_means_another_message() {
        let text = "3 V1763748000 N90 Gabc\n1 :1.a,S=3,W=4\n5 P0000002a Gfeed S12 W13 Kac :2.b\n12 :3.c\n";
        let list = UidList::parse(text.as_bytes()).unwrap();
        let printed = list.print(false).into_bytes();
        let own = OwnList { epoch: Epoch(1), uid_next: 90 };
        for at in 0..printed.len() {
            for damage in [1, 0x10, 0x80] {
                let mut damaged = printed.clone();
                damaged[at] ^= damage;
                let Ok(read) = UidList::parse_own(own, &damaged) else { continue };
                assert!(read.messages.iter().all(|(uid, listed)| list.messages.get(uid) == Some(listed)), "byte {at}");
                assert!(read.messages.len() == 3 || read.bad_lines > 0, "byte {at}: {read:?}");
            }
            let Ok(cut) = UidList::parse_own(own, &printed[..at]) else { continue };
            assert!(cut.bad_lines > 0 || cut.messages == list.messages, "cut at {at}");
        }
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
