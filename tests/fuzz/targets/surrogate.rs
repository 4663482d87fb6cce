//! Feeds `storage::fuzz::surrogate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage::fuzz::surrogate(input));
