//! Old messages go by the settings' rules, also where nobody opens the account.

use std::{fs, io::Write, time::Duration};

use tests::{
    Result,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure, mail, wait,
};

use super::open;

/// A visit comes once in five seconds.
const NOTICED: Duration = Duration::from_secs(40);

#[test]
fn old_messages_go_whether_somebody_is_there_or_not() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: None })?;
    let users = cluster.users.clone();
    for user in &users {
        let mut imap = open(&cluster.nodes[0].doors, user)?;
        for (number, date) in ["\"17-Jul-1996 02:23:25 +0000\"", ""].iter().enumerate() {
            for mailbox in ["INBOX", "Trash"] {
                let message = String::from_utf8(mail::message("expiry", number))?;
                imap.command(&format!("APPEND {mailbox} {date} {{{}+}}\r\n{message}", message.len()))?.ok()?;
            }
        }
        imap.logout()?;
    }
    // Everybody is given back: after that nobody holds the second user.
    let dir = cluster.stop()?;
    let _before = cluster;
    let cluster = Cluster::start(&Demo { nodes: 2, users: 2, dir: Some(dir) })?;
    let mut watcher = open(&cluster.nodes[0].doors, &users[0])?;
    for node in &cluster.nodes {
        let text = "[expiry]\nrules = [\"Trash 300d received\"]\ninterval = \"5s\"\n";
        fs::File::options().append(true).open(&node.config)?.write_all(text.as_bytes())?;
    }
    wait::until("the old message to go", NOTICED, || {
        ensure!(count(&mut watcher, "Trash")? == 1, "the old message is still there");
        Ok(())
    })?;
    ensure!(count(&mut watcher, "INBOX")? == 2, "another mailbox has no rule");
    wait::until("the visit of a user whom nobody opened", NOTICED, || {
        let logs = cluster.nodes.iter().map(|node| fs::read_to_string(&node.log)).collect::<std::io::Result<String>>()?;
        let line = logs.lines().find(|line| line.contains("old messages removed") && line.contains(&users[1].name));
        ensure!(line.is_some_and(|line| line.contains("messages=1")), "no line in the logs");
        Ok(())
    })?;
    ensure!(count(&mut open(&cluster.nodes[1].doors, &users[1])?, "Trash")? == 1, "the old message is still there");
    Ok(())
}

fn count(imap: &mut Imap, mailbox: &str) -> Result<u32> {
    Ok(imap.select(mailbox)?.exists().unwrap_or_default())
}
