//! One logged-in session on its holder: input → command → reply, until LOGOUT.
//!
//! - Commands run in the order in which they came; replies are sent when the client has nothing more to say, or much is ready.
//! - A change is acknowledged only while the lease is provably held (`Session::acknowledge`).
//! - While a session waits it keeps no buffers (`connection.rs`).

use std::{borrow::Cow, time::Duration};

use storage::MailboxName;
use tracing::debug;

use crate::{
    connection::{Connection, ConnectionError},
    imap::{
        command::{self, notify::Following},
        foreign::{self, OWN_TAG, Sharing, Way},
        guest::Guest,
        holding::Holding,
        limits::MessageLimits,
        reply::{Reply, ReplyCode, Stop},
        sets::SavedUids,
        state::State,
        updates,
        view::Expunges,
        wire::{
            command::{AppendStart, Command, Search, Sort, Tagged, Thread},
            enabled::{Awareness, Enabled, Separator},
            framing::{Framer, Limits, Step},
            parse::{self, Options, ParseError, ParseErrorKind},
            response::{self, Code, Condition},
        },
    },
    session::{End, Left},
};

/// How often a node that has no contact with the shared directory looks whether it may acknowledge again.
const LEASE_POLL: Duration = Duration::from_millis(100);

/// The settings of one session.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much one command may take.
    pub limits: Limits,
    /// Deepest nesting of SEARCH keys.
    pub nesting: usize,
    /// Largest message of APPEND.
    pub message_bytes: u64,
    /// Whether APPEND refuses headers with characters beyond ASCII from clients that enabled nothing that allows them.
    pub refuse_8bit_headers: bool,
    /// Between levels of mailbox names.
    pub separator: Separator,
    /// Wrong commands in a row before the session is closed.
    pub bad_commands: usize,
    /// How long a client may be silent.
    pub idle_timeout: Duration,
    /// How often a client that waits for a long command hears how far it is.
    pub progress_interval: Duration,
    /// How often IDLE looks for other programs' changes.
    pub rescan_interval: Duration,
    /// Whether there is somebody to log in to after UNAUTHENTICATE.
    pub may_log_in_anew: bool,
    /// Whether an operator is served, who may set what the user may hold.
    pub may_set_quota: bool,
    /// How many messages one command works on.
    pub message_limits: MessageLimits,
}

/// What every command of a session works with.
pub struct Session<H> {
    /// The client.
    pub connection: Connection,
    /// The user's mail.
    pub held: H,
    /// Its settings.
    pub settings: Settings,
    /// Cuts the input into commands.
    pub framer: Framer,
    /// What the client enabled.
    pub enabled: Enabled,
    /// The tag of the command under way.
    pub tag: String,
    /// What NOTIFY asked for, once it was given.
    pub following: Option<Box<Following>>,
    /// Names this session to others of the account.
    pub origin: u64,
    /// Who is served, if not the owner of the mail.
    pub guest: Option<Guest>,
    /// Other users' mailboxes; `None`: they are not shared, or it is a guest who is served.
    pub sharing: Option<Sharing>,
    commands: u64,
    bad_in_a_row: usize,
}

/// How a command left the session.
enum Next {
    GoOn,
    Logout,
    LogInAnew,
}

/// How a conversation ended.
enum Done {
    Ended(End),
    Unauthenticated,
}

impl<H: Holding> Session<H> {
    /// A session at its start.
    pub fn new(connection: Connection, held: H, settings: Settings) -> Session<H> {
        let mut framer = Framer::new(settings.limits);
        let enabled = Enabled { separator: settings.separator, ..Enabled::NOTHING };
        framer.set_enabled(enabled);
        Session {
            connection,
            held,
            settings,
            framer,
            enabled,
            tag: String::new(),
            following: None,
            origin: rand::random::<u64>().max(1),
            guest: None,
            sharing: None,
            commands: 0,
            bad_in_a_row: 0,
        }
    }

    /// Serves not the owner but this guest.
    pub fn of_guest(self, guest: Guest) -> Session<H> {
        Session { guest: Some(guest), ..self }
    }

    /// With the mailboxes that other users share.
    pub fn with_sharing(self, sharing: Sharing) -> Session<H> {
        Session { sharing: Some(sharing), ..self }
    }

    /// Answers the login command, then every other until the session ends.
    pub async fn run(mut self, login_tag: &str) -> Left {
        let login = Reply::ok("Logged in").with(ReplyCode::Passed(format!("CAPABILITY {}", self.capabilities().join(" "))));
        login.write(self.connection.output(), login_tag);
        let end = match self.converse().await {
            Ok(Done::Ended(end)) => end,
            Ok(Done::Unauthenticated) => {
                debug!(session = %self.connection.client.session, commands = self.commands, "IMAP session ends, the client logs in anew");
                return Left::Back(Box::new(self.connection));
            }
            Err(Stop::Bye(text)) => {
                response::bye(self.connection.output(), Some(&Code::Unavailable), &text);
                End::because(text)
            }
            Err(Stop::Reply(reply)) => End::because(reply.text),
            Err(Stop::Connection(error)) => {
                if matches!(error, ConnectionError::Timeout(_)) && self.framer.is_idle() {
                    response::bye(self.connection.output(), None, "Disconnected for inactivity");
                }
                End::from(error)
            }
        };
        debug!(session = %self.connection.client.session, commands = self.commands, end = %end.0, "IMAP session ends");
        self.connection.close().await;
        Left::Ended(end)
    }

    fn capabilities(&self) -> Vec<Cow<'static, str>> {
        super::capability::after_login(self.sharing.is_some(), self.settings.may_set_quota, self.settings.message_limits)
    }

    async fn converse(&mut self) -> Result<Done, Stop> {
        let mut state = State::Authenticated;
        loop {
            match self.framer.next(self.connection.input()) {
                Step::NeedInput => self.wait(&mut state).await?,
                Step::Continue { text } => response::continuation(self.connection.output(), text),
                // Some clients end a literal with a line end too many.
                Step::Command(line) if line.is_empty() => {}
                Step::Command(line) => {
                    self.connection.commanded();
                    match self.command(&mut state, &line).await? {
                        Next::GoOn => {}
                        Next::Logout => return Ok(Done::Ended(End::logout())),
                        Next::LogInAnew => return Ok(Done::Unauthenticated),
                    }
                }
                Step::Append(start) => {
                    let tag = start.tag.clone();
                    let result = self.append(&mut state, start).await;
                    self.finish(&mut state, &tag, Expunges::Tell, result).await?;
                }
                // Messages are taken by `append` up to their end.
                Step::AppendMore(_) => {}
                Step::Refused(refusal) if refusal.fatal => {
                    response::bye(self.connection.output(), None, &refusal.reason);
                    return Ok(Done::Ended(End::because(refusal.reason)));
                }
                Step::Refused(refusal) => {
                    let reply = Reply::bad(refusal.reason);
                    self.write_reply(refusal.tag.as_deref(), &reply);
                }
            }
            if self.bad_in_a_row > self.settings.bad_commands {
                response::bye(self.connection.output(), None, "Too many commands that could not be understood");
                return Ok(Done::Ended(End::because("too many bad commands")));
            }
            self.connection.flush_if_large().await?;
        }
    }

    async fn command(&mut self, state: &mut State, line: &[u8]) -> Result<Next, Stop> {
        let Tagged { tag, command } = match parse::parse(line, Options { enabled: self.enabled, nesting: self.settings.nesting }) {
            Ok(tagged) => tagged,
            Err(error) => {
                if let (ParseErrorKind::BadCharsetForSaving(_), State::Selected(selected)) = (error.kind, &mut *state) {
                    selected.saved = SavedUids::default();
                }
                self.write_reply(error.tag.as_deref(), &not_understood(&error));
                return Ok(Next::GoOn);
            }
        };
        if matches!(command, Command::Logout) {
            self.commands += 1;
            response::bye(self.connection.output(), None, "Logging out");
            Reply::ok("Logout completed").write(self.connection.output(), &tag);
            return Ok(Next::Logout);
        }
        if let Command::Compress(algorithm) = &command {
            let result = self.may_compress(algorithm);
            let starts = result.is_ok();
            self.finish(state, &tag, Expunges::Tell, result.map_err(Stop::from)).await?;
            if starts {
                self.connection.start_deflate().await?;
            }
            return Ok(Next::GoOn);
        }
        if matches!(command, Command::Unauthenticate) {
            self.unauthenticate(&tag).await?;
            return Ok(Next::LogInAnew);
        }
        let command = match &self.guest {
            Some(guest) => guest.localise(command),
            None => command,
        };
        let expunges = expunges_after(&command);
        let own = changes_names(&command);
        self.tag.clone_from(&tag);
        let result = if self.enabled.uid_only && command.names_sequence_numbers() {
            Err(uid_required().into())
        } else {
            self.carry_out(state, &tag, command, line).await
        };
        if let (Some(following), Ok(_), false) = (&mut self.following, &result, own.is_empty()) {
            following.know(self.held.account(), &own);
        }
        self.finish(state, &tag, expunges, result).await?;
        Ok(Next::GoOn)
    }

    /// Waits for more input; after NOTIFY, tells meanwhile what happens.
    async fn wait(&mut self, state: &mut State) -> Result<(), Stop> {
        // Only that hears the end of a session elsewhere.
        if self.following.is_none() || matches!(state, State::Elsewhere) || !self.framer.is_idle() || !self.connection.input().is_empty() {
            return self.fill().await;
        }
        let silence = tokio::time::sleep(self.settings.idle_timeout);
        tokio::pin!(silence);
        let mut rescan = tokio::time::interval(self.settings.rescan_interval.max(Duration::from_secs(1)));
        rescan.reset();
        loop {
            self.connection.flush().await?;
            let Session { connection, held, following, settings, .. } = &mut *self;
            let look = tokio::select! {
                biased;
                text = held.taken_away() => return Err(updates::farewell(&text)),
                filled = connection.fill(settings.idle_timeout) => return Ok(filled?),
                () = command::notify::woken(following, state) => false,
                _ = rescan.tick() => true,
                () = &mut silence => return Err(ConnectionError::Timeout(settings.idle_timeout).into()),
            };
            if look {
                command::noop(self, state).await?;
            }
            // A command that comes meanwhile is carried out at once; its answer tells the same.
            tokio::select! {
                biased;
                filled = self.connection.fill(self.settings.idle_timeout) => return Ok(filled?),
                () = tokio::time::sleep(command::notify::SETTLE) => {}
            }
            command::notify::tell(self, state).await?;
        }
    }

    /// UNAUTHENTICATE (RFC 8437): all that the session knows ends with it, the compression behind its answer; nothing more is told of the mailbox. There is no NO.
    /// Whether the command is one that another node gives for its user, not the user's own.
    pub fn is_of_a_node(&self) -> bool {
        self.guest.is_some() && self.tag == OWN_TAG
    }

    async fn unauthenticate(&mut self, tag: &str) -> Result<(), Stop> {
        if !self.settings.may_log_in_anew {
            return Err(Stop::Bye("No other login is possible on this connection".into()));
        }
        self.acknowledge().await?;
        self.commands += 1;
        Reply::ok("Unauthenticate completed").write(self.connection.output(), tag);
        Ok(self.connection.stop_deflate().await?)
    }

    /// Here, or by the holder of somebody else's mailbox.
    async fn carry_out(&mut self, state: &mut State, tag: &str, command: Command, line: &[u8]) -> Result<Reply, Stop> {
        if self.sharing.is_none() && self.guest.is_none() && command.is_of_acl() {
            return Err(Reply::bad("ACL is not offered here: mailboxes are not shared").into());
        }
        self.permit(state, &command).await?;
        let way = self.way(state, &command);
        if way.is_err() && matches!(command, Command::Select(_)) {
            // RFC 3501 §6.3.1: nothing is selected then.
            self.leave_selected(state);
        }
        match way? {
            Way::Here => {
                self.learn_for(state, &command).await?;
                self.dispatch(state, tag, command).await
            }
            Way::There(place) => self.pass_on(state, place, line, &command).await,
            Way::Across(target) => {
                self.learn_for(state, &command).await?;
                self.transfer(state, target, command).await
            }
        }
    }

    /// What a command tells of messages is known before it is carried out: after another program filled a mailbox, dates and sizes come later than names.
    async fn learn_for(&mut self, state: &State, command: &Command) -> Result<(), Stop> {
        match state {
            State::Selected(selected) if command.tells_facts() && selected.mailbox.is_incomplete() => {
                let mailbox = selected.mailbox.clone();
                Ok(self.held.run(move |_| mailbox.learn()).await?)
            }
            _ => Ok(()),
        }
    }

    /// An APPEND that is streamed.
    async fn append(&mut self, state: &mut State, start: AppendStart) -> Result<Reply, Stop> {
        self.tag.clone_from(&start.tag);
        let start = match &self.guest {
            Some(guest) => guest.localise_append(start),
            None => start,
        };
        let may = match self.permit_append(state, &start).await {
            Ok(()) => self.way_of_streamed(state, &start).map_err(Stop::from),
            Err(stop) => Err(stop),
        };
        match may {
            Ok(Way::There(place)) => foreign::append(self, state, &place, start).await,
            Ok(_) => command::append::append(self, state, start).await,
            Err(stop) => {
                self.framer.refuse_literal();
                Err(stop)
            }
        }
    }

    /// COMPRESS (RFC 4978).
    fn may_compress(&self, algorithm: &str) -> Result<Reply, Reply> {
        match algorithm {
            _ if self.connection.is_deflated() => Err(Reply::no(Code::CompressionActive, "The connection is compressed already")),
            "DEFLATE" => Ok(Reply::ok("DEFLATE active")),
            _ => Err(Reply::bad("The only compression algorithm is DEFLATE")),
        }
    }

    async fn dispatch(&mut self, state: &mut State, tag: &str, command: Command) -> Result<Reply, Stop> {
        match command {
            Command::Capability => {
                let capabilities = self.capabilities();
                response::capability(self.connection.output(), &capabilities);
                Ok(Reply::ok("Capability completed"))
            }
            Command::Noop | Command::Check => command::noop(self, state).await,
            Command::Id(fields) => Ok(command::id(&mut self.connection, fields.as_deref())),
            Command::Enable(names) => Ok(command::enable::enable(self, state, &names)),
            Command::Namespace => {
                let (others, shared) = self.namespaces();
                response::namespace(self.connection.output(), others, shared, self.enabled.separator);
                Ok(Reply::ok("Namespace completed"))
            }
            Command::Idle => command::idle::idle(self, state).await,
            Command::Select(select) => command::select::select(self, state, select).await,
            Command::Create { mailbox, special_use } => command::mailboxes::create(self, mailbox, &special_use).await,
            Command::Delete(mailbox) => command::mailboxes::delete(self, state, mailbox).await,
            Command::Rename { from, to } => command::mailboxes::rename(self, from, to).await,
            Command::Subscribe(mailbox) => command::mailboxes::subscribe(self, mailbox, true).await,
            Command::Unsubscribe(mailbox) => command::mailboxes::subscribe(self, mailbox, false).await,
            Command::List(list) => command::list::list(self, state, &list).await,
            Command::Lsub { reference, pattern } => command::list::lsub(self, &reference, &pattern).await,
            Command::Status { mailbox, items } => command::status::status(self, state, mailbox, &items).await,
            Command::GetQuota(root) => command::status::quota::get_quota(self, root).await,
            Command::GetQuotaRoot(mailbox) => command::status::quota::get_quota_root(self, mailbox).await,
            Command::GetMetadata(get) => command::metadata::get(self, get).await,
            Command::SetMetadata { mailbox, values } => command::metadata::set(self, mailbox, values).await,
            Command::SetAcl { mailbox, identifier, rights } => command::mailboxes::acl::set(self, mailbox, &identifier, &rights).await,
            Command::DeleteAcl { mailbox, identifier } => command::mailboxes::acl::delete(self, mailbox, &identifier).await,
            Command::GetAcl(mailbox) => command::mailboxes::acl::get(self, mailbox).await,
            Command::ListRights { mailbox, identifier } => command::mailboxes::acl::list_rights(self, mailbox, &identifier).await,
            Command::MyRights(mailbox) => command::mailboxes::acl::my_rights(self, mailbox).await,
            Command::SetQuota { root, limits } => command::status::quota::set_quota(self, root, &limits).await,
            Command::Close => command::expunge::close(self, state).await,
            Command::Unselect => {
                state.selected()?;
                *state = State::Authenticated;
                Ok(Reply::ok("Unselect completed"))
            }
            Command::Expunge => command::expunge::expunge(self, state.selected()?, None).await,
            Command::UidExpunge(set) => command::expunge::expunge(self, state.selected()?, Some(&set)).await,
            Command::Notify(asked) => command::notify::notify(self, state, asked).await,
            Command::CancelUpdate(tags) => {
                state.selected()?.contexts.cancel(&tags);
                Ok(Reply::ok("No further updates"))
            }
            Command::Search { uid, search } => command::search_command::search(self, state.selected()?, tag, uid, search).await,
            Command::Esearch(asked) => command::search::multisearch::esearch(self, state, tag, *asked).await,
            Command::Sort { uid, sort } => command::sort::sort(self, state.selected()?, tag, uid, sort).await,
            Command::Thread { uid, thread } => command::thread::thread(self, state.selected()?, uid, &thread).await,
            Command::Fetch { uid, set, items, changed_since, vanished, partial } => {
                let selected = state.selected()?;
                if vanished {
                    self.needs_qresync()?;
                    command::vanished::tell_named(self, selected, &set, changed_since.unwrap_or_default()).await?;
                }
                command::fetch::fetch(self, selected, uid, &set, items, command::fetch::Only { changed_since, partial, all: false }).await
            }
            Command::Store { uid, set, unchanged_since, how, silent, flags } => {
                let change = command::store::Change { unchanged_since, how, silent, flags };
                command::store::store(self, state.selected()?, uid, &set, change).await
            }
            Command::Copy { uid, set, mailbox } => command::copy_move::copy(self, state.selected()?, uid, &set, mailbox).await,
            Command::Move { uid, set, mailbox } => command::copy_move::move_messages(self, state.selected()?, uid, &set, mailbox).await,
            // Answered by `command`, which starts it.
            Command::Compress(_) | Command::Unauthenticate => Err(Reply::bad("This is not possible now").into()),
            Command::StartTls | Command::Authenticate { .. } | Command::Login { .. } => Err(Reply::bad("Already logged in").into()),
            Command::Append(start) => command::append::append(self, state, *start).await,
            Command::Logout => Ok(Reply::ok("Logout completed")),
        }
    }

    /// Tells what changed meanwhile, then answers the command.
    async fn finish(&mut self, state: &mut State, tag: &str, expunges: Expunges, result: Result<Reply, Stop>) -> Result<(), Stop> {
        let reply = match result {
            Ok(reply) | Err(Stop::Reply(reply)) => reply,
            Err(stop) => return Err(stop),
        };
        if let State::Selected(selected) = state {
            updates::tell(&mut self.connection, selected, self.enabled, expunges, &[]).await?;
            selected.must_tell = false;
            command::contexts::follow(self, selected).await?;
            command::notify::announce(self, selected).await?;
            updates::tell_owed(&mut self.connection, selected, self.enabled);
        }
        command::notify::tell_others(self, state).await?;
        if reply.condition == Condition::Ok {
            self.acknowledge().await?;
            crate::log::acknowledged(self.held.account().lease(), tag);
        }
        self.write_reply(Some(tag), &reply);
        Ok(())
    }

    /// Waits until this node may acknowledge: at once, unless contact with the shared directory is lost. A lease that is gone ends the session.
    pub async fn acknowledge(&mut self) -> Result<(), Stop> {
        loop {
            let lease = self.held.account().lease();
            if lease.ensure_live().is_ok() {
                return Ok(());
            }
            if lease.tenure().is_over() {
                return Err(Stop::Bye(super::reply::MOVED_AWAY.into()));
            }
            tokio::select! {
                text = self.held.taken_away() => return Err(updates::farewell(&text)),
                () = tokio::time::sleep(LEASE_POLL) => {}
            }
        }
    }

    fn write_reply(&mut self, tag: Option<&str>, reply: &Reply) {
        self.commands += 1;
        self.bad_in_a_row = if reply.condition == Condition::Bad { self.bad_in_a_row + 1 } else { 0 };
        match tag {
            Some(tag) => reply.write(self.connection.output(), tag),
            None => reply.write_untagged(self.connection.output()),
        }
    }

    /// Sends what is ready and waits for more input.
    pub async fn fill(&mut self) -> Result<(), Stop> {
        self.connection.flush().await?;
        let Session { connection, held, settings, sharing, .. } = self;
        let elsewhere = async {
            match sharing {
                Some(sharing) => sharing.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            text = held.taken_away() => Err(updates::farewell(&text)),
            stop = elsewhere => Err(stop),
            filled = connection.fill(settings.idle_timeout) => Ok(filled?),
        }
    }

    /// Refuses what only clients that know VANISHED may use (RFC 7162 §3.2.3).
    pub fn needs_qresync(&self) -> Result<(), Reply> {
        if self.enabled.qresync() { Ok(()) } else { Err(Reply::bad("Give ENABLE QRESYNC first")) }
    }

    /// A CONDSTORE enabling command was given (RFC 7162 §3.1): from now on unasked FETCH responses have MODSEQ.
    pub fn enable_condstore(&mut self, state: Option<&super::state::Selected>) {
        if self.enabled.modseq() {
            return;
        }
        self.enabled.awareness = Awareness::CondStore;
        if let Some(modseq) = state.and_then(|selected| index::ModSeq::new(selected.view.highest_modseq())) {
            response::untagged(self.connection.output(), Condition::Ok, Some(&Code::HighestModSeq(modseq)), "Highest");
        }
    }
}

/// For who enabled UIDONLY and names a sequence number nevertheless (RFC 9586 §3.2).
pub fn uid_required() -> Reply {
    Reply::bad("There are only UIDs after ENABLE UIDONLY").with(Code::UidRequired.into())
}

fn not_understood(error: &ParseError) -> Reply {
    let text: Cow<'static, str> = error.reason.clone().into();
    match error.kind {
        ParseErrorKind::Bad => Reply::bad(text),
        ParseErrorKind::BadCharset(known) | ParseErrorKind::BadCharsetForSaving(known) => Reply::no(Code::BadCharset(known), text),
        ParseErrorKind::BadCharsetForFilter(known) => Reply::bad(text).with(Code::BadCharset(known).into()),
        ParseErrorKind::UnknownUse => Reply::no(Code::UseAttr, text),
    }
}

/// The names of mailboxes that the command makes, removes, renames or subscribes.
fn changes_names(command: &Command) -> Vec<MailboxName> {
    match command {
        Command::Create { .. } | Command::Rename { .. } | Command::Delete(_) | Command::Subscribe(_) | Command::Unsubscribe(_) => {
            command.mailboxes().into_iter().filter_map(|mailbox| command::mailboxes::valid(mailbox.clone()).ok()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether sequence numbers may move before the command's answer (RFC 3501 §7.4.1).
fn expunges_after(command: &Command) -> Expunges {
    match command {
        Command::Fetch { uid: false, .. }
        | Command::Store { uid: false, .. }
        | Command::Search { uid: false, .. }
        | Command::Sort { uid: false, .. }
        | Command::Thread { uid: false, .. } => Expunges::KeepBack,
        // The next command may use numbers that the answer to this one went with.
        Command::Search { search: Search { key, .. }, .. }
        | Command::Sort { sort: Sort { key, .. }, .. }
        | Command::Thread { thread: Thread { key, .. }, .. }
            if key.names_sequence_numbers() =>
        {
            Expunges::KeepBack
        }
        Command::Esearch(asked) if asked.search.key.names_sequence_numbers() => Expunges::KeepBack,
        _ => Expunges::Tell,
    }
}
