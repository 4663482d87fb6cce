//! The configuration file: one commented TOML file (`config.example.toml` has every setting with its unit and default).
//!
//! Unknown keys are refused with file, line and a suggestion.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use affinity::{NameRules, NodeName};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// All settings of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who we are and where the shared directory is.
    pub node: NodeSection,
    /// Addresses to listen on.
    #[serde(default)]
    pub listen: ListenSection,
    /// Where mail is.
    #[serde(default)]
    pub mail: MailSection,
    /// Who may log in.
    #[serde(default)]
    pub auth: AuthSection,
    /// Certificate for clients.
    #[serde(default)]
    pub tls: TlsSection,
    /// Limits, each with its reason.
    #[serde(default)]
    pub limits: Limits,
    /// LMTP.
    #[serde(default)]
    pub lmtp: LmtpSection,
    /// Logs.
    #[serde(default)]
    pub log: LogSection,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// This node's name, `a-z 0-9 - .`; default: the host name.
    pub name: NodeName,
    /// The shared directory (holds `berth.toml`).
    pub root: PathBuf,
    /// Refuse to start when `root` is another cluster.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// Host-local state: the lock on the node name, the control socket, spool files.
    #[serde(default = "defaults::local_dir")]
    pub local_dir: PathBuf,
    /// Where other nodes reach this node's relay, `host:port`; default: the relay's listen address (which then must not be a wildcard).
    #[serde(default)]
    pub advertise: Vec<String>,
}

/// `[listen]`: an empty list switches a listener off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "names of protocols")]
pub struct ListenSection {
    pub imap: Vec<SocketAddr>,
    pub imaps: Vec<SocketAddr>,
    pub pop3: Vec<SocketAddr>,
    pub pop3s: Vec<SocketAddr>,
    pub lmtp: Vec<SocketAddr>,
    /// For the other nodes only.
    pub relay: SocketAddr,
}

/// `[mail]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailSection {
    /// Maildir of a user, relative to the root or absolute. `{domain}` (`_` for users without one), `{local}`, `{user}`.
    pub maildir: String,
    /// Index folder of a user.
    pub index: String,
    /// How long an account without sessions stays open (and its lease held).
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long changed flags may wait before they are written to file names.
    #[serde(with = "humantime_serde")]
    pub write_back_after: Duration,
    /// How often an open mailbox is compared with its folder for changes by other programs.
    #[serde(with = "humantime_serde")]
    pub rescan_interval: Duration,
    /// Mailboxes made for a new user: name = special use (or "").
    pub auto_create: std::collections::BTreeMap<String, String>,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// Users in Dovecot's passwd-file format; default `<root>/users`.
    pub passwd_file: Option<PathBuf>,
    /// Scheme of entries without `{SCHEME}`, and of `berth user add`.
    pub default_scheme: String,
    /// How user names are normalised.
    pub names: NameRules,
    /// Allow passwords without TLS from addresses other than loopback.
    pub allow_plaintext: bool,
    /// How long a verified password is remembered (as a keyed hash).
    #[serde(with = "humantime_serde")]
    pub cache_ttl: Duration,
    /// First delay after a wrong password; doubles with each.
    #[serde(with = "humantime_serde")]
    pub failure_delay: Duration,
    /// Longest such delay.
    #[serde(with = "humantime_serde")]
    pub failure_delay_max: Duration,
}

/// `[tls]`: without a certificate, no TLS listener and no STARTTLS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// PEM chain.
    pub certificate: Option<PathBuf>,
    /// PEM key.
    pub key: Option<PathBuf>,
}

/// `[lmtp]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LmtpSection {
    /// Networks that may deliver, as in `10.0.0.0/8`.
    pub allow: Vec<String>,
    /// Whether `+detail` makes a missing mailbox; otherwise such mail goes to INBOX.
    pub detail_creates_mailbox: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `error`, `warn`, `info`, `debug`, `trace`, or per module as in `info,server::imap=debug`.
    pub level: String,
    /// One JSON object per line.
    pub json: bool,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of one node; more are told to come back.
    pub connections: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Sessions of one user.
    pub sessions_per_user: usize,
    /// Largest message.
    pub message_bytes: ByteSize,
    /// Longest command line without its literals.
    pub line_bytes: ByteSize,
    /// Largest literal that is not a message.
    pub literal_bytes: ByteSize,
    /// All literals and lines of one command together, messages aside.
    pub command_bytes: ByteSize,
    /// Deepest nesting of SEARCH keys.
    pub nesting: usize,
    /// Recipients of one LMTP transaction.
    pub recipients: usize,
    /// Mailboxes of one user.
    pub mailboxes: usize,
    /// Wrong commands before a connection is closed.
    pub bad_commands: usize,
    /// How long a client may take to log in.
    #[serde(with = "humantime_serde")]
    pub login_timeout: Duration,
    /// How long a logged-in client may be silent (RFC 9051 §5.4 asks for 30 minutes at least).
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a client may take no bytes of a reply.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// How long logins and deliveries wait for a failover before they get a temporary error.
    #[serde(with = "humantime_serde")]
    pub route_wait: Duration,
}

mod defaults {
    use super::*;
    pub fn local_dir() -> PathBuf {
        PathBuf::from("/var/lib/berth")
    }
}

impl Default for ListenSection {
    fn default() -> Self {
        todo!()
    }
}
impl Default for MailSection {
    fn default() -> Self {
        todo!()
    }
}
impl Default for AuthSection {
    fn default() -> Self {
        todo!()
    }
}
impl Default for LmtpSection {
    fn default() -> Self {
        todo!()
    }
}
impl Default for LogSection {
    fn default() -> Self {
        todo!()
    }
}
impl Default for Limits {
    fn default() -> Self {
        todo!()
    }
}

impl Config {
    /// Reads and checks a file; the error names file, line and what to write instead.
    pub fn load(file: &Path) -> anyhow::Result<Config> {
        let _ = file;
        todo!()
    }
    /// The same from text, `file` for messages.
    pub fn parse(text: &str, file: &Path) -> anyhow::Result<Config> {
        let _ = (text, file);
        todo!()
    }
    /// Maildir and index of a user.
    pub fn account_paths(&self, user: &affinity::UserName) -> storage::AccountPaths {
        let _ = user;
        todo!()
    }
}
