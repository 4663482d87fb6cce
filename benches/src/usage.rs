//! CPU time and memory of a server with all its processes.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{process::Process, wait};

/// How long memory may take to settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// Two looks that differ by less than this have settled.
const SETTLED_WITHIN: u64 = 256 * 1024;
/// Clock ticks per second in /proc: `USER_HZ`, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of these processes and all their descendants, those that ended and were waited for included.
pub fn cpu(roots: &[Process]) -> Result<Duration> {
    let mut ticks = 0;
    for pid in tree(roots)? {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // utime, stime, cutime, cstime: fields 14 to 17, counted from 1.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        ticks += fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// CPU time of each process alone.
pub fn each_cpu(processes: &[Process]) -> Result<Vec<Duration>> {
    let used = |process: &Process| -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
        let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    };
    processes.iter().map(used).collect()
}

/// Bytes of these processes and all their descendants (proportional set size: shared pages count once), once that holds still.
pub fn settled_bytes(roots: &[Process]) -> Result<u64> {
    let mut last = 0;
    let settled = wait::until("steady memory", SETTLE_LIMIT, || {
        thread::sleep(Duration::from_millis(500));
        let now = bytes(roots)?;
        let change = now.abs_diff(std::mem::replace(&mut last, now));
        ensure!(change < SETTLED_WITHIN, "it still changes by {change} bytes");
        Ok(now)
    });
    settled.or_else(|_| bytes(roots))
}

fn bytes(roots: &[Process]) -> Result<u64> {
    // A process may end while we look.
    Ok(tree(roots)?.into_iter().filter_map(|pid| proportional_bytes(pid).ok()).sum())
}

fn tree(roots: &[Process]) -> Result<Vec<i32>> {
    let parents = parents()?;
    let is_ours = |pid: i32| {
        let mut at = Some(pid);
        while let Some(pid) = at {
            if roots.iter().any(|root| root.pid() == pid) {
                return true;
            }
            at = parents.get(&pid).copied().filter(|parent| *parent > 1);
        }
        false
    };
    Ok(parents.keys().copied().filter(|pid| is_ours(*pid)).collect())
}

/// Process → parent.
fn parents() -> Result<BTreeMap<i32, i32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parents.insert(pid, parent.with_context(|| format!("no parent in {stat:?}"))?);
    }
    Ok(parents)
}

fn proportional_bytes(pid: i32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests_of_usage {
    use super::*;

    #[test]
    fn our_own_memory_is_more_than_nothing() {
        let this = Process::from_raw(i64::from(std::process::id())).unwrap();
        assert!(bytes(&[this]).unwrap() > 100_000);
        cpu(&[this]).unwrap();
    }
}
