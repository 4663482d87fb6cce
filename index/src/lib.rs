//! One user's SQLite index: what IMAP must remember.

pub mod flags;
pub mod ids;

pub use flags::{Flag, FlagSet, KeywordId};
pub use ids::{ModSeq, Uid, UidValidity};
