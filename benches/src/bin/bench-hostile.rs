//! `bench-hostile`: honest clients beside thousands of hostile connections, with the default limits: how long they take, and what the node's memory does.
//! It ends with 1 where an honest client was failed, a step took too long, or memory grew beyond its bound.

use std::{process::ExitCode, sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result};
use benches::usage;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    hostile::{Attack, Honest, Kind, within},
};

/// Half-open handshakes, slow readers and writers, floods, compressed bombs, wrong passwords and endless lines at once, from many addresses of 127.0.0.0/8.
#[derive(Debug, Parser)]
struct Arguments {
    /// Hostile connections; each takes one descriptor here and one on the node.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// How long honest clients are timed, alone and again beside them.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What each connection does is drawn from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest step of an honest client, in seconds, 99 times of 100.
    #[arg(long, default_value_t = 10)]
    step_max: u64,
    /// KiB that each hostile connection may take.
    #[arg(long, default_value_t = 128)]
    kib_each: u64,
}

/// The settings' defaults, which a demo raises.
const DEFAULTS: &str = "connections_per_address = 1000\nsessions_per_user_and_address = 32";
/// Honest users: each logs in now and then.
const HONEST: usize = 40;
/// Users of whom the attackers have the passwords.
const ACCOMPLICES: usize = 20;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("can't raise the limit of open files")?;
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: HONEST + ACCOMPLICES, dir: None })?;
    cluster.set_and_restart(0, "limits", DEFAULTS)?;
    let (doors, process) = (cluster.nodes[0].doors.clone(), cluster.nodes[0].process);
    let (honest, accomplices) = cluster.users.split_at(HONEST);
    let message = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(80_000));
    for accomplice in accomplices {
        Imap::login(&doors.imap, &accomplice.name, &accomplice.password)?.append("INBOX", "", message.as_bytes())?;
    }
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let lasting = Duration::from_secs(arguments.seconds);

    let alone = Honest::work(&doors, honest, lasting, || Ok(()))?;
    let before = process.resident_bytes()?;
    let attack = Attack::start(&doors, accomplices, arguments.connections, arguments.seed)?;
    attack.wait_made(arguments.connections, Duration::from_secs(300))?;
    let (mut most, busy) = (0, usage::cpu(&[process])?);
    let beside = Honest::work(&doors, honest, lasting, || {
        most = most.max(process.resident_bytes()?);
        Ok(())
    })?;
    let used = usage::cpu(&[process])?.saturating_sub(busy);
    let counts = attack.counts();
    println!("{} hostile clients of {} kinds (seed {}), {lasting:?}\n", arguments.connections, Kind::ALL.len(), arguments.seed);
    println!("| step | alone: times, median, 99 % | beside them: times, median, 99 %, longest |\n| --- | ---: | ---: |");
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    for ((step, alone), (_, beside)) in alone.steps().into_iter().zip(beside.steps()) {
        println!(
            "| {step} | {}, {:.1} ms, {:.1} ms | {}, {:.1} ms, {:.1} ms, {:.1} ms |",
            alone.len(),
            ms(within(alone, 50)),
            ms(within(alone, 99)),
            beside.len(),
            ms(within(beside, 50)),
            ms(within(beside, 99)),
            ms(within(beside, 100))
        );
    }
    println!(
        "\nmemory: {:.0} MiB before, {:.0} MiB at most; the node used {:.2} cores",
        mib(before),
        mib(most),
        used.as_secs_f64() / lasting.as_secs_f64()
    );
    println!(
        "{} hostile connections are open, {} were made, {} could not be",
        counts.open.load(Ordering::Relaxed),
        counts.made.load(Ordering::Relaxed),
        counts.failed.load(Ordering::Relaxed)
    );

    let mut verdict = beside.failures.clone();
    let step_max = Duration::from_secs(arguments.step_max);
    for (step, times) in beside.steps() {
        if times.is_empty() || within(times, 99) > step_max {
            verdict.push(format!("{step}: {:?} for 99 % of {} times, {step_max:?} are allowed", within(times, 99), times.len()));
        }
    }
    let allowed = before + arguments.kib_each * 1024 * arguments.connections as u64;
    if most > allowed {
        verdict.push(format!("memory: {:.0} MiB, {:.0} are allowed", mib(most), mib(allowed)));
    }
    drop(attack);
    for failure in verdict.iter().take(20) {
        println!("FAILED {failure}");
    }
    println!("{}", if verdict.is_empty() { "honest clients were served" } else { "honest clients were NOT served as promised" });
    Ok(if verdict.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
