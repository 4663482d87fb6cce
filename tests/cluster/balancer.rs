//! Behind a load balancer: PROXY headers, health answers, and HAProxy itself.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tests::{
    Context, Result,
    clients::{
        imap::{Imap, Status},
        lmtp::Lmtp,
        wire::{Wire, was_closed},
    },
    cluster::{Cluster, Demo},
    ensure, need, packages,
    process::{self, Guarded},
    site::Doors,
    wait,
};

use super::{holder_and_other, open};

const SOON: Duration = Duration::from_secs(20);
/// Version 1, for a client at 192.0.2.77.
const HEADER: &[u8] = b"PROXY TCP4 192.0.2.77 198.51.100.1 4242 143\r\n";

/// Version 2 of [`HEADER`], with a TLV of a kind that nobody knows.
fn version_2() -> Vec<u8> {
    let addresses = [192, 0, 2, 77, 198, 51, 100, 1, 0x10, 0x92, 0, 143, 0xee, 0, 3, 1, 2, 3];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12".as_slice(), &addresses].concat()
}

/// Settings of a node whose IMAP and LMTP doors are behind a load balancer on this host.
fn behind_a_balancer(doors: &Doors) -> String {
    format!("proxy_from = [\"127.0.0.0/8\", \"::1\"]\nproxy_on = [\"{}\", \"{}\", \"{}\"]", doors.imap, doors.imaps, doors.lmtp)
}

fn cluster_behind_a_balancer(nodes: usize) -> Result<Cluster> {
    let mut cluster = Cluster::start(&Demo { nodes, users: 1, dir: None })?;
    for index in 0..nodes {
        let settings = behind_a_balancer(&cluster.nodes[index].doors);
        cluster.set_and_restart(index, "listen", &settings)?;
    }
    Ok(cluster)
}

#[test]
fn behind_a_load_balancer_everything_goes_by_the_clients_own_address() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let user = cluster.users[0].clone();
    open(&cluster.nodes[0].doors, &user)?.logout()?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let settings = behind_a_balancer(&cluster.nodes[other].doors);
    cluster.set_and_restart(other, "listen", &settings)?;
    open(&cluster.nodes[holder].doors, &user)?.logout()?;
    let (holder, other) = holder_and_other(&cluster, &user)?;
    let doors = cluster.nodes[other].doors.clone();

    let mut imap = Imap::from_wire(with_header(&doors.imap, HEADER)?)?;
    let refused = imap.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?;
    ensure!(refused.status == Status::No, "a client elsewhere is no client on loopback: {refused:?}");
    imap.start_tls()?;
    imap.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?.ok()?;
    imap.select("INBOX")?;

    let said: Value = serde_json::from_str(&cluster.command(&["who", "--json", &user.name])?)?;
    ensure!(said["sessions"][0]["client"] == "192.0.2.77:4242", "{said}");
    for (node, line) in [(other, "connection start"), (holder, "relayed session start")] {
        let log = fs::read_to_string(&cluster.nodes[node].log)?;
        let named = log.lines().any(|text| text.contains(line) && text.contains("client=192.0.2.77:4242"));
        ensure!(named, "the client's address is not in a line {line:?} of\n{log}");
    }
    imap.logout()?;

    // Version 2, before TLS.
    let mut wire = with_header(&doors.imaps, &version_2())?;
    wire.start_tls()?;
    Imap::from_wire(wire)?.logout()?;

    // Who may deliver goes by the client, not by the balancer.
    let mut lmtp = Lmtp::from_wire(with_header(&doors.lmtp, HEADER)?);
    let refused = format!("{:?}", lmtp.reply());
    ensure!(!refused.contains("220"), "a stranger may deliver: {refused}");
    let local = String::from_utf8_lossy(HEADER).replace("192.0.2.77", "127.0.0.77");
    let mut lmtp = Lmtp::from_wire(with_header(&doors.lmtp, local.as_bytes())?);
    lmtp.reply()?.expect(220)?;
    lmtp.command("LHLO mx.example")?.expect(250)?;
    lmtp.deliver_ok("a@mx.example", &[&user.address()], b"Subject: hello\r\n\r\nhello\r\n")?;
    let mut imap = open(&cluster.nodes[holder].doors, &user)?;
    let bodies = imap.bodies()?;
    let message = String::from_utf8_lossy(bodies.values().next().context("no message")?).into_owned();
    ensure!(message.contains("[127.0.0.77]"), "no Received line with the client's address: {message}");
    imap.logout()
}

#[test]
fn a_missing_or_broken_proxy_header_is_refused_and_the_log_says_what_to_do() -> Result<()> {
    let cluster = cluster_behind_a_balancer(1)?;
    let doors = &cluster.nodes[0].doors;
    for wrong in [
        b"a1 CAPABILITY\r\na2 NOOP\r\n".as_slice(),
        b"PROXY TCP4 nonsense here 1 2\r\n",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0],
    ] {
        let mut wire = with_header(&doors.imap, wrong)?;
        let said = wire.line();
        ensure!(said.as_ref().is_err_and(was_closed), "{} was answered {said:?}", wrong.escape_ascii());
    }
    let log = wait::until("the log", SOON, || {
        let log = fs::read_to_string(&cluster.nodes[0].log)?;
        ensure!(log.contains("can't be understood"), "not yet");
        Ok(log)
    })?;
    ensure!(log.contains("no PROXY header, though listen.proxy_from names this address"), "{log}");
    // A balancer that says nothing is not waited for long.
    let mut wire = Wire::connect(&doors.imap)?;
    let said = wire.line();
    ensure!(said.as_ref().is_err_and(was_closed), "{said:?}");
    // Its own health checks are welcome: LOCAL, and UNKNOWN.
    for own in [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".as_slice(), b"PROXY UNKNOWN\r\n"] {
        Imap::from_wire(with_header(&doors.imap, own)?)?.logout()?;
    }
    Ok(())
}

#[test]
fn from_an_address_that_is_not_listed_a_proxy_header_is_rubbish() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    // Not listed, and listed for another door.
    for settings in [
        "proxy_from = [\"192.0.2.0/24\"]".to_owned(),
        format!("proxy_from = [\"127.0.0.1\"]\nproxy_on = [\"{}\"]", cluster.nodes[0].doors.pop3),
    ] {
        cluster.set_and_restart(0, "listen", &settings)?;
        let mut wire = with_header(&cluster.nodes[0].doors.imap, HEADER)?;
        ensure!(wire.line()?.starts_with(b"* OK"), "no greeting");
        let answer = wire.line()?;
        ensure!(answer.starts_with(b"PROXY BAD"), "{}", answer.escape_ascii());
        open(&cluster.nodes[0].doors, &cluster.users[0])?.logout()?;
    }
    Ok(())
}

#[test]
fn curl_reads_mail_through_a_proxy_header() -> Result<()> {
    need!("curl");
    let cluster = cluster_behind_a_balancer(1)?;
    let (doors, user) = (&cluster.nodes[0].doors, &cluster.users[0]);
    for (scheme, address) in [("imap", &doors.imap), ("imaps", &doors.imaps)] {
        let curl = |header: &[&str]| {
            let mut curl = Command::new(packages::find("curl").context("no curl")?);
            curl.args(["-sS", "--max-time", "20", "--insecure", "-u", &format!("{}:{}", user.name, user.password)]);
            process::run(curl.args(header).arg(format!("{scheme}://{address}/")), Duration::from_secs(40))
        };
        let read = curl(&["--haproxy-protocol"])?;
        ensure!(read.status.success(), "{scheme}: {}", process::said(&read));
        ensure!(!curl(&[])?.status.success(), "{scheme}: a balancer without a header was served");
    }
    Ok(())
}

/// Connects, sends the header; the greeting is not read yet.
fn with_header(address: &str, header: &[u8]) -> Result<Wire> {
    let mut wire = Wire::connect(address)?;
    wire.send(header)?;
    Ok(wire)
}

/// Everything that is answered to `request`.
pub(super) fn ask(address: &str, request: &[u8]) -> Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(SOON))?;
    socket.write_all(request)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "takes the shared directory away from under the nodes")]
fn health_checks_tell_up_draining_and_suspended_apart() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let (http, agent) = (cluster.spare_address(0), cluster.spare_address(1));
    cluster.set_and_restart(0, "listen", &format!("health = [\"{http}\"]\nhealth_agent = [\"{agent}\"]"))?;
    let get = b"GET /health HTTP/1.1\r\nHost: node1\r\n\r\n".as_slice();
    let becomes = |status: &str, word: &str, agent_word: &str| {
        wait::until(&format!("the answer {word}"), SOON, || {
            let answer = ask(&http, get)?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(&format!("\r\n\r\n{word}\n")), "{answer}");
            let said = ask(&agent, b"")?;
            ensure!(said == format!("{agent_word}\n"), "{said}");
            Ok(())
        })
    };
    becomes("200", "up", "ready up")?;
    // What HAProxy asks unless it is told otherwise, and what else may come.
    ensure!(ask(&http, b"OPTIONS / HTTP/1.0\r\n\r\n")?.starts_with("HTTP/1.0 200"));
    ensure!(ask(&http, b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")?.ends_with("\r\n\r\n"));
    ensure!(ask(&http, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")?.starts_with("HTTP/1.1 404"));
    ensure!(ask(&http, b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")?.starts_with("HTTP/1.1 405"));
    ensure!(!ask(&http, b"a1 LOGIN ada secret\r\n\r\n")?.contains("200"));
    // Askers that say nothing take the places of others for a few seconds only.
    let silent = (0..100).map(|_| TcpStream::connect(&http)).collect::<Result<Vec<_>, _>>()?;
    becomes("200", "up", "ready up")?;
    drop(silent);

    let name = cluster.nodes[0].doors.name.clone();
    cluster.command(&["drain", &name, "--no-wait"])?;
    becomes("503", "draining", "drain")?;
    cluster.command(&["undrain", &name])?;
    becomes("200", "up", "ready up")?;

    // The shared directory is gone from under the nodes.
    let away = cluster.root.with_extension("away");
    fs::rename(&cluster.root, &away)?;
    let suspended = becomes("503", "suspended", "down #suspended");
    fs::rename(&away, &cluster.root)?;
    suspended?;
    becomes("200", "up", "ready up")
}

#[test]
fn haproxy_hands_clients_on_and_follows_a_drain() -> Result<()> {
    need!("haproxy");
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    let front = cluster.spare_address(9);
    let mut servers = String::new();
    for index in 0..2 {
        let health = cluster.spare_address(u16::try_from(index)?);
        cluster.set_and_restart(
            index,
            "listen",
            &format!("proxy_from = [\"127.0.0.1\"]\nproxy_on = [\"{}\"]\nhealth = [\"{health}\"]", cluster.nodes[index].doors.imap),
        )?;
        let port = health.rsplit(':').next().context("no port")?;
        let doors = &cluster.nodes[index].doors;
        servers += &format!("  server {} {} send-proxy-v2 check port {port} inter 200ms fall 1 rise 1\n", doors.name, doors.imap);
    }
    let folder = cluster.root.parent().context("the shared directory has no folder above")?;
    let file = folder.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
         frontend imap\n  bind {front}\n  default_backend berth\n\
         backend berth\n  balance roundrobin\n  option httpchk GET /health\n  http-check expect status 200\n{servers}"
    );
    fs::write(&file, text)?;
    let log = fs::File::create(folder.join("haproxy.log"))?;
    let mut command = Command::new(packages::find("haproxy").context("no haproxy")?);
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let _haproxy = Guarded::start("haproxy", &mut command)?;
    let user = cluster.users[0].clone();
    let through = |node: &str| -> Result<()> {
        let mut imap = Imap::login(&front, &user.name, &user.password)?;
        imap.select("INBOX")?;
        let said: Value = serde_json::from_str(&cluster.command(&["who", "--json", &user.name])?)?;
        ensure!(said["sessions"][0]["ingress"] == node, "{said}");
        imap.logout()
    };
    let names = [cluster.nodes[0].doors.name.clone(), cluster.nodes[1].doors.name.clone()];
    for name in &names {
        wait::until(&format!("a session through {name}"), SOON, || through(name))?;
    }
    cluster.command(&["drain", &names[0], "--no-wait"])?;
    // Everybody is sent to the other node once HAProxy has noticed.
    wait::until("the drain to be followed", SOON, || (0..4).try_for_each(|_| through(&names[1])))
}
