//! Who is connected: what travels with a session from ingress to holder and into every log line.

use std::{fmt, net::SocketAddr, str::FromStr};

use affinity::NodeName;
use serde::{Deserialize, Serialize};

/// The protocols that Berth speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "names of protocols")]
pub enum Protocol {
    Imap,
    Pop3,
    Lmtp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Imap => "imap",
            Protocol::Pop3 => "pop3",
            Protocol::Lmtp => "lmtp",
        })
    }
}

/// Names one connection in every log, the same on ingress and holder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(u64);

impl SessionId {
    /// A new one.
    pub fn random() -> SessionId {
        SessionId(rand::random())
    }
}
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for SessionId {
    type Err = std::num::ParseIntError;
    fn from_str(raw: &str) -> Result<SessionId, Self::Err> {
        u64::from_str_radix(raw, 16).map(SessionId)
    }
}
impl TryFrom<String> for SessionId {
    type Error = std::num::ParseIntError;
    fn try_from(raw: String) -> Result<SessionId, Self::Error> {
        raw.parse()
    }
}
impl From<SessionId> for String {
    fn from(id: SessionId) -> String {
        id.to_string()
    }
}

/// What is known of a client's connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    /// The session.
    pub session: SessionId,
    /// The client's own address (behind a load balancer: what the PROXY header says).
    pub address: SocketAddr,
    /// Where it reached us.
    pub local: SocketAddr,
    /// The node it reached.
    pub ingress: NodeName,
    /// TLS version and cipher suite, as in `TLSv1.3 with TLS13_AES_256_GCM_SHA384`; `None`: plain text.
    pub tls: Option<String>,
}

impl Client {
    /// Whether nobody on the way can read along: TLS or the loopback interface.
    pub fn is_private(&self) -> bool {
        self.tls.is_some() || self.address.ip().to_canonical().is_loopback()
    }
}
