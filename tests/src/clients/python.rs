//! Python's own mail clients (`imaplib`, `poplib`, `smtplib`): written by others, against other servers.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;

use crate::process;

/// How long one script may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a script with arguments (`sys.argv[1:]`); gives its standard output.
pub fn run(script: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).args(arguments).stdin(Stdio::null());
    process::run_ok(&mut command, LIMIT)
}
