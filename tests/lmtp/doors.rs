//! Who may deliver, and where: socket files, sockets of systemd, certificates, and the listener for sent mail.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command, time::Duration};

use tests::{
    Context, Result, berth,
    clients::{imap::Imap, lmtp::Lmtp, python},
    cluster::{Cluster, Demo},
    ensure, mail, need,
    process::Guarded,
    tls, wait,
};

/// How long a node may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Delivers through a UNIX socket: Python's `smtplib` does so where a path is given for a host.
const DELIVER: &str = "import smtplib, sys\nwith smtplib.LMTP(sys.argv[1]) as lmtp:\n    \
     refused = lmtp.sendmail('ada@tests.example', [sys.argv[2]], 'Subject: ' + sys.argv[3] + '\\r\\n\\r\\nHi\\r\\n')\n    assert not refused";

fn subjects(address: &str, user: &str, password: &str, mailbox: &str) -> Result<Vec<String>> {
    let mut imap = Imap::login(address, user, password)?;
    imap.select(mailbox)?;
    let subject = |body: Vec<u8>| -> Option<String> {
        let body = String::from_utf8_lossy(&body).into_owned();
        body.lines().find_map(|line| line.strip_prefix("Subject: ")).map(str::to_owned)
    };
    Ok(imap.bodies()?.into_values().filter_map(subject).collect())
}

#[test]
fn socket_files_take_mail_and_what_was_sent_is_filed_as_seen() -> Result<()> {
    need!("python3");
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    let folder = cluster.root.parent().context("no folder")?.to_owned();
    let (inbox, sent) = (folder.join("lmtp"), folder.join("sent"));
    // Left behind by a process that was killed: it is replaced.
    drop(std::os::unix::net::UnixListener::bind(&inbox)?);
    let tcp = cluster.nodes[0].doors.lmtp.clone();
    cluster.set_and_restart(
        0,
        "listen",
        &format!("lmtp = [\"{tcp}\", \"unix:{}\"]\nsent = [\"unix:{}\"]", inbox.display(), sent.display()),
    )?;
    let (doors, user) = (&cluster.nodes[0].doors, &cluster.users[0]);
    ensure!(fs::symlink_metadata(&inbox)?.mode() & 0o777 == 0o660);
    python::run(DELIVER, &[&inbox.to_string_lossy(), &user.address(), "received"])?;
    python::run(DELIVER, &[&sent.to_string_lossy(), &user.address(), "sent"])?;
    ensure!(subjects(&doors.imap, &user.name, &user.password, "INBOX")? == ["received"]);
    ensure!(subjects(&doors.imap, &user.name, &user.password, "Sent")? == ["sent"]);
    let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
    imap.select("Sent")?;
    ensure!(imap.flags()?.values().all(|flags| flags.iter().any(|flag| flag == "\\Seen")), "sent mail is not seen");
    imap.logout()?;
    cluster.stop()?;
    ensure!(!inbox.exists() && !sent.exists(), "a node that stops leaves no socket file");
    Ok(())
}

/// Listens, then becomes the node with that socket as its third descriptor, as systemd does.
const ACTIVATE: &str = "import os, socket, sys\n\
     listener = socket.socket(socket.AF_UNIX)\nlistener.bind(sys.argv[1])\nlistener.listen(8)\n\
     if listener.fileno() == 3:\n    os.set_inheritable(3, True)\nelse:\n    os.dup2(listener.fileno(), 3, True)\n\
     os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='mail-in', LISTEN_PID=str(os.getpid()))\n\
     os.execv(sys.argv[2], sys.argv[2:])";

#[test]
fn a_socket_of_systemd_is_listened_on_by_its_name() -> Result<()> {
    need!("python3");
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    let (node, user) = (&cluster.nodes[0], &cluster.users[0]);
    node.process.terminate()?;
    node.process.wait_ended(START_LIMIT)?;
    let path = cluster.root.parent().context("no folder")?.join("activated");
    let config = node.config.to_str().context("not UTF-8")?;
    let start = |name: &str| -> Result<Guarded> {
        tests::cluster::set(&node.config, "listen", &format!("lmtp = [\"systemd:{name}\"]"))?;
        let log = fs::File::options().append(true).open(&node.log)?;
        let mut command = Command::new("python3");
        command.args(["-c", ACTIVATE]).arg(&path).arg(berth::binary()?).args(["serve", "--config", config]);
        Guarded::start("activated node", command.stdout(log.try_clone()?).stderr(log))
    };
    let activated = start("mail-in")?;
    // Whoever connects before the node is ready waits in the socket.
    wait::until("a delivery", START_LIMIT, || python::run(DELIVER, &[&path.to_string_lossy(), &user.address(), "activated"]))?;
    ensure!(subjects(&node.doors.imap, &user.name, &user.password, "INBOX")? == ["activated"]);
    drop(activated);
    fs::remove_file(&path)?;

    let mut nameless = start("other")?;
    wait::until("its end", START_LIMIT, || {
        ensure!(nameless.check_running().is_err(), "it runs");
        Ok(())
    })?;
    ensure!(fs::read_to_string(&node.log)?.contains("systemd handed over no socket named \"other\""), "it does not say why");
    Ok(())
}

#[test]
fn whoever_shows_a_listed_certificate_may_deliver_from_anywhere() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    let folder = cluster.nodes[0].config.parent().context("no folder")?.to_owned();
    let authority = tls::Authority::new()?;
    fs::write(folder.join("authority.pem"), authority.pem())?;
    let set = |config: &Path, section: &str, lines: &str| tests::cluster::set(config, section, lines);
    set(&cluster.nodes[0].config, "tls", &format!("client_ca = {:?}", folder.join("authority.pem")))?;
    let text = fs::read_to_string(&cluster.nodes[0].config)?;
    // Nobody by their address.
    fs::write(&cluster.nodes[0].config, format!("{text}\n[lmtp]\nallow = []\nallow_certificates = [\"MX1.example.org\"]\n"))?;
    cluster.nodes[0].process.terminate()?;
    cluster.nodes[0].process.wait_ended(START_LIMIT)?;
    cluster.restart(0)?;
    let (doors, user) = (&cluster.nodes[0].doors, &cluster.users[0]);

    let mut plain = Lmtp::connect(&doors.lmtp)?;
    plain.command("MAIL FROM:<ada@tests.example>")?.expect(530)?;
    for (client, expected) in
        [(authority.client("mx1.example.org")?, 250), (authority.client("mx2.example.org")?, 554), (tls::trusting_client()?, 554)]
    {
        let mut lmtp = Lmtp::connect(&doors.lmtp)?;
        lmtp.command("STARTTLS")?.expect(220)?;
        lmtp.wire().start_tls_as(client)?;
        lmtp.command("LHLO tests.example")?.expect(250)?;
        lmtp.command("MAIL FROM:<ada@tests.example>")?.expect(expected)?;
        if expected == 250 {
            lmtp.command("RSET")?.expect(250)?;
            lmtp.deliver_ok("ada@tests.example", &[&user.address()], &mail::message("certificate", 0))?;
        }
    }
    // Another authority's word counts for nothing: the handshake fails.
    let mut lmtp = Lmtp::connect(&doors.lmtp)?;
    lmtp.command("STARTTLS")?.expect(220)?;
    let stranger = lmtp.wire().start_tls_as(tls::Authority::new()?.client("mx1.example.org")?);
    ensure!(stranger.is_err() || lmtp.command("LHLO tests.example").is_err(), "a certificate of another authority was taken");
    Ok(())
}
