//! Programs that a test started: signals, memory, and an end for each of them.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// How long a program may take to end after SIGTERM before it is killed: longer than a demo gives its nodes.
const GRACE: Duration = Duration::from_secs(25);

/// How long it may take on a busy machine until every thread of a process has seen SIGSTOP.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A process by number. Signals go to exactly this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(Pid);

impl Process {
    /// From a process number that a program we started told us.
    pub fn from_raw(pid: i64) -> Result<Process> {
        let raw = i32::try_from(pid).ok().filter(|pid| *pid > 1).with_context(|| format!("{pid} is not a process number"))?;
        Ok(Process(Pid::from_raw(raw).with_context(|| format!("{pid} is not a process number"))?))
    }

    /// The number.
    pub fn pid(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// `kill -9`: the process ends without another instruction.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGSTOP: the process freezes, as a host that hangs does. Returns once all its threads have: on a busy machine the last ones go on for a while.
    pub fn pause(self) -> Result<()> {
        self.signal(Signal::STOP)?;
        wait::until("every thread to stop", STOP_LIMIT, || {
            for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
                let stat = fs::read_to_string(thread?.path().join("stat"))?;
                let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| rest);
                ensure!(state.starts_with(['T', 'Z', 'X']), "one is in state {}", &state[..1]);
            }
            Ok(())
        })
    }

    /// SIGCONT.
    pub fn resume(self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    fn signal(self, signal: Signal) -> Result<()> {
        kill_process(self.0, signal).with_context(|| format!("cannot send {signal:?} to process {}", self.pid()))
    }

    /// Whether it runs (a zombie does not).
    pub fn is_running(self) -> bool {
        let leads = fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .ok()
            .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
            .unwrap_or(false);
        // The first thread may have ended before the others, which still have the process's sockets.
        leads || fs::read_dir(format!("/proc/{}/task", self.pid())).is_ok_and(|threads| threads.count() > 1)
    }

    /// Waits until it has ended.
    pub fn wait_ended(self, limit: Duration) -> Result<()> {
        wait::until(&format!("the end of process {}", self.pid()), limit, || {
            ensure!(!self.is_running(), "it still runs");
            Ok(())
        })
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most that was in memory at once so far.
    pub fn most_resident_bytes(self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(self, key: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line: the process has ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("not a number")?;
        Ok(kib * 1024)
    }

    /// How many times it has called write(2) or one of its kind so far.
    pub fn writes(self) -> Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid()))?;
        let line = io.lines().find_map(|line| line.strip_prefix("syscw:")).context("no syscw line")?;
        line.trim().parse().context("syscw is not a number")
    }
}

/// A child that ends when its handle goes: SIGTERM first, and SIGKILL where that does not help.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    name: String,
}

impl Guarded {
    /// Starts `command`; `name` is for messages.
    pub fn start(name: &str, command: &mut Command) -> Result<Guarded> {
        let child = command.spawn().with_context(|| format!("cannot start {name} ({command:?})"))?;
        Ok(Guarded { child, name: name.to_owned() })
    }

    /// The process.
    pub fn process(&self) -> Result<Process> {
        Process::from_raw(i64::from(self.child.id()))
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails, with its status, when it has ended already.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early: {status}", self.name),
        }
    }

    /// Asks it to end and waits.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let process = self.process()?;
        process.terminate()?;
        // A stopped process takes the signal only once it goes on.
        process.resume()?;
        let ended = wait::until("its end", GRACE, || self.child.try_wait()?.context("it still runs"));
        if ended.is_err() {
            self.child.kill()?;
            self.child.wait()?;
            bail!("{} did not end within {GRACE:?} of SIGTERM and was killed", self.name);
        }
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a program to its end within `limit`; its output, whatever its status.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let ended = wait::until("its end", limit, || child.try_wait()?.context("it still runs"));
    if ended.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let collect = |reader: Option<thread::JoinHandle<Vec<u8>>>| reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let output = Output { status, stdout: collect(stdout), stderr: collect(stderr) };
    ended.with_context(|| format!("{command:?} took longer than {limit:?}; it said:\n{}", said(&output)))?;
    Ok(output)
}

/// The same, and it must succeed; gives its standard output.
pub fn run_ok(command: &mut Command, limit: Duration) -> Result<Vec<u8>> {
    let output = run(command, limit)?;
    ensure!(output.status.success(), "{command:?} failed ({}); it said:\n{}", output.status, said(&output));
    Ok(output.stdout)
}

/// Both outputs as text, for messages.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The last lines of a log file, for messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Reads to the end on a thread of its own, so that a full pipe never stops the writer.
fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Err(error) = pipe.read_to_end(&mut bytes) {
            eprintln!("cannot read a program's output: {error}");
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_child_has_ended_when_its_handle_is_gone() {
        let child = Guarded::start("sleep", Command::new("sleep").arg("600")).unwrap();
        let process = child.process().unwrap();
        assert!(process.is_running() && process.resident_bytes().unwrap() > 0);
        drop(child);
        assert!(!process.is_running());
    }

    #[test]
    fn a_paused_child_ends_too() {
        let child = Guarded::start("sleep", Command::new("sleep").arg("600")).unwrap();
        let process = child.process().unwrap();
        process.pause().unwrap();
        drop(child);
        assert!(!process.is_running());
    }

    #[test]
    fn a_program_that_never_ends_is_killed_at_its_limit() {
        let error = run(Command::new("sleep").arg("600"), Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("took longer"), "{error:#}");
    }

    #[test]
    fn process_numbers_that_would_mean_many_processes_are_refused() {
        for pid in [-1, 0, 1, i64::MAX] {
            assert!(Process::from_raw(pid).is_err(), "{pid}");
        }
    }
}
