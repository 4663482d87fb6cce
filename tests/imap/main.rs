//! IMAP as a client sees it: one file per family of commands.
//!
//! Mail goes in through one node and is read through the other, so that half of all sessions are relayed.

mod append;
mod bad_input;
mod compress;
mod copy_move;
mod expunge;
mod fetch;
mod idle;
mod judged;
mod limits;
mod login;
mod mailboxes;
mod memory;
mod notify;
mod rev2;
mod search;
mod store;
mod stress;
mod unauthenticate;

use tests::{
    Result,
    clients::{imap::Imap, lmtp::Lmtp},
    mail,
    site::{Own, Site},
};

/// A site with a user of this test's own, and that user's session through the second node.
fn session() -> Result<(Own, Imap)> {
    let site = Site::shared()?;
    let imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
    Ok((site, imap))
}

/// The same with so many messages in INBOX, which is selected; their bytes in the order of delivery.
fn session_with_mail(count: usize) -> Result<(Own, Imap, Vec<Vec<u8>>)> {
    let site = Site::shared()?;
    let sent: Vec<Vec<u8>> = (0..count).map(|number| mail::message("imap", number)).collect();
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    for message in &sent {
        lmtp.deliver_ok("ada@tests.example", &[&site.user.address()], message)?;
    }
    let mut imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
    imap.select("INBOX")?;
    Ok((site, imap, sent))
}
