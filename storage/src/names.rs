//! Mailbox name ↔ Maildir++ folder: `Archive/2026` ↔ `.Archive.2026` (modified UTF-7 on disk, as existing servers write it).
//!
//! Invariants, each with the test that guards it:
//! - no name leads out of the Maildir: no empty level, `.`, control character or NUL (`hostile_names_are_refused`)
//! - a name and its folder give each other back (`names_are_read_back_from_their_folders`)
//! - the folder of a name fits into one file name (`folders_fit_into_a_file_name`)
//! - modified UTF-7 has exactly one spelling for each text (`only_canonical_utf7_is_decoded`)
//!
//! A `.` inside a level would be a level of its own in a Maildir++ folder, so only the layout `fs` has such mailboxes ([`crate::Layout`]); one at its
//! beginning would be a hidden file.
//! Existing folders may have names that nobody may make any more (`%`, `*`, very long ones): they are listed and opened, but
//! [`MailboxName::check_new`] refuses to make one.

use std::fmt;

use base64::{
    Engine,
    alphabet::IMAP_MUTF7,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use unicode_normalization::UnicodeNormalization;

use crate::StorageError;

/// Longest new mailbox name in bytes of UTF-8. What bounds a name in the end is [`FOLDER_BYTES_MAX`]; this says it in a unit that users know.
pub const MAILBOX_NAME_BYTES_MAX: usize = 180;
/// Deepest new mailbox hierarchy: every level of a listing costs each client a line, and no person nests deeper.
pub const MAILBOX_DEPTH_MAX: usize = 32;
/// Longest folder name: what Linux file systems and NFS servers take (`NAME_MAX`).
pub const FOLDER_BYTES_MAX: usize = 255;

/// A mailbox name in UTF-8 (NFC), levels separated by `/`; INBOX in capitals. Only [`MailboxName::parse`] and [`MailboxName::from_folder`] make one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MailboxName(String);

impl MailboxName {
    /// The inbox.
    pub fn inbox() -> MailboxName {
        MailboxName("INBOX".to_owned())
    }
    /// Checks the name of a mailbox that may exist, in UTF-8 (the protocol decodes modified UTF-7 first). Who makes one calls [`MailboxName::check_new`] too.
    pub fn parse(utf8: &str) -> Result<MailboxName, StorageError> {
        if utf8.len() > 4 * FOLDER_BYTES_MAX {
            return Err(too_long()); // before any work; no composition shrinks a text to a quarter and below the real limit
        }
        let name = MailboxName(with_inbox_in_capitals(utf8.nfc().collect()));
        for level in name.0.split('/') {
            if let Some(reason) = objection_to_level(level) {
                return Err(StorageError::BadName(reason.to_owned()));
            }
        }
        if name.to_folder().len() > FOLDER_BYTES_MAX {
            return Err(too_long());
        }
        Ok(name)
    }
    /// Checks a name that is to be made (CREATE, the target of RENAME): stricter than what exists already may be.
    pub fn check_new(&self) -> Result<(), StorageError> {
        let refuse = |reason: String| Err(StorageError::BadName(reason));
        if self.0.contains(['%', '*']) {
            return refuse("\"%\" and \"*\" are wildcards of LIST, so a new mailbox can't have them".to_owned());
        }
        if self.0.contains(['\u{2028}', '\u{2029}']) {
            return refuse("it has a line or paragraph separator (RFC 5198)".to_owned());
        }
        if self.0.len() > MAILBOX_NAME_BYTES_MAX {
            return refuse(format!("it is longer than {MAILBOX_NAME_BYTES_MAX} bytes"));
        }
        if self.0.split('/').count() > MAILBOX_DEPTH_MAX {
            return refuse(format!("it has more than {MAILBOX_DEPTH_MAX} levels"));
        }
        Ok(())
    }
    /// The mailbox in Maildir++ folder `folder` (`.Archive.2026`; empty: INBOX). `None`: the name of no mailbox.
    ///
    /// An existing folder need not be spelled as [`MailboxName::to_folder`] would (decomposed letters, `.inbox.x`): who lists
    /// a Maildir keeps the folder beside the name. `.INBOX` is `None`: INBOX is the Maildir itself.
    pub fn from_folder(folder: &str) -> Option<MailboxName> {
        if folder.is_empty() {
            return Some(MailboxName::inbox());
        }
        let levels = folder.strip_prefix('.')?.split('.').map(read_level).collect::<Option<Vec<_>>>()?;
        if levels.iter().any(|level| level.contains('/')) {
            return None; // modified UTF-7 writes it plainly, and no file name has it
        }
        MailboxName::parse(&levels.join("/")).ok().filter(|name| !name.is_inbox())
    }
    /// Its Maildir++ folder inside the Maildir: `.Archive.2026`, each level in modified UTF-7; empty for INBOX, which is the Maildir itself. Only for
    /// names without a `.`: `Layout::folder` refuses others.
    pub fn to_folder(&self) -> String {
        if self.is_inbox() {
            return String::new();
        }
        self.0.split('/').flat_map(|level| [".".to_owned(), encode_utf7(level)]).collect()
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it is the inbox.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }
    /// The name one level up.
    pub fn parent(&self) -> Option<MailboxName> {
        self.0.rsplit_once('/').map(|(parent, _)| MailboxName(parent.to_owned()))
    }
    /// Whether `self` lies below `other`.
    pub fn is_below(&self, other: &MailboxName) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}
/// Names are ordered as their text is.
impl std::borrow::Borrow<str> for MailboxName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn too_long() -> StorageError {
    StorageError::BadName(format!("its folder would have a name of more than {FOLDER_BYTES_MAX} bytes"))
}

/// INBOX is the same in any case (RFC 9051 §5.1), also as the first level of a longer name.
fn with_inbox_in_capitals(mut name: String) -> String {
    let first_level = name.split('/').next().map_or(0, str::len);
    if name[..first_level].eq_ignore_ascii_case("INBOX") {
        name[..first_level].make_ascii_uppercase();
    }
    name
}

fn objection_to_level(level: &str) -> Option<&'static str> {
    if level.is_empty() {
        Some("it has an empty level (it is empty, starts or ends with \"/\", or has \"//\")")
    } else if level.starts_with('.') {
        Some("it has a level that begins with \".\"")
    } else if level.contains(char::is_control) {
        Some("it has a control character")
    } else {
        None
    }
}

/// RFC 3501 §5.1.3: base64 of UTF-16BE with `,` for `/`, without padding; unused bits must be zero.
const UTF7_BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// Modified UTF-7 (RFC 3501 §5.1.3) of `utf8`.
pub fn encode_utf7(utf8: &str) -> String {
    let mut encoded = String::with_capacity(utf8.len());
    let mut rest = utf8;
    while let Some(first) = rest.chars().next() {
        let direct = is_direct(first);
        let (run, after) = rest.split_at(rest.find(|c| is_direct(c) != direct).unwrap_or(rest.len()));
        if direct {
            encoded.push_str(&run.replace('&', "&-"));
        } else {
            let utf16: Vec<u8> = run.encode_utf16().flat_map(u16::to_be_bytes).collect();
            encoded.push('&');
            UTF7_BASE64.encode_string(utf16, &mut encoded);
            encoded.push('-');
        }
        rest = after;
    }
    encoded
}

/// Decodes modified UTF-7; `None` for what is not canonical (printable ASCII inside `&…-`, unfinished shifts, lone surrogates).
pub fn decode_utf7(encoded: &str) -> Option<String> {
    let mut decoded = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((direct, shifted)) = rest.split_once('&') {
        decoded.push_str(direct);
        let (base64, after) = shifted.split_once('-')?;
        if base64.is_empty() {
            decoded.push('&');
        } else {
            decoded.push_str(&decode_shifted(base64)?);
        }
        rest = after;
    }
    decoded.push_str(rest);
    // What encodes differently has a second spelling: needless or adjoining shifts, 8-bit characters outside of one.
    (encode_utf7(&decoded) == encoded).then_some(decoded)
}

/// One level of a folder's name: modified UTF-7, or, as Courier 5 and Dovecot with `UTF-8` write them, plain UTF-8, which the former never is.
pub(crate) fn read_level(level: &str) -> Option<String> {
    if level.is_ascii() { decode_utf7(level) } else { Some(level.to_owned()) }
}

fn is_direct(c: char) -> bool {
    matches!(c, ' '..='~')
}

fn decode_shifted(base64: &str) -> Option<String> {
    let bytes = UTF7_BASE64.decode(base64).ok()?;
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit))).collect::<Result<String, _>>().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str) -> String {
        MailboxName::parse(name).unwrap().to_string()
    }
    fn refusal(name: &str) -> String {
        MailboxName::parse(name).unwrap_err().to_string()
    }

    #[test]
    fn the_examples_of_rfc_3501_are_known_answers() {
        let mixed = "~peter/mail/台北/日本語";
        assert_eq!(encode_utf7(mixed), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(decode_utf7("~peter/mail/&U,BTFw-/&ZeVnLIqe-").as_deref(), Some(mixed));
        assert_eq!(decode_utf7("&Jjo!"), None, "not shifted back to ASCII");
        assert_eq!(decode_utf7("&U,BTFw-&ZeVnLIqe-"), None, "a superfluous shift");
        assert_eq!(decode_utf7("&U,BTF2XlZyyKng-").as_deref(), Some("台北日本語"));
        assert_eq!(encode_utf7("Tom & Jerry"), "Tom &- Jerry");
    }

    #[test]
    fn only_canonical_utf7_is_decoded() {
        for (encoded, why) in [
            ("&", "unfinished shift"),
            ("a&AOk", "unfinished shift"),
            ("&*-", "not base64"),
            ("&Jjo!-", "not base64"),
            ("&AOk=-", "padding"),
            ("&AOl-", "bits left over that are not zero"),
            ("&AO-", "half a unit"),
            ("&AOkA-", "a unit and a half"),
            ("&AGE-", "printable ASCII in base64"),
            ("&AOkAYQ-", "printable ASCII at the end of base64"),
            ("&ACY-", "an ampersand in base64"),
            ("&2D0-", "lone high surrogate"),
            ("&3gA-", "lone low surrogate"),
            ("&U/BTFw-", "the slash of plain base64"),
            ("é", "8-bit character outside of base64"),
            ("a\tb", "control character outside of base64"),
            ("&AOk-&AOk-", "adjoining shifts"),
        ] {
            assert_eq!(decode_utf7(encoded), None, "{encoded}: {why}");
        }
        assert_eq!(decode_utf7("&2D3eAA-").as_deref(), Some("😀"));
        assert_eq!(decode_utf7("&AOk-&-x").as_deref(), Some("é&x"));
        assert_eq!(decode_utf7("&--").as_deref(), Some("&-"));
        assert_eq!(decode_utf7("").as_deref(), Some(""));
    }

    #[test]
    fn inbox_is_one_in_any_case() {
        assert_eq!(parse("inBox"), "INBOX");
        assert_eq!(parse("iNBOX/Work"), "INBOX/Work");
        assert_eq!(parse("Work/inbox"), "Work/inbox");
        assert_eq!(parse("inboxes"), "inboxes");
        assert!(MailboxName::parse("Inbox").unwrap().is_inbox());
    }

    #[test]
    fn names_are_composed() {
        assert_eq!(parse("Entwu\u{308}rfe"), "Entwürfe");
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", "/", "a//b", "/a", "a/"] {
            assert!(refusal(name).contains("empty level"), "{name:?}: {}", refusal(name));
        }
        for name in [".", "..", "../../etc/passwd", "a/../b", "a/.b", ".a"] {
            assert!(refusal(name).contains("\".\""), "{name:?}: {}", refusal(name));
        }
        for name in ["a\0b", "a\r\nb", "a\u{7f}", "a\u{85}b", "\t"] {
            assert!(refusal(name).contains("control"), "{name:?}: {}", refusal(name));
        }
        assert!(refusal(&"x".repeat(256)).contains("255"));
        assert!(refusal(&"x/".repeat(5_000_000)).contains("255"));
        assert!(refusal(&"é&".repeat(40)).contains("255"));
    }

    #[test]
    fn what_may_exist_may_still_not_be_made() {
        for name in ["50%", "a*b", "a\u{2028}b", &"x".repeat(181), &["x"; 33].join("/")] {
            let parsed = MailboxName::parse(name).unwrap();
            assert!(parsed.check_new().is_err(), "{name:?}");
            assert_eq!(MailboxName::from_folder(&parsed.to_folder()), Some(parsed));
        }
        for name in ["INBOX", "Archive/2026", "Tom & Jerry", "a b ", "日本語", &["x"; 32].join("/"), "~", "#news", "a\\b\"c"] {
            MailboxName::parse(name).unwrap().check_new().unwrap();
        }
    }

    #[test]
    fn folders_are_those_of_existing_servers() {
        for (name, folder) in
            [("INBOX", ""), ("INBOX/Work", ".INBOX.Work"), ("Archive/2026", ".Archive.2026"), ("Entwürfe/&", ".Entw&APw-rfe.&-")]
        {
            assert_eq!(MailboxName::parse(name).unwrap().to_folder(), folder);
            assert_eq!(MailboxName::from_folder(folder).unwrap().as_str(), name);
        }
        for (folder, why) in [
            ("cur", "no folder of Maildir++"),
            (".", "empty level"),
            ("..", "empty level"),
            (".a.", "empty level"),
            (".a..b", "empty level"),
            (".INBOX", "INBOX is the Maildir"),
            (".inbox", "INBOX is the Maildir"),
            (".&AC8-", "a slash in base64"),
            (".&AAA-", "NUL"),
            (".a&b", "not modified UTF-7"),
        ] {
            assert_eq!(MailboxName::from_folder(folder), None, "{folder}: {why}");
        }
        assert_eq!(MailboxName::from_folder(".Entwürfe.Tom & Jérôme").unwrap().as_str(), "Entwürfe/Tom & Jérôme", "Courier 5");
        let decomposed = format!(".{}", encode_utf7("Entwu\u{308}rfe"));
        assert_eq!(MailboxName::from_folder(&decomposed).unwrap().as_str(), "Entwürfe");
    }

    #[test]
    fn a_name_lies_below_whole_levels() {
        let name = |text: &str| MailboxName::parse(text).unwrap();
        assert!(name("a/b").is_below(&name("a")));
        assert!(!name("ab/c").is_below(&name("a")));
        assert!(!name("a").is_below(&name("a")));
        assert_eq!(name("a/b/c").parent(), Some(name("a/b")));
        assert_eq!(name("a").parent(), None);
    }

    proptest! {
        #[test]
        fn utf7_is_read_back(text in any::<String>()) {
            prop_assert_eq!(decode_utf7(&encode_utf7(&text)), Some(text));
        }
        #[test]
        fn what_utf7_decodes_has_one_spelling(encoded in "[&a-cA-Z0-9+,/=é-]{0,12}") {
            if let Some(text) = decode_utf7(&encoded) {
                prop_assert_eq!(encode_utf7(&text), encoded);
            }
        }
        #[test]
        fn names_are_read_back_from_their_folders(text in "[a-cé日😀&%/. u\u{308}]{0,20}|[iI][nN]BOX(/[a-z]{1,3})?|.{0,40}") {
            if let Ok(name) = MailboxName::parse(&text) {
                prop_assert_eq!(MailboxName::parse(name.as_str()).unwrap(), name.clone());
                prop_assert!(name.as_str().contains('.') || MailboxName::from_folder(&name.to_folder()) == Some(name));
            }
        }
        #[test]
        fn folders_fit_into_a_file_name(text in "([a-cé日😀&/]|.){0,200}") {
            if let Ok(name) = MailboxName::parse(&text) {
                let folder = name.to_folder();
                prop_assert!(folder.len() <= FOLDER_BYTES_MAX);
                prop_assert!(folder.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'/'));
            }
        }
        #[test]
        fn any_folder_name_is_taken_or_refused(folder in any::<String>()) {
            if let Some(name) = MailboxName::from_folder(&folder) {
                prop_assert!(MailboxName::parse(name.as_str()).is_ok());
            }
        }
    }
}
