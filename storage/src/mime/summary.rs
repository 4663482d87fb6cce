//! What searches, sorts and threads look at in a message, made once and ready to be compared.
//!
//! A version byte, what is known in bits, the sent date, then texts, each after its length (seven bits a byte, the least first, all but the last
//! with the eighth): the fields of [`SUMMARY_FIELDS`], base subject, Message-ID, ancestors. It is short, since every message has one.
//!
//! Invariants, each with the test that guards it:
//! - it says what the header fields say (`a_summary_says_what_the_header_says`)
//! - bytes that are no summary are none, whatever they are (`any_bytes_are_a_summary_or_none`)

mod casemap;
mod ids;
mod subject;

pub use casemap::casemap;

use self::{
    ids::message_ids,
    subject::{Subject, base_subject},
};

use super::{decode, fields::fields, fields::last_field, tokens::collapse};

/// The header fields whose text a summary has. Lower case.
pub const SUMMARY_FIELDS: &[&str] = &["subject", "from", "to", "cc", "bcc"];

/// Moves when summaries of before say too little, or something else.
const VERSION: u8 = 2;
const IS_REPLY: u8 = 1;
const HAS_SENT: u8 = 2;
/// The base subject is the whole subject, which stands there already.
const BASE_IS_SUBJECT: u8 = 4;
/// The ancestors are an In-Reply-To field, of which the first counts (RFC 5256 §3).
const IS_IN_REPLY_TO: u8 = 8;
/// Version, bits, seconds, year, month, day.
const FIXED_BYTES: usize = 2 + 8 + 2 + 2;
/// Between the texts of fields of one name; no text that a client looks for has it.
const BETWEEN: char = '\0';

/// Places of the texts.
const SUBJECT: usize = 0;
const BASE: usize = SUMMARY_FIELDS.len();
const MESSAGE_ID: usize = BASE + 1;
const ANCESTORS: usize = BASE + 2;

/// The summary of a message with these header fields ([`super::CACHED_FIELDS`] are enough).
pub fn summarise(headers: &[u8]) -> Vec<u8> {
    let last = |name: &str| last_field(headers, name);
    let subject = last("subject").map_or_else(String::new, |field| decode::words(&collapse(field.value)));
    let Subject { base, is_reply } = base_subject(&subject);
    let base = casemap(&base);
    let texts: Vec<String> = SUMMARY_FIELDS.iter().map(|name| folded(headers, name)).collect();
    let base_is_subject = texts.first() == Some(&base);
    let sent = decode::sent_date(headers);

    let unfolded = |name: &str| last(name).map_or_else(Vec::new, |field| field.unfolded());
    let references = unfolded("references");
    let is_in_reply_to = message_ids(&references).is_empty();

    let bits = [(is_reply, IS_REPLY), (sent.is_some(), HAS_SENT), (base_is_subject, BASE_IS_SUBJECT), (is_in_reply_to, IS_IN_REPLY_TO)];
    let mut summary = vec![VERSION, bits.into_iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum()];
    let (seconds, (year, month, day)) = sent.unwrap_or_default();
    summary.extend(seconds.to_le_bytes());
    summary.extend(year.to_le_bytes());
    summary.extend([month, day]);
    let mut push = |text: &[u8]| {
        let mut length = text.len();
        loop {
            let [low, ..] = length.to_le_bytes();
            length >>= 7;
            summary.push(if length == 0 { low } else { low | 0x80 });
            if length == 0 {
                break;
            }
        }
        summary.extend_from_slice(text);
    };
    texts.iter().for_each(|text| push(text.as_bytes()));
    push(if base_is_subject { b"" } else { base.as_bytes() });
    push(&unfolded("message-id"));
    push(&if is_in_reply_to { unfolded("in-reply-to") } else { references });
    summary
}

/// What the fields `name` say, as it is compared.
fn folded(headers: &[u8], name: &str) -> String {
    let texts = fields(headers).filter(|field| field.is(name)).map(|field| casemap(&decode::header_value(&field)));
    texts.reduce(|all, text| format!("{all}{BETWEEN}{text}")).unwrap_or_default()
}

/// A summary, read.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'s> {
    bits: u8,
    sent: (i64, (i16, u8, u8)),
    texts: &'s [u8],
}

impl<'s> Summary<'s> {
    /// Reads what [`summarise`] made; `None`: it is none, or of another version.
    pub fn read(bytes: &'s [u8]) -> Option<Summary<'s>> {
        let (fixed, texts) = bytes.split_first_chunk::<FIXED_BYTES>()?;
        let [VERSION, bits, a, b, c, d, e, f, g, h, y, z, month, day] = *fixed else { return None };
        Some(Summary { bits, sent: (i64::from_le_bytes([a, b, c, d, e, f, g, h]), (i16::from_le_bytes([y, z]), month, day)), texts })
    }
    /// The Date field as Unix seconds and the date as written there.
    pub fn sent_date(&self) -> Option<(i64, (i16, u8, u8))> {
        (self.bits & HAS_SENT != 0).then_some(self.sent)
    }
    /// The decoded text of the fields with the name at `place` in [`SUMMARY_FIELDS`], as it is compared ([`casemap`]).
    pub fn field(&self, place: usize) -> &'s [u8] {
        if place < BASE { self.text(place) } else { b"" }
    }
    /// The base subject, as it is compared.
    pub fn base_subject(&self) -> &'s str {
        let place = if self.bits & BASE_IS_SUBJECT == 0 { BASE } else { SUBJECT };
        std::str::from_utf8(self.text(place)).unwrap_or_default()
    }
    /// Whether the subject says that the message is a reply or was forwarded.
    pub fn is_reply(&self) -> bool {
        self.bits & IS_REPLY != 0
    }
    /// Its Message-ID, if that is one, in the form in which they are compared.
    pub fn message_id(&self) -> Option<Box<[u8]>> {
        message_ids(self.text(MESSAGE_ID)).into_iter().next()
    }
    /// Message-IDs of the messages that it follows, the nearest last: of References, else the first of In-Reply-To.
    pub fn ancestors(&self) -> Vec<Box<[u8]>> {
        let mut ids = message_ids(self.text(ANCESTORS));
        if self.bits & IS_IN_REPLY_TO != 0 {
            ids.truncate(1);
        }
        ids
    }
    fn text(&self, place: usize) -> &'s [u8] {
        let mut rest = self.texts;
        for _ in 0..place {
            let Some((_, after)) = next_text(rest) else { return b"" };
            rest = after;
        }
        next_text(rest).map_or(b"", |(text, _)| text)
    }
}

fn next_text(texts: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut rest) = (0_usize, texts);
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, after) = rest.split_first()?;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        rest = after;
        if byte & 0x80 == 0 {
            return rest.split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(header: &str) -> Vec<u8> {
        summarise(header.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn a_summary_says_what_the_header_says() {
        let made = made(
            "Subject: Re: [list] =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n from here\nFrom: \"Ada L\" <ada@x>\nTo: one@x,\n two@x\nTo: three@x\n\
             Date: Sun, 31 Dec 2000 16:01:33 -0800\nMessage-ID: <Aa@b>\nReferences: <1@x>\n <2@x>\nIn-Reply-To: <3@x>\n",
        );
        let summary = Summary::read(&made).unwrap();
        let text = |place| std::str::from_utf8(summary.field(place)).unwrap();
        assert_eq!(text(0), casemap("Re: [list] Grüße from here"));
        assert_eq!((text(1), text(2), text(3)), ("\"ADA L\" <ADA@X>", "ONE@X, TWO@X\0THREE@X", ""));
        assert_eq!((summary.base_subject(), summary.is_reply()), (casemap("Grüße from here").as_str(), true));
        assert_eq!(summary.sent_date(), Some((978_307_293, (2000, 12, 31))));
        assert_eq!(summary.message_id().as_deref(), Some(&b"Aa@b"[..]));
        assert_eq!(summary.ancestors(), [Box::from(&b"1@x"[..]), Box::from(&b"2@x"[..])]);
        assert_eq!(text(SUMMARY_FIELDS.len()), "", "only these");
    }

    #[test]
    fn a_plain_subject_is_stored_once_and_what_is_missing_is_empty() {
        let plain = made("Subject: plain\n");
        let summary = Summary::read(&plain).unwrap();
        assert_eq!((summary.base_subject(), summary.is_reply(), summary.sent_date()), ("PLAIN", false, None));
        assert_eq!(plain.len(), FIXED_BYTES + 8 + 5);
        let reply = made("References: none\nIn-Reply-To: <3@x> <4@x>\n");
        assert_eq!(Summary::read(&reply).unwrap().ancestors(), [Box::from(&b"3@x"[..])]);
        let long = made(&format!("Subject: {}\nFrom: a@x\n", "x".repeat(20_000)));
        let summary = Summary::read(&long).unwrap();
        assert_eq!((summary.field(0).len(), summary.field(1)), (20_000, &b"A@X"[..]));
        let nothing = made("X: y\n");
        let summary = Summary::read(&nothing).unwrap();
        assert_eq!((summary.base_subject(), summary.message_id(), summary.field(1)), ("", None, &b""[..]));
        assert!(Summary::read(&[]).is_none() && Summary::read(&[9; 100]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_summary_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(summary) = Summary::read(&bytes) {
                let read = [summary.base_subject().len(), summary.ancestors().len(), summary.field(3).len()];
                prop_assert!(read.iter().all(|length| *length <= bytes.len()));
            }
        }
    }
}
