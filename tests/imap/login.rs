//! Greeting, capabilities, every way to log in, and TLS.

use base64::{Engine, prelude::BASE64_STANDARD};
use tests::{
    Result,
    clients::imap::{Imap, Status},
    ensure,
    site::Site,
};

use super::session;

/// What daily clients rely on.
const CAPABILITIES: &[&str] = &[
    "IMAP4rev1",
    "SASL-IR",
    "LITERAL+",
    "ID",
    "IDLE",
    "NAMESPACE",
    "UIDPLUS",
    "MOVE",
    "UNSELECT",
    "CHILDREN",
    "SPECIAL-USE",
    "ENABLE",
    "CONDSTORE",
    "ESEARCH",
    "LIST-STATUS",
];

#[test]
fn the_capabilities_that_daily_clients_rely_on_are_offered_after_login() -> Result<()> {
    let (_site, mut imap) = session()?;
    let reply = imap.command("CAPABILITY")?.ok()?;
    let offered: Vec<String> =
        reply.all("CAPABILITY").flat_map(|response| &response.values).map(|value| value.text()).collect::<Result<_>>()?;
    for capability in CAPABILITIES {
        ensure!(offered.iter().any(|name| name.eq_ignore_ascii_case(capability)), "{capability} is not in {offered:?}");
    }
    imap.logout()
}

#[test]
fn authenticate_plain_works_with_and_without_an_initial_response() -> Result<()> {
    let site = Site::shared()?;
    let secret = BASE64_STANDARD.encode(format!("\0{}\0{}", site.user.name, site.user.password));
    let mut first = Imap::connect(&site.nodes[0].imap)?;
    first.command(&format!("AUTHENTICATE PLAIN {secret}"))?.ok()?;
    first.select("INBOX")?;
    let mut second = Imap::connect(&site.nodes[1].imap)?;
    second.wire().send(b"a AUTHENTICATE PLAIN\r\n")?;
    ensure!(second.wire().line()?.starts_with(b"+ "));
    second.wire().send(format!("{secret}\r\n").as_bytes())?;
    second.finish("a")?.ok()?;
    second.select("INBOX")?;
    second.logout()
}

#[test]
fn a_cancelled_authenticate_is_answered_bad() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect(&site.nodes[0].imap)?;
    imap.wire().send(b"a AUTHENTICATE PLAIN\r\n")?;
    ensure!(imap.wire().line()?.starts_with(b"+ "));
    imap.wire().send(b"*\r\n")?;
    ensure!(imap.finish("a")?.status == Status::Bad);
    Ok(())
}

#[test]
fn a_session_goes_on_in_tls_after_starttls() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect(&site.nodes[1].imap)?;
    imap.start_tls()?;
    imap.command(&format!("LOGIN {} \"{}\"", site.user.name, site.user.password))?.ok()?;
    imap.select("INBOX")?;
    imap.logout()
}

#[test]
fn commands_smuggled_in_behind_starttls_are_never_carried_out() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect(&site.nodes[1].imap)?;
    // Somebody on the way adds commands to the packet with STARTTLS, in the hope that they are obeyed inside TLS.
    let injected = format!("a STARTTLS\r\nevil LOGIN {} \"{}\"\r\nevil2 SELECT INBOX\r\n", site.user.name, site.user.password);
    imap.wire().send(injected.as_bytes())?;
    imap.finish("a")?.ok()?;
    imap.wire().start_tls()?;
    // Replies to them would come before this one, and a login would make it OK.
    imap.wire().send(b"b SELECT INBOX\r\n")?;
    let line = String::from_utf8(imap.wire().line()?)?;
    ensure!(line.starts_with("b NO ") || line.starts_with("b BAD "), "{line}");
    imap.command(&format!("LOGIN {} \"{}\"", site.user.name, site.user.password))?.ok()?;
    imap.logout()
}

#[test]
fn the_imaps_door_speaks_tls_from_the_first_byte() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect_tls(&site.nodes[1].imaps)?;
    imap.command(&format!("LOGIN {} \"{}\"", site.user.name, site.user.password))?.ok()?;
    imap.select("INBOX")?;
    imap.logout()
}

#[test]
fn user_and_password_may_be_literals() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect(&site.nodes[0].imap)?;
    let (user, password) = (&site.user.name, &site.user.password);
    imap.wire().send(format!("a LOGIN {{{}}}\r\n", user.len()).as_bytes())?;
    ensure!(imap.wire().line()?.starts_with(b"+ "));
    imap.wire().send(format!("{user} {{{}+}}\r\n{password}\r\n", password.len()).as_bytes())?;
    imap.finish("a")?.ok()?;
    imap.logout()
}

#[test]
fn commands_sent_ahead_with_the_login_are_answered_in_order() -> Result<()> {
    let site = Site::shared()?;
    for node in &site.nodes {
        let mut imap = Imap::connect(&node.imap)?;
        imap.wire().send(format!("a LOGIN {} \"{}\"\r\nb SELECT INBOX\r\nc NOOP\r\n", site.user.name, site.user.password).as_bytes())?;
        for tag in ["a", "b", "c"] {
            imap.finish(tag)?.ok()?;
        }
        imap.logout()?;
    }
    Ok(())
}

#[test]
fn id_and_namespace_answer() -> Result<()> {
    let (_site, mut imap) = session()?;
    let reply = imap.command("ID (\"name\" \"tests\")")?.ok()?;
    ensure!(reply.all("ID").count() == 1);
    let reply = imap.command("NAMESPACE")?.ok()?;
    ensure!(reply.all("NAMESPACE").next().is_some_and(|response| response.values.len() == 3));
    imap.logout()
}
