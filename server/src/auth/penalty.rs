//! Wrong passwords cost time: the delay of an address and of a user doubles with each.
//!
//! Invariants, each with the test that guards it:
//! - each failure doubles the delay of its address and its user, up to the longest (`each_failure_doubles_the_delay`)
//! - a success ends it (`a_success_ends_the_delay`); of whoever got in there before, only what they owe themselves
//!   (`who_gets_in_again_and_again_pays_for_guesses_all_the_same`)
//! - the table is bounded, whatever is tried (`the_table_is_bounded`)
//! - who got in from an address before waits for nobody else there (`who_got_in_from_an_address_before_waits_for_nobody_there`)
//! - guesses from one address at the same time wait for one another (`guesses_side_by_side_wait_for_one_another`)
//! - what other nodes tell counts as if it had happened here, and is not told on (`failures_are_shared_and_not_told_on`)
//!
//! A delay counts from the last failure: who comes back later than that waits for nothing. This host's own addresses, 127.0.0.1 and ::1, have no
//! delay of their own, since a webmail server there speaks for all its users.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use moka::sync::Cache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::node::admission::counted;

/// Entries kept: about 10 MiB. When full, the half that failed longest ago goes.
const ENTRIES_MAX: usize = 100_000;
/// After this long without a failure, earlier ones don't count.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);
/// A user who got in from an address is not made to wait for others there for so long: a holiday.
const KNOWN_FOR: Duration = Duration::from_secs(14 * 24 * 3600);
/// Longer names are cut: the table must stay small.
const NAME_BYTES_MAX: usize = 64;

/// Attempts from one address within its delay: one after the other, so that many connections make no more guesses than a few. More than one, since behind
/// an address there may be others than who guesses.
const ATTEMPTS_PER_DELAY: u32 = 4;
/// Who would wait longer than so many of the longest delays is sent away without a check, after that time.
const WAIT_MAX_DELAYS: u32 = 2;

/// News kept for the other nodes, and taken from one at once: who guesses faster than this is slowed down by each node alone.
pub const NEWS_MAX: usize = 1_000;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// IPv6: the /64, which one customer has.
    Address(IpAddr),
    /// As normalised; what can't be a user is not counted.
    User(String),
}

/// News of one address or user, as nodes tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Of whom.
    pub of: Key,
    /// How many since the last news; 0: a success, earlier ones don't count any more, but what follows in the same news does.
    pub count: u32,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    count: u32,
    last: Instant,
    /// Whoever comes now waits until then at least: those before have their turns first.
    next: Instant,
}

/// What the other nodes were not told of yet.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    /// Earlier failures don't count any more.
    ended: bool,
    count: u32,
}

/// The failures of late.
#[derive(Debug)]
pub struct Penalty {
    failures: Mutex<HashMap<Key, Counted>>,
    news: Mutex<HashMap<Key, News>>,
    /// Who got in from where; names as their hash, so that it stays small.
    got_in: Cache<(IpAddr, u64), ()>,
    hasher: RandomState,
}

impl Default for Penalty {
    fn default() -> Penalty {
        Penalty {
            failures: Mutex::default(),
            news: Mutex::default(),
            got_in: Cache::builder().max_capacity(ENTRIES_MAX as u64).time_to_live(KNOWN_FOR).build(),
            hasher: RandomState::new(),
        }
    }
}

/// Delays as configured.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

/// What an attempt has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may be checked after this.
    After(Duration),
    /// Too many wait before it: it is refused after this, unchecked.
    Never(Duration),
}

impl Penalty {
    /// When an attempt may be checked, counted from now, and takes that place; the next from this address comes after it.
    pub fn turn(&self, address: Option<IpAddr>, user: Option<&str>, delays: Delays) -> Turn {
        let now = Instant::now();
        let patience = delays.longest.saturating_mul(WAIT_MAX_DELAYS);
        let address = address.filter(|address| !self.knows(*address, user));
        let mut failures = self.failures.lock();
        let mut wait = Duration::ZERO;
        for key in keys(address, user) {
            let Some(failed) = failures.get_mut(&key).filter(|failed| now.saturating_duration_since(failed.last) <= FORGET_AFTER) else {
                continue;
            };
            let doubled = 2u32.saturating_pow(failed.count.saturating_sub(1));
            let delay = delays.first.saturating_mul(doubled).min(delays.longest);
            let mut turn = failed.last + delay;
            if matches!(key, Key::Address(_)) {
                turn = turn.max(failed.next).max(now);
                if turn.duration_since(now) > patience {
                    return Turn::Never(patience);
                }
                failed.next = turn + delay / ATTEMPTS_PER_DELAY;
            }
            wait = wait.max(turn.saturating_duration_since(now));
        }
        Turn::After(wait)
    }

    /// A wrong password.
    pub fn failed(&self, address: IpAddr, user: Option<&str>) {
        for key in keys(Some(address), user) {
            self.count(key.clone(), 1);
            self.tell(key, |news| news.count = news.count.saturating_add(1));
        }
    }

    fn tell(&self, key: Key, change: impl FnOnce(&mut News)) {
        let mut news = self.news.lock();
        if news.len() < NEWS_MAX || news.contains_key(&key) {
            change(news.entry(key).or_default());
        }
    }

    fn count(&self, key: Key, more: u32) {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        if failures.len() >= ENTRIES_MAX {
            make_room(&mut failures, now);
        }
        let entry = failures.entry(key).or_insert(Counted { count: 0, last: now, next: now });
        let forgotten = now.saturating_duration_since(entry.last) > FORGET_AFTER;
        entry.count = if forgotten { more } else { entry.count.saturating_add(more) };
        entry.last = now;
    }

    /// What happened here since this was asked last.
    pub fn news(&self) -> Vec<Failures> {
        let counts = |News { ended, count }| ended.then_some(0).into_iter().chain((count > 0).then_some(count));
        let news = std::mem::take(&mut *self.news.lock()).into_iter();
        news.flat_map(|(of, news)| counts(news).map(move |count| Failures { of: of.clone(), count })).collect()
    }

    /// What happened on another node.
    pub fn hear(&self, heard: Vec<Failures>) {
        for Failures { of, count } in heard.into_iter().take(2 * NEWS_MAX) {
            match count {
                0 => drop(self.failures.lock().remove(&of)),
                count => self.count(of, count),
            }
        }
    }

    /// Whether this user got in from there of late.
    pub fn knows(&self, address: IpAddr, user: Option<&str>) -> bool {
        user.is_some_and(|user| self.got_in.contains_key(&(counted(address), self.hasher.hash_one(user))))
    }

    /// A right password. Whoever gets in from an address for the first time ends its delay, since many who work there may have to get in at once; who
    /// does so again ends what their own mistakes added: otherwise one account would be enough to guess the passwords of others without a delay.
    pub fn succeeded(&self, address: IpAddr, user: Option<&str>) {
        let again = self.knows(address, user);
        if let Some(user) = user {
            self.got_in.insert((counted(address), self.hasher.hash_one(user)), ());
        }
        let mut failures = self.failures.lock();
        // The user's before the address's: it says how many are theirs.
        let keys: Vec<Key> = keys(Some(address), user).collect();
        let mut own = 0;
        for key in keys.into_iter().rev() {
            // Most successes follow no failure: nobody needs to hear of those.
            let Some(failed) = failures.remove(&key) else { continue };
            let mut left = 0;
            match &key {
                Key::User(_) => own = failed.count,
                Key::Address(_) if again => left = failed.count.saturating_sub(own),
                Key::Address(_) => {}
            }
            if left > 0 {
                failures.insert(key.clone(), Counted { count: left, ..failed });
            }
            if left < failed.count {
                self.tell(key, |news| *news = News { ended: true, count: left });
            }
        }
    }
}

fn keys(address: Option<IpAddr>, user: Option<&str>) -> impl Iterator<Item = Key> {
    let address = address.filter(|address| !is_this_host(*address)).map(counted);
    let user = user.map(|user| Key::User(user.chars().take(NAME_BYTES_MAX).collect()));
    address.map(Key::Address).into_iter().chain(user)
}

/// Only these two: other addresses of 127.0.0.0/8 are no host's own unless it says so.
fn is_this_host(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST))
}

fn make_room(failures: &mut HashMap<Key, Counted>, now: Instant) {
    failures.retain(|_, entry| now.saturating_duration_since(entry.last) <= FORGET_AFTER);
    if failures.len() > ENTRIES_MAX / 2 {
        let mut times: Vec<Instant> = failures.values().map(|entry| entry.last).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        // Entries of the very same moment would all stay: then half of them go by turns.
        let mut turn = false;
        failures.retain(|_, entry| {
            turn = !turn;
            entry.last > median || (entry.last == median && turn)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYS: Delays = Delays { first: Duration::from_secs(1), longest: Duration::from_secs(15) };

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    /// How long a first attempt would wait; it takes no place.
    fn delay(penalty: &Penalty, address: &str, user: Option<&str>) -> Duration {
        let untouched = penalty.failures.lock().clone();
        let turn = penalty.turn(Some(ip(address)), user, DELAYS);
        *penalty.failures.lock() = untouched;
        let Turn::After(wait) = turn else { panic!("{turn:?}") };
        wait
    }

    #[tokio::test(start_paused = true)]
    async fn who_got_in_from_an_address_before_waits_for_nobody_there() {
        let penalty = Penalty::default();
        penalty.succeeded(ip("192.0.2.1"), Some("ada"));
        let mut guess = 0;
        while !matches!(penalty.turn(Some(ip("192.0.2.1")), Some("guest"), DELAYS), Turn::Never(_)) {
            penalty.failed(ip("192.0.2.1"), Some(&format!("guest{guess}")));
            guess += 1;
            assert!(guess < 1_000);
        }
        assert_eq!(penalty.turn(Some(ip("192.0.2.1")), Some("ada"), DELAYS), Turn::After(Duration::ZERO));
        assert!(matches!(penalty.turn(Some(ip("192.0.2.1")), Some("bob"), DELAYS), Turn::Never(_)), "who is not known there");
        penalty.failed(ip("192.0.2.9"), Some("ada"));
        assert_eq!(penalty.turn(Some(ip("192.0.2.1")), Some("ada"), DELAYS), Turn::After(DELAYS.first), "her own delay she has");
        tokio::time::advance(FORGET_AFTER + Duration::from_secs(1)).await;
        assert_eq!(penalty.turn(Some(ip("192.0.2.1")), Some("bob"), DELAYS), Turn::After(Duration::ZERO), "it is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_side_by_side_wait_for_one_another() {
        let penalty = Penalty::default();
        for _ in 0..10 {
            penalty.failed(ip("192.0.2.1"), None);
        }
        let turn = || penalty.turn(Some(ip("192.0.2.1")), Some("ada"), DELAYS);
        let waits: Vec<Turn> = (0..6).map(|_| turn()).collect();
        let after = |ms| Turn::After(Duration::from_millis(ms));
        let never = Turn::Never(Duration::from_secs(30));
        assert_eq!(waits, [after(15_000), after(18_750), after(22_500), after(26_250), after(30_000), never]);
        assert_eq!(penalty.turn(Some(ip("192.0.2.2")), Some("ada"), DELAYS), after(0), "other addresses wait for nothing");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(turn(), after(23_750), "places that passed are given again");
        penalty.succeeded(ip("192.0.2.1"), None);
        assert_eq!(turn(), after(0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_the_delay() {
        let penalty = Penalty::default();
        let delay = || delay(&penalty, "192.0.2.1", Some("ada")).as_secs();
        assert_eq!(delay(), 0);
        for expected in [1, 2, 4, 8, 15, 15] {
            penalty.failed(ip("192.0.2.1"), Some("ada"));
            assert_eq!(delay(), expected);
        }
        assert_eq!(super::tests::delay(&penalty, "192.0.2.2", Some("bob")), Duration::ZERO);
        assert_eq!(super::tests::delay(&penalty, "192.0.2.2", Some("ada")).as_secs(), 15, "the user has it from any address");
        assert_eq!(super::tests::delay(&penalty, "192.0.2.1", Some("bob")).as_secs(), 15, "the address has it for any user");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(delay(), 10, "it counts from the last failure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_the_delay() {
        let penalty = Penalty::default();
        penalty.failed(ip("192.0.2.1"), Some("ada"));
        penalty.succeeded(ip("192.0.2.1"), Some("ada"));
        assert_eq!(super::tests::delay(&penalty, "192.0.2.1", Some("ada")), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_in_again_and_again_pays_for_guesses_all_the_same() {
        let (here, there) = (Penalty::default(), Penalty::default());
        let address = ip("192.0.2.1");
        let delay = |penalty: &Penalty, user| delay(penalty, "192.0.2.1", Some(user)).as_secs();
        here.failed(address, Some("ada"));
        here.succeeded(address, Some("mallory"));
        assert_eq!(delay(&here, "bob"), 0, "the first time");
        for guess in ["one", "two", "three"] {
            here.failed(address, Some(guess));
            here.succeeded(address, Some("mallory"));
        }
        assert_eq!(delay(&here, "bob"), 4);
        // What they mistyped themselves is forgiven, here and on other nodes.
        there.hear(here.news());
        here.failed(address, Some("mallory"));
        there.hear(here.news());
        assert_eq!((delay(&here, "bob"), delay(&there, "bob")), (8, 8));
        here.succeeded(address, Some("mallory"));
        there.hear(here.news());
        assert_eq!((delay(&here, "bob"), delay(&there, "bob")), (4, 4));
        assert_eq!((delay(&here, "mallory"), delay(&there, "mallory")), (0, 4), "who got in where is not told");
        here.succeeded(address, Some("bob"));
        there.hear(here.news());
        assert_eq!((delay(&here, "new"), delay(&there, "new")), (0, 0), "many who work there get in");
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_do_not_count() {
        let penalty = Penalty::default();
        for _ in 0..10 {
            penalty.failed(ip("192.0.2.1"), None);
        }
        tokio::time::advance(FORGET_AFTER + Duration::from_secs(1)).await;
        penalty.failed(ip("192.0.2.1"), None);
        assert_eq!(super::tests::delay(&penalty, "192.0.2.1", None).as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_customer_is_one_address_and_loopback_is_none() {
        let penalty = Penalty::default();
        penalty.failed(ip("2001:db8::1"), None);
        assert_eq!(super::tests::delay(&penalty, "2001:db8::ffff", None).as_secs(), 1);
        assert_eq!(super::tests::delay(&penalty, "2001:db8:0:1::1", None).as_secs(), 0);
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            penalty.failed(ip(local), None);
            assert_eq!(super::tests::delay(&penalty, local, None).as_secs(), 0, "{local}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_shared_and_not_told_on() {
        let (here, there) = (Penalty::default(), Penalty::default());
        let delay = |penalty: &Penalty| delay(penalty, "192.0.2.1", Some("ada")).as_secs();
        for _ in 0..3 {
            here.failed(ip("192.0.2.1"), Some("ada"));
        }
        let news = here.news();
        assert_eq!((news.len(), here.news().len()), (2, 0), "told once");
        there.hear(serde_json::from_slice(&serde_json::to_vec(&news).unwrap()).unwrap());
        assert_eq!((delay(&here), delay(&there)), (4, 4));
        assert_eq!(there.news(), [], "what was heard is not told on");
        there.succeeded(ip("192.0.2.1"), Some("ada"));
        here.hear(there.news());
        assert_eq!((delay(&here), delay(&there)), (0, 0));
        there.succeeded(ip("192.0.2.1"), Some("ada"));
        assert_eq!(there.news(), [], "an ordinary login is no news");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let penalty = Penalty::default();
        for number in 0..150_000u32 {
            penalty.failed(IpAddr::V4(std::net::Ipv4Addr::from_bits(number | 0x0a00_0000)), Some(&number.to_string()));
            assert!(number % 1000 != 0 || penalty.failures.lock().len() <= ENTRIES_MAX);
        }
        assert!(penalty.failures.lock().len() <= ENTRIES_MAX);
        assert!(penalty.news().len() <= NEWS_MAX);
    }
}
