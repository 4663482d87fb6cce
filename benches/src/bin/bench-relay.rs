//! `bench-relay`: what relaying costs. Memory and CPU of many idle IMAP sessions on both nodes; FETCHes through the holder's own door and through the
//! other node's, with the CPU time of each party.

use std::{
    env,
    process::{self, Command},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use benches::{client::Client, corpus, idle, servers::placed_on, usage};
use clap::{Parser, Subcommand};
use tests::{
    cluster::{Cluster, Demo},
    process::Process,
    site::User,
    wait,
};

#[derive(Debug, Parser)]
#[command(about = "Measures what relaying sessions between two nodes costs")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sessions in IDLE: memory of each on both nodes, CPU while nothing happens, and whether a delivery still reaches them.
    Idle {
        /// Sessions; each takes one descriptor of a client and one of its first node. Where one node may not have so many, half of them come in through each.
        #[arg(long, default_value_t = 20_000)]
        sessions: usize,
        /// For how many seconds of silence CPU is watched.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Clients of `idle`, in processes of their own.
    #[command(hide = true)]
    Hold,
    /// Whole messages, direct and relayed: MB/s, and CPU time of one MB for the client and each node.
    Fetch {
        /// Connections at once.
        #[arg(long, default_values_t = [1, 64])]
        connections: Vec<usize>,
        /// MB that all connections together fetch in one round.
        #[arg(long, default_value_t = 1_000)]
        megabytes: usize,
        /// Rounds, direct and relayed by turns; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Through TLS.
        #[arg(long)]
        tls: bool,
        /// What each node's host can send, as tc writes it (`1gbit`): in a network namespace of its own, so as root. Without it, processors are the limit.
        #[arg(long)]
        rate: Option<String>,
    },
}

/// Set in the network namespace.
const INSIDE: &str = "BENCH_RELAY_INSIDE";
/// Users of whom some are held by either node.
const USERS: usize = 12;
/// The messages: bytes, and how many a mailbox has.
const SHAPES: [(usize, usize); 2] = [(1024 * 1024, 10), (12 * 1024, 400)];

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Idle { sessions, seconds } => idle::measure(sessions, Duration::from_secs(seconds)),
        What::Hold => idle::hold(),
        What::Fetch { connections, megabytes, rounds, tls, rate: None } => fetch(&connections, megabytes, rounds, tls, None),
        What::Fetch { connections, megabytes, rounds, tls, rate: Some(rate) } => {
            if env::var_os(INSIDE).is_none() {
                let status = Command::new("unshare")
                    .arg("--net")
                    .args([env::current_exe()?.into()].into_iter().chain(env::args_os().skip(1)))
                    .env(INSIDE, "1")
                    .status()?;
                process::exit(status.code().unwrap_or(1));
            }
            net("ip", "link set lo up")?;
            fetch(&connections, megabytes, rounds, tls, Some(&rate))
        }
    }
}

/// One round of fetching.
#[derive(Clone, Copy)]
struct Round {
    megabytes_per_second: f64,
    /// CPU ms of one MB: client, ingress, holder.
    cpu: [f64; 3],
}

fn net(program: &str, arguments: &str) -> Result<()> {
    let status = Command::new(program).args(arguments.split(' ')).status().with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} {arguments} failed");
    Ok(())
}

/// What leaves the ingress' door for the client has `rate`, and what goes between the nodes has it.
fn limit(door: &str, rate: &str) -> Result<()> {
    let port = door.rsplit_once(':').context("a door without a port")?.1;
    net("tc", "qdisc add dev lo root handle 1: htb default 2")?;
    for class in ["1:1", "1:2"] {
        net("tc", &format!("class add dev lo parent 1: classid {class} htb rate {rate} burst 256k"))?;
    }
    net("tc", &format!("filter add dev lo parent 1: protocol ip u32 match ip sport {port} 0xffff flowid 1:1"))
}

fn fetch(connections: &[usize], megabytes: usize, rounds: usize, tls: bool, rate: Option<&str>) -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: USERS, dir: None })?;
    let [ingress, holder] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes were asked for") };
    if let Some(rate) = rate {
        limit(if tls { &ingress.doors.imaps } else { &ingress.doors.imap }, rate)?;
    }
    let far = placed_on(&cluster, &holder.doors.name)?;
    let near = placed_on(&cluster, &ingress.doors.name)?;
    let (direct, relayed) = (near.first().context("nobody is on the first node")?, far.first().context("nobody is on the second node")?);
    let address = if tls { &ingress.doors.imaps } else { &ingress.doors.imap };
    println!(
        "| messages | connections | direct MB/s | relayed MB/s | ratio | CPU ms of one MB, direct: client, node | relayed: client, ingress, holder |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (index, (bytes, count)) in SHAPES.into_iter().enumerate() {
        let mailbox = format!("shape{index}");
        for user in [direct, relayed] {
            let mut client = Client::login(&ingress.doors.imap, None, &user.name, &user.password)?;
            client.command(&format!("CREATE {mailbox}"))?;
            for _ in 0..count {
                client.append(&mailbox, &corpus::large(bytes))?;
            }
        }
        for &connections in connections {
            let each = (megabytes * 1_000_000 / connections).div_ceil(bytes * count).max(1);
            let run = |user: &User| one_round(address, tls, user, &mailbox, connections, each, [ingress.process, holder.process]);
            run(direct)?;
            run(relayed)?;
            let mut results: [Vec<Round>; 2] = Default::default();
            for _ in 0..rounds {
                results[0].push(run(direct)?);
                results[1].push(run(relayed)?);
            }
            let [direct, relayed] = results.map(median);
            println!(
                "| {} KiB | {connections} | {:.0} | {:.0} | {:.2} | {:.2}, {:.2} | {:.2}, {:.2}, {:.2} |",
                bytes / 1024,
                direct.megabytes_per_second,
                relayed.megabytes_per_second,
                relayed.megabytes_per_second / direct.megabytes_per_second,
                direct.cpu[0],
                direct.cpu[1],
                relayed.cpu[0],
                relayed.cpu[1],
                relayed.cpu[2]
            );
        }
    }
    Ok(())
}

fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.megabytes_per_second.total_cmp(&b.megabytes_per_second));
    rounds[rounds.len() / 2]
}

fn one_round(address: &str, tls: bool, user: &User, mailbox: &str, connections: usize, each: usize, nodes: [Process; 2]) -> Result<Round> {
    let config = if tls { Some(tests::tls::trusting_client()?) } else { None };
    let open = || -> Result<Client> {
        let mut client = Client::login(address, config.as_ref(), &user.name, &user.password)?;
        client.command(&format!("SELECT {mailbox}"))?;
        Ok(client)
    };
    let clients = (0..connections).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let parties = [Process::from_raw(i64::from(process::id()))?, nodes[0], nodes[1]];
    let before = usage::each_cpu(&parties)?;
    let started = wait::now();
    let fetching: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || -> Result<u64> {
                let mut bytes = 0;
                for _ in 0..each {
                    bytes += client.command("FETCH 1:* BODY.PEEK[]")?.bytes;
                }
                Ok(bytes)
            })
        })
        .collect();
    let mut bytes = 0;
    for fetching in fetching {
        bytes += fetching.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = usage::each_cpu(&parties)?;
    let megabytes = bytes as f64 / 1e6;
    let cpu = |party: usize| after[party].saturating_sub(before[party]).as_secs_f64() * 1000.0 / megabytes;
    Ok(Round { megabytes_per_second: megabytes / seconds, cpu: [cpu(0), cpu(1), cpu(2)] })
}
