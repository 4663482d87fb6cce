//! NOTIFY (RFC 5465): what a client wants to be told of its mailboxes, and telling it, also between commands.
//!
//! - Of the selected mailbox, [`Heard`] says what `updates.rs` may tell; of all others, numbers and names are compared with what the client was told last.
//! - Nothing is looked for on disk. A mailbox that is not open changes by other programs alone, and that is seen when somebody opens it.
//! - What happened in a mailbox meanwhile is told together, [`SETTLE`] after it began, or with the answer to a command that comes before that
//!   (`a_command_does_not_wait_until_what_is_to_tell_has_settled`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::pending,
    iter::successors,
    sync::Arc,
    time::Duration,
};

use index::{MailboxId, ModSeq, Uid};
use storage::{Account, Mailbox, MailboxEntry, MailboxName, Numbers, StorageError};
use tokio::sync::watch;

use super::{contexts, fetch, list, mailboxes, status};
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::{Selected, State},
    updates,
    view::Expunges,
    wire::{
        command::{EventGroup, Events, FetchItem, Filter, MailboxArgument, Notify, StatusItem},
        response::{self, Code, Condition},
    },
};

/// How long events are gathered: a delivery to many mailboxes, or a STORE of many messages in small steps, is told once.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What the client hears of the selected mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// New and expunged messages.
    pub messages: bool,
    /// Changes of flags.
    pub flags: bool,
    /// Because NOTIFY asked for it: between commands too, and changes of flags with the UID (RFC 5465 §5.1).
    pub by_notify: bool,
    /// Expunges wait for a command that allows them.
    pub delayed: bool,
    /// What to send of new messages.
    pub items: Vec<FetchItem>,
}

impl Heard {
    /// Without NOTIFY: while commands run.
    pub const ALWAYS: Heard = Heard { messages: true, flags: true, by_notify: false, delayed: false, items: Vec::new() };
    const NOTHING: Heard = Heard { messages: false, flags: false, by_notify: true, delayed: false, items: Vec::new() };
}

/// What a client follows, and what it was told of it.
pub struct Following {
    groups: Vec<Group>,
    heard: Heard,
    activity: watch::Receiver<u64>,
    /// Moves with the names and the subscriptions.
    lists: watch::Receiver<u64>,
    /// By id: renamed mailboxes keep theirs.
    names: BTreeMap<MailboxId, MailboxName>,
    subscriptions: BTreeSet<MailboxName>,
    numbers: HashMap<MailboxId, Numbers>,
    /// Changes of annotations so far.
    annotations: u64,
    /// Something may have happened that was not looked at.
    is_due: bool,
}

struct Group {
    which: Which,
    events: Events,
}

enum Which {
    All,
    Subscribed,
    Below(BTreeSet<MailboxName>),
    Named(BTreeSet<MailboxName>),
}

/// Which mailboxes there are.
struct Seen {
    names: BTreeMap<MailboxId, MailboxName>,
    subscriptions: BTreeSet<MailboxName>,
    entries: Vec<MailboxEntry>,
}

fn look(account: &Arc<Account>) -> Result<Seen, StorageError> {
    let (names, subscriptions) = account.known_mailboxes();
    Ok(Seen { names, subscriptions, entries: account.list()? })
}

/// NOTIFY.
pub async fn notify<H: Holding>(session: &mut Session<H>, state: &mut State, asked: Notify) -> Result<Reply, Stop> {
    let (with_status, groups) = match asked {
        Notify::Unsupported => return Err(Reply::no(Code::BadEvent, "Some of these events are not known here").into()),
        Notify::None => (false, Vec::new()),
        Notify::Set { status, groups } => (status, groups),
    };
    let heard = heard(&groups);
    let account = session.held.account();
    let (activity, lists, annotations) = (account.activity(), account.list_changes(), account.annotation_changes());
    let groups: Vec<Group> =
        groups.into_iter().filter_map(|EventGroup { filter, events }| Some(Group { which: which(&filter)?, events })).collect();
    let mut following = Following {
        groups,
        heard,
        activity,
        lists,
        names: BTreeMap::new(),
        subscriptions: BTreeSet::new(),
        numbers: HashMap::new(),
        annotations,
        is_due: false,
    };
    if following.groups.iter().any(|group| group.events != Events::default()) {
        let (names, subscriptions, numbers) = session
            .held
            .run(|account| {
                let (names, subscriptions) = account.known_mailboxes();
                Ok((names, subscriptions, account.all_numbers()?))
            })
            .await?;
        (following.names, following.subscriptions, following.numbers) = (names, subscriptions, numbers);
    } else {
        following.groups.clear();
    }
    if with_status {
        tell_all_numbers(session, state, &following).await?;
    }
    if let State::Selected(selected) = state {
        // A NOOP of its own (RFC 5465 §3.1): to who heard nothing so far as well.
        if !selected.heard.messages {
            *selected.heard = following.heard.clone();
        }
        updates::tell(&mut session.connection, selected, session.enabled, Expunges::Tell, &[]).await?;
        announce(session, selected).await?;
        *selected.heard = following.heard.clone();
    }
    session.following = Some(Box::new(following));
    Ok(Reply::ok("Notify completed"))
}

fn heard(groups: &[EventGroup]) -> Heard {
    let of_selected = groups.iter().find(|group| matches!(group.filter, Filter::Selected | Filter::SelectedDelayed));
    let Some(EventGroup { filter, events }) = of_selected else { return Heard::NOTHING };
    let delayed = *filter == Filter::SelectedDelayed;
    Heard { messages: events.messages, flags: events.flags, by_notify: true, delayed, items: events.items.clone() }
}

/// `None`: the selected mailbox. Names that no mailbox can have are ignored, as those of mailboxes that are not there.
fn which(filter: &Filter) -> Option<Which> {
    let names = |names: &[MailboxArgument]| names.iter().filter_map(|name| mailboxes::valid(name.clone()).ok()).collect();
    Some(match filter {
        Filter::Selected | Filter::SelectedDelayed => return None,
        Filter::Inboxes | Filter::Personal => Which::All,
        Filter::Subscribed => Which::Subscribed,
        Filter::Subtree(roots) => Which::Below(names(roots)),
        Filter::Mailboxes(named) => Which::Named(names(named)),
    })
}

impl Following {
    /// What the client hears of the mailbox that is selected now.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    fn wants(&self, name: &MailboxName, subscriptions: &BTreeSet<MailboxName>, event: impl Fn(&Events) -> bool) -> bool {
        let matches = |which: &Which| match which {
            Which::All => true,
            Which::Subscribed => subscriptions.contains(name),
            Which::Below(roots) => successors(Some(name.clone()), MailboxName::parent).any(|level| roots.contains(&level)),
            Which::Named(names) => names.contains(name),
        };
        self.groups.iter().any(|group| event(&group.events) && matches(&group.which))
    }

    /// What this client did itself is no news: names at, above and below those that its command named are as they are.
    pub fn know(&mut self, account: &Account, touched: &[MailboxName]) {
        let (names, subscriptions) = account.known_mailboxes();
        let is_touched =
            |name: &MailboxName| touched.iter().any(|touched| name == touched || name.is_below(touched) || touched.is_below(name));
        self.names.retain(|_, name| !is_touched(name));
        self.names.extend(names.into_iter().filter(|(_, name)| is_touched(name)));
        self.subscriptions.retain(|name| !touched.contains(name));
        self.subscriptions.extend(subscriptions.into_iter().filter(|name| touched.contains(name)));
    }

    /// So are messages that it put into another mailbox, or removed with CLOSE: these numbers are expected. Where others changed something as well, there are
    /// other numbers, which are told.
    pub fn know_messages(&mut self, mailbox: &Mailbox, made: usize, removed: usize) {
        // One that nothing is known of is as new as a mailbox can be.
        let empty = Numbers { uid_validity: mailbox.uid_validity(), uid_next: 1, messages: 0, highest_modseq: ModSeq::MIN };
        let told = self.numbers.entry(mailbox.id()).or_insert(empty);
        let (Some(modseq), false) = (ModSeq::new(told.highest_modseq.get() + 1), made + removed == 0) else { return };
        let [made, removed] = [made, removed].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let (uid_next, messages) = (told.uid_next.saturating_add(made), told.messages.saturating_add(made).saturating_sub(removed));
        *told = Numbers { uid_next, messages, highest_modseq: modseq, ..*told };
    }
}

/// Resolves when something may be to tell between commands. Safe to cancel.
pub async fn woken(following: &mut Option<Box<Following>>, state: &mut State) {
    let Some(following) = following else { return pending().await };
    if following.is_due {
        return;
    }
    let Following { groups, heard, activity, is_due, .. } = &mut **following;
    let others = async {
        if groups.is_empty() || activity.changed().await.is_err() {
            pending().await
        }
    };
    let selected = async {
        match state {
            State::Selected(Selected { changes, .. }) if heard.messages || heard.flags => {
                if changes.changed().await.is_err() {
                    pending().await
                }
            }
            _ => pending().await,
        }
    };
    tokio::select! {
        () = others => *is_due = true,
        () = selected => {}
    }
}

/// Tells what happened since the client was last told, between commands.
pub async fn tell<H: Holding>(session: &mut Session<H>, state: &mut State) -> Result<(), Stop> {
    if let State::Selected(selected) = state {
        selected.changes.mark_unchanged();
        let expunges = if selected.heard.delayed { Expunges::KeepBack } else { Expunges::Tell };
        updates::tell(&mut session.connection, selected, session.enabled, expunges, &[]).await?;
        contexts::follow(session, selected).await?;
        announce(session, selected).await?;
        updates::tell_owed(&mut session.connection, selected, session.enabled);
    }
    tell_others(session, state).await
}

/// The client itself put these messages into a mailbox of this account: it is sent nothing of them (RFC 5465 §5). Which mailbox that is, the mailbox itself says: others
/// may have the same UIDVALIDITY and UIDs.
pub fn made<H>(session: &mut Session<H>, selected: Option<&mut Selected>, mailbox: &Arc<Mailbox>, uids: impl Iterator<Item = Uid>) {
    match (selected.filter(|selected| Arc::ptr_eq(&selected.mailbox, mailbox)), &mut session.following) {
        (Some(selected), Some(_)) if !selected.heard.items.is_empty() => selected.own.extend(uids),
        (None, Some(following)) if !following.groups.is_empty() => following.know_messages(mailbox, uids.count(), 0),
        _ => {}
    }
}

/// Sends what the client wants of messages that came to the selected mailbox and that it was told of: of those that it made itself it knows (RFC 5465 §5.2).
pub async fn announce<H: Holding>(session: &mut Session<H>, selected: &mut Selected) -> Result<(), Stop> {
    let first = std::mem::replace(&mut selected.announced, selected.view.uid_next());
    let (own, later): (Vec<Uid>, _) = std::mem::take(&mut selected.own).into_iter().partition(|uid| uid.get() < selected.announced);
    selected.own = later;
    if selected.heard.items.is_empty() || first == selected.announced {
        return Ok(());
    }
    let uids = selected.view.uids();
    let news = uids.get(uids.partition_point(|uid| uid.get() < first)..).unwrap_or_default();
    let news: Vec<Uid> = news.iter().copied().filter(|uid| own.binary_search(uid).is_err()).collect();
    fetch::push(session, selected, &news, selected.heard.items.clone()).await
}

/// Tells what happened in all but the selected mailbox.
pub async fn tell_others<H: Holding>(session: &mut Session<H>, state: &mut State) -> Result<(), Stop> {
    let Some(mut following) = session.following.take() else { return Ok(()) };
    let told = tell_news(session, state, &mut following).await;
    if let State::Selected(selected) = state
        && *selected.heard != following.heard
    {
        *selected.heard = following.heard.clone();
    }
    session.following = Some(following);
    told
}

async fn tell_news<H: Holding>(session: &mut Session<H>, state: &State, following: &mut Following) -> Result<(), Stop> {
    if following.groups.is_empty() || !(following.is_due || following.activity.has_changed().unwrap_or(false)) {
        return Ok(());
    }
    // Marked first: what happens while it is told wakes us again.
    following.activity.mark_unchanged();
    following.is_due = false;
    if following.lists.has_changed().unwrap_or(false) {
        following.lists.mark_unchanged();
        let seen = session.held.run(look).await?;
        tell_names(session, following, &seen);
        tell_subscriptions(session, following, &seen);
        (following.names, following.subscriptions) = (seen.names, seen.subscriptions);
    }
    tell_annotations(session, following);
    let seen = session.held.run(|account| Ok(account.open_numbers())).await?;
    let own = state.opened().map(|selected| selected.mailbox.name());
    let mut numbers: Vec<(MailboxId, Numbers)> = seen.into_iter().collect();
    numbers.sort_unstable_by_key(|(id, _)| *id);
    for (id, now) in numbers {
        let before = following.numbers.insert(id, now);
        let Some(name) = following.names.get(&id).filter(|name| Some(*name) != own.as_ref() && before != Some(now)) else { continue };
        let is_new = before
            .is_none_or(|before| (before.uid_validity, before.uid_next, before.messages) != (now.uid_validity, now.uid_next, now.messages));
        if is_new && following.wants(name, &following.subscriptions, |events| events.messages) {
            let mut items = vec![StatusItem::Messages, StatusItem::UidNext, StatusItem::UidValidity];
            if session.enabled.modseq() {
                items.push(StatusItem::HighestModSeq);
            }
            write_status(session, name, &items, &now, None);
        } else if !is_new && following.wants(name, &following.subscriptions, |events| events.flags) {
            let (asked, items) = (name.clone(), [StatusItem::UidValidity, StatusItem::HighestModSeq, StatusItem::Unseen]);
            // It is open: this takes no look at its folder.
            let unseen = session.held.run(move |account| Ok(account.mailbox(&asked)?.status().unseen)).await;
            let items = if session.enabled.modseq() { &items[..] } else { &[StatusItem::UidValidity, StatusItem::Unseen][..] };
            match unseen {
                Ok(unseen) => write_status(session, name, items, &now, Some(unseen)),
                Err(error @ (StorageError::LeaseLost(_) | StorageError::Closing(_))) => return Err(error.into()),
                Err(error) => tracing::debug!(mailbox = %name, %error, "NOTIFY leaves STATUS out"),
            }
        }
        session.connection.flush_if_large().await?;
    }
    Ok(())
}

fn write_status<H: Holding>(session: &mut Session<H>, name: &MailboxName, items: &[StatusItem], now: &Numbers, unseen: Option<u32>) {
    let value = |item: &StatusItem| match item {
        StatusItem::Messages => u64::from(now.messages),
        StatusItem::UidNext => u64::from(now.uid_next),
        StatusItem::UidValidity => u64::from(now.uid_validity.get()),
        StatusItem::HighestModSeq => now.highest_modseq.get(),
        _ => u64::from(unseen.unwrap_or_default()),
    };
    let values: Vec<_> = items.iter().map(|item| (*item, value(item).into())).collect();
    response::status(session.connection.output(), name.as_str(), &values, session.enabled.names());
}

/// Mailboxes that were made, deleted and renamed.
fn tell_names<H: Holding>(session: &mut Session<H>, following: &Following, seen: &Seen) {
    if following.names == seen.names {
        return;
    }
    for (name, old) in affected(&following.names, &seen.names) {
        let of_old = old.as_ref().is_some_and(|old| following.wants(old, &following.subscriptions, |events| events.names));
        if of_old || following.wants(&name, &seen.subscriptions, |events| events.names) {
            list::tell(session, &seen.entries, &name, old.as_ref().map(MailboxName::as_str));
        }
    }
}

/// Names to tell of, with those that they had before.
fn affected<Id: Ord>(before: &BTreeMap<Id, MailboxName>, now: &BTreeMap<Id, MailboxName>) -> BTreeMap<MailboxName, Option<MailboxName>> {
    let mut affected: BTreeMap<MailboxName, Option<MailboxName>> = BTreeMap::new();
    let changed = |id: &Id| Some((before.get(id)?.as_str(), now.get(id)?.as_str())).filter(|(old, new)| old != new);
    let moved: HashMap<&str, &str> = now.keys().filter_map(changed).collect();
    for (id, name) in now {
        match before.get(id) {
            None => drop(affected.insert(name.clone(), None)),
            // Those below move along: that is not told.
            Some(old) if old != name && !moved_along(&moved, old.as_str(), name.as_str()) => {
                drop(affected.insert(name.clone(), Some(old.clone())));
            }
            Some(_) => {}
        }
    }
    for name in before.iter().filter(|(id, _)| !now.contains_key(id)).map(|(_, name)| name) {
        affected.entry(name.clone()).or_insert(None);
    }
    // Whether it has children may be another thing now.
    let parents: Vec<MailboxName> = affected.iter().filter(|(_, old)| old.is_none()).filter_map(|(name, _)| name.parent()).collect();
    for parent in parents {
        affected.entry(parent).or_insert(None);
    }
    affected
}

/// Whether a level above moved in the same way; `moved`: old names and new ones.
fn moved_along(moved: &HashMap<&str, &str>, old: &str, new: &str) -> bool {
    let mut levels = old.match_indices('/').map(|(at, _)| old.split_at(at));
    levels.any(|(above, rest)| moved.get(above).is_some_and(|to| new.strip_suffix(rest) == Some(to)))
}

fn tell_subscriptions<H: Holding>(session: &mut Session<H>, following: &Following, seen: &Seen) {
    for name in following.subscriptions.symmetric_difference(&seen.subscriptions) {
        let wants = |subscriptions| following.wants(name, subscriptions, |events| events.subscriptions);
        if wants(&following.subscriptions) || wants(&seen.subscriptions) {
            list::tell(session, &seen.entries, name, None);
        }
    }
}

fn tell_annotations<H: Holding>(session: &mut Session<H>, following: &mut Following) {
    let wants_any = following.groups.iter().any(|group| group.events.mailbox_metadata || group.events.server_metadata);
    let Some((changes, end)) = session.held.account().annotated_since(following.annotations) else {
        following.annotations = session.held.account().annotation_changes();
        if wants_any {
            // Too many to remember: as after NOTIFY NONE (RFC 5465 §5.8).
            (following.groups, following.heard) = (Vec::new(), Heard::NOTHING);
            let text = "Too much happened, nothing more is told";
            response::untagged(session.connection.output(), Condition::Ok, Some(&Code::NotificationOverflow), text);
        }
        return;
    };
    following.annotations = end;
    let mut entries: BTreeMap<Option<MailboxId>, BTreeSet<&str>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.origin != session.origin) {
        entries.entry(change.mailbox).or_default().insert(&change.entry);
    }
    for (id, entries) in entries {
        let name = id.and_then(|id| following.names.get(&id));
        let wanted = match (id, name) {
            (None, _) => following.groups.iter().any(|group| group.events.server_metadata),
            (Some(_), Some(name)) => following.wants(name, &following.subscriptions, |events| events.mailbox_metadata),
            (Some(_), None) => false,
        };
        if wanted {
            let names = session.enabled.names();
            response::metadata_changed(session.connection.output(), name.map_or("", MailboxName::as_str), entries, names);
        }
    }
}

/// The numbers of every mailbox of which the client will hear, but the selected one (RFC 5465 §3.1).
async fn tell_all_numbers<H: Holding>(session: &mut Session<H>, state: &State, following: &Following) -> Result<(), Stop> {
    let own = state.opened().map(|selected| selected.mailbox.name());
    let wanted = |name: &&MailboxName| following.wants(name, &following.subscriptions, |events| events.messages);
    let names: Vec<MailboxName> = following.names.values().filter(|name| Some(*name) != own.as_ref()).filter(wanted).cloned().collect();
    for names in names.chunks(512) {
        let together = names.to_vec();
        let statuses = session.held.run(move |account| account.statuses(&together, false)).await?;
        for (name, numbers) in names.iter().zip(statuses) {
            let Ok(numbers) = numbers else { continue };
            let mut items = vec![StatusItem::Messages, StatusItem::UidNext, StatusItem::UidValidity];
            if following.wants(name, &following.subscriptions, |events| events.flags) || session.enabled.modseq() {
                items.push(StatusItem::HighestModSeq);
            }
            let values = status::values(&items, &numbers, session.settings.message_bytes, None);
            response::status(session.connection.output(), name.as_str(), &values, session.enabled.names());
            session.connection.flush_if_large().await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use affinity::{Clock, SystemClock};

    use super::*;

    #[test]
    fn of_a_large_subtree_that_moves_its_root_alone_is_told_in_time() {
        let name = |name: &str| MailboxName::parse(name).unwrap();
        let tree = |root: &str| -> BTreeMap<usize, MailboxName> {
            let below = (0..20_000).map(|number| name(&format!("{root}/{number}")));
            [name(root)].into_iter().chain(below).enumerate().collect()
        };
        let (before, mut now) = (tree("old"), tree("new"));
        let clock = SystemClock::new();
        let began = clock.now();
        assert_eq!(affected(&before, &now), [(name("new"), Some(name("old")))].into());
        // One that did not move along.
        *now.values_mut().nth(7).unwrap() = name("other/6");
        let told = affected(&before, &now);
        assert_eq!(told, [(name("new"), Some(name("old"))), (name("other/6"), Some(name("old/6")))].into());
        let took = clock.now() - began;
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
