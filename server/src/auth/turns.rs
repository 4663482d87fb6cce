//! Turns to compute a password hash: a few at once, and those who wait take turns by address, so that whoever guesses from one address waits for
//! themselves. Within an address, first come, first served.
//!
//! Invariants, each with the test that guards it:
//! - of many who wait at one address and one at another, the one is next but one at most (`an_address_with_many_waiting_delays_no_other`)
//! - where too many wait, the address with most of them gives way (`when_too_many_wait_the_fullest_address_gives_way`)
//! - a turn is handed on, whatever becomes of those who have or want it (`no_turn_is_lost`)

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::source::bounded::Busy;
use crate::node::admission::counted;

/// Lets a few compute at once.
#[derive(Debug)]
pub struct Turns {
    queue: Arc<Mutex<Queue>>,
    waiting_max: usize,
    wait_max: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    free: usize,
    waiting: usize,
    next_number: u64,
    /// Never empty for an address; numbers rise.
    of_address: HashMap<IpAddr, VecDeque<(u64, oneshot::Sender<Turn>)>>,
    /// Every address that waits, once; the first is next.
    order: VecDeque<IpAddr>,
}

/// The right to compute, until dropped.
#[derive(Debug)]
#[must_use = "the turn is over when it is dropped"]
pub struct Turn {
    /// `None`: handed on already.
    queue: Option<Arc<Mutex<Queue>>>,
}

impl Turns {
    /// `at_once` compute, `waiting_max` wait for at most `wait_max`.
    pub fn new(at_once: usize, waiting_max: usize, wait_max: Duration) -> Turns {
        Turns { queue: Arc::new(Mutex::new(Queue { free: at_once, ..Queue::default() })), waiting_max, wait_max }
    }

    /// Waits for a turn. IPv6: a /64 is one address.
    pub async fn enter(&self, address: IpAddr) -> Result<Turn, Busy> {
        let address = counted(address);
        let (waiting, turn) = {
            let mut queue = self.queue.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Ok(Turn { queue: Some(Arc::clone(&self.queue)) });
            }
            if queue.waiting >= self.waiting_max && !queue.make_room(address) {
                return Err(Busy);
            }
            let (sender, turn) = oneshot::channel();
            let number = queue.join(address, sender);
            (Waiting { queue: &self.queue, address, number }, turn)
        };
        let outcome = timeout(self.wait_max, turn).await;
        drop(waiting);
        // The sender is dropped where somebody had to give way.
        outcome.map_err(|_| Busy)?.map_err(|_| Busy)
    }

    /// Turns that are free now.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.queue.lock().free
    }

    /// Who waits now.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }
}

impl Queue {
    fn join(&mut self, address: IpAddr, sender: oneshot::Sender<Turn>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        let own = self.of_address.entry(address).or_default();
        if own.is_empty() {
            self.order.push_back(address);
        }
        own.push_back((number, sender));
        number
    }

    /// Whoever is next, out of the queue.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let address = self.order.pop_front()?;
        let own = self.of_address.get_mut(&address)?;
        let first = own.pop_front();
        if own.is_empty() {
            self.of_address.remove(&address);
        } else {
            self.order.push_back(address);
        }
        self.waiting -= usize::from(first.is_some());
        first.map(|(_, sender)| sender)
    }

    /// Takes somebody out who waits no more; nothing where it was their turn.
    fn leave(&mut self, address: IpAddr, number: u64) {
        let Some(own) = self.of_address.get_mut(&address) else { return };
        let Ok(place) = own.binary_search_by_key(&number, |(number, _)| *number) else { return };
        own.remove(place);
        self.waiting -= 1;
        self.forget_if_empty(address);
    }

    /// Sends the last one away of the address with most who wait, unless `address` would then have as many.
    fn make_room(&mut self, address: IpAddr) -> bool {
        let own = self.of_address.get(&address).map_or(0, VecDeque::len);
        let Some((fullest, most)) = self.of_address.iter().map(|(address, own)| (*address, own.len())).max_by_key(|(_, most)| *most) else {
            return false;
        };
        if most <= own + 1 {
            return false;
        }
        let gone = self.of_address.get_mut(&fullest).and_then(VecDeque::pop_back);
        self.waiting -= usize::from(gone.is_some());
        self.forget_if_empty(fullest);
        gone.is_some()
    }

    fn forget_if_empty(&mut self, address: IpAddr) {
        if self.of_address.get(&address).is_some_and(VecDeque::is_empty) {
            self.of_address.remove(&address);
            self.order.retain(|waiting| *waiting != address);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        loop {
            let next = {
                let mut queue = queue.lock();
                let next = queue.next();
                queue.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn { queue: Some(Arc::clone(&queue)) }) {
                Ok(()) => return,
                // They gave up this moment: on to the next, in this loop instead of one more call for each.
                Err(mut back) => back.queue = None,
            }
        }
    }
}

/// Somebody in the queue; whoever gives up leaves it.
struct Waiting<'a> {
    queue: &'a Mutex<Queue>,
    address: IpAddr,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.lock().leave(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn address(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
    }

    /// Who gets a turn, in order, when each gives it back at once, and how many get none: `waiting` ask in this order while the one turn is taken.
    async fn order(waiting_max: usize, waiting: &[u8]) -> (Vec<u8>, usize) {
        let turns = Arc::new(Turns::new(1, waiting_max, WAIT));
        let first = turns.enter(address(0)).await.unwrap();
        let (told, mut outcomes) = tokio::sync::mpsc::unbounded_channel();
        for n in waiting.iter().copied() {
            let (turns, told) = (Arc::clone(&turns), told.clone());
            tokio::spawn(async move { told.send((n, turns.enter(address(n)).await.map(drop))).unwrap() });
        }
        drop(told);
        // Everybody asks before the turn is free.
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(first);
        let (mut got, mut refused) = (Vec::new(), 0);
        while let Some((n, outcome)) = outcomes.recv().await {
            match outcome {
                Ok(()) => got.push(n),
                Err(Busy) => refused += 1,
            }
        }
        assert_eq!((turns.free(), turns.waiting()), (1, 0));
        let queue = turns.queue.lock();
        assert!(queue.of_address.is_empty() && queue.order.is_empty(), "{queue:?}");
        drop(queue);
        (got, refused)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_many_waiting_delays_no_other() {
        let mut waiting = vec![1; 100];
        waiting.extend([2, 3, 2]);
        let (got, refused) = order(1_000, &waiting).await;
        assert_eq!((&got[..7], got.len(), refused), (&[1, 2, 3, 1, 2, 1, 1][..], 103, 0));
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(counted(v6("2001:db8::1")), counted(v6("2001:db8::2")), "one host has all of a /64");
    }

    #[tokio::test(start_paused = true)]
    async fn when_too_many_wait_the_fullest_address_gives_way() {
        let mut waiting = vec![1; 10];
        waiting.extend([2, 3]);
        let (got, refused) = order(4, &waiting).await;
        // Six of the first find no room, two make room for others.
        assert_eq!((refused, got.iter().filter(|n| **n == 1).count()), (8, 2));
        assert!(got.contains(&2) && got.contains(&3), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_turn_is_lost() {
        let turns = Turns::new(2, 100, WAIT);
        let (one, two) = (turns.enter(address(1)).await.unwrap(), turns.enter(address(1)).await.unwrap());
        assert_eq!(turns.enter(address(2)).await.err(), Some(Busy), "nobody waits for ever");
        {
            let gives_up = turns.enter(address(2));
            tokio::pin!(gives_up);
            assert!(futures::poll!(&mut gives_up).is_pending());
            // It is given the turn, and never comes to take it.
            drop(one);
            assert_eq!(turns.free(), 0);
        }
        assert_eq!((turns.free(), turns.waiting()), (1, 0));
        drop(two);
        assert_eq!(turns.free(), 2);
    }
}
