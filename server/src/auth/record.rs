//! What a source says of a user, the same whichever source it is.
//!
//! A source gives fields by name: extra fields of a users file, columns of a query, attributes of a directory, claims of a token.
//! `userdb_home` is `home`, as in Dovecot's users files. Fields that mean nothing here are kept for others (`field`).
//!
//! Invariants, each with the test that guards it:
//! - a restriction that can't be read lets nobody in (`a_restriction_that_cannot_be_read_lets_nobody_in`)
//! - mail that is elsewhere is never looked for in the usual place (`a_location_that_cannot_be_used_is_an_error`)

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

use affinity::{NameRules, NodeName, Tag, UserName};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::passwd_file::user_of;
use crate::{
    client::Protocol,
    config::{Network, network::contains},
};

/// Fields by name; one without a value has the value "".
pub type Fields = BTreeMap<String, String>;

/// A user as the sources know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The normalised name.
    pub user: UserName,
    /// `home`: what `{home}` in `mail.maildir` and `~` in `mail` stand for.
    pub home: Option<PathBuf>,
    /// `mail`: this user's Maildir, in place of `mail.maildir`; `Err`: it is somewhere that can't be used.
    pub mail: Result<Option<PathBuf>, String>,
    /// `tags`, and Dovecot's `director_tag`: nodes that may serve this user have all of them.
    pub tags: BTreeSet<Tag>,
    /// `pin`: the node that is to serve this user.
    pub pin: Option<NodeName>,
    /// `user`: this name stands for that user.
    pub alias_of: Option<UserName>,
    /// `allow_nets`: networks to log in from; `None`: any.
    pub allow_nets: Option<Vec<Network>>,
    /// `protocols`: those to log in by; `None`: any.
    pub protocols: Option<Vec<Protocol>>,
    /// `nologin` with `reason`: why this user may not log in.
    pub disabled: Option<String>,
    /// `nodelivery`: takes no mail.
    pub no_delivery: bool,
    /// `expires`: from then on nobody logs in; mail is still taken.
    pub expires: Option<Timestamp>,
    /// `master`: may log in for others.
    pub is_master: bool,
    /// All fields as the source gave them.
    fields: Fields,
}

impl UserRecord {
    /// Reads the fields; also gives what is wrong with them.
    pub fn new(user: UserName, fields: Fields, rules: &NameRules) -> (UserRecord, Vec<String>) {
        let mut wrong = Vec::new();
        let get = |name: &str| get(&fields, name);
        let home = get("home").map(PathBuf::from);
        let mail = location(get("mail"), home.as_deref());
        if let Err(why) = &mail {
            wrong.push(why.clone());
        }
        let allow_nets = get("allow_nets").map(|list| {
            let parsed: Result<Vec<Network>, _> = list.split([',', ' ']).filter(|net| !net.is_empty()).map(str::parse).collect();
            // A list that can't be read lets nobody in: the other way round, a typing error would open the account to all.
            parsed.unwrap_or_else(|error| {
                wrong.push(format!("nobody can log in: allow_nets: {error}"));
                Vec::new()
            })
        });
        let protocols = get("protocols").map(|list| {
            let mut known = Vec::new();
            for name in list.split([',', ' ']).filter(|name| !name.is_empty()) {
                match name.to_ascii_lowercase().as_str() {
                    "imap" => known.push(Protocol::Imap),
                    "pop3" => known.push(Protocol::Pop3),
                    "lmtp" | "sieve" | "managesieve" => {}
                    _ => wrong.push(format!("protocols: {name:?} is unknown: write imap, pop3")),
                }
            }
            known
        });
        let expires = get("expires").map(|when| {
            moment(when).unwrap_or_else(|| {
                wrong.push(format!("nobody can log in: expires: {when:?} is no date: write 2027-01-31 or 2027-01-31T12:00:00Z"));
                Timestamp::MIN
            })
        });
        let pin = get("pin").and_then(|name| name.parse().map_err(|error| wrong.push(format!("pin: {name:?}: {error}"))).ok());
        let alias_of = get("user").and_then(|name| user_of(name, rules).map_err(|why| wrong.push(format!("user: {why}"))).ok());
        let mut tags = BTreeSet::new();
        for tag in
            [get("tags"), get("director_tag")].into_iter().flatten().flat_map(|list| list.split([',', ' '])).filter(|tag| !tag.is_empty())
        {
            match tag.parse() {
                Ok(tag) => drop(tags.insert(tag)),
                Err(error) => wrong.push(format!("the tag {tag:?} is ignored: {error}")),
            }
        }
        let switch = |name: &str| get(name).is_some_and(is_on);
        let disabled = switch("nologin").then(|| get("reason").unwrap_or("the account is disabled").to_owned());
        let record = UserRecord {
            alias_of: alias_of.filter(|target| *target != user),
            no_delivery: switch("nodelivery"),
            is_master: switch("master"),
            user,
            home,
            mail,
            tags,
            pin,
            allow_nets,
            protocols,
            disabled,
            expires,
            fields,
        };
        (record, wrong)
    }

    /// A field as the source gave it, for what this server does not know by itself: `quota_rule`, and `userdb_quota_rule` as well.
    pub fn field(&self, name: &str) -> Option<&str> {
        get(&self.fields, name)
    }

    /// All fields as the source gave them.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Why a login with the right password is refused; `None`: it is not.
    pub fn refuses(&self, protocol: Protocol, address: IpAddr, now: Timestamp) -> Option<String> {
        if let Some(reason) = &self.disabled {
            return Some(reason.clone());
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            return Some("the account has expired".to_owned());
        }
        if self.allow_nets.as_ref().is_some_and(|networks| !contains(networks, address)) {
            return Some("not from this network".to_owned());
        }
        if self.protocols.as_ref().is_some_and(|protocols| !protocols.contains(&protocol)) {
            return Some(format!("not by {protocol}"));
        }
        None
    }
}

fn get<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).or_else(|| fields.get(&format!("userdb_{name}"))).map(String::as_str)
}

fn is_on(value: &str) -> bool {
    !["n", "no", "0", "f", "false", "off"].contains(&value.to_ascii_lowercase().as_str())
}

/// `2027-01-31` (its first moment, UTC), `2027-01-31T12:00:00Z`, or seconds since 1970.
fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).ok();
    }
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>().ok().or_else(day)
}

/// `maildir:PATH` or `PATH`; `~` is the home. Dovecot's options after a colon say where its own files are.
fn location(mail: Option<&str>, home: Option<&Path>) -> Result<Option<PathBuf>, String> {
    let Some(mail) = mail.filter(|mail| !mail.is_empty()) else { return Ok(None) };
    let path = match mail.split_once(':') {
        Some(("maildir", rest)) => rest.split(':').next().unwrap_or_default(),
        Some((format, _)) if !format.contains('/') => return Err(format!("mail: {format} is not supported, only maildir:PATH")),
        _ => mail,
    };
    let path = match path.strip_prefix('~').or_else(|| path.strip_prefix("%h")) {
        Some(rest) => match home {
            Some(home) => home.join(rest.trim_start_matches('/')),
            None => return Err(format!("mail: {mail:?} needs the field `home`")),
        },
        None => PathBuf::from(path),
    };
    let leaves = path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir)) || mail.contains('\0');
    if leaves || path.components().next().is_none() {
        return Err(format!("mail: {mail:?} is no path without `.` and `..`"));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> (UserRecord, Vec<String>) {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        UserRecord::new(UserName::normalise("ada").unwrap(), fields, &NameRules::default())
    }
    fn refuses(record: &UserRecord, address: &str) -> Option<String> {
        record.refuses(Protocol::Imap, address.parse().unwrap(), "2026-06-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn every_field_is_read() {
        let (record, wrong) = read(&[
            ("userdb_home", "/home/ada"),
            ("mail", "maildir:~/Maildir:INDEX=/var/index"),
            ("tags", "ssd, big"),
            ("pin", "mail2"),
            ("user", "Bob@example.org"),
            ("allow_nets", "10.0.0.0/8,::1"),
            ("protocols", "imap"),
            ("expires", "2027-01-31"),
            ("master", "yes"),
            ("userdb_quota_rule", "*:storage=1G"),
        ]);
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(record.mail, Ok(Some("/home/ada/Maildir".into())));
        assert_eq!(record.tags.iter().cloned().map(String::from).collect::<Vec<_>>(), ["big", "ssd"]);
        assert_eq!(record.pin.as_ref().map(NodeName::as_str), Some("mail2"));
        assert_eq!(record.alias_of.as_ref().map(UserName::as_str), Some("bob@example.org"));
        assert_eq!(record.expires, Some("2027-01-31T00:00:00Z".parse().unwrap()));
        assert!(record.is_master);
        assert_eq!(record.field("quota_rule"), Some("*:storage=1G"));
        assert_eq!(refuses(&record, "10.1.2.3"), None);
        assert_eq!(refuses(&record, "192.0.2.1").as_deref(), Some("not from this network"));
        assert_eq!(record.refuses(Protocol::Pop3, "::1".parse().unwrap(), Timestamp::UNIX_EPOCH).as_deref(), Some("not by pop3"));
    }

    #[test]
    fn a_restriction_that_cannot_be_read_lets_nobody_in() {
        for fields in [[("allow_nets", "10.0.0.0/8,office")], [("expires", "soon")], [("protocols", "smtp")]] {
            let (record, wrong) = read(&fields);
            assert_eq!(wrong.len(), 1, "{fields:?}");
            assert!(refuses(&record, "10.0.0.1").is_some(), "{fields:?}");
        }
    }

    #[test]
    fn an_account_ends_when_it_expires() {
        for (expires, refused) in [("2026-05-31", true), ("2026-06-02", false), ("2026-06-01T00:00:00Z", true), ("1", true)] {
            let (record, wrong) = read(&[("expires", expires)]);
            assert_eq!((refuses(&record, "::1").is_some(), wrong.len()), (refused, 0), "{expires}");
        }
    }

    #[test]
    fn switches_are_on_unless_they_say_no() {
        for (value, on) in [("", true), ("y", true), ("no", false), ("0", false), ("False", false)] {
            let (record, _) = read(&[("nologin", value), ("nodelivery", value)]);
            assert_eq!((record.disabled.is_some(), record.no_delivery), (on, on), "{value:?}");
        }
    }

    #[test]
    fn a_location_that_cannot_be_used_is_an_error() {
        for mail in ["mbox:~/mail", "~/Maildir", "maildir:/srv/../etc", "maildir:", "/srv/./x/.."] {
            let (record, wrong) = read(&[("mail", mail)]);
            assert!(record.mail.is_err() && wrong.len() == 1, "{mail}: {record:?}");
        }
        assert_eq!(read(&[("mail", "/srv/mail/ada")]).0.mail, Ok(Some("/srv/mail/ada".into())));
    }
}
