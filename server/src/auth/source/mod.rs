//! Where users are: sources, tried in order.
//!
//! - The first source that knows a name decides; later ones are not asked, neither for the record nor for the password.
//! - A source that can't be asked ends the search with [`Down`], since it may be the one that knows: that is never "no such user" and never
//!   "wrong password" (`a_database_that_is_away_is_no_wrong_password`, `users_of_openldap_are_served_and_wait_while_it_is_down`).
//! - What remote sources say is remembered, "no such user" included, in bounded tables (`answers_are_remembered_and_forgotten`). It answers for
//!   `auth.cache_ttl`; what it said of quotas, pins and tags holds until it is asked again (`what_a_source_said_last_is_known_though_it_is_asked_again`).

pub mod bounded;
pub mod fixed;
pub mod helper;
pub mod ldap;
pub mod sql;
pub mod template;
pub mod tls;
pub mod users_file;

use std::{path::PathBuf, sync::Arc, time::Duration};

use affinity::{NameRules, UserName};
use anyhow::Context;
use moka::{Expiry, policy::EvictionPolicy, sync::Cache};
use tokio::time::Instant;
use tracing::warn;

use self::{fixed::Fixed, helper::Helper, ldap::Ldap, sql::Sql, users_file::UsersFile};
use super::{
    record::{Fields, UserRecord},
    scheme::{Scheme, StoredPassword},
};
use crate::{
    client::{Client, Protocol},
    config::auth::{AuthSection, SourceSection},
};

/// A source can't be asked now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source {source_name}: {why}")]
pub struct Down {
    /// Which.
    pub source_name: String,
    /// What happened; for the log, never for a client.
    pub why: String,
}

/// How a source lets a password be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Not at all; the user gets mail.
    None,
    /// By what it stores.
    Stored(StoredPassword),
    /// It checks itself; the text says where, as a directory's name of the user.
    Asked(String),
}

/// What a source knows of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The record.
    pub record: Arc<UserRecord>,
    /// The password.
    pub credential: Credential,
    /// Which source it was: its place in the order.
    pub source: usize,
}

/// Who asks, for sources that want to know.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The user whose name was given.
    pub user: UserName,
    /// From where; `None`: not a login (a delivery, an operator).
    pub client: Option<(std::net::IpAddr, Protocol)>,
}

impl Asker {
    /// A login.
    pub fn login(user: &UserName, client: &Client, protocol: Protocol) -> Asker {
        Asker { user: user.clone(), client: Some((client.address.ip().to_canonical(), protocol)) }
    }
    /// Anything else.
    pub fn lookup(user: &UserName) -> Asker {
        Asker { user: user.clone(), client: None }
    }
}

enum Kind {
    UsersFile(Arc<UsersFile>),
    Fixed(Fixed),
    Sql(Sql),
    Ldap(Ldap),
    Helper(Helper),
}

struct Source {
    name: String,
    kind: Kind,
    /// `None`: it is in memory anyway.
    remembered: Option<Memory>,
    /// What it says depends on where a login comes from, or on its protocol: it is asked at each.
    asks_who: bool,
}

/// What a remote source said last, of as many users as `auth.cache_users`.
struct Memory {
    said: Cache<UserName, Said>,
    /// For how long it is not asked again (`auth.cache_ttl`, `auth.cache_negative_ttl`).
    lifetimes: Lifetimes,
    /// What was said before the settings were read answers nobody.
    since: Instant,
}

#[derive(Clone)]
struct Said {
    answer: Option<Account>,
    at: Instant,
    /// To one login; it answers nobody else.
    to_one: bool,
}

#[derive(Clone, Copy)]
struct Lifetimes {
    found: Duration,
    unknown: Duration,
}

/// Users who are long gone from here need no memory.
const SAID_KEPT: Duration = Duration::from_secs(24 * 3600);

impl Lifetimes {
    /// How long an answer is in memory: of users there are, until the source is asked again.
    fn kept(&self, said: &Said) -> Duration {
        if said.answer.is_some() { SAID_KEPT.max(self.found) } else { self.unknown }
    }
}

impl Expiry<UserName, Said> for Lifetimes {
    fn expire_after_create(&self, _: &UserName, said: &Said, _: std::time::Instant) -> Option<Duration> {
        Some(self.kept(said))
    }
    fn expire_after_update(&self, _: &UserName, said: &Said, _: std::time::Instant, _: Option<Duration>) -> Option<Duration> {
        Some(self.kept(said))
    }
}

impl Memory {
    fn new(section: &AuthSection, old: Option<&Memory>) -> Memory {
        let (found, unknown) = (section.cache_ttl, section.cache_negative_ttl);
        let lifetimes = Lifetimes { found, unknown: if found.is_zero() { found } else { unknown } };
        // LRU: whoever was asked for a moment before is there.
        let said =
            Cache::builder().max_capacity(section.cache_users).eviction_policy(EvictionPolicy::lru()).expire_after(lifetimes).build();
        for (user, last) in old.into_iter().flat_map(|old| &old.said).filter(|(_, last)| last.answer.is_some()) {
            said.insert(UserName::clone(&user), last);
        }
        Memory { said, lifetimes, since: Instant::now() }
    }
    /// `None`: the source is to be asked.
    fn answer(&self, user: &UserName) -> Option<Option<Account>> {
        let said = self.said.get(user)?;
        let lifetime = if said.answer.is_some() { self.lifetimes.found } else { self.lifetimes.unknown };
        (!said.to_one && said.at >= self.since && said.at.elapsed() < lifetime).then_some(said.answer)
    }
    fn keep(&self, user: &UserName, answer: Option<Account>, to_one: bool) {
        // That one login is refused says nothing of the user.
        if !to_one || answer.is_some() {
            self.said.insert(user.clone(), Said { answer, at: Instant::now(), to_one });
        }
    }
    fn last(&self, user: &UserName) -> Option<Arc<UserRecord>> {
        Some(self.said.get(user)?.answer?.record)
    }
}

/// All sources in their order.
pub struct Sources {
    list: Vec<Source>,
    reading: Reading,
}

/// How what sources say is read.
struct Reading {
    rules: NameRules,
    scheme: Scheme,
}

impl Sources {
    /// Sets the sources up; users files are read, other sources are first asked when they are needed. What `old` ones said last
    /// is known.
    pub fn open(section: &AuthSection, passwd_file: PathBuf, old: Option<&Sources>) -> anyhow::Result<Sources> {
        let scheme = Scheme::parse(&section.default_scheme)
            .with_context(|| format!("password scheme {:?} (auth.default_scheme) is not supported", section.default_scheme))?;
        let default = [SourceSection::PasswdFile(Default::default())];
        let sections = if section.source.is_empty() { &default[..] } else { &section.source };
        let mut list = Vec::new();
        for wanted in sections {
            let (name, kind, remote) = match wanted {
                SourceSection::PasswdFile(file) => {
                    let path = file.file.clone().unwrap_or_else(|| passwd_file.clone());
                    let name = format!("passwd-file {}", path.display());
                    // A file of its own: should a later source fail, the old users stay as they were read.
                    (name, Kind::UsersFile(Arc::new(UsersFile::open(path, &section.names, scheme)?)), false)
                }
                SourceSection::Static(fixed) => ("static".to_owned(), Kind::Fixed(Fixed::new(fixed, &section.names, scheme)?), false),
                SourceSection::Sql(sql) => (format!("sql {:?}", sql.driver).to_lowercase(), Kind::Sql(Sql::new(sql)?), true),
                SourceSection::Command(command) => {
                    let name = format!("command {}", command.program.first().map_or("", String::as_str));
                    (name, Kind::Helper(Helper::new(command, &section.names, scheme)?), false)
                }
                SourceSection::Ldap(ldap) => (format!("ldap {}", ldap.urls.join(" ")), Kind::Ldap(Ldap::new(ldap)?), true),
            };
            let before = old.and_then(|old| old.list.iter().find(|source| source.name == name)?.remembered.as_ref());
            let remembered = remote.then(|| Memory::new(section, before));
            let asks_who = match &kind {
                Kind::Sql(sql) => sql.asks_who(),
                Kind::Ldap(ldap) => ldap.asks_who(),
                Kind::UsersFile(_) | Kind::Fixed(_) | Kind::Helper(_) => false,
            };
            list.push(Source { name, kind, remembered, asks_who });
        }
        Ok(Sources { list, reading: Reading { rules: section.names.clone(), scheme } })
    }

    /// What the first source that knows the user says; `Ok(None)`: none does. `fresh`: what is remembered does not count.
    pub async fn find(&self, asker: &Asker, fresh: bool) -> Result<Option<Account>, Down> {
        for (place, source) in self.list.iter().enumerate() {
            if let Some(account) = source.find(place, asker, fresh, &self.reading).await? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }

    /// Asks the source that has `account` whether this is its password, where that source checks passwords itself.
    pub async fn check(&self, account: &Account, at: &str, password: &[u8], asker: &Asker) -> Result<bool, Down> {
        let Some(source) = self.list.get(account.source) else {
            return Err(Down { source_name: "?".to_owned(), why: "the sources have changed".to_owned() });
        };
        match &source.kind {
            Kind::Ldap(ldap) => ldap.check(at, password).await.map_err(|why| Down { source_name: source.name.clone(), why }),
            Kind::Helper(helper) => helper.check(at, password, asker).await.map_err(|why| Down { source_name: source.name.clone(), why }),
            Kind::UsersFile(_) | Kind::Fixed(_) | Kind::Sql(_) => Ok(false),
        }
    }

    /// What is known of a user without asking anybody: what remote sources said last, however long ago. `None`: nothing, which is not "no such user".
    pub fn known(&self, user: &UserName) -> Option<Arc<UserRecord>> {
        self.list.iter().find_map(|source| match &source.kind {
            Kind::UsersFile(file) => file.users().get(user).map(|entry| Arc::clone(&entry.record)),
            Kind::Fixed(fixed) => fixed.find(user).map(|(record, _)| record),
            Kind::Helper(helper) => helper.find(user).map(|(record, _)| record),
            Kind::Sql(_) | Kind::Ldap(_) => source.remembered.as_ref()?.last(user),
        })
    }

    /// Which source an account is from, for operators.
    pub fn name(&self, account: &Account) -> &str {
        self.list.get(account.source).map_or("?", |source| &source.name)
    }

    /// The users file that an account is from.
    pub fn users_file(&self, account: &Account) -> Option<&Arc<UsersFile>> {
        match &self.list.get(account.source)?.kind {
            Kind::UsersFile(file) => Some(file),
            _ => None,
        }
    }

    /// The users files, in order.
    pub fn users_files(&self) -> impl Iterator<Item = &Arc<UsersFile>> {
        self.list.iter().filter_map(|source| match &source.kind {
            Kind::UsersFile(file) => Some(file),
            _ => None,
        })
    }

    /// Each source in a few words.
    pub fn describe(&self) -> Vec<String> {
        self.list
            .iter()
            .map(|source| match &source.kind {
                Kind::UsersFile(file) => format!("{} in {}", file.users().len(), file.path().display()),
                _ => source.name.clone(),
            })
            .collect()
    }
}

impl Source {
    async fn find(&self, place: usize, asker: &Asker, fresh: bool, reading: &Reading) -> Result<Option<Account>, Down> {
        let to_one = self.asks_who && asker.client.is_some();
        if let Some(remembered) = &self.remembered
            && !fresh
            && !to_one
            && let Some(answer) = remembered.answer(&asker.user)
        {
            return Ok(answer);
        }
        let found: Result<Option<(Arc<UserRecord>, Credential)>, String> = match &self.kind {
            Kind::UsersFile(file) => Ok(file.find(&asker.user).await),
            Kind::Fixed(fixed) => Ok(fixed.find(&asker.user)),
            Kind::Helper(helper) => Ok(helper.find(&asker.user)),
            Kind::Sql(sql) => sql.find(asker).await.map(|row| row.map(|fields| reading.stored(&asker.user, fields, &self.name))),
            Kind::Ldap(ldap) => ldap.find(asker).await.map(|entry| {
                entry.map(|entry| {
                    let (record, credential) = reading.stored(&asker.user, entry.fields, &self.name);
                    (record, if ldap.binds() { Credential::Asked(entry.dn) } else { credential })
                })
            }),
        };
        let found = found.map_err(|why| Down { source_name: self.name.clone(), why })?;
        let answer = found.map(|(record, credential)| Account { record, credential, source: place });
        if let Some(remembered) = &self.remembered {
            remembered.keep(&asker.user, answer.clone(), to_one);
        }
        Ok(answer)
    }
}

impl Reading {
    /// What a row or an entry says: the field `password` is the credential, the others are the record.
    fn stored(&self, user: &UserName, mut fields: Fields, source: &str) -> (Arc<UserRecord>, Credential) {
        let password = fields.remove("password").filter(|field| !field.is_empty());
        let (record, wrong) = UserRecord::new(user.clone(), fields, &self.rules);
        for why in wrong {
            warn!(%user, source, "{why}");
        }
        let credential = match password.map(|field| StoredPassword::parse(&field, self.scheme)) {
            Some(Ok(stored)) => Credential::Stored(stored),
            Some(Err(error)) => {
                warn!(%user, source, %error, "the stored password can't be used");
                Credential::None
            }
            None => Credential::None,
        };
        (Arc::new(record), credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::auth::{SqlDriver, SqlSection};

    fn user(name: &str) -> UserName {
        UserName::normalise(name).unwrap()
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_no_wrong_password() {
        let sql = SqlSection { driver: SqlDriver::Sqlite, connection: "/nowhere/users.db".to_owned(), ..SqlSection::default() };
        let section = AuthSection { source: vec![SourceSection::Sql(sql)], ..AuthSection::default() };
        let auth = crate::auth::Authenticator::open(&section, "unused".into()).unwrap();
        let client = crate::client::Client {
            session: crate::client::SessionId::random(),
            address: "127.0.0.1:9".parse().unwrap(),
            local: "127.0.0.1:143".parse().unwrap(),
            ingress: "a".parse().unwrap(),
            tls: None,
        };
        let answered = auth.verify("ada", b"x", &client, Protocol::Imap).await;
        assert!(matches!(answered, Err(crate::auth::AuthError::Unavailable(_))), "{answered:?}");
        assert!(auth.recipient("ada").await.is_err(), "and no recipient is refused for good");
    }

    /// A database with one user, and sources over it.
    fn database(folder: &std::path::Path, cache_ttl: Duration) -> (rusqlite::Connection, AuthSection, Sources) {
        let file = folder.join("users.db");
        let database = rusqlite::Connection::open(&file).unwrap();
        let user = "INSERT INTO users VALUES ('ada', '{PLAIN}a', '*:storage=1G')";
        database.execute_batch(&format!("CREATE TABLE users (name TEXT, password TEXT, quota_rule TEXT); {user}")).unwrap();
        let sql = SqlSection {
            driver: SqlDriver::Sqlite,
            connection: file.display().to_string(),
            query: "SELECT password, quota_rule FROM users WHERE name = %u".to_owned(),
            ..SqlSection::default()
        };
        let section = AuthSection {
            source: vec![SourceSection::Sql(sql)],
            cache_ttl,
            cache_negative_ttl: Duration::from_millis(1),
            ..AuthSection::default()
        };
        let sources = Sources::open(&section, "unused".into(), None).unwrap();
        (database, section, sources)
    }

    #[tokio::test]
    async fn what_a_source_said_last_is_known_though_it_is_asked_again() {
        for cache_ttl in [Duration::ZERO, Duration::from_millis(1)] {
            let folder = tempfile::tempdir().unwrap();
            let (database, section, sources) = database(folder.path(), cache_ttl);
            let rule = || sources.known(&user("ada")).and_then(|record| record.fields().get("quota_rule").cloned());
            let ask = async || sources.find(&Asker::lookup(&user("ada")), false).await.unwrap().is_some();
            assert_eq!(rule(), None, "not asked yet");
            assert!(ask().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(rule().as_deref(), Some("*:storage=1G"), "{cache_ttl:?}");
            database.execute_batch("UPDATE users SET quota_rule = '*:storage=2G'").unwrap();
            assert!(ask().await);
            assert_eq!(rule().as_deref(), Some("*:storage=2G"), "{cache_ttl:?}");
            let reloaded = Sources::open(&section, "unused".into(), Some(&sources)).unwrap();
            assert!(reloaded.known(&user("ada")).is_some(), "settings that are read again forget nobody");
            database.execute_batch("DELETE FROM users").unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!ask().await);
            assert_eq!(rule(), None, "there is no such user any more");
        }
    }

    #[tokio::test]
    async fn what_one_login_is_told_answers_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (_database, mut section, _) = database(folder.path(), Duration::from_secs(3600));
        let SourceSection::Sql(sql) = &mut section.source[0] else { panic!("the source is SQL") };
        sql.query = "SELECT password, quota_rule FROM users WHERE name = %u AND (%s <> 'pop3' OR %r = '192.0.2.7')".to_owned();
        let sources = Sources::open(&section, "unused".into(), None).unwrap();
        let login = |address: &str, protocol| Asker { user: user("ada"), client: Some((address.parse().unwrap(), protocol)) };
        let may = async |asker: Asker| sources.find(&asker, false).await.unwrap().is_some();
        for _ in 0..2 {
            assert!(may(login("192.0.2.1", Protocol::Imap)).await);
            assert!(!may(login("192.0.2.1", Protocol::Pop3)).await);
            assert!(sources.known(&user("ada")).is_some(), "that one login is refused is no news of the user");
            assert!(may(login("192.0.2.7", Protocol::Pop3)).await);
            assert!(may(Asker::lookup(&user("ada"))).await);
        }
    }

    #[tokio::test]
    async fn settings_that_are_refused_change_no_users() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, "ada:{PLAIN}a\n").unwrap();
        let files = SourceSection::PasswdFile(crate::config::auth::PasswdFileSection { file: Some(file.clone()) });
        let section = AuthSection { source: vec![files], ..AuthSection::default() };
        let auth = crate::auth::Authenticator::open(&section, file.clone()).unwrap();
        std::fs::write(&file, "bob:{PLAIN}b\n").unwrap();
        let wrong = SqlSection { query: "SELECT %z".to_owned(), ..SqlSection::default() };
        let refused = AuthSection { source: vec![section.source[0].clone(), SourceSection::Sql(wrong)], ..section.clone() };
        assert!(auth.reload(&refused).is_err());
        assert!(auth.known(&user("ada")).is_some() && auth.known(&user("bob")).is_none());
        auth.reload(&section).unwrap();
        assert!(auth.known(&user("ada")).is_none() && auth.known(&user("bob")).is_some());
    }

    #[tokio::test]
    async fn answers_are_remembered_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (database, section, sources) = database(folder.path(), Duration::from_secs(3600));
        let knows = async |name: &str, fresh: bool| sources.find(&Asker::lookup(&user(name)), fresh).await.map(|found| found.is_some());
        assert_eq!((knows("ada", false).await, knows("bob", false).await), (Ok(true), Ok(false)));
        database.execute_batch("DELETE FROM users; INSERT INTO users VALUES ('bob', 'x', '')").unwrap();
        assert_eq!(knows("ada", false).await, Ok(true), "remembered");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(knows("bob", false).await, Ok(true), "that nobody has this name is forgotten sooner");
        let reloaded = Sources::open(&section, "unused".into(), Some(&sources)).unwrap();
        let asked = reloaded.find(&Asker::lookup(&user("ada")), false).await.map(|found| found.is_some());
        assert_eq!(asked, Ok(false), "settings that are read again ask again");
        assert_eq!(knows("ada", true).await, Ok(false), "who asks afresh is told afresh");
    }
}
