//! Checksums of rows. SQLite notices a page that makes no sense, but not one whose values are others than were written: CRC-32 does.
//!
//! A sum covers the row's key, so that a row in another's place is noticed as well. What is changed on its own has a sum of its own.

use std::sync::OnceLock;

use crate::IndexError;

/// A CRC-32 of values in the order in which they are given.
#[derive(Debug, Clone)]
pub(crate) struct Sum(crc32fast::Hasher);

impl Sum {
    /// Of a row of `table`: rows of other tables never fit.
    pub fn of(table: &str) -> Sum {
        Sum(crc32fast::Hasher::new()).text(table)
    }
    /// As [`Sum::of`], where very many rows are read: what begins every row's sum is summed up once.
    pub fn of_many(table: &'static str, begun: &OnceLock<u32>) -> Sum {
        Sum::after(*begun.get_or_init(|| Sum::of(table).end()))
    }
    /// Goes on where another one [ended](Sum::end).
    pub fn after(end: u32) -> Sum {
        Sum(crc32fast::Hasher::new_with_initial(end))
    }
    pub fn end(self) -> u32 {
        self.0.finalize()
    }
    pub fn number(self, number: i64) -> Sum {
        self.numbers([number])
    }
    pub fn numbers<const COUNT: usize>(mut self, numbers: [i64; COUNT]) -> Sum {
        self.0.update(numbers.map(i64::to_le_bytes).as_flattened());
        self
    }
    pub fn text(self, text: &str) -> Sum {
        self.bytes(text.as_bytes())
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Sum {
        // The length keeps two neighbours apart.
        self.0.update(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.update(bytes);
        self
    }
    pub fn get(self) -> i64 {
        i64::from(self.0.finalize())
    }
    /// Compares it with what the row says.
    pub fn check(self, table: &'static str, stored: i64) -> rusqlite::Result<()> {
        if self.get() == stored { Ok(()) } else { Err(damaged(table, "its checksum does not fit")) }
    }
}

/// A row that makes no sense, as an error of reading it.
pub(crate) fn damaged(table: &'static str, why: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        0,
        rusqlite::types::Type::Null,
        Box::new(IndexError::Damaged(format!("a row of {table}: {why}"))),
    )
}

/// Keys as a scan of `table` gives them: a damaged page may give one row twice in place of another, and each fits its own checksum.
pub(crate) fn ensure_ascending<Key: PartialOrd>(table: &str, mut keys: impl Iterator<Item = Key>) -> Result<(), IndexError> {
    let Some(mut last) = keys.next() else { return Ok(()) };
    for key in keys {
        if key <= last {
            return Err(IndexError::Damaged(format!("rows of {table} are out of order")));
        }
        last = key;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_same_however_its_values_are_given() {
        let one_by_one = Sum::of("messages").number(7).number(-1).text("cur/x").get();
        let begun = OnceLock::new();
        for _ in 0..2 {
            assert_eq!(Sum::of_many("messages", &begun).numbers([7, -1]).text("cur/x").get(), one_by_one);
        }
        assert_eq!(Sum::after(Sum::of("messages").end()).numbers([7, -1]).text("cur/x").get(), one_by_one);
        assert_eq!(one_by_one, 1_914_229_734, "what rows that are written have");
    }
}
