//! Which certificate a client is shown: the first that is for the name it asks for (SNI, RFC 6066 §3) and whose key it understands.
//!
//! An exact name comes before a wildcard. A client that names no host, or one that no certificate is for, is shown the first of all:
//! whether that will do is for the client to judge.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::Certificate;

/// Certificates with the names that they are for; empty while the first by ACME is ordered.
#[derive(Debug)]
pub(super) struct Certificates {
    pub all: Vec<Arc<Certificate>>,
    by_name: HashMap<String, Vec<usize>>,
}

impl Certificates {
    pub fn new(all: Vec<Arc<Certificate>>) -> Certificates {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.facts.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        Certificates { all, by_name }
    }

    fn choose(&self, name: Option<&str>, understood: &[SignatureScheme]) -> Option<&Arc<Certificate>> {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        // RFC 6125 §6.4.3: a wildcard stands for exactly one label.
        let wildcard = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        let fitting = [Some(name.as_str()), wildcard.as_deref()].into_iter().flatten().filter_map(|name| self.by_name.get(name));
        let fitting = fitting.flatten().filter_map(|index| self.all.get(*index));
        let usable = |certificate: &&Arc<Certificate>| certificate.certified.key.choose_scheme(understood).is_some();
        fitting
            .clone()
            .find(usable)
            .or_else(|| fitting.clone().next())
            .or_else(|| self.all.iter().find(usable))
            .or_else(|| self.all.first())
    }
}

/// Chooses for one handshake, and remembers what it chose.
pub(super) struct Choice {
    pub certificates: Arc<Certificates>,
    pub chosen: OnceLock<Arc<Certificate>>,
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.certificates.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&self.chosen.get_or_init(|| Arc::clone(chosen)).certified))
    }
}
impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice").field("chosen", &self.chosen.get().map(|chosen| &chosen.files)).finish_non_exhaustive()
    }
}
