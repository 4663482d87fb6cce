//! `[tls.acme]`: a certificate that the nodes get and renew themselves (RFC 8555).

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What public authorities put into one certificate at most.
const NAMES_MAX: usize = 100;
/// RFC 1035 §2.3.4: a whole name, and one label of it.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// How names are proved to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Challenge {
    /// By an answer over HTTP, at port 80 (RFC 8555 §8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate of its own in a TLS handshake, at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// One certificate for all names; every node that has the same names shares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeSection {
    /// Host names of the certificate.
    pub names: Vec<String>,
    /// Whether the operator agrees to the authority's terms of service.
    #[serde(default)]
    pub agree_to_terms: bool,
    /// The authority: the address of its directory.
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// How names are proved.
    #[serde(default)]
    pub challenge: Challenge,
    /// What the authority calls the account that the operator has with it (external account binding, RFC 8555 §7.3.4).
    #[serde(default)]
    pub account_id: Option<String>,
    /// A file with the key of that account, as the authority gave it: in base64url.
    #[serde(default)]
    pub account_key_file: Option<PathBuf>,
    /// E-mail address that the authority is told when the account is made.
    #[serde(default)]
    pub contact: Option<String>,
    /// Who signs the authority's own web server, where the host does not know them.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}

impl AcmeSection {
    /// What serde can't say.
    pub(super) fn check(&self, say: &mut impl FnMut(&'static str, String)) {
        if self.names.is_empty() {
            say("tls.acme.names", "names nothing: write the host names that clients connect to, as in [\"mail.example.org\"]".to_owned());
        }
        if self.names.len() > NAMES_MAX {
            say("tls.acme.names", format!("has {} names, but authorities put {NAMES_MAX} into one certificate at most", self.names.len()));
        }
        for name in &self.names {
            if let Err(why) = check_name(name) {
                say("tls.acme.names", format!("{name:?} {why}"));
            }
        }
        if !self.agree_to_terms {
            say("tls.acme.agree_to_terms", format!("must be true: read the terms of service that {} names, then say so", self.directory));
        }
        if !self.directory.starts_with("https://") || self.directory.contains(char::is_whitespace) {
            say("tls.acme.directory", format!("{:?} is not an address that begins with https:// (RFC 8555 §6.1)", self.directory));
        }
        if let Some(contact) = &self.contact
            && (!contact.contains('@') || contact.contains(':') || contact.contains(char::is_whitespace))
        {
            say("tls.acme.contact", format!("{contact:?} is not an e-mail address, as in \"postmaster@example.org\""));
        }
        if self.account_id.is_some() != self.account_key_file.is_some() {
            say("tls.acme.account_id", "and `account_key_file` go together: the authority gives both".to_owned());
        }
        if self.account_key_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            say("tls.acme.account_key_file", "is relative: write the path from /".to_owned());
        }
        if self.ca_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            say("tls.acme.ca_file", "is relative: write the path from /".to_owned());
        }
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.contains('*') {
        return Err("is a wildcard, which takes a proof by DNS: name each host, or bring such a certificate in [tls] or [[tls.sni]]");
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err("is an address: name the host");
    }
    let label_is_whole = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inner && !label.is_empty() && label.len() <= LABEL_BYTES_MAX && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > NAME_BYTES_MAX || !name.contains('.') || !name.split('.').all(label_is_whole) {
        return Err("is not a host name: write it whole and in lower case, as in \"mail.example.org\" (other scripts in their xn-- form)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(section: &AcmeSection) -> Vec<String> {
        let mut found = Vec::new();
        section.check(&mut |key, text| found.push(format!("{key}: {text}")));
        found
    }

    #[test]
    fn what_no_authority_would_take_is_refused_with_what_to_write() {
        let good = AcmeSection {
            names: vec!["mail.example.org".to_owned(), "xn--bcher-kva.example".to_owned()],
            agree_to_terms: true,
            directory: lets_encrypt(),
            challenge: Challenge::default(),
            account_id: None,
            account_key_file: None,
            contact: Some("postmaster@example.org".to_owned()),
            ca_file: None,
        };
        assert_eq!(problems(&good), Vec::<String>::new());
        for name in [
            "*.example.org",
            "192.0.2.1",
            "localhost",
            "Mail.example.org",
            "mail..example.org",
            "-a.example.org",
            "b\u{fc}cher.example",
            "",
        ] {
            let said = problems(&AcmeSection { names: vec![name.to_owned()], ..good.clone() });
            assert!(said.len() == 1 && said[0].starts_with(&format!("tls.acme.names: {name:?} is ")), "{name}: {said:?}");
        }
        for (section, key) in [
            (AcmeSection { names: Vec::new(), ..good.clone() }, "tls.acme.names"),
            (AcmeSection { names: vec!["a.example.org".to_owned(); 101], ..good.clone() }, "tls.acme.names"),
            (AcmeSection { agree_to_terms: false, ..good.clone() }, "tls.acme.agree_to_terms"),
            (AcmeSection { directory: "http://acme.example.org/".to_owned(), ..good.clone() }, "tls.acme.directory"),
            (AcmeSection { contact: Some("mailto:a@example.org".to_owned()), ..good.clone() }, "tls.acme.contact"),
            (AcmeSection { ca_file: Some("ca.pem".into()), ..good.clone() }, "tls.acme.ca_file"),
            (AcmeSection { account_id: Some("id".to_owned()), ..good.clone() }, "tls.acme.account_id"),
            (AcmeSection { account_key_file: Some("/key".into()), ..good.clone() }, "tls.acme.account_id"),
            (
                AcmeSection { account_id: Some("id".to_owned()), account_key_file: Some("key".into()), ..good.clone() },
                "tls.acme.account_key_file",
            ),
        ] {
            let said = problems(&section);
            assert!(said.len() == 1 && said[0].starts_with(key), "{key}: {said:?}");
        }
    }
}
