//! `berth demo`: a whole cluster on this machine, to try and to test with: nodes as processes of their own over one shared directory.

mod events;
mod layout;
mod mail;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};

use layout::{Layout, NodeFiles};

use crate::command::control::{self, NodesReply};

/// How long all nodes together may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a node may take to leave before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: u16,
    /// How many users, `user1` and so on.
    pub users: u32,
    /// Everybody's password; `None`: a random one.
    pub password: Option<String>,
    /// The shared directory; `None`: a temporary one, removed at the end.
    pub dir: Option<PathBuf>,
    /// First port; `None`: free ones are found.
    pub base_port: Option<u16>,
    /// One JSON line for scripts instead of the tour.
    pub json: bool,
    /// Messages delivered to each user of a new cluster.
    pub sample_mail: u32,
}

/// The line that `--json` prints.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    root: &'a Path,
    nodes: Vec<ReadyNode<'a>>,
    users: Vec<ReadyUser>,
}

#[derive(Debug, Serialize)]
struct ReadyNode<'a> {
    name: &'a str,
    pid: u32,
    imap: String,
    imaps: String,
    pop3: String,
    pop3s: String,
    lmtp: String,
    config: &'a Path,
    log: &'a Path,
}

#[derive(Debug, Serialize)]
struct ReadyUser {
    name: String,
    password: String,
}

/// A started node. Its standard input is a pipe: should this process die without a goodbye, the node sees the end of it and leaves.
struct Running {
    files: NodeFiles,
    child: Child,
    _alive: Option<ChildStdin>,
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(options: Options) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let layout = Layout::create(&options)?;
    let mut running = Vec::new();
    let outcome = tokio::select! {
        outcome = serve(&options, &layout, &mut running) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    if !options.json {
        println!("\nStopping the nodes …");
    }
    stop(running).await;
    layout.remove();
    outcome
}

async fn serve(options: &Options, layout: &Layout, running: &mut Vec<Running>) -> anyhow::Result<()> {
    for files in &layout.nodes {
        running.push(start(files)?);
    }
    timeout(READY_LIMIT, wait_until_ready(running)).await.map_err(|_| {
        anyhow::anyhow!("the nodes were not ready within {READY_LIMIT:?}: see their logs under {}", layout.local.display())
    })??;
    if layout.is_new && options.sample_mail > 0 {
        mail::deliver_samples(layout, options).await.context("can't deliver the sample mail")?;
    }
    if options.json {
        println!("{}", serde_json::to_string(&ready(options, layout, running))?);
    } else {
        tour(options, layout, running);
    }
    tokio::select! {
        outcome = events::follow(layout, !options.json) => outcome,
        () = watch_children(running, options.json) => Ok(()),
    }
}

fn start(files: &NodeFiles) -> anyhow::Result<Running> {
    let program = std::env::current_exe().context("can't find this program's own file")?;
    let log = std::fs::File::options().create(true).append(true).open(&files.log)?;
    let mut child = Command::new(program)
        .args(["serve", "--stop-at-end-of-input", "--config"])
        .arg(&files.config)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is for this process; it then asks the nodes to stop.
        .process_group(0)
        .spawn()
        .context("can't start a node")?;
    let alive = child.stdin.take();
    Ok(Running { files: files.clone(), child, _alive: alive })
}

async fn wait_until_ready(running: &mut [Running]) -> anyhow::Result<()> {
    let count = running.len();
    for node in running {
        loop {
            if let Some(status) = node.child.try_wait()? {
                let log = std::fs::read_to_string(&node.files.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("{} ended at once ({status}): {}", node.files.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n  "));
            }
            if greets(&node.files.imap()).await && sees(&node.files, count).await {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Whether a node knows all the others: before that it would keep users to itself that belong elsewhere.
async fn sees(files: &NodeFiles, count: usize) -> bool {
    let socket = files.control_socket();
    let asked = tokio::task::spawn_blocking(move || control::ask::<NodesReply>(&socket, &control::Request::Nodes)).await;
    matches!(asked, Ok(Ok(Some(reply))) if reply.nodes.len() >= count)
}

async fn greets(address: &str) -> bool {
    let greeting = async {
        let mut line = String::new();
        BufReader::new(TcpStream::connect(address).await?).read_line(&mut line).await?;
        Ok::<String, std::io::Error>(line)
    };
    matches!(timeout(Duration::from_secs(2), greeting).await, Ok(Ok(line)) if line.starts_with("* OK"))
}

fn ready<'a>(options: &Options, layout: &'a Layout, running: &'a [Running]) -> Ready<'a> {
    Ready {
        root: &layout.root,
        nodes: running
            .iter()
            .map(|node| ReadyNode {
                name: &node.files.name,
                pid: node.child.id().unwrap_or_default(),
                imap: node.files.imap(),
                imaps: node.files.imaps(),
                pop3: node.files.pop3(),
                pop3s: node.files.pop3s(),
                lmtp: node.files.lmtp(),
                config: &node.files.config,
                log: &node.files.log,
            })
            .collect(),
        users: (1..=options.users).map(|n| ReadyUser { name: layout::user(n), password: layout.password.clone() }).collect(),
    }
}

/// What a person sees.
fn tour(options: &Options, layout: &Layout, running: &[Running]) {
    println!("\nBerth: {} nodes over one shared directory, {}\n", running.len(), layout.root.display());
    println!("  {:<8} {:>7}  {:<16} {:<16} {:<16} {:<16} {:<16}", "node", "pid", "imap", "imaps", "pop3", "pop3s", "lmtp");
    for node in running {
        let files = &node.files;
        let pid = node.child.id().unwrap_or_default();
        println!(
            "  {:<8} {:>7}  {:<16} {:<16} {:<16} {:<16} {:<16}",
            files.name,
            pid,
            files.imap(),
            files.imaps(),
            files.pop3(),
            files.pop3s(),
            files.lmtp()
        );
    }
    let users = match options.users {
        1 => "user1".to_owned(),
        n => format!("user1 … user{n}"),
    };
    println!("\n  users     {users}, password {}", layout.password);
    println!("  logs      {}/<node>.log", layout.local.display());
    let (Some(first), Some(last)) = (running.first(), running.last()) else { return };
    println!("\nTry it: every node takes every user and forwards to the node that holds the user's lease.\n");
    println!("  curl -s 'imap://{}/INBOX;MAILINDEX=1' -u user1:{}", first.files.imap(), layout.password);
    println!("  curl -s 'pop3://{}/1' -u user1:{}", last.files.pop3(), layout.password);
    println!("  mutt -f imap://user1:{}@{}/INBOX", layout.password, last.files.imap());
    println!("  swaks --protocol LMTP --server {} --to user1@localhost --from you@localhost", first.files.lmtp());
    println!(
        "  {} who --config {}",
        std::env::current_exe().map_or_else(|_| "berth".to_owned(), |path| path.display().to_string()),
        first.files.config.display()
    );
    println!("  kill -9 {}        # its users are served by another node within seconds", last.child.id().unwrap_or_default());
    println!(
        "\nCtrl-C stops everything{}. What happens:\n",
        if options.dir.is_some() { "; the shared directory stays" } else { " and removes the directory" }
    );
}

/// Says when a node's process ends. All of them: nothing is left to show.
async fn watch_children(running: &mut [Running], quiet: bool) {
    let mut ended = vec![false; running.len()];
    while !ended.iter().all(|ended| *ended) {
        for (node, ended) in running.iter_mut().zip(&mut ended) {
            if let (false, Ok(Some(status))) = (*ended, node.child.try_wait()) {
                *ended = true;
                if !quiet {
                    println!(
                        "  {}: process ended ({status}); start it again with: {} serve --config {}",
                        node.files.name,
                        program(),
                        node.files.config.display()
                    );
                }
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    // A test that killed every node may start them again by hand; the directory must stay meanwhile.
    std::future::pending::<()>().await;
}

fn program() -> String {
    std::env::current_exe().map_or_else(|_| "berth".to_owned(), |path| path.display().to_string())
}

/// Asks all to leave, then kills what is left.
async fn stop(mut running: Vec<Running>) {
    for node in &running {
        if let Some(pid) = node.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            // It may have ended meanwhile.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
    }
    for node in &mut running {
        if timeout(STOP_LIMIT, node.child.wait()).await.is_err() {
            node.child.kill().await.ok();
        }
    }
}
