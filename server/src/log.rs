//! Logs: to standard error, compact lines or JSON, UTC.

use std::io::IsTerminal;

use affinity::Lease;
use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::config::LogSection;

/// Starts logging as configured. Once per process.
pub fn init(section: &LogSection) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&section.level).with_context(|| format!("`log.level`: {:?} is not a level", section.level))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let started = if section.json { lines.json().flatten_event(true).try_init() } else { lines.compact().try_init() };
    started.map_err(|error| anyhow!("can't start the log: {error}"))
}

/// Says (level trace, target `acknowledged`) under which lease a client is told that its request was done: what histories of a whole cluster are
/// checked with. `request` names the request: an IMAP tag, an LMTP sender.
pub fn acknowledged(lease: &Lease, request: &str) {
    tracing::trace!(target: "acknowledged", user = %lease.user(), epoch = %lease.epoch(), holder = %lease.tenure().holder(), request);
}
