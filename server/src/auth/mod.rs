//! Who may log in: users, passwords, SASL.
//!
//! Invariants, each with the test that guards it:
//! - an unknown user and a wrong password look the same, also in time (`an_unknown_user_costs_a_hash_too`)
//! - only who is marked as master user logs in for others (`only_a_master_user_logs_in_for_others`)
//! - a users file that can't be read changes nothing (`a_reload_that_fails_keeps_the_users`)
//! - no password is logged, and a name can't forge a log line (`a_failure_is_one_line_without_the_password`)
//!
//! A failed login is logged as one warning, `auth failure address=192.0.2.1 user="ada" protocol=imap reason="…"`, for programs such as
//! fail2ban.

mod cache;
pub mod edit;
mod md5_crypt;
pub mod passwd_file;
mod penalty;
pub mod sasl;
pub mod scheme;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use affinity::{Address, NameRules, Tag, UserName, swap::open_undelegated};
use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

use self::{
    cache::PasswordCache,
    passwd_file::{Entry, Users},
    penalty::{Delays, Penalty},
    scheme::{Scheme, StoredPassword},
};
use crate::{
    client::{Client, Protocol},
    config::AuthSection,
};

/// Longest password that is hashed: some schemes take time for each byte.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Hashes at once per core: one that computes, one that is next.
const HASHES_PER_CORE: usize = 2;
/// How often the users file is looked at for changes, one request each on NFS.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// The same when a user is not found: they may have been added a moment ago.
const REFRESH_INTERVAL_UNKNOWN: Duration = Duration::from_secs(1);
/// How long an unknown user waits for that look; a shared directory that hangs must not hold up logins.
const REFRESH_WAIT: Duration = Duration::from_secs(2);
/// Names in log lines are cut here.
const LOGGED_NAME_CHARS_MAX: usize = 128;

/// A user as the sources know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The normalised name.
    pub user: UserName,
}

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
}

/// Checks logins and recipients. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    state: ArcSwap<State>,
    penalty: Penalty,
    hashing: Arc<Semaphore>,
    last_refresh: Mutex<Option<Instant>>,
    /// One reader of the file at a time.
    reading: Mutex<()>,
}

/// What one reading of the users file and the settings gave.
struct State {
    section: AuthSection,
    file: PathBuf,
    stamp: Stamp,
    users: Users,
    cache: PasswordCache,
    /// What an unknown user's password is compared with.
    dummy: StoredPassword,
}

/// Tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() }
    }
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

/// A login that is not accepted, and what only the log may know.
struct Refusal {
    error: AuthError,
    reason: String,
}

impl Authenticator {
    /// Reads the users; `passwd_file` is where they are.
    pub fn open(section: &AuthSection, passwd_file: PathBuf) -> anyhow::Result<Authenticator> {
        let state = State::read(section, passwd_file, None)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let inner = Inner {
            state: ArcSwap::from_pointee(state),
            penalty: Penalty::default(),
            hashing: Arc::new(Semaphore::new(cores * HASHES_PER_CORE)),
            last_refresh: Mutex::new(None),
            reading: Mutex::new(()),
        };
        Ok(Authenticator { inner: Arc::new(inner) })
    }

    /// Reads the users again; on error the old ones stay. Blocking.
    pub fn reload(&self, section: &AuthSection) -> anyhow::Result<()> {
        let _reading = self.inner.reading.lock();
        self.inner.reread(section, &self.inner.state.load_full())
    }

    /// Checks a password, after the delay that earlier failures of this address and user earned. Hashing runs off the async threads.
    pub async fn verify(&self, login: &str, password: &[u8], client: &Client, protocol: Protocol) -> Result<Login, AuthError> {
        self.check(login, password, client).await.map_err(|refusal| {
            let user: String = login.replace(sasl::AUTHZID_SEPARATOR, " by ").chars().take(LOGGED_NAME_CHARS_MAX).collect();
            warn!(address = %client.address.ip().to_canonical(), user, %protocol, reason = refusal.reason, "auth failure");
            refusal.error
        })
    }

    /// Who an envelope address (without angle brackets) is; `None`: unknown user.
    pub async fn recipient(&self, address: &str) -> Result<Option<Recipient>, AuthError> {
        let Some(address) = unquote(address) else { return Ok(None) };
        let rules = NameRules { master_separator: String::new(), ..self.inner.state.load().section.names.clone() };
        let Ok(Address { user, detail, .. }) = Address::parse(&address, &rules) else { return Ok(None) };
        let state = self.state_with(&user).await;
        Ok(state.users.get(&user).map(|_| Recipient { user, detail }))
    }

    /// Whether passwords may be sent over this connection.
    pub fn allows_password(&self, client: &Client) -> bool {
        client.is_private() || self.inner.state.load().section.allow_plaintext
    }

    /// What a node must have to serve `user`, as of the last reading.
    pub fn tags(&self, user: &UserName) -> BTreeSet<Tag> {
        self.inner.state.load().users.get(user).map(Entry::tags).unwrap_or_default()
    }

    /// Every user, sorted.
    pub fn users(&self) -> Vec<UserRecord> {
        let state = self.inner.state.load();
        let mut users: Vec<UserRecord> = state.users.iter().map(|entry| UserRecord { user: entry.user.clone() }).collect();
        users.sort_by(|a, b| a.user.cmp(&b.user));
        users
    }

    async fn check(&self, login: &str, password: &[u8], client: &Client) -> Result<Login, Refusal> {
        if !self.allows_password(client) {
            return Err(not_allowed("passwords are only accepted over TLS"));
        }
        let identity = identify(login, &self.inner.state.load().section.names);
        let state = match &identity {
            Ok(identity) => self.state_with(&identity.authenticates).await,
            Err(_) => self.inner.state.load_full(),
        };
        let entry = identity.as_ref().ok().and_then(|identity| state.users.get(&identity.authenticates));
        let address = client.address.ip();

        self.check_password(&state, identity.as_ref().ok(), entry, password, address).await?;
        let (Ok(identity), Some(entry)) = (identity, entry) else { return Err(wrong("unknown user")) };
        permit(&state, &identity, entry, address)
    }

    /// Costs the same for users that exist and others.
    async fn check_password(
        &self,
        state: &Arc<State>,
        identity: Option<&Identity>,
        entry: Option<&Entry>,
        password: &[u8],
        address: IpAddr,
    ) -> Result<(), Refusal> {
        let stored = entry.and_then(|entry| entry.password.as_ref());
        let counted = identity.map(|identity| identity.authenticates.as_str());
        if let (Some(identity), Some(stored)) = (identity, stored)
            && state.cache.knows(&identity.authenticates, stored.field(), password)
        {
            self.inner.penalty.succeeded(address, counted);
            return Ok(());
        }

        let delays = Delays { first: state.section.failure_delay, longest: state.section.failure_delay_max };
        tokio::time::sleep(self.inner.penalty.delay(address, counted, delays)).await;

        let outcome = if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            Ok(false)
        } else {
            self.hash(stored.unwrap_or(&state.dummy).clone(), password.to_vec()).await?
        };
        match (outcome, identity, stored) {
            (Ok(true), Some(identity), Some(stored)) => {
                self.inner.penalty.succeeded(address, counted);
                state.cache.remember(&identity.authenticates, stored.field(), password);
                Ok(())
            }
            (outcome, ..) => {
                self.inner.penalty.failed(address, counted);
                Err(wrong(match (entry, stored, outcome) {
                    (None, ..) => "unknown user".to_owned(),
                    (_, None, _) => "the user has no password that can be used".to_owned(),
                    (_, _, Err(error)) => error.to_string(),
                    (_, _, Ok(_)) => "wrong password".to_owned(),
                }))
            }
        }
    }

    /// Verifies on the blocking pool, a bounded number at once.
    async fn hash(&self, stored: StoredPassword, password: Vec<u8>) -> Result<Result<bool, scheme::SchemeError>, Refusal> {
        let unavailable = |why: String| Refusal { error: AuthError::Unavailable("try again".to_owned()), reason: why };
        let permit = Arc::clone(&self.inner.hashing).acquire_owned().await.map_err(|error| unavailable(error.to_string()))?;
        let verified = tokio::task::spawn_blocking(move || {
            // Kept until the hash is done, also if the client is gone by then: or hanging up early would start ever more of them.
            let _permit = permit;
            stored.verify(&password)
        });
        verified.await.map_err(|error| unavailable(error.to_string()))
    }

    /// The present state. Looks at the file now and then in the background; for a user who isn't known, waits for that.
    async fn state_with(&self, user: &UserName) -> Arc<State> {
        let known = self.inner.state.load().users.get(user).is_some();
        let interval = if known { REFRESH_INTERVAL } else { REFRESH_INTERVAL_UNKNOWN };
        if self.inner.refresh_is_due(interval) {
            let inner = Arc::clone(&self.inner);
            let refreshing = tokio::task::spawn_blocking(move || inner.refresh());
            if !known {
                // On a timeout the look goes on, and a later attempt finds what it found.
                drop(timeout(REFRESH_WAIT, refreshing).await);
            }
        }
        self.inner.state.load_full()
    }
}

impl Inner {
    fn refresh_is_due(&self, interval: Duration) -> bool {
        let now = Instant::now();
        let mut last = self.last_refresh.lock();
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if due {
            *last = Some(now);
        }
        due
    }

    /// Reads the users file again if it changed.
    fn refresh(&self) {
        // Somebody is at it, and perhaps hangs with the file server: one thread that hangs is enough.
        let Some(_reading) = self.reading.try_lock() else { return };
        let state = self.state.load_full();
        let changed = fs::metadata(&state.file).map(|metadata| Stamp::of(&metadata) != state.stamp);
        let reread = match changed {
            Ok(false) => return,
            Ok(true) => self.reread(&state.section, &state),
            Err(error) => Err(anyhow!(error).context(format!("can't look at the users file {}", state.file.display()))),
        };
        if let Err(error) = reread {
            error!("the users stay as they were: {error:#}");
        }
    }

    /// The caller holds `reading`.
    fn reread(&self, section: &AuthSection, old: &State) -> anyhow::Result<()> {
        let file = section.passwd_file.clone().unwrap_or_else(|| old.file.clone());
        let new = State::read(section, file, Some(old))?;
        info!(users = new.users.len(), file = %new.file.display(), "users read");
        self.state.store(Arc::new(new));
        Ok(())
    }
}

impl State {
    fn read(section: &AuthSection, file: PathBuf, old: Option<&State>) -> anyhow::Result<State> {
        let scheme = Scheme::parse(&section.default_scheme)
            .with_context(|| format!("password scheme {:?} (auth.default_scheme) is not supported", section.default_scheme))?;
        let (text, stamp) = read_with_stamp(&file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!("there is no users file {}: make it with `berth user add NAME`, or set `auth.passwd_file`", file.display())
            }
            _ => anyhow!(error).context(format!("can't read the users file {}", file.display())),
        })?;
        let (users, bad) = Users::parse(&text, &section.names, scheme);
        for line in &bad {
            warn!("{}, line {}: {}", file.display(), line.number, line.why);
        }
        let dummy = match old {
            Some(old) if old.section.default_scheme == section.default_scheme => old.dummy.clone(),
            _ => dummy(scheme)?,
        };
        Ok(State { section: section.clone(), file, stamp, users, cache: PasswordCache::new(section.cache_ttl), dummy })
    }
}

/// The stamp is from before the reading: if the file is being written in place, the next look finds it changed and reads it again.
fn read_with_stamp(file: &Path) -> io::Result<(String, Stamp)> {
    // A read delegation that a dead host left behind would make `berth user` wait 100 s for its rename.
    let mut opened = open_undelegated(file, OFlags::RDONLY)?;
    let stamp = Stamp::of(&opened.metadata()?);
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes)?;
    // A line that isn't UTF-8 then names no user, the others are untouched.
    Ok((String::from_utf8_lossy(&bytes).into_owned(), stamp))
}

/// A hash that no password has, as slow as those of the default scheme.
fn dummy(scheme: Scheme) -> anyhow::Result<StoredPassword> {
    let secret: [u8; 32] = rand::random();
    let field = scheme.hash(&secret).or_else(|_| Scheme::Argon2id.hash(&secret)).context("can't make a password hash")?;
    StoredPassword::parse(&field, scheme).context("can't read a password hash")
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

/// What the users file allows somebody whose password was right.
fn permit(state: &State, identity: &Identity, entry: &Entry, address: IpAddr) -> Result<Login, Refusal> {
    if let Some(reason) = entry.disabled() {
        return Err(not_allowed(reason));
    }
    if let Some(networks) = &entry.allow_nets
        && !networks.iter().any(|network| network.contains(address))
    {
        return Err(not_allowed("not from this network"));
    }
    if identity.is_master() {
        if !entry.is_master() {
            return Err(wrong(format!("{} is not a master user", identity.authenticates)));
        }
        if state.users.get(&identity.user).is_none() {
            return Err(wrong("the master user named an unknown user"));
        }
    }
    let master = identity.is_master().then(|| identity.authenticates.clone());
    Ok(Login { user: identity.user.clone(), master })
}

fn wrong(reason: impl Into<String>) -> Refusal {
    Refusal { error: AuthError::WrongCredentials, reason: reason.into() }
}

fn not_allowed(reason: &str) -> Refusal {
    Refusal { error: AuthError::NotAllowed(reason.to_owned()), reason: reason.to_owned() }
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
