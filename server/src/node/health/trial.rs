//! Tries on this host what a node needs of the shared directory, and says what to do about what it finds: for `berth doctor`, and once at each start.
//!
//! It works in a folder of its own under the shared directory, `.doctor-…`, which no node looks at, and removes it.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use affinity::{
    Clock, Root, SystemClock,
    clock::wall_clock,
    names::NODES,
    swap::{MountedDirectory, SharedDirectory, Swapped, swap},
};
use tokio::time::timeout;

use super::mount;
use crate::node::Node;

/// Listings that are timed.
const LISTINGS: usize = 20;
/// More difference than this between the clocks of this host and the file server is worth a word: dates in names and logs come from both.
const CLOCK_DIFFERENCE_MAX: u64 = 2;
/// How long a node waits for its own trial: some forty requests.
const TRIAL_LIMIT: Duration = Duration::from_secs(60);

/// Once at the start of a node, in the background: the log says what its mount is good for.
pub async fn at_start(node: Arc<Node>) {
    let root = node.config().node.root.clone();
    let trial = tokio::task::spawn_blocking(move || {
        let mut findings = mount::check(&root);
        if let Ok(root) = Root::open(&root, None) {
            findings.extend(try_out(&root));
        }
        findings
    });
    let Ok(Ok(findings)) = timeout(TRIAL_LIMIT, trial).await else {
        return tracing::warn!("self-check: the shared directory did not answer within {}", humantime::format_duration(TRIAL_LIMIT));
    };
    for one in findings {
        match one.grade {
            Grade::Good => tracing::info!("self-check: {}: {}", one.check, one.found),
            Grade::Note => tracing::warn!("self-check: {}: {}", one.check, one.found),
            Grade::Bad => tracing::error!("self-check: {}: {}; `berth doctor` tries again", one.check, one.found),
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Works, but slower or less safely than it could.
    Note,
    /// A node would lose mail, or not run.
    Bad,
}

impl Grade {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Grade::Good => "ok",
            Grade::Note => "note",
            Grade::Bad => "BAD",
        }
    }
}

/// One check and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub grade: Grade,
    /// What was looked at.
    pub check: &'static str,
    /// What was found, and what to do.
    pub found: String,
}

/// A finding.
pub fn finding(grade: Grade, check: &'static str, found: impl Into<String>) -> Finding {
    Finding { grade, check, found: found.into() }
}

/// What nodes do all the time, on the file server as it is now.
pub fn try_out(root: &Root) -> Vec<Finding> {
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
    findings.extend(delegations(directory, &name("written"), root.path()));
    directory.write(&name("written"), &[b'x'; 4096])?;
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

/// Whether the file server hands out read delegations: the client counts those that it gave back.
fn delegations(directory: &MountedDirectory, file: &str, root: &Path) -> Option<Finding> {
    let path = root.join(file);
    let returned = || mount::delegations_returned(root);
    let before = returned()?;
    // Opened as other programs do it, and gone at once.
    std::fs::read(&path).and_then(|_| directory.remove(file)).ok()?;
    let after = returned()?;
    Some(judge_delegations(before, after))
}

fn judge_delegations(before: u64, after: u64) -> Finding {
    if after > 0 {
        let when = if after > before { "in this trial" } else { "since this was mounted" };
        let found = format!(
            "the file server handed some out {when}: when a host dies that read the shared directory with other programs (backup, mutt), renames and \
             removals of what it read wait for the lease time, 90 s or so; switch them off at the server (docs/nfs.md), or see that nothing else reads there"
        );
        return finding(Grade::Note, "delegations", found);
    }
    finding(Grade::Good, "delegations", "the file server handed none out in this trial")
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
    fn delegations_are_worth_a_note() {
        assert_eq!(judge_delegations(0, 0).grade, Grade::Good);
        let found = judge_delegations(2, 3);
        assert!(found.grade == Grade::Note && found.found.contains("in this trial") && found.found.contains("docs/nfs.md"));
        assert!(judge_delegations(2, 2).found.contains("since this was mounted"));
    }

    #[test]
    fn slow_servers_are_told_from_useless_ones() {
        let ms = Duration::from_millis;
        let grade = |worst| round_trips(&mut [ms(1), ms(1), ms(worst)], ms(1), ms(1000)).grade;
        assert_eq!([grade(2), grade(300), grade(1500)], [Grade::Good, Grade::Note, Grade::Bad]);
    }
}
