//! A part and its MIME fields, and BODYSTRUCTURE and BODY (RFC 9051 §7.5.2) from it.

use std::{collections::BTreeMap, ops::Range};

use super::{
    envelope,
    fields::fields,
    tokens::{Cursor, is_token},
    write::{nstring, number, string},
};

/// Deepest nesting of multiparts and messages; what lies deeper stays one part. Real mail has less than ten levels; a forwarding loop can make more.
pub(super) const DEPTH_MAX: usize = 64;
/// Most parts; the rest stays in the last one. Bounds the size of BODYSTRUCTURE.
pub(super) const PARTS_MAX: usize = 10_000;

/// Longest boundary: RFC 2046 §5.1.1 allows 70 characters, and no line has more than these (RFC 5322 §2.1.1).
pub(super) const BOUNDARY_BYTES_MAX: usize = 998;
/// Longest Content-Type or Content-Transfer-Encoding that counts, with all its lines: a longer one, which no mail program writes, is not readable.
pub(super) const FIELD_BYTES_MAX: usize = 64 * 1024;

/// Most parameters (or languages) of one field; the rest is left out. A file name of thousands of characters, cut up as in RFC 2231, has some hundred.
const PARAMETERS_MAX: usize = 1000;

/// One part, by its place in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// With the blank line.
    pub header: Range<usize>,
    pub body: Range<usize>,
    pub kind: Kind,
}

/// What a part holds; numbers are positions in the list of parts, in the order of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    /// At least one.
    Multipart(Vec<usize>),
    /// message/rfc822 or message/global; the root part of the message inside.
    Message(usize),
}

/// A Content-Type, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Media {
    pub main: Vec<u8>,
    pub sub: Vec<u8>,
    pub parameters: Parameters,
}

/// Names and values, in order. RFC 2231 values stay as they are: to decode them is the client's part.
pub(super) type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

impl Media {
    fn new(main: &str, sub: &str) -> Media {
        Media { main: main.into(), sub: sub.into(), parameters: Vec::new() }
    }
    fn parse(value: &[u8]) -> Option<Media> {
        let mut cursor = Cursor::new(value);
        cursor.skip_space();
        let main = cursor.run(is_token).to_vec();
        cursor.skip_space();
        let has_sub = cursor.take(b'/');
        cursor.skip_space();
        let sub = if has_sub { cursor.run(is_token).to_vec() } else { Vec::new() };
        let sub = match main.to_ascii_lowercase().as_slice() {
            _ if !sub.is_empty() => sub,
            b"text" => b"plain".to_vec(),
            b"multipart" => b"mixed".to_vec(),
            _ => return None,
        };
        let parameters = parameters(&mut cursor);
        (!main.is_empty()).then_some(Media { main, sub, parameters })
    }
    pub fn is_text(&self) -> bool {
        self.main.eq_ignore_ascii_case(b"text")
    }
    /// The boundary of its parts: the parameter, also cut up or percent-encoded as in RFC 2231; without space at its end, which RFC 2046 §5.1.1 forbids.
    /// `None` for one that no line can have.
    pub fn boundary(&self) -> Option<Vec<u8>> {
        let (mut plain, mut encoded) = (None, None);
        let mut pieces: BTreeMap<usize, Vec<(bool, &[u8])>> = BTreeMap::new();
        for (name, value) in &self.parameters {
            let Some(ending) = name.split_at_checked("boundary".len()).filter(|(start, _)| start.eq_ignore_ascii_case(b"boundary")) else {
                continue;
            };
            match ending.1 {
                b"" => plain = plain.or(Some(value)),
                b"*" => encoded = encoded.or(Some(value)),
                [b'*', number @ ..] => {
                    let (number, is_encoded) = number.strip_suffix(b"*").map_or((number, false), |number| (number, true));
                    if let Some(number) = piece_number(number) {
                        pieces.entry(number).or_default().push((is_encoded, value));
                    }
                }
                _ => {}
            }
        }
        let mut boundary = match (plain, encoded) {
            (Some(value), _) => value.clone(),
            (None, Some(value)) => extended(value, true),
            (None, None) => {
                let mut joined = Vec::new();
                for (position, (number, found)) in pieces.iter().enumerate() {
                    // Of several pieces of one number, the first counts, and one as it is before one that is encoded.
                    let Some((is_encoded, value)) = found.iter().find(|(is_encoded, _)| !is_encoded).or(found.first()) else { break };
                    if *number != position {
                        break;
                    }
                    if *is_encoded { joined.extend(extended(value, position == 0)) } else { joined.extend_from_slice(value) }
                }
                joined
            }
        };
        boundary.truncate(boundary.trim_ascii_end().len());
        let fits_a_line = boundary.len() <= BOUNDARY_BYTES_MAX && !boundary.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        (fits_a_line && !boundary.is_empty()).then_some(boundary)
    }
    pub fn is_multipart(&self) -> bool {
        self.main.eq_ignore_ascii_case(b"multipart")
    }
    pub fn is_message(&self) -> bool {
        self.main.eq_ignore_ascii_case(b"message") && (self.sub.eq_ignore_ascii_case(b"rfc822") || self.sub.eq_ignore_ascii_case(b"global"))
    }
    /// The charset, also in the form of RFC 2231 §4 (`charset*=''utf-8`).
    pub fn charset(&self) -> Option<&[u8]> {
        let value_of =
            |name: &[u8]| self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice());
        let after_quotes = |value: &'_ [u8]| value.iter().rposition(|byte| *byte == b'\'').map_or(0, |quote| quote + 1);
        value_of(b"charset").or_else(|| value_of(b"charset*").map(|value| &value[after_quotes(value)..]))
    }
}

/// The number of a piece (RFC 2231 §3): without zeros before it.
fn piece_number(digits: &[u8]) -> Option<usize> {
    let text = str::from_utf8(digits).ok().filter(|text| *text == "0" || !text.starts_with(['0', '+']))?;
    text.parse().ok().filter(|number| *number < PARAMETERS_MAX)
}

/// An extended value of RFC 2231 §4: the first piece has a charset and a language in front.
fn extended(value: &[u8], is_first: bool) -> Vec<u8> {
    let encoded = if is_first { value.splitn(3, |byte| *byte == b'\'').nth(2).unwrap_or(value) } else { value };
    let hex = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, after @ ..] = rest {
        let byte = match after {
            [high, low, ..] if *first == b'%' => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    decoded
}

/// `; name=value` until the end; what is no parameter is passed over.
fn parameters(cursor: &mut Cursor<'_>) -> Parameters {
    let mut parameters = Parameters::new();
    while parameters.len() < PARAMETERS_MAX && skip_past_semicolon(cursor) {
        cursor.skip_space();
        let name = cursor.run(is_token);
        cursor.skip_space();
        if name.is_empty() || !cursor.take(b'=') {
            continue;
        }
        cursor.skip_space();
        let value = if cursor.peek() == Some(b'"') { cursor.quoted().0 } else { unquoted_value(cursor) };
        parameters.push((name.to_vec(), value));
    }
    parameters
}

fn skip_past_semicolon(cursor: &mut Cursor<'_>) -> bool {
    loop {
        cursor.skip_space();
        match cursor.peek() {
            None => return false,
            Some(b';') => {
                cursor.advance();
                return true;
            }
            Some(b'"') => drop(cursor.quoted()),
            Some(_) => cursor.advance(),
        }
    }
}

/// Real mail has `name=annual report.pdf` without quotes, and `a=b c=d` without the semicolon.
fn unquoted_value(cursor: &mut Cursor<'_>) -> Vec<u8> {
    let mut value = Vec::new();
    loop {
        let word = cursor.run(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b';' | b'"' | b'('));
        if word.is_empty() || (!value.is_empty() && word.contains(&b'=')) {
            return value;
        }
        if !value.is_empty() {
            value.push(b' ');
        }
        value.extend_from_slice(word);
        cursor.skip_space();
    }
}

/// The MIME fields of a part's header. Of several fields of one name the last counts.
#[derive(Debug, Default)]
pub(super) struct MimeFields {
    /// `None`: none, or not readable, which is text/plain then (RFC 2045 §5.2).
    pub media: Option<Media>,
    says_media: bool,
    pub transfer_encoding: Option<TransferEncoding>,
    id: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    md5: Option<Vec<u8>>,
    disposition: Option<(Vec<u8>, Parameters)>,
    language: Vec<Vec<u8>>,
    location: Option<Vec<u8>>,
}

/// A Content-Transfer-Encoding as written; `None`: not one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TransferEncoding(pub Option<Vec<u8>>);

impl MimeFields {
    pub fn read(header: &[u8]) -> MimeFields {
        let mut mime = MimeFields::default();
        for field in fields(header) {
            let is_too_long = field.raw.len() > FIELD_BYTES_MAX;
            match field.name.to_ascii_lowercase().as_slice() {
                b"content-type" if is_too_long => (mime.media, mime.says_media) = (None, true),
                b"content-transfer-encoding" if is_too_long => mime.transfer_encoding = Some(TransferEncoding(None)),
                b"content-type" => (mime.media, mime.says_media) = (Media::parse(field.value), true),
                b"content-transfer-encoding" => mime.transfer_encoding = Some(TransferEncoding::parse(field.value)),
                b"content-id" => mime.id = Some(field.unfolded()),
                b"content-description" => mime.description = Some(field.unfolded()),
                b"content-md5" => mime.md5 = Some(field.unfolded()),
                b"content-disposition" => mime.disposition = parse_disposition(field.value),
                b"content-language" => mime.language = parse_language(field.value),
                b"content-location" => mime.location = Some(field.unfolded()),
                _ => {}
            }
        }
        mime
    }
    /// The boundary, if these are the fields of a multipart that has one.
    pub fn boundary(&self) -> Option<Vec<u8>> {
        self.media.as_ref().filter(|media| media.is_multipart())?.boundary()
    }
    /// Whether these are the fields of a multipart/digest.
    pub fn is_digest(&self) -> bool {
        self.media.as_ref().is_some_and(|media| media.is_multipart() && media.sub.eq_ignore_ascii_case(b"digest"))
    }
    /// Whether the body is a message with parts of its own. One in base64 or quoted-printable, which RFC 2046 §5.2.1 forbids, is none for IMAP:
    /// its parts have no bytes that a section could name.
    pub fn holds_message(&self, in_digest: bool) -> bool {
        let is_message = if self.says_media { self.media.as_ref().is_some_and(Media::is_message) } else { in_digest };
        is_message && self.transfer_encoding.as_ref().is_none_or(TransferEncoding::is_identity)
    }
    /// Whether the part is to be saved rather than shown (RFC 2183 §2.2).
    pub fn is_attachment(&self) -> bool {
        self.disposition.as_ref().is_some_and(|(kind, _)| kind.eq_ignore_ascii_case(b"attachment"))
    }
    /// Whether it is text/html.
    pub fn is_html(&self) -> bool {
        self.media.as_ref().is_some_and(|media| media.is_text() && media.sub.eq_ignore_ascii_case(b"html"))
    }
    /// What a leaf is for IMAP. What the grammar gives a structure that it has not (RFC 9051 §9, body-type-basic) goes by another name.
    pub fn leaf_media(&self, in_digest: bool) -> Media {
        let mut media = match &self.media {
            // A message by default (RFC 2046 §5.1.5), and one that is encoded or too deep.
            None if in_digest && !self.says_media => Media::new("application", "octet-stream"),
            None => Media::new("text", "plain"),
            Some(media) if media.is_multipart() => Media::new("text", "plain"),
            Some(media) if media.is_message() => {
                Media { parameters: media.parameters.clone(), ..Media::new("application", "octet-stream") }
            }
            Some(media) => media.clone(),
        };
        if media.is_text() && media.charset().is_none() {
            media.parameters.push((b"charset".to_vec(), b"us-ascii".to_vec())); // RFC 2045 §5.2
        }
        media
    }
}

/// A value of several words, as `multipart/mixed` or `attachment`, and its parameters.
pub(super) fn parse_parameters(value: &[u8]) -> Option<(Vec<u8>, Parameters)> {
    let mut cursor = Cursor::new(value);
    cursor.skip_space();
    let first = cursor.run(|byte| is_token(byte) || byte == b'/').to_vec();
    (!first.is_empty()).then(|| (first, parameters(&mut cursor)))
}

impl TransferEncoding {
    /// Whether the bytes are those of the content: nothing said is 7bit, and so is what nobody can read.
    fn is_identity(&self) -> bool {
        let known = |encoding: &&[u8]| encoding.eq_ignore_ascii_case(b"base64") || encoding.eq_ignore_ascii_case(b"quoted-printable");
        self.0.as_deref().filter(known).is_none()
    }
    fn parse(value: &[u8]) -> TransferEncoding {
        let mut cursor = Cursor::new(value);
        cursor.skip_space();
        let word = cursor.run(is_token);
        cursor.skip_space();
        TransferEncoding((cursor.peek().is_none() && !word.is_empty()).then(|| word.to_vec()))
    }
}

fn parse_disposition(value: &[u8]) -> Option<(Vec<u8>, Parameters)> {
    let mut cursor = Cursor::new(value);
    cursor.skip_space();
    let disposition = cursor.run(is_token).to_vec();
    (!disposition.is_empty()).then(|| (disposition, parameters(&mut cursor)))
}

fn parse_language(value: &[u8]) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::new(value);
    let mut languages = Vec::new();
    while languages.len() < PARAMETERS_MAX && cursor.peek().is_some() {
        cursor.skip_space();
        let tag = cursor.run(is_token);
        if tag.is_empty() {
            cursor.advance();
        } else {
            languages.push(tag.to_vec());
        }
    }
    languages
}

/// Appends the message as BODYSTRUCTURE (`extended`) or BODY.
pub(super) fn write(out: &mut Vec<u8>, raw: &[u8], parts: &[Part], extended: bool) {
    write_part(out, raw, parts, 0, (extended, false));
}

/// Appends part `position`, which is part of a digest or is not. Nests no deeper than [`DEPTH_MAX`].
fn write_part(out: &mut Vec<u8>, raw: &[u8], parts: &[Part], position: usize, (extended, in_digest): (bool, bool)) {
    let part = &parts[position];
    let mime = MimeFields::read(&raw[part.header.clone()]);
    let body = &raw[part.body.clone()];
    out.push(b'(');
    match &part.kind {
        Kind::Multipart(children) => {
            for child in children {
                write_part(out, raw, parts, *child, (extended, mime.is_digest()));
            }
            let media = mime.media.clone().unwrap_or_else(|| Media::new("multipart", "mixed"));
            out.push(b' ');
            string(out, &media.sub);
            if extended {
                out.push(b' ');
                write_parameters(out, &media.parameters);
                write_extension(out, &mime);
            }
        }
        Kind::Message(inner) => {
            let media = mime.media.clone().filter(Media::is_message).unwrap_or_else(|| Media::new("message", "rfc822"));
            write_fields(out, &media, &mime, body.len());
            out.push(b' ');
            envelope::write(out, &raw[parts[*inner].header.clone()]);
            out.push(b' ');
            write_part(out, raw, parts, *inner, (extended, false));
            out.push(b' ');
            number(out, lines(body));
            if extended {
                write_md5(out, &mime);
                write_extension(out, &mime);
            }
        }
        Kind::Leaf => {
            let media = mime.leaf_media(in_digest);
            write_fields(out, &media, &mime, body.len());
            if media.is_text() {
                out.push(b' ');
                number(out, lines(body));
            }
            if extended {
                write_md5(out, &mime);
                write_extension(out, &mime);
            }
        }
    }
    out.push(b')');
}

/// body-fields with the media type before them.
fn write_fields(out: &mut Vec<u8>, media: &Media, mime: &MimeFields, octets: usize) {
    string(out, &media.main);
    out.push(b' ');
    string(out, &media.sub);
    out.push(b' ');
    write_parameters(out, &media.parameters);
    out.push(b' ');
    nstring(out, mime.id.as_deref());
    out.push(b' ');
    nstring(out, mime.description.as_deref());
    out.push(b' ');
    let encoding = mime.transfer_encoding.as_ref().and_then(|encoding| encoding.0.as_deref());
    string(out, encoding.unwrap_or(b"7bit"));
    out.push(b' ');
    number(out, octets);
}

fn write_parameters(out: &mut Vec<u8>, parameters: &Parameters) {
    if parameters.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    for (position, (name, value)) in parameters.iter().enumerate() {
        out.push(if position == 0 { b'(' } else { b' ' });
        string(out, name);
        out.push(b' ');
        string(out, value);
    }
    out.push(b')');
}

fn write_md5(out: &mut Vec<u8>, mime: &MimeFields) {
    out.push(b' ');
    nstring(out, mime.md5.as_deref());
}

/// Disposition, language, location.
fn write_extension(out: &mut Vec<u8>, mime: &MimeFields) {
    match &mime.disposition {
        Some((disposition, parameters)) => {
            out.extend_from_slice(b" (");
            string(out, disposition);
            out.push(b' ');
            write_parameters(out, parameters);
            out.push(b')');
        }
        None => out.extend_from_slice(b" NIL"),
    }
    out.push(b' ');
    if mime.language.is_empty() {
        nstring(out, None);
    }
    for (position, language) in mime.language.iter().enumerate() {
        out.push(if position == 0 { b'(' } else { b' ' });
        string(out, language);
    }
    if !mime.language.is_empty() {
        out.push(b')');
    }
    out.push(b' ');
    nstring(out, mime.location.as_deref());
}

fn lines(body: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', body).count()
}
