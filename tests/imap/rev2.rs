//! IMAP4rev2 (RFC 9051) and UTF8=ACCEPT (RFC 6855). That nothing comes which they forbid is the client's own rule (`clients/rules.rs`).

use tests::{
    Context, Result,
    clients::imap::{Imap, Status},
    ensure,
    site::Site,
};

use super::{session, session_with_mail};

#[test]
fn a_session_of_imap4rev2_is_one_from_select_to_logout() -> Result<()> {
    if Site::is_dovecot() {
        return Ok(()); // the private Dovecot knows neither
    }
    let (site, mut imap, sent) = session_with_mail(3)?;
    imap.command("UNSELECT")?.ok()?;
    let enabled = imap.command("ENABLE IMAP4rev2")?.ok()?;
    ensure!(enabled.all("ENABLED").next().is_some_and(|enabled| enabled.values.len() == 1), "{enabled:?}");
    let selected = imap.command("SELECT inbox")?.ok()?;
    let listed = selected.all("LIST").next().context("SELECT without LIST")?;
    ensure!(listed.values[2].text()? == "INBOX" && listed.values[3].list()?[0].text()? == "OLDNAME", "{listed:?}");
    ensure!(selected.exists() == Some(3) && selected.code("UNSEEN").is_none(), "{selected:?}");
    let found = imap.command("SEARCH SUBJECT \"Grüße\"")?.ok()?;
    let esearch = found.all("ESEARCH").next().context("SEARCH without ESEARCH")?;
    ensure!(esearch.values[1].text()? == "ALL" && esearch.values[2].text()? == "2", "{esearch:?}");
    // Another session, through the other node, changes and adds: told with UIDs.
    let mut other = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    other.select("INBOX")?;
    other.command("STORE 2 +FLAGS (\\Flagged)")?.ok()?;
    other.append("INBOX", "$Forwarded", &sent[0])?;
    other.logout()?;
    let told = imap.command("NOOP")?.ok()?;
    ensure!(told.exists() == Some(4) && told.messages()?[&2].contains_key("UID"), "{told:?}");
    let again = imap.command("SELECT INBOX")?.ok()?;
    ensure!(again.code("CLOSED").is_some());
    imap.logout()
}

#[test]
fn after_uidonly_no_sequence_number_is_told_or_taken() -> Result<()> {
    if Site::is_dovecot() {
        return Ok(()); // as above
    }
    let (site, mut imap, _) = session_with_mail(3)?;
    imap.command("UNSELECT")?.ok()?;
    imap.command("ENABLE UIDONLY")?.ok()?;
    imap.select("INBOX")?;
    let refused = imap.command("FETCH 1 FLAGS")?;
    ensure!(refused.status == Status::Bad && refused.text.code.as_deref() == Some("UIDREQUIRED"), "{refused:?}");
    let mut other = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    other.select("INBOX")?;
    other.command("STORE 1 +FLAGS (\\Deleted)")?.ok()?;
    other.command("EXPUNGE")?.ok()?;
    other.logout()?;
    let told = imap.command("NOOP")?.ok()?;
    ensure!(told.all("VANISHED").count() == 1, "{told:?}");
    ensure!(imap.command("UID FETCH 1:* FLAGS")?.ok()?.messages()?.into_keys().eq([2, 3]));
    imap.logout()
}

#[test]
fn mailbox_names_and_headers_are_utf8_where_that_is_enabled() -> Result<()> {
    if Site::is_dovecot() {
        return Ok(()); // the private Dovecot knows neither
    }
    let (site, mut imap) = session()?;
    imap.command("CREATE Entw&APw-rfe")?.ok()?;
    let text = "Subject: Grüße\r\nFrom: köln@example.org\r\n\r\nx\r\n".as_bytes();
    let refused = imap.command_with_literal("APPEND INBOX", text, "")?;
    ensure!(refused.status == Status::No && refused.text.code.as_deref() == Some("CANNOT"), "{refused:?}");
    imap.command("ENABLE UTF8=ACCEPT")?.ok()?;
    let listed = imap.command("LIST \"\" \"Entw*\"")?.ok()?;
    ensure!(listed.all("LIST").next().context("no LIST")?.values[2].text()? == "Entwürfe", "{listed:?}");
    let tag = imap.send(&format!("APPEND \"Entwürfe\" (\\Seen) UTF8 (~{{{}+}}\r\n{})", text.len(), std::str::from_utf8(text)?))?;
    imap.finish(&tag)?.ok()?;
    imap.logout()?;
    // A client that enabled nothing finds it under the old spelling.
    let mut imap = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    imap.select("Entw&APw-rfe")?;
    ensure!(imap.bodies()?.into_values().eq([text.to_vec()]));
    imap.logout()
}
