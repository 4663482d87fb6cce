//! Hosts with NFS clients of their own (`tests/lab/`), and a Berth cluster on them.
//!
//! Rules:
//! - everything happens inside the lab's network namespace: [`enter`] runs this program again in there;
//! - faults come from outside (power, network, the file server), never from inside a node;
//! - requests are counted by the kernel (`/proc/self/mountstats`), not by us.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::{berth, clients::imap::Imap, packages, process, wait};

/// Password of the lab's users.
pub const PASSWORD: &str = "x";
/// Where the hosts mount the export.
pub const MAIL: &str = "/mnt/mail";
/// A second mount of the export with counters of its own.
pub const STATE: &str = "/mnt/state";
/// Booting all hosts, packages included where they are missing.
const UP_LIMIT: Duration = Duration::from_secs(900);
/// What four hosts and the file server's disk may take of `/dev/shm`.
const MEMORY_NEEDED: u64 = 2 << 30;
/// One step on a host; a command that needs the file server while it boots waits for it.
const STEP_LIMIT: Duration = Duration::from_secs(150);
/// How long a node may take to be ready on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The program that boots the hosts and does what is asked to them.
pub fn script() -> PathBuf {
    berth::repository().join("tests/lab/hosts")
}

/// Why no lab can be booted on this machine, as far as can be told before; `None`: it can.
pub fn impossible() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("user-mode linux is for x86-64 only".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("only root can make its hosts and networks".into());
    }
    let namespaces = process::run(Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]), STEP_LIMIT);
    if !namespaces.is_ok_and(|output| output.status.success()) {
        return Some("this machine gives no namespaces (a container without privileges?)".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    let free = rustix::fs::statvfs("/dev/shm").map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    if free < MEMORY_NEEDED {
        return Some(format!("/dev/shm has {} MB, the hosts' memory may take {} MB", free >> 20, MEMORY_NEEDED >> 20));
    }
    let lacks = ["linux.uml", "python3"].into_iter().find(|name| packages::find(name).is_none());
    lacks.filter(|_| packages::find("apt-get").is_none()).map(|name| format!("neither {name} nor apt-get to install it is there"))
}

/// The lab that is up.
#[derive(Debug, Clone)]
pub struct Lab {
    share: PathBuf,
}

/// How a node is configured beyond the lab's defaults.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Nodes `n1` … of the lab.
    pub nodes: Vec<Node>,
    /// The shared directory as the hosts see it.
    pub root: String,
    /// Users `user1` …
    pub users: usize,
}

/// One Berth node on one host.
#[derive(Debug, Clone)]
pub struct Node {
    /// Host and node name.
    pub name: String,
    /// Its address.
    pub address: String,
    config: String,
    log: PathBuf,
}

/// What a new cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes, at most as many as the lab has hosts.
    pub nodes: usize,
    /// Users.
    pub users: usize,
    /// Put the state on the second mount, so that beats and mail are counted apart.
    pub state_apart: bool,
    /// Settings of `[mail]` beyond the defaults.
    pub mail_settings: String,
    /// Settings of `[listen]` beyond the defaults; `{address}` is the node's.
    pub listen: String,
    /// Sections that the defaults do not have.
    pub sections: String,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            nodes: 3,
            users: 20,
            state_apart: false,
            mail_settings: String::new(),
            listen: "imaps = []".to_owned(),
            sections: String::new(),
        }
    }
}

/// Whether this program runs inside the lab's network.
pub fn is_inside() -> bool {
    env::var_os("BERTH_LAB_INSIDE").is_some()
}

/// This program once more, inside the lab's network.
pub fn inside() -> Result<Command> {
    let mut command = Command::new(script());
    command.args(["net", "--"]).arg(env::current_exe()?).args(env::args_os().skip(1)).env("BERTH_LAB_INSIDE", "1");
    // Built outside: in there is no way to a registry.
    command.env("BERTH_BIN", berth::binary()?);
    Ok(command)
}

/// Runs this program again inside the lab's network, unless it is there already.
pub fn enter() -> Result<()> {
    if is_inside() {
        return Ok(());
    }
    Err(anyhow!(inside()?.exec()).context("cannot run inside the lab's network"))
}

/// Boots the lab; `arguments` as for `cargo lab up`.
pub fn up(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(script());
    command.arg("up").args(arguments);
    process::run_ok(&mut command, UP_LIMIT).map(drop).context("the lab does not come up")
}

/// Ends all hosts.
pub fn down() -> Result<()> {
    process::run_ok(Command::new(script()).arg("down"), STEP_LIMIT).map(drop)
}

impl Lab {
    /// The lab that `cargo lab up` booted.
    pub fn attach() -> Result<Lab> {
        let share = String::from_utf8(process::run_ok(Command::new(script()).arg("share"), STEP_LIMIT)?)?;
        Ok(Lab { share: PathBuf::from(share.trim()) })
    }

    /// One verb of `cargo lab`.
    pub fn verb(&self, arguments: &[&str]) -> Result<String> {
        Ok(String::from_utf8(process::run_ok(Command::new(script()).args(arguments), STEP_LIMIT)?)?)
    }

    /// Runs a command on a host; its standard output.
    pub fn exec(&self, host: &str, command: &[&str]) -> Result<String> {
        let limit = STEP_LIMIT.as_secs().to_string();
        let mut arguments = vec!["exec", "-t", &limit, host, "--"];
        arguments.extend(command);
        self.verb(&arguments)
    }

    /// The folder that the machine and all hosts share (`/lab` on the hosts).
    pub fn share(&self) -> &Path {
        &self.share
    }

    /// NFS requests of a host's mount since it was mounted, by operation.
    pub fn requests(&self, host: &str, mount: &str) -> Result<BTreeMap<String, u64>> {
        let said: Value = serde_json::from_str(&self.verb(&["rpc", host, "--at", mount])?)?;
        let operations = said["ops"].as_object().with_context(|| format!("{host} has no mount at {mount}: {said}"))?;
        Ok(operations.iter().filter_map(|(name, of)| Some((name.clone(), of["count"].as_u64()?))).collect())
    }

    /// Ends every Berth node of the lab at once.
    pub fn kill_all(&self, nodes: usize) -> Result<()> {
        for number in 1..=nodes {
            self.exec(
                &format!("n{number}"),
                &["sh", "-c", "pkill -9 -x berth; while pgrep -x berth >/dev/null; do sleep 0.02; done; true"],
            )?;
        }
        Ok(())
    }

    /// Starts a new Berth cluster, in a directory named `name` on the export; whatever ran before is killed.
    pub fn start(&self, name: &str, plan: &Plan) -> Result<Cluster> {
        self.kill_all(plan.nodes)?;
        if plan.state_apart {
            for number in 1..=plan.nodes {
                self.mount_apart(&format!("n{number}"))?;
            }
        }
        let state = if plan.state_apart { STATE } else { MAIL };
        let root = format!("{state}/{name}");
        let binary = berth::binary()?;
        let berth_path = binary.to_str().context("the path of berth is not UTF-8")?;
        self.exec("n1", &[berth_path, "init", &root])?;
        let lines: String = (1..=plan.users).map(|user| format!("user{user}:{{PLAIN}}{PASSWORD}\n")).collect();
        fs::write(self.share.join("users"), lines)?;
        self.exec("n1", &["cp", "/lab/users", &format!("{root}/users")])?;
        let mut nodes = Vec::new();
        // Apart from the logs: nodes look at their files whenever something happens in their folder.
        let configurations = self.share.join("configurations");
        fs::create_dir_all(&configurations)?;
        for number in 1..=plan.nodes {
            let (host, address) = (format!("n{number}"), format!("10.77.0.{}", 10 + number));
            let file = format!("{host}-{name}.toml");
            fs::write(configurations.join(&file), configuration(&root, name, &host, &address, plan))?;
            let log = self.share.join(format!("{host}-{name}.log"));
            nodes.push(Node { name: host, address, config: format!("/lab/configurations/{file}"), log });
        }
        let cluster = Cluster { nodes, root, users: plan.users };
        for node in &cluster.nodes {
            self.serve(node)?;
        }
        self.wait_acquainted(&cluster)?;
        Ok(cluster)
    }

    /// Runs a command of the operator on a node's host; its standard output.
    pub fn berth(&self, node: &Node, arguments: &[&str]) -> Result<String> {
        let binary = berth::binary()?;
        self.exec(&node.name, &node.command(&binary, arguments)?)
    }

    /// Starts one that nobody waits for.
    pub fn berth_detached(&self, node: &Node, arguments: &[&str]) -> Result<()> {
        let binary = berth::binary()?;
        let command = node.command(&binary, arguments)?;
        self.verb(&[&["exec", "-d", &node.name, "--"], &command[..]].concat()).map(drop)
    }

    /// Starts the node on its host, as its supervisor would.
    pub fn serve(&self, node: &Node) -> Result<()> {
        self.verb(&["exec", "-d", &node.name, "--", "sh", "-c", &format!("exec {}", self.serve_line(node)?)]).map(drop)
    }

    /// The command line of that, for a shell on the host.
    pub fn serve_line(&self, node: &Node) -> Result<String> {
        let log = node.log.file_name().and_then(|name| name.to_str()).context("no log")?;
        Ok(format!("{} serve --config {} </dev/null >>/lab/{log} 2>&1", berth::binary()?.display(), node.config))
    }

    /// Waits until every node knows every other.
    pub fn wait_acquainted(&self, cluster: &Cluster) -> Result<()> {
        wait::until("every node to know the others", READY_LIMIT, || {
            for node in &cluster.nodes {
                let known: Value = serde_json::from_str(&self.berth(node, &["nodes", "--json"])?)?;
                let up = known["nodes"].as_array().context("no nodes")?.iter().filter(|other| other["state"] == "up").count();
                ensure!(up == cluster.nodes.len(), "{} knows {up} nodes", node.name);
                Imap::connect(&node.imap())?;
            }
            Ok(())
        })
    }

    /// Index of the node that holds `user`. Looked up on the file server, so it costs the nodes' hosts no request.
    pub fn holder(&self, cluster: &Cluster, user: &str) -> Result<usize> {
        let lease = self.exec("srv", &["sh", "-c", &format!("ls {}/leases/*/{user}/", cluster.on_server())])?;
        let holder = lease.trim().split(',').nth(1).with_context(|| format!("no lease of {user}: {lease:?}"))?.to_owned();
        cluster.nodes.iter().position(|node| node.name == holder).with_context(|| format!("{holder} holds {user}, which is no node"))
    }

    /// Boots a host again and starts its node.
    pub fn revive(&self, node: &Node) -> Result<()> {
        self.verb(&["start", &node.name])?;
        self.serve(node)
    }

    fn mount_apart(&self, host: &str) -> Result<()> {
        if self.exec(host, &["sh", "-c", &format!("grep -c ' {STATE} ' /proc/mounts || true")])?.trim() == "0" {
            self.verb(&["mount", host, "--opts", "nosharecache", "--at", STATE])?;
        }
        Ok(())
    }
}

impl Cluster {
    /// The shared directory as the file server sees it.
    pub fn on_server(&self) -> String {
        self.root.replace(MAIL, "/export").replace(STATE, "/export")
    }
}

impl Node {
    fn command<'a>(&'a self, binary: &'a Path, arguments: &[&'a str]) -> Result<Vec<&'a str>> {
        let binary = binary.to_str().context("the path of berth is not UTF-8")?;
        Ok([&[binary], arguments, &["--config", &self.config]].concat())
    }
    /// Another server's place: a host of the lab without a configuration of ours.
    pub fn at(host: &str, address: &str) -> Node {
        Node { name: host.to_owned(), address: address.to_owned(), config: String::new(), log: PathBuf::new() }
    }
    /// Where it takes IMAP.
    pub fn imap(&self) -> String {
        format!("{}:143", self.address)
    }

    /// Where it takes LMTP.
    pub fn lmtp(&self) -> String {
        format!("{}:24", self.address)
    }

    /// A session with INBOX selected.
    pub fn open(&self, user: &str) -> Result<Imap> {
        let mut imap = Imap::login(&self.imap(), user, PASSWORD)?;
        imap.select("INBOX")?;
        Ok(imap)
    }

    /// Its log.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The end of its log.
    pub fn log(&self, lines: usize) -> String {
        process::tail(&self.log, lines)
    }
}

fn configuration(root: &str, name: &str, host: &str, address: &str, plan: &Plan) -> String {
    let Plan { mail_settings, sections, .. } = plan;
    let listen = plan.listen.replace("{address}", address);
    format!(
        r#"[node]
root = "{root}"
name = "{host}"
local_dir = "/var/lib/berth"
advertise = ["{address}:8143"]
[listen]
imap = ["{address}:143"]
{listen}
pop3 = ["{address}:110"]
pop3s = []
lmtp = ["{address}:24"]
relay = "{address}:8143"
[mail]
maildir = "{MAIL}/{name}/mail/{{domain}}/{{local}}/Maildir"
index = "{MAIL}/{name}/mail/{{domain}}/{{local}}/index"
{mail_settings}
[auth]
allow_plaintext = true
[auth.names]
local_domains = ["localhost"]
[lmtp]
allow = ["10.77.0.0/24"]
{sections}
"#
    )
}
