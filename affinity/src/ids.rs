//! Who and which generation: user names, node names, incarnations, epochs.
//!
//! Invariants, each with the test that guards it:
//! - every spelling of one user gives one `UserName` (`spellings_of_one_user_are_one_name`)
//! - a `UserName` can't leave its folder: no `/`, NUL or leading dot survives encoding (`an_encoded_name_is_one_plain_file_name`)

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// Longest encoded user name in bytes: a file name holds 255, and the index and Maildir add parts of their own.
pub const USER_NAME_BYTES_MAX: usize = 200;
/// Longest node name in bytes: one DNS label.
pub const NODE_NAME_BYTES_MAX: usize = 63;

/// Everything but `a-z 0-9 . _ - + = @` is written as `%XX` in file names.
const PLAIN: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'!')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'~');

/// Why a name from a client or a file is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of the name.
    #[error("the name is empty")]
    Empty,
    /// Longer than a file name allows.
    #[error("the name is longer than {max} bytes when encoded")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// A character that no name may have.
    #[error("the name holds {0:?}, which is not allowed")]
    Forbidden(char),
    /// A file name that this program would not have written.
    #[error("{0:?} is not a name that Berth writes")]
    Malformed(String),
}

/// How a login name or recipient address becomes a [`UserName`]; the same on every node and in every protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NameRules {
    /// Domains that are dropped: `ada@localhost` is `ada`.
    pub local_domains: Vec<String>,
    /// What separates the detail from the local part: `ada+lists@example.org` with `+`. Empty: no details.
    pub detail_delimiter: String,
    /// What separates the user from a master user at login: `ada*admin` with `*`. Empty: no master users.
    pub master_separator: String,
}

/// A login name or address, taken apart by [`NameRules`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whose mail.
    pub user: UserName,
    /// The `+detail`, as it was written.
    pub detail: Option<String>,
    /// The master user who logs in for `user`.
    pub master: Option<UserName>,
}

impl Address {
    /// Takes a login name or an envelope address (without angle brackets) apart.
    pub fn parse(raw: &str, rules: &NameRules) -> Result<Address, NameError> {
        let (raw, master) = match split_last(raw, &rules.master_separator) {
            Some((user, master)) => {
                (user, Some(Address::parse(master, &NameRules { master_separator: String::new(), ..rules.clone() })?.user))
            }
            None => (raw, None),
        };
        let (local, domain) = match raw.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (raw, None),
        };
        let (local, detail) = match rules.detail_delimiter.as_str() {
            "" => (local, None),
            delimiter => match local.split_once(delimiter) {
                Some((local, detail)) if !local.is_empty() => (local, Some(detail.to_owned())),
                _ => (local, None),
            },
        };
        let domain = domain.filter(|domain| !rules.local_domains.iter().any(|d| d.eq_ignore_ascii_case(domain)));
        let joined = match domain {
            Some(domain) => format!("{local}@{domain}"),
            None => local.to_owned(),
        };
        Ok(Address { user: UserName::normalise(&joined)?, detail: detail.filter(|d| !d.is_empty()), master })
    }
}

fn split_last<'a>(raw: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    if separator.is_empty() { None } else { raw.rsplit_once(separator) }
}

/// A user, normalised: lower case, NFC, no detail, no local domain. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Arc<str>);

impl UserName {
    /// Lower-cases, composes (NFC) and checks `raw`, which has no detail and no local domain any more.
    pub fn normalise(raw: &str) -> Result<UserName, NameError> {
        let name: String = raw.trim().nfc().flat_map(char::to_lowercase).nfc().collect();
        let (local, domain) = name.rsplit_once('@').map_or((name.as_str(), None), |(l, d)| (l, Some(d)));
        if local.is_empty() || domain == Some("") {
            return Err(NameError::Empty);
        }
        if let Some(c) = name.chars().find(|c| c.is_control() || *c == '/' || *c == '\u{fffd}' || c.is_whitespace()) {
            return Err(NameError::Forbidden(c));
        }
        if local.starts_with('.') || domain.is_some_and(|d| d.starts_with('.') || d.starts_with('_')) {
            return Err(NameError::Forbidden('.'));
        }
        let user = UserName(name.into());
        if user.encoded().len() > USER_NAME_BYTES_MAX {
            return Err(NameError::TooLong { max: USER_NAME_BYTES_MAX });
        }
        Ok(user)
    }

    /// The name as people write it: `ada@example.org`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`.
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(local, _)| local)
    }

    /// What stands after the `@`, if the user has a domain.
    pub fn domain(&self) -> Option<&str> {
        self.0.rsplit_once('@').map(|(_, domain)| domain)
    }

    /// The name as one file name.
    pub fn encoded(&self) -> String {
        encode(&self.0)
    }

    /// Reads what [`UserName::encoded`] wrote.
    pub fn from_encoded(file_name: &str) -> Result<UserName, NameError> {
        let malformed = || NameError::Malformed(file_name.to_owned());
        let name = percent_decode_str(file_name).decode_utf8().map_err(|_| malformed())?;
        let user = UserName::normalise(&name)?;
        if user.encoded() == file_name { Ok(user) } else { Err(malformed()) }
    }
}

/// Percent-encodes what must not stand in one file name (also used for the parts of a mail path).
pub fn encode(part: &str) -> String {
    let encoded = utf8_percent_encode(part, PLAIN).to_string();
    // `utf8_percent_encode` encodes all that is not ASCII; a leading dot would hide the file or mean the folder itself.
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

impl TryFrom<String> for UserName {
    type Error = NameError;
    fn try_from(name: String) -> Result<UserName, NameError> {
        UserName::normalise(&name)
    }
}
impl From<UserName> for String {
    fn from(user: UserName) -> String {
        user.0.to_string()
    }
}
impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A node's configured name: `a-z 0-9 - .`, at most 63 bytes, neither `free` nor `users` (they mean something in file names). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<NodeName, NameError> {
        if raw.is_empty() || raw.starts_with(['.', '-']) || ["free", "users"].contains(&raw) {
            return Err(if raw.is_empty() { NameError::Empty } else { NameError::Malformed(raw.to_owned()) });
        }
        if raw.len() > NODE_NAME_BYTES_MAX {
            return Err(NameError::TooLong { max: NODE_NAME_BYTES_MAX });
        }
        match raw.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-' || *c == '.')) {
            Some(c) => Err(NameError::Forbidden(c)),
            None => Ok(NodeName(raw.into())),
        }
    }
}
impl TryFrom<String> for NodeName {
    type Error = NameError;
    fn try_from(name: String) -> Result<NodeName, NameError> {
        name.parse()
    }
}
impl From<NodeName> for String {
    fn from(node: NodeName) -> String {
        node.0.to_string()
    }
}
impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One start of a node: a random number, so that a restarted node is somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(NonZeroU64);

impl Incarnation {
    /// A new random incarnation.
    pub fn random() -> Incarnation {
        Incarnation(NonZeroU64::new(rand::random::<u64>()).unwrap_or(NonZeroU64::MIN))
    }
    /// A chosen incarnation, for tests and models.
    pub fn from_number(number: NonZeroU64) -> Incarnation {
        Incarnation(number)
    }
}
impl FromStr for Incarnation {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<Incarnation, NameError> {
        let malformed = || NameError::Malformed(raw.to_owned());
        let number = u64::from_str_radix(raw, 16).map_err(|_| malformed())?;
        let incarnation = Incarnation(NonZeroU64::new(number).ok_or_else(malformed)?);
        if incarnation.to_string() == raw { Ok(incarnation) } else { Err(malformed()) }
    }
}
impl TryFrom<String> for Incarnation {
    type Error = NameError;
    fn try_from(raw: String) -> Result<Incarnation, NameError> {
        raw.parse()
    }
}
impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> String {
        incarnation.to_string()
    }
}
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running server: a node and its incarnation, written `node,incarnation`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HolderId {
    /// Which node.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: Incarnation,
}
impl FromStr for HolderId {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<HolderId, NameError> {
        let (node, incarnation) = raw.split_once(',').ok_or_else(|| NameError::Malformed(raw.to_owned()))?;
        Ok(HolderId { node: node.parse()?, incarnation: incarnation.parse()? })
    }
}
impl TryFrom<String> for HolderId {
    type Error = NameError;
    fn try_from(raw: String) -> Result<HolderId, NameError> {
        raw.parse()
    }
}
impl From<HolderId> for String {
    fn from(holder: HolderId) -> String {
        holder.to_string()
    }
}
impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.node, self.incarnation)
    }
}
impl fmt::Debug for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A lease's generation: one more at every change of holder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before anybody held the lease.
    pub const ZERO: Epoch = Epoch(0);
    /// The next generation. Names hold at most [`crate::names::NUMBER_MAX`], so there always is one.
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NameRules {
        NameRules { local_domains: vec!["localhost".into()], detail_delimiter: "+".into(), master_separator: "*".into() }
    }

    #[test]
    fn spellings_of_one_user_are_one_name() {
        for spelling in ["ada", "Ada", "ADA@localhost", "ada+lists", "ada+a+b@LocalHost", "ada*admin"] {
            assert_eq!(Address::parse(spelling, &rules()).unwrap().user.as_str(), "ada", "{spelling}");
        }
        assert_eq!(Address::parse("ada+Lists@example.org", &rules()).unwrap().detail.as_deref(), Some("Lists"));
        assert_eq!(Address::parse("ada*root", &rules()).unwrap().master.unwrap().as_str(), "root");
    }

    #[test]
    fn an_encoded_name_is_one_plain_file_name() {
        for hostile in ["..", ".", "", "a/b", "a\0b", "@x", "a@", "a@..", &"x".repeat(300), "a b"] {
            assert!(UserName::normalise(hostile).is_err(), "{hostile:?}");
        }
        for odd in ["a%2fb", "o'neill@example.org", "zoë@例え.jp", "a,b", "%2e%2e"] {
            let user = UserName::normalise(odd).unwrap();
            let file = user.encoded();
            assert!(!file.contains(['/', ',', '\0']) && !file.starts_with('.'), "{file}");
            assert_eq!(UserName::from_encoded(&file).unwrap(), user);
        }
    }

    #[test]
    fn holder_names_are_read_back() {
        let holder = HolderId { node: "node-a".parse().unwrap(), incarnation: Incarnation::random() };
        assert_eq!(holder.to_string().parse::<HolderId>().unwrap(), holder);
        for bad in ["free", "a", "a,", "a,0", "a,00000000000000zz", "A,0000000000000001", "a,1"] {
            assert!(bad.parse::<HolderId>().is_err(), "{bad}");
        }
    }
}
