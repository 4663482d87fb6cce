//! The state that lives in file names: parse and print.
//!
//! Invariants, each with the test that guards it:
//! - what is printed is read back, and nothing else is read (`names_are_read_back`, `nothing_but_our_own_names_is_read`)
//! - every name fits into the 255 bytes that a file system gives (`the_longest_names_fit`)

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

use crate::{Epoch, HolderId, NameError, NodeName, UserName, ids::encode, placement::stable_hash};

/// Longest file name of every file system that matters (`NAME_MAX`).
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Largest beat, epoch or counter that is read from a name: room to add to it, and what an SQLite integer holds.
pub const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();
/// Longest key of a setting, in bytes.
pub const SETTING_KEY_BYTES_MAX: usize = 32;
/// Longest value of a setting, encoded, in bytes: with the longest key, `=`, `,` and a counter the name still fits.
pub const SETTING_VALUE_BYTES_MAX: usize = 200;

/// Where the node files are.
pub const NODES: &str = "nodes";
/// Where the node files of fenced incarnations go.
pub const FENCED: &str = "fenced";
/// What each incarnation published.
pub const INFO: &str = "info";
/// What operators set.
pub const SETTINGS: &str = "settings";
/// Which users are pinned to which nodes; no node has this name.
pub const PINS: &str = "settings/users";
/// The users' lease folders.
pub const LEASES: &str = "leases";

/// `<node>,<incarnation>,<beat>`, in `nodes/` and `fenced/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeFile {
    /// Whose sign of life.
    pub holder: HolderId,
    /// Its number.
    pub beat: u64,
}

impl NodeFile {
    /// Path while the incarnation lives.
    pub fn in_nodes(&self) -> String {
        format!("{NODES}/{self}")
    }
    /// Path once it is fenced by somebody who says no more ([`NodeFile::ended`]).
    pub fn in_fenced(&self) -> String {
        format!("{FENCED}/{self}")
    }
}

impl fmt::Display for NodeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.holder, self.beat)
    }
}
impl fmt::Debug for NodeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for NodeFile {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<NodeFile, NameError> {
        let (holder, beat) = raw.rsplit_once(',').ok_or_else(|| malformed(raw))?;
        Ok(NodeFile { holder: holder.parse()?, beat: number(beat)? })
    }
}

/// `<epoch>,<holder>` or `<epoch>,free`, in a user's lease folder.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseName {
    /// Generation.
    pub epoch: Epoch,
    /// Who has it; `None`: free.
    pub holder: Option<HolderId>,
}

impl LeaseName {
    /// What a new lease folder holds.
    pub const FIRST: LeaseName = LeaseName { epoch: Epoch::ZERO, holder: None };

    /// Path of this name in `user`'s lease folder.
    pub fn in_folder_of(&self, user: &UserName) -> String {
        format!("{}/{self}", lease_folder(user))
    }
}
impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{},{holder}", self.epoch),
            None => write!(f, "{},free", self.epoch),
        }
    }
}
impl fmt::Debug for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for LeaseName {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<LeaseName, NameError> {
        let (epoch, holder) = raw.split_once(',').ok_or_else(|| malformed(raw))?;
        let holder = if holder == "free" { None } else { Some(holder.parse()?) };
        Ok(LeaseName { epoch: Epoch(number(epoch)?), holder })
    }
}

/// `<key>=<value>,<n>`, in `settings/<node>/`: the value is percent-encoded, the highest `n` of a key counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SettingName {
    key: String,
    value: String,
    /// One more at every change.
    pub n: u64,
}

impl SettingName {
    /// Checks key (`a-z 0-9 -`) and value (any text of at most [`SETTING_VALUE_BYTES_MAX`] encoded bytes).
    pub fn new(key: &str, value: &str, n: u64) -> Result<SettingName, NameError> {
        if key.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(c) = key.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
            return Err(NameError::Forbidden(c));
        }
        if key.len() > SETTING_KEY_BYTES_MAX {
            return Err(NameError::TooLong { max: SETTING_KEY_BYTES_MAX });
        }
        if encode(value).len() > SETTING_VALUE_BYTES_MAX {
            return Err(NameError::TooLong { max: SETTING_VALUE_BYTES_MAX });
        }
        Ok(SettingName { key: key.to_owned(), value: value.to_owned(), n })
    }
    /// Which setting.
    pub fn key(&self) -> &str {
        &self.key
    }
    /// What it is set to; empty: unset.
    pub fn value(&self) -> &str {
        &self.value
    }
}
impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={},{}", self.key, encode(&self.value), self.n)
    }
}
impl FromStr for SettingName {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<SettingName, NameError> {
        let (key, rest) = raw.split_once('=').ok_or_else(|| malformed(raw))?;
        let (value, n) = rest.rsplit_once(',').ok_or_else(|| malformed(raw))?;
        let value = percent_decode_str(value).decode_utf8().map_err(|_| malformed(raw))?;
        let name = SettingName::new(key, &value, number(n)?)?;
        if name.to_string() == raw { Ok(name) } else { Err(malformed(raw)) }
    }
}

/// `<user>=<node>,<n>`, in `settings/users/`: the highest `n` of a user counts, no node means not pinned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinName {
    /// Whom.
    pub user: UserName,
    /// Where to; `None`: nowhere any more.
    pub node: Option<NodeName>,
    /// One more at every change.
    pub n: u64,
}

impl PinName {
    /// Path of this name.
    pub fn path(&self) -> String {
        format!("{PINS}/{self}")
    }
    /// Whether it fits into a file name: that of a user with a very long name may not.
    pub fn check(&self) -> Result<(), NameError> {
        if self.to_string().len() > FILE_NAME_BYTES_MAX { Err(NameError::TooLong { max: FILE_NAME_BYTES_MAX }) } else { Ok(()) }
    }
}
impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={},{}", self.user.encoded(), self.node.as_ref().map_or("", NodeName::as_str), self.n)
    }
}
impl FromStr for PinName {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<PinName, NameError> {
        let (rest, n) = raw.rsplit_once(',').ok_or_else(|| malformed(raw))?;
        // A user's name may hold `=`, a node's may not.
        let (user, node) = rest.rsplit_once('=').ok_or_else(|| malformed(raw))?;
        let node = if node.is_empty() { None } else { Some(node.parse()?) };
        Ok(PinName { user: UserName::from_encoded(user)?, node, n: number(n)? })
    }
}

/// `leases/<2 hex>/<user>`, relative to the shared directory.
pub fn lease_folder(user: &UserName) -> String {
    format!("{}/{}", lease_bucket(user), user.encoded())
}

/// `leases/<2 hex>`: where the user's lease folder is.
pub fn lease_bucket(user: &UserName) -> String {
    format!("{LEASES}/{:02x}", stable_hash(&[user.as_str().as_bytes()]) & 0xff)
}

/// `settings/<node>`.
pub fn settings_folder(node: &NodeName) -> String {
    format!("{SETTINGS}/{node}")
}

/// A listing, sorted into what we understand and what somebody else put there. Hidden and temporary names (`.nfs…`, `~…`) are neither.
pub fn sort_out<T: FromStr>(listing: &[String]) -> (Vec<T>, Vec<&str>) {
    let mut understood = Vec::with_capacity(listing.len());
    let mut strangers = Vec::new();
    for name in listing.iter().filter(|name| !name.starts_with(['.', '~'])) {
        match name.parse() {
            Ok(parsed) => understood.push(parsed),
            Err(_) => strangers.push(name.as_str()),
        }
    }
    (understood, strangers)
}

/// A number as we print it: no sign, no leading zero, at most [`NUMBER_MAX`].
pub(crate) fn number(raw: &str) -> Result<u64, NameError> {
    match raw.parse::<u64>() {
        Ok(number) if number <= NUMBER_MAX && number.to_string() == raw => Ok(number),
        _ => Err(malformed(raw)),
    }
}

fn malformed(raw: &str) -> NameError {
    NameError::Malformed(raw.to_owned())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        Incarnation,
        ids::{NODE_NAME_BYTES_MAX, USER_NAME_BYTES_MAX},
    };

    fn holder() -> impl Strategy<Value = HolderId> {
        ("[a-z0-9][a-z0-9.-]{0,62}", 1..=u64::MAX).prop_filter_map("reserved", |(node, incarnation)| {
            Some(HolderId { node: node.parse().ok()?, incarnation: Incarnation::from_number(NonZeroU64::new(incarnation)?) })
        })
    }

    fn assert_read_back<T: FromStr<Err = NameError> + fmt::Display + PartialEq + fmt::Debug>(name: &T) {
        let printed = name.to_string();
        assert_eq!(&printed.parse::<T>().unwrap(), name);
        assert!(printed.len() <= FILE_NAME_BYTES_MAX && !printed.contains('/') && !printed.starts_with('.'), "{printed}");
    }

    proptest! {
        #[test]
        fn names_are_read_back(holder in holder(), number in 0..=NUMBER_MAX, free: bool, key in "[a-z0-9-]{1,32}", value in ".{0,20}") {
            assert_read_back(&NodeFile { holder: holder.clone(), beat: number });
            assert_read_back(&LeaseName { epoch: Epoch(number), holder: (!free).then_some(holder.clone()) });
            assert_read_back(&SettingName::new(&key, &value, number).unwrap());
            let (local, node) = (value.replace(['/', '@'], ""), holder.node.clone());
            if let Ok(user) = UserName::normalise(&format!("a=b,{}@{key}.example", local.trim())) {
                let pin = PinName { user, node: (!free).then_some(node), n: number };
                if pin.check().is_ok() { assert_read_back(&pin); }
            }
        }

        #[test]
        fn nothing_but_our_own_names_is_read(raw in "[a-c0-9,.=%-]{0,40}|\\PC{0,40}") {
            if let Ok(name) = raw.parse::<NodeFile>() { prop_assert_eq!(name.to_string(), raw.clone()); }
            if let Ok(name) = raw.parse::<LeaseName>() { prop_assert_eq!(name.to_string(), raw.clone()); }
            if let Ok(name) = raw.parse::<PinName>() { prop_assert_eq!(name.to_string(), raw.clone()); }
            if let Ok(name) = raw.parse::<SettingName>() { prop_assert_eq!(name.to_string(), raw); }
        }
    }

    #[test]
    fn near_misses_are_not_read() {
        for bad in ["", "1", "1,", "01,free", "+1,free", "1,Free", "1,free,", "9223372036854775808,free", "1,a,1", "-1,free", " 1,free"] {
            assert!(bad.parse::<LeaseName>().is_err(), "{bad}");
        }
        for bad in ["a,00000000000000aa", "a,00000000000000aa,", "a,00000000000000aa,01", "a,00000000000000AA,1", ",00000000000000aa,1"] {
            assert!(bad.parse::<NodeFile>().is_err(), "{bad}");
        }
        for bad in ["weight=5", "weight,5", "=5,1", "Weight=5,1", "weight=a b,1", "weight=%61,1", "tags=a,b,1"] {
            assert!(bad.parse::<SettingName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let node: NodeName = "n".repeat(NODE_NAME_BYTES_MAX).parse().unwrap();
        let holder = HolderId { node, incarnation: Incarnation::from_number(NonZeroU64::MAX) };
        assert_read_back(&NodeFile { holder: holder.clone(), beat: NUMBER_MAX });
        assert_read_back(&LeaseName { epoch: Epoch(NUMBER_MAX), holder: Some(holder) });
        let (key, value) = ("k".repeat(SETTING_KEY_BYTES_MAX), "v".repeat(SETTING_VALUE_BYTES_MAX));
        assert_read_back(&SettingName::new(&key, &value, NUMBER_MAX).unwrap());
        assert!(SettingName::new(&key, &format!("{value}v"), 0).is_err());
        assert!(UserName::normalise(&"u".repeat(USER_NAME_BYTES_MAX)).unwrap().encoded().len() <= FILE_NAME_BYTES_MAX);
    }

    #[test]
    fn what_others_put_there_is_set_aside() {
        let listing = ["3,free", ".nfs000001", "~a,1", "README", "4,free~"].map(str::to_owned);
        let (leases, strangers) = sort_out::<LeaseName>(&listing);
        assert_eq!(leases, [LeaseName { epoch: Epoch(3), holder: None }]);
        assert_eq!(strangers, ["README", "4,free~"]);
    }
}
