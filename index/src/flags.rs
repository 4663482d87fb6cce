//! Flags and keywords of a message, as one number.

use serde::{Deserialize, Serialize};

/// Position of a keyword in its mailbox's keyword list: 0 to 25 are the Maildir letters a to z, the rest are kept beside the mail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KeywordId(u8);

impl KeywordId {
    /// How many keywords one mailbox can have: what one 64-bit [`FlagSet`] holds beside the system flags.
    pub const COUNT: u8 = 56;
    /// `None` beyond [`KeywordId::COUNT`].
    pub fn new(position: usize) -> Option<KeywordId> {
        u8::try_from(position).ok().filter(|p| *p < Self::COUNT).map(KeywordId)
    }
    /// The position in the list.
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

/// One flag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Flag {
    /// `\Draft`, Maildir D.
    Draft,
    /// `\Flagged`, Maildir F.
    Flagged,
    /// Maildir P (resent, forwarded): no IMAP system flag, kept as it is.
    Passed,
    /// `\Answered`, Maildir R.
    Answered,
    /// `\Seen`, Maildir S.
    Seen,
    /// `\Deleted`, Maildir T.
    Deleted,
    /// A keyword of the mailbox.
    Keyword(KeywordId),
}

impl Flag {
    fn bit(self) -> u64 {
        match self {
            Flag::Draft => 1,
            Flag::Flagged => 1 << 1,
            Flag::Passed => 1 << 2,
            Flag::Answered => 1 << 3,
            Flag::Seen => 1 << 4,
            Flag::Deleted => 1 << 5,
            Flag::Keyword(id) => 1 << (8 + u32::from(id.0)),
        }
    }
}

/// A set of flags; `\Recent` is a session's, never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct FlagSet(u64);

impl FlagSet {
    /// No flag.
    pub const EMPTY: FlagSet = FlagSet(0);
    /// Exactly `flags`.
    pub fn of(flags: &[Flag]) -> FlagSet {
        FlagSet(flags.iter().fold(0, |bits, flag| bits | flag.bit()))
    }
    /// Whether `flag` is set.
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & flag.bit() != 0
    }
    /// With `flag`.
    #[must_use]
    pub fn with(self, flag: Flag) -> FlagSet {
        FlagSet(self.0 | flag.bit())
    }
    /// Without `flag`.
    #[must_use]
    pub fn without(self, flag: Flag) -> FlagSet {
        FlagSet(self.0 & !flag.bit())
    }
    /// All of both.
    #[must_use]
    pub fn union(self, other: FlagSet) -> FlagSet {
        FlagSet(self.0 | other.0)
    }
    /// What `other` does not have.
    #[must_use]
    pub fn difference(self, other: FlagSet) -> FlagSet {
        FlagSet(self.0 & !other.0)
    }
    /// What both have.
    #[must_use]
    pub fn intersection(self, other: FlagSet) -> FlagSet {
        FlagSet(self.0 & other.0)
    }
    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The number that the index stores.
    pub fn bits(self) -> u64 {
        self.0
    }
    /// What [`FlagSet::bits`] gave.
    pub fn from_bits(bits: u64) -> FlagSet {
        FlagSet(bits & !0b1100_0000)
    }
    /// The keywords in the set, by position.
    pub fn keywords(self) -> impl Iterator<Item = KeywordId> {
        (0..KeywordId::COUNT).map(KeywordId).filter(move |id| self.contains(Flag::Keyword(*id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_back_from_their_bits() {
        let last = KeywordId::new(55).unwrap();
        let set = FlagSet::of(&[Flag::Seen, Flag::Keyword(last), Flag::Passed]);
        assert_eq!(FlagSet::from_bits(set.bits()), set);
        assert_eq!(set.keywords().collect::<Vec<_>>(), [last]);
        assert!(set.without(Flag::Seen).with(Flag::Draft).contains(Flag::Draft));
        assert!(KeywordId::new(56).is_none());
    }
}
