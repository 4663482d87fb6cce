//! `[auth]`: who may log in, and the sources that know.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use affinity::NameRules;
use serde::{Deserialize, Serialize};

use super::Network;

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// Users in Dovecot's passwd-file format; default `<root>/users`.
    pub passwd_file: Option<PathBuf>,
    /// Scheme of entries without `{SCHEME}`, and of `berth user add`.
    pub default_scheme: String,
    /// Whether a password that is stored in a weaker scheme is stored anew at a login, in the users file.
    pub upgrade_weak: bool,
    /// SASL mechanisms that are offered.
    pub mechanisms: Vec<String>,
    /// Who logs in by ANONYMOUS.
    pub anonymous_user: Option<String>,
    /// Allow passwords without TLS from addresses other than loopback.
    pub allow_plaintext: bool,
    /// Networks that may log in; empty: all.
    pub allow_nets: Vec<Network>,
    /// Networks that may not.
    pub deny_nets: Vec<Network>,
    /// Networks without delays of their own, as a webmail server's.
    pub trusted_nets: Vec<Network>,
    /// How long a verified password (as a keyed hash) and what a source said of a user are remembered.
    #[serde(with = "humantime_serde")]
    pub cache_ttl: Duration,
    /// The same for users that no source has.
    #[serde(with = "humantime_serde")]
    pub cache_negative_ttl: Duration,
    /// Users remembered at most.
    pub cache_users: u64,
    /// First delay after a wrong password; doubles with each.
    #[serde(with = "humantime_serde")]
    pub failure_delay: Duration,
    /// Longest such delay.
    #[serde(with = "humantime_serde")]
    pub failure_delay_max: Duration,
    /// How user names are normalised.
    pub names: NameRules,
    /// Where users are, tried in order; default: the users file alone.
    pub source: Vec<SourceSection>,
    /// Who issues tokens; none: OAUTHBEARER and XOAUTH2 accept nothing.
    pub oauth: Option<OAuthSection>,
}

impl Default for AuthSection {
    fn default() -> Self {
        AuthSection {
            passwd_file: None,
            default_scheme: "ARGON2ID".to_owned(),
            upgrade_weak: false,
            mechanisms: vec!["PLAIN".to_owned(), "LOGIN".to_owned()],
            anonymous_user: None,
            allow_plaintext: false,
            allow_nets: Vec::new(),
            deny_nets: Vec::new(),
            trusted_nets: Vec::new(),
            cache_ttl: Duration::from_secs(5 * 60),
            cache_negative_ttl: Duration::from_secs(30),
            cache_users: 100_000,
            failure_delay: Duration::from_secs(1),
            failure_delay_max: Duration::from_secs(15),
            names: NameRules::default(),
            source: Vec::new(),
            oauth: None,
        }
    }
}

impl AuthSection {
    /// The users files of sources.
    pub fn users_files(&self) -> Vec<PathBuf> {
        let file = |source: &SourceSection| match source {
            SourceSection::PasswdFile(section) => section.file.clone(),
            SourceSection::Static(_) | SourceSection::Sql(_) | SourceSection::Ldap(_) | SourceSection::Command(_) => None,
        };
        self.source.iter().filter_map(file).collect()
    }

    /// Databases that are files and are not there: opened for reading only, they are never made.
    pub fn missing_databases(&self) -> Vec<String> {
        let files = self.source.iter().enumerate().filter_map(|(index, source)| match source {
            SourceSection::Sql(section) if section.driver == SqlDriver::Sqlite => Some((index + 1, &section.connection)),
            _ => None,
        });
        let missing = files.filter(|(_, file)| matches!(std::path::Path::new(file).try_exists(), Ok(false)));
        missing.map(|(number, file)| format!("there is no database {file} (auth.source {number}, `connection`)")).collect()
    }

    /// What else is read: secrets, certificate authorities, databases that are files.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for source in &self.source {
            match source {
                SourceSection::Sql(section) => {
                    files.extend(section.password_file.clone());
                    files.extend(section.ca_file.clone());
                    if section.driver == SqlDriver::Sqlite {
                        files.push(PathBuf::from(&section.connection));
                    }
                }
                SourceSection::Ldap(section) => {
                    files.extend(section.bind_password_file.clone());
                    files.extend(section.ca_file.clone());
                }
                SourceSection::PasswdFile(_) | SourceSection::Static(_) | SourceSection::Command(_) => {}
            }
        }
        if let Some(oauth) = &self.oauth {
            files.extend(oauth.client_secret_file.clone());
            files.extend(oauth.ca_file.clone());
            files.extend(oauth.keys.iter().filter(|keys| !keys.contains("://")).map(PathBuf::from));
        }
        files
    }
}

/// `[[auth.source]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SourceSection {
    /// A file in Dovecot's passwd-file format.
    PasswdFile(PasswdFileSection),
    /// The same answer for a set of names.
    Static(StaticSection),
    /// A database.
    Sql(SqlSection),
    /// A directory.
    Ldap(LdapSection),
    /// A program that checks passwords.
    Command(CommandSection),
}

/// `type = "passwd-file"`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswdFileSection {
    /// Which; default: `auth.passwd_file`.
    pub file: Option<PathBuf>,
}

/// `type = "static"`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaticSection {
    /// Names, or `*@domain` for all of a domain, or `*`.
    pub users: Vec<String>,
    /// As the users file has it, `{SCHEME}hash`; none: nobody can log in with a password.
    pub password: Option<String>,
    /// Fields of the record.
    pub fields: BTreeMap<String, String>,
}

/// `type = "command"`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommandSection {
    /// The program with its arguments.
    pub program: Vec<String>,
    /// Names, or `*@domain` for all of a domain, or `*`: whom it is asked about.
    pub users: Vec<String>,
    /// Fields of the record.
    pub fields: BTreeMap<String, String>,
    /// How many run at once.
    pub at_once: usize,
    /// How long one may take before it is killed.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for CommandSection {
    fn default() -> Self {
        CommandSection { program: Vec::new(), users: Vec::new(), fields: BTreeMap::new(), at_once: 4, timeout: Duration::from_secs(10) }
    }
}

/// Which database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "names of products")]
pub enum SqlDriver {
    #[default]
    Postgresql,
    Sqlite,
}

/// `type = "sql"`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqlSection {
    /// Which database.
    pub driver: SqlDriver,
    /// PostgreSQL's connection string, or SQLite's file.
    pub connection: String,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Whom to trust; default: the host's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Gives one row for a user, with the columns `password` and fields of the record.
    pub query: String,
    /// Connections at most.
    pub connections: usize,
    /// How long an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for SqlSection {
    fn default() -> Self {
        SqlSection {
            driver: SqlDriver::default(),
            connection: String::new(),
            password_file: None,
            ca_file: None,
            query: "SELECT password FROM users WHERE name = %u".to_owned(),
            connections: 8,
            timeout: Duration::from_secs(5),
        }
    }
}

/// How deep a search goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "names of RFC 4511")]
pub enum LdapScope {
    #[default]
    Subtree,
    Onelevel,
    Base,
}

/// How a password is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LdapAuth {
    /// By a bind as the user.
    #[default]
    Bind,
    /// By what the entry stores.
    Password,
}

/// `type = "ldap"`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LdapSection {
    /// Servers, tried in order.
    pub urls: Vec<String>,
    /// Whether a connection to `ldap://` is made private before anything is said.
    pub start_tls: bool,
    /// Whom to trust; default: the host's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Who searches; default: nobody (anonymous).
    pub bind_dn: Option<String>,
    /// File whose first line is that one's password.
    pub bind_password_file: Option<PathBuf>,
    /// Where users are.
    pub base: String,
    /// How deep.
    pub scope: LdapScope,
    /// Matches one user.
    pub filter: String,
    /// How a password is checked.
    pub auth: LdapAuth,
    /// Where it is stored, for `auth = "password"`.
    pub password_attribute: String,
    /// Fields of the record: an attribute each, or a text with `%{attribute}`.
    pub attributes: BTreeMap<String, String>,
    /// Connections at most, for searches and for binds each.
    pub connections: usize,
    /// How long an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for LdapSection {
    fn default() -> Self {
        LdapSection {
            urls: Vec::new(),
            start_tls: false,
            ca_file: None,
            bind_dn: None,
            bind_password_file: None,
            base: String::new(),
            scope: LdapScope::default(),
            filter: "(mail=%u)".to_owned(),
            auth: LdapAuth::default(),
            password_attribute: "userPassword".to_owned(),
            attributes: BTreeMap::new(),
            connections: 8,
            timeout: Duration::from_secs(5),
        }
    }
}

/// `[auth.oauth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OAuthSection {
    /// What the claim `iss` must be.
    pub issuer: String,
    /// One of these must be in the claim `aud`.
    pub audience: Vec<String>,
    /// The provider's keys, a JWKS: a file or an address.
    pub keys: Option<String>,
    /// How often they are read again.
    #[serde(with = "humantime_serde")]
    pub refresh: Duration,
    /// Signatures that are believed.
    pub algorithms: Vec<String>,
    /// Where the provider says what a token is (RFC 7662), for tokens that are no JWT, or all where there are no keys.
    pub introspection: Option<String>,
    /// Who we are there.
    pub client_id: Option<String>,
    /// File whose first line is our secret there.
    pub client_secret_file: Option<PathBuf>,
    /// The claim with the user's name.
    pub username_claim: String,
    /// Scopes that a token must have.
    pub scopes: Vec<String>,
    /// Fields of the record that claims give; they can only restrict.
    pub claims: BTreeMap<String, String>,
    /// Where a refused client learns where tokens come from.
    pub openid_configuration: String,
    /// Whom to trust; default: the host's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Questions to the provider at once.
    pub connections: usize,
    /// How long an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for OAuthSection {
    fn default() -> Self {
        OAuthSection {
            issuer: String::new(),
            audience: Vec::new(),
            keys: None,
            refresh: Duration::from_secs(60 * 60),
            algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            introspection: None,
            client_id: None,
            client_secret_file: None,
            username_claim: "email".to_owned(),
            scopes: Vec::new(),
            claims: BTreeMap::new(),
            openid_configuration: String::new(),
            ca_file: None,
            connections: 8,
            timeout: Duration::from_secs(5),
        }
    }
}
