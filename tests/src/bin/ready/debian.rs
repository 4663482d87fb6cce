//! Installs the Debian packages of the programs that the tests run, where that is possible; names what stays missing.
//!
//! No service is started: packages of mail servers would otherwise start one on this machine's own ports.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::{
    packages::{self, PROGRAMS, Program},
    process,
};

/// Mirrors can be slow.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// Debian asks this script before it starts a service; 101 means no (`/usr/share/doc/init-system-helpers`).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";

/// Installs what is missing; gives one line for each program that stays missing.
pub fn install() -> Result<Vec<String>> {
    let missing = missing();
    let can = rustix::process::geteuid().is_root() && packages::find("apt-get").is_some();
    if !missing.is_empty() && can {
        let names: Vec<&str> = missing.iter().map(|program| program.package).collect();
        println!("      installing {}", names.join(", "));
        if let Err(error) = apt(&names) {
            println!("      {error:#}");
        }
    }
    let still: Vec<String> = self::missing()
        .iter()
        .map(|program| format!("tests with {}: install the Debian package {}", program.name, program.package))
        .collect();
    ensure!(still.is_empty() || !packages::must_not_skip(), "where CI=true nothing may be left out: {}", still.join("; "));
    Ok(still)
}

fn missing() -> Vec<&'static Program> {
    PROGRAMS.iter().filter(|program| packages::find(program.name).is_none()).collect()
}

fn apt(names: &[&str]) -> Result<()> {
    let policy = NoServices::begin()?;
    let outcome = preset().and_then(|()| {
        run(apt_get().arg("update"))?;
        run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(names))
    });
    policy.end()?;
    outcome
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn run(command: &mut Command) -> Result<()> {
    process::run_ok(command, INSTALL_LIMIT).map(drop)
}

/// Postfix asks how the machine is to be configured: not at all, the tests have instances of their own.
fn preset() -> Result<()> {
    let mut child = Command::new("debconf-set-selections").stdin(Stdio::piped()).spawn().context("cannot start debconf-set-selections")?;
    let mut input = child.stdin.take().context("no pipe")?;
    input.write_all(b"postfix postfix/main_mailer_type select No configuration\n")?;
    drop(input);
    ensure!(child.wait()?.success(), "debconf-set-selections failed");
    Ok(())
}

/// While this exists, packages start no service; afterwards the machine's own policy is back.
struct NoServices {
    before: Option<(Vec<u8>, fs::Permissions)>,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        let path = Path::new(POLICY);
        let before = match fs::read(path) {
            Ok(script) => Some((script, fs::metadata(path)?.permissions())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {POLICY}")),
        };
        fs::write(path, NO_SERVICES).with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(NoServices { before })
    }

    fn end(self) -> Result<()> {
        match self.before {
            Some((script, permissions)) => {
                fs::write(POLICY, script)?;
                fs::set_permissions(POLICY, permissions)?;
            }
            None => fs::remove_file(POLICY)?,
        }
        Ok(())
    }
}
