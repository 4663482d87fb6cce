//! Messages on their way between two users: APPEND to somebody else's mailbox, COPY and MOVE across.
//!
//! COPY is fetched here and appended there, all or none; MOVE then removes from the source what is durable in the target, a hundred messages at a time:
//! whatever dies on the way, each message is in one of the two or in both, never in none.
//!
//! Invariants, each with the test that guards it:
//! - what is removed from the source is durable in the target (`messages_are_moved_between_users_and_none_is_lost`)
//! - MOVE copies nothing that may not be removed (`a_move_without_the_right_to_remove_copies_nothing`)
//! - a large message takes no memory (`a_large_message_goes_in_pieces`)
//! - of many messages only the UIDs are held (`many_messages_are_moved_a_hundred_at_a_time`)

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use index::Uid;
use storage::{Copied, Mailbox, MailboxName, Rights, Row, Staged};

use super::{
    Place,
    answers::{Item, appended, item, literal, uid_alone},
    gone,
    link::{Link, Piece},
};
use crate::imap::{
    command::{
        append::{WAITING_MAX, next},
        copy_move::present,
        expunge,
        mailboxes::valid,
        notify,
    },
    guest,
    holding::Holding,
    reply::{self, Reply, ReplyCode, Stop},
    session::Session,
    state::{State, make_flags},
    wire::{
        command::{AppendLine, AppendPiece, AppendStart, Command, FlagArgument, LiteralHeader},
        date::write_date_time,
        response::{self, Code, Condition},
    },
};

/// Most messages of one COPY between users, unless a limit is advertised (RFC 9738). Who has more gives several COPYs.
const COPY_MAX: usize = guest::APPEND_MAX;
/// Messages that MOVE takes over at once.
const MOVE_AT_ONCE: usize = 100;
/// How much of a message is on its way at once.
const CHUNK_BYTES: u64 = 256 * 1024;
/// What stands around such a piece.
const AROUND_BYTES_MAX: usize = 64 * 1024;

/// APPEND to, or REPLACE in, somebody else's mailbox: streamed on as it comes.
pub async fn append<H: Holding>(session: &mut Session<H>, state: &mut State, place: &Place, start: AppendStart) -> Result<Reply, Stop> {
    let is_selected = session.selected_elsewhere(state).is_some_and(|link| link.owner == place.owner);
    let tag = start.tag.clone();
    let mut link = match session.link(is_selected, place).await {
        Ok(link) => link,
        Err(stop) => {
            session.framer.refuse_literal();
            return Err(stop);
        }
    };
    let answer = stream_append(session, &mut link, &tag, start).await;
    if !matches!(answer, Ok(Reply { condition: Condition::Ok, .. })) {
        session.framer.refuse_literal();
    }
    match session.answer(is_selected, answer) {
        Ok(reply) => {
            if is_selected {
                session.keep(link);
            }
            Ok(reply)
        }
        Err(stop) => {
            // In the middle of a command, the other session is of no use any more.
            if is_selected && matches!(stop, Stop::Reply(_)) {
                session.leave_selected(state);
            }
            Err(stop)
        }
    }
}

async fn stream_append<H: Holding>(session: &mut Session<H>, link: &mut Link, tag: &str, start: AppendStart) -> Result<Reply, Stop> {
    let AppendStart { replaces, mailbox, mut line, .. } = start;
    let name = valid(mailbox)?;
    let mut out = BytesMut::from(tag);
    match replaces {
        None => out.put_slice(b" APPEND "),
        Some(replaced) => out.put_slice(format!(" {}REPLACE {} ", if replaced.uid { "UID " } else { "" }, replaced.message).as_bytes()),
    }
    response::mailbox_name(&mut out, name.as_str(), session.enabled.names());
    let mut concatenates = false;
    loop {
        let AppendLine { pieces, literal } = line;
        for piece in pieces {
            match piece {
                AppendPiece::Message { flags, date } => {
                    if std::mem::take(&mut concatenates) {
                        without_space(&mut out);
                        out.put_u8(b')');
                    }
                    message_head(&mut out, &flags, date);
                    if !literal.is_some_and(|literal| literal.binary) {
                        out.put_slice(b" CATENATE (");
                        concatenates = true;
                    }
                }
                AppendPiece::Url(url) => {
                    out.put_slice(b"URL ");
                    response::string(&mut out, url.as_bytes());
                    out.put_u8(b' ');
                }
            }
        }
        let Some(literal) = literal else {
            without_space(&mut out);
            break;
        };
        out.put_slice(if literal.binary { b" ~" } else { b"TEXT " });
        if let Some(refused) = pass_literal(session, link, tag, &mut out, literal).await? {
            return Ok(refused);
        }
        line = next(session).await?;
        if concatenates
            && line.pieces.first().is_none_or(|piece| matches!(piece, AppendPiece::Url(_)))
            && (line.literal.is_some() || !line.pieces.is_empty())
        {
            out.put_u8(b' ');
        }
    }
    out.put_slice(if concatenates { b")\r\n" } else { b"\r\n" });
    link.send(&out).await.map_err(|_| gone(None))?;
    session.converse_with(link, tag, false).await
}

fn without_space(out: &mut BytesMut) {
    if out.ends_with(b" ") {
        out.truncate(out.len() - 1);
    }
}

fn message_head(out: &mut BytesMut, flags: &[FlagArgument], date: Option<i64>) {
    let names: Vec<&str> = flags
        .iter()
        .filter_map(|flag| match flag {
            FlagArgument::System(flag) => response::flag_name(*flag),
            FlagArgument::Keyword(name) => Some(name.as_str()),
        })
        .collect();
    if !names.is_empty() {
        out.put_slice(format!(" ({})", names.join(" ")).as_bytes());
    }
    if let Some(date) = date {
        out.put_u8(b' ');
        write_date_time(out, date);
    }
}

/// Sends a literal on once the other side wants it; its answer, if it does not.
async fn pass_literal<H: Holding>(
    session: &mut Session<H>,
    link: &mut Link,
    tag: &str,
    out: &mut BytesMut,
    literal: LiteralHeader,
) -> Result<Option<Reply>, Stop> {
    response::literal_header(out, literal.size);
    if let Some(refused) = wait_to_send(session, link, tag, out).await? {
        return Ok(Some(refused));
    }
    if session.framer.accept_literal() {
        response::continuation(session.connection.output(), "Ready for the message");
    }
    loop {
        match session.framer.literal_chunk(session.connection.input()) {
            Some(bytes) => link.send(&bytes).await.map_err(|_| gone(None))?,
            None if session.framer.literal_remaining() == 0 => return Ok(None),
            None => session.fill().await?,
        }
    }
}

/// Sends what ends in a literal's announcement, and waits for `+`; the answer, if the command is answered instead.
async fn wait_to_send<H: Holding>(session: &mut Session<H>, link: &mut Link, tag: &str, out: &mut BytesMut) -> Result<Option<Reply>, Stop> {
    link.send(&out.split()).await.map_err(|_| gone(None))?;
    loop {
        match session.next_piece(link, tag).await? {
            Piece::Continuation => return Ok(None),
            Piece::Part(bytes) => session.connection.send(&bytes).await?,
            Piece::Tagged(reply) => return Ok(Some(reply)),
            Piece::Bye(text) => return Err(gone(Some(text))),
        }
    }
}

impl<H: Holding> Session<H> {
    /// The next piece, waited for.
    async fn next_piece(&mut self, link: &mut Link, tag: &str) -> Result<Piece, Stop> {
        loop {
            if let Some(piece) = link.next(tag).map_err(|why| gone(Some(why.to_owned())))? {
                return Ok(piece);
            }
            tokio::select! {
                biased;
                text = self.held.taken_away() => return Err(crate::imap::updates::farewell(&text)),
                more = link.fill() => if !more {
                    return Err(gone(None));
                },
            }
        }
    }

    /// COPY or MOVE from the selected mailbox into that of another user than its owner; `target`: `None`: into the user's own.
    pub async fn transfer(&mut self, state: &mut State, target: Option<Place>, command: Command) -> Result<Reply, Stop> {
        let (moves, uid, set, mailbox) = match command {
            Command::Copy { uid, set, mailbox } => (false, uid, set, mailbox),
            Command::Move { uid, set, mailbox } => (true, uid, set, mailbox),
            _ => return Err(Reply::bad("COPY or MOVE").into()),
        };
        let name = valid(mailbox)?;
        let mut stopped = None;
        let mut source = match state {
            State::Selected(selected) => {
                if moves {
                    drop(selected.writable()?);
                }
                let mut uids = present(selected, uid, &set)?;
                if moves && let Some(limit) = self.settings.message_limits.working() {
                    stopped = limit.cut_uids(&mut uids).map(|stopped| stopped.limit.code(Some(stopped.lowest)).into());
                }
                selected.mailbox.ensure_known(&uids)?;
                Source { of: Of::Own(Arc::clone(&selected.mailbox)), uids }
            }
            State::Elsewhere => {
                let link = self.sharing.as_mut().and_then(|sharing| sharing.selected.take()).ok_or_else(|| gone(None))?;
                let mut source = Source { of: Of::Theirs(Box::new(link)), uids: Vec::new() };
                let found = self.find(&mut source, uid, &set.to_string(), moves).await;
                if let Err(Stop::Reply(reply)) = found {
                    self.give_back(source);
                    return Err(reply.into());
                }
                stopped = found?;
                source
            }
            State::Authenticated => return Err(Reply::bad("No mailbox is selected").into()),
        };
        let result = match self.may_copy(&source, moves, stopped.as_ref()) {
            Ok(()) => self.transfer_all(state, &mut source, target, &name, moves).await,
            Err(reply) => Err(reply.into()),
        };
        self.give_back(source);
        let reply = result?;
        Ok(match stopped {
            Some(code) => Reply::ok("Moved the last of the messages that were named").with(code),
            None => reply,
        })
    }
    /// COPY is for all messages or none. `stopped`: the limit that kept the other session from naming all.
    fn may_copy(&self, source: &Source, moves: bool, stopped: Option<&ReplyCode>) -> Result<(), Reply> {
        if moves {
            return Ok(());
        }
        if let Some(code) = stopped {
            return Err(Reply {
                condition: Condition::No,
                ..Reply::ok("Too many messages to copy, try a smaller subset").with(code.clone())
            });
        }
        match self.settings.message_limits.saving() {
            Some(limit) => limit.would_stop(&source.uids).map_or(Ok(()), |stopped| Err(limit.refuse(Some(stopped.lowest), "COPY"))),
            None if source.uids.len() > COPY_MAX => {
                Err(Reply::no(Code::Limit, format!("Between users, {COPY_MAX} messages can be copied at once")))
            }
            None => Ok(()),
        }
    }
    fn give_back(&mut self, source: Source) {
        if let Of::Theirs(link) = source.of {
            self.keep(*link);
        }
    }

    /// The messages that a set names in somebody else's mailbox, and the limit that there is on them; refused if MOVE could not remove them.
    async fn find(&mut self, source: &mut Source, uid: bool, set: &str, moves: bool) -> Result<Option<ReplyCode>, Stop> {
        let Of::Theirs(link) = &mut source.of else { return Ok(None) };
        if moves {
            let needed = guest::TAKE_AWAY;
            let (name, names) = (link.selected.clone(), self.enabled.names());
            let mut command = BytesMut::from("MYRIGHTS ");
            response::mailbox_name(&mut command, &name, names);
            command.put_slice(b"\r\n");
            let (answers, reply) = self.gather(link, &command, |line| line.starts_with(b"* MYRIGHTS ")).await?;
            ok(reply)?;
            let letters = answers
                .first()
                .and_then(|line| std::str::from_utf8(line).ok()?.trim_end().rsplit_once(' '))
                .map_or("", |(_, rights)| rights);
            // The obsolete ones stand for more than is there.
            let letters = letters.replace(['"', 'c', 'd'], "");
            if !needed.difference(Rights::parse(&letters).unwrap_or_default()).is_empty() {
                return Err(guest::no_permission(needed).into());
            }
            if link.read_only {
                return Err(Reply::no(Code::ReadOnly, "The mailbox is open read-only, use SELECT to change it").into());
            }
        }
        let command = format!("{}FETCH {set} (UID)\r\n", if uid { "UID " } else { "" });
        let uids = &mut source.uids;
        let reply = self.each(link, command.as_bytes(), |line| uid_alone(line).map(|uid| uids.push(uid)).is_some()).await?;
        let stopped = match reply.code.as_ref() {
            Some(ReplyCode::Passed(code)) if code.starts_with("MESSAGELIMIT ") => reply.code.clone(),
            Some(ReplyCode::Passed(code)) if code == "EXPUNGEISSUED" => return Err(reply::expunged().into()),
            _ => None,
        };
        ok(reply)?;
        source.uids.sort_unstable();
        source.uids.dedup();
        Ok(stopped)
    }
    /// What is to be known of messages of the source; those that are gone are left out.
    async fn items(&mut self, source: &mut Source, uids: &[Uid]) -> Result<Vec<Item>, Stop> {
        let link = match &mut source.of {
            Of::Own(mailbox) => return Ok(own_items(mailbox, uids)),
            Of::Theirs(link) => link,
        };
        let mut items = Vec::with_capacity(uids.len());
        for uids in uids.chunks(MOVE_AT_ONCE) {
            let command = format!("UID FETCH {} (UID FLAGS INTERNALDATE RFC822.SIZE)\r\n", uid_set(uids));
            let is_ours = |line: &[u8]| memchr::memmem::find(line, b"RFC822.SIZE ").is_some();
            let (lines, reply) = self.gather(link, command.as_bytes(), is_ours).await?;
            // The other session has told the flags now, and will not again.
            for line in &lines {
                self.connection.send(line).await?;
            }
            ok(reply)?;
            items.extend(lines.iter().filter_map(|line| item(line)));
        }
        items.sort_by_key(|item| item.uid);
        items.dedup_by_key(|item| item.uid);
        Ok(items)
    }
    /// Asks by the node itself: the untagged responses that are wanted, and the answer; the others are passed on.
    async fn gather(&mut self, link: &mut Link, command: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<(Vec<Vec<u8>>, Reply), Stop> {
        let mut answers = Vec::new();
        let take = |line: &[u8]| {
            let is_wanted = wanted(line);
            if is_wanted {
                answers.push(line.to_vec());
            }
            is_wanted
        };
        let reply = self.each(link, command, take).await?;
        Ok((answers, reply))
    }
    /// The same for each untagged response as it comes; those that are not taken are passed on.
    async fn each(&mut self, link: &mut Link, command: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> Result<Reply, Stop> {
        let mut line = BytesMut::from(super::OWN_TAG);
        line.put_u8(b' ');
        line.put_slice(command);
        link.send(&line).await.map_err(|_| gone(None))?;
        let mut response = Vec::new();
        loop {
            match self.next_piece(link, super::OWN_TAG).await? {
                Piece::Part(part) => {
                    response.extend_from_slice(&part);
                    if response.len() as u64 > CHUNK_BYTES + AROUND_BYTES_MAX as u64 {
                        // Too long for anything that is asked for here.
                        self.connection.send(&std::mem::take(&mut response)).await?;
                    } else if link.is_between_responses() {
                        let whole = std::mem::take(&mut response);
                        if !take(&whole) {
                            self.connection.send(&whole).await?;
                        }
                    }
                }
                Piece::Continuation => {}
                Piece::Tagged(reply) => return Ok(reply),
                Piece::Bye(text) => return Err(gone(Some(text))),
            }
        }
    }

    async fn transfer_all(
        &mut self,
        state: &mut State,
        source: &mut Source,
        place: Option<Place>,
        name: &MailboxName,
        moves: bool,
    ) -> Result<Reply, Stop> {
        let uids = std::mem::take(&mut source.uids);
        let mut target = match &place {
            None => {
                let name = name.clone();
                Target::Own(self.held.run(move |account| account.mailbox(&name)).await.map_err(reply::for_target)?)
            }
            Some(place) => Target::Theirs(Box::new(self.link(false, place).await?)),
        };
        if uids.is_empty() {
            return Ok(Reply::ok(if moves { "No messages to move" } else { "No messages to copy" }));
        }
        if !moves {
            let items = self.items(source, &uids).await?;
            if items.len() < uids.len() {
                return Err(reply::expunged().into());
            }
            let stored = self.put(source, &mut target, name, &items).await;
            let copied = self.answer(false, stored)?;
            return Ok(Reply::ok("Copy completed").with(ReplyCode::Copied(copied)));
        }
        let at_once = self.settings.message_limits.saving().map_or(MOVE_AT_ONCE, |limit| MOVE_AT_ONCE.min(limit.most()));
        for uids in uids.chunks(at_once) {
            let items = self.items(source, uids).await?;
            if items.is_empty() {
                continue;
            }
            let stored = self.put(source, &mut target, name, &items).await;
            let moved = self.answer(false, stored)?;
            self.acknowledge().await?;
            let uids: Vec<Uid> = moved.pairs.iter().map(|(old, _)| *old).collect();
            Reply::ok("Moved").with(ReplyCode::Copied(moved)).write_untagged(self.connection.output());
            self.take_away(state, source, uids).await?;
        }
        Ok(Reply::ok("Move completed"))
    }

    /// Stores messages in the target, durably, all or none.
    async fn put(&mut self, source: &mut Source, target: &mut Target, name: &MailboxName, items: &[Item]) -> Result<Copied, Stop> {
        let (uid_validity, new) = match target {
            Target::Own(mailbox) => {
                let mut received = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    let many = at >= WAITING_MAX;
                    let (into, size) = (Arc::clone(mailbox), item.size);
                    let flags = item.flags();
                    let prepared = self.held.run(move |_| Ok((into.stage(size)?, make_flags(&into, &flags)?)));
                    let (mut staged, flags): (Staged, _) = prepared.await?;
                    let mut at = 0;
                    while at < item.size {
                        let chunk = self.read(source, item, at).await?;
                        at += chunk.len() as u64;
                        staged = self.held.run(move |_| staged.write(&chunk).map(|()| staged)).await?;
                    }
                    let leave = move |_: &_| if many { staged.close() } else { staged.leave_memory().map(|()| staged) };
                    let staged = self.held.run(leave).await?;
                    received.push((staged, flags, Some(item.date)));
                }
                let into = Arc::clone(mailbox);
                let appended = self.held.run(move |_| into.append_all(received)).await?;
                notify::made(self, None, mailbox, appended.iter().map(|appended| appended.uid));
                (mailbox.uid_validity(), appended.iter().map(|appended| appended.uid).collect::<Vec<_>>())
            }
            Target::Theirs(link) => {
                let mut out = BytesMut::from(super::OWN_TAG);
                out.put_slice(b" APPEND ");
                response::mailbox_name(&mut out, name.as_str(), self.enabled.names());
                for item in items {
                    message_head(&mut out, &item.flags(), Some(item.date));
                    out.put_u8(b' ');
                    response::literal_header(&mut out, item.size);
                    if let Some(refused) = wait_to_send(self, link, super::OWN_TAG, &mut out).await? {
                        return Err(refused.into());
                    }
                    let mut at = 0;
                    while at < item.size {
                        let chunk = self.read(source, item, at).await?;
                        at += chunk.len() as u64;
                        link.send(&chunk).await.map_err(|_| gone(None))?;
                    }
                }
                out.put_slice(b"\r\n");
                link.send(&out).await.map_err(|_| gone(None))?;
                let reply = self.converse_with(link, super::OWN_TAG, false).await?;
                let stored = match &reply {
                    Reply { condition: Condition::Ok, code: Some(ReplyCode::Passed(code)), .. } => appended(code, items.len()),
                    _ => None,
                };
                match (stored, reply.condition) {
                    (Some(stored), _) => stored,
                    // It is stored, and nobody knows where: COPY can't be answered, and MOVE takes nothing away.
                    (None, Condition::Ok) => return Err(Reply::no(Code::ServerBug, "Another server gave an answer without UIDs").into()),
                    (None, _) => return Err(reply.into()),
                }
            }
        };
        Ok(Copied { uid_validity, pairs: items.iter().map(|item| item.uid).zip(new).collect() })
    }
    /// A piece of a message, from `at` on, not empty; the command fails if it is gone.
    async fn read(&mut self, source: &mut Source, item: &Item, at: u64) -> Result<Vec<u8>, Stop> {
        let wanted = CHUNK_BYTES.min(item.size - at);
        let piece = match &mut source.of {
            Of::Own(mailbox) => {
                let (mailbox, uid) = (Arc::clone(mailbox), item.uid);
                let read = self.held.run(move |_| {
                    let reader = mailbox.open_message(uid)?;
                    let mut piece = vec![0; usize::try_from(wanted).unwrap_or_default()];
                    let mut filled = 0;
                    while let Some(free) = piece.get_mut(filled..).filter(|free| !free.is_empty()) {
                        match reader.read_at(at + filled as u64, free)? {
                            0 => break,
                            read => filled += read,
                        }
                    }
                    piece.truncate(filled);
                    Ok(piece)
                });
                Some(read.await?)
            }
            Of::Theirs(link) => {
                let command = format!("UID FETCH {} (BODY.PEEK[]<{at}.{wanted}>)\r\n", item.uid.get());
                let (answers, reply) = self
                    .gather(link, command.as_bytes(), |line| {
                        memchr::memmem::find(line, b" BODY[]<").is_some() || memchr::memmem::find(line, b"(BODY[]<").is_some()
                    })
                    .await?;
                ok(reply)?;
                answers.first().and_then(|answer| literal(answer)).map(<[u8]>::to_vec)
            }
        };
        piece.filter(|piece| piece.len() as u64 == wanted).ok_or_else(|| reply::expunged().into())
    }
    /// Removes from the source what is durable in the target.
    async fn take_away(&mut self, state: &mut State, source: &mut Source, uids: Vec<Uid>) -> Result<(), Stop> {
        match (&mut source.of, state) {
            (Of::Own(_), State::Selected(selected)) => {
                let writable = selected.writable()?;
                let removed = self.held.run(move |_| writable.remove(&uids)).await?;
                expunge::removed(self, selected, !removed.is_empty(), Reply::ok("")).await.map(drop)
            }
            (Of::Theirs(link), _) => {
                let set = uid_set(&uids);
                for command in [format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)\r\n"), format!("UID EXPUNGE {set}\r\n")] {
                    ok(self.ask(link, &command).await?)?;
                }
                Ok(())
            }
            (Of::Own(_), _) => Ok(()),
        }
    }
}

/// Where messages come from.
struct Source {
    of: Of,
    /// Which; what else is to be known of them is asked when it is their turn.
    uids: Vec<Uid>,
}
enum Of {
    Own(Arc<Mailbox>),
    Theirs(Box<Link>),
}
/// Where they go.
enum Target {
    Own(Arc<Mailbox>),
    Theirs(Box<Link>),
}

fn own_items(mailbox: &Mailbox, uids: &[Uid]) -> Vec<Item> {
    let keywords = mailbox.keywords();
    let messages = mailbox.read();
    let item = |row: Row| {
        let mut flags = BytesMut::new();
        response::flag_list(&mut flags, row.flags, &keywords, false);
        let flags = String::from_utf8_lossy(&flags).trim_matches(['(', ')']).to_owned();
        Item { uid: row.uid, flags, date: row.internal_date, size: row.size }
    };
    uids.iter().filter_map(|uid| messages.get(*uid)).map(item).collect()
}

fn uid_set(uids: &[Uid]) -> String {
    let mut set = BytesMut::new();
    response::uid_set(&mut set, uids.iter().map(|uid| uid.get()));
    String::from_utf8_lossy(&set).into_owned()
}

fn ok(reply: Reply) -> Result<(), Stop> {
    if reply.condition == Condition::Ok { Ok(()) } else { Err(reply.into()) }
}
