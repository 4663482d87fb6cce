//! NOTIFY (RFC 5465) through a node that relays.

use std::time::Duration;

use tests::{
    Result,
    clients::{
        imap::Imap,
        lmtp::Lmtp,
        value::{Untagged, Value},
    },
    ensure, mail,
    site::Site,
};

/// The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The numbers of a STATUS response.
fn number(status: &Untagged, item: &str) -> Option<u64> {
    let [_, Value::List(items)] = status.values.as_slice() else { return None };
    items.chunks(2).find(|pair| pair[0].text().is_ok_and(|name| name == item)).and_then(|pair| pair.get(1)?.number().ok())
}

#[test]
fn a_delivery_is_told_to_who_follows_the_inbox_without_idle() -> Result<()> {
    let site = Site::shared()?;
    let user = &site.user;
    // One of them is relayed.
    let mut followers = site.nodes.iter().map(|node| Imap::login(&node.imap, &user.name, &user.password)).collect::<Result<Vec<_>>>()?;
    for imap in &mut followers {
        imap.command("NOTIFY SET (inboxes (MessageNew MessageExpunge))")?.ok()?;
    }
    for count in 1..=3 {
        let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
        lmtp.deliver_ok("ada@tests.example", &[&user.address()], &mail::message("notify", count))?;
        for imap in &mut followers {
            let status = imap.wait_for("STATUS", PATIENCE)?;
            ensure!(number(&status, "MESSAGES") == Some(u64::try_from(count)?), "{status:?}");
        }
    }
    followers.into_iter().try_for_each(Imap::logout)
}
