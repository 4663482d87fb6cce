//! What each command does.

pub mod search;
