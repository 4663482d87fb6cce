//! `cargo lab`: hosts with real NFS clients (tests/lab/README.md), a Berth cluster on them, and what is measured there.

mod budget;
mod counts;
mod failover;

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
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
        // Everything else is done to the hosts.
        _ => Err(anyhow!(Command::new(lab::script()).args(&arguments).exec()).context("cannot run tests/lab/hosts")),
    }
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
