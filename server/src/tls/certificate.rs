//! One certificate with its key, as files hold it and as a handshake needs it.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, bail};
use rustix::fs::OFlags;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::config::CertificateFiles;

/// Longest file that is read: bundles of authorities have some hundred KiB.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// One day.
const DAY_S: i64 = 24 * 60 * 60;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Host names (`*.example.org` stands for one label) and addresses that it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Seconds since 1970: valid from.
    pub not_before: i64,
    /// Seconds since 1970: the last moment at which it is valid.
    pub not_after: i64,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

impl Facts {
    /// Reads them from DER.
    pub fn read(certificate: &CertificateDer<'_>) -> anyhow::Result<Facts> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| anyhow!("not a certificate (X.509): {error}"))?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let mut names: Vec<String> =
            alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| printed(name)).collect();
        if names.is_empty() {
            // No client goes by it any more (RFC 9525 §1), but it says which certificate this is.
            names.extend(parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(plain));
        }
        Ok(Facts {
            names,
            issuer: plain(&parsed.issuer().to_string()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Whole days until its end, counted from `now`; negative once it is over.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - seconds(now)).div_euclid(DAY_S)
    }

    /// What there is to warn of: not valid yet, over, or over within `warn_before`.
    pub fn warning(&self, now: SystemTime, warn_before: Duration) -> Option<String> {
        let left = self.not_after - seconds(now);
        if seconds(now) < self.not_before {
            Some("is not valid yet: is this host's clock right?".to_owned())
        } else if left < 0 {
            Some("is over: clients refuse it; put a new one in its place".to_owned())
        } else if left < i64::try_from(warn_before.as_secs()).unwrap_or(i64::MAX) {
            let (days, plural) = (left / DAY_S, if left / DAY_S == 1 { "" } else { "s" });
            Some(format!("ends in {days} day{plural}: put a new one in its place, it is read by itself"))
        } else {
            None
        }
    }
}

/// Since 1970.
pub fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn printed(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(plain(name).to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Without what would disturb a terminal or a log.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// A certificate that can be served.
#[derive(Debug)]
pub struct Certificate {
    /// Where it came from.
    pub files: CertificateFiles,
    /// Whether the nodes got it themselves.
    pub acme: bool,
    /// What it says.
    pub facts: Facts,
    pub(super) certified: Arc<CertifiedKey>,
}

impl Certificate {
    /// What there is to warn of, and what to do.
    pub fn warning(&self, now: SystemTime, warn_before: Duration) -> Option<String> {
        if !self.acme {
            return self.facts.warning(now, warn_before);
        }
        // Half the time between the first try to renew it and its end: shorter for certificates of a few days.
        let life = self.facts.not_after.saturating_sub(self.facts.not_before);
        let late = Duration::from_secs(u64::try_from(life / 6).unwrap_or(0));
        self.facts
            .warning(now, warn_before.min(late))
            .map(|_| format!("by ACME is not renewed and has {} days left: the log of the nodes says why", self.facts.days_left(now)))
    }

    /// Reads both files; the error names the one that is wrong.
    pub fn load(files: &CertificateFiles, acme: bool, provider: &CryptoProvider) -> anyhow::Result<Certificate> {
        let CertificateFiles { certificate, key } = files;
        let unusable = || format!("can't use the certificate {}", certificate.display());
        let chain = read_chain(certificate).with_context(unusable)?;
        let facts = match chain.first() {
            Some(own) => Facts::read(own).with_context(unusable)?,
            None => bail!("{}: it is empty", unusable()),
        };
        let unusable_key = || format!("can't use the key {}", key.display());
        let private = read_key(&read(key).with_context(unusable_key)?).with_context(unusable_key)?;
        match CertifiedKey::from_der(chain, private, provider) {
            Ok(certified) => Ok(Certificate { files: files.clone(), acme, facts, certified: Arc::new(certified) }),
            Err(rustls::Error::InconsistentKeys(_)) => bail!(
                "the key {} does not belong to the first certificate in {}: name the matching files, the server's own certificate first",
                key.display(),
                certificate.display()
            ),
            Err(error) => Err(anyhow!(error).context(format!("{} with the key {}", unusable(), key.display()))),
        }
    }
}

/// Whether chain and key are in it and belong together.
pub fn check_pem(pem: &[u8]) -> anyhow::Result<()> {
    let (chain, key) = (parse_chain(pem)?, read_key(pem)?);
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())?;
    Ok(())
}

/// Without a delegation: other nodes read, replace and remove files on the shared directory as well.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    affinity::open_undelegated(file, OFlags::RDONLY)?.take(PEM_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn read_key(pem: &[u8]) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => anyhow!("no unencrypted private key in it (PEM, as in -----BEGIN PRIVATE KEY-----)"),
        other => anyhow!(other),
    })
}

/// The certificates of a PEM file.
pub(super) fn read_chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    parse_chain(&read(file)?)
}

fn parse_chain(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        bail!("no certificate in it (PEM, as in -----BEGIN CERTIFICATE-----)");
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_before_its_end_at_its_end_and_before_its_begin() {
        let facts = Facts {
            names: Vec::new(),
            issuer: String::new(),
            not_before: 1_000 * DAY_S,
            not_after: 1_090 * DAY_S,
            fingerprint: String::new(),
        };
        let at = |day: u64| UNIX_EPOCH + Duration::from_secs(day * 24 * 60 * 60);
        let warning = |day| facts.warning(at(day), Duration::from_secs(14 * 24 * 60 * 60));
        assert_eq!(warning(1_000), None);
        assert_eq!(warning(1_076), None);
        assert_eq!(warning(1_077).unwrap().split(':').next(), Some("ends in 13 days"));
        assert_eq!(warning(1_089).unwrap().split(':').next(), Some("ends in 1 day"));
        assert_eq!(warning(1_090).unwrap().split(':').next(), Some("ends in 0 days"));
        assert!(warning(1_091).unwrap().starts_with("is over"));
        assert!(warning(999).unwrap().starts_with("is not valid yet"));
        assert_eq!([facts.days_left(at(1_089)), facts.days_left(at(1_091))], [1, -1]);
    }

    #[test]
    fn names_issuer_and_times_are_read() {
        let mut params =
            rcgen::CertificateParams::new(["Mail.Example.org".to_owned(), "*.example.org".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "no\nname");
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2026, 4, 2);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let facts = Facts::read(made.der()).unwrap();
        assert_eq!(facts.names, ["mail.example.org", "*.example.org", "192.0.2.7"]);
        assert_eq!(facts.issuer, "CN=no?name");
        assert_eq!(facts.not_after - facts.not_before, 90 * DAY_S);
        assert_eq!(facts.fingerprint.len(), 64);
    }
}
