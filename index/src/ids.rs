//! The numbers of IMAP, each a type of its own.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
};

use serde::{Deserialize, Serialize};

/// Unique identifier of a message in its mailbox (RFC 9051 §2.3.1.1): never 0, never given twice under one UIDVALIDITY.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Uid(NonZeroU32);

/// Which generation of UIDs a mailbox has (RFC 9051 §2.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct UidValidity(NonZeroU32);

/// Modification sequence (RFC 7162 §3.1): never 0, at most 2^63 - 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ModSeq(NonZeroU64);

impl Uid {
    /// `None` for 0.
    pub fn new(number: u32) -> Option<Uid> {
        NonZeroU32::new(number).map(Uid)
    }
    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}
impl UidValidity {
    /// The lowest.
    pub const MIN: UidValidity = UidValidity(NonZeroU32::MIN);
    /// `None` for 0.
    pub fn new(number: u32) -> Option<UidValidity> {
        NonZeroU32::new(number).map(UidValidity)
    }
    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}
impl ModSeq {
    /// The first one of a mailbox.
    pub const MIN: ModSeq = ModSeq(NonZeroU64::MIN);
    /// `None` for 0 and beyond 2^63 - 1.
    pub fn new(number: u64) -> Option<ModSeq> {
        NonZeroU64::new(number).filter(|n| n.get() <= u64::MAX >> 1).map(ModSeq)
    }
    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Display for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
