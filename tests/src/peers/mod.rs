//! Mail programs that we did not write, each in a private instance on loopback: nothing of the system's own configuration is read or changed.

pub mod databases;
pub mod dovecot;
pub mod pebble;
pub mod postfix;
pub mod readers;

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    ops::Range,
    os::unix::fs::PermissionsExt,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::wait;

/// Ports below those that the kernel gives to outgoing connections: a client of another test can't take one before its server has started.
const PORTS: Range<u16> = 10_000..20_000;

/// A port that nobody listens on now, and that no other caller of this process gets soon.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Programs of tests that run side by side begin far from one another.
    let first = process::id().wrapping_mul(997);
    let mut free = (0..count).filter_map(|_| {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(offset).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    });
    free.next().ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))
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
