use std::time::{Duration, Instant};

use proptest::prelude::*;
use smallvec::smallvec;
use storage::mime::summarise;

use super::*;
use crate::imap::wire::command::SequenceRange;

/// 2026-11-21 12:00:00 UTC.
const NOON: i64 = 1_795_262_400;
const KEYWORDS: &[&str] = &["$Forwarded", "work"];

fn row() -> RowFacts {
    RowFacts {
        sequence: 3,
        uid: Uid::new(30).unwrap(),
        flags: FlagSet::of(&[Flag::Seen, Flag::Keyword(KeywordId::new(1).unwrap())]),
        recent: false,
        size: 1000,
        save_date: 0,
        internal_date: NOON,
        modseq: ModSeq::new(77).unwrap(),
        email_id: None,
    }
}

fn query(key: &SearchKey) -> Query {
    let keywords: Vec<String> = KEYWORDS.iter().map(|name| (*name).to_owned()).collect();
    let saved = SavedUids::new([20, 29, 30, 31].map(|uid| Uid::new(uid).unwrap()));
    compile(key, &Context { message_count: 5, largest_uid: 50, keywords: &keywords, now: NOON, saved: &saved })
}

/// What the row alone says.
fn by_row(key: &SearchKey) -> Option<bool> {
    query(key).decide_row(&row())
}

/// What the message says, read in full.
fn by_message(key: &SearchKey, message: &str) -> bool {
    let message = message.replace('\n', "\r\n");
    query(key).decide_full(&row(), None, Some(message.as_bytes())).expect("a message decides everything")
}

fn not(key: SearchKey) -> SearchKey {
    SearchKey::Not(Box::new(key))
}
fn or(one: SearchKey, other: SearchKey) -> SearchKey {
    SearchKey::Or(Box::new(one), Box::new(other))
}
fn header(field: &str, value: &str) -> SearchKey {
    SearchKey::Header { field: field.to_owned(), value: value.to_owned() }
}
fn body(text: &str) -> SearchKey {
    SearchKey::Body(text.to_owned())
}
fn text(text: &str) -> SearchKey {
    SearchKey::Text(text.to_owned())
}
fn date(year: i16, month: u8, day: u8) -> Date {
    Date { year, month, day }
}
fn keyword_flag(name: &str) -> SearchKey {
    SearchKey::Flag(FlagArgument::Keyword(name.to_owned()))
}
fn set(ranges: &[(u32, u32)]) -> SequenceSet {
    let bound = |number| if number == u32::MAX { SequenceBound::Star } else { SequenceBound::Number(number) };
    SequenceSet::Ranges(ranges.iter().map(|(low, high)| SequenceRange { low: bound(*low), high: bound(*high) }).collect())
}
const STAR: u32 = u32::MAX;

#[test]
fn flags_and_numbers_are_decided_by_the_row() {
    for (key, expected) in [
        (SearchKey::All, true),
        (SearchKey::Flag(FlagArgument::System(Flag::Seen)), true),
        (SearchKey::Flag(FlagArgument::System(Flag::Draft)), false),
        (keyword_flag("WORK"), true),
        (keyword_flag("$forwarded"), false),
        (keyword_flag("unknown"), false),
        (not(keyword_flag("unknown")), true),
        (SearchKey::Recent, false),
        (SearchKey::New, false),
        (SearchKey::Larger(999), true),
        (SearchKey::Larger(1000), false),
        (SearchKey::Smaller(1001), true),
        (SearchKey::Smaller(1000), false),
        (SearchKey::ModSeq(77), true),
        (SearchKey::ModSeq(78), false),
        (SearchKey::And(vec![]), true),
        (SearchKey::And(vec![SearchKey::All, SearchKey::Recent]), false),
        (or(SearchKey::Recent, SearchKey::All), true),
        (or(SearchKey::Recent, SearchKey::Recent), false),
    ] {
        let query = query(&key);
        assert_eq!(query.needs(), Needs::Nothing, "{key:?}");
        assert_eq!(query.decide_row(&row()), Some(expected), "{key:?}");
    }
    assert!(query(&not(SearchKey::ModSeq(1))).uses_modseq());
    let new = RowFacts { recent: true, flags: FlagSet::EMPTY, ..row() };
    assert_eq!(query(&SearchKey::New).decide_row(&new), Some(true));
}

#[test]
fn sets_are_ranges_in_any_order_and_a_star_is_the_largest() {
    for (ranges, expected) in [
        (&[(3, 3)][..], true),
        (&[(5, 1)], true),
        (&[(4, STAR)], false),
        (&[(STAR, 3)], true),
        (&[(1, 1), (5, 5), (2, 4)], true),
        (&[(1, 2), (4, 5)], false),
        (&[(1, 10), (2, 2)], true),
        (&[(900, STAR)], false),
    ] {
        assert_eq!(by_row(&SearchKey::Sequence(set(ranges))), Some(expected), "{ranges:?}");
    }
    assert_eq!(by_row(&SearchKey::Uid(set(&[(30, 30)]))), Some(true));
    let last = RowFacts { uid: Uid::new(50).unwrap(), sequence: 5, ..row() };
    assert_eq!(query(&SearchKey::Uid(set(&[(900, STAR)]))).decide_row(&last), Some(true), "RFC 9051 §6.4.9: 900:* has the last one");
    let empty = compile(
        &SearchKey::Uid(set(&[(1, STAR)])),
        &Context { message_count: 0, largest_uid: 0, keywords: &[], now: 0, saved: &SavedUids::default() },
    );
    assert_eq!(empty.decide_row(&row()), Some(false));
    for saved in [SearchKey::Uid(SequenceSet::Saved), SearchKey::Sequence(SequenceSet::Saved)] {
        assert_eq!(by_row(&saved), Some(true), "$ names messages, however it is used");
        let other = RowFacts { uid: Uid::new(32).unwrap(), ..row() };
        assert_eq!(query(&saved).decide_row(&other), Some(false));
    }
    assert_eq!(resolve(&SequenceSet::Ranges(smallvec![]), 9), []);
    assert_eq!(resolve(&set(&[(7, 9), (1, 3), (2, 5), (9, STAR)]), 20), [(1, 5), (7, 20)]);
}

#[test]
fn days_of_internaldate_are_days_in_utc() {
    let at = |internal_date| RowFacts { internal_date, ..row() };
    let (midnight, last_second) = (NOON - 43_200, NOON + 43_199);
    for (when, before, on, since) in [
        (midnight - 1, true, false, false),
        (midnight, false, true, true),
        (last_second, false, true, true),
        (last_second + 1, false, false, true),
    ] {
        let day = date(2026, 11, 21);
        assert_eq!(query(&SearchKey::Before(day)).decide_row(&at(when)), Some(before));
        assert_eq!(query(&SearchKey::On(day)).decide_row(&at(when)), Some(on));
        assert_eq!(query(&SearchKey::Since(day)).decide_row(&at(when)), Some(since));
    }
}

#[test]
fn any_date_has_a_day() {
    for (day, expected) in [
        (date(1970, 1, 1), 0),
        (date(1969, 12, 31), -1),
        (date(2000, 2, 29), 11_016),
        (date(2000, 3, 1), 11_017),
        (date(2026, 11, 21), NOON / SECONDS_PER_DAY),
        (date(0, 3, 1), -719_468),
    ] {
        assert_eq!(unix_day(&day), expected, "{day:?}");
    }
    for extreme in [date(i16::MIN, 0, 0), date(i16::MAX, 255, 255)] {
        assert!(by_row(&SearchKey::On(extreme)).is_some());
    }
}

#[test]
fn older_and_younger_count_seconds_and_meet() {
    let at = |internal_date| RowFacts { internal_date, ..row() };
    let (older, younger) = (query(&SearchKey::Older(60)), query(&SearchKey::Younger(60)));
    assert_eq!((older.decide_row(&at(NOON - 61)), younger.decide_row(&at(NOON - 61))), (Some(true), Some(false)));
    assert_eq!((older.decide_row(&at(NOON - 60)), younger.decide_row(&at(NOON - 60))), (Some(true), Some(true)));
    assert_eq!((older.decide_row(&at(NOON - 59)), younger.decide_row(&at(NOON - 59))), (Some(false), Some(true)));
}

#[test]
fn sent_dates_are_the_day_that_is_written() {
    let message = "Date: Fri, 20 Nov 2026 23:30:00 -0800\n\n";
    assert!(by_message(&SearchKey::SentOn(date(2026, 11, 20)), message));
    assert!(by_message(&SearchKey::SentBefore(date(2026, 11, 21)), message));
    assert!(by_message(&SearchKey::SentSince(date(2026, 11, 20)), message));
    assert!(!by_message(&SearchKey::SentSince(date(2026, 11, 21)), message));
    assert!(!by_message(&SearchKey::SentBefore(date(2030, 1, 1)), "Subject: no date\n\n"));
}

#[test]
fn header_keys_look_into_decoded_values() {
    let message = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus\n Berlin\nX-Tag:\nFrom: \"Doe, Jane\" <jane@example.org>\n\nSubject: no\n";
    for (field, value, expected) in [
        ("subject", "grüße AUS berlin", true),
        ("SUBJECT", "GRÜßE", true),
        ("subject", "utf-8", false),
        ("subject", "no", false),
        ("from", "doe, j", true),
        ("from", "JANE@EXAMPLE", true),
        ("x-tag", "", true),
        ("x-none", "", false),
        ("cc", "", false),
    ] {
        assert_eq!(by_message(&header(field, value), message), expected, "{field} {value}");
    }
}

#[test]
fn body_is_the_text_and_text_is_the_header_too() {
    let message = "Subject: top\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nM=FCller=\n s brother\n--b\nContent-Type: application/pdf; name=report.pdf\nContent-Transfer-Encoding: base64\n\nc2VjcmV0\n--b--\n";
    for (key, expected) in [
        (body("MÜLLER"), true),
        (body("müllers"), false),
        (body("müller s BROTHER"), true),
        (body("top"), false),
        (body("secret"), false),
        (body("c2VjcmV0"), false),
        (body(""), true),
        (text("top"), true),
        (text("subject: TOP"), true),
        (text("brother"), true),
        (text("report.pdf"), true),
        (text("absent"), false),
        (text(""), true),
        (not(text("absent")), true),
        (SearchKey::And(vec![body("brother"), text("report"), not(body("report"))]), true),
    ] {
        assert_eq!(by_message(&key, message), expected, "{key:?}");
    }
}

#[test]
fn text_is_found_in_any_case_with_and_without_marks() {
    let message =
        "Subject: =?utf-8?q?=CE=A3=CE=AF=CF=83=CF=85=CF=86=CE=BF=CF=82?=\nContent-Type: text/plain; charset=utf-8\n\ncafe\u{301} \u{fb01}n";
    for (key, expected) in [
        (header("subject", "σίσυφος"), true),
        (header("subject", "ΣΊΣΥΦΟΣ"), true),
        (body("CAFÉ"), true),
        (body("cafe"), true),
        (body("cafè"), false),
        (text("café"), true),
    ] {
        assert_eq!(by_message(&key, message), expected, "{key:?}");
    }
}

#[test]
fn the_cheapest_facts_decide() {
    let seen = || SearchKey::Flag(FlagArgument::System(Flag::Seen));
    for (key, needs, (reads_summaries, reads_headers), answer) in [
        (SearchKey::And(vec![body("x"), not(seen())]), Needs::Body, (false, false), Some(false)),
        (or(body("x"), seen()), Needs::Body, (false, false), Some(true)),
        (or(seen(), body("x")), Needs::Body, (false, false), Some(true)),
        (SearchKey::And(vec![body("x"), seen()]), Needs::Body, (false, false), None),
        (not(body("x")), Needs::Body, (false, false), None),
        (header("Subject", "x"), Needs::Summary, (true, false), None),
        (header("Subject", ""), Needs::Headers, (false, true), None),
        (header("List-Id", "x"), Needs::Headers, (false, true), None),
        (SearchKey::SentOn(date(2026, 1, 1)), Needs::Summary, (true, false), None),
        (header("X-Other", "x"), Needs::Body, (false, false), None),
        (text("x"), Needs::Body, (false, true), None),
        (SearchKey::And(vec![header("to", "x"), header("x-other", "y")]), Needs::Body, (true, false), None),
    ] {
        let query = query(&key);
        let reads = (query.reads_summaries(), query.reads_headers());
        assert_eq!((query.needs(), reads), (needs, (reads_summaries, reads_headers)), "{key:?}");
        assert_eq!(query.decide_row(&row()), answer, "{key:?}");
    }
}

#[test]
fn cached_headers_decide_what_they_can() {
    let headers = b"Subject: hello\r\nDate: Fri, 20 Nov 2026 23:30:00 -0800\r\n";
    let decide = |key: &SearchKey| query(key).decide_full(&row(), Some(headers), None);
    assert_eq!(decide(&header("subject", "HELLO")), Some(true));
    assert_eq!(decide(&header("to", "")), Some(false));
    assert_eq!(decide(&SearchKey::SentOn(date(2026, 11, 20))), Some(true));
    assert_eq!(decide(&text("hello")), Some(true));
    assert_eq!(decide(&text("other")), None, "the rest of the message may have it");
    assert_eq!(decide(&header("x-other", "x")), None);
    assert_eq!(decide(&SearchKey::And(vec![body("x"), header("subject", "absent")])), Some(false));
}

#[test]
fn summaries_decide_what_they_can() {
    let summary = summarise(b"Subject: hello\r\nTo: a@x\r\nTo: b@x\r\nCc:\r\nDate: Fri, 20 Nov 2026 23:30:00 -0800\r\n");
    let decide = |key: &SearchKey| query(key).decide_summary(&row(), &Summary::read(&summary).unwrap());
    assert_eq!(decide(&header("subject", "HELLO")), Some(true));
    assert_eq!((decide(&header("to", "b@")), decide(&header("to", "xb"))), (Some(true), Some(false)));
    assert_eq!((decide(&header("cc", "")), decide(&header("cc", "x"))), (None, Some(false)), "an empty field is there");
    assert_eq!(decide(&SearchKey::SentOn(date(2026, 11, 20))), Some(true));
    assert_eq!(decide(&header("list-id", "x")), None);
    assert_eq!(decide(&SearchKey::And(vec![body("x"), header("subject", "absent")])), Some(false));
}

#[test]
fn long_repetitive_needles_are_cheap() {
    let message = format!("\r\n{}", "a".repeat(2_000_000));
    let key = SearchKey::And(vec![not(body(&format!("{}b", "a".repeat(8_000)))), not(body(&format!("b{}", "a".repeat(8_000))))]);
    #[expect(clippy::disallowed_methods, reason = "measures what the processor does; nothing waits")]
    let start = Instant::now();
    assert_eq!(query(&key).decide_full(&row(), None, Some(message.as_bytes())), Some(true));
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn keys() -> impl Strategy<Value = SearchKey> {
    let leaf = prop_oneof![
        Just(SearchKey::All),
        Just(SearchKey::Recent),
        Just(SearchKey::Flag(FlagArgument::System(Flag::Seen))),
        Just(SearchKey::SentOn(date(2026, 11, 20))),
        (0..4u32, 0..4u32).prop_map(|(low, high)| SearchKey::Sequence(set(&[(low, high)]))),
        ("subject|x-other|to", "[a-c]?").prop_map(|(field, value)| header(&field, &value)),
        "[a-d]{0,2}".prop_map(SearchKey::Body),
        "[a-d]{0,2}".prop_map(SearchKey::Text),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(SearchKey::And),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| or(one, other)),
            inner.prop_map(not),
        ]
    })
}

proptest! {
    #[test]
    fn an_early_answer_is_the_final_answer(key in keys(), subject in "[a-d]{0,3}", other in "[a-d]{0,3}", content in "[a-d]{0,3}", recent: bool) {
        let row = RowFacts { recent, ..row() };
        let headers = format!("Subject: {subject}\r\nDate: Fri, 20 Nov 2026 23:30:00 -0800\r\n");
        let message = format!("X-Other: {other}\r\n{headers}\r\n{content}");
        let query = query(&key);
        let last = query.decide_full(&row, None, Some(message.as_bytes()));
        prop_assert!(last.is_some());
        let summary = summarise(headers.as_bytes());
        let between = query.decide_summary(&row, &Summary::read(&summary).unwrap());
        prop_assert!(between.is_none() || between == last, "{between:?} {last:?}");
        prop_assert!(query.needs() > Needs::Summary || between.is_some());
        let (first, second) = (query.decide_row(&row), query.decide_full(&row, Some(headers.as_bytes()), None));
        prop_assert!(first.is_none() || first == second, "{first:?} {second:?}");
        prop_assert!(second.is_none() || second == last, "{second:?} {last:?}");
        prop_assert_eq!(query.decide_full(&row, Some(headers.as_bytes()), Some(message.as_bytes())), last);
        prop_assert!(query.needs() > Needs::Nothing || first.is_some());
        prop_assert!(query.needs() > Needs::Headers || second.is_some());
        prop_assert!(query.reads_headers() || between == second);
        prop_assert!(query.reads_summaries() || first == between);
    }
}
