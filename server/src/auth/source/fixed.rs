//! The same answer for a set of names, from the configuration: test accounts, or a domain whose passwords another source of truth checks.

use std::sync::Arc;

use affinity::{NameRules, UserName};
use anyhow::Context;

use super::Credential;
use crate::{
    auth::{
        passwd_file::user_of,
        record::{Fields, UserRecord},
        scheme::{Scheme, StoredPassword},
    },
    config::auth::StaticSection,
};

/// A static source.
pub struct Fixed {
    names: Vec<Pattern>,
    credential: Credential,
    fields: Fields,
    rules: NameRules,
}

enum Pattern {
    All,
    Domain(String),
    User(UserName),
}

impl Fixed {
    /// Reads the settings.
    pub fn new(section: &StaticSection, rules: &NameRules, scheme: Scheme) -> anyhow::Result<Fixed> {
        let mut names = Vec::new();
        for name in &section.users {
            names.push(match name.strip_prefix('*').map(|rest| rest.strip_prefix('@')) {
                Some(Some(domain)) if !domain.is_empty() => Pattern::Domain(domain.to_lowercase()),
                Some(_) if name == "*" => Pattern::All,
                _ => Pattern::User(user_of(name, rules).map_err(anyhow::Error::msg).context("a static source (auth.source, users)")?),
            });
        }
        let credential = match &section.password {
            Some(field) => Credential::Stored(StoredPassword::parse(field, scheme).context("a static source (auth.source, password)")?),
            None => Credential::None,
        };
        let probe = UserName::normalise("probe").context("a name")?;
        if let Some(wrong) = UserRecord::new(probe, section.fields.clone(), rules).1.into_iter().next() {
            anyhow::bail!("a static source (auth.source, fields): {wrong}");
        }
        Ok(Fixed { names, credential, fields: section.fields.clone(), rules: rules.clone() })
    }

    /// The answer for `user`.
    pub fn find(&self, user: &UserName) -> Option<(Arc<UserRecord>, Credential)> {
        let fits = self.names.iter().any(|pattern| match pattern {
            Pattern::All => true,
            Pattern::Domain(domain) => user.domain() == Some(domain),
            Pattern::User(name) => name == user,
        });
        let record = || UserRecord::new(user.clone(), self.fields.clone(), &self.rules).0;
        fits.then(|| (Arc::new(record()), self.credential.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_one_by_one_by_domain_or_all() {
        let found = |users: &[&str], name: &str| {
            let section = StaticSection {
                users: users.iter().map(|user| (*user).to_owned()).collect(),
                password: Some("{PLAIN}x".to_owned()),
                fields: [("protocols".to_owned(), "imap".to_owned())].into(),
            };
            let fixed = Fixed::new(&section, &NameRules::default(), Scheme::Plain).unwrap();
            fixed.find(&UserName::normalise(name).unwrap()).is_some()
        };
        assert!(found(&["Ada@Example.org"], "ada@example.org") && !found(&["ada"], "bob"));
        assert!(found(&["*@example.org"], "bob@example.org") && !found(&["*@example.org"], "bob@example.com"));
        assert!(found(&["*"], "anybody") && !found(&[], "anybody"));
    }

    #[test]
    fn mistakes_are_found_at_the_start() {
        for section in [
            StaticSection { users: vec!["a/b".to_owned()], ..StaticSection::default() },
            StaticSection { password: Some("{ROT13}x".to_owned()), ..StaticSection::default() },
            StaticSection { fields: [("allow_nets".to_owned(), "here".to_owned())].into(), ..StaticSection::default() },
        ] {
            assert!(Fixed::new(&section, &NameRules::default(), Scheme::Plain).is_err(), "{section:?}");
        }
    }
}
