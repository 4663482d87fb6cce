//! The sessions that this node serves as holder: what `berth who` shows.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use affinity::{Clock, HolderId, NodeName, SystemClock, UserName};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    client::{Protocol, SessionId},
    connection::Activity,
    forward::{Preamble, held::Farewell},
};

/// One session, as an operator sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionLine {
    /// Whose mail.
    pub user: UserName,
    /// Which protocol.
    pub protocol: Protocol,
    /// Names the session in every log.
    pub session: SessionId,
    /// The client's address.
    pub client: SocketAddr,
    /// The node that the client reached.
    pub ingress: NodeName,
    /// The node that serves it.
    pub holder: NodeName,
    /// Age in seconds.
    pub since_s: u64,
    /// Seconds since the client's last byte.
    pub idle_s: u64,
}

/// Which sessions are meant: those that fit everything that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFilter {
    /// Of this user.
    pub user: Option<UserName>,
    /// From this address.
    pub ip: Option<IpAddr>,
    /// Served by or reached through this node.
    pub node: Option<NodeName>,
    /// Reached through this node.
    pub ingress: Option<NodeName>,
}

impl SessionFilter {
    /// Whether a session is meant.
    pub fn fits(&self, line: &SessionLine) -> bool {
        self.user.as_ref().is_none_or(|user| *user == line.user)
            && self.ip.is_none_or(|ip| ip.to_canonical() == line.client.ip().to_canonical())
            && self.node.as_ref().is_none_or(|node| *node == line.holder || *node == line.ingress)
            && self.ingress.as_ref().is_none_or(|node| *node == line.ingress)
    }
}

/// All sessions served here.
#[derive(Debug)]
pub struct Sessions {
    clock: SystemClock,
    live: Arc<Mutex<HashMap<SessionId, Entry>>>,
}

#[derive(Debug, Clone)]
struct Entry {
    line: SessionLine,
    since: Duration,
    activity: Arc<Activity>,
    kick: Farewell,
}

/// Takes its session out of the list when dropped.
#[derive(Debug)]
pub struct Registered {
    live: Arc<Mutex<HashMap<SessionId, Entry>>>,
    session: SessionId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.live.lock().remove(&self.session);
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { clock: SystemClock::new(), live: Arc::default() }
    }
}

impl Sessions {
    /// Lists a session until the guard is dropped.
    #[must_use = "the session leaves the list when the guard is dropped"]
    pub fn register(&self, preamble: &Preamble, holder: &HolderId, activity: Arc<Activity>, kick: Farewell) -> Registered {
        let client = &preamble.client;
        let line = SessionLine {
            user: preamble.user.clone(),
            protocol: preamble.protocol,
            session: client.session,
            client: client.address,
            ingress: client.ingress.clone(),
            holder: holder.node.clone(),
            since_s: 0,
            idle_s: 0,
        };
        self.live.lock().insert(client.session, Entry { line, since: self.clock.now(), activity, kick });
        Registered { live: self.live.clone(), session: client.session }
    }

    /// The sessions (of one user), oldest first.
    pub fn list(&self, user: Option<&UserName>) -> Vec<SessionLine> {
        let now = self.clock.now();
        let mut entries: Vec<Entry> =
            self.live.lock().values().filter(|entry| user.is_none_or(|user| user == &entry.line.user)).cloned().collect();
        entries.sort_by(|a, b| (&a.line.user, a.since).cmp(&(&b.line.user, b.since)));
        entries
            .into_iter()
            .map(|entry| SessionLine { since_s: now.saturating_sub(entry.since).as_secs(), idle_s: entry.activity.idle_s(), ..entry.line })
            .collect()
    }

    /// Tells sessions to end after the command they are in; how many.
    pub fn end(&self, filter: &SessionFilter, why: &str) -> usize {
        let live = self.live.lock();
        let meant = live.values().filter(|entry| filter.fits(&entry.line));
        meant.map(|entry| entry.kick.say(why)).count()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.live.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> SessionLine {
        SessionLine {
            user: UserName::normalise("ada").unwrap(),
            protocol: Protocol::Imap,
            session: SessionId::random(),
            client: "[::ffff:192.0.2.1]:999".parse().unwrap(),
            ingress: "a".parse().unwrap(),
            holder: "b".parse().unwrap(),
            since_s: 0,
            idle_s: 0,
        }
    }

    #[test]
    fn a_session_is_meant_only_if_everything_fits() {
        let all = SessionFilter::default();
        assert!(all.fits(&line()));
        let by_address = SessionFilter { ip: Some("192.0.2.1".parse().unwrap()), ..all.clone() };
        assert!(by_address.fits(&line()), "the mapped form is the same address");
        for node in ["a", "b"] {
            assert!(SessionFilter { node: Some(node.parse().unwrap()), ..all.clone() }.fits(&line()));
        }
        assert!(!SessionFilter { node: Some("c".parse().unwrap()), ..all.clone() }.fits(&line()));
        assert!(!SessionFilter { ingress: Some("b".parse().unwrap()), ..all.clone() }.fits(&line()));
        assert!(!SessionFilter { user: Some(UserName::normalise("bob").unwrap()), ..by_address }.fits(&line()));
    }
}
