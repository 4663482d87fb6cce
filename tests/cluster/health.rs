//! File systems that are really full or really read-only, and files that nodes can't use: who says so, who moves, who goes on.
//!
//! As root, in a mount namespace of its own: each test runs itself again there.

mod full;
mod owners;

use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use tests::{
    Context, Result, bail, berth,
    clients::lmtp::Lmtp,
    cluster::{Cluster, Demo, set},
    ensure, mail, need,
    packages::{must_not_skip, say_skipped},
    process, wait,
};

use super::{balancer::ask, open, operate::leases};

/// A node looks every 10 s, keeps its users for 20 s, and trusts itself again after 30 s.
const LIMIT: Duration = Duration::from_secs(180);
/// How long all of such a test may take.
const TEST_LIMIT: Duration = Duration::from_secs(900);
/// Set where a test runs in its own namespace.
const INSIDE: &str = "BERTH_TESTS_OWN_MOUNTS";

/// Runs the calling test in a mount namespace of its own; `true` there.
fn inside_own_mounts() -> Result<bool> {
    if env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let test = thread::current().name().context("a test without a name")?.to_owned();
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    if !is_root || !process::run(Command::new("unshare").args(["--mount", "true"]), LIMIT)?.status.success() {
        let why = "only root, with CAP_SYS_ADMIN, can mount file systems";
        ensure!(!must_not_skip(), "{test} may not be skipped where CI=true: {why}");
        say_skipped(&test, why);
        return Ok(false);
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]).arg(env::current_exe()?).args(["--exact", &test, "--nocapture"]).env(INSIDE, "1");
    let output = process::run(&mut again, TEST_LIMIT)?;
    let said = process::said(&output);
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(false)
}

/// Something mounted there until dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: &Path) -> Result<Mounted> {
        process::run_ok(Command::new("mount").args(arguments).arg(at), LIMIT)?;
        Ok(Mounted(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = process::run_ok(Command::new("umount").arg("--lazy").arg(&self.0), LIMIT) {
            eprintln!("{error:#}");
        }
    }
}

/// Waits until a node's health answer says `word`, and that clients may be sent to it.
fn takes_clients_and_says(word: &str, health: &str) -> Result<()> {
    wait::until(&format!("the answer {word}"), LIMIT, || {
        let answer = ask(health, b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n")?;
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{word}\n")), "{answer}");
        Ok(())
    })
}

#[test]
fn a_node_says_at_its_start_what_its_mount_is_good_for() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    wait::until("the outcome of the self-check", LIMIT, || {
        let log = fs::read_to_string(&cluster.nodes[0].log)?;
        for check in ["self-check: mount: ", "self-check: rename: of two renames of one name one is won", "self-check: round trip: "] {
            ensure!(log.contains(check), "no {check:?} in the log");
        }
        Ok(())
    })
}

#[test]
fn a_node_whose_disk_is_full_gives_its_users_up_and_goes_on_relaying() -> Result<()> {
    need!("unshare", "mount");
    if !inside_own_mounts()? {
        return Ok(());
    }
    let disk = tempfile::tempdir()?;
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=100m", "berth-tests"], disk.path())?;
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 8, dir: None })?;
    let health = cluster.spare_address(0);
    set(&cluster.nodes[1].config, "listen", &format!("health = [\"{health}\"]"))?;
    cluster.set_and_restart(1, "node", &format!("local_dir = {:?}", disk.path()))?;
    let sick = cluster.nodes[1].doors.name.clone();
    for user in &cluster.users {
        open(&cluster.nodes[0].doors, user)?.append("INBOX", "", &mail::message("health", 0))?;
    }
    let held = |cluster: &Cluster| Ok::<_, tests::Report>(leases(cluster)?.values().filter(|holder| **holder == sick).count());
    ensure!(held(&cluster)? > 0, "{sick} holds nobody: {:?}", leases(&cluster)?);

    let filler = disk.path().join("filler");
    fill(&filler)?;
    wait::until("the reason in berth nodes", LIMIT, || {
        let said = cluster.command(&["nodes"])?;
        ensure!(said.contains("trouble") && said.contains("node.local_dir") && said.contains("is full"), "{said}");
        Ok(())
    })?;
    takes_clients_and_says("trouble", &health)?;
    wait::until("its users to be given up", LIMIT, || {
        let held = held(&cluster)?;
        ensure!(held == 0, "{sick} holds {held}");
        Ok(())
    })?;
    // Through the sick node as well: it passes them on.
    for user in &cluster.users {
        ensure!(open(&cluster.nodes[1].doors, user)?.bodies()?.len() == 1);
    }
    ensure!(held(&cluster)? == 0, "users were placed on {sick}: {:?}", leases(&cluster)?);
    fs::remove_file(filler)?;
    takes_clients_and_says("up", &health)
}

/// Writes until nothing more fits.
fn fill(file: &Path) -> Result<()> {
    let mut file = File::create(file)?;
    for _ in 0..1000 {
        match file.write_all(&[b'x'; 1 << 20]) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            written => written?,
        }
    }
    bail!("the file system is larger than it should be")
}

#[test]
fn a_mail_store_that_is_read_only_for_all_moves_nobody_and_keeps_every_node_in_the_balancer() -> Result<()> {
    need!("unshare", "mount");
    if !inside_own_mounts()? {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("shared");
    berth::run_ok(&["init", root.to_str().context("path")?])?;
    let store = root.join("mail");
    fs::create_dir_all(&store)?;
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 6, dir: Some(dir.path().to_owned()) })?;
    let health = [cluster.spare_address(0), cluster.spare_address(1)];
    for (node, address) in health.iter().enumerate() {
        cluster.set_and_restart(node, "listen", &format!("health = [\"{address}\"]"))?;
    }
    let message = mail::message("health", 0);
    for user in &cluster.users {
        open(&cluster.nodes[0].doors, user)?.append("INBOX", "", &message)?;
    }
    let before = leases(&cluster)?;

    // Files that are open stay writable; whatever is opened now is not.
    let mounted = Mounted::new(&["--bind", store.to_str().context("path")?], &store)?;
    process::run_ok(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&store), LIMIT)?;
    for address in &health {
        takes_clients_and_says("trouble", address)?;
    }
    let said = cluster.command(&["nodes"])?;
    ensure!(said.contains("is read-only"), "{said}");
    for node in &cluster.nodes {
        wait::until("a node to keep its users", LIMIT, || {
            ensure!(fs::read_to_string(&node.log)?.contains("no other node takes these users"), "{} has not said so", node.doors.name);
            Ok(())
        })?;
    }
    ensure!(leases(&cluster)? == before, "users moved: {before:?} became {:?}", leases(&cluster)?);
    // Mail is read, and nothing is acknowledged that was not stored.
    let user = &cluster.users[0];
    ensure!(open(&cluster.nodes[1].doors, user)?.bodies()?.len() == 1);
    let to = format!("{}@localhost", user.name);
    let deliver = || Lmtp::connect(&cluster.nodes[0].doors.lmtp)?.deliver("a@localhost", &[&to], &message);
    let replies = deliver()?;
    ensure!(replies.iter().all(|reply| (400..500).contains(&reply.code)), "{replies:?}");
    drop(mounted);
    wait::until("a delivery", LIMIT, || {
        let replies = deliver()?;
        ensure!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
        Ok(())
    })?;
    ensure!(open(&cluster.nodes[1].doors, user)?.bodies()?.len() == 2);
    Ok(())
}
