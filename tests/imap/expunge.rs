//! EXPUNGE, UID EXPUNGE (RFC 4315), CLOSE and UNSELECT (RFC 3691).

use tests::{Result, clients::imap::Imap, ensure};

use super::session_with_mail;

#[test]
fn uid_expunge_removes_only_what_it_names() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(4)?;
    imap.command("STORE 1,3 +FLAGS (\\Deleted)")?.ok()?;
    let uids: Vec<u32> = imap.bodies()?.into_keys().collect();
    let reply = imap.command(&format!("UID EXPUNGE {}", uids[2]))?.ok()?;
    ensure!(reply.all("EXPUNGE").map(|response| response.number).eq([Some(3)]), "{reply:?}");
    ensure!(imap.bodies()?.into_keys().eq([uids[0], uids[1], uids[3]]));
    imap.command("EXPUNGE")?.ok()?;
    ensure!(imap.bodies()?.into_keys().eq([uids[1], uids[3]]));
    imap.logout()
}

#[test]
fn close_expunges_and_unselect_does_not() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(2)?;
    imap.command("STORE 1 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("UNSELECT")?.ok()?;
    ensure!(imap.select("INBOX")?.exists() == Some(2));
    imap.command("CLOSE")?.ok()?;
    ensure!(imap.select("INBOX")?.exists() == Some(1));
    imap.logout()
}

#[test]
fn a_uid_is_never_given_again() -> Result<()> {
    let (_site, mut imap, sent) = session_with_mail(2)?;
    let last = imap.bodies()?.into_keys().max();
    imap.command("STORE 1:* +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    let (_, next) = imap.append("INBOX", "", &sent[0])?;
    ensure!(Some(next) > last, "{next} after {last:?}");
    imap.logout()
}

#[test]
fn another_session_sees_an_expunge_only_when_imap_allows_it() -> Result<()> {
    let (site, mut imap, _) = session_with_mail(3)?;
    let mut other = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    other.select("INBOX")?;
    imap.command("STORE 1 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    // FETCH, STORE and SEARCH must not send EXPUNGE (RFC 9051 §7.5.1): sequence numbers hold still.
    for command in ["FETCH 2 (UID)", "STORE 3 +FLAGS (\\Seen)", "SEARCH ALL"] {
        let reply = other.command(command)?;
        ensure!(reply.all("EXPUNGE").count() == 0, "{command}: {reply:?}");
    }
    let reply = other.command("NOOP")?.ok()?;
    ensure!(reply.all("EXPUNGE").map(|response| response.number).eq([Some(1)]), "{reply:?}");
    other.logout()?;
    imap.logout()
}
