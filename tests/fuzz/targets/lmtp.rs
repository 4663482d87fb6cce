//! Feeds `server::fuzz::lmtp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::lmtp(input));
