//! `bench-hostile`: honest clients beside thousands of hostile connections, with the default limits: how long they take, and what the node's memory does.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    hostile::{Attack, Kind, honest_visits},
};

/// Half-open handshakes, slow readers and writers, floods, wrong passwords and endless lines at once, from many addresses of 127.0.0.0/8.
#[derive(Debug, Parser)]
struct Arguments {
    /// Hostile connections; each takes one descriptor here and one on the node.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// How long honest clients are timed beside them.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// The settings' defaults, which a demo raises.
const DEFAULTS: &str = "connections_per_address = 1000\nsessions_per_user_and_address = 32";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("can't raise the limit of open files")?;
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    cluster.set_and_restart(0, "limits", DEFAULTS)?;
    let (doors, process) = (cluster.nodes[0].doors.clone(), cluster.nodes[0].process);
    let (honest, accomplice) = (&cluster.users[0], &cluster.users[1]);
    let message = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(80_000));
    Imap::login(&doors.imap, &accomplice.name, &accomplice.password)?.append("INBOX", "", message.as_bytes())?;
    Imap::login(&doors.imap, &honest.name, &honest.password)?.append("INBOX", "", b"Subject: small\r\n\r\nsmall\r\n")?;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;

    let alone = honest_visits(&doors, honest, Duration::from_secs(5), || Ok(()))?;
    println!("alone: {}; {:.0} MiB", spread(&alone), mib(process.resident_bytes()?));
    let attack = Attack::start(&doors, accomplice, arguments.connections)?;
    attack.wait_made(arguments.connections, Duration::from_secs(300))?;
    let mut most = 0;
    let beside = honest_visits(&doors, honest, Duration::from_secs(arguments.seconds), || {
        most = most.max(process.resident_bytes()?);
        Ok(())
    })?;
    let counts = attack.counts();
    println!(
        "beside {} hostile clients of {} kinds: {}; {:.0} MiB at most",
        arguments.connections,
        Kind::ALL.len(),
        spread(&beside),
        mib(most)
    );
    println!(
        "{} hostile connections are open, {} were made, {} could not be",
        counts.open.load(Ordering::Relaxed),
        counts.made.load(Ordering::Relaxed),
        counts.failed.load(Ordering::Relaxed)
    );
    Ok(())
}

fn spread(sorted: &[Duration]) -> String {
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default();
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    format!(
        "{} visits (connect, LOGIN, SELECT, FETCH, LOGOUT), median {:.1} ms, 95 % within {:.1} ms, the longest {:.1} ms",
        sorted.len(),
        ms(at(50)),
        ms(at(95)),
        ms(at(100))
    )
}
