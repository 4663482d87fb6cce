//! `berth serve`: runs a node.

use std::time::Duration;

use clap::Args;

use super::{ConfigFile, runtime};

/// How long blocking calls that are under way may take when the node has left.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Run a node of the cluster
///
/// Listens as the configuration says until it gets SIGTERM or SIGINT: then it hands its users over to the other nodes and ends.
/// SIGHUP reads configuration, users and certificate again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth serve\n  berth serve --config /etc/berth/berth.toml")]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Leave the cluster when standard input ends: for programs that start nodes and may die
    #[arg(long, hide = true)]
    stop_at_end_of_input: bool,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    crate::log::init(&config.log)?;
    // Before there are threads: each is bound by what the one that started it was.
    crate::sandbox::enter(&config, &args.config.config)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(crate::node::run(config, &args.config.config, args.stop_at_end_of_input));
    // Calls that hang in a file server which is away must not keep the process from its end.
    runtime.shutdown_timeout(LAST_CALLS);
    outcome
}
