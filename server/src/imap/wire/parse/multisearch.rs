//! ESEARCH (RFC 7377 §4).

use super::{
    cursor::{Cursor, Fail, Parsed},
    notify, search,
};
use crate::imap::wire::command::{Esearch, Source};

/// Most sources of one command: more are never needed, and each is held against every mailbox.
const SOURCES_MAX: usize = 64;

pub(super) fn esearch(cursor: &mut Cursor<'_>) -> Parsed<Esearch> {
    let mut sources = vec![Source::Selected];
    if cursor.take_word("IN") {
        cursor.space()?;
        sources = source_options(cursor)?;
        cursor.space()?;
    }
    Ok(Esearch { sources, search: search::search(cursor)? })
}

fn source_options(cursor: &mut Cursor<'_>) -> Parsed<Vec<Source>> {
    let mut sources = Vec::new();
    cursor.parenthesised("which mailboxes to search", |cursor| {
        if cursor.peek() == Some(b'(') {
            return Err(Fail::new("there are no options for where to search (RFC 7377, 4)"));
        }
        let start = cursor.position();
        let source = match cursor.word().as_str() {
            "SELECTED" => Source::Selected,
            "INBOXES" => Source::Inboxes,
            "PERSONAL" => Source::Personal,
            "SUBSCRIBED" => Source::Subscribed,
            "SUBTREE" => Source::Subtree(notify::names(cursor)?),
            "SUBTREE-ONE" => Source::SubtreeOne(notify::names(cursor)?),
            "MAILBOXES" => Source::Mailboxes(notify::names(cursor)?),
            _ => {
                return Err(cursor
                    .expected_at(start, "which mailboxes: SELECTED, INBOXES, PERSONAL, SUBSCRIBED, SUBTREE, SUBTREE-ONE or MAILBOXES"));
            }
        };
        if !sources.contains(&source) {
            sources.push(source);
        }
        if sources.len() > SOURCES_MAX { Err(Fail::new(format!("there are more than {SOURCES_MAX} sources"))) } else { Ok(()) }
    })?;
    if sources.is_empty() { Err(Fail::new("no mailbox is named to search in")) } else { Ok(sources) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::wire::{
        command::{Command, MailboxArgument, SearchKey, SearchReturn},
        enabled::Enabled,
        parse::{Options, parse},
    };

    fn read(command: &str) -> Result<Esearch, String> {
        let tagged = parse(format!("a {command}").as_bytes(), Options { enabled: Enabled::NOTHING, nesting: 50 });
        match tagged.map_err(|error| error.reason)?.command {
            Command::Esearch(esearch) => Ok(*esearch),
            other => panic!("{other:?}"),
        }
    }

    fn names(names: &[MailboxArgument]) -> Vec<&str> {
        names
            .iter()
            .map(|argument| match argument {
                MailboxArgument::Valid(name) => name.as_str(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_examples_of_rfc_7377_are_read() {
        let first = read("ESEARCH IN (mailboxes \"folder1\" subtree \"folder2\") unseen").unwrap();
        let [Source::Mailboxes(one), Source::Subtree(two)] = first.sources.as_slice() else { panic!("{first:?}") };
        assert_eq!((names(one), names(two)), (vec!["folder1"], vec!["folder2"]));
        let second = read("ESEARCH IN (mailboxes \"folder1\" subtree-one \"folder2\") subject \"chad\"").unwrap();
        assert!(matches!(second.sources.as_slice(), [Source::Mailboxes(_), Source::SubtreeOne(_)]));
        assert!(matches!(second.search.key, SearchKey::Header { .. }));
    }

    #[test]
    fn sources_and_results_may_be_left_out() {
        let plain = read("ESEARCH FROM \"frobozz\" 1:100").unwrap();
        assert_eq!((plain.sources, plain.search.return_options), (vec![Source::Selected], None));
        let full = read("esearch in (SELECTED personal mailboxes (a \"b c\")) return (MIN count) CHARSET utf-8 ALL").unwrap();
        assert_eq!(full.search.return_options, Some(vec![SearchReturn::Min, SearchReturn::Count]));
        assert!(
            matches!(full.sources.as_slice(), [Source::Selected, Source::Personal, Source::Mailboxes(named)] if names(named) == ["a", "b c"])
        );
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        for command in [
            "ESEARCH",
            "ESEARCH IN",
            "ESEARCH IN ALL",
            "ESEARCH IN () ALL",
            "ESEARCH IN (selected-delayed) ALL",
            "ESEARCH IN (everything) ALL",
            "ESEARCH IN (mailboxes) ALL",
            "ESEARCH IN (mailboxes ()) ALL",
            "ESEARCH IN (personal (x)) ALL",
            "ESEARCH IN (personal)",
            "ESEARCH IN (personal) RETURN ALL",
            "ESEARCH IN (personal",
            "UID ESEARCH ALL",
        ] {
            assert!(read(command).is_err(), "{command}");
        }
        let many: String = (0..80).map(|number| format!("subtree m{number} ")).collect();
        assert!(read(&format!("ESEARCH IN ({}) ALL", many.trim_end())).unwrap_err().contains("more than 64"));
    }
}
