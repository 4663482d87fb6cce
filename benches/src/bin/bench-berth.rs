//! `cargo bench-berth`: measures a started demo, and a private Dovecot beside it where asked.

use anyhow::{Context, Result};
use benches::{
    load::{self, Load},
    memory,
    table::{Row, markdown},
};
use clap::Parser;
use tests::{
    cluster::{Cluster, Demo},
    packages,
    peers::dovecot::Dovecot,
    process::Process,
    site::{Doors, User},
};

/// Measures deliveries and logins per second, and memory per idle connection.
#[derive(Debug, Parser)]
struct Arguments {
    /// Nodes of the demo.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Users.
    #[arg(long, default_value_t = 20)]
    users: usize,
    /// Messages to deliver.
    #[arg(long, default_value_t = 5_000)]
    messages: usize,
    /// Logins.
    #[arg(long, default_value_t = 2_000)]
    logins: usize,
    /// Connections at a time, for both.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Idle connections.
    #[arg(long, default_value_t = 500)]
    idle: usize,
    /// Measure a Dovecot of this machine too (Debian: dovecot-imapd dovecot-pop3d dovecot-lmtpd).
    #[arg(long)]
    dovecot: bool,
    /// Only Dovecot, to try the method itself.
    #[arg(long, requires = "dovecot")]
    no_berth: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut servers = Vec::new();
    let mut measured = Vec::new();
    if !arguments.no_berth {
        let cluster = Cluster::start(&Demo { nodes: arguments.nodes, users: arguments.users, dir: None })?;
        let processes: Vec<Process> = cluster.nodes.iter().map(|node| node.process).collect();
        servers.push(format!("Berth, {} node(s)", arguments.nodes));
        measured.push(measure(&arguments, &cluster.doors(), &cluster.users, &processes)?);
    }
    if arguments.dovecot {
        let names: Vec<&str> = packages::DOVECOT.iter().map(|program| program.name).collect();
        if let Some(why) = packages::missing(&names) {
            anyhow::bail!("cannot measure Dovecot: {why}");
        }
        let users = (1..=arguments.users).map(|n| User { name: format!("user{n}"), password: "bench".to_owned() }).collect::<Vec<_>>();
        let dovecot = Dovecot::start(&users)?;
        servers.push("Dovecot".to_owned());
        measured.push(measure(&arguments, std::slice::from_ref(dovecot.doors()), &users, &[dovecot.process()?])?);
    }
    print!("{}", markdown(&servers, &rows(&measured)));
    Ok(())
}

/// Deliveries per second, logins per second, KiB per idle connection.
type Figures = [f64; 3];

fn measure(arguments: &Arguments, nodes: &[Doors], users: &[User], processes: &[Process]) -> Result<Figures> {
    let connections = arguments.connections;
    // Every account is opened once before anything is measured: a first login makes the mailboxes.
    load::deliveries_per_second(nodes, users, Load { count: users.len(), connections: 1 })?;
    let deliveries = load::deliveries_per_second(nodes, users, Load { count: arguments.messages, connections })?;
    let logins = load::logins_per_second(nodes, users, Load { count: arguments.logins, connections })?;
    let before = memory::settled_bytes(processes)?;
    let idle = load::idle_sessions(nodes, users, arguments.idle).context("idle sessions")?;
    let after = memory::settled_bytes(processes)?;
    drop(idle);
    let grown = f64::from(u32::try_from(after.saturating_sub(before) / 1024)?);
    Ok([deliveries, logins, grown / f64::from(u32::try_from(arguments.idle.max(1))?)])
}

fn rows(measured: &[Figures]) -> Vec<Row> {
    let names =
        [("LMTP deliveries per second", true), ("IMAP LOGIN, SELECT, LOGOUT per second", true), ("KiB per idle IMAP connection", false)];
    let row = |(index, (measure, more_is_better)): (usize, (&'static str, bool))| Row {
        measure,
        values: measured.iter().map(|figures| figures[index]).collect(),
        more_is_better,
    };
    names.into_iter().enumerate().map(row).collect()
}
