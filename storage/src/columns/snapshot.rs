//! Columns as bytes, for a file that is read in one go: one column after the other, each number as its distance from the one before it.
//!
//! Invariants, each with the test that guards it:
//! - what is packed is unpacked as it was (`columns_are_unpacked_as_they_were_packed`)
//! - bytes that are no columns are none, and harm nobody (`what_is_no_snapshot_is_refused`)

use index::{ModSeq, SNAPSHOT_BYTES_MAX, Uid};

use super::{
    Columns,
    names::{Names, Reader, write_number, write_packed},
};

/// What the bytes begin and end with: goes up whenever they, or packed names, get another form.
const FORM: u8 = 1;

impl Columns {
    /// As bytes; `None`: there are too many.
    pub(crate) fn pack(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.len() * 24 + 64);
        bytes.push(FORM);
        write_number(&mut bytes, u64::try_from(self.len()).ok()?);
        write_column(&mut bytes, self.uids.iter().map(|uid| uid.get().into()));
        for column in [&self.flags, &self.modseqs, &self.sizes, &self.internal_dates, &self.save_dates] {
            write_column(&mut bytes, (0..self.len()).map(|position| column.get(position)));
        }
        self.files.write(&mut bytes);
        bytes.push(FORM);
        (bytes.len() <= SNAPSHOT_BYTES_MAX).then_some(bytes)
    }
    /// What [`Columns::pack`] gave; `None`: these bytes are nothing of the kind.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<Columns> {
        let mut rest = Reader(bytes);
        if rest.byte() != FORM {
            return None;
        }
        // Each message takes more bytes than one.
        let messages = usize::try_from(rest.number()).ok().filter(|messages| *messages <= bytes.len())?;
        let mut columns = Columns::default();
        columns.uids.reserve_exact(messages);
        let mut last = 0;
        read_column(&mut rest, messages, &mut |number| {
            let uid = u32::try_from(number).ok().filter(|uid| *uid > last).and_then(Uid::new)?;
            last = uid.get();
            columns.uids.push(uid);
            Some(())
        })?;
        for column in [&mut columns.flags, &mut columns.modseqs, &mut columns.sizes, &mut columns.internal_dates, &mut columns.save_dates] {
            column.reserve(messages);
            read_column(&mut rest, messages, &mut |number| {
                column.push(number);
                Some(())
            })?;
        }
        columns.files = Names::read(&mut rest, messages)?;
        columns.uid_next = last.saturating_add(1);
        let highest = (0..messages).map(|position| columns.modseqs.get(position)).max().and_then(ModSeq::new);
        columns.highest_modseq = highest.unwrap_or(ModSeq::MIN);
        // Without an end, a number of messages that was cut off would be less of them.
        (rest.0 == [FORM]).then_some(columns)
    }
}

/// Each as its distance from the one before, small ones of either sign in few bytes.
fn write_column(bytes: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) {
    let mut last: u64 = 0;
    for number in numbers {
        let distance = number.wrapping_sub(last).cast_signed();
        write_number(bytes, (distance.wrapping_shl(1) ^ distance.wrapping_shr(63)).cast_unsigned());
        last = number;
    }
}
fn read_column(rest: &mut Reader<'_>, count: usize, take: &mut dyn FnMut(u64) -> Option<()>) -> Option<()> {
    let mut last: u64 = 0;
    for _ in 0..count {
        let number = rest.number();
        last = last.wrapping_add((number >> 1) ^ (number & 1).wrapping_neg());
        take(last)?;
    }
    Some(())
}

impl Names {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_number(bytes, u64::try_from(self.hosts.len()).unwrap_or(0));
        self.hosts.iter().for_each(|host| write_packed(bytes, host.as_bytes()));
        self.blocks.iter().for_each(|block| bytes.extend_from_slice(block));
    }
    fn read(rest: &mut Reader<'_>, count: usize) -> Option<Names> {
        let mut names = Names::default();
        for _ in 0..rest.number().min(super::names::HOSTS_MAX as u64) {
            names.hosts.push(std::str::from_utf8(rest.bytes()).ok()?.into());
        }
        names.reserve(count);
        let mut left = count;
        while left > 0 {
            let (block, in_block) = (rest.0, left.min(super::names::BLOCK));
            for _ in 0..in_block {
                let length = usize::try_from(rest.number()).ok().filter(|length| *length > 0)?;
                rest.0 = rest.0.get(length..)?;
            }
            names.blocks.push(block.get(..block.len() - rest.0.len())?.to_vec());
            left -= in_block;
        }
        names.len = count;
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use index::FlagSet;
    use proptest::prelude::*;

    use super::*;
    use crate::{Row, columns::UNKNOWN};

    fn message() -> impl Strategy<Value = (u32, u64, u64, u64, i64, String)> {
        let date = prop_oneof![4 => 1_763_000_000_i64..1_764_000_000, 1 => any::<i64>(), 1 => Just(UNKNOWN)];
        let file = prop_oneof![
            Just("cur/1763748000.M1763748001000042N7E3.node-a,S=5000,W=5000,U=77:2,FS".to_owned()),
            "(cur|new)/[0-9]{1,10}\\.[a-z0-9]{1,9}\\.[a-z]{1,3}(,S=[0-9]{1,9})?(:2,[FS]{0,1})?",
            "[a-zé:,/]{1,40}",
        ];
        (1_u32..90, any::<u64>(), 1..u64::MAX >> 1, any::<u64>(), date, file)
    }
    fn rows(columns: &Columns) -> Vec<(Row, String)> {
        columns.rows().enumerate().map(|(position, row)| (row, columns.file(position))).collect()
    }

    proptest! {
        #[test]
        fn columns_are_unpacked_as_they_were_packed(messages in prop::collection::vec(message(), 0..100), cut in any::<prop::sample::Index>()) {
            let mut columns = Columns::default();
            let mut uid = 0;
            for (gap, flags, modseq, size, date, file) in messages {
                uid += gap;
                let (uid, modseq) = (Uid::new(uid).unwrap(), ModSeq::new(modseq).unwrap());
                columns.push(Row { uid, flags: FlagSet::from_bits(flags), modseq, size, internal_date: date, save_date: date }, &file);
            }
            let packed = columns.pack().unwrap();
            let mut unpacked = Columns::unpack(&packed).unwrap();
            prop_assert_eq!(rows(&unpacked), rows(&columns));
            prop_assert_eq!((unpacked.uid_next(), unpacked.highest_modseq()), (columns.uid_next(), columns.highest_modseq()));
            // Both go on alike.
            let is_empty = columns.is_empty();
            let last = Row { uid: Uid::new(uid + 1).unwrap(), flags: FlagSet::EMPTY, modseq: ModSeq::MIN, size: 1, internal_date: 2, save_date: 3 };
            for columns in [&mut unpacked, &mut columns] {
                columns.push(last, "cur/last.x.host");
            }
            prop_assert_eq!(rows(&unpacked), rows(&columns));
            if !is_empty {
                prop_assert!(Columns::unpack(&packed[..cut.index(packed.len())]).is_none());
            }
        }
        #[test]
        fn what_is_no_snapshot_is_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(first) = bytes.first_mut() {
                *first = FORM;
            }
            if let Some(columns) = Columns::unpack(&bytes) {
                rows(&columns);
            }
        }
    }
}
