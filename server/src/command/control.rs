//! The control socket of a node on this host, `<local_dir>/control.sock`: one JSON line asked, one answered.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use storage::CacheFigures;

/// A node answers from memory, after it gave other nodes three seconds; one that takes longer hangs.
const ANSWER_WAIT: Duration = Duration::from_secs(8);
/// A move waits for sessions, a close and an opening, each with limits of its own.
const MOVE_WAIT: Duration = Duration::from_secs(90);
/// Every folder of a user is listed, and what other programs brought is read.
pub const RECOUNT_WAIT: Duration = Duration::from_secs(600);
/// A million rows are read or written within some minutes, also where the file server is slow.
pub const INDEX_WAIT: Duration = Duration::from_secs(15 * 60);
/// An order has ten minutes, and one may be under way already.
pub const ORDER_WAIT: Duration = Duration::from_secs(21 * 60);
/// Longest answer: some 100,000 sessions.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// Sessions and held users, all or one user's.
    Who {
        /// Only this user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// The nodes as this one sees them.
    Nodes,
    /// End the sessions that fit all that is given.
    Kick {
        /// Of this user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// From this address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ip: Option<IpAddr>,
        /// Served by or reached through this node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        /// What their clients are told.
        why: String,
    },
    /// Hand a user over to a node.
    Move {
        /// Whom.
        user: String,
        /// To which node.
        to: String,
    },
    /// Check a user's index, or make it anew, on its holder.
    Index {
        /// Whose.
        user: String,
        /// Make it anew.
        rebuild: bool,
    },
    /// How far that is.
    IndexProgress {
        /// Whose.
        user: String,
    },
    /// Go on as an IMAP session of this user, logged in: the answer is that of a login with the tag `login`.
    Session {
        /// Whose mail.
        user: String,
    },
    /// What a user holds and may hold.
    Quota {
        /// Whose.
        user: String,
        /// Count anew first.
        #[serde(default)]
        recount: bool,
    },
    /// Settings on the shared directory were changed: every node is to read them now.
    Settings {
        /// What was changed, for the log, as in "weight=50 of mail2".
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<String>,
    },
    /// An operator has just fenced this incarnation: the log is to say so.
    Fenced {
        /// Which.
        holder: String,
    },
    /// The certificates that clients are shown.
    Tls,
    /// Get a new certificate by ACME now.
    Renew,
}

impl Request {
    fn wait(&self) -> Duration {
        match self {
            Request::Move { .. } => MOVE_WAIT,
            Request::Quota { recount: true, .. } => RECOUNT_WAIT,
            Request::Index { .. } => INDEX_WAIT,
            Request::Renew => ORDER_WAIT,
            Request::Quota { recount: false, .. } | Request::Session { .. } => MOVE_WAIT,
            Request::Who { .. }
            | Request::Nodes
            | Request::IndexProgress { .. }
            | Request::Kick { .. }
            | Request::Settings { .. }
            | Request::Fenced { .. }
            | Request::Tls => ANSWER_WAIT,
        }
    }
}

/// The answer to [`Request::Kick`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickReply {
    /// How many sessions were told to end.
    pub ended: usize,
    /// Nodes that did not answer: theirs go on.
    pub silent: Vec<String>,
    /// No session ended, and no source has the user: perhaps it is misspelt.
    #[serde(default)]
    pub unknown_user: bool,
}

/// The answer to [`Request::Move`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReply {
    /// The lease's generation now.
    pub epoch: u64,
}

/// The answer to [`Request::Index`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexReply {
    /// Who did it.
    pub node: String,
    /// Mailboxes that were looked at or written.
    pub mailboxes: usize,
    /// How long it took.
    pub milliseconds: u64,
    /// What was found; it is repaired by the next use.
    pub damage: Option<String>,
}

/// The answer to [`Request::IndexProgress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexProgressReply {
    /// Mailboxes that are done.
    pub mailboxes: usize,
    /// Of so many; 0: nothing is under way.
    pub of: usize,
    /// Messages that are done.
    pub messages: u64,
}

/// The answer to [`Request::Renew`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewReply {
    /// Why none was ordered; `null`: a new certificate is served.
    pub nothing: Option<String>,
}

/// The answer to [`Request::Quota`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaReply {
    /// The node that serves the user.
    pub holder: String,
    /// Every quota root.
    pub roots: Vec<QuotaRow>,
    /// After a recount: mailboxes whose usage was counted wrongly before.
    #[serde(default)]
    pub corrected: Vec<String>,
}

/// One quota root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRow {
    /// Its name.
    pub root: String,
    /// RFC822.SIZE of all its messages.
    pub bytes: u64,
    /// `null`: no limit.
    pub bytes_limit: Option<u64>,
    /// How many messages.
    pub messages: u64,
    /// `null`: no limit.
    pub messages_limit: Option<u64>,
    /// How many mailboxes it counts.
    pub mailboxes: usize,
    /// Whether mail is refused when it is full.
    pub enforced: bool,
    /// Who says what it may hold: `set` (an operator, for this user), `user` (its source), `config` or `maildirsize`; `null`: nobody does.
    #[serde(default)]
    pub source: Option<String>,
}

/// The answer to [`Request::Settings`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsReply {
    /// Nodes that read them.
    /// `None`: a node of an older build, which does not say.
    #[serde(default)]
    pub read: Option<Vec<String>>,
    /// Nodes that did not say that they read them.
    pub silent: Vec<String>,
}

/// The answer to [`Request::Fenced`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedReply {
    /// It is in the log.
    pub logged: bool,
}

/// The answer to [`Request::Tls`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsReply {
    /// SHA-256 of each that is served, in hexadecimal.
    pub fingerprints: Vec<String>,
}

/// The answer to [`Request::Who`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoReply {
    /// Every session of the cluster, as its holder lists it.
    #[serde(default)]
    pub sessions: Vec<SessionRow>,
    /// Leases, with their holders.
    #[serde(default)]
    pub held: Vec<HeldRow>,
    /// Nodes that did not answer: what they serve is missing here.
    #[serde(default)]
    pub silent: Vec<String>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Whose mail.
    pub user: String,
    /// `imap`, `pop3` or `lmtp`.
    pub protocol: String,
    /// Its id, as in the logs.
    pub session: String,
    /// The client's address.
    pub client: String,
    /// The node that the client reached.
    pub ingress: String,
    /// The node that serves it.
    pub holder: String,
    /// Seconds since login.
    pub since_s: u64,
    /// Seconds since the client's last byte.
    pub idle_s: u64,
}

/// One held lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// Whose mail.
    pub user: String,
    /// The holder's node.
    #[serde(default, rename = "holder", alias = "node")]
    pub node: Option<String>,
    /// The holder's incarnation.
    #[serde(default)]
    pub incarnation: Option<String>,
    /// The lease's generation.
    pub epoch: u64,
    /// The holder is no node any more: who comes next takes over.
    #[serde(default)]
    pub gone: bool,
}

/// The answer to [`Request::Nodes`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesReply {
    /// Every node in `nodes/`.
    pub nodes: Vec<NodeRow>,
    /// Starts of nodes that ended, the latest of each node; filled in from the shared directory.
    #[serde(default)]
    pub fenced: Vec<FencedRow>,
    /// What the local cache of the node that was asked did since its start; `null`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheFigures>,
}

/// A start of a node that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedRow {
    /// The node.
    #[serde(rename = "node", alias = "name")]
    pub name: String,
    /// That start of it.
    pub incarnation: String,
    /// Its last beat.
    pub beat: u64,
    /// `left`, `fenced`, `operator`, `resigned`, `restarted`, `name-taken`, or `unknown`.
    #[serde(default)]
    pub why: String,
    /// The node that fenced it.
    #[serde(default)]
    pub by: Option<String>,
    /// When, Unix seconds by the file server's clock.
    #[serde(default)]
    pub at: Option<u64>,
    /// Whether the node runs again.
    pub back: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    #[serde(rename = "node", alias = "name")]
    pub name: String,
    /// This start of it.
    pub incarnation: String,
    /// Its last sign of life.
    pub beat: u64,
    /// Its version, if it published it.
    #[serde(default)]
    pub version: Option<String>,
    /// Where its relay is, best first.
    #[serde(default)]
    pub relay: Vec<String>,
    /// Unix time of its start, seconds.
    #[serde(default)]
    pub since: Option<u64>,
    /// `up`, `draining`, `trouble`, `silent` (does not answer over the relay), `suspect` (its beat stands still); the directory, which shows no
    /// time, knows only `draining`.
    #[serde(default)]
    pub state: Option<String>,
    /// Share of new users.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Its labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Client connections to it, whoever serves them; `None` as `sessions` is.
    #[serde(default)]
    pub connections: Option<usize>,
    /// What keeps it from serving.
    #[serde(default)]
    pub trouble: Vec<String>,
    /// Sessions it serves; `None` by the directory, and when the node did not answer.
    #[serde(default)]
    pub sessions: Option<usize>,
    /// Users it holds; likewise.
    #[serde(default)]
    pub held: Option<usize>,
}

/// Asks; `None`: no node runs here.
pub fn ask<Reply: DeserializeOwned>(socket: &Path, request: &Request) -> anyhow::Result<Option<Reply>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // Refused: a socket that a node left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't reach the node's control socket {}", socket.display())),
    };
    let answer = exchange(stream, request).map_err(|error| silent(error, request.wait()));
    let answer = answer.with_context(|| format!("the node behind {} did not answer", socket.display()))?;
    // What the node says is the answer, also where it says no.
    if let Some(error) = answer.get("error").and_then(|error| error.as_str()) {
        bail!("{error}");
    }
    serde_json::from_value(answer).context("the node's answer is not understood: is it of another version?").map(Some)
}

/// Says what an answer that does not come means.
fn silent(error: anyhow::Error, waited: Duration) -> anyhow::Error {
    match error.downcast_ref::<io::Error>() {
        Some(cause) if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => anyhow!(
            "nothing came within {}: its process is stuck or stopped; with --root DIR `berth nodes` and `berth who` ask nobody",
            humantime::format_duration(waited)
        ),
        _ => error,
    }
}

fn exchange(mut stream: UnixStream, request: &Request) -> anyhow::Result<serde_json::Value> {
    stream.set_read_timeout(Some(request.wait()))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;

    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        bail!("it closed the connection");
    }
    serde_json::from_str(&answer).context("its answer is not JSON")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// Answers one connection; gives what was asked.
    fn node(socket: &Path, answer: &'static str) -> thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(&stream).read_line(&mut asked).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
            asked
        })
    }

    #[test]
    fn who_and_nodes_are_asked_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let answer = concat!(
            r#"{"sessions":[{"user":"ada","protocol":"imap","session":"00ff","client":"192.0.2.1:4","ingress":"a","holder":"b","since_s":9,"idle_s":1}],"#,
            "\"held\":[{\"user\":\"ada\",\"epoch\":3}]}\n"
        );
        let asked = node(&socket, answer);
        let reply: WhoReply = ask(&socket, &Request::Who { user: Some("ada".to_owned()) }).unwrap().unwrap();
        assert_eq!(asked.join().unwrap(), "{\"command\":\"who\",\"user\":\"ada\"}\n");
        assert_eq!((reply.sessions[0].holder.as_str(), reply.held[0].epoch), ("b", 3));
        assert_eq!(serde_json::to_string(&Request::Who { user: None }).unwrap(), r#"{"command":"who"}"#);
        assert_eq!(serde_json::to_string(&Request::Nodes).unwrap(), r#"{"command":"nodes"}"#);
    }

    #[test]
    fn without_a_node_there_is_no_answer_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        assert_eq!(ask::<NodesReply>(&socket, &Request::Nodes).unwrap(), None);
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(ask::<NodesReply>(&socket, &Request::Nodes).unwrap(), None);
    }

    #[test]
    fn what_a_node_refuses_is_said() {
        let folder = tempfile::tempdir().unwrap();
        for (name, answer, expected) in [
            ("a", "{\"error\":\"draining\"}\n", "draining"),
            ("b", "", "it closed the connection"),
            ("c", "what?\n", "its answer is not JSON"),
            ("d", "[]\n", "answer is not understood"),
        ] {
            let socket = folder.path().join(name);
            let asked = node(&socket, answer);
            let error = format!("{:#}", ask::<NodesReply>(&socket, &Request::Nodes).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(name != "a" || !error.contains("did not answer"), "a refusal is an answer: {error}");
            asked.join().unwrap();
        }
    }

    #[test]
    fn a_node_that_is_stuck_is_told_from_one_that_is_not_there() {
        let stuck = silent(io::Error::from(io::ErrorKind::WouldBlock).into(), Duration::from_secs(8)).to_string();
        assert!(stuck.contains("within 8s") && stuck.contains("stuck or stopped"), "{stuck}");
    }
}
