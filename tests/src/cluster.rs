//! A real cluster: `berth demo --json` in a directory of its own, its nodes, and what can happen to them.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    berth,
    process::{self, Guarded, Process},
    site::{Doors, PASSWORD, User},
    wait,
};

/// How long the nodes may take to be ready: three debug builds on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a node's end may take after SIGTERM: it hands over its leases first.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Ports set aside for one cluster: a node has seven doors at most, a cluster of the tests five nodes at most.
const PORTS: u16 = 50;
/// Where base ports are looked for: below what the system gives to outgoing connections (32768 …).
const BASE_PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Lines of each log that a failing test shows.
const LOG_LINES: usize = 25;

/// How to start a cluster.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Nodes.
    pub nodes: usize,
    /// Users `user1` …
    pub users: usize,
    /// Start on the directory of a cluster before ([`Cluster::stop`]) instead of a new one.
    pub dir: Option<PathBuf>,
}

impl Default for Demo {
    fn default() -> Demo {
        Demo { nodes: 3, users: 3, dir: None }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its addresses.
    pub doors: Doors,
    /// Its process.
    pub process: Process,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// When a test started it again by hand.
    restarted: Option<Guarded>,
}

/// A running cluster; it ends with this value.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its users.
    pub users: Vec<User>,
    /// The shared directory.
    pub root: PathBuf,
    // Dropped in this order: first the processes, then the reservation of their ports, then the directory.
    demo: Option<Guarded>,
    ports: Ports,
    dir: Dir,
    /// What command lines of nodes begin with that are started again ([`crate::mounts::Mount::around`]).
    pub around: Vec<OsString>,
}

#[derive(Debug)]
enum Dir {
    Own(TempDir),
    Given(PathBuf),
}

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Dir::Own(dir) => dir.path(),
            Dir::Given(path) => path,
        }
    }
}

impl Cluster {
    /// Starts `berth demo` and waits until it says that all nodes are ready.
    pub fn start(options: &Demo) -> Result<Cluster> {
        let ports = Ports::reserve()?;
        let dir = match &options.dir {
            Some(path) => Dir::Given(path.clone()),
            None => Dir::Own(tempfile::Builder::new().prefix("berth-tests-").tempdir()?),
        };
        let log = dir.path().join("demo.log");
        let root = dir.path().join("shared");
        let mut command = berth::command(&["demo", "--json", "--sample-mail", "0", "--password", PASSWORD])?;
        command.args(["--nodes", &options.nodes.to_string(), "--users", &options.users.to_string()]);
        command.args(["--base-port", &ports.base.to_string()]).arg("--dir").arg(&root);
        let stderr = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut demo = Guarded::start("berth demo", &mut command)?;
        let line = first_line(&mut demo).with_context(|| format!("berth demo is not ready; its log ends:\n{}", process::tail(&log, 40)))?;
        let json: Value = serde_json::from_str(&line).with_context(|| format!("berth demo printed {line:?}, which is not JSON"))?;
        let nodes = json["nodes"].as_array().context("no nodes in the JSON")?.iter().map(Node::from_json).collect::<Result<Vec<_>>>()?;
        let users = json["users"].as_array().context("no users in the JSON")?.iter().map(user_from_json).collect::<Result<Vec<_>>>()?;
        ensure!(nodes.len() == options.nodes && users.len() == options.users, "nodes or users are missing in {line}");
        let cluster = Cluster { nodes, users, root, demo: Some(demo), ports, dir, around: Vec::new() };
        cluster.wait_acquainted()?;
        Ok(cluster)
    }

    /// The doors of every node.
    pub fn doors(&self) -> Vec<Doors> {
        self.nodes.iter().map(|node| node.doors.clone()).collect()
    }

    /// Waits until every node that runs knows every other: a user's place is chosen among the nodes that are known.
    pub fn wait_acquainted(&self) -> Result<()> {
        let up = || self.nodes.iter().filter(|node| node.process.is_running());
        wait::until("every node to know the others", START_LIMIT, || {
            for node in up() {
                let config = node.config.to_str().context("the path of the configuration is not UTF-8")?;
                let known = berth::run_ok(&["nodes", "--config", config])?;
                for other in up() {
                    ensure!(known.contains(&other.doors.name), "{} knows only:\n{known}", node.doors.name);
                }
            }
            Ok(())
        })
    }

    /// Ends all nodes in order, keeps the directory, and gives it for the next [`Demo::dir`]. `self` must live until then.
    pub fn stop(&mut self) -> Result<PathBuf> {
        for node in &mut self.nodes {
            if let Some(mut restarted) = node.restarted.take() {
                restarted.stop()?;
            }
        }
        for node in self.nodes.iter().filter(|node| node.process.is_running()) {
            // A paused node would keep the demo waiting.
            node.process.resume()?;
        }
        if let Some(mut demo) = self.demo.take() {
            demo.stop()?;
        }
        for node in &self.nodes {
            node.process.wait_ended(STOP_LIMIT)?;
        }
        Ok(self.dir.path().to_owned())
    }

    /// Adds lines to every node's configuration, and starts all again.
    pub fn configure(&mut self, lines: &str) -> Result<()> {
        for index in 0..self.nodes.len() {
            let node = self.nodes.get(index).context("no such node")?;
            let text = std::fs::read_to_string(&node.config)?;
            std::fs::write(&node.config, format!("{text}\n{lines}"))?;
            node.process.terminate()?;
            node.process.wait_ended(STOP_LIMIT)?;
            self.restart(index)?;
        }
        self.wait_acquainted()
    }

    /// Starts a node again by its configuration, as its supervisor would; waits until it takes connections.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let log = File::options().create(true).append(true).open(&node.log)?;
        ensure!(!node.process.is_running(), "{} still runs", node.doors.name);
        let config = node.config.to_str().context("the path of the configuration is not UTF-8")?;
        let mut command = within(&self.around, berth::command(&["serve", "--config", config])?);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Guarded::start(&node.doors.name, &mut command)?;
        node.process = started.process()?;
        let started = node.restarted.insert(started);
        // At a door where no test wants a PROXY header.
        let pop3 = node.doors.pop3s.clone();
        wait::until("the restarted node's greeting", START_LIMIT, || {
            started.check_running()?;
            crate::clients::pop3::Pop3::connect_tls(&pop3).map(drop)
        })
    }

    /// An address that nobody else uses, the n-th from 0 of a few.
    pub fn spare_address(&self, n: u16) -> String {
        format!("127.0.0.1:{}", self.ports.base + PORTS - 1 - n)
    }

    /// Writes settings into a section of a node's configuration and starts the node again.
    pub fn set_and_restart(&mut self, index: usize, section: &str, settings: &str) -> Result<()> {
        let node = &mut self.nodes[index];
        set(&node.config, section, settings)?;
        match node.restarted.take() {
            Some(mut restarted) => restarted.stop()?,
            None => node.process.terminate()?,
        }
        node.process.wait_ended(STOP_LIMIT)?;
        self.restart(index)?;
        self.wait_acquainted()
    }

    /// Runs an operator's command with the configuration of a node that is up.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let up = self.nodes.iter().find(|node| node.process.is_running()).context("no node runs")?;
        let config = up.config.to_str().context("the path of the configuration is not UTF-8")?;
        let mut all = arguments.to_vec();
        all.extend(["--config", config]);
        berth::run_ok(&all)
    }

    /// Index of the node that `berth who` names as the user's holder, by the shared directory.
    pub fn holder(&self, user: &str) -> Result<usize> {
        let root = self.root.to_str().context("the path of the shared directory is not UTF-8")?;
        let said: Value = serde_json::from_str(&berth::run_ok(&["who", "--json", "--root", root, user])?)?;
        let name = said["held"][0]["holder"].as_str().with_context(|| format!("berth who {user} names no holder: {said}"))?;
        self.nodes
            .iter()
            .position(|node| node.doors.name == name)
            .with_context(|| format!("berth who {user} names {name}, which is no node"))
    }

    /// The last lines of what the demo and each node logged: `BERTH_TESTS_LOG=1000` gives more of them.
    pub fn log(&self) -> String {
        let lines = env::var("BERTH_TESTS_LOG").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LOG_LINES);
        let demo = ("demo", self.dir.path().join("demo.log"));
        let nodes = self.nodes.iter().map(|node| (node.doors.name.as_str(), node.log.clone()));
        std::iter::once(demo).chain(nodes).map(|(name, log)| format!("{name}:\n{}\n", process::tail(&log, lines))).collect()
    }
}

/// A command line inside of another.
fn within(around: &[OsString], command: Command) -> Command {
    let Some((program, arguments)) = around.split_first() else { return command };
    let mut whole = Command::new(program);
    whole.args(arguments).arg(command.get_program()).args(command.get_args()).env_remove("BERTH_CONFIG");
    whole
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Shown only where the test fails.
        eprintln!("the logs of the demo and its nodes end:\n{}", self.log());
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
        // Whatever is left of a demo that had to be killed.
        for node in self.nodes.iter().filter(|node| node.process.is_running()) {
            if let Err(error) = node.process.kill() {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Node {
    fn from_json(json: &Value) -> Result<Node> {
        let pid = json["pid"].as_i64().with_context(|| format!("no pid in {json}"))?;
        let path = |name: &str| Ok::<_, anyhow::Error>(PathBuf::from(json[name].as_str().with_context(|| format!("no {name} in {json}"))?));
        Ok(Node {
            doors: Doors::from_json(json)?,
            process: Process::from_raw(pid)?,
            config: path("config")?,
            log: path("log")?,
            restarted: None,
        })
    }
}

/// Puts settings into a section that the demo's configuration has; those that stand there under the same names go.
pub fn set(config: &Path, section: &str, settings: &str) -> Result<()> {
    let text = fs::read_to_string(config)?;
    let heading = format!("[{section}]\n");
    let (before, after) = text.split_once(&heading).with_context(|| format!("{} has no [{section}]", config.display()))?;
    let name = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let new: Vec<String> = settings.lines().map(name).collect();
    let (own, rest) = after.find("\n[").map_or((after, ""), |end| after.split_at(end));
    let kept: String = own.lines().filter(|line| !new.contains(&name(line))).map(|line| format!("{line}\n")).collect();
    Ok(fs::write(config, format!("{before}{heading}{settings}\n{kept}{rest}"))?)
}

fn user_from_json(json: &Value) -> Result<User> {
    let field = |name: &str| Ok::<_, anyhow::Error>(json[name].as_str().with_context(|| format!("no {name} in {json}"))?.to_owned());
    Ok(User { name: field("name")?, password: field("password")? })
}

/// The first line of a child's standard output; what follows is read and dropped, so that its pipe never fills.
fn first_line(child: &mut Guarded) -> Result<String> {
    let stdout = child.child().stdout.take().context("no pipe")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Only the first line is waited for; the receiver is gone afterwards.
            drop(sender.send(line));
        }
    });
    match receiver.recv_timeout(START_LIMIT) {
        Ok(line) => Ok(line),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!("nothing was printed within {START_LIMIT:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended without a line"),
    }
}

/// A range of ports that no other test uses: whoever has the UDP port of its number owns the TCP ports after it.
#[derive(Debug)]
struct Ports {
    base: u16,
    _reservation: UdpSocket,
}

impl Ports {
    fn reserve() -> Result<Ports> {
        let ranges = (BASE_PORTS.end - BASE_PORTS.start) / PORTS;
        for _ in 0..200 {
            let base = BASE_PORTS.start + rand::random_range(0..ranges) * PORTS;
            let Ok(reservation) = UdpSocket::bind(("127.0.0.1", base)) else { continue };
            if (base..base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Ok(Ports { base, _reservation: reservation });
            }
        }
        bail!("no {PORTS} free ports in a row between {} and {}", BASE_PORTS.start, BASE_PORTS.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_never_get_the_same_ports() {
        let reserved: Vec<Ports> = (0..20).map(|_| Ports::reserve().unwrap()).collect();
        let mut bases: Vec<u16> = reserved.iter().map(|ports| ports.base).collect();
        bases.sort_unstable();
        bases.dedup();
        assert_eq!(bases.len(), reserved.len());
    }
}
