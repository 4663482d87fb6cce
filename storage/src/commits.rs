//! The connection that writes the index. Changes that come together share one commit: whoever comes last commits for all of them.
//!
//! Invariants, each with the test that guards it:
//! - a change is durable when its caller goes on (`changes_that_come_together_share_one_commit`)
//! - many who open mailboxes share commits (`whoever_reads_what_nobody_changes_ends_no_commit`)
//! - a change that fails takes nothing away from those it shares a commit with (`a_change_that_fails_leaves_the_others_alone`), unless SQLite undoes all
//!   of them: then each is told the same reason (`those_who_share_a_commit_that_sqlite_undid_are_told_why`,
//!   `what_a_failing_read_undoes_is_not_told_to_be_durable`)

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use index::{Change, IndexError, UserIndex};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// Changes of one commit: the first of them waits no longer than so many take.
const GROUP_MAX: usize = 256;
/// How long to wait for whoever was coming: a change that panics commits for nobody.
const PATIENCE: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Commits {
    writer: Mutex<Writer>,
    /// Those who wait for the connection.
    coming: AtomicUsize,
    settled: Condvar,
}

#[derive(Debug)]
struct Writer {
    index: Option<UserIndex>,
    group: Arc<Group>,
    joined: usize,
}

/// What became of a commit, for all who take part in it.
#[derive(Debug, Default)]
struct Group(OnceLock<Result<(), IndexError>>);

/// Why a change did not become durable.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The index was closed.
    Closed,
    /// The change itself, or the commit that others took part in.
    Index(IndexError),
}

impl Commits {
    pub fn new(index: UserIndex) -> Commits {
        let writer = Writer { index: Some(index), group: Arc::default(), joined: 0 };
        Commits { writer: Mutex::new(writer), coming: AtomicUsize::new(0), settled: Condvar::new() }
    }
    /// Makes what `work` changes durable. `may_commit` is asked right before each commit.
    pub fn change<T>(
        &self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, IndexError>,
        may_commit: impl Fn() -> Result<(), IndexError>,
    ) -> Result<T, Failure> {
        let mut writer = self.come();
        let Some(index) = writer.index.as_mut() else { return Err(Failure::Closed) };
        let answer = index.begin().and_then(|mut change| {
            let answer = work(&mut change)?;
            change.join()?;
            Ok(answer)
        });
        match &answer {
            Ok(_) => writer.joined += 1,
            Err(error) => self.tell_if_undone(&mut writer, error),
        }
        let group = Arc::clone(&writer.group);
        while group.0.get().is_none() && writer.joined > 0 {
            if self.coming.load(Ordering::SeqCst) == 0 || writer.joined >= GROUP_MAX {
                writer.commit(&may_commit);
                self.settled.notify_all();
            } else if answer.is_err() {
                break; // whoever comes commits for the others
            } else if self.settled.wait_for(&mut writer, PATIENCE).timed_out() && group.0.get().is_none() {
                writer.commit(&may_commit);
                self.settled.notify_all();
            }
        }
        let answer = answer.map_err(Failure::Index)?;
        match group.0.get() {
            Some(Ok(())) => Ok(answer),
            Some(Err(error)) => Err(Failure::Index(error.again())),
            None => Err(Failure::Closed),
        }
    }
    /// The index, with nothing under way. `None`: it was closed.
    pub fn with<T>(
        &self,
        work: impl FnOnce(&mut UserIndex) -> Result<T, IndexError>,
        may_commit: impl Fn() -> Result<(), IndexError>,
    ) -> Option<Result<T, IndexError>> {
        let mut writer = self.come();
        if writer.joined > 0 {
            writer.commit(&may_commit);
            self.settled.notify_all();
        }
        writer.index.as_mut().map(work)
    }
    /// The index, maybe in the middle of a commit: for reading what those who share it don't change. They don't wait for whoever comes here.
    pub fn read<T>(&self, work: impl FnOnce(&UserIndex) -> Result<T, IndexError>) -> Option<Result<T, IndexError>> {
        let mut writer = self.writer.lock();
        let answer = work(writer.index.as_ref()?);
        if let Err(error) = &answer {
            self.tell_if_undone(&mut writer, error);
        }
        Some(answer)
    }
    /// After an error that may have ended the transaction, and with it what others did in it: reading can do that as well, where pages have to be written to
    /// make room for others.
    fn tell_if_undone(&self, writer: &mut Writer, error: &IndexError) {
        let is_undone = writer.index.as_ref().is_none_or(|index| !index.is_changing());
        if is_undone && writer.joined > 0 {
            writer.settle(Err(error.again()));
            self.settled.notify_all();
        }
    }
    /// Goes on with another index.
    pub fn put(&self, index: UserIndex) {
        self.writer.lock().index = Some(index);
    }
    /// Takes the index away; what is under way is lost.
    pub fn take(&self) -> Option<UserIndex> {
        let mut writer = self.writer.lock();
        let index = writer.index.take();
        writer.joined = 0;
        writer.group = Arc::default();
        self.settled.notify_all();
        index
    }
    fn come(&self) -> MutexGuard<'_, Writer> {
        self.coming.fetch_add(1, Ordering::SeqCst);
        let writer = self.writer.lock();
        self.coming.fetch_sub(1, Ordering::SeqCst);
        writer
    }
}

impl Writer {
    fn commit(&mut self, may_commit: impl Fn() -> Result<(), IndexError>) {
        let Some(index) = self.index.as_mut() else { return };
        let result = may_commit().and_then(|()| index.commit());
        if result.is_err() {
            index.rollback();
        }
        self.settle(result);
    }
    fn settle(&mut self, result: Result<(), IndexError>) {
        self.group.0.set(result).unwrap_or_default();
        self.group = Arc::default();
        self.joined = 0;
    }
}

#[cfg(test)]
mod tests {
    use index::{FlagSet, IndexReader, MailboxId, MessageRecord, ModSeq, Uid};

    use super::*;

    fn commits(folder: &std::path::Path) -> (Commits, IndexReader) {
        let index = UserIndex::open(folder).unwrap();
        let reader = index.reader().unwrap();
        (Commits::new(index), reader)
    }
    fn insert(change: &mut Change<'_>, number: u32) -> Result<(), IndexError> {
        let uid = Uid::new(number).unwrap();
        let record = MessageRecord {
            uid,
            flags: FlagSet::EMPTY,
            modseq: ModSeq::MIN,
            size: 1,
            disk_size: 1,
            internal_date: 1,
            save_date: 1,
            file: format!("cur/{number}"),
        };
        change.insert_message(MailboxId::NEW, &record)?;
        change.insert_rendered(MailboxId::NEW, uid, [b"e", b"b", b"h"])
    }
    fn committed(reader: &IndexReader) -> Vec<u32> {
        let mut found = Vec::new();
        let all: Vec<Uid> = (1..=300).filter_map(Uid::new).collect();
        reader.rendered(MailboxId::NEW, &all, &mut |uid, _| found.push(uid.get())).unwrap();
        found
    }

    #[test]
    fn changes_that_come_together_share_one_commit() {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (commits, _reader) = commits(folder.path());
        let asked = AtomicUsize::new(0);
        let may_commit = || {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        std::thread::scope(|scope| {
            let busy = commits.writer.lock();
            for number in 1..=20 {
                let (commits, folder) = (&commits, folder.path());
                let may_commit = &may_commit;
                scope.spawn(move || {
                    commits.change(|change| insert(change, number), may_commit).unwrap();
                    let reader = commits.with(|index| index.reader(), || Ok(())).unwrap().unwrap();
                    assert!(committed(&reader).contains(&number), "durable in {}", folder.display());
                });
            }
            while commits.coming.load(Ordering::SeqCst) < 20 {
                std::thread::yield_now();
            }
            drop(busy);
        });
        assert!(asked.load(Ordering::SeqCst) < 10, "{asked:?} commits for 20 changes that came together");
    }

    #[test]
    fn whoever_reads_what_nobody_changes_ends_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        let (commits, reader) = commits(folder.path());
        {
            let mut writer = commits.writer.lock();
            let mut change = writer.index.as_mut().unwrap().begin().unwrap();
            insert(&mut change, 1).unwrap();
            change.join().unwrap();
            writer.joined = 1;
        }
        commits.read(|_| Ok(())).unwrap().unwrap();
        assert!(commits.writer.lock().joined == 1 && committed(&reader).is_empty());
        commits.with(|_| Ok(()), || Ok(())).unwrap().unwrap();
        assert_eq!(committed(&reader), [1]);
    }

    #[test]
    fn what_a_failing_read_undoes_is_not_told_to_be_durable() {
        let folder = tempfile::tempdir().unwrap();
        let (commits, reader) = commits(folder.path());
        std::thread::scope(|scope| {
            let commits = &commits;
            // One that comes and does not get its turn: the change waits for it.
            commits.coming.fetch_add(1, Ordering::SeqCst);
            let waiting = scope.spawn(|| commits.change(|change| insert(change, 1), || Ok(())));
            while commits.writer.lock().joined == 0 {
                std::thread::yield_now();
            }
            let lose = |index: &UserIndex| {
                index.lose_all_for_test()?;
                Err::<(), _>(IndexError::Full)
            };
            assert!(matches!(commits.read(lose), Some(Err(IndexError::Full))));
            commits.coming.fetch_sub(1, Ordering::SeqCst);
            commits.change(|change| insert(change, 2), || Ok(())).unwrap();
            let waited = waiting.join().unwrap();
            assert!(matches!(waited, Err(Failure::Index(IndexError::Full))), "{waited:?}");
        });
        assert_eq!(committed(&reader), [2]);
    }

    #[test]
    fn a_change_that_fails_leaves_the_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (commits, reader) = commits(folder.path());
        std::thread::scope(|scope| {
            let busy = commits.writer.lock();
            for number in 1..=20 {
                let commits = &commits;
                scope.spawn(move || {
                    let change = |change: &mut Change<'_>| {
                        insert(change, number)?;
                        if number.is_multiple_of(2) { Err(IndexError::Busy) } else { Ok(()) }
                    };
                    assert_eq!(commits.change(change, || Ok(())).is_ok(), !number.is_multiple_of(2));
                });
            }
            while commits.coming.load(Ordering::SeqCst) < 20 {
                std::thread::yield_now();
            }
            drop(busy);
        });
        assert_eq!(committed(&reader), (1..=20).filter(|number| number % 2 == 1).collect::<Vec<_>>());
    }

    #[test]
    fn those_who_share_a_commit_that_sqlite_undid_are_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let (commits, reader) = commits(folder.path());
        commits.change(|change| insert(change, 300), || Ok(())).unwrap();
        let begun = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let commits = &commits;
            let small = scope.spawn(|| {
                commits.change(
                    |change| {
                        insert(change, 1)?;
                        begun.fetch_add(1, Ordering::SeqCst);
                        // Whoever comes meanwhile shares the commit.
                        while commits.coming.load(Ordering::SeqCst) == 0 {
                            std::thread::yield_now();
                        }
                        Ok(())
                    },
                    || Ok(()),
                )
            });
            while begun.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let lose = |change: &mut Change<'_>| {
                insert(change, 2)?;
                change.lose_all_for_test()?;
                Err::<(), _>(IndexError::Full)
            };
            let large = commits.change(lose, || Ok(()));
            assert!(matches!(large, Err(Failure::Index(IndexError::Full))), "{large:?}");
            let small = small.join().unwrap();
            assert!(matches!(small, Err(Failure::Index(IndexError::Full))), "{small:?}");
        });
        assert_eq!(committed(&reader), [300]);
    }

    #[test]
    fn a_commit_that_may_not_be_made_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (commits, reader) = commits(folder.path());
        assert!(matches!(commits.change(|change| insert(change, 1), || Err(IndexError::Busy)), Err(Failure::Index(IndexError::Busy))));
        commits.change(|change| insert(change, 2), || Ok(())).unwrap();
        assert_eq!(committed(&reader), [2]);
        commits.take().unwrap();
        assert!(matches!(commits.change(|change| insert(change, 3), || Ok(())), Err(Failure::Closed)));
    }
}
