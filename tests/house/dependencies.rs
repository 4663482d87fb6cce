//! What is linked: permissive licences only, and none of the libraries that were refused (.deny.toml has the reasons).

use std::{collections::BTreeMap, process::Command, time::Duration};

use tests::{Result, berth, ensure, process};

use super::read;

/// Libraries of which two versions in one binary would be a mistake: they hold global state or large code.
const ONCE: &[&str] = &["tokio", "rustls", "aws-lc-rs", "rusqlite", "libsqlite3-sys", "mail-parser", "imap-types", "serde"];

/// Name and version → licence, of everything that is built.
fn packages() -> Result<BTreeMap<(String, String), String>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "tree",
        "--offline",
        "--locked",
        "--workspace",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}\t{l}",
    ]);
    command.current_dir(berth::repository());
    let listed = String::from_utf8(process::run_ok(&mut command, Duration::from_secs(60))?)?;
    let mut packages = BTreeMap::new();
    for line in listed.lines().filter(|line| !line.is_empty()) {
        let (package, licence) = line.split_once('\t').unwrap_or((line, ""));
        let mut words = package.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        packages.insert((name.to_owned(), version.to_owned()), licence.trim_end_matches(" (*)").to_owned());
    }
    ensure!(packages.len() > 100, "only {} packages were listed", packages.len());
    Ok(packages)
}

/// The strings of one list of .deny.toml.
fn listed(start: &str, key: &str) -> Result<Vec<String>> {
    let text = read(".deny.toml")?;
    let section = text.split(start).nth(1).unwrap_or_default().split("\n]").next().unwrap_or_default().to_owned();
    Ok(section.lines().filter_map(|line| line.trim().strip_prefix(key)?.split('"').nth(1).map(str::to_owned)).collect())
}

#[test]
fn every_dependency_has_a_permissive_licence() -> Result<()> {
    let allowed = listed("\nallow = [", "")?;
    ensure!(allowed.iter().any(|licence| licence == "MIT"), "no list of licences was found: {allowed:?}");
    let refused: Vec<_> = packages()?.into_iter().filter(|(_, licence)| !permits(licence, &allowed)).collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

#[test]
fn no_refused_library_is_built() -> Result<()> {
    let denied = listed("\ndeny = [", "{ crate = ")?;
    for name in ["ring", "openssl-sys", "sieve-rs"] {
        ensure!(denied.iter().any(|crate_| crate_ == name), "{name} is not refused in .deny.toml");
    }
    for (name, version) in packages()?.into_keys() {
        ensure!(!denied.contains(&name), "{name} {version} is built");
        ensure!(name != "mail-parser" || !version.starts_with("v0."), "mail-parser {version} aborts on hostile nesting");
    }
    Ok(())
}

#[test]
fn large_libraries_are_built_once() -> Result<()> {
    let packages = packages()?;
    for name in ONCE {
        let versions: Vec<&String> = packages.keys().filter(|(package, _)| package == name).map(|(_, version)| version).collect();
        ensure!(versions.len() <= 1, "{name} is built in versions {versions:?}");
    }
    Ok(())
}

#[test]
fn a_licence_expression_is_permitted_only_by_licences_that_are_allowed() {
    let allowed = ["MIT", "ISC"].map(str::to_owned);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0/MIT", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT AND GPL-3.0) OR (AGPL-3.0 AND ISC)", false),
        ("", false),
    ] {
        assert_eq!(permits(expression, &allowed), expected, "{expression}");
    }
}

/// SPDX, as far as licences of crates use it: OR (also written `/`), AND, WITH, parentheses; AND binds tighter.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let permitted = any(&mut rest, allowed);
    permitted && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut permitted = all(rest, allowed);
    while let Some(("OR", more)) = rest.split_first().map(|(first, more)| (*first, more)) {
        *rest = more;
        permitted |= all(rest, allowed);
    }
    permitted
}

fn all(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut permitted = one(rest, allowed);
    while let Some(("AND", more)) = rest.split_first().map(|(first, more)| (*first, more)) {
        *rest = more;
        permitted &= one(rest, allowed);
    }
    permitted
}

fn one(rest: &mut &[&str], allowed: &[String]) -> bool {
    match *rest {
        ["(", more @ ..] => {
            *rest = more;
            let permitted = any(rest, allowed);
            *rest = rest.strip_prefix(&[")"]).unwrap_or_default();
            permitted
        }
        [licence, "WITH", exception, more @ ..] => {
            *rest = more;
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        [licence, more @ ..] => {
            *rest = more;
            allowed.iter().any(|name| name == licence)
        }
        [] => false,
    }
}
