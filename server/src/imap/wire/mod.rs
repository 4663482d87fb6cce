//! Lines, literals, grammar and responses of IMAP. No I/O.

pub mod command;
pub mod date;
pub mod framing;
pub mod parse;
pub mod response;
pub mod sequence_set;
