//! `berth completions` and `berth man`: for shells and packages.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth completions bash > /usr/share/bash-completion/completions/berth")]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Write manual pages
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The directory to write them to; made if it is missing
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "berth", &mut text);
    Ok(io::stdout().lock().write_all(&text)?)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.directory))
        .with_context(|| format!("can't write manual pages to {}", args.directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("man1");
        man(&ManArgs { directory: directory.clone() }).unwrap();
        for page in ["berth.1", "berth-serve.1", "berth-user.1", "berth-user-add.1", "berth-who.1"] {
            assert!(directory.join(page).exists(), "{page}");
        }
    }
}
