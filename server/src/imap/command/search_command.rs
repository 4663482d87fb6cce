//! SEARCH and UID SEARCH: which messages of the view match (`search/find.rs`), and the answer (RFC 3501 §7.2.5, RFC 4731, RFC 7162 §3.1.5).

use index::ModSeq;

use super::search::{RowFacts, find::find};
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::Selected,
    wire::{
        command::{Search, SearchReturn},
        response::{self, Esearch},
    },
};

/// A message that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// Sequence number or UID, as the client asked.
    pub number: u32,
    pub modseq: ModSeq,
}

impl Match {
    pub fn new(row: &RowFacts, uid: bool) -> Match {
        Match { number: if uid { row.uid.get() } else { row.sequence }, modseq: row.modseq }
    }
}

/// SEARCH and UID SEARCH.
pub async fn search<H: Holding>(
    session: &mut Session<H>,
    selected: &Selected,
    tag: &str,
    uid: bool,
    search: Search,
) -> Result<Reply, Stop> {
    let (found, modseq) = find(session, selected, &search.key).await?;
    let matches: Vec<Match> = found.iter().map(|row| Match::new(row, uid)).collect();
    let out = session.connection.output();
    match &search.return_options {
        None => {
            let modseq = if modseq { highest(&matches) } else { None };
            response::search(out, matches.iter().map(|found| found.number), modseq);
        }
        Some(options) => {
            let numbers: Vec<u32> = matches.iter().map(|found| found.number).collect();
            response::esearch(out, tag, uid, results(options, &matches, &numbers, modseq));
        }
    }
    Ok(Reply::ok("Search completed"))
}

pub(super) fn highest(matches: &[Match]) -> Option<ModSeq> {
    matches.iter().map(|found| found.modseq).max()
}

/// What RETURN asks for; without options ALL. The MODSEQ is the highest of the messages that are named (RFC 4731 §3.2).
pub(super) fn results<'a>(options: &[SearchReturn], matches: &[Match], numbers: &'a [u32], modseq: bool) -> Esearch<'a> {
    let asked = |option: SearchReturn| options.contains(&option) || (options.is_empty() && option == SearchReturn::All);
    let (first, last) = (matches.first(), matches.last());
    let min = first.filter(|_| asked(SearchReturn::Min));
    let max = last.filter(|_| asked(SearchReturn::Max));
    let names_all = asked(SearchReturn::All) || asked(SearchReturn::Count);
    let highest = if names_all { highest(matches) } else { min.into_iter().chain(max).map(|found| found.modseq).max() };
    Esearch {
        min: min.map(|found| found.number),
        max: max.map(|found| found.number),
        all: asked(SearchReturn::All).then_some(numbers),
        count: asked(SearchReturn::Count).then(|| u32::try_from(matches.len()).unwrap_or(u32::MAX)),
        modseq: highest.filter(|_| modseq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches() -> (Vec<Match>, Vec<u32>) {
        let found = |(number, modseq)| Match { number, modseq: ModSeq::new(modseq).unwrap() };
        let matches: Vec<Match> = [(2, 30), (5, 90), (9, 10)].map(found).into();
        let numbers = matches.iter().map(|found| found.number).collect();
        (matches, numbers)
    }

    #[test]
    fn return_names_what_was_asked_for() {
        let (matches, numbers) = matches();
        let asked = results(&[SearchReturn::Min, SearchReturn::Count], &matches, &numbers, false);
        assert_eq!(asked, Esearch { min: Some(2), count: Some(3), ..Esearch::default() });
        let all = results(&[], &matches, &numbers, false);
        assert_eq!(all, Esearch { all: Some(&numbers), ..Esearch::default() });
    }

    #[test]
    fn the_modseq_is_the_highest_of_the_messages_named() {
        let (matches, numbers) = matches();
        let modseq = |options: &[SearchReturn]| results(options, &matches, &numbers, true).modseq.map(ModSeq::get);
        assert_eq!(modseq(&[SearchReturn::Min]), Some(30));
        assert_eq!(modseq(&[SearchReturn::Max]), Some(10));
        assert_eq!(modseq(&[SearchReturn::Min, SearchReturn::Max]), Some(30));
        assert_eq!(modseq(&[SearchReturn::Min, SearchReturn::All]), Some(90));
    }

    #[test]
    fn nothing_found_has_a_count_and_no_least() {
        let asked = results(&[SearchReturn::Min, SearchReturn::Count, SearchReturn::All], &[], &[], true);
        assert_eq!(asked, Esearch { count: Some(0), all: Some(&[]), ..Esearch::default() });
    }
}
