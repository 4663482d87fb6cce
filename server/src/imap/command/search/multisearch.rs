//! ESEARCH (RFC 7377): SEARCH in several mailboxes with one command, whichever is selected.
//!
//! - The selected mailbox is searched as its session sees it, every other as it is now; nothing is selected by it.
//! - A mailbox without a match is not mentioned, one that is not there neither (RFC 7377 §2.1, §2.2).
//! - Mailboxes are searched one after another: a search of all costs no more at a time than one of the largest.

use std::collections::BTreeSet;

use storage::{MailboxName, StorageError};

use super::{
    filters,
    find::{Found, Most, find},
};
use crate::imap::{
    command::{
        contexts::{self, FoundResults},
        mailboxes,
        search_command::{Match, results, saved},
    },
    holding::Holding,
    limits::Stopped,
    reply::{Reply, Stop},
    session::Session,
    sets::SavedUids,
    state::{Selected, State},
    wire::{
        command::{Esearch, MailboxArgument, Search, SearchReturn, Source},
        response::{self, Code, Condition, Scope},
    },
};

/// ESEARCH.
pub async fn esearch<H: Holding>(session: &mut Session<H>, state: &mut State, tag: &str, asked: Esearch) -> Result<Reply, Stop> {
    let Esearch { sources, search } = asked;
    let options = search.return_options.as_deref().unwrap_or_default();
    let in_selected = sources.contains(&Source::Selected);
    let alone = in_selected && sources.len() == 1;
    let (saves, updates) = (options.contains(&SearchReturn::Save), options.contains(&SearchReturn::Update));
    if matches!(state, State::Elsewhere) && (in_selected || updates) {
        return Err(Reply::no(Code::Cannot, "The selected mailbox is another user's: SEARCH finds what is in it").into());
    }
    if in_selected || updates {
        state.selected()?; // BAD without one (RFC 7377 §2.2)
    }
    if saves && !alone {
        return Err(Reply::bad("SAVE goes with the selected mailbox alone (RFC 7377, 2.2)").into());
    }
    if let State::Selected(selected) = &*state {
        selected.contexts.refuse_reuse(tag)?;
    }
    if session.names_foreign(&sources) {
        return Err(Reply::no(Code::Cannot, "Mailboxes of other users are searched one at a time: SELECT and SEARCH").into());
    }
    let key = filters::resolve(session, &search.key).await?;
    if key.asks_modseq() {
        session.enable_condstore(state.opened());
    }
    let search = Search { key, ..search };
    let selected_name = state.opened().map(|selected| selected.mailbox.name());
    let names = resolve(session, &sources, selected_name.as_ref());
    let mut followed = false;
    // Of several mailboxes a client could not tell which one to go on in.
    let refused = (names.len() > 1).then_some("Searching in several mailboxes at once");
    let mut most = Most::of(session.settings.message_limits, refused);
    let mut stopped = None;
    for name in names {
        if Some(&name) == selected_name.as_ref() {
            let selected = state.selected()?;
            let found = in_mailbox(session, selected, tag, &search, &mut most).await.map(|found| {
                stopped = stopped.or(found.stopped);
                found.rows
            });
            match found {
                Ok(found) if saves => selected.saved = SavedUids::new(saved(&search.options(), &found).iter().map(|row| row.uid)),
                Err(stop) => {
                    if saves {
                        selected.saved = SavedUids::default(); // RFC 5182 §2.1
                    }
                    return Err(stop);
                }
                Ok(_) if updates && stopped.is_some() => {
                    followed = true;
                    contexts::refuse(session, tag, "Not all messages were searched, name fewer");
                }
                Ok(found) if updates => {
                    followed = true;
                    let results = FoundResults::Mailbox(found.iter().map(|row| row.uid).collect());
                    let scope = scope_of(session, selected);
                    let items = search.update_items.clone();
                    contexts::begin(session, selected, tag, contexts::Found { uid: true, key: search.key.clone(), results, items, scope });
                }
                Ok(_) => {}
            }
        } else if let Some(mut aside) = open(session, &name).await? {
            stopped = stopped.or(in_mailbox(session, &mut aside, tag, &search, &mut most).await?.stopped);
        }
        session.connection.flush_if_large().await?;
    }
    if updates && !followed {
        let why = "Only the selected mailbox is followed, and it was not searched";
        response::untagged(session.connection.output(), Condition::No, Some(&Code::NoUpdate(tag)), why);
    }
    let reply = Reply::ok(if saves { "Search completed, result saved" } else { "Search completed" });
    Ok(Stopped::told(stopped, reply, session.connection.output()))
}

/// Searches one mailbox and tells what was found, if there is anything. `most`: how many messages may be looked at; fewer afterwards.
async fn in_mailbox<H: Holding>(
    session: &mut Session<H>,
    selected: &mut Selected,
    tag: &str,
    search: &Search,
    most: &mut Option<Most>,
) -> Result<Found, Stop> {
    let found = find(session, selected, &search.key, *most).await?;
    if let Some(most) = most {
        most.left = most.left.saturating_sub(found.searched);
    }
    let options = search.options();
    if found.rows.is_empty() || options[..] == [SearchReturn::Save] {
        return Ok(found);
    }
    let matches: Vec<Match> = found.rows.iter().map(|row| Match::new(row, true)).collect();
    let numbers: Vec<u32> = matches.iter().map(|found| found.number).collect();
    let scope = scope_of(session, selected);
    response::esearch_in(session.connection.output(), tag, &scope, results(&options, &matches, &numbers, found.modseq));
    Ok(found)
}

fn scope_of<H: Holding>(session: &Session<H>, selected: &Selected) -> Scope {
    Scope::new(selected.mailbox.name().as_str(), selected.mailbox.uid_validity(), session.enabled.names())
}

/// A mailbox to look into; `None`: it is gone.
async fn open<H: Holding>(session: &Session<H>, name: &MailboxName) -> Result<Option<Selected>, Stop> {
    let name = name.clone();
    let opened = session.held.run(move |account| match account.mailbox(&name) {
        Ok(mailbox) => {
            mailbox.refresh(false)?;
            Ok(Some(mailbox))
        }
        Err(StorageError::NoMailbox(_)) => Ok(None),
        Err(error) => Err(error),
    });
    Ok(opened.await?.map(Selected::aside))
}

/// The mailboxes that the sources name, each once, in order.
fn resolve<H: Holding>(session: &Session<H>, sources: &[Source], selected: Option<&MailboxName>) -> BTreeSet<MailboxName> {
    let (names, subscriptions) = session.held.account().known_mailboxes();
    let known: BTreeSet<MailboxName> = names.into_values().collect();
    let mut wanted = BTreeSet::new();
    let valid =
        |names: &[MailboxArgument]| -> Vec<MailboxName> { names.iter().filter_map(|name| mailboxes::valid(name.clone()).ok()).collect() };
    for source in sources {
        match source {
            Source::Selected => wanted.extend(selected.cloned()),
            Source::Inboxes | Source::Personal => wanted.extend(known.iter().cloned()),
            Source::Subscribed => wanted.extend(known.intersection(&subscriptions).cloned()),
            Source::Mailboxes(names) => wanted.extend(valid(names).into_iter().filter(|name| known.contains(name))),
            Source::Subtree(roots) | Source::SubtreeOne(roots) => {
                let deep = matches!(source, Source::Subtree(_));
                let roots = valid(roots);
                let level = |name: &MailboxName| name.as_str().matches('/').count();
                let is_in = |name: &MailboxName, root: &MailboxName| {
                    name == root || (name.is_below(root) && (deep || level(name) == level(root) + 1))
                };
                wanted.extend(known.iter().filter(|name| roots.iter().any(|root| is_in(name, root))).cloned());
            }
        }
    }
    wanted
}
