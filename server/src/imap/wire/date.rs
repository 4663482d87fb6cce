//! Dates as IMAP writes them: `date` (a day) and `date-time` (an instant with a zone).
//!
//! What we write we read back (`an_internal_date_is_read_back`).

use bytes::{BufMut, BytesMut};
use jiff::{Timestamp, civil::DateTime, tz::Offset};

use super::command::Date;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Earliest and latest second that a four-digit year can say.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// `1-Feb-2026`, also with a leading zero or space; `None`: no day of the calendar.
pub fn parse_date(text: &[u8]) -> Option<Date> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let mut parts = text.split(|byte| *byte == b'-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(1..=2).contains(&day.len()) || year.len() != 4 {
        return None;
    }
    let date = Date { year: i16::try_from(digits(year)?).ok()?, month: parse_month(month)?, day: u8::try_from(digits(day)?).ok()? };
    jiff::civil::Date::new(date.year, i8::try_from(date.month).ok()?, i8::try_from(date.day).ok()?).ok()?;
    Some(date)
}

/// `17-Jul-1996 02:44:25 -0700` (without the quotes) as Unix seconds; the day may have one digit, or a leading space.
pub fn parse_date_time(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let mut parts = text.split(|byte| *byte == b' ');
    let (date, time, zone) = (parse_date(parts.next()?)?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *time else { return None };
    let seconds = two_digits(s1, s2)?.min(59); // a leap second has no Unix time of its own
    let civil = DateTime::new(
        date.year,
        i8::try_from(date.month).ok()?,
        i8::try_from(date.day).ok()?,
        two_digits(h1, h2)?,
        two_digits(m1, m2)?,
        seconds,
        0,
    )
    .ok()?;
    let [sign, zh1, zh2, zm1, zm2] = *zone else { return None };
    let (hours, minutes) = (i32::from(two_digits(zh1, zh2)?), i32::from(two_digits(zm1, zm2)?));
    if minutes > 59 {
        return None;
    }
    let east = (hours * 60 + minutes) * 60;
    let offset = match sign {
        b'+' => Offset::from_seconds(east),
        b'-' => Offset::from_seconds(-east),
        _ => return None,
    };
    Some(offset.ok()?.to_timestamp(civil).ok()?.as_second())
}

/// Writes `"17-Jul-1996 09:44:25 +0000"`, quotes included. Years beyond four digits are cut to the nearest that has them.
pub fn write_date_time(out: &mut BytesMut, seconds: i64) {
    let instant = Timestamp::from_second(seconds.clamp(FIRST_SECOND, LAST_SECOND)).unwrap_or(Timestamp::UNIX_EPOCH);
    let civil = Offset::UTC.to_datetime(instant);
    out.put_u8(b'"');
    put_two(out, civil.day(), b' ');
    out.put_u8(b'-');
    out.put_slice(usize::try_from(civil.month() - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"Jan").as_bytes());
    out.put_u8(b'-');
    let year = civil.year().max(0);
    for unit in [1000, 100, 10, 1] {
        put_digit(out, year / unit % 10);
    }
    for (separator, number) in [(b' ', civil.hour()), (b':', civil.minute()), (b':', civil.second())] {
        out.put_u8(separator);
        put_two(out, number, b'0');
    }
    out.put_slice(b" +0000\"");
}

fn put_two(out: &mut BytesMut, number: i8, pad: u8) {
    if number < 10 {
        out.put_u8(pad);
    } else {
        put_digit(out, i16::from(number / 10));
    }
    put_digit(out, i16::from(number % 10));
}

fn put_digit(out: &mut BytesMut, digit: i16) {
    out.put_u8(b'0' + u8::try_from(digit).unwrap_or(0));
}

fn parse_month(name: &[u8]) -> Option<u8> {
    let position = MONTHS.iter().position(|month| month.as_bytes().eq_ignore_ascii_case(name))?;
    u8::try_from(position + 1).ok()
}

fn digits(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn two_digits(tens: u8, ones: u8) -> Option<i8> {
    i8::try_from(digits(&[tens, ones])?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(seconds: i64) -> String {
        let mut out = BytesMut::new();
        write_date_time(&mut out, seconds);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_rfc_examples_are_read() {
        assert_eq!(parse_date_time(b"17-Jul-1996 02:44:25 -0700"), Some(837_596_665));
        assert_eq!(parse_date(b"1-Feb-1994"), Some(Date { year: 1994, month: 2, day: 1 }));
        assert_eq!(written(837_596_665), "\"17-Jul-1996 09:44:25 +0000\"");
    }

    #[test]
    fn days_may_have_one_digit_or_a_leading_space() {
        let expected = Some(Date { year: 2026, month: 11, day: 1 });
        for text in ["1-Nov-2026", "01-Nov-2026", " 1-nov-2026"] {
            assert_eq!(parse_date(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse_date_time(b" 1-Jan-1970 00:00:07 +0000"), Some(7));
        assert_eq!(parse_date_time(b"1-Jan-1970 00:00:60 +0000"), Some(59));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in
            ["", "-", "31-Feb-2026", "0-Jan-2026", "1-Foo-2026", "1-Jan-26", "1-Jan-2026-", "+1-Jan-2026", "1-Jan-+026", "111-Jan-2026"]
        {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
        for text in [
            "1-Jan-2026",
            "1-Jan-2026 24:00:00 +0000",
            "1-Jan-2026 00:60:00 +0000",
            "1-Jan-2026 00:00:00 0000",
            "1-Jan-2026 00:00:00 +9900",
            "1-Jan-2026 00:00:00 +0060",
            "1-Jan-2026 00:00:00 +0000 ",
        ] {
            assert_eq!(parse_date_time(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_internal_date_is_read_back(seconds in FIRST_SECOND..=LAST_SECOND) {
            let text = written(seconds);
            prop_assert_eq!(parse_date_time(text.trim_matches('"').as_bytes()), Some(seconds));
        }
        #[test]
        fn any_number_of_seconds_can_be_written(seconds: i64) {
            prop_assert_eq!(written(seconds).len(), 28);
        }
        #[test]
        fn no_text_makes_the_date_parsers_panic(text: Vec<u8>) {
            prop_assert!(parse_date(&text).is_none_or(|date| date.day > 0));
            prop_assert!(parse_date_time(&text).is_none_or(|_| text.len() > 20));
        }
    }
}
