//! `berth demo`: a cluster on this host.

use crate::command::demo::DemoArgs;

/// Runs the cluster until it is interrupted.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let _ = args;
    todo!()
}
