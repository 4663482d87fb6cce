//! Several users whose sessions reach each other's mail, without a cluster.

use std::{collections::HashMap, io, path::PathBuf};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use storage::{
    Who,
    shares::{AllShares, FOLDER, SharesFolder},
};

use super::*;
use crate::imap::{
    foreign::{Neighbours, OWN_TAG, Sharing},
    guest::Guest,
};

/// Several users.
pub struct Town {
    inner: Arc<Inner>,
    shared_account: Option<UserName>,
}

struct Inner {
    houses: HashMap<UserName, House>,
    shares: SharesFolder,
    limits: Mutex<MessageLimits>,
    _root: TempDir,
}

struct Road {
    town: Arc<Inner>,
    who: Who,
}

pub fn user(name: &str) -> UserName {
    UserName::normalise(name).unwrap()
}

impl Town {
    pub fn new(users: &[&str]) -> Town {
        let root = tempfile::tempdir().unwrap();
        let folder: PathBuf = root.path().join(FOLDER);
        let houses = users.iter().map(|name| (user(name), House::of(name, Some(folder.clone())))).collect();
        let inner = Inner { houses, shares: SharesFolder::new(root.path()), limits: Mutex::default(), _root: root };
        Town { inner: Arc::new(inner), shared_account: None }
    }
    /// Whose mailboxes are `Shared/…`.
    pub fn with_shared_account(self, name: &str) -> Town {
        Town { shared_account: Some(user(name)), ..self }
    }
    /// What sessions that begin from now on are limited to, on every node.
    pub fn limit(&self, limits: MessageLimits) {
        *self.inner.limits.lock() = limits;
    }
    pub fn house(&self, name: &str) -> &House {
        &self.inner.houses[&user(name)]
    }
    /// A session of a user, who is in these groups.
    pub async fn session_in(&self, name: &str, groups: &[&str]) -> Talk {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let who = Who { user: user(name), groups, anonymous: false };
        let road = Road { town: Arc::clone(&self.inner), who };
        let sharing = Sharing::new(Arc::new(road), self.shared_account.clone());
        let settings = Settings { message_limits: *self.inner.limits.lock(), ..settings() };
        self.house(name).session_of(settings, |session| session.with_sharing(sharing)).await
    }
    pub async fn session(&self, name: &str) -> Talk {
        self.session_in(name, &[]).await
    }
    /// `owner` gives `whom` exactly these rights.
    pub async fn give(&self, owner: &str, mailbox: &str, whom: &str, rights: &str) {
        self.session(owner).await.ok(&format!("SETACL {mailbox} {whom} \"{rights}\"")).await;
    }
}

impl Neighbours for Road {
    fn who(&self) -> BoxFuture<'_, Result<Who, String>> {
        async { Ok(self.who.clone()) }.boxed()
    }
    fn shares(&self) -> BoxFuture<'_, io::Result<AllShares>> {
        async { self.town.shares.all() }.boxed()
    }
    fn enter(&self, owner: UserName, guest: Guest) -> DuplexStream {
        let house = &self.town.houses[&owner];
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (connection, held) = house.visit(theirs);
        let settings = Settings { message_limits: *self.town.limits.lock(), ..settings() };
        let session = Session::new(connection, held, settings).of_guest(guest);
        tokio::spawn(async move { session.run(OWN_TAG).await });
        ours
    }
}
