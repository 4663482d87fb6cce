//! `berth init`: makes a directory a cluster.

use std::{io::Write, path::PathBuf, time::Duration};

use affinity::{Root, Timings};
use anyhow::{Context, anyhow};
use clap::Args;

/// Make a shared directory a cluster, once
///
/// Writes `berth.toml` with the cluster's id and timings, which every node must agree on. Nothing that is there is changed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth init /srv/berth\n  berth init /srv/berth --beat 500ms --self-limit 3s --dead-after 5s    faster failover, on a fast and steady file server"
)]
pub struct InitArgs {
    /// The shared directory, mounted on every node
    root: PathBuf,
    /// How often a node gives a sign of life
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    beat: Duration,
    /// How long after its last sign of life a node may go on
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    self_limit: Duration,
    /// How long a node must be silent until the others take over
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = humantime::parse_duration)]
    dead_after: Duration,
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let timings = timings(args)?;
    let root = std::path::absolute(&args.root).with_context(|| format!("can't use {}", args.root.display()))?;
    let made = Root::init(&root, &timings)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} is cluster {} now.", root.display(), made.cluster().cluster_id)?;
    writeln!(out, "Next: `berth config show --default > {}`, set `node.root` there,", crate::config::DEFAULT_FILE)?;
    writeln!(out, "`berth user add NAME`, and `berth serve` on every host.")?;
    Ok(())
}

fn timings(args: &InitArgs) -> anyhow::Result<Timings> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let timings = Timings { beat_ms: millis(args.beat), self_limit_ms: millis(args.self_limit), dead_after_ms: millis(args.dead_after) };
    let options = |why: String| {
        ["beat", "self_limit", "dead_after"].iter().fold(why, |why, name| match why.strip_prefix(name) {
            Some(rest) => format!("--{}{rest}", name.replace('_', "-")),
            None => why,
        })
    };
    timings.check().map_err(|why| anyhow!("{}", options(why)))?;
    Ok(timings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(beat: u64, self_limit: u64, dead_after: u64) -> InitArgs {
        let [beat, self_limit, dead_after] = [beat, self_limit, dead_after].map(Duration::from_millis);
        InitArgs { root: PathBuf::from("/srv"), beat, self_limit, dead_after }
    }

    #[test]
    fn timings_that_could_let_two_nodes_serve_are_refused() {
        assert_eq!(timings(&args(1000, 5000, 8000)).unwrap(), Timings::default());
        for wrong in [args(0, 5000, 8000), args(1000, 2000, 8000), args(1000, 5000, 5000), args(1000, 8000, 5000)] {
            assert!(timings(&wrong).is_err(), "{wrong:?}");
        }
        let said = timings(&args(1000, 9000, 8000)).unwrap_err().to_string();
        assert_eq!(said, "--dead-after is 8s, must be at least 12.25s: 5/4 of self_limit (9s) and one beat (1s)");
    }
}
