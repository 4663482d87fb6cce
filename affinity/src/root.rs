//! The shared directory: where things are, `berth.toml`, and what a node publishes about itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{AffinityError, UserName};

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

/// The shared state directory of one cluster. Opening one checks `berth.toml`.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    cluster: ClusterFile,
}

impl Root {
    /// Makes `path` a new cluster (`berth init`): writes `berth.toml`, makes the folders.
    pub fn init(path: &Path, timings: &Timings) -> Result<Root, AffinityError> {
        let _ = (path, timings);
        todo!()
    }
    /// Opens a cluster; refuses a directory without `berth.toml` and one of another cluster.
    pub fn open(path: &Path, expected_cluster_id: Option<&str>) -> Result<Root, AffinityError> {
        let _ = (path, expected_cluster_id);
        todo!()
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
        self.path.join("nodes")
    }
    /// `fenced/`.
    pub fn fenced(&self) -> PathBuf {
        self.path.join("fenced")
    }
    /// `info/`.
    pub fn info(&self) -> PathBuf {
        self.path.join("info")
    }
    /// `settings/`.
    pub fn settings(&self) -> PathBuf {
        self.path.join("settings")
    }
    /// `leases/<2 hex>/<user>/`.
    pub fn lease(&self, user: &UserName) -> PathBuf {
        let _ = user;
        todo!()
    }
}
