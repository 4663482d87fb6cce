//! What was made of messages that are gone. An expunge deletes the messages' own rows and remembers the run; the rest is swept later, when nobody waits.
//!
//! Invariants, each with the test that guards it:
//! - what was made of messages that are gone is swept, a little at a time, and nothing else (`what_was_made_of_expunged_messages_is_swept`)
//! - a row id that comes again, as from a folder that was restored, has nothing of the message before (`an_id_that_comes_again_has_nothing_of_before`)

use rusqlite::OptionalExtension;

use crate::{Change, IndexError, UserIndex, checksum::Sum, mailboxes::signed};

/// What is made of a message, but for header fields that were asked for.
const TABLES: [&str; 3] = ["rendered", "previews", "summaries"];

/// A run of messages that are gone, of which something may be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leftover {
    first: i64,
    last: i64,
}

fn sum([first, last]: [i64; 2]) -> Sum {
    Sum::of("leftovers").numbers([first, last])
}

impl UserIndex {
    /// At most `most` of the runs that are to be swept.
    pub fn leftovers(&self, most: u32) -> Result<Vec<Leftover>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT first, last, sum FROM leftovers ORDER BY first LIMIT ?1")?;
        let rows = statement.query_map([most], |row| {
            let leftover = Leftover { first: row.get(0)?, last: row.get(1)? };
            sum([leftover.first, leftover.last]).check("leftovers", row.get(2)?)?;
            Ok(leftover)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Sweeps what was made of messages in these runs, about `most` rows of it; what is left to be swept of them.
    pub fn sweep(&mut self, leftovers: &[Leftover], most: u32) -> Result<Vec<Leftover>, IndexError> {
        let mut left = usize::try_from(most).unwrap_or(usize::MAX);
        let mut runs = leftovers.iter();
        let mut rest = Vec::new();
        while left > 0
            && let Some(Leftover { first, last }) = runs.next().copied()
        {
            // Another change may have swept it.
            let found = "SELECT last FROM leftovers WHERE first = ?1";
            if self.connection.prepare_cached(found)?.query_row([first], |row| row.get(0)).optional()? != Some(last) {
                continue;
            }
            let mut end = last;
            for table in TABLES {
                let beyond = format!("SELECT id - 1 FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1 OFFSET ?3");
                let offset = signed(left.div_ceil(TABLES.len()));
                let beyond = self.connection.prepare_cached(&beyond)?.query_row([first, end, offset], |row| row.get(0));
                end = beyond.optional()?.unwrap_or(end);
            }
            left = left.saturating_sub(self.delete_made([first, end])?.max(1));
            self.connection.prepare_cached("DELETE FROM leftovers WHERE first = ?1")?.execute([first])?;
            if end < last {
                self.remember_leftover([end + 1, last])?;
                rest.push(Leftover { first: end + 1, last });
                break;
            }
        }
        rest.extend(runs);
        Ok(rest)
    }
    /// The messages with these ids are gone; what was made of them is to be swept.
    pub(crate) fn remember_leftover(&self, ids: [i64; 2]) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO leftovers (first, last, sum) VALUES (?1, ?2, ?3)")?;
        if insert.execute([ids[0], ids[1], sum(ids).get()])? == 0 {
            // The first id was used twice: no need to keep two runs apart for that.
            self.delete_made(ids)?;
        }
        Ok(())
    }
    /// A message comes under this id: nothing of another one may be there.
    pub(crate) fn forget_leftover(&mut self, id: i64) -> Result<(), IndexError> {
        let (begin, end) = (id & !i64::from(u32::MAX), id | i64::from(u32::MAX));
        let highest = match self.highest_leftover {
            Some((of, highest)) if of == begin => highest,
            _ => {
                let highest = "SELECT max(last) FROM leftovers WHERE first BETWEEN ?1 AND ?2";
                let highest = self.connection.prepare_cached(highest)?.query_row([begin, end], |row| row.get(0))?;
                self.highest_leftover.insert((begin, highest)).1
            }
        };
        // UIDs go up: nearly always it is above those of its mailbox.
        if highest.is_none_or(|highest: i64| highest < id) {
            return Ok(());
        }
        let is_one = "SELECT EXISTS (SELECT 1 FROM leftovers WHERE first BETWEEN ?1 AND ?2 AND last >= ?2)";
        if self.connection.prepare_cached(is_one)?.query_row([begin, id], |row| row.get(0))? {
            self.delete_made([id, id])?;
        }
        Ok(())
    }
    /// Deletes what was made of messages; the number of rows.
    pub(crate) fn delete_made(&self, ids: [i64; 2]) -> Result<usize, IndexError> {
        let mut deleted = self.delete_answers(ids)?;
        for table in TABLES {
            let delete = format!("DELETE FROM {table} WHERE id BETWEEN ?1 AND ?2");
            deleted += self.connection.prepare_cached(&delete)?.execute(ids)?;
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MailboxId, ModSeq, Uid,
        testing::{self, two_mailboxes_of_three},
    };

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }
    fn make(change: &mut Change<'_>, mailbox: MailboxId, number: u32) {
        let bytes = [u8::try_from(number).unwrap(); 3];
        change.insert_rendered(mailbox, uid(number), [&bytes, &bytes, &bytes]).unwrap();
        change.insert_summary(mailbox, uid(number), &bytes).unwrap();
        change.insert_preview(mailbox, uid(number), "Hello").unwrap();
        let kind = change.keep_fields("x-mailer", 8).unwrap();
        change.insert_answer(mailbox, uid(number), kind, &bytes).unwrap();
    }
    fn rows(index: &UserIndex) -> [i64; 5] {
        ["rendered", "previews", "summaries", "answers", "leftovers"]
            .map(|table| index.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap())
    }

    #[test]
    fn what_was_made_of_expunged_messages_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, b) = two_mailboxes_of_three(&mut change);
        for (mailbox, number) in [(a, 1), (a, 2), (a, 3), (b, 2)] {
            make(&mut change, mailbox, number);
        }
        change.expunge_between(a, (uid(1), uid(2)), ModSeq::new(2).unwrap()).unwrap();
        change.expunge(b, uid(1), ModSeq::new(2).unwrap()).unwrap();
        change.commit().unwrap();
        let leftovers = index.leftovers(10).unwrap();
        assert_eq!((rows(&index), index.leftovers(1).unwrap()), ([4, 4, 4, 4, 2], leftovers[..1].to_vec()));
        let mut sweep = |leftovers: &[Leftover], most| {
            let mut change = index.begin().unwrap();
            let rest = change.sweep(leftovers, most).unwrap();
            change.commit().unwrap();
            (rest, rows(&index))
        };
        let (rest, now) = sweep(&leftovers, 2);
        assert_eq!((rest.len(), now), (2, [3, 3, 3, 3, 2]), "so many at a time");
        assert_eq!(sweep(&leftovers[..1], 2), (vec![], [3, 3, 3, 3, 2]), "that run is another now");
        assert_eq!(sweep(&rest, 100), (vec![], [2, 2, 2, 2, 0]), "what belongs to others stays");
        let mut found = Vec::new();
        let reader = index.reader().unwrap();
        [a, b].into_iter().for_each(|mailbox| reader.summaries(mailbox, &[uid(2), uid(3)], &mut |uid, _| found.push(uid.get())).unwrap());
        assert_eq!(found, [3, 2]);

        let mut change = index.begin().unwrap();
        change.expunge(a, uid(3), ModSeq::new(3).unwrap()).unwrap();
        change.delete_mailbox(a).unwrap();
        change.commit().unwrap();
        assert_eq!(rows(&index), [1, 1, 1, 1, 0], "a mailbox goes with all that is left");
        index.connection.execute("INSERT INTO leftovers VALUES (1, 2, 3)", []).unwrap();
        assert!(index.leftovers(10).unwrap_err().needs_rebuild());
    }

    #[test]
    fn an_id_that_comes_again_has_nothing_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (a, _) = two_mailboxes_of_three(&mut change);
        (1..=3).for_each(|number| make(&mut change, a, number));
        change.expunge_between(a, (uid(1), uid(3)), ModSeq::new(2).unwrap()).unwrap();
        change.commit().unwrap();
        let mut change = index.begin().unwrap();
        change.insert_message(a, &testing::message(2)).unwrap();
        change.commit().unwrap();
        let mut found = Vec::new();
        let reader = index.reader().unwrap();
        reader.rendered(a, &[uid(2)], &mut |_, _| found.push("rendered")).unwrap();
        reader.summaries(a, &[uid(2)], &mut |_, _| found.push("summary")).unwrap();
        found.extend(reader.previews(a, &[uid(2)]).unwrap().into_iter().flatten().map(|_| "preview"));
        assert_eq!((found, rows(&index)), (vec![], [2, 2, 2, 2, 1]));

        // Expunged again while its first run is still there.
        let mut change = index.begin().unwrap();
        change.insert_message(a, &testing::message(1)).unwrap();
        make(&mut change, a, 1);
        change.expunge(a, uid(1), ModSeq::new(3).unwrap()).unwrap();
        change.commit().unwrap();
        assert_eq!(rows(&index), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn many_messages_apart_are_expunged_in_linear_time() {
        let spent = |count: u32| {
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let mut index = UserIndex::open(folder.path()).unwrap();
            let mut change = index.begin().unwrap();
            let id = change.insert_mailbox(&testing::mailbox("")).unwrap();
            for number in 1..=2 * count {
                change.insert_message(id, &testing::message(number)).unwrap();
                change.insert_rendered(id, uid(number), [b"e", b"b", &[b'h'; 1500]]).unwrap();
            }
            change.commit().unwrap();
            let before = cpu_time();
            let mut change = index.begin().unwrap();
            (1..=count).for_each(|number| change.expunge(id, uid(2 * number), ModSeq::new(9).unwrap()).unwrap());
            change.join().unwrap();
            index.commit().unwrap();
            assert_eq!(index.messages(id).unwrap().len(), usize::try_from(count).unwrap());
            cpu_time() - before
        };
        // Eight times as many take eight times as long; with a walk over all that was changed for each of them it was 40 times.
        let ratios = (0..3).map(|_| spent(4_000) / spent(500).max(1));
        assert!(ratios.into_iter().any(|ratio| ratio < 16), "more than linear");
    }

    /// Nanoseconds that this thread had a processor: other work on the machine does not count.
    fn cpu_time() -> u64 {
        let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        spent.split(' ').next().unwrap().parse().unwrap()
    }
}
