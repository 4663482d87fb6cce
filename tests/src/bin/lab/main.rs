//! `cargo lab`: hosts with real NFS clients (tests/lab/README.md), a Berth cluster on them, and what is measured there.

mod acme;
mod budget;
mod chaos;
mod counts;
mod failover;
mod late;

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tests::lab::{self, Lab, Plan, option};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("cluster") => cluster(),
        Some("budget") => budget::run(),
        Some("failover") => {
            let rounds = option(&arguments, "--rounds")?.map_or(Ok(3), |rounds| rounds.parse()).context("--rounds takes a number")?;
            failover::run(rounds, option(&arguments, "--only")?.as_deref())
        }
        Some("late") => late::run(),
        Some("acme") => acme::run(),
        Some("chaos") => chaos::run(&chaos_options(&arguments)?),
        Some("check") => chaos::check(arguments.get(1).context("cargo lab check FILE")?.as_ref()),
        // Everything else is done to the hosts.
        _ => Err(anyhow!(Command::new(lab::script()).args(&arguments).exec()).context("cannot run tests/lab/hosts")),
    }
}

fn chaos_options(arguments: &[String]) -> Result<chaos::Options> {
    let seeds = match option(arguments, "--seed")? {
        Some(seeds) => seeds.split(',').map(str::parse).collect::<Result<_, _>>().context("--seed takes numbers: 1,2,3")?,
        None => vec![rand::random::<u32>().into()],
    };
    let minutes = option(arguments, "--minutes")?.map_or(Ok(5.0), |minutes| minutes.parse()).context("--minutes takes a number")?;
    Ok(chaos::Options {
        seeds,
        time: Duration::try_from_secs_f64(minutes * 60.0).context("--minutes takes a number")?,
        out: option(arguments, "--out")?.map_or_else(env::temp_dir, Into::into),
        boot: arguments.iter().any(|argument| argument == "--boot"),
        if_possible: arguments.iter().any(|argument| argument == "--if-possible"),
        vers: option(arguments, "--vers")?.unwrap_or_else(|| "4.2".into()),
    })
}

/// A name for a cluster's directory that was not there before.
fn fresh(what: &str) -> String {
    format!("{what}-{:08x}", rand::random::<u32>())
}

fn cluster() -> Result<bool> {
    lab::enter()?;
    let cluster = Lab::attach()?.start(&fresh("cluster"), &Plan::default())?;
    println!("{} on {}; users user1 … user{}, password {}", cluster.root, cluster.nodes.len(), cluster.users, lab::PASSWORD);
    for node in &cluster.nodes {
        println!("{}  imap {}  lmtp {}", node.name, node.imap(), node.lmtp());
    }
    Ok(true)
}
