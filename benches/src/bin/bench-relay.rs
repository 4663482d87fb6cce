//! `cargo run -p benches --bin bench-relay`: memory and CPU of relayed idle IMAP sessions, on the node that clients reach and on the one that serves.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use benches::usage;
use clap::Parser;
use serde_json::Value;
use tests::{
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    process::Process,
    site::User,
    wait,
};

/// Measures relayed sessions that sit in IDLE.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions; each takes one descriptor here and one on the first node.
    #[arg(long, default_value_t = 3_000)]
    sessions: usize,
}

/// Sessions of one user: below `limits.sessions_per_user`.
const SESSIONS_PER_USER: usize = 50;
/// How long idle CPU is watched.
const WATCHED: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // About half of the users are placed on the other node.
    let users = arguments.sessions.div_ceil(SESSIONS_PER_USER) * 5 / 2 + 10;
    let cluster = Cluster::start(&Demo { nodes: 2, users, dir: None })?;
    let [ingress, holder] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes were asked for") };
    let far = users_of(&cluster, &holder.doors.name)?;
    ensure!(far.len() * SESSIONS_PER_USER >= arguments.sessions, "only {} users are on the other node", far.len());
    let open = |number: usize| -> Result<Imap> {
        let user = far.get(number % far.len()).context("nobody is on the other node")?;
        let mut imap = Imap::login(&ingress.doors.imap, &user.name, &user.password)?;
        imap.select("INBOX")?;
        imap.idle()?;
        Ok(imap)
    };
    let nodes = [ingress.process, holder.process];
    let warm = (0..20).map(open).collect::<Result<Vec<_>>>()?;
    let before = memory_of(nodes)?;
    let started = wait::now();
    let sessions = (0..arguments.sessions).map(open).collect::<Result<Vec<_>>>()?;
    let took = started.elapsed();
    let after = memory_of(nodes)?;
    let busy = cpu_of(nodes)?;
    std::thread::sleep(WATCHED);
    let still_busy = cpu_of(nodes)?;
    println!("{} relayed idle sessions, opened in {took:.1?}", sessions.len());
    for (index, name) in ["ingress", "holder"].into_iter().enumerate() {
        let bytes = after[index].saturating_sub(before[index]) / sessions.len().max(1) as u64;
        let ticks = still_busy[index].saturating_sub(busy[index]);
        println!("{name}: {bytes} bytes per session, {ticks} clock ticks of CPU in {WATCHED:?}");
    }
    drop((warm, sessions));
    Ok(())
}

/// Logs everybody in once, so that each has a holder, and gives those of one node.
fn users_of(cluster: &Cluster, node: &str) -> Result<Vec<User>> {
    for user in &cluster.users {
        Imap::login(&cluster.nodes[0].doors.imap, &user.name, &user.password)?.logout()?;
    }
    let said: Value = serde_json::from_str(&cluster.command(&["who", "--json", "--node", node])?)?;
    let held = said["held"].as_array().context("no leases in what berth who says")?;
    let is_there = |user: &&User| held.iter().any(|held| held["user"] == user.name.as_str());
    Ok(cluster.users.iter().filter(is_there).map(|user| User { name: user.name.clone(), password: user.password.clone() }).collect())
}

fn memory_of(nodes: [Process; 2]) -> Result<[u64; 2]> {
    Ok([usage::settled_bytes(&nodes[..1])?, usage::settled_bytes(&nodes[1..])?])
}

/// Clock ticks of CPU used so far, user and system.
fn cpu_of(nodes: [Process; 2]) -> Result<[u64; 2]> {
    let ticks = |process: Process| -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
        Ok(rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
    };
    Ok([ticks(nodes[0])?, ticks(nodes[1])?])
}
