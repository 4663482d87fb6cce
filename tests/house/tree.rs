//! Files: short, finished, and about the project alone.

use std::collections::BTreeMap;

use tests::{Result, ensure};

use super::{files, read, rust_files};

/// Longer files have more than one idea in them.
const LINES_MAX: usize = 600;
/// A folder with more entries than this needs a map of its own.
const ENTRIES_MAX: usize = 20;

#[test]
fn no_source_file_is_longer_than_six_hundred_lines() -> Result<()> {
    let long: Vec<String> = rust_files()?
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines}"))
        .collect();
    ensure!(long.is_empty(), "split these by idea: {long:#?}");
    Ok(())
}

#[test]
fn no_source_file_has_leftovers() -> Result<()> {
    let leftovers = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let marks = ["FIX", "TO", "XX"].map(|start| {
        format!(
            "{start}{}",
            if start == "FIX" {
                "ME"
            } else if start == "TO" {
                "DO"
            } else {
                "X:"
            }
        )
    });
    let mut found = Vec::new();
    for (path, text) in rust_files()? {
        for (number, line) in text.lines().enumerate() {
            if leftovers.iter().chain(&marks).any(|mark| line.contains(mark.as_str())) || line.trim_start().starts_with("#[ignore") {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn no_file_speaks_of_the_machine_it_was_written_on() -> Result<()> {
    // Written in two parts, so that this file does not have them either.
    let words = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]].map(|[start, end]| format!("{start}{end}"));
    let mut found = Vec::new();
    for path in files()? {
        let Ok(text) = read(&path.display().to_string()) else { continue };
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn no_folder_is_crowded() -> Result<()> {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for path in files()? {
        let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        *folders.entry(folder).or_default() += 1;
    }
    let crowded: Vec<_> = folders.iter().filter(|(_, count)| **count > ENTRIES_MAX).collect();
    ensure!(crowded.is_empty(), "{crowded:?}");
    Ok(())
}

#[test]
fn every_module_says_what_it_is_for() -> Result<()> {
    let silent: Vec<String> = rust_files()?
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! ") || text.starts_with("//! x\n"))
        .map(|(path, _)| path)
        .collect();
    ensure!(silent.is_empty(), "no module documentation at the top of {silent:#?}");
    Ok(())
}
