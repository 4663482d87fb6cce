//! Several nodes over one shared directory, and what happens when one of them dies, freezes or comes back.

mod balancer;
mod expiry;
mod health;
mod hostile;
mod index;
mod kill;
mod limits;
mod logs;
mod operate;
mod pause;
mod quota;
mod reload;
mod same_user;
mod sandbox;
mod sharing;
mod start;
mod tls;
mod transfer;
mod writer;

use std::time::Duration;

use tests::{
    Context, Result,
    clients::imap::Imap,
    cluster::Cluster,
    site::{Doors, User},
    wait,
};

/// `dead_after` of a new cluster (`affinity::Timings`), and what is allowed on top of it.
const FAILOVER_LIMIT: Duration = Duration::from_secs(8 + 3);
/// When the killed node's name comes back at once, nobody waits for `dead_after`.
const RESTART_LIMIT: Duration = Duration::from_secs(3);

/// A session with INBOX selected.
fn open(doors: &Doors, user: &User) -> Result<Imap> {
    let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    Ok(imap)
}

/// Opens a session as soon as the node can serve the user; tries again after each refusal.
fn open_when_possible(doors: &Doors, user: &User, limit: Duration) -> Result<Imap> {
    wait::until(&format!("service for {} through {}", user.name, doors.name), limit, || open(doors, user))
}

/// The user's holder, and another node.
fn holder_and_other(cluster: &Cluster, user: &User) -> Result<(usize, usize)> {
    let holder = cluster.holder(&user.name)?;
    let other = (0..cluster.nodes.len()).find(|index| *index != holder).context("only one node")?;
    Ok((holder, other))
}
