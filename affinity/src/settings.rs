//! What operators set for a node: weight, drain, tags. Names as well, changed by swap; works without being a member of the cluster.
//!
//! Invariants, each with the test that guards it:
//! - the last one to set a key wins, on every node alike (`the_last_to_set_a_key_wins`)
//! - nodes notice a change without listing every folder all the time (`a_change_shows_in_the_marker`)

use std::{collections::BTreeMap, io, sync::Arc};

use crate::{
    NameError, NodeName,
    names::{SETTINGS, SettingName, number, settings_folder, sort_out},
    swap::{SharedDirectory, Swapped, swap},
};

/// Share of new users of a node that has no setting.
pub const WEIGHT_DEFAULT: u32 = 100;
/// Name, before its counter, of the file in `settings/` that moves on at every change: one listing tells whether to look further.
const MARKER: &str = "~changed,";
/// Most tries to set one key: each that is lost means that somebody else set it meanwhile.
const TRIES_MAX: u32 = 8;

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
    /// Labels that placement rules may ask for.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.get("tags").unwrap_or_default().split(',').map(str::trim).filter(|tag| !tag.is_empty())
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

/// The highest counter counts; the value only so that all agree where two began at once.
fn rank(name: &SettingName) -> (u64, &str) {
    (name.n, name.value())
}

/// All nodes' settings, as read last.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    nodes: BTreeMap<NodeName, Arc<NodeSettings>>,
    markers: Vec<String>,
}

impl Settings {
    /// One node's.
    pub fn of(&self, node: &NodeName) -> Arc<NodeSettings> {
        self.nodes.get(node).cloned().unwrap_or_default()
    }
    /// Reads `settings/` afresh; the nodes' folders only if something changed since `self` was read, or if `all`.
    pub fn read_again(&self, directory: &dyn SharedDirectory, all: bool) -> io::Result<Option<Settings>> {
        let listing = directory.list(SETTINGS)?;
        let mut markers: Vec<String> = listing.iter().filter(|name| name.starts_with(MARKER)).cloned().collect();
        markers.sort();
        if markers == self.markers && !all {
            return Ok(None);
        }
        let mut nodes = BTreeMap::new();
        for node in listing.iter().filter_map(|name| name.parse::<NodeName>().ok()) {
            let settings = read_node(directory, &node)?;
            nodes.insert(node, Arc::new(settings));
        }
        Ok(Some(Settings { nodes, markers }))
    }
}

/// One node's settings, afresh.
pub fn read_node(directory: &dyn SharedDirectory, node: &NodeName) -> io::Result<NodeSettings> {
    Ok(NodeSettings::from_names(&list_node(directory, node)?))
}

fn list_node(directory: &dyn SharedDirectory, node: &NodeName) -> io::Result<Vec<SettingName>> {
    let folder = settings_folder(node);
    let listing = match directory.list(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Perhaps only this client believes so.
            directory.refresh(SETTINGS)?;
            match directory.list(&folder) {
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
    let first = SettingName::new(key, "", 0)?;
    SettingName::new(key, value, 0)?;
    let folder = settings_folder(node);
    if let Err(error) = directory.create_folder(&folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error.into());
    }
    for _ in 0..TRIES_MAX {
        let names: Vec<SettingName> = list_node(directory, node)?.into_iter().filter(|name| name.key() == key).collect();
        let Some(old) = names.iter().max_by(|a, b| rank(a).cmp(&rank(b))) else {
            // A name that all who begin agree on; whoever finds it there goes on with it.
            create_if_missing(directory, &format!("{folder}/{first}"))?;
            continue;
        };
        let new = SettingName::new(key, value, old.n.saturating_add(1))?;
        if swap(directory, &format!("{folder}/{old}"), &format!("{folder}/{new}"))? == Swapped::Won {
            // What two who began at once left over.
            for stale in names.iter().filter(|name| *name != old) {
                if let Err(error) = directory.remove(&format!("{folder}/{stale}")) {
                    tracing::debug!(folder, %stale, %error, "an outdated setting stays");
                }
            }
            directory.sync(&folder)?;
            return Ok(move_marker(directory)?);
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "somebody else sets it all the time").into())
}

fn move_marker(directory: &dyn SharedDirectory) -> io::Result<()> {
    for _ in 0..TRIES_MAX {
        let listing = directory.list(SETTINGS)?;
        let highest = listing.iter().filter_map(|name| number(name.strip_prefix(MARKER)?).ok()).max();
        let Some(n) = highest else {
            create_if_missing(directory, &format!("{SETTINGS}/{MARKER}0"))?;
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

fn create_if_missing(directory: &dyn SharedDirectory, name: &str) -> io::Result<()> {
    match directory.create(name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
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

    #[test]
    fn the_last_to_set_a_key_wins() {
        let directory = FaultyDirectory::cluster();
        assert_eq!(read_node(&directory, &node()).unwrap(), NodeSettings::default());
        set(&directory, &node(), "weight", "50").unwrap();
        set(&directory, &node(), "tags", "fast, eu,").unwrap();
        set(&directory.another_client(), &node(), "weight", "30").unwrap();
        let settings = read_node(&directory, &node()).unwrap();
        assert_eq!(settings.weight(), 30);
        assert_eq!(settings.tags().collect::<Vec<_>>(), ["fast", "eu"]);
        assert!(!settings.draining());
        set(&directory, &node(), "weight", "").unwrap();
        assert_eq!(read_node(&directory, &node()).unwrap().weight(), WEIGHT_DEFAULT);
        assert!(matches!(set(&directory, &node(), "Weight", "1"), Err(SetError::Name(_))));
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
