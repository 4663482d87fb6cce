//! Clients written for the tests: they take nothing for granted and refuse what the standards do not allow.

pub mod imap;
pub mod lmtp;
pub mod pop3;
pub mod python;
mod rules;
pub mod value;
pub mod wire;
