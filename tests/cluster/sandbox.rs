//! A node that the kernel keeps to what it needs (`node.sandbox`).

use std::{fs, path::Path, time::Duration};

use tests::{
    Context, Result, berth,
    clients::{imap::Imap, lmtp::Lmtp},
    cluster::{self, Cluster, Demo},
    ensure,
    process::{self, Process},
    wait,
};

use super::open;

/// A reload is noticed at once; this machine may be busy.
const NOTICED: Duration = Duration::from_secs(30);

/// Whether this kernel can do it at all: elsewhere a node says that it can't.
fn is_offered() -> Result<bool> {
    let Ok(modules) = fs::read_to_string("/sys/kernel/security/lsm") else {
        // Not mounted in many containers: what a node says counts.
        let folder = tempfile::tempdir()?;
        let said = probe(folder.path(), "required", &["/"])?;
        return Ok(!said.contains("Landlock gives no full one"));
    };
    Ok(modules.contains("landlock"))
}

/// Starts a node whose shared directory is no cluster, so that it ends at once; what it said.
fn probe(folder: &Path, sandbox: &str, paths: &[&str]) -> Result<String> {
    let config = folder.join("berth.toml");
    let (root, local) = (folder.join("root"), folder.join("local"));
    fs::create_dir_all(&root)?;
    fs::write(
        &config,
        format!(
            "[node]\nname = \"a\"\nroot = {root:?}\nlocal_dir = {local:?}\nadvertise = [\"127.0.0.1:1\"]\nsandbox = \"{sandbox}\"\nsandbox_paths = {paths:?}\n"
        ),
    )?;
    let mut command = berth::command(&["serve", "--config", config.to_str().context("path")?])?;
    Ok(process::said(&process::run(&mut command, NOTICED)?))
}

#[test]
fn a_node_in_its_sandbox_serves_mail_and_reloads() -> Result<()> {
    if !is_offered()? {
        eprintln!("this kernel has no Landlock: not tried");
        return Ok(());
    }
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 4, dir: None })?;
    for node in 0..2 {
        let config = cluster.nodes[node].config.clone();
        // Made by the node, before it is inside.
        let cache = cluster.root.with_file_name(format!("cache-{node}"));
        fs::write(&config, format!("{}\n[cache]\ndir = {cache:?}\nsize = \"64MiB\"\n", fs::read_to_string(&config)?))?;
        cluster.set_and_restart(node, "node", "sandbox = \"required\"")?;
        let log = fs::read_to_string(&cluster.nodes[node].log)?;
        ensure!(log.contains("in its sandbox"), "the log does not say so:\n{log}");
        ensure!(log.contains("the local cache is open"), "the cache can't be used inside:\n{log}");
    }
    for (index, user) in cluster.users.iter().enumerate() {
        let doors = &cluster.nodes[index % 2].doors;
        Lmtp::connect(&doors.lmtp)?.deliver_ok("ada@tests.example", &[&user.address()], b"Subject: one\r\n\r\none\r\n")?;
        let mut imap = open(doors, user)?;
        imap.append("INBOX", "", b"Subject: two\r\n\r\ntwo\r\n")?;
        imap.command("CREATE Folder")?.ok()?;
        imap.command("COPY 1:2 Folder")?.ok()?;
        imap.command("STORE 1 +FLAGS (\\Deleted)")?.ok()?;
        imap.command("EXPUNGE")?.ok()?;
        imap.select("Folder")?;
        for _ in 0..3 {
            ensure!(imap.bodies()?.len() == 2, "copies are missing");
        }
        imap.logout()?;
        Imap::connect_tls(&doors.imaps)?.logout()?;
    }
    // Settings, users and certificates are read again from inside.
    let log = cluster.nodes[0].log.clone();
    cluster::set(&cluster.nodes[0].config, "limits", "sessions_per_user = 63")?;
    wait::until("the reload", NOTICED, || {
        ensure!(fs::read_to_string(&log)?.contains("certificates reloaded"), "nothing was reloaded");
        Ok(())
    })
}

#[test]
fn a_node_in_its_sandbox_can_open_nothing_outside() -> Result<()> {
    if !is_offered()? {
        eprintln!("this kernel has no Landlock: not tried");
        return Ok(());
    }
    // A user whose mail lies elsewhere, by way of a link in the shared directory: the name says nothing, the kernel does.
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    let outside = tempfile::Builder::new().prefix("berth-outside-").tempdir_in("/var/tmp")?;
    let (caught, free) = (cluster.users[0].clone(), cluster.users[1].clone());
    let maildir = cluster.root.join("mail/_").join(&caught.name).join("Maildir");
    fs::create_dir_all(maildir.parent().context("no parent")?)?;
    std::os::unix::fs::symlink(outside.path(), &maildir)?;
    cluster.set_and_restart(0, "node", "sandbox = \"required\"")?;
    let doors = cluster.nodes[0].doors.clone();
    open(&doors, &free)?.logout()?;
    let refused = open(&doors, &caught);
    ensure!(refused.is_err(), "mail outside was opened");
    ensure!(fs::read_dir(outside.path())?.next().is_none(), "something was written outside");
    // Not even the binary that it runs from can be run again.
    ensure!(no_new_privileges(cluster.nodes[0].process)?, "programs could still gain rights");
    let unfiltered = unfiltered_threads(cluster.nodes[0].process)?;
    ensure!(unfiltered.is_empty(), "every system call is open to {unfiltered:?}");
    // With the place among the permitted ones, or without a sandbox, it is served.
    cluster.set_and_restart(0, "node", &format!("sandbox = \"required\"\nsandbox_paths = [{:?}]", outside.path()))?;
    open(&cluster.nodes[0].doors.clone(), &caught)?.logout()?;
    ensure!(fs::read_dir(outside.path())?.next().is_some(), "nothing is outside");
    Ok(())
}

/// Threads without a filter of system calls.
fn unfiltered_threads(process: Process) -> Result<Vec<String>> {
    let mut unfiltered = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", process.pid()))? {
        // A thread may have ended meanwhile.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        if !status.contains("Seccomp:\t2") {
            unfiltered.push(status.lines().next().unwrap_or_default().to_owned());
        }
    }
    Ok(unfiltered)
}

fn no_new_privileges(process: Process) -> Result<bool> {
    Ok(fs::read_to_string(format!("/proc/{}/status", process.pid()))?.contains("NoNewPrivs:\t1"))
}
