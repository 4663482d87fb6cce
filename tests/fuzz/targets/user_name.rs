//! Feeds `server::fuzz::user_name`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::user_name(input));
