//! POP3 as a client sees it.

mod bad_input;
mod large;
mod session;

use tests::{
    Result,
    clients::{lmtp::Lmtp, pop3::Pop3},
    mail,
    site::{Own, Site},
};

/// A site with a user of this test's own, so many messages in that user's INBOX, and a session through the second node.
fn session_with_mail(count: usize) -> Result<(Own, Pop3, Vec<Vec<u8>>)> {
    let site = Site::shared()?;
    let sent: Vec<Vec<u8>> = (0..count).map(|number| mail::message("pop3", number)).collect();
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    for message in &sent {
        lmtp.deliver_ok("ada@tests.example", &[&site.user.address()], message)?;
    }
    let pop3 = Pop3::login(&site.nodes[1].pop3, &site.user.name, &site.user.password)?;
    Ok((site, pop3, sent))
}
