//! The thread that writes the cache: nobody else does, so no lock is held while the disk is waited for.

use std::{
    io,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
};

use super::{
    Key, Order, Shared,
    segment::{Segment, room_for},
    table::Place,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The segment that is being filled, and how far it is.
    current: usize,
    end: u64,
}

impl Writer {
    /// Goes on where the newest segment ends.
    pub fn new(shared: Arc<Shared>) -> Writer {
        let newest = (0..shared.segments.len()).max_by_key(|at| shared.segments.get(*at).map(Segment::generation));
        Writer { current: newest.unwrap_or(0), end: u64::MAX, shared }
    }

    /// Finds what is there, then does what it is told until nobody can tell it any more.
    pub fn run(mut self, orders: &Receiver<Order>) {
        if let Err(error) = self.find_entries() {
            self.shared.give_up("read", &error);
        }
        // Then the end may not have been found: what is kept now would be written over what is there.
        if self.shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        while let Ok(order) = orders.recv() {
            match order {
                Order::Keep(key, bytes) => {
                    if let Err(error) = self.keep(key, &bytes) {
                        self.shared.give_up("written", &error);
                    }
                }
                // Whoever waits may be gone.
                Order::Answer(answer) => answer.try_send(()).unwrap_or_default(),
            }
        }
    }

    /// Newest first: what was copied forward counts where it is now.
    fn find_entries(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut segments: Vec<(usize, &Segment)> =
            shared.segments.iter().enumerate().filter(|(_, segment)| segment.generation() > 0).collect();
        segments.sort_unstable_by_key(|(_, segment)| std::cmp::Reverse(segment.generation()));
        for (number, segment) in segments {
            let end = segment.each(&mut |key, place| {
                if shared.place(key).is_none() {
                    shared.remember(key, Place { segment: number, ..place });
                }
                !shared.stopping.load(Ordering::SeqCst)
            })?;
            if number == self.current {
                self.end = end;
            }
        }
        Ok(())
    }

    fn keep(&mut self, key: Key, content: &[u8]) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let is_there = shared.place(key).is_some_and(|place| !shared.is_old(place.generation));
        if is_there || shared.is_off() {
            return Ok(());
        }
        let room = room_for(content.len());
        if room > shared.segment_bytes() / 2 {
            return Ok(());
        }
        if self.end.saturating_add(room) > shared.segment_bytes() {
            self.next_segment()?;
        }
        let Some(segment) = shared.segments.get(self.current) else { return Ok(()) };
        let place = segment.write(self.end, key, content)?;
        shared.remember(key, Place { segment: self.current, ..place });
        self.end += room;
        shared.counts.kept.fetch_add(1, Ordering::Relaxed);
        shared.counts.bytes_kept.fetch_add(content.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Drops the oldest segment and goes on there.
    fn next_segment(&mut self) -> io::Result<()> {
        let generation = self.shared.newest.load(Ordering::SeqCst) + 1;
        let oldest = (0..self.shared.segments.len()).min_by_key(|at| self.shared.segments.get(*at).map(Segment::generation)).unwrap_or(0);
        let Some(segment) = self.shared.segments.get(oldest) else { return Ok(()) };
        self.shared.newest.store(generation, Ordering::SeqCst);
        self.end = segment.begin(generation)?;
        self.current = oldest;
        Ok(())
    }
}

impl Shared {
    fn remember(&self, key: Key, place: Place) {
        let newest = super::table::low(self.newest.load(Ordering::SeqCst).into());
        let is_dropped = |generation: u32| newest.wrapping_sub(generation) as usize >= self.segments.len();
        self.lookup.lock().table.insert(key, place, newest, is_dropped);
    }
}
