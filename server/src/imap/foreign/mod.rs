//! Mailboxes of other users, as a session meets them: `Other Users/<user>/…`, and `Shared/…` of the user that the settings name.
//!
//! Nobody but an owner's holder opens their mail. A session that names such a mailbox has its node open a guest session with that holder, by the way
//! that every session takes (`forward::enter`), be it this node or another; commands go there as the client wrote them, and answers come back as they
//! are. While such a mailbox is selected the guest session stays; else it lasts for one command.
//!
//! A user's own mailboxes come first: who has one called `Shared` or `Other Users`, or below, has no such namespace.
//!
//! Invariants, each with the test that guards it:
//! - who was given nothing learns nothing, not even who is there (`whoever_was_given_nothing_sees_nothing`)
//! - when the other session ends, so does this one if its mailbox is selected, with a BYE; else the command fails
//!   (`when_the_other_session_ends_the_client_is_told`)
//! - a user's own mailboxes are never hidden (`own_mailboxes_hide_a_namespace`)

mod answers;
pub mod link;
pub mod list;
mod transfer;

use std::{future::pending, io, sync::Arc};

use affinity::UserName;
use bytes::BytesMut;
use futures::future::BoxFuture;
use storage::{MailboxName, Who, shares::AllShares};
use tokio::io::DuplexStream;

use self::link::{Link, Piece};
pub use self::transfer::append;
use crate::{
    connection::ConnectionError,
    imap::{
        guest::Guest,
        holding::Holding,
        reply::{Reply, Stop},
        session::Session,
        state::State,
        updates,
        wire::{
            command::{AppendStart, Command, MailboxArgument, Source},
            framing::LineStep,
            response::{self, Code, Condition},
        },
    },
};

/// What other users' mailboxes lie below.
pub const OTHERS: &str = "Other Users";
/// What everybody's lie below.
pub const SHARED: &str = "Shared";
/// The tag of the login that nobody gave, and of what a node asks by itself.
pub const OWN_TAG: &str = "berth";
/// The only line that may come in IDLE is DONE.
const DONE_BYTES_MAX: usize = 64;

/// What a session asks of its node. The real one is in `forward/guest.rs`.
pub trait Neighbours: Send + Sync {
    /// Whom this session serves, with their groups.
    fn who(&self) -> BoxFuture<'_, Result<Who, String>>;
    /// What everybody shares now.
    fn shares(&self) -> BoxFuture<'_, io::Result<AllShares>>;
    /// Begins a guest session with the holder of `owner`: it answers first with a line that has [`OWN_TAG`], or BYE.
    fn enter(&self, owner: UserName, guest: Guest) -> DuplexStream;
}

/// Other users' mailboxes, for one session.
pub struct Sharing {
    neighbours: Arc<dyn Neighbours>,
    /// Whose mailboxes are `Shared/…`.
    account: Option<UserName>,
    /// The session that has the selected mailbox.
    selected: Option<Link>,
}

impl Sharing {
    /// `account`: whose mailboxes are `Shared/…`.
    pub fn new(neighbours: Arc<dyn Neighbours>, account: Option<UserName>) -> Sharing {
        Sharing { neighbours, account, selected: None }
    }
}

/// Somebody else's mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub owner: UserName,
    /// What their names begin with here.
    pub prefix: String,
}

/// What a name is that is not the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Foreign {
    /// A mailbox of somebody else, if it is there.
    In(Place),
    /// A level above them, or nobody's.
    Nobody,
}

/// Who carries a command out.
pub enum Way {
    /// This session.
    Here,
    /// A guest session there.
    There(Place),
    /// COPY or MOVE from one user's mailbox into another's; `None`: into the user's own.
    Across(Option<Place>),
}

impl<H: Holding> Session<H> {
    /// The namespaces beside the user's own that there are: `Other Users/`, `Shared/`.
    pub fn namespaces(&self) -> (Option<&'static str>, Option<&'static str>) {
        let Some(sharing) = &self.sharing else { return (None, None) };
        let account = self.held.account();
        let shared = sharing.account.as_ref().is_some_and(|shared| shared != account.user());
        let is_free = |level: &str| !account.has_level(level);
        (is_free(OTHERS).then_some("Other Users/"), (shared && is_free(SHARED)).then_some("Shared/"))
    }
    /// Whose mailbox this is, if not the user's own.
    fn foreign(&self, name: &MailboxName) -> Option<Foreign> {
        let sharing = self.sharing.as_ref()?;
        let (first, rest) = name.as_str().split_once('/').map_or((name.as_str(), None), |(first, rest)| (first, Some(rest)));
        let (others, shared) = self.namespaces();
        if first == OTHERS && others.is_some() {
            let named = rest.and_then(|rest| rest.split_once('/')).map(|(user, _)| user);
            let owner = named.and_then(|user| UserName::normalise(user).ok().filter(|owner| owner.as_str() == user));
            let owner = owner.filter(|owner| owner != self.held.account().user() && Some(owner) != sharing.account.as_ref());
            return Some(owner.map_or(Foreign::Nobody, |owner| Foreign::In(self.place(owner))));
        }
        if first == SHARED && shared.is_some() {
            let owner = sharing.account.clone().filter(|_| rest.is_some());
            return Some(owner.map_or(Foreign::Nobody, |owner| Foreign::In(self.place(owner))));
        }
        None
    }
    /// Where `owner`'s mailboxes are found.
    fn place(&self, owner: UserName) -> Place {
        let is_shared = self.sharing.as_ref().is_some_and(|sharing| sharing.account.as_ref() == Some(&owner));
        let prefix = if is_shared { format!("{SHARED}/") } else { format!("{OTHERS}/{owner}/") };
        Place { owner, prefix }
    }
    fn selected_elsewhere(&self, state: &State) -> Option<&Link> {
        self.sharing.as_ref().filter(|_| matches!(state, State::Elsewhere))?.selected.as_ref()
    }
    /// Whether one of these names a mailbox of another user.
    pub fn names_foreign(&self, sources: &[Source]) -> bool {
        let named = sources.iter().flat_map(|source| match source {
            Source::Mailboxes(names) | Source::Subtree(names) | Source::SubtreeOne(names) => names.as_slice(),
            Source::Selected | Source::Inboxes | Source::Personal | Source::Subscribed => &[],
        });
        named.into_iter().any(|name| self.foreign_argument(name).is_some())
    }
    fn foreign_argument(&self, mailbox: &MailboxArgument) -> Option<Foreign> {
        match mailbox {
            MailboxArgument::Valid(name) | MailboxArgument::Renamed { name, .. } => self.foreign(name),
            MailboxArgument::Impossible(_) => None,
        }
    }

    /// Who carries out `command`.
    pub fn way(&self, state: &State, command: &Command) -> Result<Way, Reply> {
        if self.sharing.is_none() {
            return Ok(Way::Here);
        }
        let selected = self.selected_elsewhere(state).map(|link| self.place(link.owner.clone()));
        let named: Vec<Option<Foreign>> = command.mailboxes().into_iter().map(|mailbox| self.foreign_argument(mailbox)).collect();
        match (command, named.as_slice()) {
            // Subscriptions are the user's own, whatever they name (RFC 4314 §4).
            (Command::Subscribe(_) | Command::Unsubscribe(_), _) => Ok(Way::Here),
            (_, named) if named.contains(&Some(Foreign::Nobody)) => Err(nobody(command)),
            (Command::Copy { .. } | Command::Move { .. }, [target]) => Ok(match (selected, target) {
                (None, None) => Way::Here,
                (Some(selected), Some(Foreign::In(target))) if selected == *target => Way::There(selected),
                (_, Some(Foreign::In(target))) => Way::Across(Some(target.clone())),
                (Some(_), _) => Way::Across(None),
                (None, Some(Foreign::Nobody)) => Way::Here,
            }),
            (Command::Rename { .. }, [from, to]) => match (from, to) {
                (None, None) => Ok(Way::Here),
                (Some(Foreign::In(from)), Some(Foreign::In(to))) if from == to => Ok(Way::There(from.clone())),
                _ => Err(Reply::no(Code::Cannot, "A mailbox can't be moved to another user")),
            },
            (Command::Append(start), [target]) => self.way_of_append(state, start, target.as_ref()),
            (command, []) if command.is_of_selected() => Ok(selected.map_or(Way::Here, Way::There)),
            (_, [Some(Foreign::In(place)), ..]) => Ok(Way::There(place.clone())),
            _ => Ok(Way::Here),
        }
    }
    fn way_of_append(&self, state: &State, start: &AppendStart, target: Option<&Foreign>) -> Result<Way, Reply> {
        let selected = self.selected_elsewhere(state).map(|link| &link.owner);
        let target = match target {
            None => None,
            Some(Foreign::In(place)) => Some(place),
            Some(Foreign::Nobody) => return Err(Reply::no(Code::TryCreate, "There is no such mailbox")),
        };
        if start.replaces.is_some() && selected != target.map(|place| &place.owner) {
            return Err(Reply::no(Code::Cannot, "A message can't be replaced by one of another user: APPEND the one and remove the other"));
        }
        Ok(target.map_or(Way::Here, |place| Way::There(place.clone())))
    }
    /// The same for an APPEND that is streamed.
    pub fn way_of_streamed(&self, state: &State, start: &AppendStart) -> Result<Way, Reply> {
        if self.sharing.is_none() {
            Ok(Way::Here)
        } else {
            self.way_of_append(state, start, self.foreign_argument(&start.mailbox).as_ref())
        }
    }

    /// Whatever was selected is not any more; the client is told.
    pub fn leave_selected(&mut self, state: &mut State) {
        if !matches!(state, State::Authenticated) {
            let text = "The mailbox that was selected is not any more";
            response::untagged(self.connection.output(), Condition::Ok, Some(&Code::Closed), text);
        }
        self.let_go(state);
    }
    fn let_go(&mut self, state: &mut State) {
        *state = State::Authenticated;
        if let Some(sharing) = &mut self.sharing {
            sharing.selected = None;
        }
    }

    /// Has a command carried out by the holder of `place`; `line`: as the client wrote it.
    pub async fn pass_on(&mut self, state: &mut State, place: Place, line: &[u8], command: &Command) -> Result<Reply, Stop> {
        let selects = matches!(command, Command::Select(_));
        if let Command::Select(select) = command
            && select.resync.is_some()
        {
            self.needs_qresync()?;
        }
        let is_selected = self.selected_elsewhere(state).is_some_and(|link| link.owner == place.owner);
        if selects && !is_selected {
            self.leave_selected(state);
        }
        let mut link = self.link(is_selected, &place).await?;
        if command.enables_condstore() {
            self.enable_condstore(None);
            // The command itself tells it there.
            link.enabled.awareness = self.enabled.awareness;
        }
        let tag = self.tag.clone();
        let mut bytes = BytesMut::with_capacity(line.len() + 2);
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
        // If that fails, what it said last is still to be read.
        drop(link.send(&bytes).await);
        let answer = self.converse_with(&mut link, &tag, matches!(command, Command::Idle)).await;
        let reply = self.answer(is_selected, answer)?;
        let done = reply.condition == Condition::Ok;
        let stays = match command {
            Command::Close | Command::Unselect => is_selected && !done,
            Command::Select(_) => done,
            _ => is_selected,
        };
        if let Command::Select(select) = command
            && let MailboxArgument::Valid(name) | MailboxArgument::Renamed { name, .. } = &select.mailbox
        {
            name.as_str().clone_into(&mut link.selected);
            link.read_only = select.read_only;
        }
        if stays {
            *state = State::Elsewhere;
            self.keep(link);
        } else if is_selected {
            self.let_go(state);
        }
        Ok(reply)
    }
    fn keep(&mut self, link: Link) {
        if let Some(sharing) = &mut self.sharing {
            sharing.selected = Some(link);
        }
    }
    /// The end of the other session is the end of this one where its mailbox is selected.
    fn answer<T>(&self, is_selected: bool, answer: Result<T, Stop>) -> Result<T, Stop> {
        match answer {
            Err(Stop::Bye(text)) if !is_selected && !self.is_taken_away() => Err(Reply::no(Code::Unavailable, text).into()),
            answer => answer,
        }
    }
    /// Whether this session itself is to end.
    fn is_taken_away(&self) -> bool {
        futures::FutureExt::now_or_never(self.held.taken_away()).is_some()
    }

    /// The session that has the selected mailbox, or a new one; told what the client enabled.
    async fn link(&mut self, selected: bool, place: &Place) -> Result<Link, Stop> {
        let kept = if selected { self.sharing.as_mut().and_then(|sharing| sharing.selected.take()) } else { None };
        let mut link = match kept {
            Some(link) => link,
            None => {
                let opened = self.open(place).await;
                self.answer(false, opened)?
            }
        };
        if link.enabled != self.enabled {
            let enabled = self.enabled;
            let names = [
                ("CONDSTORE", enabled.modseq()),
                ("QRESYNC", enabled.qresync()),
                ("IMAP4rev2", enabled.rev2),
                ("UTF8=ACCEPT", enabled.utf8_accept),
                ("UIDONLY", enabled.uid_only),
            ];
            let names: String = names.iter().filter(|(_, on)| *on).map(|(name, _)| format!(" {name}")).collect();
            if !names.is_empty() {
                let told = self.ask(&mut link, &format!("ENABLE{names}\r\n")).await;
                self.answer(selected, told)?;
            }
            link.enabled = enabled;
        }
        Ok(link)
    }
    /// A guest session with the holder of somebody who shares something with this user.
    async fn open(&self, place: &Place) -> Result<Link, Stop> {
        let Some(sharing) = &self.sharing else { return Err(not_there().into()) };
        let unclear = |why: String| {
            tracing::warn!(owner = %place.owner, why, "another user's mailboxes can't be reached");
            Stop::from(Reply::no(Code::Unavailable, "Other users' mailboxes can't be reached at the moment, please try again"))
        };
        let who = sharing.neighbours.who().await.map_err(unclear)?;
        let shares = sharing.neighbours.shares().await.map_err(|error| unclear(error.to_string()))?;
        let theirs = shares.iter().find(|(owner, _)| *owner == place.owner);
        // Nobody is disturbed, and nothing is said, for somebody who was given nothing.
        if !theirs.is_some_and(|(_, shares)| shares.0.values().any(|acl| !acl.rights_of(&who).is_empty())) {
            return Err(not_there().into());
        }
        let Who { user, groups, anonymous } = who;
        let guest = Guest { user, groups, anonymous, prefix: place.prefix.clone() };
        let mut link = Link::new(place.owner.clone(), sharing.neighbours.enter(place.owner.clone(), guest));
        link.enabled.separator = self.enabled.separator;
        loop {
            match link.next(OWN_TAG) {
                Ok(Some(Piece::Tagged(reply))) if reply.condition == Condition::Ok => return Ok(link),
                Ok(Some(Piece::Tagged(reply))) => return Err(unclear(reply.text.into_owned())),
                Ok(Some(Piece::Bye(text))) => return Err(unclear(text)),
                Ok(Some(Piece::Part(_) | Piece::Continuation)) => {}
                Err(why) => return Err(unclear(why.to_owned())),
                Ok(None) => {
                    let more = tokio::select! {
                        biased;
                        text = self.held.taken_away() => return Err(updates::farewell(&text)),
                        more = link.fill() => more,
                    };
                    if !more {
                        return Err(unclear("the session ended at once".to_owned()));
                    }
                }
            }
        }
    }
    /// Asks something by the node itself; what comes untagged is passed on.
    async fn ask(&mut self, link: &mut Link, command: &str) -> Result<Reply, Stop> {
        link.send(format!("{OWN_TAG} {command}").as_bytes()).await.map_err(|_| gone(None))?;
        self.converse_with(link, OWN_TAG, false).await
    }

    /// Passes on what comes until the command is answered. `idles`: the client's DONE is waited for.
    async fn converse_with(&mut self, link: &mut Link, tag: &str, mut idles: bool) -> Result<Reply, Stop> {
        let mut silent = self.connection.input().is_empty();
        loop {
            while let Some(piece) = link.next(tag).map_err(|why| gone(Some(why.to_owned())))? {
                match piece {
                    // Answers of the node's own question.
                    Piece::Part(bytes) if bytes.starts_with(b"* ENABLED") => {}
                    Piece::Part(bytes) => self.connection.send(&bytes).await?,
                    Piece::Continuation if idles => response::continuation(self.connection.output(), "idling"),
                    // The bytes of a literal are on their way.
                    Piece::Continuation => {}
                    Piece::Tagged(reply) => return Ok(reply),
                    Piece::Bye(text) => return Err(gone(Some(text))),
                }
            }
            if idles {
                let line = match self.framer.next_line(self.connection.input(), DONE_BYTES_MAX) {
                    LineStep::NeedInput => None,
                    LineStep::Line(line) if line.eq_ignore_ascii_case(b"DONE") => Some(&b"DONE\r\n"[..]),
                    LineStep::Line(_) | LineStep::TooLong => Some(&b"?\r\n"[..]),
                };
                if let Some(line) = line {
                    link.send(line).await.map_err(|_| gone(None))?;
                    idles = false;
                    silent = self.connection.input().is_empty();
                }
            }
            self.connection.flush().await?;
            let Session { connection, held, settings, .. } = &mut *self;
            let filled = async { if idles || silent { connection.fill(settings.idle_timeout).await } else { pending().await } };
            tokio::select! {
                biased;
                text = held.taken_away() => return Err(updates::farewell(&text)),
                more = link.fill() => if !more {
                    return Err(gone(None));
                },
                filled = filled => match filled {
                    Ok(()) => silent = false,
                    Err(ConnectionError::Timeout(_)) if idles => return Err(Stop::Bye("Disconnected for inactivity".into())),
                    Err(ConnectionError::Timeout(_)) => silent = false,
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }
}

fn not_there() -> Reply {
    Reply::no(Code::Nonexistent, "There is no such mailbox")
}

fn nobody(command: &Command) -> Reply {
    match command {
        Command::Create { .. } | Command::Rename { .. } => Reply::no(Code::NoPerm, "Mailboxes can't be made there"),
        Command::Copy { .. } | Command::Move { .. } | Command::Append(_) => Reply::no(Code::TryCreate, "There is no such mailbox"),
        _ => not_there(),
    }
}

impl Sharing {
    /// Resolves when the session that has the selected mailbox is over; never without one. Safe to cancel.
    pub async fn ended(&mut self) -> Stop {
        match &mut self.selected {
            Some(link) => gone(link.ended().await),
            None => pending().await,
        }
    }
}

/// The other session is over.
fn gone(text: Option<String>) -> Stop {
    Stop::Bye(text.unwrap_or_else(|| "The connection to the server that has the mailbox was lost, please connect again".to_owned()).into())
}
