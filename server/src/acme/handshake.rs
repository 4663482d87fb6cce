//! Proves in a TLS handshake that a name is ours (TLS-ALPN-01, RFC 8737), at every door that speaks TLS: port 443 may lead to any of them.
//!
//! Anybody may ask: a certificate is made only for names of `tls.acme` with an order under way, whose answers are listed once a second at most.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::ClientHello,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};

use super::Answers;
use crate::config::{AcmeSection, Challenge};

/// What the authority calls the protocol (RFC 8737 §6.2): nothing else may be named beside it.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// The names that can be proved.
#[derive(Debug)]
pub struct Proofs {
    names: Vec<String>,
    answers: Answers,
}

impl Proofs {
    /// `None`: names are proved in another way.
    pub fn of(section: &AcmeSection, root: &Path) -> Option<Arc<Proofs>> {
        let wanted = section.challenge == Challenge::TlsAlpn01;
        wanted.then(|| Arc::new(Proofs { names: section.names.clone(), answers: Answers::new(root.to_owned()) }))
    }

    /// The name that an authority wants to see proved.
    pub fn asked(&self, hello: &ClientHello<'_>) -> Option<String> {
        let mut protocols = hello.alpn()?;
        let is_alone = protocols.next() == Some(PROTOCOL) && protocols.next().is_none();
        let name = hello.server_name().filter(|_| is_alone)?.to_ascii_lowercase();
        self.names.contains(&name).then_some(name)
    }

    /// What to go on with in the handshake; an error where no order is under way.
    pub async fn settings(&self, name: &str, provider: Arc<CryptoProvider>) -> anyhow::Result<ServerConfig> {
        let answer = self.answers.answer_of(name).await?.context("no order is under way")?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&Sha256::digest(answer))];
        let certificate = params.self_signed(&key)?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        // Not `with_single_cert`: it refuses the extension that makes the proof, which is critical (RFC 8737 §3).
        let certified = CertifiedKey::new(vec![certificate], provider.key_provider.load_private_key(key)?);
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut settings = builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        settings.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::answers::of_name;

    #[tokio::test]
    async fn a_proof_is_made_for_names_with_an_order_under_way() {
        let root = tempfile::tempdir().unwrap();
        let challenges = root.path().join("acme/challenges");
        std::fs::create_dir_all(&challenges).unwrap();
        std::fs::write(challenges.join(format!("{}token.thumbprint", of_name("mail.example.org"))), "").unwrap();
        let section: AcmeSection =
            toml::from_str("names = [\"mail.example.org\", \"imap.example.org\"]\nchallenge = \"tls-alpn-01\"").unwrap();
        let proofs = Proofs::of(&section, root.path()).unwrap();
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made = proofs.settings("mail.example.org", provider()).await.unwrap();
        assert_eq!(made.alpn_protocols, [b"acme-tls/1"]);
        let error = proofs.settings("imap.example.org", provider()).await.err().unwrap();
        assert_eq!(error.to_string(), "no order is under way");
        assert!(Proofs::of(&AcmeSection { challenge: Challenge::Http01, ..section }, root.path()).is_none());
    }
}
