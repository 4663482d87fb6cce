//! Contents and header values in readable form, for SEARCH and BINARY.

use std::borrow::Cow;

use mail_parser::{Charset, Encoding, HeaderForm, html_to_text};

use super::{
    UnknownEncoding,
    fields::{Field, fields, last_field},
    structure::{Kind, MimeFields, Part, TransferEncoding},
};

/// A part's content without its transfer encoding (RFC 3516). What holds other parts has none (RFC 2045 §6.4).
pub(super) fn part<'a>(raw: &'a [u8], part: &Part) -> Result<Cow<'a, [u8]>, UnknownEncoding> {
    let body = &raw[part.body.clone()];
    if part.kind != Kind::Leaf {
        return Ok(Cow::Borrowed(body));
    }
    match encoding(&MimeFields::read(&raw[part.header.clone()]))? {
        Encoding::Base64 => match Encoding::Base64.decode_checked(body) {
            (content, false) => Ok(content),
            (_, true) => Err(UnknownEncoding),
        },
        // RFC 2045 §6.7 (2): an escape that is none stands for itself, so this can't be broken.
        encoding => Ok(encoding.decode(body)),
    }
}

fn encoding(mime: &MimeFields) -> Result<Encoding, UnknownEncoding> {
    let Some(TransferEncoding(encoding)) = &mime.transfer_encoding else { return Ok(Encoding::None) };
    match encoding.as_deref().unwrap_or_default().to_ascii_lowercase().as_slice() {
        b"7bit" | b"8bit" | b"binary" => Ok(Encoding::None),
        b"base64" => Ok(Encoding::Base64),
        b"quoted-printable" => Ok(Encoding::QuotedPrintable),
        _ => Err(UnknownEncoding),
    }
}

/// Calls `visit` with the texts of a part until it says stop; whether to go on. HTML is given as it stands (links and attributes
/// are searched, too) and as it reads (entities decoded, no tags within words).
pub(super) fn visit_text(raw: &[u8], part: &Part, visit: &mut dyn FnMut(&str) -> bool) -> bool {
    if part.kind != Kind::Leaf {
        return true;
    }
    let mime = MimeFields::read(&raw[part.header.clone()]);
    let media = mime.leaf_media(false); // what a digest's part is by default is searched as text where it is no message
    if !media.is_text() {
        return true;
    }
    // What can't be decoded is searched as it stands, damage is passed over.
    let content = encoding(&mime).unwrap_or(Encoding::None).decode(&raw[part.body.clone()]);
    let text = decode_text(&content, media.charset().unwrap_or_default());
    visit(&text) && (!media.sub.eq_ignore_ascii_case(b"html") || visit(&html_to_text(&text)))
}

fn decode_text<'c>(content: &'c [u8], charset: &[u8]) -> Cow<'c, str> {
    match charset.to_ascii_lowercase().as_slice() {
        b"" | b"us-ascii" | b"ascii" | b"utf-8" | b"utf8" => guess(content),
        b"cp932" | b"ms932" => encoding_rs::SHIFT_JIS.decode(content).0,
        label => Charset::from_label(label).map_or_else(|| guess(content), |charset| charset.decode(content)),
    }
}

/// Text that claims to be ASCII or nothing: UTF-8 if it can be, else what most such mail is in.
fn guess(content: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(content).map_or_else(|_| encoding_rs::WINDOWS_1252.decode(content).0, Cow::Borrowed)
}

/// A field's value in one line, encoded-words decoded (RFC 2047).
pub(super) fn header_value(field: &Field<'_>) -> String {
    words(field.value)
}

/// Unstructured text in one line, encoded-words decoded (RFC 2047).
pub(super) fn words(raw: &[u8]) -> String {
    let value = guess(raw);
    HeaderForm::Text.parse(value.as_bytes()).value().as_text().unwrap_or_default().to_owned()
}

/// Calls `visit` with each field of a header block until it says stop; whether to go on.
pub(super) fn visit_header(header: &[u8], visit: &mut dyn FnMut(&str) -> bool) -> bool {
    fields(header).all(|field| visit(&format!("{}: {}", guess(field.name), header_value(&field))))
}

/// The Date field: Unix seconds, and year, month, day as written. Without a zone it is UTC, without a time midnight (RFC 5256 §2.2).
pub(super) fn sent_date(header: &[u8]) -> Option<(i64, (i16, u8, u8))> {
    let value = last_field(header, "date")?.value;
    date(value).or_else(|| date(&[value.trim_ascii_end(), what_lacks(value)?].concat()))
}

fn date(value: &[u8]) -> Option<(i64, (i16, u8, u8))> {
    let parsed = HeaderForm::Date.parse(value);
    let date = parsed.value().as_datetime()?;
    let is_day = (1..=12).contains(&date.month) && (1..=31).contains(&date.day);
    is_day.then_some((date.to_timestamp(), (i16::try_from(date.year).ok()?, date.month, date.day)))
}

/// What makes a whole date of day, month and year, with a time or without.
fn what_lacks(value: &[u8]) -> Option<&'static [u8]> {
    let is_name = |word: &[u8]| word.iter().all(u8::is_ascii_alphabetic);
    let words = value.split(|byte| byte.is_ascii_whitespace() || *byte == b',').filter(|word| !word.is_empty());
    let words: Vec<&[u8]> = words.take(6).collect();
    let without_weekday = words.split_first().filter(|(first, _)| is_name(first)).map_or(&words[..], |(_, rest)| rest);
    match without_weekday {
        [_, month, _] if is_name(month) => Some(b" 00:00:00 +0000"),
        [_, month, _, _] if is_name(month) => Some(b" +0000"),
        _ => None,
    }
}
