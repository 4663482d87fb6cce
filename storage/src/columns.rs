//! A mailbox's messages in memory: one vector per property, sorted by UID.

use index::{FlagSet, ModSeq, Uid};

/// One message's metadata. All of it is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its UID.
    pub uid: Uid,
    /// Its flags and keywords.
    pub flags: FlagSet,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// RFC822.SIZE: bytes with CRLF line ends.
    pub size: u64,
    /// INTERNALDATE, Unix seconds.
    pub internal_date: i64,
    /// When it came into this mailbox, Unix seconds (SAVEDATE, RFC 8514).
    pub save_date: i64,
}

/// A mailbox's messages in memory, sorted by UID.
#[derive(Debug)]
pub struct Columns {
    uids: Vec<Uid>,
    flags: Vec<FlagSet>,
    modseqs: Vec<ModSeq>,
    sizes: Vec<u64>,
    internal_dates: Vec<i64>,
    save_dates: Vec<i64>,
    /// With `cur/` or `new/`.
    files: Vec<Box<str>>,
    uid_next: u32,
    highest_modseq: ModSeq,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            uids: Vec::new(),
            flags: Vec::new(),
            modseqs: Vec::new(),
            sizes: Vec::new(),
            internal_dates: Vec::new(),
            save_dates: Vec::new(),
            files: Vec::new(),
            uid_next: 1,
            highest_modseq: ModSeq::MIN,
        }
    }
}

impl Columns {
    /// How many messages.
    pub fn len(&self) -> usize {
        self.uids.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }
    /// The UIDs, ascending.
    pub fn uids(&self) -> &[Uid] {
        &self.uids
    }
    /// The message at `position` (0-based; panics beyond the end, as a slice does).
    pub fn row(&self, position: usize) -> Row {
        Row {
            uid: self.uids[position],
            flags: self.flags[position],
            modseq: self.modseqs[position],
            size: self.sizes[position],
            internal_date: self.internal_dates[position],
            save_date: self.save_dates[position],
        }
    }
    /// Where `uid` is.
    pub fn position(&self, uid: Uid) -> Option<usize> {
        self.uids.binary_search(&uid).ok()
    }
    /// The message with `uid`.
    pub fn get(&self, uid: Uid) -> Option<Row> {
        self.position(uid).map(|position| self.row(position))
    }
    /// The next UID to be given.
    pub fn uid_next(&self) -> u32 {
        self.uid_next
    }
    /// The highest MODSEQ that any change took.
    pub fn highest_modseq(&self) -> ModSeq {
        self.highest_modseq
    }

    /// The message's file, with `cur/` or `new/`.
    pub(crate) fn file(&self, position: usize) -> &str {
        &self.files[position]
    }
    /// The file of the message with `uid`.
    pub(crate) fn file_of(&self, uid: Uid) -> Option<String> {
        self.position(uid).map(|position| self.files[position].to_string())
    }
    /// Every row, by UID.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        (0..self.len()).map(|position| self.row(position))
    }
    /// Adds a message; its UID is above all others'.
    pub(crate) fn push(&mut self, row: Row, file: &str) {
        debug_assert!(self.uids.last().is_none_or(|last| *last < row.uid), "messages become visible in UID order");
        self.uids.push(row.uid);
        self.flags.push(row.flags);
        self.modseqs.push(row.modseq);
        self.sizes.push(row.size);
        self.internal_dates.push(row.internal_date);
        self.save_dates.push(row.save_date);
        self.files.push(file.into());
        self.uid_next = self.uid_next.max(row.uid.get().saturating_add(1));
        self.highest_modseq = self.highest_modseq.max(row.modseq);
    }
    pub(crate) fn set_flags(&mut self, uid: Uid, flags: FlagSet, modseq: ModSeq) {
        if let Some(position) = self.position(uid) {
            self.flags[position] = flags;
            self.modseqs[position] = modseq;
        }
        self.highest_modseq = self.highest_modseq.max(modseq);
    }
    pub(crate) fn set_file(&mut self, uid: Uid, file: &str) {
        if let Some(position) = self.position(uid) {
            self.files[position] = file.into();
        }
    }
    /// Takes `uids` (ascending) out in one pass.
    pub(crate) fn remove(&mut self, uids: &[Uid], modseq: ModSeq) {
        let keep: Vec<bool> = self.uids.iter().map(|uid| uids.binary_search(uid).is_err()).collect();
        fn retain<T>(column: &mut Vec<T>, keep: &[bool]) {
            let mut flags = keep.iter();
            column.retain(|_| flags.next().copied().unwrap_or(true));
        }
        retain(&mut self.uids, &keep);
        retain(&mut self.flags, &keep);
        retain(&mut self.modseqs, &keep);
        retain(&mut self.sizes, &keep);
        retain(&mut self.internal_dates, &keep);
        retain(&mut self.save_dates, &keep);
        retain(&mut self.files, &keep);
        self.highest_modseq = self.highest_modseq.max(modseq);
    }
    /// Never lowers either.
    pub(crate) fn raise(&mut self, uid_next: u32, highest_modseq: ModSeq) {
        self.uid_next = self.uid_next.max(uid_next);
        self.highest_modseq = self.highest_modseq.max(highest_modseq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_and_out_by_uid() {
        let uid = |number| Uid::new(number).unwrap();
        let modseq = |number| ModSeq::new(number).unwrap();
        let mut columns = Columns::default();
        for number in [2, 5, 9] {
            let row = Row { uid: uid(number), flags: FlagSet::EMPTY, modseq: modseq(3), size: 1, internal_date: 2, save_date: 3 };
            columns.push(row, &format!("cur/{number}"));
        }
        columns.set_file(uid(9), "cur/9:2,S");
        columns.remove(&[uid(2), uid(4), uid(5)], modseq(4));
        assert_eq!(columns.uids(), [uid(9)]);
        assert_eq!(columns.file(0), "cur/9:2,S");
        assert_eq!((columns.uid_next(), columns.highest_modseq()), (10, modseq(4)));
        assert_eq!(columns.get(uid(5)), None);
    }
}
