//! `cargo ready`: everything that must hold before a change is done, in the order of how fast it fails.
//!
//! `cargo ready` runs all steps; `cargo ready STEP…` runs the named ones (`cargo ready --list`). Output of each step goes to
//! `target/ready/STEP.log`; its end is shown where the step fails. What was left out is named at the end.

mod debian;
mod step;

use std::{env, fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use step::{Outcome, Step};
use tests::{berth, lab, packages, wait};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ready: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let steps = steps()?;
    let wanted: Vec<String> = env::args().skip(1).collect();
    if wanted.iter().any(|argument| argument == "--list") {
        steps.iter().for_each(|step| println!("{:<14} {}", step.name, step.what));
        return Ok(true);
    }
    if let Some(unknown) = wanted.iter().find(|name| !steps.iter().any(|step| step.name == **name)) {
        anyhow::bail!("there is no step {unknown}: `cargo ready --list` names them");
    }
    let chosen: Vec<&Step> = steps.iter().filter(|step| wanted.is_empty() || wanted.contains(&step.name)).collect();
    let start = wait::now();
    let mut outcomes = Vec::new();
    for (number, step) in chosen.iter().enumerate() {
        println!("[{}/{}] {}: {}", number + 1, chosen.len(), step.name, step.what);
        let too_late = if wanted.is_empty() { step.too_late(start.elapsed()) } else { None };
        let outcome = too_late.map_or_else(|| step.run(), Ok)?;
        println!("      {}", outcome.line());
        outcomes.push((step.name.as_str(), outcome));
    }
    sum_up(&outcomes);
    let count = |of: fn(&Outcome) -> usize| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<usize>();
    println!("\n{} passed, {} failed", count(|outcome| outcome.passed), count(|outcome| outcome.failed_tests));
    let failed: Vec<&str> = outcomes.iter().filter(|(_, outcome)| outcome.failed()).map(|(name, _)| *name).collect();
    let seconds = start.elapsed().as_secs();
    if failed.is_empty() {
        println!("\nready, after {} min {} s", seconds / 60, seconds % 60);
    } else {
        println!("\nNOT READY, after {} min {} s: {}", seconds / 60, seconds % 60, failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn sum_up(outcomes: &[(&str, Outcome)]) {
    println!();
    for (name, outcome) in outcomes {
        println!("{name:<14} {}", outcome.line());
    }
    let skipped: Vec<&String> = outcomes.iter().flat_map(|(_, outcome)| &outcome.skipped).collect();
    if !skipped.is_empty() {
        println!("\nleft out:");
        skipped.iter().for_each(|line| println!("  {line}"));
    }
}

/// Tests of the cluster that measure seconds: nothing may run beside them.
const MEASURED: [&str; 2] = ["kill::", "pause::"];

/// How many tests of a suite run at once on two cores. Those of the cluster mostly wait for time to pass.
fn threads(suite: &str) -> &'static str {
    match suite {
        "cluster" => "3",
        "peers" => "2",
        _ => "4",
    }
}

fn suite_steps(suite: &str) -> Vec<Step> {
    let what = format!("black-box tests under tests/{suite}");
    let step = |name: &str, what: &str, threads: &str, filter: &[&str]| {
        let arguments = ["test", "--ignore-rust-version", "--workspace", "--test", suite, "--", "--test-threads", threads];
        Step::cargo(name, what, &[&arguments, filter].concat())
    };
    if suite != "cluster" {
        return vec![step(suite, &what, threads(suite), &[])];
    }
    let others: Vec<&str> = MEASURED.iter().flat_map(|module| ["--skip", module]).collect();
    vec![
        step("failover", "the tests under tests/cluster that measure how long it takes, one by one", "1", &MEASURED),
        step(suite, &format!("{what}, but those of failover"), threads(suite), &others),
    ]
}

fn steps() -> Result<Vec<Step>> {
    let mut steps = vec![
        Step::function("packages", "Debian packages of the programs that the tests run", debian::install),
        Step::cargo("format", "rustfmt has nothing to change", &["fmt", "--all", "--check"]),
        Step::cargo(
            "lint",
            "clippy has nothing to say",
            &["clippy", "--ignore-rust-version", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        ),
        // Always the whole workspace: another selection of packages would give the same libraries other features, and compile them again.
        Step::cargo("build", "the server", &["build", "--ignore-rust-version", "--workspace", "--bin", "berth"]),
        Step::cargo(
            "unit",
            "unit tests",
            &["test", "--ignore-rust-version", "--workspace", "--lib", "--bins", "--examples", "--no-fail-fast"],
        ),
        Step::cargo("examples", "documentation examples", &["test", "--ignore-rust-version", "--workspace", "--doc"]),
    ];
    for suite in suites()? {
        steps.extend(suite_steps(&suite));
    }
    steps.push(chaos());
    steps.push(if packages::find("cargo-deny").is_some() || cargo_home_has("cargo-deny") {
        Step::cargo("dependencies", "cargo-deny: licences, bans, sources", &["deny", "--offline", "check", "bans", "licenses", "sources"])
    } else {
        Step::skipped(
            "dependencies",
            "cargo-deny: licences, bans, sources",
            "cargo-deny is not installed (`cargo install cargo-deny`); tests/house checked licences and bans",
        )
    });
    Ok(steps)
}

/// All steps together stay below half an hour, of which chaos needs seven minutes.
const CHAOS_BEGINS: Duration = Duration::from_secs(20 * 60);

/// Five minutes of faults with fixed seeds, in a lab of its own. Seeds fix what is done, not when.
fn chaos() -> Step {
    let what = "clients write while hosts, networks and the file server fail (`cargo lab chaos`, 5 min)";
    match lab::impossible() {
        Some(why) => Step::skipped("chaos", what, &format!("no lab can be booted: {why}")),
        None => {
            let arguments =
                ["run", "--ignore-rust-version", "--package", "tests", "--bin", "lab", "--", "chaos", "--boot", "--if-possible"];
            Step::cargo("chaos", what, &[&arguments[..], &["--seed", "1,2", "--minutes", "2.5"]].concat())
                .with("BERTH_LAB", "ready")
                .not_after(CHAOS_BEGINS)
        }
    }
}

fn cargo_home_has(name: &str) -> bool {
    let home = env::var_os("CARGO_HOME").map(std::path::PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    home.is_some_and(|home| home.join("bin").join(name).is_file())
}

/// The suites in the order in which tests/Cargo.toml has them.
fn suites() -> Result<Vec<String>> {
    let manifest = berth::repository().join("tests/Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let names = text.split("[[test]]").skip(1).filter_map(|section| section.lines().find_map(|line| line.strip_prefix("name = ")));
    Ok(names.map(|name| name.trim_matches('"').to_owned()).collect())
}

#[cfg(test)]
mod tests_of_ready {
    #[test]
    fn a_step_that_would_end_too_late_is_left_out_and_says_so() {
        let chaos = super::chaos().not_after(super::CHAOS_BEGINS);
        assert!(chaos.too_late(super::CHAOS_BEGINS).is_none());
        let outcome = chaos.too_late(super::CHAOS_BEGINS * 2).unwrap();
        assert!(!outcome.failed() && outcome.skipped[0].contains("cargo ready chaos"), "{outcome:?}");
    }

    #[test]
    fn every_suite_has_a_step_of_its_own() {
        let suites = super::suites().unwrap();
        for suite in ["imap", "pop3", "lmtp", "cluster", "peers", "house"] {
            assert!(suites.iter().any(|name| name == suite), "{suite} is not in {suites:?}");
        }
    }
}
