//! Wrong passwords cost time: the delay of an address and of a user doubles with each.
//!
//! Invariants, each with the test that guards it:
//! - each failure doubles the delay of its address and its user, up to the longest (`each_failure_doubles_the_delay`)
//! - a success ends it (`a_success_ends_the_delay`)
//! - the table is bounded, whatever is tried (`the_table_is_bounded`)
//!
//! A delay counts from the last failure: who comes back later than that waits for nothing. Loopback addresses have no delay of their own,
//! since a webmail server there speaks for all its users.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Entries kept: about 10 MiB. When full, the half that failed longest ago goes.
const ENTRIES_MAX: usize = 100_000;
/// After this long without a failure, earlier ones don't count.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);
/// Longer names are cut: the table must stay small.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// IPv6: the /64, which one customer has.
    Address(IpAddr),
    /// As normalised; what can't be a user is not counted.
    User(String),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// The failures of late.
#[derive(Debug, Default)]
pub struct Penalty {
    failures: Mutex<HashMap<Key, Failures>>,
}

/// Delays as configured.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Penalty {
    /// How long an attempt must wait now.
    pub fn delay(&self, address: IpAddr, user: Option<&str>, delays: Delays) -> Duration {
        let now = Instant::now();
        let failures = self.failures.lock();
        keys(address, user)
            .filter_map(|key| failures.get(&key))
            .map(|failures| {
                let doubled = 2u32.saturating_pow(failures.count.saturating_sub(1));
                let delay = delays.first.saturating_mul(doubled).min(delays.longest);
                delay.saturating_sub(now.saturating_duration_since(failures.last))
            })
            .max()
            .unwrap_or_default()
    }

    /// A wrong password.
    pub fn failed(&self, address: IpAddr, user: Option<&str>) {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        if failures.len() + 2 > ENTRIES_MAX {
            make_room(&mut failures, now);
        }
        for key in keys(address, user) {
            let entry = failures.entry(key).or_insert(Failures { count: 0, last: now });
            let forgotten = now.saturating_duration_since(entry.last) > FORGET_AFTER;
            entry.count = if forgotten { 1 } else { entry.count.saturating_add(1) };
            entry.last = now;
        }
    }

    /// A right password.
    pub fn succeeded(&self, address: IpAddr, user: Option<&str>) {
        let mut failures = self.failures.lock();
        for key in keys(address, user) {
            failures.remove(&key);
        }
    }
}

fn keys(address: IpAddr, user: Option<&str>) -> impl Iterator<Item = Key> {
    let address = match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    };
    let counts = !address.is_loopback() && address != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let user = user.map(|user| Key::User(user.chars().take(NAME_BYTES_MAX).collect()));
    counts.then_some(Key::Address(address)).into_iter().chain(user)
}

fn make_room(failures: &mut HashMap<Key, Failures>, now: Instant) {
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

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_the_delay() {
        let penalty = Penalty::default();
        let delay = || penalty.delay(ip("192.0.2.1"), Some("ada"), DELAYS).as_secs();
        assert_eq!(delay(), 0);
        for expected in [1, 2, 4, 8, 15, 15] {
            penalty.failed(ip("192.0.2.1"), Some("ada"));
            assert_eq!(delay(), expected);
        }
        assert_eq!(penalty.delay(ip("192.0.2.2"), Some("bob"), DELAYS), Duration::ZERO);
        assert_eq!(penalty.delay(ip("192.0.2.2"), Some("ada"), DELAYS).as_secs(), 15, "the user has it from any address");
        assert_eq!(penalty.delay(ip("192.0.2.1"), Some("bob"), DELAYS).as_secs(), 15, "the address has it for any user");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(delay(), 10, "it counts from the last failure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_the_delay() {
        let penalty = Penalty::default();
        penalty.failed(ip("192.0.2.1"), Some("ada"));
        penalty.succeeded(ip("192.0.2.1"), Some("ada"));
        assert_eq!(penalty.delay(ip("192.0.2.1"), Some("ada"), DELAYS), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_do_not_count() {
        let penalty = Penalty::default();
        for _ in 0..10 {
            penalty.failed(ip("192.0.2.1"), None);
        }
        tokio::time::advance(FORGET_AFTER + Duration::from_secs(1)).await;
        penalty.failed(ip("192.0.2.1"), None);
        assert_eq!(penalty.delay(ip("192.0.2.1"), None, DELAYS).as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_customer_is_one_address_and_loopback_is_none() {
        let penalty = Penalty::default();
        penalty.failed(ip("2001:db8::1"), None);
        assert_eq!(penalty.delay(ip("2001:db8::ffff"), None, DELAYS).as_secs(), 1);
        assert_eq!(penalty.delay(ip("2001:db8:0:1::1"), None, DELAYS).as_secs(), 0);
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            penalty.failed(ip(local), None);
            assert_eq!(penalty.delay(ip(local), None, DELAYS).as_secs(), 0, "{local}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let penalty = Penalty::default();
        for number in 0..150_000u32 {
            penalty.failed(IpAddr::V4(std::net::Ipv4Addr::from_bits(number | 0x0a00_0000)), Some(&number.to_string()));
            assert!(number % 1000 != 0 || penalty.failures.lock().len() <= ENTRIES_MAX);
        }
        assert!(penalty.failures.lock().len() <= ENTRIES_MAX);
    }
}
