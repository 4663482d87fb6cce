//! IMAP on the wire: lines, literals, grammar and responses. No I/O, no state of a session, no panic whatever a client sends.
//!
//! The path of a command: [`framing`] cuts the input into commands (and streams the messages of APPEND), [`parse`] reads one into
//! [`command`]'s values, the session runs it and writes its answers with [`response`]. [`sequence_set`] says which messages
//! a set names, [`date`] reads and writes dates, [`url`] reads IMAP URLs, [`enabled`] is how a client wants to talk.
//!
//! Every size is bounded: by [`framing::Limits`] for what comes in, by named constants where a short command could cost much.

pub mod command;
pub mod date;
pub mod enabled;
pub mod framing;
pub mod parse;
pub mod response;
pub mod sequence_set;
pub mod url;
