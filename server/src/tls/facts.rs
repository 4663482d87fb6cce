//! What a handshake agreed: for logs, for channel bindings, and whom the client's certificate names.

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, signature_algorithm::SignatureAlgorithm};

use crate::auth::sasl::scram::ChannelBindings;

/// What a handshake agreed.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// For logs: `TLSv1.3 with TLS13_AES_256_GCM_SHA384`.
    pub text: String,
    /// What SCRAM-…-PLUS binds.
    pub bindings: ChannelBindings,
    /// Whom the client's certificate names, where one was shown and verified.
    pub certificate_name: Option<String>,
    /// Every name in it: e-mail addresses, host names, the common name.
    pub certificate_names: Vec<String>,
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate hashed as its signature was, with SHA-256 in place of MD5 and SHA-1. `None` where
/// the signature has no single hash (Ed25519).
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    match SignatureAlgorithm::try_from(&parsed.signature_algorithm).ok()? {
        SignatureAlgorithm::RSA | SignatureAlgorithm::ECDSA | SignatureAlgorithm::DSA | SignatureAlgorithm::RSASSA_PSS(_) => {}
        SignatureAlgorithm::RSAAES_OAEP(_) | SignatureAlgorithm::ED25519 => return None,
    }
    let oid = parsed.signature_algorithm.algorithm.to_id_string();
    Some(match oid.as_str() {
        // sha384WithRSAEncryption, ecdsa-with-SHA384
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        // sha512WithRSAEncryption, ecdsa-with-SHA512
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        // RSASSA-PSS has its hash in parameters; clients differ there, so it is not offered.
        "1.2.840.113549.1.1.10" => return None,
        _ => Sha256::digest(certificate).to_vec(),
    })
}

/// Whom a client's certificate names: its first e-mail address, or else its common name.
pub(super) fn client_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let addresses = parsed.subject_alternative_name().ok().flatten();
    let address = addresses.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::RFC822Name(address) => Some((*address).to_owned()),
        _ => None,
    });
    let common = || parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    address.or_else(common).filter(|name| !name.is_empty() && !name.contains('\0'))
}

/// Every name in a client's certificate.
pub(super) fn client_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let named = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::RFC822Name(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    named.chain(common).filter(|name| !name.is_empty() && !name.contains('\0')).collect()
}
