//! What no transfer agent should send is answered 5xx or 4xx, and the node stays up.

use tests::{
    Result,
    clients::{
        imap::Imap,
        lmtp::Lmtp,
        wire::{Wire, was_closed},
    },
    ensure, mail,
    site::{Own, Site},
};

#[test]
fn commands_out_of_order_are_refused() -> Result<()> {
    let site = Site::shared()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    for command in ["DATA", "RCPT TO:<x@y>", "HELO x", "XYZZY", "MAIL FROM:x y", "MAIL"] {
        let reply = lmtp.command(command)?;
        ensure!((500..600).contains(&reply.code), "{command} was answered {reply:?}");
    }
    lmtp.command("MAIL FROM:<a@b.example>")?.expect(250)?;
    let reply = lmtp.command("DATA")?;
    ensure!((500..600).contains(&reply.code), "DATA without a recipient was answered {reply:?}");
    lmtp.command("RSET")?.expect(250)?;
    lmtp.quit()?;
    still_delivers(&site)
}

#[test]
fn an_over_long_command_line_is_refused() -> Result<()> {
    let site = Site::shared()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    let long = format!("MAIL FROM:<{}@b.example>", "x".repeat(1 << 20));
    match lmtp.command(&long) {
        Ok(reply) => ensure!(reply.code >= 400, "{reply:?}"),
        Err(error) => ensure!(was_closed(&error), "{error:#}"),
    }
    still_delivers(&site)
}

#[test]
fn a_message_announced_as_too_large_is_refused_at_once() -> Result<()> {
    let site = Site::shared()?;
    if Site::is_dovecot() {
        return Ok(()); // It has no limit by default.
    }
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    let reply = lmtp.command("MAIL FROM:<a@b.example> SIZE=99999999999")?;
    ensure!(reply.code == 552, "{reply:?}");
    still_delivers(&site)
}

#[test]
fn a_message_that_never_ends_is_not_delivered() -> Result<()> {
    let site = Site::shared()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    lmtp.command("MAIL FROM:<a@b.example>")?.expect(250)?;
    lmtp.command(&format!("RCPT TO:<{}>", site.user.address()))?.expect(250)?;
    lmtp.command("DATA")?.expect(354)?;
    lmtp.wire().send(b"Subject: half\r\n\r\nand then")?;
    drop(lmtp);
    let mut imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
    ensure!(imap.select("INBOX")?.exists() == Some(0));
    imap.logout()
}

#[test]
fn a_bare_dot_between_other_line_ends_does_not_end_the_message() -> Result<()> {
    let site = Site::shared()?;
    if Site::is_dovecot() {
        return Ok(()); // 2.3 takes LF, dot, CRLF for the end (CVE-2023-51764 and its like).
    }
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    lmtp.command("MAIL FROM:<a@b.example>")?.expect(250)?;
    lmtp.command(&format!("RCPT TO:<{}>", site.user.address()))?.expect(250)?;
    lmtp.command("DATA")?.expect(354)?;
    // SMTP smuggling: what follows the false end must not be taken for commands.
    lmtp.wire().send(b"Subject: x\r\n\r\nbody\n.\r\nMAIL FROM:<evil@b.example>\r\n.\r\n")?;
    let reply = lmtp.reply()?;
    let mut imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
    let exists = imap.select("INBOX")?.exists();
    match reply.code {
        250 => {
            let body = imap.bodies()?.into_values().next().unwrap_or_default();
            ensure!(
                exists == Some(1) && String::from_utf8_lossy(&body).contains("MAIL FROM:<evil@b.example>"),
                "the message was cut at a false end"
            );
        }
        code => ensure!(code >= 500 && exists == Some(0), "{reply:?}"),
    }
    imap.logout()
}

#[test]
fn rubbish_bytes_end_in_an_answer_or_a_close() -> Result<()> {
    let site = Site::shared()?;
    for byte in [0_u8, 0x80, 0xff, b'\r', b' '] {
        let mut wire = Wire::connect(&site.nodes[0].lmtp)?;
        wire.line()?;
        if wire.send(&[byte; 300]).is_ok() && wire.send(b"\r\n").is_ok() {
            match wire.line() {
                Ok(line) => ensure!(line.starts_with(b"5") || line.starts_with(b"4"), "{:?}", String::from_utf8_lossy(&line)),
                Err(error) => ensure!(was_closed(&error), "{error:#}"),
            }
        }
    }
    still_delivers(&site)
}

fn still_delivers(site: &Own) -> Result<()> {
    for node in &site.nodes {
        Lmtp::connect(&node.lmtp)?.deliver_ok("ada@tests.example", &[&site.user.address()], &mail::message("still", 0))?;
    }
    Ok(())
}
