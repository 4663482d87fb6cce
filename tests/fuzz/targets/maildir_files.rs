//! Feeds `storage::fuzz::maildir_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage::fuzz::maildir_files(input));
