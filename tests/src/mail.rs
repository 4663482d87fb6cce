//! Messages to send, and the proof that they arrived: each exactly once, byte for byte.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result, ensure};

/// Headers that a delivery may put before a message.
const ADDED_BY_DELIVERY: &[&str] = &["Return-Path", "Delivered-To", "Received", "X-Original-To"];

/// Messages by their Message-ID.
pub type Messages = BTreeMap<String, Vec<u8>>;

/// So many different messages. `series` keeps the Message-IDs of several calls apart.
///
/// Among them: 8-bit text, lines that begin with dots, lines of nearly 998 bytes, MIME with nested parts,
/// empty bodies, folded headers, and 300 KiB attachments.
pub fn messages(series: &str, count: usize) -> Messages {
    (0..count).map(|number| (message_id(series, number), message(series, number))).collect()
}

fn message_id(series: &str, number: usize) -> String {
    format!("<{number}.{series}@tests.example>")
}

/// One of [`messages`].
pub fn message(series: &str, number: usize) -> Vec<u8> {
    let mut text = String::new();
    let subject = if number % 4 == 1 { "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=" } else { "Greetings" };
    // Writing to a String cannot fail.
    _ = write!(
        text,
        "From: Ada Lovelace <ada@tests.example>\r\nTo: someone@localhost\r\nSubject: {subject} {number}\r\n\
         Date: Sat, 21 Nov 2026 10:{:02}:{:02} +0100\r\nMessage-ID: {}\r\nX-Folded: one\r\n two\r\n\tthree\r\n",
        number / 60 % 60,
        number % 60,
        message_id(series, number)
    );
    match number % 7 {
        0 => text.push_str("\r\nHello.\r\n"),
        1 => text.push_str(
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, 受信箱, ∀x.\r\n",
        ),
        2 => text.push_str("\r\n.\r\n..\r\n.leading dot\r\nFrom here on\r\n>From there\r\n\r\n"),
        3 => _ = write!(text, "\r\n{}\r\n{}\r\n", "x".repeat(990), "tab\t and trailing space \r\n".repeat(20)),
        4 => text.push_str("\r\n"),
        5 => text.push_str(
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\n\r\npreamble\r\n--outer\r\n\
             Content-Type: multipart/alternative; boundary=inner\r\n\r\n--inner\r\nContent-Type: text/plain\r\n\r\nplain\r\n--inner\r\n\
             Content-Type: text/html\r\n\r\n<p>html</p>\r\n--inner--\r\n--outer\r\nContent-Type: message/rfc822\r\n\r\n\
             Subject: inside\r\n\r\nbody of it\r\n--outer--\r\nepilogue\r\n",
        ),
        _ => {
            text.push_str("MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n");
            // One of them is large, so that a literal does not fit into one read.
            let lines = if number % 49 == 6 { 4_000 } else { 40 };
            for line in 0..lines {
                _ = write!(text, "{:0>76}\r\n", number * 10_000 + line);
            }
        }
    }
    text.into_bytes()
}

/// Message-ID of a message, as its header says it.
pub fn id_of(message: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(message);
    let header = text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Message-ID: "));
    Ok(header.context("a message without Message-ID")?.trim().to_owned())
}

/// Line ends of a program that keeps mail with LF, made CRLF again.
pub fn with_crlf(message: &[u8]) -> Vec<u8> {
    let mut fixed = Vec::with_capacity(message.len() + message.len() / 32);
    let mut last = 0;
    for &byte in message {
        if byte == b'\n' && last != b'\r' {
            fixed.push(b'\r');
        }
        fixed.push(byte);
        last = byte;
    }
    fixed
}

/// Fails unless `received` is exactly `sent`: each message once, nothing else, and byte-identical but for the headers that delivery puts in front.
pub fn check_exactly_once<'a>(sent: &Messages, received: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for message in received {
        let id = id_of(message).with_context(|| format!("received: {:?}", String::from_utf8_lossy(&message[..message.len().min(300)])))?;
        let original = sent.get(&id).with_context(|| format!("{id} was received, but never sent"))?;
        check_same(original, message).with_context(|| id.clone())?;
        *seen.entry(id).or_default() += 1;
    }
    let missing: Vec<&String> = sent.keys().filter(|id| !seen.contains_key(*id)).collect();
    ensure!(missing.is_empty(), "{} of {} messages are missing: {missing:?}", missing.len(), sent.len());
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "received more than once: {twice:?}");
    Ok(())
}

/// Fails unless `received` is `original`, with nothing but delivery's own headers in front.
pub fn check_same(original: &[u8], received: &[u8]) -> Result<()> {
    let Some(added) = received.strip_suffix(original) else {
        let same = received.iter().rev().zip(original.iter().rev()).take_while(|(a, b)| a == b).count();
        let from = received.len().saturating_sub(same + 100);
        let around = String::from_utf8_lossy(&received[from..received.len().min(from + 300)]).into_owned();
        anyhow::bail!(
            "changed on the way: {} bytes received, {} sent, the last {same} agree; around the change: {around:?}",
            received.len(),
            original.len()
        );
    };
    for line in String::from_utf8_lossy(added).lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let name = line.split_once(':').map_or(line, |(name, _)| name);
        ensure!(ADDED_BY_DELIVERY.iter().any(|known| known.eq_ignore_ascii_case(name)), "delivery added {line:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_smtp_can_carry() {
        for (id, message) in messages("a", 100) {
            assert!(message.ends_with(b"\r\n"), "{id}");
            for line in message.split(|byte| *byte == b'\n') {
                assert!(line.len() <= 999 && !line[..line.len().saturating_sub(1)].contains(&b'\r'), "{id}");
            }
            assert_eq!(id_of(&message).unwrap(), id);
        }
    }

    #[test]
    fn a_missing_doubled_changed_or_foreign_message_is_noticed() {
        let sent = messages("b", 3);
        let all: Vec<Vec<u8>> = sent.values().map(|message| [&b"Return-Path: <x@y>\r\n"[..], message].concat()).collect();
        let check = |received: &[Vec<u8>]| check_exactly_once(&sent, received.iter().map(Vec::as_slice));
        assert!(check(&all).is_ok());
        assert!(format!("{:#}", check(&all[1..]).unwrap_err()).contains("missing"));
        assert!(format!("{:#}", check(&[&all[..], &all[..1]].concat()).unwrap_err()).contains("more than once"));
        let mut changed = all.clone();
        changed[0][60] ^= 1;
        assert!(check(&changed).is_err());
        assert!(check(&[&all[..], &[message("c", 1)]].concat()).is_err());
        let tagged = [b"X-Spam: no\r\n".to_vec(), all[0].clone()].concat();
        assert!(check(&[&[tagged], &all[1..]].concat()).is_err());
    }

    #[test]
    fn line_ends_are_restored() {
        assert_eq!(with_crlf(b"a\nb\r\n\n"), b"a\r\nb\r\n\r\n");
    }
}
