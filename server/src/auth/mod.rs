//! Who may log in: users, passwords, SASL.

pub mod sasl;

use std::path::PathBuf;

use affinity::UserName;

use crate::{
    client::{Client, Protocol},
    config::AuthSection,
};

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
pub struct Authenticator {}

impl Authenticator {
    /// Reads the users; `passwd_file` is where they are.
    pub fn open(section: &AuthSection, passwd_file: PathBuf) -> anyhow::Result<Authenticator> {
        let _ = (section, passwd_file);
        todo!()
    }
    /// Reads the users again; on error the old ones stay.
    pub fn reload(&self, section: &AuthSection) -> anyhow::Result<()> {
        let _ = section;
        todo!()
    }
    /// Checks a password, after the delay that earlier failures of this address and user earned. Hashing runs off the async threads.
    pub async fn verify(&self, login: &str, password: &[u8], client: &Client, protocol: Protocol) -> Result<Login, AuthError> {
        let _ = (login, password, client, protocol);
        todo!()
    }
    /// Who an envelope address (without angle brackets) is; `None`: unknown user.
    pub async fn recipient(&self, address: &str) -> Result<Option<Recipient>, AuthError> {
        let _ = address;
        todo!()
    }
    /// Whether passwords may be sent over this connection.
    pub fn allows_password(&self, client: &Client) -> bool {
        let _ = client;
        todo!()
    }
    /// Every user, sorted.
    pub fn users(&self) -> Vec<UserRecord> {
        todo!()
    }
}
