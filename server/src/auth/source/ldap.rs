//! Users in a directory: found by a search, their passwords checked by a bind in their name or by what the entry stores.
//!
//! - Variables are escaped for filters and names ([`super::template`]); a name that matches two entries is nobody's.
//! - Searches and binds have connections of their own: a bind changes whose connection it is. Both are bounded and used again; one that broke
//!   while it was idle is replaced at once.
//! - An empty password is never sent: directories take that for an anonymous bind, which succeeds (`Authenticator` refuses it before).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use ldap3::{Ldap as Handle, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, dn_escape, ldap_escape};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{Asker, bounded::Bounded, template::Template, tls};
use crate::{
    auth::record::Fields,
    config::auth::{LdapAuth, LdapScope, LdapSection},
};

/// Searches or binds that wait for a connection at most.
const WAITING_MAX: usize = 2_000;
/// Result codes of RFC 4511 §4.1.9 that say that this user's password is not this one.
const NOT_THIS_PASSWORD: [u32; 4] = [32, 48, 49, 53];
/// noSuchObject: there is no such entry.
const NO_SUCH_OBJECT: u32 = 32;

/// One directory.
pub struct Ldap {
    urls: Vec<String>,
    start_tls: bool,
    tls: Arc<ClientConfig>,
    service: Option<(String, String)>,
    base: Template,
    scope: Scope,
    filter: Template,
    auth: LdapAuth,
    attributes: BTreeMap<String, Pattern>,
    wanted: Vec<String>,
    limit: Duration,
    searches: Connections,
    binds: Connections,
}

struct Connections {
    turns: Bounded,
    idle: Mutex<Vec<Handle>>,
}

/// An attribute's name, or a text with `%{attribute}` in it.
enum Pattern {
    Attribute(String),
    Text(Vec<(String, Option<String>)>),
}

/// What an entry says.
pub struct Found {
    /// The entry's name.
    pub dn: String,
    /// The fields; `password` where passwords are compared here.
    pub fields: Fields,
}

impl Ldap {
    /// Reads the settings; nothing is asked yet.
    pub fn new(section: &LdapSection) -> anyhow::Result<Ldap> {
        let wrong = |setting: &str| format!("an LDAP source (auth.source, {setting})");
        if section.urls.is_empty() {
            bail!("{}: name at least one, as in [\"ldaps://ldap.example.org\"]", wrong("urls"));
        }
        for url in &section.urls {
            if !["ldap://", "ldaps://", "ldapi://"].iter().any(|scheme| url.starts_with(scheme)) {
                bail!("{}: {url:?} is not ldap://, ldaps:// or ldapi://", wrong("urls"));
            }
        }
        let template = |text: &str, setting: &str| Template::parse(text).map_err(anyhow::Error::msg).with_context(|| wrong(setting));
        let attributes: BTreeMap<String, Pattern> =
            section.attributes.iter().map(|(field, text)| (field.clone(), Pattern::parse(text))).collect();
        let mut wanted: Vec<String> = attributes.values().flat_map(Pattern::names).collect();
        if section.auth == LdapAuth::Password {
            wanted.push(section.password_attribute.clone());
        }
        if wanted.is_empty() {
            // RFC 4511 §4.5.1.8: no attributes at all.
            wanted.push("1.1".to_owned());
        }
        let mut attributes = attributes;
        if section.auth == LdapAuth::Password {
            attributes.insert("password".to_owned(), Pattern::Attribute(section.password_attribute.clone()));
        }
        let service = match &section.bind_dn {
            Some(dn) => Some((dn.clone(), tls::secret(section.bind_password_file.as_deref())?.unwrap_or_default())),
            None => None,
        };
        let connections =
            || Connections { turns: Bounded::new(section.connections.max(1), WAITING_MAX, section.timeout), idle: Mutex::default() };
        Ok(Ldap {
            urls: section.urls.clone(),
            start_tls: section.start_tls,
            tls: tls::client(section.ca_file.as_deref())?,
            service,
            base: template(&section.base, "base")?,
            scope: match section.scope {
                LdapScope::Subtree => Scope::Subtree,
                LdapScope::Onelevel => Scope::OneLevel,
                LdapScope::Base => Scope::Base,
            },
            filter: template(&section.filter, "filter")?,
            auth: section.auth,
            attributes,
            wanted,
            limit: section.timeout,
            searches: connections(),
            binds: connections(),
        })
    }

    /// Whether passwords are checked by the directory.
    pub fn binds(&self) -> bool {
        self.auth == LdapAuth::Bind
    }

    /// Whether it says different things to different logins of one user.
    pub fn asks_who(&self) -> bool {
        self.base.asks_who() || self.filter.asks_who()
    }

    /// The entry of one user.
    pub async fn find(&self, asker: &Asker) -> Result<Option<Found>, String> {
        let base = self.base.fill(asker, |value| dn_escape(value).into_owned());
        let filter = self.filter.fill(asker, |value| ldap_escape(value).into_owned());
        let _turn = self.searches.turns.enter().await.map_err(|busy| busy.to_string())?;
        let mut entries = match timeout(self.limit, self.search(&base, &filter)).await {
            Ok(entries) => entries?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        match (entries.pop(), entries.is_empty()) {
            (Some(entry), true) => Ok(Some(self.read(entry))),
            (Some(_), false) => Err(format!("the filter matches more than one entry for {}", asker.user)),
            (None, _) => Ok(None),
        }
    }

    /// Whether this is the password of the entry `dn`.
    pub async fn check(&self, dn: &str, password: &[u8]) -> Result<bool, String> {
        let Ok(password) = std::str::from_utf8(password) else { return Ok(false) };
        if password.is_empty() {
            return Ok(false);
        }
        let _turn = self.binds.turns.enter().await.map_err(|busy| busy.to_string())?;
        timeout(self.limit, self.bind(dn, password)).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn search(&self, base: &str, filter: &str) -> Result<Vec<SearchEntry>, String> {
        let reused = self.searches.take();
        let mut connection = match reused {
            Some(idle) => idle,
            None => self.connect_as_service().await?,
        };
        let answer = match self.ask(&mut connection, base, filter).await {
            // It broke while it was idle, as at a restart of the server.
            Err(error) if is_broken(&error) => {
                connection = self.connect_as_service().await?;
                self.ask(&mut connection, base, filter).await
            }
            other => other,
        };
        match answer {
            Ok(entries) => {
                self.searches.put_back(connection);
                Ok(entries)
            }
            Err(LdapError::LdapResult { result }) if result.rc == NO_SUCH_OBJECT => {
                self.searches.put_back(connection);
                Ok(Vec::new())
            }
            Err(error) => Err(format!("the search {filter} failed: {error}")),
        }
    }

    async fn ask(&self, connection: &mut Handle, base: &str, filter: &str) -> Result<Vec<SearchEntry>, LdapError> {
        let (entries, _) = connection.with_timeout(self.limit).search(base, self.scope, filter, &self.wanted).await?.success()?;
        Ok(entries.into_iter().filter(|entry| !entry.is_ref()).map(SearchEntry::construct).collect())
    }

    async fn bind(&self, dn: &str, password: &str) -> Result<bool, String> {
        let mut connection = match self.binds.take() {
            Some(idle) => idle,
            None => self.connect().await?,
        };
        let mut answer = connection.with_timeout(self.limit).simple_bind(dn, password).await;
        if answer.as_ref().is_err_and(is_broken) {
            connection = self.connect().await?;
            answer = connection.with_timeout(self.limit).simple_bind(dn, password).await;
        }
        let result = answer.map_err(|error| format!("a bind failed: {error}"))?;
        let right = match result.rc {
            0 => true,
            rc if NOT_THIS_PASSWORD.contains(&rc) => false,
            rc => return Err(format!("a bind was answered with result code {rc}: {}", result.text)),
        };
        self.binds.put_back(connection);
        Ok(right)
    }

    async fn connect_as_service(&self) -> Result<Handle, String> {
        let mut connection = self.connect().await?;
        if let Some((dn, password)) = &self.service {
            let bound = connection.with_timeout(self.limit).simple_bind(dn, password).await.and_then(|result| result.success());
            bound.map_err(|error| format!("the bind as {dn} failed: {error}"))?;
        }
        Ok(connection)
    }

    /// To the first server that answers.
    async fn connect(&self) -> Result<Handle, String> {
        let mut failures = Vec::new();
        for url in &self.urls {
            let settings =
                LdapConnSettings::new().set_conn_timeout(self.limit).set_starttls(self.start_tls).set_config(Arc::clone(&self.tls));
            match LdapConnAsync::with_settings(settings, url).await {
                Ok((connection, handle)) => {
                    tokio::spawn(async move {
                        if let Err(error) = connection.drive().await {
                            tracing::debug!(%error, "a connection to a directory ended");
                        }
                    });
                    return Ok(handle);
                }
                Err(error) => failures.push(format!("{url}: {error}")),
            }
        }
        Err(failures.join("; "))
    }

    fn read(&self, entry: SearchEntry) -> Found {
        // Names of attributes are case-insensitive (RFC 4512 §2.5).
        let mut values: HashMap<String, Vec<String>> =
            entry.attrs.into_iter().map(|(name, values)| (name.to_ascii_lowercase(), values)).collect();
        for (name, raw) in entry.bin_attrs {
            let texts = raw.iter().map(|value| String::from_utf8_lossy(value).into_owned());
            values.entry(name.to_ascii_lowercase()).or_default().extend(texts);
        }
        let fields = self.attributes.iter().filter_map(|(field, pattern)| Some((field.clone(), pattern.fill(&values)?))).collect();
        Found { dn: entry.dn, fields }
    }
}

impl Connections {
    fn take(&self) -> Option<Handle> {
        let mut idle = self.idle.lock();
        while let Some(mut connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn put_back(&self, connection: Handle) {
        self.idle.lock().push(connection);
    }
}

fn is_broken(error: &LdapError) -> bool {
    matches!(
        error,
        LdapError::Io { .. }
            | LdapError::OpSend { .. }
            | LdapError::ResultRecv { .. }
            | LdapError::EndOfStream
            | LdapError::IdScrubSend { .. }
    )
}

impl Pattern {
    fn parse(text: &str) -> Pattern {
        if !text.contains("%{") {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.;_".contains(&byte));
            return if plain { Pattern::Attribute(text.to_owned()) } else { Pattern::Text(vec![(text.to_owned(), None)]) };
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("%{") {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            parts.push((before.to_owned(), Some(name.to_owned())));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        Pattern::Text(parts)
    }

    fn names(&self) -> Vec<String> {
        match self {
            Pattern::Attribute(name) => vec![name.clone()],
            Pattern::Text(parts) => parts.iter().filter_map(|(_, name)| name.clone()).collect(),
        }
    }

    /// `None`: the entry lacks an attribute. Several values are joined with commas.
    fn fill(&self, values: &HashMap<String, Vec<String>>) -> Option<String> {
        let get = |name: &str| values.get(&name.to_ascii_lowercase()).filter(|values| !values.is_empty());
        match self {
            Pattern::Attribute(name) => Some(get(name)?.join(",")),
            Pattern::Text(parts) => {
                let mut text = String::new();
                for (before, name) in parts {
                    text.push_str(before);
                    if let Some(name) = name {
                        text.push_str(&get(name)?.join(","));
                    }
                }
                Some(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_fields() {
        let values = HashMap::from([
            ("homedirectory".to_owned(), vec!["/home/ada".to_owned()]),
            ("uid".to_owned(), vec!["ada".to_owned()]),
            ("net".to_owned(), vec!["10.0.0.0/8".to_owned(), "::1".to_owned()]),
        ]);
        let filled = |text: &str| Pattern::parse(text).fill(&values);
        assert_eq!(filled("homeDirectory").as_deref(), Some("/home/ada"));
        assert_eq!(filled("net").as_deref(), Some("10.0.0.0/8,::1"));
        assert_eq!(filled("/srv/%{uid}/Maildir").as_deref(), Some("/srv/ada/Maildir"));
        assert_eq!(filled("/srv/mail").as_deref(), Some("/srv/mail"), "a text without variables is itself");
        assert_eq!(filled("quota"), None);
        assert_eq!(filled("%{quota}G"), None);
    }

    #[test]
    fn mistakes_in_the_settings_say_what_to_write() {
        let said = |section: LdapSection| format!("{:#}", Ldap::new(&section).err().unwrap());
        assert!(said(LdapSection::default()).contains("ldaps://ldap.example.org"));
        assert!(said(LdapSection { urls: vec!["http://x".into()], ..LdapSection::default() }).contains("is not ldap://"));
        let filter = LdapSection { urls: vec!["ldap://x".into()], filter: "(uid=%x)".into(), ..LdapSection::default() };
        assert!(said(filter).contains("%x is unknown"));
    }
}
