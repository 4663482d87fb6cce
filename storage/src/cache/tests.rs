//! The cache as its callers see it, and what happens to its files meanwhile.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
};

use tempfile::TempDir;

use super::*;
use segment::{HEADER_BYTES, room_for};

/// Of each of the 16 segments.
const SEGMENT_BYTES: u64 = 16 * 1024;
const BYTES: u64 = SEGMENT_BYTES * SEGMENTS as u64;
/// Three of the contents below fit into a segment.
const CONTENT_BYTES: usize = 5_000;
const PER_SEGMENT: u32 = 3;

fn folder() -> TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    folder
}
fn open(folder: &TempDir) -> Cache {
    open_as(folder, BYTES, "cluster")
}
/// Whoever had it open lets go of it a moment after it is dropped.
fn open_as(folder: &TempDir, bytes: u64, scope: &str) -> Cache {
    for _ in 0..6_000 {
        match Cache::open(folder.path(), bytes, scope) {
            Err(CacheError::InUse(_)) => thread::sleep(std::time::Duration::from_millis(10)),
            opened => {
                let cache = opened.unwrap();
                cache.settle();
                return cache;
            }
        }
    }
    panic!("still in use");
}
fn key(number: u32) -> Key {
    Key(u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}
fn content(number: u32) -> Vec<u8> {
    (0_u32..).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(97)).to_le_bytes()[0]).take(CONTENT_BYTES).collect()
}
fn keep(cache: &Cache, number: u32) {
    cache.keep(key(number), &content(number));
    cache.settle();
}
fn files(folder: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-")));
    files.sort();
    files
}

#[test]
fn what_was_kept_is_found_after_a_restart() {
    let folder = folder();
    let cache = open(&folder);
    (0..10).for_each(|number| keep(&cache, number));
    drop(cache);
    for restart in 0..3 {
        let cache = open(&folder);
        for number in 0..10 + restart {
            assert_eq!(cache.get(key(number)), Some(content(number)), "{number}");
        }
        // It goes on where it was.
        keep(&cache, 10 + restart);
    }
    let other = open_as(&folder, BYTES, "another cluster");
    assert!((0..13).all(|number| other.get(key(number)).is_none()), "what another cluster kept says nothing here");
    drop(other);
    let larger = open_as(&folder, BYTES * 2, "cluster");
    assert!((0..13).all(|number| larger.get(key(number)).is_none()), "another size begins anew");
}

#[test]
fn the_second_reading_is_kept_and_not_the_first() {
    let folder = folder();
    let cache = open(&folder);
    for (reading, found) in [(1, false), (2, true), (3, true)] {
        cache.offer(key(1), &content(1));
        cache.settle();
        assert_eq!(cache.get(key(1)).is_some(), found, "{reading}");
    }
    let figures = cache.figures();
    assert_eq!((figures.found, figures.missed, figures.kept, figures.bytes_found), (2, 1, 1, 2 * CONTENT_BYTES as u64));
    cache.keep(key(2), &vec![0; ENTRY_BYTES_MAX + 1]);
    cache.settle();
    assert_eq!(cache.get(key(2)), None, "too large");
}

#[test]
fn whatever_byte_is_damaged_the_right_bytes_or_none_are_found() {
    let folder = folder();
    let path = folder.path().join("segment");
    let scope = Scope::of("cluster");
    let short = b"Subject: x\r\n\r\nHello\r\n";
    let segment = Segment::open(path.clone(), SEGMENT_BYTES, scope).unwrap();
    let first = segment.begin(7).unwrap();
    let one = segment.write(first, key(1), short).unwrap();
    let two = segment.write(first + room_for(short.len()), key(2), short).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let is_sound = || segment.read(one, key(1)).unwrap().as_deref() == Some(short);
    assert!(is_sound() && segment.read(two, key(2)).unwrap().is_some());
    assert_eq!(segment.read(one, key(2)).unwrap(), None, "an entry says whose it is");
    assert_eq!(segment.read(Place { generation: 6, ..one }, key(1)).unwrap(), None, "and when it was written");
    for at in 0..first + HEADER_BYTES as u64 + short.len() as u64 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        for bit in 0..8 {
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            if at < first {
                let again = Segment::open(path.clone(), SEGMENT_BYTES, scope).unwrap();
                assert_eq!(again.generation(), 0, "byte {at} of the file's header");
            } else {
                assert_eq!(segment.read(one, key(1)).unwrap(), None, "byte {at}");
            }
            segment
                .each(&mut |found, place| {
                    assert!((found, place) == (key(1), one) || (found, place) == (key(2), two), "byte {at}: {found:?} {place:?}");
                    true
                })
                .unwrap();
        }
        file.write_all_at(&byte, at).unwrap();
    }
    assert!(is_sound());
}

#[test]
fn a_damaged_entry_is_forgotten_and_kept_anew() {
    let folder = folder();
    let cache = open(&folder);
    keep(&cache, 1);
    let file = File::options().write(true).open(&files(&folder)[0]).unwrap();
    file.write_all_at(b"?", 64 + HEADER_BYTES as u64 + 100).unwrap();
    assert_eq!(cache.get(key(1)), None);
    keep(&cache, 1);
    assert_eq!(cache.get(key(1)), Some(content(1)));
    assert!(!cache.figures().off);
}

#[test]
fn it_takes_what_it_was_given_and_no_more() {
    let folder = folder();
    let cache = open(&folder);
    let taken = || -> (u64, u64) {
        let found = files(&folder);
        assert_eq!(found.len(), SEGMENTS);
        let of = |path: &PathBuf| fs::metadata(path).map(|found| (found.len(), found.blocks() * 512)).unwrap();
        found.iter().map(of).fold((0, 0), |(bytes, space), (more, blocks)| (bytes + more, space + blocks))
    };
    let (bytes, space) = taken();
    assert!(bytes == BYTES && space >= BYTES, "all of its space is taken at once: {bytes} {space}");
    for path in files(&folder) {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }
    let many = PER_SEGMENT * 40;
    (0..many).for_each(|number| keep(&cache, number));
    assert_eq!(taken(), (bytes, space));
    // Looked up, not read: what is read is copied forward.
    let found = |cache: &Cache| (0..many).filter(|number| cache.shared.place(key(*number)).is_some()).count();
    let there = found(&cache);
    assert!(there >= PER_SEGMENT as usize * (SEGMENTS - 1) && there <= PER_SEGMENT as usize * SEGMENTS, "{there}");
    drop(cache);
    assert_eq!(taken(), (bytes, space));
    let cache = open(&folder);
    assert_eq!(found(&cache), there, "and after a restart");
    assert!((many - 5..many).all(|number| cache.get(key(number)) == Some(content(number))));
}

#[test]
fn what_is_read_now_and_then_stays_and_the_rest_goes() {
    let folder = folder();
    let cache = open(&folder);
    (0..2).for_each(|number| keep(&cache, number));
    for number in 2..PER_SEGMENT * 60 {
        keep(&cache, number);
        if number % PER_SEGMENT == 0 {
            assert_eq!(cache.get(key(1)), Some(content(1)), "after {number}");
            cache.settle();
        }
    }
    assert_eq!(cache.get(key(0)), None);
    let written = cache.figures().kept;
    assert!(written < u64::from(PER_SEGMENT) * 60 + 10, "it is copied once in a round, not with each reading: {written}");
}

#[test]
fn files_that_are_cut_or_removed_in_use_are_misses() {
    let folder = folder();
    let cache = open(&folder);
    let right_or_none = |number: u32| cache.get(key(number)).is_none_or(|found| found == content(number));
    (0..20).for_each(|number| keep(&cache, number));
    for (round, length) in [0, 1, 63, 64, 100, 5_000, SEGMENT_BYTES - 1].into_iter().enumerate() {
        for path in files(&folder) {
            File::options().write(true).open(path).unwrap().set_len(length).unwrap();
        }
        assert!((0..20).all(right_or_none), "cut to {length}");
        let number = 100 + u32::try_from(round).unwrap();
        keep(&cache, number);
        assert!(right_or_none(number));
    }
    for path in files(&folder) {
        fs::remove_file(path).unwrap();
    }
    assert!((0..20).all(right_or_none));
    // Who went round once has files again, all of them whole.
    (1_000..1_000 + PER_SEGMENT * 20).for_each(|number| keep(&cache, number));
    assert_eq!(files(&folder).len(), SEGMENTS);
    assert!(files(&folder).iter().all(|path| fs::metadata(path).unwrap().len() == SEGMENT_BYTES));
    let last = 1_000 + PER_SEGMENT * 20 - 1;
    assert_eq!(cache.get(key(last)), Some(content(last)));
    drop(cache);
    // Nor does anything that lies there keep it from opening.
    for (number, path) in files(&folder).into_iter().enumerate() {
        let rubbish = vec![0xff; if number % 2 == 0 { 10 } else { usize::try_from(SEGMENT_BYTES).unwrap() }];
        fs::write(path, rubbish).unwrap();
    }
    let cache = open(&folder);
    assert_eq!(cache.get(key(last)), None);
    keep(&cache, 1);
    assert_eq!(cache.get(key(1)), Some(content(1)));
}

#[test]
fn readers_beside_the_writer_find_the_right_bytes_or_none() {
    let folder = folder();
    let cache = open(&folder);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = false;
                while !last {
                    // Once more when everything is written: then something is found.
                    last = done.load(Ordering::SeqCst);
                    for number in 0..PER_SEGMENT * 100 {
                        assert!(cache.get(key(number)).is_none_or(|found| found == content(number)), "{number}");
                    }
                }
            });
        }
        for number in (0..PER_SEGMENT * 100).cycle().take(3_000) {
            cache.keep(key(number), &content(number));
            if number % 16 == 0 {
                cache.settle();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(cache.figures().found > 0);
}

#[test]
fn a_second_process_goes_without() {
    let folder = folder();
    let cache = open(&folder);
    keep(&cache, 1);
    let refused = Cache::open(folder.path(), BYTES, "cluster").unwrap_err();
    assert!(matches!(refused, CacheError::InUse(_)), "{refused}");
    assert_eq!(cache.get(key(1)), Some(content(1)), "the first one keeps what it has");
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let refused = Cache::open(folder.path(), BYTES, "cluster").unwrap_err();
    assert!(matches!(refused, CacheError::InUse(_)), "also when all of its files were removed: {refused}");
    drop(cache);
    open(&folder);
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let folder = folder();
    for mode in [0o770, 0o702] {
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let refused = Cache::open(folder.path(), BYTES, "cluster").unwrap_err();
        assert!(matches!(refused, CacheError::NotOurs(_)), "{refused}");
    }
    let made = folder.path().join("deep/below");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    Cache::open(&made, BYTES, "cluster").unwrap();
    assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_disk_without_room_says_so_and_is_left_as_it_was() {
    let folder = folder();
    let file = File::create(folder.path().join("other")).unwrap();
    // More than any disk of a test machine has.
    let refused = segments(folder.path(), 1 << 55, Scope::of("cluster")).unwrap_err();
    assert!(matches!(refused, CacheError::Io { .. }), "{refused}");
    drop(file);
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

#[test]
fn a_cache_that_fails_is_off_and_says_nothing_more() {
    let folder = folder();
    let cache = open(&folder);
    keep(&cache, 1);
    fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(cache.get(key(1)), Some(content(1)), "the file is still open");
    // The next segment would have to be made anew.
    (2..10).for_each(|number| keep(&cache, number));
    assert!(cache.figures().off);
    assert!((0..10).all(|number| cache.get(key(number)).is_none()));
    cache.offer(key(1), &content(1));
    cache.settle();
}

#[test]
fn a_stop_before_all_is_found_overwrites_nothing() {
    let folder = folder();
    let cache = open(&folder);
    (0..2).for_each(|number| keep(&cache, number));
    drop(cache);
    // Its writer may hold the folder a moment longer.
    drop(open(&folder));
    let shared = (0..6_000).find_map(|_| match Shared::open(folder.path(), BYTES, "cluster") {
        Err(CacheError::InUse(_)) => {
            thread::sleep(std::time::Duration::from_millis(10));
            None
        }
        opened => Some(Arc::new(opened.unwrap())),
    });
    let shared = shared.unwrap();
    let (orders, waiting) = sync_channel(1);
    orders.send(Order::Keep(key(9), content(9).into())).unwrap();
    drop(orders);
    shared.stopping.store(true, Ordering::SeqCst);
    Writer::new(Arc::clone(&shared)).run(&waiting);
    drop(shared);
    let cache = open(&folder);
    (0..2).for_each(|number| assert_eq!(cache.get(key(number)), Some(content(number)), "{number}"));
}

#[test]
fn files_of_others_are_made_anew() {
    let folder = folder();
    let path = folder.path().join("segment");
    let open = || Segment::open(path.clone(), SEGMENT_BYTES, Scope::of("cluster")).unwrap();
    let filled = || open().begin(7).map(|_| assert_eq!(open().generation(), 7)).unwrap();
    let is_made_anew = || {
        assert_eq!(open().generation(), 0);
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o777, found.nlink(), found.uid()), (0o600, 1, rustix::process::geteuid().as_raw()));
    };
    for mode in [0o620, 0o602, 0o640] {
        filled();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        is_made_anew();
    }
    filled();
    fs::hard_link(&path, folder.path().join("another name")).unwrap();
    is_made_anew();
    if rustix::process::geteuid().is_root() {
        filled();
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        is_made_anew();
    }
}

#[test]
fn a_file_that_cant_be_made_costs_no_other() {
    let folder = folder();
    let cache = open(&folder);
    (0..10).for_each(|number| keep(&cache, number));
    drop(cache);
    drop(open(&folder));
    let last = files(&folder).pop().unwrap();
    fs::remove_file(&last).unwrap();
    fs::create_dir(&last).unwrap();
    let refused = segments(folder.path(), SEGMENT_BYTES, Scope::of("cluster")).unwrap_err();
    assert!(matches!(refused, CacheError::Io { .. }), "{refused}");
    fs::remove_dir(&last).unwrap();
    let cache = open(&folder);
    (0..10).for_each(|number| assert_eq!(cache.get(key(number)), Some(content(number)), "{number}"));
}
