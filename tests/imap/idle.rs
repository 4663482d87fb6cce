//! IDLE (RFC 2177): what one session or a delivery does is pushed to the others at once.

use std::time::Duration;

use tests::{
    Result,
    clients::{imap::Imap, lmtp::Lmtp},
    ensure, mail,
    site::Site,
    wait,
};

use super::session_with_mail;

/// The holder pushes its own writes: far less than the interval at which folders are looked at.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_delivery_through_the_other_node_is_pushed_at_once() -> Result<()> {
    let (site, mut imap, _) = session_with_mail(1)?;
    let tag = imap.idle()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    lmtp.deliver_ok("ada@tests.example", &[&site.user.address()], &mail::message("idle", 0))?;
    let exists = imap.wait_for("EXISTS", AT_ONCE)?;
    ensure!(exists.number == Some(2));
    imap.done(&tag)?.ok()?;
    imap.logout()
}

/// From LMTP's 250 to EXISTS, in the middle of many: a wait for a folder to settle, of 100 ms and more, is none that anybody has to take.
const TOLD_WITHIN: Duration = Duration::from_millis(90);
/// So many deliveries that a busy machine is late with half of them only where something waits for each.
const DELIVERIES: u32 = 15;

#[test]
fn deliveries_are_told_in_idle_without_a_wait() -> Result<()> {
    if Site::is_dovecot() {
        return Ok(()); // it looks at folders after a while
    }
    let (site, mut imap, _) = session_with_mail(1)?;
    let tag = imap.idle()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    let mut took = Vec::new();
    for number in 0..DELIVERIES {
        lmtp.deliver_ok("ada@tests.example", &[&site.user.address()], &mail::message("idle", number.try_into()?))?;
        let begun = wait::now();
        while imap.wait_for("EXISTS", Duration::from_secs(30))?.number != Some(number + 2) {}
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    ensure!(median < TOLD_WITHIN, "half of them took {median:?} and more: {took:?}");
    imap.done(&tag)?.ok()?;
    imap.logout()
}

#[test]
fn flags_and_expunges_of_a_session_on_the_other_node_are_pushed_at_once() -> Result<()> {
    let (site, mut imap, _) = session_with_mail(2)?;
    let mut other = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    other.select("INBOX")?;
    let tag = imap.idle()?;
    other.command("STORE 2 +FLAGS (\\Flagged \\Deleted)")?.ok()?;
    ensure!(imap.wait_for("FETCH", AT_ONCE)?.number == Some(2));
    other.command("EXPUNGE")?.ok()?;
    ensure!(imap.wait_for("EXPUNGE", AT_ONCE)?.number == Some(2));
    imap.done(&tag)?.ok()?;
    imap.logout()
}
