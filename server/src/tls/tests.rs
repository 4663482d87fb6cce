use std::{fs, path::Path};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
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

fn load(certificate: &Path, key: &Path) -> Tls {
    Tls::load(&section(certificate, key), Path::new("/")).unwrap().unwrap()
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
    let acceptor = load(&certificate, &key).acceptor(Protocol::Imap);
    let facts = handshake(&acceptor, &certificate, &rustls::version::TLS13).await.unwrap();
    assert!(facts.starts_with("TLSv1.3 with TLS13_AES_"), "{facts}");
    let facts = handshake(&acceptor, &certificate, &rustls::version::TLS12).await.unwrap();
    assert!(facts.starts_with("TLSv1.2 with TLS_ECDHE_"), "{facts}");
}

#[tokio::test]
async fn a_reload_is_seen_by_the_next_handshake() {
    let (_folder, certificate, key) = files("mail.example.org");
    let tls = load(&certificate, &key);
    let clone = tls.clone().acceptor(Protocol::Imap);
    write("mail.example.org", &certificate, &key);
    assert!(handshake(&clone, &certificate, &rustls::version::TLS13).await.is_err(), "the old certificate is still served");
    tls.reload(&section(&certificate, &key), Path::new("/")).unwrap();
    handshake(&clone, &certificate, &rustls::version::TLS13).await.unwrap();

    fs::write(&key, "nonsense").unwrap();
    assert!(tls.reload(&section(&certificate, &key), Path::new("/")).is_err());
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
    let with_authority = TlsSection { client_ca: Some(authority_file), ..section(&certificate, &key) };
    let acceptor = Tls::load(&with_authority, Path::new("/")).unwrap().unwrap().acceptor(Protocol::Imap);
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
        assert_eq!(facts.certificate_names.last().map(String::as_str), Some(common_name));
        assert!(facts.bindings.exporter.is_some() && facts.bindings.end_point.is_some());
    }
    let facts = handshake(&acceptor, &certificate, &rustls::version::TLS12).await;
    assert!(facts.is_ok(), "a client need not show one");
}

#[test]
fn a_key_of_another_certificate_is_refused_by_name() {
    let (_one, certificate, _) = files("mail.example.org");
    let (_other, _, key) = files("mail.example.org");
    let error = Tls::load(&section(&certificate, &key), Path::new("/")).err().unwrap().to_string();
    let expected = format!("the key {} does not belong to the first certificate in {}", key.display(), certificate.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (folder, certificate, key) = files("mail.example.org");
    let said = |certificate: &Path, key: &Path| format!("{:#}", Tls::load(&section(certificate, key), Path::new("/")).err().unwrap());
    let missing = folder.path().join("none.pem");
    assert!(said(&missing, &key).starts_with(&format!("can't use the certificate {}: ", missing.display())));
    assert!(said(&certificate, &missing).starts_with(&format!("can't use the key {}: ", missing.display())));
    let no_key = said(&certificate, &certificate);
    assert!(no_key.contains("no unencrypted private key in it"), "{no_key}");
    let no_certificate = said(&key, &key);
    assert!(no_certificate.contains("no certificate in it"), "{no_certificate}");
}

/// A handshake of a client that asks for `name` and speaks `protocols`; whose certificate it was shown, and what was agreed.
async fn ask(acceptor: &TlsAcceptor, name: &str, protocols: &[&[u8]], trusted: &[PathBuf]) -> io::Result<(Vec<u8>, TlsFacts)> {
    let mut roots = RootCertStore::empty();
    for file in trusted {
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (client_end, server_end) = tokio::io::duplex(4096);
    let client = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), client_end);
    let (client, server) = tokio::join!(client, acceptor.accept(Box::new(server_end)));
    let (client, (_stream, facts)) = (client?, server?);
    Ok((client.get_ref().1.peer_certificates().unwrap()[0].to_vec(), facts))
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let make = |names: &[&str]| {
        let files = CertificateFiles {
            certificate: folder.path().join(format!("{}.pem", names[0])),
            key: folder.path().join(format!("{}.key", names[0])),
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (chain, private) = self_signed(&names).unwrap();
        fs::write(&files.certificate, chain).unwrap();
        fs::write(&files.key, private).unwrap();
        files
    };
    let (first, net, any) = (make(&["mail.example.org"]), make(&["mail.example.net", "MX.example.net"]), make(&["*.example.net"]));
    let trusted = [&first, &net, &any].map(|files| files.certificate.clone());
    let settings = TlsSection { sni: vec![any.clone(), net.clone()], ..section(&first.certificate, &first.key) };
    let tls = Tls::load(&settings, Path::new("/")).unwrap().unwrap();
    for (name, expected) in [
        ("mail.example.org", Some(&first)),
        ("mail.example.net", Some(&net)),
        ("mx.example.net", Some(&net)),
        ("imap.example.net", Some(&any)),
        // One label only, and another's name gets the first certificate, which such a client refuses.
        ("a.imap.example.net", None),
        ("mail.example.com", None),
    ] {
        let shown = ask(&tls.acceptor(Protocol::Imap), name, &[], &trusted).await;
        match expected {
            Some(files) => {
                let own = CertificateDer::from_pem_file(&files.certificate).unwrap();
                let (shown, facts) = shown.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(shown, own.to_vec(), "{name}");
                assert_eq!(facts.bindings.end_point, end_point(&own), "channels are bound to the certificate that was shown: {name}");
            }
            None => assert!(shown.is_err(), "{name}"),
        }
    }
    // A reload brings further certificates.
    tls.reload(&section(&net.certificate, &net.key), Path::new("/")).unwrap();
    assert!(ask(&tls.acceptor(Protocol::Pop3), "mail.example.net", &[], &trusted).await.is_ok());
    assert!(ask(&tls.acceptor(Protocol::Pop3), "mail.example.org", &[], &trusted).await.is_err());
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    let (_folder, certificate, key) = files("mail.example.org");
    let tls = load(&certificate, &key);
    let trusted = [certificate];
    for (protocol, offered, accepted) in [
        (Protocol::Imap, &[b"imap".as_slice()][..], true),
        (Protocol::Imap, &[b"pop3", b"imap"], true),
        (Protocol::Imap, &[], true),
        (Protocol::Imap, &[b"pop3"], false),
        (Protocol::Imap, &[b"h2", b"http/1.1"], false),
        (Protocol::Pop3, &[b"pop3"], true),
        (Protocol::Pop3, &[b"imap"], false),
        // LMTP has no name there.
        (Protocol::Lmtp, &[b"smtp"], true),
    ] {
        let outcome = ask(&tls.acceptor(protocol), "mail.example.org", offered, &trusted).await;
        assert_eq!(outcome.is_ok(), accepted, "{protocol}: {:?}", outcome.err());
    }
}

#[tokio::test]
async fn below_the_minimum_version_there_is_no_handshake() {
    let (_folder, certificate, key) = files("mail.example.org");
    for (min_version, with_1_2) in [(MinVersion::Tls12, true), (MinVersion::Tls13, false)] {
        let tls = Tls::load(&TlsSection { min_version, ..section(&certificate, &key) }, Path::new("/")).unwrap().unwrap();
        let acceptor = tls.acceptor(Protocol::Imap);
        assert_eq!(handshake(&acceptor, &certificate, &TLS12).await.is_ok(), with_1_2);
        assert!(handshake(&acceptor, &certificate, &TLS13).await.is_ok());
    }
}
