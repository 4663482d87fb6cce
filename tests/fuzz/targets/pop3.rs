//! Feeds `server::fuzz::pop3`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::pop3(input));
