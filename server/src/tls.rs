//! Client TLS: certificates from files, chosen by the name that a client asks for, reloaded without dropping a session.
//!
//! Certificates that the nodes get themselves ([`crate::acme`]) are files like any other; while there is none yet, a handshake fails.
//!
//! - `certificate.rs` reads files and says what they hold, `choice.rs` picks one for a handshake, `facts.rs` keeps what was agreed
//!
//! Invariants, each with the test that guards it:
//! - a certificate that does not fit its key is never served (`a_key_of_another_certificate_is_refused_by_name`)
//! - a reload changes new handshakes only, a failed one changes nothing (`a_reload_is_seen_by_the_next_handshake`)
//! - a client is shown the certificate of the name it asks for (`a_client_is_shown_the_certificate_of_the_name_it_asks_for`)
//! - what a client takes for another protocol's server is never answered (`a_client_of_another_protocol_is_refused`)
//! - nothing below the minimum version is spoken (`below_the_minimum_version_there_is_no_handshake`)

pub mod certificate;
mod choice;
mod facts;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{Acceptor, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

pub use self::facts::TlsFacts;
use self::{
    certificate::{Certificate, read_chain},
    choice::{Certificates, Choice},
    facts::{client_name, client_names, end_point},
};
use crate::{
    acme::{Folder, handshake::Proofs},
    auth::sasl::scram::ChannelBindings,
    client::Protocol,
    config::{AcmeSection, CertificateFiles, MinVersion, TlsSection},
    connection::Stream,
};

/// What is served at present. Cheap to clone; a reload is seen by every clone.
#[derive(Clone)]
pub struct Tls {
    present: Arc<ArcSwap<Present>>,
}

/// What was read last.
struct Present {
    certificates: Arc<Certificates>,
    /// Without certificates and ALPN, which each handshake gets of its own.
    settings: ServerConfig,
    /// For names that authorities want to see proved in handshakes.
    proofs: Option<Arc<Proofs>>,
}

/// Accepts TLS for one protocol.
#[derive(Clone)]
pub struct TlsAcceptor {
    present: Arc<ArcSwap<Present>>,
    protocol: Protocol,
}

impl Tls {
    /// Loads all that `section` names, and what nodes of the cluster in `root` got by ACME; `None` where it names no certificate. Errors name the file.
    pub fn load(section: &TlsSection, root: &Path) -> anyhow::Result<Option<Tls>> {
        Ok(Present::load(section, root, &[])?.map(|present| Tls { present: Arc::new(ArcSwap::from_pointee(present)) }))
    }

    /// Loads the files again; on error the old certificates stay. So does one by ACME until there is one for new names.
    pub fn reload(&self, section: &TlsSection, root: &Path) -> anyhow::Result<()> {
        let present = Present::load(section, root, &self.certificates())?
            .context("[tls] names no certificate any more: TLS is switched off at the next start only")?;
        self.present.store(Arc::new(present));
        Ok(())
    }

    /// Accepts clients of `protocol`.
    pub fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        TlsAcceptor { present: Arc::clone(&self.present), protocol }
    }

    /// What is served, the first of all first.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.present.load().certificates.all.clone()
    }
}

/// A certificate of the settings, read or not.
#[derive(Debug)]
pub struct Read {
    /// Its files.
    pub files: CertificateFiles,
    /// Whether the nodes got it themselves.
    pub acme: bool,
    /// What they hold.
    pub certificate: anyhow::Result<Certificate>,
}

/// The certificates of `section`, the one for clients without a name first. One by ACME is among them once there is one.
pub fn read(section: &TlsSection, root: &Path) -> anyhow::Result<Vec<Read>> {
    let provider = aws_lc_rs::default_provider();
    let got = match &section.acme {
        Some(acme) => {
            newest(acme, root).with_context(|| format!("can't look for certificates by ACME in {}", root.join("acme").display()))?
        }
        None => None,
    };
    let got = got.map(|file| CertificateFiles { certificate: file.clone(), key: file });
    let first = section.first().into_iter().map(|files| (files, false));
    let all = first.chain(got.map(|files| (files, true))).chain(section.sni.iter().cloned().map(|files| (files, false)));
    Ok(all.map(|(files, acme)| Read { certificate: Certificate::load(&files, acme, &provider), files, acme }).collect())
}

fn newest(section: &AcmeSection, root: &Path) -> io::Result<Option<PathBuf>> {
    let folder = Folder::of(root, section)?;
    Ok(folder.look()?.and_then(|seen| folder.certificate(&seen)))
}

impl Present {
    fn load(section: &TlsSection, root: &Path, before: &[Arc<Certificate>]) -> anyhow::Result<Option<Present>> {
        if !section.is_on() {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let read = read(section, root)?.into_iter().map(|read| read.certificate.map(Arc::new));
        let mut certificates = read.collect::<anyhow::Result<Vec<_>>>()?;
        if section.acme.is_some() && !certificates.iter().any(|certificate| certificate.acme) {
            certificates.extend(before.iter().filter(|certificate| certificate.acme).cloned());
        }
        let certificates = Arc::new(Certificates::new(certificates));
        let clients = match &section.client_ca {
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
        let versions = match section.min_version {
            MinVersion::Tls12 => vec![&TLS13, &TLS12],
            MinVersion::Tls13 => vec![&TLS13],
        };
        let nothing_chosen = Choice { certificates: Arc::clone(&certificates), chosen: OnceLock::new() };
        let settings = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .context("TLS can't be set up")?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(nothing_chosen));
        let proofs = section.acme.as_ref().and_then(|acme| Proofs::of(acme, root));
        Ok(Some(Present { certificates, settings, proofs }))
    }
}

/// What a client may call the protocol (RFC 7301; IANA's names). Empty: LMTP has none, so whatever a client says there counts for nothing.
fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::Imap => vec![b"imap".to_vec()],
        Protocol::Pop3 => vec![b"pop3".to_vec()],
        Protocol::Lmtp => Vec::new(),
    }
}

impl TlsAcceptor {
    /// The handshake; gives the stream and what was agreed. A client that names protocols (ALPN), but not this one, is refused.
    pub async fn accept(&self, stream: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, TlsFacts)> {
        let present = self.present.load_full();
        let choice = Arc::new(Choice { certificates: Arc::clone(&present.certificates), chosen: OnceLock::new() });
        let mut settings = present.settings.clone();
        settings.cert_resolver = Arc::clone(&choice) as _;
        settings.alpn_protocols = alpn(self.protocol);
        let stream = match &present.proofs {
            Some(proofs) => {
                let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
                if let Some(name) = proofs.asked(&begun.client_hello()) {
                    return Err(prove(proofs, &name, begun).await);
                }
                begun.into_stream(Arc::new(settings)).await?
            }
            None => tokio_rustls::TlsAcceptor::from(Arc::new(settings)).accept(stream).await?,
        };
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("an unnamed cipher suite");
        let shown = choice.chosen.get().and_then(|chosen| chosen.certified.end_entity_cert().ok());
        let facts = TlsFacts {
            text: format!("{version} with {suite}"),
            bindings: ChannelBindings {
                exporter: (session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
                    .then(|| session.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok())
                    .flatten(),
                end_point: shown.and_then(|own| end_point(own)),
            },
            certificate_names: session.peer_certificates().and_then(|chain| chain.first()).map(client_names).unwrap_or_default(),
            certificate_name: session.peer_certificates().and_then(|chain| client_name(chain.first()?)),
        };
        Ok((Box::new(stream), facts))
    }
}

/// Shows an authority that the name is ours. After that it has nothing more to say (RFC 8737 §3): what comes of it ends the connection.
async fn prove(proofs: &Proofs, name: &str, begun: StartHandshake<Box<dyn Stream>>) -> io::Error {
    let proved = async {
        let settings = proofs.settings(name, Arc::new(aws_lc_rs::default_provider())).await?;
        let mut stream = begun.into_stream(Arc::new(settings)).await?;
        stream.shutdown().await?;
        anyhow::Ok(())
    };
    match proved.await {
        Ok(()) => io::Error::other(format!("an ACME authority looked at {name}")),
        Err(error) => io::Error::other(format!("{name} can't be proved to an ACME authority: {error:#}")),
    }
}

/// Every file that `section` names, to be watched for changes.
pub fn files(section: &TlsSection) -> Vec<PathBuf> {
    let own = section.certificate_files().into_iter().flat_map(|files| [files.certificate, files.key]);
    own.chain(section.client_ca.clone()).chain(section.acme.iter().filter_map(|acme| acme.ca_file.clone())).collect()
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

/// Settings with one certificate, for tests.
#[cfg(test)]
pub(crate) fn section(certificate: &std::path::Path, key: &std::path::Path) -> TlsSection {
    TlsSection { certificate: Some(certificate.to_owned()), key: Some(key.to_owned()), ..TlsSection::default() }
}

#[cfg(test)]
mod tests;
