//! What another user's session answers, as far as messages on their way need it.

use index::{Uid, UidValidity};

use crate::imap::wire::{command::FlagArgument, response};

/// A message to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub uid: Uid,
    /// As FETCH writes them, without parentheses.
    pub flags: String,
    /// INTERNALDATE, Unix seconds.
    pub date: i64,
    /// RFC822.SIZE.
    pub size: u64,
}

impl Item {
    /// The same as a command has them.
    pub fn flags(&self) -> Vec<FlagArgument> {
        let flag = |name: &str| match response::flag_named(name) {
            Some(flag) => Some(FlagArgument::System(flag)),
            None if name.starts_with('\\') => None, // \Recent
            None => Some(FlagArgument::Keyword(name.to_owned())),
        };
        self.flags.split_ascii_whitespace().filter_map(flag).collect()
    }
}

/// `APPENDUID 38505 3955:3957`, with `most` UIDs at most.
pub fn appended(code: &str, most: usize) -> Option<(UidValidity, Vec<Uid>)> {
    let (validity, set) = code.strip_prefix("APPENDUID ")?.split_once(' ')?;
    let mut uids = Vec::new();
    for part in set.split(',') {
        let (low, high) = part.split_once(':').unwrap_or((part, part));
        for uid in low.parse::<u32>().ok()?..=high.parse().ok()? {
            uids.push(Uid::new(uid)?);
            if uids.len() > most {
                return None;
            }
        }
    }
    Some((UidValidity::new(validity.parse().ok()?)?, uids))
}

/// A FETCH response, `* 3 FETCH (UID 5 FLAGS (\Seen) INTERNALDATE "…" RFC822.SIZE 12)`, or UIDFETCH.
pub fn item(line: &[u8]) -> Option<Item> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let (head, rest) = line.strip_prefix("* ")?.split_once('(')?;
    let mut uid = head.split_once(" UIDFETCH").and_then(|(uid, _)| uid.parse().ok());
    let (mut flags, mut date, mut size) = (None, None, None);
    let mut rest = rest.strip_suffix(')')?;
    while !rest.is_empty() {
        let (key, after) = rest.split_once(' ')?;
        let (value, after) = match after.chars().next()? {
            '(' => after.get(1..)?.split_once(')')?,
            '"' => after.get(1..)?.split_once('"')?,
            _ => after.split_once(' ').unwrap_or((after, "")),
        };
        match key {
            "UID" => uid = value.parse().ok(),
            "FLAGS" => flags = Some(value.to_owned()),
            "INTERNALDATE" => date = crate::imap::wire::date::parse_date_time(value.as_bytes()),
            "RFC822.SIZE" => size = value.parse().ok(),
            _ => {}
        }
        rest = after.trim_start();
    }
    Some(Item { uid: Uid::new(uid?)?, flags: flags?, date: date?, size: size? })
}

/// The UID of `* 3 FETCH (UID 5)`, or UIDFETCH: a response that tells nothing else.
pub fn uid_alone(line: &[u8]) -> Option<Uid> {
    let (head, rest) = std::str::from_utf8(line).ok()?.trim_end().strip_prefix("* ")?.split_once(" (UID ")?;
    let is_fetch = head.ends_with(" FETCH") || head.ends_with(" UIDFETCH");
    Uid::new(rest.strip_suffix(')')?.parse().ok()?).filter(|_| is_fetch)
}

/// The bytes of the only literal of a response.
pub fn literal(response: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', response)?;
    let header = response.get(..end)?.strip_suffix(b"}\r")?;
    let at = header.iter().rposition(|byte| *byte == b'{')?;
    let size: usize = std::str::from_utf8(header.get(at + 1..)?).ok()?.parse().ok()?;
    response.get(end + 1..)?.get(..size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetch_responses_are_read_whatever_keywords_are_called() {
        let expected = |flags: &str| Some(Item { uid: Uid::new(5).unwrap(), flags: flags.into(), date: 837_595_405, size: 12 });
        let date = "INTERNALDATE \"17-Jul-1996 02:23:25 -0700\"";
        let date_of = expected("").unwrap().date;
        assert_eq!(crate::imap::wire::date::parse_date_time(b"17-Jul-1996 02:23:25 -0700"), Some(date_of));
        let line = format!("* 3 FETCH (UID 5 FLAGS (\\Seen UID RFC822.SIZE) {date} RFC822.SIZE 12)\r\n");
        assert_eq!(item(line.as_bytes()), expected("\\Seen UID RFC822.SIZE"));
        let line = format!("* 5 UIDFETCH (MODSEQ (7) FLAGS () {date} RFC822.SIZE 12)\r\n");
        assert_eq!(item(line.as_bytes()), expected(""));
        assert_eq!(item(b"* 3 FETCH (FLAGS (\\Seen))\r\n"), None);
        assert_eq!((uid_alone(b"* 3 FETCH (UID 5)\r\n"), uid_alone(b"* 5 UIDFETCH (UID 5)\r\n")), (Uid::new(5), Uid::new(5)));
        assert_eq!((uid_alone(b"* 3 FETCH (UID 5 FLAGS ())\r\n"), uid_alone(b"* X (UID 5)\r\n")), (None, None));
    }

    #[test]
    fn literals_and_appenduid_are_read() {
        assert_eq!(literal(b"* 3 FETCH (UID 5 BODY[]<0> {4}\r\na\r\nb)\r\n"), Some(&b"a\r\nb"[..]));
        assert_eq!(literal(b"* 3 FETCH (UID 5 BODY[]<0> {9}\r\na\r\nb)\r\n"), None);
        let uids = |numbers: &[u32]| numbers.iter().map(|uid| Uid::new(*uid).unwrap()).collect::<Vec<_>>();
        assert_eq!(appended("APPENDUID 7 3:4,9", 3), Some((UidValidity::new(7).unwrap(), uids(&[3, 4, 9]))));
        assert_eq!(appended("APPENDUID 7 1:4294967295", 3), None);
    }
}
