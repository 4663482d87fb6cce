//! Client TLS: certificates from files, reloaded without dropping a session.

use std::{io, path::Path};

use crate::connection::Stream;

/// Accepts TLS with the present certificate. Cheap to clone; a reload is seen by every clone.
#[derive(Clone)]
pub struct TlsAcceptor {}

impl TlsAcceptor {
    /// Loads a PEM chain and key; errors name the file.
    pub fn load(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
        let _ = (certificate, key);
        todo!()
    }
    /// Loads the files again; on error the old certificate stays.
    pub fn reload(&self) -> anyhow::Result<()> {
        todo!()
    }
    /// The handshake; gives the stream and the facts for logs (`TLSv1.3 with …`).
    pub async fn accept(&self, stream: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, String)> {
        let _ = stream;
        todo!()
    }
}

/// Installs the one cryptography provider of the process. Call first in `main`.
pub fn install_provider() {
    todo!()
}

/// Makes a self-signed certificate for `names` (demo): PEM chain and PEM key.
pub fn self_signed(names: &[String]) -> anyhow::Result<(String, String)> {
    let _ = names;
    todo!()
}
