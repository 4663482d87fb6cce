//! SEARCH and UID SEARCH: which messages of the view match (`search/find.rs`), and the answer (RFC 3501 §7.2.5, RFC 4731, RFC 5267, RFC 7162 §3.1.5).

use index::ModSeq;

use super::{
    contexts::{self, FoundResults},
    search::{
        RowFacts, filters,
        find::{Found, Most, find},
    },
};
use crate::imap::{
    holding::Holding,
    limits::Stopped,
    reply::{Reply, Stop},
    session::Session,
    sets::SavedUids,
    state::Selected,
    wire::{
        command::{Search, SearchReturn},
        response::{self, Esearch, Scope},
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
    selected: &mut Selected,
    tag: &str,
    uid: bool,
    search: Search,
) -> Result<Reply, Stop> {
    selected.contexts.refuse_reuse(tag)?;
    let saves = search.return_options.as_ref().is_some_and(|options| options.contains(&SearchReturn::Save));
    let most = Most::of(session.settings.message_limits, None);
    let Found { rows: found, modseq, stopped, .. } = match find(session, selected, &search.key, most).await {
        Ok(found) => found,
        Err(stop) => {
            if saves {
                selected.saved = SavedUids::default(); // RFC 5182 §2.1
            }
            return Err(stop);
        }
    };
    let matches: Vec<Match> = found.iter().map(|row| Match::new(row, uid)).collect();
    let out = session.connection.output();
    match &search.return_options {
        None if session.enabled.rev2 => {
            let numbers: Vec<u32> = matches.iter().map(|found| found.number).collect();
            response::esearch(out, tag, uid, results(&[], &matches, &numbers, modseq));
        }
        None => {
            let modseq = if modseq { highest(&matches) } else { None };
            let numbers = matches.iter().map(|found| found.number);
            match stopped {
                None => response::search(out, numbers, modseq),
                // As it was searched: from the highest UID down.
                Some(_) => response::search(out, numbers.rev(), modseq),
            }
        }
        Some(options) => {
            if saves {
                selected.saved = SavedUids::new(saved(options, &found).iter().map(|row| row.uid));
            }
            let numbers: Vec<u32> = matches.iter().map(|found| found.number).collect();
            if options[..] != [SearchReturn::Save] {
                response::esearch(out, tag, uid, results(options, &matches, &numbers, modseq));
            }
        }
    }
    if search.return_options.as_ref().is_some_and(|options| options.contains(&SearchReturn::Update)) {
        if stopped.is_some() {
            contexts::refuse(session, tag, "Not all messages were searched, name fewer");
        } else {
            let results = FoundResults::Mailbox(found.iter().map(|row| row.uid).collect());
            let key = filters::resolve(session, &search.key).await?;
            contexts::begin(
                session,
                selected,
                tag,
                contexts::Found { uid, key, results, items: search.update_items, scope: Scope::default() },
            );
        }
    }
    let reply = Reply::ok(if saves { "Search completed, result saved" } else { "Search completed" });
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// What SAVE keeps of the messages found: all of them, unless only some are told of (RFC 5182 §2.4, RFC 9394 §3.2).
pub(super) fn saved(options: &[SearchReturn], found: &[RowFacts]) -> Vec<RowFacts> {
    let narrows = |option: &SearchReturn| matches!(option, SearchReturn::Min | SearchReturn::Max | SearchReturn::Partial(_));
    if !options.iter().any(narrows) || options.contains(&SearchReturn::All) || options.contains(&SearchReturn::Count) {
        return found.to_vec();
    }
    let mut kept: Vec<RowFacts> = Vec::new();
    for option in options {
        match option {
            SearchReturn::Min => kept.extend(found.first()),
            SearchReturn::Max => kept.extend(found.last()),
            SearchReturn::Partial(range) => kept.extend(found.get(range.positions(found.len())).unwrap_or_default()),
            SearchReturn::All | SearchReturn::Count | SearchReturn::Save | SearchReturn::Context | SearchReturn::Update => {}
        }
    }
    kept.sort_unstable_by_key(|row| row.uid);
    kept.dedup_by_key(|row| row.uid);
    kept
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
    let range = options.iter().find_map(|option| match option {
        SearchReturn::Partial(range) => Some(*range),
        _ => None,
    });
    let places = range.map_or(0..0, |range| range.positions(numbers.len()));
    let names_all = asked(SearchReturn::All) || asked(SearchReturn::Count);
    let named = matches.get(places.clone()).unwrap_or_default();
    let highest = if names_all { highest(matches) } else { min.into_iter().chain(max).chain(named).map(|found| found.modseq).max() };
    Esearch {
        min: min.map(|found| found.number),
        max: max.map(|found| found.number),
        all: asked(SearchReturn::All).then_some(numbers),
        count: asked(SearchReturn::Count).then(|| u32::try_from(matches.len()).unwrap_or(u32::MAX)),
        modseq: highest.filter(|_| modseq),
        partial: range.map(|range| (range, numbers.get(places).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::wire::command::PartialRange;

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

    fn rows(uids: &[u32]) -> Vec<RowFacts> {
        (1..)
            .zip(uids)
            .map(|(sequence, uid)| RowFacts { uid: index::Uid::new(*uid).unwrap(), ..super::super::sort::tests::row(sequence, 0, 0) })
            .collect()
    }

    #[test]
    fn what_is_saved_is_what_the_tables_of_the_rfcs_say() {
        use SearchReturn::{All, Count, Max, Min, Partial, Save};
        // RFC 5182, example 10: the messages 2,10:15,21.
        let found = rows(&[2, 10, 11, 12, 13, 14, 15, 21]);
        let all: Vec<u32> = found.iter().map(|row| row.uid.get()).collect();
        let last_three = Partial(PartialRange { one: 1, other: 3, from_end: true });
        for (options, expected) in [
            (&[Save][..], &all[..]),
            (&[All, Save], &all),
            (&[Save, Min], &[2]),
            (&[Max, Save, Min], &[2, 21]),
            (&[Max, Save, Min, Count], &all),
            (&[All, Save, Min], &all),
            (&[Save, last_three], &[14, 15, 21]),
            (&[Save, last_three, Min], &[2, 14, 15, 21]),
            (&[Save, last_three, Max], &[14, 15, 21]),
            (&[Save, last_three, Count], &all),
        ] {
            let kept: Vec<u32> = saved(options, &found).iter().map(|row| row.uid.get()).collect();
            assert_eq!(kept, expected, "{options:?}");
        }
        assert!(saved(&[Save, Min, Max], &[]).is_empty());
    }

    #[test]
    fn a_part_of_the_results_is_cut_from_either_end() {
        let (matches, numbers) = matches();
        for (one, other, from_end, expected) in [
            (1, 2, false, &[2, 5][..]),
            (2, 1, false, &[2, 5]),
            (2, 500, false, &[5, 9]),
            (4, 9, false, &[]),
            (1, 2, true, &[5, 9]),
            (u32::MAX, 3, true, &[2]),
            (4, 9, true, &[]),
        ] {
            let range = PartialRange { one, other, from_end };
            let told = results(&[SearchReturn::Partial(range)], &matches, &numbers, false);
            assert_eq!(told, Esearch { partial: Some((range, expected)), ..Esearch::default() });
        }
    }
}
