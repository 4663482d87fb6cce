//! Mail programs that we did not write, each in a private instance on loopback: nothing of the system's own configuration is read or changed.

pub mod databases;
pub mod dovecot;
pub mod pebble;
pub mod postfix;
pub mod readers;

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::wait;

/// A port that nobody listens on now.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A temporary folder that other accounts may enter, as daemons with accounts of their own must.
pub fn open_folder(prefix: &str) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Writes a file; the error names it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Waits until something takes connections at `host:port`.
pub fn wait_listening(address: &str) -> Result<()> {
    wait::until(&format!("a listener at {address}"), Duration::from_secs(30), || Ok(TcpStream::connect(address).map(drop)?))
}
