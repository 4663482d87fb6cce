//! Any bytes, and lines of the corpus with a few bytes changed: nothing panics, and what imap-codec still accepts, we accept alike.

use proptest::prelude::*;

use super::{
    super::{NESTING_MAX, Options, parse, sasl_line},
    corpus, oracle,
};
use crate::imap::wire::enabled::Enabled;

/// A line of the corpus with some bytes taken out, doubled, replaced, or moved in from another line.
pub(super) fn mutated_line() -> impl Strategy<Value = Vec<u8>> {
    let special: Vec<u8> = b" ()[]{}<>\"\\*%:,.+-=~$&/\r\n\0\t\x7f\xc3\xa9\xff019aZ".to_vec();
    let change = (any::<prop::sample::Index>(), 0_u8..5, proptest::sample::select(special), proptest::sample::select(corpus::COMMANDS));
    (proptest::sample::select(corpus::COMMANDS), proptest::collection::vec(change, 0..4)).prop_map(|(line, changes)| {
        let mut bytes = line.as_bytes().to_vec();
        for (place, kind, byte, other) in changes {
            let at = place.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => drop(bytes.remove(at)),
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => bytes[at] = byte,
                3 => {
                    let tail = bytes.split_off(at);
                    bytes.extend(tail.iter().copied().take(7).chain(tail.iter().copied()));
                }
                _ => {
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other.as_bytes()[place.index(other.len() + 1)..]);
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, rev2: bool) {
        drop((parse(&bytes, Options { enabled: Enabled { rev2, utf8_accept: rev2, ..Enabled::NOTHING }, nesting: NESTING_MAX }), sasl_line(&bytes)));
        drop(parse(&[b"a SEARCH ", &bytes[..]].concat(), Options { enabled: Enabled { rev2, utf8_accept: rev2, ..Enabled::NOTHING }, nesting: NESTING_MAX }));
        drop(parse(&[b"a FETCH 1 ", &bytes[..]].concat(), Options { enabled: Enabled { rev2, utf8_accept: rev2, ..Enabled::NOTHING }, nesting: NESTING_MAX }));
    }

    #[test]
    fn mutated_lines_are_read_as_imap_codec_reads_them(line in mutated_line(), rev2: bool) {
        drop(parse(&line, Options { enabled: Enabled { rev2, utf8_accept: rev2, ..Enabled::NOTHING }, nesting: NESTING_MAX }));
        oracle::compare(&line);
    }

    #[test]
    fn complaints_are_bounded(line in mutated_line(), length in 0_usize..5000) {
        let long = [&line[..], &vec![b'x'; length]].concat();
        if let Err(error) = parse(&long, super::OPTIONS) {
            prop_assert!(error.reason.len() < 200, "{}", error.reason);
        }
    }
}
