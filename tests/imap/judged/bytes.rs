//! What RFC 5322 and RFC 2046 alone say of the bytes of sections, whoever found the parts: no second parser is needed to see it broken.

use tests::{Context, Result, bail, clients::value::Value, ensure};

use super::parts::{Fetched, Kind, Part, slice_of};

/// Holds all that was fetched of a message against what it was sent as.
pub fn check(sent: &[u8], fetched: &Fetched, message: &Part) -> Result<()> {
    let whole = fetched.bytes("")?;
    ensure!(whole == sent, "BODY[] is not what was sent");
    ensure!(fetched.items["RFC822.SIZE"].number()? == whole.len() as u64, "RFC822.SIZE");
    let (header, text) = (fetched.bytes("HEADER")?, fetched.bytes("TEXT")?);
    ensure!([header, text].concat() == whole, "HEADER and TEXT are not the message");
    ensure!(fetched.items["RFC822.HEADER"].bytes()? == header, "RFC822.HEADER");
    check_header_end(header).context("HEADER")?;
    check_fields(header, fetched, "")?;
    for section in ["", "TEXT"] {
        ensure!(fetched.items[&format!("BODY[{section}]<3>")].bytes()? == slice_of(fetched.bytes(section)?), "a slice of BODY[{section}]");
    }
    ensure!(fetched.is_nil("99") && fetched.is_nil("99.MIME"), "part 99");
    check_body("", text, fetched, message, message).context("the message")?;
    for part in message.numbered() {
        check_part(fetched, part, message).with_context(|| format!("part {}, {}", part.number, part.media))?;
    }
    Ok(())
}

/// A header ends with its first blank line, or has none (RFC 5322 §2.1).
fn check_header_end(header: &[u8]) -> Result<()> {
    let end = if header.starts_with(b"\r\n") { 0 } else { find(header, b"\r\n\r\n").map_or(header.len(), |at| at + 2) };
    ensure!(header.len() <= end + 2, "it goes on behind a blank line");
    Ok(())
}

/// HEADER.FIELDS and HEADER.FIELDS.NOT: the named lines of the header and the others, in order, each with a blank line.
fn check_fields(header: &[u8], fetched: &Fetched, prefix: &str) -> Result<()> {
    let (mut named, mut others, mut is_named) = (Vec::new(), Vec::new(), false);
    for line in header.split_inclusive(|byte| *byte == b'\n').filter(|line| *line != b"\r\n") {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().filter(|name| name.len() < line.len()).unwrap_or_default();
            is_named = [&b"subject"[..], b"content-type"].contains(&name.trim_ascii_end().to_ascii_lowercase().as_slice());
        }
        let into = if is_named { &mut named } else { &mut others };
        into.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            into.extend_from_slice(b"\r\n"); // a header without its end
        }
    }
    for (kind, mut expected) in [("FIELDS", named), ("FIELDS.NOT", others)] {
        expected.extend_from_slice(b"\r\n");
        let got = fetched.bytes(&format!("{prefix}HEADER.{kind} (Subject CONTENT-TYPE)").to_ascii_uppercase())?;
        ensure!(
            got == expected,
            "{prefix}HEADER.{kind} is {:?}, not {:?}",
            String::from_utf8_lossy(got),
            String::from_utf8_lossy(&expected)
        );
    }
    Ok(())
}

fn check_part(fetched: &Fetched, part: &Part, message: &Part) -> Result<()> {
    let number = &part.number;
    let bytes = fetched.bytes(number)?;
    ensure!(fetched.items[&format!("BODY[{number}]<3>")].bytes()? == slice_of(bytes), "a slice of it");
    ensure!(part.octets.is_none_or(|octets| octets == bytes.len() as u64), "it has {} octets, said are {:?}", bytes.len(), part.octets);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    ensure!(part.lines.is_none_or(|said| said == lines), "it has {lines} lines, said are {:?}", part.lines);
    check_header_end(fetched.bytes(&format!("{number}.MIME"))?).context("MIME")?;
    match part.kind {
        Kind::Leaf => {
            for nothing in ["1", "HEADER", "TEXT"] {
                ensure!(fetched.is_nil(&format!("{number}.{nothing}")), "it has a {nothing}");
            }
        }
        Kind::Message => {
            let (header, text) = (fetched.bytes(&format!("{number}.HEADER"))?, fetched.bytes(&format!("{number}.TEXT"))?);
            ensure!([header, text].concat() == bytes, "HEADER and TEXT are not the message");
            check_header_end(header).context("its HEADER")?;
            check_fields(header, fetched, &format!("{number}."))?;
            let [inner] = part.children.as_slice() else { bail!("a message with {} bodies", part.children.len()) };
            check_body(number, text, fetched, inner, message)?;
        }
        Kind::Multipart => {
            ensure!(fetched.is_nil(&format!("{number}.99")) && fetched.is_nil(&format!("{number}.HEADER")), "it has a part 99 or a HEADER");
            check_split(bytes, fetched, part, message)?;
        }
    }
    Ok(())
}

/// The body of the message `number`: its parts, or its only part.
fn check_body(number: &str, text: &[u8], fetched: &Fetched, body: &Part, message: &Part) -> Result<()> {
    if body.kind == Kind::Multipart {
        ensure!(body.number == number, "a message's multipart goes by the message's number");
        return check_split(text, fetched, body, message);
    }
    ensure!(fetched.bytes(&body.number)? == text, "part 1 of a message that is no multipart is its text");
    Ok(())
}

/// RFC 2046 §5.1.1: parts stand between delimiters; a delimiter is a line of its own, and its line end in front belongs to it. No part has one inside.
fn check_split(content: &[u8], fetched: &Fetched, part: &Part, message: &Part) -> Result<()> {
    let boundary = part.parameters.iter().find(|(name, _)| name == "boundary").map(|(_, value)| value.trim_ascii_end());
    let Some(boundary) = boundary.filter(|boundary| !boundary.is_empty()) else {
        // RFC 2231 cuts it up, and then this test has no delimiter to look for.
        ensure!(part.parameters.iter().any(|(name, _)| name.starts_with("boundary*")), "parts without a boundary: {:?}", part.parameters);
        return Ok(());
    };
    if message.is_ambiguous(boundary) {
        return Ok(()); // RFC 2046 §5.1.2 forbids it, and says nothing of what to do
    }
    let mut at = next_delimiter(content, 0, boundary).context("parts, and no delimiter")?;
    for child in &part.children {
        let bytes = [fetched.bytes(&format!("{}.MIME", child.number))?, fetched.bytes(&child.number)?].concat();
        ensure!(!at.closes, "part {} stands behind the end", child.number);
        let rest = &content[at.end..];
        ensure!(rest.starts_with(&bytes), "part {} does not begin behind its delimiter", child.number);
        ensure!(next_delimiter(&bytes, 0, boundary).is_none(), "part {} has a delimiter inside", child.number);
        let end = at.end + bytes.len();
        let next = next_delimiter(content, at.end, boundary);
        match next {
            // Between two lines that follow each other there is one line end for both: a delimiter (of this multipart or of the last one inside) or an
            // empty line, and the next delimiter. RFC 2046 §5.1.1 asks for two.
            Some(next) => {
                let between = &content[end..next.start];
                ensure!(
                    between == b"\r\n"
                        || (between.is_empty()
                            && (bytes.is_empty() || bytes == b"\r\n" || bytes.ends_with(b"\r\n\r\n") || opens_at_end(&bytes, child))),
                    "between part {} and its end: {:?}",
                    child.number,
                    String::from_utf8_lossy(between)
                );
                at = next;
            }
            None => {
                ensure!(end == content.len(), "part {} ends before the message does", child.number);
                at = Delimiter { start: end, end, closes: true };
            }
        }
    }
    ensure!(at.closes || at.end == content.len(), "a part is missing behind {}", part.children.len());
    Ok(())
}

/// Whether a part's last line opens one more part, with nothing in it: of the part itself, or of what is last in there.
fn opens_at_end(bytes: &[u8], part: &Part) -> bool {
    let last_line = bytes.strip_suffix(b"\n").unwrap_or(bytes).iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut inside = Some(part);
    while let Some(part) = inside {
        let boundary = part.parameters.iter().find(|(name, _)| name == "boundary").map(|(_, value)| value.trim_ascii_end());
        if boundary.and_then(|boundary| next_delimiter(bytes, last_line, boundary)).is_some_and(|found| !found.closes) {
            return true;
        }
        inside = part.children.last();
    }
    false
}

struct Delimiter {
    start: usize,
    end: usize,
    closes: bool,
}

/// The next line that is `--boundary` or `--boundary--`, with white space or anything behind the latter, which belongs to the epilogue's line.
fn next_delimiter(content: &[u8], from: usize, boundary: &[u8]) -> Option<Delimiter> {
    let mut start = from;
    for line in content[from..].split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        if let Some(after) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) {
            let closes = after.starts_with(b"--");
            if closes || after.is_empty() || after[0].is_ascii_whitespace() {
                return Some(Delimiter { start, end, closes });
            }
        }
        start = end;
    }
    None
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The fields of an envelope that are strings, by name.
pub fn envelope_text<'a>(envelope: &'a Value, name: &str) -> Result<Option<&'a [u8]>> {
    let position = ["date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id"];
    let at = position.iter().position(|known| *known == name).context("no such field")?;
    match &envelope.list()?[at] {
        Value::Nil => Ok(None),
        text => Ok(Some(text.bytes()?)),
    }
}
