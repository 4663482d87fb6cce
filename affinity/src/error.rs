//! What can go wrong with leases and the shared directory.

use std::{io, path::PathBuf};

use crate::{HolderId, NodeName, ids::NameError};

/// An error of the shared directory or of the protocol on it.
#[derive(Debug, thiserror::Error)]
pub enum AffinityError {
    /// The shared directory is not there or not initialised: most likely it is not mounted.
    #[error("{} is missing: is the shared directory mounted? To start a new cluster there, run `berth init {}`", .file.display(), .root.display())]
    NotACluster {
        /// The `berth.toml` that was looked for.
        file: PathBuf,
        /// The shared directory.
        root: PathBuf,
    },
    /// The shared directory belongs to another cluster.
    #[error("{} is cluster {found}, but the configuration says {expected}: mount the right directory, or correct `cluster_id`", .root.display())]
    WrongCluster {
        /// The shared directory.
        root: PathBuf,
        /// What `berth.toml` says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// `berth init` found a cluster.
    #[error("{} is a cluster already: nothing was changed", .0.display())]
    AlreadyACluster(PathBuf),
    /// `berth.toml` can't be read.
    #[error("{}: {reason}", .file.display())]
    BadClusterFile {
        /// Which file.
        file: PathBuf,
        /// What is wrong, with line and column where known.
        reason: String,
    },
    /// Another process of this host runs the node.
    #[error("node {node} runs on this host already (lock {}): stop it first, or give this one another name", .lock.display())]
    NodeRuns {
        /// The node.
        node: NodeName,
        /// The lock file.
        lock: PathBuf,
    },
    /// Another host is configured with our node name.
    #[error(
        "{ours} was fenced by a newer start of the same node name, {theirs} at {at}: two hosts are configured as one node. This one stops; give one of \
         them another node.name before it is started again, or it takes the name back"
    )]
    NameTaken {
        /// This process.
        ours: HolderId,
        /// Who took the name.
        theirs: HolderId,
        /// The addresses of its relay.
        at: String,
    },
    /// This node may not act now: fenced, or without contact to the shared directory.
    #[error("this node has lost contact with the shared directory and may not serve until it is back")]
    Suspended,
    /// The lease folder of a user holds what no node writes.
    #[error("the lease folder {} holds {found}: `berth leases check` explains it", .folder.display())]
    BadLeaseFolder {
        /// The folder.
        folder: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A name that can't be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file system said no.
    #[error("{doing} {}: {cause}", .path.display())]
    Io {
        /// What was tried, as in "can't list".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}
