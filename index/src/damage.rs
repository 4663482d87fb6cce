//! Any damage of the file is noticed, or changes nothing that is read.

use std::{fs, path::Path};

use rand_like::Random;

use super::{testing::mailbox, *};

/// Everything that an index says.
type Said = Vec<(MailboxRecord, (Option<Contents>, Vec<MessageRecord>), Vec<(Uid, Vec<u8>)>, Vec<Uid>, Vec<(u32, String)>)>;

fn fill(folder: &Path) {
    let mut index = UserIndex::open(folder).unwrap();
    let mut change = index.begin().unwrap();
    let uid = |number| Uid::new(number).unwrap();
    for name in ["", ".Archive"] {
        let id =
            change.insert_mailbox(&MailboxRecord { uid_next: 400, highest_modseq: ModSeq::new(500).unwrap(), ..mailbox(name) }).unwrap();
        change.set_keywords(id, &["$Junk".to_owned(), "todo".to_owned()]).unwrap();
        for number in 1..=40 {
            let record = MessageRecord {
                uid: uid(number),
                flags: FlagSet::of(&[Flag::Seen]),
                modseq: ModSeq::new(u64::from(number) + 1).unwrap(),
                size: 1000,
                disk_size: 1000,
                internal_date: 1_763_748_000 + i64::from(number),
                save_date: 1_763_748_000,
                file: format!("cur/1763748000.M1763748000000000N{number}E7.node-a,S=1000,W=1000,U={number}:2,S"),
            };
            change.insert_message(id, &record).unwrap();
            change.insert_rendered(id, uid(number), [&[b'e'; 150], &[b'b'; 90], &vec![b'h'; if number == 7 { 9000 } else { 60 }]]).unwrap();
        }
        let kind = change.keep_fields("x-mailer", 8).unwrap();
        for number in 1..=40 {
            change.insert_summary(id, uid(number), &[b's'; 120]).unwrap();
            change.insert_answer(id, uid(number), kind, &[b'x'; 30]).unwrap();
        }
        for number in 1..8 {
            change.set_flags(id, uid(number), FlagSet::EMPTY, ModSeq::new(300).unwrap()).unwrap();
            change.insert_removal(id, &format!("cur/{number}")).unwrap();
            change.insert_uidl(id, uid(number), &format!("uidl-{number}")).unwrap();
            change.expunge(id, uid(20 + number), ModSeq::new(400).unwrap()).unwrap();
        }
    }
    change.commit().unwrap();
    index.close().unwrap();
}

fn read(folder: &Path) -> Result<Said, IndexError> {
    let index = UserIndex::open(folder)?;
    let reader = index.reader()?;
    let mut said = Said::new();
    for record in index.mailboxes()? {
        let id = record.id;
        let mut messages = Vec::new();
        let contents = index.contents(id, &mut |_| true, &mut |message| messages.push(message.clone()))?;
        let mut rendered = Vec::new();
        // Nobody asks for what an expunged message was, whose row a damaged page may bring back.
        let uids: Vec<Uid> = messages.iter().map(|message| message.uid).collect();
        reader.rendered(id, &uids, &mut |uid, row| rendered.push((uid, [row.envelope, row.body_structure, row.headers].concat())))?;
        reader.summaries(id, &uids, &mut |uid, summary| rendered.push((uid, summary.to_vec())))?;
        for (kind, _) in index.asked_fields()? {
            reader.answers(id, kind, &uids, &mut |uid, fields| rendered.push((uid, fields.to_vec())))?;
        }
        said.push((record, (contents, messages), rendered, reader.expunged_since(id, 0)?, reader.uidls(id)?));
    }
    Ok(said)
}

/// `BERTH_TESTS_DAMAGE=50` looks at fifty times as many places.
fn rounds() -> usize {
    std::env::var("BERTH_TESTS_DAMAGE").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// What was made of a message, and is missing, is made again; everything else must be as it was, or an error.
fn assert_noticed(folder: &Path, whole: &Said, what: &str) -> bool {
    match read(folder) {
        Err(error) => {
            assert!(error.is_lost(), "{what}: {error}");
            true
        }
        Ok(said) => {
            assert_eq!(said.len(), whole.len(), "{what}");
            for (now, before) in said.iter().zip(whole) {
                let same = (&now.0, &now.1, &now.3, &now.4) == (&before.0, &before.1, &before.3, &before.4);
                assert!(same, "{what}: something else was read than was written");
                assert!(now.2.iter().all(|row| before.2.contains(row)), "{what}");
            }
            false
        }
    }
}

#[test]
fn whatever_byte_is_damaged_nothing_wrong_is_read() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    fill(folder.path());
    let database = folder.path().join("index.db");
    let (bytes, whole) = (fs::read(&database).unwrap(), read(folder.path()).unwrap());
    let mut random = Random::new();
    // The header of the file, and of every page with its first pointers; then anywhere.
    let mut places: Vec<usize> = (0..100).collect();
    let headers = || (0..bytes.len()).step_by(4096).flat_map(|page| (0..14).map(move |byte| page + byte));
    (0..rounds()).for_each(|_| places.extend(headers()));
    places.extend((0..700 * rounds()).map(|_| random.below(bytes.len())));
    let mut noticed = 0;
    for place in places {
        let mut damaged = bytes.clone();
        damaged[place] ^= u8::try_from(1 + random.below(255)).unwrap();
        fs::write(&database, &damaged).unwrap();
        noticed += usize::from(assert_noticed(folder.path(), &whole, &format!("byte {place}, seed {}", random.seed)));
        for file in ["index.db-wal", "index.db-journal"] {
            fs::remove_file(folder.path().join(file)).unwrap_or_default();
        }
    }
    assert!(noticed > 300, "only {noticed} were noticed: the test damages nothing that matters");
    for _ in 0..30 {
        let length = random.below(bytes.len());
        fs::write(&database, &bytes[..length]).unwrap();
        if length > 0 {
            let noticed = assert_noticed(folder.path(), &whole, &format!("cut to {length}, seed {}", random.seed));
            // The end of the last page may hold nothing.
            assert!(noticed || length.div_ceil(4096) == bytes.len() / 4096, "cut to {length}, seed {}", random.seed);
        }
        let mut zeroed = bytes.clone();
        let page = random.below(bytes.len() / 4096) * 4096;
        zeroed[page..page + 4096].fill(0);
        fs::write(&database, &zeroed).unwrap();
        assert_noticed(folder.path(), &whole, &format!("page at {page} zeroed, seed {}", random.seed));
    }
}

/// A generator of numbers whose seed is printed.
mod rand_like {
    use std::hash::{BuildHasher, RandomState};

    pub struct Random {
        pub seed: u64,
        state: u64,
    }
    impl Random {
        pub fn new() -> Random {
            let seed = RandomState::new().hash_one(0_u8) | 1;
            Random { seed, state: seed }
        }
        /// xorshift64.
        pub fn below(&mut self, end: usize) -> usize {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            usize::try_from(self.state % u64::try_from(end).unwrap()).unwrap()
        }
    }
}
