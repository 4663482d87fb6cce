//! FETCH of every section of thousands of messages, held against RFC 2046 (`bytes.rs`) and against Python's email package (`judge.rs`).
//!
//! The messages are real ones as far as this machine has any (`corpus.rs`), and ones made from a seed, half of them broken (`maker.rs`).
//! `BERTH_JUDGED_SEED` and `BERTH_JUDGED_MESSAGES` make it others or more:
//! `BERTH_JUDGED_MESSAGES=5000 cargo t --package tests --test imap -- judged --nocapture`.

mod bytes;
mod corpus;
mod judge;
mod maker;
mod parts;

use std::env;

use tests::{Context, Result, clients::imap::Imap, ensure, mail::with_crlf, need, site::Site};

use self::{judge::Tally, maker::Maker, parts::Fetched};
use super::session;

/// How many are made where nothing else is said.
const MESSAGES: usize = 150;
/// Messages of one APPEND.
const BATCH: usize = 50;
/// How many disagreements one run shows.
const SHOWN: usize = 12;

fn number(name: &str, otherwise: usize) -> Result<usize> {
    env::var(name).map_or(Ok(otherwise), |value| value.parse().with_context(|| format!("{name}={value} is not a number")))
}

/// What thousands of made messages differed about: each has what one of the judge's rules is there for.
fn disputed() -> Vec<Vec<u8>> {
    let of_two = |fields: &str, inner: &str| {
        format!("MIME-Version: 1.0\r\nContent-Type: {fields}\r\n\r\n--b0\r\n{inner}\r\n--b0\r\n\r\nlast\r\n--b0--\r\n").into_bytes()
    };
    let alone = |fields: &str| format!("MIME-Version: 1.0\r\n{fields}\r\n\r\na=3Db\r\n").into_bytes();
    vec![
        of_two("multipart/mixed; boundary=b0", "Content-Type: multipart/mixed; boundary=c1\r\n\r\n--c1\r\n\r\nx\r\n--c1"),
        of_two("multipart/mixed; boundary=b0", "Content-Type: multipart/mixed; boundary=c1\r\n\r\n--c1 \t\r\r\n\r\nx\r\n--c1--"),
        of_two("multipart/digest; boundary=b0", "Content-Transfer-Encoding: BASE64\r\r\n\r\nYWE="),
        of_two("multipart/x-other;\r\r\n\tboundary=b0", "Content-Type: message\r/global\r\n\r\nSubject: x\r\n\r\n"),
        of_two("multipart/mixed; boundary=\"b\r0\"", "Content-Type: Message/RFC822;\r name=x.eml\r\n\r\nSubject: x\r\n\r\n"),
        alone("Content-Type: \rText/X-y (a comment); format=flowed; delsp = yes"),
        alone("Content-Transfer-Encoding: quoted-printable\r"),
    ]
}

/// Stores messages; UIDs begin with 1 and are in order.
fn append_all(imap: &mut Imap, messages: &[Vec<u8>]) -> Result<()> {
    // Headers here have characters beyond ASCII, which APPEND takes only from who enabled them.
    imap.command("ENABLE UTF8=ACCEPT")?.ok()?;
    for batch in messages.chunks(BATCH) {
        let tag = imap.send("NOOP")?;
        imap.finish(&tag)?.ok()?;
        let mut line = b"append1 APPEND INBOX".to_vec();
        for message in batch {
            line.extend_from_slice(format!(" {{{}+}}\r\n", message.len()).as_bytes());
            line.extend_from_slice(message);
        }
        line.extend_from_slice(b"\r\n");
        imap.wire().send(&line)?;
        imap.finish("append1")?.ok()?;
    }
    Ok(())
}

#[test]
fn every_section_of_real_and_broken_mail_is_what_others_make_of_it() -> Result<()> {
    need!("python3");
    if Site::is_dovecot() {
        return Ok(()); // reads broken mail in ways of its own
    }
    let seed = u64::try_from(number("BERTH_JUDGED_SEED", 1)?)?;
    let mut messages = disputed();
    messages.extend(corpus::messages()?);
    let real = messages.len();
    let mut maker = Maker::new(seed);
    for _ in 0..number("BERTH_JUDGED_MESSAGES", MESSAGES)? {
        let message = maker.message();
        if !message.is_empty() {
            messages.push(message);
        }
    }
    let (site, mut imap) = session()?;
    append_all(&mut imap, &messages)?;
    imap.logout()?;

    let stored: Vec<Vec<u8>> = messages.iter().map(|message| with_crlf(message)).collect();
    let seen = judge::read(&stored)?;
    let mut imap = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    imap.select("INBOX")?;
    let structures = imap.command("FETCH 1:* BODYSTRUCTURE")?.ok()?.messages()?;
    ensure!(structures.len() == stored.len(), "{} structures of {} messages", structures.len(), stored.len());
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for ((uid, items), (raw, seen)) in structures.iter().zip(stored.iter().zip(&seen)) {
        let mut judge = || -> Result<()> {
            let body = parts::body_of("", &items["BODYSTRUCTURE"])?;
            let fetched = Fetched::everything(&mut imap, *uid, &body)?;
            bytes::check(raw, &fetched, &body).context("by RFC 2046")?;
            match judge::not_asked(raw, &body, seen) {
                Some(why) => *tally.not_asked.entry(why).or_default() += 1,
                None => judge::compare(&fetched, &body, seen, &mut tally).context("by Python")?,
            }
            Ok(())
        };
        if let Err(error) = judge() {
            wrong.push(format!("message {uid}: {error:#}\n{}", String::from_utf8_lossy(&raw[..raw.len().min(3000)])));
        }
    }
    println!("seed {seed}: {real} real and {} made messages; {tally:#?}", stored.len() - real);
    ensure!(wrong.is_empty(), "{} messages are read in another way:\n{}", wrong.len(), wrong[..wrong.len().min(SHOWN)].join("\n-----\n"));
    // The rules above let pass what may differ; most may not.
    ensure!(tally.messages * 10 > stored.len() * 8, "Python was asked about {} of {} messages only", tally.messages, stored.len());
    ensure!(
        tally.parts > stored.len() * 2 && tally.contents > stored.len() && tally.lists > 50 && tally.parameters > stored.len(),
        "{tally:?}"
    );
    imap.logout()
}
