//! FETCH: whole messages, parts, headers, partial bodies, ENVELOPE and BODYSTRUCTURE.

use std::{fs, thread, time::Duration};

use tests::{
    Context, Result,
    clients::{
        imap::{Imap, Status},
        value::Value,
    },
    cluster::{Cluster, Demo},
    ensure, mail,
};

use super::session_with_mail;

#[test]
fn every_kind_of_message_comes_back_byte_for_byte_with_its_size() -> Result<()> {
    let (_site, mut imap, sent) = session_with_mail(14)?;
    let reply = imap.command("FETCH 1:* (RFC822.SIZE BODY.PEEK[])")?.ok()?;
    let messages = reply.messages()?;
    ensure!(messages.len() == sent.len());
    for (items, original) in messages.values().zip(&sent) {
        let body = items["BODY[]"].bytes()?;
        mail::check_same(original, body)?;
        ensure!(items["RFC822.SIZE"].number()? == body.len() as u64);
    }
    imap.logout()
}

#[test]
fn partial_bodies_are_cut_exactly() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    let whole = imap.bodies()?.into_values().next().context("no message")?;
    let reply = imap.command("FETCH 1 (BODY.PEEK[]<5.20> BODY.PEEK[]<1000000.5>)")?.ok()?;
    let items = &reply.messages()?[&1];
    ensure!(items["BODY[]<5>"].bytes()? == &whole[5..25]);
    ensure!(items["BODY[]<1000000>"].bytes()?.is_empty());
    imap.logout()
}

#[test]
fn a_message_that_is_sent_while_it_is_read_comes_back_byte_for_byte() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    let lines: String = (0..70_000).map(|number| format!("line {number:09}\r\n")).collect();
    let message = format!("Subject: large\r\n\r\n{lines}").into_bytes();
    imap.append("INBOX", "", &message)?;
    imap.select("INBOX")?;
    let reply = imap.command("FETCH 2 (BODY.PEEK[] BODY.PEEK[TEXT] BODY.PEEK[]<300001.600002>)")?.ok()?;
    let items = &reply.messages()?[&2];
    ensure!(items["BODY[]"].bytes()? == message);
    ensure!(items["BODY[TEXT]"].bytes()? == lines.as_bytes());
    ensure!(items["BODY[]<300001>"].bytes()? == &message[300_001..900_003]);
    imap.logout()
}

#[test]
fn header_and_text_together_are_the_message() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(7)?;
    let reply =
        imap.command("FETCH 1:* (BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT] BODY.PEEK[HEADER.FIELDS (SUBJECT X-FOLDED)])")?.ok()?;
    for (number, items) in reply.messages()? {
        let joined = [items["BODY[HEADER]"].bytes()?, items["BODY[TEXT]"].bytes()?].concat();
        ensure!(joined == items["BODY[]"].bytes()?, "message {number}");
        let (_, fields) = items.iter().find(|(name, _)| name.starts_with("BODY[HEADER.FIELDS")).context("no fields")?;
        let fields = String::from_utf8(fields.bytes()?.to_vec())?;
        ensure!(
            fields.contains("Subject: ") && fields.contains("X-Folded: one\r\n two\r\n\tthree\r\n") && fields.ends_with("\r\n\r\n"),
            "{fields:?}"
        );
        ensure!(!fields.contains("Message-ID"), "{fields:?}");
    }
    imap.logout()
}

#[test]
fn nested_parts_are_described_and_fetched() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(6)?;
    let reply = imap
        .command(
            "FETCH 6 (BODYSTRUCTURE BODY.PEEK[1.2] BODY.PEEK[1.2.MIME] BODY.PEEK[2] BODY.PEEK[2.HEADER] BODY.PEEK[2.TEXT] BODY.PEEK[2.1])",
        )?
        .ok()?;
    let items = &reply.messages()?[&6];
    ensure!(items["BODY[1.2]"].bytes()? == b"<p>html</p>");
    ensure!(items["BODY[1.2.MIME]"].bytes()? == b"Content-Type: text/html\r\n\r\n");
    ensure!(items["BODY[2]"].bytes()? == b"Subject: inside\r\n\r\nbody of it");
    ensure!(items["BODY[2.HEADER]"].bytes()? == b"Subject: inside\r\n\r\n");
    ensure!(items["BODY[2.TEXT]"].bytes()? == b"body of it" && items["BODY[2.1]"].bytes()? == b"body of it");
    let structure = items["BODYSTRUCTURE"].list()?;
    let [Value::List(alternative), Value::List(attached), subtype, ..] = structure else { tests::bail!("{structure:?}") };
    ensure!(subtype.text()?.eq_ignore_ascii_case("mixed"));
    ensure!(alternative[2].text()?.eq_ignore_ascii_case("alternative"));
    ensure!(attached[0].text()?.eq_ignore_ascii_case("message") && attached[1].text()?.eq_ignore_ascii_case("rfc822"));
    ensure!(attached[7].list()?[1].text()? == "inside", "the envelope of the attached message: {:?}", attached[7]);
    imap.logout()
}

#[test]
fn an_envelope_gives_the_header_fields_as_they_stand() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(2)?;
    let reply = imap.command("FETCH 2 ENVELOPE")?.ok()?;
    let messages = reply.messages()?;
    let envelope = messages[&2]["ENVELOPE"].list()?;
    ensure!(envelope.len() == 10);
    ensure!(envelope[0].text()? == "Sat, 21 Nov 2026 10:00:01 +0100");
    ensure!(envelope[1].text()? == "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?= 1");
    let from = envelope[2].list()?[0].list()?;
    ensure!(from[0].text()? == "Ada Lovelace" && from[2].text()? == "ada" && from[3].text()? == "tests.example");
    // Without Sender and Reply-To, From stands for both (RFC 9051 §7.5.2).
    ensure!(envelope[3] == envelope[2] && envelope[4] == envelope[2]);
    ensure!(envelope[9].text()? == "<1.imap@tests.example>");
    imap.logout()
}

#[test]
fn reading_a_body_sets_seen_and_peeking_does_not() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(2)?;
    imap.command("FETCH 1 BODY.PEEK[]")?.ok()?;
    let reply = imap.command("FETCH 2 BODY[TEXT]")?.ok()?;
    ensure!(reply.messages()?[&2].contains_key("FLAGS"), "FETCH that sets \\Seen says so");
    let flags = imap.flags()?;
    ensure!(flags.values().map(Vec::len).eq([0, 1]), "{flags:?}");
    imap.logout()
}

#[test]
fn examine_never_sets_seen() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    let reply = imap.command("EXAMINE INBOX")?.ok()?;
    ensure!(reply.text.code.as_deref() == Some("READ-ONLY"));
    imap.command("FETCH 1 BODY[]")?.ok()?;
    ensure!(imap.flags()?.values().all(Vec::is_empty));
    imap.logout()
}

/// Messages of which more than one batch is read; together more than sockets buffer.
const MANY: usize = 300;
/// Those that are sent before the broken one is reached.
const BEFORE: usize = 256;
const BODY_BYTES: usize = 100_000;

#[test]
fn what_can_not_be_read_ends_no_response_in_the_middle() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    cluster.configure("")?;
    let cur = cluster.root.join("mail/_/user1/Maildir/cur");
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(cur.with_file_name(folder))?;
    }
    let content = [b"Subject: planted\r\n\r\n".to_vec(), vec![b'x'; BODY_BYTES], b"\r\n".to_vec()].concat();
    let name =
        |number: usize| format!("{}.M{number}P42.mail.example.org,S={size},W={size}:2,S", 1_763_000_000 + number, size = content.len());
    (0..MANY).try_for_each(|number| fs::write(cur.join(name(number)), &content))?;
    let user = &cluster.users[0];
    let mut imap = Imap::login(&cluster.nodes[0].doors.imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    // Where a message was there is a folder now: it is opened, and can't be read.
    let last = fs::read_dir(&cur)?.filter_map(Result::ok).map(|entry| entry.file_name()).max().context("no messages")?;
    fs::remove_file(cur.join(&last))?;
    fs::create_dir(cur.join(&last))?;
    let tag = imap.send("FETCH 1:* (ENVELOPE BODY.PEEK[])")?;
    // The first responses fill what the sockets hold; meanwhile the server finds out about the last message.
    thread::sleep(Duration::from_secs(3));
    let reply = imap.finish(&tag)?;
    ensure!(reply.status == Status::No, "{:?} {:?}", reply.status, reply.text);
    let messages = reply.messages()?;
    ensure!(messages.len() >= BEFORE, "{} messages were sent", messages.len());
    for (number, items) in &messages {
        ensure!(items["BODY[]"].bytes()? == content, "message {number} is not what it is");
    }
    imap.command("NOOP")?.ok()?;
    imap.logout()
}
