//! A mailbox's messages in memory: one vector per property, sorted by UID.

mod names;
mod numbers;
mod snapshot;

use std::{cmp::Ordering, collections::HashMap};

use index::{FlagSet, ModSeq, Uid};

use crate::EmailId;
use names::{Facts, Names};
use numbers::{Numbers, push, retain, signed, unsigned};

/// The dates of a message whose file nobody has looked at yet; its size may be 0 then. No message is that old.
pub(crate) const UNKNOWN: i64 = i64::MIN;

/// What a look at a message's file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Learnt {
    pub size: u64,
    pub internal_date: i64,
    pub save_date: i64,
}

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

impl Row {
    /// Whether its size and dates are known; else they are not to be told or judged by.
    pub fn is_known(&self) -> bool {
        self.internal_date != UNKNOWN
    }
}

/// A mailbox's messages in memory, sorted by UID: about 35 bytes each (`a_hundred_thousand_messages_are_small`).
#[derive(Debug)]
pub struct Columns {
    uids: Vec<Uid>,
    flags: Numbers,
    modseqs: Numbers,
    sizes: Numbers,
    internal_dates: Numbers,
    save_dates: Numbers,
    files: Names,
    uid_next: u32,
    highest_modseq: ModSeq,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            uids: Vec::new(),
            flags: Numbers::default(),
            modseqs: Numbers::default(),
            sizes: Numbers::default(),
            internal_dates: Numbers::default(),
            save_dates: Numbers::default(),
            files: Names::default(),
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
            flags: self.flags(position),
            modseq: ModSeq::new(self.modseqs.get(position)).unwrap_or(ModSeq::MIN),
            size: self.sizes.get(position),
            internal_date: signed(self.internal_dates.get(position)),
            save_date: signed(self.save_dates.get(position)),
        }
    }
    /// The flags of the message at `position`.
    pub fn flags(&self, position: usize) -> FlagSet {
        FlagSet::from_bits(self.flags.get(position))
    }
    /// Where `uid` is.
    pub fn position(&self, uid: Uid) -> Option<usize> {
        // No UID is given twice, so a message lies at most as far back as there are UIDs before it: mailboxes without gaps need no search.
        let first = self.uids.first()?.get();
        let guess = usize::try_from(uid.get().checked_sub(first)?).ok()?.min(self.uids.len() - 1);
        match self.uids[guess].cmp(&uid) {
            Ordering::Equal => Some(guess),
            Ordering::Less => None,
            Ordering::Greater => self.uids[..guess].binary_search(&uid).ok(),
        }
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

    /// The EMAILID of the message at `position`.
    pub fn email_id(&self, position: usize) -> EmailId {
        EmailId::of(&self.file(position), self.sizes.get(position))
    }

    /// The message's file, with `cur/` or `new/`.
    pub(crate) fn file(&self, position: usize) -> String {
        self.files.get(position, self.facts(position))
    }
    /// Calls `visit` with the UID and file of every message, by UID, in the memory of one.
    pub(crate) fn each_file(&self, visit: &mut dyn FnMut(Uid, &str)) {
        self.files.each(|position| self.facts(position), &mut |position, file| visit(self.uids[position], file));
    }
    /// The file of the message with `uid`.
    pub(crate) fn file_of(&self, uid: Uid) -> Option<String> {
        self.position(uid).map(|position| self.file(position))
    }
    /// Every row, by UID.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        (0..self.len()).map(|position| self.row(position))
    }
    /// `messages` (ascending) as first and last UID of those that lie side by side and are to have the same: the index changes a run with one statement.
    pub(crate) fn runs<T: Copy + PartialEq>(&self, messages: impl Iterator<Item = (Uid, T)>) -> Vec<((Uid, Uid), T)> {
        let mut runs: Vec<((Uid, Uid), T)> = Vec::new();
        let mut next = usize::MAX;
        for (uid, what) in messages {
            let Some(position) = self.position(uid) else { continue };
            match runs.last_mut() {
                Some(((_, last), same)) if position == next && *same == what => *last = uid,
                _ => runs.push(((uid, uid), what)),
            }
            next = position + 1;
        }
        runs
    }
    /// Makes room for so many more, so that columns that grow by turns leave no holes in memory.
    pub(crate) fn reserve(&mut self, messages: usize) {
        self.uids.reserve_exact(messages);
        for column in [&mut self.flags, &mut self.modseqs, &mut self.sizes, &mut self.internal_dates, &mut self.save_dates] {
            column.reserve(messages);
        }
        self.files.reserve(messages);
    }
    /// Adds a message; its UID is above all others'.
    pub(crate) fn push(&mut self, row: Row, file: &str) {
        debug_assert!(self.uids.last().is_none_or(|last| *last < row.uid), "messages become visible in UID order");
        push(&mut self.uids, row.uid);
        self.flags.push(row.flags.bits());
        self.modseqs.push(row.modseq.get());
        self.sizes.push(row.size);
        self.internal_dates.push(unsigned(row.internal_date));
        self.save_dates.push(unsigned(row.save_date));
        self.files.push(file, self.facts(self.uids.len() - 1));
        self.uid_next = self.uid_next.max(row.uid.get().saturating_add(1));
        self.highest_modseq = self.highest_modseq.max(row.modseq);
    }
    pub(crate) fn set_flags(&mut self, uid: Uid, flags: FlagSet, modseq: ModSeq) {
        if let Some(position) = self.position(uid) {
            self.flags.set(position, flags.bits());
            self.modseqs.set(position, modseq.get());
        }
        self.highest_modseq = self.highest_modseq.max(modseq);
    }
    pub(crate) fn set_file(&mut self, uid: Uid, file: &str) {
        if let Some(position) = self.position(uid) {
            self.files.set(position, file, self.facts(position));
        }
    }
    /// Takes `uids` (ascending) out in one pass.
    pub(crate) fn remove(&mut self, uids: &[Uid], modseq: ModSeq) {
        let mut gone = uids.iter().peekable();
        let is_kept = |uid: &Uid| {
            while gone.next_if(|gone| *gone < uid).is_some() {}
            gone.next_if_eq(&uid).is_none()
        };
        let keep: Vec<bool> = self.uids.iter().map(is_kept).collect();
        retain(&mut self.uids, &keep);
        for column in [&mut self.flags, &mut self.modseqs, &mut self.sizes, &mut self.internal_dates, &mut self.save_dates] {
            column.retain(&keep);
        }
        self.files.retain(&keep);
        self.highest_modseq = self.highest_modseq.max(modseq);
    }
    /// The same messages, of which this is known as well.
    pub(crate) fn with(&self, learnt: &HashMap<Uid, Learnt>) -> Columns {
        let mut columns = Columns::default();
        columns.reserve(self.len());
        for (position, row) in self.rows().enumerate() {
            let row = match learnt.get(&row.uid) {
                Some(Learnt { size, internal_date, save_date }) => {
                    Row { size: *size, internal_date: *internal_date, save_date: *save_date, ..row }
                }
                None => row,
            };
            columns.push(row, &self.file(position));
        }
        columns.raise(self.uid_next, self.highest_modseq);
        columns
    }
    /// Never lowers either.
    pub(crate) fn raise(&mut self, uid_next: u32, highest_modseq: ModSeq) {
        self.uid_next = self.uid_next.max(uid_next);
        self.highest_modseq = self.highest_modseq.max(highest_modseq);
    }

    /// Bytes on the heap.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        let columns = [&self.flags, &self.modseqs, &self.sizes, &self.internal_dates, &self.save_dates];
        self.uids.capacity() * size_of::<Uid>() + columns.map(Numbers::heap_bytes).iter().sum::<usize>() + self.files.heap_bytes()
    }
    fn facts(&self, position: usize) -> Facts {
        Facts {
            uid: self.uids[position].get(),
            size: self.sizes.get(position),
            internal_date: signed(self.internal_dates.get(position)),
            save_date: signed(self.save_dates.get(position)),
        }
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
        let runs = columns.runs([(2, 'a'), (4, 'a'), (5, 'a'), (9, 'b')].into_iter().map(|(number, what)| (uid(number), what)));
        assert_eq!(runs, [((uid(2), uid(5)), 'a'), ((uid(9), uid(9)), 'b')]);
        let runs = columns.runs([2, 9].into_iter().map(|number| (uid(number), ())));
        assert_eq!(runs, [((uid(2), uid(2)), ()), ((uid(9), uid(9)), ())], "what lies between stays as it is");
        columns.set_file(uid(9), "cur/9:2,S");
        columns.remove(&[uid(2), uid(4), uid(5)], modseq(4));
        assert_eq!(columns.uids(), [uid(9)]);
        assert_eq!(columns.file(0), "cur/9:2,S");
        assert_eq!((columns.uid_next(), columns.highest_modseq()), (10, modseq(4)));
        assert_eq!(columns.get(uid(5)), None);
    }

    #[test]
    fn a_hundred_thousand_messages_are_small() {
        let mut ours = Columns::default();
        let mut foreign = Columns::default();
        for number in 1..=100_000_u32 {
            let at = 1_763_748_000 + i64::from(number);
            let size = 3_000 + u64::from(number) * 7 % 90_000;
            let row = Row {
                uid: Uid::new(number).unwrap(),
                flags: FlagSet::EMPTY,
                modseq: ModSeq::new(1_763_748_000 + u64::from(number)).unwrap(),
                size,
                internal_date: at - 3,
                save_date: at,
            };
            let ours_is = format!("cur/{}.M{at}654321N{number}E812.node-a.example,S={size},W={size},U={number}:2,S", at - 3);
            ours.push(row, &ours_is);
            foreign.push(row, &format!("cur/{at}.M654321P{number}.mail.example.org,S={},W={size}:2,FS", size - 80));
            if number.is_multiple_of(9_999) {
                assert_eq!(ours.file_of(row.uid), Some(ours_is));
            }
        }
        assert!(ours.heap_bytes() < 4_500_000, "{}", ours.heap_bytes());
        assert!(foreign.heap_bytes() < 8_000_000, "{}", foreign.heap_bytes());
    }
}
