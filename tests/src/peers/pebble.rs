//! A private certificate authority that speaks ACME (Pebble), and the names that it looks up.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{packages, process::Guarded, tls::Authority, wait};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running Pebble, with a name server that has one address for every name.
#[derive(Debug)]
pub struct Pebble {
    pebble: Guarded,
    _names: Guarded,
    address: String,
    /// Its files as the nodes see them.
    seen: PathBuf,
    log: PathBuf,
}

/// Where it listens, and where it asks for proofs.
#[derive(Debug)]
pub struct Ports {
    /// IP:port of its directory.
    pub directory: String,
    /// The IPv4 address that every name has.
    pub names_are_at: String,
    /// host:port of its name server.
    pub names: String,
    /// host:port where names can be changed.
    pub management: String,
    /// The port of every name that HTTP-01 asks.
    pub http: u16,
    /// The port of every name that TLS-ALPN-01 asks.
    pub tls: u16,
}

/// An account that the authority asks for (external account binding).
const ACCOUNT: (&str, &str) = ("berth-tests", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

impl Pebble {
    /// Starts one whose certificates are valid for `validity`; its files are in `folder`, which is `seen` where the nodes run.
    pub fn start(folder: &Path, seen: &Path, ports: &Ports, validity: Duration) -> Result<Pebble> {
        fs::create_dir_all(folder)?;
        let log = folder.join("pebble.log");
        let own = Authority::new()?;
        fs::write(folder.join("authority.pem"), own.pem())?;
        let (host, _) = ports.directory.rsplit_once(':').context("no port")?;
        let (certificate, key) = own.server(host)?;
        fs::write(folder.join("own.pem"), certificate)?;
        fs::write(folder.join("own-key.pem"), key)?;
        fs::write(folder.join("account-key"), format!("{}\n", ACCOUNT.1))?;
        let (http, tls, listen, seconds) = (ports.http, ports.tls, &ports.directory, validity.as_secs());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen, "managementListenAddress": "", "httpPort": http, "tlsPort": tls, "ocspResponderURL": "",
            "certificate": folder.join("own.pem"), "privateKey": folder.join("own-key.pem"),
            "externalAccountBindingRequired": true, "externalAccountMACKeys": { ACCOUNT.0: ACCOUNT.1 }, "certificateValidityPeriod": seconds,
        } });
        let settings = folder.join("pebble.json");
        fs::write(&settings, config.to_string())?;

        let mut names = command("pebble-challtestsrv", &log)?;
        names.args([
            "-defaultIPv4",
            &ports.names_are_at,
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv6",
            "",
            "-dns01",
            &ports.names,
            "-management",
            &ports.management,
        ]);
        let names = Guarded::start("pebble-challtestsrv", &mut names)?;
        let mut pebble = command("pebble", &log)?;
        pebble.args(["-dnsserver", &ports.names, "-config"]).arg(&settings).env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        let mut pebble = Guarded::start("pebble", &mut pebble)?;
        wait::until("pebble to listen", START_LIMIT, || {
            pebble.check_running().with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
            TcpStream::connect(&ports.directory).map(drop)?;
            Ok(())
        })?;
        Ok(Pebble { pebble, _names: names, address: ports.directory.clone(), seen: seen.to_owned(), log })
    }

    /// `[tls.acme]` for it.
    pub fn settings(&self, name: &str) -> String {
        format!(
            "[tls.acme]\nnames = [\"{name}\"]\nagree_to_terms = true\ndirectory = \"https://{}/dir\"\nca_file = {:?}\ncontact = \"postmaster@berth.test\"\naccount_id = {:?}\naccount_key_file = {:?}\n",
            self.address,
            self.seen.join("authority.pem"),
            ACCOUNT.0,
            self.seen.join("account-key"),
        )
    }

    /// Stands still.
    pub fn pause(&self) -> Result<()> {
        self.pebble.process()?.pause()
    }

    /// Goes on.
    pub fn resume(&self) -> Result<()> {
        self.pebble.process()?.resume()
    }

    /// What it said.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}

fn command(name: &str, log: &Path) -> Result<Command> {
    let program = packages::find(name).with_context(|| format!("{name} is not installed"))?;
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}
