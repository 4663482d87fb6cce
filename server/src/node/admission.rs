//! Who may connect: connections are counted in all, by address, and before login.
//!
//! Sessions of one user are counted at the holder (`forward::held`), so that the number is exact over all nodes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// So many addresses may have an equal part of the connections that have not logged in.
const SHARES: usize = 32;

/// Counts connections.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Those that have not logged in.
    strangers: Crowd,
    /// Of them, those whose password is being checked: they wait for us.
    in_check: Crowd,
    next: u64,
}

/// Connections by age and address, and the token of each that tells it to make room.
#[derive(Debug, Default)]
struct Crowd {
    tokens: BTreeMap<u64, (IpAddr, CancellationToken)>,
    /// Never empty for an address; higher numbers are younger.
    of_address: HashMap<IpAddr, BTreeSet<u64>>,
    /// Every address, by how many it has; among equals, the one whose oldest is the oldest of all comes last.
    order: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

impl Crowd {
    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn insert(&mut self, address: IpAddr, number: u64, room_wanted: CancellationToken) {
        self.tokens.insert(number, (address, room_wanted));
        self.change(address, |own| _ = own.insert(number));
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<CancellationToken> {
        let (_, room_wanted) = self.tokens.remove(&number)?;
        self.change(address, |own| _ = own.remove(&number));
        Some(room_wanted)
    }

    /// Takes out the oldest of the address that has most, if these are more than `share`; the oldest of all otherwise.
    fn pop(&mut self, share: usize) -> Option<CancellationToken> {
        let (most, Reverse(number), address) = *self.order.last()?;
        if most > share {
            return self.remove(address, number);
        }
        let (number, (address, _)) = self.tokens.first_key_value()?;
        self.remove(*address, *number)
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let own = self.of_address.entry(address).or_default();
        let place = |own: &BTreeSet<u64>| own.first().map(|oldest| (own.len(), Reverse(*oldest), address));
        if let Some(before) = place(own) {
            self.order.remove(&before);
        }
        change(own);
        match place(own) {
            Some(after) => _ = self.order.insert(after),
            None => drop(self.of_address.remove(&address)),
        }
    }
}

/// A counted connection, until dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    address: Option<IpAddr>,
}

/// A connection that has not logged in, until dropped.
#[derive(Debug)]
pub struct Stranger {
    admission: Admission,
    address: IpAddr,
    number: u64,
    room_wanted: CancellationToken,
}

/// A stranger whose password is being checked, until dropped.
#[derive(Debug)]
#[must_use = "the check is over when the guard is dropped"]
pub struct InCheck {
    admission: Admission,
    address: IpAddr,
    number: u64,
}

/// The address that limits count: an IPv6 address is counted with its /64, one host has all of that.
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

impl Admission {
    /// Counts a connection in, unless the node is full.
    pub fn admit(&self, max: usize) -> Result<Admitted, &'static str> {
        let mut counts = self.counts.lock();
        if counts.all >= max {
            return Err("this node has as many connections as allowed (limits.connections)");
        }
        counts.all += 1;
        Ok(Admitted { admission: self.clone(), address: None })
    }

    /// Counts a connection from `address` that has yet to log in. Where there are `max` already, the oldest has to make room: whoever means to log in does so
    /// soon, and nobody who holds connections open can keep others out. Where an address has more than its share of `max`, that is its oldest: those of others
    /// stay. An office behind one address has fewer; who has thousands of addresses can't have it pay for them. Of those whose password is being checked none has to, unless they are half of all: a flood of guesses makes honest checks wait, and these must not be cut meanwhile.
    pub fn stranger(&self, address: IpAddr, max: usize) -> Stranger {
        self.stranger_again(address, max, CancellationToken::new())
    }

    /// The same for one that was somebody and is a stranger again, with the token that it listens to.
    pub fn stranger_again(&self, address: IpAddr, max: usize, room_wanted: CancellationToken) -> Stranger {
        let address = counted(address);
        let mut counts = self.counts.lock();
        let number = counts.next;
        counts.next += 1;
        counts.strangers.insert(address, number, room_wanted.clone());
        let gives_way = if counts.strangers.len() + counts.in_check.len() <= max {
            None
        } else if counts.strangers.len() > max / 2 {
            counts.strangers.pop(max / SHARES)
        } else {
            counts.in_check.pop(max / SHARES)
        };
        drop(counts);
        if let Some(gives_way) = gives_way {
            gives_way.cancel();
        }
        Stranger { admission: self.clone(), address, number, room_wanted }
    }

    /// Connections at present.
    pub fn count(&self) -> usize {
        self.counts.lock().all
    }
}

impl Admitted {
    /// Counts it for its client's address, unless that has as many as allowed.
    pub fn count_for(&mut self, address: IpAddr, max: usize) -> Result<(), &'static str> {
        let address = counted(address);
        let mut counts = self.admission.counts.lock();
        let own = counts.by_address.entry(address).or_default();
        if *own >= max {
            return Err("this address has as many connections as allowed (limits.connections_per_address)");
        }
        *own += 1;
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.all = counts.all.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(own) = counts.by_address.get_mut(&address)
        {
            *own = own.saturating_sub(1);
            if *own == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

impl Stranger {
    /// Cancelled when it has to make room.
    pub fn room_wanted(&self) -> CancellationToken {
        self.room_wanted.clone()
    }

    /// Its password is being checked until the guard is dropped.
    pub fn in_check(&self) -> InCheck {
        let mut counts = self.admission.counts.lock();
        if let Some(room_wanted) = counts.strangers.remove(self.address, self.number) {
            counts.in_check.insert(self.address, self.number, room_wanted);
        }
        drop(counts);
        InCheck { admission: self.admission.clone(), address: self.address, number: self.number }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        drop(counts.strangers.remove(self.address, self.number));
        drop(counts.in_check.remove(self.address, self.number));
    }
}

impl Drop for InCheck {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        if let Some(room_wanted) = counts.in_check.remove(self.address, self.number) {
            counts.strangers.insert(self.address, self.number, room_wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn connections_are_counted_in_all_and_by_address() {
        let admission = Admission::default();
        let admit = |address: &str, max: usize, per_address: usize| {
            let mut admitted = admission.admit(max)?;
            admitted.count_for(address.parse().unwrap(), per_address).map(|()| admitted)
        };
        let first = admit("192.0.2.1", 3, 2).unwrap();
        let _second = admit("::ffff:192.0.2.1", 3, 2).unwrap();
        assert!(admit("192.0.2.1", 3, 2).unwrap_err().contains("connections_per_address"), "the mapped form is the same address");
        let a = admit("2001:db8::1", 3, 2).unwrap();
        assert!(admit("192.0.2.2", 3, 2).unwrap_err().contains("limits.connections)"), "the node is full");
        drop(first);
        assert!(admit("192.0.2.1", 3, 2).is_ok());
        drop(a);
        assert_eq!(admission.count(), 1);
        let _b = admit("2001:db8::2", 9, 1).unwrap();
        assert!(admit("2001:db8::ffff", 9, 1).is_err(), "one /64 is one address");
    }

    #[test]
    fn the_oldest_stranger_makes_room_for_the_newest() {
        let admission = Admission::default();
        let mut strangers: Vec<Stranger> = (0..3).map(|_| admission.stranger(HERE, 3)).collect();
        let tokens: Vec<CancellationToken> = strangers.iter().map(Stranger::room_wanted).collect();
        let logged_in = strangers.remove(0);
        drop(logged_in);
        let _fourth = admission.stranger(HERE, 3);
        assert!(!tokens.iter().any(CancellationToken::is_cancelled), "who has logged in is no stranger");
        let _fifth = admission.stranger(HERE, 3);
        assert_eq!(tokens.iter().map(CancellationToken::is_cancelled).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn the_address_with_most_strangers_makes_room() {
        const MAX: usize = 2 * SHARES;
        let admission = Admission::default();
        let address = |host: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, host));
        let cut = |stranger: &Stranger| stranger.room_wanted().is_cancelled();
        let alone = admission.stranger(address(1), MAX);
        let crowd: Vec<Stranger> = (1..MAX).map(|_| admission.stranger(address(2), MAX)).collect();
        let _newest = admission.stranger(address(3), MAX);
        assert!(!cut(&alone) && cut(&crowd[0]) && !cut(&crowd[1]), "the oldest of those who are many");
        drop(crowd);
        // Two each are their share: whoever has very many addresses pays with the oldest as everybody does.
        let office: Vec<Stranger> = (0..2).map(|_| admission.stranger(address(4), MAX)).collect();
        let others: Vec<Stranger> = (0..60).map(|host| admission.stranger(address(100 + host), MAX)).collect();
        let _one_more = admission.stranger(address(200), MAX);
        assert!(cut(&alone) && !office.iter().chain(&others).any(cut), "the oldest of all");
        let counts = admission.counts.lock();
        assert_eq!((counts.strangers.tokens.len(), counts.strangers.order.len()), (MAX, MAX - 1));
        assert_eq!(counts.strangers.of_address.len(), MAX - 1, "addresses that have nobody any more are forgotten");
    }

    #[test]
    fn whose_password_is_being_checked_makes_no_room_unless_half_are() {
        let admission = Admission::default();
        let strangers: Vec<Stranger> = (0..6).map(|_| admission.stranger(HERE, 6)).collect();
        let cut = |strangers: &[Stranger]| strangers.iter().map(|stranger| stranger.room_wanted().is_cancelled()).collect::<Vec<_>>();
        let checks: Vec<InCheck> = strangers.iter().take(2).map(Stranger::in_check).collect();
        let newer: Vec<Stranger> = (0..1).map(|_| admission.stranger(HERE, 6)).collect();
        assert_eq!(cut(&strangers), [false, false, true, false, false, false], "the oldest of those who keep us waiting");
        drop(checks);
        let _newest = admission.stranger(HERE, 6);
        assert_eq!(cut(&strangers), [true, false, true, false, false, false], "the check is over");
        let _checks: Vec<InCheck> = strangers.iter().chain(&newer).map(Stranger::in_check).collect();
        let _one_more = admission.stranger(HERE, 6);
        assert_eq!(cut(&strangers), [true, true, true, false, false, false], "guesses keep nobody out either");
    }
}
