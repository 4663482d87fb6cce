//! `cargo lab budget`: NFS requests per operation, counted by the kernel, against the budget. Fails where a row exceeds it.
//!
//! The state is mounted a second time with counters of its own, so that beats are counted apart from mail; what an operation asks of the state
//! beyond the beats (acquiring a lease) is added to its row.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{
    clients::lmtp::Lmtp,
    lab::{self, Cluster, Lab, Node, Plan},
    wait,
};

use crate::{
    counts::{Counts, QUIET, QUIET_AFTER_DELIVERY, Used, settled, total},
    fresh,
};

/// Deliveries, fetched bodies and logins over which a row is averaged.
const MANY: usize = 50;
/// Messages copied and moved by one command.
const COPIES: usize = 100;
/// The large INBOX: `MANY` messages, doubled this many times (12,800).
const DOUBLINGS: u32 = 8;
/// How long the sitting-still rows are watched.
const STILL: Duration = Duration::from_secs(40);
/// How often open mailboxes are compared with their folders there: more often than by default, so that the figure is an average.
const RESCAN: Duration = Duration::from_secs(5);
/// How long names wait for the flags of STORE.
const WRITE_BACK_AFTER: Duration = Duration::from_secs(6);
/// Hosts have `/var` in memory of their own.
const CACHE: &str = "[cache]\ndir = \"/var/cache/berth\"\nsize = \"64MiB\"";
/// The default interval.
const RESCAN_DEFAULT: Duration = Duration::from_secs(120);

/// Averages may be off by a beat that falls on either side.
const ROUNDING: f64 = 0.6;
/// What opening an account on a host that never saw its folders takes beyond the budget so far: a path is looked up folder by folder.
const FREE_USER_SURPLUS: f64 = 25.0;
/// Users who log in elsewhere first: each of the other nodes gets some of them, and knows the folders above all users.
const OTHERS: std::ops::RangeInclusive<usize> = 4..=15;

struct Row {
    what: String,
    budget: f64,
    /// What the check allows: the budget, or what is reached so far where that is more (docs/nfs.md says why).
    allowed: f64,
    measured: f64,
    detail: String,
}

/// Everything that a measurement needs.
struct Bench<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster,
    /// State requests per beat of a node where nothing happens.
    per_beat: f64,
    rows: Vec<Row>,
}

/// Measures all rows and prints them; `false` where one exceeds its budget.
pub fn run() -> Result<bool> {
    lab::enter()?;
    let lab = Lab::attach()?;
    let plan =
        Plan { state_apart: true, users: *OTHERS.end(), mail_settings: format!("rescan_interval = \"{RESCAN:?}\""), ..Plan::default() };
    let cluster = lab.start(&fresh("still"), &plan)?;
    let mut still = Bench { lab: &lab, cluster: &cluster, per_beat: 0.0, rows: Vec::new() };
    still.sitting_still()?;
    // Names are written back late, so that what STORE needs before its OK can be told from what follows.
    let plan = Plan { mail_settings: format!("write_back_after = \"{WRITE_BACK_AFTER:?}\""), sections: CACHE.to_owned(), ..plan };
    let cluster = lab.start(&fresh("budget"), &plan)?;
    let mut bench = Bench { lab: &lab, cluster: &cluster, per_beat: still.per_beat, rows: still.rows };
    bench.held_account()?;
    bench.free_user()?;
    lab.kill_all(plan.nodes)?;
    Ok(print(&bench.rows))
}

impl Bench<'_> {
    /// Beats and IDLE.
    fn sitting_still(&mut self) -> Result<()> {
        let node = self.holder_of("user1")?;
        let mut imap = node.open("user1")?;
        imap.idle()?;
        // The first comparison with a folder that has just been made reads it; those after it only look at its attributes.
        ensure!(imap.next_untagged(RESCAN * 2).is_err(), "something happened while nothing should");
        let before = Counts::of(self.lab, self.cluster, &node)?;
        let start = wait::now();
        ensure!(imap.next_untagged(STILL).is_err(), "something happened while nothing should");
        let used = before.until(&Counts::of(self.lab, self.cluster, &node)?);
        let looks = start.elapsed().as_secs_f64() / RESCAN.as_secs_f64();
        let per_minute = count(total(&used.mail)) / looks * 60.0 / RESCAN_DEFAULT.as_secs_f64();
        ensure!(used.beats > 0, "{} does not beat", node.name);
        self.per_beat = count(total(&used.state)) / count(used.beats);
        self.row("beat + watch, per node and second", 5.0, self.per_beat, format!("{:?} in {} beats", used.state, used.beats));
        self.row("IDLE, per minute", 1.0, per_minute, format!("{:?} in {looks:.1} looks", used.mail));
        Ok(())
    }

    fn held_account(&mut self) -> Result<()> {
        let node = self.holder_of("user2")?;
        let mut lmtp = Lmtp::connect(&node.lmtp())?;
        for (on, what) in [
            (false, "LMTP delivery, one recipient, 4 KiB, fs.protected_hardlinks=0"),
            (true, "LMTP delivery, one recipient, 4 KiB, fs.protected_hardlinks=1"),
        ] {
            self.protected_hardlinks(&node, on)?;
            // The first delivery opens the mailbox and reserves numbers: its share is part of the average.
            self.per_operation(what, 6.0, MANY * 2, &node, Some(QUIET_AFTER_DELIVERY), |number| {
                lmtp.deliver_ok("a@localhost", &["user2@localhost"], &four_kib(number))
            })?;
        }
        self.per_operation("login + SELECT of a held account", 0.0, MANY, &node, Some(QUIET), |_| node.open("user2").map(drop))?;

        let mut imap = node.open("user2")?;
        // What the first command of an account pays: a second index connection for reading, and the look into the target's folder.
        imap.command("FETCH 1 (ENVELOPE)")?.ok()?;
        imap.command("STATUS Archive (MESSAGES)")?.ok()?;
        self.per_operation("STORE on 200 messages, before the OK", 3.0, 1, &node, None, |_| {
            imap.command("STORE 1:* +FLAGS (\\Seen \\Flagged)")?.ok().map(drop)
        })?;
        // The names follow in the background; the next rows must not count them.
        let idling = imap.idle()?;
        ensure!(imap.wait_for("BYE", WRITE_BACK_AFTER * 2).is_err(), "the session ended");
        imap.done(&idling)?;
        self.per_operation("FETCH of metadata, 200 messages", 0.0, 1, &node, Some(QUIET), |_| {
            imap.command("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")?.ok().map(drop)
        })?;
        let n = count(u64::try_from(COPIES)?);
        self.protected_hardlinks(&node, false)?;
        self.per_operation("COPY of 100 messages, fs.protected_hardlinks=0", n + 5.0, 1, &node, Some(QUIET), |_| {
            imap.command(&format!("COPY 1:{COPIES} Archive"))?.ok().map(drop)
        })?;
        self.protected_hardlinks(&node, true)?;
        // Other messages: what the client was told about those it keeps.
        self.per_operation("COPY of 100 messages, fs.protected_hardlinks=1", 2.0 * n + 5.0, 1, &node, Some(QUIET), |_| {
            imap.command(&format!("COPY {}:{} Archive", COPIES + 1, COPIES * 2))?.ok().map(drop)
        })?;
        self.per_operation("MOVE of 100 messages", n + 5.0, 1, &node, Some(QUIET), |_| {
            imap.command(&format!("MOVE 1:{COPIES} Archive"))?.ok().map(drop)
        })?;
        imap.logout()
    }

    /// A user whose holder left: another node takes the lease, loads a large mailbox, and reads bodies that it never saw.
    fn free_user(&mut self) -> Result<()> {
        let user = "user3";
        let old = self.holder_of(user)?;
        let mut lmtp = Lmtp::connect(&old.lmtp())?;
        for number in 0..MANY {
            lmtp.deliver_ok("a@localhost", &["user3@localhost"], &four_kib(number))?;
        }
        let mut imap = old.open(user)?;
        for _ in 0..DOUBLINGS {
            imap.command("COPY 1:* INBOX")?.ok()?;
        }
        drop(imap);
        settled(self.lab, self.cluster, &old, QUIET_AFTER_DELIVERY)?;
        let others: Vec<&Node> = self.cluster.nodes.iter().filter(|node| node.name != old.name).collect();
        // What is measured is a node that serves others already.
        for (number, node) in OTHERS.zip(others.iter().cycle()) {
            node.open(&format!("user{number}"))?.logout()?;
        }
        let before = others.iter().map(|node| settled(self.lab, self.cluster, node, QUIET)).collect::<Result<Vec<_>>>()?;
        // The holder leaves in order and hands its leases over.
        self.lab.exec(&old.name, &["sh", "-c", "pkill -TERM -x berth; while pgrep -x berth >/dev/null; do sleep 0.02; done"])?;
        let via = others.first().context("one node only")?;
        let mut imap = via.open(user)?;
        let taken = self.lab.holder(self.cluster, user)?;
        let node = self.cluster.nodes.get(taken).context("no holder")?;
        let before = others.iter().zip(&before).find(|(other, _)| other.name == node.name).context("the old holder came back")?.1;
        let after = settled(self.lab, self.cluster, node, QUIET)?;
        let used = before.until(&after);
        let bytes: f64 = self.index_bytes(user)?;
        let read_size = 1_048_576.0;
        let budget = 20.0 + (bytes / read_size).ceil();
        let what = format!("login of a free user, {} messages in INBOX, index {:.1} MB", MANY << DOUBLINGS, bytes / 1e6);
        let allowed = budget + FREE_USER_SURPLUS;
        self.row_allowing(
            &what,
            budget,
            allowed,
            self.cost(&used),
            format!("mail {:?}, state {:?} in {} beats", used.mail, used.state, used.beats),
        );

        self.per_operation("FETCH of one body, never read here", 3.0, MANY, node, Some(QUIET), |number| {
            imap.command(&format!("FETCH {} BODY.PEEK[]", number + 1))?.ok().map(drop)
        })?;
        // The second reading is the one that the local cache keeps.
        self.per_operation("FETCH of one body, read before", 2.0, MANY, node, Some(QUIET), |number| {
            imap.command(&format!("FETCH {} BODY.PEEK[]", number + 1))?.ok().map(drop)
        })?;
        self.per_operation("FETCH of one body, from the local cache", 0.0, MANY, node, Some(QUIET), |number| {
            imap.command(&format!("FETCH {} BODY.PEEK[]", number + 1))?.ok().map(drop)
        })?;
        Ok(())
    }

    /// Runs `work` `times` times on `node`; `quiet`: what it leaves for the background counts as well, until so long nothing is asked.
    fn per_operation(
        &mut self,
        what: &str,
        budget: f64,
        times: usize,
        node: &Node,
        quiet: Option<Duration>,
        mut work: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let before = settled(self.lab, self.cluster, node, QUIET)?;
        for number in 0..times {
            work(number).with_context(|| what.to_owned())?;
        }
        let after = match quiet {
            Some(quiet) => settled(self.lab, self.cluster, node, quiet),
            None => Counts::of(self.lab, self.cluster, node),
        }?;
        let used = before.until(&after);
        let detail = format!("{times} ×: mail {:?}, state {:?} in {} beats", used.mail, used.state, used.beats);
        let each = self.cost(&used) / count(u64::try_from(times)?);
        self.row(what, budget, each, detail);
        Ok(())
    }

    /// All of the mail mount, and of the state what is more than the beats make (to one beat, which may fall on either side).
    fn cost(&self, used: &Used) -> f64 {
        let beats = (count(used.beats) + 1.0) * self.per_beat;
        count(total(&used.mail)) + (count(total(&used.state)) - beats).max(0.0).floor()
    }

    /// Whether the host's kernel asks the server for access to every file before it links it.
    fn protected_hardlinks(&self, node: &Node, on: bool) -> Result<()> {
        let line = format!("echo {} >/proc/sys/fs/protected_hardlinks", u8::from(on));
        self.lab.exec(&node.name, &["sh", "-c", &line]).map(drop)
    }

    /// Opens the user's account somewhere and says where.
    fn holder_of(&self, user: &str) -> Result<Node> {
        let via = self.cluster.nodes.first().context("no nodes")?;
        via.open(user)?.logout()?;
        let holder = self.lab.holder(self.cluster, user)?;
        self.cluster.nodes.get(holder).cloned().context("no holder")
    }

    fn index_bytes(&self, user: &str) -> Result<f64> {
        let name = self.cluster.root.rsplit('/').next().unwrap_or_default();
        let line = format!("cat /export/{name}/mail/_/{user}/index/*/index.db | wc -c");
        Ok(self.lab.exec("srv", &["sh", "-c", &line])?.trim().parse()?)
    }

    fn row(&mut self, what: &str, budget: f64, measured: f64, detail: String) {
        self.row_allowing(what, budget, budget, measured, detail);
    }

    fn row_allowing(&mut self, what: &str, budget: f64, allowed: f64, measured: f64, detail: String) {
        eprintln!("{what}: {measured:.2} of {budget} ({detail})");
        self.rows.push(Row { what: what.to_owned(), budget, allowed, measured, detail });
    }
}

/// A message of about 4 KiB.
fn four_kib(number: usize) -> Vec<u8> {
    let mut message =
        format!("From: a@localhost\r\nTo: b@localhost\r\nSubject: {number}\r\nMessage-ID: <{number}@lab>\r\n\r\n").into_bytes();
    while message.len() < 4_096 {
        message.extend_from_slice(b"A line of a message that is as long as lines of messages are.\r\n");
    }
    message
}

/// A count for averages.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(requests: u64) -> f64 {
    requests as f64
}

fn print(rows: &[Row]) -> bool {
    println!("| operation | budget | measured |\n| --- | --- | --- |");
    for row in rows {
        let mark = if row.measured > row.budget + ROUNDING { " **over**" } else { "" };
        println!("| {} | {} | {:.2}{mark} |", row.what, row.budget, row.measured);
    }
    for row in rows.iter().filter(|row| exceeds(row)) {
        println!("{} takes {:.2} requests, {} are allowed: {}", row.what, row.measured, row.allowed, row.detail);
    }
    !rows.iter().any(exceeds)
}

fn exceeds(row: &Row) -> bool {
    row.measured > row.allowed + ROUNDING
}
