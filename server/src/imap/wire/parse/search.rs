//! SEARCH (RFC 3501 §6.4.4, RFC 4731, 5032, 5182, 5267, 5465, 5466, 7162, 8474, 8514, 9394).
//!
//! Invariant: recursion ends at the configured nesting (`nesting_is_limited`).

use encoding_rs::Encoding;
use index::Flag;

use super::{
    NESTING_MAX, ParseErrorKind,
    cursor::{Cursor, Fail, Parsed, is_atom_char},
    fetch, flags,
};
use crate::imap::wire::{
    command::{Date, FetchItem, FlagArgument, PartialRange, Search, SearchKey, SearchReturn, SequenceSet},
    date::parse_date,
};

/// Charsets named when another is asked for: those that clients use. More labels work.
const CHARSETS: &[&str] = &[
    "US-ASCII",
    "UTF-8",
    "ISO-8859-1",
    "ISO-8859-2",
    "ISO-8859-15",
    "WINDOWS-1251",
    "WINDOWS-1252",
    "KOI8-R",
    "ISO-2022-JP",
    "SHIFT_JIS",
    "EUC-JP",
    "EUC-KR",
    "BIG5",
    "GB18030",
];

/// Longest name of a filter: the answer repeats it.
const FILTER_NAME_BYTES_MAX: usize = 128;
/// RFC 8474 §7.
const OBJECT_ID_BYTES_MAX: usize = 255;

pub(super) fn search(cursor: &mut Cursor<'_>) -> Parsed<Search> {
    let mut search = Search { return_options: None, charset: None, key: SearchKey::All, update_items: Vec::new() };
    if cursor.take_word("RETURN") {
        cursor.space()?;
        let (options, items) = return_options(cursor)?;
        (search.return_options, search.update_items) = (Some(options), items);
        cursor.space()?;
    }
    let mut encoding = None;
    if cursor.take_word("CHARSET") {
        if cursor.options.enabled.utf8_accept {
            return Err(Fail::new("SEARCH has no CHARSET after ENABLE UTF8=ACCEPT (RFC 6855, 3)"));
        }
        cursor.space()?;
        let name = cursor.astring("a charset")?;
        let saves = search.return_options.as_ref().is_some_and(|options| options.contains(&SearchReturn::Save));
        encoding = charset(&name).map_err(|fail| if saves { for_saving(fail) } else { fail })?;
        search.charset = Some(String::from_utf8_lossy(&name).into_owned());
        cursor.space()?;
    }
    search.key = keys(cursor, encoding)?;
    without_other_charset(&search.key, encoding)?;
    Ok(search)
}

/// Reads a charset and keys: the end of SORT and THREAD.
pub(super) fn criteria(cursor: &mut Cursor<'_>) -> Parsed<SearchKey> {
    let encoding = charset(&cursor.astring("a charset")?)?;
    cursor.space()?;
    let key = keys(cursor, encoding)?;
    without_other_charset(&key, encoding)?;
    Ok(key)
}

/// Filters are in UTF-8 (RFC 5466 §3.1).
fn without_other_charset(key: &SearchKey, encoding: Option<&'static Encoding>) -> Parsed<()> {
    if encoding.is_some() && key.any(&|key| matches!(key, SearchKey::Filter(_))) {
        let reason = "with FILTER the charset is UTF-8 or US-ASCII".to_owned();
        return Err(Fail { reason, kind: ParseErrorKind::BadCharsetForFilter(&["US-ASCII", "UTF-8"]) });
    }
    Ok(())
}

pub(super) fn keys(cursor: &mut Cursor<'_>, encoding: Option<&'static Encoding>) -> Parsed<SearchKey> {
    let depth = cursor.options.nesting.min(NESTING_MAX);
    let mut keys = vec![key(cursor, encoding, depth)?];
    while cursor.more() {
        keys.push(key(cursor, encoding, depth)?);
    }
    Ok(all_of(keys))
}

/// Reads what to return, and the items of UPDATE.
pub(super) fn return_options(cursor: &mut Cursor<'_>) -> Parsed<(Vec<SearchReturn>, Vec<FetchItem>)> {
    let (mut options, mut items) = (Vec::new(), Vec::new());
    cursor.parenthesised("a list of results to return", |cursor| {
        let start = cursor.position();
        let option = match cursor.word().as_str() {
            "MIN" => SearchReturn::Min,
            "MAX" => SearchReturn::Max,
            "ALL" => SearchReturn::All,
            "COUNT" => SearchReturn::Count,
            "SAVE" => SearchReturn::Save,
            "PARTIAL" => {
                cursor.space()?;
                SearchReturn::Partial(partial_range(cursor)?)
            }
            "CONTEXT" => SearchReturn::Context,
            "UPDATE" => {
                if cursor.rest().starts_with(b" (") {
                    cursor.space()?;
                    items = fetch::items(cursor)?;
                }
                SearchReturn::Update
            }
            _ => return Err(cursor.expected_at(start, "MIN, MAX, ALL, COUNT, SAVE, PARTIAL, CONTEXT or UPDATE")),
        };
        if matches!(option, SearchReturn::Partial(_)) && options.iter().any(|other| matches!(other, SearchReturn::Partial(_))) {
            return Err(Fail::new("PARTIAL may be asked for once"));
        }
        if !options.contains(&option) {
            options.push(option);
        }
        Ok(())
    })?;
    if options.contains(&SearchReturn::All) && options.iter().any(|option| matches!(option, SearchReturn::Partial(_))) {
        return Err(Fail::new("PARTIAL and ALL exclude each other (RFC 9394, 3.1)"));
    }
    Ok((options, items))
}

/// Reads `1:500` or `-1:-100`.
pub(super) fn partial_range(cursor: &mut Cursor<'_>) -> Parsed<PartialRange> {
    let from_end = cursor.take(b'-');
    let one = cursor.nz_number("a place among the results")?;
    cursor.require(b':', "\":\"")?;
    if from_end {
        cursor.require(b'-', "\"-\", as before the first number")?;
    }
    Ok(PartialRange { one, other: cursor.nz_number("a place among the results")?, from_end })
}

fn for_saving(fail: Fail) -> Fail {
    match fail.kind {
        ParseErrorKind::BadCharset(known) => Fail { kind: ParseErrorKind::BadCharsetForSaving(known), ..fail },
        _ => fail,
    }
}

/// The encoding of a charset; `None`: UTF-8, of which US-ASCII is a part.
fn charset(name: &[u8]) -> Parsed<Option<&'static Encoding>> {
    if name.eq_ignore_ascii_case(b"US-ASCII") {
        return Ok(None);
    }
    let usable = |encoding: &&Encoding| {
        ![encoding_rs::REPLACEMENT, encoding_rs::X_USER_DEFINED, encoding_rs::UTF_16LE, encoding_rs::UTF_16BE].contains(encoding)
    };
    match Encoding::for_label(name).filter(usable) {
        Some(encoding) if encoding == encoding_rs::UTF_8 => Ok(None),
        Some(encoding) => Ok(Some(encoding)),
        None => Err(Fail { reason: "this charset is not supported".to_owned(), kind: ParseErrorKind::BadCharset(CHARSETS) }),
    }
}

fn all_of(mut keys: Vec<SearchKey>) -> SearchKey {
    match keys.len() {
        1 => keys.swap_remove(0),
        _ => SearchKey::And(keys),
    }
}

/// Reads one key; `depth` levels may be opened below it.
fn key(cursor: &mut Cursor<'_>, encoding: Option<&'static Encoding>, depth: usize) -> Parsed<SearchKey> {
    let levels = cursor.options.nesting.min(NESTING_MAX);
    let deeper = || depth.checked_sub(1).ok_or_else(|| Fail::new(format!("the search keys are nested deeper than {levels} levels")));
    match cursor.peek() {
        Some(b'(') => {
            let depth = deeper()?;
            let mut keys = Vec::new();
            cursor.parenthesised("search keys", |cursor| {
                keys.push(key(cursor, encoding, depth)?);
                Ok(())
            })?;
            return if keys.is_empty() { Err(Fail::new("there is no search key between \"(\" and \")\"")) } else { Ok(all_of(keys)) };
        }
        Some(b'0'..=b'9' | b'*' | b'$') => return cursor.sequence_set().map(SearchKey::Sequence),
        _ => {}
    }
    let start = cursor.position();
    let name = cursor.word();
    match name.as_str() {
        "NOT" => {
            cursor.space()?;
            Ok(not(key(cursor, encoding, deeper()?)?))
        }
        "OR" => {
            let depth = deeper()?;
            cursor.space()?;
            let left = key(cursor, encoding, depth)?;
            cursor.space()?;
            Ok(SearchKey::Or(Box::new(left), Box::new(key(cursor, encoding, depth)?)))
        }
        _ => match without_argument(&name) {
            Some(key) => Ok(key),
            None => with_argument(cursor, &name, encoding)?.ok_or_else(|| cursor.expected_at(start, "a search key such as ALL")),
        },
    }
}

fn not(key: SearchKey) -> SearchKey {
    SearchKey::Not(Box::new(key))
}

fn without_argument(name: &str) -> Option<SearchKey> {
    let flag = |flag| SearchKey::Flag(FlagArgument::System(flag));
    Some(match name {
        "ALL" => SearchKey::All,
        "ANSWERED" => flag(Flag::Answered),
        "DELETED" => flag(Flag::Deleted),
        "DRAFT" => flag(Flag::Draft),
        "FLAGGED" => flag(Flag::Flagged),
        "SEEN" => flag(Flag::Seen),
        "UNANSWERED" => not(flag(Flag::Answered)),
        "UNDELETED" => not(flag(Flag::Deleted)),
        "UNDRAFT" => not(flag(Flag::Draft)),
        "UNFLAGGED" => not(flag(Flag::Flagged)),
        "UNSEEN" => not(flag(Flag::Seen)),
        "RECENT" => SearchKey::Recent,
        "OLD" => not(SearchKey::Recent),
        "NEW" => SearchKey::New,
        "SAVEDATESUPPORTED" => SearchKey::All,
        _ => return None,
    })
}

/// Reads the argument of the key `name`; `None`: there is no such key.
fn with_argument(cursor: &mut Cursor<'_>, name: &str, encoding: Option<&'static Encoding>) -> Parsed<Option<SearchKey>> {
    let known = [
        "BCC",
        "BEFORE",
        "BODY",
        "CC",
        "EMAILID",
        "FILTER",
        "FROM",
        "HEADER",
        "KEYWORD",
        "LARGER",
        "MODSEQ",
        "OLDER",
        "ON",
        "SAVEDBEFORE",
        "SAVEDON",
        "SAVEDSINCE",
        "SENTBEFORE",
        "SENTON",
        "SENTSINCE",
        "SINCE",
        "SMALLER",
        "SUBJECT",
        "TEXT",
        "THREADID",
        "TO",
        "UID",
        "UIDAFTER",
        "UIDBEFORE",
        "UNKEYWORD",
        "YOUNGER",
    ];
    if !known.contains(&name) {
        return Ok(None);
    }
    cursor.space()?;
    let key = match name {
        "BCC" | "CC" | "FROM" | "SUBJECT" | "TO" => SearchKey::Header { field: name.to_ascii_lowercase(), value: text(cursor, encoding)? },
        "HEADER" => {
            let field = text(cursor, encoding)?;
            cursor.space()?;
            SearchKey::Header { field, value: text(cursor, encoding)? }
        }
        "BODY" => SearchKey::Body(text(cursor, encoding)?),
        "TEXT" => SearchKey::Text(text(cursor, encoding)?),
        "BEFORE" => SearchKey::Before(date(cursor)?),
        "ON" => SearchKey::On(date(cursor)?),
        "SINCE" => SearchKey::Since(date(cursor)?),
        "SAVEDBEFORE" => SearchKey::SavedBefore(date(cursor)?),
        "SAVEDON" => SearchKey::SavedOn(date(cursor)?),
        "SAVEDSINCE" => SearchKey::SavedSince(date(cursor)?),
        "SENTBEFORE" => SearchKey::SentBefore(date(cursor)?),
        "SENTON" => SearchKey::SentOn(date(cursor)?),
        "SENTSINCE" => SearchKey::SentSince(date(cursor)?),
        "LARGER" => SearchKey::Larger(cursor.number("a number of bytes")?),
        "SMALLER" => SearchKey::Smaller(cursor.number("a number of bytes")?),
        "OLDER" => SearchKey::Older(cursor.nz_number("a number of seconds")?),
        "YOUNGER" => SearchKey::Younger(cursor.nz_number("a number of seconds")?),
        "FILTER" => SearchKey::Filter(filter_name(cursor)?),
        "EMAILID" => SearchKey::EmailId(object_id(cursor)?),
        "THREADID" => SearchKey::ThreadId(object_id(cursor)?),
        "KEYWORD" => SearchKey::Flag(flags::keyword(cursor)?),
        "UNKEYWORD" => not(SearchKey::Flag(flags::keyword(cursor)?)),
        "UID" => SearchKey::Uid(cursor.sequence_set()?),
        // RFC 9738 §3.2; no set stands for no messages.
        "UIDAFTER" => match cursor.nz_number("a UID")? {
            u32::MAX => not(SearchKey::All),
            uid => SearchKey::Uid(SequenceSet::of(uid + 1, u32::MAX)),
        },
        "UIDBEFORE" => match cursor.nz_number("a UID")? {
            1 => not(SearchKey::All),
            uid => SearchKey::Uid(SequenceSet::of(1, uid - 1)),
        },
        _ => SearchKey::ModSeq(modseq(cursor)?),
    };
    Ok(Some(key))
}

/// Reads `["/flags/\\Seen" all] 620162338`; MODSEQs are kept per message, so the entry makes no difference.
fn modseq(cursor: &mut Cursor<'_>) -> Parsed<u64> {
    if cursor.peek() == Some(b'"') {
        cursor.string("a metadata entry")?;
        cursor.space()?;
        let start = cursor.position();
        if !["PRIV", "SHARED", "ALL"].contains(&cursor.word().as_str()) {
            return Err(cursor.expected_at(start, "priv, shared or all"));
        }
        cursor.space()?;
    }
    cursor.number("a MODSEQ")
}

/// Reads `filter-name` (RFC 5466 §4).
fn filter_name(cursor: &mut Cursor<'_>) -> Parsed<String> {
    let name = cursor.take_while(|byte| is_atom_char(byte) && byte != b'/');
    if name.is_empty() || name.len() > FILTER_NAME_BYTES_MAX {
        return Err(cursor.expected("the name of a filter"));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Reads `objectid` (RFC 8474 §7).
fn object_id(cursor: &mut Cursor<'_>) -> Parsed<String> {
    let id = cursor.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match String::from_utf8_lossy(id) {
        id if (1..=OBJECT_ID_BYTES_MAX).contains(&id.len()) => Ok(id.into_owned()),
        _ => Err(cursor.expected("an object id: 1 to 255 letters, digits, \"_\" or \"-\"")),
    }
}

fn text(cursor: &mut Cursor<'_>, encoding: Option<&'static Encoding>) -> Parsed<String> {
    let bytes = cursor.astring("a string to search for")?;
    let decoded = match encoding {
        Some(encoding) => encoding.decode_without_bom_handling_and_without_replacement(&bytes).map(|text| text.into_owned()),
        None => String::from_utf8(bytes.into_owned()).ok(),
    };
    decoded.ok_or_else(|| match encoding {
        Some(encoding) => Fail::new(format!("a string is not valid {}", encoding.name())),
        None => Fail::new("a string is not valid UTF-8: name its charset, as in SEARCH CHARSET ISO-8859-1"),
    })
}

fn date(cursor: &mut Cursor<'_>) -> Parsed<Date> {
    let text = match cursor.peek() {
        Some(b'"') => cursor.string("a date")?,
        _ => cursor.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'-').into(),
    };
    parse_date(&text)
        .ok_or_else(|| Fail::new(format!("the date before byte {} is not like 1-Feb-2026, or no such day exists", cursor.position())))
}
