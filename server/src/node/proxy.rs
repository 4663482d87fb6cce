//! The PROXY protocol, versions 1 and 2: a load balancer in front says whose connection it hands on.
//!
//! Where `listen.proxy_from` lists the address that connects, the header comes first, before TLS, and nothing else will do; from every other address
//! it is no more than bytes that no protocol here knows. What is wrong ends the connection: nobody is served under a guessed address.
//!
//! Invariants, each with the test that guards it:
//! - no byte behind the header is taken (`what_follows_the_header_is_left_alone`)
//! - nothing that is sent makes it panic, wait for more than `HEADER_BYTES_MAX`, or give half an answer (`rubbish_is_refused_and_whole_headers_are_read`)

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Shortest header: `PROXY UNKNOWN` with its line end.
const HEADER_BYTES_MIN: usize = 15;
/// Longest header of version 1, with its line end.
const LINE_BYTES_MAX: usize = 107;
/// Version 2 before its variable part.
const FIXED_BYTES: usize = 16;
/// What version 2 starts with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header. Version 2 could have 64 KiB; addresses take 36 bytes at most, and what balancers add (names, certificates' subjects) stays far below.
const HEADER_BYTES_MAX: usize = 4096;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// A client's.
    Client {
        /// The client.
        from: SocketAddr,
        /// What it connected to.
        to: SocketAddr,
    },
    /// The balancer's own (a health check), or one whose client it does not name.
    Own,
}

/// Why a connection ends at its header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Something else came.
    #[error(
        "no PROXY header, though listen.proxy_from names this address: make the load balancer send one (HAProxy: send-proxy-v2), or take it off that list"
    )]
    Missing,
    /// It starts like a header.
    #[error("a PROXY header that can't be understood")]
    Malformed,
    /// It announces too much.
    #[error("a PROXY header of more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// The network's error.
    #[error("no PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header and not a byte more.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxyError> {
    let mut header = vec![0; HEADER_BYTES_MIN];
    stream.read_exact(&mut header).await?;
    if header.starts_with(SIGNATURE) {
        header.push(stream.read_u8().await?);
        let length = header.last_chunk::<2>().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        if FIXED_BYTES + length > HEADER_BYTES_MAX {
            return Err(ProxyError::TooLong);
        }
        header.resize(FIXED_BYTES + length, 0);
        stream.read_exact(header.get_mut(FIXED_BYTES..).unwrap_or_default()).await?;
    } else if header.starts_with(b"PROXY ") {
        // Byte by byte: what follows the line is not ours to read. Once per connection, and balancers send the line at once.
        while !header.ends_with(b"\r\n") {
            if header.len() >= LINE_BYTES_MAX {
                return Err(ProxyError::Malformed);
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(ProxyError::Missing);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(&header, config) {
        Ok((parsed, length)) if length == header.len() => Ok(match parsed.proxied_address() {
            Some(address) => Proxied::Client { from: address.source, to: address.destination },
            None => Proxied::Own,
        }),
        _ => Err(ProxyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, Tlv};

    use super::*;

    /// What is made of `bytes`, and what is left of them.
    fn read_all(mut bytes: &[u8]) -> (Result<Proxied, ProxyError>, &[u8]) {
        let result = read(&mut bytes).now_or_never().expect("bytes in memory are never waited for");
        (result, bytes)
    }
    fn client(from: &str, to: &str) -> Proxied {
        Proxied::Client { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }
    /// Version 2 (specification §2.2): command, family, the rest.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    #[test]
    fn the_forms_of_the_specification_are_understood() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];
        let six = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice(), &[0; 15], &[1, 0x03, 0xe1, 0x00, 0x8f]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(), client("192.0.2.1:56324", "198.51.100.2:443")),
            (b"PROXY TCP6 2001:db8::1 ::1 993 143\r\n".to_vec(), client("[2001:db8::1]:993", "[::1]:143")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Proxied::Own),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), Proxied::Own),
            (v2(0x21, 0x11, &four), client("192.0.2.1:56324", "198.51.100.2:443")),
            (v2(0x21, 0x21, &six), client("[2001:db8::1]:993", "[::1]:143")),
            // LOCAL: addresses are skipped; UNIX addresses name nobody.
            (v2(0x20, 0x00, b""), Proxied::Own),
            (v2(0x20, 0x11, &four), Proxied::Own),
            (v2(0x21, 0x31, &[0; 216]), Proxied::Own),
            // TLVs, known and unknown, are skipped.
            (v2(0x21, 0x11, &[four.as_slice(), &[0x05, 0, 2, 7, 7, 0xee, 0, 0]].concat()), client("192.0.2.1:56324", "198.51.100.2:443")),
        ] {
            let (result, left) = read_all(&header);
            assert_eq!((result.unwrap(), left), (expected, b"".as_slice()), "{}", header.escape_ascii());
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        assert!(matches!(read_all(b"a1 LOGIN ada secret\r\n").0, Err(ProxyError::Missing)));
        assert!(matches!(read_all(&[[0x16, 3, 1, 2, 0].as_slice(), &[1; 60]].concat()).0, Err(ProxyError::Missing)), "a TLS hello");
        assert!(matches!(read_all(b"").0, Err(ProxyError::Io(_))));
        for wrong in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.2 1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.2 1 1\r\n",
        ] {
            assert!(matches!(read_all(wrong.as_bytes()).0, Err(ProxyError::Malformed)), "{wrong}");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert!(matches!(read_all(&endless).0, Err(ProxyError::Malformed)));
        assert_eq!(read_all(&endless).1.len(), endless.len() - LINE_BYTES_MAX, "no more is read than a header may have");
        for wrong in [v2(0x31, 0x11, &[0; 12]), v2(0x22, 0x11, &[0; 12]), v2(0x21, 0x11, &[0; 11]), v2(0x21, 0x41, &[0; 12])] {
            assert!(matches!(read_all(&wrong).0, Err(ProxyError::Malformed)), "{}", wrong.escape_ascii());
        }
        assert!(matches!(read_all(&v2(0x21, 0x11, &[0; 5000])).0, Err(ProxyError::TooLong)));
    }

    proptest! {
        #[test]
        fn what_follows_the_header_is_left_alone(
            from: SocketAddr, to: SocketAddr, first in any::<bool>(), note in prop::collection::vec(any::<u8>(), 0..100), after: Vec<u8>,
        ) {
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            prop_assume!(from.is_ipv4() == to.is_ipv4());
            let address = ProxiedAddress::stream(plain(from), plain(to));
            let mut sent = Vec::new();
            if first {
                ProxyHeader::with_address(address).encode_v1(&mut sent).unwrap();
            } else {
                ProxyHeader::with_tlvs(Some(address), [Tlv::Custom(0xe0, note.into())]).encode_v2(&mut sent).unwrap();
            }
            sent.extend_from_slice(&after);
            let (result, left) = read_all(&sent);
            prop_assert_eq!(result.unwrap(), Proxied::Client { from: plain(from), to: plain(to) });
            prop_assert_eq!(left, after.as_slice());
        }

        #[test]
        fn rubbish_is_refused_and_whole_headers_are_read(
            start in prop_oneof![Just(Vec::new()), Just(SIGNATURE.to_vec()), Just(b"PROXY ".to_vec()), Just(b"PROXY TCP4 ".to_vec())],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let sent = [start, rest].concat();
            let (result, left) = read_all(&sent);
            let taken = sent.len() - left.len();
            prop_assert!(taken <= HEADER_BYTES_MAX);
            if result.is_ok() {
                prop_assert!(sent.starts_with(SIGNATURE) || sent[..taken].ends_with(b"\r\n"));
            }
        }
    }
}
