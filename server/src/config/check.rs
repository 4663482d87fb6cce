//! What serde can't say about the settings: ranges, and settings that need or exclude each other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use affinity::UserName;
use storage::{Layout, MailboxName, SpecialUse};

use super::{
    Address, Config,
    auth::{SourceSection, SqlDriver},
    explain::Written,
};
use crate::{
    auth::{oauth::algorithm, sasl::Mechanism, scheme::Scheme},
    imap::wire::enabled::Separator,
    sandbox::Sandbox,
};

/// RFC 9051 §5.4: an inactivity timer must not be shorter.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(30 * 60);
/// Below this, header fields of ordinary mail don't fit (RFC 5322 §2.1.1 allows lines of 998 bytes).
const LINE_BYTES_MIN: u64 = 1024;
/// RFC 5321 §4.5.3.1.8: an LMTP server takes this many at least.
const RECIPIENTS_MIN: usize = 100;
/// Senders give up after five days or so.
const SUPPRESS_DUPLICATES_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A setting that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as in `tls.key`.
    pub key: &'static str,
    /// What is wrong and what to write.
    pub text: String,
}

impl Config {
    /// Everything that is wrong with the settings as they are.
    pub fn check(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut say = |key, text: String| found.push(Problem { key, text });
        self.check_node(&mut say);
        self.check_mail(&mut say);
        self.check_auth(&mut say);
        self.check_limits(&mut say);
        self.imap.check(&mut say);
        self.pop3.check(&mut say);
        self.quota.check(&mut say);
        self.expiry.check(&mut say);
        self.cache.check(&self.node.root, &mut say);
        self.tls.check(&mut say);
        let lists = [
            ("lmtp.allow", &self.lmtp.allow),
            ("lmtp.trusted", &self.lmtp.trusted),
            ("listen.proxy_from", &self.listen.proxy_from),
            ("listen.relay_from", &self.listen.relay_from),
        ];
        for (key, networks) in lists {
            for error in networks.errors() {
                say(key, error.to_string());
            }
        }
        self.check_proxies(&mut say);
        self.check_addresses(&mut say);
        if !self.listen.acme.is_empty() && self.tls.acme.is_none() {
            say("listen.acme", "needs [tls.acme]: for which names is a certificate wanted?".to_owned());
        }
        self.check_lmtp(&mut say);
        if let Some(wrong) = wrong_level(&self.log.level) {
            say(
                "log.level",
                format!("{wrong:?} is not a level: error, warn, info, debug, trace, or MODULE=LEVEL, as in \"info,server::imap=debug\""),
            );
        }
        found
    }

    /// What depends on whether a setting was written or is the default.
    pub(super) fn check_written(&self, written: &Written<'_>) -> Vec<Problem> {
        let mut found = Vec::new();
        if !written.has("node.name") && self.node.name.as_str().starts_with("localhost") {
            let text = "this host has no name of its own, and two nodes must not have the same: set it";
            found.push(Problem { key: "node.name", text: text.to_owned() });
        }
        if !self.tls.is_on() {
            for (key, addresses) in [("listen.imaps", &self.listen.imaps), ("listen.pop3s", &self.listen.pop3s)] {
                if written.has(key) && !addresses.is_empty() {
                    found.push(Problem { key, text: "needs `tls.certificate` and `tls.key`, or [tls.acme]".to_owned() });
                }
            }
        }
        found
    }

    fn check_node(&self, say: &mut impl FnMut(&'static str, String)) {
        for (key, path) in [("node.root", &self.node.root), ("node.local_dir", &self.node.local_dir)] {
            if !path.is_absolute() {
                say(key, format!("{} is relative: write the path from /", path.display()));
            }
        }
        for path in self.node.sandbox_paths.iter().filter(|path| !path.is_absolute()) {
            say("node.sandbox_paths", format!("{} is relative: write the path from /", path.display()));
        }
        if self.node.sandbox != Sandbox::Off && !self.quota.warning_command.is_empty() {
            say("node.sandbox", "runs no programs, but `quota.warning_command` is one: take one of them out".to_owned());
        }
        if self.node.sandbox != Sandbox::Off && self.auth.source.iter().any(|source| matches!(source, SourceSection::Command(_))) {
            say("node.sandbox", "runs no programs, but a source of users (type = \"command\") is one: take one of them out".to_owned());
        }
        if self.node.local_dir.starts_with(&self.node.root) && self.node.root.is_absolute() {
            say("node.local_dir", "lies in the shared directory, but is for this host alone: choose a local folder".to_owned());
        }
        let relay = self.listen.relay;
        if relay.ip().is_unspecified() && self.node.advertise.is_empty() {
            let text =
                format!("other nodes can't be told to reach {relay}: say where they can, as in [\"mail1.example.org:{}\"]", relay.port());
            say("node.advertise", text);
        }
        for address in &self.node.advertise {
            let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
                let host_is_whole = !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
                host_is_whole && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if !valid {
                say("node.advertise", format!("{address:?} is not host:port, as in \"mail1.example.org:8143\""));
            }
        }
    }

    /// No two listeners can have one address.
    fn check_addresses(&self, say: &mut impl FnMut(&'static str, String)) {
        let listen = &self.listen;
        let tcp = |addresses: &[Address]| -> Vec<SocketAddr> {
            addresses.iter().filter_map(|address| if let Address::Tcp(address) = address { Some(*address) } else { None }).collect()
        };
        // They listen only with a certificate.
        let with_tls = |addresses: &[SocketAddr]| if self.tls.is_on() { addresses.to_vec() } else { Vec::new() };
        let all = [
            ("listen.imap", listen.imap.clone()),
            ("listen.imaps", with_tls(&listen.imaps)),
            ("listen.pop3", listen.pop3.clone()),
            ("listen.pop3s", with_tls(&listen.pop3s)),
            ("listen.lmtp", tcp(&listen.lmtp)),
            ("listen.sent", tcp(&listen.sent)),
            ("listen.relay", vec![listen.relay]),
            ("listen.health", listen.health.clone()),
            ("listen.health_agent", listen.health_agent.clone()),
            ("listen.acme", listen.acme.clone()),
        ];
        let mut taken: Vec<(&'static str, SocketAddr)> = Vec::new();
        for (key, addresses) in all {
            for address in addresses {
                match taken.iter().find(|(_, other)| overlap(address, *other)) {
                    Some((other_key, _)) if *other_key == key => {
                        say(key, format!("{address} is there twice, or covered by another address"))
                    }
                    Some((other_key, other)) => {
                        say(key, format!("{address} is taken by `{other_key}` ({other}): each needs an address or a port of its own"))
                    }
                    None => taken.push((key, address)),
                }
            }
        }
    }

    fn check_proxies(&self, say: &mut impl FnMut(&'static str, String)) {
        let listen = &self.listen;
        if listen.proxy_from.is_empty() && !listen.proxy_on.is_empty() {
            say("listen.proxy_on", "needs `listen.proxy_from`: the networks of the load balancers that connect there".to_owned());
        }
        let doors = [&listen.imap, &listen.imaps, &listen.pop3, &listen.pop3s];
        let is_lmtp = |address| [&listen.lmtp, &listen.sent].iter().any(|addresses| addresses.contains(&Address::Tcp(address)));
        for address in &listen.proxy_on {
            if !is_lmtp(*address) && !doors.iter().any(|addresses| addresses.contains(address)) {
                say(
                    "listen.proxy_on",
                    format!("{address} is not among the addresses of imap, imaps, pop3, pop3s, lmtp or sent: write it as it stands there"),
                );
            }
        }
    }

    fn check_lmtp(&self, say: &mut impl FnMut(&'static str, String)) {
        let lmtp = &self.lmtp;
        if !lmtp.allow_certificates.is_empty() && self.tls.client_ca.is_none() {
            let text = "needs `tls.client_ca` (and `tls.certificate`): the authority whose certificates are believed";
            say("lmtp.allow_certificates", text.to_owned());
        }
        if MailboxName::parse(&lmtp.sent_mailbox).is_err() {
            say("lmtp.sent_mailbox", format!("{:?} can't be a mailbox", lmtp.sent_mailbox));
        }
        if lmtp.parallel_per_user == 0 {
            say("lmtp.parallel_per_user", "must be 1 at least".to_owned());
        }
        if lmtp.suppress_duplicates > SUPPRESS_DUPLICATES_MAX {
            say("lmtp.suppress_duplicates", "must be 7 days at most: what is remembered is in memory".to_owned());
        }
        if lmtp.mode().is_none() {
            say("lmtp.socket_mode", format!("{:?} is not a mode in octal, as in \"0660\"", lmtp.socket_mode));
        }
    }

    fn check_mail(&self, say: &mut impl FnMut(&'static str, String)) {
        for (key, template) in [("mail.maildir", &self.mail.maildir), ("mail.index", &self.mail.index)] {
            check_template(key, template, say);
        }
        for (key, template) in [("mail.control", &self.mail.control), ("mail.inbox", &self.mail.inbox)] {
            if let Some(template) = template {
                check_template(key, template, say);
            }
        }
        if let Err(why) = self.mail.layout.parse::<Layout>() {
            say("mail.layout", why);
        }
        match Separator::parse(&self.mail.separator) {
            None => say("mail.separator", format!("{:?} is neither \"/\" nor \".\"", self.mail.separator)),
            Some(Separator::Dot) if self.mail.layout == Layout::Fs.as_str() => {
                say("mail.separator", "is \".\", which names in the layout fs may have inside a level: only \"/\" works there".to_owned());
            }
            Some(Separator::Dot) if self.mail.sharing => {
                say(
                    "mail.sharing",
                    "needs mail.separator = \"/\": users' names, which are levels of their mailboxes' names, have dots".to_owned(),
                );
            }
            Some(_) => {}
        }
        if let Some(account) = &self.mail.shared_account
            && !UserName::normalise(account).is_ok_and(|user| user.as_str() == account)
        {
            say("mail.shared_account", format!("{account:?} is no user's name as users log in, in small letters"));
        }
        let inbox = self.mail.inbox.as_deref().map(|inbox| inbox.trim_end_matches('/'));
        if inbox.is_some_and(|inbox| ["cur", "new", "tmp"].iter().any(|inner| inbox.ends_with(&format!("/{inner}")))) {
            say("mail.inbox", "is a folder inside a mailbox: give the folder that has cur, new and tmp".to_owned());
        }
        let (maildir, index) = (self.mail.maildir.trim_end_matches('/'), self.mail.index.trim_end_matches('/'));
        if index == maildir || index.starts_with(&format!("{maildir}/")) {
            say("mail.index", "lies in the Maildir, where other programs would take it for a mailbox: put it beside".to_owned());
        }
        for (mailbox, special_use) in &self.mail.auto_create {
            if let Err(error) = MailboxName::parse(mailbox) {
                say("mail.auto_create", format!("{mailbox:?} can't be a mailbox: {error}"));
            }
            if !special_use.is_empty() && SpecialUse::parse(special_use).is_none() {
                let known: Vec<&str> = SpecialUse::ALL.iter().map(|known| known.as_str()).collect();
                let known = known.join(" ");
                say("mail.auto_create", format!("{special_use:?} of {mailbox} is not a special use: write \"\" or one of {known}"));
            }
        }
        for (key, value) in [("mail.write_back_after", self.mail.write_back_after), ("mail.rescan_interval", self.mail.rescan_interval)] {
            if value.is_zero() {
                say(key, "must be longer than zero".to_owned());
            }
        }
    }

    fn check_auth(&self, say: &mut impl FnMut(&'static str, String)) {
        let auth = &self.auth;
        if Scheme::parse(&auth.default_scheme).is_none() {
            say("auth.default_scheme", format!("{:?} is not supported: known are {}", auth.default_scheme, Scheme::NAMES.join(", ")));
        }
        for name in &auth.mechanisms {
            if Mechanism::parse(name).is_none() {
                let known: Vec<&str> = Mechanism::ALL.iter().map(|known| known.name()).collect();
                say("auth.mechanisms", format!("{name:?} is not supported: known are {}", known.join(", ")));
            }
        }
        if auth.anonymous_user.is_none() && auth.mechanisms.iter().any(|name| name.eq_ignore_ascii_case("ANONYMOUS")) {
            say("auth.mechanisms", "ANONYMOUS needs `auth.anonymous_user`: whose mail is everybody to see?".to_owned());
        }
        if let Some(oauth) = &auth.oauth {
            if oauth.issuer.is_empty() || oauth.audience.is_empty() {
                say("auth.oauth", "needs `issuer` and `audience`: a token that was made for others is not for us".to_owned());
            }
            if let Some(name) = oauth.algorithms.iter().find(|name| algorithm(name).is_none()) {
                say(
                    "auth.oauth.algorithms",
                    format!("{name:?} is not supported: known are RS256 … RS512, PS256 … PS512, ES256, ES384, EdDSA"),
                );
            }
        } else if auth.mechanisms.iter().any(|name| ["OAUTHBEARER", "XOAUTH2"].contains(&name.to_ascii_uppercase().as_str())) {
            say("auth.mechanisms", "OAUTHBEARER and XOAUTH2 need [auth.oauth]: whose tokens count?".to_owned());
        }
        for (index, source) in auth.source.iter().enumerate() {
            let number = index + 1;
            match source {
                SourceSection::Sql(sql) if sql.connection.trim().is_empty() => {
                    let example = match sql.driver {
                        SqlDriver::Postgresql => "\"host=db.example.org user=berth dbname=mail\"",
                        SqlDriver::Sqlite => "\"/etc/berth/users.db\"",
                    };
                    say(
                        "auth.source",
                        format!("source {number} (type = \"sql\") lacks `connection`: where the database is, as in {example}"),
                    );
                }
                SourceSection::Sql(sql) if sql.query.trim().is_empty() => {
                    let text =
                        format!("source {number} (type = \"sql\") has an empty `query`: leave it out, or write what gives a user's row");
                    say("auth.source", text);
                }
                SourceSection::Ldap(ldap) if ldap.urls.is_empty() => {
                    let text = format!("source {number} (type = \"ldap\") lacks `urls`: its servers, as in [\"ldaps://ldap.example.org\"]");
                    say("auth.source", text);
                }
                _ => {}
            }
        }
        if auth.cache_users == 0 {
            say("auth.cache_users", "must be 1 at least; `auth.cache_ttl = \"0s\"` remembers nobody".to_owned());
        }
        if auth.failure_delay_max < auth.failure_delay {
            say("auth.failure_delay_max", "must not be shorter than `auth.failure_delay`".to_owned());
        }
        if auth.failure_delay_max >= self.limits.login_timeout {
            say("auth.failure_delay_max", "must be shorter than `limits.login_timeout`, or nobody could log in after it".to_owned());
        }
        if auth.passwd_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            say("auth.passwd_file", "is relative: write the path from /".to_owned());
        }
        let names = &auth.names;
        for domain in &names.local_domains {
            if domain.is_empty() || domain.contains(['@', '/', '\0']) || domain.contains(char::is_whitespace) {
                say("auth.names.local_domains", format!("{domain:?} is not a domain, as in \"example.org\""));
            }
        }
        for (key, separator) in
            [("auth.names.detail_delimiter", &names.detail_delimiter), ("auth.names.master_separator", &names.master_separator)]
        {
            if separator.contains(['@', '/', '\0']) || separator.chars().any(char::is_alphanumeric) {
                say(key, format!("{separator:?} occurs in user names: choose a sign such as \"+\" or \"*\""));
            }
        }
        if !names.detail_delimiter.is_empty() && names.detail_delimiter == names.master_separator {
            say("auth.names.master_separator", "is `auth.names.detail_delimiter` as well: choose another sign".to_owned());
        }
    }

    fn check_limits(&self, say: &mut impl FnMut(&'static str, String)) {
        let limits = &self.limits;
        for (key, value) in [
            ("limits.connections", limits.connections),
            ("limits.connections_per_address", limits.connections_per_address),
            ("limits.connections_before_login", limits.connections_before_login),
            ("limits.sessions_per_user", limits.sessions_per_user),
            ("limits.sessions_per_user_and_address", limits.sessions_per_user_and_address),
            ("limits.nesting", limits.nesting),
            ("limits.mailboxes", limits.mailboxes),
            ("limits.parallel_moves", limits.parallel_moves),
            ("limits.bad_commands", limits.bad_commands),
        ] {
            if value == 0 {
                say(key, "must be 1 at least".to_owned());
            }
        }
        if limits.recipients < RECIPIENTS_MIN {
            say("limits.recipients", format!("must be {RECIPIENTS_MIN} at least (RFC 5321 §4.5.3.1.8)"));
        }
        for (key, value) in [
            ("limits.message_bytes", limits.message_bytes),
            ("limits.line_bytes", limits.line_bytes),
            ("limits.literal_bytes", limits.literal_bytes),
        ] {
            if value.as_u64() < LINE_BYTES_MIN {
                say(key, format!("must be {LINE_BYTES_MIN} bytes at least"));
            }
        }
        if limits.command_bytes < limits.line_bytes.max(limits.literal_bytes) {
            say("limits.command_bytes", "must not be less than `limits.line_bytes` and `limits.literal_bytes`".to_owned());
        }
        for (key, value) in [
            ("limits.login_timeout", limits.login_timeout),
            ("limits.write_timeout", limits.write_timeout),
            ("limits.route_wait", limits.route_wait),
        ] {
            if value.is_zero() {
                say(key, "must be longer than zero".to_owned());
            }
        }
        if limits.idle_timeout < IDLE_TIMEOUT_MIN {
            say("limits.idle_timeout", "must be 30m at least (RFC 9051 §5.4)".to_owned());
        }
    }
}

/// The part of a level that is none. The filter's own parser takes a word that it does not know for a module, and logs nothing else.
fn wrong_level(level: &str) -> Option<&str> {
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_ascii_lowercase().as_str());
    let is_right = |part: &str| match part.rsplit_once('=') {
        Some((module, level)) => !module.trim().is_empty() && is_level(level.trim()),
        None => is_level(part),
    };
    let wrong = level.split(',').map(str::trim).find(|part| !is_right(part));
    wrong.or_else(|| tracing_subscriber::EnvFilter::builder().parse(level).is_err().then_some(level))
}

/// Whether one socket takes what another listens for. Port 0 is another one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` takes IPv4 as well.
    let covers = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    let same = one.ip() == other.ip() || covers(one.ip(), other.ip()) || covers(other.ip(), one.ip());
    same && one.port() == other.port() && one.port() != 0
}

/// A template must give every user a folder of their own.
fn check_template(key: &'static str, template: &str, say: &mut impl FnMut(&'static str, String)) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((variable, after)) = after.split_once('}').filter(|_| !before.contains('}')) else {
            return say(key, format!("{template:?} has a brace without its partner"));
        };
        if !["user", "local", "domain", "home"].contains(&variable) {
            return say(key, format!("{{{variable}}} is unknown: use {{user}}, or {{domain}} and {{local}}, or {{home}}"));
        }
        rest = after;
    }
    if rest.contains('}') {
        return say(key, format!("{template:?} has a brace without its partner"));
    }
    let own = template.contains("{user}") || template.contains("{home}") || (template.contains("{local}") && template.contains("{domain}"));
    if !own {
        let text = "must contain {user}, or {domain} and {local}: two users must never share a folder (to leave a domain out of paths, name it in `auth.names.local_domains`)";
        say(key, text.to_owned());
    }
    if template.split('/').any(|part| part == ".." || part == ".") || template.contains('\0') {
        say(key, "must not contain `.` or `..` as a folder".to_owned());
    }
}
