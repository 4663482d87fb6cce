//! Many clients on few mailboxes of one account, through two nodes, at random from a seed: each holds every response against what it may be told
//! (`mirror.rs`), and now and then all stop and must see the same UIDs, flags and bytes.
//!
//! `BERTH_STRESS_SEED` and `BERTH_STRESS_MINUTES` make it another or a longer one.

mod mirror;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tests::{
    Context, Result, bail,
    clients::imap::{Imap, Reply, Status, fetch_items},
    ensure,
    site::{Own, Site},
    wait::Deadline,
};

use self::mirror::{Flags, Mirror, Numbers, flags_of};

/// Clients at once; half of them on either node.
const CLIENTS: u64 = 20;
/// Commands of each client between two looks at all of them.
const COMMANDS: usize = 15;
/// Rounds without a time limit.
const ROUNDS: usize = 4;
const MAILBOXES: [&str; 3] = ["INBOX", "Work", "Trash"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "todo", "$Junk"];

/// A message of a mailbox: name and UID (UIDVALIDITY never changes here).
type Place = (String, u32);

/// What is known beyond one client.
#[derive(Default)]
struct Ledger {
    /// Which message was acknowledged to be where.
    placed: BTreeMap<Place, u64>,
    /// What somebody asked to remove.
    doomed: BTreeSet<Place>,
    /// What somebody was told to be gone.
    gone: BTreeSet<Place>,
    messages: u64,
}

struct Client {
    imap: Imap,
    rng: StdRng,
    qresync: bool,
    mailbox: Option<(&'static str, Mirror, bool)>,
    /// As they were left.
    left: BTreeMap<&'static str, Mirror>,
}

/// The message with this number.
fn message(number: u64) -> Vec<u8> {
    let body = format!("line of {number}\r\n").repeat(usize::try_from(number % 40).unwrap_or(0));
    format!("From: ada@tests.example\r\nSubject: {number}\r\nMessage-ID: <{number}@stress>\r\n\r\n{body}").into_bytes()
}

fn number_of(message: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(message)?;
    let number = text.split("Subject: ").nth(1).and_then(|rest| rest.split("\r\n").next()).context("a message without a subject")?;
    Ok(number.parse()?)
}

/// The numbers of a set such as `3,7:9`.
fn set(text: &str) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for run in text.split(',') {
        let (low, high) = run.split_once(':').unwrap_or((run, run));
        numbers.extend(low.parse::<u32>()?..=high.parse()?);
    }
    Ok(numbers)
}

impl Ledger {
    fn place(&mut self, mailbox: &str, uid: u32, number: u64) -> Result<()> {
        let before = self.placed.insert((mailbox.to_owned(), uid), number);
        ensure!(before.is_none_or(|before| before == number), "UID {uid} of {mailbox} is message {number}, it was {before:?}");
        Ok(())
    }
}

impl Client {
    fn new(site: &Own, number: u64, seed: u64) -> Result<Client> {
        let node = &site.nodes[usize::try_from(number)? % site.nodes.len()];
        let mut imap = Imap::login(&node.imap, &site.user.name, &site.user.password)?;
        let qresync = number.is_multiple_of(3);
        if qresync {
            imap.command("ENABLE QRESYNC")?.ok()?;
        } else {
            imap.command("ENABLE CONDSTORE")?.ok()?;
        }
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));
        Ok(Client { imap, rng, qresync, mailbox: None, left: BTreeMap::new() })
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    fn work(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        for _ in 0..COMMANDS {
            self.step(ledger)?;
        }
        Ok(())
    }

    /// Sends a command and takes in what it brought.
    fn command(&mut self, command: &str, numbers: Numbers, ledger: &Mutex<Ledger>) -> Result<Reply> {
        let reply = self.imap.command(command)?;
        self.take(&reply, numbers, ledger).with_context(|| format!("after {command}"))?;
        ensure!(reply.status != Status::Bad, "{command}: {:?}", reply.text);
        let expected = reply.status == Status::Ok || matches!(reply.text.code.as_deref(), Some("EXPUNGEISSUED" | "READ-ONLY"));
        ensure!(expected, "{command}: {:?}", reply.text);
        Ok(reply)
    }

    fn take(&mut self, reply: &Reply, numbers: Numbers, ledger: &Mutex<Ledger>) -> Result<()> {
        let Some((name, mirror, _)) = &mut self.mailbox else { return Ok(()) };
        let taken = mirror.take(&reply.untagged, numbers);
        if let Some(modseq) = reply.text.arguments.parse().ok().filter(|_| reply.text.code.as_deref() == Some("HIGHESTMODSEQ")) {
            mirror.highest_modseq = modseq;
        }
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.gone.extend(mirror.gone.drain(..).map(|uid| ((*name).to_owned(), uid)));
        taken.with_context(|| self.imap.wire().story())
    }

    fn step(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        let Some((name, mirror, writable)) = &self.mailbox else { return self.select(ledger) };
        let (name, writable, count) = (*name, *writable, mirror.len());
        // A client that was told of messages asks for their UIDs.
        if let Some(first) = mirror.first_unknown() {
            let reply = self.command(&format!("FETCH {first}:* (UID FLAGS MODSEQ)"), Numbers::Stand, ledger)?;
            // Those that are gone have no UID any more: it wants to be told so.
            return if reply.status == Status::Ok { Ok(()) } else { self.command("NOOP", Numbers::Move, ledger).map(drop) };
        }
        let sequence = if count > 0 { self.rng.random_range(1..=count) } else { 0 };
        let last = if count > 0 { (sequence + self.rng.random_range(0..4)).min(count) } else { 0 };
        let uids: Vec<u32> = match &self.mailbox {
            Some((_, mirror, _)) => (sequence.max(1)..=last).filter_map(|sequence| mirror.uid(sequence)).collect(),
            None => Vec::new(),
        };
        let named = uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let by_uid = self.rng.random_bool(0.5);
        let (verb, named) = if by_uid { ("UID ", named) } else { ("", format!("{sequence}:{last}")) };
        let stand = if by_uid { Numbers::Move } else { Numbers::Stand };
        let doom = |uids: &[u32]| {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).doomed.extend(uids.iter().map(|uid| (name.to_owned(), *uid)))
        };
        match self.rng.random_range(0..100) {
            0..=24 => self.append(ledger),
            25..=29 => self.command("NOOP", Numbers::Move, ledger).map(drop),
            30..=34 => self.idle(ledger),
            35..=42 => self.leave(ledger),
            _ if count == 0 => self.append(ledger),
            43..=52 => self.fetch_bodies(&format!("{verb}FETCH {named} (UID BODY.PEEK[])"), name, stand, ledger),
            53..=56 => self.command(&format!("{verb}FETCH {named} (UID FLAGS MODSEQ)"), stand, ledger).map(drop),
            57..=60 => self.command(&format!("{verb}SEARCH UNDELETED"), stand, ledger).map(drop),
            61..=65 => self.copy(&format!("{verb}COPY {named}"), name, false, ledger),
            _ if !writable => self.leave(ledger),
            66..=69 => {
                doom(&uids);
                self.copy(&format!("{verb}MOVE {named}"), name, true, ledger)
            }
            70..=92 => {
                let (how, flag) = (self.pick(&["+FLAGS", "-FLAGS", "FLAGS"]), self.pick(&FLAGS));
                if flag == "\\Deleted" {
                    doom(&uids);
                }
                self.store(&format!("{verb}STORE {named}"), how, flag, &uids, stand, ledger)
            }
            93..=95 => self
                .command(&format!("UID EXPUNGE {}", uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")), Numbers::Move, ledger)
                .map(drop),
            _ => self.command("EXPUNGE", Numbers::Move, ledger).map(drop),
        }
    }

    fn select(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        let (name, writable) = (self.pick(&MAILBOXES), self.rng.random_bool(0.85));
        let verb = if writable { "SELECT" } else { "EXAMINE" };
        let earlier = self.left.remove(name).filter(|mirror| self.qresync && mirror.first_unknown().is_none());
        let resync = earlier.as_ref().map(|mirror| format!(" (QRESYNC ({} {}))", mirror.uid_validity, mirror.highest_modseq));
        let reply = self.imap.command(&format!("{verb} {name}{}", resync.unwrap_or_default()))?.ok()?;
        let mirror = Mirror::selected(&reply, self.qresync, earlier.as_ref()).with_context(|| self.imap.wire().story())?;
        let check = earlier.is_some();
        self.mailbox = Some((name, mirror, writable));
        if check {
            self.agrees_with_the_server(ledger).context("after QRESYNC")?;
        }
        Ok(())
    }

    /// What the client worked out from what it was told is what the server has. Others go on meanwhile: what comes in between is taken in first.
    fn agrees_with_the_server(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        let Some((_, mirror, _)) = &self.mailbox else { return Ok(()) };
        let believed = mirror.clone();
        let reply = self.command("UID FETCH 1:* (UID FLAGS MODSEQ)", Numbers::Move, ledger)?;
        // Each by itself: after an EXPUNGE, a number is another message's.
        for response in reply.all("FETCH") {
            let items = fetch_items(response)?;
            let uid = u32::try_from(items.get("UID").context("no UID")?.number()?)?;
            let Some(flags) = items.get("FLAGS") else { continue };
            let modseq = items.get("MODSEQ").context("no MODSEQ")?.list()?[0].number()?;
            if believed.modseqs.get(&uid) == Some(&modseq) {
                let flags = flags_of(flags)?;
                ensure!(believed.flags.get(&uid) == Some(&flags), "{uid} has {flags:?}, believed {:?}", believed.flags.get(&uid));
            }
        }
        Ok(())
    }

    fn leave(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        let command = self.pick(&["UNSELECT", "CLOSE", "again"]);
        let Some((name, mirror, _)) = self.mailbox.take() else { return Ok(()) };
        if command != "again" {
            let reply = self.imap.command(command)?.ok()?;
            ensure!(reply.all("EXPUNGE").count() == 0 && reply.all("VANISHED").count() == 0, "{command} tells expunges");
        }
        self.left.insert(name, mirror);
        self.select(ledger)
    }

    fn append(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        let (mailbox, flag) = (self.pick(&MAILBOXES), self.pick(&FLAGS));
        let number = {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.messages += 1;
            ledger.messages
        };
        let text = message(number);
        let reply = if self.rng.random_bool(0.5) {
            self.imap.command_with_literal(&format!("APPEND {mailbox} ({flag})"), &text, "")?
        } else {
            let text = std::str::from_utf8(&text)?;
            self.imap.command(&format!("APPEND {mailbox} ({flag}) {{{}+}}\r\n{text}", text.len()))?
        };
        self.take(&reply, Numbers::Move, ledger)?;
        let reply = reply.ok()?;
        let uid = reply.code("APPENDUID").and_then(|code| code.split_once(' ')).context("no APPENDUID")?.1.parse()?;
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if flag == "\\Deleted" {
            ledger.doomed.insert((mailbox.to_owned(), uid));
        }
        ledger.place(mailbox, uid, number)
    }

    fn copy(&mut self, command: &str, from: &str, moves: bool, ledger: &Mutex<Ledger>) -> Result<()> {
        let to = self.pick(&MAILBOXES);
        let reply = self.command(&format!("{command} {to}"), Numbers::Move, ledger)?;
        let Some(code) = reply.code("COPYUID") else { return Ok(()) };
        let [_, old, new] = code.split(' ').collect::<Vec<_>>()[..] else { bail!("COPYUID {code}") };
        let (old, new) = (set(old)?, set(new)?);
        ensure!(old.len() == new.len(), "COPYUID {code}");
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for (old, new) in old.into_iter().zip(new) {
            // A message with \Deleted may go by somebody's EXPUNGE in its new place as well.
            if moves || ledger.doomed.contains(&(from.to_owned(), old)) {
                ledger.doomed.insert((to.to_owned(), new));
            }
            if let Some(number) = ledger.placed.get(&(from.to_owned(), old)).copied() {
                ledger.place(to, new, number)?;
            }
        }
        Ok(())
    }

    fn store(&mut self, command: &str, how: &str, flag: &str, uids: &[u32], numbers: Numbers, ledger: &Mutex<Ledger>) -> Result<()> {
        let (silent, conditional) = (self.rng.random_bool(0.4), self.rng.random_bool(0.2));
        let Some((_, mirror, _)) = &self.mailbox else { return Ok(()) };
        let since = if conditional { format!(" (UNCHANGEDSINCE {})", mirror.highest_modseq) } else { String::new() };
        let silently = if silent { ".SILENT" } else { "" };
        let command = format!("{command}{since} {how}{silently} ({flag})");
        let reply = self.imap.command(&command)?;
        // With NO [EXPUNGEISSUED], those that are still there were changed.
        if silent && reply.status != Status::Bad {
            self.store_in_mirror(&reply, how, flag, uids, numbers).with_context(|| format!("after {command}"))?;
            self.take(&Reply { untagged: Vec::new(), ..reply.clone() }, numbers, ledger)?;
        } else {
            self.take(&reply, numbers, ledger).with_context(|| format!("after {command}"))?;
        }
        // RFC 7162 §3.1.3: MODIFIED comes with NO as well, where others are gone.
        let some_are_gone = |code: &str| code == "EXPUNGEISSUED" || (conditional && code == "MODIFIED");
        let fine = reply.status == Status::Ok || (reply.status == Status::No && reply.text.code.as_deref().is_some_and(some_are_gone));
        ensure!(fine, "{command}: {:?}", reply.text);
        Ok(())
    }

    /// Takes in what came; where a response without FLAGS confirms a change, the client works the flags out itself, and what comes later is news.
    fn store_in_mirror(&mut self, reply: &Reply, how: &str, flag: &str, uids: &[u32], numbers: Numbers) -> Result<()> {
        let Some((_, mirror, _)) = &mut self.mailbox else { return Ok(()) };
        for response in &reply.untagged {
            mirror.take_one(response, numbers)?;
            if response.name != "FETCH" {
                continue;
            }
            let items = fetch_items(response)?;
            let confirmed = items.get("UID").map(|uid| uid.number()).transpose()?.and_then(|uid| u32::try_from(uid).ok());
            if let Some(uid) = confirmed.filter(|uid| !items.contains_key("FLAGS") && uids.contains(uid)) {
                let mut flags: Flags = mirror.flags.get(&uid).cloned().unwrap_or_default();
                match how {
                    "FLAGS" => flags = vec![flag.to_owned()],
                    "+FLAGS" => flags.push(flag.to_owned()),
                    _ => flags.retain(|other| other != flag),
                }
                flags.sort();
                flags.dedup();
                mirror.flags.insert(uid, flags);
            }
        }
        Ok(())
    }

    fn fetch_bodies(&mut self, command: &str, name: &str, numbers: Numbers, ledger: &Mutex<Ledger>) -> Result<()> {
        let reply = self.command(command, numbers, ledger)?;
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for response in reply.all("FETCH") {
            let items = fetch_items(response)?;
            let Some(body) = items.get("BODY[]") else { continue };
            let (uid, body) = (u32::try_from(items.get("UID").context("no UID")?.number()?)?, body.bytes()?);
            let number = number_of(body)?;
            ensure!(body == message(number), "message {number} has other bytes");
            ledger.place(name, uid, number)?;
        }
        Ok(())
    }

    fn idle(&mut self, ledger: &Mutex<Ledger>) -> Result<()> {
        let tag = self.imap.send("IDLE")?;
        let mut told = Vec::new();
        self.imap.continued(&mut told)?;
        let longest = Deadline::after(Duration::from_millis(self.rng.random_range(0..100)));
        while let Ok(response) = self.imap.next_untagged(longest.left()) {
            told.push(response);
        }
        let reply = self.imap.done(&tag)?.ok()?;
        told.extend(reply.untagged.clone());
        self.take(&Reply { untagged: told, ..reply }, Numbers::Move, ledger)
    }
}

/// A mailbox as a new session sees it: UID → flags and number, and what SELECT counted.
fn truth(site: &Own, node: usize, mailbox: &str) -> Result<BTreeMap<u32, (Flags, u64)>> {
    let mut imap = Imap::login(&site.nodes[node].imap, &site.user.name, &site.user.password)?;
    let exists = imap.select(mailbox)?.exists().context("no EXISTS")?;
    let reply = imap.command("UID FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[])")?.ok()?;
    let mut found = BTreeMap::new();
    for items in reply.messages()?.values() {
        let uid = u32::try_from(items.get("UID").context("no UID")?.number()?)?;
        let body = items.get("BODY[]").context("no BODY[]")?.bytes()?;
        let number = number_of(body)?;
        ensure!(body == message(number), "message {number} has other bytes");
        ensure!(items.get("RFC822.SIZE").context("no size")?.number()? == body.len() as u64, "message {number} has another size");
        found.insert(uid, (flags_of(items.get("FLAGS").context("no FLAGS")?)?, number));
    }
    ensure!(found.len() == usize::try_from(exists)?, "{mailbox} has {} messages, EXISTS says {exists}", found.len());
    imap.logout()?;
    Ok(found)
}

/// Nobody does anything: all see the same.
fn checkpoint(site: &Own, clients: &mut [Client], ledger: &Mutex<Ledger>) -> Result<()> {
    let mut truths = BTreeMap::new();
    for mailbox in MAILBOXES {
        let (one, other) = (truth(site, 0, mailbox)?, truth(site, 1, mailbox)?);
        ensure!(one == other, "{mailbox} is not the same through both nodes");
        truths.insert(mailbox, one);
    }
    for client in clients {
        client.command("NOOP", Numbers::Move, ledger)?;
        while let Some(first) = client.mailbox.as_ref().and_then(|(_, mirror, _)| mirror.first_unknown()) {
            client.command(&format!("FETCH {first}:* (UID FLAGS MODSEQ)"), Numbers::Stand, ledger)?;
        }
        client.agrees_with_the_server(ledger)?;
        let Some((name, mirror, _)) = &client.mailbox else { continue };
        let truth = &truths[name];
        let uids: Vec<u32> = truth.keys().copied().collect();
        ensure!(mirror.uids().as_ref() == Some(&uids), "{name} is {uids:?}, a client believes {:?}", mirror.uids());
        for (uid, flags) in &mirror.flags {
            ensure!(truth[uid].0 == *flags, "{uid} of {name} has {:?}, a client believes {flags:?}", truth[uid].0);
        }
    }
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    for (mailbox, truth) in &truths {
        for (uid, (_, number)) in truth {
            ledger.place(mailbox, *uid, *number)?;
            ensure!(!ledger.gone.contains(&((*mailbox).to_owned(), *uid)), "{uid} of {mailbox} is there, and was told to be gone");
        }
    }
    let is_there = |(mailbox, uid): &Place| truths.get(mailbox.as_str()).is_some_and(|truth| truth.contains_key(uid));
    let lost: Vec<&Place> = ledger.placed.keys().filter(|place| !is_there(place) && !ledger.doomed.contains(*place)).collect();
    ensure!(lost.is_empty(), "acknowledged, removed by nobody, and lost: {lost:?}");
    Ok(())
}

#[test]
fn twenty_clients_at_random_believe_what_is_there() -> Result<()> {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>()).transpose();
    let seed = number("BERTH_STRESS_SEED")?.unwrap_or(1);
    let minutes = number("BERTH_STRESS_MINUTES")?;
    println!("BERTH_STRESS_SEED={seed}");
    let site = Site::shared()?;
    let mut first = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    for mailbox in &MAILBOXES[1..] {
        // Some are there for every user.
        first.command(&format!("CREATE {mailbox}"))?;
    }
    first.logout()?;
    let mut clients = (0..CLIENTS).map(|number| Client::new(&site, number, seed)).collect::<Result<Vec<_>>>()?;
    let ledger = Mutex::new(Ledger::default());
    let deadline = Deadline::after(Duration::from_secs(60 * minutes.unwrap_or(0)));
    let mut rounds = 0;
    while rounds < ROUNDS || !deadline.passed() {
        rounds += 1;
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let running: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| client.work(&ledger))).collect();
            running.into_iter().map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked"))).collect()
        });
        results.into_iter().collect::<Result<()>>().with_context(|| format!("seed {seed}, round {rounds}"))?;
        checkpoint(&site, &mut clients, &ledger).with_context(|| format!("seed {seed}, after round {rounds}"))?;
    }
    println!("{rounds} rounds, {} messages", ledger.into_inner().unwrap_or_else(PoisonError::into_inner).messages);
    clients.into_iter().try_for_each(|client| client.imap.logout())
}
