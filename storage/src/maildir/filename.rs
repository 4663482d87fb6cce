//! Message file names: `<seconds>.M<µs>N<counter>E<epoch>.<node>,S=<bytes>,W=<CRLF bytes>,U=<uid>:2,<flags>`.
//!
//! `<seconds>` is the INTERNALDATE and `M` the moment (Unix microseconds) the message came into its mailbox, which is its SAVEDATE: with sizes, UID and
//! flags in the name as well, a listing alone rebuilds the index. Moment, counter, epoch and node make the name unique. A copy says whose content it
//! has, in one more field before the flags: `,G=<EMAILID>` (`object_id.rs`).
//!
//! Invariants, each with the test that guards it:
//! - what we print we read back (`our_names_are_read_back`)
//! - a name of another program keeps its unique part and the flags we don't know (`foreign_names_keep_what_we_do_not_know`)
//! - any file name is read without a panic (`any_name_is_read`)

use std::fmt::Write;

use affinity::{Epoch, NodeName};
use index::{Flag, FlagSet, KeywordId, Uid};

use crate::EmailId;

/// Longest file name; file systems end at 255.
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;
/// How many keywords have letters: a to z.
pub(crate) const KEYWORD_LETTERS: u8 = 26;

/// The part of a file name before the flags: what identifies the file while other programs change its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Up to the first `,S=`-like field.
    pub unique: String,
    /// `S=`: bytes on disk.
    pub disk_size: Option<u64>,
    /// `W=`: bytes with CRLF line ends.
    pub size: Option<u64>,
    /// `U=`.
    pub uid: Option<Uid>,
    /// `G=`: the EMAILID, where the unique part does not say it.
    pub email_id: Option<EmailId>,
}

/// A message's whole file name (without its folder).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName {
    /// Before the colon.
    pub base: Base,
    /// The flags we know.
    pub flags: FlagSet,
    /// Letters after `:2,` that mean nothing to us, in the order they stand there.
    pub unknown_flags: String,
}

/// What the unique part of a name that Berth wrote says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnUnique {
    /// INTERNALDATE.
    pub internal_date: i64,
    /// When it came into the mailbox, Unix microseconds.
    pub moment: i64,
    /// The lease's generation.
    pub epoch: Epoch,
}

const LETTERS: [(char, Flag); 6] =
    [('D', Flag::Draft), ('F', Flag::Flagged), ('P', Flag::Passed), ('R', Flag::Answered), ('S', Flag::Seen), ('T', Flag::Deleted)];

fn flag_of(letter: char) -> Option<Flag> {
    if letter.is_ascii_lowercase() {
        let position = u32::from(letter) - u32::from('a');
        return KeywordId::new(usize::try_from(position).ok()?).map(Flag::Keyword);
    }
    LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, flag)| *flag)
}

/// The flags that a file name can carry.
#[cfg(test)]
fn nameable(flags: FlagSet) -> FlagSet {
    flags.keywords().filter(|id| id.position() >= usize::from(KEYWORD_LETTERS)).fold(flags, |set, id| set.without(Flag::Keyword(id)))
}

impl Base {
    /// Reads what stands before the colon.
    pub fn parse(text: &str) -> Base {
        let mut fields = text.split(',');
        let mut base =
            Base { unique: fields.next().unwrap_or_default().to_owned(), disk_size: None, size: None, uid: None, email_id: None };
        for field in fields {
            match field.split_once('=') {
                Some(("S", number)) if base.disk_size.is_none() => base.disk_size = number.parse().ok(),
                Some(("W", number)) if base.size.is_none() => base.size = number.parse().ok(),
                Some(("U", number)) if base.uid.is_none() => base.uid = number.parse().ok().and_then(Uid::new),
                Some(("G", id)) if base.email_id.is_none() => base.email_id = EmailId::parse_bare(id),
                _ => {}
            }
        }
        base
    }
    /// What Berth's own names say; `None` for those of other programs.
    pub fn own(&self) -> Option<OwnUnique> {
        let (seconds, rest) = self.unique.split_once('.')?;
        let (numbers, node) = rest.split_once('.')?;
        let (moment, rest) = numbers.strip_prefix('M')?.split_once('N')?;
        let (counter, epoch) = rest.split_once('E')?;
        counter.parse::<u64>().ok()?;
        node.parse::<NodeName>().ok()?;
        Some(OwnUnique { internal_date: seconds.parse().ok()?, moment: moment.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }
    /// The seconds at the beginning of every well-formed Maildir name.
    pub fn seconds(&self) -> Option<i64> {
        self.unique.split_once('.').and_then(|(seconds, _)| seconds.parse().ok())
    }
    /// As it stands in a file name.
    pub fn print(&self) -> String {
        let mut text = self.unique.clone();
        let mut field = |letter: char, value: Option<u64>| {
            if let Some(value) = value {
                // Writing to a String can't fail.
                write!(text, ",{letter}={value}").unwrap_or_default();
            }
        };
        field('S', self.disk_size);
        field('W', self.size);
        field('U', self.uid.map(|uid| u64::from(uid.get())));
        if let Some(id) = self.email_id {
            write!(text, ",G={}", id.print_bare()).unwrap_or_default();
        }
        text
    }
}

impl FileName {
    /// As [`FileName::parse`], of a file by its folder and name, such as `cur/…`.
    pub fn of(file: &str) -> FileName {
        FileName::parse(file.rsplit_once('/').map_or(file, |(_, name)| name))
    }
    /// Reads any file name of `cur/` or `new/`.
    pub fn parse(name: &str) -> FileName {
        let (base, info) = name.split_once(':').unwrap_or((name, ""));
        let mut parsed = FileName { base: Base::parse(base), flags: FlagSet::EMPTY, unknown_flags: String::new() };
        for letter in info.strip_prefix("2,").unwrap_or_default().chars() {
            match flag_of(letter) {
                Some(flag) => parsed.flags = parsed.flags.with(flag),
                None => parsed.unknown_flags.push(letter),
            }
        }
        parsed
    }
    /// The whole name, flags in ASCII order.
    pub fn print(&self) -> String {
        self.base.print() + &self.print_flags()
    }
    /// The part from the colon on.
    pub fn print_flags(&self) -> String {
        let mut text = String::new();
        FileName::write_flags(&mut text, self.flags, &self.unknown_flags);
        text
    }
    /// Writes the part from the colon on.
    pub fn write_flags(text: &mut String, flags: FlagSet, unknown: &str) {
        text.push_str(":2,");
        let capitals = LETTERS.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(letter, _)| *letter);
        let keywords = flags.keywords().filter_map(|id| u8::try_from(id.position()).ok()).filter(|id| *id < KEYWORD_LETTERS);
        let letters = capitals.chain(keywords.map(|id| char::from(b'a' + id)));
        if unknown.is_empty() {
            text.extend(letters);
        } else {
            let mut letters: Vec<char> = letters.chain(unknown.chars()).collect();
            letters.sort_unstable();
            text.extend(letters);
        }
    }
    /// The flags of `letters`; `None` if one of them means nothing to us.
    pub fn flags_of(letters: &str) -> Option<FlagSet> {
        letters.chars().try_fold(FlagSet::EMPTY, |flags, letter| flag_of(letter).map(|flag| flags.with(flag)))
    }
}

/// What identifies a file name while its flags change: all before the colon.
pub(crate) fn identity(name: &str) -> &str {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    name.split_once(':').map_or(name, |(base, _)| base)
}

/// The unique part of a new name.
pub(crate) fn unique(internal_date: i64, moment: i64, counter: u64, epoch: Epoch, node: &NodeName) -> String {
    format!("{internal_date}.M{moment}N{counter}E{epoch}.{node}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn our_names_are_read_back(date in any::<i64>(), moment in 0..i64::MAX, counter in any::<u64>(), epoch in any::<u64>(),
                                   size in any::<u64>(), uid in 1..u32::MAX, bits in any::<u64>(), id in any::<Option<[u8; 16]>>()) {
            let node: NodeName = "node-a.example".parse().unwrap();
            let base = Base {
                unique: unique(date, moment, counter, Epoch(epoch), &node),
                disk_size: Some(size),
                size: Some(size / 2),
                uid: Uid::new(uid),
                email_id: id.map(EmailId::from_bytes),
            };
            prop_assert_eq!(base.own(), Some(OwnUnique { internal_date: date, moment, epoch: Epoch(epoch) }));
            let name = FileName { base, flags: nameable(FlagSet::from_bits(bits)), unknown_flags: "X".to_owned() };
            prop_assert_eq!(FileName::parse(&name.print()), name.clone());
            let file = format!("cur/{}", name.print());
            prop_assert_eq!(identity(&file), name.base.print());
        }

        #[test]
        fn any_name_is_read(name in "\\PC{0,80}") {
            let parsed = FileName::parse(&name);
            let _own = parsed.base.own();
            prop_assert_eq!(FileName::parse(&parsed.print()).flags, parsed.flags);
        }
    }

    #[test]
    fn foreign_names_keep_what_we_do_not_know() {
        let dovecot = FileName::parse("1763748000.M52P9.host,S=1234,W=1260:2,FSab");
        assert_eq!((dovecot.base.disk_size, dovecot.base.size, dovecot.base.uid), (Some(1234), Some(1260), None));
        assert!(dovecot.flags.contains(Flag::Seen) && dovecot.flags.contains(Flag::Keyword(KeywordId::new(1).unwrap())));
        assert_eq!(dovecot.base.own(), None);
        assert_eq!(dovecot.base.seconds(), Some(1_763_748_000));
        assert_eq!(dovecot.print(), "1763748000.M52P9.host,S=1234,W=1260:2,FSab");
        let courier = FileName::parse("1763748000.M1P2V0000I0001_0.host,S=99:2,SX");
        assert_eq!(courier.unknown_flags, "X");
        assert_eq!(courier.print(), "1763748000.M1P2V0000I0001_0.host,S=99:2,SX");
        let fresh = FileName::parse("1763748000.9_1.host");
        assert_eq!((fresh.flags, fresh.print().as_str()), (FlagSet::EMPTY, "1763748000.9_1.host:2,"));
    }
}
