//! Feeds `server::fuzz::relay_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzz::relay_frame(input));
