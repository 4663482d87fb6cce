//! Which bytes a section is (RFC 9051 §6.4.5.1).

use super::{
    Found, Section, SectionText,
    fields::select_fields,
    structure::{Kind, Part},
};

/// The part that `path` names; `None`: no such part. An empty path is the message.
///
/// A message that is no multipart has one part, 1, which is its body.
pub(super) fn locate(parts: &[Part], path: &[u32]) -> Option<usize> {
    let mut position = 0;
    let mut is_message = true; // whether `position` is a message's root, and its number not yet read
    for number in path {
        let index = usize::try_from(*number).ok()?.checked_sub(1)?;
        if let (false, Kind::Message(inner)) = (is_message, &parts[position].kind) {
            (position, is_message) = (*inner, true);
        }
        position = match &parts[position].kind {
            Kind::Multipart(children) => *children.get(index)?,
            _ if is_message && index == 0 => position,
            _ => return None,
        };
        is_message = false;
    }
    Some(position)
}

/// Where a section is.
pub(super) fn find(raw: &[u8], parts: &[Part], section: &Section) -> Option<Found> {
    let part = &parts[locate(parts, &section.part)?];
    // The message that HEADER and TEXT are of.
    let message = match (&part.kind, section.part.is_empty()) {
        (_, true) => Some(part),
        (Kind::Message(inner), false) => Some(&parts[*inner]),
        _ => None,
    };
    let select = |names: &[String], invert| message.map(|root| Found::Owned(select_fields(&raw[root.header.clone()], names, invert)));
    match &section.text {
        SectionText::Whole if section.part.is_empty() => Some(Found::Range(0..raw.len())),
        SectionText::Whole => Some(Found::Range(part.body.clone())),
        SectionText::Header => message.map(|root| Found::Range(root.header.clone())),
        SectionText::Text => message.map(|root| Found::Range(root.body.clone())),
        SectionText::HeaderFields(names) => select(names, false),
        SectionText::HeaderFieldsNot(names) => select(names, true),
        SectionText::Mime if section.part.is_empty() => None,
        SectionText::Mime => Some(Found::Range(part.header.clone())),
    }
}
