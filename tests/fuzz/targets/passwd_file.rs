//! Feeds `server::fuzz::passwd_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::passwd_file(input));
