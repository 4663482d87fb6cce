//! Lines, literals and grammar. No I/O.

pub mod command;
