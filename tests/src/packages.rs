//! Programs that we did not write, and the Debian packages they come in.
//!
//! A test that needs one calls [`need!`](crate::need): without the program it prints `SKIPPED <test>: <why>` and ends;
//! where `CI=true` it fails instead, so that nothing is left out there in silence.

use std::{env, path::PathBuf};

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The command.
    pub name: &'static str,
    /// The Debian package.
    pub package: &'static str,
}

/// Every program that some test or bench runs.
pub const PROGRAMS: &[Program] = &[
    Program { name: "postfix", package: "postfix" },
    Program { name: "neomutt", package: "neomutt" },
    Program { name: "mbsync", package: "isync" },
    Program { name: "offlineimap", package: "offlineimap3" },
    Program { name: "fetchmail", package: "fetchmail" },
    Program { name: "curl", package: "curl" },
    Program { name: "haproxy", package: "haproxy" },
    Program { name: "python3", package: "python3" },
    Program { name: "openssl", package: "openssl" },
    Program { name: "slapd", package: "slapd" },
    Program { name: "pg_ctlcluster", package: "postgresql" },
    Program { name: "gsasl", package: "gsasl" },
    Program { name: "pamtester", package: "pamtester" },
    Program { name: "fail2ban-regex", package: "fail2ban" },
    Program { name: "pebble", package: "pebble" },
    Program { name: "systemd-analyze", package: "systemd" },
    Program { name: "unshare", package: "util-linux" },
    Program { name: "mount", package: "mount" },
    // For the build of jemalloc.
    Program { name: "make", package: "make" },
];

/// What a comparison with Dovecot needs beside; no test of Berth does.
pub const DOVECOT: &[Program] = &[
    Program { name: "dovecot", package: "dovecot-core" },
    Program { name: "/usr/lib/dovecot/imap", package: "dovecot-imapd" },
    Program { name: "/usr/lib/dovecot/pop3", package: "dovecot-pop3d" },
    Program { name: "/usr/lib/dovecot/lmtp", package: "dovecot-lmtpd" },
];

/// Where a program is. Mail programs live in `sbin`, which an ordinary user's PATH may lack.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Why a test that needs these programs cannot run here; `None` when it can.
pub fn missing(names: &[&str]) -> Option<String> {
    let absent: Vec<String> = names.iter().filter(|name| find(name).is_none()).map(|name| describe(name)).collect();
    if !absent.is_empty() {
        return Some(format!("not installed: {}", absent.join(", ")));
    }
    let root = rustix::process::geteuid().is_root();
    (names.contains(&"postfix") && !root).then(|| "Postfix only starts as root".to_owned())
}

fn describe(name: &str) -> String {
    match PROGRAMS.iter().chain(DOVECOT).find(|program| program.name == name) {
        Some(program) => format!("{name} (Debian package {})", program.package),
        None => name.to_owned(),
    }
}

/// Whether this run must leave nothing out.
pub fn must_not_skip() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Ends the test as skipped, with the reason, when a program is missing. `need!("mbsync", "curl");`
#[macro_export]
macro_rules! need {
    ($($name:expr),+ $(,)?) => {
        if let Some(why) = $crate::packages::missing(&[$($name),+]) {
            let test = ::std::thread::current().name().unwrap_or("a test").to_owned();
            $crate::ensure!(!$crate::packages::must_not_skip(), "{test} may not be skipped where CI=true: {why}");
            // `cargo ready` collects these lines, so they must not be captured with the test's own output.
            $crate::packages::say_skipped(&test, &why);
            return Ok(());
        }
    };
}

/// Prints past the test harness' capture.
#[doc(hidden)]
pub fn say_skipped(test: &str, why: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {test}: {why}\n");
    if let Err(error) = std::io::stderr().write_all(line.as_bytes()) {
        panic!("cannot say that {test} was skipped: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        assert_eq!(missing(&["sh"]), None);
        let why = missing(&["no-such-program"]).unwrap();
        assert!(why.contains("no-such-program"), "{why}");
    }
}
