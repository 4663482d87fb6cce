//! `cargo lab late`: a host is cut off from the file server in the middle of a RENAME or a DELETE, loses its users, and sends the request when it is back.
//!
//! Whoever holds the user then has to go on: what it acknowledged meanwhile is there, and no mailbox fails for longer than folders take to be looked at.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    clients::{imap::quoted, value::Value},
    lab::{self, Cluster, Lab, Node, Plan},
    wait,
};

use crate::fresh;

/// After so long whoever took over is served, and sees what arrived late: a look every ten seconds, and some.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the mailboxes are watched after the host is back: longer than an NFS client trusts what it knows of a folder.
const WATCHED: Duration = Duration::from_secs(90);

/// Each command once, beside the others' users.
pub fn run() -> Result<bool> {
    lab::enter()?;
    let lab = Lab::attach()?;
    let commands = ["RENAME A B", "DELETE A", "CREATE C"];
    let cluster = lab.start(&fresh("late"), &Plan { users: commands.len(), ..Plan::default() })?;
    for (number, command) in commands.iter().enumerate() {
        let user = format!("user{}", number + 1);
        println!("{command}: {}", round(&lab, &cluster, command, &user).with_context(|| (*command).to_owned())?);
    }
    lab.kill_all(cluster.nodes.len())?;
    Ok(true)
}

fn round(lab: &Lab, cluster: &Cluster, command: &str, user: &str) -> Result<String> {
    lab.wait_acquainted(cluster)?;
    let mut first = cluster.nodes.first().context("no nodes")?.open(user)?;
    first.command("CREATE A")?.ok()?;
    first.append("A", "", b"Subject: there before\r\n\r\nhello\r\n")?;
    first.logout()?;
    let holder = cluster.nodes.get(lab.holder(cluster, user)?).context("no holder")?;
    let other = cluster.nodes.iter().find(|node| node.name != holder.name).context("two nodes are needed")?;
    let mut cut_off = holder.open(user)?;
    lab.verb(&["cut", &holder.name, "nfs"])?;
    cut_off.send(command)?;
    // What was tried without an answer may be there as well.
    let mut tries = 0;
    wait::until(&format!("{user} to be served through {}", other.name), LIMIT, || {
        let mut imap = other.open(user)?;
        tries += 1;
        imap.append("A", "", format!("Subject: try {tries}\r\n\r\nhello\r\n").as_bytes())?;
        imap.logout()
    })?;
    lab.verb(&["heal"])?;
    let back = wait::now();
    let (mut seen, mut failed) = (String::new(), None);
    while back.elapsed() < WATCHED {
        match look(other, user) {
            Ok(found) => {
                let found = format!("{found:?}");
                if found != seen {
                    println!("{:6.1} s after the host is back: {found}", back.elapsed().as_secs_f64());
                    seen = found;
                }
                failed = None;
            }
            Err(error) => {
                let since = *failed.get_or_insert_with(wait::now);
                println!("{:6.1} s after the host is back: {error:#}", back.elapsed().as_secs_f64());
                ensure!(since.elapsed() < LIMIT, "mailboxes go on failing: {error:#}");
            }
        }
        thread::sleep(Duration::from_secs(1));
    }
    let found = look(other, user)?;
    for subject in ["there before".to_owned(), format!("try {tries}")] {
        let times: usize = found.values().map(|subjects| subjects.iter().filter(|found| **found == subject).count()).sum();
        ensure!(times == 1, "{subject:?} is there {times} times: {found:?}");
    }
    Ok(seen)
}

/// The mailboxes that have messages, or are new, with the subjects.
fn look(node: &Node, user: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut imap = node.open(user)?;
    let listed = imap.command("LIST \"\" *")?.ok()?;
    let names = listed.all("LIST").map(|line| line.values.last().context("LIST without a name").and_then(Value::text));
    let mut found = BTreeMap::new();
    for name in names.collect::<Result<Vec<_>>>()? {
        let reply = imap.command(&format!("EXAMINE {}", quoted(&name)))?.ok()?;
        let exists = reply.exists().context("no EXISTS")?;
        let bodies = if exists > 0 { imap.bodies()? } else { BTreeMap::new() };
        ensure!(bodies.len() == usize::try_from(exists)?, "{name} has not all of its {exists} messages");
        if exists > 0 || name.len() == 1 {
            let subject = |body: &Vec<u8>| String::from_utf8_lossy(body).lines().next().unwrap_or_default().replace("Subject: ", "");
            found.insert(name, bodies.values().map(subject).collect());
        }
    }
    imap.logout()?;
    Ok(found)
}
