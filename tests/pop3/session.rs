//! Login, STAT, LIST, UIDL, RETR, TOP, DELE, RSET, QUIT, STLS, CAPA, pipelining.

use base64::{Engine, prelude::BASE64_STANDARD};
use tests::{
    Result,
    clients::{lmtp::Lmtp, pop3::Pop3},
    ensure, mail,
    site::Site,
};

use super::session_with_mail;

#[test]
fn every_message_is_retrieved_byte_for_byte_with_its_size() -> Result<()> {
    let (_site, mut pop3, sent) = session_with_mail(14)?;
    let sizes = pop3.lines("LIST")?;
    ensure!(sizes.len() == sent.len());
    let mut total = 0;
    for (number, original) in (1..).zip(&sent) {
        let body = pop3.retrieve(number)?;
        mail::check_same(original, &body)?;
        ensure!(sizes[number - 1] == format!("{number} {}", body.len()).as_bytes());
        total += body.len();
    }
    ensure!(pop3.ok("STAT")?.starts_with(&format!("{} {total}", sent.len())));
    pop3.quit()
}

#[test]
fn unique_ids_are_the_same_through_every_node_and_in_every_session() -> Result<()> {
    let (site, mut pop3, _) = session_with_mail(3)?;
    let first = pop3.lines("UIDL")?;
    ensure!(first.len() == 3);
    pop3.quit()?;
    let mut pop3 = Pop3::login(&site.nodes[0].pop3, &site.user.name, &site.user.password)?;
    ensure!(pop3.lines("UIDL")? == first);
    ensure!(pop3.ok("UIDL 2")?.as_bytes() == first[1]);
    pop3.quit()
}

#[test]
fn top_gives_the_header_and_so_many_lines() -> Result<()> {
    let (_site, mut pop3, _) = session_with_mail(3)?;
    let whole = pop3.retrieve(3)?;
    let top: Vec<u8> = pop3.lines("TOP 3 2")?.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect();
    ensure!(whole.starts_with(&top));
    ensure!(top.ends_with(b"\r\n\r\n.\r\n..\r\n"), "{:?}", String::from_utf8_lossy(&top));
    pop3.quit()
}

#[test]
fn headers_beyond_ascii_are_sent_to_who_takes_them_and_in_ascii_to_others() -> Result<()> {
    let site = Site::shared()?;
    let message = "From: Zo\u{eb} <zo\u{eb}@tests.example>\r\nSubject: Gr\u{fc}\u{df}e\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
                   Content-Disposition: attachment; filename=\"\u{e9}.txt\"\r\n\r\nGr\u{fc}\u{df}e\r\n--b--\r\n";
    Lmtp::connect(&site.nodes[0].lmtp)?.deliver_ok("ada@tests.example", &[&site.user.address()], message.as_bytes())?;
    // Through both nodes: one of them relays.
    for node in &site.nodes {
        let mut pop3 = Pop3::connect(&node.pop3)?;
        pop3.ok("UTF8")?;
        pop3.ok(&format!("USER {}", site.user.name))?;
        pop3.ok(&format!("PASS {}", site.user.password))?;
        mail::check_same(message.as_bytes(), &pop3.retrieve(1)?)?;
        pop3.quit()?;
        let mut pop3 = Pop3::login(&node.pop3, &site.user.name, &site.user.password)?;
        let (whole, top) = (String::from_utf8(pop3.retrieve(1)?)?, pop3.lines("TOP 1 0")?);
        ensure!(top.iter().all(|line| line.is_ascii()), "{top:?}");
        for line in [
            "From: =?UTF-8?B?Wm/DqyA8em/Dq0B0ZXN0cy5leGFtcGxlPg==?=",
            " <invalid@internationalized-address.invalid>",
            "Subject: =?UTF-8?B?R3LDvMOfZQ==?=",
            " filename*=UTF-8''%C3%A9.txt",
            "Gr\u{fc}\u{df}e",
        ] {
            ensure!(whole.lines().any(|there| there == line), "{line} is not in:\n{whole}");
        }
        pop3.quit()?;
    }
    Ok(())
}

#[test]
fn deleted_messages_go_at_quit_and_come_back_with_rset() -> Result<()> {
    let (site, mut pop3, _) = session_with_mail(3)?;
    pop3.ok("DELE 1")?;
    pop3.err("RETR 1")?;
    pop3.ok("RSET")?;
    pop3.ok("DELE 2")?;
    pop3.quit()?;
    let mut pop3 = Pop3::login(&site.nodes[0].pop3, &site.user.name, &site.user.password)?;
    ensure!(pop3.ok("STAT")?.starts_with("2 "));
    pop3.quit()
}

#[test]
fn a_connection_lost_before_quit_deletes_nothing() -> Result<()> {
    let (site, mut pop3, _) = session_with_mail(2)?;
    pop3.ok("DELE 1")?;
    drop(pop3);
    let mut pop3 = Pop3::login(&site.nodes[0].pop3, &site.user.name, &site.user.password)?;
    ensure!(pop3.ok("STAT")?.starts_with("2 "));
    pop3.quit()
}

#[test]
fn capabilities_name_what_daily_clients_rely_on() -> Result<()> {
    let site = Site::shared()?;
    let mut pop3 = Pop3::connect(&site.nodes[0].pop3)?;
    let lines: Vec<String> = pop3.lines("CAPA")?.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    for capability in ["UIDL", "TOP", "USER", "STLS", "PIPELINING"] {
        ensure!(lines.iter().any(|line| line == capability), "{capability} is not in {lines:?}");
    }
    ensure!(lines.iter().any(|line| line.starts_with("SASL ") && line.contains("PLAIN")), "{lines:?}");
    pop3.quit()
}

#[test]
fn a_session_goes_on_in_tls_after_stls_and_the_pop3s_door_is_tls_at_once() -> Result<()> {
    let site = Site::shared()?;
    let mut upgraded = Pop3::connect(&site.nodes[1].pop3)?;
    upgraded.start_tls()?;
    for mut pop3 in [upgraded, Pop3::connect_tls(&site.nodes[1].pop3s)?] {
        pop3.ok(&format!("USER {}", site.user.name))?;
        pop3.ok(&format!("PASS {}", site.user.password))?;
        ensure!(pop3.ok("STAT")? == "0 0");
        pop3.quit()?;
    }
    Ok(())
}

#[test]
fn auth_plain_works_with_and_without_an_initial_response() -> Result<()> {
    let site = Site::shared()?;
    let secret = BASE64_STANDARD.encode(format!("\0{}\0{}", site.user.name, site.user.password));
    let mut pop3 = Pop3::connect(&site.nodes[0].pop3)?;
    pop3.ok(&format!("AUTH PLAIN {secret}"))?;
    pop3.quit()?;
    let mut pop3 = Pop3::connect(&site.nodes[1].pop3)?;
    pop3.wire().send(b"AUTH PLAIN\r\n")?;
    ensure!(pop3.wire().line()?.starts_with(b"+ "));
    pop3.ok(&secret)?;
    pop3.quit()
}

#[test]
fn commands_sent_ahead_are_answered_in_order() -> Result<()> {
    let (_site, mut pop3, _) = session_with_mail(2)?;
    pop3.wire().send(b"STAT\r\nLIST 1\r\nNOOP\r\nDELE 9\r\nUIDL 2\r\n")?;
    let replies: Vec<bool> = (0..5).map(|_| Ok(pop3.reply()?.is_ok())).collect::<Result<_>>()?;
    ensure!(replies == [true, true, true, false, true]);
    pop3.quit()
}
