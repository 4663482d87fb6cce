//! LIST, basic and extended (RFC 3501 §6.3.8, RFC 5258, RFC 5819, RFC 6154, RFC 9590), and LSUB.

mod pattern;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use storage::{Account, MailboxEntry, MailboxName, Rights, SpecialUse, Status, StorageError};

use self::pattern::Pattern;
use super::{metadata, status};
use crate::imap::{
    foreign::list::{Links, Theirs},
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::State,
    wire::{
        command::{Depth, List, StatusItem},
        enabled::Enabled,
        response::{self, ListLine},
    },
};

/// Mailboxes whose numbers are looked up together: enough to have many requests under way, few enough that the first lines come soon.
const TOGETHER: usize = 512;

/// LIST.
pub async fn list<H: Holding>(session: &mut Session<H>, state: &State, list: &List) -> Result<Reply, Stop> {
    let names = session.enabled.names();
    if let ([pattern], false) = (list.patterns.as_slice(), list.extended)
        && pattern.is_empty()
    {
        let root = ListLine { attributes: &["\\NoSelect"], ..ListLine::default() };
        response::list(session.connection.output(), root, names);
        return Ok(Reply::ok("List completed"));
    }
    if list.select_recursive_match && !list.select_subscribed {
        return Err(Reply::bad("RECURSIVEMATCH needs SUBSCRIBED beside it").into());
    }
    let mut entries = session.held.run(|account| account.list()).await?;
    let theirs = session.list_theirs(list, &mut entries).await;
    let mut links = Links::default();
    let patterns = list.patterns.clone();
    let reference = list.reference.clone();
    // Thousands of names with any pattern: not beside other sessions.
    let matching = move |_: &Arc<Account>| {
        let fits = matching(&entries, &reference, &patterns);
        Ok((entries, fits))
    };
    let (entries, fits) = session.held.run(matching).await?;
    let lines = select(&entries, &fits, list);
    if let Some(items) = &list.return_status {
        status::notice(session, state, items);
    }
    let mut lines = lines.into_iter().peekable();
    while lines.peek().is_some() {
        let together: Vec<Line<'_>> = lines.by_ref().take(TOGETHER).collect();
        let mut looked_up = match &list.return_status {
            Some(items) => numbers(session, &together, &theirs, items).await?,
            None => HashMap::new(),
        };
        let mut annotations = annotations(session, &together, &theirs, &list.return_metadata).await?;
        for line in together {
            let attributes = attributes(line.entry, list, session.enabled);
            let printed = ListLine {
                attributes: &attributes,
                mailbox: line.entry.name.as_str(),
                subscribed_child: line.subscribed_child,
                ..ListLine::default()
            };
            response::list(session.connection.output(), printed, names);
            if let Some(items) = &list.return_status
                && let Some((numbers, object_id)) = looked_up.remove(&line.entry.name)
            {
                let values = status::values(items, &numbers, session.settings.message_bytes, object_id.as_deref());
                response::status(session.connection.output(), line.entry.name.as_str(), &values, names);
            }
            if let Some(annotations) = annotations.remove(&line.entry.name) {
                let told = metadata::select(&annotations, &list.return_metadata, Depth::Zero);
                metadata::write(session, Some(&line.entry.name), &told).await?;
            }
            if list.return_my_rights && line.entry.selectable {
                let rights = theirs.get(&line.entry.name).map_or(Rights::ALL, |(_, rights)| *rights);
                response::my_rights(session.connection.output(), line.entry.name.as_str(), &rights.with_obsolete(), names);
            }
            if let Some((place, _)) = theirs.get(&line.entry.name) {
                session.tell_theirs(state, &mut links, place, &line.entry.name, list).await?;
            }
            session.connection.flush_if_large().await?;
        }
    }
    Ok(Reply::ok("List completed"))
}

/// Tells a client with IMAP4rev2 about one mailbox; `old_name`: how it was called before, or by the client (RFC 9051 §6.3.9.7).
pub async fn announce<H: Holding>(session: &mut Session<H>, name: &MailboxName, old_name: Option<&str>) -> Result<(), Stop> {
    let entries = session.held.run(|account| account.list()).await?;
    let Some(entry) = entries.iter().find(|entry| entry.name == *name) else { return Ok(()) };
    // Subscriptions and special uses are the owner's own affair.
    let entry = match session.guest {
        Some(_) => MailboxEntry { subscribed: false, special_use: None, ..entry.clone() },
        None => entry.clone(),
    };
    let attributes = attributes(&entry, &List { return_subscribed: true, ..List::default() }, session.enabled);
    let shown = session.shown(name.as_str());
    let line = ListLine { attributes: &attributes, mailbox: &shown, old_name, ..ListLine::default() };
    response::list(session.connection.output(), line, session.enabled.names());
    Ok(())
}

/// Tells of one name, whether it is a mailbox, a level, or gone (RFC 5465 §5.4, §5.5); `entries` as the account lists them, in order.
pub fn tell<H: Holding>(session: &mut Session<H>, entries: &[MailboxEntry], name: &MailboxName, old_name: Option<&str>) {
    let extended = List { return_subscribed: true, extended: true, ..List::default() };
    let place = |name: &MailboxName| (!name.is_inbox(), name.clone());
    let entry = entries.binary_search_by_key(&place(name), |entry| place(&entry.name)).ok().and_then(|at| entries.get(at));
    let attributes = entry.map_or_else(|| vec!["\\NonExistent"], |entry| attributes(entry, &extended, session.enabled));
    let line = ListLine { attributes: &attributes, mailbox: name.as_str(), old_name, ..ListLine::default() };
    response::list(session.connection.output(), line, session.enabled.names());
}

/// What STATUS can say: the numbers, and the MAILBOXID if that is wanted.
type Looked = (Status, Option<Arc<str>>);

/// The numbers of those that can be opened now: LIST goes on without the others (RFC 5819 §2).
async fn numbers<H: Holding>(
    session: &mut Session<H>,
    lines: &[Line<'_>],
    theirs: &Theirs,
    items: &[StatusItem],
) -> Result<HashMap<MailboxName, Looked>, Stop> {
    let names: Vec<MailboxName> = own(lines, theirs).map(|entry| entry.name.clone()).collect();
    let (wants_id, wants_sizes) = (items.contains(&StatusItem::MailboxId), status::wants_sizes(items));
    let look = move |account: &Arc<Account>| {
        let statuses = account.statuses(&names, wants_sizes)?;
        let ids = if wants_id { account.object_ids(&names)? } else { Vec::new() };
        let ids = ids.into_iter().map(|id| id.map(Some)).chain(std::iter::repeat_with(|| Ok(None)));
        let looked = statuses.into_iter().zip(ids).map(|(status, id)| Ok((status?, id?)));
        Ok(names.into_iter().zip(looked).collect::<Vec<_>>())
    };
    let looked: Vec<(MailboxName, Result<Looked, StorageError>)> = session.held.run(look).await?;
    let mut numbers = HashMap::with_capacity(lines.len());
    for (name, looked) in looked {
        match looked {
            Ok(looked) => {
                numbers.insert(name, looked);
            }
            Err(error @ (StorageError::LeaseLost(_) | StorageError::Closing(_))) => return Err(error.into()),
            Err(error) => tracing::debug!(mailbox = %name, %error, "LIST leaves STATUS out"),
        }
    }
    Ok(numbers)
}

/// The annotations of those that can be opened, if any are wanted.
async fn annotations<H: Holding>(
    session: &mut Session<H>,
    lines: &[Line<'_>],
    theirs: &Theirs,
    wanted: &[String],
) -> Result<HashMap<MailboxName, metadata::Looked>, Stop> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let entries: Vec<MailboxEntry> = own(lines, theirs).cloned().collect();
    let looked = session.held.run(move |account| metadata::look_all(account, &entries)).await?;
    Ok(looked.into_iter().collect())
}

/// Those that are this account's own mailboxes.
fn own<'a>(lines: &'a [Line<'_>], theirs: &'a Theirs) -> impl Iterator<Item = &'a MailboxEntry> {
    lines.iter().map(|line| line.entry).filter(|entry| entry.selectable && !theirs.contains_key(&entry.name))
}

/// One line of the answer.
struct Line<'a> {
    entry: &'a MailboxEntry,
    subscribed_child: bool,
}

/// Which of the entries have names that fit.
fn matching(entries: &[MailboxEntry], reference: &str, patterns: &[String]) -> Vec<bool> {
    let patterns: Vec<Pattern> = patterns.iter().map(|pattern| Pattern::new(reference, pattern)).collect();
    entries.iter().map(|entry| patterns.iter().any(|pattern| pattern.matches(&entry.name))).collect()
}

/// Which entries a LIST names, in order. `fits`: as [`matching`] says.
fn select<'a>(entries: &'a [MailboxEntry], fits: &[bool], list: &List) -> Vec<Line<'a>> {
    let selected = |entry: &MailboxEntry| {
        let selected = if list.select_subscribed {
            entry.subscribed
        } else {
            entry.selectable || entry.has_children // a subscription alone is no mailbox
        };
        selected && (!list.select_special_use || entry.special_use.is_some())
    };
    let (mut above, mut above_untold) = (HashSet::new(), HashSet::new());
    if list.select_recursive_match {
        let subscribed = || entries.iter().zip(fits).filter(|(entry, _)| entry.subscribed);
        above = levels_above(subscribed().map(|(entry, _)| entry));
        // Of a child that is told of itself, its parents need not tell (RFC 5258 §3.5).
        above_untold = levels_above(subscribed().filter(|(entry, fits)| !**fits || !selected(entry)).map(|(entry, _)| entry));
    }
    let line = |entry: &'a MailboxEntry| {
        let is_above = |levels: &HashSet<&str>| levels.contains(entry.name.as_str());
        let told = selected(entry) || is_above(&above_untold);
        told.then(|| Line { entry, subscribed_child: is_above(&above) })
    };
    entries.iter().zip(fits).filter(|(_, fits)| **fits).filter_map(|(entry, _)| line(entry)).collect()
}

fn levels_above<'a>(entries: impl Iterator<Item = &'a MailboxEntry>) -> HashSet<&'a str> {
    let names = entries.map(|entry| entry.name.as_str());
    names.flat_map(|name| name.match_indices('/').filter_map(|(at, _)| name.get(..at))).collect()
}

fn attributes(entry: &MailboxEntry, list: &List, enabled: Enabled) -> Vec<&'static str> {
    let mut attributes = Vec::with_capacity(4);
    if !entry.selectable {
        attributes.push(if list.extended || enabled.rev2 { "\\NonExistent" } else { "\\NoSelect" });
    }
    if list.select_subscribed || list.return_subscribed {
        attributes.extend(entry.subscribed.then_some("\\Subscribed"));
    }
    attributes.push(if entry.has_children { "\\HasChildren" } else { "\\HasNoChildren" });
    attributes.extend(entry.special_use.map(SpecialUse::as_str));
    attributes
}

/// LSUB (RFC 3501 §6.3.9).
pub async fn lsub<H: Holding>(session: &mut Session<H>, reference: &str, pattern: &str) -> Result<Reply, Stop> {
    let names = session.enabled.names();
    let (reference, pattern) = (reference.to_owned(), pattern.to_owned());
    let look = move |account: &Arc<Account>| {
        let found = subscriptions(&account.list()?, &reference, &pattern);
        Ok(found)
    };
    let found = session.held.run(look).await?;
    for (mailbox, is_level) in found {
        let (attributes, mailbox): (&[&str], _) = (if is_level { &["\\NoSelect"] } else { &[] }, mailbox.as_str());
        response::lsub(session.connection.output(), ListLine { attributes, mailbox, ..ListLine::default() }, names);
        session.connection.flush_if_large().await?;
    }
    Ok(Reply::ok("Lsub completed"))
}

/// Subscribed names that fit; with `%` also levels above subscribed names, as \NoSelect (`true`): they are not subscribed themselves.
fn subscriptions(entries: &[MailboxEntry], reference: &str, pattern: &str) -> BTreeMap<String, bool> {
    let wants_levels = pattern.contains('%');
    let pattern = Pattern::new(reference, pattern);
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.subscribed) {
        if pattern.matches(&entry.name) {
            found.insert(entry.name.as_str().to_owned(), false);
        } else if wants_levels {
            for parent in pattern.matching_parents(&entry.name) {
                found.entry(parent.to_owned()).or_insert(true);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> MailboxEntry {
        let name = MailboxName::parse(name).unwrap();
        MailboxEntry { name, selectable: true, subscribed: false, special_use: None, has_children: false }
    }
    fn entries() -> Vec<MailboxEntry> {
        vec![
            MailboxEntry { subscribed: true, ..entry("INBOX") },
            MailboxEntry { selectable: false, has_children: true, ..entry("Archive") },
            MailboxEntry { subscribed: true, ..entry("Archive/2026") },
            MailboxEntry { special_use: Some(SpecialUse::Sent), ..entry("Sent") },
            MailboxEntry { subscribed: true, selectable: false, ..entry("Gone") },
        ]
    }
    fn named(list: &List) -> Vec<String> {
        let entries = entries();
        let fits = matching(&entries, &list.reference, &list.patterns);
        select(&entries, &fits, list)
            .iter()
            .map(|line| format!("{}{}", line.entry.name, if line.subscribed_child { "+" } else { "" }))
            .collect()
    }
    fn list(pattern: &str) -> List {
        List { patterns: vec![pattern.to_owned()], ..List::default() }
    }

    #[test]
    fn plain_list_names_what_is_there() {
        assert_eq!(named(&list("*")), ["INBOX", "Archive", "Archive/2026", "Sent"]);
        assert_eq!(named(&list("%")), ["INBOX", "Archive", "Sent"]);
    }

    #[test]
    fn subscribed_names_need_no_mailbox() {
        assert_eq!(named(&List { select_subscribed: true, ..list("*") }), ["INBOX", "Archive/2026", "Gone"]);
    }

    #[test]
    fn recursive_match_names_the_levels_above() {
        let asked = List { select_subscribed: true, select_recursive_match: true, ..list("%") };
        assert_eq!(named(&asked), ["INBOX", "Archive+", "Gone"]);
        assert_eq!(named(&List { patterns: vec!["*".into()], ..asked }), ["INBOX", "Archive/2026", "Gone"]);
    }

    #[test]
    fn special_use_selects() {
        assert_eq!(named(&List { select_special_use: true, ..list("*") }), ["Sent"]);
        assert_eq!(attributes(&entries()[3], &list("*"), Enabled::NOTHING), ["\\HasNoChildren", "\\Sent"]);
    }

    #[test]
    fn several_patterns_name_each_mailbox_once() {
        let asked = List { patterns: vec!["*".into(), "INBOX".into()], ..List::default() };
        assert_eq!(named(&asked).iter().filter(|name| *name == "INBOX").count(), 1);
    }

    #[test]
    fn a_level_that_is_no_mailbox_says_so() {
        assert_eq!(attributes(&entries()[1], &list("*"), Enabled::NOTHING), ["\\NoSelect", "\\HasChildren"]);
        assert_eq!(attributes(&entries()[1], &List { extended: true, ..list("*") }, Enabled::NOTHING), ["\\NonExistent", "\\HasChildren"]);
    }

    #[test]
    fn lsub_names_levels_above_subscriptions_only_for_percent_signs() {
        let entries = entries();
        let names = |pattern: &str| subscriptions(&entries, "", pattern).into_iter().collect::<Vec<_>>();
        let told = |lines: &[(&str, bool)]| lines.iter().map(|(name, told)| ((*name).to_owned(), *told)).collect::<Vec<_>>();
        assert_eq!(names("%"), told(&[("Archive", true), ("Gone", false), ("INBOX", false)]));
        assert_eq!(names("*"), told(&[("Archive/2026", false), ("Gone", false), ("INBOX", false)]));
    }
}
