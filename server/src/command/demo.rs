//! `berth demo`: a cluster on this host, to try things.

use std::path::PathBuf;

use clap::Args;

use super::runtime;
use crate::demo::Options;

/// Messages for each user where nothing else is asked for: enough to see a list.
const SAMPLE_MAIL: u32 = 3;

/// Try it: a whole cluster on this host, nothing to set up
///
/// Makes a shared directory, a certificate and users `user1`, `user2` and so on (LMTP also takes `user1@localhost`), starts the nodes, each a
/// process of its own, delivers some mail and prints how to reach them. Ctrl-C stops everything.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  berth demo\n  berth demo --nodes 5 --users 100 --password secret\n  \
                        berth demo --dir /mnt/nfs/demo    keep the mail, on a real shared directory\n  \
                        berth demo --json                 for scripts: one line on standard output once all is ready")]
pub struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// How many users
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: u32,
    /// The password of every user [default: a random one, printed]
    #[arg(long, value_name = "TEXT")]
    password: Option<String>,
    /// The shared directory, kept afterwards; one that is a cluster already goes on [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first port; each node takes six in a row from there [default: free ones]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..))]
    base_port: Option<u16>,
    /// Messages delivered to each user of a new cluster [default: 3, none with --json]
    #[arg(long, value_name = "N")]
    sample_mail: Option<u32>,
    /// For scripts: print one JSON line once all nodes are ready, and nothing else
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: DemoArgs) -> anyhow::Result<()> {
    let DemoArgs { nodes, users, password, dir, base_port, sample_mail, json } = args;
    let sample_mail = sample_mail.unwrap_or(if json { 0 } else { SAMPLE_MAIL });
    runtime()?.block_on(crate::demo::run(Options { nodes, users, password, dir, base_port, json, sample_mail }))
}
