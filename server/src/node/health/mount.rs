//! What `/proc/self/mountinfo` says of the mount that holds the shared directory.

use std::path::{Path, PathBuf};

use super::trial::{Finding, Grade, finding};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
    options: Vec<String>,
}

/// Looks at the mount that holds `path`.
pub fn check(path: &Path) -> Vec<Finding> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => match mount_of(&text, &path) {
            Some(mount) => judge(&mount),
            None => vec![finding(Grade::Note, "mount", format!("{} is on no mount that /proc/self/mountinfo names", path.display()))],
        },
        Err(error) => vec![finding(Grade::Note, "mount", format!("/proc/self/mountinfo can't be read: {error}"))],
    }
}

/// The mount that holds `path`: the longest mount point, of several at one point the last.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    mountinfo.lines().filter_map(parse).filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - nfs4 server:/export rw,hard,…`
fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(4);
    let (point, own) = (fields.next()?, fields.next()?);
    let mut fields = after.split(' ');
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next()?);
    let options = own.split(',').chain(options.split(',')).map(str::to_owned).collect();
    Some(Mount { point: PathBuf::from(unescaped(point)), kind: kind.to_owned(), source: unescaped(source), options })
}

/// How many delegations this client gave back to the server of the mount that holds `path`; `None`: it is not NFS 4, or nobody counts.
pub fn delegations_returned(path: &Path) -> Option<u64> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mount = mount_of(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)?;
    returned(&std::fs::read_to_string("/proc/self/mountstats").ok()?, &mount.point)
}

/// `device SOURCE mounted on POINT with fstype nfs4 …`, then a line for each operation: `DELEGRETURN: 3 3 0 …`, the first number being how many.
fn returned(mountstats: &str, point: &Path) -> Option<u64> {
    let is_point = |line: &str| {
        let mounted = line
            .strip_prefix("device ")
            .and_then(|line| line.split_once(" mounted on "))
            .and_then(|(_, rest)| rest.split_once(" with fstype "));
        mounted.map(|(at, kind)| Path::new(&unescaped(at)) == point && kind.starts_with("nfs4"))
    };
    let own = mountstats.lines().skip_while(|line| is_point(line) != Some(true)).skip(1).take_while(|line| is_point(line).is_none());
    own.filter_map(|line| line.trim().strip_prefix("DELEGRETURN:")).find_map(|counts| counts.split_whitespace().next()?.parse().ok())
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn judge(mount: &Mount) -> Vec<Finding> {
    let what = format!("{} from {} at {}", mount.kind, mount.source, mount.point.display());
    let has = |option: &str| mount.options.iter().any(|one| one == option);
    let value = |key: &str| mount.options.iter().find_map(|one| one.strip_prefix(key)?.strip_prefix('='));
    let mut findings = Vec::new();
    if has("ro") {
        findings.push(finding(Grade::Bad, "mount", format!("{what} is read-only")));
    }
    if !matches!(mount.kind.as_str(), "nfs" | "nfs4") {
        findings.push(finding(
            Grade::Note,
            "mount",
            format!("{what}: not NFS; fine for one host, and for several if all see each rename at once"),
        ));
        return findings;
    }
    let mut option = |grade, name: &str, why: &str| findings.push(finding(grade, "mount option", format!("{name}: {why}")));
    if has("soft") || has("softerr") {
        option(Grade::Bad, "soft", "a slow server turns into I/O errors, and writes are lost after them; mount with hard");
    }
    if has("nocto") {
        option(Grade::Bad, "nocto", "files that another host changed are not seen; remove it");
    }
    if value("proto").is_some_and(|proto| proto.starts_with("udp")) {
        option(Grade::Bad, "proto=udp", "retransmitted requests are carried out twice; mount with proto=tcp");
    }
    if has("noac") || value("actimeo") == Some("0") || value("acregmax") == Some("0") {
        option(Grade::Note, "noac", "not needed, and every look at a file costs a request; remove it");
    }
    if value("lookupcache") == Some("none") {
        option(Grade::Note, "lookupcache=none", "not needed, and every path costs requests; remove it");
    }
    if has("sync") {
        option(Grade::Note, "sync", "not needed, and every write waits for the server by itself; remove it (the *export* must be sync)");
    }
    let version = value("vers").unwrap_or("unknown");
    if version == "4.0" {
        option(Grade::Note, "vers=4.0", "4.2 keeps replies, so that a resent request is not carried out twice; mount with vers=4.2");
    }
    if !findings.iter().any(|one| one.grade != Grade::Good) {
        findings.insert(0, finding(Grade::Good, "mount", format!("{what}, version {version}, no option that breaks or slows anything")));
    } else {
        findings.insert(0, finding(Grade::Note, "mount", format!("{what}, version {version}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
60 22 0:50 / /srv/berth rw,relatime shared:30 - nfs4 files:/berth rw,vers=4.2,hard,proto=tcp,local_lock=none
61 60 0:51 / /srv/berth/mail\\040box rw shared:31 - nfs files:/mail rw,vers=3,soft,nocto,proto=tcp,actimeo=0
";

    fn judged(path: &str) -> Vec<Finding> {
        judge(&mount_of(INFO, Path::new(path)).unwrap())
    }

    #[test]
    fn the_innermost_mount_counts() {
        assert_eq!(mount_of(INFO, Path::new("/srv/berth/nodes")).unwrap().source, "files:/berth");
        assert_eq!(mount_of(INFO, Path::new("/srv/berth/mail box/x")).unwrap().source, "files:/mail");
        assert_eq!(mount_of(INFO, Path::new("/srv/berthold")).unwrap().kind, "ext4");
    }

    #[test]
    fn options_that_break_or_slow_things_are_named() {
        assert!(judged("/srv/berth").iter().all(|one| one.grade == Grade::Good), "{:?}", judged("/srv/berth"));
        let bad = judged("/srv/berth/mail box");
        for (grade, option) in [(Grade::Bad, "soft:"), (Grade::Bad, "nocto:"), (Grade::Note, "noac:")] {
            assert!(bad.iter().any(|one| one.grade == grade && one.found.starts_with(option)), "{option} {bad:?}");
        }
        assert_eq!(judged("/home")[0].grade, Grade::Note, "a local file system serves one host");
    }

    #[test]
    fn returned_delegations_are_counted_by_mount() {
        let stats = "\
device proc mounted on /proc with fstype proc
device files:/berth mounted on /srv/berth with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t DELEGRETURN: 7 7 0 1 2 3 4 5 0
device files:/mail mounted on /srv/berth/mail\\040box with fstype nfs4 statvers=1.1
\t DELEGRETURN: 0 0 0 0 0 0 0 0 0
device files:/old mounted on /old with fstype nfs statvers=1.1
";
        let of = |point: &str| returned(stats, Path::new(point));
        assert_eq!([of("/srv/berth"), of("/srv/berth/mail box"), of("/old"), of("/proc")], [Some(7), Some(0), None, None]);
    }
}
