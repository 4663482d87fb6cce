//! What is measured with a mailbox of some thousand messages, step by step: every step is done by every server before the next one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustls::ClientConfig;
use tests::{site::User, tls, wait};

use crate::{
    client::Client,
    corpus::{self, NEEDLE},
    servers::Server,
    table::{Measure, Sample},
    usage,
};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// Messages in the mailbox.
    pub messages: usize,
    /// Single commands: STORE, APPEND, logins.
    pub singles: usize,
    /// Idle connections.
    pub idle: usize,
}

/// Connections of parallel loads.
const CONNECTIONS: usize = 4;
/// Bytes and number of the large messages.
const LARGE: (usize, usize) = (1024 * 1024, 40);
/// Deliveries whose arrival in IDLE is timed.
const PUSHES: usize = 30;

/// A server with this round's user and a session that has INBOX selected.
pub struct Turn {
    server: Arc<Server>,
    user: User,
    session: Client,
    amounts: Amounts,
    tls: Arc<ClientConfig>,
}

/// One measure.
pub struct Step {
    /// Its row.
    pub measure: Measure,
    /// Does it; `None`: the server lacks it.
    pub run: fn(&mut Turn) -> Result<Option<Sample>>,
}

const fn step(name: &'static str, unit: &'static str, goal: f64, run: fn(&mut Turn) -> Result<Option<Sample>>) -> Step {
    let goal = if goal > 0.0 { Some(goal) } else { None };
    Step { measure: Measure { name, unit, more_is_better: true, goal }, run }
}
/// Time or memory: less is better.
const fn less(step: Step) -> Step {
    Step { measure: Measure { more_is_better: false, ..step.measure }, run: step.run }
}

/// In this order: each finds what the ones before left.
pub const STEPS: &[Step] = &[
    step("LMTP, 4 connections, 4–20 KiB", "messages/s", 0.0, Turn::deliver),
    less(step("SELECT after delivery", "ms", 0.0, Turn::select_first)),
    step("FETCH FLAGS SIZE ENVELOPE BODYSTRUCTURE, first", "messages/s", 40.0, |turn| turn.fetch(METADATA)),
    step("FETCH FLAGS SIZE ENVELOPE BODYSTRUCTURE, again", "messages/s", 4.0, |turn| turn.fetch(METADATA)),
    step("FETCH FLAGS, again", "messages/s", 0.0, |turn| turn.fetch("(UID FLAGS)")),
    step("FETCH header fields, first", "messages/s", 3.0, |turn| turn.fetch(FIELDS)),
    step("FETCH header fields, again", "messages/s", 3.0, |turn| turn.fetch(FIELDS)),
    step("FETCH a rare header field, first", "messages/s", 0.0, |turn| turn.fetch(RARE_FIELD)),
    step("FETCH a rare header field, again", "messages/s", 0.0, |turn| turn.fetch(RARE_FIELD)),
    step("FETCH bodies, 4–20 KiB", "MB/s", 1.5, Turn::bodies),
    step("FETCH bodies, 1 MiB", "MB/s", 1.5, Turn::large_bodies),
    step("STORE 1:* silent", "messages/s", 5.0, |turn| turn.store("+FLAGS.SILENT (\\Flagged)")),
    step("STORE 1:*", "messages/s", 5.0, |turn| turn.store("-FLAGS (\\Flagged)")),
    step("single STOREs, 1 connection", "commands/s", 2.0, Turn::single_stores),
    step("single STOREs, 4 connections", "commands/s", 2.0, Turn::parallel_stores),
    step("SEARCH HEADER SUBJECT, first", "searches/s", 5.0, |turn| turn.search("SUBJECT \"report 77 \"")),
    step("SEARCH HEADER SUBJECT, again", "searches/s", 3.0, |turn| turn.search("SUBJECT \"report 78 \"")),
    step("SEARCH BODY", "searches/s", 1.5, |turn| turn.search(&format!("BODY {NEEDLE}"))),
    step("SEARCH UNSEEN", "searches/s", 0.0, |turn| turn.search("UNSEEN SINCE 1-Jan-2020 LARGER 100")),
    step("SORT (DATE)", "sorts/s", 3.0, |turn| turn.with_capability("SORT", "SORT (DATE) UTF-8 ALL")),
    step("SORT (SUBJECT)", "sorts/s", 3.0, |turn| turn.with_capability("SORT", "SORT (SUBJECT) UTF-8 ALL")),
    step("THREAD REFERENCES", "threads/s", 3.0, |turn| turn.with_capability("THREAD=REFERENCES", "THREAD REFERENCES UTF-8 ALL")),
    step("APPEND, 4 connections", "messages/s", 1.5, Turn::appends),
    step("COPY of all", "messages/s", 2.0, Turn::copy),
    step("MOVE of all", "messages/s", 2.0, Turn::move_all),
    step("EXPUNGE of all", "messages/s", 2.0, Turn::expunge),
    less(step("SELECT, warm, of the full INBOX", "ms", 0.0, Turn::select_warm)),
    step("login, SELECT, LOGOUT", "sessions/s", 4.0, |turn| turn.logins(false)),
    step("login, SELECT, LOGOUT with TLS", "sessions/s", 4.0, |turn| turn.logins(true)),
    less(step("push on IDLE after the 250, median", "ms", 0.0, Turn::push)),
    less(step("memory of an idle connection", "KiB", 0.0, |turn| turn.idle(false))),
    less(step("memory of an idle connection with TLS", "KiB", 0.0, |turn| turn.idle(true))),
];

const METADATA: &str = "(UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE)";
const FIELDS: &str = "(UID BODY.PEEK[HEADER.FIELDS (FROM TO CC SUBJECT DATE MESSAGE-ID REFERENCES)])";
const RARE_FIELD: &str = "(UID BODY.PEEK[HEADER.FIELDS (X-MAILER)])";

impl Turn {
    /// The turn of `server` in a round.
    pub fn new(server: &Arc<Server>, round: usize, amounts: Amounts) -> Result<Turn> {
        let user = server.users.get(round).context("more rounds than users")?.clone();
        let tls = tls::trusting_client()?;
        let session = Client::login(&server.doors.imap, None, &user.name, &user.password)?;
        Ok(Turn { server: Arc::clone(server), user, session, amounts, tls })
    }

    fn deliver(&mut self) -> Result<Option<Sample>> {
        let address = self.user.address();
        let count = self.amounts.messages;
        self.parallel(count, |next| {
            let mut lmtp = Client::lmtp(&self.server.doors.lmtp)?;
            while let Some(number) = next() {
                lmtp.deliver(&address, &corpus::data(corpus::message(number + 1)))?;
            }
            Ok(())
        })
    }
    fn select_first(&mut self) -> Result<Option<Sample>> {
        let select = self.timed(1, |turn| turn.session.command("SELECT INBOX").map(|answer| answer.exists))?;
        ensure!(select.1 == self.amounts.messages, "{} messages instead of {}", select.1, self.amounts.messages);
        Ok(Some(milliseconds(select.0)))
    }
    fn fetch(&mut self, items: &str) -> Result<Option<Sample>> {
        let count = self.amounts.messages;
        let (sample, answer) = self.timed(count, |turn| turn.session.command(&format!("FETCH 1:* {items}")))?;
        ensure!(answer.untagged >= count, "only {} responses", answer.untagged);
        Ok(Some(sample))
    }
    fn bodies(&mut self) -> Result<Option<Sample>> {
        let (sample, answer) = self.timed(1, |turn| turn.session.command("FETCH 1:* BODY.PEEK[]"))?;
        Ok(Some(megabytes(sample, answer.bytes)))
    }
    fn large_bodies(&mut self) -> Result<Option<Sample>> {
        self.session.command("CREATE Large")?;
        let message = corpus::large(LARGE.0);
        for _ in 0..LARGE.1 {
            self.session.append("Large", &message)?;
        }
        self.session.command("SELECT Large")?;
        let (sample, answer) = self.timed(1, |turn| turn.session.command("FETCH 1:* BODY.PEEK[]"))?;
        self.session.command("SELECT INBOX")?;
        Ok(Some(megabytes(sample, answer.bytes)))
    }
    fn store(&mut self, change: &str) -> Result<Option<Sample>> {
        let count = self.amounts.messages;
        Ok(Some(self.timed(count, |turn| turn.session.command(&format!("STORE 1:* {change}")))?.0))
    }
    fn single_stores(&mut self) -> Result<Option<Sample>> {
        let count = self.amounts.singles;
        let run = |turn: &mut Turn| {
            for number in 1..=count {
                turn.session.command(&format!("STORE {number} +FLAGS (\\Answered)"))?;
            }
            Ok(())
        };
        Ok(Some(self.timed(count, run)?.0))
    }
    fn parallel_stores(&mut self) -> Result<Option<Sample>> {
        let count = self.amounts.singles;
        self.parallel(count, |next| {
            let mut session = self.log_in(false)?;
            session.command("SELECT INBOX")?;
            while let Some(number) = next() {
                session.command(&format!("STORE {} -FLAGS (\\Answered)", number + 1))?;
            }
            Ok(())
        })
    }
    fn search(&mut self, keys: &str) -> Result<Option<Sample>> {
        Ok(Some(self.timed(1, |turn| turn.session.command(&format!("SEARCH {keys}")))?.0))
    }
    fn with_capability(&mut self, capability: &str, command: &str) -> Result<Option<Sample>> {
        let tag = self.session.begin("CAPABILITY")?;
        let line = loop {
            let line = self.session.text_line()?;
            if line.starts_with("* CAPABILITY") {
                break line;
            }
        };
        self.session.finish(&tag)?;
        if !line.split_whitespace().any(|word| word == capability) {
            return Ok(None);
        }
        Ok(Some(self.timed(1, |turn| turn.session.command(command))?.0))
    }
    fn appends(&mut self) -> Result<Option<Sample>> {
        self.session.command("CREATE Appended")?;
        let count = self.amounts.singles * 2;
        self.parallel(count, |next| {
            let mut session = self.log_in(false)?;
            while let Some(number) = next() {
                session.append("Appended", &corpus::message(number + 1))?;
            }
            Ok(())
        })
    }
    fn copy(&mut self) -> Result<Option<Sample>> {
        self.session.command("CREATE Copies")?;
        let count = self.amounts.messages;
        Ok(Some(self.timed(count, |turn| turn.session.command("COPY 1:* Copies"))?.0))
    }
    fn move_all(&mut self) -> Result<Option<Sample>> {
        self.session.command("CREATE Moved")?;
        self.session.command("SELECT Copies")?;
        let count = self.amounts.messages;
        Ok(Some(self.timed(count, |turn| turn.session.command("MOVE 1:* Moved"))?.0))
    }
    fn expunge(&mut self) -> Result<Option<Sample>> {
        self.session.command("SELECT Moved")?;
        self.session.command("STORE 1:* +FLAGS.SILENT (\\Deleted)")?;
        let count = self.amounts.messages;
        Ok(Some(self.timed(count, |turn| turn.session.command("EXPUNGE"))?.0))
    }
    fn select_warm(&mut self) -> Result<Option<Sample>> {
        self.session.command("SELECT INBOX")?;
        self.session.command("SELECT Appended")?;
        Ok(Some(milliseconds(self.timed(1, |turn| turn.session.command("SELECT INBOX"))?.0)))
    }
    fn logins(&mut self, tls: bool) -> Result<Option<Sample>> {
        // The mailbox is a small one: what is measured is the login.
        self.session.command("SELECT Sent").or_else(|_| self.session.command("SELECT Large"))?;
        let count = self.amounts.singles * 2;
        self.parallel(count, |next| {
            while next().is_some() {
                let mut session = self.log_in(tls)?;
                session.command("SELECT Large")?;
                session.command("LOGOUT")?;
            }
            Ok(())
        })
    }
    fn push(&mut self) -> Result<Option<Sample>> {
        let mut idle = self.log_in(false)?;
        idle.command("SELECT INBOX")?;
        idle.idle()?;
        let mut lmtp = Client::lmtp(&self.server.doors.lmtp)?;
        let mut times = Vec::new();
        for number in 0..PUSHES {
            lmtp.deliver(&self.user.address(), &corpus::data(corpus::message(number + 1)))?;
            let delivered = wait::now();
            while !idle.text_line()?.contains("EXISTS") {}
            times.push(delivered.elapsed().as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        Ok(Some(Sample { value: times[PUSHES / 2], cpu_us: None }))
    }
    fn idle(&mut self, tls: bool) -> Result<Option<Sample>> {
        let before = usage::settled_bytes(&self.server.processes)?;
        let mut sessions = Vec::new();
        for _ in 0..self.amounts.idle {
            let mut session = self.log_in(tls)?;
            session.command("SELECT Large")?;
            session.idle()?;
            session.shrink();
            sessions.push(session);
        }
        let after = usage::settled_bytes(&self.server.processes)?;
        drop(sessions);
        let kib = after.saturating_sub(before) as f64 / 1024.0 / self.amounts.idle as f64;
        Ok(Some(Sample { value: kib, cpu_us: None }))
    }

    fn log_in(&self, tls: bool) -> Result<Client> {
        let (doors, user) = (&self.server.doors, &self.user);
        if tls {
            Client::login(&doors.imaps, Some(&self.tls), &user.name, &user.password)
        } else {
            Client::login(&doors.imap, None, &user.name, &user.password)
        }
    }
    /// Operations per second, and the CPU time of one.
    fn timed<T>(&mut self, operations: usize, work: impl FnOnce(&mut Turn) -> Result<T>) -> Result<(Sample, T)> {
        let cpu = usage::cpu(&self.server.processes)?;
        let start = wait::now();
        let answer = work(self)?;
        Ok((self.sample(operations, start.elapsed(), cpu)?, answer))
    }
    fn sample(&self, operations: usize, elapsed: Duration, cpu_before: Duration) -> Result<Sample> {
        let cpu = usage::cpu(&self.server.processes)?.saturating_sub(cpu_before);
        let operations = operations as f64;
        Ok(Sample { value: operations / elapsed.as_secs_f64(), cpu_us: Some(cpu.as_secs_f64() * 1e6 / operations) })
    }
    /// Runs `work` on `CONNECTIONS` threads; it takes numbers until there is none.
    fn parallel(&self, count: usize, work: impl Fn(&dyn Fn() -> Option<usize>) -> Result<()> + Sync) -> Result<Option<Sample>> {
        let taken = AtomicUsize::new(0);
        let next = || Some(taken.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count);
        let cpu = usage::cpu(&self.server.processes)?;
        let start = wait::now();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| work(&next))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
        })?;
        Ok(Some(self.sample(count, start.elapsed(), cpu)?))
    }
}

fn milliseconds(per_second: Sample) -> Sample {
    Sample { value: 1000.0 / per_second.value, ..per_second }
}

fn megabytes(per_second: Sample, bytes: u64) -> Sample {
    let megabytes = bytes as f64 / 1e6;
    Sample { value: per_second.value * megabytes, cpu_us: per_second.cpu_us.map(|cpu| cpu / megabytes) }
}
