//! Networks as people write them: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// An address range. IPv4 addresses mapped into IPv6 are the IPv4 ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: write an address with a prefix length as in 10.0.0.0/8 or 2001:db8::/32, or one address")]
pub struct NotANetwork(String);

impl Network {
    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;
    fn from_str(raw: &str) -> Result<Network, NotANetwork> {
        let wrong = || NotANetwork(raw.to_owned());
        let (address, prefix) = match raw.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (raw, None),
        };
        let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(wrong());
        }
        // Addresses are compared as IPv4 where they are; a network that has such and others can't be meant.
        match address.to_canonical() {
            same if same == address => Ok(Network { address, prefix }),
            mapped => Ok(Network { address: mapped, prefix: prefix.checked_sub(128 - 32).ok_or_else(wrong)? }),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;
    fn try_from(raw: String) -> Result<Network, NotANetwork> {
        raw.parse()
    }
}
impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whether one of `networks` has `address`.
pub fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// A list of networks as a setting has it, read once. What is no network holds no address, and is complained of when the settings are checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Networks {
    written: Vec<String>,
    read: Vec<Network>,
}

impl Networks {
    /// Whether one of them has `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        contains(&self.read, address)
    }
    /// Whether none is written.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }
    /// What is no network.
    pub fn errors(&self) -> impl Iterator<Item = NotANetwork> {
        self.written.iter().filter_map(|network| network.parse::<Network>().err())
    }
}

impl From<Vec<String>> for Networks {
    fn from(written: Vec<String>) -> Networks {
        Networks { read: written.iter().filter_map(|network| network.parse().ok()).collect(), written }
    }
}
impl From<Networks> for Vec<String> {
    fn from(networks: Networks) -> Vec<String> {
        networks.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "8.8.8.8", "::2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "fe80::1", "10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "host", "10.0.0/8", "10.0.0.0/-1", "::ffff:10.0.0.0/95"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_holds_the_addresses_of_its_networks_and_names_what_is_none() {
        let list = Networks::from(vec!["10.0.0.0/8".to_owned(), "everybody".to_owned(), "::1".to_owned()]);
        assert!(list.contains("10.1.2.3".parse().unwrap()) && list.contains("::1".parse().unwrap()));
        assert!(!list.contains("192.0.2.1".parse().unwrap()) && !list.is_empty());
        assert_eq!(list.errors().collect::<Vec<_>>(), [NotANetwork("everybody".to_owned())]);
        assert_eq!(Vec::from(list), ["10.0.0.0/8", "everybody", "::1"], "written as it was");
    }
}
