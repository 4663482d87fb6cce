//! Keywords beyond those that have letters, in a file beside the mail: names, and which messages have them.
//!
//! `berth-keywords,<n>`, one thing a line, in UTF-8:
//!
//! ```text
//! V <uidvalidity>
//! K <position> <keyword>        from position 26 on, in order
//! M <uid> <position> …          a message's keywords from 26 on, ascending by UID
//! ```

use std::{collections::BTreeMap, fmt::Write};

use index::{Flag, FlagSet, KeywordId};

use super::filename::KEYWORD_LETTERS;

/// What the file says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Further {
    /// Of the mailbox that it was written for.
    pub uid_validity: u32,
    /// From position 26 on.
    pub names: Vec<String>,
    /// By UID.
    pub messages: BTreeMap<u32, FlagSet>,
}

/// The keywords of a message that have no letters.
pub(crate) fn without_letters(flags: FlagSet) -> FlagSet {
    let further = flags.keywords().filter(|id| id.position() >= usize::from(KEYWORD_LETTERS));
    further.fold(FlagSet::EMPTY, |set, id| set.with(Flag::Keyword(id)))
}

impl Further {
    /// Reads any file; lines that can't be understood mean nothing.
    pub fn parse(file: &[u8]) -> Further {
        let mut further = Further::default();
        for line in String::from_utf8_lossy(file).lines() {
            let Some((kind, rest)) = line.split_once(' ') else { continue };
            match kind {
                "V" => further.uid_validity = rest.parse().unwrap_or(0),
                "K" => {
                    let Some((position, name)) = rest.split_once(' ') else { continue };
                    if position.parse() == Ok(usize::from(KEYWORD_LETTERS) + further.names.len()) {
                        further.names.push(name.to_owned());
                    }
                }
                "M" => {
                    let mut numbers = rest.split(' ').filter_map(|number| number.parse::<u32>().ok());
                    let Some(uid) = numbers.next() else { continue };
                    let ids = numbers.filter_map(|position| KeywordId::new(usize::try_from(position).ok()?));
                    let flags = without_letters(ids.fold(FlagSet::EMPTY, |set, id| set.with(Flag::Keyword(id))));
                    further.messages.insert(uid, flags);
                }
                _ => {}
            }
        }
        let known = usize::from(KEYWORD_LETTERS) + further.names.len();
        for flags in further.messages.values_mut() {
            *flags = flags.keywords().filter(|id| id.position() < known).fold(FlagSet::EMPTY, |set, id| set.with(Flag::Keyword(id)));
        }
        further
    }
    /// The file's content.
    pub fn print(&self) -> String {
        let mut text = format!("V {}\n", self.uid_validity);
        for (position, name) in (usize::from(KEYWORD_LETTERS)..).zip(&self.names) {
            // Writing to a String can't fail.
            writeln!(text, "K {position} {name}").unwrap_or_default();
        }
        for (uid, flags) in &self.messages {
            write!(text, "M {uid}").unwrap_or_default();
            for id in flags.keywords() {
                write!(text, " {}", id.position()).unwrap_or_default();
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_back() {
        let text = "V 7\nK 26 later\nK 27 $Phishing\nM 3 26\nM 900 26 27\n";
        let further = Further::parse(text.as_bytes());
        assert_eq!((further.uid_validity, further.names.len(), further.messages[&900].keywords().count()), (7, 2, 2));
        assert_eq!(further.print(), text);
        let odd = Further::parse(b"V x\nK 28 gap\nK 26 a\n\xff\nM\nM x 26\nM 4 3 26 27 99 300\nM 5\n");
        assert_eq!((odd.uid_validity, odd.names.len()), (0, 1));
        assert_eq!(odd.messages[&4].keywords().map(KeywordId::position).collect::<Vec<_>>(), [26], "only what has a name and no letter");
    }
}
