//! What changes while nodes run: users, limits, certificates. Nobody sends a signal: the nodes notice.

use std::{fs, io::Write, process::Stdio, time::Duration};

use tests::{
    Context, Result, berth,
    clients::{imap::Imap, lmtp::Lmtp},
    cluster::{Cluster, Demo, Node},
    ensure, wait,
};

use super::open;

/// Users are looked at every few seconds, other files where the system tells of a change; this machine may be busy.
const NOTICED: Duration = Duration::from_secs(30);

#[test]
fn a_user_who_is_added_while_the_nodes_run_can_log_in_everywhere() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let session = open(&cluster.nodes[0].doors, &cluster.users[0])?;
    let config = cluster.nodes[0].config.to_str().context("path")?;
    let mut command = berth::command(&["user", "add", "grace", "--password-stdin", "--config", config])?;
    let mut adding = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    adding.stdin.take().context("no pipe")?.write_all(b"hopper's secret\n")?;
    ensure!(adding.wait()?.success(), "berth user add failed");
    for node in &cluster.nodes {
        wait::until("the new user's login", NOTICED, || Imap::login(&node.doors.imap, "grace", "hopper's secret").map(drop))?;
    }
    // Who was logged in stays so.
    session.logout()
}

/// The users file of one node is behind another's: that node holds nobody whom it does not know, and makes no folder for them.
#[test]
fn a_node_that_does_not_know_a_user_takes_no_mail_for_them() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let [behind, ahead] = cluster.nodes.as_slice() else { tests::bail!("two nodes") };
    let of_all = cluster.root.join("users");
    let newer = cluster.root.join("newer");
    fs::write(&newer, format!("{}late:{{PLAIN}}secret::::::pin={}\n", fs::read_to_string(&of_all)?, behind.doors.name))?;
    append(ahead, &format!("[auth]\npasswd_file = {newer:?}\n"))?;
    let deliver = || {
        let mut lmtp = Lmtp::connect(&ahead.doors.lmtp)?;
        lmtp.command("LHLO localhost")?;
        lmtp.command("MAIL FROM:<a@localhost>")?;
        let known = lmtp.command("RCPT TO:<late>")?;
        ensure!(known.code == 250, "{known:?}");
        lmtp.command("DATA")?.expect(354)?;
        lmtp.wire().send(b"Subject: one\r\n\r\nhello\r\n.\r\n")?;
        lmtp.reply()
    };
    let reply = wait::until("one node to know the user", NOTICED, deliver)?;
    ensure!(reply.code == 451, "{reply:?}");
    ensure!(Imap::login(&ahead.doors.imap, "late", "secret").is_err(), "a session began at a node that knows no such user");
    let folder = cluster.root.join("mail/_/late");
    ensure!(!folder.exists(), "{} was made", folder.display());
    fs::copy(&newer, &of_all)?;
    wait::until("the mail to be taken", NOTICED, || deliver()?.expect(250).map(drop))
}

#[test]
fn a_changed_limit_is_in_force_without_a_restart() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let node = &cluster.nodes[0];
    let mut session = open(&node.doors, &cluster.users[0])?;
    // The demo's configuration ends with its limits.
    append(node, "message_bytes = \"2KiB\"\n")?;
    wait::until("the new limit", NOTICED, || {
        let offered = Lmtp::connect(&node.doors.lmtp)?.command("LHLO localhost")?;
        ensure!(format!("{offered:?}").contains("SIZE 2048"), "{offered:?}");
        Ok(())
    })?;
    session.command("NOOP")?.ok()?;
    // What is offered is taken: the store knows as well, with accounts that are open.
    let config = fs::read_to_string(&node.config)?;
    fs::write(&node.config, config.replace("\"2KiB\"", "\"96MiB\""))?;
    wait::until("the higher limit", NOTICED, || {
        let offered = Lmtp::connect(&node.doors.lmtp)?.command("LHLO localhost")?;
        ensure!(format!("{offered:?}").contains(&format!("SIZE {}", 96 << 20)), "{offered:?}");
        Ok(())
    })?;
    let large =
        [b"Subject: large\r\n\r\n".as_slice(), &b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(70 << 14)]
            .concat();
    Lmtp::connect(&node.doors.lmtp)?.deliver_ok("a@example.org", &[&cluster.users[0].address()], &large)?;

    // What is wrong changes nothing, and the log says what.
    append(node, "message_bites = 1\n")?;
    wait::until("a line in the log", NOTICED, || {
        let log = fs::read_to_string(&node.log)?;
        ensure!(log.contains("not reloaded") && log.contains("did you mean `message_bytes`"), "the log does not say it");
        Ok(())
    })?;
    session.command("NOOP")?.ok()?;
    session.logout()
}

#[test]
fn a_new_certificate_is_served_and_open_sessions_go_on() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let other = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let (node, user) = (&cluster.nodes[0], &cluster.users[0]);
    let mut session = Imap::connect_tls(&node.doors.imaps)?;
    session.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?.ok()?;
    let folder = node.config.parent().context("no folder")?;
    let new = other.nodes[0].config.parent().context("no folder")?;
    let before = tests::tls::certificate(&node.doors.imaps)?;
    for file in ["key.pem", "certificate.pem"] {
        fs::copy(new.join(file), folder.join(file))?;
    }
    let wanted = tests::tls::certificate(&other.nodes[0].doors.imaps)?;
    ensure!(before != wanted, "two demos have one certificate");
    wait::until("the new certificate", NOTICED, || {
        ensure!(tests::tls::certificate(&node.doors.imaps)? == wanted, "still the old one");
        Ok(())
    })?;
    session.command("NOOP")?.ok()?;
    session.logout()
}

fn append(node: &Node, text: &str) -> Result<()> {
    Ok(fs::File::options().append(true).open(&node.config)?.write_all(text.as_bytes())?)
}
