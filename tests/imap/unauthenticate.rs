//! UNAUTHENTICATE (RFC 8437): one connection, several users, wherever their mail is.

use tests::{
    Result,
    clients::imap::{Imap, Status, quoted},
    ensure, mail,
    site::{Site, User},
};

fn log_in(imap: &mut Imap, user: &User) -> Result<()> {
    imap.command(&format!("LOGIN {} {}", quoted(&user.name), quoted(&user.password)))?.ok().map(drop)
}

#[test]
fn a_client_logs_in_anew_as_somebody_else_wherever_their_mail_is() -> Result<()> {
    let (one, other) = (Site::shared()?, Site::shared()?);
    let message = |user: &User| mail::message(&user.name, 1);
    for user in [&one.user, &other.user] {
        let mut imap = Imap::login(&one.nodes[0].imap, &user.name, &user.password)?;
        imap.append("INBOX", "", &message(user))?;
        imap.logout()?;
    }
    // Through each node: whoever holds them, sessions of both users are relayed through one of these.
    for node in &one.nodes {
        for compressed in [false, true] {
            let mut imap = Imap::connect_tls(&node.imaps)?;
            let strangers = imap.command("CAPABILITY")?.ok()?.untagged;
            for user in [&one.user, &other.user, &one.user] {
                log_in(&mut imap, user)?;
                imap.command("ENABLE IMAP4rev2 QRESYNC")?.ok()?;
                if compressed {
                    imap.start_deflate()?;
                }
                imap.select("INBOX")?;
                ensure!(imap.bodies()?.into_values().eq([message(user)]), "{} reads other mail", user.name);
                imap.command("UID SEARCH RETURN (SAVE) ALL")?.ok()?;
                let reply = imap.unauthenticate()?;
                ensure!(reply.untagged.is_empty(), "{reply:?}");
                ensure!(imap.command("UID FETCH 1 FLAGS")?.status == Status::Bad, "nobody is logged in");
                ensure!(!imap.wire().is_deflated(), "what is behind the end is not compressed");
                ensure!(imap.command("CAPABILITY")?.ok()?.untagged == strangers, "TLS is still there, and nothing else");
                // Nothing is enabled any more, CONDSTORE neither.
                log_in(&mut imap, user)?;
                let selected = imap.select("INBOX")?;
                ensure!(selected.all("RECENT").count() == 1, "IMAP4rev2 is still enabled");
                ensure!(imap.command("SELECT INBOX (QRESYNC (1 1))")?.status == Status::Bad, "QRESYNC is still enabled");
                let found = imap.command("UID SEARCH RETURN (COUNT) $")?.ok()?;
                ensure!(found.untagged.iter().any(|response| format!("{response:?}").contains("COUNT")), "{found:?}");
                imap.unauthenticate()?;
            }
        }
    }
    Ok(())
}

#[test]
fn commands_sent_ahead_of_the_next_login_are_of_its_session() -> Result<()> {
    let (one, other) = (Site::shared()?, Site::shared()?);
    for node in &one.nodes {
        let mut imap = Imap::connect(&node.imap)?;
        // All in one piece, and each command in a piece of its own.
        for cut in [usize::MAX, 1] {
            let mut sent = String::new();
            for (number, user) in [&one.user, &other.user].into_iter().cycle().take(6).enumerate() {
                let login = format!("LOGIN {} {}", quoted(&user.name), quoted(&user.password));
                sent.push_str(&format!("l{number} {login}\r\ns{number} STATUS INBOX (MESSAGES)\r\nu{number} UNAUTHENTICATE\r\n"));
            }
            for line in if cut == 1 { sent.split_inclusive('\n').collect() } else { vec![sent.as_str()] } {
                imap.wire().send(line.as_bytes())?;
            }
            for number in 0..6 {
                imap.finish(&format!("l{number}"))?.ok()?;
                ensure!(imap.finish(&format!("s{number}"))?.ok()?.all("STATUS").count() == 1);
                imap.finish(&format!("u{number}"))?.ok()?;
            }
        }
        log_in(&mut imap, &one.user)?;
        ensure!(imap.command("UNAUTHENTICATE now")?.status == Status::Bad);
        imap.logout()?;
    }
    Ok(())
}

#[test]
fn who_is_not_logged_in_has_nothing_to_leave() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect(&site.nodes[0].imap)?;
    ensure!(imap.command("UNAUTHENTICATE")?.status == Status::Bad);
    log_in(&mut imap, &site.user)?;
    imap.unauthenticate()?;
    ensure!(imap.command("UNAUTHENTICATE")?.status == Status::Bad);
    // A wrong password now is as wrong as before.
    ensure!(imap.command(&format!("LOGIN {} wrong", site.user.name))?.text.code.as_deref() == Some("AUTHENTICATIONFAILED"));
    log_in(&mut imap, &site.user)?;
    imap.logout()
}
