//! Pieces of responses: strings, flags, dates.

use bytes::{BufMut, BytesMut};
use index::{Flag, FlagSet};
use jiff::{Timestamp, tz::TimeZone};
use storage::{MailboxName, names::encode_utf7};

/// The system flags in the order of FLAGS.
const SYSTEM_FLAGS: [(Flag, &str); 5] = [
    (Flag::Answered, "\\Answered"),
    (Flag::Flagged, "\\Flagged"),
    (Flag::Deleted, "\\Deleted"),
    (Flag::Seen, "\\Seen"),
    (Flag::Draft, "\\Draft"),
];

/// A number.
pub fn put_number(output: &mut BytesMut, number: u64) {
    output.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A string: quoted where that can hold it, else a literal.
pub fn put_string(output: &mut BytesMut, bytes: &[u8]) {
    if bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        output.put_u8(b'"');
        for byte in bytes {
            if matches!(byte, b'"' | b'\\') {
                output.put_u8(b'\\');
            }
            output.put_u8(*byte);
        }
        output.put_u8(b'"');
    } else {
        put_literal_head(output, bytes.len() as u64);
        output.put_slice(bytes);
    }
}

/// `{length}` and the line end before a literal's bytes.
pub fn put_literal_head(output: &mut BytesMut, length: u64) {
    output.put_u8(b'{');
    put_number(output, length);
    output.put_slice(b"}\r\n");
}

/// A mailbox name in modified UTF-7.
pub fn put_mailbox(output: &mut BytesMut, name: &MailboxName) {
    put_string(output, encode_utf7(name.as_str()).as_bytes());
}

/// `(\Seen keyword …)`.
pub fn put_flags(output: &mut BytesMut, flags: FlagSet, keywords: &[String], recent: bool) {
    let system = SYSTEM_FLAGS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name);
    let named = flags.keywords().filter_map(|id| keywords.get(id.position())).map(String::as_str);
    put_list(output, system.chain(named).chain(recent.then_some("\\Recent")));
}

/// Every flag a message of the mailbox can have, and `\*` where new ones can be made.
pub fn put_all_flags(output: &mut BytesMut, keywords: &[String], accepts_new: bool) {
    let system = SYSTEM_FLAGS.iter().map(|(_, name)| *name);
    put_list(output, system.chain(keywords.iter().map(String::as_str)).chain(accepts_new.then_some("\\*")));
}

/// `(a b c)`.
pub fn put_list<'a>(output: &mut BytesMut, items: impl Iterator<Item = &'a str>) {
    output.put_u8(b'(');
    for (position, item) in items.enumerate() {
        if position > 0 {
            output.put_u8(b' ');
        }
        output.put_slice(item.as_bytes());
    }
    output.put_u8(b')');
}

/// `"17-Jul-1996 02:44:25 +0000"`; a time that no calendar has is the epoch.
pub fn put_date_time(output: &mut BytesMut, unix_seconds: i64) {
    let time = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    output.put_slice(time.strftime("\"%e-%b-%Y %H:%M:%S +0000\"").to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use index::KeywordId;

    use super::*;

    fn printed(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut output = BytesMut::new();
        put(&mut output);
        String::from_utf8(output.to_vec()).unwrap()
    }

    #[test]
    fn strings_are_quoted_where_quotes_can_hold_them() {
        assert_eq!(printed(|o| put_string(o, br#"a "b" \c"#)), r#""a \"b\" \\c""#);
        assert_eq!(printed(|o| put_string(o, "é".as_bytes())), "{2}\r\né");
        assert_eq!(printed(|o| put_string(o, b"a\r\nb")), "{4}\r\na\r\nb");
    }

    #[test]
    fn flags_are_written_by_name() {
        let flags = FlagSet::of(&[Flag::Seen, Flag::Passed, Flag::Keyword(KeywordId::new(1).unwrap())]);
        let keywords = ["$Junk".to_owned(), "$Label1".to_owned()];
        assert_eq!(printed(|o| put_flags(o, flags, &keywords, true)), "(\\Seen $Label1 \\Recent)");
        assert_eq!(printed(|o| put_flags(o, FlagSet::EMPTY, &keywords, false)), "()");
    }

    #[test]
    fn dates_have_two_places_for_the_day() {
        assert_eq!(printed(|o| put_date_time(o, 837_571_465)), "\"17-Jul-1996 02:44:25 +0000\"");
        assert_eq!(printed(|o| put_date_time(o, 0)), "\" 1-Jan-1970 00:00:00 +0000\"");
        assert_eq!(printed(|o| put_date_time(o, i64::MAX)), "\" 1-Jan-1970 00:00:00 +0000\"");
    }
}
