//! APPEND: flags, dates, non-synchronising and large literals, TRYCREATE.

use std::collections::BTreeMap;

use tests::{Context, Result, clients::imap::Status, ensure, mail, site::Site};

use super::session;

/// Larger than any buffer: a literal goes to a file, not to memory.
const LARGE_BYTES: usize = 20 << 20;

#[test]
fn an_appended_message_comes_back_byte_for_byte_with_its_flags_and_date() -> Result<()> {
    let (_site, mut imap) = session()?;
    let message = mail::message("append", 1);
    let reply = imap.command_with_literal("APPEND INBOX (\\Seen \\Flagged $Label1) \"17-Jul-1996 02:44:25 -0700\"", &message, "")?.ok()?;
    let uid: u32 = reply.code("APPENDUID").and_then(|code| code.split(' ').nth(1)).context("no APPENDUID")?.parse()?;
    imap.select("INBOX")?;
    ensure!(imap.bodies()? == BTreeMap::from([(uid, message)]));
    ensure!(imap.flags()?[&uid] == ["$Label1", "\\Flagged", "\\Seen"]);
    let reply = imap.command(&format!("UID FETCH {uid} INTERNALDATE"))?.ok()?;
    let date = reply.messages()?[&1]["INTERNALDATE"].text()?;
    ensure!(is_the_same_instant(&date), "{date}");
    imap.logout()
}

/// `17-Jul-1996 02:44:25 -0700` in the zones that a server may answer in: its own or UTC.
fn is_the_same_instant(date: &str) -> bool {
    ["17-Jul-1996 02:44:25 -0700", "17-Jul-1996 09:44:25 +0000"].contains(&date)
}

#[test]
fn a_non_synchronising_literal_needs_no_continuation() -> Result<()> {
    let (_site, mut imap) = session()?;
    let message = mail::message("append", 2);
    let tag = imap.send(&format!("APPEND INBOX () {{{}+}}\r\n{}", message.len(), String::from_utf8_lossy(&message)))?;
    imap.finish(&tag)?.ok()?;
    imap.select("INBOX")?;
    ensure!(imap.bodies()?.into_values().eq([message]));
    imap.logout()
}

#[test]
fn a_message_of_twenty_mebibytes_comes_back_whole() -> Result<()> {
    let (_site, mut imap) = session()?;
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    let mut line = 0_u32;
    while message.len() < LARGE_BYTES {
        message.extend_from_slice(format!("{line:0>76}\r\n").as_bytes());
        line += 1;
    }
    imap.append("INBOX", "", &message)?;
    imap.select("INBOX")?;
    let bodies = imap.bodies()?;
    ensure!(bodies.values().next().is_some_and(|body| *body == message), "the large message changed");
    imap.logout()
}

#[test]
fn a_message_is_put_together_from_others_on_the_server() -> Result<()> {
    if Site::is_dovecot() {
        return Ok(()); // takes the same, but no empty path before ;UID
    }
    let (_site, mut imap) = session()?;
    let large = [b"Subject: large\r\n\r\n".as_slice(), &b"0123456789abcdef\r\n".repeat(40_000)].concat();
    let (validity, uid) = imap.append("INBOX", "", &large)?;
    let url = format!("/INBOX;UIDVALIDITY={validity}/;UID={uid}");
    let before = format!("APPEND INBOX () CATENATE (URL \"{url}/;SECTION=HEADER\" TEXT");
    imap.command_with_literal(&before, b"first\r\n", &format!(" URL \"{url}/;SECTION=TEXT\" URL \"{url}/;PARTIAL=0.7\")"))?.ok()?;
    imap.select("INBOX")?;
    let expected = [b"Subject: large\r\n\r\nfirst\r\n".as_slice(), &b"0123456789abcdef\r\n".repeat(40_000), b"Subject"].concat();
    ensure!(imap.bodies()?.into_values().eq([large, expected]));
    let refused = imap.command("APPEND INBOX CATENATE (URL \"/INBOX/;UID=99\")")?;
    ensure!(refused.text.code.as_deref() == Some("BADURL") && refused.text.arguments == "/INBOX/;UID=99", "{refused:?}");
    imap.logout()
}

#[test]
fn an_append_to_a_mailbox_that_does_not_exist_says_trycreate() -> Result<()> {
    let (_site, mut imap) = session()?;
    let reply = imap.command_with_literal("APPEND Nowhere ()", b"Subject: x\r\n\r\n", "")?;
    ensure!(reply.status == Status::No && reply.text.code.as_deref() == Some("TRYCREATE"), "{reply:?}");
    imap.logout()
}
