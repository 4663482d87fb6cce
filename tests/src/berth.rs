//! The `berth` binary: where it is, and running one of its commands.

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::process;

/// How long a command of the operator may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a build from nothing may take.
const BUILD_LIMIT: Duration = Duration::from_secs(1_800);

/// The binary: `$BERTH_BIN`, or the one of this build, brought up to date once per test program.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| locate().map_err(|error| format!("{error:#}"))).clone().map_err(|why| anyhow!(why))
}

fn locate() -> Result<PathBuf> {
    if let Some(given) = env::var_os("BERTH_BIN") {
        let given = PathBuf::from(given);
        ensure!(given.is_file(), "BERTH_BIN={} is not a file", given.display());
        return Ok(given);
    }
    // target/debug/deps/imap-0123456789abcdef → target/debug
    let this = env::current_exe()?;
    let profile = this.ancestors().find(|folder| folder.join("deps").is_dir()).context("these tests do not run from a target folder")?;
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--ignore-rust-version", "--quiet", "--workspace", "--bin", "berth"]).current_dir(repository());
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    process::run_ok(&mut build, BUILD_LIMIT).context("cannot build berth")?;
    let binary = profile.join("berth");
    ensure!(binary.is_file(), "{} was not built", binary.display());
    Ok(binary)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A command line of `berth`, ready to run. Settings of the caller's environment do not reach it.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments).env_remove("BERTH_CONFIG");
    Ok(command)
}

/// Runs a command to its end, whatever its status.
pub fn run(arguments: &[&str]) -> Result<Output> {
    process::run(&mut command(arguments)?, LIMIT)
}

/// Runs a command that must succeed; its standard output as text.
pub fn run_ok(arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8(process::run_ok(&mut command(arguments)?, LIMIT)?)?)
}
