//! `cargo lab chaos`: clients write through every node while faults drawn from a seed strike the hosts; then everything is read, and the history is
//! checked (`tests::history`).

mod clients;
mod finale;
mod nemesis;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
pub use clients::pause;
use clients::{Client, MAILBOXES, Shared};
use finale::Said;
use nemesis::{Nemesis, seconds};
use tests::{
    clients::imap::Imap,
    history::{self, History, Outcome, Recorder, Request, Violation},
    lab::{self, Cluster, Lab, Node, PASSWORD, Plan},
    wait,
};

use crate::fresh;

/// Users: each has the whole set of clients.
const USERS: usize = 3;
/// After the hosts are healed, a login may take so long.
const SERVED_LIMIT: Duration = Duration::from_secs(60);
/// After that, everybody sees what a lost holder's late requests did: its `LATE_LOOK_INTERVAL` and a little.
const LATE_LOOK: Duration = Duration::from_secs(15);
/// Operations that a violation shows.
const SHOWN: usize = 25;

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Seeds of runs, one after the other, each on a new cluster: the same seed strikes the same. Random where none is given
    #[arg(long = "seed", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// How long each run takes; reading everything takes about a minute more
    #[arg(long, default_value_t = 5.0)]
    pub minutes: f64,
    /// The folder for the histories
    #[arg(long, default_value_os_t = env::temp_dir())]
    pub out: PathBuf,
    /// Boots a lab for this run, whatever was there before under its name
    #[arg(long)]
    pub boot: bool,
    /// Where no lab can be booted, says so and ends well
    #[arg(long)]
    pub if_possible: bool,
    /// NFS version of the lab that is booted
    #[arg(long, default_value = "4.2")]
    pub vers: String,
}

/// Runs in the lab that is up; boots one for this run, and ends it, where none is.
pub fn run(options: &Options) -> Result<bool> {
    if !lab::is_inside() && (options.boot || Lab::attach().is_err()) {
        lab::down()?;
        if let Err(error) = lab::up(&["--lease", "15", "--grace", "15", "--vers", &options.vers]) {
            lab::down()?;
            if options.if_possible {
                println!("SKIPPED chaos: no lab comes up here: {error:#}");
                return Ok(true);
            }
            return Err(error);
        }
        let outcome = lab::inside().and_then(|mut command: Command| command.status().context("cannot run inside the lab"));
        lab::down()?;
        return Ok(outcome?.success());
    }
    lab::enter()?;
    let mut all_kept = true;
    let time = Duration::try_from_secs_f64(options.minutes * 60.0).context("--minutes takes a number of minutes")?;
    let random = [rand::random::<u32>().into()];
    for seed in if options.seeds.is_empty() { &random[..] } else { &options.seeds } {
        let history = play(*seed, time, &options.out)?;
        let path = options.out.join(format!("chaos-{seed}.jsonl"));
        history::write(&history, &path)?;
        all_kept &= report(&history);
        println!("history: {0} (`cargo lab check {0}` checks it again)", path.display());
    }
    Ok(all_kept)
}

/// `cargo lab check FILE`.
pub fn check(path: &Path) -> Result<bool> {
    Ok(report(&history::read(path)?))
}

fn play(seed: u64, time: Duration, out: &Path) -> Result<History> {
    let title = format!("seed {seed}, {} s", time.as_secs());
    println!("{title}: `cargo lab chaos --seed {seed} --minutes {}` strikes the same again", time.as_secs_f64() / 60.0);
    let lab = Lab::attach()?;
    let sections = "[log]\nlevel = \"info,acknowledged=trace\"\njson = true\n".to_owned();
    let cluster = lab.start(&fresh("chaos"), &Plan { users: USERS, sections, ..Plan::default() })?;
    let shared = Arc::new(Shared {
        recorder: Recorder::new(&title),
        nodes: cluster.nodes.clone(),
        stop: AtomicBool::new(false),
        scratch: Mutex::default(),
        deferred: AtomicU64::new(0),
        ended: AtomicU64::new(0),
    });
    for user in 1..=USERS {
        let mut imap = Imap::login(&cluster.nodes[0].imap(), &format!("user{user}"), PASSWORD)?;
        for name in MAILBOXES {
            imap.command(&format!("CREATE {name}"))?.ok()?;
        }
        imap.logout()?;
    }
    let nemesis = Arc::new(Nemesis::new(&lab, &cluster, &shared));
    let outcome = struck(&shared, &nemesis, seed, time).and_then(|()| {
        eprintln!("{:8.1} s  healing", seconds(shared.recorder.now()));
        nemesis.heal()?;
        lab.wait_acquainted(&cluster)?;
        // What a cut-off host had sent has arrived by now; those who hold its users look for it every ten seconds.
        thread::sleep(LATE_LOOK);
        read_everything(&lab, &cluster, &shared.recorder, &nemesis)
    });
    if outcome.is_err() {
        let path = out.join(format!("chaos-{seed}.stacks"));
        std::fs::write(&path, stacks(&lab, &cluster))?;
        println!("what every thread of every node waited for: {}", path.display());
        for node in &cluster.nodes {
            // The lab's own folder goes with the lab.
            let path = out.join(format!("chaos-{seed}-{}.log", node.name));
            std::fs::copy(node.log_file(), &path)?;
            println!("log of {}: {}", node.name, path.display());
        }
        print_errors(&Said::read(&cluster.nodes)?);
    }
    outcome?;
    println!(
        "{} temporary errors and {} sessions that ended early were seen by clients",
        shared.deferred.load(Ordering::SeqCst),
        shared.ended.load(Ordering::SeqCst)
    );
    Ok(shared.recorder.with(std::mem::take))
}

/// Clients and nemesis, for the whole time.
fn struck(shared: &Arc<Shared>, nemesis: &Arc<Nemesis>, seed: u64, time: Duration) -> Result<()> {
    let mut threads = Vec::new();
    let seed = seed.wrapping_mul(1_000);
    for user in 1..=USERS {
        let user = format!("user{user}");
        for (number, kind) in ["deliver", "deliver-once", "work", "work", "work", "idle"].into_iter().enumerate() {
            let name = format!("{}{}{number}", &kind[..1], &user[4..]);
            let client = Client::new(shared, &name, &user, seed.wrapping_add(threads.len() as u64));
            threads.push(thread::spawn(move || match kind {
                "deliver" => client.deliver(true),
                "deliver-once" => client.deliver(false),
                "idle" => client.idle(),
                _ => client.work(),
            }));
        }
    }
    // Two at once: faults come together.
    let strikers: Vec<_> = (1..=2)
        .map(|number| {
            let (nemesis, seed) = (nemesis.clone(), seed.wrapping_add(500 + number));
            thread::spawn(move || nemesis.run(seed))
        })
        .collect();
    clients::pause(time);
    shared.stop.store(true, Ordering::SeqCst);
    for striker in strikers {
        striker.join().map_err(|_| anyhow::anyhow!("the nemesis panicked"))??;
    }
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
    }
    Ok(())
}

/// Where in the kernel the threads of all nodes are.
fn stacks(lab: &Lab, cluster: &Cluster) -> String {
    let script = "for t in /proc/$(pgrep -x berth)/task/*; do echo \"== $(cat $t/comm) $(grep State $t/status)\"; cat $t/stack; done";
    let of_node = |node: &Node| match lab.exec(&node.name, &["sh", "-c", script]) {
        Ok(stacks) => format!("#### {}\n{stacks}\n", node.name),
        Err(error) => format!("#### {}: {error:#}\n", node.name),
    };
    cluster.nodes.iter().map(of_node).collect()
}

fn print_errors(said: &Said) {
    for (error, count) in &said.errors {
        println!("logged {count} times: {error}");
    }
}

fn read_everything(lab: &Lab, cluster: &Cluster, recorder: &Recorder, nemesis: &Nemesis) -> Result<()> {
    let users: Vec<String> = (1..=cluster.users).map(|user| format!("user{user}")).collect();
    let keep = |read: history::Final| recorder.with(|history| history.finals.push(read));
    for (number, node) in cluster.nodes.iter().enumerate() {
        for user in &users {
            let read = || finale::read(recorder, node, &node.name, user, number == 0);
            keep(wait::until(&format!("{user} to be served through {}", node.name), SERVED_LIMIT, read)?);
        }
    }
    for node in &cluster.nodes {
        // A client that misses the end of a copy that the server makes by itself waits for ever.
        let copies = lab.requests(&node.name, lab::MAIL)?.remove("COPY").unwrap_or_default();
        ensure!(copies == 0, "{} asked the file server {copies} times to copy by itself", node.name);
    }
    // All leases are handed back; then the Maildir alone must say the same.
    for node in &cluster.nodes {
        lab.exec(&node.name, &["sh", "-c", "pkill -TERM -x berth; true"])?;
    }
    for node in &cluster.nodes {
        nemesis.wait_ended(node)?;
    }
    for user in &users {
        keep(finale::read_disk(lab, recorder, &cluster.root, user)?);
    }
    let indexes = format!("rm -rf {}/mail/*/*/index", cluster.root.replace(lab::MAIL, "/export"));
    lab.exec("srv", &["sh", "-c", &indexes])?;
    for node in &cluster.nodes {
        lab.serve(node)?;
    }
    lab.wait_acquainted(cluster)?;
    for user in &users {
        let node = cluster.nodes.last().context("no nodes")?;
        keep(finale::read(recorder, node, "who has lost the index", user, true)?);
    }
    lab.kill_all(cluster.nodes.len())?;
    let said = Said::read(&cluster.nodes)?;
    print_errors(&said);
    ensure!(said.broken.is_empty(), "nodes panicked: {:#?}", said.broken);
    recorder.with(|history| {
        history.acknowledgements = said.acknowledgements;
        history.carried_out_again = said.carried_out_again.into_iter().collect();
    });
    Ok(())
}

/// Whether a request is of one kind.
type Kind = fn(&Request) -> bool;

fn report(history: &History) -> bool {
    let count = |of: Kind| {
        let all = history.operations.iter().filter(|one| of(&one.request));
        let done = all.clone().filter(|one| one.is_done()).count();
        (done, all.filter(|one| matches!(one.outcome, Outcome::Unknown(_))).count())
    };
    println!("{}: {} operations, {} faults", history.title, history.operations.len(), history.faults.len());
    let kinds: [(&str, Kind); 9] = [
        ("LMTP", |request| matches!(request, Request::Deliver { .. })),
        ("APPEND", |request| matches!(request, Request::Append { .. })),
        ("STORE", |request| matches!(request, Request::Store { .. })),
        ("COPY", |request| matches!(request, Request::Copy { .. })),
        ("MOVE", |request| matches!(request, Request::Move { .. })),
        ("EXPUNGE", |request| matches!(request, Request::Expunge { .. })),
        ("CREATE", |request| matches!(request, Request::Create { .. })),
        ("RENAME", |request| matches!(request, Request::Rename { .. })),
        ("DELETE", |request| matches!(request, Request::Delete { .. })),
    ];
    for (name, kind) in kinds {
        let (done, unknown) = count(kind);
        println!("  {name:<8} {done:>6} acknowledged, {unknown:>4} with unknown outcome");
    }
    let epochs: std::collections::BTreeSet<_> = history.acknowledgements.iter().map(|one| (&one.user, one.epoch)).collect();
    println!("  {} acknowledgements under {} leases", history.acknowledgements.len(), epochs.len());
    let violations = history::check(history);
    for violation in &violations {
        show(history, violation);
    }
    match violations.len() {
        0 => println!("every promise was kept"),
        count => println!("{count} VIOLATIONS"),
    }
    violations.is_empty() && !history.operations.is_empty()
}

fn show(history: &History, violation: &Violation) {
    println!("\nVIOLATION: {}\n  {}", violation.property, violation.what);
    let operations: Vec<_> = violation.operations.iter().filter_map(|id| history.operations.get(*id)).collect();
    for operation in operations.iter().rev().take(SHOWN).rev() {
        println!("  {operation}");
    }
    let around = |from: u64, until: u64| operations.iter().any(|one| one.sent <= until && one.ended >= from);
    for fault in history.faults.iter().filter(|fault| around(fault.from, fault.until)) {
        println!("  meanwhile {:.1}–{:.1} s: {}", seconds(fault.from), seconds(fault.until), fault.what);
    }
}
