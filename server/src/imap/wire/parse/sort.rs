//! SORT and THREAD (RFC 5256 §5, RFC 5267 §3, RFC 5957).

use super::{
    cursor::{Cursor, Fail, Parsed},
    search,
};
use crate::imap::wire::command::{SearchReturn, Sort, SortCriterion, SortKey, Thread, ThreadAlgorithm};

/// Most sort criteria: more than there are keys say nothing new.
const CRITERIA_MAX: usize = 32;

pub(super) fn sort(cursor: &mut Cursor<'_>) -> Parsed<Sort> {
    let (mut return_options, mut update_items) = (None, Vec::new());
    if cursor.take_word("RETURN") {
        cursor.space()?;
        let (options, items) = search::return_options(cursor)?;
        if options.contains(&SearchReturn::Save) {
            return Err(Fail::new("only SEARCH saves its result (RFC 5182)"));
        }
        (return_options, update_items) = (Some(options), items);
        cursor.space()?;
    }
    let mut criteria = Vec::new();
    let start = cursor.position();
    cursor.parenthesised("a list of sort criteria", |cursor| {
        criteria.push(criterion(cursor)?);
        if criteria.len() > CRITERIA_MAX { Err(cursor.expected(&format!("no more than {CRITERIA_MAX} sort criteria"))) } else { Ok(()) }
    })?;
    if criteria.is_empty() {
        return Err(cursor.expected_at(start, "at least one sort criterion"));
    }
    cursor.space()?;
    Ok(Sort { return_options, criteria, key: search::criteria(cursor)?, update_items })
}

fn criterion(cursor: &mut Cursor<'_>) -> Parsed<SortCriterion> {
    let reverse = cursor.take_word("REVERSE");
    if reverse {
        cursor.space()?;
    }
    let start = cursor.position();
    let key = match cursor.word().as_str() {
        "ARRIVAL" => SortKey::Arrival,
        "CC" => SortKey::Cc,
        "DATE" => SortKey::Date,
        "DISPLAYFROM" => SortKey::DisplayFrom,
        "DISPLAYTO" => SortKey::DisplayTo,
        "FROM" => SortKey::From,
        "SIZE" => SortKey::Size,
        "SUBJECT" => SortKey::Subject,
        "TO" => SortKey::To,
        _ => return Err(cursor.expected_at(start, "a sort criterion such as ARRIVAL")),
    };
    Ok(SortCriterion { key, reverse })
}

pub(super) fn thread(cursor: &mut Cursor<'_>) -> Parsed<Thread> {
    let start = cursor.position();
    let algorithm = match cursor.word().as_str() {
        "ORDEREDSUBJECT" => ThreadAlgorithm::OrderedSubject,
        "REFERENCES" => ThreadAlgorithm::References,
        "REFS" => ThreadAlgorithm::Refs,
        _ => return Err(cursor.expected_at(start, "ORDEREDSUBJECT, REFERENCES or REFS")),
    };
    cursor.space()?;
    Ok(Thread { algorithm, key: search::criteria(cursor)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::wire::{
        command::{Command, SearchKey},
        enabled::Enabled,
        parse::{Options, ParseErrorKind, parse},
    };

    fn read(command: &str) -> Result<Command, String> {
        let line = format!("a {command}");
        parse(line.as_bytes(), Options { enabled: Enabled::NOTHING, nesting: 50 })
            .map(|tagged| tagged.command)
            .map_err(|error| error.reason)
    }
    fn by(key: SortKey, reverse: bool) -> SortCriterion {
        SortCriterion { key, reverse }
    }

    #[test]
    fn the_examples_of_the_rfcs_are_read() {
        let Ok(Command::Sort { uid: false, sort }) = read("SORT (SUBJECT REVERSE DATE) UTF-8 ALL") else { panic!() };
        let criteria = vec![by(SortKey::Subject, false), by(SortKey::Date, true)];
        assert_eq!(sort, Sort { return_options: None, criteria, key: SearchKey::All, update_items: Vec::new() });

        let Ok(Command::Sort { uid: true, sort }) = read("UID SORT RETURN (MIN ALL) (REVERSE DISPLAYFROM) UTF-8 UNDELETED UNKEYWORD $Junk")
        else {
            panic!()
        };
        assert_eq!(sort.return_options, Some(vec![SearchReturn::Min, SearchReturn::All]));
        assert_eq!(sort.criteria, [by(SortKey::DisplayFrom, true)]);

        for (name, algorithm) in [
            ("ORDEREDSUBJECT", ThreadAlgorithm::OrderedSubject),
            ("References", ThreadAlgorithm::References),
            ("REFS", ThreadAlgorithm::Refs),
        ] {
            let Ok(Command::Thread { uid, thread }) = read(&format!("UID THREAD {name} US-ASCII TEXT \"gewp\"")) else { panic!() };
            assert_eq!((uid, thread), (true, Thread { algorithm, key: SearchKey::Text("gewp".to_owned()) }));
        }
    }

    #[test]
    fn complaints_say_what_is_missing() {
        for (command, reason) in [
            ("SORT () UTF-8 ALL", "at least one sort criterion"),
            ("SORT (REVERSE) UTF-8 ALL", "a space"),
            ("SORT (COLOUR) UTF-8 ALL", "a sort criterion such as ARRIVAL"),
            ("SORT (DATE) ALL", "this charset is not supported"),
            ("SORT DATE UTF-8 ALL", "a list of sort criteria"),
            ("THREAD JWZ UTF-8 ALL", "ORDEREDSUBJECT, REFERENCES or REFS"),
            ("THREAD REFS UTF-8", "a space"),
            ("SORT RETURN (SAVE) (DATE) UTF-8 ALL", "only SEARCH"),
        ] {
            let complaint = read(command).unwrap_err();
            assert!(complaint.contains(reason), "{command}: {complaint}");
        }
        assert!(read(&format!("SORT ({}DATE) UTF-8 ALL", "DATE ".repeat(40))).unwrap_err().contains("no more than 32"));
        let unknown = parse(b"a THREAD REFS UTF-7 ALL", Options { enabled: Enabled::NOTHING, nesting: 50 }).unwrap_err();
        assert!(matches!(unknown.kind, ParseErrorKind::BadCharset(_)));
    }
}
