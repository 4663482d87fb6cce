//! What Courier keeps beside the mail apart from its list of UIDs: keywords, POP3 UIDLs, subscriptions.

use std::collections::{BTreeSet, HashMap};

use super::filename::identity;
use crate::{MailboxName, names::read_level};

/// The folder with the keywords of a mailbox's messages.
pub(crate) const KEYWORDS_FOLDER: &str = "courierimapkeywords";
/// In it, the keywords of all messages as of the last time it was put in order; the other files are newer.
pub(crate) const KEYWORDS_LIST: &str = ":list";
/// The POP3 server's list of the inbox.
pub(crate) const POP3_FILE: &str = "courierpop3dsizelist";
/// The subscriptions, in the Maildir.
pub(crate) const SUBSCRIPTIONS_FILE: &str = "courierimapsubscribed";

/// Keywords of a mailbox and of its messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Keywords {
    /// By position.
    pub names: Vec<String>,
    /// Positions by message (its file name up to the colon).
    pub messages: HashMap<String, BTreeSet<usize>>,
}

impl Keywords {
    /// `:list`: names up to an empty line, then `<message>:<position> <position> …`.
    pub fn parse_list(file: &[u8]) -> Keywords {
        let text = String::from_utf8_lossy(file);
        let mut lines = text.lines();
        let names: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).map(str::to_owned).collect();
        let messages = lines.filter_map(|line| {
            let (message, positions) = line.rsplit_once(':')?;
            let positions = positions.split(' ').filter_map(|position| position.parse().ok()).filter(|position| *position < names.len());
            Some((identity(message).to_owned(), positions.collect()))
        });
        let messages = messages.collect();
        Keywords { names, messages }
    }
    /// A newer file of one message, one keyword a line. Its name is the message's, or `.<number>.` and the message's, which an unnumbered one overrules.
    pub fn apply(&mut self, message: &str, file: &[u8]) {
        let mut positions = BTreeSet::new();
        for keyword in String::from_utf8_lossy(file).lines().filter(|line| !line.is_empty()) {
            let known = self.names.iter().position(|name| name == keyword);
            positions.insert(known.unwrap_or_else(|| {
                self.names.push(keyword.to_owned());
                self.names.len() - 1
            }));
        }
        self.messages.insert(message.to_owned(), positions);
    }
}

/// Files of single messages in the order in which they are to be applied, with the message's name.
pub(crate) fn in_order<'a>(files: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut ordered: Vec<(u64, &str, &str)> = files
        .filter(|file| *file != KEYWORDS_LIST)
        .filter_map(|file| match file.strip_prefix('.') {
            None => Some((u64::MAX, file, file)),
            Some(numbered) => {
                let (number, message) = numbered.split_once('.')?;
                Some((number.parse().ok()?, file, message))
            }
        })
        .collect();
    ordered.sort_unstable();
    ordered.into_iter().map(|(_, file, message)| (file, identity(message))).collect()
}

/// The POP3 UIDLs by message, in the order of the file: `/<version> <next> <uidv>`, then `<name> <size> <n>:<uidv>…`; an old file has no first line
/// of that kind and no numbers, then the UIDL is the name.
pub(crate) fn parse_pop3(file: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(file);
    let uidls = text.lines().filter(|line| !line.starts_with('/')).filter_map(|line| {
        let mut parts = line.split(' ');
        let name = identity(parts.next().filter(|name| !name.is_empty())?);
        parts.next()?;
        let mut numbers = parts.next().unwrap_or("0").split(':').map(|number| number.parse::<u64>().unwrap_or(0));
        let (number, validity) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let uidl = match (number, validity) {
            (0, _) => escaped(name),
            (number, 0) => format!("UID{number}"),
            (number, validity) => format!("UID{number}-{validity}"),
        };
        Some((name.to_owned(), uidl))
    });
    uidls.collect()
}

/// As Courier sends a name that serves as UIDL.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte) && !matches!(byte, b'\'' | b'"' | b'+');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("+{byte:02X}") }).collect()
}

/// The subscriptions: `INBOX.Archive.2026` a line.
pub(crate) fn parse_subscriptions(file: &[u8]) -> BTreeSet<MailboxName> {
    let text = String::from_utf8_lossy(file);
    let names = text.lines().filter_map(|line| {
        let name = line.strip_prefix("INBOX.").unwrap_or(line);
        let levels: Option<Vec<String>> = name.split('.').map(read_level).collect();
        MailboxName::parse(&levels?.join("/")).ok()
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_of_the_list_and_newer_files_are_read() {
        let mut keywords = Keywords::parse_list(b"$Label1\ntodo\n\n1.a:0 1\n2.b:1 7\n");
        assert_eq!(keywords.names, ["$Label1", "todo"]);
        assert_eq!(keywords.messages["1.a"], BTreeSet::from([0, 1]));
        assert_eq!(keywords.messages["2.b"], BTreeSet::from([1]), "a position without a name means nothing");
        let files = [":list", "1.a", ".3.1.a", ".2.3.c", ".x"];
        assert_eq!(in_order(files.into_iter()), [(".2.3.c", "3.c"), (".3.1.a", "1.a"), ("1.a", "1.a")]);
        keywords.apply("1.a", b"new\ntodo\n");
        assert_eq!(keywords.names, ["$Label1", "todo", "new"]);
        assert_eq!(keywords.messages["1.a"], BTreeSet::from([1, 2]));
    }

    #[test]
    fn pop3_uidls_of_every_version_are_read() {
        let uidls = parse_pop3(b"/3 9 1700000000\n1.a:2,S 120 4:1700000000:0\n2.b 7 5:0\n3+c 8 0:0\nbroken\n");
        let uidls: Vec<(&str, &str)> = uidls.iter().map(|(name, uidl)| (name.as_str(), uidl.as_str())).collect();
        assert_eq!(uidls, [("1.a", "UID4-1700000000"), ("2.b", "UID5"), ("3+c", "3+2Bc")]);
        assert_eq!(parse_pop3(b"1.a 120\n"), [("1.a".to_owned(), "1.a".to_owned())]);
    }

    #[test]
    fn subscriptions_lose_their_prefix() {
        let names = parse_subscriptions(b"INBOX\nINBOX.Archive.2026\nINBOX.Entw&APw-rfe\n");
        let expected = ["Archive/2026", "Entwürfe", "INBOX"];
        assert_eq!(names.iter().map(MailboxName::as_str).collect::<Vec<_>>(), expected);
    }
}
