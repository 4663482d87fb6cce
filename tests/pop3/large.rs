//! A maildrop of many small files: `BERTH_TESTS_MAILDROP=100000 cargo t -p tests --test pop3 -- --nocapture a_large_maildrop` for a large one.

use std::{env, fs, path::Path, time::Duration};

use tests::{
    Context, Result,
    clients::pop3::Pop3,
    cluster::{Cluster, Demo},
    ensure,
    process::Process,
    site::User,
    wait,
};

/// Messages, where `BERTH_TESTS_MAILDROP` does not say how many.
const MESSAGES: usize = 5_000;
/// Commands that are sent ahead of their answers.
const AHEAD: usize = 100;
/// What each message may take of the node's memory while a session with its index, its listing and its removal is open.
const BYTES_EACH: u64 = 1_000;
const BYTES_BESIDE: u64 = 24 << 20;
/// What each message may take of every step: a debug build on a busy machine that goes over all messages once. Over all pairs of 100,000, none is done in days.
const STEP_EACH: Duration = Duration::from_millis(2);
const STEP_BESIDE: Duration = Duration::from_secs(5);

#[test]
fn a_large_maildrop_is_listed_and_emptied_with_few_writes() -> Result<()> {
    let count = match env::var("BERTH_TESTS_MAILDROP") {
        Ok(count) => count.parse().context("BERTH_TESTS_MAILDROP is a number of messages")?,
        Err(_) => MESSAGES,
    };
    let cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    let (node, user) = (&cluster.nodes[0], &cluster.users[0]);
    // What is needed once is there.
    let other = &cluster.users[1];
    Pop3::login(&node.doors.pop3, &other.name, &other.password)?.quit()?;
    let cur = cluster.root.join("mail/_").join(&user.name).join("Maildir/cur");
    let bytes = plant(&cur, count)?;
    let mut steps = Steps { process: node.process, memory: node.process.resident_bytes()?, count: u32::try_from(count)? };

    let (mut pop3, _) = steps.time("first login", || log_in(&node.doors.pop3, user))?;
    let stat = pop3.ok("STAT")?;
    ensure!(stat == format!("{count} {bytes}"), "STAT says {stat}, {count} messages of {bytes} bytes are there");
    let (sizes, _) = steps.time("LIST", || pop3.lines("LIST"))?;
    ensure!(sizes.len() == count && sizes[count - 1] == format!("{count} {}", content(count - 1).len() + 3).as_bytes());
    let (ids, _) = steps.time("UIDL", || pop3.lines("UIDL"))?;
    ensure!(ids.len() == count);
    steps.time("TOP of 100", || ask(&mut pop3, (1..=count.min(100)).map(|number| format!("TOP {number} 9")), true))?;
    // Every second one: no two of them lie side by side.
    steps.time("DELE of every second", || ask(&mut pop3, (1..=count).step_by(2).map(|number| format!("DELE {number}")), false))?;
    let ((), writes) = steps.time("QUIT after DELE of every second", || pop3.quit())?;
    // Alone, each would take four at least.
    ensure!(writes < 2_000 + count as u64 / 2, "{writes} writes for {} removals: they do not share commits", count.div_ceil(2));

    let (mut pop3, _) = steps.time("second login", || log_in(&node.doors.pop3, user))?;
    let left: Vec<Vec<u8>> = pop3.lines("UIDL")?.into_iter().map(|line| identifier(&line).to_vec()).collect();
    let expected: Vec<Vec<u8>> = ids.iter().skip(1).step_by(2).map(|line| identifier(line).to_vec()).collect();
    ensure!(left == expected, "other messages are left than were meant, or their identifiers changed");
    steps.time("DELE of the rest", || ask(&mut pop3, (1..=left.len()).map(|number| format!("DELE {number}")), false))?;
    steps.time("QUIT after DELE of the rest", || pop3.quit())?;
    let mut pop3 = log_in(&node.doors.pop3, user)?;
    ensure!(pop3.ok("STAT")? == "0 0");
    pop3.quit()?;
    let limit = STEP_BESIDE * 4 + STEP_EACH * u32::try_from(count)?;
    wait::until("the files to be gone", limit, || {
        let there = fs::read_dir(&cur)?.count();
        ensure!(there == 0, "{there} files are left");
        Ok(())
    })
}

/// What a session does, with the bounds of each step.
struct Steps {
    process: Process,
    memory: u64,
    count: u32,
}

impl Steps {
    /// What came of a step, and how many times the node wrote something meanwhile.
    fn time<T>(&mut self, step: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        let (started, writes) = (wait::now(), self.process.writes()?);
        let done = work().with_context(|| step.to_owned())?;
        let (took, writes) = (started.elapsed(), self.process.writes()? - writes);
        let grown = self.process.resident_bytes()?.saturating_sub(self.memory);
        eprintln!("{step}: {took:?}, {writes} writes; memory grew by {} KiB", grown / 1024);
        ensure!(took < STEP_BESIDE + STEP_EACH * self.count, "{step} took {took:?}");
        ensure!(grown < BYTES_BESIDE + BYTES_EACH * u64::from(self.count), "{step}: memory grew by {grown} bytes");
        Ok((done, writes))
    }
}

/// A login that may take its time: every file of an unknown Maildir is read for its size.
fn log_in(door: &str, user: &User) -> Result<Pop3> {
    let mut pop3 = Pop3::connect(door)?;
    pop3.wire().set_patience(Duration::from_secs(600));
    pop3.ok(&format!("USER {}", user.name))?;
    pop3.ok(&format!("PASS {}", user.password))?;
    Ok(pop3)
}

/// Sends commands some at a time, each of which must succeed.
fn ask(pop3: &mut Pop3, commands: impl Iterator<Item = String>, multiline: bool) -> Result<()> {
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let piece: Vec<String> = commands.by_ref().take(AHEAD).map(|command| command + "\r\n").collect();
        pop3.wire().send(piece.concat().as_bytes())?;
        for command in &piece {
            let answer = pop3.reply()?;
            ensure!(answer.is_ok(), "{command:?} was answered {answer:?}");
            while multiline && pop3.wire().line()? != b"." {}
        }
    }
    Ok(())
}

fn identifier(line: &[u8]) -> &[u8] {
    line.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default()
}

fn content(number: usize) -> String {
    format!("Subject: {number}\n\nsmall\n")
}

/// Messages as a delivery agent leaves them that says nothing of sizes in names; their size with CRLF.
fn plant(cur: &Path, count: usize) -> Result<usize> {
    for folder in [cur.to_owned(), cur.with_file_name("new"), cur.with_file_name("tmp")] {
        fs::create_dir_all(folder)?;
    }
    let mut bytes = 0;
    for number in 0..count {
        let content = content(number);
        bytes += content.len() + 3;
        fs::write(cur.join(format!("{}.{number}_1.mail.example.org:2,", 1_763_000_000 + number)), content)?;
    }
    Ok(bytes)
}
