//! Files of a demo: the shared directory, and beside it what would be local to each host.

use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use affinity::{AffinityError, NameRules, Root, Timings, UserName};
use anyhow::Context;

use super::Options;
use crate::{
    auth::{edit, scheme::Scheme},
    tls,
};

/// Ports of one node.
const PORTS: u16 = 6;
/// Where free ports are looked for: below the ports that systems hand out by themselves.
const PORTS_FROM: u16 = 20_000;
const PORTS_TO: u16 = 32_000;

/// All files of a demo.
#[derive(Debug)]
pub struct Layout {
    /// The shared directory.
    pub root: PathBuf,
    /// Host-local files of all nodes.
    pub local: PathBuf,
    /// The nodes.
    pub nodes: Vec<NodeFiles>,
    /// Everybody's password.
    pub password: String,
    /// The cluster was made just now.
    pub is_new: bool,
    remove: Vec<PathBuf>,
}

/// One node's files and ports.
#[derive(Debug, Clone)]
pub struct NodeFiles {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub config: PathBuf,
    /// Its log.
    pub log: PathBuf,
    ports: u16,
}

impl NodeFiles {
    fn address(&self, offset: u16) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports + offset)).to_string()
    }
    /// host:port.
    pub fn imap(&self) -> String {
        self.address(0)
    }
    /// host:port.
    pub fn imaps(&self) -> String {
        self.address(1)
    }
    /// host:port.
    pub fn pop3(&self) -> String {
        self.address(2)
    }
    /// host:port.
    pub fn pop3s(&self) -> String {
        self.address(3)
    }
    /// host:port.
    pub fn lmtp(&self) -> String {
        self.address(4)
    }
    /// Where the node answers operators.
    pub fn control_socket(&self) -> PathBuf {
        self.config.with_file_name(&self.name).join("control.sock")
    }
    fn relay(&self) -> String {
        self.address(5)
    }
}

/// The n-th user, from 1.
pub fn user(n: u32) -> String {
    format!("user{n}")
}

impl Layout {
    /// Makes all files; the cluster too, unless the given directory is one already.
    pub fn create(options: &Options) -> anyhow::Result<Layout> {
        let local = tempfile::Builder::new().prefix("berth-demo-").tempdir()?.keep();
        let mut remove = vec![local.clone()];
        let root = match &options.dir {
            Some(dir) => std::path::absolute(dir)?,
            None => {
                let root = local.join("shared");
                remove.push(root.clone());
                root
            }
        };
        std::fs::create_dir_all(&root).with_context(|| format!("can't make {}", root.display()))?;
        let is_new = match Root::init(&root, &Timings::default()) {
            Ok(_) => true,
            Err(AffinityError::AlreadyACluster(_)) => false,
            Err(error) => return Err(error.into()),
        };
        let password = options.password.clone().unwrap_or_else(random_password);
        write_users(&root.join("users"), options.users, &password)?;

        let tls_files = (local.join("certificate.pem"), local.join("key.pem"));
        let (certificate, key) = tls::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        std::fs::write(&tls_files.0, certificate)?;
        write_private(&tls_files.1, key.as_bytes())?;

        let base = match options.base_port {
            Some(port) => port,
            None => free_ports(options.nodes * PORTS)?,
        };
        let mut nodes = Vec::new();
        for n in 0..options.nodes {
            let name = format!("node{}", n + 1);
            let ports = base
                .checked_add(n * PORTS)
                .filter(|ports| ports.checked_add(PORTS).is_some())
                .context("--base-port is too high for so many nodes")?;
            let node = NodeFiles { config: local.join(format!("{name}.toml")), log: local.join(format!("{name}.log")), name, ports };
            std::fs::write(&node.config, configuration(&node, &root, &local, &tls_files)?)?;
            nodes.push(node);
        }
        Ok(Layout { root, local, nodes, password, is_new, remove })
    }

    /// Removes what was made for this run.
    pub fn remove(&self) {
        for dir in &self.remove {
            // What is left in a temporary folder hurts nobody.
            std::fs::remove_dir_all(dir).ok();
        }
    }
}

fn configuration(node: &NodeFiles, root: &Path, local: &Path, (certificate, key): &(PathBuf, PathBuf)) -> anyhow::Result<String> {
    let path = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let mut text = String::new();
    writeln!(text, "# One node of a demo; `berth serve --config` starts it again.")?;
    writeln!(text, "[node]\nname = \"{}\"\nroot = {}\nlocal_dir = {}\n", node.name, path(root), path(&local.join(&node.name)))?;
    writeln!(
        text,
        "[listen]\nimap = [\"{}\"]\nimaps = [\"{}\"]\npop3 = [\"{}\"]\npop3s = [\"{}\"]\nlmtp = [\"{}\"]\nrelay = \"{}\"\n",
        node.imap(),
        node.imaps(),
        node.pop3(),
        node.pop3s(),
        node.lmtp(),
        node.relay()
    )?;
    writeln!(text, "[auth.names]\nlocal_domains = [\"localhost\"]\ndetail_delimiter = \"+\"\n")?;
    writeln!(text, "[tls]\ncertificate = {}\nkey = {}\n", path(certificate), path(key))?;
    // Everybody on loopback is one address here.
    writeln!(text, "[limits]\nconnections = 20000\nconnections_per_address = 20000\nsessions_per_user_and_address = 64")?;
    Ok(text)
}

/// One hash for all: they share the password, and hashing takes its time on purpose.
fn write_users(file: &Path, users: u32, password: &str) -> anyhow::Result<()> {
    let hash = Scheme::Sha512Crypt.hash(password.as_bytes())?;
    edit::edit(file, &NameRules::default(), |lines| {
        for n in 1..=users {
            let user = UserName::normalise(&user(n))?;
            // Users of an earlier run get the new password.
            if lines.set_password(&user, &hash).is_err() {
                lines.add(&user, &hash)?;
            }
        }
        Ok(())
    })
}

fn write_private(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    Ok(std::fs::File::options().write(true).create_new(true).mode(0o600).open(file)?.write_all(bytes)?)
}

/// Easy to type, hard enough for loopback.
fn random_password() -> String {
    const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let mut left: u64 = rand::random();
    let mut password = String::new();
    for _ in 0..10 {
        let letters = LETTERS.len() as u64;
        password.push(LETTERS.get(usize::try_from(left % letters).unwrap_or(0)).copied().map_or('a', char::from));
        left /= letters;
    }
    password
}

/// `count` ports in a row that nobody listens on now.
fn free_ports(count: u16) -> anyhow::Result<u16> {
    for _ in 0..200 {
        let span = PORTS_TO.saturating_sub(PORTS_FROM).saturating_sub(count).max(1);
        let base = PORTS_FROM + rand::random::<u16>() % span;
        let bound: Result<Vec<TcpListener>, _> = (base..base + count).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).collect();
        if bound.is_ok() {
            return Ok(base);
        }
    }
    anyhow::bail!("no {count} free ports in a row between {PORTS_FROM} and {PORTS_TO}: choose some with --base-port")
}
