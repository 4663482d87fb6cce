//! The servers that are measured, seen alike: where to knock, which processes to watch, and a fresh user for every round.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    cluster::{Cluster, Demo},
    peers::dovecot::Dovecot,
    process::Process,
    site::{Doors, User},
};

use crate::client::Client;

/// Dovecot as durable as Berth: its default leaves flag changes to the system's next write.
pub const DOVECOT_SETTINGS: &str = "mail_fsync = always\n";

/// One column of the table.
pub struct Server {
    /// Its heading.
    pub name: &'static str,
    /// Where clients knock.
    pub doors: Doors,
    /// One per round.
    pub users: Vec<User>,
    /// Its processes; children are found by themselves.
    pub processes: Vec<Process>,
}

/// Two Berth nodes as two columns: the holder's own door, and the other node's, which relays. `rounds` users for each.
pub fn berth_direct_and_relayed(cluster: &Cluster, rounds: usize) -> Result<Vec<Server>> {
    let [first, second] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes were expected") };
    let processes = vec![first.process, second.process];
    let (mut direct, mut relayed) = (Vec::new(), Vec::new());
    for user in &cluster.users {
        // The first login places the user.
        Client::login(&first.doors.imap, None, &user.name, &user.password)?.command("LOGOUT")?;
        let side = if cluster.holder(&user.name)? == 0 { &mut direct } else { &mut relayed };
        side.push(user.clone());
    }
    ensure!(
        direct.len() >= rounds && relayed.len() >= rounds,
        "too few users fell on one of the nodes: {} and {}",
        direct.len(),
        relayed.len()
    );
    let server = |name, users| Server { name, doors: first.doors.clone(), users, processes: processes.clone() };
    Ok(vec![server("Berth", direct), server("Berth, relayed", relayed)])
}

/// Logs everybody in once, so that each has a holder, and gives those of one node.
pub fn placed_on(cluster: &Cluster, node: &str) -> Result<Vec<User>> {
    for user in &cluster.users {
        Client::login(&cluster.nodes[0].doors.imap, None, &user.name, &user.password)?.command("LOGOUT")?;
    }
    let said: Value = serde_json::from_str(&cluster.command(&["who", "--json", "--node", node])?)?;
    let held = said["held"].as_array().context("no leases in what berth who says")?;
    let is_there = |user: &&User| held.iter().any(|held| held["user"] == user.name.as_str() && held["holder"] == node);
    Ok(cluster.users.iter().filter(is_there).cloned().collect())
}

/// A cluster with `users` users.
pub fn cluster(nodes: usize, users: usize) -> Result<Cluster> {
    Cluster::start(&Demo { nodes, users, dir: None })
}

/// Names for a private Dovecot.
pub fn dovecot_users(count: usize) -> Vec<User> {
    (1..=count).map(|number| User { name: format!("user{number}"), password: "bench".to_owned() }).collect()
}

/// A private Dovecot as a column.
pub fn dovecot_server(dovecot: &Dovecot, users: Vec<User>) -> Result<Server> {
    Ok(Server { name: "Dovecot", doors: dovecot.doors().clone(), users, processes: vec![dovecot.process()?] })
}

/// Where Berth's demo keeps a user's mail.
pub fn berth_maildir(root: &Path, user: &str) -> PathBuf {
    root.join("mail/_").join(user).join("Maildir")
}

/// Puts `count` messages of other programs' making into a folder, with the sizes in their names as both servers write them.
/// They are links to a few files, so that a hundred thousand of them take no space.
pub fn plant(folder: &Path, count: usize) -> Result<()> {
    let owner = folder.ancestors().find_map(|above| fs::metadata(above).ok()).context("no folder above")?;
    let own = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid())).with_context(|| path.display().to_string());
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    for above in missing.into_iter().rev() {
        fs::create_dir(above)?;
        own(above)?;
    }
    for name in ["cur", "new", "tmp"] {
        let path = folder.join(name);
        if !path.exists() {
            fs::create_dir(&path)?;
        }
        own(&path)?;
    }
    let mut original: Option<(PathBuf, usize)> = None;
    for number in 0..count {
        let (file, size) = match &original {
            // Links to one file are limited, and more so elsewhere.
            Some((file, size)) if !number.is_multiple_of(10_000) => (file.clone(), *size),
            _ => {
                let message = crate::corpus::message(number + 1);
                let file = folder.join("tmp").join(format!("original{number}"));
                fs::write(&file, &message)?;
                own(&file)?;
                original = Some((file.clone(), message.len()));
                (file, message.len())
            }
        };
        let seconds = 1_763_700_000 + number / 100;
        fs::hard_link(&file, folder.join("cur").join(format!("{seconds}.M{number}P1.bench,S={size},W={size}:2,S")))?;
    }
    for entry in fs::read_dir(folder.join("tmp"))? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
