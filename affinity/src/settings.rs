//! What operators set: weight, drain and tags of nodes, pins of users; and what a node says of itself. Names as well, changed by swap; works
//! without being a member of the cluster.
//!
//! Invariants, each with the test that guards it:
//! - the last one to set a key wins, on every node alike (`the_last_to_set_a_key_wins`)
//! - of two who add a tag at once neither is lost (`tags_are_added_and_removed_one_by_one`)
//! - a user is pinned to one node at most, the same for all (`a_pin_is_changed_and_taken_back`)
//! - nodes notice a change without listing every folder all the time (`a_change_shows_in_the_marker`)

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    str::FromStr,
    sync::Arc,
};

use crate::{
    NameError, NodeName, UserName,
    names::{PINS, PinName, SETTINGS, SettingName, number, settings_folder, sort_out},
    swap::{SharedDirectory, Swapped, swap},
};

/// Share of new users of a node that has no setting.
pub const WEIGHT_DEFAULT: u32 = 100;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 32;
/// Name, before its counter, of the file in `settings/` that moves on at every change: one listing tells whether to look further.
const MARKER: &str = "~changed,";
/// Most tries to set one key: each that is lost means that somebody else set it meanwhile.
const TRIES_MAX: u32 = 8;

/// A label of nodes, which users may ask for: `a-z 0-9 - _ .`, at most [`TAG_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl FromStr for Tag {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<Tag, NameError> {
        let tag = raw.to_ascii_lowercase();
        if tag.is_empty() {
            return Err(NameError::Empty);
        }
        if tag.len() > TAG_BYTES_MAX {
            return Err(NameError::TooLong { max: TAG_BYTES_MAX });
        }
        match tag.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || ['-', '_', '.'].contains(c))) {
            Some(c) => Err(NameError::Forbidden(c)),
            None => Ok(Tag(tag)),
        }
    }
}
impl TryFrom<String> for Tag {
    type Error = NameError;
    fn try_from(raw: String) -> Result<Tag, NameError> {
        raw.parse()
    }
}
impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.0
    }
}
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One node's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSettings(BTreeMap<String, String>);

impl NodeSettings {
    /// A key's value, unless unset.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
    /// Every key that is set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
    /// Share of new users.
    pub fn weight(&self) -> u32 {
        self.get("weight").and_then(|weight| weight.parse().ok()).unwrap_or(WEIGHT_DEFAULT)
    }
    /// Takes no new users.
    pub fn draining(&self) -> bool {
        self.get("drain").is_some_and(|drain| !matches!(drain, "no" | "false" | "0"))
    }
    /// Labels that users may ask for.
    pub fn tags(&self) -> BTreeSet<Tag> {
        self.get("tags").map_or_else(BTreeSet::new, read_tags)
    }
    /// Why the node says that it can't serve as it should.
    pub fn trouble(&self) -> Option<&str> {
        self.get(TROUBLE)
    }

    fn from_names(names: &[SettingName]) -> NodeSettings {
        let mut highest: BTreeMap<&str, &SettingName> = BTreeMap::new();
        for name in names {
            let best = highest.entry(name.key()).or_insert(name);
            if rank(name) > rank(best) {
                *best = name;
            }
        }
        let set = highest.into_iter().filter(|(_, name)| !name.value().is_empty());
        NodeSettings(set.map(|(key, name)| (key.to_owned(), name.value().to_owned())).collect())
    }
}

/// The key under which a node says that it can't serve.
pub const TROUBLE: &str = "trouble";

fn read_tags(list: &str) -> BTreeSet<Tag> {
    list.split(',').filter_map(|tag| tag.trim().parse().ok()).collect()
}

/// The highest counter counts; the value only so that all agree where two began at once.
fn rank(name: &SettingName) -> (u64, &str) {
    (name.n, name.value())
}

/// All nodes' settings, as read last.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    nodes: BTreeMap<NodeName, Arc<NodeSettings>>,
    pins: Arc<HashMap<UserName, NodeName>>,
    markers: Vec<String>,
}

impl Settings {
    /// One node's.
    pub fn of(&self, node: &NodeName) -> Arc<NodeSettings> {
        self.nodes.get(node).cloned().unwrap_or_default()
    }
    /// Reads `settings/` afresh; the nodes' folders only if something changed since `self` was read, or if `all`.
    pub fn read_again(&self, directory: &dyn SharedDirectory, all: bool) -> io::Result<Option<Settings>> {
        let of = |folder: String| move |error: io::Error| io::Error::new(error.kind(), format!("{folder}: {error}"));
        let listing = directory.list(SETTINGS).map_err(of(SETTINGS.to_owned()))?;
        let mut markers: Vec<String> = listing.iter().filter(|name| name.starts_with(MARKER)).cloned().collect();
        markers.sort();
        if markers == self.markers && !all {
            return Ok(None);
        }
        let mut nodes = BTreeMap::new();
        for node in listing.iter().filter_map(|name| name.parse::<NodeName>().ok()) {
            let settings = read_node(directory, &node).map_err(of(settings_folder(&node)))?;
            nodes.insert(node, Arc::new(settings));
        }
        let pins = read_pins(directory).map_err(of(PINS.to_owned()))?.into_iter().filter_map(|pin| Some((pin.user, pin.node?))).collect();
        Ok(Some(Settings { nodes, pins: Arc::new(pins), markers }))
    }
    /// Where a user is pinned to.
    pub fn pin_of(&self, user: &UserName) -> Option<&NodeName> {
        self.pins.get(user)
    }
}

/// The latest word on every user who is or was pinned, afresh, by name.
pub fn read_pins(directory: &dyn SharedDirectory) -> io::Result<Vec<PinName>> {
    let mut highest: BTreeMap<UserName, PinName> = BTreeMap::new();
    for pin in list_settings::<PinName>(directory, PINS)? {
        let best = highest.entry(pin.user.clone()).or_insert_with(|| pin.clone());
        if (pin.n, &pin.node) > (best.n, &best.node) {
            *best = pin;
        }
    }
    Ok(highest.into_values().collect())
}

/// One node's settings, afresh.
pub fn read_node(directory: &dyn SharedDirectory, node: &NodeName) -> io::Result<NodeSettings> {
    Ok(NodeSettings::from_names(&list_node(directory, node)?))
}

fn list_node(directory: &dyn SharedDirectory, node: &NodeName) -> io::Result<Vec<SettingName>> {
    list_settings(directory, &settings_folder(node))
}

fn list_settings<T: FromStr>(directory: &dyn SharedDirectory, folder: &str) -> io::Result<Vec<T>> {
    let listing = match directory.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Perhaps only this client believes so.
            directory.refresh(SETTINGS)?;
            match directory.list(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                listing => listing?,
            }
        }
        listing => listing?,
    };
    let (names, strangers) = sort_out(&listing);
    for stranger in strangers {
        tracing::warn!(folder, name = stranger, "not a setting: ignored");
    }
    Ok(names)
}

/// Why a setting could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// No setting can be called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sets `key` of `node`; an empty value unsets it.
pub fn set(directory: &dyn SharedDirectory, node: &NodeName, key: &str, value: &str) -> Result<(), SetError> {
    update(directory, node, key, |_| Ok(value.to_owned()))
}

/// Adds tags to those of `node`, or takes some away; gives what it has now.
pub fn change_tags(
    directory: &dyn SharedDirectory,
    node: &NodeName,
    change: impl Fn(&mut BTreeSet<Tag>),
) -> Result<BTreeSet<Tag>, SetError> {
    let mut now = BTreeSet::new();
    update(directory, node, "tags", |old| {
        now = read_tags(old);
        change(&mut now);
        Ok(now.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    })?;
    Ok(now)
}

/// What `key` of `node` is to be, from what it is.
fn update(
    directory: &dyn SharedDirectory,
    node: &NodeName,
    key: &str,
    mut new_value: impl FnMut(&str) -> Result<String, NameError>,
) -> Result<(), SetError> {
    let first = SettingName::new(key, "", 0)?;
    let folder = settings_folder(node);
    for _ in 0..TRIES_MAX {
        let names: Vec<SettingName> = list_node(directory, node)?.into_iter().filter(|name| name.key() == key).collect();
        let old = names.iter().max_by(|a, b| rank(a).cmp(&rank(b)));
        let value = new_value(old.map_or("", SettingName::value))?;
        let new = SettingName::new(key, &value, old.map_or(1, |old| old.n.saturating_add(1)))?;
        let Some(old) = old else {
            // A name that all who begin agree on; whoever finds it there goes on with it.
            create_if_missing(directory, &folder, &format!("{folder}/{first}"))?;
            continue;
        };
        if old.value() == value {
            // Whoever set it may have died before it said so.
            return Ok(move_marker(directory)?);
        }
        if change(directory, &folder, &names, old, &new)? {
            return Ok(());
        }
    }
    Err(contended())
}

/// Pins `user` to `node`, or to none.
pub fn pin(directory: &dyn SharedDirectory, user: &UserName, node: Option<&NodeName>) -> Result<(), SetError> {
    for _ in 0..TRIES_MAX {
        let names: Vec<PinName> = list_settings::<PinName>(directory, PINS)?.into_iter().filter(|pin| pin.user == *user).collect();
        let old = names.iter().max_by_key(|pin| (pin.n, pin.node.clone()));
        let new = PinName { user: user.clone(), node: node.cloned(), n: old.map_or(1, |old| old.n.saturating_add(1)) };
        new.check()?;
        match old {
            None if node.is_none() => return Ok(()),
            None => create_if_missing(directory, PINS, &PinName { user: user.clone(), node: None, n: 0 }.path())?,
            Some(old) if old.node.as_ref() == node => return Ok(move_marker(directory)?),
            Some(old) => {
                if change(directory, PINS, &names, old, &new)? {
                    return Ok(());
                }
            }
        }
    }
    Err(contended())
}

/// Swaps `old` for `new`, clears what two who began at once left over, and lets all nodes know; whether it was won.
fn change<T: fmt::Display + PartialEq>(
    directory: &dyn SharedDirectory,
    folder: &str,
    names: &[T],
    old: &T,
    new: &T,
) -> Result<bool, SetError> {
    if swap(directory, &format!("{folder}/{old}"), &format!("{folder}/{new}"))? == Swapped::Lost {
        return Ok(false);
    }
    for stale in names.iter().filter(|name| *name != old) {
        if let Err(error) = directory.remove(&format!("{folder}/{stale}")) {
            tracing::debug!(folder, %stale, %error, "an outdated setting stays");
        }
    }
    directory.sync(folder)?;
    move_marker(directory)?;
    Ok(true)
}

fn contended() -> SetError {
    io::Error::new(io::ErrorKind::WouldBlock, "somebody else sets it all the time").into()
}

fn move_marker(directory: &dyn SharedDirectory) -> io::Result<()> {
    for _ in 0..TRIES_MAX {
        let listing = directory.list(SETTINGS)?;
        let highest = listing.iter().filter_map(|name| number(name.strip_prefix(MARKER)?).ok()).max();
        let Some(n) = highest else {
            create_if_missing(directory, SETTINGS, &format!("{SETTINGS}/{MARKER}0"))?;
            continue;
        };
        let (old, new) = (format!("{SETTINGS}/{MARKER}{n}"), format!("{SETTINGS}/{MARKER}{}", n.saturating_add(1)));
        if swap(directory, &old, &new)? == Swapped::Won {
            return Ok(());
        }
    }
    // Whoever was faster moved it after us.
    Ok(())
}

fn create_if_missing(directory: &dyn SharedDirectory, folder: &str, name: &str) -> io::Result<()> {
    let exists = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    match directory.create_folder(folder) {
        Err(error) if !exists(&error) => return Err(error),
        _ => {}
    }
    match directory.create(name) {
        Err(error) if !exists(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::FaultyDirectory;

    fn node() -> NodeName {
        "a".parse().unwrap()
    }
    fn tags(names: &[&str]) -> BTreeSet<Tag> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_last_to_set_a_key_wins() {
        let directory = FaultyDirectory::cluster();
        assert_eq!(read_node(&directory, &node()).unwrap(), NodeSettings::default());
        set(&directory, &node(), "weight", "50").unwrap();
        set(&directory, &node(), "tags", "fast, eu,").unwrap();
        set(&directory.another_client(), &node(), "weight", "30").unwrap();
        let settings = read_node(&directory, &node()).unwrap();
        assert_eq!(settings.weight(), 30);
        assert_eq!(settings.tags(), tags(&["eu", "fast"]));
        assert!(!settings.draining());
        set(&directory, &node(), "weight", "").unwrap();
        assert_eq!(read_node(&directory, &node()).unwrap().weight(), WEIGHT_DEFAULT);
        assert!(matches!(set(&directory, &node(), "Weight", "1"), Err(SetError::Name(_))));
    }

    #[test]
    fn tags_are_added_and_removed_one_by_one() {
        let directory = FaultyDirectory::cluster();
        let add = |tag: &str| {
            let tag: Tag = tag.parse().unwrap();
            change_tags(&directory, &node(), |tags| tags.extend([tag.clone()])).unwrap()
        };
        add("eu");
        assert_eq!(add("Fast"), tags(&["eu", "fast"]));
        assert_eq!(change_tags(&directory, &node(), |now| now.retain(|tag| *tag != "eu".parse().unwrap())).unwrap(), tags(&["fast"]));
        assert_eq!(read_node(&directory, &node()).unwrap().tags(), tags(&["fast"]));
        for bad in ["", "a b", "a,b", "ä", &"x".repeat(TAG_BYTES_MAX + 1)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        let many = |now: &mut BTreeSet<Tag>| now.extend((0..100).map(|n| format!("tag-{n}").parse::<Tag>().unwrap()));
        assert!(matches!(change_tags(&directory, &node(), many), Err(SetError::Name(NameError::TooLong { .. }))));
        assert_eq!(read_node(&directory, &node()).unwrap().tags(), tags(&["fast"]), "what does not fit changes nothing");
    }

    #[test]
    fn a_pin_is_changed_and_taken_back() {
        let directory = FaultyDirectory::cluster();
        let (ada, b) = (UserName::normalise("ada=x,y@example.org").unwrap(), "b".parse::<NodeName>().unwrap());
        pin(&directory, &ada, None).unwrap();
        assert_eq!(directory.list(SETTINGS).unwrap(), [] as [&str; 0], "who was never pinned leaves nothing behind");
        pin(&directory, &ada, Some(&node())).unwrap();
        pin(&directory.another_client(), &ada, Some(&b)).unwrap();
        let read = || Settings::default().read_again(&directory, true).unwrap().unwrap();
        assert_eq!(read().pin_of(&ada), Some(&b));
        assert_eq!(directory.list(PINS).unwrap().len(), 1);
        pin(&directory, &ada, None).unwrap();
        assert_eq!(read().pin_of(&ada), None);
        // The counter goes on: no name is used twice.
        pin(&directory, &ada, Some(&node())).unwrap();
        assert_eq!(directory.list(PINS).unwrap(), ["ada=x%2Cy@example.org=a,4"]);
        assert_eq!(read().of(&"users2".parse().unwrap()), Arc::default(), "the folder of pins is no node's");
    }

    #[test]
    fn a_pin_that_fits_no_file_name_is_refused() {
        let directory = FaultyDirectory::cluster();
        let (user, node) = (UserName::normalise(&"u".repeat(200)).unwrap(), "n".repeat(60).parse().unwrap());
        assert!(matches!(pin(&directory, &user, Some(&node)), Err(SetError::Name(NameError::TooLong { .. }))));
    }

    #[test]
    fn leftovers_of_two_who_began_at_once_are_cleared() {
        let directory = FaultyDirectory::cluster();
        set(&directory, &node(), "drain", "yes").unwrap();
        directory.create("settings/a/drain=no,1").unwrap();
        assert!(read_node(&directory, &node()).unwrap().draining(), "all agree on one of the two");
        set(&directory, &node(), "drain", "no").unwrap();
        assert_eq!(directory.list("settings/a").unwrap(), ["drain=no,2"]);
    }

    #[test]
    fn a_change_shows_in_the_marker() {
        let directory = FaultyDirectory::cluster();
        let none = Settings::default();
        assert!(none.read_again(&directory, false).unwrap().is_none());
        set(&directory, &node(), "drain", "yes").unwrap();
        let some = none.read_again(&directory, false).unwrap().unwrap();
        assert!(some.of(&node()).draining());
        assert!(some.read_again(&directory, false).unwrap().is_none());
        set(&directory, &node(), "drain", "no").unwrap();
        assert!(!some.read_again(&directory, false).unwrap().unwrap().of(&node()).draining());
    }
}
