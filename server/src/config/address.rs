//! Where LMTP listens: a TCP address, a UNIX socket, or sockets that systemd hands over.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// `10.0.0.1:24`, `unix:/run/berth/lmtp`, `systemd:lmtp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// IP and port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
    /// Sockets of this name (`FileDescriptorName=` of the socket unit).
    Systemd(String),
}

/// Not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address to listen on: write \"10.0.0.1:24\", \"[::1]:24\", \"unix:/run/berth/lmtp\" or \"systemd:NAME\"")]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;
    fn from_str(raw: &str) -> Result<Address, NotAnAddress> {
        let wrong = || NotAnAddress(raw.to_owned());
        if let Some(path) = raw.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() { Ok(Address::Unix(path)) } else { Err(wrong()) };
        }
        match raw.strip_prefix("systemd:") {
            // systemd.socket(5): ASCII without control characters and colons, 255 at most.
            Some(name) if !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') => {
                Ok(Address::Systemd(name.to_owned()))
            }
            Some(_) => Err(wrong()),
            None => raw.parse().map(Address::Tcp).map_err(|_| wrong()),
        }
    }
}

impl Address {
    /// Where its socket file is.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Address::Unix(path) => path.parent(),
            Address::Tcp(_) | Address::Systemd(_) => None,
        }
    }
}

impl TryFrom<String> for Address {
    type Error = NotAnAddress;
    fn try_from(raw: String) -> Result<Address, NotAnAddress> {
        raw.parse()
    }
}
impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_as_they_are_read() {
        for text in ["127.0.0.1:24", "[::1]:24", "unix:/run/berth/lmtp", "systemd:lmtp"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for wrong in ["", "24", "mail1:24", "unix:", "unix:lmtp", "unix:/", "systemd:", "systemd:a:b", "systemd:a b"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
