//! Certificates that come, change and are told of while a node runs.

mod acme;

use std::{fs, time::Duration};

use serde_json::Value;
use tests::{
    Context, Result, bail,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure, tls, wait,
};

/// A reload comes within seconds of a changed file.
const RELOAD_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_further_certificate_is_served_by_name_without_a_restart_and_shown() -> Result<()> {
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    let (node, user) = (&cluster.nodes[0], &cluster.users[0]);
    let folder = node.config.parent().context("no folder")?;
    let mut session = Imap::connect_tls(&node.doors.imaps)?;
    session.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?.ok()?;

    let first = tls::certificate(&node.doors.imaps)?;
    let made = rcgen::generate_simple_self_signed(["mail.example.net".to_owned()])?;
    let (file, key) = (folder.join("net.pem"), folder.join("net-key.pem"));
    fs::write(&file, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    let text = fs::read_to_string(&node.config)?;
    let more = format!("[[tls.sni]]\ncertificate = {:?}\nkey = {:?}\n", file, key);
    fs::write(&node.config, format!("{text}\n{more}"))?;
    let shown = wait::until("the node to serve both", RELOAD_LIMIT, || {
        let shown: Value = serde_json::from_str(&cluster.command(&["tls", "show", "--json"])?)?;
        let served = shown["certificates"].as_array().context("no certificates")?.iter().filter(|row| row["served"] == true).count();
        ensure!(served == 2, "{shown}");
        Ok(shown)
    })?;
    ensure!(shown["certificates"][1]["names"][0] == "mail.example.net" && shown["running"] == true, "{shown}");
    ensure!(shown["certificates"][1]["days_left"].as_i64().is_some_and(|days| days > 365), "{shown}");

    for address in [&node.doors.imaps, &node.doors.pop3s] {
        ensure!(tls::certificate_for(address, "mail.example.net", &[])? == made.cert.der().to_vec());
        ensure!(tls::certificate_for(address, "localhost", &[])? == first);
        ensure!(tls::certificate_for(address, "elsewhere.example.org", &[])? == first, "who asks for another name is shown the first");
    }
    ensure!(tls::certificate_for(&node.doors.imaps, "localhost", &["imap"]).is_ok());
    ensure!(tls::certificate_for(&node.doors.imaps, "localhost", &["http/1.1"]).is_err(), "a web client is no IMAP client");
    session.command("NOOP")?.ok()?;

    // A certificate that ended is called so.
    let mut params = rcgen::CertificateParams::new(["mail.example.net".to_owned()])?;
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    fs::write(&file, params.self_signed(&made.signing_key)?.pem())?;
    wait::until("the node's warning", RELOAD_LIMIT, || {
        ensure!(fs::read_to_string(&node.log)?.contains("a certificate is over"));
        Ok(())
    })?;
    let Err(error) = cluster.command(&["tls", "show"]) else { bail!("a certificate that ended is no error") };
    ensure!(format!("{error:#}").contains("is over: clients refuse it"), "{error:#}");
    session.command("NOOP")?.ok()?;
    session.logout()
}
