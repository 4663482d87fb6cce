//! Looking without being a member: for operator commands. Nothing here changes anything but settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use crate::{
    AffinityError, EndedFile, Epoch, HolderId, NodeInfo, NodeName, Root, Seen, UserName,
    keeper::{describe, list_lease, read_info},
    names::{FENCED, LEASES, LeaseName, NODES, NodeFile, PINS, SETTINGS, lease_folder, settings_folder, sort_out},
    root::io_error,
    settings::{self, NodeSettings, SetError, Tag},
    swap::{MountedDirectory, SharedDirectory},
};

/// A node in `nodes/`. Whether it is alive shows when its beat moves.
#[derive(Debug, Clone)]
pub struct NodeSeen {
    /// Who.
    pub holder: HolderId,
    /// Its beat.
    pub beat: u64,
    /// What it published; `None` if that can't be read.
    pub info: Option<NodeInfo>,
    /// What operators set for it.
    pub settings: NodeSettings,
}

/// One user's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Whose.
    pub user: UserName,
    /// Generation and holder.
    pub seen: Seen,
}

impl Root {
    /// The nodes in `nodes/`, with what they publish, sorted by name.
    pub fn live_nodes(&self) -> Result<Vec<NodeSeen>, AffinityError> {
        let directory = self.directory()?;
        let mut files = self.node_files(&directory, NODES)?;
        files.sort();
        let mut nodes = Vec::with_capacity(files.len());
        for NodeFile { holder, beat } in files {
            let info =
                read_info(&directory, &holder).inspect_err(|error| tracing::warn!(%holder, %error, "can't read what it publishes")).ok();
            let settings = self.settings_of(&holder.node)?;
            nodes.push(NodeSeen { holder, beat, info, settings });
        }
        Ok(nodes)
    }

    /// Who is in `nodes/`: one fresh listing.
    pub fn holders(&self) -> Result<BTreeSet<HolderId>, AffinityError> {
        Ok(self.node_files(&self.directory()?, NODES)?.into_iter().map(|file| file.holder).collect())
    }

    /// Everybody who was fenced or left, sorted by name.
    pub fn fenced_nodes(&self) -> Result<Vec<EndedFile>, AffinityError> {
        let mut files: Vec<EndedFile> = sort_out(&self.list(&self.directory()?, FENCED)?).0;
        files.sort();
        Ok(files)
    }

    /// A fresh look at one user's lease.
    pub fn look(&self, user: &UserName) -> Result<Seen, AffinityError> {
        self.look_over(&self.directory()?, user)
    }

    /// Every user who ever had a lease, in no order; one folder is listed per user as the iterator gets there. What can't be read is an item of
    /// its own, so that one broken folder hides no other.
    pub fn leases(&self) -> Result<impl Iterator<Item = Result<LeaseSeen, AffinityError>> + use<>, AffinityError> {
        let (root, directory) = (self.clone(), self.directory()?);
        let buckets = self.list(&directory, LEASES)?;
        let folders = {
            let (root, directory) = (root.clone(), directory.clone());
            buckets.into_iter().filter(|bucket| !bucket.starts_with(['.', '~'])).flat_map(move |bucket| {
                match root.list(&directory, &format!("{LEASES}/{bucket}")) {
                    Ok(folders) => folders.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                }
            })
        };
        let users = folders.filter_map(|folder| match folder {
            Ok(folder) if folder.starts_with(['.', '~']) => None,
            Ok(folder) => Some(UserName::from_encoded(&folder).map_err(AffinityError::from)),
            Err(error) => Some(Err(error)),
        });
        Ok(users.map(move |user| {
            let user = user?;
            Ok(LeaseSeen { seen: root.look_over(&directory, &user)?, user })
        }))
    }

    /// What operators set for a node.
    pub fn settings_of(&self, node: &NodeName) -> Result<NodeSettings, AffinityError> {
        settings::read_node(&self.directory()?, node).map_err(io_error("can't list", &self.path().join(settings_folder(node))))
    }

    /// Sets `key` (`weight`, `drain`, …) of a node, whether it runs or not; an empty value unsets it.
    pub fn set(&self, node: &NodeName, key: &str, value: &str) -> Result<(), AffinityError> {
        self.set_over(&self.directory()?, node, key, value)
    }
    pub(crate) fn set_over(&self, directory: &dyn SharedDirectory, node: &NodeName, key: &str, value: &str) -> Result<(), AffinityError> {
        settings::set(directory, node, key, value).map_err(|error| self.set_error(error))
    }
    /// Changes the tags of a node, whether it runs or not; gives those it has now.
    pub fn change_tags(&self, node: &NodeName, change: impl Fn(&mut BTreeSet<Tag>)) -> Result<BTreeSet<Tag>, AffinityError> {
        settings::change_tags(&self.directory()?, node, change).map_err(|error| self.set_error(error))
    }
    /// Pins a user to a node, or to none.
    pub fn pin(&self, user: &UserName, node: Option<&NodeName>) -> Result<(), AffinityError> {
        settings::pin(&self.directory()?, user, node).map_err(|error| self.set_error(error))
    }
    /// Who is pinned where, sorted by user.
    pub fn pins(&self) -> Result<BTreeMap<UserName, NodeName>, AffinityError> {
        let pins = settings::read_pins(&self.directory()?).map_err(io_error("can't list", &self.path().join(PINS)))?;
        Ok(pins.into_iter().filter_map(|pin| Some((pin.user, pin.node?))).collect())
    }
    /// Every node that anything is set for, sorted by name. The folder of one for which nothing is any more stays.
    pub fn nodes_with_settings(&self) -> Result<Vec<NodeName>, AffinityError> {
        let named: Vec<NodeName> = self.list(&self.directory()?, SETTINGS)?.iter().filter_map(|name| name.parse().ok()).collect();
        let mut nodes = Vec::new();
        for node in named {
            if self.settings_of(&node)?.iter().next().is_some() {
                nodes.push(node);
            }
        }
        nodes.sort();
        Ok(nodes)
    }

    fn set_error(&self, error: SetError) -> AffinityError {
        match error {
            SetError::Name(error) => error.into(),
            SetError::Io(cause) => io_error("can't change", &self.path().join(SETTINGS))(cause),
        }
    }

    fn look_over(&self, directory: &MountedDirectory, user: &UserName) -> Result<Seen, AffinityError> {
        let folder = self.lease(user);
        // A rename in progress may hide the name from one listing.
        for _ in 0..4 {
            let Some(listing) = list_lease(directory, user).map_err(io_error("can't list", &folder))? else {
                return Ok(Seen { epoch: Epoch::ZERO, holder: None });
            };
            let names = sort_out::<LeaseName>(&listing).0;
            if let Some(name) = names.into_iter().max_by_key(|name| name.epoch) {
                return Ok(Seen { epoch: name.epoch, holder: name.holder });
            }
        }
        Err(AffinityError::BadLeaseFolder { folder, found: describe(directory.list(&lease_folder(user))) })
    }

    fn node_files(&self, directory: &MountedDirectory, folder: &str) -> Result<Vec<NodeFile>, AffinityError> {
        Ok(sort_out(&self.list(directory, folder)?).0)
    }

    fn list(&self, directory: &MountedDirectory, folder: &str) -> Result<Vec<String>, AffinityError> {
        directory.list(folder).map_err(io_error("can't list", &self.path().join(folder)))
    }

    fn directory(&self) -> Result<MountedDirectory, AffinityError> {
        let opened = MountedDirectory::new(self.path()).map_err(|cause: io::Error| io_error("can't look at", self.path())(cause))?;
        Ok(opened.for_operator())
    }
}
