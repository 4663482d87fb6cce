//! Who may log in: sources of users, passwords, SASL.
//!
//! - `source/` finds users, `record.rs` is what a source says of one, `login.rs` decides about a login, `conversation.rs` leads a SASL exchange
//! - `sasl/` has the mechanisms and `scheme.rs` the password hashes, both without I/O
//! - `penalty.rs` makes guessing slow, `cache.rs` makes the tenth connection of a client cheap
//!
//! Invariants, each with the test that guards it:
//! - an unknown user and a wrong password look the same, also in time (`an_unknown_user_costs_a_hash_too`)
//! - only who is marked as master user logs in for others (`only_a_master_user_logs_in_for_others`)
//! - a users file that can't be read changes nothing (`a_reload_that_fails_keeps_the_users`)
//! - no password is logged, and a name can't forge a log line (`a_failure_is_one_line_without_the_password`)
//!
//! A failed login is logged as one warning, `auth failure address=192.0.2.1 user="ada" protocol=imap reason="…"`, for programs such as
//! fail2ban (docs/users.md has the filter). A source that can't be asked is logged in other words: nobody is to be banned for that.

pub mod app_passwords;
mod cache;
mod conversation;
pub mod edit;
mod login;
mod md5_crypt;
pub mod oauth;
pub mod passwd_file;
pub mod penalty;
pub mod record;
pub mod sasl;
pub mod scheme;
pub mod source;
mod turns;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use affinity::{Address, NameRules, UserName, Wish};
use anyhow::Context;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use self::{
    app_passwords::AppPasswords,
    cache::PasswordCache,
    oauth::OAuth,
    penalty::{Failures, Penalty},
    scheme::{Scheme, StoredPassword},
    source::{Account, Asker, Credential, Down, Sources},
    turns::Turns,
};
pub use self::{
    conversation::{Conversation, Turn},
    record::UserRecord,
};
use crate::{client::Client, config::AuthSection};

/// Longest password that is hashed: some schemes take time for each byte.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Hashes at once per core: one that computes, one that is next.
const HASHES_PER_CORE: usize = 2;
/// Logins that wait for a hash at most: as many as a node with defaults has connections waiting after a failover, in half.
const HASHES_WAITING_MAX: usize = 10_000;
/// How long a login waits for its hash at most: clients wait a minute.
const HASH_WAIT_MAX: Duration = Duration::from_secs(30);

/// A login that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Whose mail.
    pub user: UserName,
    /// The master user, if one logged in for `user`.
    pub master: Option<UserName>,
}

/// A recipient of LMTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Whose mail.
    pub user: UserName,
    /// The `+detail`.
    pub detail: Option<String>,
}

/// Why a login is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Unknown user or wrong password: the client can't tell which.
    #[error("wrong user name or password")]
    WrongCredentials,
    /// The user may not log in like this (disabled, protocol or network not allowed).
    #[error("login is not allowed: {0}")]
    NotAllowed(String),
    /// A source can't be asked now: never "wrong password".
    #[error("users can't be looked up now: {0}")]
    Unavailable(String),
    /// Too many attempts from this address wait behind wrong passwords: this one was not checked.
    #[error("too many attempts from this address wait behind wrong passwords")]
    Crowded,
}

impl From<Down> for AuthError {
    fn from(down: Down) -> AuthError {
        AuthError::Unavailable(down.to_string())
    }
}

/// Checks logins and recipients. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    state: ArcSwap<State>,
    penalty: Penalty,
    hashing: Turns,
    /// Makes the salts of users who have none.
    fake_salts: OnceLock<[u8; 32]>,
    app_passwords: OnceLock<Arc<AppPasswords>>,
    /// One password is stored anew at a time: who finds another at it gets the next chance at the next login.
    upgrading: Arc<Semaphore>,
    /// One reload at a time.
    reloading: Mutex<()>,
}

/// What one reading of the settings gave.
struct State {
    section: AuthSection,
    passwd_file: PathBuf,
    sources: Sources,
    oauth: Option<Arc<OAuth>>,
    cache: PasswordCache,
    /// What an unknown user's password is compared with.
    dummy: StoredPassword,
}

/// A login name, taken apart.
struct Identity {
    user: UserName,
    /// Whose password is asked for: the user's or a master user's.
    authenticates: UserName,
}

impl Identity {
    fn is_master(&self) -> bool {
        self.user != self.authenticates
    }
}

impl Authenticator {
    /// Sets the sources up; `passwd_file` is where the users file is unless the settings say otherwise.
    pub fn open(section: &AuthSection, passwd_file: PathBuf) -> anyhow::Result<Authenticator> {
        let state = State::read(section, passwd_file, None)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let inner = Inner {
            state: ArcSwap::from_pointee(state),
            penalty: Penalty::default(),
            hashing: Turns::new(cores * HASHES_PER_CORE, HASHES_WAITING_MAX, HASH_WAIT_MAX),
            fake_salts: OnceLock::new(),
            app_passwords: OnceLock::new(),
            upgrading: Arc::new(Semaphore::new(1)),
            reloading: Mutex::new(()),
        };
        Ok(Authenticator { inner: Arc::new(inner) })
    }

    /// Names the cluster, before the first login: what a client is told of users who don't exist is then the same on every node.
    #[must_use = "gives the same authenticator back"]
    pub fn of_cluster(self, cluster_id: &str) -> Authenticator {
        // Nobody outside knows the cluster's id. Set twice, the first stays.
        self.inner.fake_salts.set(Sha256::digest(format!("salts of unknown users {cluster_id}")).into()).ok();
        self
    }

    /// Says where app passwords are, before the first login.
    #[must_use = "gives the same authenticator back"]
    pub fn with_app_passwords(self, file: PathBuf) -> Authenticator {
        self.inner.app_passwords.set(Arc::new(AppPasswords::new(file))).ok();
        self
    }

    /// What failed and succeeded here since it was asked last, for the other nodes.
    pub fn failures(&self) -> Vec<Failures> {
        self.inner.penalty.news()
    }

    /// What failed and succeeded on another node.
    pub fn hear_failures(&self, heard: Vec<Failures>) {
        self.inner.penalty.hear(heard);
    }

    /// Reads settings and users again; on error the old ones stay. Blocking.
    pub fn reload(&self, section: &AuthSection) -> anyhow::Result<()> {
        let _reloading = self.inner.reloading.lock();
        let old = self.inner.state.load_full();
        let file = section.passwd_file.clone().unwrap_or_else(|| old.passwd_file.clone());
        self.inner.state.store(Arc::new(State::read(section, file, Some(&old))?));
        Ok(())
    }

    /// What the sources say of a user; `Ok(None)`: nobody knows them.
    pub async fn record(&self, user: &UserName) -> Result<Option<Arc<UserRecord>>, AuthError> {
        let state = self.inner.state.load_full();
        let found = state.resolve(&Asker::lookup(user), false).await?;
        Ok(found.map(|account| account.record))
    }

    /// Who an envelope address (without angle brackets) is; `None`: unknown user.
    pub async fn recipient(&self, address: &str) -> Result<Option<Recipient>, AuthError> {
        let Some(address) = unquote(address) else { return Ok(None) };
        let rules = NameRules { master_separator: String::new(), ..self.inner.state.load().section.names.clone() };
        let Ok(Address { user, detail, .. }) = Address::parse(&address, &rules) else { return Ok(None) };
        let Some(record) = self.record(&user).await? else { return Ok(None) };
        if record.no_delivery {
            return Err(AuthError::NotAllowed("takes no mail".to_owned()));
        }
        Ok(Some(Recipient { user: record.user.clone(), detail }))
    }

    /// Whether passwords may be sent over this connection.
    pub fn allows_password(&self, client: &Client) -> bool {
        client.is_private() || self.inner.state.load().section.allow_plaintext
    }

    /// Where a user's record wants them, as the sources said last: a login or a delivery has asked them a moment before.
    pub fn wish(&self, user: &UserName) -> Wish {
        let record = self.inner.state.load().sources.known(user);
        record.map(|record| Wish { pin: record.pin.clone(), tags: record.tags.clone() }).unwrap_or_default()
    }

    /// Whether there is this user.
    pub async fn knows(&self, user: &UserName) -> bool {
        matches!(self.record(user).await, Ok(Some(_)))
    }

    /// What the sources said last of a user, without asking them; `None`: nothing is known, as after a reload of the settings.
    pub fn known(&self, user: &UserName) -> Option<Arc<UserRecord>> {
        self.inner.state.load().sources.known(user)
    }

    /// Everybody in the users files; other sources can't be asked for all that they have.
    pub fn users_of_files(&self) -> Vec<UserName> {
        let state = self.inner.state.load();
        state.sources.users_files().flat_map(|file| file.users().iter().map(|entry| entry.user.clone()).collect::<Vec<_>>()).collect()
    }

    /// Each source in a few words.
    pub fn describe(&self) -> Vec<String> {
        self.inner.state.load().sources.describe()
    }

    /// Which source knows a user, and what it says; for operators.
    pub async fn explain(&self, user: &UserName) -> Result<Option<(String, Account)>, AuthError> {
        let state = self.inner.state.load_full();
        let found = state.resolve(&Asker::lookup(user), true).await?;
        Ok(found.map(|account| (state.sources.name(&account).to_owned(), account)))
    }
}

impl State {
    fn read(section: &AuthSection, passwd_file: PathBuf, old: Option<&State>) -> anyhow::Result<State> {
        let sources = Sources::open(section, passwd_file.clone(), old.map(|old| &old.sources))?;
        let scheme = Scheme::parse(&section.default_scheme).context("`auth.default_scheme` is not supported")?;
        let dummy = match old {
            Some(old) if old.section.default_scheme == section.default_scheme => old.dummy.clone(),
            _ => StoredPassword::dummy(scheme),
        };
        let cache = PasswordCache::new(section.cache_ttl, section.cache_users);
        let kept = old.filter(|old| old.section.oauth == section.oauth).map(|old| old.oauth.clone());
        let oauth = match kept {
            Some(kept) => kept,
            None => section.oauth.as_ref().map(OAuth::new).transpose()?.map(Arc::new),
        };
        Ok(State { section: section.clone(), passwd_file, sources, oauth, cache, dummy })
    }

    /// Finds a user, through at most one alias. An alias has its own password, or else that of the user it stands for.
    async fn resolve(&self, asker: &Asker, fresh: bool) -> Result<Option<Account>, Down> {
        let Some(found) = self.sources.find(asker, fresh).await? else { return Ok(None) };
        let Some(target) = found.record.alias_of.clone() else { return Ok(Some(found)) };
        let meant = self.sources.find(&Asker { user: target.clone(), ..asker.clone() }, fresh).await?;
        match meant {
            Some(account) if account.record.alias_of.is_none() => Ok(Some(match found.credential {
                Credential::None => account,
                credential => Account { record: account.record, credential, source: found.source },
            })),
            Some(_) => {
                tracing::warn!(alias = %asker.user, %target, "an alias stands for an alias: nobody is found");
                Ok(None)
            }
            None => {
                tracing::warn!(alias = %asker.user, %target, "an alias stands for a user whom no source knows");
                Ok(None)
            }
        }
    }
}

/// Takes a login name apart; `Err` says why it can't be one.
fn identify(login: &str, rules: &NameRules) -> Result<Identity, String> {
    let parse = |name: &str| Address::parse(name, rules).map_err(|error| error.to_string());
    if let Some((user, authenticates)) = login.split_once(sasl::AUTHZID_SEPARATOR) {
        let (user, authenticates) = (parse(user)?, parse(authenticates)?);
        if user.master.is_some() || authenticates.master.is_some() {
            return Err("a master user is named twice".to_owned());
        }
        return Ok(Identity { user: user.user, authenticates: authenticates.user });
    }
    let Address { user, master, .. } = parse(login)?;
    Ok(Identity { authenticates: master.unwrap_or_else(|| user.clone()), user })
}

/// A quoted local part means what it quotes (RFC 5321 §4.1.2): `"ada"@example.org` is `ada@example.org`. `None`: the quotes don't match.
fn unquote(address: &str) -> Option<String> {
    let Some(rest) = address.strip_prefix('"') else { return Some(address.to_owned()) };
    let mut local = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => local.push(characters.next()?),
            plain => local.push(plain),
        }
    }
    let domain = characters.as_str();
    (domain.is_empty() || domain.starts_with('@')).then(|| local + domain)
}

#[cfg(test)]
mod tests;
