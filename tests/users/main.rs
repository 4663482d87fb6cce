//! Who may log in: sources of users, SASL and tokens against real servers and clients that we did not write.

mod guessing;
mod pam;
mod sasl;
mod sources;

use std::path::PathBuf;

use tests::{
    Context, Result,
    clients::{
        imap::{Imap, Status},
        lmtp::Lmtp,
    },
    cluster::{Cluster, Demo},
    ensure,
};

/// A cluster of so many nodes whose configuration has these lines too.
fn cluster(nodes: usize, lines: &str) -> Result<Cluster> {
    let mut cluster = Cluster::start(&Demo { nodes, users: 2, ..Demo::default() })?;
    if !lines.is_empty() {
        cluster.configure(lines)?;
    }
    Ok(cluster)
}

/// Certificate and key of the demo's nodes.
fn certificate(cluster: &Cluster) -> Result<(PathBuf, PathBuf)> {
    let folder = cluster.nodes[0].config.parent().context("no folder")?;
    Ok((folder.join("certificate.pem"), folder.join("key.pem")))
}

/// LOGIN's status and response code.
fn login(imap: &str, user: &str, password: &str) -> Result<(Status, String)> {
    let mut imap = Imap::connect(imap)?;
    let reply = imap.command(&format!("LOGIN \"{user}\" \"{password}\""))?;
    Ok((reply.status, reply.text.code.clone().unwrap_or_default()))
}

fn ensure_login(imap: &str, user: &str, password: &str) -> Result<()> {
    let (status, code) = login(imap, user, password)?;
    ensure!(status == Status::Ok, "{user} was answered {status:?} {code}");
    Ok(())
}

fn ensure_refused(imap: &str, user: &str, password: &str, why: &str) -> Result<()> {
    let (status, code) = login(imap, user, password)?;
    ensure!(status == Status::No && code == why, "{user} was answered {status:?} [{code}], not [{why}]");
    Ok(())
}

/// What RCPT is answered.
fn rcpt(lmtp: &str, user: &str) -> Result<String> {
    let mut lmtp = Lmtp::connect(lmtp)?;
    lmtp.command("LHLO tests.example")?;
    lmtp.command("MAIL FROM:<>")?;
    Ok(format!("{:?}", lmtp.command(&format!("RCPT TO:<{user}@localhost>"))?))
}

/// All that the nodes logged.
fn logs(cluster: &Cluster) -> Result<String> {
    let logs: Result<Vec<String>> = cluster.nodes.iter().map(|node| Ok(std::fs::read_to_string(&node.log)?)).collect();
    Ok(logs?.concat())
}
