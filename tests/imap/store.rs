//! STORE, keywords, and CONDSTORE (RFC 7162).

use tests::{
    Result,
    clients::imap::{Imap, Status},
    ensure,
    site::Site,
};

use super::session_with_mail;

#[test]
fn flags_are_added_removed_replaced_and_kept() -> Result<()> {
    let (site, mut imap, _) = session_with_mail(3)?;
    imap.command("STORE 1:3 +FLAGS (\\Seen Work)")?.ok()?;
    imap.command("STORE 2 -FLAGS (\\Seen)")?.ok()?;
    let reply = imap.command("STORE 3 FLAGS (\\Answered)")?.ok()?;
    ensure!(reply.messages()?.contains_key(&3));
    let quiet = imap.command("STORE 3 +FLAGS.SILENT (\\Draft)")?.ok()?;
    ensure!(quiet.messages()?.is_empty());
    imap.logout()?;
    let mut imap = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    imap.select("INBOX")?;
    let flags: Vec<_> = imap.flags()?.into_values().collect();
    ensure!(flags == [vec!["Work", "\\Seen"], vec!["Work"], vec!["\\Answered", "\\Draft"]], "{flags:?}");
    imap.logout()
}

#[test]
fn each_change_raises_the_modseq_and_changedsince_finds_it() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(3)?;
    let before = imap.command("SELECT INBOX (CONDSTORE)")?.ok()?.code_number("HIGHESTMODSEQ")?;
    let reply = imap.command("STORE 2 +FLAGS (\\Flagged)")?.ok()?;
    let modseq = reply.messages()?[&2]["MODSEQ"].list()?[0].number()?;
    ensure!(modseq > before, "{modseq} after {before}");
    let changed = imap.command(&format!("FETCH 1:* (FLAGS) (CHANGEDSINCE {before})"))?.ok()?.messages()?;
    ensure!(changed.keys().eq(&[2]), "{changed:?}");
    imap.logout()
}

#[test]
fn unchangedsince_refuses_to_overwrite_what_somebody_else_changed() -> Result<()> {
    let (site, mut imap, _) = session_with_mail(2)?;
    let before = imap.command("SELECT INBOX (CONDSTORE)")?.ok()?.code_number("HIGHESTMODSEQ")?;
    let mut other = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    other.select("INBOX")?;
    other.command("STORE 1 +FLAGS (\\Flagged)")?.ok()?;
    let reply = imap.command(&format!("STORE 1:2 (UNCHANGEDSINCE {before}) +FLAGS (\\Deleted)"))?;
    ensure!(reply.status == Status::Ok || reply.status == Status::No);
    ensure!(reply.code("MODIFIED") == Some("1"), "{reply:?}");
    let flags: Vec<_> = imap.flags()?.into_values().collect();
    ensure!(flags == [vec!["\\Flagged"], vec!["\\Deleted"]], "{flags:?}");
    imap.logout()
}

#[test]
fn enable_condstore_is_confirmed() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    let reply = imap.command("ENABLE CONDSTORE")?.ok()?;
    ensure!(reply.all("ENABLED").flat_map(|response| &response.values).any(|value| value.text().is_ok_and(|name| name == "CONDSTORE")));
    imap.logout()
}

#[test]
fn storing_in_a_read_only_mailbox_changes_nothing() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    imap.command("EXAMINE INBOX")?.ok()?;
    let reply = imap.command("STORE 1 +FLAGS (\\Seen)")?;
    ensure!(reply.status == Status::No || Site::is_dovecot(), "{reply:?}");
    ensure!(imap.flags()?.values().all(Vec::is_empty));
    imap.logout()
}
