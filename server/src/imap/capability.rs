//! What is advertised: exactly what is whole, in each state.

use std::borrow::Cow;

use super::limits::MessageLimits;
use crate::{auth::sasl::Mechanism, client::Client};

/// After login.
const AFTER_LOGIN: &[&str] = &[
    "IMAP4rev1",
    "IMAP4rev2",
    "UTF8=ACCEPT",
    "SASL-IR",
    "LITERAL+",
    "ID",
    "ENABLE",
    "IDLE",
    "NAMESPACE",
    "UIDPLUS",
    "MOVE",
    "MULTIAPPEND",
    "CATENATE",
    "URL-PARTIAL",
    "BINARY",
    "APPENDLIMIT",
    "REPLACE",
    "SAVEDATE",
    "OBJECTID",
    "PREVIEW",
    "SNIPPET=FUZZY",
    "INPROGRESS",
    "UNSELECT",
    "UNAUTHENTICATE",
    "COMPRESS=DEFLATE",
    "CHILDREN",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "STATUS=SIZE",
    "METADATA",
    "LIST-METADATA",
    "UIDONLY",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "QUOTA=RES-MESSAGE",
    "QUOTA=RES-MAILBOX",
    "CONDSTORE",
    "QRESYNC",
    "ESEARCH",
    "MULTISEARCH",
    "SEARCHRES",
    "PARTIAL",
    "WITHIN",
    "FILTERS",
    "SORT",
    "SORT=DISPLAY",
    "ESORT",
    "CONTEXT=SEARCH",
    "CONTEXT=SORT",
    "NOTIFY",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "THREAD=REFS",
    "I18NLEVEL=1",
];

/// The same where users share mailboxes (`mail.sharing`).
const SHARING: &[&str] = &["ACL", "RIGHTS=texk", "LIST-MYRIGHTS"];

/// The same for operators: others are refused SETQUOTA.
const SETTING_QUOTAS: &[&str] = &["QUOTASET"];

/// What is offered after login.
pub fn after_login(sharing: bool, may_set_quota: bool, limits: MessageLimits) -> Vec<Cow<'static, str>> {
    let when = |offered: bool, names: &'static [&'static str]| if offered { names } else { &[] };
    AFTER_LOGIN
        .iter()
        .chain(when(sharing, SHARING))
        .chain(when(may_set_quota, SETTING_QUOTAS))
        .map(|name| Cow::Borrowed(*name))
        .chain(limits.capability().map(Cow::Owned))
        .collect()
}

/// Before login. `start_tls`: a certificate is there; `password`: this connection may send one; `mechanisms`: those that it may use.
pub fn before_login(client: &Client, start_tls: bool, password: bool, mechanisms: &[Mechanism]) -> Vec<String> {
    let mut capabilities: Vec<String> = ["IMAP4rev1", "IMAP4rev2", "SASL-IR", "LITERAL+", "ID", "ENABLE", "IDLE"].map(str::to_owned).into();
    if start_tls && client.tls.is_none() {
        capabilities.push("STARTTLS".to_owned());
    }
    capabilities.extend(mechanisms.iter().map(|mechanism| format!("AUTH={}", mechanism.name())));
    if !password {
        capabilities.push("LOGINDISABLED".to_owned());
    }
    capabilities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SessionId;

    fn before(tls: Option<&str>, password: bool) -> String {
        let client = Client {
            session: SessionId::random(),
            address: "192.0.2.1:1234".parse().unwrap(),
            local: "192.0.2.2:143".parse().unwrap(),
            ingress: "a".parse().unwrap(),
            tls: tls.map(str::to_owned),
        };
        before_login(&client, true, password, if password { &[Mechanism::Plain] } else { &[] }).join(" ")
    }

    #[test]
    fn a_plain_connection_is_told_to_use_tls_first() {
        let plain = before(None, false);
        assert!(plain.ends_with(" STARTTLS LOGINDISABLED"), "{plain}");
        let inside = before(Some("TLSv1.3"), true);
        assert!(inside.contains(" AUTH=PLAIN") && !inside.contains("STARTTLS") && !inside.contains("LOGINDISABLED"), "{inside}");
    }
}
