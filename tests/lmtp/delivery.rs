//! Delivery: capabilities, per-recipient replies, details, sizes, pipelining.

use tests::{
    Result,
    clients::{imap::Imap, lmtp::Lmtp, lmtp::dot_stuffed, python},
    ensure, mail, need,
    site::{Own, Site, User, host_port},
};

fn inbox(site: &Own, user: &User) -> Result<Vec<Vec<u8>>> {
    let mut imap = Imap::login(&site.nodes[1].imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    let bodies = imap.bodies()?.into_values().collect();
    imap.logout()?;
    Ok(bodies)
}

#[test]
fn what_transfer_agents_rely_on_is_offered() -> Result<()> {
    let site = Site::shared()?;
    let lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    for capability in ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"] {
        ensure!(lmtp.capabilities.iter().any(|line| line == capability), "{capability} is not in {:?}", lmtp.capabilities);
    }
    if !Site::is_dovecot() {
        ensure!(lmtp.capabilities.iter().any(|line| line == "SMTPUTF8"), "{:?}", lmtp.capabilities);
        ensure!(lmtp.capabilities.iter().any(|line| line.starts_with("SIZE ")), "{:?}", lmtp.capabilities);
    }
    lmtp.quit()
}

#[test]
fn every_recipient_gets_a_reply_of_its_own() -> Result<()> {
    let (first, second) = (Site::shared()?, Site::shared()?);
    let message = mail::message("lmtp", 5);
    let mut lmtp = Lmtp::connect(&first.nodes[0].lmtp)?;
    lmtp.command("MAIL FROM:<ada@tests.example>")?.expect(250)?;
    lmtp.command(&format!("RCPT TO:<{}>", first.user.address()))?.expect(250)?;
    if !Site::is_dovecot() {
        // The private Dovecot knows every user.
        let refused = lmtp.command("RCPT TO:<nobody-of-that-name@localhost>")?;
        ensure!(refused.code == 550, "{refused:?}");
    }
    lmtp.command(&format!("RCPT TO:<{}>", second.user.address()))?.expect(250)?;
    lmtp.command("DATA")?.expect(354)?;
    lmtp.wire().send(&dot_stuffed(&message))?;
    lmtp.reply()?.expect(250)?;
    lmtp.reply()?.expect(250)?;
    lmtp.quit()?;
    for site in [&first, &second] {
        let received = inbox(site, &site.user)?;
        ensure!(received.len() == 1);
        mail::check_same(&message, &received[0])?;
    }
    Ok(())
}

#[test]
fn chunks_of_any_bytes_arrive_as_one_message() -> Result<()> {
    if Site::is_dovecot() {
        // Debian's takes chunks, and stores binary content as it is.
        return Ok(());
    }
    let site = Site::shared()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    ensure!(lmtp.capabilities.iter().any(|line| line == "CHUNKING"), "{:?}", lmtp.capabilities);
    let head = b"Subject: chunks\r\nMIME-Version: 1.0\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let content: Vec<u8> = (0..=u8::MAX).cycle().take(5000).collect();
    // Everything in one piece, as RFC 3030 §4.2 has it: nobody waits for a reply before LAST.
    let mut script = b"RCPT TO:<".to_vec();
    script.extend_from_slice(site.user.address().as_bytes());
    script.extend_from_slice(format!(">\r\nBDAT {}\r\n", head.len()).as_bytes());
    script.extend_from_slice(head);
    script.extend_from_slice(format!("BDAT {} LAST\r\n", content.len()).as_bytes());
    script.extend_from_slice(&content);
    lmtp.command("MAIL FROM:<ada@tests.example> BODY=BINARYMIME")?.expect(250)?;
    lmtp.wire().send(&script)?;
    for _ in 0..3 {
        lmtp.reply()?.expect(250)?;
    }
    lmtp.quit()?;
    let (host, port) = host_port(&site.nodes[1].imap)?;
    let decoded = python::run(DECODE, &[host, port, &site.user.name, &site.user.password])?;
    ensure!(decoded == content, "{} bytes came back", decoded.len());
    Ok(())
}

/// The first message's content, as Python's own parser decodes it.
const DECODE: &str = r#"
import sys, imaplib, email
imap = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
imap.login(sys.argv[3], sys.argv[4])
imap.select()
message = email.message_from_bytes(imap.fetch('1', '(BODY[])')[1][0][1])
sys.stdout.buffer.write(message.get_payload(decode=True))
imap.logout()
"#;

#[test]
fn a_delivered_message_begins_with_its_return_path_and_names_its_recipient() -> Result<()> {
    let site = Site::shared()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    lmtp.deliver_ok("ada@tests.example", &[&site.user.address()], &mail::message("lmtp", 0))?;
    // The empty reverse path of a bounce.
    lmtp.deliver_ok("", &[&site.user.name], &mail::message("lmtp", 1))?;
    let received = inbox(&site, &site.user)?;
    let [first, bounce] = received.as_slice() else { tests::bail!("{} messages", received.len()) };
    let (first, bounce) = (String::from_utf8_lossy(first), String::from_utf8_lossy(bounce));
    ensure!(first.starts_with("Return-Path: <ada@tests.example>\r\n"), "{first}");
    ensure!(first.contains(&format!("Delivered-To: {}", site.user.name)) && first.contains("\r\nReceived: "), "{first}");
    ensure!(bounce.starts_with("Return-Path: <>\r\n"), "{bounce}");
    Ok(())
}

#[test]
fn mail_for_a_detail_arrives() -> Result<()> {
    let site = Site::shared()?;
    if Site::is_dovecot() {
        return Ok(()); // Details are off there by default.
    }
    let mut imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
    imap.command("CREATE lists")?.ok()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    lmtp.deliver_ok("ada@tests.example", &[&format!("{}+lists@localhost", site.user.name)], &mail::message("lmtp", 2))?;
    ensure!(imap.select("lists")?.exists() == Some(1), "mail for +lists is not in the mailbox lists");
    imap.logout()
}

#[test]
fn a_whole_transaction_may_be_sent_ahead() -> Result<()> {
    let site = Site::shared()?;
    let message = mail::message("lmtp", 3);
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    for _ in 0..3 {
        lmtp.wire().send(format!("MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<{}>\r\nDATA\r\n", site.user.address()).as_bytes())?;
        for code in [250, 250, 354] {
            lmtp.reply()?.expect(code)?;
        }
        lmtp.wire().send(&dot_stuffed(&message))?;
        lmtp.reply()?.expect(250)?;
    }
    ensure!(inbox(&site, &site.user)?.len() == 3);
    lmtp.quit()
}

#[test]
fn python_smtplib_delivers_over_lmtp() -> Result<()> {
    need!("python3");
    let site = Site::shared()?;
    let (host, port) = host_port(&site.nodes[0].lmtp)?;
    let script = "import smtplib, sys\nwith smtplib.LMTP(sys.argv[1], int(sys.argv[2])) as lmtp:\n    \
                  refused = lmtp.sendmail('ada@tests.example', [sys.argv[3]], 'Subject: from Python\\r\\n\\r\\n.dot\\r\\n')\n    assert not refused";
    python::run(script, &[host, port, &site.user.address()])?;
    let received = inbox(&site, &site.user)?;
    ensure!(received.len() == 1);
    mail::check_same(b"Subject: from Python\r\n\r\n.dot\r\n", &received[0])
}

#[test]
fn starttls_is_offered_and_the_transaction_begins_anew() -> Result<()> {
    let site = Site::shared()?;
    let mut lmtp = Lmtp::connect(&site.nodes[0].lmtp)?;
    if Site::is_dovecot() {
        return Ok(()); // Off there by default.
    }
    ensure!(lmtp.capabilities.iter().any(|line| line == "STARTTLS"), "{:?}", lmtp.capabilities);
    lmtp.command("MAIL FROM:<a@b.example>")?.expect(250)?;
    lmtp.command("RSET")?.expect(250)?;
    lmtp.command("STARTTLS")?.expect(220)?;
    lmtp.wire().start_tls()?;
    ensure!(lmtp.command("MAIL FROM:<a@b.example>")?.code == 503, "LHLO from before TLS was remembered");
    let hello = lmtp.command("LHLO tests.example")?.expect(250)?;
    ensure!(!hello.lines.iter().any(|line| line == "STARTTLS"));
    lmtp.deliver_ok("ada@tests.example", &[&site.user.address()], &mail::message("tls", 0))?;
    ensure!(inbox(&site, &site.user)?.len() == 1);
    lmtp.quit()
}
