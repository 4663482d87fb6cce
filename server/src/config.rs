//! The configuration file: one commented TOML file (`config.example.toml` has every setting with its unit and default).
//!
//! Invariants, each with the test that guards it:
//! - a key that nobody reads is refused, with file, line and what may have been meant (`a_misspelt_setting_is_named_with_its_line_and_the_likely_one`)
//! - several wrong values are told at once (`several_wrong_values_are_told_at_once`)
//! - no two listeners have one address (`two_listeners_never_have_one_address`)
//! - what serde can't check is checked before anything starts, all of it at once (`every_problem_is_reported_at_once_with_its_line`)
//! - the example file is whole and true (`the_example_is_the_defaults`, `the_example_has_every_setting`)
//! - two users never share a Maildir (`users_never_share_a_folder`)

mod acme;
pub mod address;
pub mod auth;
mod cache;
mod check;
mod expiry;
mod explain;
mod imap;
pub mod network;
mod pop3;
mod quota;
mod tls;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use affinity::{NodeName, UserName, ids::encode};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use storage::{AccountPaths, Layout};

use crate::{auth::UserRecord, sandbox::Sandbox};

pub use acme::{AcmeSection, Challenge};
pub use address::Address;
pub use auth::AuthSection;
pub use cache::CacheSection;
pub use check::Problem;
pub use expiry::ExpirySection;
pub use imap::ImapSection;
pub use network::{Network, Networks};
pub use pop3::Pop3Section;
pub use quota::{QuotaRootSection, QuotaSection};
pub use tls::{CertificateFiles, MinVersion, TlsSection};

/// The settings reference, as shipped.
pub const EXAMPLE: &str = include_str!("../config.example.toml");
/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/berth/berth.toml";

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
    /// IMAP.
    #[serde(default)]
    pub imap: ImapSection,
    /// LMTP.
    #[serde(default)]
    pub lmtp: LmtpSection,
    /// POP3.
    #[serde(default)]
    pub pop3: Pop3Section,
    /// How much users may hold.
    #[serde(default)]
    pub quota: QuotaSection,
    /// How long mail stays in some mailboxes.
    #[serde(default)]
    pub expiry: ExpirySection,
    /// Mail on a disk of this host.
    #[serde(default)]
    pub cache: CacheSection,
    /// Logs.
    #[serde(default)]
    pub log: LogSection,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// This node's name, `a-z 0-9 - .`; default: the host name.
    #[serde(default = "defaults::node_name")]
    pub name: NodeName,
    /// The shared directory (holds `berth.toml`).
    pub root: PathBuf,
    /// Refuse to start when `root` is another cluster.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// Host-local state: the lock on the node name, the control socket, spool files.
    #[serde(default = "defaults::local_dir")]
    pub local_dir: PathBuf,
    /// Where other nodes reach this node's relay, `host:port`; default: the relay's listen address, or the host name where that is a wildcard.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// Whether the kernel keeps this process to what it needs.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What may be written beside the places that the settings name: where sources of users say that mail is.
    #[serde(default)]
    pub sandbox_paths: Vec<PathBuf>,
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
    pub lmtp: Vec<Address>,
    /// LMTP that files as sent mail.
    pub sent: Vec<Address>,
    /// For the other nodes only.
    pub relay: SocketAddr,
    /// Networks that nodes connect from; empty: any.
    pub relay_from: Networks,
    /// Networks of load balancers that send a PROXY header before anything else.
    pub proxy_from: Networks,
    /// Which of the addresses above they connect to; empty: all but the relay's.
    pub proxy_on: Vec<SocketAddr>,
    /// Health answers over HTTP.
    pub health: Vec<SocketAddr>,
    /// Health answers in the words of HAProxy's agent check.
    pub health_agent: Vec<SocketAddr>,
    /// Proofs that names are ours, for the authority of `tls.acme` (HTTP-01).
    pub acme: Vec<SocketAddr>,
}

impl ListenSection {
    /// Whether load balancers connect to `listener`.
    pub fn takes_proxies(&self, listener: SocketAddr) -> bool {
        !self.proxy_from.is_empty() && (self.proxy_on.is_empty() || self.proxy_on.contains(&listener))
    }

    /// Whether a node may connect from `address`.
    pub fn takes_links_from(&self, address: IpAddr) -> bool {
        self.relay_from.is_empty() || self.relay_from.contains(address)
    }

    /// Whether whoever connects from `address` is a load balancer.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxy_from.contains(address)
    }
}

/// `[mail]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailSection {
    /// Maildir of a user, relative to the root or absolute. `{domain}` (`_` for users without one), `{local}`, `{user}`.
    pub maildir: String,
    /// Index folder of a user.
    pub index: String,
    /// Where an earlier server kept a user's control files (Dovecot's `CONTROL=`), if not in the Maildir; only read, when mail is taken over.
    pub control: Option<String>,
    /// INBOX of a user, if it is not the Maildir itself (Dovecot's `INBOX=`).
    pub inbox: Option<String>,
    /// Where mailboxes lie in the Maildir: `maildir++` or `fs`.
    pub layout: String,
    /// How long an account without sessions stays open (and its lease held).
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long changed flags may wait before they are written to file names.
    #[serde(with = "humantime_serde")]
    pub write_back_after: Duration,
    /// How often an open mailbox is compared with its folder for changes by other programs.
    #[serde(with = "humantime_serde")]
    pub rescan_interval: Duration,
    /// Mailboxes whose folders are watched at once for changes by other programs on this host; 0: none.
    pub watches: usize,
    /// What separates levels of mailbox names for IMAP clients: `/` or `.`.
    pub separator: String,
    /// Whether users may share mailboxes with each other (RFC 4314).
    pub sharing: bool,
    /// The user whose shared mailboxes everybody sees as `Shared/…`.
    pub shared_account: Option<String>,
    /// Mailboxes made for a new user: name = special use (or "").
    pub auto_create: BTreeMap<String, String>,
    /// Whether a new user is subscribed to INBOX and to those.
    pub auto_subscribe: bool,
}

/// `[lmtp]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LmtpSection {
    /// Networks that may deliver, as in `10.0.0.0/8`.
    pub allow: Networks,
    /// Networks whose XCLIENT and XFORWARD are believed.
    pub trusted: Networks,
    /// Whether `+detail` makes a missing mailbox; otherwise such mail goes to INBOX.
    pub detail_creates_mailbox: bool,
    /// What a sender is told whose message would not fit into the mailbox.
    pub over_quota: OverQuota,
    /// Names in clients' certificates that may deliver from anywhere.
    pub allow_certificates: Vec<String>,
    /// Where `listen.sent` files.
    pub sent_mailbox: String,
    /// How long a message that comes again is not stored again; zero: always stored.
    #[serde(with = "humantime_serde")]
    pub suppress_duplicates: Duration,
    /// Deliveries of one user at once.
    pub parallel_per_user: usize,
    /// Whether one message for several users is one file.
    pub share_copies: bool,
    /// Permissions of UNIX sockets, in octal.
    pub socket_mode: String,
    /// Whose they are: name or number; none: whoever the node runs as.
    pub socket_user: Option<String>,
    /// Which group's.
    pub socket_group: Option<String>,
}

/// What becomes of mail for a full mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverQuota {
    /// 452 4.2.2: the sender tries again, for days.
    #[default]
    Defer,
    /// 552 5.2.2: the sender is told at once.
    Refuse,
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
    /// Connections of one node that have not logged in; the oldest makes room for the newest.
    pub connections_before_login: usize,
    /// Sessions of one user, over all nodes.
    pub sessions_per_user: usize,
    /// Sessions of one user from one address (IPv6: one /64), over all nodes.
    pub sessions_per_user_and_address: usize,
    /// Largest message.
    pub message_bytes: ByteSize,
    /// See the example.
    pub refuse_8bit_headers: bool,
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
    /// Users that a node which drains or stops hands over at once.
    pub parallel_moves: usize,
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

impl Default for ListenSection {
    fn default() -> Self {
        // A listener on `::` takes IPv4 as well. LMTP has no login, so by default only this host may deliver.
        let everywhere = |port| vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
        ListenSection {
            imap: everywhere(143),
            imaps: everywhere(993),
            pop3: everywhere(110),
            pop3s: everywhere(995),
            lmtp: vec![Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 24)))],
            sent: Vec::new(),
            relay: SocketAddr::from((Ipv4Addr::UNSPECIFIED, RELAY_PORT)),
            relay_from: Networks::default(),
            proxy_from: Networks::default(),
            proxy_on: Vec::new(),
            health: Vec::new(),
            health_agent: Vec::new(),
            acme: Vec::new(),
        }
    }
}

/// The relay's port: not assigned by IANA, needs no privilege (above 1023), and is never taken by an outgoing connection (below 32768).
const RELAY_PORT: u16 = 8143;

impl Default for MailSection {
    fn default() -> Self {
        let special = ["Archive", "Drafts", "Junk", "Sent", "Trash"];
        MailSection {
            maildir: "mail/{domain}/{local}/Maildir".to_owned(),
            index: "mail/{domain}/{local}/index".to_owned(),
            control: None,
            inbox: None,
            layout: Layout::default().as_str().to_owned(),
            linger: Duration::from_secs(15 * 60),
            write_back_after: Duration::from_secs(1),
            rescan_interval: Duration::from_secs(120),
            watches: 2048,
            separator: "/".to_owned(),
            sharing: false,
            shared_account: None,
            auto_create: special.iter().map(|name| ((*name).to_owned(), format!("\\{name}"))).collect(),
            auto_subscribe: false,
        }
    }
}

impl Default for LmtpSection {
    fn default() -> Self {
        LmtpSection {
            allow: vec!["127.0.0.0/8".to_owned(), "::1".to_owned()].into(),
            trusted: Networks::default(),
            detail_creates_mailbox: false,
            over_quota: OverQuota::Defer,
            allow_certificates: Vec::new(),
            sent_mailbox: "Sent".to_owned(),
            suppress_duplicates: Duration::ZERO,
            parallel_per_user: 10,
            share_copies: false,
            socket_mode: "0660".to_owned(),
            socket_user: None,
            socket_group: None,
        }
    }
}

impl LmtpSection {
    /// Permissions of UNIX sockets; `None`: no such number.
    pub fn mode(&self) -> Option<u32> {
        u32::from_str_radix(&self.socket_mode, 8).ok().filter(|mode| *mode <= 0o777)
    }
    /// Whether a client's certificate with these names may deliver.
    pub fn allows_certificate(&self, names: &[String]) -> bool {
        self.allow_certificates.iter().any(|allowed| names.iter().any(|name| name.eq_ignore_ascii_case(allowed)))
    }
    /// Whether a client at `address` may deliver.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.contains(address)
    }
    /// Whether XCLIENT and XFORWARD from `address` are believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.contains(address)
    }
}

impl Default for LogSection {
    fn default() -> Self {
        LogSection { level: "info".to_owned(), json: false }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 20_000,
            connections_per_address: 1_000,
            connections_before_login: 5_000,
            sessions_per_user: 64,
            sessions_per_user_and_address: 32,
            message_bytes: ByteSize::mib(64),
            refuse_8bit_headers: true,
            line_bytes: ByteSize::kib(64),
            literal_bytes: ByteSize::kib(64),
            command_bytes: ByteSize::kib(512),
            nesting: 32,
            recipients: 1_000,
            mailboxes: 10_000,
            parallel_moves: 32,
            bad_commands: 20,
            login_timeout: Duration::from_secs(2 * 60),
            idle_timeout: Duration::from_secs(30 * 60),
            write_timeout: Duration::from_secs(2 * 60),
            route_wait: Duration::from_secs(60),
        }
    }
}

mod defaults {
    use std::path::PathBuf;

    use affinity::{NodeName, ids::NODE_NAME_BYTES_MAX};

    pub fn local_dir() -> PathBuf {
        PathBuf::from("/var/lib/berth")
    }

    /// The host name as a node name: lower case, `-` for what a node name can't hold.
    pub fn node_name() -> NodeName {
        let plain: String = host_name()
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
            .take(NODE_NAME_BYTES_MAX)
            .collect();
        let node = plain.trim_start_matches(['.', '-']);
        node.parse().unwrap_or_else(|_| "localhost".parse().expect("a valid node name"))
    }

    pub fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

impl Config {
    /// The defaults for a cluster at `root`.
    pub fn new(root: &Path) -> Config {
        Config {
            node: NodeSection {
                name: defaults::node_name(),
                root: root.to_owned(),
                cluster_id: None,
                local_dir: defaults::local_dir(),
                advertise: Vec::new(),
                sandbox: Sandbox::default(),
                sandbox_paths: Vec::new(),
            },
            listen: ListenSection::default(),
            mail: MailSection::default(),
            auth: AuthSection::default(),
            tls: TlsSection::default(),
            limits: Limits::default(),
            imap: ImapSection::default(),
            lmtp: LmtpSection::default(),
            pop3: Pop3Section::default(),
            quota: QuotaSection::default(),
            expiry: ExpirySection::default(),
            cache: CacheSection::default(),
            log: LogSection::default(),
        }
    }

    /// Reads and checks a file; the error names file, line and what to write instead.
    pub fn load(file: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!("can't read the configuration {} (`berth config show --default` prints one to start from)", file.display())
        })?;
        Config::parse(&text, file)
    }

    /// The same from text, `file` for messages. `advertise` is filled in where it was left to its default.
    pub fn parse(text: &str, file: &Path) -> anyhow::Result<Config> {
        let (read, mut mistakes) = explain::read::<Config>(text, file);
        let written = explain::Written::read(text);
        let Some(mut config) = read else { anyhow::bail!(mistakes.said.join("\n")) };
        config.fill_in_advertise();
        let mut problems = config.check();
        problems.extend(config.check_written(&written));
        // What was left out to read the rest is not missing.
        problems.retain(|problem| {
            mistakes.said.is_empty() || (written.has(problem.key) && !mistakes.left_out.iter().any(|key| key == problem.key))
        });
        mistakes.said.extend(explain::problems(&problems, &written, file));
        if mistakes.said.is_empty() { Ok(config) } else { Err(anyhow::anyhow!(mistakes.said.join("\n"))) }
    }

    /// Port 0 is chosen when the relay listens: then nothing can be filled in here.
    fn fill_in_advertise(&mut self) {
        let relay = self.listen.relay;
        if self.node.advertise.is_empty() && relay.port() != 0 {
            let host = defaults::host_name();
            if !relay.ip().is_unspecified() {
                self.node.advertise.push(relay.to_string());
            } else if !host.is_empty() && !host.starts_with("localhost") {
                self.node.advertise.push(format!("{host}:{}", relay.port()));
            }
        }
    }

    /// Maildir and index of a user; `record` is what the sources say of them. `Err` says why these can't be told.
    pub fn account_paths(&self, user: &UserName, record: Option<&UserRecord>) -> Result<AccountPaths, String> {
        let home = record.and_then(|record| record.home.as_ref());
        let fill = |template: &str| -> Result<PathBuf, String> {
            if template.contains("{home}") && home.is_none() {
                return Err(format!("{template:?} needs the home of {user}, which no source gives"));
            }
            let filled = template
                .split_inclusive('}')
                .map(|piece| match piece.rsplit_once('{') {
                    Some((before, "user}")) => format!("{before}{}", user.encoded()),
                    Some((before, "local}")) => format!("{before}{}", encode(user.local_part())),
                    Some((before, "domain}")) => format!("{before}{}", user.domain().map_or_else(|| "_".to_owned(), encode)),
                    Some((before, "home}")) => format!("{before}{}", home.map_or_else(String::new, |home| home.display().to_string())),
                    _ => piece.to_owned(),
                })
                .collect::<String>();
            Ok(self.node.root.join(filled))
        };
        let given = record.map_or(Ok(None), |record| record.mail.clone())?;
        Ok(AccountPaths {
            // Where a source says where a user's mail is, that is where all of it is.
            inbox: if given.is_some() { None } else { self.mail.inbox.as_deref().map(fill).transpose()? },
            maildir: match given {
                Some(given) => self.node.root.join(given),
                None => fill(&self.mail.maildir)?,
            },
            index: fill(&self.mail.index)?,
            control: self.mail.control.as_deref().map(fill).transpose()?,
            layout: self.mail.layout.parse().unwrap_or_default(),
            shares: self.mail.sharing.then(|| self.node.root.join(storage::shares::FOLDER)),
        })
    }

    /// Where the users are.
    pub fn passwd_file(&self) -> PathBuf {
        self.auth.passwd_file.clone().unwrap_or_else(|| self.node.root.join("users"))
    }

    /// All users files: `auth.passwd_file`, and those of the sources.
    pub fn users_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.passwd_file()];
        files.extend(self.auth.users_files());
        files
    }

    /// Where app passwords are: beside the users, the same for all nodes.
    pub fn app_password_file(&self) -> PathBuf {
        self.node.root.join("app-passwords")
    }

    /// The control socket of a node that runs on this host.
    pub fn control_socket(&self) -> PathBuf {
        self.node.local_dir.join("control.sock")
    }
}

#[cfg(test)]
mod tests;
