//! `[tls]`: certificates for clients, and what is asked of those.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::AcmeSection;

/// Without a certificate (or `acme`), no TLS listener and no STARTTLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// PEM chain.
    pub certificate: Option<PathBuf>,
    /// PEM key.
    pub key: Option<PathBuf>,
    /// Who signs clients' certificates, for EXTERNAL; none: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Oldest version that is spoken.
    pub min_version: MinVersion,
    /// How long before its end a certificate is warned of.
    #[serde(with = "humantime_serde")]
    pub warn_before: Duration,
    /// Further certificates, for clients that ask for the names in them.
    pub sni: Vec<CertificateFiles>,
    /// A certificate that the nodes get and renew themselves.
    pub acme: Option<AcmeSection>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// Oldest version of TLS that is spoken; what is older than 1.2 is not there at all (RFC 8996).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "numbers of versions")]
pub enum MinVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

impl Default for TlsSection {
    fn default() -> Self {
        TlsSection {
            certificate: None,
            key: None,
            client_ca: None,
            min_version: MinVersion::default(),
            warn_before: Duration::from_secs(14 * 24 * 60 * 60),
            sni: Vec::new(),
            acme: None,
        }
    }
}

impl TlsSection {
    /// The certificate for clients that ask for no name, unless that is the one of `acme`.
    pub fn first(&self) -> Option<CertificateFiles> {
        self.certificate.clone().zip(self.key.clone()).map(|(certificate, key)| CertificateFiles { certificate, key })
    }

    /// Every certificate that is named.
    pub fn certificate_files(&self) -> Vec<CertificateFiles> {
        self.first().into_iter().chain(self.sni.iter().cloned()).collect()
    }

    /// Whether there is, or will be, a certificate for clients.
    pub fn is_on(&self) -> bool {
        self.certificate.is_some() || self.acme.is_some()
    }

    /// What serde can't say.
    pub(super) fn check(&self, say: &mut impl FnMut(&'static str, String)) {
        match (&self.certificate, &self.key) {
            (Some(_), None) => say("tls.certificate", "has no `tls.key` beside it: name the file with the private key".to_owned()),
            (None, Some(_)) => say("tls.key", "has no `tls.certificate` beside it: name the file with the certificate chain".to_owned()),
            (None, None) if !self.sni.is_empty() && self.acme.is_none() => {
                let text = "needs `tls.certificate` and `tls.key` (or [tls.acme]): what clients are shown that ask for none of these names";
                say("tls.sni", text.to_owned());
            }
            _ => {}
        }
        if let Some(acme) = &self.acme {
            acme.check(say);
        }
    }
}
