//! `berth doctor`: tries on this host what a node needs of the shared directory, and says what to do about what it finds.
//!
//! It works in a folder of its own under the shared directory, `.doctor-…`, which no node looks at, and removes it.

mod mount;

use std::{
    io::{self, Write},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use affinity::{
    Clock, Root, SystemClock,
    clock::wall_clock,
    names::NODES,
    swap::{MountedDirectory, SharedDirectory, Swapped, swap},
};
use anyhow::bail;
use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::{
    ConfigFile,
    control::{NodesReply, Request},
    place::Place,
    table,
};
use crate::node::health::check;

/// Listings that are timed.
const LISTINGS: usize = 20;
/// More difference than this between the clocks of this host and the file server is worth a word: dates in names and logs come from both.
const CLOCK_DIFFERENCE_MAX: u64 = 2;

/// Check this host: mount, file server, limits, clock
///
/// Tries renames and fresh listings in the shared directory, measures round trips, and looks at mount options, space, limits and clocks. Each finding
/// comes with what to do. Exit code 1 if something would break or stop a node.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth doctor\n  berth doctor --root /srv/berth --json")]
pub struct DoctorArgs {
    #[command(flatten)]
    place: Place,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grade {
    Good,
    /// Works, but slower or less safely than it could.
    Note,
    /// A node would lose mail, or not run.
    Bad,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Grade::Good => "ok",
            Grade::Note => "note",
            Grade::Bad => "BAD",
        }
    }
}

/// One check and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub grade: Grade,
    pub check: &'static str,
    pub found: String,
}

fn finding(grade: Grade, check: &'static str, found: impl Into<String>) -> Finding {
    Finding { grade, check, found: found.into() }
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let root = found.open()?;
    let mut findings = mount::check(root.path());
    findings.extend(try_out(&root));
    findings.extend(space("shared directory", root.path()));
    if let Ok(config) = ConfigFile::or_default(args.place.config.as_ref()).load()
        && args.place.root.is_none()
    {
        findings.extend(space("local folder", &config.node.local_dir));
        findings.push(descriptors(config.limits.connections));
    }
    findings.extend(this_node(found.ask::<NodesReply>(&Request::Nodes)));

    let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad).count();
    let mut out = io::stdout().lock();
    if args.place.json {
        let rows: Vec<_> =
            findings.iter().map(|one| json!({ "grade": one.grade.word(), "check": one.check, "found": one.found })).collect();
        writeln!(out, "{}", json!({ "root": root.path(), "bad": bad, "checks": rows }))?;
    } else {
        let rows: Vec<Vec<String>> =
            findings.iter().map(|one| vec![one.grade.word().to_owned(), one.check.to_owned(), one.found.clone()]).collect();
        table::print(&mut out, &["", "CHECK", "FOUND"], &rows)?;
    }
    if bad > 0 { bail!("{bad} checks failed") } else { Ok(()) }
}

/// What nodes do all the time, on the file server as it is now.
fn try_out(root: &Root) -> Vec<Finding> {
    let tried = MountedDirectory::new(root.path()).and_then(|directory| {
        let folder = format!(".doctor-{:016x}", rand::random::<u64>());
        directory.create_folder(&folder)?;
        let outcome = try_in(&directory, &folder, root);
        let left = directory.list(&folder).unwrap_or_default();
        for name in left {
            directory.remove(&format!("{folder}/{name}"))?;
        }
        directory.remove_folder(&folder)?;
        outcome
    });
    tried.unwrap_or_else(|error| {
        vec![finding(
            Grade::Bad,
            "writing",
            format!("{error}: this user must be able to make, rename and remove files under {}", root.path().display()),
        )]
    })
}

fn try_in(directory: &MountedDirectory, folder: &str, root: &Root) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let name = |name: &str| format!("{folder}/{name}");
    directory.create(&name("1"))?;
    let first = swap(directory, &name("1"), &name("2"))?;
    let second = swap(directory, &name("1"), &name("3"))?;
    let listed = directory.list(folder)?;
    findings.push(if (first, second) == (Swapped::Won, Swapped::Lost) && listed == ["2"] {
        finding(Grade::Good, "rename", "of two renames of one name one is won, and a fresh listing shows it")
    } else {
        let found = format!("the first of two renames of one name was {first:?}, the second {second:?}, the listing shows {listed:?}");
        finding(Grade::Bad, "rename", format!("{found}: no cluster can run on this file system"))
    });

    let clock = SystemClock::new();
    let mut times = Vec::with_capacity(LISTINGS);
    for _ in 0..LISTINGS {
        let before = clock.now();
        directory.list(NODES)?;
        times.push(clock.now().saturating_sub(before));
    }
    let before = clock.now();
    directory.write(&name("written"), &[b'x'; 4096])?;
    let written = clock.now().saturating_sub(before);
    findings.push(round_trips(&mut times, written, root.cluster().timings.beat()));
    if directory.read(&name("written"))?.len() != 4096 {
        findings.push(finding(Grade::Bad, "reading", "a file that was just written and synced is read back shorter"));
    }

    let modified = std::fs::metadata(root.path().join(name("written")))?.modified()?;
    let seconds = |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let difference = seconds(modified).abs_diff(seconds(wall_clock()));
    findings.push(if difference <= CLOCK_DIFFERENCE_MAX {
        finding(Grade::Good, "clock", "this host and the file server agree")
    } else {
        let found = format!("this host and the file server differ by {difference} s");
        finding(Grade::Note, "clock", format!("{found}: run NTP on both; no decision depends on it, but dates of messages and logs do"))
    });
    Ok(findings)
}

fn round_trips(times: &mut [Duration], written: Duration, beat: Duration) -> Finding {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let found = format!("a fresh listing takes {median:.1?} (worst of {}: {worst:.1?}), a synced 4 KiB file {written:.1?}", times.len());
    if worst > beat {
        finding(Grade::Bad, "round trip", format!("{found}; longer than a beat ({beat:?}): nodes would be suspended all the time"))
    } else if worst > beat / 4 || median > Duration::from_millis(20) {
        finding(Grade::Note, "round trip", format!("{found}; slow: put state and indexes on a small fast export of their own"))
    } else {
        finding(Grade::Good, "round trip", found)
    }
}

fn space(what: &'static str, path: &Path) -> Vec<Finding> {
    let troubles = check::space(what, path);
    if troubles.is_empty() {
        return vec![finding(Grade::Good, what, format!("{} has room and can be written", path.display()))];
    }
    troubles.into_iter().map(|trouble| finding(Grade::Bad, what, trouble)).collect()
}

fn descriptors(connections: usize) -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    match check::descriptors_are_few(limit, connections) {
        Some(few) => finding(Grade::Note, "open files", format!("{few}; this is the limit of this shell, the service's may differ")),
        None => finding(Grade::Good, "open files", limit.map_or_else(|| "no limit".to_owned(), |limit| format!("up to {limit}"))),
    }
}

fn this_node<S>(asked: anyhow::Result<Option<(S, NodesReply)>>) -> Vec<Finding> {
    match asked {
        Ok(None) => vec![finding(Grade::Note, "node", "no node runs on this host (or none was asked)")],
        Err(error) => vec![finding(Grade::Bad, "node", format!("{error:#}: look at its log"))],
        Ok(Some((_, reply))) => {
            let troubles = reply.nodes.iter().flat_map(|node| node.trouble.iter().map(|trouble| format!("{}: {trouble}", node.name)));
            let silent = reply.nodes.iter().filter(|node| node.sessions.is_none()).map(|node| {
                format!("{} does not answer over the relay at {}: is its port open to this host?", node.name, node.relay.join(" "))
            });
            let bad: Vec<Finding> = troubles.chain(silent).map(|what| finding(Grade::Bad, "nodes", what)).collect();
            if bad.is_empty() {
                return vec![finding(Grade::Good, "nodes", format!("all {} answer over the relay", reply.nodes.len()))];
            }
            bad
        }
    }
}

#[cfg(test)]
mod tests {
    use affinity::Timings;

    use super::*;

    #[test]
    fn a_sound_directory_passes_and_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::init(folder.path(), &Timings::default()).unwrap();
        let before = std::fs::read_dir(folder.path()).unwrap().count();
        let findings = try_out(&root);
        assert!(findings.iter().any(|one| one.check == "rename" && one.grade == Grade::Good), "{findings:?}");
        assert!(findings.iter().all(|one| one.check != "writing"), "{findings:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::init(folder.path(), &Timings::default()).unwrap();
        std::fs::remove_dir(root.nodes()).unwrap();
        assert_eq!(try_out(&root)[0].grade, Grade::Bad);
    }

    #[test]
    fn slow_servers_are_told_from_useless_ones() {
        let ms = Duration::from_millis;
        let grade = |worst| round_trips(&mut [ms(1), ms(1), ms(worst)], ms(1), ms(1000)).grade;
        assert_eq!([grade(2), grade(300), grade(1500)], [Grade::Good, Grade::Note, Grade::Bad]);
    }
}
