//! Postfix delivers through all nodes; every message arrives once and unchanged.

use std::{collections::BTreeMap, time::Duration};

use tests::{
    Result,
    clients::imap::Imap,
    ensure,
    mail::{self, Messages},
    need,
    peers::postfix::Postfix,
    site::Site,
};

/// How long 200 messages may take on two busy cores with a debug build.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn two_hundred_messages_from_postfix_over_three_nodes_arrive_once_and_unchanged() -> Result<()> {
    need!("postfix", "python3");
    let site = Site::start(3, 3)?;
    let lmtp: Vec<&str> = site.nodes.iter().map(|node| node.lmtp.as_str()).collect();
    let postfix = Postfix::start(&lmtp)?;

    let sent = mail::messages("postfix", 200);
    let mut expected: BTreeMap<usize, Messages> = BTreeMap::new();
    let mut batch = Vec::new();
    for (number, (id, message)) in sent.iter().enumerate() {
        // Every tenth message goes to all users: local and remote recipients in one transaction.
        let to: Vec<usize> = if number % 10 == 0 { (0..site.users.len()).collect() } else { vec![number % site.users.len()] };
        for user in &to {
            expected.entry(*user).or_default().insert(id.clone(), message.clone());
        }
        batch.push((to.iter().map(|user| site.users[*user].address()).collect(), message.as_slice()));
    }
    postfix.send(&batch)?;
    postfix.wait_queue_empty(DELIVERY_LIMIT)?;

    for (user, expected) in &expected {
        let user = &site.users[*user];
        let mut uids = Vec::new();
        for node in &site.nodes {
            let mut imap = Imap::login(&node.imap, &user.name, &user.password)?;
            imap.select("INBOX")?;
            let bodies = imap.bodies()?;
            mail::check_exactly_once(expected, bodies.values().map(Vec::as_slice))?;
            uids.push(bodies.into_keys().collect::<Vec<_>>());
            imap.logout()?;
        }
        ensure!(uids.windows(2).all(|pair| pair[0] == pair[1]), "UIDs of {} differ between nodes: {uids:?}", user.name);
    }
    if !Site::is_dovecot() {
        for address in lmtp {
            let delivered = postfix.delivered_to(address)?;
            ensure!(delivered > 20, "only {delivered} recipients went through {address}: the load was not spread");
        }
    }
    Ok(())
}
