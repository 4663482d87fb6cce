//! Servers that know users: a private OpenLDAP and a private PostgreSQL, each in a folder of its own, on doors that nobody else uses.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{free_port, open_folder};
use crate::{
    process::{self, Guarded},
    wait,
};

/// How long a server may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A private OpenLDAP.
pub struct Slapd {
    folder: TempDir,
    /// `127.0.0.1:port`.
    pub address: String,
    server: Option<Guarded>,
}

impl Slapd {
    /// Starts one with these entries below `dc=example,dc=org`; the certificate is for StartTLS. Who may search: `cn=admin`, password `admin`.
    pub fn start(ldif: &str, certificate: &Path, key: &Path) -> Result<Slapd> {
        let folder = tempfile::Builder::new().prefix("berth-slapd-").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("data"))?;
        let schemas: String = ["core", "cosine", "inetorgperson"].map(|name| format!("include /etc/ldap/schema/{name}.schema\n")).concat();
        let config = format!(
            "{schemas}modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {0}/pid\nTLSCertificateFile {1}\nTLSCertificateKeyFile {2}\n\
             database mdb\nsuffix \"dc=example,dc=org\"\nrootdn \"cn=admin,dc=example,dc=org\"\nrootpw admin\ndirectory {0}/data\n\
             access to attrs=userPassword by anonymous auth by * none\naccess to * by users read by anonymous auth\n",
            folder.path().display(),
            certificate.display(),
            key.display()
        );
        fs::write(path("slapd.conf"), config)?;
        let root = "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n";
        fs::write(path("entries"), format!("{root}\n{ldif}"))?;
        let slapadd = crate::packages::find("slapadd").context("slapadd is not installed (Debian package slapd)")?;
        process::run_ok(Command::new(slapadd).arg("-f").arg(path("slapd.conf")).arg("-l").arg(path("entries")), COMMAND_LIMIT)?;
        let mut slapd = Slapd { address: format!("127.0.0.1:{}", free_port()?), folder, server: None };
        slapd.resume()?;
        Ok(slapd)
    }

    /// Starts it again after [`Slapd::stop`], at the same address.
    pub fn resume(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let binary = crate::packages::find("slapd").context("slapd is not installed")?;
        let mut command = Command::new(binary);
        command.arg("-f").arg(self.folder.path().join("slapd.conf")).args(["-h", &format!("ldap://{}", self.address), "-d", "0"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Guarded::start("slapd", &mut command)?;
        wait::until("slapd to answer", START_LIMIT, || {
            server.check_running().with_context(|| process::tail(&self.folder.path().join("log"), 20))?;
            TcpStream::connect(&self.address)?;
            Ok(())
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends it; its entries stay.
    pub fn stop(&mut self) -> Result<()> {
        self.server.take().context("slapd does not run")?.stop()
    }
}

/// A private PostgreSQL, reached by a socket in its folder.
pub struct Postgres {
    folder: TempDir,
    server: Option<Guarded>,
    programs: PathBuf,
}

impl Postgres {
    /// Makes a database and runs `sql` in it.
    pub fn start(sql: &str) -> Result<Postgres> {
        let folder = open_folder("berth-postgres-")?;
        let programs = fs::read_dir("/usr/lib/postgresql")?
            .flatten()
            .map(|version| version.path().join("bin"))
            .find(|bin| bin.join("initdb").is_file())
            .context("no initdb below /usr/lib/postgresql (Debian package postgresql)")?;
        let mut postgres = Postgres { folder, server: None, programs };
        // The server refuses to run as root, and its folder must be its own.
        if rustix::process::geteuid().is_root() {
            process::run_ok(Command::new("chown").arg("postgres:").arg(postgres.folder.path()), COMMAND_LIMIT)?;
        }
        let data = postgres.data();
        process::run_ok(
            postgres.command("initdb").args(["--auth=trust", "--username=berth", "--no-sync", "-D"]).arg(&data),
            COMMAND_LIMIT,
        )?;
        postgres.resume()?;
        postgres.run(sql)?;
        Ok(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL's, as its own user where this is root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").env("LC_ALL", "C");
        command
    }

    /// Runs SQL.
    pub fn run(&self, sql: &str) -> Result<()> {
        let mut command = self.command("psql");
        command.args(["--quiet", "--set=ON_ERROR_STOP=1", "--username=berth", "--dbname=postgres", "--command", sql, "--host"]);
        process::run_ok(command.arg(self.folder.path()), COMMAND_LIMIT).map(drop)
    }

    /// Berth's `connection`.
    pub fn connection(&self) -> String {
        format!("host={} user=berth dbname=postgres", self.folder.path().display())
    }

    /// Starts it again after [`Postgres::stop`].
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path()).args(["-F", "-c", "listen_addresses="]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Guarded::start("postgres", &mut command)?;
        wait::until("PostgreSQL to answer", START_LIMIT, || {
            server.check_running()?;
            self.run("SELECT 1")
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends it; its data stay.
    pub fn stop(&mut self) -> Result<()> {
        let stopped = process::run_ok(self.command("pg_ctl").arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]), COMMAND_LIMIT);
        self.server.take().context("PostgreSQL does not run")?.stop()?;
        stopped.map(drop)
    }
}
