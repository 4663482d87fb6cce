//! PAM by way of a program: the one that docs/users.md shows.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use tests::{Context, Result, berth::repository, clients::lmtp::Lmtp, ensure, mail, need};

use super::{cluster, ensure_login, ensure_refused};

/// A service of the host's PAM, for as long as this value lives.
struct Service(PathBuf);

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// The program in docs/users.md.
fn program() -> Result<String> {
    let docs = fs::read_to_string(repository().join("docs/users.md"))?;
    let (_, after) = docs.split_once("```sh\n#!/bin/bash\n# pam SERVICE").context("docs/users.md has no program for PAM")?;
    let (body, _) = after.split_once("```").context("it has no end")?;
    Ok(format!("#!/bin/bash\n# pam SERVICE{body}"))
}

#[test]
fn pam_says_who_may_log_in() -> Result<()> {
    need!("pamtester");
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root may add a service to the host's PAM");
        return Ok(());
    }
    let cluster_of_one = cluster(1, "")?;
    let folder = cluster_of_one.nodes[0].config.parent().context("no folder")?.to_owned();
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let file = folder.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(file)
    };
    // pam_exec gives the name in PAM_USER and the password on standard input: a database of one's own.
    let database = write("database", "#!/bin/sh\nread -r password\n[ \"$PAM_USER\" = pam1 ] && [ \"$password\" = 'PAM pass' ]\n")?;
    let name = format!("berth-tests-{}", std::process::id());
    let service = Service(PathBuf::from("/etc/pam.d").join(&name));
    let rules = format!("auth required pam_exec.so quiet expose_authtok {}\naccount required pam_permit.so\n", database.display());
    fs::write(&service.0, rules)?;
    let helper = write("pam", &program()?)?;
    let mut cluster = cluster_of_one;
    cluster.configure(&format!(
        "[[auth.source]]\ntype = \"passwd-file\"\n[[auth.source]]\ntype = \"command\"\nprogram = [{:?}, {name:?}]\nusers = [\"pam1\", \"pam2\"]\n",
        helper.display().to_string()
    ))?;
    let doors = &cluster.nodes[0].doors;
    ensure_login(&doors.imap, "pam1", "PAM pass")?;
    ensure_refused(&doors.imap, "pam1", "another", "AUTHENTICATIONFAILED")?;
    ensure_refused(&doors.imap, "pam2", "PAM pass", "AUTHENTICATIONFAILED")?;
    Lmtp::connect(&doors.lmtp)?.deliver_ok("ada@tests.example", &["pam2@localhost"], &mail::message("pam", 0))?;
    // The program is gone: that is no wrong password.
    fs::remove_file(&helper)?;
    ensure_refused(&doors.imap, "pam2", "x", "UNAVAILABLE")?;
    ensure!(super::logs(&cluster)?.contains("can't be run"));
    Ok(())
}
