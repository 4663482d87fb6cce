//! Client TLS: certificates from files, reloaded without dropping a session.
//!
//! Invariants, each with the test that guards it:
//! - a certificate that does not fit its key is never served (`a_key_of_another_certificate_is_refused_by_name`)
//! - a reload changes new handshakes only, a failed one changes nothing (`a_reload_is_seen_by_the_next_handshake`)
//!
//! TLS 1.2 and 1.3 with rustls' defaults; no ALPN, since the port says the protocol.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, signature_algorithm::SignatureAlgorithm};

use crate::{auth::sasl::scram::ChannelBindings, connection::Stream};

/// What a handshake agreed.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// For logs: `TLSv1.3 with TLS13_AES_256_GCM_SHA384`.
    pub text: String,
    /// What SCRAM-…-PLUS binds.
    pub bindings: ChannelBindings,
    /// Whom the client's certificate names, where one was shown and verified.
    pub certificate_name: Option<String>,
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate hashed as its signature was, with SHA-256 in place of MD5 and SHA-1. `None` where
/// the signature has no single hash (Ed25519).
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
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
fn client_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let addresses = parsed.subject_alternative_name().ok().flatten();
    let address = addresses.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::RFC822Name(address) => Some((*address).to_owned()),
        _ => None,
    });
    let common = || parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    address.or_else(common).filter(|name| !name.is_empty() && !name.contains('\0'))
}

/// Accepts TLS with the present certificate. Cheap to clone; a reload is seen by every clone.
#[derive(Clone)]
pub struct TlsAcceptor {
    acceptor: tokio_rustls::TlsAcceptor,
    present: Arc<PresentCertificate>,
}

/// The files and what they held when they were read last.
struct PresentCertificate {
    certificate: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for PresentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.load_full())
    }
}
impl fmt::Debug for PresentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    /// Loads a PEM chain and key; errors name the file.
    pub fn load(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
        TlsAcceptor::load_for(certificate, key, None)
    }

    /// The same, where clients may show a certificate that an authority in `client_ca` signed.
    pub fn load_for(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> anyhow::Result<TlsAcceptor> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let loaded = ArcSwap::from(load(certificate, key, &provider)?);
        let present = Arc::new(PresentCertificate { certificate: certificate.to_owned(), key: key.to_owned(), loaded });
        let clients = match client_ca {
            Some(file) => {
                let wrong = || format!("can't use the authorities {} (tls.client_ca)", file.display());
                let mut roots = RootCertStore::empty();
                for authority in read_chain(file).with_context(wrong)? {
                    roots.add(authority).with_context(wrong)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                verifier.allow_unauthenticated().build().with_context(wrong)?
            }
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS can't be set up")?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&present) as Arc<dyn ResolvesServerCert>);
        Ok(TlsAcceptor { acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(config)), present })
    }

    /// Loads the files again; on error the old certificate stays.
    pub fn reload(&self) -> anyhow::Result<()> {
        let present = &self.present;
        present.loaded.store(load(&present.certificate, &present.key, &aws_lc_rs::default_provider())?);
        Ok(())
    }

    /// The handshake; gives the stream and what was agreed.
    pub async fn accept(&self, stream: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, TlsFacts)> {
        let stream = self.acceptor.accept(stream).await?;
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("an unnamed cipher suite");
        let facts = TlsFacts {
            text: format!("{version} with {suite}"),
            bindings: ChannelBindings {
                exporter: (session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
                    .then(|| session.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok())
                    .flatten(),
                end_point: self.present.loaded.load().end_entity_cert().ok().and_then(|own| end_point(own)),
            },
            certificate_name: session.peer_certificates().and_then(|chain| client_name(chain.first()?)),
        };
        Ok((Box::new(stream), facts))
    }
}

fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = read_chain(certificate).with_context(|| format!("can't use the certificate {}", certificate.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| match error {
            pem::Error::NoItemsFound => anyhow!("no unencrypted private key in it (PEM, as in -----BEGIN PRIVATE KEY-----)"),
            other => anyhow!(other),
        })
        .with_context(|| format!("can't use the key {}", key.display()))?;
    match CertifiedKey::from_der(chain, private, provider) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => bail!(
            "the key {} does not belong to the first certificate in {}: name the matching files, the server's own certificate first",
            key.display(),
            certificate.display()
        ),
        Err(error) => {
            Err(anyhow!(error).context(format!("can't use the certificate {} with the key {}", certificate.display(), key.display())))
        }
    }
}

fn read_chain(certificate: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        bail!("no certificate in it (PEM, as in -----BEGIN CERTIFICATE-----)");
    }
    Ok(chain)
}

/// Installs the one cryptography provider of the process. Call first in `main`.
pub fn install_provider() {
    // `Err` says that it is installed already, which is as good.
    drop(aws_lc_rs::default_provider().install_default());
}

/// Makes a self-signed certificate for `names` (demo): PEM chain and PEM key.
pub fn self_signed(names: &[String]) -> anyhow::Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(names.to_vec()).context("can't make a self-signed certificate")?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A folder with a certificate and key for `name`.
    fn files(name: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        write(name, &certificate, &key);
        (folder, certificate, key)
    }
    fn write(name: &str, certificate: &Path, key: &Path) {
        let (chain, private) = self_signed(&[name.to_owned()]).unwrap();
        fs::write(certificate, chain).unwrap();
        fs::write(key, private).unwrap();
    }

    /// A handshake of a client that trusts exactly the certificate in `trusted`; gives what the server knows of it.
    async fn handshake(acceptor: &TlsAcceptor, trusted: &Path, version: &'static rustls::SupportedProtocolVersion) -> io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (client_end, server_end) = tokio::io::duplex(1024);
        let client = async {
            let mut stream = connector.connect(ServerName::try_from("mail.example.org").unwrap(), client_end).await?;
            stream.write_all(b"ping").await?;
            stream.read_exact(&mut [0; 4]).await.map(drop)
        };
        let server = async {
            let (mut stream, facts) = acceptor.accept(Box::new(server_end)).await?;
            stream.read_exact(&mut [0; 4]).await?;
            stream.write_all(b"pong").await?;
            stream.flush().await?;
            io::Result::Ok(facts.text)
        };
        let (client, server) = tokio::join!(client, server);
        client.and(server)
    }

    #[tokio::test]
    async fn a_handshake_gives_version_and_cipher_suite() {
        let (_folder, certificate, key) = files("mail.example.org");
        let acceptor = TlsAcceptor::load(&certificate, &key).unwrap();
        let facts = handshake(&acceptor, &certificate, &rustls::version::TLS13).await.unwrap();
        assert!(facts.starts_with("TLSv1.3 with TLS13_AES_"), "{facts}");
        let facts = handshake(&acceptor, &certificate, &rustls::version::TLS12).await.unwrap();
        assert!(facts.starts_with("TLSv1.2 with TLS_ECDHE_"), "{facts}");
    }

    #[tokio::test]
    async fn a_reload_is_seen_by_the_next_handshake() {
        let (_folder, certificate, key) = files("mail.example.org");
        let acceptor = TlsAcceptor::load(&certificate, &key).unwrap();
        let clone = acceptor.clone();
        write("mail.example.org", &certificate, &key);
        assert!(handshake(&clone, &certificate, &rustls::version::TLS13).await.is_err(), "the old certificate is still served");
        acceptor.reload().unwrap();
        handshake(&clone, &certificate, &rustls::version::TLS13).await.unwrap();

        fs::write(&key, "nonsense").unwrap();
        assert!(acceptor.reload().is_err());
        handshake(&clone, &certificate, &rustls::version::TLS13).await.unwrap();
    }

    #[tokio::test]
    async fn a_clients_certificate_names_the_user() {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
        let (folder, certificate, key) = files("mail.example.org");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority_file = folder.path().join("authority.pem");
        fs::write(&authority_file, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let acceptor = TlsAcceptor::load_for(&certificate, &key, Some(&authority_file)).unwrap();
        for (address, common_name, expected) in [(Some("ada@example.org"), "Ada", "ada@example.org"), (None, "bob", "bob")] {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.subject_alt_names = address.map(|address| SanType::Rfc822Name(address.try_into().unwrap())).into_iter().collect();
            let client_key = KeyPair::generate().unwrap();
            let shown = params.signed_by(&client_key, &issuer).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(read_chain(&certificate).unwrap().remove(0)).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![shown.der().clone()], PrivateKeyDer::try_from(client_key.serialize_der()).unwrap())
                .unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let (client_end, server_end) = tokio::io::duplex(4096);
            let client = connector.connect(ServerName::try_from("mail.example.org").unwrap(), client_end);
            let (client, server) = tokio::join!(client, acceptor.accept(Box::new(server_end)));
            let (_client, (_server, facts)) = (client.unwrap(), server.unwrap());
            assert_eq!(facts.certificate_name.as_deref(), Some(expected));
            assert!(facts.bindings.exporter.is_some() && facts.bindings.end_point.is_some());
        }
        let facts = handshake(&acceptor, &certificate, &rustls::version::TLS12).await;
        assert!(facts.is_ok(), "a client need not show one");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let (_one, certificate, _) = files("mail.example.org");
        let (_other, _, key) = files("mail.example.org");
        let error = TlsAcceptor::load(&certificate, &key).err().unwrap().to_string();
        let expected = format!("the key {} does not belong to the first certificate in {}", key.display(), certificate.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let (folder, certificate, key) = files("mail.example.org");
        let said = |certificate: &Path, key: &Path| format!("{:#}", TlsAcceptor::load(certificate, key).err().unwrap());
        let missing = folder.path().join("none.pem");
        assert!(said(&missing, &key).starts_with(&format!("can't use the certificate {}: ", missing.display())));
        assert!(said(&certificate, &missing).starts_with(&format!("can't use the key {}: ", missing.display())));
        let no_key = said(&certificate, &certificate);
        assert!(no_key.contains("no unencrypted private key in it"), "{no_key}");
        let no_certificate = said(&key, &key);
        assert!(no_certificate.contains("no certificate in it"), "{no_certificate}");
    }
}
