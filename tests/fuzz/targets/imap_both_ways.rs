//! Feeds `server::fuzz::imap_both_ways`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::imap_both_ways(input));
