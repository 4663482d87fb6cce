//! The beginning of a message's text, for lists of messages (PREVIEW, RFC 8970).
//!
//! Invariants, each with the test that guards it:
//! - at most 200 characters in one line, whatever the message is (`tests::previews::any_message_has_a_short_preview`)
//! - what is attached, quoted or only there for machines is left out (`tests::previews::a_preview_is_what_a_reader_reads_first`)

use mail_parser::html_to_text;

use super::{
    decode::visit_text,
    structure::{Kind, MimeFields, Part},
};

/// RFC 8970 §3.3 wants no more, and forbids more than 256.
const PREVIEW_CHARACTERS_MAX: usize = 200;
/// How much of a part's text is looked at: mail that begins with more markup or quotes than this has no preview.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The preview; empty where there is nothing to read.
pub(super) fn preview(raw: &[u8], parts: &[Part]) -> String {
    let readable = |part: &&Part| part.kind == Kind::Leaf && !MimeFields::read(&raw[part.header.clone()]).is_attachment();
    let candidates: Vec<&Part> = parts.iter().filter(readable).collect();
    let of = |html: bool| {
        let fitting = candidates.iter().filter(|part| MimeFields::read(&raw[part.header.clone()]).is_html() == html);
        fitting.map(|part| of_part(raw, part, html)).find(|text| !text.is_empty())
    };
    of(false).or_else(|| of(true)).unwrap_or_default()
}

fn of_part(raw: &[u8], part: &Part, html: bool) -> String {
    let mut preview = String::new();
    visit_text(raw, part, &mut |text| {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        preview = if html { shorten(&html_to_text(text)) } else { shorten(text) };
        false
    });
    preview
}

/// The first characters in one line: without quoted lines, without a signature, without what can't be seen.
fn shorten(text: &str) -> String {
    if text.trim_start().starts_with("-----BEGIN PGP MESSAGE-----") {
        return String::new();
    }
    let mut preview = String::new();
    let mut left = PREVIEW_CHARACTERS_MAX;
    for line in text.lines() {
        if matches!(line.trim_end_matches('\r'), "-- " | "--") {
            break;
        }
        if line.starts_with('>') || line.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") || line.starts_with("Hash: ") {
            continue;
        }
        for word in line.split_whitespace() {
            let mut seen = word.chars().filter(|character| !is_invisible(*character)).peekable();
            if seen.peek().is_none() {
                continue;
            }
            if !preview.is_empty() {
                if left <= 1 {
                    return preview;
                }
                preview.push(' ');
                left -= 1;
            }
            for character in seen {
                if left == 0 {
                    return preview;
                }
                preview.push(character);
                left -= 1;
            }
        }
    }
    preview
}

/// Control characters, and those that mailings fill the beginning with.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fffd}')
}
