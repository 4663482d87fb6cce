//! `berth demo`: a cluster on this host, to try things.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use crate::config::LogSection;

/// Try it: a whole cluster on this host, nothing to set up
///
/// Makes a shared directory, a certificate and users `user1@localhost`, `user2@localhost` and so on, starts the nodes and prints how to reach them.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  berth demo\n  berth demo --nodes 5 --users 100\n  berth demo --root /mnt/nfs/demo    keep the mail, on a real shared directory"
)]
pub struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub nodes: u16,
    /// How many users
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// The password of every user
    #[arg(long, value_name = "TEXT", default_value = "demo")]
    pub password: String,
    /// The shared directory, kept afterwards [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// The first port; each node takes the ports after it [default: free ones]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..))]
    pub port: Option<u16>,
    /// What to log, as in `log.level`
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log: String,
}

pub(super) fn run(args: DemoArgs) -> anyhow::Result<()> {
    crate::log::init(&LogSection { level: args.log.clone(), json: false })?;
    crate::demo::run(args)
}
