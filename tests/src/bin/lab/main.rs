//! `cargo lab`: hosts with real NFS clients (tests/lab/README.md), a Berth cluster on them, and what is measured there.

mod acme;
mod budget;
mod chaos;
mod counts;
mod failover;
mod late;

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use tests::lab::{self, Lab, Plan};

/// A lab of hosts with real Linux NFS clients, and what is measured and proven there.
#[derive(Debug, Parser)]
#[command(
    name = "cargo lab",
    bin_name = "cargo lab",
    after_help = "Every other verb is done to the hosts: `cargo lab hosts --help` lists them."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts a Berth cluster on the lab that is up, and says where it listens
    Cluster,
    /// Counts the NFS requests of each operation, and fails where one takes more than its budget
    Budget,
    /// Measures how long clients wait when hosts, networks and the file server fail
    Failover {
        /// Times that each fault is made
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// The one fault to measure
        #[arg(long)]
        only: Option<String>,
    },
    /// Has the file server carry out a lost holder's RENAME, DELETE and CREATE late
    Late,
    /// Renews certificates on several nodes from a test authority
    Acme,
    /// Has clients write through every node while hosts, networks and the file server fail, and proves from what they were told that nothing was lost
    Chaos(chaos::Options),
    /// Checks the history of a run again
    Check { file: PathBuf },
    #[command(external_subcommand)]
    Hosts(Vec<String>),
}

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
    match Arguments::parse().verb {
        Verb::Cluster => cluster(),
        Verb::Budget => budget::run(),
        Verb::Failover { rounds, only } => failover::run(rounds.into(), only.as_deref()),
        Verb::Late => late::run(),
        Verb::Acme => acme::run(),
        Verb::Chaos(options) => chaos::run(&options),
        Verb::Check { file } => chaos::check(&file),
        Verb::Hosts(arguments) => {
            let arguments = arguments.strip_prefix(&["hosts".to_owned()]).unwrap_or(&arguments);
            Err(anyhow!(Command::new(lab::script()).args(arguments).exec()).context("cannot run tests/lab/hosts"))
        }
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
