//! IMAP URLs (RFC 5092) that name a message, or a part of one, as seen from a session (RFC 4469 §3): relative ones, without a server.
//!
//! Invariant: whatever the text, reading it neither panics nor gives a message that it does not name (`urls_that_name_no_message_are_refused`).

use index::Uid;
use storage::mime::Section;

use super::parse::section_of;

/// What an IMAP URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageUrl {
    /// The mailbox in UTF-8; `None`: the selected one.
    pub mailbox: Option<String>,
    /// The UIDVALIDITY that the mailbox must have.
    pub uid_validity: Option<u32>,
    /// The message.
    pub uid: Uid,
    /// The part of it.
    pub section: Section,
    /// First byte and number of bytes of that (`None`: all that follow).
    pub partial: Option<(u64, Option<u64>)>,
}

/// Reads a relative URL. `selected`: the name of the selected mailbox, which is the base (RFC 3986 §5.2). `None`: it names no message here.
pub fn parse(url: &str, selected: Option<&str>) -> Option<MessageUrl> {
    if url.starts_with("//") || url.bytes().any(|byte| byte == b'?' || byte == b'#' || !byte.is_ascii_graphic()) {
        return None; // another server, a search, or no URL
    }
    if url.split('/').next().is_some_and(|first| first.contains(':')) {
        return None; // with a scheme
    }
    let at = find(url, ";UID=").filter(|at| *at == 0 || url.as_bytes().get(at - 1) == Some(&b'/'))?;
    let (mailbox, rest) = url.split_at(at);
    let (mailbox, uid_validity) = match mailbox.strip_suffix('/') {
        None | Some("") => (None, None),
        Some(mailbox) => {
            let (name, validity) = match find(mailbox, ";UIDVALIDITY=") {
                Some(at) => {
                    let (name, validity) = mailbox.split_at(at);
                    (name, Some(nz_number(validity.get(";UIDVALIDITY=".len()..)?)?))
                }
                None => (mailbox, None),
            };
            let name = match name.strip_prefix('/') {
                Some(name) => decoded(name)?,
                None => beside(selected, &decoded(name)?),
            };
            (Some(name).filter(|name| !name.is_empty()), validity)
        }
    };
    let mut parameters = rest.split('/');
    let uid = Uid::new(nz_number(value(parameters.next()?, ";UID=")?)?)?;
    let mut named = MessageUrl { mailbox, uid_validity, uid, section: Section::default(), partial: None };
    let mut next = parameters.next();
    if let Some(section) = next.and_then(|parameter| value(parameter, ";SECTION=")) {
        named.section = section_of(decoded(section)?.as_bytes())?;
        next = parameters.next();
    }
    if let Some(range) = next.and_then(|parameter| value(parameter, ";PARTIAL=")) {
        let (first, count) = range.split_once('.').map_or((range, None), |(first, count)| (first, Some(count)));
        let count = count.map(|count| number(count).filter(|count| *count > 0).ok_or(())).transpose().ok()?;
        named.partial = Some((number(first)?, count));
        next = parameters.next();
    }
    next.is_none().then_some(named)
}

/// Where `name` (in capitals) stands in `text`, in any case.
fn find(text: &str, name: &str) -> Option<usize> {
    text.as_bytes().windows(name.len()).position(|window| window.eq_ignore_ascii_case(name.as_bytes()))
}

fn value<'a>(parameter: &'a str, name: &str) -> Option<&'a str> {
    find(parameter, name).filter(|at| *at == 0)?;
    parameter.get(name.len()..)
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn nz_number(digits: &str) -> Option<u32> {
    number(digits).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

/// A name without a `/` in front stands on the level of the selected mailbox.
fn beside(selected: Option<&str>, name: &str) -> String {
    match selected.and_then(|selected| selected.rsplit_once('/')) {
        Some((above, _)) => format!("{above}/{name}"),
        None => name.to_owned(),
    }
}

/// `%C3%BC` is a byte each; all together are UTF-8 (RFC 5092 §9).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::mime::SectionText;

    use super::*;

    fn url(mailbox: Option<&str>, uid: u32) -> MessageUrl {
        let mailbox = mailbox.map(str::to_owned);
        MessageUrl { mailbox, uid_validity: None, uid: Uid::new(uid).unwrap(), section: Section::default(), partial: None }
    }

    #[test]
    fn the_urls_of_the_rfcs_are_read() {
        let drafts = MessageUrl { uid_validity: Some(385_759_045), ..url(Some("Drafts"), 20) };
        let section = |part: &[u32], text| Section { part: part.to_vec(), text };
        for (text, expected) in [
            ("/Drafts;UIDVALIDITY=385759045/;UID=20", drafts.clone()),
            (
                "/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER",
                MessageUrl { section: section(&[], SectionText::Header), ..drafts.clone() },
            ),
            (
                "/Drafts;uidvalidity=385759045/;uid=20/;Section=2.MIME",
                MessageUrl { section: section(&[2], SectionText::Mime), ..drafts.clone() },
            ),
            (
                "/Drafts;UIDVALIDITY=385759045/;UID=20/;section=1/;PARTIAL=5.20",
                MessageUrl { section: section(&[1], SectionText::Whole), partial: Some((5, Some(20))), ..drafts },
            ),
            ("/gray%20council/;UID=20/;PARTIAL=0.1024", MessageUrl { partial: Some((0, Some(1024))), ..url(Some("gray council"), 20) }),
            ("/Entw%C3%BCrfe/2026/;UID=7/;PARTIAL=9", MessageUrl { partial: Some((9, None)), ..url(Some("Entwürfe/2026"), 7) }),
            ("/;UID=20", url(None, 20)),
            (";UID=20", url(None, 20)),
            ("b/;UID=3", url(Some("Archive/b"), 3)),
        ] {
            assert_eq!(parse(text, Some("Archive/a")), Some(expected), "{text}");
        }
        let fields = parse("/a/;UID=1/;SECTION=HEADER.FIELDS%20(Subject%20To)", None).unwrap().section;
        assert_eq!(fields, section(&[], SectionText::HeaderFields(vec!["SUBJECT".into(), "TO".into()])));
        assert_eq!(parse("b/;UID=3", None), Some(url(Some("b"), 3)));
    }

    #[test]
    fn urls_that_name_no_message_are_refused() {
        for text in [
            "",
            "/",
            "/Drafts",
            "imap://host/Drafts/;UID=20",
            "//host/Drafts/;UID=20",
            "/Drafts/;UID=0",
            "/Drafts/;UID=x",
            "/Drafts/;UID=4294967296",
            "/Drafts;UIDVALIDITY=0/;UID=1",
            "/Drafts/;UID=1/;SECTION=BOGUS",
            "/Drafts/;UID=1/;SECTION=",
            "/Drafts/;UID=1/;PARTIAL=1.0",
            "/Drafts/;UID=1/;PARTIAL=a",
            "/Drafts/;UID=1/;PARTIAL=1/;SECTION=1",
            "/Drafts/;UID=1/;URLAUTH=anonymous",
            "/Drafts/;UID=1?ALL",
            "/%ff/;UID=1",
            "/%1/;UID=1",
            "/a b/;UID=1",
        ] {
            assert_eq!(parse(text, None), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[/;=.%A-Za-z0-9é]{0,40}") {
            drop(parse(&text, Some("a/b")));
            drop(parse(&format!("/x/;UID=1/;SECTION={text}"), None));
        }
    }
}
