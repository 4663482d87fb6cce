//! The repository itself: documents that stay true, dependencies that stay clean, files that stay readable.

mod changelog;
mod dependencies;
mod documents;
mod protocols;
mod tree;
mod unit;

use std::{fs, path::PathBuf, process::Command, time::Duration};

use tests::{Context, Result, berth, process};

/// A file of the repository.
fn read(path: &str) -> Result<String> {
    let path = berth::repository().join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every file that git knows or would take, relative to the root.
fn files() -> Result<Vec<PathBuf>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(berth::repository());
    let listed = String::from_utf8(process::run_ok(&mut command, Duration::from_secs(30))?)?;
    Ok(listed.lines().map(PathBuf::from).filter(|path| berth::repository().join(path).is_file()).collect())
}

fn rust_files() -> Result<Vec<(String, String)>> {
    let files = files()?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| Ok((path.display().to_string(), read(&path.display().to_string())?))).collect()
}

/// Unit tests in files of their own beside the code.
fn is_unit_test(path: &str) -> bool {
    path.contains("/src/") && (path.ends_with("/tests.rs") || path.contains("/tests/"))
}

/// Whether a test of this name exists: a function, or a line of a macro that makes one.
fn is_test(sources: &str, name: &str) -> bool {
    sources.contains(&format!("fn {name}(")) || sources.contains(&format!("\n    {name}: \""))
}
