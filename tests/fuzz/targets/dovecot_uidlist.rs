//! Feeds `storage::fuzz::dovecot_uidlist`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| storage::fuzz::dovecot_uidlist(input));
