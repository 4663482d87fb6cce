//! A TLS client that takes any certificate: tests speak to self-signed servers on loopback.

use std::{net::TcpStream, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// How long a handshake on loopback may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Settings of a client that checks signatures but trusts every certificate.
pub fn trusting_client() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// An authority that signs clients' certificates.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { pem, issuer: Issuer::new(params, key) })
    }

    /// Its certificate, for servers.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and key, as PEM, for a server of this name.
    pub fn server(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Settings of a client with a certificate for `name`, which trusts every server.
    pub fn client(&self, name: &str) -> Result<Arc<ClientConfig>> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow!(error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
            .with_client_auth_cert(vec![certificate.der().clone()], private)?;
        Ok(Arc::new(config))
    }
}

/// The certificate (DER) that a server shows.
pub fn certificate(address: &str) -> Result<Vec<u8>> {
    certificate_for(address, "localhost", &[])
}

/// The same for a client that asks for `name` and says that it speaks `protocols` (ALPN).
pub fn certificate_for(address: &str, name: &str, protocols: &[&str]) -> Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let mut client = ClientConfig::clone(&*trusting_client()?);
    client.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let mut connection = ClientConnection::new(Arc::new(client), ServerName::try_from(name.to_owned())?)?;
    connection.complete_io(&mut tcp)?;
    let chain = connection.peer_certificates().context("the server showed no certificate")?;
    Ok(chain.first().context("the server's chain is empty")?.to_vec())
}

#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
