//! Holds what was fetched against what Python's email package makes of the same bytes (`judge.py`).

use std::{collections::BTreeMap, fs, io::Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use tests::{Context, Result, clients::python, clients::value::Value, ensure};

use super::{
    bytes::envelope_text,
    parts::{Fetched, Kind, Part},
};

const SCRIPT: &str = include_str!("judge.py");

/// A part as Python sees it. Bytes are in base64.
#[derive(Debug, Deserialize)]
pub struct Seen {
    #[serde(rename = "type")]
    media: String,
    kind: String,
    parameters: Option<Vec<(String, String)>>,
    /// Of the message: more than spaces and tabs stand behind something that begins as a delimiter.
    #[serde(default)]
    words_behind: bool,
    /// Its Content-Type is not what the grammar allows, and says that it is a multipart.
    unclear: bool,
    fields: String,
    envelope: BTreeMap<String, Option<serde_json::Value>>,
    body: Option<String>,
    content: Option<String>,
    #[serde(default)]
    sound: bool,
    #[serde(default)]
    encoding: String,
    children: Vec<Seen>,
}

/// How much was compared, so that a rule that is too wide is noticed.
#[derive(Debug, Default)]
pub struct Tally {
    pub messages: usize,
    pub not_asked: BTreeMap<&'static str, usize>,
    pub parts: usize,
    pub contents: usize,
    pub lists: usize,
    pub parameters: usize,
}

/// What Python makes of all these messages.
pub fn read(messages: &[Vec<u8>]) -> Result<Vec<Seen>> {
    let mut file = tempfile::NamedTempFile::new()?;
    for message in messages {
        file.write_all(&u32::try_from(message.len())?.to_be_bytes())?;
        file.write_all(message)?;
    }
    file.flush()?;
    let path = file.path().to_str().context("a path")?;
    let said = python::run(SCRIPT, &[path])?;
    fs::metadata(path)?;
    let lines = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let seen: Vec<Seen> = lines.map(|line| Ok(serde_json::from_slice(line)?)).collect::<Result<_>>()?;
    ensure!(seen.len() == messages.len(), "Python read {} of {} messages", seen.len(), messages.len());
    Ok(seen)
}

/// Why Python is not asked about the parts of a message.
pub fn not_asked(message: &[u8], body: &Part, seen: &Seen) -> Option<&'static str> {
    let lines: Vec<&[u8]> = message.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.windows(2).any(|pair| pair[0].starts_with(b"--") && pair[0].trim_ascii_end() == pair[1].trim_ascii_end()) {
        return Some("two delimiters with nothing between: RFC 2046 §5.1.1 has an empty part there, Python none");
    }
    let boundaries = body.boundaries();
    if seen.words_behind {
        return Some("words or a bare CR behind a delimiter: RFC 2046 §5.1.1 takes the line as one, Python does not");
    }
    if lines.last().is_some_and(|last| last.starts_with(b"--") && !last.trim_ascii_end().ends_with(b"--")) {
        return Some("a delimiter at the very end: it opens no part here, and an empty one for Python");
    }
    boundaries
        .iter()
        .any(|boundary| body.is_ambiguous(boundary))
        .then_some("one boundary on two levels: RFC 2046 §5.1.2 forbids it, and says nothing of what to do")
}

fn unpack(text: &str) -> Result<Vec<u8>> {
    Ok(BASE64_STANDARD.decode(text)?)
}

/// Compares a message and all its parts.
pub fn compare(fetched: &Fetched, body: &Part, seen: &Seen, tally: &mut Tally) -> Result<()> {
    tally.messages += 1;
    check_header(fetched.bytes("HEADER")?, seen).context("HEADER")?;
    check_envelope(&fetched.items["ENVELOPE"], seen, tally).context("ENVELOPE")?;
    compare_part(fetched, body, seen, true, tally)
}

fn compare_part(fetched: &Fetched, part: &Part, seen: &Seen, is_body: bool, tally: &mut Tally) -> Result<()> {
    compare_one(fetched, part, seen, is_body, tally)
        .with_context(|| format!("part {:?}, {}; Python has {}", part.number, part.media, seen.media))?;
    match part.kind {
        _ if seen.unclear => Ok(()),
        Kind::Leaf => Ok(()),
        Kind::Message => {
            let [inner] = seen.children.as_slice() else { tests::bail!("a message with {} bodies", seen.children.len()) };
            let number = &part.number;
            check_header(fetched.bytes(&format!("{number}.HEADER"))?, inner).with_context(|| format!("{number}.HEADER"))?;
            check_envelope(part.envelope.as_ref().context("no envelope")?, inner, tally)
                .with_context(|| format!("envelope of {number}"))?;
            compare_part(fetched, &part.children[0], inner, true, tally)
        }
        Kind::Multipart => {
            part.children.iter().zip(&seen.children).try_for_each(|(part, seen)| compare_part(fetched, part, seen, false, tally))
        }
    }
}

fn compare_one(fetched: &Fetched, part: &Part, seen: &Seen, is_body: bool, tally: &mut Tally) -> Result<()> {
    if seen.unclear {
        return Ok(()); // nobody knows its boundary
    }
    tally.parts += 1;
    let kind = match part.kind {
        Kind::Leaf => "leaf",
        Kind::Message => "message",
        Kind::Multipart => "multipart",
    };
    ensure!(kind == seen.kind, "a {kind} here, a {} there", seen.kind);
    ensure!(
        part.kind != Kind::Multipart || part.children.len() == seen.children.len(),
        "{} parts here, {} there",
        part.children.len(),
        seen.children.len()
    );
    // BODYSTRUCTURE's grammar gives multiparts and messages more than these leaves have, so they go by another name.
    let main = seen.media.split('/').next().unwrap_or_default();
    let expected = match seen.media.as_str() {
        _ if kind == "leaf" && main == "multipart" => "text/plain",
        "message/rfc822" | "message/global" if kind == "leaf" => "application/octet-stream",
        media => media,
    };
    ensure!(part.media == expected, "media type {expected} expected");
    if let Some(parameters) = seen.parameters.as_ref().filter(|_| expected == seen.media) {
        tally.parameters += 1;
        let mut expected = parameters
            .iter()
            .map(|(name, value)| Ok((String::from_utf8(unpack(name)?)?.to_ascii_lowercase(), unpack(value)?)))
            .collect::<Result<Vec<_>>>()?;
        if part.media.starts_with("text/") && !expected.iter().any(|(name, _)| name == "charset") {
            expected.push(("charset".to_owned(), b"us-ascii".to_vec())); // RFC 2045 §5.2
        }
        ensure!(part.parameters == expected, "parameters {:?}, {expected:?} expected", part.parameters);
    }
    if !is_body {
        check_header(fetched.bytes(&format!("{}.MIME", part.number))?, seen).context("MIME")?;
    }
    if part.kind != Kind::Leaf {
        return Ok(());
    }
    // What is not one word is told as 7bit.
    let is_word =
        !seen.encoding.is_empty() && seen.encoding.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte));
    ensure!(part.encoding == seen.encoding || !is_word, "encoding {:?}, {:?} expected", part.encoding, seen.encoding);
    let bytes = fetched.bytes(&part.number)?;
    let body = unpack(seen.body.as_deref().unwrap_or_default())?;
    // Python takes the last line end of a message away where no delimiter follows, and of a multipart without parts it keeps what comes before the first
    // delimiter, if there is one, with its line end.
    let without_end = bytes.strip_suffix(b"\r\n").unwrap_or(bytes);
    let is_same = match main {
        "multipart" => bytes.starts_with(body.strip_suffix(b"\r\n").unwrap_or(&body)),
        _ => body == bytes || (body == without_end && fetched.bytes("")?.ends_with(bytes)),
    };
    ensure!(is_same, "{:?} here, {:?} there", String::from_utf8_lossy(bytes), String::from_utf8_lossy(&body));
    let decoded = fetched.decoded.get(&part.number).context("not fetched as BINARY")?;
    if seen.sound && body == bytes {
        tally.contents += 1;
        let expected = seen.content.as_deref().map(unpack).transpose()?;
        ensure!(*decoded == expected, "decoded to {decoded:?}, {expected:?} expected");
    }
    Ok(())
}

/// The fields of a header, and nothing but what is no field beside them.
fn check_header(header: &[u8], seen: &Seen) -> Result<()> {
    let fields = unpack(&seen.fields)?;
    let mut kept = Vec::new();
    let mut is_field = false;
    for line in header.split_inclusive(|byte| *byte == b'\n').take_while(|line| *line != b"\r\n") {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            is_field = line.contains(&b':') && !line.starts_with(b":");
        }
        if is_field {
            kept.extend_from_slice(line);
        }
    }
    // The line end in front of a delimiter belongs to it (RFC 2046 §5.1.1), also where it ends a header that has no blank line.
    let with_end = [kept.as_slice(), b"\r\n"].concat();
    ensure!(
        kept == fields || (with_end == fields && !header.ends_with(b"\n")),
        "{:?} here, {:?} there",
        String::from_utf8_lossy(header),
        String::from_utf8_lossy(&fields)
    );
    Ok(())
}

fn check_envelope(envelope: &Value, seen: &Seen, tally: &mut Tally) -> Result<()> {
    for name in ["date", "subject", "in-reply-to", "message-id"] {
        let expected = seen.envelope[name].as_ref().and_then(serde_json::Value::as_str).map(unpack).transpose()?;
        // Runs of white space in a subject are one space, as Dovecot has it: folding puts them there.
        let one_space = |text: &[u8]| text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(&b' ');
        let expected = if name == "subject" { expected.map(|text| one_space(&text)) } else { expected };
        let got = envelope_text(envelope, name)?;
        ensure!(
            got == expected.as_deref(),
            "{name}: {:?}, {:?} expected",
            got.map(String::from_utf8_lossy),
            expected.as_deref().map(String::from_utf8_lossy)
        );
    }
    for (position, name) in [(2, "from"), (3, "sender"), (4, "reply-to"), (5, "to"), (6, "cc"), (7, "bcc")] {
        let Some(expected) = &seen.envelope[name] else { continue };
        tally.lists += 1;
        let mut got = Vec::new();
        for address in envelope.list()?[position].list()? {
            let [display, Value::Nil, mailbox, host] = address.list()? else { tests::bail!("{name}: {address:?}") };
            let display = if *display == Value::Nil { &[] } else { display.bytes()? };
            got.push((display.to_vec(), [mailbox.bytes()?, b"@", host.bytes()?].concat()));
        }
        let expected: Vec<(String, String)> = serde_json::from_value(expected.clone())?;
        let expected = expected.iter().map(|(name, address)| Ok((unpack(name)?, unpack(address)?))).collect::<Result<Vec<_>>>()?;
        ensure!(got == expected, "{name}: {got:?}, {expected:?} expected");
    }
    Ok(())
}
