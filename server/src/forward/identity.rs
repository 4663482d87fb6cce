//! The relay's TLS: each incarnation makes a key pair and publishes its pin under `info/`; who can write the shared directory is who may be a node.
//!
//! Certificates carry no names that mean anything: a dialler accepts exactly the pin that the holder published, a listener accepts a pin only if
//! a live node published it (`super::link` checks after the handshake, which has proved possession of the key).

use std::{io, sync::Arc};

use affinity::{NodeInfo, Publish};
use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate (DER), hexadecimal.
pub type Pin = String;

/// What this node publishes, and the identity that belongs to it.
#[derive(Debug)]
pub struct Published {
    info: NodeInfo,
    current: ArcSwap<Identity>,
}

impl Published {
    /// `info` with a pin of its own for each incarnation.
    pub fn new(info: NodeInfo) -> anyhow::Result<Published> {
        Ok(Published { info, current: ArcSwap::from_pointee(Identity::generate()?) })
    }
    /// The identity of the present incarnation.
    pub fn identity(&self) -> Arc<Identity> {
        self.current.load_full()
    }
}

impl Publish for Published {
    fn info(&self) -> io::Result<NodeInfo> {
        let identity = Identity::generate().map_err(io::Error::other)?;
        let info = NodeInfo { certificate_pin: identity.pin().clone(), ..self.info.clone() };
        self.current.store(Arc::new(identity));
        Ok(info)
    }
}

/// The relay certificate of one incarnation.
#[derive(Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    pin: Pin,
    key: PrivatePkcs8KeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// A new key pair and its certificate.
    pub fn generate() -> anyhow::Result<Identity> {
        let certified = rcgen::generate_simple_self_signed(vec!["berth.invalid".to_owned()])?;
        Ok(Identity {
            pin: pin(certified.cert.der()),
            certificate: certified.cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()),
            provider: Arc::new(provider()),
        })
    }

    /// What is published.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// For the relay listener: a client certificate is mandatory.
    pub fn server_config(&self) -> anyhow::Result<ServerConfig> {
        Ok(ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(AnyKey { provider: self.provider.clone() }))
            .with_single_cert(vec![self.certificate.clone()], self.key())?)
    }

    /// For dialling the node that published `expected`.
    pub fn client_config(&self, expected: Pin) -> anyhow::Result<ClientConfig> {
        Ok(ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { expected, provider: self.provider.clone() }))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())?)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// AES-128 comes first: each byte of a relayed session is encrypted once more, and between hosts of one site nothing is gained by the longer key.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// The pin of a certificate.
pub fn pin(certificate: &CertificateDer<'_>) -> Pin {
    Sha256::digest(certificate.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The dialler's side: exactly one certificate will do.
#[derive(Debug)]
struct Pinned {
    expected: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = pin(certificate);
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General(format!(
                "the relay there has certificate {found}, not {} as published: it is another start of that node, or not a node",
                self.expected
            )))
        }
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("relay links are TLS 1.3".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The listener's side: whoever proves a key goes on to the pin check.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("relay links are TLS 1.3".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
