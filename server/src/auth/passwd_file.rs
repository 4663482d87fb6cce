//! Users in Dovecot's passwd-file format: `user:password:uid:gid:gecos:home:shell:extra fields`.
//!
//! Invariants, each with the test that guards it:
//! - one bad line never hides another user (`a_bad_line_is_named_and_skipped`)
//! - a user whose password can't be used still gets mail (`a_password_that_cannot_be_used_leaves_the_user`)
//!
//! Fields from the right may be missing. uid, gid, gecos and shell are for other programs: Berth runs as one user. Home and the extra fields
//! make the user's record ([`super::record`]).

use std::{collections::HashMap, sync::Arc};

use affinity::{Address, NameRules, UserName};

use super::{
    record::{Fields, UserRecord},
    scheme::{Scheme, StoredPassword},
};

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The normalised name.
    pub user: UserName,
    /// `None`: can't log in with a password, but gets mail.
    pub password: Option<StoredPassword>,
    /// What the line says beside.
    pub record: Arc<UserRecord>,
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: usize,
    /// What is wrong; never the password.
    pub why: String,
}

/// All users of a file.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<UserName, Entry>,
}

impl Users {
    /// Reads a file's text; lines that can't be used are told and left out.
    pub fn parse(text: &str, rules: &NameRules, default_scheme: Scheme) -> (Users, Vec<BadLine>) {
        let mut users = Users::default();
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if !is_entry(line) {
                continue;
            }
            match parse_line(line, rules, default_scheme) {
                Ok((entry, complaint)) => {
                    bad.extend(complaint.map(|why| BadLine { number, why: format!("{}: {why}", entry.user) }));
                    if users.by_name.contains_key(&entry.user) {
                        bad.push(BadLine { number, why: format!("{} is there already: the first line counts", entry.user) });
                    } else {
                        users.by_name.insert(entry.user.clone(), entry);
                    }
                }
                Err(why) => bad.push(BadLine { number, why }),
            }
        }
        (users, bad)
    }

    /// One user.
    pub fn get(&self, user: &UserName) -> Option<&Entry> {
        self.by_name.get(user)
    }

    /// All users, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_name.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Whether a line has a user: not empty, not a comment.
pub fn is_entry(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// The user whom a line is about, if its name can be one.
pub fn user_of(line: &str, rules: &NameRules) -> Result<UserName, String> {
    let name = line.trim_start().split(':').next().unwrap_or_default();
    // A local domain is dropped as at login; what looks like a detail or a master user is part of the name here.
    let rules = NameRules { detail_delimiter: String::new(), master_separator: String::new(), ..rules.clone() };
    Address::parse(name, &rules).map(|address| address.user).map_err(|error| format!("{name:?} can't be a user: {error}"))
}

/// Refuses a name that no login and no address can mean.
pub fn ensure_reachable(user: &UserName, rules: &NameRules) -> Result<(), String> {
    for (what, separator) in [("detail", &rules.detail_delimiter), ("master user", &rules.master_separator)] {
        if !separator.is_empty() && user.local_part().contains(separator.as_str()) {
            return Err(format!("{user} holds {separator:?}, which separates a {what}: nobody could log in as it"));
        }
    }
    Ok(())
}

/// The entry, and what of it can't be used.
fn parse_line(line: &str, rules: &NameRules, default_scheme: Scheme) -> Result<(Entry, Option<String>), String> {
    let user = user_of(line, rules)?;
    ensure_reachable(&user, rules)?;
    let fields: Vec<&str> = line.splitn(8, ':').collect();
    let mut complaint = None;

    let password = match fields.get(1).copied().unwrap_or_default() {
        "" => None,
        field => StoredPassword::parse(field, default_scheme).map_err(|error| complaint = Some(error.to_string())).ok(),
    };
    let mut extra: Fields = fields
        .get(7)
        .copied()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.split_once('=').unwrap_or((field, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    if let Some(home) = fields.get(5).filter(|home| !home.is_empty()) {
        extra.entry("home".to_owned()).or_insert_with(|| (*home).to_owned());
    }
    let (record, wrong) = UserRecord::new(user.clone(), extra, rules);
    if let Some(wrong) = wrong.into_iter().next() {
        complaint = Some(wrong);
    }
    Ok((Entry { user, password, record: Arc::new(record) }, complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NameRules {
        NameRules { local_domains: vec!["localhost".to_owned()], detail_delimiter: "+".to_owned(), master_separator: "*".to_owned() }
    }
    fn parse(text: &str) -> (Users, Vec<BadLine>) {
        Users::parse(text, &rules(), Scheme::Plain)
    }
    fn entry<'a>(users: &'a Users, name: &str) -> &'a Entry {
        users.get(&UserName::normalise(name).unwrap()).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn every_field_of_dovecots_format_is_understood() {
        let (users, bad) = parse(concat!(
            "# comment\n\n",
            "ada:{PLAIN}secret:1000:1000:Ada Lovelace:/home/ada:/bin/sh:userdb_quota_rule=*:storage=1G nologin allow_nets=10.0.0.0/8,::1\n",
            "Bob@LOCALHOST:plain\n",
            "carol@example.org:{PLAIN}x::::::master=yes reason=none\r\n",
            "dave\n",
        ));
        assert_eq!(bad, []);
        assert_eq!(users.len(), 4);
        let ada = entry(&users, "ada");
        assert_eq!(ada.password.as_ref().unwrap().verify(b"secret"), Ok(true));
        assert_eq!(ada.record.field("quota_rule"), Some("*:storage=1G"));
        assert_eq!(ada.record.home.as_deref(), Some(std::path::Path::new("/home/ada")));
        assert!(ada.record.disabled.is_some());
        assert!(ada.record.allow_nets.as_ref().unwrap().iter().any(|net| net.contains("10.1.2.3".parse().unwrap())));
        assert_eq!(entry(&users, "bob").password.as_ref().unwrap().verify(b"plain"), Ok(true));
        assert!(entry(&users, "carol@example.org").record.is_master);
        assert!(entry(&users, "carol@example.org").record.disabled.is_none());
        assert_eq!(entry(&users, "dave").password, None);
    }

    #[test]
    fn a_bad_line_is_named_and_skipped() {
        let (users, bad) = parse("a/b:x\n:x\nada:1\nADA:2\n.hidden:x\na+b:x\nbob:2\n");
        let numbers: Vec<usize> = bad.iter().map(|bad| bad.number).collect();
        assert_eq!(numbers, [1, 2, 4, 5, 6]);
        assert_eq!(users.len(), 2);
        assert_eq!(entry(&users, "ada").password.as_ref().unwrap().verify(b"1"), Ok(true));
        assert!(bad.iter().all(|bad| !bad.why.contains(":x")));
    }

    #[test]
    fn tags_are_read_and_bad_ones_named() {
        let (users, bad) = parse("ada:x::::::tags=eu,Fast\nbob:x::::::director_tag=old\ncarol:x\ndave:x::::::tags=e/u,eu\n");
        let tags = |name| entry(&users, name).record.tags.iter().cloned().map(String::from).collect::<Vec<_>>();
        assert_eq!([tags("ada"), tags("bob"), tags("carol"), tags("dave")], [vec!["eu", "fast"], vec!["old"], vec![], vec!["eu"]]);
        assert!(bad.len() == 1 && bad[0].number == 4 && bad[0].why.contains("e/u"), "{bad:?}");
    }

    #[test]
    fn a_password_that_cannot_be_used_leaves_the_user() {
        let (users, bad) = parse("ada:{DES-CRYPT}ab01FAX.bQRSU\n");
        assert_eq!(bad, [BadLine { number: 1, why: "ada: password scheme DES-CRYPT is not supported".to_owned() }]);
        assert_eq!(entry(&users, "ada").password, None);
    }

    #[test]
    fn networks_that_cannot_be_read_let_nobody_in() {
        let (users, bad) = parse("ada:x::::::allow_nets=10.0.0.0/8,office\n");
        assert_eq!(entry(&users, "ada").record.allow_nets, Some(Vec::new()));
        assert_eq!(bad.len(), 1);
    }
}
