//! One step: runs, writes its log, counts tests, remembers what was left out.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tests::{berth, wait};

/// How often a long step says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Lines of the log that are shown where a step fails.
const LINES_SHOWN: usize = 60;

/// One step of `cargo ready`.
pub struct Step {
    /// Its name, for the command line.
    pub name: String,
    /// What it makes sure of.
    pub what: String,
    work: Work,
    environment: Vec<(String, String)>,
    /// It is left out where it would begin later than this.
    latest: Option<Duration>,
}

enum Work {
    Cargo(Vec<String>),
    Function(fn() -> Result<Vec<String>>),
    Skipped(String),
}

/// How a step went.
#[derive(Debug, Default)]
pub struct Outcome {
    failure: Option<String>,
    took: Duration,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed_tests: usize,
    failed_names: Vec<String>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl Outcome {
    /// Whether it failed.
    pub fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mut line = match &self.failure {
            Some(why) => format!("FAILED ({why})"),
            None if self.skipped.is_empty() => "ok".to_owned(),
            None => "ok, but something was left out".to_owned(),
        };
        if self.passed > 0 {
            line += &format!(", {} tests passed", self.passed);
        }
        line += &format!(", {:.1} s", self.took.as_secs_f64());
        if !self.failed_names.is_empty() {
            line += &format!("; failed: {}", self.failed_names.join(", "));
        }
        line
    }
}

impl Step {
    /// A cargo command.
    pub fn cargo(name: &str, what: &str, arguments: &[&str]) -> Step {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Step { name: name.to_owned(), what: what.to_owned(), environment: Vec::new(), latest: None, work: Work::Cargo(arguments) }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Step {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Left out where it would begin later than this.
    #[must_use]
    pub fn not_after(mut self, latest: Duration) -> Step {
        self.latest = Some(latest);
        self
    }

    /// Why it can't begin any more, `elapsed` after the first step began.
    pub fn too_late(&self, elapsed: Duration) -> Option<Outcome> {
        let latest = self.latest.filter(|latest| elapsed > *latest)?;
        let (name, minutes) = (&self.name, latest.as_secs() / 60);
        let why = format!("{name}: what came before took more than {minutes} minutes; by name: `cargo ready {name}`");
        Some(Outcome { skipped: vec![why], ..Outcome::default() })
    }

    /// A function that gives what it left out.
    pub fn function(name: &str, what: &str, function: fn() -> Result<Vec<String>>) -> Step {
        Step { name: name.to_owned(), what: what.to_owned(), environment: Vec::new(), latest: None, work: Work::Function(function) }
    }

    /// A step that can't run here.
    pub fn skipped(name: &str, what: &str, why: &str) -> Step {
        Step {
            name: name.to_owned(),
            what: what.to_owned(),
            environment: Vec::new(),
            latest: None,
            work: Work::Skipped(format!("{name}: {why}")),
        }
    }

    /// Runs it.
    pub fn run(&self) -> Result<Outcome> {
        let start = wait::now();
        let mut outcome = match &self.work {
            Work::Cargo(arguments) => self.run_cargo(arguments)?,
            Work::Function(function) => match function() {
                Ok(skipped) => Outcome { skipped, ..Outcome::default() },
                Err(error) => Outcome { failure: Some(format!("{error:#}")), ..Outcome::default() },
            },
            Work::Skipped(why) => Outcome { skipped: vec![why.clone()], ..Outcome::default() },
        };
        outcome.took = start.elapsed();
        Ok(outcome)
    }

    fn run_cargo(&self, arguments: &[String]) -> Result<Outcome> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(berth::repository()).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
        command.envs(self.environment.iter().cloned());
        let lines = Lines::of(&mut command)?;
        let path = self.log()?;
        let mut log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut outcome = Outcome::default();
        let mut all: Vec<String> = Vec::new();
        let status = lines.each(|line| {
            if line.starts_with("SKIPPED ") {
                outcome.skipped.push(line.clone());
            }
            outcome.passed += counted(&line, "passed");
            outcome.failed_tests += counted(&line, "failed");
            writeln!(log, "{line}")?;
            all.push(line);
            Ok(())
        })?;
        if !status.success() {
            shown(&all).iter().for_each(|line| println!("      | {line}"));
            println!("      | all of it: {}", path.display());
            outcome.failed_names = all.iter().filter_map(|line| failed_test(line)).map(str::to_owned).collect();
            outcome.failure = Some(status.to_string());
        }
        Ok(outcome)
    }

    fn log(&self) -> Result<PathBuf> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| berth::repository().join("target"), PathBuf::from);
        let folder = target.join("ready");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder.join(format!("{}.log", self.name)))
    }
}

/// What is shown of a failed step: what the failed tests said, or how it ended.
fn shown(all: &[String]) -> Vec<&String> {
    let mut said = Vec::new();
    let mut of_a_test = false;
    for line in all {
        // `---- name stdout ----` begins what one said, `failures:` the list of their names.
        of_a_test = (of_a_test && line != "failures:") || line.starts_with("---- ");
        if of_a_test {
            said.push(line);
        }
    }
    if said.is_empty() {
        said.extend(&all[all.len().saturating_sub(LINES_SHOWN)..]);
    }
    said.truncate(LINES_SHOWN);
    said
}

/// The name in `test name ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// How many `what` there are in `test result: ok. 12 passed; 0 failed; …`.
fn counted(line: &str, what: &str) -> usize {
    let counts = || line.strip_prefix("test result: ")?.split_once(". ").map(|(_, counts)| counts);
    let count = |part: &str| part.trim().strip_suffix(what)?.trim().parse().ok();
    counts().and_then(|counts| counts.split(';').find_map(count)).unwrap_or(0)
}

/// The lines of both outputs of a running program.
struct Lines {
    child: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(command: &mut Command) -> Result<Lines> {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, sender);
        }
        Ok(Lines { child, lines })
    }

    /// Gives each line to `take`, says now and then that it goes on, and waits for the end.
    fn each(mut self, mut take: impl FnMut(String) -> Result<()>) -> Result<std::process::ExitStatus> {
        let start = wait::now();
        let mut last = String::new();
        loop {
            match self.lines.recv_timeout(HEARTBEAT) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        last.clone_from(&line);
                    }
                    take(line)?;
                }
                Err(RecvTimeoutError::Timeout) => println!("      … {} s: {}", start.elapsed().as_secs(), last.trim()),
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
            }
        }
    }
}

fn forward(pipe: impl std::io::Read + Send + 'static, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests_of_step {
    use super::*;

    #[test]
    fn passed_tests_are_counted() {
        assert_eq!(counted("test result: ok. 12 passed; 0 failed; 0 ignored", "passed"), 12);
        assert_eq!(counted("test result: FAILED. 3 passed; 1 failed; 0 ignored", "failed"), 1);
        assert_eq!(counted("test a ... ok", "passed"), 0);
    }

    #[test]
    fn what_failed_tests_said_is_shown_and_they_are_named() {
        let output =
            "test a::b ... FAILED\ntest c ... ok\n\nfailures:\n\n---- a::b stdout ----\nleft: 1\n\nfailures:\n    a::b\nRunning others";
        let all: Vec<String> = output.lines().map(str::to_owned).collect();
        assert_eq!(shown(&all), ["---- a::b stdout ----", "left: 1", ""]);
        assert_eq!(all.iter().find_map(|line| failed_test(line)), Some("a::b"));
        let of_the_compiler = vec!["error: no such file".to_owned()];
        assert_eq!(shown(&of_the_compiler), ["error: no such file"]);
    }

    #[test]
    fn lines_of_both_outputs_arrive_and_the_status_is_kept() {
        let lines = Lines::of(Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"])).unwrap();
        let mut seen = Vec::new();
        let status = lines
            .each(|line| {
                seen.push(line);
                Ok(())
            })
            .unwrap();
        seen.sort();
        assert_eq!((seen, status.code()), (vec!["a".to_owned(), "b".to_owned()], Some(3)));
    }
}
