//! The shared directory: where things are, `berth.toml`, and what a node publishes about itself.
//!
//! Invariants, each with the test that guards it:
//! - an unmounted mount point is never taken for an empty cluster (`a_directory_without_berth_toml_is_refused`)
//! - a cluster is made once (`a_cluster_is_made_once`)
//! - no timings are used under which two nodes could acknowledge (`timings_without_a_margin_are_refused`)

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    AffinityError, UserName,
    names::{FENCED, INFO, LEASES, NODES, SETTINGS, lease_folder},
    owner::follow_folder,
    swap::{MountedDirectory, SharedDirectory, read_small, write_durably},
};

/// The layout version this program knows.
const FORMAT: u32 = 1;
/// What makes a directory a cluster.
const CLUSTER_FILE: &str = "berth.toml";
/// The folders of the protocol; `mail/` is the operator's.
pub(crate) const FOLDERS: [&str; 5] = [NODES, FENCED, INFO, SETTINGS, LEASES];
/// Shortest time between beats: the scheduling of a busy host is coarser than less.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// The timings that every node must agree on; written once into `berth.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// How often a node gives a sign of life and looks at the others, milliseconds.
    pub beat_ms: u64,
    /// How long after the start of its last won beat a node may acknowledge, milliseconds.
    pub self_limit_ms: u64,
    /// How long a beat must not have changed before its node is fenced, milliseconds.
    pub dead_after_ms: u64,
}
impl Default for Timings {
    fn default() -> Timings {
        Timings { beat_ms: 1_000, self_limit_ms: 5_000, dead_after_ms: 8_000 }
    }
}
impl Timings {
    /// Time between beats.
    pub fn beat(&self) -> Duration {
        Duration::from_millis(self.beat_ms)
    }
    /// Validity of a won beat.
    pub fn self_limit(&self) -> Duration {
        Duration::from_millis(self.self_limit_ms)
    }
    /// Silence after which a node is fenced.
    pub fn dead_after(&self) -> Duration {
        Duration::from_millis(self.dead_after_ms)
    }
    /// What is wrong with them, if anything.
    pub fn check(&self) -> Result<(), String> {
        let (beat, self_limit, dead_after) = (self.beat(), self.self_limit(), self.dead_after());
        // A quarter for clocks of unequal rate, and one beat for what scheduling does.
        let dead_after_min = self_limit.saturating_add(self_limit / 4).saturating_add(beat);
        if beat < BEAT_MIN {
            Err(format!("beat is {beat:?}, must be at least {BEAT_MIN:?}"))
        } else if self_limit < beat.saturating_mul(3) {
            Err(format!("self_limit is {self_limit:?}, must be at least three beats, {:?}", beat.saturating_mul(3)))
        } else if dead_after < dead_after_min {
            Err(format!(
                "dead_after is {dead_after:?}, must be at least {dead_after_min:?}: 5/4 of self_limit ({self_limit:?}) and one beat ({beat:?})"
            ))
        } else {
            Ok(())
        }
    }
}

/// `berth.toml`: what makes a directory a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Layout version of the directory; this program knows 1.
    pub format: u32,
    /// Random; nodes may name it in their configuration.
    pub cluster_id: String,
    /// Must agree everywhere, so they are here and not in a node's configuration.
    pub timings: Timings,
}

/// What a node publishes under `info/`, once per incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Where its relay listens, `host:port`, best first.
    pub relay: Vec<String>,
    /// SHA-256 of its relay certificate (DER), hexadecimal.
    pub certificate_pin: String,
    /// Version of the program.
    pub version: String,
    /// What its relay understands.
    pub capabilities: Vec<String>,
    /// Unix time of the start, seconds: for people only.
    pub started: u64,
}

/// Who says what a node publishes: asked for each incarnation, so that a node that joins anew need not go by what others know of the one before.
pub trait Publish: std::fmt::Debug + Send + Sync {
    /// What the next incarnation publishes.
    fn info(&self) -> io::Result<NodeInfo>;
}

impl Publish for NodeInfo {
    fn info(&self) -> io::Result<NodeInfo> {
        Ok(self.clone())
    }
}

/// The shared state directory of one cluster. Opening one checks `berth.toml`.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    cluster: ClusterFile,
}

impl Root {
    /// Makes `path` a new cluster (`berth init`): makes the folders, then writes `berth.toml`.
    pub fn init(path: &Path, timings: &Timings) -> Result<Root, AffinityError> {
        let file = path.join(CLUSTER_FILE);
        timings.check().map_err(|reason| AffinityError::BadClusterFile { file: file.clone(), reason })?;
        let cluster = ClusterFile { format: FORMAT, cluster_id: format!("{:032x}", rand::random::<u128>()), timings: timings.clone() };
        let content =
            toml::to_string(&cluster).map_err(|error| AffinityError::BadClusterFile { file: file.clone(), reason: error.to_string() })?;

        make_folder(path)?;
        if file.try_exists().map_err(io_error("can't look for", &file))? {
            return Err(AffinityError::AlreadyACluster(path.to_owned()));
        }
        for folder in FOLDERS {
            make_folder(&path.join(folder))?;
        }
        let temporary = path.join(format!(".{CLUSTER_FILE}.{}", cluster.cluster_id));
        write_durably(&temporary, content.as_bytes())
            .and_then(|()| follow_folder(&temporary))
            .map_err(io_error("can't write", &temporary))?;
        // Unlike a rename, a link never replaces the file of somebody who was faster.
        let linked = match fs::hard_link(&temporary, &file) {
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                rustix::fs::rename(&temporary, &file).map_err(io::Error::from)
            }
            done => done,
        };
        // It is gone if it was renamed.
        fs::remove_file(&temporary)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .map_err(io_error("can't remove", &temporary))?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(AffinityError::AlreadyACluster(path.to_owned())),
            done => done.map_err(io_error("can't write", &file))?,
        }
        MountedDirectory::new(path).and_then(|directory| directory.sync("")).map_err(io_error("can't sync", path))?;
        Ok(Root { path: path.to_owned(), cluster })
    }

    /// Opens a cluster; refuses a directory without `berth.toml` and one of another cluster.
    pub fn open(path: &Path, expected_cluster_id: Option<&str>) -> Result<Root, AffinityError> {
        let file = path.join(CLUSTER_FILE);
        let content = match read_small(&file) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AffinityError::NotACluster { file, root: path.to_owned() });
            }
            Err(error) => return Err(io_error("can't read", &file)(error)),
        };
        let cluster = parse(&content).map_err(|reason| AffinityError::BadClusterFile { file, reason })?;
        match expected_cluster_id {
            Some(expected) if expected != cluster.cluster_id => {
                Err(AffinityError::WrongCluster { root: path.to_owned(), found: cluster.cluster_id, expected: expected.to_owned() })
            }
            _ => Ok(Root { path: path.to_owned(), cluster }),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// What `berth.toml` says.
    pub fn cluster(&self) -> &ClusterFile {
        &self.cluster
    }
    /// `nodes/`.
    pub fn nodes(&self) -> PathBuf {
        self.path.join(NODES)
    }
    /// `fenced/`.
    pub fn fenced(&self) -> PathBuf {
        self.path.join(FENCED)
    }
    /// `info/`.
    pub fn info(&self) -> PathBuf {
        self.path.join(INFO)
    }
    /// `settings/`.
    pub fn settings(&self) -> PathBuf {
        self.path.join(SETTINGS)
    }
    /// `leases/<2 hex>/<user>/`.
    pub fn lease(&self, user: &UserName) -> PathBuf {
        self.path.join(lease_folder(user))
    }

    /// A root over no real directory: tests bring their own.
    #[cfg(test)]
    pub(crate) fn for_test(timings: Timings) -> Root {
        Root { path: PathBuf::from("/memory"), cluster: ClusterFile { format: FORMAT, cluster_id: "test".into(), timings } }
    }
}

/// Reads `berth.toml`; what is wrong with it, with line and column where known.
fn parse(content: &[u8]) -> Result<ClusterFile, String> {
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    let cluster: ClusterFile = toml::from_str(text).map_err(|error| error.to_string())?;
    if cluster.format != FORMAT {
        return Err(format!("format {} is not known: this program knows {FORMAT}, use the version that made the cluster", cluster.format));
    }
    cluster.timings.check()?;
    Ok(cluster)
}

fn make_folder(path: &Path) -> Result<(), AffinityError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("can't make", path)(error)),
        Err(_) => Ok(()),
        Ok(()) => follow_folder(path).map_err(io_error("can't make", path)),
    }
}

/// For `map_err`: what was tried on what.
pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AffinityError {
    let path = path.to_owned();
    move |cause| AffinityError::Io { doing, path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("berth");
        let made = Root::init(&path, &Timings::default()).unwrap();
        let opened = Root::open(&path, Some(&made.cluster().cluster_id)).unwrap();
        assert_eq!(opened.cluster(), made.cluster());
        assert!(FOLDERS.iter().all(|folder| path.join(folder).is_dir()));
        assert!(matches!(Root::init(&path, &Timings::default()), Err(AffinityError::AlreadyACluster(_))));
        assert_eq!(Root::open(&path, None).unwrap().cluster(), made.cluster(), "nothing was changed");
        assert_eq!(fs::read_dir(&path).unwrap().count(), FOLDERS.len() + 1, "no temporary file is left");
    }

    #[test]
    fn a_directory_without_berth_toml_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Root::open(folder.path(), None), Err(AffinityError::NotACluster { .. })));
    }

    #[test]
    fn another_cluster_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Root::init(folder.path(), &Timings::default()).unwrap();
        assert!(matches!(Root::open(folder.path(), Some("ours")), Err(AffinityError::WrongCluster { .. })));
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(CLUSTER_FILE);
        fs::write(&file, "format = 1\ncluster_id = 7\n").unwrap();
        let error = Root::open(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("berth.toml") && error.contains("line 2"), "{error}");
        fs::write(&file, "format = 2\ncluster_id = 'x'\n[timings]\nbeat_ms = 1000\nself_limit_ms = 5000\ndead_after_ms = 8000\n").unwrap();
        assert!(Root::open(folder.path(), None).unwrap_err().to_string().contains("format 2 is not known"));
    }

    #[test]
    fn timings_without_a_margin_are_refused() {
        assert_eq!(Timings::default().check(), Ok(()));
        for (beat_ms, self_limit_ms, dead_after_ms) in
            [(1000, 5000, 5000), (1000, 5000, 6000), (1000, 2000, 8000), (0, 0, 0), (1, u64::MAX, u64::MAX)]
        {
            let timings = Timings { beat_ms, self_limit_ms, dead_after_ms };
            assert!(timings.check().is_err(), "{timings:?}");
            assert!(matches!(Root::init(Path::new("/nowhere"), &timings), Err(AffinityError::BadClusterFile { .. })));
        }
    }
}
