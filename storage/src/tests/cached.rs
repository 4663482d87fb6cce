//! An account with the local cache: what is read from where, and that nothing old is ever served.

use affinity::Handover;
use index::{FlagSet, UidValidity};

use super::*;
use crate::{Cache, CacheError, CreateOptions, filesystem::Filesystem as _};

/// A message file as Berth would have named it, of a time long past.
const NAME: &str = "1763748000.M1763748001000042N7E3.node-a";

/// A user on a node with a cache. Nodes have caches of their own.
struct Cached {
    user: User,
    folders: [tempfile::TempDir; 2],
    cache: Option<Arc<Cache>>,
}

impl Cached {
    fn new() -> Cached {
        Cached { user: User::new(), folders: [folder_in_memory(), folder_in_memory()], cache: None }
    }
    /// Node 0 or 1 opens the account, after a restart.
    fn open(&mut self, node: usize, handover: Handover) -> Held {
        drop(self.user.settings.cache.take());
        drop(self.cache.take());
        let cache = Arc::new(self.open_cache(node));
        cache.settle();
        self.cache = Some(Arc::clone(&cache));
        self.user.settings.cache = Some(cache);
        self.user.settings.node = ["node-a", "node-b"][node].parse().unwrap();
        self.user.open(handover)
    }
    /// An account that was abandoned lets go of it a moment later.
    fn open_cache(&self, node: usize) -> Cache {
        for _ in 0..1_000 {
            match Cache::open(self.folders[node].path(), 64 << 20, "cluster") {
                Err(CacheError::InUse(_)) => std::thread::sleep(Duration::from_millis(10)),
                opened => return opened.unwrap(),
            }
        }
        panic!("the cache of node {node} is still in use");
    }
    /// The message, and how many files were looked at for it.
    fn read(&self, mailbox: &Mailbox, number: u32) -> (Vec<u8>, u64) {
        let before = self.user.faulty.looks();
        let bytes = mailbox.open_message(uid(number)).unwrap().read_all().unwrap();
        let looks = self.user.faulty.looks() - before;
        if let Some(cache) = &self.cache {
            cache.settle();
        }
        (bytes, looks)
    }
    /// Reads it until it comes from the cache.
    fn warm(&self, mailbox: &Mailbox, number: u32, expected: &[u8]) {
        for looks in [1, 1, 0, 0] {
            assert_eq!(self.read(mailbox, number), (expected.to_vec(), looks), "message {number} of {}", mailbox.name());
        }
    }
}

fn close(held: Held) {
    held.account.close().unwrap();
}
/// Drops a message into `cur/` of a folder, as another program may.
fn drop_in(folder: &std::path::Path, file: &str, bytes: &[u8]) {
    std::fs::write(folder.join("cur").join(file), bytes).unwrap();
}
/// A message of the same size for each letter.
fn letter(letter: char) -> Vec<u8> {
    message(&letter.to_string())
}

#[test]
fn a_body_that_is_read_again_comes_from_the_cache() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    let inbox = held.inbox();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    site.warm(&inbox, 1, &message("one"));
    let mut part = [0; 8];
    assert_eq!(inbox.open_message(uid(1)).unwrap().read_at(6, &mut part).unwrap(), 8);
    assert_eq!(part, message("one")[6..14]);
    // Flags and names change, the message does not.
    inbox.store(&[uid(1)], crate::StoreOperation::Add(FlagSet::of(&[index::Flag::Seen])), None).unwrap();
    held.run_background_work().unwrap();
    assert_eq!(site.read(&inbox, 1), (message("one"), 0));
    drop(inbox);
    close(held);

    let held = site.open(0, Handover::Clean);
    assert_eq!(site.read(&held.inbox(), 1), (message("one"), 0), "after a restart");
    drop(held);
    let held = site.open(1, Handover::Unclean);
    site.warm(&held.inbox(), 1, &message("one"));
    drop(held);
    // Without a file nothing is looked for: what was told is served until the removal is noticed, as it was before.
    site.user.settings.cache = None;
    site.cache = None;
    let held = site.user.open(Handover::Unclean);
    assert_eq!(site.read(&held.inbox(), 1), (message("one"), 1), "without a cache");
}

#[test]
fn repaired_line_ends_are_kept_as_they_are_sent() {
    let mut site = Cached::new();
    drop(site.open(0, Handover::Clean));
    drop_in(&site.user.maildir(), &format!("{NAME},S=17,W=20,U=1:2,"), b"Subject: a\n\nb\nc d");
    let held = site.open(0, Handover::Unclean);
    site.warm(&held.inbox(), 1, b"Subject: a\r\n\r\nb\r\nc d");
}

#[test]
fn a_name_that_is_used_again_is_another_message() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    let inbox = held.inbox();
    let size = letter('a').len();
    for (number, (name, what)) in [(NAME, 'a'), (NAME, 'b'), (NAME, 'c'), ("1.x.host", 'd'), ("1.x.host", 'e')].into_iter().enumerate() {
        let number = u32::try_from(number).unwrap() + 1;
        drop_in(&site.user.maildir(), &format!("{name},S={size},W={size}:2,"), &letter(what));
        inbox.refresh(true).unwrap();
        if name == NAME {
            site.warm(&inbox, number, &letter(what));
        } else {
            // Too young to be kept: its name may be used again within the second that its dates say.
            (0..4).for_each(|_| assert_eq!(site.read(&inbox, number), (letter(what), 1)));
        }
        inbox.remove(&[uid(number)]).unwrap();
        held.run_background_work().unwrap();
    }
}

#[test]
fn a_mailbox_that_is_made_again_has_nothing_of_the_old_one() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    let size = letter('a').len();
    let file = format!("{NAME},S={size},W={size},U=1:2,");
    let mut validities: Vec<UidValidity> = Vec::new();
    for (round, what) in ['a', 'b', 'c', 'd'].into_iter().enumerate() {
        held.create(&name("Lists"), CreateOptions::default()).unwrap();
        let lists = held.open("Lists");
        drop_in(&site.user.maildir().join(".Lists"), &file, &letter(what));
        lists.refresh(true).unwrap();
        site.warm(&lists, 1, &letter(what));
        validities.push(lists.uid_validity());
        if round % 2 == 0 {
            held.delete(&name("Lists")).unwrap();
        } else {
            let elsewhere = name(&format!("Old {round}"));
            held.rename(&name("Lists"), &elsewhere).unwrap();
            assert_eq!(site.read(&held.open(elsewhere.as_str()), 1).0, letter(what));
        }
    }
    validities.dedup();
    assert_eq!(validities.len(), 4);
}

#[test]
fn a_user_who_is_made_anew_has_nothing_of_the_one_before() {
    let mut site = Cached::new();
    for subject in ["a", "b", "c"] {
        let held = site.open(0, Handover::Unclean);
        let inbox = held.inbox();
        append(&inbox, subject, FlagSet::EMPTY).unwrap();
        site.warm(&inbox, 1, &message(subject));
        // And one by another program, under the same name each time.
        drop_in(&site.user.maildir(), "1.x.host:2,", &message(&subject.repeat(3)));
        inbox.refresh(true).unwrap();
        (0..4).for_each(|_| assert_eq!(site.read(&inbox, 2).0, message(&subject.repeat(3))));
        drop(inbox);
        drop(held);
        site.user.faulty.remove_folder(&site.user.maildir()).unwrap();
        site.user.delete_index();
    }
}

#[test]
fn what_another_node_changed_is_never_served_as_it_was() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    let inbox = held.inbox();
    for subject in ["one", "two"] {
        append(&inbox, subject, FlagSet::EMPTY).unwrap();
    }
    site.warm(&inbox, 1, &message("one"));
    site.warm(&inbox, 2, &message("two"));
    drop(inbox);
    close(held);
    for (round, handover) in [Handover::Clean, Handover::Unclean].into_iter().enumerate() {
        let subject = format!("by b {round}");
        let held = site.open(1, handover);
        let inbox = held.inbox();
        if round == 0 {
            inbox.remove(&[uid(1)]).unwrap();
        }
        let added = append(&inbox, &subject, FlagSet::EMPTY).unwrap().uid.get();
        site.warm(&inbox, added, &message(&subject));
        drop(inbox);
        if handover == Handover::Clean {
            close(held)
        } else {
            site.user.die(held)
        }

        let held = site.open(0, handover);
        let inbox = held.inbox();
        assert!(matches!(inbox.open_message(uid(1)), Err(StorageError::Expunged)));
        assert_eq!(site.read(&inbox, 2), (message("two"), 0));
        site.warm(&inbox, added, &message(&subject));
        drop(inbox);
        close(held);
    }
}

#[test]
fn what_was_rendered_is_not_rendered_again_without_the_index() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    let expected = held.inbox().rendered(&[uid(1)]).unwrap();
    let preview = held.inbox().previews(&[uid(1)], true).unwrap();
    close(held);
    for (round, looks) in [1, 0, 0].into_iter().enumerate() {
        site.user.delete_index();
        let held = site.open(0, Handover::Clean);
        let inbox = held.inbox();
        let before = site.user.faulty.looks();
        assert_eq!(inbox.rendered(&[uid(1)]).unwrap(), expected);
        assert_eq!(inbox.previews(&[uid(1)], true).unwrap(), preview);
        assert_eq!(site.user.faulty.looks() - before, looks, "round {round}");
        site.cache.as_ref().unwrap().settle();
        drop(inbox);
        close(held);
    }
}

#[test]
fn what_another_length_gave_is_not_kept() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    let expected = held.inbox().rendered(&[uid(1)]).unwrap();
    held.run_background_work().unwrap();
    close(held);
    let folder = site.user.maildir();
    let found = ["cur", "new"].into_iter().flat_map(|part| std::fs::read_dir(folder.join(part)).unwrap());
    let path = found.map(|entry| entry.unwrap().path()).next().unwrap();
    let sound = std::fs::read(&path).unwrap();
    for (bytes, is_sound) in [(message("what another program wrote"), false), (sound, true)] {
        site.user.delete_index();
        std::fs::write(&path, bytes).unwrap();
        let held = site.open(0, Handover::Clean);
        let inbox = held.inbox();
        assert_eq!(inbox.rendered(&[uid(1)]).unwrap() == expected, is_sound);
        site.cache.as_ref().unwrap().settle();
        drop(inbox);
        close(held);
    }
}

#[test]
fn a_cache_in_trouble_is_nobodys_error() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    let inbox = held.inbox();
    for number in 1..=8 {
        append(&inbox, &format!("message {number}"), FlagSet::EMPTY).unwrap();
        site.warm(&inbox, number, &message(&format!("message {number}")));
    }
    let files: Vec<PathBuf> = std::fs::read_dir(site.folders[0].path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in files {
        std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    }
    for _ in 0..4 {
        for number in 1..=8 {
            assert_eq!(site.read(&inbox, number).0, message(&format!("message {number}")));
        }
    }
    std::fs::remove_dir_all(site.folders[0].path()).unwrap();
    for number in 1..=8 {
        assert_eq!(site.read(&inbox, number).0, message(&format!("message {number}")));
    }
}

#[test]
fn a_large_message_is_left_to_the_file_server() {
    let mut site = Cached::new();
    let held = site.open(0, Handover::Clean);
    let inbox = held.inbox();
    let add = |bytes: usize| {
        let mut staged = inbox.stage(0).unwrap();
        let mut message = b"Subject: x\r\n\r\n".to_vec();
        message.resize(bytes, b'x');
        staged.write(&message).unwrap();
        (inbox.append(staged, FlagSet::EMPTY, None).unwrap().uid.get(), message)
    };
    let (largest, message) = add(256 * 1024);
    site.warm(&inbox, largest, &message);
    let (larger, message) = add(256 * 1024 + 1);
    (0..4).for_each(|_| assert_eq!(site.read(&inbox, larger), (message.clone(), 1)));
}
