//! TLS towards servers that we ask: databases, directories, identity providers.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Trusts the authorities in `ca_file`, or those of this host.
pub fn client(ca_file: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
            let certificates = read().with_context(|| format!("can't read the certificates {} (ca_file)", file.display()))?;
            for certificate in certificates {
                roots.add(certificate).with_context(|| format!("a certificate in {} can't be trusted (ca_file)", file.display()))?;
            }
            if roots.is_empty() {
                bail!("no certificate in {} (ca_file; PEM, as in -----BEGIN CERTIFICATE-----)", file.display());
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // Some of a host's authorities may be in forms that nobody reads.
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                tracing::warn!("this host has no certificate authorities: name `ca_file` where a source needs TLS");
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS can't be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A secret from a file: its first line.
pub fn secret(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read the secret {}", file.display()))?;
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}
