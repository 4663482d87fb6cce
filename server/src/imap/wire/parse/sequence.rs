//! The grammar of sequence sets; what they mean is in `wire::sequence_set`.

use smallvec::SmallVec;

use super::cursor::{Cursor, Parsed};
use crate::imap::wire::command::{SequenceBound, SequenceRange, SequenceSet};

impl Cursor<'_> {
    /// Reads `sequence-set`.
    pub(crate) fn sequence_set(&mut self) -> Parsed<SequenceSet> {
        if self.take(b'$') {
            return Ok(SequenceSet::Saved);
        }
        let mut ranges = SmallVec::new();
        loop {
            let low = self.sequence_bound()?;
            let high = if self.take(b':') { self.sequence_bound()? } else { low };
            ranges.push(SequenceRange { low, high });
            if !self.take(b',') {
                return Ok(SequenceSet::Ranges(ranges));
            }
        }
    }

    /// Reads `seq-number`.
    pub(crate) fn sequence_bound(&mut self) -> Parsed<SequenceBound> {
        if self.take(b'*') { Ok(SequenceBound::Star) } else { self.nz_number("a message number or \"*\"").map(SequenceBound::Number) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::wire::{enabled::Enabled, parse::Options};

    fn parsed(text: &str) -> Parsed<SequenceSet> {
        let mut cursor = Cursor::new(text.as_bytes(), Options { enabled: Enabled::NOTHING, nesting: 10 });
        let set = cursor.sequence_set()?;
        cursor.end()?;
        Ok(set)
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["1", "*", "$", "1:*", "*:4", "2,4:7,9,12:*", "4294967295"] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn sets_that_name_nothing_are_refused() {
        for text in [
            "",
            "0",
            "0:3",
            "3:0",
            ",",
            "1,",
            "1,,2",
            "1:",
            ":1",
            "1:2:3",
            "4294967296",
            "99999999999999999999",
            "-1",
            "1 :2",
            "$,1",
            "1,$",
            "$:2",
            "**",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert_eq!(parsed("7,0").unwrap_err().reason, "expected a message number or \"*\" at byte 3: a number from 1 to 4294967295");
    }
}
