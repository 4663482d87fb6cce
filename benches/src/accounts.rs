//! What an open account takes when nobody is at work in it.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use crate::{
    client::Client,
    servers::{self, berth_maildir, plant},
    usage,
};

/// Names of a million messages are written back in this time, and caches given back: nobody asked the index for two minutes.
const REST: Duration = Duration::from_secs(300);

/// KiB of one open account with `messages` in its INBOX, among `accounts`: right after all were used, and once they rest.
pub fn table(accounts: usize, messages: usize) -> Result<String> {
    let cluster = servers::cluster(1, accounts)?;
    for user in &cluster.users {
        plant(&berth_maildir(&cluster.root, &user.name), messages)?;
    }
    let node = cluster.nodes.first().context("no node")?;
    let before = usage::settled_bytes(&[node.process])?;
    for user in &cluster.users {
        let mut session = Client::login(&node.doors.imap, None, &user.name, &user.password)?;
        session.command("SELECT INBOX")?;
        session.command("FETCH 1:* (FLAGS)")?;
        session.command("LOGOUT")?;
    }
    let each = |now: u64| now.saturating_sub(before) as f64 / 1024.0 / accounts as f64;
    let used = each(usage::settled_bytes(&[node.process])?);
    thread::sleep(REST);
    let resting = each(usage::settled_bytes(&[node.process])?);
    Ok(format!(
        "| {accounts} open accounts with {messages} messages | KiB each |\n| --- | ---: |\n| right after use | {used:.0} |\n| at rest | {resting:.0} |\n"
    ))
}
