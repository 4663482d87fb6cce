//! The server under test: its doors and its users.

use std::{
    env, fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Demo},
    peers::dovecot::Dovecot,
};

/// Password of every user of a test.
pub const PASSWORD: &str = "s3cret pass";

/// Addresses of one node, `host:port` each.
#[derive(Debug, Clone)]
pub struct Doors {
    /// The node's name.
    pub name: String,
    /// IMAP, with STARTTLS.
    pub imap: String,
    /// IMAP inside TLS.
    pub imaps: String,
    /// POP3, with STLS.
    pub pop3: String,
    /// POP3 inside TLS.
    pub pop3s: String,
    /// LMTP.
    pub lmtp: String,
}

impl Doors {
    /// From one node of what `berth demo --json` prints.
    pub fn from_json(node: &Value) -> Result<Doors> {
        let field = |name: &str| Ok::<_, anyhow::Error>(node[name].as_str().with_context(|| format!("no {name} in {node}"))?.to_owned());
        Ok(Doors {
            name: field("name")?,
            imap: field("imap")?,
            imaps: field("imaps")?,
            pop3: field("pop3")?,
            pop3s: field("pop3s")?,
            lmtp: field("lmtp")?,
        })
    }
}

/// Host and port of an address.
pub fn host_port(address: &str) -> Result<(&str, &str)> {
    address.rsplit_once(':').with_context(|| format!("{address} is not host:port"))
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Password.
    pub password: String,
}

impl User {
    /// Where mail for this user goes.
    pub fn address(&self) -> String {
        format!("{}@localhost", self.name)
    }
}

/// Users of a shared site: more than one suite has tests.
const SHARED_USERS: usize = 120;
/// Nodes of a shared site: a session that comes in through the second one may be relayed.
const SHARED_NODES: usize = 2;

/// A site that the tests of one program share, and a user of it that no other test has.
pub struct Own {
    site: Arc<Site>,
    /// This test's user.
    pub user: User,
}

impl Deref for Own {
    type Target = Site;
    fn deref(&self) -> &Site {
        &self.site
    }
}

/// A server with its doors and users; it ends with this value.
pub struct Site {
    users_given: AtomicUsize,
    /// One per node.
    pub nodes: Vec<Doors>,
    /// `user1` …
    pub users: Vec<User>,
    server: Server,
}

enum Server {
    Berth(Cluster),
    Dovecot(Dovecot),
}

impl Site {
    /// Starts a server with so many nodes and users: Berth, or Dovecot where `BERTH_TESTS_ON=dovecot` (then every node is the same process).
    pub fn start(nodes: usize, users: usize) -> Result<Site> {
        if Site::is_dovecot() {
            let users: Vec<User> = (1..=users).map(|n| User { name: format!("user{n}"), password: PASSWORD.to_owned() }).collect();
            let dovecot = Dovecot::start(&users)?;
            return Ok(Site {
                nodes: vec![dovecot.doors().clone(); nodes],
                users,
                server: Server::Dovecot(dovecot),
                users_given: AtomicUsize::new(0),
            });
        }
        let cluster = Cluster::start(&Demo { nodes, users, ..Demo::default() })?;
        Ok(Site { nodes: cluster.doors(), users: cluster.users.clone(), server: Server::Berth(cluster), users_given: AtomicUsize::new(0) })
    }

    /// A new site that no other test uses: what it takes of memory is this test's doing.
    pub fn alone() -> Result<Own> {
        let site = Arc::new(Site::start(SHARED_NODES, 1)?);
        let user = site.users.first().context("no user")?.clone();
        Ok(Own { site, user })
    }

    /// A running site that other tests use too, or a new one where there is none, with a user for this test alone.
    pub fn shared() -> Result<Own> {
        static SITE: Mutex<Weak<Site>> = Mutex::new(Weak::new());
        let mut running = SITE.lock().unwrap_or_else(PoisonError::into_inner);
        let site = match running.upgrade() {
            Some(site) => site,
            None => Arc::new(Site::start(SHARED_NODES, SHARED_USERS)?),
        };
        *running = Arc::downgrade(&site);
        let next = site.users_given.fetch_add(1, Ordering::Relaxed);
        let user = site.users.get(next).context("more tests than SHARED_USERS")?.clone();
        Ok(Own { site, user })
    }

    /// Whether the suites run against Dovecot.
    pub fn is_dovecot() -> bool {
        env::var("BERTH_TESTS_ON").is_ok_and(|name| name == "dovecot")
    }

    /// The cluster, where it is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.server {
            Server::Berth(cluster) => Some(cluster),
            Server::Dovecot(_) => None,
        }
    }

    /// The server's log, for messages.
    pub fn log(&self) -> String {
        match &self.server {
            Server::Berth(cluster) => cluster.log(),
            Server::Dovecot(dovecot) => dovecot.log(),
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("nodes", &self.nodes).field("users", &self.users).finish_non_exhaustive()
    }
}
