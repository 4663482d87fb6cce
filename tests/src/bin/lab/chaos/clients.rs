//! Clients that never stop: deliveries over LMTP, sessions that change mail, sessions that wait. Every request and its reply is recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tests::{
    clients::{
        imap::{Imap, Message as Fetched, Reply, Status, fetch_items, quoted},
        lmtp::Lmtp,
        value::Value as Item,
    },
    history::{Answer, Mailbox, Message, Operation, Outcome, Recorder, Request, Targets},
    lab::{Node, PASSWORD},
};

/// Patient and impatient clients: how long one waits for a reply.
const PATIENCE: [Duration; 3] = [Duration::from_secs(4), Duration::from_secs(15), Duration::from_secs(40)];
/// A mailbox with more messages is made smaller first, so that looks stay cheap.
const MESSAGES_MAX: usize = 40;
/// Flags that clients set and clear; `\Deleted` is only ever set.
const FLAGS: [&str; 5] = ["\\Seen", "\\Flagged", "\\Answered", "$Work", "Later"];
/// Mailboxes that nobody deletes.
pub const MAILBOXES: [&str; 2] = ["Work", "Later"];
/// Bytes of the largest message.
const BODY_MAX: u64 = 6_000;

/// What clients share.
pub struct Shared {
    pub recorder: Recorder,
    pub nodes: Vec<Node>,
    pub stop: AtomicBool,
    /// Mailboxes that come and go, by user.
    pub scratch: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// Temporary errors, sessions that were ended, for the report.
    pub deferred: AtomicU64,
    pub ended: AtomicU64,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// The message with that Message-ID: any reader can tell whether it is whole.
pub fn message(id: &str) -> Vec<u8> {
    let mut sum = id.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut text = format!("From: a@chaos.example\r\nTo: b@chaos.example\r\nSubject: {id}\r\nMessage-ID: <{id}>\r\n\r\n");
    let size = sum % BODY_MAX;
    while (text.len() as u64) < size {
        sum = sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{sum:020} {id} .\r\n.{}\r\n", sum % 97));
    }
    text.into_bytes()
}

/// Waits; a timer in place of a sleep, since nobody ever sends.
pub fn pause(time: Duration) {
    let (_never, timer) = mpsc::channel::<()>();
    timer.recv_timeout(time).unwrap_or_default();
}

/// One client: its name is part of its tags and messages.
pub struct Client {
    shared: Arc<Shared>,
    name: String,
    user: String,
    rng: StdRng,
    count: u32,
}

impl Client {
    pub fn new(shared: &Arc<Shared>, name: &str, user: &str, seed: u64) -> Client {
        Client { shared: shared.clone(), name: name.to_owned(), user: user.to_owned(), rng: StdRng::seed_from_u64(seed), count: 0 }
    }

    /// A name that was not there before.
    fn fresh(&mut self, separator: &str) -> String {
        self.count += 1;
        format!("{}{separator}{}", self.name, self.count)
    }

    fn node(&mut self) -> Node {
        let at = self.rng.random_range(0..self.shared.nodes.len());
        self.shared.nodes[at].clone()
    }

    fn patience(&mut self) -> Duration {
        PATIENCE[self.rng.random_range(0..PATIENCE.len())]
    }

    fn rest(&mut self, most: u64) {
        pause(Duration::from_millis(self.rng.random_range(0..most)));
    }

    /// Delivers one message after the other; the stubborn ones send again until they are told that it was stored, as a mail server does.
    pub fn deliver(mut self, stubborn: bool) {
        while !self.shared.stopped() {
            let id = self.fresh("-");
            let message = message(&id);
            for attempt in 1.. {
                let node = self.node();
                let done = self.try_to_deliver(&node, &id, attempt, &message);
                if done || !stubborn || self.shared.stopped() {
                    break;
                }
                self.rest(500);
            }
            self.rest(700);
        }
    }

    fn try_to_deliver(&mut self, node: &Node, id: &str, attempt: u32, message: &[u8]) -> bool {
        let tag = format!("{id}-try{attempt}");
        let patience = self.patience();
        let sent = self.shared.recorder.now();
        let opened = (|| {
            let mut lmtp = Lmtp::connect_within(&node.lmtp(), patience)?;
            lmtp.command(&format!("MAIL FROM:<{tag}>"))?.expect(250)?;
            anyhow::Ok(lmtp)
        })();
        // Until there is a sender, nothing can have been stored.
        let Ok(mut lmtp) = opened else { return false };
        let outcome = (|| {
            let to = lmtp.command(&format!("RCPT TO:<{}@localhost>", self.user))?;
            if to.code != 250 {
                return Ok(to);
            }
            lmtp.command("DATA")?.expect(354)?;
            lmtp.wire().send(&tests::clients::lmtp::dot_stuffed(message))?;
            lmtp.reply()
        })();
        let outcome = match outcome {
            Ok(reply) if reply.code == 250 => Outcome::Done(Answer::Plain),
            Ok(reply) if reply.code >= 500 => Outcome::Refused(format!("{reply:?}")),
            Ok(reply) => {
                self.shared.deferred.fetch_add(1, Ordering::Relaxed);
                Outcome::Unknown(format!("{reply:?}"))
            }
            Err(error) => Outcome::Unknown(short(&error)),
        };
        let done = matches!(outcome, Outcome::Done(_));
        self.record(node, tag, sent, Request::Deliver { message: id.to_owned() }, outcome);
        done
    }

    fn record(&self, node: &Node, tag: String, sent: u64, request: Request, outcome: Outcome) {
        let ended = self.shared.recorder.now();
        let (client, user, node) = (self.name.clone(), self.user.clone(), node.name.clone());
        self.shared.recorder.operation(Operation { id: 0, client, user, node, tag, sent, ended, request, outcome });
    }

    /// Logs in, waits for news, leaves, comes back.
    pub fn idle(mut self) {
        while !self.shared.stopped() {
            let node = self.node();
            if self.idle_once(&node).is_err() {
                self.shared.ended.fetch_add(1, Ordering::Relaxed);
                self.rest(1_000);
            }
        }
    }

    fn idle_once(&mut self, node: &Node) -> Result<()> {
        let shared = self.shared.clone();
        let until = shared.recorder.now() + self.rng.random_range(2_000_000..20_000_000);
        let mut session = Session::open(self, node)?;
        session.imap.select("INBOX")?;
        let tag = session.imap.idle()?;
        while shared.recorder.now() < until && !shared.stopped() {
            if let Err(error) = session.imap.next_untagged(Duration::from_millis(500))
                && error.chain().any(|cause| cause.to_string().contains("closed the connection"))
            {
                return Err(error);
            }
        }
        session.imap.done(&tag)?.ok().map(drop)
    }

    /// Logs in somewhere, changes mail for a while, comes back elsewhere.
    pub fn work(mut self) {
        while !self.shared.stopped() {
            let node = self.node();
            if self.work_once(&node).is_err() {
                self.shared.ended.fetch_add(1, Ordering::Relaxed);
                self.rest(300);
            }
        }
    }

    fn work_once(&mut self, node: &Node) -> Result<()> {
        let mut session = Session::open(self, node)?;
        session.select("INBOX")?;
        for _ in 0..session.client.rng.random_range(5..60) {
            if session.client.shared.stopped() {
                break;
            }
            session.step()?;
            session.client.rest(250);
        }
        session.imap.command("LOGOUT").map(drop)
    }
}

fn short(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// A logged-in session with a mailbox selected, and what it believes of it.
struct Session<'a> {
    client: &'a mut Client,
    node: Node,
    imap: Imap,
    selected: String,
    validity: u32,
    messages: BTreeMap<u32, String>,
}

impl<'a> Session<'a> {
    fn open(client: &'a mut Client, node: &Node) -> Result<Session<'a>> {
        let prefix = client.fresh("s") + "x";
        let patience = client.patience();
        let mut imap = Imap::connect_as(&node.imap(), &prefix, patience)?;
        let reply = imap.command(&format!("LOGIN {} {PASSWORD}", client.user))?;
        if reply.status == Status::No {
            client.shared.deferred.fetch_add(1, Ordering::Relaxed);
        }
        reply.ok()?;
        Ok(Session { client, node: node.clone(), imap, selected: String::new(), validity: 0, messages: BTreeMap::new() })
    }

    /// Sends one request, records it, and gives the reply; an error ends the session.
    fn ask(&mut self, request: Request, command: &str, literal: Option<&[u8]>) -> Result<Reply> {
        let sent = self.client.shared.recorder.now();
        let reply = match literal {
            None => self.imap.command(command),
            Some(literal) => self.imap.command_with_literal(command, literal, ""),
        };
        let outcome = match &reply {
            Ok(reply) => outcome(reply, &request),
            Err(error) => Outcome::Unknown(short(error)),
        };
        if matches!(&outcome, Outcome::Unknown(_)) && reply.is_ok() {
            self.client.shared.deferred.fetch_add(1, Ordering::Relaxed);
        }
        self.client.record(&self.node, self.imap.last_tag(), sent, request, outcome);
        reply
    }

    /// SELECT and a look at everything.
    fn select(&mut self, name: &str) -> Result<()> {
        let sent = self.client.shared.recorder.now();
        let reply = self.imap.command(&format!("SELECT {}", quoted(name)))?;
        if reply.status != Status::Ok {
            // It was deleted or renamed meanwhile; nothing is selected then.
            return if name == "INBOX" { reply.ok().map(drop) } else { self.select("INBOX") };
        }
        let mut mailbox = Mailbox {
            uid_validity: u32::try_from(reply.code_number("UIDVALIDITY")?)?,
            uid_next: u32::try_from(reply.code_number("UIDNEXT")?)?,
            highest_modseq: reply.code_number("HIGHESTMODSEQ")?,
            messages: BTreeMap::new(),
        };
        let fetched = self.imap.command("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")?.ok()?;
        for response in fetched.all("FETCH") {
            // Flags alone are news of a message that another session changed meanwhile; after an EXPUNGE its number is another one.
            let items = fetch_items(response)?;
            let Some(header) = items.get("BODY[HEADER.FIELDS (MESSAGE-ID)]") else { continue };
            let (uid, flags) = uid_and_flags(&items)?;
            mailbox.messages.insert(uid, Message { id: id_in(header.bytes()?)?, flags });
        }
        self.selected = name.to_owned();
        self.validity = mailbox.uid_validity;
        self.messages = mailbox.messages.iter().map(|(uid, message)| (*uid, message.id.clone())).collect();
        let request = Request::Look { mailbox: name.to_owned() };
        self.client.record(&self.node, self.imap.last_tag(), sent, request, Outcome::Done(Answer::Seen(mailbox)));
        Ok(())
    }

    fn some(&mut self, most: usize) -> Targets {
        let all: Vec<u32> = self.messages.keys().copied().collect();
        let count = self.client.rng.random_range(1..=most);
        all.sample(&mut self.client.rng, count).map(|uid| (*uid, self.messages[uid].clone())).collect()
    }

    fn some_mailbox(&mut self) -> String {
        let mut names: Vec<String> = MAILBOXES.iter().map(|name| (*name).to_owned()).chain(["INBOX".to_owned()]).collect();
        names.extend(self.scratch(|scratch| scratch.iter().take(2).cloned().collect::<Vec<_>>()));
        names.choose(&mut self.client.rng).cloned().unwrap_or_else(|| "INBOX".into())
    }

    fn scratch<T>(&self, work: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        let mut all = self.client.shared.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        work(all.entry(self.client.user.clone()).or_default())
    }

    fn step(&mut self) -> Result<()> {
        let dice = if self.messages.len() > MESSAGES_MAX { 45 } else { self.client.rng.random_range(0..100) };
        match dice {
            0..20 => self.append(),
            20..45 => self.store(),
            45..55 => self.expunge(),
            55..65 => self.transfer(false),
            65..75 => self.transfer(true),
            75..81 => self.mailboxes(),
            81..93 => {
                let name = self.some_mailbox();
                self.select(&name)
            }
            _ => self.imap.command("NOOP").map(drop),
        }
    }

    fn append(&mut self) -> Result<()> {
        let mailbox = self.some_mailbox();
        let id = self.client.fresh("-");
        let flag = FLAGS[self.client.rng.random_range(0..FLAGS.len())];
        let flags: BTreeSet<String> = if self.client.rng.random_bool(0.5) { [flag.to_owned()].into() } else { BTreeSet::new() };
        let listed = flags.iter().cloned().collect::<Vec<_>>().join(" ");
        let command = format!("APPEND {} ({listed})", quoted(&mailbox));
        let request = Request::Append { mailbox, message: id.clone(), flags };
        self.ask(request, &command, Some(&message(&id))).map(drop)
    }

    fn store(&mut self) -> Result<()> {
        let targets = self.some(4);
        if targets.is_empty() {
            return Ok(());
        }
        let flag = FLAGS[self.client.rng.random_range(0..FLAGS.len())].to_owned();
        let add = self.client.rng.random_bool(0.6);
        self.change_flag(targets, add, flag).map(drop)
    }

    fn change_flag(&mut self, targets: Targets, add: bool, flag: String) -> Result<Reply> {
        let sign = if add { '+' } else { '-' };
        let command = format!("UID STORE {} {sign}FLAGS.SILENT ({flag})", set(&targets));
        self.ask(Request::Store { validity: self.validity, targets, add, flag }, &command, None)
    }

    fn expunge(&mut self) -> Result<()> {
        let targets = self.some(4);
        if targets.is_empty() {
            return Ok(());
        }
        if self.change_flag(targets.clone(), true, "\\Deleted".into())?.status == Status::Ok {
            let command = format!("UID EXPUNGE {}", set(&targets));
            let request = Request::Expunge { validity: self.validity, targets: targets.clone() };
            if self.ask(request, &command, None)?.status == Status::Ok {
                self.messages.retain(|uid, _| !targets.contains_key(uid));
            }
        }
        Ok(())
    }

    fn transfer(&mut self, moves: bool) -> Result<()> {
        let (targets, to) = (self.some(4), self.some_mailbox());
        if targets.is_empty() || to == self.selected {
            return Ok(());
        }
        let (verb, validity) = (if moves { "MOVE" } else { "COPY" }, self.validity);
        let command = format!("UID {verb} {} {}", set(&targets), quoted(&to));
        let request = if moves {
            Request::Move { validity, targets: targets.clone(), to }
        } else {
            Request::Copy { validity, targets: targets.clone(), to }
        };
        if self.ask(request, &command, None)?.status == Status::Ok && moves {
            self.messages.retain(|uid, _| !targets.contains_key(uid));
        }
        Ok(())
    }

    /// Makes, renames or deletes a mailbox. A name is never used again.
    fn mailboxes(&mut self) -> Result<()> {
        let mine = format!("s-{}-", self.client.name);
        let owned = self.scratch(|scratch| scratch.iter().filter(|name| name.starts_with(&mine)).cloned().collect::<Vec<_>>());
        let fresh = format!("s-{}", self.client.fresh("-"));
        let Some(old) = owned.choose(&mut self.client.rng).cloned().filter(|_| owned.len() > 1 || self.client.rng.random_bool(0.6)) else {
            let request = Request::Create { mailbox: fresh.clone() };
            let reply = self.ask(request, &format!("CREATE {}", quoted(&fresh)), None)?;
            if reply.status == Status::Ok {
                self.scratch(|scratch| scratch.insert(fresh));
            }
            return Ok(());
        };
        // Whatever comes of it, nobody is sent there any more.
        self.scratch(|scratch| scratch.remove(&old));
        if self.client.rng.random_bool(0.5) {
            let request = Request::Rename { from: old.clone(), to: fresh.clone() };
            if self.ask(request, &format!("RENAME {} {}", quoted(&old), quoted(&fresh)), None)?.status == Status::Ok {
                self.scratch(|scratch| scratch.insert(fresh));
            }
            Ok(())
        } else {
            self.ask(Request::Delete { mailbox: old.clone() }, &format!("DELETE {}", quoted(&old)), None).map(drop)
        }
    }
}

fn set(targets: &Targets) -> String {
    targets.keys().map(u32::to_string).collect::<Vec<_>>().join(",")
}

pub fn uid_and_flags(items: &Fetched) -> Result<(u32, BTreeSet<String>)> {
    let uid = u32::try_from(items.get("UID").context("no UID")?.number()?)?;
    let flags = items.get("FLAGS").context("no FLAGS")?.list()?.iter().map(Item::text);
    let mut flags: BTreeSet<String> = flags.collect::<Result<_>>()?;
    flags.remove("\\Recent");
    Ok((uid, flags))
}

/// The Message-ID in a header.
pub fn id_in(header: &[u8]) -> Result<String> {
    let id = tests::mail::id_of(header)?;
    Ok(id.trim_matches(['<', '>']).to_owned())
}

/// Codes of refusals after which nothing was done.
const FOR_GOOD: [&str; 6] = ["TRYCREATE", "NONEXISTENT", "ALREADYEXISTS", "CANNOT", "LIMIT", "EXPUNGEISSUED"];

fn outcome(reply: &Reply, request: &Request) -> Outcome {
    match reply.status {
        Status::Ok => match answer(reply, request) {
            Ok(answer) => Outcome::Done(answer),
            Err(error) => Outcome::Unknown(format!("a reply that can't be understood: {error:#}")),
        },
        Status::No if FOR_GOOD.iter().any(|code| reply.text.code.as_deref() == Some(code)) => Outcome::Refused(format!("{:?}", reply.text)),
        Status::Bad => Outcome::Refused(format!("BAD {:?}", reply.text)),
        Status::No => Outcome::Unknown(format!("{:?}", reply.text)),
    }
}

fn answer(reply: &Reply, request: &Request) -> Result<Answer> {
    match request {
        Request::Append { .. } => {
            let (validity, uid) = reply.code("APPENDUID").and_then(|code| code.split_once(' ')).context("no APPENDUID")?;
            Ok(Answer::Placed { validity: validity.parse()?, uids: vec![(0, uid.parse()?)] })
        }
        Request::Copy { .. } | Request::Move { .. } => {
            // Without COPYUID, none of the messages was there any more.
            let Some(code) = reply.code("COPYUID") else { return Ok(Answer::Placed { validity: 0, uids: Vec::new() }) };
            let parts: Vec<&str> = code.split(' ').collect();
            let [validity, from, to] = parts.as_slice() else { anyhow::bail!("COPYUID {code}") };
            let (from, to) = (uids(from)?, uids(to)?);
            ensure!(from.len() == to.len(), "COPYUID {code}");
            Ok(Answer::Placed { validity: validity.parse()?, uids: from.into_iter().zip(to).collect() })
        }
        _ => Ok(Answer::Plain),
    }
}

/// `3,5:7` as numbers.
fn uids(set: &str) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for part in set.split(',') {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        all.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(all)
}
