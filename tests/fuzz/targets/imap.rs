//! Feeds `server::fuzz::imap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::imap(input));
