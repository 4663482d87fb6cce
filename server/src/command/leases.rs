//! `berth leases check`: finds and explains whatever is odd in the shared directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use affinity::{
    EndedFile, HolderId, NodeName, Root, UserName,
    names::{FENCED, INFO, LEASES, LeaseName, NODES, NodeFile, lease_folder},
    swap::{MountedDirectory, SharedDirectory},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{many, place::Place, table};

/// Look after leases
#[derive(Debug, Args)]
pub struct LeasesArgs {
    #[command(subcommand)]
    command: LeasesCommand,
}

#[derive(Debug, Subcommand)]
enum LeasesCommand {
    /// Find and explain what is odd in the shared directory
    ///
    /// Changes nothing. Exit code 1 if something needs an operator; what the nodes deal with by themselves is only told.
    #[command(after_help = "Example:\n  berth leases check")]
    Check {
        #[command(flatten)]
        place: Place,
    },
}

/// Whether somebody has to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    /// A user can't be served, or names are not ours: an operator must look.
    Problem,
    /// Harmless, or dealt with by itself.
    Note,
}

/// Something odd.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    path: String,
    what: String,
}

pub(super) fn run(args: &LeasesArgs) -> anyhow::Result<()> {
    let LeasesCommand::Check { place } = &args.command;
    let root = place.find()?.open()?;
    let (leases, mut findings) = check(&root)?;
    findings.sort_by(|a, b| (a.grade, &a.path).cmp(&(b.grade, &b.path)));
    let problems = findings.iter().filter(|finding| finding.grade == Grade::Problem).count();
    let mut out = io::stdout().lock();
    let word = |grade| if grade == Grade::Problem { "problem" } else { "note" };
    if place.json {
        let rows: Vec<_> = findings.iter().map(|one| json!({ "grade": word(one.grade), "path": one.path, "what": one.what })).collect();
        writeln!(out, "{}", json!({ "leases": leases, "problems": problems, "findings": rows }))?;
    } else {
        if !findings.is_empty() {
            let rows: Vec<Vec<String>> =
                findings.iter().map(|one| vec![word(one.grade).to_owned(), one.path.clone(), one.what.clone()]).collect();
            table::print(&mut out, &["GRADE", "PATH", "WHAT"], &rows)?;
            writeln!(out)?;
        }
        writeln!(out, "{} looked at, {}", many(leases, "lease"), many(problems, "problem"))?;
    }
    if problems > 0 { bail!("{problems} things in {} need an operator", root.path().display()) } else { Ok(()) }
}

/// How many leases there are, and what is odd.
fn check(root: &Root) -> anyhow::Result<(usize, Vec<Finding>)> {
    let directory = MountedDirectory::new(root.path()).with_context(|| format!("can't look at {}", root.path().display()))?;
    let list = |folder: &str| directory.list(folder).with_context(|| format!("can't list {}", root.path().join(folder).display()));
    let mut findings = Vec::new();
    let mut held: Vec<(String, HolderId)> = Vec::new();
    let mut leases = 0;
    for bucket in list(LEASES)? {
        let bucket = format!("{LEASES}/{bucket}");
        let folders = match directory.list(&bucket) {
            Ok(folders) => folders,
            Err(error) => {
                findings.push(problem(&bucket, format!("can't be listed: {error}")));
                continue;
            }
        };
        for name in folders {
            let path = format!("{bucket}/{name}");
            if name.starts_with('~') {
                findings.push(note(
                    &path,
                    "left by a node that died while it made a user's first lease: a node removes it within two days".to_owned(),
                ));
                continue;
            }
            let Ok(user) = UserName::from_encoded(&name) else {
                findings.push(problem(&path, "is no user's name as Berth writes it: remove it or move it elsewhere".to_owned()));
                continue;
            };
            if lease_folder(&user) != path {
                findings.push(problem(&path, format!("{user} belongs in {}: nobody looks here", lease_folder(&user))));
                continue;
            }
            leases += 1;
            // A rename in progress may hide a name from one listing, or show it twice: what is odd must be so three times.
            let mut odd = None;
            for _ in 0..3 {
                match directory.list(&path) {
                    Ok(names) => {
                        let (holder, found) = look_at(&path, &names);
                        let is_odd = found.iter().any(|finding| finding.grade == Grade::Problem);
                        odd = Some((holder, found));
                        if !is_odd {
                            break;
                        }
                    }
                    Err(error) => odd = Some((None, vec![problem(&path, format!("can't be listed: {error}"))])),
                }
            }
            let (holder, found) = odd.unwrap_or_default();
            findings.extend(found);
            held.extend(holder.map(|holder| (path, holder)));
        }
    }
    // Listed after the leases: who is missing then is gone for good.
    let nodes = list(NODES)?;
    let (live, strangers) = sorted::<NodeFile>(&nodes);
    findings.extend(strangers.into_iter().map(|name| stranger(NODES, &name)));
    let incarnations: BTreeSet<&HolderId> = live.iter().map(|file| &file.holder).collect();
    let mut starts: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for holder in &incarnations {
        *starts.entry(&holder.node).or_default() += 1;
    }
    for (node, _) in starts.into_iter().filter(|(_, starts)| *starts > 1) {
        findings.push(note(NODES, format!("{node} is there twice: an earlier start of it is about to be fenced")));
    }
    for (path, holder) in &held {
        if !incarnations.contains(holder) {
            findings.push(note(path, format!("its holder {holder} is gone: whoever serves the user next takes over")));
        }
    }
    let (_, strangers) = sorted::<EndedFile>(&list(FENCED)?);
    findings.extend(strangers.into_iter().map(|name| stranger(FENCED, &name)));
    let published = list(INFO)?;
    for holder in incarnations.iter().filter(|holder| !published.contains(&holder.to_string())) {
        findings.push(problem(INFO, format!("{holder} beats but published no address: nobody can forward to it; restart that node")));
    }
    Ok((leases, findings))
}

/// One user's lease folder.
fn look_at(path: &str, names: &[String]) -> (Option<HolderId>, Vec<Finding>) {
    let (leases, strangers) = sorted::<LeaseName>(names);
    let mut findings: Vec<Finding> = strangers.into_iter().map(|name| stranger(path, &name)).collect();
    match leases.iter().max_by_key(|lease| lease.epoch) {
        None => {
            findings.push(problem(
                path,
                "holds no lease: the user can't be served. If no node works on their mail, remove the folder; the next login makes it anew"
                    .to_owned(),
            ));
            (None, findings)
        }
        Some(highest) => {
            if leases.len() > 1 {
                let all: Vec<String> = leases.iter().map(ToString::to_string).collect();
                findings.push(problem(
                    path,
                    format!(
                        "holds {} leases ({}): was it copied or restored? The highest epoch counts, remove the others",
                        all.len(),
                        all.join(" ")
                    ),
                ));
            }
            (highest.holder.clone(), findings)
        }
    }
}

fn sorted<T: std::str::FromStr>(names: &[String]) -> (Vec<T>, Vec<String>) {
    let mut strangers = Vec::new();
    let known = names.iter().filter_map(|name| name.parse().map_err(|_| strangers.push(name.clone())).ok()).collect();
    (known, strangers)
}

fn stranger(folder: &str, name: &str) -> Finding {
    // NFS renames open files that are removed.
    if name.starts_with(".nfs") {
        return note(&format!("{folder}/{name}"), "a removed file that some host has open".to_owned());
    }
    problem(&format!("{folder}/{name}"), "is no name that Berth writes: it is ignored, move it elsewhere".to_owned())
}
fn problem(path: &str, what: String) -> Finding {
    Finding { grade: Grade::Problem, path: path.to_owned(), what }
}
fn note(path: &str, what: String) -> Finding {
    Finding { grade: Grade::Note, path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use affinity::Timings;

    use super::*;

    const LIVE: &str = "mail1,00000000000000aa";

    fn cluster() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::init(folder.path(), &Timings::default()).unwrap();
        fs::write(root.nodes().join(format!("{LIVE},7")), "").unwrap();
        fs::write(root.info().join(LIVE), "{}").unwrap();
        (folder, root)
    }

    fn lease(root: &Root, user: &str, names: &[&str]) {
        let folder = root.lease(&UserName::normalise(user).unwrap());
        fs::create_dir_all(&folder).unwrap();
        for name in names {
            fs::write(folder.join(name), "").unwrap();
        }
    }

    #[test]
    fn a_sound_directory_has_nothing_odd() {
        let (_folder, root) = cluster();
        lease(&root, "ada", &[&format!("3,{LIVE}")]);
        lease(&root, "bob", &["4,free"]);
        assert_eq!(check(&root).unwrap(), (2, vec![]));
    }

    #[test]
    fn what_is_odd_is_found_and_graded() {
        let (_folder, root) = cluster();
        lease(&root, "ada", &["3,free", "4,free"]);
        lease(&root, "bob", &[]);
        lease(&root, "carol", &["2,mail9,00000000000000bb"]);
        lease(&root, "dave", &["1,free", "notes.txt"]);
        let bucket = root.lease(&UserName::normalise("dave").unwrap()).parent().unwrap().to_owned();
        fs::create_dir(bucket.join("~mail1,00000000000000aa,1")).unwrap();
        fs::write(root.nodes().join("mail2,00000000000000cc,1"), "").unwrap();
        let (leases, findings) = check(&root).unwrap();
        assert_eq!(leases, 4);
        let found = |grade, text: &str| findings.iter().any(|finding| finding.grade == grade && finding.what.contains(text));
        assert!(found(Grade::Problem, "2 leases (3,free 4,free)") || found(Grade::Problem, "2 leases (4,free 3,free)"), "{findings:?}");
        assert!(found(Grade::Problem, "holds no lease"), "{findings:?}");
        assert!(found(Grade::Problem, "no name that Berth writes"), "{findings:?}");
        assert!(found(Grade::Problem, "published no address"), "{findings:?}");
        assert!(found(Grade::Note, "mail9,00000000000000bb is gone"), "{findings:?}");
        assert!(found(Grade::Note, "first lease"), "{findings:?}");
        assert_eq!(findings.len(), 6, "{findings:?}");
    }
}
