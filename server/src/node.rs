//! One running node: what all its sessions share.

use std::sync::Arc;

use affinity::Keeper;
use arc_swap::ArcSwap;

use crate::{auth::Authenticator, config::Config, tls::TlsAcceptor};

/// What all sessions of this process share.
pub struct Node {
    /// The present settings; take one snapshot per command, a reload may change it.
    pub config: ArcSwap<Config>,
    /// Logins and recipients.
    pub auth: Authenticator,
    /// `None`: no certificate is configured, STARTTLS is not offered.
    pub tls: Option<TlsAcceptor>,
    /// Membership and leases.
    pub keeper: Keeper,
}

impl Node {
    /// The present settings.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}

/// Runs a node until it is told to stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _ = config;
    todo!()
}
