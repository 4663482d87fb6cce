//! Certificates that the nodes get and renew themselves, from a real authority (Pebble).

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde_json::Value;
use tests::{
    Context, Result, bail, berth,
    clients::imap::Imap,
    cluster::{self, Cluster, Demo},
    ensure, need,
    peers::pebble::{Pebble, Ports},
    tls, wait,
};

const NAME: &str = "mail.berth.test";
/// A look every 15 s, an order, and a look of the other nodes.
const ORDER_LIMIT: Duration = Duration::from_secs(180);
/// Two thirds of the certificate's life, then an order.
const RENEWAL_LIMIT: Duration = Duration::from_secs(400);
/// Long enough for both nodes to see the first before it is renewed.
const VALIDITY: Duration = Duration::from_secs(90);
/// What none of these tests waits for the end of.
const LONG: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Pebble beside a cluster; `http` is the address where it asks for proofs.
fn pebble(cluster: &Cluster, validity: Duration) -> Result<(Pebble, String)> {
    let http = cluster.spare_address(0);
    let port = http.rsplit_once(':').context("no port")?.1.parse()?;
    // Whoever asks for proofs by a handshake is led to the first node.
    let tls = cluster.nodes[0].doors.imaps.rsplit_once(':').context("no port")?.1.parse()?;
    let ports = Ports {
        http: port,
        tls,
        directory: cluster.spare_address(1),
        names_are_at: "127.0.0.1".to_owned(),
        names: cluster.spare_address(2),
        management: cluster.spare_address(3),
    };
    let folder = cluster.root.parent().context("no folder")?.join("pebble");
    Ok((Pebble::start(&folder, &folder, &ports, validity)?, http))
}

/// What a node shows who asks for the name, unless it is the demo's own certificate.
fn shown(cluster: &Cluster, node: usize) -> Result<Vec<u8>> {
    let address = &cluster.nodes[node].doors.imaps;
    let shown = tls::certificate_for(address, NAME, &[])?;
    ensure!(shown != tls::certificate_for(address, "localhost", &[])?, "node {node} shows its own certificate");
    Ok(shown)
}

/// What every node shows, once that is the same and not `old`.
fn shown_by_all(cluster: &Cluster, old: &[u8], limit: Duration) -> Result<Vec<u8>> {
    wait::until("every node to show the same new certificate", limit, || {
        let first = shown(cluster, 0)?;
        ensure!(first != old, "the old one is still shown");
        for node in 1..cluster.nodes.len() {
            ensure!(shown(cluster, node)? == first, "node {node} shows another one");
        }
        Ok(first)
    })
}

fn command(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<String> {
    let mut all = arguments.to_vec();
    all.extend(["--config", cluster.nodes[node].config.to_str().context("not UTF-8")?]);
    berth::run_ok(&all)
}

fn orders(cluster: &Cluster) -> Result<usize> {
    let logs = cluster.nodes.iter().map(|node| Ok(fs::read_to_string(&node.log)?)).collect::<Result<Vec<_>>>()?;
    Ok(logs.iter().map(|log| log.matches("ordering a certificate by ACME").count()).sum())
}

/// Every file below acme/ that has something in it.
fn secrets(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(secrets(&entry.path())?);
        } else if metadata.len() > 0 {
            found.push(entry);
        }
    }
    Ok(found)
}

#[test]
fn a_certificate_by_acme_is_got_by_one_node_used_by_all_and_renewed_before_its_end() -> Result<()> {
    need!("pebble", "pebble-challtestsrv");
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    let (pebble, http) = pebble(&cluster, VALIDITY)?;
    // Only the first node can be asked for proofs, whichever node orders.
    cluster::set(&cluster.nodes[0].config, "listen", &format!("acme = [\"{http}\"]"))?;
    cluster.configure(&pebble.settings(NAME))?;
    let first = shown_by_all(&cluster, &[], ORDER_LIMIT)?;
    ensure!(orders(&cluster)? == 1, "{} orders for one certificate", orders(&cluster)?);

    let user = cluster.users[0].clone();
    let mut session = Imap::connect_tls(&cluster.nodes[1].doors.imaps)?;
    session.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?.ok()?;
    let files = secrets(&cluster.root.join("acme"))?;
    ensure!(files.len() >= 2, "an account and a certificate: {files:?}");
    for file in &files {
        ensure!(file.metadata()?.permissions().mode() & 0o777 == 0o600, "{}", file.path().display());
    }

    // Nobody asks for this one.
    let times = |cluster: &Cluster| -> Result<(i64, i64)> {
        // Fails where something needs attention, as a certificate of some minutes soon does.
        let said = command(cluster, 0, &["tls", "show", "--json"])?;
        let row = &serde_json::from_str::<Value>(&said)?["certificates"][1];
        Ok((row["not_before"].as_i64().context("no begin")?, row["not_after"].as_i64().context("no end")?))
    };
    let (_, end) = times(&cluster)?;
    let second = shown_by_all(&cluster, &first, RENEWAL_LIMIT)?;
    let (begin, _) = times(&cluster)?;
    ensure!(begin < end, "it was renewed after its end");
    session.command("NOOP")?.ok()?;

    // The node that can't be asked for proofs orders, the other one answers.
    command(&cluster, 1, &["tls", "renew"])?;
    let third = shown_by_all(&cluster, &second, ORDER_LIMIT)?;
    ensure!(fs::read_to_string(&cluster.nodes[1].log)?.contains("ordering a certificate by ACME"));
    ensure!(third != first);
    session.command("NOOP")?.ok()?;
    let row: Value = serde_json::from_str(&command(&cluster, 1, &["tls", "show", "--json"])?)?;
    ensure!(row["acme"]["names"][0] == NAME && row["acme"]["failures"] == 0 && row["acme"]["renewal"].is_i64(), "{row}");
    ensure!(row["certificates"][1]["served"] == true && row["certificates"][1]["names"][0] == NAME, "{row}");
    // The one in use and the one before, and one account.
    wait::until("old certificates to go", ORDER_LIMIT, || {
        let files = secrets(&cluster.root.join("acme"))?;
        ensure!(files.len() == 3, "{files:?}");
        Ok(())
    })?;
    session.logout()
}

#[test]
fn a_failed_order_is_explained_waits_for_all_and_is_made_again_when_asked() -> Result<()> {
    need!("pebble", "pebble-challtestsrv");
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    let (pebble, http) = pebble(&cluster, LONG)?;
    // Nobody listens where the authority asks.
    cluster.configure(&pebble.settings(NAME))?;
    let why = wait::until("the failure to be told", ORDER_LIMIT, || {
        let Err(error) = command(&cluster, 0, &["tls", "show"]) else { bail!("it is not known as a failure") };
        let error = format!("{error:#}");
        ensure!(error.contains("1 orders in a row failed, the last one on node"), "{error}");
        Ok(error)
    })?;
    ensure!(why.contains("the next order is made at 2"), "{why}");
    let logs: String = cluster.nodes.iter().map(|node| fs::read_to_string(&node.log)).collect::<std::io::Result<_>>()?;
    for words in ["no certificate by ACME", "port 80 of each name must reach `listen.acme` of some node", NAME] {
        ensure!(logs.contains(words), "{words:?} is missing in the logs");
    }
    // Clients are not kept from the certificate that there is.
    ensure!(tls::certificate_for(&cluster.nodes[0].doors.imaps, NAME, &[]).is_ok());

    // The reason goes. A restarted node waits like every other, until it is asked.
    cluster.set_and_restart(1, "listen", &format!("acme = [\"{http}\"]"))?;
    ensure!(orders(&cluster)? == 1, "the others tried as well, at once");
    command(&cluster, 0, &["tls", "renew"])?;
    shown_by_all(&cluster, &[], ORDER_LIMIT)?;
    command(&cluster, 1, &["tls", "show"])?;
    Ok(())
}

#[test]
fn names_are_proved_in_handshakes_by_whichever_node_is_asked() -> Result<()> {
    need!("pebble", "pebble-challtestsrv");
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    let (pebble, _) = pebble(&cluster, LONG)?;
    let other = "imap.berth.test";
    let settings = pebble.settings(&format!("{NAME}\", \"{other}"));
    cluster.configure(&format!("{settings}challenge = \"tls-alpn-01\"\n"))?;
    let first = shown_by_all(&cluster, &[], ORDER_LIMIT)?;
    ensure!(tls::certificate_for(&cluster.nodes[1].doors.imaps, other, &[])? == first, "one certificate for both names");
    let log = fs::read_to_string(&cluster.nodes[0].log)?;
    for name in [NAME, other] {
        ensure!(log.contains(&format!("an ACME authority looked at {name}")), "nobody asked for {name}");
    }
    // The node that nobody asks orders, the first one proves.
    command(&cluster, 1, &["tls", "renew"])?;
    let second = shown_by_all(&cluster, &first, ORDER_LIMIT)?;
    ensure!(fs::read_to_string(&cluster.nodes[1].log)?.contains("ordering a certificate by ACME"));
    // Without an order there is nothing to be seen, and clients are served.
    let said = tls::certificate_for(&cluster.nodes[0].doors.imaps, NAME, &["acme-tls/1"]);
    ensure!(said.is_err(), "a proof without an order");
    ensure!(shown(&cluster, 0)? == second);
    let user = cluster.users[0].clone();
    let mut session = Imap::connect_tls(&cluster.nodes[0].doors.imaps)?;
    session.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?.ok()?;
    session.logout()
}

#[test]
fn when_the_node_that_orders_is_killed_another_one_does() -> Result<()> {
    need!("pebble", "pebble-challtestsrv");
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, ..Demo::default() })?;
    let (pebble, http) = pebble(&cluster, LONG)?;
    pebble.pause()?;
    let settings = pebble.settings(NAME);
    let add = |cluster: &Cluster, node: usize| -> Result<()> {
        let text = fs::read_to_string(&cluster.nodes[node].config)?;
        Ok(fs::write(&cluster.nodes[node].config, format!("{text}\n{settings}"))?)
    };
    // The first node begins an order, and gets no answer.
    add(&cluster, 0)?;
    let ordering = |cluster: &Cluster| -> Result<Value> {
        let root = cluster.root.join("acme");
        let names = fs::read_dir(&root)?.flatten().filter(|entry| entry.file_name() != "challenges");
        let names = names.flat_map(|folder| fs::read_dir(folder.path())).flatten().flatten();
        Ok(names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    wait::until("the first node to order", ORDER_LIMIT, || {
        let names = ordering(&cluster)?;
        ensure!(names.to_string().contains(",held,node1,"), "{names}");
        Ok(())
    })?;
    cluster.nodes[0].process.kill()?;
    pebble.resume()?;
    add(&cluster, 1)?;
    cluster.set_and_restart(1, "listen", &format!("acme = [\"{http}\"]"))?;
    wait::until("the second node to get one", ORDER_LIMIT, || shown(&cluster, 1))?;
    let names = ordering(&cluster)?;
    ensure!(names.to_string().contains(",free,node2,"), "{names}");
    ensure!(pebble.log()?.contains("Issued certificate"), "{}", pebble.log()?);
    Ok(())
}
