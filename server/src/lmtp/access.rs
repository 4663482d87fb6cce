//! Which networks may deliver: LMTP has no authentication, so `[lmtp] allow` is who may put mail into mailboxes.

use std::{net::IpAddr, str::FromStr};

/// A network in CIDR notation, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why an entry of `[lmtp] allow` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error("{0:?} is no network: write it as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7")]
    Malformed(String),
    /// The part after the prefix is not 0: most likely not what was meant.
    #[error("{0:?} has bits beyond its prefix: for one address leave out the prefix, for the network write {1}")]
    HostBits(String, String),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(raw: &str) -> Result<Network, NetworkError> {
        let malformed = || NetworkError::Malformed(raw.to_owned());
        let (address, prefix) = match raw.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (raw, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| malformed())?;
        let bits = width(address);
        let prefix = match prefix {
            Some(prefix) => prefix.trim().parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(malformed)?,
            None => bits,
        };
        let first = masked(address, prefix);
        if first != address {
            return Err(NetworkError::HostBits(raw.to_owned(), format!("{first}/{prefix}")));
        }
        Ok(Network { address, prefix })
    }
}

impl Network {
    /// Whether `address` lies in it. An IPv4 address that came in through an IPv6 socket is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// Whether `address` may deliver. Entries that are no network allow nobody: the configuration is checked when it is read.
pub fn is_allowed(allow: &[String], address: IpAddr) -> bool {
    allow.iter().filter_map(|entry| entry.parse::<Network>().ok()).any(|network| network.contains(address))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of the network that `address` is in.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(allow: &[&str], address: &str) -> bool {
        let allow: Vec<String> = allow.iter().map(|entry| (*entry).to_owned()).collect();
        is_allowed(&allow, address.parse().unwrap())
    }

    #[test]
    fn an_address_is_allowed_by_the_network_it_is_in() {
        assert!(allowed(&["127.0.0.0/8", "::1"], "127.0.0.1"));
        assert!(allowed(&["127.0.0.0/8", "::1"], "::1"));
        assert!(!allowed(&["127.0.0.0/8", "::1"], "::2"));
        assert!(allowed(&["10.1.2.0/23"], "10.1.3.255"));
        assert!(!allowed(&["10.1.2.0/23"], "10.1.4.0"));
        assert!(allowed(&["192.0.2.7"], "192.0.2.7"));
        assert!(!allowed(&["192.0.2.7"], "192.0.2.8"));
        assert!(allowed(&["2001:db8::/32"], "2001:db8:ffff::1"));
        assert!(!allowed(&["2001:db8::/32"], "2001:db9::1"));
        assert!(!allowed(&[], "127.0.0.1"), "an empty list allows nobody");
    }

    #[test]
    fn a_prefix_of_zero_is_one_whole_family() {
        assert!(allowed(&["0.0.0.0/0"], "203.0.113.9"));
        assert!(!allowed(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(allowed(&["::/0"], "2001:db8::1"));
    }

    #[test]
    fn an_ipv4_address_on_an_ipv6_socket_is_an_ipv4_address() {
        assert!(allowed(&["10.0.0.0/8"], "::ffff:10.9.8.7"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_entry_in_the_message() {
        for bad in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError::Malformed(bad.to_owned())));
            assert!(!allowed(&[bad], "10.0.0.1"));
        }
        let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
        assert!(error.to_string().contains("write 10.0.0.0/8"), "{error}");
    }
}
